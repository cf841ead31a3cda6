//! Rates, each for v3.1.1 and v5 (PRODUCT ), and the guard against flapping.

use super::packets::*;
use super::*;
use crate::model::{Flapping, RateOverrides, RefusalKind, RefusalReason};

fn limited(rates: RateOverrides) -> World {
    World::with_quota(QuotaOverrides { rates, ..QuotaOverrides::default() })
}

fn refused(world: &mut World, hello: &Hello) -> (ReasonCode, Option<String>) {
    let peer = world.knock(hello);
    let connack = world.connack(peer);
    assert!(world.is_closed(peer));
    (connack.reason, connack.reason_string.map(|text| text.to_string()))
}

/// What was refused since the last time, in short.
fn refusals(world: &mut World) -> Vec<(RefusalKind, String, RefusalReason, u64)> {
    let told = std::mem::take(&mut world.refusals).into_iter();
    told.map(|r| (r.kind, r.client_id.unwrap_or_default(), r.reason, r.count)).collect()
}

fn pubacks(world: &mut World, peer: Peer) -> Vec<(u16, ReasonCode)> {
    let acks = world.take(peer).into_iter().map(|packet| match packet {
        Packet::PubAck(ack) | Packet::PubRec(ack) => (ack.packet_id.get(), ack.reason),
        other => panic!("{other:?} is no acknowledgement"),
    });
    acks.collect()
}

const FULL: ReasonCode = ReasonCode::QuotaExceeded;

#[test]
fn connects_beyond_the_rate_are_refused_and_take_nothing() {
    //
    let mut world = limited(RateOverrides { connects: Some(3), ..RateOverrides::default() });
    for id in ["a", "b", "c"] {
        world.connect(&v5(id).clean());
    }
    let why = Some("quota connects_per_second: limit 3, in use 3".to_owned());
    assert_eq!(refused(&mut world, &v5("d")), (ReasonCode::ConnectionRateExceeded, why));
    assert_eq!(refused(&mut world, &v3("d")).0, ReasonCode::ServerUnavailable, "return code 3");
    assert_eq!(refused(&mut world, &v31("d")).0, ReasonCode::ServerUnavailable);
    assert_eq!(refused(&mut world, &v5("a").clean()).0, ReasonCode::ConnectionRateExceeded, "the known, too");
    assert_eq!(world.counts(), (3, 0));
    world.advance_millis(333);
    assert_eq!(refused(&mut world, &v5("d")).0, ReasonCode::ConnectionRateExceeded);
    world.advance_millis(1);
    world.connect(&v5("d"));
    assert_eq!(refused(&mut world, &v5("e")).0, ReasonCode::ConnectionRateExceeded);
    // Holds at once, for what is there too.
    world.change_rules(|rules| rules.quota.rates.connects = None);
    world.connect(&v5("e"));
    let told = refusals(&mut world);
    assert_eq!(told.len(), 6, "{told:?}");
    assert_eq!(told[0], (RefusalKind::Connect, "d".to_owned(), RefusalReason::ConnectsPerSecond, 1));
}

#[test]
fn connects_with_a_will_have_a_rate_of_their_own() {
    //
    let mut world = limited(RateOverrides { connects_with_will: Some(1), ..RateOverrides::default() });
    world.connect(&v5("a").will(will("w", "x", 0)));
    let why = Some("quota connects_with_will_per_second: limit 1, in use 1".to_owned());
    let (reason, told) = refused(&mut world, &v5("b").will(will("w", "x", 0)));
    assert_eq!((reason, told), (ReasonCode::ConnectionRateExceeded, why));
    assert_eq!(refused(&mut world, &v3("b").will(will("w", "x", 0))).0, ReasonCode::ServerUnavailable);
    world.connect(&v3("b"));
    world.advance(1);
    world.connect(&v3("c").will(will("w", "x", 0)));
}

#[test]
fn what_is_refused_for_another_reason_uses_up_no_rate() {
    let mut world = World::with_quota(QuotaOverrides {
        connections: Some(1),
        rates: RateOverrides { connects: Some(2), ..RateOverrides::default() },
        ..QuotaOverrides::default()
    });
    world.connect(&v5("a"));
    for _ in 0..5 {
        assert_eq!(refused(&mut world, &v5("b")).0, ReasonCode::QuotaExceeded);
    }
    world.connect(&v5("a"));
    assert_eq!(refused(&mut world, &v5("a")).0, ReasonCode::ConnectionRateExceeded);
}

#[test]
fn subscribes_beyond_the_rate_are_refused_for_each_filter() {
    //
    for (hello, code) in [(v5("s"), FULL), (v3("s"), ReasonCode::UnspecifiedError)] {
        let mut world = limited(RateOverrides { subscribes: Some(1), ..RateOverrides::default() });
        let peer = world.connect(&hello);
        world.subscribe(peer, "a", Q1);
        world.send(peer, &subscribe(2, vec![wish("b", Q1), wish("c", Q1)]));
        let suback = world.suback(peer);
        assert_eq!(suback.reasons, [code, code]);
        let why = "quota subscribes_per_second: limit 1, in use 1";
        assert_eq!(suback.reason_string.as_deref(), hello.0.version.is_v5().then_some(why));
        assert_eq!(world.cluster.subscription_count(), 1);
        let told = (RefusalKind::Subscribe, "s".to_owned(), RefusalReason::SubscribesPerSecond, 1);
        assert_eq!(refusals(&mut world), [told]);
        world.advance(1);
        world.subscribe(peer, "b", Q1);
    }
}

#[test]
fn unsubscribes_beyond_the_rate_are_refused_in_v5() {
    // Q-6; UNSUBACK has no 0x97 [MQTT-3.11.3-2]
    let mut world = limited(RateOverrides { unsubscribes: Some(1), ..RateOverrides::default() });
    let peer = world.connect(&v5("s"));
    world.subscribe(peer, "a", Q1);
    world.send_all(peer, &[unsubscribe(2, &["b"]), unsubscribe(3, &["a", "b"])]);
    let answers = world.take(peer);
    let Packet::UnsubAck(refused) = &answers[1] else { panic!("{answers:?}") };
    assert_eq!(refused.reasons, [ReasonCode::ImplementationSpecificError; 2]);
    let why = "quota unsubscribes_per_second: limit 1, in use 1";
    assert_eq!(refused.reason_string.as_deref(), Some(why));
    assert_eq!(world.cluster.subscription_count(), 1);
}

#[test]
fn unsubscribes_beyond_the_rate_slow_a_v3_client() {
    //
    let mut world = limited(RateOverrides { unsubscribes: Some(1), ..RateOverrides::default() });
    let peer = world.connect(&v3("s"));
    for filter in ["a", "b"] {
        world.subscribe(peer, filter, Q1);
    }
    world.send_all(peer, &[unsubscribe(2, &["a"]), unsubscribe(3, &["b"]), Packet::PingReq]);
    assert!(!world.is_read(peer));
    let answers = world.take(peer);
    assert!(
        matches!(
            &answers[..],
            [Packet::PingResp, Packet::UnsubAck(_)] | [Packet::UnsubAck(_), Packet::PingResp]
        ),
        "{answers:?}"
    );
    world.advance_millis(999);
    assert_eq!(world.take(peer), []);
    world.advance_millis(1);
    assert_eq!(world.take(peer).len(), 1);
    assert!(world.is_read(peer));
    assert_eq!(world.cluster.subscription_count(), 0);
}

#[test]
fn a_v5_publisher_that_is_too_fast_is_refused_and_keeps_its_connection() {
    //
    let mut world = limited(RateOverrides { client_messages: Some(2), ..RateOverrides::default() });
    let publisher = world.connect(&v5("p"));
    let sleeper = world.connect(&v5("s").expiry(100));
    world.subscribe(sleeper, "t", Q2);
    world.cut(sleeper);
    for (n, qos) in [(1, Q1), (2, Q2), (3, Q1), (4, Q2)] {
        world.send(publisher, &Packet::Publish(publish_at(qos, n, "t", &n.to_string())));
    }
    let acks = pubacks(&mut world, publisher);
    assert_eq!(acks, [(1, ReasonCode::Success), (2, ReasonCode::Success), (3, FULL), (4, FULL)]);
    // The packet id is free again.
    world.advance_millis(500);
    world.send(publisher, &Packet::Publish(publish_at(Q2, 4, "t", "again")));
    assert_eq!(pubacks(&mut world, publisher), [(4, ReasonCode::Success)]);
    // QoS 0 is dropped and counted.
    world.send(publisher, &Packet::Publish(publish("t", "lost")));
    assert_eq!(world.cluster.session_counters("p").map(|counters| counters.dropped_over_rate), Some(1));
    assert!(!world.is_closed(publisher));
    world.advance(2);
    let told = (RefusalKind::Publish, "p".to_owned(), RefusalReason::ClientMessagesPerSecond, 3);
    assert_eq!(refusals(&mut world), [told], "one for all of them");
    let sleeper = world.connect(&v5("s").expiry(100));
    assert_eq!(texts(&world.drain(sleeper)), ["1", "2", "again"]);
}

#[test]
fn a_v5_client_is_told_quota_limit_and_use_if_it_wants_to_know() {
    for wants in [true, false] {
        let mut world = limited(RateOverrides { client_bytes: Some(10), ..RateOverrides::default() });
        let mut hello = v5("p");
        hello.0.request_problem_information = wants;
        let publisher = world.connect(&hello);
        world.send(publisher, &Packet::Publish(publish_at(Q1, 1, "t", "12345678")));
        world.take(publisher);
        world.send(publisher, &Packet::Publish(publish_at(Q1, 2, "t", "1")));
        let Some(Packet::PubAck(ack)) = world.take(publisher).pop() else { panic!("no PUBACK") };
        let why = "quota client_bytes_per_second: limit 10, in use 9";
        assert_eq!((ack.reason, ack.reason_string.as_deref()), (FULL, wants.then_some(why)));
    }
}

#[test]
fn a_v3_publisher_that_is_too_fast_waits_and_loses_nothing() {
    //
    for hello in [v3("p"), v31("p")] {
        let mut world = limited(RateOverrides { client_messages: Some(10), ..RateOverrides::default() });
        let subscriber = world.connect(&v5("s").expiry(100));
        world.subscribe(subscriber, "t", Q2);
        let publisher = world.connect(&hello.keep_alive(2));
        let all: Vec<Packet> = (1..=35_u16)
            .map(|n| {
                let qos = if n % 2 == 0 { Q1 } else { Q2 };
                Packet::Publish(publish_at(qos, n, "t", &n.to_string()))
            })
            .collect();
        world.send_all(publisher, &all);
        let mut heard: Vec<u16> = Vec::new();
        let mut take = |world: &mut World| {
            heard.extend(pubacks(world, publisher).into_iter().map(|(id, reason)| {
                assert_eq!(reason, ReasonCode::Success);
                id
            }));
            heard.len()
        };
        assert_eq!(take(&mut world), 10);
        assert!(!world.is_read(publisher));
        for tenths in 1..=25_usize {
            world.advance_millis(100);
            assert_eq!(take(&mut world), 10 + tenths, "exactly the rate");
            assert_eq!(world.is_read(publisher), tenths == 25);
        }
        assert!(!world.is_closed(publisher), "longer than one and a half times its keep-alive");
        assert_eq!(heard, (1..=35).collect::<Vec<_>>());
        assert_eq!(texts(&world.drain(subscriber)), (1..=35).map(|n| n.to_string()).collect::<Vec<_>>());
        // From here on its silence counts again.
        world.advance(4);
        assert!(world.is_closed(publisher));
        let told = (RefusalKind::Publish, "p".to_owned(), RefusalReason::ClientMessagesPerSecond, 1);
        assert_eq!(refusals(&mut world), [told]);
    }
}

#[test]
fn pings_and_acknowledgements_do_not_wait_behind_a_publish() {
    let mut world = limited(RateOverrides { client_messages: Some(1), ..RateOverrides::default() });
    let both = world.connect(&v3("both"));
    world.subscribe(both, "in", Q1);
    let other = world.connect(&v5("other"));
    let publishes = [1, 2, 3].map(|n| Packet::Publish(publish_at(Q1, n, "out", "x")));
    world.send_all(both, &publishes);
    world.take(both);
    assert!(!world.is_read(both));
    world.publish(other, publish_at(Q1, 1, "in", "to it"));
    let came = world.take_publishes(both);
    assert_eq!(texts(&came), ["to it"], "who is slowed still hears");
    // On its way when it was paused.
    let ack = puback(came[0].packet_id.expect("QoS 1"));
    world.send_all(both, &[ack, Packet::PingReq, subscribe(9, vec![wish("late", Q1)])]);
    assert_eq!(world.take(both), [Packet::PingResp]);
    world.advance(1);
    assert_eq!(pubacks(&mut world, both), [(2, ReasonCode::Success)]);
    world.advance(1);
    let answers = world.take(both);
    assert!(matches!(&answers[..], [Packet::PubAck(_), Packet::SubAck(_)]), "in order: {answers:?}");
}

#[test]
fn a_goodbye_behind_what_waits_holds_when_the_connection_closes() {
    for says_goodbye in [true, false] {
        let mut world = limited(RateOverrides { client_messages: Some(1), ..RateOverrides::default() });
        let witness = world.connect(&v5("w"));
        world.subscribe(witness, "#", Q1);
        let publisher = world.connect(&v3("p").will(will("will", "gone", 0)));
        let mut packets = vec![1, 2, 3]
            .into_iter()
            .map(|n| Packet::Publish(publish_at(Q1, n, "t", "x")))
            .collect::<Vec<_>>();
        if says_goodbye {
            packets.push(goodbye(ReasonCode::Success, None));
        }
        world.send_all(publisher, &packets);
        world.cut(publisher);
        let expected: &[&str] = if says_goodbye { &["x"] } else { &["x", "gone"] };
        assert_eq!(texts(&world.drain(witness)), expected);
        // What was not acknowledged comes again.
        world.advance(1);
        let publisher = world.connect(&v3("p"));
        world.send(publisher, &Packet::Publish(Publish { dup: true, ..publish_at(Q1, 2, "t", "y") }));
        assert_eq!(texts(&world.drain(witness)), ["y"]);
    }
}

#[test]
fn a_takeover_leaves_nothing_of_the_line() {
    let mut world = limited(RateOverrides { client_messages: Some(1), ..RateOverrides::default() });
    let first = world.connect(&v3("p"));
    world.send_all(first, &[1, 2, 3].map(|n| Packet::Publish(publish_at(Q1, n, "t", "x"))));
    let second = world.connect(&v3("p"));
    assert!(world.is_closed(first));
    world.send(second, &Packet::Publish(publish_at(Q1, 7, "t", "x")));
    assert_eq!(pubacks(&mut world, second), [(7, ReasonCode::Success)]);
    world.advance(5);
    assert_eq!(world.take(second), []);
}

#[test]
fn the_messages_of_the_cluster_are_shared_by_its_publishers() {
    // in and out
    let mut world = limited(RateOverrides { messages: Some(20), ..RateOverrides::default() });
    let [noisy, quiet] = ["noisy", "quiet"].map(|id| world.connect(&v5(id)));
    let subscriber = world.connect(&v5("s"));
    world.subscribe(subscriber, "t", Q0);
    let say = |world: &mut World, peer| {
        world.send(peer, &Packet::Publish(publish_at(Q1, 1, "t", "x")));
        pubacks(world, peer)[0].1 == ReasonCode::Success
    };
    let (mut of_noisy, mut seconds) = (0, 0);
    for millis in 0..10_000 {
        while say(&mut world, noisy) {
            of_noisy += 1;
        }
        if millis % 500 == 0 {
            assert!(say(&mut world, quiet), "at {millis}");
            seconds += 1;
        }
        world.advance_millis(1);
    }
    let heard = world.take_publishes(subscriber).len();
    assert_eq!(heard, of_noisy + seconds);
    // 20 a second, each message counted twice, and the beginning.
    assert!((100..=112).contains(&heard), "{heard}");
}

#[test]
fn a_v3_publisher_waits_for_the_cluster_and_qos_0_is_dropped() {
    //
    let mut world = limited(RateOverrides { messages: Some(10), ..RateOverrides::default() });
    let publisher = world.connect(&v3("p"));
    let all: Vec<Packet> = (1..=9).map(|n| Packet::Publish(publish_at(Q1, n, "t", "x"))).collect();
    world.send_all(publisher, &all);
    assert_eq!(pubacks(&mut world, publisher).len(), 5, "half of it at once");
    for acked in 1..=4 {
        world.advance_millis(100);
        assert_eq!(pubacks(&mut world, publisher).len(), 1, "{acked}");
    }
    world.send(publisher, &Packet::Publish(publish("t", "lost")));
    assert_eq!(world.cluster.message_counters().dropped_over_rate, 1);
    // Taken back, it holds for whoever waits.
    world.send_all(publisher, &all);
    world.change_rules(|rules| rules.quota.rates.messages = None);
    world.advance(1);
    assert_eq!(pubacks(&mut world, publisher).len(), 9);
    assert!(world.is_read(publisher));
}

#[test]
fn who_takes_no_part_is_not_slowed() {
    let mut world = limited(RateOverrides { client_messages: Some(1), ..RateOverrides::default() });
    let slow = world.connect(&v3("slow"));
    world.send_all(slow, &[1, 2, 3].map(|n| Packet::Publish(publish_at(Q1, n, "t", "x"))));
    let other = world.connect(&v3("other"));
    world.send(other, &Packet::Publish(publish_at(Q1, 1, "t", "x")));
    assert_eq!(pubacks(&mut world, other), [(1, ReasonCode::Success)]);
    assert!(world.is_read(other) && !world.is_read(slow));
}

#[test]
fn a_will_and_the_servers_own_messages_have_no_rate() {
    let mut world =
        limited(RateOverrides { messages: Some(1), client_messages: Some(1), ..RateOverrides::default() });
    let witness = world.connect(&v5("w"));
    world.subscribe(witness, "#", Q1);
    let publisher = world.connect(&v5("p").will(will("will", "gone", 0)));
    world.publish(publisher, publish_at(Q1, 1, "t", "x"));
    world.cut(publisher);
    assert_eq!(texts(&world.drain(witness)), ["x", "gone"]);
}

#[test]
fn a_client_that_flaps_is_held_and_the_connection_it_has_stays() {
    let mut world = limited(RateOverrides::default());
    let rule = Flapping { connects: 3, window_secs: 10, hold_secs: 30 };
    world.change_rules(|rules| rules.quota.flapping = rule);
    for _ in 0..2 {
        world.connect(&v5("loop").expiry(100));
    }
    let last = world.connect(&v3("loop"));
    let why = "flapping: more than 3 connects within 10 s; try again in 30 s".to_owned();
    let (reason, told) = refused(&mut world, &v5("loop").expiry(100));
    assert_eq!((reason, told), (ReasonCode::ConnectionRateExceeded, Some(why)));
    assert_eq!(refused(&mut world, &v3("loop")).0, ReasonCode::ServerUnavailable);
    assert!(!world.is_closed(last), "a loop of takeovers is broken");
    world.connect(&v5("other"));
    world.advance(29);
    assert_eq!(refused(&mut world, &v5("loop")).0, ReasonCode::ConnectionRateExceeded);
    world.advance(1);
    assert!(world.connect_present(&v5("loop").expiry(100)).1);
    let told = refusals(&mut world);
    assert!(told.iter().all(|(kind, id, reason, _)| {
        (*kind, id.as_str(), *reason) == (RefusalKind::Connect, "loop", RefusalReason::Flapping)
    }));
    assert_eq!(told.len(), 3);
    // Off.
    world.change_rules(|rules| rules.quota.flapping = Flapping::OFF);
    for _ in 0..10 {
        world.connect(&v5("loop").expiry(100));
    }
}
