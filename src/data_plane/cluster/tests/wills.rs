//! Wills: when they are published, when not, and with what (MQTT 5.0, 3.1.2.5, 3.1.3.2; PRODUCT S-10).

use super::disk::Pace;
use super::packets::*;
use super::*;
use crate::data_plane::protocol::Will;
use crate::model::OperatorExpiry;

/// A cluster with someone who listens for wills.
fn witnessed() -> (World, Peer) {
    let mut world = World::new();
    let witness = world.connect(&v5("witness"));
    world.subscribe(witness, "will/#", Q2);
    (world, witness)
}

fn with_will(delay_secs: u32) -> Hello {
    v5("c").expiry(100).will(will("will/c", "gone", delay_secs))
}

#[test]
fn a_lost_connection_publishes_the_will_at_once() {
    // [MQTT-3.1.2-8]
    for hello in [
        with_will(0),
        v5("c").will(will("will/c", "gone", 50)), // never after the session's end
        v3("c").will(will("will/c", "gone", 0)),
        v31("c").clean().will(will("will/c", "gone", 0)),
    ] {
        let (mut world, witness) = witnessed();
        let client = world.connect(&hello);
        assert_eq!(world.take(witness), []);
        world.cut(client);
        let wills = world.drain(witness);
        assert_eq!(texts(&wills), ["gone"]);
        assert!(wills[0].qos == Q1 && !wills[0].retain);
        assert!(world.records.row("c").is_none_or(|row| !row.has_will), "no will waits");
        let client = world.connect(&v5("c").expiry(100));
        world.cut(client);
        assert_eq!(world.take(witness), [], "the next connection has none");
    }
}

#[test]
fn a_normal_goodbye_discards_the_will_and_another_reason_publishes_it() {
    // [MQTT-3.14.4-3], [MQTT-3.1.2-10]
    let (mut world, witness) = witnessed();
    for (reason, published) in [
        (ReasonCode::Success, false),
        (ReasonCode::DisconnectWithWill, true),
        (ReasonCode::UnspecifiedError, true),
    ] {
        for hello in [with_will(0), v5("c").will(will("will/c", "gone", 0))] {
            let client = world.connect(&hello);
            world.send(client, &goodbye(reason, None));
            assert_eq!(world.drain(witness).len(), usize::from(published), "{reason:?}");
            assert!(world.records.row("c").is_none_or(|row| !row.has_will));
        }
    }
    let client = world.connect(&v3("c").will(will("will/c", "gone", 0)));
    world.leave(client);
    world.advance(300_000);
    assert_eq!(world.take(witness), []);
}

#[test]
fn a_delayed_will_waits_and_a_return_in_time_cancels_it() {
    // [MQTT-3.1.3-9], S-10
    let (mut world, witness) = witnessed();
    let client = world.connect(&with_will(10));
    world.cut(client);
    assert!(world.records.row("c").is_some_and(|row| row.has_will));
    world.advance(9);
    assert_eq!(world.take(witness), []);
    let client = world.connect(&v5("c").expiry(100));
    world.advance(50);
    assert_eq!(world.take(witness), [], "the client came back");
    world.cut(client);
    world.advance(50);
    assert_eq!(world.take(witness), [], "and brought no will");
    let client = world.connect(&with_will(10));
    world.cut(client);
    world.advance(10);
    assert_eq!(texts(&world.drain(witness)), ["gone"]);
    world.advance(1_000);
    assert_eq!(world.take(witness), [], "once");
}

#[test]
fn a_delayed_will_never_outlives_its_session() {
    // [MQTT-3.1.3-9]: the earlier of the delay and the session's end
    let (mut world, witness) = witnessed();
    let client = world.connect(&with_will(200));
    world.cut(client);
    world.advance(99);
    assert_eq!(world.take(witness), []);
    world.advance(1);
    assert_eq!(texts(&world.drain(witness)), ["gone"]);
    // Ended by a clean start.
    let client = world.connect(&with_will(200));
    world.cut(client);
    let client = world.connect(&v5("c").clean());
    assert_eq!(texts(&world.drain(witness)), ["gone"]);
    world.cut(client);
    // Ended by an order.
    let client = world.connect(&with_will(200));
    world.cut(client);
    world.order("c", DESTROY);
    assert_eq!(texts(&world.drain(witness)), ["gone"]);
    // DISCONNECT with an interval of 0 ends the session there and then.
    let client = world.connect(&with_will(200));
    world.send(client, &goodbye(ReasonCode::DisconnectWithWill, Some(0)));
    assert_eq!(texts(&world.drain(witness)), ["gone"]);
    world.advance(1_000);
    assert_eq!(world.take(witness), []);
}

#[test]
fn a_delayed_will_follows_a_changed_expiry() {
    // S-10: min(will delay, session end)
    let (mut world, witness) = witnessed();
    let client = world.connect(&with_will(50));
    world.cut(client);
    world.order("c", Order::ApplyExpiry(Some(OperatorExpiry::Interval(5))));
    world.advance(5);
    assert_eq!(texts(&world.drain(witness)), ["gone"]);
    assert_eq!(world.counts(), (1, 0));
    // Longer: the delay counts again.
    let client = world.connect(&with_will(150));
    world.cut(client);
    world.order("c", Order::ApplyExpiry(Some(OperatorExpiry::Interval(1_000))));
    world.advance(149);
    assert_eq!(world.take(witness), []);
    world.advance(1);
    assert_eq!(texts(&world.drain(witness)), ["gone"]);
    assert_eq!(world.counts(), (1, 1));
}

#[test]
fn a_takeover_publishes_an_undelayed_will_and_cancels_a_delayed_one() {
    // 3.1.4, [MQTT-3.1.3-9]
    let (mut world, witness) = witnessed();
    let _first = world.connect(&with_will(0));
    let _second = world.connect(&with_will(10));
    assert_eq!(texts(&world.drain(witness)), ["gone"]);
    let third = world.connect(&v5("c").expiry(100));
    world.advance(50);
    assert_eq!(world.take(witness), []);
    world.leave(third);
    // A clean start ends the session, and with it the wait.
    let _fourth = world.connect(&with_will(10));
    let _fifth = world.connect(&v5("c").clean());
    assert_eq!(texts(&world.drain(witness)), ["gone"]);
}

#[test]
fn what_the_server_ends_publishes_the_will() {
    // [MQTT-3.1.2-8]: protocol error, keep-alive, and by order
    let (mut world, witness) = witnessed();
    let client = world.connect(&with_will(0));
    world.send(client, &Packet::Publish(Publish { topic: None, ..alias_only(1) }));
    assert!(world.is_closed(client));
    assert_eq!(texts(&world.drain(witness)), ["gone"]);
    let client = world.connect(&with_will(0).keep_alive(10));
    world.advance(15);
    assert!(world.is_closed(client));
    assert_eq!(texts(&world.drain(witness)), ["gone"]);
    world.connect(&with_will(0));
    world.order("c", DISCONNECT);
    assert_eq!(texts(&world.drain(witness)), ["gone"]);
    world.connect(&with_will(0));
    world.order("c", DESTROY);
    assert_eq!(texts(&world.drain(witness)), ["gone"]);
}

fn alias_only(alias: u16) -> Publish {
    let mut publish = publish("x", "");
    publish.properties.topic_alias = std::num::NonZeroU16::new(alias);
    publish
}

#[test]
fn a_will_is_published_with_its_own_retain_qos_and_expiry() {
    // [MQTT-3.1.2-15] of 3.1.1 and 3.1.3.2.4: message expiry begins with the publication
    let (mut world, witness) = witnessed();
    let mut will = Will { qos: Q2, retain: true, ..will("will/c", "gone", 10) };
    will.properties.message_expiry_secs = Some(20);
    let client = world.connect(&v5("c").expiry(100).will(will));
    world.advance(50);
    world.cut(client);
    world.advance(10);
    let published = world.drain(witness);
    assert_eq!((published[0].qos, published[0].properties.message_expiry_secs), (Q2, Some(20)));
    world.advance(19);
    let late = world.connect(&v5("late"));
    world.subscribe(late, "will/c", Q2);
    let replayed = world.drain(late);
    assert!(replayed[0].retain && replayed[0].properties.message_expiry_secs == Some(1));
    world.advance(1);
    let later = world.connect(&v5("later"));
    world.subscribe(later, "will/c", Q2);
    assert_eq!(world.take(later), [], "[MQTT-3.3.2-5]");
}

#[test]
fn a_will_waits_in_the_log_for_an_offline_audience_its_own_client_included() {
    let mut world = World::new();
    let client = world.connect(&with_will(0));
    world.subscribe(client, "will/#", Q1);
    world.cut(client);
    let client = world.connect(&v5("c").expiry(100));
    assert_eq!(texts(&world.drain(client)), ["gone"]);
}

/// Found by the crash harness.
#[test]
fn connack_leaves_when_the_will_that_it_tells_of_is_on_disk() {
    for hello in [with_will(0), v5("c").will(will("will/c", "gone", 0))] {
        let mut world = World::new();
        world.disk.pace = Pace::Late;
        let client = world.knock(&hello);
        assert_eq!(world.take(client), []);
        world.sync_disk();
        assert!(matches!(&world.take(client)[..], [Packet::ConnAck(_)]));
    }
    // Nor before it is on disk that the will of the time before is not to be published.
    let mut world = World::new();
    let client = world.connect(&with_will(50));
    world.cut(client);
    world.disk.pace = Pace::Late;
    let client = world.knock(&v5("c").expiry(100));
    assert_eq!(world.take(client), []);
    world.sync_disk();
    assert!(matches!(&world.take(client)[..], [Packet::ConnAck(_)]));
}
