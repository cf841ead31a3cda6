//! The disk as the runtime would be it: what is written down, read again, and survives.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::*;
use crate::data_plane::cluster::{ColdRead, Memory};
use crate::data_plane::message_log::{Change, CountRequest, Counted, Entry, LogEntry, Posted};
use crate::data_plane::session::outgoing::Turn;
use crate::model::{FilterKey, Place, Seq};

/// How the disk behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pace {
    /// What is written is durable at once.
    #[default]
    Prompt,
    /// It is durable when told.
    Late,
}

/// Everything that was written down.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) pace: Pace,
    waiting: VecDeque<(Turn, Vec<Entry>)>,
    messages: BTreeMap<Seq, Posted>,
    facts: BTreeMap<Bytes, Bytes>,
    /// The last message that retention took.
    last_gone: Seq,
    /// How many more entries it takes; what comes then stays on its way.
    takes: Option<usize>,
}

impl Disk {
    pub(super) fn write(&mut self, turn: Turn, entries: Vec<Entry>) {
        if !entries.is_empty() {
            self.waiting.push_back((turn, entries));
        }
    }

    /// Makes everything durable; the turn that then is.
    fn sync(&mut self) -> Option<Turn> {
        let mut last = None;
        while let Some((_, entries)) = self.waiting.front()
            && self.takes.is_none_or(|takes| entries.len() <= takes)
        {
            let Some((turn, entries)) = self.waiting.pop_front() else { break };
            self.takes = self.takes.map(|takes| takes - entries.len());
            for entry in entries {
                self.keep(entry);
            }
            last = Some(turn);
        }
        last
    }

    /// From here on it takes so many entries and no more.
    pub(super) fn fail_after(&mut self, entries: usize) {
        self.takes = Some(entries);
    }

    /// From here on it takes everything.
    pub(super) fn takes_all(&mut self) {
        self.takes = None;
    }

    /// Whether there was more than it took.
    pub(super) fn has_failed(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Of a turn that it could not take whole, how many entries it has.
    fn torn(&mut self) -> usize {
        self.takes.take().unwrap_or(0)
    }

    fn keep(&mut self, entry: Entry) {
        if let Some(posted) = entry.message {
            assert!(posted.seq > self.tail(), "positions ascend");
            self.messages.insert(posted.seq, posted);
        }
        for change in entry.changes {
            match change {
                Change::Put { key, value } => _ = self.facts.insert(key, value),
                Change::Delete { key } => _ = self.facts.remove(&key),
                Change::DeleteAll { prefix } => self.facts.retain(|key, _| !key.starts_with(&prefix)),
            }
        }
    }

    pub(super) fn tail(&self) -> Seq {
        self.messages.keys().next_back().copied().unwrap_or(self.last_gone)
    }

    /// How many facts there are whose key ends so.
    pub(super) fn facts_of(&self, is_meant: impl Fn(&[u8]) -> bool) -> usize {
        self.facts.keys().filter(|key| is_meant(key)).count()
    }

    /// Puts a fact as an earlier release wrote it.
    pub(super) fn put_fact(&mut self, is_meant: impl Fn(&[u8]) -> bool, write: impl Fn(&Bytes) -> Bytes) {
        for (_, value) in self.facts.iter_mut().filter(|(key, _)| is_meant(key)) {
            *value = write(value);
        }
    }

    /// How many facts there are.
    pub(super) fn facts(&self) -> usize {
        self.facts.len()
    }

    pub(super) fn read(&self, read: &ColdRead) -> (Vec<LogEntry>, Seq) {
        let first = read.after.iter().map(|(_, after)| *after).min().expect("a filter").next();
        let wanted = |(seq, posted): &(&Seq, &Posted)| {
            read.after.iter().any(|(filter, after)| *seq > after && posted.filters.contains(filter))
        };
        let found =
            self.messages.range(first..=read.through.max(first)).filter(|(seq, _)| **seq <= read.through);
        let found: Vec<LogEntry> = found
            .filter(wanted)
            .take(read.messages_max)
            .map(|(seq, posted)| LogEntry {
                place: Place { seq: *seq, filter: posted.filters[0], durable: true },
                message: Arc::clone(&posted.message),
            })
            .collect();
        let complete = found.len() < read.messages_max;
        let through = if complete { read.through } else { found[found.len() - 1].place.seq };
        (found, through)
    }

    /// Retention takes every message.
    pub(super) fn forget_messages(&mut self) {
        self.forget_messages_through(Seq(u64::MAX));
    }

    pub(super) fn forget_messages_through(&mut self, last: Seq) {
        self.last_gone = self.tail().min(last).max(self.last_gone);
        self.messages.retain(|seq, _| *seq > last);
    }

    pub(super) fn count(&self, request: &CountRequest) -> Counted {
        let mut counted = Counted::none(request.lists.len());
        for (seq, posted) in self.messages.range(..=request.through) {
            let lists = request.lists.iter().enumerate();
            let found = |(_, (filter, after)): &(usize, &(FilterKey, Seq))| {
                seq > after && posted.filters.contains(filter)
            };
            let found: Vec<usize> = lists.filter(found).map(|(list, _)| list).collect();
            for list in &found {
                counted.each[*list] += 1;
            }
            if found.iter().any(|list| *list < request.merged) {
                counted.messages += 1;
                counted.bytes += posted.message.size_bytes() as u64;
                counted.oldest.get_or_insert((*seq, Some(posted.message.published_at)));
            }
        }
        counted
    }

    /// What is remembered after a crash: everything durable, and of what was on its way the first
    /// `lucky` entries.
    pub(super) fn crash(&mut self, lucky: usize) -> (Seq, Memory) {
        let lucky = lucky + self.torn();
        let waiting = std::mem::take(&mut self.waiting);
        for entry in waiting.into_iter().flat_map(|(_, entries)| entries).take(lucky) {
            self.keep(entry);
        }
        let mut memory = Memory::default();
        for (key, value) in &self.facts {
            assert!(memory.take(key, value.clone()), "{key:?} can be read");
        }
        (self.tail(), memory)
    }
}

impl World {
    /// Carries out what is to be read. Returns whether anything was.
    pub(super) fn read_disk(&mut self, reads: &[ColdRead]) -> bool {
        for read in reads {
            let (entries, through) = self.disk.read(read);
            self.cluster.read_from_disk(self.now, read.reader, entries, through);
        }
        !reads.is_empty()
    }

    /// Returns whether the cluster was told something.
    pub(super) fn sync_promptly(&mut self) -> bool {
        self.disk.pace == Pace::Prompt && self.report_durable()
    }

    /// Everything written so far becomes durable.
    pub(super) fn sync_disk(&mut self) {
        self.report_durable();
        self.settle();
    }

    fn report_durable(&mut self) -> bool {
        let Some(turn) = self.disk.sync() else { return false };
        self.cluster.durable(turn);
        true
    }
}
