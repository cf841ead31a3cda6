//! `$events/…` and `$SYS/…` (PRODUCT 5).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::packets::*;
use super::records::Mode;
use super::*;
use crate::data_plane::cluster::RecordOutcome;

fn watcher(world: &mut World, filter: &str, qos: QoS) -> Peer {
    let peer = world.connect(&v5("watcher").expiry(1_000));
    world.subscribe(peer, filter, qos);
    world.drain(peer);
    peer
}

/// Events that have come: the topic's last word, and what is said.
fn events(world: &mut World, peer: Peer) -> Vec<(String, Value)> {
    let seen = world.drain(peer).into_iter();
    let event = |publish: Publish| {
        let topic = publish.topic.as_ref().expect("a topic").to_string();
        let said = serde_json::from_slice(&publish.payload).expect("JSON");
        (topic.strip_prefix("$events/").expect("an event").to_owned(), said)
    };
    seen.map(event).collect()
}

#[test]
fn a_connection_is_told_from_its_connack_to_its_end() {
    let mut world = World::new();
    let watcher = watcher(&mut world, "$events/#", Q1);
    let mut hello = v3("meter").keep_alive(30);
    hello.0.credentials.username = Some("ann".into());
    hello.0.credentials.password = Some(bytes::Bytes::from_static(b"secret"));
    world.records.mode = Mode::Late;
    let peer = world.knock(&hello);
    assert_eq!(events(&mut world, watcher), [], "not before CONNACK");
    world.records.mode = Mode::Prompt;
    world.decide_records(RecordOutcome::Committed);
    let session_id = world.records.row("meter").expect("recorded").session_id;
    let about = json!({
        "client_id": "meter", "username": "ann", "session_id": session_id, "epoch": 1,
        "protocol": "3.1.1", "peer": "192.0.2.1:1", "listener": "mqtt", "transport": "tcp",
        "time": "2027-01-15T08:00:00.000Z",
    });
    let mut connected = about.clone();
    for (field, value) in [
        ("clean_start", json!(false)),
        ("session_present", json!(false)),
        ("keep_alive_seconds", json!(30)),
        ("session_expiry_seconds", json!(259_200)),
    ] {
        connected[field] = value;
    }
    assert_eq!(events(&mut world, watcher), [("client_connected".to_owned(), connected)]);
    world.advance(1);
    world.cut(peer);
    let mut disconnected = about;
    disconnected["time"] = json!("2027-01-15T08:00:01.000Z");
    for (field, value) in
        [("reason", "connection_lost"), ("by", "network"), ("connected_at", "2027-01-15T08:00:00.000Z")]
    {
        disconnected[field] = json!(value);
    }
    assert_eq!(events(&mut world, watcher), [("client_disconnected".to_owned(), disconnected)]);
}

#[test]
fn every_end_says_why() {
    let mut world = World::new();
    let watcher = watcher(&mut world, "$events/client_disconnected", Q1);
    let reason = |world: &mut World| {
        let events = events(world, watcher);
        let [(_, event)] = &events[..] else { panic!("{events:?}") };
        (event["reason"].clone(), event["epoch"].clone())
    };
    let peer = world.connect(&v5("c"));
    world.leave(peer);
    assert_eq!(reason(&mut world), (json!("normal"), json!(1)));
    let _first = world.connect(&v5("c").expiry(100));
    let _second = world.connect(&v5("c").expiry(100));
    assert_eq!(reason(&mut world), (json!("taken_over"), json!(1)));
    world.order("c", DESTROY);
    assert_eq!(reason(&mut world), (json!("administrative"), json!(2)));
    let _silent = world.connect(&v5("c").keep_alive(1));
    world.advance(2);
    assert_eq!(reason(&mut world).0, json!("keep_alive_timeout"));
    // Who was never let in has not been there.
    world.change_rules(|rules| rules.quota.connections = Some(0));
    let refused = world.knock(&v5("refused"));
    assert!(world.is_closed(refused));
    assert_eq!(events(&mut world, watcher), []);
}

#[test]
fn subscriptions_are_told_when_they_are_granted_and_recorded() {
    let mut world = World::new();
    let watcher = watcher(&mut world, "$events/+", Q1);
    let peer = world.connect(&v5("c").expiry(100));
    events(&mut world, watcher);
    let filters: Vec<String> = (0..31).map(|n| format!("f/{n}")).collect();
    let wishes = filters.iter().map(|filter| wish(filter, Q2)).collect();
    world.records.mode = Mode::Late;
    world.send(peer, &subscribe_as(1, Some(7), wishes));
    assert_eq!(events(&mut world, watcher), []);
    world.records.mode = Mode::Prompt;
    world.decide_records(RecordOutcome::Committed);
    let seen = events(&mut world, watcher);
    assert_eq!(seen.len(), 30, "the one over the limit is not told");
    let (topic, said) = &seen[3];
    assert_eq!(
        (topic.as_str(), &said["filter"], &said["qos"]),
        ("session_subscribed", &json!("f/3"), &json!(2))
    );
    assert_eq!((&said["subscription_id"], &said["client_id"]), (&json!(7), &json!("c")));
    world.send(peer, &unsubscribe(2, &["f/3", "none"]));
    let seen = events(&mut world, watcher);
    let [(topic, said)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((topic.as_str(), &said["filter"]), ("session_unsubscribed", &json!("f/3")));
}

#[test]
fn events_wait_for_a_persistent_watcher_and_come_at_its_qos() {
    let mut world = World::new();
    let away = watcher(&mut world, "$events/client_connected", Q1);
    let mut hello = v5("live");
    hello.0.clean_start = true;
    let live = world.connect(&hello);
    world.subscribe(live, "$events/client_connected", Q0);
    events(&mut world, away);
    world.cut(away);
    world.connect(&v5("c"));
    let seen = world.drain(live);
    assert_eq!((seen.len(), seen[0].qos), (1, Q0));
    let back = world.connect(&v5("watcher").expiry(1_000));
    let seen = world.drain(back);
    let clients: Vec<Value> = seen
        .iter()
        .map(|event| serde_json::from_slice::<Value>(&event.payload).expect("JSON")["client_id"].clone())
        .collect();
    assert_eq!((clients, seen[0].qos), (vec![json!("c"), json!("watcher")], Q1));
}

#[test]
fn only_the_server_speaks_under_its_topics() {
    // 4.7.2; [MQTT-3.3.5-2] of 3.1.1
    let mut world = World::new();
    let watcher = world.connect(&v5("watcher"));
    for filter in ["$SYS/forged", "$events/forged", "$SYSTEM", "w"] {
        world.subscribe(watcher, filter, Q2);
    }
    let five = world.connect(&v5("five"));
    for topic in ["$SYS/forged", "$events/forged"] {
        world.send(five, &Packet::Publish(publish(topic, "x")));
        assert_eq!(world.take(five), []);
        for qos in [Q1, Q2] {
            world.send(five, &Packet::Publish(Publish { retain: true, ..publish_at(qos, 1, topic, "x") }));
            let (Packet::PubAck(ack) | Packet::PubRec(ack)) = world.take(five).remove(0) else { panic!() };
            assert_eq!(ack.reason, ReasonCode::NotAuthorized);
        }
        for make in [v3, v31] {
            let three = world.connect(&make("three"));
            for qos in [Q0, Q1, Q2] {
                world.publish(three, publish_at(qos, 1, topic, "x"));
            }
        }
    }
    let will = world.connect(&v5("will").will(will("$SYS/forged", "x", 0)));
    world.cut(will);
    assert_eq!(world.take(watcher), []);
    world.publish(five, publish_at(Q1, 1, "$SYSTEM", "an ordinary topic"));
    assert_eq!(texts(&world.drain(watcher)), ["an ordinary topic"]);
    assert_eq!(world.cluster.retained.len(), 0);
}

/// What `$SYS/broker/` says, by the rest of the topic.
fn system(world: &mut World, peer: Peer) -> BTreeMap<String, String> {
    let seen = world.take_publishes(peer).into_iter();
    let said = |publish: Publish| {
        let topic = publish.topic.as_ref().expect("a topic").to_string();
        (topic.strip_prefix("$SYS/broker/").expect("of the broker").to_owned(), text(&publish))
    };
    seen.map(said).collect()
}

#[test]
fn the_state_of_the_moment_is_read_by_subscribing() {
    let mut world = World::new();
    let publisher = world.connect(&v5("p"));
    let offline = world.connect(&v5("offline").expiry(1_000));
    world.subscribe(offline, "t", Q0);
    world.publish(publisher, retained("t", "12345"));
    world.cut(offline);
    world.advance(7);
    let watcher = world.connect(&v5("w"));
    world.send(watcher, &subscribe(1, vec![wish("$SYS/#", Q1)]));
    world.suback(watcher);
    let said = system(&mut world, watcher);
    let expected = [
        ("version", concat!("holdfast ", env!("CARGO_PKG_VERSION"))),
        ("uptime", "7"),
        ("clients/connected", "2"),
        ("clients/disconnected", "1"),
        ("clients/total", "3"),
        ("subscriptions/count", "1"),
        ("messages/received", "1"),
        ("messages/sent", "1"),
        ("messages/dropped", "0"),
        ("retained messages/count", "1"),
        ("retained messages/bytes", "6"),
    ];
    assert_eq!(said, expected.map(|(topic, value)| (topic.to_owned(), value.to_owned())).into());
    // A leading wildcard does not reach it [MQTT-4.7.2-1], and no quota counts it.
    let other = world.connect(&v5("o"));
    world.subscribe(other, "#", Q1);
    assert_eq!(texts(&world.drain(other)), ["12345"]);
}

#[test]
fn changes_are_told_every_ten_seconds_and_nothing_else_is() {
    let mut world = World::new();
    let watcher = world.connect(&v5("w"));
    world.subscribe(watcher, "$SYS/broker/clients/+", Q1);
    assert_eq!(system(&mut world, watcher).len(), 3);
    // Told once more, since what retained messages said may have been said long ago.
    world.advance(10);
    system(&mut world, watcher);
    world.advance(100);
    assert_eq!(system(&mut world, watcher), BTreeMap::new());
    let _new = world.connect(&v5("new"));
    world.advance(5);
    assert_eq!(system(&mut world, watcher), BTreeMap::new());
    world.advance(5);
    let said = system(&mut world, watcher);
    let expected = [("clients/connected", "2"), ("clients/total", "2")];
    assert_eq!(said, expected.map(|(topic, value)| (topic.to_owned(), value.to_owned())).into());
}
