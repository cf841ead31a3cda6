//! What a session is owed, as far as can be told from outside.

use std::collections::BTreeMap;

use super::*;

pub(super) const TOPICS: [&str; 4] = ["topic/0", "topic/1", "topic/2", "u"];
pub(super) const FILTERS: [&str; 6] = ["topic/#", "topic/+", "topic/0", "topic/1", "u", "+"];

fn matches(filter_text: &str, topic: usize) -> bool {
    filter(filter_text).matches(&crate::model::TopicName::new(TOPICS[topic]).expect("a topic"))
}

/// A subscription as the client knows it.
#[derive(Clone, Copy, Debug)]
struct Held {
    qos: QoS,
    no_local: bool,
    /// Whether the server has answered for it. Until then it may be in force or not.
    certain: bool,
}

#[allow(clippy::struct_excessive_bools)] // independent facts
#[derive(Debug)]
struct Owed {
    topic: usize,
    /// Whether the client published it itself.
    own: bool,
    /// In the order of arrival at the server.
    order: usize,
    /// Whether it would be a loss.
    required: bool,
    /// Whether it must not come: the client's own, under no local.
    forbidden: bool,
    seen: bool,
}

/// One session.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Whether its client was told of it.
    pub(super) admitted: bool,
    pub(super) expiry_secs: u32,
    pub(super) operator_secs: Option<u32>,
    pub(super) offline_since: Option<Timestamp>,
    subscriptions: BTreeMap<&'static str, Held>,
    owed: BTreeMap<usize, Owed>,
    /// For each topic, the order of the last message that was new to the client.
    last_seen: BTreeMap<usize, usize>,
}

impl Session {
    fn interval_secs(&self) -> u32 {
        self.operator_secs.unwrap_or(self.expiry_secs)
    }

    /// Whether it is there for a CONNECT that would resume.
    pub(super) fn can_be_resumed(&self, now: Timestamp) -> bool {
        let alive = self.offline_since.is_none_or(|since| now < since.plus_secs(self.interval_secs()));
        self.admitted && self.interval_secs() > 0 && alive
    }

    /// Whether it exists at all.
    pub(super) fn exists(&self, now: Timestamp) -> bool {
        self.offline_since.is_none() || self.can_be_resumed(now)
    }

    pub(super) fn subscribing(&mut self, text: &'static str, qos: QoS, no_local: bool) {
        if qos == Q0 {
            // What waits may now come at QoS 0, and be lost on the way.
            self.excuse(text, |_| true);
        }
        // What waits is judged by the options of the day on which it goes out.
        if no_local {
            self.excuse(text, |owed| owed.own);
        } else {
            for owed in self.owed.values_mut().filter(|owed| matches(text, owed.topic)) {
                owed.forbidden = false;
            }
        }
        let before = self.subscriptions.get(text).map_or(Q0, |held| held.qos);
        self.subscriptions.insert(text, Held { qos: qos.max(before), no_local, certain: false });
    }

    pub(super) fn subscribed(&mut self, text: &'static str, qos: QoS, no_local: bool) {
        self.subscriptions.insert(text, Held { qos, no_local, certain: true });
    }

    pub(super) fn unsubscribing(&mut self, text: &'static str) {
        self.excuse(text, |_| true);
        if let Some(held) = self.subscriptions.get_mut(text) {
            held.certain = false;
        }
    }

    pub(super) fn unsubscribed(&mut self, text: &'static str) {
        self.subscriptions.remove(text);
    }

    fn excuse(&mut self, text: &str, which: fn(&Owed) -> bool) {
        for owed in self.owed.values_mut().filter(|owed| which(owed) && matches(text, owed.topic)) {
            owed.required = false;
        }
    }

    pub(super) fn owe(&mut self, message: usize, order: usize, topic: usize, qos: QoS, own: bool) {
        let all = self.subscriptions.iter().filter(|(text, _)| matches(text, topic));
        let held: Vec<Held> = all.map(|(_, held)| *held).collect();
        if held.is_empty() {
            return;
        }
        // Whether an option that is not certain holds is not known either.
        let forbidden = held.iter().all(|held| held.certain && held.no_local && own);
        let sure = |held: &Held| held.certain && !(held.no_local && own) && held.qos.min(qos) > Q0;
        let required = held.iter().any(sure);
        self.owed.insert(message, Owed { topic, own, order, required, forbidden, seen: false });
    }

    /// A message is passed to the application. `may_be_known` when the protocol allows that it was
    /// passed on before.
    pub(super) fn see(&mut self, message: usize, qos: QoS, may_be_known: bool) {
        let owed = self.owed.get_mut(&message).unwrap_or_else(|| panic!("{message} was not asked for"));
        assert!(!owed.forbidden, "{message} is its own");
        if owed.seen {
            assert!(may_be_known, "{message} came twice at {qos:?}");
            return;
        }
        owed.seen = true;
        if qos > Q0 {
            let last = self.last_seen.insert(owed.topic, owed.order);
            assert!(last.is_none_or(|last| last < owed.order), "{message} came out of order");
        }
    }

    /// Which of [`TOPICS`] a message that may come was published to.
    pub(super) fn topic_of(&self, message: usize) -> Option<&'static str> {
        self.owed.get(&message).map(|owed| TOPICS[owed.topic])
    }

    pub(super) fn lost(&self) -> Vec<usize> {
        let lost = self.owed.iter().filter(|(_, owed)| owed.required && !owed.seen);
        lost.map(|(message, _)| *message).collect()
    }
}
