//! The worker's end of the message log on disk.
//!
//! What clusters wrote down in a turn is gathered and submitted together; when it is durable, and when
//! something was read, the worker is woken. Nothing in here waits for the disk.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::retention::FiltersRead;
use crate::data_plane::cluster::{ColdRead, Memory, Reader};
use crate::data_plane::message_log::journal::{BatchNo, Facts, Journal, ReadBatch, ReadRequest, Recovered};
use crate::data_plane::message_log::{Change, ClusterNo, Entry};
use crate::data_plane::session::outgoing::Turn;
use crate::model::{ClusterId, Latencies, Seq};
use crate::seam::command::Reply;
use crate::seam::figures::{ClusterLog, LogFigures};

/// Under this number the journal remembers which cluster has which: not a cluster itself.
const DIRECTORY: ClusterNo = ClusterNo(0);

/// How many bytes are read from disk at a time for one reader.
const READ_BYTES_MAX: usize = 256 * 1_024;

/// What the journal's threads tell the worker.
#[derive(Debug, Default)]
pub struct LogEvents {
    happened: Notify,
    reads: Mutex<Vec<ReadDone>>,
    /// At most one is asked for at a time.
    filters: Mutex<Option<FiltersRead>>,
}

/// Something was read.
#[derive(Debug)]
pub struct ReadDone {
    /// For which cluster.
    pub cluster: ClusterNo,
    /// For whom.
    pub reader: Reader,
    /// What.
    pub result: io::Result<ReadBatch>,
}

impl LogEvents {
    /// Something is durable.
    pub fn durable(&self) {
        self.happened.notify_one();
    }

    /// Waits until something is durable or was read.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn happened(&self) {
        self.happened.notified().await;
    }

    pub(super) fn filters_read(&self, read: FiltersRead) {
        *self.filters.lock() = Some(read);
        self.happened.notify_one();
    }

    fn read(&self, done: ReadDone) {
        self.reads.lock().push(done);
        self.happened.notify_one();
    }
}

/// What an earlier process has left on disk.
#[derive(Debug, Default)]
pub struct Inherited {
    numbers: HashMap<ClusterId, ClusterNo>,
    /// The greatest number ever given.
    last: u32,
    memories: HashMap<ClusterNo, Memory>,
    tails: HashMap<ClusterNo, Seq>,
}

impl Inherited {
    /// Reads what there is.
    ///
    /// # Errors
    /// When the checkpoint cannot be read to its end.
    pub fn read(Recovered { facts, last_seqs, .. }: Recovered) -> io::Result<Self> {
        let mut inherited = Self::default();
        for (no, tail) in last_seqs {
            inherited.last = inherited.last.max(no.0);
            inherited.tails.insert(no, tail);
        }
        inherited.take(facts)?;
        Ok(inherited)
    }

    fn take(&mut self, facts: Facts) -> io::Result<()> {
        for fact in facts {
            let fact = fact?;
            self.last = self.last.max(fact.cluster.0);
            let understood = if fact.cluster == DIRECTORY {
                self.take_number(&fact.key, &fact.value).is_some()
            } else {
                self.memories.entry(fact.cluster).or_default().take(&fact.key, fact.value)
            };
            if !understood {
                tracing::error!(cluster = fact.cluster.0, key = ?fact.key, "a fact in the message log is not understood");
            }
        }
        Ok(())
    }

    fn take_number(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let id = ClusterId::new(std::str::from_utf8(key).ok()?).ok()?;
        let no = u32::from_le_bytes(value.try_into().ok()?);
        self.last = self.last.max(no);
        self.numbers.insert(id, ClusterNo(no));
        Some(())
    }

    /// What is remembered of a cluster.
    pub fn memory(&mut self, cluster: ClusterNo) -> &mut Memory {
        self.memories.entry(cluster).or_default()
    }

    /// The same, for good.
    pub fn take_memory(&mut self, cluster: ClusterNo) -> Memory {
        self.memories.remove(&cluster).unwrap_or_default()
    }

    /// Where a cluster's log ends.
    pub fn tail(&self, cluster: ClusterNo) -> Seq {
        self.tails.get(&cluster).copied().unwrap_or(Seq::ZERO)
    }
}

/// Turns of clusters that went to the disk together.
type Turns = Vec<(ClusterNo, Turn)>;

/// The worker's end.
#[derive(Debug)]
pub struct LogWriter {
    journal: Arc<Journal>,
    events: Arc<LogEvents>,
    numbers: HashMap<ClusterId, ClusterNo>,
    last_number: u32,
    /// Of this turn of the worker.
    entries: Vec<Entry>,
    turns: Turns,
    /// What was submitted and is not durable, with the time at which it was, in microseconds.
    submitted: VecDeque<(BatchNo, u64, Turns)>,
    latencies: Latencies,
    /// Groups that were moved, each with the batch that must be durable before that is told; `None` for the one that
    /// is being gathered.
    moved: Vec<(Option<BatchNo>, Reply<Seq>, Seq)>,
    /// What is to be read when the readers have caught up. At most one for each session, group and question.
    postponed: VecDeque<(ClusterNo, ColdRead)>,
}

impl LogWriter {
    /// Writes to `journal`, which tells `events`.
    pub fn new(journal: Arc<Journal>, events: Arc<LogEvents>, inherited: &Inherited) -> Self {
        Self {
            journal,
            events,
            numbers: inherited.numbers.clone(),
            last_number: inherited.last,
            entries: Vec::new(),
            turns: Vec::new(),
            submitted: VecDeque::new(),
            moved: Vec::new(),
            latencies: Latencies::default(),
            postponed: VecDeque::new(),
        }
    }

    /// The number of a cluster, a new one if it has none.
    pub fn number(&mut self, cluster: &ClusterId) -> ClusterNo {
        if let Some(no) = self.numbers.get(cluster) {
            return *no;
        }
        self.last_number += 1;
        let no = ClusterNo(self.last_number);
        self.numbers.insert(cluster.clone(), no);
        let key = Bytes::copy_from_slice(cluster.as_str().as_bytes());
        let value = Bytes::copy_from_slice(&no.0.to_le_bytes());
        self.change(DIRECTORY, Change::Put { key, value });
        no
    }

    /// Clusters that have a number.
    pub fn numbered(&self) -> impl Iterator<Item = &ClusterId> {
        self.numbers.keys()
    }

    /// A cluster is no more; its number is not given again.
    pub fn forget(&mut self, cluster: &ClusterId) {
        if let Some(no) = self.numbers.remove(cluster) {
            self.change(no, Change::DeleteAll { prefix: Bytes::new() });
            let key = Bytes::copy_from_slice(cluster.as_str().as_bytes());
            self.change(DIRECTORY, Change::Delete { key });
        }
    }

    fn change(&mut self, cluster: ClusterNo, change: Change) {
        self.entries.push(Entry { cluster, message: None, changes: vec![change] });
    }

    /// Gathers what a cluster wrote down in its turn.
    pub fn gather(&mut self, cluster: ClusterNo, turn: Turn, entries: Vec<Entry>) {
        if !entries.is_empty() {
            self.entries.extend(entries);
            self.turns.push((cluster, turn));
        }
    }

    /// Hands over what was gathered, at this time in microseconds.
    pub fn submit(&mut self, now_micros: u64) {
        if !self.entries.is_empty() {
            let batch = self.journal.submit(std::mem::take(&mut self.entries));
            self.submitted.push_back((batch, now_micros, std::mem::take(&mut self.turns)));
            for (awaited, ..) in &mut self.moved {
                awaited.get_or_insert(batch);
            }
        }
    }

    /// Turns that have become durable by now.
    pub fn take_durable(&mut self, now_micros: u64) -> Turns {
        let durable = self.journal.durable();
        let mut turns = Turns::new();
        while let Some((_, since, batch)) = self.submitted.pop_front_if(|(batch, ..)| *batch <= durable) {
            self.latencies.observe(now_micros.saturating_sub(since));
            turns.extend(batch);
        }
        for (_, reply, to) in
            self.moved.extract_if(.., |(awaited, ..)| awaited.is_some_and(|it| it <= durable))
        {
            // The caller may have given up; then nobody wants the answer.
            drop(reply.send(Ok(to)));
        }
        turns
    }

    /// Tells that a group was moved to `to`, once what this turn writes down is durable.
    pub fn tell_moved(&mut self, reply: Reply<Seq>, to: Seq) {
        self.moved.push((None, reply, to));
    }

    /// Asks for something from disk. The answer comes with [`LogWriter::take_reads`].
    pub fn read(&mut self, cluster: ClusterNo, read: ColdRead) {
        let reader = read.reader;
        let request = ReadRequest {
            cluster,
            after: read.after.clone(),
            through: Some(read.through),
            messages_max: read.messages_max,
            bytes_max: READ_BYTES_MAX,
        };
        let events = Arc::clone(&self.events);
        let reply = move |result| events.read(ReadDone { cluster, reader, result });
        if self.journal.read(request, reply).is_err() {
            self.postponed.push_back((cluster, read));
        }
    }

    /// What was read since the last call.
    pub fn take_reads(&mut self) -> Vec<ReadDone> {
        let done = std::mem::take(&mut *self.events.reads.lock());
        let again = done.len().min(self.postponed.len());
        for (cluster, read) in self.postponed.drain(..again).collect::<Vec<_>>() {
            self.read(cluster, read);
        }
        done
    }

    /// Whether publishers are faster than the disk: then nothing more should be taken from them.
    pub fn is_behind(&self) -> bool {
        let room = self.journal.room();
        room.bytes == 0 && !room.is_full
    }

    /// Whether messages must be refused for want of space.
    pub fn is_full(&self) -> bool {
        self.journal.room().is_full
    }

    /// Whether a table of filters was read.
    pub fn has_filters(&self) -> bool {
        self.events.filters.lock().is_some()
    }

    /// The table of filters that was read since the last call.
    pub fn take_filters(&self) -> Option<FiltersRead> {
        self.events.filters.lock().take()
    }

    /// How the log stands. `clusters`: each with its number and how many messages were lost.
    pub fn figures<'a>(&self, clusters: impl Iterator<Item = (&'a ClusterId, ClusterNo, u64)>) -> LogFigures {
        let figures = self.journal.figures();
        let of = |(cluster, no, trimmed): (&ClusterId, ClusterNo, u64)| ClusterLog {
            cluster: cluster.clone(),
            bytes: figures.cluster_bytes.get(&no).copied().unwrap_or_default(),
            oldest_at: figures.oldest.get(&no).map(|(_, at)| *at),
            trimmed,
        };
        LogFigures {
            segments: figures.segments,
            bytes: figures.bytes,
            queued_bytes: figures.queued_bytes,
            damaged_reads: figures.damaged_reads,
            commits: figures.commits,
            batches: self.journal.durable().0,
            commit: self.latencies.read(),
            clusters: clusters.map(of).collect(),
        }
    }

    /// What a cluster's messages take in segments, in bytes.
    pub fn bytes_of(&self, cluster: ClusterNo) -> u64 {
        self.journal.figures().cluster_bytes.get(&cluster).copied().unwrap_or_default()
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Where the journal's threads tell what happened.
    pub fn events(&self) -> Arc<LogEvents> {
        Arc::clone(&self.events)
    }
}
