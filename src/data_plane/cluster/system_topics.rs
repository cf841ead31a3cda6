//! What the cluster says of itself: `$SYS/broker/…`.
//!
//! | below `$SYS/broker/` | is |
//! | --- | --- |
//! | `version` | the program and its version |
//! | `uptime` | seconds since the process started |
//! | `clients/connected`, `clients/disconnected`, `clients/total` | sessions online, offline, both |
//! | `subscriptions/count` | subscriptions, shared ones counted for each member |
//! | `messages/received`, `messages/sent`, `messages/dropped` | since the process started |
//! | `retained messages/count`, `retained messages/bytes` | what is retained, these not counted |
//!
//! Each is a text, sent at QoS 0 when it has changed, at most every ten seconds and only if somebody
//! subscribes. A new subscriber gets the values of the moment as retained messages. They are computed,
//! never stored.

use std::sync::Arc;

use super::Cluster;
use super::events::own_message;
use crate::model::{Message, Monotonic, Now, QoS};

/// How often changes are told.
const INTERVAL_MILLIS: u64 = 10_000;

/// Every topic. The order is that of [`Cluster::system_value`].
const TOPICS: [&str; 11] = [
    "$SYS/broker/version",
    "$SYS/broker/uptime",
    "$SYS/broker/clients/connected",
    "$SYS/broker/clients/disconnected",
    "$SYS/broker/clients/total",
    "$SYS/broker/subscriptions/count",
    "$SYS/broker/messages/received",
    "$SYS/broker/messages/sent",
    "$SYS/broker/messages/dropped",
    "$SYS/broker/retained messages/count",
    "$SYS/broker/retained messages/bytes",
];

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    at: Monotonic,
    values: [Option<String>; TOPICS.len()],
}

impl Cluster {
    /// Tells what has changed to who subscribes, when it is time.
    pub(super) fn tell_of_itself(&mut self, now: Now) {
        if now.mono.since(self.told.at).as_millis() < u128::from(INTERVAL_MILLIS) {
            return;
        }
        self.told.at = now.mono;
        for (at, topic) in TOPICS.into_iter().enumerate() {
            if self.index.matches(topic).is_empty() {
                self.told.values[at] = None;
                continue;
            }
            let value = self.system_value(now, at);
            if self.told.values[at].as_ref() != Some(&value) {
                self.publish_own(now, topic, QoS::AtMostOnce, &value, "text/plain");
                self.told.values[at] = Some(value);
            }
        }
    }

    /// Somebody is about to subscribe to some of it: puts the values of the moment where retained messages
    /// are read.
    pub(super) fn refresh_system_topics(&mut self, now: Now) {
        for (at, topic) in TOPICS.into_iter().enumerate() {
            let value = self.system_value(now, at);
            if let Some(message) = own_message(now, topic, QoS::AtMostOnce, &value, "text/plain") {
                self.retained.put_own(&Arc::new(Message { retain: true, ..message }));
            }
        }
    }

    /// The value of `TOPICS[at]`.
    fn system_value(&self, now: Now, at: usize) -> String {
        let counts = self.counts();
        match at {
            0 => concat!("holdfast ", env!("CARGO_PKG_VERSION")).to_owned(),
            1 => (now.mono.as_millis() / 1_000).to_string(),
            2 => counts.online.to_string(),
            3 => counts.offline_persistent.to_string(),
            4 => counts.total().to_string(),
            5 => self.subscription_count().to_string(),
            6 => self.message_counters().received.to_string(),
            7 => self.message_counters().sent.to_string(),
            8 => self.message_counters().dropped().to_string(),
            9 => self.retained.len().to_string(),
            _ => self.retained.bytes().to_string(),
        }
    }
}
