//! The durable message log of this process: one journal for all clusters.
//!
//! **Promises.** An [`Entry`] is one step: after a crash all of it is there or nothing. Entries are
//! kept in the order in which they were submitted; after a crash a beginning of them is there, which
//! includes every batch that was reported durable (`[MQTT-4.4.0-1]`, PRODUCT S-12). What is read back is what was
//! written, or it is reported as damaged. Memory grows neither with the messages that wait (PRODUCT
//! S-14) nor with the facts that are remembered.
//!
//! **How.** The worker submits what a turn brought about; the [`committer`] appends it to the active
//! [`segment`], in one write, syncs, and tells. A full segment is sealed and another one takes its
//! place, which the [`stock`] made ready before. The [`keeper`] writes for each sealed segment a [`sidecar`], in
//! which the [`reader`] finds the messages of a filter (the [`counter`] only counts them), and a
//! [`checkpoint`] of what all changes amount to. With both, a segment is needed for its messages only,
//! and not read when the journal is opened ([`recovery`]).
//!
//! **Deliberately not.** It does not know what changes mean, when a message expires, nor who has
//! consumed what: whoever knows calls [`Journal::release`]. It never deletes a message that was
//! not released. It does not keep copies: a disk that is lost is lost.

mod bloom;
mod bytes;
mod catalog;
mod checkpoint;
mod checksum;
mod committer;
mod core;
mod counter;
mod delta;
mod disk;
mod entry_codec;
mod file_pool;
mod frame;
mod index;
mod keeper;
mod paged;
mod queue;
mod reader;
mod recovery;
mod report;
mod segment;
mod sidecar;
mod stock;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};

use parking_lot::{Mutex, RwLock};
use thiserror::Error;

pub use catalog::SealedSegment;
pub use checkpoint::{Fact, Facts};
pub use committer::Fatal;
pub use disk::{Disk, DiskFile, OsDisk};
pub use index::ClusterSpan;
pub use queue::BatchNo;
pub use reader::{ReadBatch, ReadRequest, TooManyReads};
pub use report::{Damage, OpenError, Report};
pub use sidecar::FilterSpan;

use super::{ClusterNo, CountRequest, Counted, Entry, FilterKey};
use crate::model::{Seq, Timestamp};
use core::{Core, Gauges};
use keeper::{Chores, Keeper};
use reader::{Job, ReadQueue};
use recovery::Opened;
use stock::Stock;

/// Threads that read.
const READERS: usize = 2;

/// How a journal is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The length of a segment: 64 KiB to 1 GiB.
    pub segment_bytes: u32,
    /// Space in segments that is kept from messages, for acknowledgements and deletions.
    pub reserve_bytes: u32,
    /// Space on the disk that segments leave free, for checkpoints and for whoever else lives there.
    pub keep_free_bytes: u64,
    /// So much may wait for the committer before there is no room for messages.
    pub queue_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            reserve_bytes: 16 << 20,
            keep_free_bytes: 256 << 20,
            queue_bytes_max: 32 << 20,
        }
    }
}

impl Options {
    /// The largest entry, as it lies in a segment: a quarter of one, so that little is left unused where
    /// the next does not fit.
    pub fn entry_bytes_max(&self) -> u64 {
        u64::from(self.segment_bytes / 4)
    }
}

/// Whom the journal tells. Called on its own threads, which wait meanwhile.
pub struct Events {
    /// All batches up to this one are durable.
    pub durable: Box<dyn Fn(BatchNo) + Send + Sync>,
    /// The journal cannot go on. Nothing more is reported durable; the process must end.
    pub fatal: Box<dyn Fn(Fatal) + Send + Sync>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// What a journal held when it was opened.
#[derive(Debug)]
pub struct Recovered {
    /// What all changes amount to. Read from disk as it is iterated.
    pub facts: Facts,
    /// The last position of each cluster, whether or not its message is still there.
    pub last_seqs: BTreeMap<ClusterNo, Seq>,
    /// What was found.
    pub report: Report,
}

/// How much may be submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes of frames with messages. Acknowledgements and deletions may always be submitted.
    pub bytes: u64,
    /// There is no space on the disk, or it refuses: refuse messages with reason code 0x97. Else, when
    /// `bytes` is 0, the disk is only slower than the publishers: let them wait.
    pub is_full: bool,
}

/// Figures for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes of all segments.
    pub bytes: u64,
    /// How many segments hold entries.
    pub segments: u64,
    /// Sealed segments that no checkpoint covers yet.
    pub uncovered: u64,
    /// Bytes that wait for the committer.
    pub queued_bytes: u64,
    /// Messages that could not be read since the journal was opened.
    pub damaged_reads: u64,
    /// How often entries were written and synced since the journal was opened.
    pub commits: u64,
    /// For each cluster with messages what they take in segments.
    pub cluster_bytes: BTreeMap<ClusterNo, u64>,
    /// For each cluster with messages the earliest: its position and when it was published.
    pub oldest: BTreeMap<ClusterNo, (Seq, Timestamp)>,
}

/// The last entries were not written; they were not reported durable.
#[derive(Debug, Error)]
#[error("the message log was closed with entries that could not be written")]
pub struct Unwritten;

/// The journal. Dropping it without [`Journal::close`] closes it too, and tells nobody what failed.
pub struct Journal {
    core: Arc<Core>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    /// Says whether all was written.
    committer: Option<JoinHandle<bool>>,
    others: Vec<JoinHandle<()>>,
    /// Another process is kept out as long as it is held.
    lock: Option<Box<dyn Send + Sync>>,
}

impl Journal {
    /// Opens the journal of a directory, or begins one in an empty directory. Blocks while it reads:
    /// the checkpoint, what sealed segments keep in memory, and the segments after the checkpoint.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        events: Events,
    ) -> Result<(Self, Recovered), OpenError> {
        let (parts, recovered, lock) = Parts::open(disk, options, events)?;
        let threads = parts.start().map_err(|source| OpenError::Io { doing: "starting a thread", source })?;
        let (core, mut threads) = threads;
        threads.lock = Some(lock);
        Ok((Self { core, threads: Mutex::new(threads) }, recovered))
    }

    /// Hands entries over. Never blocks; encoding is the committer's work. The bytes that changes hold
    /// are kept until a checkpoint covers them: they must not be slices of something large.
    pub fn submit(&self, entries: Vec<Entry>) -> BatchNo {
        self.core.submit(entries)
    }

    /// The last durable batch.
    pub fn durable(&self) -> BatchNo {
        BatchNo(self.core.gauges.durable.load(Ordering::Acquire))
    }

    /// How much may be submitted now. Cheap.
    pub fn room(&self) -> Room {
        self.core.room()
    }

    /// Reads messages on a reader thread and calls `reply` there.
    pub fn read(
        &self,
        request: ReadRequest,
        reply: impl FnOnce(io::Result<ReadBatch>) + Send + 'static,
    ) -> Result<(), TooManyReads> {
        self.core.reads.push(Job::Read(request, Box::new(reply)))
    }

    /// Counts messages on a reader thread and calls `reply` there.
    pub fn count(
        &self,
        request: CountRequest,
        reply: impl FnOnce(io::Result<Counted>) + Send + 'static,
    ) -> Result<(), TooManyReads> {
        self.core.reads.push(Job::Count(request, Box::new(reply)))
    }

    /// The sealed segments, oldest first.
    pub fn sealed(&self) -> Vec<SealedSegment> {
        let catalog = self.core.catalog.read();
        catalog.sealed.values().map(|sealed| sealed.summary()).collect()
    }

    /// Lists filters of a cluster in a sealed segment, in order of their keys behind `after`, at most
    /// `limit`; none when there is no such segment. Calls `reply` on a reader thread.
    pub fn filters_of(
        &self,
        segment: u64,
        cluster: ClusterNo,
        after: Option<FilterKey>,
        limit: usize,
        reply: impl FnOnce(io::Result<Vec<FilterSpan>>) + Send + 'static,
    ) -> Result<(), TooManyReads> {
        self.core.reads.push(Job::Filters { segment, cluster, after, limit, reply: Box::new(reply) })
    }

    /// Nobody needs the messages of a sealed segment any longer. Its file goes as soon as a checkpoint
    /// covers its changes; after a crash it may be there again. Segments without messages go by
    /// themselves.
    pub fn release(&self, segment: u64) {
        self.core.release(segment);
    }

    /// Figures for metrics.
    pub fn figures(&self) -> Figures {
        self.core.figures()
    }

    /// Writes what was submitted, and stops. What is submitted afterwards goes nowhere. Blocks; never to
    /// be called by what the journal itself calls.
    pub fn close(&self) -> Result<(), Unwritten> {
        let mut threads = self.threads.lock();
        self.core.gauges.stopping.store(true, Ordering::Release);
        self.core.queue.close();
        self.core.stock.close();
        let committer = threads.committer.take().map(JoinHandle::join);
        self.core.stock.stop();
        self.core.reads.close();
        self.core.chores.stop();
        for thread in threads.others.drain(..) {
            // A panic was reported where it happened.
            let _ = thread.join();
        }
        threads.lock = None;
        match committer {
            Some(Ok(true)) | None => Ok(()),
            Some(_) => Err(Unwritten),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("figures", &self.figures()).finish_non_exhaustive()
    }
}

/// A journal whose threads do not run yet.
struct Parts {
    core: Arc<Core>,
    keeper: Keeper,
}

impl Parts {
    fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        events: Events,
    ) -> Result<(Self, Recovered, Box<dyn Send + Sync>), OpenError> {
        if !(64 << 10..=1 << 30).contains(&options.segment_bytes) {
            return Err(OpenError::SegmentBytes { bytes: options.segment_bytes });
        }
        let locked =
            disk.lock().map_err(|source| OpenError::Io { doing: "locking the message log", source })?;
        let lock = locked.ok_or(OpenError::Locked)?;
        let opened: Opened = recovery::open(&disk, options.segment_bytes)?;
        let recovered = Recovered {
            facts: opened.facts,
            last_seqs: opened.catalog.last_seqs.clone(),
            report: opened.report,
        };
        let gauges = Gauges::default();
        gauges.bytes.store(recovered.report.bytes, Ordering::Release);
        let core = Arc::new(Core {
            disk,
            options,
            events,
            files: opened.files,
            catalog: RwLock::new(opened.catalog),
            queue: queue::Queue::default(),
            stock: Stock::new(opened.next_number, opened.spares),
            chores: Chores::default(),
            reads: ReadQueue::default(),
            gauges,
        });
        opened.filled.into_iter().for_each(|filled| core.chores.filled(filled));
        let keeper = Keeper::new(Arc::clone(&core), opened.checkpoint, opened.before);
        Ok((Self { core, keeper }, recovered, lock))
    }

    fn start(self) -> io::Result<(Arc<Core>, Threads)> {
        let core = self.core;
        let mut threads = Threads::default();
        let mut start = |name: &str, run: Box<dyn FnOnce() + Send>| {
            threads.others.push(Builder::new().name(format!("log-{name}")).spawn(run)?);
            io::Result::Ok(())
        };
        let of = Arc::clone(&core);
        start("stock", Box::new(move || stock::run(&of)))?;
        start("keeper", Box::new(move || self.keeper.run()))?;
        for _ in 0..READERS {
            let of = Arc::clone(&core);
            start("reader", Box::new(move || reader::run(&of)))?;
        }
        let of = Arc::clone(&core);
        let commit = move || of.commit_until_closed();
        threads.committer = Some(Builder::new().name("log-committer".to_owned()).spawn(commit)?);
        Ok((core, threads))
    }
}
