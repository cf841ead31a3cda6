//! Makes entries durable: encodes, writes, syncs, then tells.
//!
//! One thread. There is no waiting for more: while one sync runs the next batches gather. What it cannot
//! do it cannot undo: after a failed write or sync nobody knows what is on the disk, so nothing
//! is reported durable ever after, and the process must end.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use thiserror::Error;

use super::super::{ClusterNo, Entry};
use super::catalog::{Active, Lookup, Sealed};
use super::core::Core;
use super::delta::Delta;
use super::disk::{DiskFile, write_all};
use super::entry_codec::{encode, encoded_len};
use super::frame::{FRAME_HEAD_BYTES, FrameKind, SEAL_BYTES, put_frame};
use super::index::{Index, Place};
use super::keeper::Filled;
use super::queue::{Batch, BatchNo};
use super::segment::{FIRST_FRAME, Name};
use super::stock::Prepared;
use crate::model::Seq;

/// Written at once at most, unless one entry is larger. Bounds the buffer, and how long the first of
/// many batches waits for the last.
const WRITE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Why the journal cannot go on.
#[derive(Debug, Error)]
pub enum Fatal {
    /// Nobody knows what of this is on the disk.
    #[error("writing segment {segment} of the message log")]
    Write {
        /// The segment's number.
        segment: u64,
        /// What the system says.
        source: io::Error,
    },
    /// Above [`super::Options::entry_bytes_max`].
    #[error("an entry of {bytes} bytes does not fit into a segment of the message log")]
    EntryTooLarge {
        /// What it would take.
        bytes: u64,
    },
    /// There was no space for what waited when the journal was closed. It was not reported durable.
    #[error("there was no space left to write the last entries of the message log")]
    NoSpace,
}

/// The state of the committer's thread.
pub(super) struct Committer {
    core: Arc<Core>,
    /// Gives the next segment; waits for it.
    next_segment: Box<dyn FnMut() -> Option<Prepared> + Send>,
    writer: Option<Writer>,
    /// Encoded frames that are not written yet.
    buffer: Vec<u8>,
    /// What lies in `buffer`.
    pending: Vec<(Entry, Place)>,
    /// Changes in the active segment.
    delta: Delta,
    /// The last positions in the active segment.
    last_seqs: BTreeMap<ClusterNo, Seq>,
}

/// The end of the active segment.
struct Writer {
    number: u64,
    incarnation: u64,
    file: Arc<dyn DiskFile>,
    /// The length of the file.
    bytes: u32,
    /// Where the next frame will lie, behind those in the buffer.
    end: u32,
    /// Where the durable frames end, and the buffer begins.
    synced: u32,
}

impl Committer {
    pub(super) fn new(core: Arc<Core>, next_segment: Box<dyn FnMut() -> Option<Prepared> + Send>) -> Self {
        Self {
            core,
            next_segment,
            writer: None,
            buffer: Vec::new(),
            pending: Vec::new(),
            delta: Delta::default(),
            last_seqs: BTreeMap::new(),
        }
    }

    /// Runs until the queue is closed and empty, or the journal cannot go on.
    pub(super) fn run(mut self) -> Result<(), Fatal> {
        while let Some(batches) = self.core.queue.take() {
            self.commit(batches)?;
        }
        Ok(())
    }

    /// Makes batches durable and tells of each.
    pub(super) fn commit(&mut self, batches: Vec<Batch>) -> Result<(), Fatal> {
        let mut complete = None;
        let mut complete_bytes = 0;
        for batch in batches {
            for entry in batch.entries {
                self.add(entry)?;
            }
            complete = Some(batch.no);
            complete_bytes += batch.bytes;
            if self.buffer.len() >= WRITE_BYTES_MAX {
                self.flush()?;
                self.tell(complete.take(), std::mem::take(&mut complete_bytes));
            }
        }
        self.flush()?;
        self.tell(complete, complete_bytes);
        Ok(())
    }

    fn tell(&self, complete: Option<BatchNo>, bytes: u64) {
        self.core.gauges.queued.fetch_sub(bytes, Ordering::AcqRel);
        if let Some(no) = complete {
            self.core.gauges.durable.store(no.0, Ordering::Release);
            (self.core.events.durable)(no);
        }
    }

    /// Puts an entry into the buffer, and before it, when the segment is full, a new segment in place.
    fn add(&mut self, entry: Entry) -> Result<(), Fatal> {
        let len = FRAME_HEAD_BYTES as usize + encoded_len(&entry);
        if len as u64 > self.core.options.entry_bytes_max() {
            return Err(Fatal::EntryTooLarge { bytes: len as u64 });
        }
        let fits = |writer: &Writer| writer.end as usize + len + SEAL_BYTES as usize <= writer.bytes as usize;
        if !self.writer.as_ref().is_some_and(fits) {
            self.rotate()?;
        } else if self.buffer.len() + len > 2 * WRITE_BYTES_MAX {
            self.flush()?;
        }
        let Some(writer) = &mut self.writer else { return Err(Fatal::NoSpace) };
        let (kind, at) = (FrameKind::Entry, writer.end);
        put_frame(&mut self.buffer, writer.incarnation, at, writer.synced, kind, |out| encode(&entry, out));
        // It fits into a segment.
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        writer.end += len;
        let seq = entry.message.as_ref().map_or(Seq::ZERO, |posted| posted.seq);
        self.pending.push((entry, Place { seq, offset: at, len }));
        Ok(())
    }

    /// Writes and syncs the buffer; then, and not before, readers see what is in it.
    fn flush(&mut self) -> Result<(), Fatal> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = write_all(&*writer.file, &self.buffer, u64::from(writer.synced));
        let synced = written.and_then(|()| writer.file.sync_data());
        synced.map_err(|source| Fatal::Write { segment: writer.number, source })?;
        self.core.gauges.free.fetch_sub(i64::from(writer.end - writer.synced), Ordering::AcqRel);
        self.core.gauges.commits.fetch_add(1, Ordering::AcqRel);
        writer.synced = writer.end;
        self.buffer.clear();
        self.buffer.shrink_to(WRITE_BYTES_MAX);
        self.publish();
        Ok(())
    }

    fn publish(&mut self) {
        for (entry, _) in &self.pending {
            for change in &entry.changes {
                self.delta.apply(entry.cluster, change);
            }
            if let Some(posted) = &entry.message {
                self.last_seqs.insert(entry.cluster, posted.seq);
            }
        }
        let mut catalog = self.core.catalog.write();
        let catalog = &mut *catalog;
        let Some(active) = &mut catalog.active else { return };
        for (entry, place) in self.pending.drain(..) {
            if let Some(posted) = &entry.message {
                catalog.last_seqs.insert(entry.cluster, posted.seq);
                let at = posted.message.published_at;
                active.index.add(entry.cluster, place, at, &posted.filters);
            }
        }
    }

    /// Seals the active segment and begins the next.
    ///
    /// The seal is durable before the next segment has a frame: that a segment has frames shows that
    /// all before it are complete.
    fn rotate(&mut self) -> Result<(), Fatal> {
        if let Some(writer) = &mut self.writer {
            let at = writer.end;
            put_frame(&mut self.buffer, writer.incarnation, at, writer.synced, FrameKind::Seal, |_| {});
            writer.end += SEAL_BYTES;
            // The seal never counted as space for frames, but is written like them.
            let left = i64::from(writer.bytes) - i64::from(writer.end) - i64::from(SEAL_BYTES);
            self.flush()?;
            self.core.gauges.free.fetch_sub(left, Ordering::AcqRel);
            self.seal();
        }
        let Some(prepared) = (self.next_segment)() else { return Err(Fatal::NoSpace) };
        let (header, file) = (prepared.header, prepared.file);
        self.core.catalog.write().active = Some(Active {
            number: header.number,
            incarnation: header.incarnation,
            file: Arc::clone(&file),
            index: Index::default(),
        });
        self.writer = Some(Writer {
            number: header.number,
            incarnation: header.incarnation,
            file,
            bytes: header.bytes,
            end: FIRST_FRAME,
            synced: FIRST_FRAME,
        });
        Ok(())
    }

    /// Hands the active segment over to the keeper. It stays readable throughout.
    fn seal(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        let mut catalog = self.core.catalog.write();
        let Some(active) = catalog.active.take() else { return };
        let sealed = Sealed {
            number: writer.number,
            incarnation: writer.incarnation,
            bytes: u64::from(writer.bytes),
            file: self.core.files.file(Name::Segment(writer.number).to_string()),
            lookup: Lookup::Memory(Arc::new(active.index)),
        };
        catalog.sealed.insert(sealed.number, Arc::new(sealed));
        drop(catalog);
        self.core.chores.filled(Filled {
            number: writer.number,
            delta: Arc::new(std::mem::take(&mut self.delta)),
            last_seqs: std::mem::take(&mut self.last_seqs),
        });
    }
}
