//! Flow: congestion, limits of packets, aliases, message expiry, keep-alive (PRODUCT S-13, S-15).

use std::num::NonZeroU16;

use super::packets::*;
use super::*;
use crate::data_plane::protocol::Property;
use crate::data_plane::session::outbound::QUEUED_MAX;

#[test]
fn a_congested_persistent_session_loses_qos_0_only_and_gets_the_rest_in_order() {
    for hello in [v5("s").expiry(100), v3("s")] {
        let mut world = World::new();
        let subscriber = world.connect(&hello);
        world.subscribe(subscriber, "t", Q2);
        let publisher = world.connect(&v5("p"));
        world.publish(publisher, publish_at(Q1, 1, "t", "before"));
        world.congest(subscriber);
        for n in 0..3 {
            for qos in [Q0, Q1, Q2] {
                world.publish(publisher, publish_at(qos, 1, "t", &format!("{qos:?} {n}")));
            }
        }
        assert_eq!(texts(&world.drain(subscriber)), ["before"], "nothing is added");
        // Its acknowledgements and answers go out all the same.
        world.send(subscriber, &Packet::PingReq);
        assert_eq!(world.take(subscriber), [Packet::PingResp]);
        world.relieve(subscriber);
        let expected: Vec<String> = (0..3).flat_map(|n| [Q1, Q2].map(|qos| format!("{qos:?} {n}"))).collect();
        assert_eq!(texts(&world.drain(subscriber)), expected);
        // And it is back at the end of the log.
        world.publish(publisher, publish("t", "live"));
        world.publish(publisher, publish_at(Q1, 1, "t", "last"));
        assert_eq!(texts(&world.drain(subscriber)), ["live", "last"]);
    }
}

#[test]
fn a_congested_clean_session_has_a_bounded_queue() {
    for hello in [v5("s"), v3("s").clean()] {
        let mut world = World::new();
        let subscriber = world.connect(&hello);
        world.subscribe(subscriber, "t", Q1);
        let publisher = world.connect(&v5("p"));
        world.congest(subscriber);
        world.publish_numbers(publisher, "t", Q1, 0..QUEUED_MAX + 10);
        world.publish(publisher, publish("t", "lost"));
        assert_eq!(world.take(subscriber), []);
        assert_eq!(world.cluster.log.bytes(), 0, "nothing is kept in the log for it");
        world.relieve(subscriber);
        assert_eq!(texts(&world.drain(subscriber)), numbers(0..QUEUED_MAX));
        world.publish(publisher, publish_at(Q1, 1, "t", "live"));
        assert_eq!(texts(&world.drain(subscriber)), ["live"]);
    }
}

#[test]
fn a_clean_session_with_a_small_window_gets_everything_in_order() {
    // [MQTT-3.3.4-9], [MQTT-4.6.0-6]
    let mut world = World::new();
    let subscriber = world.connect(&v5("s").receive_maximum(2));
    world.subscribe(subscriber, "t", Q2);
    let publisher = world.connect(&v5("p"));
    for n in 0..50 {
        let qos = if n % 3 == 0 { Q2 } else { Q1 };
        world.publish(publisher, publish_at(qos, 1, "t", &n.to_string()));
    }
    assert_eq!(texts(&world.drain(subscriber)), numbers(0..50));
}

#[test]
fn a_large_backlog_of_large_messages_goes_out_in_several_turns() {
    let mut world = World::new();
    let hello = v5("s").expiry(100);
    let subscriber = world.connect(&hello);
    world.subscribe(subscriber, "t", Q1);
    world.cut(subscriber);
    let publisher = world.connect(&v5("p"));
    for n in 0..30_u8 {
        let payload = String::from(char::from(b'a' + n % 26)).repeat(200_000);
        world.publish(publisher, publish_at(Q1, 1, "t", &payload));
    }
    // Not acknowledged, so that all of it is sent again as well.
    for dup in [false, true] {
        let subscriber = world.connect(&hello);
        let seen = world.take_publishes(subscriber);
        assert_eq!(seen.len(), 30);
        assert!(seen.iter().zip(0_u8..).all(|(publish, n)| {
            publish.dup == dup && publish.payload.len() == 200_000 && publish.payload[0] == b'a' + n % 26
        }));
        world.cut(subscriber);
    }
}

#[test]
fn an_expired_message_is_not_sent_and_the_others_say_what_remains() {
    // [MQTT-3.3.2-5], [MQTT-3.3.2-6], S-13
    let mut world = World::new();
    let hello = v5("s").expiry(1_000);
    let subscriber = world.connect(&hello);
    world.subscribe(subscriber, "t", Q1);
    world.cut(subscriber);
    let publisher = world.connect(&v5("p"));
    for (n, expiry) in [(0, Some(10)), (1, Some(50)), (2, None)] {
        let mut message = publish_at(Q1, 1, "t", &n.to_string());
        message.properties.message_expiry_secs = expiry;
        world.publish(publisher, message);
    }
    world.advance(10);
    let subscriber = world.connect(&hello);
    let seen = world.take_publishes(subscriber);
    assert_eq!(texts(&seen), ["1", "2"]);
    let remaining = |publish: &Publish| publish.properties.message_expiry_secs;
    assert_eq!((remaining(&seen[0]), remaining(&seen[1])), (Some(40), None));
    // Once begun, a delivery is completed (3.3.2.3.3).
    world.advance(60);
    world.cut(subscriber);
    let subscriber = world.connect(&hello);
    let again = world.drain(subscriber);
    assert_eq!((texts(&again), remaining(&again[0])), (numbers(1..3), Some(0)));
    world.advance(2);
    assert_eq!(world.cluster.log.bytes(), 0, "what expired is consumed");
}

#[test]
fn a_message_expires_in_the_queue_of_a_clean_session() {
    let mut world = World::new();
    let subscriber = world.connect(&v5("s").receive_maximum(1));
    world.subscribe(subscriber, "t", Q1);
    let publisher = world.connect(&v5("p"));
    for (n, expiry) in [(0, None), (1, Some(10)), (2, Some(30))] {
        let mut message = publish_at(Q1, 1, "t", &n.to_string());
        message.properties.message_expiry_secs = expiry;
        world.publish(publisher, message);
    }
    world.advance(10);
    assert_eq!(texts(&world.drain(subscriber)), ["0", "2"]);
}

#[test]
fn a_packet_larger_than_the_client_takes_counts_as_delivered() {
    // [MQTT-3.1.2-24], [MQTT-3.1.2-25], S-13
    for hello in [v5("s").expiry(100).packet_bytes_max(100), v5("s").packet_bytes_max(100)] {
        let mut world = World::new();
        let subscriber = world.connect(&hello);
        world.subscribe(subscriber, "t", Q2);
        let publisher = world.connect(&v5("p"));
        let offline = hello.0.session_expiry_secs.is_some();
        if offline {
            world.cut(subscriber);
        }
        for qos in [Q0, Q1, Q2] {
            world.publish(publisher, publish_at(qos, 1, "t", &"x".repeat(200)));
            world.publish(publisher, publish_at(qos, 1, "t", &format!("{qos:?}")));
        }
        let subscriber = if offline { world.connect(&hello) } else { subscriber };
        let seen = texts(&world.drain(subscriber));
        assert_eq!(seen[usize::from(!offline)..], ["AtLeastOnce", "ExactlyOnce"]);
        world.advance(2);
        assert_eq!(world.cluster.log.bytes(), 0);
    }
}

#[test]
fn the_limit_is_exact_to_the_byte() {
    // [MQTT-3.1.2-24]: 2 header, 2 + 1 topic, 2 packet id, 1 property length, payload
    let mut world = World::new();
    let subscriber = world.connect(&v5("s").packet_bytes_max(58));
    world.subscribe(subscriber, "t", Q1);
    let publisher = world.connect(&v5("p"));
    for bytes in [50, 51] {
        world.publish(publisher, publish_at(Q1, 1, "t", &"x".repeat(bytes)));
    }
    let seen = world.drain(subscriber);
    assert_eq!(seen.iter().map(|publish| publish.payload.len()).collect::<Vec<_>>(), [50]);
}

#[test]
fn a_reason_string_gives_way_to_the_size_the_client_takes() {
    // [MQTT-3.2.2-19], [MQTT-3.14.2-3], [MQTT-3.9.2-1], 3.1.2.11.7
    let mut world = World::with_quota(QuotaOverrides {
        connections: Some(1),
        filters_per_client: Some(1),
        ..QuotaOverrides::default()
    });
    let client = world.connect(&v5("c").packet_bytes_max(40));
    let peer = world.knock(&v5("d").packet_bytes_max(20));
    let connack = world.connack(peer);
    assert_eq!((connack.reason, connack.reason_string), (ReasonCode::QuotaExceeded, None));
    world.send(client, &subscribe(1, vec![wish("a", Q1), wish("b", Q1)]));
    let suback = world.suback(client);
    assert_eq!((suback.reasons[1], suback.reason_string), (ReasonCode::QuotaExceeded, None));
    world.send(client, &goodbye(ReasonCode::Success, Some(9)));
    assert_eq!(world.kicked_with(client), ReasonCode::ProtocolError);
    let mut quiet = v5("quiet");
    quiet.0.request_problem_information = false;
    let quiet = world.connect(&quiet);
    world.send(quiet, &subscribe(1, vec![wish("a", Q1), wish("b", Q1)]));
    assert_eq!(world.suback(quiet).reason_string, None, "[MQTT-3.1.2-29]");
}

fn aliased(topic: Option<&str>, alias: u16, payload: &str) -> Packet {
    let mut message = publish(topic.unwrap_or("x"), payload);
    message.properties.topic_alias = NonZeroU16::new(alias);
    if topic.is_none() {
        message.topic = None;
    }
    Packet::Publish(message)
}

#[test]
fn an_alias_stands_for_its_topic_on_its_connection() {
    // 3.3.2.3.4, [MQTT-3.3.2-7] to [MQTT-3.3.2-12]
    let mut world = World::new();
    let subscriber = world.connect(&v5("s"));
    world.subscribe(subscriber, "#", Q0);
    let publisher = world.connect(&v5("p").expiry(100));
    for packet in [
        aliased(Some("one"), 1, "1"),
        aliased(Some("two"), 64, "2"),
        aliased(None, 1, "3"),
        aliased(Some("three"), 1, "4"),
        aliased(None, 1, "5"),
        aliased(None, 64, "6"),
    ] {
        world.send(publisher, &packet);
    }
    let seen = world.drain(subscriber);
    let topics: Vec<String> = seen.iter().filter_map(|p| p.topic.as_ref()).map(ToString::to_string).collect();
    assert_eq!(topics, ["one", "two", "one", "three", "three", "two"]);
    assert!(seen.iter().all(|publish| publish.properties.topic_alias.is_none()));
    // Not known on the next connection, and none above the maximum.
    world.cut(publisher);
    let publisher = world.connect(&v5("p").expiry(100));
    world.send(publisher, &aliased(None, 1, "x"));
    assert_eq!(world.kicked_with(publisher), ReasonCode::ProtocolError);
    let publisher = world.connect(&v5("p").expiry(100));
    world.send(publisher, &aliased(Some("x"), 65, "x"));
    assert_eq!(world.kicked_with(publisher), ReasonCode::TopicAliasInvalid);
}

#[test]
fn silence_for_one_and_a_half_times_the_keep_alive_ends_the_connection() {
    // [MQTT-3.1.2-22], S-15
    for hello in [v5("c").expiry(100).keep_alive(10), v3("c").keep_alive(10), v31("c").keep_alive(10)] {
        let mut world = World::new();
        let client = world.connect(&hello);
        world.advance(14);
        world.send(client, &Packet::PingReq);
        assert_eq!(world.take(client), [Packet::PingResp]);
        // Any packet counts.
        world.advance(14);
        world.send(client, &Packet::Publish(publish("t", "x")));
        world.advance(14);
        assert!(!world.is_closed(client));
        world.advance(1);
        assert!(world.is_closed(client));
        if hello.0.version.is_v5() {
            assert_eq!(world.kicked_with(client), ReasonCode::KeepAliveTimeout);
        }
        assert_eq!(world.counts(), (0, 1));
        let cause = world.records.row("c").and_then(|row| row.disconnect.clone()).expect("ended");
        assert_eq!(cause.reason, "keep_alive_timeout");
    }
    let mut world = World::new();
    let client = world.connect(&v5("c"));
    world.advance(1_000_000);
    assert!(!world.is_closed(client), "0 turns it off");
}

#[test]
fn a_jump_of_the_wall_clock_ends_no_connection() {
    let mut world = World::new();
    let client = world.connect(&v5("c").keep_alive(10));
    world.now.wall = world.now.wall.plus_secs(3_600);
    world.advance(10);
    assert!(!world.is_closed(client));
}

#[test]
fn what_a_publisher_says_of_a_message_arrives_unaltered() {
    // [MQTT-3.3.2-4], [MQTT-3.3.2-15] to [MQTT-3.3.2-18], [MQTT-3.3.2-20]; and v3 gets the message alone
    let mut world = World::new();
    let v5_peer = world.connect(&v5("s"));
    world.subscribe(v5_peer, "t", Q0);
    let v3_peer = world.connect(&v3("s3"));
    world.subscribe(v3_peer, "t", Q0);
    let mut message = publish("t", "{}");
    let user = |name: &str, value: &str| {
        let part = |text: &str| [&[0, u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
        [&[Property::UserProperty as u8][..], &part(name), &part(value)].concat()
    };
    let content_type = [Property::ContentType as u8, 0, 1, b'j'];
    let all = [&content_type[..], &user("a", "1"), &user("a", "2"), &user("0", "")].concat();
    message.properties.forwarded = crate::model::PropertyBytes(all.into());
    let publisher = world.connect(&v5("p"));
    world.send(publisher, &Packet::Publish(message.clone()));
    assert_eq!(world.take_publishes(v5_peer), [message]);
    assert_eq!(world.take_publishes(v3_peer), [publish("t", "{}")]);
}
