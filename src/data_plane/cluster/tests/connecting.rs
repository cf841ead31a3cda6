//! Who attaches to which session: takeover, clean start, expiry (PRODUCT S-5, S-6, S-7, S-9).

use super::packets::*;
use super::*;

fn session_id(world: &World, client_id: &str) -> SessionId {
    world.records.row(client_id).expect("a record").session_id
}

#[test]
fn a_second_connection_takes_the_session_over() {
    // [MQTT-3.1.4-3], S-9
    for (hello, is_v5) in [(v5("c").expiry(100), true), (v3("c"), false), (v31("c"), false)] {
        let mut world = World::new();
        let first = world.connect(&hello);
        world.subscribe(first, "t", Q1);
        let publisher = world.connect(&v5("p").clean());
        let (second, present) = world.connect_present(&hello);
        assert_eq!(present, hello.0.version != ProtocolVersion::V3_1);
        if is_v5 {
            assert_eq!(world.kicked_with(first), ReasonCode::SessionTakenOver);
        } else {
            assert_eq!(world.take(first), [], "v3 is closed without a word");
            assert!(world.is_closed(first));
        }
        assert_eq!(world.counts(), (2, 0));
        assert_eq!(world.records.row("c").map(|row| row.epoch), Some(Epoch(2)));
        world.publish(publisher, publish_at(Q1, 1, "t", "x"));
        assert_eq!(texts(&world.drain(second)), ["x"]);
    }
}

#[test]
fn nothing_done_under_an_old_connection_takes_effect() {
    // S-9
    let mut world = World::new();
    let first = world.connect(&v5("c").expiry(100));
    world.subscribe(first, "t", Q1);
    let publisher = world.connect(&v5("p").clean());
    world.publish(publisher, publish_at(Q1, 1, "t", "x"));
    let under_way = world.take_publishes(first);
    let second = world.connect(&v5("c").expiry(100));
    let again = world.take_publishes(second);
    assert_eq!((again.len(), again[0].dup, again[0].packet_id), (1, true, under_way[0].packet_id));
    world.take(first);
    for packet in [
        puback(under_way[0].packet_id.expect("QoS 1")),
        unsubscribe(2, &["t"]),
        subscribe(3, vec![wish("u", Q1)]),
        Packet::Publish(publish("t", "old")),
        goodbye(ReasonCode::Success, Some(0)),
    ] {
        world.send_late(first, &packet);
    }
    world.cut(first);
    assert_eq!(world.take(second), []);
    assert!(!world.is_closed(second));
    assert_eq!(world.records.filters("c"), [("t".to_owned(), Q1)]);
    world.cut(second);
    let third = world.connect(&v5("c").expiry(100));
    assert_eq!(texts(&world.drain(third)), ["x"], "the old connection's PUBACK did not count");
}

#[test]
fn clean_start_ends_the_earlier_session() {
    // [MQTT-3.1.2-4], [MQTT-3.2.2-2]
    for online in [true, false] {
        let mut world = World::new();
        let first = world.connect(&v5("c").expiry(100));
        world.subscribe(first, "t", Q1);
        let old = session_id(&world, "c");
        if !online {
            world.cut(first);
        }
        let publisher = world.connect(&v5("p").clean());
        world.publish(publisher, publish_at(Q1, 1, "t", "x"));
        world.take(first);
        let (second, present) = world.connect_present(&v5("c").clean().expiry(100));
        assert!(!present);
        if online {
            assert_eq!(world.kicked_with(first), ReasonCode::SessionTakenOver);
        }
        world.publish(publisher, publish_at(Q1, 1, "t", "y"));
        assert_eq!(world.take(second), []);
        assert_ne!(session_id(&world, "c"), old);
        assert_eq!(world.records.row("c").map(|row| row.epoch), Some(Epoch::FIRST));
        assert_eq!(world.records.filters("c"), []);
        assert_eq!(world.counts(), (2, 0));
    }
}

#[test]
fn a_v3_clean_session_neither_finds_a_session_nor_leaves_one() {
    // 3.1.1 [MQTT-3.1.2-6], S-5
    for hello in [v3("c"), v31("c")] {
        let mut world = World::new();
        let first = world.connect(&hello);
        world.subscribe(first, "t", Q1);
        world.cut(first);
        assert_eq!(world.counts(), (0, 1));
        let (second, present) = world.connect_present(&hello.clone().clean());
        assert!(!present);
        world.subscribe(second, "t", Q1);
        world.cut(second);
        assert_eq!(world.counts(), (0, 0));
        assert_eq!(world.records.len(), 0);
        let (_, present) = world.connect_present(&hello);
        assert!(!present);
    }
}

#[test]
fn a_v3_session_lasts_three_days() {
    // S-5
    let mut world = World::new();
    let client = world.connect(&v3("c"));
    world.cut(client);
    world.advance(259_199);
    assert_eq!(world.counts(), (0, 1));
    world.advance(1);
    assert_eq!(world.counts(), (0, 0));
}

#[test]
fn a_takeover_of_a_clean_session_begins_a_new_one() {
    // S-5: it ends with its connection
    for hello in [v5("c"), v3("c").clean()] {
        let mut world = World::new();
        let first = world.connect(&hello);
        world.subscribe(first, "t", Q1);
        let (second, present) = world.connect_present(&v5("c").expiry(10));
        assert!(!present);
        assert!(world.is_closed(first) && !world.is_closed(second));
        assert_eq!(world.cluster.subscription_count(), 0);
        assert_eq!(world.counts(), (1, 0));
    }
}

#[test]
fn a_resume_may_make_the_session_end_with_its_connection() {
    // 3.1.2.11.2: the interval is each connection's own
    let mut world = World::new();
    let first = world.connect(&v5("c").expiry(100));
    world.subscribe(first, "t", Q1);
    world.cut(first);
    let publisher = world.connect(&v5("p").clean());
    world.publish(publisher, publish_at(Q1, 1, "t", "x"));
    let (second, present) = world.connect_present(&v5("c"));
    assert!(present);
    assert_eq!(texts(&world.drain(second)), ["x"]);
    world.publish(publisher, publish_at(Q1, 1, "t", "y"));
    assert_eq!(texts(&world.drain(second)), ["y"]);
    world.cut(second);
    assert_eq!(world.counts(), (1, 0));
    assert!(world.records.row("c").is_none());
}

#[test]
fn an_expiry_above_the_ceiling_is_lowered_and_told() {
    // S-6, 3.2.2.3.2
    let mut world = World::new();
    for (asked, told, granted) in [
        (None, None, 0),
        (Some(0), None, 0),
        (Some(259_200), None, 259_200),
        (Some(259_201), Some(259_200), 259_200),
        (Some(u32::MAX), Some(259_200), 259_200),
    ] {
        let mut hello = v5("c").clean();
        hello.0.session_expiry_secs = asked;
        let peer = world.knock(&hello);
        assert_eq!(world.connack(peer).session_expiry_secs, told, "{asked:?}");
        let row = world.records.row("c").expect("a record");
        assert_eq!((row.expiry_client_secs, row.expiry_bounded), (granted, told.is_some()));
    }
}

#[test]
fn disconnect_may_change_the_expiry_within_the_ceiling() {
    // 3.14.2.2.2, S-6
    for (told, alive_at, gone_at) in
        [(Some(10), 9, 10), (None, 99, 100), (Some(u32::MAX), 259_199, 259_200), (Some(0), 0, 0)]
    {
        let mut world = World::new();
        let client = world.connect(&v5("c").expiry(100));
        world.send(client, &goodbye(ReasonCode::Success, told));
        assert!(world.is_closed(client));
        if gone_at > 0 {
            world.advance(alive_at);
            assert_eq!(world.counts(), (0, 1), "{told:?}");
            world.advance(gone_at - alive_at);
        }
        assert_eq!(world.counts(), (0, 0), "{told:?}");
    }
}

#[test]
fn disconnect_may_not_raise_an_expiry_of_zero() {
    // 3.14.2.2.2: Protocol Error
    let mut world = World::new();
    let client = world.connect(&v5("c").will(will("w", "gone", 0)));
    let witness = world.connect(&v5("witness"));
    world.subscribe(witness, "w", Q1);
    world.send(client, &goodbye(ReasonCode::Success, Some(10)));
    assert_eq!(world.kicked_with(client), ReasonCode::ProtocolError);
    assert_eq!(texts(&world.drain(witness)), ["gone"], "an end by an error publishes the will");
    let client = world.connect(&v5("c"));
    world.send(client, &goodbye(ReasonCode::Success, Some(0)));
    assert_eq!(world.take(client), [], "0 again is allowed");
}

#[test]
fn an_expired_session_is_gone_at_the_next_connect_without_a_sweeper() {
    // S-7
    let mut world = World::new();
    let first = world.connect(&v5("c").expiry(10));
    world.subscribe(first, "t", Q1);
    world.cut(first);
    let publisher = world.connect(&v5("p").clean());
    world.publish(publisher, publish_at(Q1, 1, "t", "x"));
    // The clock moves, and the CONNECT is the first thing to happen.
    world.now.wall = world.now.wall.plus_secs(10);
    let (second, present) = world.connect_present(&v5("c").expiry(10));
    assert!(!present);
    assert_eq!(world.take(second), []);
    assert_eq!(world.cluster.subscription_count(), 0);
    assert_eq!(world.records.len(), 2, "the expired one's record is gone");
}

#[test]
fn expiry_begins_when_the_connection_ends() {
    // S-7: not while connected
    let mut world = World::new();
    let client = world.connect(&v5("c").expiry(10));
    world.advance(1_000);
    assert_eq!(world.counts(), (1, 0));
    world.cut(client);
    world.advance(9);
    let (client, present) = world.connect_present(&v5("c").expiry(10));
    assert!(present);
    world.cut(client);
    world.advance(9);
    assert_eq!(world.counts(), (0, 1), "from the last end on");
    world.advance(1);
    assert_eq!(world.counts(), (0, 0));
}

#[test]
fn a_client_without_an_id_is_given_one() {
    // [MQTT-3.1.3-6], [MQTT-3.1.3-7], [MQTT-3.2.2-16]
    let mut world = World::new();
    let one = world.knock(&v5(""));
    let two = world.knock(&v5(""));
    let ids = [one, two].map(|peer| world.connack(peer).assigned_client_id.expect("assigned"));
    assert_ne!(ids[0], ids[1]);
    assert_eq!(world.counts(), (2, 0));
    let named = world.knock(&v5("c"));
    assert_eq!(world.connack(named).assigned_client_id, None);
    // 3.1.1 [MQTT-3.1.3-8]: only with clean session 1; 3.1 not at all
    let peer = world.knock(&v3(""));
    assert_eq!(world.connack(peer).reason, ReasonCode::ClientIdentifierNotValid);
    let peer = world.knock(&v31("").clean());
    assert_eq!(world.connack(peer).reason, ReasonCode::ClientIdentifierNotValid);
    world.connect(&v3("").clean());
}
