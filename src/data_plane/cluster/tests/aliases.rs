//! Topic aliases towards clients (MQTT 5.0, 3.3.2.3.4), read as a strict client reads them.

use std::collections::HashMap;
use std::num::NonZeroU16;

use super::packets::*;
use super::*;

/// A client's table of aliases.
#[derive(Default)]
struct Reader(HashMap<NonZeroU16, String>);

impl Reader {
    /// The topic that a PUBLISH means.
    fn topic(&mut self, publish: &Publish, maximum: u16) -> String {
        let alias = publish.properties.topic_alias;
        assert!(alias.is_none_or(|alias| alias.get() <= maximum), "[MQTT-3.1.2-26]");
        match (&publish.topic, alias) {
            (Some(topic), None) => topic.to_string(),
            (Some(topic), Some(alias)) => {
                self.0.insert(alias, topic.to_string());
                topic.to_string()
            }
            (None, Some(alias)) => self.0.get(&alias).expect("an alias that was set").clone(),
            (None, None) => panic!("neither topic nor alias"),
        }
    }
}

fn aliased(publishes: &[Publish]) -> usize {
    publishes.iter().filter(|publish| publish.topic.is_none()).count()
}

#[test]
fn every_message_is_understood_and_repeated_topics_are_not_repeated() {
    // [MQTT-3.1.2-26], [MQTT-3.1.2-27], [MQTT-3.3.2-11]
    for maximum in [0, 1, 3, u16::MAX] {
        let mut world = World::new();
        let subscriber = world.connect(&v5("s").topic_aliases(maximum));
        world.subscribe(subscriber, "#", Q2);
        let publisher = world.connect(&v5("p"));
        let mut topics = Vec::new();
        for n in 0..200_usize {
            let topic = format!("topic/{}", [n % 2, n % 7, n][n % 3]);
            world.publish(publisher, publish_at([Q0, Q1, Q2][n % 3], 1, &topic, &n.to_string()));
            topics.push(topic);
        }
        let seen = world.drain(subscriber);
        let mut reader = Reader::default();
        let read: Vec<String> = seen.iter().map(|publish| reader.topic(publish, maximum)).collect();
        assert_eq!(read, topics);
        assert_eq!(aliased(&seen) > 10, maximum > 0, "{} of 200", aliased(&seen));
    }
}

#[test]
fn a_message_that_is_sent_again_begins_without_aliases() {
    let hello = v5("s").expiry(100).topic_aliases(10);
    let mut world = World::new();
    let subscriber = world.connect(&hello);
    world.subscribe(subscriber, "#", Q1);
    let publisher = world.connect(&v5("p"));
    world.publish_numbers(publisher, "some/topic", Q1, 0..5);
    assert_eq!(aliased(&world.take_publishes(subscriber)), 3);
    world.cut(subscriber);
    let subscriber = world.connect(&hello);
    let again = world.drain(subscriber);
    assert_eq!(texts(&again), numbers(0..5));
    let mut reader = Reader::default();
    assert!(again.iter().all(|publish| publish.dup && reader.topic(publish, 10) == "some/topic"));
}

#[test]
fn what_a_client_takes_does_not_hang_on_aliases() {
    // A packet of exactly 60 bytes with its topic; one byte more is skipped, also under an alias.
    let mut world = World::new();
    let subscriber = world.connect(&v5("s").topic_aliases(10).packet_bytes_max(60));
    world.subscribe(subscriber, "#", Q1);
    let publisher = world.connect(&v5("p"));
    for (payload_bytes, arrives) in [(43, true), (43, true), (40, true), (43, true), (44, false), (43, true)]
    {
        world.publish(publisher, publish_at(Q1, 1, "some/topic", &"x".repeat(payload_bytes)));
        let seen = world.drain(subscriber);
        assert_eq!(!seen.is_empty(), arrives, "{payload_bytes}");
    }
    // The alias was set by the one that had room for it, and used from then on.
    world.publish(publisher, publish_at(Q1, 1, "some/topic", "short"));
    assert_eq!(aliased(&world.drain(subscriber)), 1);
}

#[test]
fn what_the_next_connection_finds_too_large_is_not_sent_again() {
    // [MQTT-3.1.2-24], [MQTT-3.1.2-25]: as if it had been completed, and nothing is held for it
    let mut world = World::new();
    let subscriber = world.connect(&v5("s").expiry(100));
    world.subscribe(subscriber, "t", Q2);
    let publisher = world.connect(&v5("p"));
    for qos in [Q1, Q2] {
        world.publish(publisher, publish_at(qos, 1, "t", &"x".repeat(200)));
        world.publish(publisher, publish_at(qos, 1, "t", &format!("{qos:?}")));
    }
    world.cut(subscriber);
    let subscriber = world.connect(&v5("s").expiry(100).packet_bytes_max(100));
    assert_eq!(texts(&world.drain(subscriber)), ["AtLeastOnce", "ExactlyOnce"]);
    world.advance(2);
    assert_eq!(world.cluster.log.bytes(), 0);
}
