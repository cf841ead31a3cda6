//! Session present, offline messages, and windows (PRODUCT S-2, S-3, S-11).

use super::packets::*;
use super::*;

/// A persistent subscriber that has gone, and a publisher.
fn sleeper(world: &mut World, hello: &Hello, qos: QoS) -> Peer {
    let subscriber = world.connect(hello);
    world.subscribe(subscriber, "t/#", qos);
    world.cut(subscriber);
    world.connect(&v5("publisher").clean())
}

#[test]
fn offline_messages_come_in_publish_order_without_subscribing_again() {
    // S-2, [MQTT-3.1.2-5], [MQTT-4.6.0-6]
    for hello in [v5("s").expiry(100), v3("s"), v31("s")] {
        let mut world = World::new();
        let publisher = sleeper(&mut world, &hello, Q1);
        world.publish_numbers(publisher, "t/a", Q1, 0..10);
        let (subscriber, present) = world.connect_present(&hello);
        assert_eq!(present, hello.0.version != ProtocolVersion::V3_1, "3.1 has no such flag");
        let received = world.drain(subscriber);
        assert_eq!(texts(&received), numbers(0..10));
        assert!(received.iter().all(|publish| !publish.dup && publish.qos == Q1 && !publish.retain));
        world.cut(subscriber);
        let subscriber = world.connect(&hello);
        assert_eq!(world.take(subscriber), [], "nothing that was acknowledged comes again");
    }
}

#[test]
fn a_backlog_larger_than_the_window_comes_as_acknowledgements_make_room() {
    // S-11, [MQTT-3.3.4-9]
    for (hello, window) in [
        (v3("s"), 16),
        (v5("s").expiry(100).receive_maximum(1), 1),
        (v5("s").expiry(100).receive_maximum(10), 10),
        (v5("s").expiry(100).receive_maximum(65_535), 200),
        (v5("s").expiry(100), 200),
    ] {
        let mut world = World::new();
        let publisher = sleeper(&mut world, &hello, Q1);
        world.publish_numbers(publisher, "t/a", Q1, 0..200);
        let subscriber = world.connect(&hello);
        let mut seen = Vec::new();
        let mut under_way = Vec::new();
        loop {
            under_way.extend(world.take_publishes(subscriber));
            assert!(under_way.len() <= window, "{} under way of {window}", under_way.len());
            if under_way.is_empty() {
                break;
            }
            let publish = under_way.remove(0);
            world.send(subscriber, &puback(publish.packet_id.expect("QoS 1")));
            seen.push(text(&publish));
        }
        assert_eq!(seen, numbers(0..200));
    }
}

#[test]
fn acknowledgements_in_any_order_let_the_backlog_go_on_and_are_never_sent_again() {
    // S-3: floor and out-of-order acknowledgements
    let mut world = World::new();
    let hello = v5("s").expiry(100).receive_maximum(4);
    let publisher = sleeper(&mut world, &hello, Q1);
    world.publish_numbers(publisher, "t/a", Q1, 0..8);
    let subscriber = world.connect(&hello);
    let first = world.take_publishes(subscriber);
    for at in [3, 1] {
        world.send(subscriber, &puback(first[at].packet_id.expect("QoS 1")));
    }
    assert_eq!(texts(&world.take_publishes(subscriber)), ["4", "5"]);
    world.cut(subscriber);
    let subscriber = world.connect(&hello);
    let again = world.take_publishes(subscriber);
    assert_eq!(texts(&again), ["0", "2", "4", "5"]);
    assert!(again.iter().all(|publish| publish.dup));
    assert_eq!(again[0].packet_id, first[0].packet_id);
    assert_eq!(again[1].packet_id, first[2].packet_id);
    for publish in &again {
        world.send(subscriber, &puback(publish.packet_id.expect("QoS 1")));
    }
    assert_eq!(texts(&world.drain(subscriber)), ["6", "7"]);
}

#[test]
fn an_offline_audience_of_many_keeps_a_message_once() {
    // S-3
    let mut world = World::new();
    for n in 0..50 {
        let subscriber = world.connect(&v5(&format!("s{n}")).expiry(100));
        world.subscribe(subscriber, "t/#", Q1);
        world.cut(subscriber);
    }
    let publisher = world.connect(&v5("publisher").clean());
    world.publish(publisher, publish_at(Q1, 1, "t/a", "x"));
    let kept = world.cluster.log.bytes();
    assert!(kept < 300, "{kept} bytes for a message of 4");
    for n in 0..50 {
        let subscriber = world.connect(&v5(&format!("s{n}")).expiry(100));
        assert_eq!(texts(&world.drain(subscriber)), ["x"]);
        world.advance(2);
        let kept = world.cluster.log.bytes();
        assert_eq!(kept > 0, n < 49, "trimmed when the last has consumed it");
    }
}

#[test]
fn the_window_of_a_resume_is_the_new_connections() {
    // S-11, [MQTT-3.3.4-9]: Receive Maximum is re-applied at each connect, also to what is sent again.
    let mut world = World::new();
    let publisher = sleeper(&mut world, &v5("s").expiry(100), Q1);
    world.publish_numbers(publisher, "t/a", Q1, 0..20);
    let subscriber = world.connect(&v5("s").expiry(100).receive_maximum(10));
    assert_eq!(world.take_publishes(subscriber).len(), 10);
    world.cut(subscriber);
    let subscriber = world.connect(&v5("s").expiry(100).receive_maximum(2));
    let mut seen = Vec::new();
    let mut under_way = Vec::new();
    loop {
        under_way.extend(world.take_publishes(subscriber));
        assert!(under_way.len() <= 2, "{} under way of 2", under_way.len());
        if under_way.is_empty() {
            break;
        }
        let publish = under_way.remove(0);
        world.send(subscriber, &puback(publish.packet_id.expect("QoS 1")));
        assert_eq!(publish.dup, seen.len() < 10);
        seen.push(text(&publish));
    }
    assert_eq!(seen, numbers(0..20));
}
