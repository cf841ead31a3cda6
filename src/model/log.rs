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

/// A distinct topic pattern of a cluster, the same in every process: a checksum of its text.
///
/// Two patterns may share a key. Then a reader of the one also finds the messages of the other, and
/// passes over them, because at delivery a session's own filters are matched again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterKey(pub u64);

impl FilterKey {
    /// The key of a pattern: CRC-64/NVME of its text.
    pub fn of(pattern: &str) -> Self {
        Self(crc_fast::crc64_nvme(pattern.as_bytes()))
    }
}

/// Where a message lies in its cluster's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its position.
    pub seq: Seq,
    /// One of the patterns it is found under.
    pub filter: FilterKey,
    /// Whether it is on disk, so that a crash cannot take it back.
    pub durable: bool,
}

/// One shared group on one filter, within one cluster and process. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);
