//! The last message of each topic that was published with the retain flag (MQTT 5.0, 3.3.1.3).
//!
//! Counted, so that limits hold (PRODUCT Q-10). What the server says of itself lies here too and does not
//! count.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::model::{Message, Quota, Timestamp, TopicFilter};

/// The retained messages of one cluster.
#[derive(Debug, Default)]
pub struct Retained {
    by_topic: BTreeMap<Box<str>, Kept>,
    /// Those that expire, in the order in which they do.
    expiring: BTreeSet<(Timestamp, Box<str>)>,
    /// How many were ever put.
    age: u64,
    /// How many count, and the bytes of these.
    count: usize,
    bytes: u64,
}

#[derive(Debug)]
struct Kept {
    message: Arc<Message>,
    /// How many were put before it.
    age: u64,
    /// Whether the server says it of itself: then it does not count.
    own: bool,
}

/// A limit that leaves no room for a retained message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// The quota's name.
    pub limit: &'static str,
    /// How much it allows.
    pub allowed: u32,
    /// How much is in use.
    pub in_use: u64,
}

impl Retained {
    /// Keeps `message` as its topic's last, or with an empty payload clears the topic
    /// (`[MQTT-3.3.1-5]`, `[MQTT-3.3.1-6]`). Returns how many were put before it.
    pub fn put(&mut self, message: &Arc<Message>) -> u64 {
        let age = self.age;
        self.age += 1;
        if message.payload.is_empty() {
            self.remove(message.topic.as_str());
        } else {
            self.insert(Kept { message: Arc::clone(message), age, own: false });
        }
        age
    }

    /// Keeps one that was put before a restart, when it was `age`.
    pub fn restore(&mut self, message: Arc<Message>, age: u64) {
        self.goes_on_from(age.saturating_add(1));
        self.insert(Kept { message, age, own: false });
    }

    /// What is put from now on is of this age or higher.
    pub fn goes_on_from(&mut self, age: u64) {
        self.age = age.max(self.age);
    }

    /// Keeps what the server says of itself. In place of an earlier one it is owed to whom that was owed:
    /// it is not sent live.
    pub fn put_own(&mut self, message: &Arc<Message>) {
        let known = self.by_topic.get(message.topic.as_str()).map(|kept| kept.age);
        let age = known.unwrap_or_else(|| {
            self.age += 1;
            self.age - 1
        });
        self.insert(Kept { message: Arc::clone(message), age, own: true });
    }

    /// Whether the limits leave room to keep `message` in place of what its topic has (PRODUCT Q-10).
    pub fn room_for(&self, message: &Message, quota: &Quota) -> Result<(), Full> {
        if message.payload.is_empty() {
            return Ok(());
        }
        let before = self.by_topic.get(message.topic.as_str()).map(|kept| size_bytes(&kept.message));
        let count = self.count + usize::from(before.is_none());
        if let Some(allowed) = quota.retained_messages.filter(|allowed| count > *allowed as usize) {
            return Err(Full { limit: "retained_messages", allowed, in_use: self.count as u64 });
        }
        let bytes = self.bytes - before.unwrap_or(0) + size_bytes(message);
        match quota.retained_bytes.filter(|allowed| bytes > u64::from(*allowed)) {
            Some(allowed) => Err(Full { limit: "retained_bytes", allowed, in_use: self.bytes }),
            None => Ok(()),
        }
    }

    /// The topic has no retained message any longer. Returns whether it had one.
    pub fn remove(&mut self, topic: &str) -> bool {
        let Some(gone) = self.by_topic.remove(topic) else { return false };
        if let Some(at) = gone.message.expires_at {
            self.expiring.remove(&(at, topic.into()));
        }
        self.counts(&gone, false);
        true
    }

    /// Removes one that has expired, and tells its topic.
    pub fn remove_expired(&mut self, now: Timestamp) -> Option<Box<str>> {
        let (_, topic) = self.expiring.first().filter(|(at, _)| *at <= now)?.clone();
        self.remove(&topic);
        Some(topic)
    }

    fn insert(&mut self, kept: Kept) {
        let topic = Box::<str>::from(kept.message.topic.as_str());
        self.remove(&topic);
        if let Some(at) = kept.message.expires_at {
            self.expiring.insert((at, topic.clone()));
        }
        self.counts(&kept, true);
        self.by_topic.insert(topic, kept);
    }

    fn counts(&mut self, kept: &Kept, comes: bool) {
        let (count, bytes) = if kept.own { (0, 0) } else { (1, size_bytes(&kept.message)) };
        if comes {
            self.count += count;
            self.bytes += bytes;
        } else {
            self.count -= count;
            self.bytes -= bytes;
        }
    }

    /// A moment in the life of the retained messages: what is put from now on is of this age or higher.
    pub fn age(&self) -> u64 {
        self.age
    }

    /// The first unexpired retained message that `filter` matches behind the topic `after`, in
    /// order of topic. Only of those put before the moment `age`: a subscriber gets later ones as they
    /// are published, and not twice.
    pub fn next_matching(
        &self,
        filter: &TopicFilter,
        after: Option<&str>,
        age: u64,
        now: Timestamp,
    ) -> Option<Arc<Message>> {
        let pattern = filter.pattern();
        let Some(wildcard) = pattern.find(['+', '#']) else {
            let kept = self.by_topic.get(pattern)?;
            return (after.is_none() && kept.is_due(age, now)).then(|| Arc::clone(&kept.message));
        };
        // Every match begins with what stands before the first wildcard; `a/#` also matches `a`,
        // which lacks the slash.
        let prefix = pattern[..wildcard].strip_suffix('/').unwrap_or(&pattern[..wildcard]);
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        self.by_topic
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(topic, _)| topic.starts_with(prefix))
            .map(|(_, kept)| kept)
            .find(|kept| kept.is_due(age, now) && filter.matches(&kept.message.topic))
            .map(|kept| Arc::clone(&kept.message))
    }

    /// How many there are that count.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none that count.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes of those that count: topics, payloads and properties.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn size_bytes(message: &Message) -> u64 {
    message.size_bytes() as u64
}

impl Kept {
    fn is_due(&self, age: u64, now: Timestamp) -> bool {
        self.age < age && !self.message.is_expired(now)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{PropertyBytes, QoS, TopicName};

    fn message(topic: &str, payload: &'static str, expires_at: Option<Timestamp>) -> Arc<Message> {
        Arc::new(Message {
            topic: TopicName::new(topic).expect("a topic"),
            payload: Bytes::from_static(payload.as_bytes()),
            qos: QoS::AtMostOnce,
            retain: true,
            properties: PropertyBytes::default(),
            expires_at,
            published_at: Timestamp::EPOCH,
            publisher: None,
        })
    }

    fn topics(retained: &Retained, filter: &str) -> Vec<String> {
        let filter = TopicFilter::new(filter).expect("a filter");
        let now = Timestamp::from_millis(1_000);
        let mut found: Vec<String> = Vec::new();
        let age = retained.age();
        while let Some(message) = retained.next_matching(&filter, found.last().map(String::as_str), age, now)
        {
            found.push(message.topic.to_string());
        }
        found
    }

    #[test]
    fn keeps_the_last_of_each_topic_and_clears_on_an_empty_one() {
        let mut retained = Retained::default();
        for topic in ["a", "a/b", "a/c/d", "ab", "$SYS/x", "b"] {
            retained.put(&message(topic, "1", None));
        }
        retained.put(&message("a/b", "2", None));
        assert_eq!(retained.len(), 6);
        assert_eq!(topics(&retained, "a/#"), ["a", "a/b", "a/c/d"]);
        assert_eq!(topics(&retained, "+"), ["a", "ab", "b"]);
        assert_eq!(topics(&retained, "a/+/d"), ["a/c/d"]);
        assert_eq!(topics(&retained, "$SYS/#"), ["$SYS/x"]);
        assert_eq!(topics(&retained, "#").len(), 5);
        retained.put(&message("a/b", "", None));
        assert_eq!(topics(&retained, "a/b"), Vec::<String>::new());
    }

    #[test]
    fn what_is_put_later_is_left_to_the_living() {
        let mut retained = Retained::default();
        retained.put(&message("a", "1", None));
        retained.put(&message("b", "1", None));
        let age = retained.age();
        retained.put(&message("a", "2", None));
        retained.put(&message("c", "1", None));
        let filter = TopicFilter::new("+").expect("a filter");
        let now = Timestamp::EPOCH;
        let found = retained.next_matching(&filter, None, age, now).expect("an old one");
        assert_eq!(found.topic.as_str(), "b");
        assert!(retained.next_matching(&filter, Some("b"), age, now).is_none());
    }

    #[test]
    fn count_and_bytes_follow_every_change() {
        let mut retained = Retained::default();
        let at = Timestamp::from_millis(1_000);
        retained.put(&message("a", "123", None));
        retained.put(&message("b", "1", Some(at)));
        assert_eq!((retained.len(), retained.bytes()), (2, 6));
        retained.put(&message("a", "1", None));
        retained.put_own(&message("$SYS/x", "1", None));
        assert_eq!((retained.len(), retained.bytes()), (2, 4));
        retained.put(&message("b", "22", None));
        assert_eq!(retained.remove_expired(at), None, "the new one does not expire");
        retained.put(&message("b", "3", Some(at)));
        assert_eq!(retained.remove_expired(Timestamp::from_millis(999)), None);
        assert_eq!(retained.remove_expired(at).as_deref(), Some("b"));
        assert_eq!(retained.remove_expired(at), None);
        assert!(!retained.remove("b") && retained.remove("a") && retained.remove("$SYS/x"));
        assert_eq!((retained.len(), retained.bytes()), (0, 0));
        assert!(retained.is_empty() && retained.expiring.is_empty());
    }

    #[test]
    fn a_message_has_room_in_place_of_its_predecessor() {
        let mut retained = Retained::default();
        let plan = crate::model::Plan::by_name("unlimited").expect("a plan");
        let mut quota = Quota::resolve(plan, &crate::model::QuotaOverrides::default());
        (quota.retained_messages, quota.retained_bytes) = (Some(2), Some(10));
        retained.put(&message("a", "1", None));
        retained.put(&message("b", "1", None));
        let full = Full { limit: "retained_messages", allowed: 2, in_use: 2 };
        assert_eq!(retained.room_for(&message("c", "1", None), &quota), Err(full));
        assert_eq!(retained.room_for(&message("c", "", None), &quota), Ok(()));
        assert_eq!(retained.room_for(&message("a", "1234567", None), &quota), Ok(()));
        let full = Full { limit: "retained_bytes", allowed: 10, in_use: 4 };
        assert_eq!(retained.room_for(&message("a", "12345678", None), &quota), Err(full));
    }

    #[test]
    fn an_expired_one_is_not_sent() {
        let mut retained = Retained::default();
        retained.put(&message("a", "1", Some(Timestamp::from_millis(1_000))));
        retained.put(&message("b", "1", Some(Timestamp::from_millis(1_001))));
        assert_eq!(topics(&retained, "+"), ["b"]);
    }
}
