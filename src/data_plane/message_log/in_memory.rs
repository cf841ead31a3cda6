//! The message log in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::{LogEntry, MessageLog};
use crate::model::{FilterId, Message, Seq};

/// A [`MessageLog`] that lives and dies with the process.
///
/// Bounded: past `bytes_max` the oldest messages are dropped, consumed or not, and counted.
#[derive(Debug)]
pub struct InMemoryLog {
    /// Messages from `first` on; `None` where nobody needs one any longer.
    entries: VecDeque<Option<Kept>>,
    /// The position of `entries[0]`.
    first: Seq,
    /// Positions of the messages of each filter, ascending.
    postings: HashMap<FilterId, VecDeque<Seq>, foldhash::fast::RandomState>,
    bytes: u64,
    bytes_max: u64,
    dropped: u64,
}

#[derive(Debug)]
struct Kept {
    message: Arc<Message>,
    /// Under how many filters it is still posted.
    posted: u32,
}

/// What a message costs besides its own bytes: the entry, a posting, the shared header.
const ENTRY_OVERHEAD_BYTES: u64 = 200;

impl InMemoryLog {
    /// An empty log that keeps at most `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            first: Seq::ZERO.next(),
            postings: HashMap::default(),
            bytes: 0,
            bytes_max,
            dropped: 0,
        }
    }

    /// How many messages were dropped because the log was full.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn index(&self, seq: Seq) -> Option<usize> {
        usize::try_from(seq.0.checked_sub(self.first.0)?).ok()
    }

    fn cost(message: &Message) -> u64 {
        message.size_bytes() as u64 + ENTRY_OVERHEAD_BYTES
    }

    /// One posting of `seq` is gone; the last one takes the message with it.
    fn unpost(&mut self, seq: Seq) {
        let Some(index) = self.index(seq) else { return };
        let Some(slot) = self.entries.get_mut(index) else { return };
        let Some(kept) = slot else { return };
        kept.posted -= 1;
        if kept.posted == 0 {
            self.bytes -= Self::cost(&kept.message);
            *slot = None;
        }
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.first = self.first.next();
        }
    }

    /// Drops the oldest messages until the log fits. Their postings are passed over by readers and
    /// go with the next trim.
    fn make_room(&mut self) {
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.first = self.first.next();
            if let Some(kept) = oldest {
                self.bytes -= Self::cost(&kept.message);
                self.dropped += 1;
            }
        }
    }
}

impl MessageLog for InMemoryLog {
    fn tail(&self) -> Seq {
        Seq(self.first.0 + self.entries.len() as u64 - 1)
    }

    fn append(&mut self, message: Arc<Message>, filters: &[FilterId]) -> Seq {
        let seq = self.tail().next();
        for filter in filters {
            self.postings.entry(*filter).or_default().push_back(seq);
        }
        self.bytes += Self::cost(&message);
        let posted = u32::try_from(filters.len()).unwrap_or(u32::MAX);
        self.entries.push_back(Some(Kept { message, posted }));
        self.make_room();
        seq
    }

    fn read(&self, after: &[(FilterId, Seq)], limit: usize, out: &mut Vec<LogEntry>) {
        let mut positions: Vec<Seq> = Vec::new();
        for (filter, after) in after {
            let Some(posted) = self.postings.get(filter) else { continue };
            let floor = (*after).max(Seq(self.first.0 - 1));
            let start = posted.partition_point(|seq| *seq <= floor);
            positions.extend(posted.range(start..).take(limit));
        }
        positions.sort_unstable();
        positions.dedup();
        for seq in positions.into_iter().take(limit) {
            let kept = self.index(seq).and_then(|index| self.entries.get(index)?.as_ref());
            if let Some(kept) = kept {
                out.push(LogEntry { seq, message: Arc::clone(&kept.message) });
            }
        }
    }

    fn trim(&mut self, filter: FilterId, through: Seq) {
        let Some(posted) = self.postings.get_mut(&filter) else { return };
        let consumed: Vec<Seq> = posted.drain(..posted.partition_point(|seq| *seq <= through)).collect();
        if posted.is_empty() {
            self.postings.remove(&filter);
        }
        for seq in consumed {
            self.unpost(seq);
        }
    }

    fn forget(&mut self, filter: FilterId) {
        for seq in self.postings.remove(&filter).unwrap_or_default() {
            self.unpost(seq);
        }
    }

    fn posted(&self) -> Vec<(FilterId, Seq)> {
        self.postings.iter().filter_map(|(filter, posted)| Some((*filter, *posted.front()?))).collect()
    }

    fn kept_bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{PropertyBytes, QoS, Timestamp, TopicName};

    const A: FilterId = FilterId(1);
    const B: FilterId = FilterId(2);

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

    fn read(log: &InMemoryLog, after: &[(FilterId, Seq)], limit: usize) -> Vec<u64> {
        let mut out = Vec::new();
        log.read(after, limit, &mut out);
        out.iter().map(|entry| entry.seq.0).collect()
    }

    #[test]
    fn merges_filters_in_order_and_each_message_once() {
        let mut log = InMemoryLog::new(u64::MAX);
        log.append(message("1"), &[A]);
        log.append(message("2"), &[A, B]);
        log.append(message("3"), &[B]);
        log.append(message("4"), &[A]);
        assert_eq!(read(&log, &[(A, Seq(0)), (B, Seq(0))], 10), [1, 2, 3, 4]);
        assert_eq!(read(&log, &[(A, Seq(1)), (B, Seq(2))], 10), [2, 3, 4]);
        assert_eq!(read(&log, &[(A, Seq(0)), (B, Seq(0))], 2), [1, 2]);
        assert_eq!(log.tail(), Seq(4));
    }

    #[test]
    fn a_message_goes_when_its_last_filter_has_consumed_it() {
        let mut log = InMemoryLog::new(u64::MAX);
        log.append(message("1"), &[A, B]);
        log.append(message("2"), &[B]);
        log.trim(A, Seq(2));
        assert_eq!(read(&log, &[(B, Seq(0))], 10), [1, 2]);
        log.trim(B, Seq(1));
        assert_eq!(read(&log, &[(B, Seq(0))], 10), [2]);
        log.forget(B);
        assert_eq!(log.kept_bytes(), 0);
        assert_eq!(log.tail(), Seq(2), "positions are never given twice");
    }

    #[test]
    fn a_full_log_drops_the_oldest_and_counts() {
        let mut log = InMemoryLog::new(2 * (ENTRY_OVERHEAD_BYTES + 2));
        for text in ["1", "2", "3"] {
            log.append(message(text), &[A]);
        }
        assert_eq!(read(&log, &[(A, Seq(0))], 10), [2, 3]);
        assert_eq!(log.dropped(), 1);
        log.trim(A, Seq(3));
        assert_eq!(log.kept_bytes(), 0);
    }
}
