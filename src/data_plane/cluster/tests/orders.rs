//! Orders from the API: proven, fenced, and what they do to expiry (API.md; PRODUCT S-6, S-8).

use super::disk::Pace;
use super::packets::*;
use super::records::Mode;
use super::*;
use crate::data_plane::cluster::RecordOutcome;
use crate::model::{ClientHold, ClientHolds, EndedBy, OperatorExpiry, OperatorReason};

/// A world in which sockets close and records are committed when told.
fn held_world() -> (World, Peer) {
    let mut world = World::new();
    let client = world.connect(&v5("c").expiry(100));
    world.subscribe(client, "t", Q1);
    world.records.mode = Mode::Late;
    world.sockets_linger = true;
    (world, client)
}

#[test]
fn disconnect_and_destroy_are_answered_when_the_socket_is_closed_and_the_record_says_so() {
    for order in [DISCONNECT, DESTROY] {
        for socket_first in [true, false] {
            let (mut world, client) = held_world();
            let met = world.records.row("c").map(|row| (row.session_id, row.epoch));
            let command = world.order("c", order.clone());
            assert_eq!(world.kicked_with(client), ReasonCode::AdministrativeAction);
            assert_eq!(world.answer(command), None);
            if socket_first {
                world.close_sockets();
                assert_eq!(world.answer(command), None, "the record is not committed");
                world.decide_records(RecordOutcome::Committed);
            } else {
                world.decide_records(RecordOutcome::Committed);
                assert_eq!(world.answer(command), None, "the socket is not closed");
                world.close_sockets();
            }
            let answer = world.answer(command).expect("answered").expect("carried out");
            assert_eq!(Some((answer.session_id, answer.epoch)), met);
            assert!(answer.was_online);
            let row = world.records.row("c");
            if order == DESTROY {
                assert!(row.is_none());
            } else {
                let cause = row.and_then(|row| row.disconnect.clone()).expect("offline");
                assert_eq!((&*cause.reason, cause.by), ("administrative", EndedBy::Operator));
            }
            world.sockets_linger = false;
            world.records.mode = Mode::Prompt;
            let (_, present) = world.connect_present(&v5("c").expiry(100));
            assert_eq!(present, order == DISCONNECT);
        }
    }
}

#[test]
fn an_offline_session_is_destroyed_when_the_record_is_gone() {
    let (mut world, client) = held_world();
    world.cut(client);
    world.decide_records(RecordOutcome::Committed);
    let command = world.order("c", DESTROY);
    assert_eq!(world.answer(command), None);
    world.decide_records(RecordOutcome::Committed);
    assert!(world.answer(command).expect("answered").is_ok_and(|met| !met.was_online));
    assert_eq!(world.records.len(), 0);
    assert_eq!(world.cluster.subscription_count(), 0);
    let command = world.order("c", DESTROY);
    assert_eq!(world.answer(command), Some(Err(CommandError::NoSuchSession)));
}

#[test]
fn an_order_waits_for_a_connection_that_is_still_closing_for_another_reason() {
    // API.md: answered only when the socket is closed
    let (mut world, client) = held_world();
    let first = world.order("c", DISCONNECT);
    let second = world.order("c", DISCONNECT);
    let third = world.order("c", DESTROY);
    world.decide_records(RecordOutcome::Committed);
    assert!(world.is_closed(client));
    for command in [first, second, third] {
        assert_eq!(world.answer(command), None, "{command:?}: the socket is not closed");
    }
    world.close_sockets();
    for (command, was_online) in [(first, true), (second, false), (third, false)] {
        let met = world.answer(command).expect("answered").expect("carried out");
        assert_eq!(met.was_online, was_online);
    }
}

#[test]
fn disconnecting_a_clean_session_ends_it() {
    let (mut world, _) = held_world();
    world.connect(&v5("clean"));
    let command = world.order("clean", DISCONNECT);
    world.close_sockets();
    assert_eq!(world.answer(command), None);
    world.decide_records(RecordOutcome::Committed);
    assert!(world.answer(command).is_some_and(|answer| answer.is_ok()));
    assert!(world.records.row("clean").is_none());
}

#[test]
fn a_store_that_is_away_is_told_but_the_effect_holds() {
    let (mut world, client) = held_world();
    world.sockets_linger = false;
    let command = world.order("c", DESTROY);
    assert!(world.is_closed(client));
    world.decide_records(RecordOutcome::StoreAway);
    assert_eq!(world.answer(command), Some(Err(CommandError::StoreAway)));
    assert_eq!(world.counts(), (0, 0));
    world.store_comes_back();
    assert_eq!(world.records.len(), 0);
}

#[test]
fn a_fence_keeps_an_order_from_a_later_session() {
    let mut world = World::new();
    let client = world.connect(&v5("c").expiry(100));
    let old = world.records.row("c").expect("a record").session_id;
    world.cut(client);
    let _again = world.connect(&v5("c").expiry(100));
    let now = |epoch| Some(Err(CommandError::Superseded { session_id: old, epoch }));
    for order in [DISCONNECT, DESTROY, Order::ApplyExpiry(None)] {
        let command = world.order_fenced("c", (Some(old), Some(Epoch::FIRST)), order.clone());
        assert_eq!(world.answer(command), now(Epoch(2)));
        let other = SessionId(Uuid::from_u128(99));
        let command = world.order_fenced("c", (Some(other), None), order);
        assert_eq!(world.answer(command), now(Epoch(2)));
    }
    assert_eq!(world.counts(), (1, 0));
    let command = world.order_fenced("c", (Some(old), Some(Epoch(2))), DESTROY);
    assert!(world.answer(command).is_some_and(|answer| answer.is_ok()));
}

#[test]
fn a_connection_that_waits_for_its_connack_can_be_ended() {
    let mut world = World::new();
    world.records.mode = Mode::Late;
    let waiting = world.knock(&v5("c").expiry(100));
    let command = world.order("c", DESTROY);
    assert!(world.is_closed(waiting));
    assert_eq!(world.take(waiting), []);
    world.decide_records(RecordOutcome::Committed);
    assert!(world.answer(command).is_some_and(|answer| answer.is_ok()));
    assert_eq!((world.counts(), world.records.len()), ((0, 0), 0));
}

fn apply(world: &mut World, expiry: Option<OperatorExpiry>) {
    let command = world.order("c", Order::ApplyExpiry(expiry));
    assert!(world.answer(command).is_some_and(|answer| answer.is_ok()));
}

#[test]
fn an_expiry_ordered_for_an_offline_session_is_in_force_at_once() {
    let mut world = World::new();
    let client = world.connect(&v5("c").expiry(100));
    world.subscribe(client, "t", Q1);
    world.cut(client);
    world.advance(10);
    // Counted from the end of the connection.
    apply(&mut world, Some(OperatorExpiry::Interval(20)));
    world.advance(9);
    assert_eq!(world.counts(), (0, 1));
    let at = world.now.wall.plus_secs(500);
    apply(&mut world, Some(OperatorExpiry::At(at)));
    world.advance(400);
    assert_eq!(world.counts(), (0, 1));
    // The client's own is back, and has passed.
    apply(&mut world, None);
    assert_eq!(world.counts(), (0, 0));
    assert_eq!(world.records.len(), 0);
    assert_eq!(world.cluster.subscription_count(), 0);
}

#[test]
fn an_expiry_ordered_for_a_live_session_holds_at_its_end_and_is_told_at_the_next_connect() {
    let mut world = World::new();
    let client = world.connect(&v5("c").expiry(100));
    apply(&mut world, Some(OperatorExpiry::Interval(50)));
    world.advance(1_000);
    world.cut(client);
    world.advance(49);
    let peer = world.knock(&v5("c").expiry(100));
    let connack = world.connack(peer);
    assert_eq!((connack.session_present, connack.session_expiry_secs), (true, Some(50)));
    // The client's goodbye does not beat it.
    world.send(peer, &goodbye(ReasonCode::Success, Some(0)));
    world.advance(49);
    assert_eq!(world.counts(), (0, 1));
    world.advance(1);
    assert_eq!(world.counts(), (0, 0));
}

#[test]
fn an_order_can_make_a_live_clean_session_last() {
    let mut world = World::new();
    let client = world.connect(&v5("c").receive_maximum(2));
    world.subscribe(client, "t", Q1);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t", Q1, 0..5);
    let first = world.take_publishes(client);
    assert_eq!(texts(&first), ["0", "1"]);
    apply(&mut world, Some(OperatorExpiry::Interval(100)));
    world.publish_numbers(publisher, "t", Q1, 5..8);
    world.send(client, &puback(first[0].packet_id.expect("QoS 1")));
    assert_eq!(texts(&world.take_publishes(client)), ["2"]);
    world.cut(client);
    world.publish_numbers(publisher, "t", Q1, 8..10);
    assert_eq!(world.counts(), (1, 1));
    // While the store is away it resumes like any other.
    world.store_goes_away();
    let (client, present) = world.connect_present(&v5("c").receive_maximum(2));
    assert!(present);
    assert_eq!(texts(&world.drain(client)), numbers(1..10));
    world.store_comes_back();
    world.cut(client);
    world.advance(100);
    assert_eq!(world.counts(), (1, 0));
}

#[test]
fn an_order_can_make_a_live_session_end_with_its_connection() {
    let mut world = World::new();
    for expiry in [OperatorExpiry::Interval(0), OperatorExpiry::At(world.now.wall)] {
        let client = world.connect(&v5("c").expiry(100));
        apply(&mut world, Some(expiry));
        assert!(!world.is_closed(client));
        world.cut(client);
        assert_eq!((world.counts(), world.records.len()), ((0, 0), 0));
    }
}

#[test]
fn a_suspended_cluster_ends_its_connections_and_keeps_its_sessions() {
    let mut world = World::new();
    let persistent = world.connect(&v5("c").expiry(100));
    world.subscribe(persistent, "t", Q1);
    let clean = world.connect(&v3("clean").clean());
    world.change_rules(|rules| rules.status = ClusterStatus::Suspended);
    assert_eq!(world.kicked_with(persistent), ReasonCode::AdministrativeAction);
    assert!(world.is_closed(clean));
    assert_eq!(world.counts(), (0, 1));
    for hello in [v5("c").expiry(100), v3("new")] {
        let peer = world.knock(&hello);
        assert_eq!(world.connack(peer).reason, ReasonCode::ServerUnavailable);
    }
    world.change_rules(|rules| rules.status = ClusterStatus::Active);
    assert!(world.connect_present(&v5("c").expiry(100)).1);
}

#[test]
fn a_dissolved_cluster_holds_nothing() {
    let mut world = World::new();
    let online = world.connect(&v5("online").expiry(100).will(will("t", "gone", 10)));
    world.subscribe(online, "t", Q1);
    let offline = world.connect(&v5("offline").expiry(100).will(will("t", "gone", 10)));
    world.subscribe(offline, "t", Q1);
    world.cut(offline);
    world.connect(&v3("clean").clean());
    world.cluster.dissolve(world.now);
    world.settle();
    assert_eq!(world.kicked_with(online), ReasonCode::AdministrativeAction);
    assert_eq!(world.counts(), (0, 0));
    assert_eq!(world.cluster.subscription_count(), 0);
    assert_eq!(world.records.len(), 0);
}

#[test]
fn whoever_waits_for_a_dissolved_cluster_is_told() {
    let mut world = World::new();
    let client = world.connect(&v5("c").expiry(100));
    world.subscribe(client, "t", Q1);
    world.disk.pace = Pace::Late;
    world.records.mode = Mode::Late;
    let order = world.order("c", DISCONNECT);
    assert_eq!(world.answer(order), None);
    let other = world.connect(&v5("other"));
    world.publish(other, publish_at(Q0, 0, "t", "x"));
    world.send(other, &Packet::Publish(publish_at(Q1, 1, "t", "held")));
    world.cluster.dissolve(world.now);
    world.settle();
    assert_eq!(world.answer(order), Some(Err(CommandError::NoSuchCluster)));
    assert_eq!(world.kicked_with(other), ReasonCode::AdministrativeAction, "nothing is held back any longer");
}

#[test]
fn a_service_that_stops_says_so_and_keeps_the_sessions() {
    // PRODUCT 3: 0x8B
    let mut world = World::new();
    let persistent = world.connect(&v5("c").expiry(100));
    let clean = world.connect(&v5("clean"));
    world.cluster.shut_down(world.now);
    world.settle();
    for peer in [persistent, clean] {
        assert_eq!(world.kicked_with(peer), ReasonCode::ServerShuttingDown);
    }
    assert_eq!(world.counts(), (0, 1));
    assert_eq!(world.records.len(), 1);
}

fn telling(reason: &str) -> EndOptions {
    EndOptions { reason: Some(OperatorReason::new(reason).expect("a reason")), ..PLAINLY }
}

#[test]
fn the_reason_is_told_to_who_wants_to_hear_it() {
    for (hello, order, told) in [
        (v5("c"), Order::Disconnect(telling("moved")), Some("moved")),
        (v5("c"), Order::Destroy(telling("moved")), Some("moved")),
        (v5("c"), DESTROY, None),
        (v5("c").without_problem_information(), Order::Disconnect(telling("moved")), None),
    ] {
        let mut world = World::new();
        let client = world.connect(&hello);
        world.order("c", order);
        let Some(Packet::Disconnect(goodbye)) = world.take(client).pop() else { panic!("no DISCONNECT") };
        assert_eq!(goodbye.reason, ReasonCode::AdministrativeAction);
        assert_eq!(goodbye.reason_string.as_deref(), told);
    }
    let mut world = World::new();
    let client = world.connect(&v3("c"));
    world.order("c", Order::Disconnect(telling("moved")));
    assert!(world.is_closed(client));
    assert_eq!(world.take(client), []);
}

#[test]
fn a_will_can_be_suppressed_for_good() {
    let suppress = || EndOptions { will: WillChoice::Suppress, reason: None };
    for (order, delay_secs, was_cut) in [
        (Order::Disconnect(suppress()), 0, false),
        (Order::Disconnect(suppress()), 10, false),
        (Order::Destroy(suppress()), 0, false),
        (Order::Destroy(suppress()), 10, true),
    ] {
        let mut world = World::new();
        let witness = world.connect(&v5("w"));
        world.subscribe(witness, "will/c", Q1);
        let client = world.connect(&v5("c").expiry(100).will(will("will/c", "gone", delay_secs)));
        if was_cut {
            world.cut(client);
        }
        world.disk.pace = Pace::Late;
        let command = world.order("c", order.clone());
        assert_eq!(world.answer(command), None, "that there is no will is not on disk: {order:?}");
        world.sync_disk();
        assert!(world.answer(command).is_some_and(|answer| answer.is_ok()));
        world.disk.pace = Pace::Prompt;
        world.advance(20);
        assert_eq!(world.take(witness), [], "{order:?}");
        assert!(world.records.row("c").is_none_or(|row| !row.has_will));
        world.restart(20);
        let witness = world.connect(&v5("w"));
        world.subscribe(witness, "will/c", Q1);
        world.advance(100);
        assert_eq!(world.take(witness), [], "{order:?}");
    }
}

#[test]
fn a_held_client_id_is_refused_until_the_time_is_over() {
    let mut world = World::new();
    let client = world.connect(&v5("c").expiry(1_000));
    let until = world.now.wall.plus_secs(30);
    let hold = ClientHold { until, reason: None };
    let by_client = [(ClientId::new("c").expect("an id"), hold)].into();
    world.change_rules(|rules| {
        rules.holds = Arc::new(ClientHolds { version: Uuid::from_u128(1), by_client });
    });
    assert!(!world.is_closed(client), "who is there stays");
    world.order("c", DISCONNECT);
    assert!(world.is_closed(client));
    for (hello, reason) in [(v5("c"), ReasonCode::Banned), (v3("c"), ReasonCode::NotAuthorized)] {
        let refused = world.knock(&hello);
        let connack = world.connack(refused);
        assert_eq!(connack.reason, reason);
        let why = connack.reason_string.map(|why| why.to_string());
        let named = format!("an operator holds this client id until {until}");
        assert_eq!(why, hello.0.version.is_v5().then_some(named));
    }
    world.connect(&v5("d"));
    world.advance(30);
    assert!(world.connect_present(&v5("c").expiry(1_000)).1, "the session has waited");
}
