//! The message log: what was said, kept once, read by each session at its own position.
//!
//! A message is appended when at least one persistent subscription wants it at QoS 1 or 2, and is
//! posted under each *distinct* filter that matched. A session reads by merging the postings of its
//! own filters after its position. So the cost of a publish follows the number of distinct filters,
//! never the number of sleeping sessions (PRODUCT S-3).
//!
//! What was said last is in memory too ([`RecentLog`]): whoever is awake reads it there. Older messages
//! are on disk only and are asked for ([`Found::OnDisk`]). What goes to the disk are [`Entry`] values;
//! [`journal`] keeps them there.

mod count;
mod entry;
pub mod journal;
mod message_bytes;
mod recent;

use std::sync::Arc;

pub use count::{COUNTED_MAX, CountRequest, Counted};
pub use entry::{Change, ClusterNo, Entry, Posted};
pub use message_bytes::{get_message, put_message};
pub use recent::{Found, RecentLog};

pub use crate::model::FilterKey;

use crate::model::{Message, Place};

/// A message as read from the log.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// Where it lies.
    pub place: Place,
    /// What was said.
    pub message: Arc<Message>,
}
