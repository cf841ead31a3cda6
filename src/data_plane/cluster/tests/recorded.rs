//! What waits for its record, and what happens when the store is away (DESIGN 1).

use super::packets::*;
use super::records::Mode;
use super::*;
use crate::data_plane::cluster::RecordOutcome;

#[test]
fn connack_of_a_persistent_session_follows_its_record() {
    let mut world = World::new();
    world.records.mode = Mode::Late;
    for hello in [v5("a").expiry(100), v3("b")] {
        let peer = world.knock(&hello);
        assert_eq!(world.take(peer), []);
        world.decide_records(RecordOutcome::Committed);
        assert_eq!(world.connack(peer).reason, ReasonCode::Success);
        // A resume as well.
        world.cut(peer);
        let peer = world.knock(&hello);
        assert_eq!(world.take(peer), []);
        world.decide_records(RecordOutcome::Committed);
        assert!(world.connack(peer).session_present);
    }
}

#[test]
fn connack_of_a_clean_session_waits_for_nothing() {
    let mut world = World::new();
    world.records.mode = Mode::Late;
    world.connect(&v5("a"));
    world.connect(&v3("b").clean());
    world.decide_records(RecordOutcome::Committed);
    assert_eq!(world.records.len(), 2);
}

#[test]
fn while_the_store_is_away_only_what_needs_no_new_record_gets_in() {
    let mut world = World::new();
    let known = world.connect(&v5("known").expiry(100));
    world.subscribe(known, "t", Q1);
    world.cut(known);
    world.store_goes_away();
    let peer = world.knock(&v5("new").expiry(100));
    assert_eq!(world.connack(peer).reason, ReasonCode::ServerUnavailable);
    assert!(world.is_closed(peer));
    let peer = world.knock(&v3("new"));
    assert_eq!(world.connack(peer).reason, ReasonCode::ServerUnavailable);
    // A fresh start is new, too; and what it was to replace is not lost by the refusal.
    let peer = world.knock(&v5("known").clean().expiry(100));
    assert_eq!(world.connack(peer).reason, ReasonCode::ServerUnavailable);
    let (known, present) = world.connect_present(&v5("known").expiry(100));
    assert!(present);
    let clean = world.connect(&v5("clean"));
    world.publish(clean, publish_at(Q1, 1, "t", "x"));
    assert_eq!(texts(&world.drain(known)), ["x"]);
    world.cut(known);
    assert_eq!(world.counts(), (1, 1));
    world.store_comes_back();
    assert_eq!(world.records.len(), 2);
    assert!(world.records.row("known").is_some_and(|row| row.disconnected_at.is_some()));
}

#[test]
fn a_store_that_goes_away_while_connacks_wait_decides_them_alike() {
    let mut world = World::new();
    let known = world.connect(&v5("known").expiry(100));
    world.cut(known);
    world.records.mode = Mode::Late;
    let known = world.knock(&v5("known").expiry(100));
    let new = world.knock(&v5("new").expiry(100).will(will("w", "never", 0)));
    let witness = world.connect(&v5("witness"));
    world.subscribe(witness, "w", Q1);
    world.decide_records(RecordOutcome::StoreAway);
    assert!(world.connack(known).session_present);
    assert_eq!(world.connack(new).reason, ReasonCode::ServerUnavailable);
    assert_eq!(world.counts(), (2, 0));
    assert_eq!(world.take(witness), [], "a CONNECT that is refused has no will [MQTT-3.1.2-7]");
    world.store_comes_back();
    assert!(world.records.row("new").is_none());
}

#[test]
fn a_record_that_is_refused_refuses_the_connection_and_loses_nothing() {
    let mut world = World::new();
    let known = world.connect(&v5("known").expiry(100));
    world.subscribe(known, "t", Q1);
    let publisher = world.connect(&v5("p"));
    world.publish(publisher, publish_at(Q1, 1, "t", "x"));
    world.cut(known);
    world.records.mode = Mode::Refusing;
    let new = world.knock(&v5("new").expiry(100));
    assert_eq!(world.connack(new).reason, ReasonCode::ServerUnavailable);
    let known = world.knock(&v5("known").expiry(100));
    assert_eq!(world.connack(known).reason, ReasonCode::ServerUnavailable);
    assert!(world.is_closed(known));
    assert_eq!(world.counts(), (1, 1));
    world.records.mode = Mode::Prompt;
    let (known, present) = world.connect_present(&v5("known").expiry(100));
    assert!(present);
    assert_eq!(texts(&world.drain(known)), ["x"]);
}

#[test]
fn a_session_whose_connack_was_never_sent_is_not_there_for_the_next_connect() {
    // [MQTT-3.2.2-3]: the client could not have a session
    let mut world = World::new();
    world.records.mode = Mode::Late;
    let first = world.knock(&v5("c").expiry(100).will(will("w", "never", 0)));
    let witness = world.connect(&v5("witness"));
    world.subscribe(witness, "w", Q1);
    let second = world.knock(&v5("c").expiry(100));
    assert!(world.is_closed(first));
    assert_eq!(world.take(first), []);
    world.decide_records(RecordOutcome::Committed);
    assert!(!world.connack(second).session_present);
    assert_eq!(world.take(first), []);
    assert_eq!(world.take(witness), []);
    assert_eq!(world.counts(), (2, 0));
    assert_eq!(world.records.row("c").map(|row| row.epoch), Some(Epoch::FIRST));
    assert_eq!(world.records.len(), 2);
}

#[test]
fn a_connection_lost_while_a_resume_waits_leaves_the_session_as_it_was() {
    let mut world = World::new();
    let first = world.connect(&v5("c").expiry(100));
    world.subscribe(first, "t", Q1);
    world.cut(first);
    let publisher = world.connect(&v5("p"));
    world.publish(publisher, publish_at(Q1, 1, "t", "x"));
    world.records.mode = Mode::Late;
    let second = world.knock(&v5("c").expiry(100));
    world.cut(second);
    let third = world.knock(&v5("c").expiry(100));
    let fourth = world.knock(&v5("c").expiry(100));
    assert!(world.is_closed(third));
    world.decide_records(RecordOutcome::Committed);
    assert!(world.connack(fourth).session_present);
    assert_eq!(texts(&world.drain(fourth)), ["x"]);
    assert_eq!(world.records.row("c").map(|row| row.epoch), Some(Epoch(4)));
}

#[test]
fn waiting_for_a_record_is_not_silence() {
    // S-15: the runtime does not read a client before it is let in
    let mut world = World::new();
    world.records.mode = Mode::Late;
    let peer = world.knock(&v5("c").expiry(100).keep_alive(2));
    world.advance(10);
    world.decide_records(RecordOutcome::Committed);
    assert_eq!(world.connack(peer).reason, ReasonCode::Success);
    world.advance(2);
    assert!(!world.is_closed(peer), "the keep-alive begins with CONNACK");
    world.advance(1);
    assert!(world.is_closed(peer));
}

#[test]
fn suback_and_unsuback_of_a_persistent_session_follow_the_record() {
    let mut world = World::new();
    let peer = world.connect(&v5("c").expiry(100));
    world.records.mode = Mode::Late;
    world.send(peer, &subscribe(7, vec![wish("t", Q1)]));
    assert_eq!(world.take(peer), []);
    world.decide_records(RecordOutcome::Committed);
    assert_eq!(world.suback(peer).packet_id, id(7));
    assert_eq!(world.records.filters("c"), [("t".to_owned(), Q1)]);
    world.send(peer, &unsubscribe(8, &["t", "u"]));
    assert_eq!(world.take(peer), []);
    world.decide_records(RecordOutcome::Committed);
    let packets = world.take(peer);
    let [Packet::UnsubAck(unsuback)] = &packets[..] else { panic!("{packets:?}") };
    assert_eq!(unsuback.reasons, [ReasonCode::Success, ReasonCode::NoSubscriptionExisted]);
    assert_eq!(world.records.filters("c"), []);
    // Nothing changes, so nothing is waited for.
    world.send(peer, &unsubscribe(9, &["u"]));
    assert_eq!(world.take(peer).len(), 1);
    // A clean session waits for nothing.
    let clean = world.connect(&v5("clean"));
    world.subscribe(clean, "t", Q1);
}

#[test]
fn a_subscription_that_could_not_be_recorded_is_not_in_force() {
    let mut world = World::new();
    let peer = world.connect(&v5("c").expiry(100));
    world.subscribe(peer, "old", Q2);
    let publisher = world.connect(&v5("p"));
    world.records.mode = Mode::Late;
    world.send(peer, &subscribe(1, vec![wish("new", Q1), wish("old", Q0)]));
    world.decide_records(RecordOutcome::StoreAway);
    let suback = world.suback(peer);
    assert_eq!(suback.reasons, [ReasonCode::UnspecifiedError; 2]);
    assert!(suback.reason_string.is_some());
    for topic in ["new", "old"] {
        world.publish(publisher, publish_at(Q2, 1, topic, topic));
    }
    let seen = world.drain(peer);
    assert_eq!(texts(&seen), ["old"]);
    assert_eq!(seen[0].qos, Q2, "what was to be replaced is as it was");
    world.store_comes_back();
    assert_eq!(world.records.filters("c"), [("old".to_owned(), Q2)]);
    // While it is known to be away nothing is begun.
    world.store_goes_away();
    world.send(peer, &subscribe(2, vec![wish("new", Q1)]));
    assert_eq!(world.suback(peer).reasons, [ReasonCode::UnspecifiedError]);
    world.send(peer, &unsubscribe(3, &["old"]));
    assert_eq!(world.take(peer).len(), 1, "what is given up needs no record to be safe");
    world.store_comes_back();
    assert_eq!(world.records.filters("c"), []);
}

#[test]
fn what_is_answered_to_a_new_connection_is_never_an_old_ones() {
    // S-9: SUBACK of a connection that was taken over
    let mut world = World::new();
    let first = world.connect(&v5("c").expiry(100));
    world.records.mode = Mode::Late;
    world.send(first, &subscribe(7, vec![wish("t", Q1)]));
    let second = world.knock(&v5("c").expiry(100));
    world.decide_records(RecordOutcome::Committed);
    assert!(world.connack(second).session_present);
    assert_eq!(world.take(second), []);
    assert_eq!(world.records.filters("c"), [("t".to_owned(), Q1)]);
}
