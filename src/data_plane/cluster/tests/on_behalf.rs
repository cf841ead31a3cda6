//! What operators have sessions do in their clients' place (PRODUCT S-1, S-2, S-8, Q-1 to Q-3).

use super::disk::Pace;
use super::packets::*;
use super::records::{Mode, on_behalf};
use super::*;
use crate::data_plane::cluster::RecordOutcome;
use crate::model::{OperatorExpiry, OperatorPart, SubscriptionOrigin};

fn done(world: &mut World, command: CommandId) -> SessionRef {
    world.answer(command).expect("answered").expect("carried out")
}

fn refused(world: &mut World, command: CommandId) -> CommandError {
    world.answer(command).expect("answered").expect_err("refused")
}

fn for_an_hour() -> OperatorPart {
    OperatorPart { expiry: Some(OperatorExpiry::Interval(3_600)), ..OperatorPart::default() }
}

fn subscribe_for(world: &mut World, client: &str, filter: &str, qos: QoS) -> SessionRef {
    let command = world.order(client, Order::Subscribe(Box::new(on_behalf(filter, qos))));
    done(world, command)
}

#[test]
fn a_session_that_was_made_first_gets_what_came_before_its_client() {
    for hello in [v5("c").expiry(100), v3("c"), v31("c")] {
        let mut world = World::new();
        let publisher = world.connect(&v5("p"));
        world.publish_numbers(publisher, "t", Q1, 0..1);
        let command = world.begin("c", for_an_hour(), &["t"]);
        let met = done(&mut world, command);
        assert_eq!((met.epoch, met.was_online), (Epoch(0), false));
        assert_eq!(world.counts(), (1, 1));
        world.publish_numbers(publisher, "t", Q1, 1..3);
        let (client, present) = world.connect_present(&hello);
        // 3.1 has no word for it.
        assert_eq!(present, hello.0.version != ProtocolVersion::V3_1);
        assert_eq!(texts(&world.drain(client)), ["1", "2"], "it starts at the tail");
        let row = world.records.row("c").expect("a record");
        assert_eq!((row.session_id, row.epoch), (met.session_id, Epoch::FIRST));
        assert_eq!(world.counts(), (2, 0));
    }
}

#[test]
fn a_session_that_was_made_first_survives_a_restart_with_what_waits() {
    let mut world = World::new();
    let command = world.begin("c", OperatorPart::default(), &["t", "u/#"]);
    done(&mut world, command);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t", Q1, 0..2);
    world.restart(5);
    assert_eq!(world.counts(), (0, 1));
    let (client, present) = world.connect_present(&v5("c").expiry(100));
    assert!(present);
    assert_eq!(texts(&world.drain(client)), numbers(0..2));
}

#[test]
fn it_is_answered_when_record_and_filters_are_durable() {
    let mut world = World::new();
    world.records.mode = Mode::Late;
    world.disk.pace = Pace::Late;
    let command = world.begin("c", OperatorPart::default(), &["t"]);
    assert_eq!(world.answer(command), None);
    world.decide_records(RecordOutcome::Committed);
    assert_eq!(world.answer(command), None, "where its filter begins is not on disk");
    world.sync_disk();
    done(&mut world, command);
    let command = world.order("c", Order::Subscribe(Box::new(on_behalf("u", Q1))));
    world.sync_disk();
    assert_eq!(world.answer(command), None, "the record is not committed");
    world.decide_records(RecordOutcome::Committed);
    done(&mut world, command);
    let command = world.order("c", Order::Unsubscribe(filter("u")));
    world.decide_records(RecordOutcome::Committed);
    assert_eq!(world.answer(command), None);
    world.sync_disk();
    done(&mut world, command);
}

#[test]
fn it_counts_and_ends_like_any_other() {
    let mut world = World::with_quota(QuotaOverrides { connections: Some(2), ..QuotaOverrides::default() });
    let client = world.connect(&v5("c").expiry(100));
    let again = world.begin("c", OperatorPart::default(), &[]);
    assert_eq!(refused(&mut world, again), CommandError::SessionExists);
    let second = world.begin("d", OperatorPart { protected: true, ..for_an_hour() }, &[]);
    done(&mut world, second);
    let third = world.begin("e", for_an_hour(), &[]);
    let full = "quota connections: limit 2, in use 2".to_owned();
    assert_eq!(refused(&mut world, third), CommandError::QuotaExceeded(full));
    let fourth = world.knock(&v5("f"));
    assert_eq!(world.connack(fourth).reason, ReasonCode::QuotaExceeded);
    // PRODUCT S-8: a known one costs nothing.
    world.connect(&v5("d").expiry(100));
    world.cut(client);
    world.advance(100);
    let third = world.begin("e", for_an_hour(), &[]);
    done(&mut world, third);
    world.advance(3_599);
    assert_eq!(world.counts(), (1, 1));
    world.advance(1);
    assert_eq!(world.counts(), (1, 0), "PRODUCT S-7");
    assert!(world.records.row("e").is_none());
    let protected = world.order("d", DESTROY);
    assert_eq!(refused(&mut world, protected), CommandError::Protected);
    world.order("d", Order::Protect(false));
    let destroyed = world.order("d", DESTROY);
    done(&mut world, destroyed);
}

#[test]
fn all_of_what_it_subscribes_to_is_granted_or_nothing_begins() {
    let mut world =
        World::with_quota(QuotaOverrides { filters_per_client: Some(2), ..QuotaOverrides::default() });
    let command = world.begin("c", for_an_hour(), &["a", "b", "c"]);
    assert!(matches!(refused(&mut world, command), CommandError::QuotaExceeded(why)
        if why == "quota filters_per_client: limit 2, in use 2"));
    let deep = "a/".repeat(16);
    let command = world.begin("c", for_an_hour(), &["a", &deep]);
    assert!(matches!(refused(&mut world, command), CommandError::FilterRefused(_)));
    assert_eq!((world.counts(), world.cluster.subscription_count(), world.records.len()), ((0, 0), 0, 0));
    assert!(!world.connect_present(&v5("c").expiry(100)).1);
}

#[test]
fn protection_survives_a_restart() {
    let mut world = World::new();
    let command = world.begin("c", OperatorPart { protected: true, ..for_an_hour() }, &[]);
    done(&mut world, command);
    world.restart(1);
    let command = world.order("c", DESTROY);
    assert_eq!(refused(&mut world, command), CommandError::Protected);
    let command = world.order("c", DISCONNECT);
    done(&mut world, command);
}

#[test]
fn a_live_client_gets_what_an_operator_subscribed_it_to() {
    for hello in [v5("c").expiry(100), v5("c"), v3("c"), v3("c").clean()] {
        let mut world = World::new();
        let publisher = world.connect(&v5("p"));
        world.publish(publisher, retained("t/kept", "kept"));
        let client = world.connect(&hello);
        assert!(!subscribe_for(&mut world, "c", "t/#", Q1).was_subscribed);
        assert!(subscribe_for(&mut world, "c", "t/#", Q1).was_subscribed);
        world.publish_numbers(publisher, "t/n", Q1, 0..2);
        // Retain handling 0: at every SUBSCRIBE.
        assert_eq!(texts(&world.drain(client)), ["kept", "kept", "0", "1"]);
        let command = world.order("c", Order::Unsubscribe(filter("t/#")));
        done(&mut world, command);
        world.publish_numbers(publisher, "t/n", Q1, 2..3);
        assert_eq!(world.drain(client), []);
        let command = world.order("c", Order::Unsubscribe(filter("t/#")));
        assert_eq!(refused(&mut world, command), CommandError::NoSuchSubscription);
    }
}

#[test]
fn retained_messages_wait_for_an_offline_client_over_a_restart_and_come_once() {
    for restarts in [false, true] {
        let mut world = World::new();
        let publisher = world.connect(&v5("p"));
        world.publish(publisher, retained("t", "kept"));
        let command = world.begin("c", for_an_hour(), &["t"]);
        done(&mut world, command);
        subscribe_for(&mut world, "c", "gone", Q1);
        let command = world.order("c", Order::Unsubscribe(filter("gone")));
        done(&mut world, command);
        if restarts {
            world.restart(1);
            let publisher = world.connect(&v5("p"));
            world.publish(publisher, retained("gone", "not wanted"));
        }
        let client = world.connect(&v5("c").expiry(100));
        let got = world.drain(client);
        assert_eq!(texts(&got), ["kept"]);
        assert!(got[0].retain);
        world.cut(client);
        world.restart(1);
        let client = world.connect(&v5("c").expiry(100));
        assert_eq!(world.drain(client), []);
    }
}

#[test]
fn a_filter_has_one_subscription_whoever_asked_for_it() {
    let mut world = World::new();
    let client = world.connect(&v5("c").expiry(100));
    let origin =
        |world: &World| world.records.subscriptions("c").iter().map(|s| s.origin).collect::<Vec<_>>();
    world.subscribe(client, "t", Q1);
    assert_eq!(origin(&world), [SubscriptionOrigin::Client]);
    subscribe_for(&mut world, "c", "t", Q2);
    assert_eq!(origin(&world), [SubscriptionOrigin::Operator]);
    world.subscribe(client, "t", Q0);
    assert_eq!(origin(&world), [SubscriptionOrigin::Client]);
    subscribe_for(&mut world, "c", "t", Q1);
    world.send(client, &unsubscribe(7, &["t"]));
    assert_eq!(origin(&world), []);
    assert_eq!(world.cluster.subscription_count(), 0);
}

#[test]
fn a_shared_group_gets_a_member_by_order() {
    let mut world = World::new();
    let publisher = world.connect(&v5("p"));
    let client = world.connect(&v5("c").expiry(100));
    subscribe_for(&mut world, "c", "$share/g/t", Q1);
    world.publish_numbers(publisher, "t", Q1, 0..2);
    assert_eq!(texts(&world.drain(client)), numbers(0..2));
}
