//! The message log: what was said, kept once, read by each session at its own position.
//!
//! A message is appended when at least one persistent subscription wants it at QoS 1 or 2, and is
//! posted under each *distinct* filter that matched. A session reads by merging the postings of its
//! own filters after its position. So the cost of a publish follows the number of distinct filters,
//! never the number of sleeping sessions (PRODUCT S-3).
//!
//! [`InMemoryLog`] keeps everything in this process: it survives a client's absence, not a restart.
//! [`journal`] keeps it on disk.

mod entry;
mod in_memory;
pub mod journal;

use std::sync::Arc;

pub use entry::{Change, ClusterNo, Entry, FilterKey, Posted};
pub use in_memory::InMemoryLog;

use crate::model::{FilterId, Message, Seq};

/// A message as read from the log.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// Its position.
    pub seq: Seq,
    /// What was said.
    pub message: Arc<Message>,
}

/// The log of one cluster. One writer; positions are dense and grow.
pub trait MessageLog {
    /// The position of the last message; where a new subscription starts.
    fn tail(&self) -> Seq;

    /// Keeps `message` under each of `filters` (distinct, not empty) and gives its position.
    fn append(&mut self, message: Arc<Message>, filters: &[FilterId]) -> Seq;

    /// Appends to `out` the earliest messages, at most `limit`, that are posted under any of `after`'s
    /// filters behind the position beside it. Each message once, in order of position.
    fn read(&self, after: &[(FilterId, Seq)], limit: usize, out: &mut Vec<LogEntry>);

    /// Every session that reads `filter` has consumed it up to and including `through`.
    fn trim(&mut self, filter: FilterId, through: Seq);

    /// Nobody reads `filter` any longer.
    fn forget(&mut self, filter: FilterId);

    /// Filters that have messages posted, each with the position of its earliest.
    fn posted(&self) -> Vec<(FilterId, Seq)>;

    /// How many bytes of messages are kept.
    fn kept_bytes(&self) -> u64;
}
