//! What sessions lose when the log lets go of what they still had to read (PRODUCT S-14).

use super::packets::*;
use super::*;
use crate::data_plane::cluster::Leaving;
use crate::model::FilterKey;

impl World {
    fn trimmed(&self, client: &str) -> u64 {
        let known = self.cluster.traffic_of(&ClientId::new(client).expect("an id"));
        known.expect("a session").complete(None).trimmed
    }

    /// A segment goes that ends at `segment_last` and holds `messages` of a filter, the last at `last`.
    fn lose(&mut self, filter: &str, messages: u64, last: u64, segment_last: u64) {
        let (last, segment_last) = (Seq(last), Seq(segment_last));
        self.cluster.count_loss(Leaving { filter: FilterKey::of(filter), last, messages, segment_last });
    }
}

fn sleepers(world: &mut World) -> Peer {
    for (client, filters) in [("one", &["t"][..]), ("two", &["t", "u"]), ("other", &["u"])] {
        let peer = world.connect(&v5(client).expiry(10_000));
        for filter in filters {
            world.subscribe(peer, filter, Q1);
        }
        world.cut(peer);
    }
    world.connect(&v5("p").expiry(10_000))
}

#[test]
fn each_session_loses_what_it_still_had_to_read_and_each_message_once() {
    let mut world = World::new();
    let publisher = sleepers(&mut world);
    world.publish_numbers(publisher, "t", Q1, 0..3);
    world.publish_numbers(publisher, "u", Q1, 3..5);
    let one = world.connect(&v5("one").expiry(10_000));
    assert_eq!(world.drain(one).len(), 3);
    world.lose("t", 3, 3, 5);
    world.lose("u", 2, 5, 5);
    world.lose("nobody's", 9, 5, 5);
    let trimmed = |world: &World| ["one", "two", "other"].map(|client| world.trimmed(client));
    assert_eq!(trimmed(&world), [0, 5, 2]);
    assert_eq!(world.cluster.lost_messages(), 7);
    // It is counted once, also when a crash brings the segment back.
    world.advance(1);
    world.restart(1);
    assert_eq!(trimmed(&world), [0, 5, 2]);
    world.lose("t", 3, 3, 5);
    world.lose("u", 2, 5, 5);
    assert_eq!(trimmed(&world), [0, 5, 2]);
    let publisher = world.connect(&v5("p").expiry(10_000));
    world.publish_numbers(publisher, "u", Q1, 5..6);
    world.lose("u", 1, 6, 6);
    assert_eq!(trimmed(&world), [0, 6, 3], "the next segment counts again");
}

#[test]
fn nobody_loses_what_came_before_its_subscription_or_was_sent() {
    let mut world = World::new();
    let publisher = sleepers(&mut world);
    world.publish_numbers(publisher, "t", Q1, 0..3);
    let late = world.connect(&v5("late").expiry(10_000));
    world.subscribe(late, "t", Q1);
    let awake = world.connect(&v5("one").expiry(10_000));
    world.lose("t", 3, 3, 3);
    assert_eq!((world.trimmed("late"), world.trimmed("one")), (0, 0));
    assert_eq!(world.drain(awake).len(), 3);
}

#[test]
fn what_was_under_way_and_is_found_gone_is_lost() {
    let mut world = World::forgetful();
    let hello = v5("c").expiry(10_000).receive_maximum(2);
    let client = world.connect(&hello);
    world.subscribe(client, "t", Q1);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "t", Q1, 0..2);
    world.cut(client);
    world.disk.forget_messages();
    let client = world.connect(&hello);
    assert_eq!(world.drain(client), []);
    assert_eq!(world.trimmed("c"), 2);
    world.advance(1);
    world.restart(1);
    assert_eq!(world.trimmed("c"), 2);
}

#[test]
fn what_is_let_go_of_is_not_delivered_from_memory() {
    let mut world = World::new();
    let publisher = sleepers(&mut world);
    world.publish_numbers(publisher, "t", Q1, 0..3);
    world.lose("t", 2, 2, 2);
    world.cluster.let_go_through(Seq(2));
    world.disk.forget_messages_through(Seq(2));
    let one = world.connect(&v5("one").expiry(10_000));
    assert_eq!(texts(&world.drain(one)), ["2"]);
    assert_eq!(world.trimmed("one"), 2);
}
