//! What a cluster sets of its clients: server keep-alive (PRODUCT S-15) and response information.

use std::num::NonZeroU16;

use super::packets::*;
use super::*;

fn keeping_alive(secs: u16) -> World {
    let mut world = World::new();
    world.change_rules(|rules| rules.server_keep_alive_secs = NonZeroU16::new(secs));
    world
}

#[test]
fn the_shorter_keep_alive_holds_and_v5_is_told_when_it_is_not_its_own() {
    // [MQTT-3.2.2-22]
    for (asked, told, in_force) in [(0, Some(20), 20), (10, None, 10), (20, None, 20), (60, Some(20), 20)] {
        for make in [v5, v3, v31] {
            let mut world = keeping_alive(20);
            let peer = world.knock(&make("c").keep_alive(asked));
            let connack = world.connack(peer);
            let is_v5 = make("c").0.version.is_v5();
            assert_eq!(connack.server_keep_alive_secs, told.filter(|_| is_v5));
            assert_eq!(world.records.row("c").map(|row| row.keep_alive_secs), Some(in_force));
            let allowed_millis = u64::from(in_force) * 1_500;
            world.advance_millis(allowed_millis - 1);
            assert!(!world.is_closed(peer));
            world.advance_millis(1_000);
            assert!(world.is_closed(peer), "{asked}");
        }
    }
}

#[test]
fn a_change_holds_for_live_connections_from_that_moment_on() {
    let mut world = World::new();
    let peers = [v5("five").expiry(100), v3("three"), v5("short").keep_alive(5)].map(|h| world.connect(&h));
    let ping = |world: &mut World, peer| {
        world.send(peer, &Packet::PingReq);
        assert_eq!(world.take(peer), [Packet::PingResp]);
    };
    for _ in 0..100 {
        ping(&mut world, peers[2]);
        world.advance(5);
    }
    ping(&mut world, peers[2]);
    world.change_rules(|rules| rules.server_keep_alive_secs = NonZeroU16::new(20));
    let recorded = |world: &World, id: &str| world.records.row(id).map(|row| row.keep_alive_secs);
    assert_eq!((recorded(&world, "five"), recorded(&world, "three")), (Some(20), Some(20)));
    assert_eq!(recorded(&world, "short"), Some(5));
    // Silent for 500 seconds, but not yet for 30 under the new rule.
    world.advance(7);
    assert!(!world.is_closed(peers[0]) && !world.is_closed(peers[2]));
    world.advance(1);
    assert!(world.is_closed(peers[2]), "its own is shorter");
    world.advance(21);
    ping(&mut world, peers[1]);
    world.advance(1);
    assert_eq!(world.kicked_with(peers[0]), ReasonCode::KeepAliveTimeout);
    // Taken back: the client's own again, and that is none.
    world.change_rules(|rules| rules.server_keep_alive_secs = None);
    assert_eq!(recorded(&world, "three"), Some(0));
    world.advance(1_000);
    assert!(!world.is_closed(peers[1]));
}

#[test]
fn response_information_is_told_to_who_asks_for_it() {
    // [MQTT-3.1.2-28]
    let mut world = World::new();
    let mut asking = v5("a/b");
    asking.0.request_response_information = true;
    let peer = world.knock(&asking);
    assert_eq!(world.connack(peer).response_information.as_deref(), Some("response/a%2Fb"));
    let peer = world.knock(&v5("c"));
    assert_eq!(world.connack(peer).response_information, None);
    // It gives way to the size that the client takes.
    let mut small = asking.packet_bytes_max(28);
    small.0.client_id = "d".into();
    let peer = world.knock(&small);
    let connack = world.connack(peer);
    assert_eq!((connack.reason, connack.response_information), (ReasonCode::Success, None));
}

#[test]
fn a_request_and_its_answer_find_their_ways() {
    let mut world = World::new();
    let mut asking = v5("asker");
    asking.0.request_response_information = true;
    let asker = world.knock(&asking);
    let prefix = world.connack(asker).response_information.expect("asked for");
    world.subscribe(asker, &format!("{prefix}/#"), Q1);
    let answerer = world.connect(&v5("answerer"));
    world.subscribe(answerer, "service", Q1);
    world.publish(asker, publish_at(Q1, 1, "service", "question"));
    assert_eq!(texts(&world.drain(answerer)), ["question"]);
    world.publish(answerer, publish_at(Q1, 1, &format!("{prefix}/1"), "answer"));
    assert_eq!(texts(&world.drain(asker)), ["answer"]);
}
