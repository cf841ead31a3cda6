//! What waits for a session and is under way to it, as it is told (PRODUCT S-14).

use super::packets::*;
use super::*;
use crate::seam::backlog::{SessionTraffic, SubscriptionTraffic};

impl World {
    fn traffic(&mut self, client: &str) -> SessionTraffic {
        let known = self.cluster.traffic_of(&ClientId::new(client).expect("an id")).expect("a session");
        let on_disk = known.on_disk().map(|request| self.disk.count(request));
        known.complete(on_disk)
    }
}

/// How many wait, the position of the earliest, and the lag of each subscription.
fn waits(traffic: &SessionTraffic) -> (u64, Option<u64>, Vec<u64>) {
    assert!(traffic.backlog.is_complete);
    let oldest = traffic.backlog.oldest.and_then(|oldest| oldest.position).map(|seq| seq.0);
    (traffic.backlog.messages, oldest, traffic.subscriptions.iter().map(|it| it.lag).collect())
}

#[test]
fn a_sleeper_has_each_message_once_and_each_subscription_its_own() {
    for mut world in [World::new(), World::forgetful()] {
        let client = world.connect(&v5("c").expiry(1_000));
        for filter in ["t/#", "t/a", "u"] {
            world.subscribe(client, filter, Q1);
        }
        let publisher = world.connect(&v5("p").expiry(1_000));
        world.publish_numbers(publisher, "u", Q1, 0..1);
        assert_eq!(texts(&world.drain(client)), ["0"]);
        world.cut(client);
        assert_eq!(waits(&world.traffic("c")), (0, None, vec![0, 0, 0]));
        let began = world.now.wall;
        world.publish_numbers(publisher, "t/a", Q1, 0..3);
        world.publish_numbers(publisher, "t/b", Q1, 0..2);
        world.publish_numbers(publisher, "other", Q1, 0..2);
        let asleep = world.traffic("c");
        assert_eq!(waits(&asleep), (5, Some(2), vec![5, 3, 0]));
        assert_eq!(asleep.backlog.oldest.expect("one").published_at, Some(began));
        assert!(asleep.backlog.bytes >= 5 * 4, "{asleep:?}");
        assert_eq!((asleep.in_flight, asleep.counters.sent), (0, 1));
        world.restart(1);
        assert_eq!(waits(&world.traffic("c")), (5, Some(2), vec![5, 3, 0]));
        let client = world.connect(&v5("c").expiry(1_000));
        assert_eq!(world.drain(client).len(), 5);
        assert_eq!(waits(&world.traffic("c")), (0, None, vec![0, 0, 0]));
    }
}

#[test]
fn a_session_at_the_end_of_the_log_asks_the_disk_nothing() {
    let mut world = World::forgetful();
    let client = world.connect(&v5("c").expiry(1_000));
    world.subscribe(client, "t", Q1);
    let other = world.connect(&v5("asleep").expiry(1_000));
    world.subscribe(other, "t", Q1);
    world.cut(other);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t", Q1, 0..3);
    let asks = |world: &World, client: &str| {
        let known = world.cluster.traffic_of(&ClientId::new(client).expect("an id"));
        known.expect("a session").on_disk().is_some()
    };
    assert!(!asks(&world, "c") && asks(&world, "asleep"));
    let missing = world.cluster.traffic_of(&ClientId::new("nobody").expect("an id"));
    assert_eq!(missing.map(drop), Err(CommandError::NoSuchSession));
}

#[test]
fn what_the_disk_does_not_tell_is_not_made_up() {
    let mut world = World::forgetful();
    let client = world.connect(&v5("c").expiry(1_000));
    world.subscribe(client, "t", Q1);
    world.cut(client);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t", Q1, 0..3);
    let known = world.cluster.traffic_of(&ClientId::new("c").expect("an id")).expect("a session");
    let told = known.complete(None);
    assert!(!told.backlog.is_complete && told.backlog.oldest.is_none(), "{told:?}");
}

#[test]
fn what_is_under_way_is_told_apart_from_what_waits() {
    let mut world = World::new();
    let hello = v5("c").expiry(1_000).receive_maximum(2);
    let client = world.connect(&hello);
    world.subscribe(client, "t", Q1);
    world.subscribe(client, "u", Q1);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t", Q1, 0..5);
    let in_flight = |traffic: &SessionTraffic| -> Vec<_> {
        traffic.subscriptions.iter().map(|SubscriptionTraffic { in_flight, .. }| *in_flight).collect()
    };
    let live = world.traffic("c");
    assert_eq!((waits(&live), live.in_flight), ((3, Some(3), vec![3, 0]), 2));
    assert_eq!(in_flight(&live), [Some(2), Some(0)]);
    world.cut(client);
    let asleep = world.traffic("c");
    assert_eq!((waits(&asleep).0, asleep.in_flight), (3, 2));
    assert_eq!(in_flight(&asleep), [None, None], "their messages are not at hand");
}

#[test]
fn a_groups_messages_are_its_lag_and_nobodys_backlog() {
    for mut world in [World::new(), World::forgetful()] {
        let member = world.connect(&v5("c").expiry(1_000).receive_maximum(1));
        world.subscribe(member, "$share/g/t", Q1);
        world.subscribe(member, "u", Q1);
        let publisher = world.connect(&v5("p").expiry(1_000));
        world.publish_numbers(publisher, "t", Q1, 0..4);
        let online = world.traffic("c");
        assert_eq!((waits(&online), online.in_flight), ((0, None, vec![3, 0]), 1));
        assert_eq!(online.subscriptions[0].in_flight, Some(1));
        world.cut(member);
        world.publish_numbers(publisher, "u", Q1, 0..2);
        let asleep = world.traffic("c");
        let (messages, _, lag) = waits(&asleep);
        assert_eq!((messages, lag, asleep.in_flight), (2, vec![4, 2], 0), "given back to the group");
    }
}

#[test]
fn a_session_that_ends_with_its_connection_has_its_queue() {
    let mut world = World::new();
    let client = world.connect(&v5("c").receive_maximum(1));
    world.subscribe(client, "t", Q1);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t", Q1, 0..4);
    let traffic = world.traffic("c");
    assert_eq!((waits(&traffic), traffic.in_flight), ((3, None, vec![3]), 1));
    let oldest = traffic.backlog.oldest.expect("one");
    assert_eq!((oldest.position, oldest.published_at), (None, Some(world.now.wall)));
}
