//! What the data plane tells of its message log and of what it counts, for metrics.

use crate::model::{ClusterId, Latency, MessageCounters, RefusalKind, RefusalReason, Timestamp};

/// The message log of the process at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFigures {
    /// Segments that hold entries.
    pub segments: u64,
    /// Bytes of all segments, those that are ready for more included.
    pub bytes: u64,
    /// Bytes that wait to be written.
    pub queued_bytes: u64,
    /// Messages that could not be read back since the process started.
    pub damaged_reads: u64,
    /// How often entries were written and synced since the process started.
    pub commits: u64,
    /// Batches that these made durable: one for each turn of the worker that wrote something down.
    pub batches: u64,
    /// How long a batch took from being handed over until it was known to be durable.
    pub commit: Latency,
    /// Each cluster's part.
    pub clusters: Vec<ClusterLog>,
}

/// A cluster's messages in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterLog {
    /// Which cluster.
    pub cluster: ClusterId,
    /// What its messages take in segments, in bytes, consumed or not.
    pub bytes: u64,
    /// When the earliest message was published that is still there; `None` when there is none.
    pub oldest_at: Option<Timestamp>,
    /// Messages that the log let go of and that a session or a group still had to read, since the process
    /// started: one for each that lost it.
    pub trimmed: u64,
}

/// What a cluster has counted since the process started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFigures {
    /// Which cluster.
    pub cluster: ClusterId,
    /// CONNECTs that were let in.
    pub connects: u64,
    /// Messages of all its clients.
    pub messages: MessageCounters,
    /// Values that message rules could not add.
    pub values_left_out: u64,
    /// What was refused, and how often.
    pub refusals: Vec<(RefusalKind, RefusalReason, u64)>,
}
