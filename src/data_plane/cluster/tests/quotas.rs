//! The connection quota is exact (PRODUCT S-8), and so are those of subscriptions and
//! of shared groups.

use super::packets::*;
use super::records::Mode;
use super::*;
use crate::data_plane::cluster::RecordOutcome;
use crate::model::RefusalReason;

fn capped(connections: u32) -> World {
    World::with_quota(QuotaOverrides { connections: Some(connections), ..QuotaOverrides::default() })
}

fn refused(world: &mut World, hello: &Hello) -> ConnAck {
    let before = world.counts();
    let peer = world.knock(hello);
    let connack = world.connack(peer);
    assert!(world.is_closed(peer));
    assert_ne!(connack.reason, ReasonCode::Success);
    assert_eq!(world.counts(), before, "a refusal takes no place");
    connack
}

fn over(world: &mut World, hello: &Hello, limit: u32) {
    let connack = refused(world, hello);
    assert_eq!(connack.reason, ReasonCode::QuotaExceeded);
    let why = format!("quota connections: limit {limit}, in use {limit}");
    assert_eq!(connack.reason_string.as_deref(), Some(&*why));
}

#[test]
fn online_and_offline_sessions_take_the_places_and_a_new_client_is_refused() {
    let mut world = capped(3);
    let _online = world.connect(&v5("online"));
    let offline = world.connect(&v5("offline").expiry(100));
    world.cut(offline);
    let _clean = world.connect(&v3("clean").clean());
    assert_eq!(world.counts(), (2, 1));
    over(&mut world, &v5("new"), 3);
    over(&mut world, &v5("new").clean(), 3);
    over(&mut world, &v5("").clean(), 3);
    for hello in [v3("new"), v31("new").clean()] {
        assert_eq!(refused(&mut world, &hello).reason, ReasonCode::ServerUnavailable, "return code 3");
    }
}

#[test]
fn a_known_client_gets_in_at_the_cap() {
    let mut world = capped(2);
    let online = world.connect(&v5("online").expiry(100));
    let offline = world.connect(&v5("offline").expiry(100));
    world.cut(offline);
    assert!(world.connect_present(&v5("offline").expiry(100)).1, "resume");
    assert!(world.connect_present(&v5("online").expiry(100)).1, "takeover");
    assert!(world.is_closed(online));
    assert!(!world.connect_present(&v5("online").clean()).1, "clean start, online");
    world.advance(1);
    assert!(!world.connect_present(&v3("online").clean()).1, "takeover of a clean session");
    assert_eq!(world.counts(), (2, 0));
    over(&mut world, &v5("new"), 2);
    // Far above a cap that was lowered.
    world.change_rules(|rules| rules.quota.connections = Some(1));
    assert!(world.connect_present(&v5("offline").expiry(100)).1);
    let connack = refused(&mut world, &v5("new"));
    assert_eq!(connack.reason_string.as_deref(), Some("quota connections: limit 1, in use 2"));
}

#[test]
fn a_place_is_free_the_moment_a_session_ends() {
    let mut world = capped(1);
    let clean = world.connect(&v5("a"));
    over(&mut world, &v5("b"), 1);
    world.cut(clean);
    let clean = world.connect(&v5("b"));
    world.leave(clean);
    let persistent = world.connect(&v5("c").expiry(10));
    world.cut(persistent);
    over(&mut world, &v5("d"), 1);
    // By the clock, with nothing in between.
    world.now.wall = world.now.wall.plus_secs(10);
    let last = world.connect(&v5("d").expiry(10));
    world.send(last, &goodbye(ReasonCode::Success, Some(0)));
    assert_eq!(world.counts(), (0, 0));
    world.connect(&v5("e"));
}

#[test]
fn counts_follow_the_clock() {
    // S-7: in every count
    let mut world = World::new();
    for (id, expiry) in [("a", 10), ("b", 20), ("c", 30)] {
        let peer = world.connect(&v5(id).expiry(expiry));
        world.cut(peer);
    }
    for left in (0..=3).rev() {
        assert_eq!(world.counts(), (0, left));
        world.now.wall = world.now.wall.plus_secs(10);
    }
}

#[test]
fn a_connect_that_waits_for_its_record_takes_a_place() {
    let mut world = capped(2);
    world.records.mode = Mode::Late;
    let waiting = world.knock(&v5("a").expiry(100));
    assert_eq!(world.take(waiting), []);
    assert_eq!(world.counts(), (1, 0));
    let second = world.knock(&v5("b").expiry(100));
    over(&mut world, &v5("c"), 2);
    over(&mut world, &v5("c").expiry(100), 2);
    // Its own client may come again.
    let again = world.knock(&v5("a").expiry(100));
    assert!(world.is_closed(waiting) && !world.is_closed(again));
    assert_eq!(world.counts(), (2, 0));
    // One that the store refuses gives its place back.
    world.decide_records(RecordOutcome::Refused);
    assert_eq!(world.connack(second).reason, ReasonCode::ServerUnavailable);
    assert_eq!(world.counts(), (0, 0));
    // One that goes away while it waits, too: it was never told that it has a session.
    let waiting = world.knock(&v5("a").expiry(100));
    world.cut(waiting);
    assert_eq!(world.counts(), (0, 0));
    world.decide_records(RecordOutcome::Committed);
    assert_eq!((world.counts(), world.records.len()), ((0, 0), 0));
}

#[test]
fn an_expired_session_of_the_same_client_at_the_cap_is_no_claim() {
    let mut world = capped(1);
    let peer = world.connect(&v5("a").expiry(10));
    world.cut(peer);
    world.advance(10);
    world.connect(&v5("b").expiry(10));
    over(&mut world, &v5("a").expiry(10), 1);
}

#[test]
fn filters_over_a_quota_are_refused_one_by_one() {
    // [MQTT-3.9.3-1]
    use ReasonCode::{GrantedQoS1, QuotaExceeded};
    let quota =
        QuotaOverrides { subscriptions: Some(3), filters_per_client: Some(2), ..QuotaOverrides::default() };
    let mut world = World::with_quota(quota);
    let one = world.connect(&v5("one").expiry(100));
    world.send(one, &subscribe(1, vec![wish("a", Q1), wish("b", Q1), wish("c", Q1), wish("a", Q1)]));
    let suback = world.suback(one);
    assert_eq!(suback.reasons, [GrantedQoS1, GrantedQoS1, QuotaExceeded, GrantedQoS1]);
    assert_eq!(suback.reason_string.as_deref(), Some("quota filters_per_client: limit 2, in use 2"));
    let two = world.connect(&v3("two"));
    world.send(two, &subscribe(1, vec![wish("a", Q1), wish("b", Q1)]));
    assert_eq!(world.suback(two).reasons, [GrantedQoS1, ReasonCode::UnspecifiedError], "v3: 0x80");
    assert_eq!(world.cluster.subscription_count(), 3);
    world.send(one, &unsubscribe(2, &["a"]));
    world.take(one);
    world.subscribe(two, "b", Q1);
    assert_eq!(world.cluster.subscription_count(), 3);
}

/// At most two share names, two filters under each and two members.
fn sharing() -> World {
    World::with_quota(QuotaOverrides {
        shared_groups: Some(2),
        filters_per_shared_group: Some(2),
        members_per_shared_group: Some(2),
        ..QuotaOverrides::default()
    })
}

#[test]
fn shared_groups_over_a_quota_are_refused_filter_by_filter() {
    //
    use ReasonCode::{GrantedQoS1, QuotaExceeded};
    let mut world = sharing();
    let one = world.connect(&v5("one").expiry(100));
    let wishes = ["$share/g/a", "$share/g/b", "$share/g/c", "$share/h/a", "$share/i/a", "plain"];
    world.send(one, &subscribe(1, wishes.iter().map(|filter| wish(filter, Q1)).collect()));
    let suback = world.suback(one);
    let granted = [GrantedQoS1, GrantedQoS1, QuotaExceeded, GrantedQoS1, QuotaExceeded, GrantedQoS1];
    assert_eq!(suback.reasons, granted);
    assert_eq!(suback.reason_string.as_deref(), Some("quota shared_groups: limit 2, in use 2"));
    let refused: Vec<_> =
        std::mem::take(&mut world.refusals).into_iter().map(|refusal| refusal.reason).collect();
    assert_eq!(refused, [RefusalReason::FiltersPerSharedGroup, RefusalReason::SharedGroups]);

    let two = world.connect(&v3("two"));
    world.subscribe(two, "$share/g/a", Q1);
    let three = world.connect(&v3("three"));
    world.send(three, &subscribe(1, vec![wish("$share/g/a", Q1), wish("$share/h/a", Q1)]));
    assert_eq!(world.suback(three).reasons, [ReasonCode::UnspecifiedError, GrantedQoS1], "v3: 0x80");
    let [refused] = &world.refusals[..] else { panic!("one refusal") };
    assert_eq!(refused.reason, RefusalReason::MembersPerSharedGroup);
    assert_eq!(refused.detail, "quota members_per_shared_group: limit 2, in use 2");
    assert_eq!(world.cluster.share_name_count(), 2);
}

#[test]
fn places_in_shared_groups_follow_the_sessions() {
    let mut world = sharing();
    let one = world.connect(&v5("one").expiry(100));
    world.subscribe(one, "$share/g/a", Q1);
    let clean = world.connect(&v5("clean"));
    world.subscribe(clean, "$share/h/a", Q1);
    world.cut(one);
    let refused = |world: &mut World, client: &str, filter: &str| {
        let peer = world.connect(&v5(client));
        world.send(peer, &subscribe(1, vec![wish(filter, Q1)]));
        let refused = world.suback(peer).reasons == [ReasonCode::QuotaExceeded];
        world.cut(peer);
        refused
    };
    // An offline member counts; one that ends with its connection, or expires, does not.
    assert!(refused(&mut world, "x", "$share/i/a"));
    world.cut(clean);
    assert!(!refused(&mut world, "x", "$share/i/a"));
    let h = world.connect(&v5("h").expiry(1_000));
    world.subscribe(h, "$share/h/a", Q1);
    assert!(refused(&mut world, "x", "$share/i/a"));
    world.advance(100);
    assert!(!refused(&mut world, "x", "$share/i/a"));
    // So does one that unsubscribes.
    world.subscribe(h, "$share/i/a", Q1);
    assert!(refused(&mut world, "x", "$share/k/a"));
    world.send(h, &unsubscribe(2, &["$share/i/a"]));
    world.take(h);
    assert!(!refused(&mut world, "x", "$share/k/a"));
}

#[test]
fn a_restart_counts_what_was_shared() {
    let mut world = sharing();
    for client in ["a", "b"] {
        let peer = world.connect(&v5(client).expiry(100));
        world.subscribe(peer, "$share/g/t", Q1);
    }
    world.restart(5);
    assert_eq!(world.cluster.share_name_count(), 1);
    let third = world.connect(&v5("c"));
    world.send(third, &subscribe(1, vec![wish("$share/g/t", Q1)]));
    assert_eq!(world.suback(third).reasons, [ReasonCode::QuotaExceeded]);
}

#[test]
fn a_lower_limit_cuts_no_shared_group_and_grants_none() {
    let mut world = sharing();
    let one = world.connect(&v5("one").expiry(100));
    for filter in ["$share/g/a", "$share/g/b", "$share/h/a"] {
        world.subscribe(one, filter, Q1);
    }
    world.change_rules(|rules| {
        rules.quota.shared_groups = Some(1);
        rules.quota.filters_per_shared_group = Some(1);
        rules.quota.members_per_shared_group = Some(1);
    });
    assert_eq!(world.cluster.share_name_count(), 2);
    // What a session has it may ask for again, with other options.
    world.send(one, &subscribe(5, vec![wish("$share/g/a", Q0), wish("$share/g/c", Q0)]));
    assert_eq!(world.suback(one).reasons, [ReasonCode::Success, ReasonCode::QuotaExceeded]);
}
