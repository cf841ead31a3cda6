//! The last message of each topic that was published with the retain flag (MQTT 5.0, 3.3.1.3).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::model::{Message, Timestamp, TopicFilter};

/// The retained messages of one cluster.
#[derive(Debug, Default)]
pub struct Retained {
    by_topic: BTreeMap<Box<str>, Kept>,
    /// How many were ever put.
    age: u64,
}

#[derive(Debug)]
struct Kept {
    message: Arc<Message>,
    /// How many were put before it.
    age: u64,
}

impl Retained {
    /// Keeps `message` as its topic's last, or with an empty payload clears the topic
    /// (`[MQTT-3.3.1-5]`, `[MQTT-3.3.1-6]`).
    pub fn put(&mut self, message: &Arc<Message>) {
        let topic = message.topic.as_str();
        self.age += 1;
        if message.payload.is_empty() {
            self.by_topic.remove(topic);
        } else {
            let kept = Kept { message: Arc::clone(message), age: self.age - 1 };
            self.by_topic.insert(topic.into(), kept);
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

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }
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
    fn an_expired_one_is_not_sent() {
        let mut retained = Retained::default();
        retained.put(&message("a", "1", Some(Timestamp::from_millis(1_000))));
        retained.put(&message("b", "1", Some(Timestamp::from_millis(1_001))));
        assert_eq!(topics(&retained, "+"), ["b"]);
    }
}
