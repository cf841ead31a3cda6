//! Retained messages (MQTT 5.0, 3.3.1.3).

use super::packets::*;
use super::records::Mode;
use super::*;
use crate::data_plane::cluster::RecordOutcome;
use crate::data_plane::protocol::SubscribeFilter;
use crate::model::RetainHandling;

fn with_handling(text: &str, retain_handling: RetainHandling) -> SubscribeFilter {
    SubscribeFilter { retain_handling, ..wish(text, Q1) }
}

/// What a fresh client gets for a filter.
fn retained_for(world: &mut World, text: &str) -> Vec<String> {
    let peer = world.connect(&v5("probe").clean());
    world.subscribe(peer, text, Q2);
    let seen = world.drain(peer);
    world.leave(peer);
    texts(&seen)
}

#[test]
fn the_last_retained_message_of_each_topic_is_kept_until_an_empty_one() {
    // [MQTT-3.3.1-5] to [MQTT-3.3.1-7]
    let mut world = World::new();
    let publisher = world.connect(&v5("p"));
    for (topic, payload) in [("a/1", "old"), ("a/1", "new"), ("a/2", "2"), ("b", "b")] {
        world.publish(publisher, retained(topic, payload));
    }
    world.publish(publisher, publish_at(Q1, 1, "a/1", "not retained"));
    world.publish(publisher, Publish { retain: true, ..publish("b", "QoS 0") });
    assert_eq!(retained_for(&mut world, "a/+"), ["new", "2"]);
    assert_eq!(retained_for(&mut world, "b"), ["QoS 0"]);
    let listener = world.connect(&v5("listener"));
    world.subscribe(listener, "b", Q1);
    world.drain(listener);
    world.publish(publisher, retained("b", ""));
    assert_eq!(texts(&world.drain(listener)), [""], "an empty one is a message like any other");
    assert_eq!(retained_for(&mut world, "b"), [""; 0]);
}

#[test]
fn a_retained_message_comes_with_the_retain_flag_and_the_lower_qos() {
    // [MQTT-3.3.1-8], and the identifier of the subscription
    for hello in [v5("s"), v3("s").clean()] {
        let mut world = World::new();
        let publisher = world.connect(&v5("p"));
        world.publish(publisher, Publish { retain: true, ..publish_at(Q2, 1, "t", "x") });
        let peer = world.connect(&hello);
        world.send(peer, &subscribe_as(1, Some(5), vec![wish("t", Q1)]));
        world.suback(peer);
        let seen = world.drain(peer);
        assert!(seen.len() == 1 && seen[0].retain && seen[0].qos == Q1 && !seen[0].dup);
        let ids = &seen[0].properties.subscription_ids;
        assert_eq!(ids.len(), usize::from(hello.0.version.is_v5()));
    }
}

#[test]
fn retain_handling_says_when() {
    // [MQTT-3.3.1-9] to [MQTT-3.3.1-11]
    let mut world = World::new();
    let publisher = world.connect(&v5("p"));
    world.publish(publisher, retained("t", "x"));
    for (handling, first, again) in
        [(RetainHandling::Send, 1, 1), (RetainHandling::SendIfNew, 1, 0), (RetainHandling::DoNotSend, 0, 0)]
    {
        let peer = world.connect(&v5("s").clean());
        for expected in [first, again] {
            world.send(peer, &subscribe(1, vec![with_handling("t", handling)]));
            world.suback(peer);
            assert_eq!(world.drain(peer).len(), expected, "{handling:?}");
        }
        world.leave(peer);
    }
    // A resumed subscription is not a new one.
    let peer = world.connect(&v5("s").expiry(100));
    world.send(peer, &subscribe(1, vec![with_handling("t", RetainHandling::SendIfNew)]));
    world.suback(peer);
    assert_eq!(world.drain(peer).len(), 1);
    world.cut(peer);
    let peer = world.connect(&v5("s").expiry(100));
    assert_eq!(world.take(peer), []);
    world.send(peer, &subscribe(1, vec![with_handling("t", RetainHandling::SendIfNew)]));
    world.suback(peer);
    assert_eq!(world.take(peer), []);
}

#[test]
fn a_live_message_keeps_its_retain_flag_only_if_asked() {
    // [MQTT-3.3.1-12], [MQTT-3.3.1-13]; live and from the log
    let mut world = World::new();
    let publisher = world.connect(&v5("p"));
    for (id, retain_as_published) in [("s", false), ("t", true)] {
        let peer = world.connect(&v5(id).expiry(100));
        world.send(peer, &subscribe(1, vec![SubscribeFilter { retain_as_published, ..wish("t", Q1) }]));
        world.take(peer);
        world.publish(publisher, retained("t", "live"));
        assert_eq!(world.drain(peer)[0].retain, retain_as_published);
        world.publish(publisher, publish_at(Q1, 1, "t", "plain"));
        assert!(!world.drain(peer)[0].retain);
        world.cut(peer);
        world.publish(publisher, retained("t", "offline"));
        let peer = world.connect(&v5(id).expiry(100));
        assert_eq!(world.drain(peer)[0].retain, retain_as_published);
        world.leave(peer);
        world.publish(publisher, retained("t", ""));
    }
}

#[test]
fn no_local_holds_for_retained_messages() {
    // [MQTT-3.8.3-3]
    let mut world = World::new();
    let mine = world.connect(&v5("mine"));
    world.publish(mine, retained("t", "mine"));
    let other = world.connect(&v5("other"));
    world.publish(other, retained("u", "other"));
    let filters = ["t", "u"].map(|text| SubscribeFilter { no_local: true, ..wish(text, Q1) });
    world.send(mine, &subscribe(1, filters.to_vec()));
    world.suback(mine);
    assert_eq!(texts(&world.drain(mine)), ["other"]);
}

#[test]
fn a_slow_client_gets_all_retained_messages_and_then_what_is_live() {
    for hello in [v5("s").receive_maximum(3), v5("s").expiry(100).receive_maximum(3), v3("s")] {
        let mut world = World::new();
        let publisher = world.connect(&v5("p"));
        for n in 10..60 {
            world.publish(publisher, retained(&format!("t/{n}"), &n.to_string()));
        }
        let peer = world.connect(&hello);
        world.subscribe(peer, "t/#", Q1);
        world.publish_numbers(publisher, "t/live", Q1, 0..5);
        let seen = world.drain(peer);
        let kept = numbers(10..60);
        assert_eq!(texts(&seen), [&kept[..], &numbers(0..5)].concat());
        assert!(seen.iter().take(50).all(|publish| publish.retain));
        assert!(seen.iter().skip(50).all(|publish| !publish.retain));
    }
}

#[test]
fn what_a_session_is_still_owed_comes_after_a_resume() {
    let mut world = World::new();
    let publisher = world.connect(&v5("p"));
    for n in 10..20 {
        world.publish(publisher, retained(&format!("t/{n}"), &n.to_string()));
    }
    let hello = v5("s").expiry(100).receive_maximum(3);
    let peer = world.connect(&hello);
    world.subscribe(peer, "t/#", Q1);
    assert_eq!(world.take_publishes(peer).len(), 3);
    world.cut(peer);
    let peer = world.connect(&hello);
    assert_eq!(texts(&world.drain(peer)), numbers(10..20));
}

#[test]
fn a_message_that_comes_live_is_not_sent_as_a_retained_one_as_well() {
    // [MQTT-4.3.3-2]: a QoS 2 message exactly once; [MQTT-3.3.1-9]: what was retained when subscribing
    let mut world = World::new();
    let publisher = world.connect(&v5("p"));
    world.publish(publisher, retained("t/0", "retained"));
    let hello = v5("s").expiry(100).receive_maximum(1);
    let peer = world.connect(&hello);
    // While SUBACK waits for the record.
    world.records.mode = Mode::Late;
    world.send(peer, &subscribe(1, vec![wish("t/#", Q2)]));
    let live = |n: &str| Publish { retain: true, ..publish_at(Q2, 1, &format!("t/{n}"), n) };
    world.publish(publisher, live("1"));
    world.decide_records(RecordOutcome::Committed);
    // While the retained ones wait for room.
    world.publish(publisher, live("2"));
    world.publish(publisher, live("1"));
    let first = world.take(peer);
    let [Packet::Publish(first), Packet::SubAck(_)] = &first[..] else { panic!("{first:?}") };
    assert_eq!((text(first), first.retain), ("1".to_owned(), false));
    world.send(peer, &pubrec(first.packet_id.expect("QoS 2")));
    let seen = world.drain(peer);
    let flags: Vec<(String, bool)> = seen.iter().map(|p| (text(p), p.retain)).collect();
    let expected = [("retained", true), ("2", false), ("1", false)];
    assert_eq!(flags, expected.map(|(said, retain)| (said.to_owned(), retain)));
}

#[test]
fn unsubscribing_ends_what_is_still_owed() {
    // [MQTT-3.10.4-3]
    let mut world = World::new();
    let publisher = world.connect(&v5("p"));
    for n in 0..5 {
        world.publish(publisher, retained(&format!("t/{n}"), &n.to_string()));
    }
    let peer = world.connect(&v5("s").receive_maximum(1));
    world.subscribe(peer, "t/#", Q1);
    let first = world.take_publishes(peer);
    world.send(peer, &unsubscribe(2, &["t/#"]));
    world.take(peer);
    world.send(peer, &puback(first[0].packet_id.expect("QoS 1")));
    assert_eq!(world.take(peer), []);
}
