//! What is written down, one atomic step at a time.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::model::{FilterKey, Message, Seq};

/// The number of a cluster in the files of this process: small, never given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterNo(pub u32);

/// One step. After a crash all of it is there, or nothing.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whose it is.
    pub cluster: ClusterNo,
    /// A message that was said.
    pub message: Option<Posted>,
    /// What changed with it, in order.
    pub changes: Vec<Change>,
}

/// A message with its place.
#[derive(Clone, Debug)]
pub struct Posted {
    /// Its position. Dense and ascending within a cluster.
    pub seq: Seq,
    /// The distinct filters under which it is found. Not empty.
    pub filters: SmallVec<[FilterKey; 4]>,
    /// What was said.
    pub message: Arc<Message>,
}

/// A change of what is remembered besides messages: progress of sessions and groups, unfinished
/// QoS 2 exchanges, retained messages, wills. Small facts under keys; what the bytes mean is the
/// writer's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// From now on `key` has `value`.
    Put {
        /// Which fact of the cluster.
        key: Bytes,
        /// What it is.
        value: Bytes,
    },
    /// There is nothing under `key` any longer.
    Delete {
        /// Which fact of the cluster.
        key: Bytes,
    },
    /// There is nothing any longer under any key that begins so.
    DeleteAll {
        /// The beginning.
        prefix: Bytes,
    },
}
