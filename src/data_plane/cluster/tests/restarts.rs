//! A restart with what was committed: sessions, subscriptions, expiry (PRODUCT S-1, S-7). What messages
//! become of is in `durability`.

use super::packets::*;
use super::*;
use crate::data_plane::cluster::RecordOutcome;
use crate::data_plane::cluster::tests::records::Mode;
use crate::data_plane::protocol::SubscribeFilter;
use crate::model::OperatorExpiry;

#[test]
fn persistent_sessions_and_their_subscriptions_are_back() {
    let mut world = World::new();
    let online = world.connect(&v5("online").expiry(100));
    let options = SubscribeFilter { no_local: true, retain_as_published: true, ..wish("t/#", Q2) };
    world.send(online, &subscribe_as(1, Some(7), vec![options]));
    world.take(online);
    let offline = world.connect(&v3("offline"));
    world.subscribe(offline, "t/a", Q1);
    world.cut(offline);
    let _clean = world.connect(&v5("clean"));
    world.restart(5);
    assert_eq!(world.counts(), (0, 2));
    assert_eq!(world.cluster.subscription_count(), 2);
    assert_eq!(world.records.len(), 2, "what was to end with its connection has ended");
    let publisher = world.connect(&v5("p"));
    world.publish(publisher, retained("t/a", "x"));
    let (offline, present) = world.connect_present(&v3("offline"));
    assert!(present);
    assert_eq!(texts(&world.drain(offline)), ["x"]);
    let (online, present) = world.connect_present(&v5("online").expiry(100));
    assert!(present);
    let seen = world.drain(online);
    assert!(seen.len() == 1 && seen[0].retain && seen[0].properties.subscription_ids[0].get() == 7);
    world.publish(online, publish_at(Q1, 1, "t/b", "own"));
    assert_eq!(world.take(online), []);
    assert_eq!(world.records.row("online").map(|row| row.epoch), Some(Epoch(2)), "epochs go on");
    world.advance(2);
    assert_eq!(world.cluster.log.bytes(), 0);
}

#[test]
fn expiry_goes_on_while_the_service_is_down() {
    // S-7: by the clock
    let mut world = World::new();
    for (id, expiry) in [("a", 10), ("b", 60)] {
        let peer = world.connect(&v5(id).expiry(expiry));
        world.subscribe(peer, "t", Q1);
        world.cut(peer);
    }
    // Whoever was online begins its wait with the restart.
    let _c = world.connect(&v5("c").expiry(10));
    world.restart(10);
    assert_eq!(world.counts(), (0, 2));
    assert!(world.records.row("a").is_none());
    assert_eq!(world.cluster.subscription_count(), 1);
    world.advance(10);
    assert_eq!(world.counts(), (0, 1));
    world.advance(40);
    assert_eq!(world.counts(), (0, 0));
    assert_eq!(world.records.len(), 0);
}

#[test]
fn an_operators_order_is_restored() {
    let mut world = World::new();
    for id in ["longer", "shorter", "own"] {
        let peer = world.connect(&v5(id).expiry(50));
        world.cut(peer);
    }
    let at = world.now.wall.plus_secs(500);
    world.restart_with(10, |id| match id {
        "longer" => Some(OperatorExpiry::At(at)),
        "shorter" => Some(OperatorExpiry::Interval(10)),
        _ => None,
    });
    assert_eq!(world.counts(), (0, 2));
    world.advance(40);
    assert_eq!(world.counts(), (0, 1));
    let peer = world.knock(&v5("longer").expiry(50));
    let connack = world.connack(peer);
    assert!(connack.session_present && connack.session_expiry_secs == Some(450));
}

#[test]
fn what_was_not_committed_was_not_promised() {
    let mut world = World::new();
    let client = world.connect(&v5("c").expiry(100));
    world.records.mode = Mode::Late;
    let waiting = world.knock(&v5("new").expiry(100));
    world.send(client, &subscribe(1, vec![wish("t", Q1)]));
    assert_eq!((world.take(waiting), world.take(client)), (vec![], vec![]));
    world.restart(1);
    world.decide_records(RecordOutcome::Committed);
    world.records.mode = Mode::Prompt;
    assert_eq!(world.counts(), (0, 1));
    assert_eq!(world.cluster.subscription_count(), 0);
    assert!(!world.connect_present(&v5("new").expiry(100)).1);
    assert!(world.connect_present(&v5("c").expiry(100)).1);
}

#[test]
fn restored_sessions_count_against_the_quota() {
    // S-8
    let quota = QuotaOverrides { connections: Some(2), ..QuotaOverrides::default() };
    let mut world = World::with_quota(quota);
    for id in ["a", "b"] {
        let peer = world.connect(&v5(id).expiry(10));
        world.cut(peer);
    }
    world.restart(5);
    let peer = world.knock(&v5("c"));
    assert_eq!(world.connack(peer).reason, ReasonCode::QuotaExceeded);
    assert!(world.connect_present(&v5("a").expiry(10)).1);
    world.advance(5);
    world.connect(&v5("c"));
}

#[test]
fn a_clock_that_jumps_ends_what_is_due_by_it_and_no_connection() {
    let mut world = World::new();
    let online = world.connect(&v5("online").keep_alive(10).expiry(100));
    world.subscribe(online, "t", Q1);
    let offline = world.connect(&v5("offline").expiry(100).will(will("t", "due", 50)));
    world.cut(offline);
    let jump = |world: &mut World, secs: i64| {
        let wall = Timestamp::from_millis(world.now.wall.as_millis() + secs * 1_000);
        world.now = Now { wall, ..world.now };
        world.tick();
    };
    jump(&mut world, -3_600);
    assert_eq!(world.counts(), (1, 1), "back: nothing ends, nothing is due");
    assert_eq!(world.take(online), []);
    jump(&mut world, 3_600 + 60);
    assert_eq!(texts(&world.drain(online)), ["due"], "ahead: what is due by the clock");
    jump(&mut world, 60);
    assert_eq!(world.counts(), (1, 0));
    assert!(!world.is_closed(online), "keep-alive is measured by time that passes");
    jump(&mut world, -86_400);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t", Q1, 0..3);
    assert_eq!(texts(&world.drain(online)), numbers(0..3));
}
