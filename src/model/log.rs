//! Positions in a cluster's message log and the filters its postings are kept by.

use serde::{Deserialize, Serialize};

/// The number of a message in its cluster's log: dense, given by the one writer, never reused.
/// [`Seq::ZERO`] lies before the first message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first message.
    pub const ZERO: Self = Self(0);

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One distinct topic pattern that somebody subscribes to, within one cluster and process.
///
/// Two sessions that subscribe to the same pattern share it; that is why a message for a million
/// sleeping sessions is kept once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterId(pub u32);

/// One shared group on one filter, within one cluster and process. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);
