//! Checkpoints: what all changes up to the end of some segment amount to, sorted by cluster and key.
//!
//! A new one is the old one and a [`Delta`], merged as two streams: memory does not grow with the
//! number of facts. It is complete, or it does not have its name.
//!
//! # Wire
//!
//! [`super::paged`] pages:
//!
//! ```text
//! facts    cluster number · key bytes · value bytes      ascending; see `bytes` for the notation
//! clusters cluster u32 · last seq u64                     from a page's start, ascending
//! footer   magic 8 bytes · version u32 · through u64 · facts end u64 · fact count u64 · clusters start u64 · cluster count u64
//! ```

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::super::ClusterNo;
use super::bytes::{Cursor, Malformed, put_bytes, put_number};
use super::delta::{Delta, FactKey};
use super::disk::{Disk, DiskFile};
use super::paged::{PAGE_CONTENT, PagedReader, PagedWriter, damaged};
use super::segment::Name;
use crate::model::Seq;

const MAGIC: &[u8; 8] = b"HFcheckp";
const VERSION: u32 = 1;
const CLUSTER_BYTES: usize = 12;
/// Read at once.
const CHUNK: usize = 64 * PAGE_CONTENT;

/// One fact: what is remembered under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Whose fact.
    pub cluster: ClusterNo,
    /// Which one.
    pub key: Bytes,
    /// What it is.
    pub value: Bytes,
}

/// A checkpoint that is open.
#[derive(Clone)]
pub(super) struct Checkpoint {
    pages: PagedReader,
    /// The number of the last segment whose changes are in it.
    pub(super) through: u64,
    facts_end: u64,
    count: u64,
    /// The last position of each cluster, whether or not its message is still there.
    pub(super) last_seqs: BTreeMap<ClusterNo, Seq>,
}

impl Checkpoint {
    /// Opens a checkpoint. Its facts are not read.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it is damaged or of another version.
    pub(super) fn open(file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let (pages, footer) = PagedReader::open(file)?;
        let mut cursor = Cursor(&footer);
        if cursor.array()? != *MAGIC || cursor.u32()? != VERSION {
            return Err(damaged());
        }
        let (through, facts_end, count) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
        let (position, clusters) = (cursor.u64()?, cursor.u64()?);
        let len = usize::try_from(clusters).ok().and_then(|count| count.checked_mul(CLUSTER_BYTES));
        let mut last_seqs = BTreeMap::new();
        for record in pages.read(position, len.ok_or_else(damaged)?)?.chunks_exact(CLUSTER_BYTES) {
            let mut cursor = Cursor(record);
            last_seqs.insert(ClusterNo(cursor.u32()?), Seq(cursor.u64()?));
        }
        Ok(Self { pages, through, facts_end, count, last_seqs })
    }

    /// Reads all of it once.
    ///
    /// # Errors
    ///
    /// `InvalidData` when any of it is damaged.
    pub(super) fn verify(&self) -> io::Result<()> {
        let mut facts = FactStream::new(self.clone());
        let mut count = 0;
        while facts.next()?.is_some() {
            count += 1;
        }
        if count == self.count { Ok(()) } else { Err(damaged()) }
    }
}

/// Writes the checkpoint `through`: what `older` holds, changed by `delta`.
pub(super) fn write(
    disk: &dyn Disk,
    through: u64,
    id: u64,
    older: Option<Checkpoint>,
    delta: Arc<Delta>,
    last_seqs: &BTreeMap<ClusterNo, Seq>,
) -> io::Result<()> {
    let mut out = PagedWriter::create(disk, Name::Checkpoint(through), id)?;
    let mut record = Vec::new();
    let mut count = 0_u64;
    for fact in Facts::new(older, delta) {
        let fact = fact?;
        record.clear();
        put_number(&mut record, u64::from(fact.cluster.0));
        put_bytes(&mut record, &fact.key);
        put_bytes(&mut record, &fact.value);
        out.write(&record)?;
        count += 1;
    }
    let facts_end = out.position();
    out.align()?;
    let clusters_start = out.position();
    for (cluster, seq) in last_seqs {
        out.write(&cluster.0.to_le_bytes())?;
        out.write(&seq.0.to_le_bytes())?;
    }
    let mut footer = MAGIC.to_vec();
    footer.extend_from_slice(&VERSION.to_le_bytes());
    for number in [through, facts_end, count, clusters_start, last_seqs.len() as u64] {
        footer.extend_from_slice(&number.to_le_bytes());
    }
    out.finish(&footer)
}

/// The facts of a checkpoint, front to back.
struct FactStream {
    checkpoint: Checkpoint,
    /// Of the content, where the next chunk begins.
    position: u64,
    chunk: Bytes,
}

impl FactStream {
    fn new(checkpoint: Checkpoint) -> Self {
        Self { checkpoint, position: 0, chunk: Bytes::new() }
    }

    fn next(&mut self) -> io::Result<Option<(FactKey, Bytes)>> {
        loop {
            if let Ok((fact, len)) = Self::parse(&self.chunk) {
                let _ = self.chunk.split_to(len);
                return Ok(Some(fact));
            }
            let left = self.checkpoint.facts_end.saturating_sub(self.position);
            if left == 0 {
                return if self.chunk.is_empty() { Ok(None) } else { Err(damaged()) };
            }
            let len = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let mut longer = self.chunk.to_vec();
            longer.extend_from_slice(&self.checkpoint.pages.read(self.position, len)?);
            self.chunk = longer.into();
            self.position += len as u64;
        }
    }

    /// The fact at the front of a chunk and its length. Key and value have memory of their own, so
    /// that one that is kept does not keep the chunk.
    fn parse(chunk: &Bytes) -> Result<((FactKey, Bytes), usize), Malformed> {
        let mut cursor = Cursor(chunk);
        let cluster = ClusterNo(cursor.number_u32()?);
        let key = Bytes::copy_from_slice(cursor.bytes()?);
        let value = Bytes::copy_from_slice(cursor.bytes()?);
        Ok((((cluster, key), value), chunk.len() - cursor.0.len()))
    }
}

/// All facts in order of cluster and key: a checkpoint, changed by a delta. Read as it goes, so that
/// memory does not grow with their number.
pub struct Facts {
    older: Option<FactStream>,
    /// The next fact of the checkpoint.
    waiting: Option<(FactKey, Bytes)>,
    delta: Arc<Delta>,
    /// How far the delta was merged.
    merged: Bound<FactKey>,
    failed: bool,
}

impl Facts {
    pub(super) fn new(older: Option<Checkpoint>, delta: Arc<Delta>) -> Self {
        let older = older.map(FactStream::new);
        Self { older, waiting: None, delta, merged: Bound::Unbounded, failed: false }
    }

    /// The checkpoint's next fact that the delta did not clear.
    fn next_older(&mut self) -> io::Result<Option<FactKey>> {
        while self.waiting.is_none() {
            let Some(older) = &mut self.older else { return Ok(None) };
            let Some((key, value)) = older.next()? else {
                self.older = None;
                return Ok(None);
            };
            if !self.delta.is_cleared(key.0, &key.1) {
                self.waiting = Some((key, value));
            }
        }
        Ok(self.waiting.as_ref().map(|(key, _)| key.clone()))
    }

    fn merge(&mut self) -> io::Result<Option<Fact>> {
        loop {
            let older = self.next_older()?;
            let delta = Arc::clone(&self.delta);
            let newer = delta.facts().range((self.merged.clone(), Bound::Unbounded)).next();
            let (key, value) = match newer {
                Some((newer, value)) if older.as_ref().is_none_or(|older| newer <= older) => {
                    if older.as_ref() == Some(newer) {
                        self.waiting = None;
                    }
                    self.merged = Bound::Excluded(newer.clone());
                    (newer.clone(), value.clone())
                }
                _ => match self.waiting.take() {
                    Some((key, value)) => (key, Some(value)),
                    None => return Ok(None),
                },
            };
            if let ((cluster, key), Some(value)) = (key, value) {
                return Ok(Some(Fact { cluster, key, value }));
            }
        }
    }
}

impl Iterator for Facts {
    type Item = io::Result<Fact>;

    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.merge();
        self.failed = next.is_err();
        next.transpose()
    }
}

impl std::fmt::Debug for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts").field("from_checkpoint", &self.older.is_some()).finish_non_exhaustive()
    }
}
