//! Shared groups whose members go on with unfinished exchanges (PRODUCT S-4, S-12). Found by the crash
//! harness.

use super::disk::Pace;
use super::packets::*;
use super::*;

#[test]
fn a_message_received_at_qos_2_is_not_handed_out_again_after_a_crash() {
    let hello = |id: &str| v5(id).expiry(10_000);
    let mut world = World::new();
    let one = world.connect(&hello("one"));
    world.subscribe(one, "$share/g/t", Q2);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t", Q2, 0..1);
    let sent = world.take_publishes(one);
    // Neither is the exchange over nor is it time to write the group's progress down.
    world.send(one, &pubrec(sent[0].packet_id.expect("QoS 2")));
    world.restart(1);
    let two = world.connect(&hello("two"));
    world.subscribe(two, "$share/g/t", Q2);
    assert_eq!(world.drain(two), []);
    let one = world.connect(&hello("one"));
    assert_eq!(world.take(one), [pubrel(sent[0].packet_id.expect("QoS 2"))]);
}

#[test]
fn a_group_hands_nothing_to_a_member_that_still_fetches_its_exchanges() {
    let hello = v5("one").expiry(10_000);
    let large = "x".repeat(10_000);
    let mut world = World::remembering(5_000);
    let one = world.connect(&hello);
    world.subscribe(one, "t", Q1);
    world.subscribe(one, "$share/g/u", Q1);
    let publisher = world.connect(&v5("p"));
    world.publish(publisher, publish_at(Q1, 1, "t", &large));
    assert_eq!(world.take_publishes(one).len(), 1);
    world.cut(one);
    world.publish(publisher, publish_at(Q1, 2, "u", "of the group"));
    let one = world.connect(&hello);
    assert_eq!(texts(&world.drain(one)), [large.as_str(), "of the group"], "earliest first");
    world.cut(one);
    let one = world.connect(&hello);
    assert_eq!(world.drain(one), [], "both acknowledgements were understood");
}

#[test]
fn a_message_handed_out_at_qos_2_is_nobody_s_before_its_exchange_is_on_disk() {
    let hello = |id: &str| v5(id).expiry(10_000).receive_maximum(1);
    let publisher_hello = v5("p").expiry(10_000);
    for lucky in 0..8 {
        let mut world = World::new();
        let members = ["one", "two"].map(|id| {
            let member = world.connect(&hello(id));
            world.subscribe(member, "$share/g/t", Q2);
            member
        });
        let publisher = world.connect(&publisher_hello);
        world.publish(publisher, publish_at(Q2, 1, "t", "first"));
        let (had, sent) = members
            .into_iter()
            .find_map(|member| Some((member, world.take_publishes(member).pop()?)))
            .expect("a member has it");
        let first = sent.packet_id.expect("QoS 2");
        world.send(had, &pubrec(first));
        assert_eq!(world.take(had), [pubrel(first)]);
        // In one turn: the other member is handed the next message, and the group's progress is written down.
        world.disk.pace = Pace::Late;
        let second = publish_at(Q2, 2, "t", "second");
        let received = world.as_received(publisher, &Packet::Publish(second.clone()));
        let slot = world.socket(publisher).slot.expect("attached");
        world.cluster.receive(world.now, publisher, slot, std::iter::once(received));
        world.send(had, &pubcomp(first));
        world.disk.pace = Pace::Prompt;
        // Of what that turn writes down so many entries reach the disk.
        world.restart_lucky(1, lucky, |_| None);
        let publisher = world.connect(&publisher_hello);
        let again = Packet::Publish(Publish { dup: true, ..second });
        world.send(publisher, &again);
        assert_eq!(world.take(publisher), [pubrec(id(2))]);
        let members = ["one", "two"].map(|id| world.connect(&hello(id)));
        let got = members.map(|member| texts(&world.drain(member))).concat();
        assert_eq!(got, ["second"], "{lucky} entries were on disk");
    }
}
