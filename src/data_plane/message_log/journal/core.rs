//! What the threads of the journal share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

use parking_lot::RwLock;

use super::catalog::Catalog;
use super::disk::Disk;
use super::file_pool::FilePool;
use super::keeper::Chores;
use super::queue::Queue;
use super::reader::ReadQueue;
use super::stock::Stock;
use super::{Events, Options};

/// One per journal. Each part holds its own lock.
pub(super) struct Core {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: Options,
    pub(super) events: Events,
    pub(super) files: Arc<FilePool>,
    pub(super) catalog: RwLock<Catalog>,
    pub(super) queue: Queue,
    pub(super) stock: Stock,
    pub(super) chores: Chores,
    pub(super) reads: ReadQueue,
    pub(super) gauges: Gauges,
}

/// Figures that are read without a lock.
#[derive(Default)]
pub(super) struct Gauges {
    /// Bytes that frames may take in segments that are ready.
    pub(super) free: AtomicI64,
    /// Bytes that wait for the committer.
    pub(super) queued: AtomicU64,
    /// The last durable batch.
    pub(super) durable: AtomicU64,
    /// Bytes of all segments, those that are ready included.
    pub(super) bytes: AtomicU64,
    /// There was no space for another segment when it was last looked for.
    pub(super) full: AtomicBool,
    /// Frames that could not be read since the journal was opened.
    pub(super) damaged: AtomicU64,
    /// The keeper's last attempt failed.
    pub(super) keeper_failed: AtomicBool,
    /// The journal is being closed.
    pub(super) stopping: AtomicBool,
}
