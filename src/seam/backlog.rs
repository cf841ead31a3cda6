//! What waits for a session, is under way to it, and became of the rest: an answer of the data plane.

use crate::model::{MessageCounters, Seq, SessionId, Timestamp, TopicFilter};

/// A session's messages at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionTraffic {
    /// The session that it is about.
    pub session_id: SessionId,
    /// What waits for it.
    pub backlog: Backlog,
    /// Exchanges at QoS 1 and 2 that have begun and are not over.
    pub in_flight: u64,
    /// What its connections counted since the process started.
    pub counters: MessageCounters,
    /// Messages that the log let go of before the session had consumed them (PRODUCT S-14). Survives a
    /// restart.
    pub trimmed: u64,
    /// Each of its subscriptions.
    pub subscriptions: Vec<SubscriptionTraffic>,
}

/// Messages that wait for a session: what lies behind its position under its filters, each once.
/// Messages of shared groups wait for their groups and are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many.
    pub messages: u64,
    /// What they take in the log, about.
    pub bytes: u64,
    /// The earliest of them.
    pub oldest: Option<Oldest>,
    /// Whether all were counted; else these are at least so many.
    pub is_complete: bool,
}

/// The earliest message of a backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oldest {
    /// Its position in the cluster's log; `None` when it waits in memory, for a session that ends with its
    /// connection.
    pub position: Option<Seq>,
    /// When it was published, unless it cannot be read.
    pub published_at: Option<Timestamp>,
}

/// One subscription's messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionTraffic {
    /// The whole filter.
    pub filter: TopicFilter,
    /// Messages that wait under it, for the session or for the shared group.
    pub lag: u64,
    /// Messages under way under it; `None` when it cannot be told, because the messages of a session
    /// without connection are not at hand.
    pub in_flight: Option<u64>,
}
