//! The newest messages of a cluster, in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Counted, LogEntry};
use crate::model::{FilterId, FilterKey, Message, Place, Seq};

/// The end of one cluster's log. One writer; positions are dense and grow.
///
/// Bounded: past `bytes_max` the oldest messages are let go, consumed or not; whoever still needs one
/// reads it from the disk. Only what is durable is let go.
#[derive(Debug)]
pub struct RecentLog {
    /// Messages from `first` on; `None` where nobody needs one any longer.
    entries: VecDeque<Option<Kept>>,
    /// The position of `entries[0]`.
    first: Seq,
    postings: HashMap<FilterId, Posting, foldhash::fast::RandomState>,
    /// What was appended up to here, in the process before, may lie on disk under any filter.
    inherited: Seq,
    /// Everything up to here is on disk.
    durable: Seq,
    bytes: u64,
    bytes_max: u64,
}

/// The messages of one filter.
#[derive(Debug, Default)]
struct Posting {
    /// Their positions, ascending, of those in memory.
    seqs: VecDeque<Seq>,
    /// The last that was let go and is on disk.
    on_disk: Seq,
}

#[derive(Debug)]
struct Kept {
    message: Arc<Message>,
    key: FilterKey,
    /// Under which filters it is still posted.
    filters: SmallVec<[FilterId; 2]>,
}

/// What a look at the log found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// What there is, as far as was asked for.
    InMemory,
    /// Nothing yet: earlier messages, up to this position, lie on disk and come first.
    OnDisk(Seq),
}

/// What a message takes in a segment besides its own bytes, about.
const FRAME_OVERHEAD_BYTES: u64 = 64;

/// What a message costs besides its own bytes: the entry, a posting, the shared header.
const ENTRY_OVERHEAD_BYTES: u64 = 200;

impl RecentLog {
    /// A log whose messages up to `tail` are on disk, of which at most `bytes_max` bytes are in memory.
    pub fn new(tail: Seq, bytes_max: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            first: tail.next(),
            postings: HashMap::default(),
            inherited: tail,
            durable: tail,
            bytes: 0,
            bytes_max,
        }
    }

    /// The position of the last message; where a new subscription starts.
    pub fn tail(&self) -> Seq {
        Seq(self.first.0 + self.entries.len() as u64 - 1)
    }

    /// Keeps `message` under each of `filters` (distinct, not empty) and gives its position. `key` names
    /// one of them.
    pub fn append(&mut self, message: Arc<Message>, filters: &[FilterId], key: FilterKey) -> Seq {
        let seq = self.tail().next();
        for filter in filters {
            self.postings.entry(*filter).or_default().seqs.push_back(seq);
        }
        self.bytes += cost(&message);
        self.entries.push_back(Some(Kept { message, key, filters: filters.into() }));
        self.make_room();
        seq
    }

    /// Appends to `out` the earliest messages, at most `limit`, that are posted under any of `after`'s
    /// filters behind the position beside it. Each message once, in order of position.
    pub fn read(&self, after: &[(FilterId, Seq)], limit: usize, out: &mut Vec<LogEntry>) -> Found {
        if let Found::OnDisk(through) = self.where_is(after) {
            return Found::OnDisk(through);
        }
        let mut positions: Vec<Seq> = Vec::new();
        for (filter, after) in after {
            let Some(Posting { seqs, .. }) = self.postings.get(filter) else { continue };
            let start = seqs.partition_point(|seq| seq <= after);
            positions.extend(seqs.range(start..).take(limit));
        }
        positions.sort_unstable();
        positions.dedup();
        for seq in positions.into_iter().take(limit) {
            if let Some(Kept { message, key, .. }) = self.kept(seq) {
                let place = Place { seq, filter: *key, durable: seq <= self.durable };
                out.push(LogEntry { place, message: Arc::clone(message) });
            }
        }
        Found::InMemory
    }

    /// Counts, as far as they are in memory, the messages that are posted under each of `lists`' filters
    /// behind the position beside it, up to `messages_max`; the first `merged` lists are one reader's. Also
    /// tells whether earlier ones lie on disk.
    pub fn count(&self, lists: &[(FilterId, Seq)], merged: usize, messages_max: u64) -> (Counted, Found) {
        let limit = usize::try_from(messages_max).unwrap_or(usize::MAX);
        let mut found: Vec<(Seq, usize)> = Vec::new();
        for (list, (filter, after)) in lists.iter().enumerate() {
            let Some(Posting { seqs, .. }) = self.postings.get(filter) else { continue };
            let start = seqs.partition_point(|seq| seq <= after);
            found.extend(seqs.range(start..).take(limit.saturating_add(1)).map(|seq| (*seq, list)));
        }
        found.sort_unstable();
        let mut counted = Counted::none(lists.len());
        for (at, message) in found.chunk_by(|(a, _), (b, _)| a == b).enumerate() {
            if at == limit {
                counted.stopped = true;
                break;
            }
            for (_, list) in message {
                counted.each[*list] += 1;
            }
            let (seq, first) = message[0];
            if let Some(Kept { message, .. }) = self.kept(seq).filter(|_| first < merged) {
                counted.messages += 1;
                counted.bytes += message.size_bytes() as u64 + FRAME_OVERHEAD_BYTES;
                counted.oldest.get_or_insert((seq, Some(message.published_at)));
            }
        }
        (counted, self.where_is(lists))
    }

    /// Where the messages begin that are posted under any of `after`'s filters behind the position
    /// beside it.
    fn where_is(&self, after: &[(FilterId, Seq)]) -> Found {
        let older = |(filter, after): &(FilterId, Seq)| {
            let on_disk = self.postings.get(filter).map_or(Seq::ZERO, |posting| posting.on_disk);
            *after < on_disk.max(self.inherited)
        };
        if after.iter().any(older) { Found::OnDisk(Seq(self.first.0 - 1)) } else { Found::InMemory }
    }

    /// The message at a position, if it is in memory.
    pub fn get(&self, seq: Seq) -> Option<&Arc<Message>> {
        self.kept(seq).map(|kept| &kept.message)
    }

    /// Every session that reads `filter` has consumed it up to and including `through`. Only what is on disk goes:
    /// whoever is to read it once more finds it there.
    pub fn trim(&mut self, filter: FilterId, through: Seq) {
        let through = through.min(self.durable);
        let Some(posting) = self.postings.get_mut(&filter) else { return };
        let count = posting.seqs.partition_point(|seq| *seq <= through);
        let consumed: Vec<Seq> = posting.seqs.drain(..count).collect();
        if posting.seqs.is_empty() && posting.on_disk <= through {
            self.postings.remove(&filter);
        }
        for seq in consumed {
            self.unpost(seq, filter);
        }
    }

    /// Nobody reads `filter` any longer.
    pub fn forget(&mut self, filter: FilterId) {
        for seq in self.postings.remove(&filter).unwrap_or_default().seqs {
            self.unpost(seq, filter);
        }
    }

    /// Filters that have messages in memory, each with the position of its earliest.
    pub fn posted(&self) -> Vec<(FilterId, Seq)> {
        let earliest = |(filter, posting): (&FilterId, &Posting)| Some((*filter, *posting.seqs.front()?));
        self.postings.iter().filter_map(earliest).collect()
    }

    /// Everything up to here is on disk.
    pub fn durable_through(&mut self, seq: Seq) {
        self.durable = seq;
        self.make_room();
    }

    /// Lets go of everything up to here that is on disk, or was: who still needs it finds out there.
    pub fn let_go_through(&mut self, seq: Seq) {
        let last = seq.min(self.durable);
        while self.first <= last && self.let_go_of_oldest() {}
        self.drop_gaps();
    }

    /// Everything up to here is on disk.
    pub fn durable(&self) -> Seq {
        self.durable
    }

    /// From here on a reader of `filter` may begin anywhere: what it has consumed is found on disk again. Lets go
    /// of what is on disk, so that what comes from there and what comes from memory do not overlap.
    pub fn reopen(&mut self, filter: FilterId) {
        self.let_go_through(self.durable);
        self.postings.entry(filter).or_default().on_disk = self.durable;
    }

    /// How many bytes of messages are in memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn kept(&self, seq: Seq) -> Option<&Kept> {
        let index = usize::try_from(seq.0.checked_sub(self.first.0)?).ok()?;
        self.entries.get(index)?.as_ref()
    }

    /// The posting of `seq` under `filter` is gone; the last one takes the message with it.
    fn unpost(&mut self, seq: Seq, filter: FilterId) {
        let Some(index) = seq.0.checked_sub(self.first.0).and_then(|at| usize::try_from(at).ok()) else {
            return;
        };
        let Some(slot) = self.entries.get_mut(index) else { return };
        let Some(kept) = slot else { return };
        kept.filters.retain(|posted| *posted != filter);
        if kept.filters.is_empty() {
            self.bytes -= cost(&kept.message);
            *slot = None;
        }
        self.drop_gaps();
    }

    /// Lets go of the oldest messages until the rest fits.
    fn make_room(&mut self) {
        while self.bytes > self.bytes_max && self.first <= self.durable && self.let_go_of_oldest() {}
        self.drop_gaps();
    }

    /// Returns whether there was one.
    fn let_go_of_oldest(&mut self) -> bool {
        let Some(oldest) = self.entries.pop_front() else { return false };
        let seq = self.first;
        self.first = seq.next();
        let Some(Kept { message, filters, .. }) = oldest else { return true };
        self.bytes -= cost(&message);
        for filter in filters {
            let Some(posting) = self.postings.get_mut(&filter) else { continue };
            let gone = posting.seqs.partition_point(|posted| *posted <= seq);
            posting.seqs.drain(..gone);
            posting.on_disk = seq;
        }
        true
    }

    fn drop_gaps(&mut self) {
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.first = self.first.next();
        }
    }
}

fn cost(message: &Message) -> u64 {
    message.size_bytes() as u64 + ENTRY_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{PropertyBytes, QoS, Timestamp, TopicName};

    const A: FilterId = FilterId(1);
    const B: FilterId = FilterId(2);
    const KEY: FilterKey = FilterKey(0);

    fn message(text: &'static str) -> Arc<Message> {
        Arc::new(Message {
            topic: TopicName::new("t").expect("a topic"),
            payload: Bytes::from_static(text.as_bytes()),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: PropertyBytes::default(),
            expires_at: None,
            published_at: Timestamp::EPOCH,
            publisher: None,
        })
    }

    /// What is found in memory, or up to where it lies on disk.
    fn read(log: &RecentLog, after: &[(FilterId, Seq)], limit: usize) -> Result<Vec<u64>, u64> {
        let mut out = Vec::new();
        match log.read(after, limit, &mut out) {
            Found::InMemory => Ok(out.iter().map(|entry| entry.place.seq.0).collect()),
            Found::OnDisk(through) => Err(through.0),
        }
    }

    #[test]
    fn merges_filters_in_order_and_each_message_once() {
        let mut log = RecentLog::new(Seq::ZERO, u64::MAX);
        log.append(message("1"), &[A], KEY);
        log.append(message("2"), &[A, B], KEY);
        log.append(message("3"), &[B], KEY);
        log.append(message("4"), &[A], KEY);
        assert_eq!(read(&log, &[(A, Seq(0)), (B, Seq(0))], 10), Ok(vec![1, 2, 3, 4]));
        assert_eq!(read(&log, &[(A, Seq(1)), (B, Seq(2))], 10), Ok(vec![2, 3, 4]));
        assert_eq!(read(&log, &[(A, Seq(0)), (B, Seq(0))], 2), Ok(vec![1, 2]));
        assert_eq!(log.tail(), Seq(4));
    }

    #[test]
    fn a_message_goes_when_its_last_filter_has_consumed_it() {
        let mut log = RecentLog::new(Seq::ZERO, u64::MAX);
        log.append(message("1"), &[A, B], KEY);
        log.append(message("2"), &[B], KEY);
        log.trim(A, Seq(2));
        assert_eq!(read(&log, &[(A, Seq(0))], 10), Ok(vec![1]), "not what is not yet on disk");
        log.durable_through(Seq(2));
        log.trim(A, Seq(2));
        assert_eq!(read(&log, &[(B, Seq(0))], 10), Ok(vec![1, 2]));
        log.trim(B, Seq(1));
        assert_eq!(read(&log, &[(B, Seq(0))], 10), Ok(vec![2]));
        log.forget(B);
        assert_eq!(log.bytes(), 0);
        assert_eq!(log.tail(), Seq(2), "positions are never given twice");
    }

    #[test]
    fn what_does_not_fit_is_on_disk_and_only_once_it_is() {
        let mut log = RecentLog::new(Seq::ZERO, 2 * (ENTRY_OVERHEAD_BYTES + 2));
        for text in ["1", "2", "3"] {
            log.append(message(text), &[A], KEY);
        }
        log.append(message("4"), &[B], KEY);
        assert_eq!(read(&log, &[(A, Seq(0))], 10), Ok(vec![1, 2, 3]), "not yet on disk");
        log.durable_through(Seq(4));
        assert_eq!(read(&log, &[(A, Seq(0))], 10), Err(2));
        assert_eq!(read(&log, &[(A, Seq(2))], 10), Ok(vec![3]));
        assert_eq!(read(&log, &[(B, Seq(0))], 10), Ok(vec![4]), "nothing of B is on disk alone");
        assert!(log.get(Seq(2)).is_none() && log.get(Seq(3)).is_some());
        log.trim(A, Seq(3));
        assert_eq!(read(&log, &[(A, Seq(3))], 10), Ok(vec![]));
    }

    #[test]
    fn counting_merges_filters_and_says_what_it_does_not_see() {
        let mut log = RecentLog::new(Seq::ZERO, 3 * (ENTRY_OVERHEAD_BYTES + 2));
        for filters in [&[A][..], &[A, B], &[B], &[A]] {
            log.append(message("1"), filters, KEY);
        }
        let count = |log: &RecentLog, lists: &[(FilterId, Seq)], merged, max| {
            let (Counted { messages, oldest, each, stopped, .. }, found) = log.count(lists, merged, max);
            (messages, oldest.map(|(seq, _)| seq.0), each, stopped, found)
        };
        let all = [(A, Seq(0)), (B, Seq(0))];
        assert_eq!(count(&log, &all, 2, 10), (4, Some(1), vec![3, 2], false, Found::InMemory));
        assert_eq!(count(&log, &all, 1, 10), (3, Some(1), vec![3, 2], false, Found::InMemory));
        assert!(!count(&log, &all, 2, 4).3, "the bound is reached, not passed");
        assert_eq!(count(&log, &all, 2, 3), (3, Some(1), vec![2, 2], true, Found::InMemory));
        log.durable_through(Seq(4));
        assert_eq!(count(&log, &all, 2, 10), (3, Some(2), vec![2, 2], false, Found::OnDisk(Seq(1))));
        assert_eq!(count(&log, &[(A, Seq(3))], 1, 10), (1, Some(4), vec![1], false, Found::InMemory));
    }

    #[test]
    fn what_is_given_up_is_no_longer_in_memory() {
        let mut log = RecentLog::new(Seq::ZERO, u64::MAX);
        for text in ["1", "2", "3"] {
            log.append(message(text), &[A], KEY);
        }
        log.durable_through(Seq(2));
        log.let_go_through(Seq(3));
        assert_eq!(read(&log, &[(A, Seq(0))], 10), Err(2), "not what is not yet on disk");
        assert_eq!(read(&log, &[(A, Seq(2))], 10), Ok(vec![3]));
        log.durable_through(Seq(3));
        log.let_go_through(Seq(9));
        assert_eq!((log.bytes(), log.tail()), (0, Seq(3)));
    }

    #[test]
    fn what_was_consumed_is_found_on_disk_again() {
        let mut log = RecentLog::new(Seq::ZERO, u64::MAX);
        for text in ["1", "2", "3"] {
            log.append(message(text), &[A], KEY);
        }
        log.append(message("4"), &[A, B], KEY);
        log.durable_through(Seq(3));
        log.trim(A, Seq(4));
        assert_eq!(read(&log, &[(A, Seq(0))], 10), Ok(vec![4]));
        log.reopen(A);
        assert_eq!(read(&log, &[(A, Seq(0))], 10), Err(3));
        assert_eq!(read(&log, &[(A, Seq(3))], 10), Ok(vec![4]));
        assert_eq!(read(&log, &[(B, Seq(0))], 10), Ok(vec![4]), "nothing of B is on disk alone");
    }

    #[test]
    fn what_another_process_wrote_is_on_disk() {
        let log = RecentLog::new(Seq(7), 0);
        assert_eq!(log.tail(), Seq(7));
        assert_eq!(read(&log, &[(A, Seq(6))], 10), Err(7));
        assert_eq!(read(&log, &[(A, Seq(7))], 10), Ok(vec![]));
    }
}
