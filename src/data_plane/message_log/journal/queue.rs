//! What waits for the committer.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use super::super::Entry;
use super::entry_codec::encoded_len;
use super::frame::FRAME_HEAD_BYTES;

/// The number of what was handed over at once. Ascending from 1 in each run of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchNo(pub u64);

/// What was handed over at once.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) no: BatchNo,
    pub(super) entries: Vec<Entry>,
    /// What they take in segments.
    pub(super) bytes: u64,
}

/// Batches in order. Its bound is the worker's: it asks [`super::Journal::room`] before it takes more in.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct State {
    batches: Vec<Batch>,
    last: u64,
    closed: bool,
}

impl Queue {
    /// Puts a batch at the end and adds what it takes in segments to `queued`. After [`Queue::close`] it
    /// goes nowhere.
    pub(super) fn push(&self, entries: Vec<Entry>, queued: &AtomicU64) -> BatchNo {
        let frame = |entry: &Entry| FRAME_HEAD_BYTES as usize + encoded_len(entry);
        let bytes = entries.iter().map(frame).sum::<usize>() as u64;
        let mut state = self.state.lock();
        state.last += 1;
        let no = BatchNo(state.last);
        if !state.closed {
            // Before the committer can take it off again.
            queued.fetch_add(bytes, Ordering::AcqRel);
            state.batches.push(Batch { no, entries, bytes });
            self.ready.notify_one();
        }
        no
    }

    /// Everything that waits; blocks while nothing does. `None` once the queue is closed and empty.
    pub(super) fn take(&self) -> Option<Vec<Batch>> {
        let mut state = self.state.lock();
        while state.batches.is_empty() && !state.closed {
            self.ready.wait(&mut state);
        }
        let taken = std::mem::take(&mut state.batches);
        (!taken.is_empty()).then_some(taken)
    }

    /// Nothing more comes in; what waits can still be taken.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_all();
    }

    /// Nothing more comes in, and nobody will take what waits.
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.batches.clear();
    }
}
