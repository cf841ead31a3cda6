//! Shared subscriptions (MQTT 5.0, 4.8.2; PRODUCT S-4).

use std::collections::{BTreeMap, BTreeSet};

use super::packets::*;
use super::*;
use crate::model::SharedStrategy;

const SHARE: &str = "$share/g/t/#";

/// What each of these clients has got, acknowledging everything.
fn drain_all(world: &mut World, peers: &[Peer]) -> Vec<Vec<String>> {
    peers.iter().map(|peer| texts(&world.drain(*peer))).collect()
}

fn members(world: &mut World, hellos: &[Hello], qos: QoS) -> Vec<Peer> {
    let join = |hello: &Hello| {
        let peer = world.connect(hello);
        world.subscribe(peer, SHARE, qos);
        peer
    };
    hellos.iter().map(join).collect()
}

/// Everything once, in some order.
fn assert_once(seen: &[Vec<String>], range: std::ops::Range<usize>) {
    let mut all: Vec<String> = seen.iter().flatten().cloned().collect();
    all.sort_by_key(|text| text.parse::<usize>().expect("a number"));
    assert_eq!(all, numbers(range));
}

#[test]
fn each_message_goes_to_one_member_of_any_version_and_all_get_some() {
    for qos in [Q0, Q1, Q2] {
        let mut world = World::new();
        let hellos = [v5("five"), v3("three").clean(), v31("old")];
        let peers = members(&mut world, &hellos, qos);
        let other = world.connect(&v5("other"));
        world.subscribe(other, "$share/h/t/+", qos);
        let plain = world.connect(&v5("plain"));
        world.subscribe(plain, "t/1", qos);
        let publisher = world.connect(&v5("p"));
        world.publish_numbers(publisher, "t/1", Q2, 0..60);
        let seen = drain_all(&mut world, &peers);
        assert_once(&seen, 0..60);
        assert!(seen.iter().all(|texts| texts.len() > 5), "{seen:?}");
        for (peer, expected) in [(other, "another group has all"), (plain, "who does not share has all")] {
            assert_eq!(texts(&world.drain(peer)), numbers(0..60), "{expected}");
        }
    }
}

#[test]
fn what_a_leaving_member_has_not_acknowledged_goes_to_the_others_at_once() {
    // [MQTT-4.8.2-6]
    for hello in [v5("gone").expiry(100), v5("gone"), v3("gone")] {
        let mut world = World::new();
        let gone = members(&mut world, &[hello], Q1)[0];
        let publisher = world.connect(&v5("p"));
        world.publish_numbers(publisher, "t/1", Q1, 0..5);
        let others = members(&mut world, &[v5("a").expiry(100), v3("b")], Q1);
        assert_eq!(drain_all(&mut world, &others), [[""; 0]; 2]);
        world.cut(gone);
        assert_once(&drain_all(&mut world, &others), 0..5);
        world.advance(2);
        assert_eq!(world.cluster.log.bytes(), 0);
    }
}

#[test]
fn a_member_that_returns_gets_new_ones_and_none_that_another_has_had() {
    let mut world = World::new();
    let hello = v5("a").expiry(100);
    let peers = members(&mut world, &[hello.clone(), v5("b").expiry(100)], Q1);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t/1", Q1, 0..10);
    world.cut(peers[0]);
    assert_once(&[texts(&world.drain(peers[1]))], 0..10);
    let back = world.connect(&hello);
    assert_eq!(world.take(back), []);
    world.cut(peers[1]);
    world.publish_numbers(publisher, "t/1", Q1, 10..20);
    assert_eq!(texts(&world.drain(back)), (10..20).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn qos_2_stays_with_its_member_until_that_returns() {
    // [MQTT-4.8.2-4]
    let mut world = World::new();
    let hello = v5("a").expiry(100);
    let first = members(&mut world, std::slice::from_ref(&hello), Q2)[0];
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t/1", Q2, 0..3);
    let other = members(&mut world, &[v5("b").expiry(100)], Q2)[0];
    world.cut(first);
    assert_eq!(world.take(other), []);
    let first = world.connect(&hello);
    assert_eq!(texts(&world.drain(first)), numbers(0..3));
    assert_eq!(world.take(other), []);
    world.advance(2);
    assert_eq!(world.cluster.log.bytes(), 0);
}

#[test]
fn with_nobody_online_the_position_waits_for_the_first_to_return() {
    let mut world = World::new();
    let hellos = [v5("a").expiry(100), v3("b")];
    for peer in members(&mut world, &hellos, Q1) {
        world.cut(peer);
    }
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t/1", Q1, 0..40);
    let back = world.connect(&hellos[1]);
    assert_eq!(texts(&world.drain(back)), numbers(0..40), "in order");
    let other = world.connect(&hellos[0]);
    assert_eq!(world.take(other), []);
    world.advance(2);
    assert_eq!(world.cluster.log.bytes(), 0);
}

#[test]
fn a_group_lives_as_long_as_one_unexpired_member() {
    let mut world = World::new();
    let short = members(&mut world, &[v5("short").expiry(10)], Q1)[0];
    let long = members(&mut world, &[v5("long").expiry(100)], Q1)[0];
    let publisher = world.connect(&v5("p"));
    world.cut(short);
    world.cut(long);
    world.publish_numbers(publisher, "t/1", Q1, 0..3);
    world.advance(10);
    assert_eq!(world.counts(), (1, 1));
    let new = members(&mut world, &[v5("new").expiry(10)], Q1)[0];
    assert_eq!(texts(&world.drain(new)), numbers(0..3), "the position waited");
    world.cut(new);
    world.publish_numbers(publisher, "t/1", Q1, 3..6);
    // The last of them expires, and the group with what waited for it; the next one begins now.
    world.advance(100);
    assert_eq!(world.counts(), (1, 0));
    assert_eq!(world.cluster.subscription_count(), 0);
    world.advance(2);
    assert_eq!(world.cluster.log.bytes(), 0);
    let first = members(&mut world, &[v5("first")], Q1)[0];
    assert_eq!(world.take(first), []);
    world.publish_numbers(publisher, "t/1", Q1, 6..7);
    assert_eq!(texts(&world.drain(first)), ["6"]);
}

#[test]
fn a_member_without_room_passes_its_turn_to_one_that_has_some() {
    let mut world = World::new();
    let peers = members(&mut world, &[v5("a").receive_maximum(1), v5("b").receive_maximum(3)], Q1);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t/1", Q1, 0..6);
    assert_eq!(world.socket(peers[0]).inbox.len() + world.socket(peers[1]).inbox.len(), 4);
    let seen = drain_all(&mut world, &peers);
    let rest = drain_all(&mut world, &peers);
    assert_once(&[seen, rest].concat(), 0..6);
}

/// Which member each topic's or publisher's messages went to.
fn owners(world: &mut World, peers: &[Peer], publishers: &[Peer]) -> BTreeMap<String, BTreeSet<usize>> {
    let mut owners: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for _ in 0..3 {
        for (at, publisher) in publishers.iter().enumerate() {
            for topic in 0..10 {
                let (topic, text) = (format!("t/{topic}"), format!("{topic}@{at}"));
                world.publish(*publisher, publish_at(Q1, 1, &topic, &text));
            }
        }
    }
    // One whose window is full holds up the others' messages behind its own.
    loop {
        let seen = drain_all(world, peers);
        if seen.iter().all(Vec::is_empty) {
            return owners;
        }
        for (at, seen) in seen.into_iter().enumerate() {
            for text in seen {
                owners.entry(text).or_default().insert(at);
            }
        }
    }
}

#[test]
fn a_hash_strategy_keeps_a_topic_or_a_publisher_with_its_member() {
    for strategy in [SharedStrategy::HashTopic, SharedStrategy::HashClientId] {
        let mut world = World::new();
        world.change_rules(|rules| rules.shared_strategy = strategy);
        let peers = members(&mut world, &[v5("a"), v5("b"), v3("c")], Q1);
        let publishers: Vec<Peer> = (0..10).map(|n| world.connect(&v5(&format!("p{n}")))).collect();
        let mut by_key: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for (text, members) in owners(&mut world, &peers, &publishers) {
            let (topic, publisher) = text.split_once('@').expect("both");
            let key = if strategy == SharedStrategy::HashTopic { topic } else { publisher };
            by_key.entry(key.to_owned()).or_default().extend(members);
        }
        assert_eq!(by_key.len(), 10);
        assert!(by_key.values().all(|members| members.len() == 1), "{strategy:?}: {by_key:?}");
        let used: BTreeSet<usize> = by_key.into_values().flatten().collect();
        assert!(used.len() > 1, "{strategy:?}: one member has all");
    }
}

#[test]
fn a_change_of_strategy_holds_for_the_next_message_of_a_live_group() {
    let mut world = World::new();
    let peers = members(&mut world, &[v5("a"), v5("b"), v5("c")], Q1);
    let publisher = [world.connect(&v5("p"))];
    let spread =
        |world: &mut World| owners(world, &peers, &publisher).values().filter(|o| o.len() > 1).count();
    assert!(spread(&mut world) > 0, "at random, three of a topic rarely all meet");
    world.change_rules(|rules| rules.shared_strategy = SharedStrategy::HashTopic);
    assert_eq!(spread(&mut world), 0);
    world.change_rules(|rules| rules.shared_strategy = SharedStrategy::Random);
    assert!(spread(&mut world) > 0);
}

#[test]
fn what_waits_for_its_member_may_go_to_any_once_the_strategy_is_random() {
    let mut world = World::new();
    world.change_rules(|rules| rules.shared_strategy = SharedStrategy::HashTopic);
    let peers = members(&mut world, &[v5("a").receive_maximum(1), v5("b").receive_maximum(1)], Q1);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t/1", Q1, 0..2);
    let arrived =
        |world: &mut World| -> usize { peers.iter().map(|peer| world.socket(*peer).inbox.len()).sum() };
    assert_eq!(arrived(&mut world), 1);
    world.change_rules(|rules| rules.shared_strategy = SharedStrategy::Random);
    assert_eq!(arrived(&mut world), 2);
}

#[test]
fn a_hash_waits_for_its_member_a_little_and_then_moves_on() {
    let mut world = World::new();
    world.change_rules(|rules| rules.shared_strategy = SharedStrategy::HashTopic);
    let hellos = [v5("a").expiry(100), v5("b").expiry(100)];
    let peers = members(&mut world, &hellos, Q1);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t/1", Q1, 0..5);
    let owner = usize::from(world.socket(peers[0]).inbox.is_empty());
    // A change of networks: nobody else gets what is its own.
    world.take(peers[owner]);
    world.cut(peers[owner]);
    world.advance(5);
    assert_eq!(world.take(peers[1 - owner]), []);
    let back = world.connect(&hellos[owner]);
    assert_eq!(texts(&world.take_publishes(back)), numbers(0..5), "and all of it is still its own");
    world.cut(back);
    world.publish_numbers(publisher, "t/1", Q1, 5..10);
    assert_eq!(world.take(peers[1 - owner]), []);
    world.advance(11);
    let mut seen = texts(&world.drain(peers[1 - owner]));
    seen.sort();
    assert_eq!(seen, numbers(0..10), "given back and new");
    let back = world.connect(&hellos[owner]);
    world.publish_numbers(publisher, "t/1", Q1, 10..12);
    assert_eq!(texts(&world.drain(back)), ["10", "11"], "and back with it");
}
