//! Shared groups whose members go on with unfinished exchanges (PRODUCT S-4, S-12). Found by the crash
//! harness.

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
