//! Limits of packets and of retained messages (PRODUCT ), and what is counted.

use super::packets::*;
use super::*;
use crate::data_plane::protocol::{
    Ack, ForwardedValues, PacketId, Subscribe, SubscribeFilter, Unsubscribe, UserProperties, Will,
};
use crate::data_plane::session::outbound::QUEUED_MAX;
use crate::model::{MessageCounters, PropertyBytes};

/// User properties of so many bytes: the wire takes 5 more than the two texts.
fn user(bytes: usize) -> UserProperties {
    vec![("n".into(), "v".repeat(bytes - 6).into())]
}

fn forwarded(bytes: usize) -> PropertyBytes {
    // With other properties beside them, which do not count.
    let topic = crate::model::TopicName::new("answers").expect("a topic");
    let user_properties = user(bytes);
    let values = ForwardedValues {
        response_topic: Some(&topic),
        user_properties: &user_properties,
        ..ForwardedValues::default()
    };
    values.to_bytes().expect("valid")
}

const MOST: usize = 8_192;

fn with_properties(mut publish: Publish, bytes: usize) -> Packet {
    publish.properties.forwarded = forwarded(bytes);
    Packet::Publish(publish)
}

#[test]
fn a_publish_has_so_many_bytes_of_user_properties_and_no_more() {
    let mut world = World::new();
    let watcher = world.connect(&v5("w"));
    world.subscribe(watcher, "t", Q2);
    let peer = world.connect(&v5("c"));
    for qos in [Q1, Q2] {
        world.send(peer, &with_properties(publish_at(qos, 1, "t", "over"), MOST + 1));
        let (Packet::PubAck(ack) | Packet::PubRec(ack)) = world.take(peer).remove(0) else { panic!() };
        let why = "limit user_property_bytes: at most 8192, this packet has 8193";
        assert_eq!((ack.reason, ack.reason_string.as_deref()), (ReasonCode::QuotaExceeded, Some(why)));
        world.send(peer, &with_properties(publish_at(qos, 1, "t", "within"), MOST));
        assert!(!world.is_closed(peer));
        world.take(peer);
    }
    assert_eq!(texts(&world.drain(watcher)), ["within", "within"]);
    world.send(peer, &with_properties(publish("t", "over"), MOST + 1));
    assert_eq!(world.kicked_with(peer), ReasonCode::QuotaExceeded, "QoS 0 has no other answer");
}

#[test]
fn a_connect_and_its_will_have_so_many_each() {
    let mut world = World::new();
    for (own, wills, reason) in [
        (MOST, MOST, ReasonCode::Success),
        (MOST + 1, MOST, ReasonCode::QuotaExceeded),
        (MOST, MOST + 1, ReasonCode::QuotaExceeded),
    ] {
        let mut hello = v5("c").will(will("w", "x", 0));
        hello.0.user_properties = user(own);
        hello.0.will.as_mut().expect("a will").properties.forwarded = forwarded(wills);
        let peer = world.knock(&hello);
        assert_eq!(world.connack(peer).reason, reason);
    }
}

#[test]
fn other_packets_have_so_many() {
    let mut world = World::new();
    let peer = world.connect(&v5("c"));
    let subscribe = |bytes| {
        let SubscribeFilter { filter, .. } = wish("t", Q1);
        let filters = vec![SubscribeFilter { filter, ..wish("t", Q1) }; 2];
        Packet::Subscribe(Subscribe {
            packet_id: id(1),
            subscription_id: None,
            user_properties: user(bytes),
            filters,
        })
    };
    world.send(peer, &subscribe(MOST + 1));
    assert_eq!(world.suback(peer).reasons, [ReasonCode::QuotaExceeded; 2]);
    assert_eq!(world.cluster.subscription_count(), 0);
    world.send(peer, &subscribe(MOST));
    assert_eq!(world.suback(peer).reasons, [ReasonCode::GrantedQoS1; 2]);
    let unsubscribe =
        Unsubscribe { packet_id: id(1), user_properties: user(MOST + 1), filters: vec![filter("t")] };
    let ack = Ack { user_properties: user(MOST + 1), ..Ack::new(PacketId::MIN, ReasonCode::Success) };
    for packet in [Packet::Unsubscribe(unsubscribe), Packet::PubAck(ack.clone()), Packet::PubRel(ack)] {
        let peer = world.connect(&v5("c"));
        world.send(peer, &packet);
        assert_eq!(world.kicked_with(peer), ReasonCode::QuotaExceeded, "{packet:?}");
    }
}

/// What is retained under `t/#`.
fn retained_texts(world: &mut World) -> Vec<String> {
    let reader = world.connect(&v5("reader"));
    world.subscribe(reader, "t/#", Q1);
    let texts = texts(&world.drain(reader));
    world.leave(reader);
    texts
}

#[test]
fn over_the_limit_v5_is_refused_and_others_are_passed_on_only() {
    let quota = QuotaOverrides { retained_messages: Some(2), ..QuotaOverrides::default() };
    let mut world = World::with_quota(quota);
    let live = world.connect(&v5("live"));
    world.subscribe(live, "t/#", Q1);
    let five = world.connect(&v5("five"));
    for n in 0..2 {
        world.publish(five, retained(&format!("t/{n}"), &n.to_string()));
    }
    for qos in [Q1, Q2] {
        world.send(five, &Packet::Publish(Publish { retain: true, ..publish_at(qos, 1, "t/2", "refused") }));
        let (Packet::PubAck(ack) | Packet::PubRec(ack)) = world.take(five).remove(0) else { panic!() };
        let why = "quota retained_messages: limit 2, in use 2";
        assert_eq!((ack.reason, ack.reason_string.as_deref()), (ReasonCode::QuotaExceeded, Some(why)));
    }
    // QoS 0 and v3 cannot be told.
    world.send(five, &Packet::Publish(Publish { retain: true, ..publish("t/2", "v5 at QoS 0") }));
    let three = world.connect(&v3("three"));
    world.publish(three, retained("t/2", "v3"));
    assert_eq!(texts(&world.drain(live)), ["0", "1", "v5 at QoS 0", "v3"]);
    assert_eq!(retained_texts(&mut world), numbers(0..2));
    // In place of one there is room, and once one is cleared.
    world.publish(five, retained("t/0", "again"));
    world.publish(five, retained("t/1", ""));
    world.publish(three, retained("t/2", "new"));
    assert_eq!(retained_texts(&mut world), ["again", "new"]);
    // A limit that is lowered takes nothing away.
    world.change_rules(|rules| rules.quota.retained_messages = Some(0));
    assert_eq!(retained_texts(&mut world), ["again", "new"]);
}

#[test]
fn what_could_not_be_retained_leaves_nothing_older_in_its_place() {
    let quota = QuotaOverrides { retained_bytes: Some(20), ..QuotaOverrides::default() };
    let mut world = World::with_quota(quota);
    let three = world.connect(&v3("three"));
    world.publish(three, retained("t/0", "small"));
    world.publish(three, retained("t/0", "larger than there is room for"));
    assert_eq!(retained_texts(&mut world), [""; 0]);
    assert_eq!(world.cluster.retained.bytes(), 0);
    let peer = world.connect(&v5("c").will(Will { retain: true, ..will("t/1", "much too large a will", 0) }));
    world.cut(peer);
    assert_eq!(retained_texts(&mut world), [""; 0]);
}

#[test]
fn an_expired_retained_message_makes_room() {
    let quota = QuotaOverrides { retained_messages: Some(1), ..QuotaOverrides::default() };
    let mut world = World::with_quota(quota);
    let peer = world.connect(&v5("c"));
    let mut expiring = retained("t/0", "x");
    expiring.properties.message_expiry_secs = Some(10);
    world.publish(peer, expiring);
    world.advance(9);
    assert_eq!(world.cluster.retained.len(), 1);
    world.advance(1);
    assert_eq!((world.cluster.retained.len(), world.cluster.retained.bytes()), (0, 0));
    world.publish(peer, retained("t/1", "next"));
    assert_eq!(retained_texts(&mut world), ["next"]);
}

#[test]
fn what_comes_goes_and_is_lost_is_counted_for_session_and_cluster() {
    let mut world = World::new();
    let publisher = world.connect(&v5("p"));
    let clean = world.connect(&v5("clean"));
    world.subscribe(clean, "t", Q1);
    let kept = world.connect(&v3("kept"));
    world.subscribe(kept, "t", Q0);
    let of = |world: &World, id: &str| world.cluster.session_counters(id).expect("a session");
    world.publish(publisher, publish_at(Q1, 1, "t", "x"));
    world.congest(kept);
    world.publish(publisher, publish("t", "x"));
    world.congest(clean);
    for _ in 0..QUEUED_MAX + 3 {
        world.publish(publisher, publish_at(Q1, 1, "t", "x"));
    }
    let lost = QUEUED_MAX as u64 + 3;
    let received = lost + 2;
    let expected = MessageCounters { received, ..MessageCounters::default() };
    assert_eq!(of(&world, "p"), expected);
    let expected = MessageCounters { sent: 2, dropped_queue_full: 3, ..MessageCounters::default() };
    assert_eq!(of(&world, "clean"), expected);
    let expected = MessageCounters { sent: 1, dropped_slow: lost + 1, ..MessageCounters::default() };
    assert_eq!(of(&world, "kept"), expected);
    // The end of a connection changes no count; that of a session takes its own away.
    world.cut(kept);
    world.cut(clean);
    assert_eq!(of(&world, "kept"), expected);
    assert_eq!(world.cluster.session_counters("clean"), None);
    let all = MessageCounters {
        received,
        sent: 3,
        dropped_slow: lost + 1,
        dropped_queue_full: 3,
        dropped_over_rate: 0,
    };
    assert_eq!(world.cluster.message_counters(), all);
    assert_eq!(all.dropped(), lost + 4);
}
