//! Topic aliases that the server sets for a client (MQTT 5.0, 3.3.2.3.4).
//!
//! They live with the connection. A topic gets an alias when it is sent the second time, so that
//! topics which come once take none away from those which come often; when all are given the one that
//! was not used for longest is set anew. An alias stands for its topic only after a packet with both
//! was put into the output: packets on one connection arrive in order.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::num::NonZeroU16;

use crate::model::TopicName;

/// The most aliases used on one connection, whatever the client would take: what they cost in memory
/// stays below a few KiB.
pub const ALIASES_MAX: u16 = 32;

/// A shorter topic gains less than its alias costs (3 bytes) within a few messages.
const PAYS_FROM_BYTES: usize = 6;

/// How many topics are remembered as sent once.
const SEEN_ONCE: usize = 64;

/// How a topic is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// As it is.
    Topic,
    /// With an alias that is to stand for it from now on.
    Setting(NonZeroU16),
    /// As the alias that stands for it.
    Alias(NonZeroU16),
}

/// The aliases of one connection. Takes no memory until a message is sent.
#[derive(Debug, Default)]
pub struct AliasesOut {
    by_topic: HashMap<TopicName, Given, foldhash::fast::RandomState>,
    /// Hashes of topics that were sent, each where its own low bits say; 0 for none.
    seen: Vec<u32>,
    /// Counts uses, to tell which alias was not used for longest.
    uses: u64,
}

#[derive(Clone, Copy, Debug)]
struct Given {
    alias: NonZeroU16,
    last_use: u64,
}

impl AliasesOut {
    /// How `topic` is to be named to a client that takes aliases up to `maximum`
    /// (`[MQTT-3.1.2-26]`, `[MQTT-3.1.2-27]`). After a [`Naming::Setting`] that is not sent nothing
    /// has changed, unless [`AliasesOut::set`] is called.
    pub fn name(&mut self, topic: &TopicName, maximum: u16) -> Naming {
        let maximum = maximum.min(ALIASES_MAX);
        if maximum == 0 || topic.as_str().len() < PAYS_FROM_BYTES {
            return Naming::Topic;
        }
        self.uses += 1;
        if let Some(given) = self.by_topic.get_mut(topic) {
            given.last_use = self.uses;
            return Naming::Alias(given.alias);
        }
        if !self.was_seen(topic) {
            return Naming::Topic;
        }
        let given = u16::try_from(self.by_topic.len()).unwrap_or(u16::MAX);
        let unused = (given < maximum).then(|| NonZeroU16::MIN.saturating_add(given));
        let oldest = || self.by_topic.values().min_by_key(|given| given.last_use).map(|given| given.alias);
        unused.or_else(oldest).map_or(Naming::Topic, Naming::Setting)
    }

    /// A packet with `topic` and `alias` is on its way: from now on the alias stands for the topic, and
    /// for no other.
    pub fn set(&mut self, topic: &TopicName, alias: NonZeroU16) {
        self.by_topic.retain(|_, given| given.alias != alias);
        self.by_topic.insert(topic.detach(), Given { alias, last_use: self.uses });
    }

    /// Whether the topic was sent lately; it is remembered from now on.
    fn was_seen(&mut self, topic: &TopicName) -> bool {
        if self.seen.is_empty() {
            self.seen.resize(SEEN_ONCE, 0);
        }
        let hash = foldhash::fast::FixedState::default().hash_one(topic);
        // The high half as the mark, the low bits as the place.
        let mark = u32::try_from(hash >> 32).unwrap_or(u32::MAX) | 1;
        let place = usize::try_from(hash % SEEN_ONCE as u64).unwrap_or(0);
        std::mem::replace(&mut self.seen[place], mark) == mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> TopicName {
        TopicName::new(text.to_owned()).expect("a topic")
    }

    /// Names a topic and sends it so.
    fn send(aliases: &mut AliasesOut, text: &str, maximum: u16) -> Naming {
        let naming = aliases.name(&topic(text), maximum);
        if let Naming::Setting(alias) = naming {
            aliases.set(&topic(text), alias);
        }
        naming
    }

    fn alias(n: u16) -> NonZeroU16 {
        NonZeroU16::new(n).expect("not 0")
    }

    #[test]
    fn a_topic_that_comes_again_gets_an_alias() {
        let mut aliases = AliasesOut::default();
        let first = send(&mut aliases, "topic/1", 10);
        assert_eq!(first, Naming::Topic);
        assert_eq!(send(&mut aliases, "topic/1", 10), Naming::Setting(alias(1)));
        assert_eq!(send(&mut aliases, "topic/1", 10), Naming::Alias(alias(1)));
        assert_eq!(send(&mut aliases, "short", 10), Naming::Topic);
        assert_eq!(send(&mut aliases, "short", 10), Naming::Topic);
    }

    #[test]
    fn what_was_not_sent_stands_for_nothing() {
        let mut aliases = AliasesOut::default();
        send(&mut aliases, "topic/1", 10);
        for _ in 0..3 {
            assert_eq!(aliases.name(&topic("topic/1"), 10), Naming::Setting(alias(1)));
        }
    }

    #[test]
    fn who_takes_none_gets_none() {
        let mut aliases = AliasesOut::default();
        for _ in 0..3 {
            assert_eq!(send(&mut aliases, "topic/1", 0), Naming::Topic);
        }
        assert!(aliases.seen.is_empty());
    }

    #[test]
    fn the_one_unused_for_longest_is_set_anew() {
        let mut aliases = AliasesOut::default();
        for text in ["topic/a", "topic/b"] {
            send(&mut aliases, text, 2);
            send(&mut aliases, text, 2);
        }
        assert_eq!(send(&mut aliases, "topic/a", 2), Naming::Alias(alias(1)));
        send(&mut aliases, "topic/c", 2);
        assert_eq!(send(&mut aliases, "topic/c", 2), Naming::Setting(alias(2)));
        assert_eq!(send(&mut aliases, "topic/a", 2), Naming::Alias(alias(1)));
        assert_eq!(send(&mut aliases, "topic/c", 2), Naming::Alias(alias(2)));
        assert_ne!(send(&mut aliases, "topic/b", 2), Naming::Alias(alias(2)));
    }

    #[test]
    fn topics_that_come_once_take_no_alias_away() {
        let mut aliases = AliasesOut::default();
        send(&mut aliases, "often/1", u16::MAX);
        send(&mut aliases, "often/1", u16::MAX);
        for n in 0..10_000 {
            assert_eq!(send(&mut aliases, &format!("once/{n}"), u16::MAX), Naming::Topic);
        }
        assert_eq!(send(&mut aliases, "often/1", u16::MAX), Naming::Alias(alias(1)));
    }

    #[test]
    fn no_alias_is_above_either_bound() {
        for maximum in [1, 5, u16::MAX] {
            let mut aliases = AliasesOut::default();
            for n in 0..200 {
                let text = format!("topic/{n}");
                for _ in 0..3 {
                    if let Naming::Setting(alias) | Naming::Alias(alias) = send(&mut aliases, &text, maximum)
                    {
                        assert!(alias.get() <= maximum.min(ALIASES_MAX));
                    }
                }
            }
        }
    }
}
