//! Admission checks: what they say is what a CONNECT then meets, and they use nothing up.

use super::packets::*;
use super::*;
use crate::model::{Flapping, RateOverrides, RefusalReason};
use crate::seam::admission::{AdmissionQuestion, Admitted, Measure};

fn question(client_id: &str, protocol: ProtocolVersion) -> AdmissionQuestion {
    AdmissionQuestion {
        client_id: client_id.to_owned(),
        username: None,
        protocol,
        clean_start: false,
        session_expiry_secs: None,
        ip: None,
        has_will: false,
    }
}

/// Asks, sees that nothing has changed, and gives the verdict: how it would be let in, or code, return code and reason.
fn check(
    world: &mut World,
    question: &AdmissionQuestion,
) -> Result<Admitted, (u8, u8, RefusalReason, Option<Measure>)> {
    world.cluster.time_passes(world.now);
    let before = world.counts();
    let verdict = world.cluster.check_admission(world.now, question);
    assert_eq!(world.cluster.check_admission(world.now, question), verdict, "asked twice");
    world.settle();
    assert_eq!((world.counts(), world.refusals.len()), (before, 0), "it changes nothing");
    verdict.outcome.map_err(|refused| (refused.code_v5, refused.code_v3, refused.reason, refused.measure))
}

#[test]
fn it_says_what_a_connect_then_meets() {
    let mut world = World::with_quota(QuotaOverrides {
        connections: Some(2),
        rates: RateOverrides { connects_with_will: Some(1), ..RateOverrides::default() },
        ..QuotaOverrides::default()
    });
    let [v5_new, v3_new] = [ProtocolVersion::V5, ProtocolVersion::V3_1_1].map(|v| question("new", v));
    let admitted = |present, secs| Ok(Admitted { session_present: present, session_expiry_secs: secs });
    assert_eq!(check(&mut world, &v5_new), admitted(false, 0));
    assert_eq!(check(&mut world, &v3_new), admitted(false, 259_200));
    let long = AdmissionQuestion { session_expiry_secs: Some(u32::MAX), ..v5_new.clone() };
    assert_eq!(check(&mut world, &long), admitted(false, 259_200));

    let with_will = AdmissionQuestion { has_will: true, ..v5_new.clone() };
    for _ in 0..10 {
        assert!(check(&mut world, &with_will).is_ok(), "it uses up no rate");
    }
    world.connect(&v5("a").expiry(100).will(will("w", "x", 0)));
    let measure = Some(Measure { limit: 1, in_use: 1 });
    let refused = (0x9F, 3, RefusalReason::ConnectsWithWillPerSecond, measure);
    assert_eq!(check(&mut world, &with_will), Err(refused));

    let offline = world.connect(&v3("b"));
    world.cut(offline);
    let measure = Some(Measure { limit: 2, in_use: 2 });
    let refused = (0x97, 3, RefusalReason::Connections, measure);
    assert_eq!(check(&mut world, &v5_new), Err(refused));
    let known = question("b", ProtocolVersion::V5);
    assert_eq!(check(&mut world, &known), admitted(true, 0));
    let clean = AdmissionQuestion { clean_start: true, ..known.clone() };
    assert_eq!(check(&mut world, &clean), admitted(false, 0));
    // By the clock.
    world.now.wall = world.now.wall.plus_secs(259_200);
    world.now.mono = world.now.mono.plus_millis(259_200_000);
    assert_eq!(check(&mut world, &known), admitted(false, 0));
    let session = world.cluster.check_admission(world.now, &known).session;
    assert_eq!(session, None);
}

#[test]
fn each_rule_has_its_code_in_both_versions() {
    let mut world = World::new();
    let nobody = question("", ProtocolVersion::V3_1_1);
    assert_eq!(check(&mut world, &nobody), Err((0x85, 2, RefusalReason::ClientIdInvalid, None)));
    let of_v31 = question(&"x".repeat(24), ProtocolVersion::V3_1);
    assert_eq!(check(&mut world, &of_v31), Err((0x85, 2, RefusalReason::ClientIdInvalid, None)));
    let anyone = question("a", ProtocolVersion::V5);
    world.change_rules(|rules| rules.allow_anonymous = false);
    assert_eq!(check(&mut world, &anyone), Err((0x87, 5, RefusalReason::AnonymousNotAllowed, None)));
    let named = AdmissionQuestion { username: Some("ada".to_owned()), ..anyone.clone() };
    assert_eq!(check(&mut world, &named), Err((0x86, 4, RefusalReason::BadCredentials, None)));
    world.change_rules(|rules| rules.status = ClusterStatus::Suspended);
    assert_eq!(check(&mut world, &anyone), Err((0x88, 3, RefusalReason::ClusterSuspended, None)));
    world.change_rules(|rules| {
        (rules.status, rules.allow_anonymous) = (ClusterStatus::Active, true);
        rules.quota.flapping = Flapping { connects: 1, window_secs: 10, hold_secs: 10 };
    });
    world.connect(&v5("a"));
    let measure = Some(Measure { limit: 1, in_use: 1 });
    assert_eq!(check(&mut world, &anyone), Err((0x9F, 3, RefusalReason::Flapping, measure)));
    // To ask is not to come: when the window is over it is let in.
    world.advance(10);
    assert!(check(&mut world, &anyone).is_ok());
}
