//! What a crash takes, and what it does not (PRODUCT S-2, S-10, S-12, S-13).

use super::disk::Pace;
use super::packets::*;
use super::*;

/// A persistent subscriber to `t` that has left, and a publisher.
fn sleeper(world: &mut World, hello: &Hello, qos: QoS) -> Peer {
    let client = world.connect(hello);
    world.subscribe(client, "t", qos);
    world.cut(client);
    world.connect(&v5("p").expiry(1_000))
}

fn only(mut packets: Vec<Packet>) -> Packet {
    assert_eq!(packets.len(), 1, "{packets:?}");
    packets.remove(0)
}

#[test]
fn nothing_is_acknowledged_before_it_is_on_disk() {
    let mut world = World::new();
    let publisher = sleeper(&mut world, &v5("c").expiry(100), Q2);
    world.disk.pace = Pace::Late;
    world.send(publisher, &Packet::Publish(publish_at(Q1, 1, "t", "a")));
    world.send(publisher, &Packet::Publish(publish_at(Q2, 2, "t", "b")));
    world.send(publisher, &Packet::Publish(publish_at(Q1, 3, "nobody", "c")));
    assert_eq!(world.take(publisher), [], "and nothing overtakes");
    world.sync_disk();
    let answers = world.take(publisher);
    assert!(matches!(&answers[..], [Packet::PubAck(a), Packet::PubRec(b), Packet::PubAck(c)]
        if (a.packet_id, b.packet_id, c.packet_id) == (id(1), id(2), id(3))));
    world.send(publisher, &Packet::Publish(publish_at(Q1, 4, "nobody", "d")));
    assert!(matches!(only(world.take(publisher)), Packet::PubAck(_)), "nobody persistent: at once");
    world.send(publisher, &Packet::PingReq);
    assert_eq!(only(world.take(publisher)), Packet::PingResp);
}

#[test]
fn a_persistent_subscriber_gets_nothing_that_a_crash_could_take_back() {
    let mut world = World::new();
    let persistent = world.connect(&v5("c").expiry(100));
    world.subscribe(persistent, "t", Q1);
    let passing = world.connect(&v5("d"));
    world.subscribe(passing, "t", Q1);
    let publisher = world.connect(&v5("p"));
    world.disk.pace = Pace::Late;
    world.send(publisher, &Packet::Publish(publish_at(Q1, 1, "t", "a")));
    assert_eq!(texts(&world.take_publishes(passing)), ["a"], "a passing session goes with the crash");
    assert_eq!(world.take(persistent), []);
    world.sync_disk();
    assert_eq!(texts(&world.take_publishes(persistent)), ["a"]);
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash_in_order_and_once() {
    for (version, qos) in
        [(v5("c").expiry(1_000), Q1), (v5("c").expiry(1_000), Q2), (v3("c"), Q1), (v3("c"), Q2)]
    {
        let mut world = World::new();
        let publisher = sleeper(&mut world, &version, qos);
        world.publish_numbers(publisher, "t", qos, 0..40);
        world.restart(3);
        let publisher = world.connect(&v5("p").expiry(1_000));
        world.publish_numbers(publisher, "t", qos, 40..50);
        let (client, present) = world.connect_present(&version);
        assert!(present);
        assert_eq!(texts(&world.drain(client)), numbers(0..50));
        world.advance(1);
        world.restart(1);
        let client = world.connect(&version);
        assert_eq!(world.drain(client), [], "all acknowledged");
    }
}

#[test]
fn what_was_not_acknowledged_is_there_or_not() {
    for lucky in 0..4 {
        let mut world = World::new();
        let publisher = sleeper(&mut world, &v5("c").expiry(100), Q1);
        world.disk.pace = Pace::Late;
        for n in 0..3 {
            world.send(publisher, &Packet::Publish(publish_at(Q1, n + 1, "t", &n.to_string())));
        }
        assert_eq!(world.take(publisher), []);
        world.disk.pace = Pace::Prompt;
        world.restart_lucky(1, lucky, |_| None);
        let client = world.connect(&v5("c").expiry(100));
        assert_eq!(texts(&world.drain(client)), numbers(0..lucky.min(3)));
    }
}

#[test]
fn a_qos_2_message_to_the_server_is_passed_on_once_whatever_the_moment_of_the_crash() {
    let hello = v5("p").expiry(1_000);
    for (before_publish, lucky) in [(true, 0), (true, 9), (false, 0)] {
        let mut world = World::new();
        let publisher = sleeper(&mut world, &v5("c").expiry(1_000), Q2);
        let message = publish_at(Q2, 7, "t", "once");
        if before_publish {
            // The crash comes before PUBREC: with or without the message on disk.
            world.disk.pace = Pace::Late;
            world.send(publisher, &Packet::Publish(message.clone()));
            assert_eq!(world.take(publisher), []);
            world.disk.pace = Pace::Prompt;
            world.restart_lucky(1, lucky, |_| None);
        } else {
            world.send(publisher, &Packet::Publish(message.clone()));
            assert_eq!(only(world.take(publisher)), pubrec(id(7)));
            world.restart(1);
        }
        let publisher = world.connect(&hello);
        let again = Packet::Publish(Publish { dup: true, ..message });
        world.send(publisher, &again);
        assert_eq!(only(world.take(publisher)), pubrec(id(7)));
        world.send(publisher, &pubrel(id(7)));
        assert_eq!(only(world.take(publisher)), pubcomp(id(7)));
        world.restart(1);
        let publisher = world.connect(&hello);
        world.publish(publisher, publish_at(Q2, 7, "t", "twice"));
        let client = world.connect(&v5("c").expiry(1_000));
        assert_eq!(texts(&world.drain(client)), ["once", "twice"], "the id was free again");
    }
}

#[test]
fn pubcomp_waits_until_the_id_is_free_on_disk() {
    // Else the client might use it again, and a crash would make its message a re-delivery.
    let mut world = World::new();
    let publisher = sleeper(&mut world, &v5("c").expiry(1_000), Q2);
    world.send(publisher, &Packet::Publish(publish_at(Q2, 7, "t", "x")));
    world.take(publisher);
    world.disk.pace = Pace::Late;
    world.send(publisher, &pubrel(id(7)));
    assert_eq!(world.take(publisher), []);
    world.sync_disk();
    assert_eq!(only(world.take(publisher)), pubcomp(id(7)));
}

#[test]
fn a_qos_2_message_to_the_client_goes_on_at_its_step_after_a_crash() {
    for hello in [v5("c").expiry(1_000), v3("c")] {
        let mut world = World::new();
        let publisher = sleeper(&mut world, &hello, Q2);
        world.publish_numbers(publisher, "t", Q2, 0..3);
        let client = world.connect(&hello);
        let sent = world.take_publishes(client);
        let ids: Vec<_> = sent.iter().filter_map(|publish| publish.packet_id).collect();
        // The first is received, the second completed, the third unanswered.
        world.send(client, &pubrec(ids[0]));
        world.send(client, &pubrec(ids[1]));
        world.send(client, &pubcomp(ids[1]));
        world.take(client);
        world.restart(1);
        let client = world.connect(&hello);
        let packets = world.take(client);
        let [Packet::PubRel(first), Packet::Publish(third)] = &packets[..] else {
            panic!("PUBREL and PUBLISH, not {packets:?}");
        };
        assert_eq!(first.packet_id, ids[0]);
        assert!(third.dup && third.packet_id == Some(ids[2]) && text(third) == "2");
        world.send(client, &pubcomp(ids[0]));
        world.send(client, &pubrec(ids[2]));
        world.send(client, &pubcomp(ids[2]));
        world.take(client);
        world.restart(1);
        let client = world.connect(&hello);
        assert_eq!(world.take(client), []);
    }
}

#[test]
fn a_qos_2_step_leaves_only_when_it_is_on_disk() {
    let mut world = World::new();
    let client = world.connect(&v5("c").expiry(100));
    world.subscribe(client, "t", Q2);
    let publisher = world.connect(&v5("p"));
    world.publish(publisher, publish_at(Q2, 1, "t", "x"));
    let packet_id = world.take_publishes(client)[0].packet_id.expect("QoS 2");
    world.disk.pace = Pace::Late;
    world.send(client, &pubrec(packet_id));
    assert_eq!(world.take(client), []);
    world.sync_disk();
    assert_eq!(only(world.take(client)), pubrel(packet_id));
}

#[test]
fn qos_1_goes_on_with_the_same_packet_ids_when_its_progress_was_saved() {
    let hello = v5("c").expiry(1_000);
    let mut world = World::new();
    let publisher = sleeper(&mut world, &hello, Q1);
    world.publish_numbers(publisher, "t", Q1, 0..5);
    let client = world.connect(&hello);
    let sent = world.take_publishes(client);
    world.send(client, &puback(sent[1].packet_id.expect("QoS 1")));
    world.advance_millis(250);
    world.restart(1);
    let client = world.connect(&hello);
    let again = world.take_publishes(client);
    let expected: Vec<_> = [0, 2, 3, 4].map(|n| (sent[n].packet_id, true, n.to_string())).into();
    let seen: Vec<_> = again.iter().map(|publish| (publish.packet_id, publish.dup, text(publish))).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_subscription_begins_where_it_was_made_also_after_a_crash() {
    let hello = v5("c").expiry(1_000);
    for forgetful in [false, true] {
        let mut world = if forgetful { World::forgetful() } else { World::new() };
        // Somebody else reads the same filter, so that earlier messages are there.
        let publisher = sleeper(&mut world, &v5("other").expiry(1_000), Q1);
        world.publish_numbers(publisher, "t", Q1, 0..3);
        // Behind: it has not read all it should, so that its position lies before the subscription.
        let client = world.connect(&hello.clone().receive_maximum(1));
        world.subscribe(client, "u", Q1);
        world.publish_numbers(publisher, "u", Q1, 10..13);
        world.subscribe(client, "t", Q1);
        world.publish_numbers(publisher, "t", Q1, 3..5);
        world.restart(1);
        let client = world.connect(&hello);
        assert_eq!(texts(&world.drain(client)), ["10", "11", "12", "3", "4"]);
    }
}

#[test]
fn a_cluster_that_keeps_nothing_in_memory_delivers_the_same() {
    for qos in [Q1, Q2] {
        let hello = v5("c").expiry(1_000).receive_maximum(3);
        let mut world = World::forgetful();
        let publisher = sleeper(&mut world, &hello, qos);
        world.publish_numbers(publisher, "t", qos, 0..20);
        assert_eq!(world.cluster.log.bytes(), 0);
        let client = world.connect(&hello);
        let first = world.take_publishes(client);
        assert_eq!(texts(&first), numbers(0..3));
        world.cut(client);
        let client = world.connect(&hello);
        assert_eq!(texts(&world.drain(client)), numbers(0..20), "fetched again, then on");
        world.publish_numbers(publisher, "t", qos, 20..25);
        assert_eq!(texts(&world.drain(client)), numbers(20..25));
    }
}

#[test]
fn retained_messages_are_there_after_a_crash_and_cleared_ones_are_not() {
    let mut world = World::new();
    let publisher = world.connect(&v5("p"));
    world.publish(publisher, retained("r/a", "a"));
    world.publish(publisher, retained("r/b", "b"));
    world.publish(publisher, retained("r/a", ""));
    world.send(publisher, &Packet::Publish(Publish { retain: true, ..publish("r/c", "c") }));
    world.restart(1);
    let client = world.connect(&v5("c"));
    world.subscribe(client, "r/#", Q1);
    assert_eq!(texts(&world.take_publishes(client)), ["b", "c"]);
}

#[test]
fn a_retained_publish_is_acknowledged_when_it_is_on_disk() {
    let mut world = World::new();
    let publisher = world.connect(&v5("p"));
    world.disk.pace = Pace::Late;
    world.send(publisher, &Packet::Publish(retained("r", "a")));
    assert_eq!(world.take(publisher), []);
    world.sync_disk();
    assert!(matches!(only(world.take(publisher)), Packet::PubAck(_)));
}

#[test]
fn wills_outlive_the_process() {
    let mut world = World::new();
    let witness = world.connect(&v5("w").expiry(10_000));
    world.subscribe(witness, "will/#", Q1);
    let _online = world.connect(&v5("online").expiry(1_000).will(will("will/online", "online", 20)));
    let _passing = world.connect(&v5("passing").will(will("will/passing", "passing", 0)));
    let delayed = world.connect(&v5("delayed").expiry(1_000).will(will("will/delayed", "delayed", 60)));
    let kept = world.connect(&v5("kept").expiry(1_000).will(will("will/kept", "kept", 0)));
    world.leave(kept);
    world.cut(delayed);
    world.advance(10);
    world.restart(5);
    let witness = world.connect(&v5("w").expiry(10_000));
    assert_eq!(texts(&world.drain(witness)), ["passing"], "the crash ended its connection");
    world.advance(20);
    assert_eq!(texts(&world.drain(witness)), ["online"]);
    world.advance(1);
    world.restart(25);
    let witness = world.connect(&v5("w").expiry(10_000));
    assert_eq!(texts(&world.drain(witness)), ["delayed"], "due while the service was down");
    world.advance(1);
    world.restart(1);
    world.advance(1_000);
    let witness = world.connect(&v5("w").expiry(10_000));
    assert_eq!(world.drain(witness), []);
}

#[test]
fn nothing_is_left_of_a_session_that_has_ended() {
    let mut world = World::new();
    let publisher = world.connect(&v5("p"));
    let hello = v5("c").expiry(10).will(will("w", "w", 5));
    let client = world.connect(&hello);
    world.subscribe(client, "t", Q2);
    world.publish_numbers(publisher, "t", Q2, 0..3);
    world.send(client, &Packet::Publish(publish_at(Q2, 1, "t", "own")));
    world.take(client);
    world.cut(client);
    assert!(world.disk.facts() > 0);
    world.advance(10);
    assert_eq!(world.disk.facts(), 0);
}

#[test]
fn a_full_disk_refuses_what_it_would_have_to_keep_and_nothing_else() {
    let mut world = World::new();
    let publisher = sleeper(&mut world, &v5("c").expiry(1_000), Q2);
    world.publish_numbers(publisher, "t", Q1, 0..2);
    world.cluster.set_room(false);
    for (qos, packet_id) in [(Q1, 5), (Q2, 6)] {
        world.send(publisher, &Packet::Publish(publish_at(qos, packet_id, "t", "x")));
        let reason = match only(world.take(publisher)) {
            Packet::PubAck(ack) | Packet::PubRec(ack) => ack.reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason, ReasonCode::QuotaExceeded);
    }
    world.send(publisher, &Packet::Publish(publish_at(Q1, 7, "nobody", "x")));
    assert!(matches!(only(world.take(publisher)), Packet::PubAck(ack) if !ack.reason.is_error()));
    let client = world.connect(&v5("c").expiry(1_000));
    assert_eq!(texts(&world.drain(client)), numbers(0..2), "reading goes on");
    let old = world.connect(&v3("old"));
    world.send(old, &Packet::Publish(publish_at(Q1, 1, "t", "x")));
    assert!(world.is_closed(old), "v3 cannot be told otherwise");
    world.cluster.set_room(true);
    world.publish_numbers(publisher, "t", Q2, 6..7);
    assert_eq!(texts(&world.drain(client)), ["6"]);
}

#[test]
fn a_groups_progress_survives_and_qos_2_stays_with_its_session() {
    for forgetful in [false, true] {
        let mut world = if forgetful { World::forgetful() } else { World::new() };
        let hello = |id: &str| v5(id).expiry(10_000).receive_maximum(2);
        let one = world.connect(&hello("one"));
        world.subscribe(one, "$share/g/t", Q2);
        let publisher = world.connect(&v5("p"));
        world.publish_numbers(publisher, "t", Q2, 0..2);
        world.publish_numbers(publisher, "t", Q1, 2..6);
        let first = world.take_publishes(one);
        assert_eq!(texts(&first), numbers(0..2));
        world.send(one, &pubrec(first[0].packet_id.expect("QoS 2")));
        world.send(one, &pubcomp(first[0].packet_id.expect("QoS 2")));
        let more = world.take(one);
        assert!(matches!(&more[..], [Packet::PubRel(_), Packet::Publish(p)] if text(p) == "2"), "{more:?}");
        world.restart(1);
        // Another member gets what nobody has: not 0, which is done, nor 1, which is bound.
        let two = world.connect(&hello("two"));
        world.subscribe(two, "$share/g/t", Q2);
        assert_eq!(texts(&world.drain(two)), ["2", "3", "4", "5"]);
        let one = world.connect(&hello("one"));
        assert_eq!(texts(&world.drain(one)), ["1"]);
        world.advance(1);
        world.restart(1);
        let (one, two) = (world.connect(&hello("one")), world.connect(&hello("two")));
        assert_eq!((world.drain(one), world.drain(two)), (vec![], vec![]));
        let publisher = world.connect(&v5("p"));
        world.publish_numbers(publisher, "t", Q1, 6..7);
        let got = [texts(&world.drain(one)), texts(&world.drain(two))].concat();
        assert_eq!(got, ["6"]);
    }
}

#[test]
fn the_last_member_s_expiry_ends_the_group() {
    let mut world = World::new();
    let one = world.connect(&v5("one").expiry(10));
    world.subscribe(one, "$share/g/t", Q1);
    world.cut(one);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t", Q1, 0..2);
    world.restart(10);
    assert_eq!((world.counts(), world.disk.facts()), ((0, 0), 0));
    let two = world.connect(&v5("two").expiry(10));
    world.subscribe(two, "$share/g/t", Q1);
    assert_eq!(world.drain(two), [], "a later first member starts now");
}

#[test]
fn a_subscription_that_was_never_acknowledged_is_none_after_a_crash() {
    let mut world = World::new();
    let publisher = sleeper(&mut world, &v5("other").expiry(1_000), Q1);
    let client = world.connect(&v5("c").expiry(1_000));
    world.subscribe(client, "u", Q1);
    world.publish_numbers(publisher, "t", Q1, 0..3);
    world.advance(10);
    // The record is committed, and the crash comes before where it begins is on disk.
    world.disk.pace = Pace::Late;
    world.send(client, &subscribe(2, vec![wish("t", Q1)]));
    assert_eq!(world.take(client), []);
    world.disk.pace = Pace::Prompt;
    world.restart(1);
    let client = world.connect(&v5("c").expiry(1_000));
    assert_eq!(world.drain(client), [], "nothing from before it");
    assert_eq!(world.records.filters("c"), [("u".to_owned(), Q1)]);
}

#[test]
fn an_unsubscribe_that_was_acknowledged_while_the_store_was_away_holds_after_a_crash() {
    for filter in ["t", "$share/g/t"] {
        let mut world = World::new();
        let publisher = world.connect(&v5("p"));
        let hello = v5("c").expiry(1_000);
        let client = world.connect(&hello);
        world.subscribe(client, filter, Q1);
        world.subscribe(client, "kept", Q1);
        world.store_goes_away();
        world.send(client, &unsubscribe(3, &[filter]));
        assert!(matches!(only(world.take(client)), Packet::UnsubAck(_)));
        world.records.mode = records::Mode::Prompt;
        world.restart(1);
        assert_eq!(world.records.filters("c"), [("kept".to_owned(), Q1)]);
        let publisher_again = world.connect(&v5("p"));
        assert_ne!(publisher, publisher_again);
        world.publish_numbers(publisher_again, "t", Q1, 0..2);
        world.publish_numbers(publisher_again, "kept", Q1, 2..3);
        let client = world.connect(&hello);
        assert_eq!(texts(&world.drain(client)), ["2"]);
    }
}
