//! What opening a journal tells: what was found, what is damaged, why it cannot be opened.

use std::io;

use thiserror::Error;

/// Why a journal cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the message log is in use by another process")]
    Locked,
    /// [`super::Options`] out of their bounds.
    #[error("a segment of the message log has 64 KiB to 1 GiB, not {bytes} bytes")]
    SegmentBytes {
        /// What was asked for.
        bytes: u32,
    },
    /// The system refused something.
    #[error("{doing}")]
    Io {
        /// What was being tried.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Nothing says what sessions had consumed: going on would repeat and lose messages.
    #[error(
        "the message log has lost its state: there is no valid checkpoint, and segment {missing} is gone"
    )]
    StateLost {
        /// The segment that would have to be there.
        missing: u64,
    },
}

/// Something durable that is not there any longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Frames of a segment.
    Frames {
        /// The segment's number.
        segment: u64,
        /// How many bytes cannot be read.
        bytes: u64,
    },
    /// The header of a segment. When its sidecar is gone as well, the segment is set aside.
    Header {
        /// The segment's number.
        segment: u64,
    },
    /// A whole segment whose changes no checkpoint covers.
    Missing {
        /// The segment's number.
        segment: u64,
    },
    /// A checkpoint. An older one took its place.
    Checkpoint {
        /// The segment through which it went.
        through: u64,
    },
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments that hold entries.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The segment through which the checkpoint went; 0 when there was none.
    pub checkpoint: u64,
    /// Entries that were read because no checkpoint covers them.
    pub entries: u64,
    /// Bytes at the end that were not durable, and were dropped.
    pub cut_bytes: u64,
    /// Sidecars that were missing or damaged.
    pub indexes_rebuilt: u64,
    /// What should be there and is not.
    pub damage: Vec<Damage>,
}
