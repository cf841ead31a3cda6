//! Reads messages back: merged over filters, in order of position, from all segments.
//!
//! Only what is durable is found. Frames that cannot be read are counted and reported, and what
//! lies behind them is read all the same.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Condvar, Mutex};
use thiserror::Error;

use super::super::{ClusterNo, CountRequest, Counted, FilterKey, LogEntry};
use super::catalog::{Active, Catalog, Lookup, Sealed};
use super::core::Core;
use super::counter::count;
use super::disk::{DiskFile, read_exact, read_up_to};
use super::entry_codec::EntryView;
use super::frame::{frame_at, scan};
use super::index::{Index, Place};
use super::segment::FIRST_FRAME;
use super::sidecar::FilterSpan;
use crate::model::Seq;

/// Requests that may wait; further ones are refused.
const WAITING_MAX: usize = 4_096;
/// Frames that lie no farther apart are read in one go.
const GAP_BYTES_MAX: u32 = 8 * 1024;
/// Read in one go at most, unless one frame is larger.
const RUN_BYTES_MAX: u32 = 1024 * 1024;

/// What to read.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// Whose messages.
    pub cluster: ClusterNo,
    /// Under which filters, and for each the position behind which it is read.
    pub after: Vec<(FilterKey, Seq)>,
    /// The last position to read; `None` for as far as there are any.
    pub through: Option<Seq>,
    /// At most so many messages.
    pub messages_max: usize,
    /// At most so many bytes of frames; the first message is read in any case.
    pub bytes_max: usize,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct ReadBatch {
    /// Ascending, each once.
    pub messages: Vec<LogEntry>,
    /// Up to here all that was asked for is in `messages`, was damaged or is not kept any longer.
    pub through: Seq,
    /// Messages that were found in the index and could not be read.
    pub damaged: u64,
}

/// There are too many requests already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many reads of the message log are waiting")]
pub struct TooManyReads;

type Reply<T> = Box<dyn FnOnce(io::Result<T>) + Send>;

/// A request with its answer's way back.
pub(super) enum Job {
    Read(ReadRequest, Reply<ReadBatch>),
    Count(CountRequest, Reply<Counted>),
    Filters {
        segment: u64,
        cluster: ClusterNo,
        after: Option<FilterKey>,
        limit: usize,
        reply: Reply<Vec<FilterSpan>>,
    },
}

/// Requests that wait.
#[derive(Default)]
pub(super) struct ReadQueue {
    state: Mutex<(VecDeque<Job>, bool)>,
    ready: Condvar,
}

impl ReadQueue {
    pub(super) fn push(&self, job: Job) -> Result<(), TooManyReads> {
        let mut state = self.state.lock();
        if state.0.len() >= WAITING_MAX || state.1 {
            return Err(TooManyReads);
        }
        state.0.push_back(job);
        self.ready.notify_one();
        Ok(())
    }

    fn take(&self) -> Option<Job> {
        let mut state = self.state.lock();
        while state.0.is_empty() && !state.1 {
            self.ready.wait(&mut state);
        }
        state.0.pop_front()
    }

    /// What waits is still answered.
    pub(super) fn close(&self) {
        self.state.lock().1 = true;
        self.ready.notify_all();
    }
}

/// Runs until the requests are closed and answered.
pub(super) fn run(core: &Core) {
    while let Some(job) = core.reads.take() {
        match job {
            Job::Read(request, reply) => reply(read(core, &request)),
            Job::Count(request, reply) => reply(count(core, &request)),
            Job::Filters { segment, cluster, after, limit, reply } => {
                reply(filters_of(core, segment, cluster, after, limit));
            }
        }
    }
}

/// Where the search goes on.
enum Next {
    Sealed(Arc<Sealed>),
    /// What was found in the active segment, and how far the cluster's messages go.
    Active {
        number: u64,
        incarnation: u64,
        file: Arc<dyn DiskFile>,
        places: Vec<Place>,
        last: Seq,
    },
    End {
        last: Seq,
    },
}

/// Answers a request.
pub(super) fn read(core: &Core, request: &ReadRequest) -> io::Result<ReadBatch> {
    let mut batch = ReadBatch::default();
    let mut budget =
        Budget { messages: request.messages_max, bytes: request.bytes_max, begun: false, spent: false };
    let floor = request.after.iter().map(|(_, after)| *after).min().unwrap_or_default();
    let mut done = 0;
    let end = loop {
        let next = next_segment(&core.catalog.read(), done, floor, request);
        match next {
            Next::End { last } => break last,
            Next::Sealed(sealed) => {
                done = sealed.number;
                let places = find(core, &sealed, request.cluster, &request.after, budget.messages)?;
                let places = budget.choose(places, request.through);
                let (file, incarnation) = (&*sealed.file, sealed.incarnation);
                Source { core, file, number: done, incarnation, cluster: request.cluster }
                    .fetch(&places, &mut batch);
                batch.through = places.last().map_or(batch.through, |last| last.seq);
            }
            Next::Active { number, incarnation, file, places, last } => {
                done = number;
                let places = budget.choose(places, request.through);
                Source { core, file: &*file, number, incarnation, cluster: request.cluster }
                    .fetch(&places, &mut batch);
                batch.through = places.last().map_or(batch.through, |last| last.seq);
                if !budget.spent {
                    break last;
                }
            }
        }
        if budget.spent {
            return Ok(batch);
        }
    };
    batch.through = request.through.map_or(end, |through| through.min(end));
    Ok(batch)
}

fn next_segment(catalog: &Catalog, done: u64, floor: Seq, request: &ReadRequest) -> Next {
    let last = catalog.last_seqs.get(&request.cluster).copied().unwrap_or_default();
    let wanted = |sealed: &&Arc<Sealed>| {
        let before = |first: Seq| request.through.is_none_or(|through| first <= through);
        sealed.span(request.cluster).is_some_and(|span| span.last > floor && before(span.first))
    };
    if let Some(sealed) = catalog.sealed.range(done + 1..).map(|(_, sealed)| sealed).find(wanted) {
        return Next::Sealed(Arc::clone(sealed));
    }
    match &catalog.active {
        Some(active) if active.number > done => active_places(active, last, request),
        _ => Next::End { last },
    }
}

fn active_places(active: &Active, last: Seq, request: &ReadRequest) -> Next {
    let mut places = Vec::new();
    for (filter, after) in &request.after {
        active.index.find(request.cluster, *filter, *after, request.messages_max, &mut places);
    }
    let (number, incarnation) = (active.number, active.incarnation);
    Next::Active { number, incarnation, file: Arc::clone(&active.file), places, last }
}

/// How much may still be read.
struct Budget {
    messages: usize,
    bytes: usize,
    /// The first message is read whatever its length.
    begun: bool,
    spent: bool,
}

impl Budget {
    /// The first of `places` in order, each once, as far as the budget reaches.
    fn choose(&mut self, mut places: Vec<Place>, through: Option<Seq>) -> Vec<Place> {
        places.sort_unstable();
        places.dedup();
        if let Some(through) = through {
            places.truncate(places.partition_point(|place| place.seq <= through));
        }
        let mut chosen = 0;
        for place in &places {
            let len = place.len as usize;
            if self.messages == 0 || (len > self.bytes && self.begun) {
                break;
            }
            self.begun = true;
            self.messages -= 1;
            self.bytes = self.bytes.saturating_sub(len);
            chosen += 1;
        }
        self.spent = chosen < places.len() || self.messages == 0;
        places.truncate(chosen);
        places
    }
}

/// The places in a sealed segment. A damaged sidecar is made again from the segment.
pub(super) fn find(
    core: &Core,
    sealed: &Arc<Sealed>,
    cluster: ClusterNo,
    after: &[(FilterKey, Seq)],
    limit: usize,
) -> io::Result<Vec<Place>> {
    let mut places = Vec::new();
    let Err(error) = sealed.find(cluster, after, limit, &mut places) else {
        return Ok(places);
    };
    let rebuilt = rebuild(core, sealed, &error)?;
    places.clear();
    rebuilt.find(cluster, after, limit, &mut places)?;
    Ok(places)
}

fn rebuild(core: &Core, sealed: &Arc<Sealed>, why: &io::Error) -> io::Result<Sealed> {
    let segment = sealed.number;
    tracing::error!(error = %why, segment, "the index of a segment of the message log is damaged: made again");
    let index = Arc::new(index_of(&*sealed.file, sealed.incarnation)?.0);
    let with = |index: &Arc<Index>| Sealed {
        number: sealed.number,
        incarnation: sealed.incarnation,
        bytes: sealed.bytes,
        file: Arc::clone(&sealed.file),
        lookup: Lookup::Memory(Arc::clone(index)),
    };
    if let Some(known) = core.catalog.write().sealed.get_mut(&segment) {
        *known = Arc::new(with(&index));
    }
    core.chores.nudge();
    Ok(with(&index))
}

/// Indexes a sealed segment by reading it; also gives how many of its bytes are damaged.
pub(super) fn index_of(file: &dyn DiskFile, incarnation: u64) -> io::Result<(Index, u64)> {
    let mut segment = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
    let read = read_up_to(file, &mut segment, 0)?;
    segment.truncate(read);
    let found = scan(&segment, incarnation, FIRST_FRAME, true);
    let mut index = Index::default();
    for frame in &found.entries {
        let body = &segment[frame.body.start as usize..frame.body.end as usize];
        let view = EntryView::parse(body)?;
        if let Some(message) = &view.message {
            index.add_frame(view.cluster, message, frame);
        }
    }
    Ok((index, found.damage.iter().map(|range| u64::from(range.end - range.start)).sum()))
}

/// The segment that messages are fetched from.
struct Source<'a> {
    core: &'a Core,
    file: &'a dyn DiskFile,
    number: u64,
    incarnation: u64,
    cluster: ClusterNo,
}

impl Source<'_> {
    /// Reads the messages at `places`, ascending, neighbours together.
    fn fetch(&self, places: &[Place], batch: &mut ReadBatch) {
        let near = |a: &Place, b: &Place| b.offset.saturating_sub(a.offset + a.len) <= GAP_BYTES_MAX;
        let mut buffer = Vec::new();
        for run in places.chunk_by(near) {
            let mut rest = run;
            while let Some(first) = rest.first() {
                let within = |place: &Place| place.offset + place.len - first.offset <= RUN_BYTES_MAX;
                let (now, later) = rest.split_at(rest.partition_point(within).max(1));
                rest = later;
                self.fetch_run(first.offset, now, &mut buffer, batch);
            }
        }
    }

    /// Reads the messages at `places`, the first of which lies at `start`, in one go.
    fn fetch_run(&self, start: u32, places: &[Place], buffer: &mut Vec<u8>, batch: &mut ReadBatch) {
        let end = places.last().map_or(start, |last| last.offset + last.len);
        buffer.clear();
        buffer.resize((end - start) as usize, 0);
        let whole = read_exact(self.file, buffer, u64::from(start)).is_ok();
        for place in places {
            let at = (place.offset - start) as usize;
            let bytes = &mut buffer[at..at + place.len as usize];
            // One sector that cannot be read hides its neighbours only from a read in one go.
            let readable = whole || read_exact(self.file, bytes, u64::from(place.offset)).is_ok();
            match message_at(bytes, self.incarnation, self.cluster, place).filter(|_| readable) {
                Some(message) => batch.messages.push(message),
                None => self.report(place, batch),
            }
        }
    }

    fn report(&self, place: &Place, batch: &mut ReadBatch) {
        batch.damaged += 1;
        self.core.gauges.damaged.fetch_add(1, Ordering::AcqRel);
        let (segment, offset, seq) = (self.number, place.offset, place.seq.0);
        tracing::error!(segment, offset, seq, "a message in the message log is damaged");
    }
}

pub(super) fn message_at(
    bytes: &[u8],
    incarnation: u64,
    cluster: ClusterNo,
    place: &Place,
) -> Option<LogEntry> {
    let frame = frame_at(bytes, incarnation, place.offset)?;
    let start = (frame.body.start - place.offset) as usize;
    let view = EntryView::parse(bytes.get(start..(frame.body.end - place.offset) as usize)?).ok()?;
    let message = view.message.filter(|message| message.seq == place.seq && view.cluster == cluster)?;
    let filter = message.filters().first().copied().unwrap_or_default();
    let lies_at = crate::model::Place { seq: place.seq, filter, durable: true };
    Some(LogEntry { place: lies_at, message: Arc::new(message.message().ok()?) })
}

/// Filters of a cluster in a segment; none when there is no such segment.
pub(super) fn filters_of(
    core: &Core,
    segment: u64,
    cluster: ClusterNo,
    after: Option<FilterKey>,
    limit: usize,
) -> io::Result<Vec<FilterSpan>> {
    let sealed = core.catalog.read().sealed.get(&segment).cloned();
    let Some(sealed) = sealed else { return Ok(Vec::new()) };
    match sealed.filters(cluster, after, limit) {
        Err(error) => rebuild(core, &sealed, &error)?.filters(cluster, after, limit),
        found => found,
    }
}
