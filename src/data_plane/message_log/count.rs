//! How far behind somebody is: what to count, and what was counted.

use super::{ClusterNo, FilterKey};
use crate::model::{Seq, Timestamp};

/// How many messages are counted at most, in memory and on disk each: so many cost a disk some
/// milliseconds, and who waits for more is behind by any measure.
pub const COUNTED_MAX: u64 = 100_000;

/// What to count on disk.
#[derive(Clone, Debug)]
pub struct CountRequest {
    /// Whose messages.
    pub cluster: ClusterNo,
    /// Filters, each with the position behind which it is counted.
    pub lists: Vec<(FilterKey, Seq)>,
    /// The first so many of `lists` are one reader's: a message that several of them match counts once in
    /// [`Counted::messages`]. The others are counted for themselves only.
    pub merged: usize,
    /// The last position to count.
    pub through: Seq,
    /// Counting stops when so many messages were counted, of all lists together.
    pub messages_max: u64,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Messages of the merged lists.
    pub messages: u64,
    /// What they take in the log, in bytes. Of those in memory it is known to a few bytes each.
    pub bytes: u64,
    /// The position of the earliest of them, and when it was published, unless it cannot be read.
    pub oldest: Option<(Seq, Option<Timestamp>)>,
    /// Messages of each list.
    pub each: Vec<u64>,
    /// Counting stopped at its bound: there are at least so many, and more.
    pub stopped: bool,
}

impl Counted {
    /// Nothing yet, of so many lists.
    pub fn none(lists: usize) -> Self {
        Self { each: vec![0; lists], ..Self::default() }
    }

    /// Both together: `later` was counted over the same lists behind where this one ends.
    #[must_use]
    pub fn and(self, later: &Self) -> Self {
        Self {
            messages: self.messages + later.messages,
            bytes: self.bytes + later.bytes,
            oldest: self.oldest.or(later.oldest),
            each: self.each.iter().zip(&later.each).map(|(earlier, later)| earlier + later).collect(),
            stopped: self.stopped || later.stopped,
        }
    }
}
