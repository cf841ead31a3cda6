//! QoS 2 in both directions, and what is sent again when (MQTT 5.0, 4.3.3, 4.4; PRODUCT S-2, S-11).

use super::packets::*;
use super::*;
use crate::data_plane::protocol::Ack;

fn only(mut packets: Vec<Packet>) -> Packet {
    assert_eq!(packets.len(), 1, "{packets:?}");
    packets.remove(0)
}

fn rel(id: u16) -> Packet {
    pubrel(super::packets::id(id))
}

/// A persistent client, and a persistent subscriber to `t` that takes what it publishes.
fn pair(world: &mut World, hello: &Hello) -> (Peer, Peer) {
    let subscriber = world.connect(&v5("witness").expiry(1_000));
    world.subscribe(subscriber, "t", Q2);
    (world.connect(hello), subscriber)
}

#[test]
fn a_message_to_the_server_is_passed_on_once_whatever_step_the_link_breaks_at() {
    // [MQTT-4.3.3-8] to [MQTT-4.3.3-12], [MQTT-4.4.0-1]
    for hello in [v5("p").expiry(100), v3("p"), v31("p")] {
        let mut world = World::new();
        let (publisher, subscriber) = pair(&mut world, &hello);
        let message = publish_at(Q2, 7, "t", "once");
        let again = Packet::Publish(Publish { dup: true, ..message.clone() });
        world.send(publisher, &Packet::Publish(message));
        assert_eq!(only(world.take(publisher)), pubrec(id(7)));
        // PUBREC was lost: PUBLISH comes again, twice.
        world.cut(publisher);
        let (publisher, _) = world.connect_present(&hello);
        for _ in 0..2 {
            world.send(publisher, &again);
            assert_eq!(only(world.take(publisher)), pubrec(id(7)));
        }
        // PUBREL was lost on its way, or PUBCOMP on its way back: PUBREL comes again.
        world.send(publisher, &rel(7));
        assert_eq!(only(world.take(publisher)), pubcomp(id(7)));
        world.cut(publisher);
        let publisher = world.connect(&hello);
        world.send(publisher, &rel(7));
        let Packet::PubComp(answer) = only(world.take(publisher)) else { panic!("PUBCOMP") };
        let unknown = ReasonCode::PacketIdentifierNotFound;
        let expected = if hello.0.version.is_v5() { unknown } else { ReasonCode::Success };
        assert_eq!((answer.packet_id, answer.reason), (id(7), expected));
        assert_eq!(texts(&world.drain(subscriber)), ["once"]);
        // The id is free again.
        world.publish(publisher, publish_at(Q2, 7, "t", "twice"));
        assert_eq!(texts(&world.drain(subscriber)), ["twice"]);
    }
}

#[test]
fn a_message_to_the_client_goes_on_at_the_step_at_which_the_link_broke() {
    // [MQTT-4.3.3-1] to [MQTT-4.3.3-7], [MQTT-4.4.0-1]: same packet id, DUP, no PUBLISH after PUBREC
    for hello in [v5("s").expiry(100), v3("s"), v31("s")] {
        let mut world = World::new();
        let subscriber = world.connect(&hello);
        world.subscribe(subscriber, "t", Q2);
        let publisher = world.connect(&v5("p").clean());
        world.publish(publisher, publish_at(Q2, 1, "t", "x"));
        let Packet::Publish(first) = only(world.take(subscriber)) else { panic!("PUBLISH") };
        assert!(first.qos == Q2 && !first.dup);
        let packet_id = first.packet_id.expect("QoS 2");
        for _ in 0..2 {
            world.cut(subscriber);
            let subscriber = world.connect(&hello);
            let again = Packet::Publish(Publish { dup: true, ..first.clone() });
            assert_eq!(only(world.take(subscriber)), again, "before PUBREC");
        }
        let subscriber = world.connect(&hello);
        world.take(subscriber);
        world.send(subscriber, &pubrec(packet_id));
        assert_eq!(only(world.take(subscriber)), pubrel(packet_id));
        for _ in 0..2 {
            world.cut(subscriber);
            let subscriber = world.connect(&hello);
            assert_eq!(only(world.take(subscriber)), pubrel(packet_id), "after PUBREC");
        }
        let subscriber = world.connect(&hello);
        world.take(subscriber);
        world.send(subscriber, &pubrec(packet_id));
        assert_eq!(only(world.take(subscriber)), pubrel(packet_id), "a repeated PUBREC is answered");
        world.send(subscriber, &pubcomp(packet_id));
        world.cut(subscriber);
        let subscriber = world.connect(&hello);
        assert_eq!(world.take(subscriber), [], "after PUBCOMP");
    }
}

#[test]
fn exchanges_of_both_kinds_go_on_in_their_order() {
    // [MQTT-4.6.0-1], [MQTT-4.6.0-5]
    let mut world = World::new();
    let subscriber = world.connect(&v5("s").expiry(100));
    world.subscribe(subscriber, "t", Q2);
    let publisher = world.connect(&v5("p").clean());
    for (n, qos) in [Q2, Q1, Q2, Q1].into_iter().enumerate() {
        world.publish(publisher, publish_at(qos, 1, "t", &n.to_string()));
    }
    let first = world.take_publishes(subscriber);
    assert_eq!(texts(&first), numbers(0..4));
    world.send(subscriber, &pubrec(first[2].packet_id.expect("QoS 2")));
    world.take(subscriber);
    world.cut(subscriber);
    let subscriber = world.connect(&v5("s").expiry(100));
    let again = |at: usize| Packet::Publish(Publish { dup: true, ..first[at].clone() });
    let released = pubrel(first[2].packet_id.expect("QoS 2"));
    assert_eq!(world.take(subscriber), [again(0), again(1), released, again(3)]);
}

#[test]
fn pubrel_needs_no_room_in_the_window_of_a_resume() {
    // [MQTT-4.4.0-1]: 4.9 counts PUBLISH only
    let mut world = World::new();
    let subscriber = world.connect(&v5("s").expiry(100));
    world.subscribe(subscriber, "t", Q2);
    let publisher = world.connect(&v5("p").clean());
    world.publish_numbers(publisher, "t", Q2, 0..3);
    for publish in world.take_publishes(subscriber) {
        world.send(subscriber, &pubrec(publish.packet_id.expect("QoS 2")));
    }
    world.cut(subscriber);
    let subscriber = world.connect(&v5("s").expiry(100).receive_maximum(1));
    assert_eq!(world.take(subscriber), [rel(1), rel(2), rel(3)]);
}

#[test]
fn a_v5_client_gets_nothing_twice_while_connected() {
    // [MQTT-4.4.0-1], S-11
    let mut world = World::new();
    let subscriber = world.connect(&v5("s").expiry(100));
    world.subscribe(subscriber, "t", Q2);
    let publisher = world.connect(&v5("p").clean());
    world.publish(publisher, publish_at(Q1, 1, "t", "1"));
    world.publish(publisher, publish_at(Q2, 1, "t", "2"));
    assert_eq!(world.take_publishes(subscriber).len(), 2);
    world.advance(100_000);
    assert_eq!(world.take(subscriber), []);
}

#[test]
fn a_v3_client_gets_what_it_does_not_answer_again_after_120_s() {
    // S-11
    for hello in [v3("s"), v31("s"), v3("s").clean()] {
        let mut world = World::new();
        let subscriber = world.connect(&hello);
        world.subscribe(subscriber, "t", Q2);
        let publisher = world.connect(&v5("p").clean());
        world.publish(publisher, publish_at(Q1, 1, "t", "1"));
        world.publish(publisher, publish_at(Q2, 1, "t", "2"));
        let first = world.take_publishes(subscriber);
        world.advance(119);
        assert_eq!(world.take(subscriber), []);
        world.advance(1);
        let again = world.take_publishes(subscriber);
        let dup = |publish: &Publish| Publish { dup: true, ..publish.clone() };
        assert_eq!(again, first.iter().map(dup).collect::<Vec<_>>());
        world.send(subscriber, &puback(first[0].packet_id.expect("QoS 1")));
        world.send(subscriber, &pubrec(first[1].packet_id.expect("QoS 2")));
        let released = pubrel(first[1].packet_id.expect("QoS 2"));
        assert_eq!(only(world.take(subscriber)), released);
        world.advance(119);
        assert_eq!(world.take(subscriber), []);
        world.advance(1);
        assert_eq!(only(world.take(subscriber)), released);
    }
}

#[test]
fn a_resume_starts_the_120_s_anew() {
    // S-11
    let mut world = World::new();
    let subscriber = world.connect(&v3("s"));
    world.subscribe(subscriber, "t", Q1);
    let publisher = world.connect(&v5("p").clean());
    world.publish(publisher, publish_at(Q1, 1, "t", "1"));
    world.advance(100);
    world.cut(subscriber);
    let subscriber = world.connect(&v3("s"));
    assert_eq!(world.take_publishes(subscriber).len(), 1);
    world.advance(100);
    assert_eq!(world.take(subscriber), []);
    world.advance(20);
    assert_eq!(world.take_publishes(subscriber).len(), 1);
}

#[test]
fn the_interval_is_the_clusters_and_0_is_never() {
    // S-11
    let mut world = World::new();
    world.change_rules(|rules| rules.resend_after_secs = 0);
    let subscriber = world.connect(&v3("s"));
    world.subscribe(subscriber, "t", Q1);
    let publisher = world.connect(&v5("p").clean());
    world.publish(publisher, publish_at(Q1, 1, "t", "1"));
    assert_eq!(world.take_publishes(subscriber).len(), 1);
    world.advance(100_000);
    assert_eq!(world.take(subscriber), []);
    // It holds for what is already under way.
    world.change_rules(|rules| rules.resend_after_secs = 5);
    world.advance(1);
    assert_eq!(world.take_publishes(subscriber).len(), 1);
    world.advance(4);
    assert_eq!(world.take(subscriber), []);
    world.advance(1);
    assert_eq!(world.take_publishes(subscriber).len(), 1);
}

#[test]
fn a_refused_message_is_done_with() {
    // [MQTT-4.3.3-4]: PUBREC with an error ends the exchange; [MQTT-4.3.2-3] PUBACK with one as well
    let mut world = World::new();
    let subscriber = world.connect(&v5("s").expiry(100).receive_maximum(1));
    world.subscribe(subscriber, "t", Q2);
    let publisher = world.connect(&v5("p").clean());
    world.publish(publisher, publish_at(Q2, 1, "t", "1"));
    world.publish(publisher, publish_at(Q1, 1, "t", "2"));
    world.publish(publisher, publish_at(Q2, 1, "t", "3"));
    let refuse = |publish: &Publish| Ack::new(publish.packet_id.expect("QoS"), ReasonCode::QuotaExceeded);
    let first = world.take_publishes(subscriber);
    world.send(subscriber, &Packet::PubRec(refuse(&first[0])));
    let second = world.take_publishes(subscriber);
    assert_eq!(texts(&second), ["2"]);
    world.send(subscriber, &Packet::PubAck(refuse(&second[0])));
    assert_eq!(texts(&world.drain(subscriber)), ["3"]);
    world.cut(subscriber);
    let subscriber = world.connect(&v5("s").expiry(100));
    assert_eq!(world.take(subscriber), []);
}

#[test]
fn acknowledgements_of_nothing_do_no_harm() {
    // 4.3.3: a PUBREC without an exchange is answered, so that the client can let go
    let mut world = World::new();
    let subscriber = world.connect(&v5("s").expiry(100));
    world.send(subscriber, &puback(id(9)));
    world.send(subscriber, &pubcomp(id(9)));
    assert_eq!(world.take(subscriber), []);
    world.send(subscriber, &pubrec(id(9)));
    let unknown = Ack::new(id(9), ReasonCode::PacketIdentifierNotFound);
    assert_eq!(only(world.take(subscriber)), Packet::PubRel(unknown));
}

#[test]
fn more_at_once_than_the_server_takes_ends_the_connection() {
    // [MQTT-3.3.4-7], 0x93
    let mut world = World::new();
    let publisher = world.connect(&v5("p").expiry(100));
    for packet_id in 1..=1_024 {
        world.send(publisher, &Packet::Publish(publish_at(Q2, packet_id, "t", "x")));
    }
    assert!(!world.is_closed(publisher));
    // What was released does not count, and what comes again neither.
    world.send(publisher, &rel(1));
    world.send(publisher, &Packet::Publish(publish_at(Q2, 1, "t", "x")));
    world.send(publisher, &Packet::Publish(Publish { dup: true, ..publish_at(Q2, 1, "t", "x") }));
    assert!(!world.is_closed(publisher));
    world.send(publisher, &Packet::Publish(publish_at(Q2, 1_025, "t", "x")));
    assert_eq!(world.kicked_with(publisher), ReasonCode::ReceiveMaximumExceeded);
    // 4.9: the next connection begins with a full quota, whatever is unfinished of the last one.
    let publisher = world.connect(&v5("p").expiry(100));
    world.send(publisher, &Packet::Publish(publish_at(Q2, 2_000, "t", "x")));
    assert!(!world.is_closed(publisher));
}

#[test]
fn a_v3_client_has_no_receive_maximum() {
    // 3.1.1 knows none
    let mut world = World::new();
    let publisher = world.connect(&v3("p"));
    for packet_id in 1..=2_000 {
        world.send(publisher, &Packet::Publish(publish_at(Q2, packet_id, "t", "x")));
    }
    assert!(!world.is_closed(publisher));
}
