//! A connection's bytes between the worker and the socket.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::data_plane::session::output::Output;

/// Past this many waiting bytes the worker adds no messages: QoS 0 is dropped, the rest waits in the
/// log or in a bounded queue.
pub const CONGESTED_FROM_BYTES: usize = 256 * 1_024;

/// Below this many, the worker is told to go on.
const RELIEVED_BELOW_BYTES: usize = 64 * 1_024;

/// Past this many, the connection reads no further packets: a client that does not read its
/// acknowledgements gets no more of them.
const READS_BELOW_BYTES: usize = CONGESTED_FROM_BYTES + 128 * 1_024;

/// How long the last bytes of a connection may take.
pub const FAREWELL_WITHIN: Duration = Duration::from_millis(500);

/// Shared by the worker (which fills it) and one connection task (which empties it).
#[derive(Debug, Default)]
pub struct Outbox {
    state: Mutex<State>,
    /// Wakes the writing half.
    filled: Notify,
    /// Wakes the reading half.
    may_read: Notify,
    /// Wakes the watch over a farewell.
    finishing: Notify,
}

#[allow(clippy::struct_excessive_bools)] // independent facts, each for a reader of its own
#[derive(Debug, Default)]
struct State {
    output: Output,
    /// Bytes not yet written, those being written included.
    backlog: usize,
    /// Whether the client was let in, so that its packets may be read.
    open: bool,
    /// Whether the client sends faster than it may, and is not read until it has waited.
    paused: bool,
    /// Whether the connection ends when everything is written.
    finished: bool,
    /// Whether the worker waits to hear that there is room.
    worker_waits: bool,
}

/// What the writing half got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Bytes, and whether they are the last.
    Bytes {
        /// Whether the connection ends after them.
        last: bool,
    },
    /// Nothing, and nothing will come.
    End,
}

impl Outbox {
    /// The worker: adds `output`, leaves it empty, and tells whether the connection is congested; then
    /// it will be reported by [`Outbox::written`] when it no longer is.
    pub fn push(&self, output: &mut Output) -> bool {
        let mut state = self.state.lock();
        state.backlog += output.len();
        state.output.append(output);
        let congested = state.backlog >= CONGESTED_FROM_BYTES;
        state.worker_waits |= congested;
        drop(state);
        self.filled.notify_one();
        congested
    }

    /// The worker: the client was let in.
    pub fn open(&self) {
        self.state.lock().open = true;
        self.may_read.notify_one();
    }

    /// The worker: the client is not to be read any further, or may be read again.
    pub fn read_on(&self, reads: bool) {
        self.state.lock().paused = !reads;
        if reads {
            self.may_read.notify_one();
        }
    }

    /// The worker: `output` is the last; the connection ends when it is written.
    pub fn finish(&self, mut output: Output) {
        let mut state = self.state.lock();
        state.backlog += output.len();
        state.output.append(&mut output);
        state.finished = true;
        drop(state);
        self.filled.notify_one();
        self.finishing.notify_one();
    }

    /// The writing half: waits for bytes and swaps them into `taken`, which must be empty.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn take(&self, taken: &mut Output) -> Taken {
        loop {
            {
                let mut state = self.state.lock();
                if !state.output.is_empty() {
                    std::mem::swap(&mut state.output, taken);
                    return Taken::Bytes { last: state.finished };
                }
                if state.finished {
                    return Taken::End;
                }
            }
            self.filled.notified().await;
        }
    }

    /// The writing half: so many bytes were written. Returns whether the worker is to be told that
    /// there is room again.
    pub fn written(&self, bytes: usize) -> bool {
        let mut state = self.state.lock();
        let before = state.backlog;
        state.backlog -= bytes;
        if before >= READS_BELOW_BYTES && state.backlog < READS_BELOW_BYTES {
            self.may_read.notify_one();
        }
        let relieved = state.worker_waits && state.backlog < RELIEVED_BELOW_BYTES;
        state.worker_waits &= !relieved;
        relieved
    }

    /// The reading half: waits until the client was let in, reads its answers, and has not sent too much.
    pub async fn until_readable(&self) {
        loop {
            {
                let state = self.state.lock();
                if state.open && !state.paused && state.backlog < READS_BELOW_BYTES {
                    return;
                }
            }
            self.may_read.notified().await;
        }
    }

    /// Waits until the connection is to end and has had [`FAREWELL_WITHIN`] to write its last bytes.
    pub async fn farewell_overdue(&self) {
        while !self.state.lock().finished {
            self.finishing.notified().await;
        }
        tokio::time::sleep(FAREWELL_WITHIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(bytes: usize) -> Output {
        let mut output = Output::default();
        output.buffer().resize(bytes, b'x');
        output
    }

    #[tokio::test]
    async fn tells_the_worker_when_to_stop_and_when_to_go_on() {
        let outbox = Outbox::default();
        assert!(!outbox.push(&mut output(CONGESTED_FROM_BYTES - 1)));
        assert!(outbox.push(&mut output(1)));
        let mut taken = Output::default();
        assert_eq!(outbox.take(&mut taken).await, Taken::Bytes { last: false });
        assert_eq!(taken.len(), CONGESTED_FROM_BYTES);
        let left = RELIEVED_BELOW_BYTES - 1;
        assert!(!outbox.written(CONGESTED_FROM_BYTES - RELIEVED_BELOW_BYTES));
        assert!(outbox.written(1));
        assert!(!outbox.written(left), "told once");
    }

    #[tokio::test]
    async fn the_last_bytes_are_marked_and_then_it_ends() {
        let outbox = Outbox::default();
        outbox.finish(output(3));
        let mut taken = Output::default();
        assert_eq!(outbox.take(&mut taken).await, Taken::Bytes { last: true });
        taken.clear(0);
        assert_eq!(outbox.take(&mut taken).await, Taken::End);
    }

    #[tokio::test]
    async fn reading_waits_for_admission() {
        let outbox = Outbox::default();
        let mut waiting = Box::pin(outbox.until_readable());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        outbox.open();
        waiting.await;
    }

    #[tokio::test]
    async fn reading_waits_for_a_client_that_is_too_fast() {
        let outbox = Outbox::default();
        outbox.open();
        outbox.until_readable().await;
        outbox.read_on(false);
        let mut waiting = Box::pin(outbox.until_readable());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        outbox.read_on(true);
        waiting.await;
    }
}
