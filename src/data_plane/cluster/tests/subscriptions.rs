//! Subscriptions: overlapping, replaced, given up (MQTT 5.0, 3.3.4, 3.8.4, 3.10.4; PRODUCT S-1).

use std::num::NonZeroU32;

use super::packets::*;
use super::*;
use crate::data_plane::protocol::SubscribeFilter;
use crate::model::RetainHandling;

fn identifiers(publish: &Publish) -> Vec<u32> {
    let mut ids: Vec<u32> =
        publish.properties.subscription_ids.iter().copied().map(NonZeroU32::get).collect();
    ids.sort_unstable();
    ids
}

fn only(mut publishes: Vec<Publish>) -> Publish {
    assert_eq!(publishes.len(), 1, "{publishes:?}");
    publishes.remove(0)
}

#[test]
fn overlapping_subscriptions_give_one_delivery_at_the_highest_qos_with_all_identifiers() {
    // [MQTT-3.3.4-2] to [MQTT-3.3.4-5]; live, queued for a clean session, and from the log
    for (hello, offline) in [(v5("s").expiry(100), false), (v5("s"), false), (v5("s").expiry(100), true)] {
        let mut world = World::new();
        let subscriber = world.connect(&hello);
        for (n, text, qos) in [(1, "a/#", Q0), (2, "a/+", Q2), (3, "a/b", Q1), (4, "x", Q2), (2, "#", Q0)] {
            world.send(subscriber, &subscribe_as(9, Some(n), vec![wish(text, qos)]));
        }
        world.take(subscriber);
        if offline {
            world.cut(subscriber);
        }
        let publisher = world.connect(&v5("p"));
        world.publish(publisher, publish_at(Q2, 1, "a/b", "2"));
        world.publish(publisher, publish_at(Q1, 1, "a/b", "1"));
        let subscriber = if offline { world.connect(&hello) } else { subscriber };
        let seen = world.drain(subscriber);
        assert_eq!(texts(&seen), ["2", "1"]);
        assert_eq!((seen[0].qos, seen[1].qos), (Q2, Q1), "never above the publisher's");
        assert_eq!(identifiers(&seen[0]), [1, 2, 2, 3]);
        if !offline {
            world.publish(publisher, publish("a/b", "0"));
            let live = only(world.drain(subscriber));
            assert_eq!((live.qos, identifiers(&live)), (Q0, vec![1, 2, 2, 3]));
        }
    }
}

#[test]
fn a_v3_client_gets_overlapping_subscriptions_as_one_delivery() {
    let mut world = World::new();
    let subscriber = world.connect(&v3("s"));
    world.subscribe(subscriber, "a/#", Q1);
    world.subscribe(subscriber, "a/+", Q0);
    let publisher = world.connect(&v5("p"));
    world.publish(publisher, publish_at(Q2, 1, "a/b", "x"));
    assert_eq!(only(world.drain(subscriber)).qos, Q1);
}

#[test]
fn no_local_keeps_a_clients_own_messages_from_it_and_only_those() {
    // [MQTT-3.8.3-3]; live and from the log
    let mut world = World::new();
    let no_local = |text| SubscribeFilter { no_local: true, ..wish(text, Q1) };
    let mine = world.connect(&v5("mine").expiry(100));
    world.send(mine, &subscribe(1, vec![no_local("t/#")]));
    world.take(mine);
    let other = world.connect(&v5("other").expiry(100));
    world.send(other, &subscribe(1, vec![no_local("t/#")]));
    world.take(other);
    world.cut(other);
    world.publish(mine, publish_at(Q1, 1, "t/1", "1"));
    world.publish(mine, publish("t/1", "0"));
    assert_eq!(world.take(mine), []);
    let other = world.connect(&v5("other").expiry(100));
    assert_eq!(texts(&world.drain(other)), ["1"]);
    // What was passed over is consumed: neither kept nor sent when the option is taken back.
    world.advance(2);
    assert_eq!(world.cluster.log.bytes(), 0);
    world.publish(mine, publish_at(Q1, 1, "t/1", "2"));
    world.send(mine, &subscribe(2, vec![wish("t/#", Q1)]));
    world.suback(mine);
    assert_eq!(world.take(mine), []);
    world.cut(mine);
    let mine = world.connect(&v5("mine").expiry(100));
    assert_eq!(world.take(mine), [], "what was not for it then is not for it now");
    // An overlapping subscription without the option gets it.
    world.send(mine, &subscribe(3, vec![no_local("t/#"), wish("t/3", Q1)]));
    world.take(mine);
    world.publish(mine, publish_at(Q1, 1, "t/3", "3"));
    assert_eq!(texts(&world.drain(mine)), ["3"]);
}

#[test]
fn subscribing_again_replaces_the_options() {
    // [MQTT-3.8.4-3]
    let mut world = World::new();
    let subscriber = world.connect(&v5("s").expiry(100));
    world.send(subscriber, &subscribe_as(1, Some(1), vec![wish("t", Q2)]));
    let again = SubscribeFilter { retain_as_published: true, ..wish("t", Q1) };
    world.send(subscriber, &subscribe_as(2, Some(7), vec![again]));
    world.take(subscriber);
    assert_eq!(world.cluster.subscription_count(), 1);
    assert_eq!(world.records.filters("s"), [("t".to_owned(), Q1)]);
    let publisher = world.connect(&v5("p"));
    world.publish(publisher, Publish { retain: true, ..publish_at(Q2, 1, "t", "x") });
    let seen = only(world.drain(subscriber));
    assert_eq!((seen.qos, seen.retain, identifiers(&seen)), (Q1, true, vec![7]));
    // Without an identifier: none.
    world.subscribe(subscriber, "t", Q1);
    let seen = world.drain(subscriber);
    assert_eq!(texts(&seen), ["x"], "retained, sent again");
    assert_eq!(identifiers(&seen[0]), [0_u32; 0]);
}

#[test]
fn a_message_that_came_at_qos_0_does_not_come_again_from_the_log() {
    // 4.3.1: at most once; it lies in the log for the filter with no local, which does not want it
    let mut world = World::new();
    let hello = v5("s").expiry(100).receive_maximum(1);
    let peer = world.connect(&hello);
    let own = SubscribeFilter { no_local: true, ..wish("t/#", Q1) };
    world.send(peer, &subscribe(1, vec![own, wish("t/+", Q0)]));
    world.suback(peer);
    let other = world.connect(&v5("other"));
    world.publish(other, publish_at(Q1, 1, "t/1", "first"));
    world.publish(other, publish_at(Q1, 1, "t/1", "second"));
    let first = world.take_publishes(peer);
    world.send(peer, &Packet::Publish(publish_at(Q1, 1, "t/1", "own")));
    let seen = world.take(peer);
    let own = seen
        .iter()
        .filter_map(|packet| if let Packet::Publish(publish) = packet { Some(text(publish)) } else { None });
    assert_eq!(own.collect::<Vec<_>>(), ["own"]);
    world.send(peer, &puback(first[0].packet_id.expect("QoS 1")));
    assert_eq!(texts(&world.drain(peer)), ["second"]);
}

#[test]
fn subscribing_again_loses_nothing_of_what_waits() {
    // [MQTT-3.8.4-4], whatever the new QoS
    for (before, after) in [(Q1, Q2), (Q2, Q1), (Q2, Q2), (Q1, Q0), (Q2, Q0)] {
        let mut world = World::new();
        let subscriber = world.connect(&v5("s").expiry(100).receive_maximum(2));
        world.subscribe(subscriber, "t", before);
        let publisher = world.connect(&v5("p"));
        world.publish_numbers(publisher, "t", Q2, 0..5);
        let first = world.take_publishes(subscriber);
        assert_eq!(texts(&first), ["0", "1"]);
        let again = SubscribeFilter { retain_handling: RetainHandling::DoNotSend, ..wish("t", after) };
        world.send(subscriber, &subscribe(2, vec![again]));
        world.suback(subscriber);
        let mut seen = first.clone();
        for publish in &first {
            let id = publish.packet_id.expect("assured");
            world.send(subscriber, &if before == Q1 { puback(id) } else { pubrec(id) });
        }
        seen.extend(world.drain(subscriber));
        world.publish_numbers(publisher, "t", Q2, 5..7);
        seen.extend(world.drain(subscriber));
        assert_eq!(texts(&seen), numbers(0..7), "{before:?} → {after:?}");
        assert!(seen[2..].iter().all(|publish| publish.qos == after));
        world.cut(subscriber);
        let subscriber = world.connect(&v5("s").expiry(100));
        assert_eq!(world.take(subscriber), [], "nothing twice");
        world.advance(2);
        assert_eq!(world.cluster.log.bytes(), 0);
    }
}

#[test]
fn a_raised_qos_holds_from_the_subscription_on() {
    let mut world = World::new();
    let subscriber = world.connect(&v5("s").expiry(100));
    world.subscribe(subscriber, "t", Q0);
    // Kept for somebody else: nothing of it is the subscriber's when it raises its QoS.
    let other = world.connect(&v5("other").expiry(100));
    world.subscribe(other, "t", Q1);
    world.cut(other);
    let publisher = world.connect(&v5("p"));
    world.publish(publisher, publish_at(Q1, 1, "t", "0"));
    assert_eq!(only(world.take_publishes(subscriber)).qos, Q0);
    world.subscribe(subscriber, "t", Q1);
    assert_eq!(world.take(subscriber), []);
    world.publish(publisher, publish_at(Q1, 1, "t", "1"));
    world.cut(subscriber);
    let subscriber = world.connect(&v5("s").expiry(100));
    assert_eq!(texts(&world.drain(subscriber)), ["1"]);
}

#[test]
fn a_subscription_gets_nothing_that_was_published_before_it() {
    // S-2 and DESIGN 3: it starts at the tail
    let mut world = World::new();
    let early = world.connect(&v5("early").expiry(100));
    world.subscribe(early, "t/#", Q1);
    world.cut(early);
    let publisher = world.connect(&v5("p"));
    world.publish(publisher, publish_at(Q1, 1, "t/a", "before"));
    let late = world.connect(&v5("late").expiry(100));
    world.subscribe(late, "t/#", Q1);
    world.cut(late);
    world.publish(publisher, publish_at(Q1, 1, "t/a", "after"));
    let late = world.connect(&v5("late").expiry(100));
    assert_eq!(texts(&world.drain(late)), ["after"]);
    // A further one of the same client does not bring back what it has had.
    world.send(late, &subscribe(2, vec![wish("t/a", Q1), wish("#", Q1)]));
    world.suback(late);
    world.cut(late);
    let late = world.connect(&v5("late").expiry(100));
    assert_eq!(world.take(late), []);
    let early = world.connect(&v5("early").expiry(100));
    assert_eq!(texts(&world.drain(early)), ["before", "after"]);
}

#[test]
fn unsubscribing_completes_what_is_under_way_and_begins_nothing_more() {
    // [MQTT-3.10.4-1] to [MQTT-3.10.4-5]
    for qos in [Q1, Q2] {
        let mut world = World::new();
        let hello = v5("s").expiry(100).receive_maximum(2);
        let subscriber = world.connect(&hello);
        world.subscribe(subscriber, "t", qos);
        let publisher = world.connect(&v5("p"));
        world.publish_numbers(publisher, "t", Q2, 0..4);
        let first = world.take_publishes(subscriber);
        world.send(subscriber, &unsubscribe(5, &["t", "t", "never"]));
        let packets = world.take(subscriber);
        let [Packet::UnsubAck(unsuback)] = &packets[..] else { panic!("{packets:?}") };
        let (success, none) = (ReasonCode::Success, ReasonCode::NoSubscriptionExisted);
        assert_eq!(unsuback.reasons, [success, none, none]);
        world.publish(publisher, publish_at(Q2, 1, "t", "4"));
        world.cut(subscriber);
        let subscriber = world.connect(&hello);
        let again = world.drain(subscriber);
        assert_eq!(texts(&again), texts(&first));
        assert!(again.iter().all(|publish| publish.dup));
        world.advance(2);
        assert_eq!(world.cluster.subscription_count(), 0);
        assert_eq!(world.cluster.log.bytes(), 0);
    }
}

#[test]
fn a_filter_given_up_and_taken_again_starts_anew() {
    let mut world = World::new();
    let hello = v5("s").expiry(100);
    let subscriber = world.connect(&hello);
    world.subscribe(subscriber, "t", Q1);
    world.cut(subscriber);
    let publisher = world.connect(&v5("p"));
    let other = world.connect(&v5("other").expiry(100));
    world.subscribe(other, "t", Q1);
    world.publish(publisher, publish_at(Q1, 1, "t", "old"));
    let subscriber = world.connect(&v5("s").expiry(100).receive_maximum(1));
    let old = world.take_publishes(subscriber);
    world.publish(publisher, publish_at(Q1, 1, "t", "waits"));
    world.send(subscriber, &unsubscribe(1, &["t"]));
    world.take(subscriber);
    world.subscribe(subscriber, "t", Q1);
    world.send(subscriber, &puback(old[0].packet_id.expect("QoS 1")));
    assert_eq!(world.take(subscriber), [], "what waited went with the subscription");
    world.publish(publisher, publish_at(Q1, 1, "t", "new"));
    assert_eq!(texts(&world.drain(subscriber)), ["new"]);
}

#[test]
fn wildcards_do_not_reach_topics_that_begin_with_a_dollar() {
    // [MQTT-4.7.2-1]; live, retained and from the log
    let mut world = World::new();
    let wide = world.connect(&v5("wide").expiry(100));
    world.subscribe(wide, "#", Q1);
    world.subscribe(wide, "+/x", Q1);
    let named = world.connect(&v5("named").expiry(100));
    world.subscribe(named, "$dev/#", Q1);
    world.cut(named);
    let publisher = world.connect(&v5("p"));
    world.publish(publisher, retained("$dev/x", "1"));
    assert_eq!(world.take(wide), []);
    let late = world.connect(&v5("late"));
    world.subscribe(late, "#", Q1);
    world.subscribe(late, "+/x", Q1);
    assert_eq!(world.take(late), []);
    let named = world.connect(&v5("named").expiry(100));
    assert_eq!(texts(&world.drain(named)), ["1"]);
    world.cut(wide);
    let wide = world.connect(&v5("wide").expiry(100));
    assert_eq!(world.take(wide), []);
}

#[test]
fn a_publisher_may_be_told_that_nobody_listens() {
    // [MQTT-3.4.2-1]: 0x10 only to v5, and never when a sleeping session will get it
    let mut world = World::new();
    let publisher = world.connect(&v5("p"));
    let answer = |world: &mut World, peer, qos, topic: &str| {
        world.send(peer, &Packet::Publish(publish_at(qos, 1, topic, "x")));
        match world.take(peer).pop() {
            Some(Packet::PubAck(ack) | Packet::PubRec(ack)) => ack.reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(answer(&mut world, publisher, Q1, "t"), ReasonCode::NoMatchingSubscribers);
    assert_eq!(answer(&mut world, publisher, Q2, "t"), ReasonCode::NoMatchingSubscribers);
    let sleeper = world.connect(&v5("s").expiry(100));
    world.subscribe(sleeper, "t", Q1);
    world.cut(sleeper);
    assert_eq!(answer(&mut world, publisher, Q1, "t"), ReasonCode::Success);
    let v3 = world.connect(&v3("p3").clean());
    assert_eq!(answer(&mut world, v3, Q1, "nobody"), ReasonCode::Success);
}
