//! What the threads of the journal share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::super::Entry;
use super::catalog::Catalog;
use super::committer::{Committer, Fatal};
use super::disk::Disk;
use super::file_pool::FilePool;
use super::keeper::Chores;
use super::queue::{BatchNo, Queue};
use super::reader::ReadQueue;
use super::stock::Stock;
use super::{Events, Figures, Options, Room};

/// Sealed segments that may wait for a checkpoint before new messages are refused.
pub(super) const UNCOVERED_MAX: usize = 8;

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
    /// How often entries were written and synced since the journal was opened.
    pub(super) commits: AtomicU64,
    /// The keeper's last attempt failed.
    pub(super) keeper_failed: AtomicBool,
    /// The journal is being closed.
    pub(super) stopping: AtomicBool,
}

impl Core {
    pub(super) fn submit(&self, entries: Vec<Entry>) -> BatchNo {
        self.queue.push(entries, &self.gauges.queued)
    }

    pub(super) fn release(&self, segment: u64) {
        if self.catalog.read().sealed.contains_key(&segment) {
            self.chores.release(segment);
        }
    }

    pub(super) fn room(&self) -> Room {
        let queued = self.gauges.queued.load(Ordering::Acquire);
        let free = u64::try_from(self.gauges.free.load(Ordering::Acquire)).unwrap_or(0);
        let space = free.saturating_sub(queued).saturating_sub(u64::from(self.options.reserve_bytes));
        let is_behind = self.chores.uncovered() > UNCOVERED_MAX;
        let bytes = space.min(self.options.queue_bytes_max.saturating_sub(queued));
        let keeper_failed = self.gauges.keeper_failed.load(Ordering::Acquire);
        Room {
            bytes: if is_behind { 0 } else { bytes },
            is_full: self.gauges.full.load(Ordering::Acquire) || (is_behind && keeper_failed),
        }
    }

    pub(super) fn figures(&self) -> Figures {
        let catalog = self.catalog.read();
        let active = catalog.active.iter().flat_map(|active| active.index.spans());
        let (mut oldest, mut cluster_bytes) = (BTreeMap::new(), BTreeMap::new());
        for span in catalog.sealed.values().flat_map(|sealed| sealed.spans()).chain(active) {
            oldest.entry(span.cluster).or_insert((span.first, span.oldest_at));
            *cluster_bytes.entry(span.cluster).or_default() += span.bytes;
        }
        Figures {
            bytes: self.gauges.bytes.load(Ordering::Acquire),
            segments: (catalog.sealed.len() + usize::from(catalog.active.is_some())) as u64,
            uncovered: self.chores.uncovered() as u64,
            queued_bytes: self.gauges.queued.load(Ordering::Acquire),
            damaged_reads: self.gauges.damaged.load(Ordering::Acquire),
            commits: self.gauges.commits.load(Ordering::Acquire),
            cluster_bytes,
            oldest,
        }
    }

    /// The committer's thread; whether all was written.
    pub(super) fn commit_until_closed(self: Arc<Self>) -> bool {
        let of = Arc::clone(&self);
        let committer = Committer::new(Arc::clone(&self), Box::new(move || of.stock.take()));
        let Err(fatal) = committer.run() else { return true };
        self.queue.abandon();
        if !matches!(fatal, Fatal::NoSpace) {
            tracing::error!(error = &fatal as &dyn std::error::Error, "the message log cannot be written");
            (self.events.fatal)(fatal);
        }
        false
    }
}
