//! A connection's bytes between the worker and the socket: the worker fills an outbox by its [`Inlet`], the
//! connection's task empties it by its [`Outlet`].

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::net::tcp::OwnedWriteHalf;
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

/// How many pieces are handed to the socket in one call.
pub const PIECES_AT_ONCE: usize = 64;

/// How long the last bytes of a connection may take.
pub const FAREWELL_WITHIN: Duration = Duration::from_millis(500);

/// An empty outbox. Given a socket, the worker may write to it by itself ([`Inlet::write_or_push`]).
pub fn outbox(socket: Option<Arc<OwnedWriteHalf>>) -> (Inlet, Outlet) {
    let state = Mutex::new(State { socket, ..State::default() });
    let (filled, may_read, finishing) = (Notify::new(), Notify::new(), Notify::new());
    let shared = Arc::new(Shared { state, filled, may_read, finishing });
    (Inlet(Arc::clone(&shared)), Outlet(shared))
}

/// The worker's end. The connection ends when it is dropped, at once unless it was [finished](Inlet::finish).
#[derive(Debug)]
pub struct Inlet(Arc<Shared>);

/// The connection's end, for its reading and its writing half. Once it is dropped the socket is the connection's alone.
#[derive(Debug)]
pub struct Outlet(Arc<Shared>);

#[derive(Debug)]
struct Shared {
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
    /// What the worker may write to while the connection's task does not.
    socket: Option<Arc<OwnedWriteHalf>>,
    /// Whether the connection's task writes what it took.
    writing: bool,
    output: Output,
    /// Bytes not yet written, those being written included.
    backlog: usize,
    /// Whether the client was let in, so that its packets may be read.
    open: bool,
    /// Whether the client sends faster than it may, and is not read until it has waited.
    paused: bool,
    /// Whether the connection ends when everything is written.
    finished: bool,
    /// Whether the worker has gone without a word.
    abandoned: bool,
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
    /// Nothing, and nobody is left to say anything.
    Abandoned,
}

impl State {
    /// Writes what it can of `output` at once, and leaves the rest.
    fn write_now(&self, output: &mut Output) {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.writing && self.output.is_empty()) else {
            return;
        };
        let pieces: SmallVec<[IoSlice<'_>; 4]> =
            output.pieces().take(PIECES_AT_ONCE).map(IoSlice::new).collect();
        let written = socket.try_write_vectored(&pieces);
        drop(pieces);
        // What fails is left to the connection's task, which finds the same.
        if let Ok(written) = written {
            output.advance(written);
        }
    }
}

impl Inlet {
    /// Does what [`push`](Self::push) does with what cannot be written at once: a message then need not wait until
    /// the connection's task has its turn.
    pub fn write_or_push(&self, output: &mut Output) -> bool {
        self.0.state.lock().write_now(output);
        !output.is_empty() && self.push(output)
    }

    /// Adds `output`, leaves it empty, and tells whether the connection is congested; then it will be reported
    /// by [`Outlet::written`] when it no longer is.
    pub fn push(&self, output: &mut Output) -> bool {
        let mut state = self.0.state.lock();
        state.backlog += output.len();
        state.output.append(output);
        let congested = state.backlog >= CONGESTED_FROM_BYTES;
        state.worker_waits |= congested;
        let is_writing = state.writing;
        drop(state);
        // Who writes looks again when that is done.
        if !is_writing {
            self.0.filled.notify_one();
        }
        congested
    }

    /// The client was let in.
    pub fn open(&self) {
        self.0.state.lock().open = true;
        self.0.may_read.notify_one();
    }

    /// The client is not to be read any further, or may be read again.
    pub fn read_on(&self, reads: bool) {
        self.0.state.lock().paused = !reads;
        if reads {
            self.0.may_read.notify_one();
        }
    }

    /// `output` is the last; the connection ends when it is written.
    pub fn finish(&self, mut output: Output) {
        let mut state = self.0.state.lock();
        state.backlog += output.len();
        state.output.append(&mut output);
        state.finished = true;
        drop(state);
        self.0.filled.notify_one();
        self.0.finishing.notify_one();
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.abandoned = !state.finished;
        drop(state);
        self.0.filled.notify_one();
        self.0.finishing.notify_one();
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.0.state.lock().socket = None;
    }
}

impl Outlet {
    /// The writing half: waits for bytes and swaps them into `taken`, which must be empty.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn take(&self, taken: &mut Output) -> Taken {
        loop {
            {
                let mut state = self.0.state.lock();
                if state.abandoned {
                    return Taken::Abandoned;
                }
                if !state.output.is_empty() {
                    std::mem::swap(&mut state.output, taken);
                    state.writing = true;
                    return Taken::Bytes { last: state.finished };
                }
                if state.finished {
                    return Taken::End;
                }
            }
            self.0.filled.notified().await;
        }
    }

    /// The writing half: so many bytes were written. Returns whether the worker is to be told that
    /// there is room again.
    pub fn written(&self, bytes: usize) -> bool {
        let mut state = self.0.state.lock();
        let before = state.backlog;
        state.writing = false;
        state.backlog -= bytes;
        if before >= READS_BELOW_BYTES && state.backlog < READS_BELOW_BYTES {
            self.0.may_read.notify_one();
        }
        let relieved = state.worker_waits && state.backlog < RELIEVED_BELOW_BYTES;
        state.worker_waits &= !relieved;
        relieved
    }

    /// Waits until writing takes too long, because the connection is to end and has had [`FAREWELL_WITHIN`], or the
    /// worker is gone.
    pub async fn overdue(&self) {
        loop {
            let (finished, abandoned) = {
                let state = self.0.state.lock();
                (state.finished, state.abandoned)
            };
            if abandoned {
                return;
            }
            if finished {
                return tokio::time::sleep(FAREWELL_WITHIN).await;
            }
            self.0.finishing.notified().await;
        }
    }

    /// The reading half: waits until the client was let in, reads its answers, and has not sent too much.
    pub async fn until_readable(&self) {
        loop {
            {
                let state = self.0.state.lock();
                if state.open && !state.paused && state.backlog < READS_BELOW_BYTES {
                    return;
                }
            }
            self.0.may_read.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::super::carrier::{Carrier, Writing};
    use super::*;

    fn output(bytes: usize) -> Output {
        let mut output = Output::default();
        output.buffer().resize(bytes, b'x');
        output
    }

    #[tokio::test]
    async fn tells_the_worker_when_to_stop_and_when_to_go_on() {
        let (inlet, outlet) = outbox(None);
        assert!(!inlet.push(&mut output(CONGESTED_FROM_BYTES - 1)));
        assert!(inlet.push(&mut output(1)));
        let mut taken = Output::default();
        assert_eq!(outlet.take(&mut taken).await, Taken::Bytes { last: false });
        assert_eq!(taken.len(), CONGESTED_FROM_BYTES);
        let left = RELIEVED_BELOW_BYTES - 1;
        assert!(!outlet.written(CONGESTED_FROM_BYTES - RELIEVED_BELOW_BYTES));
        assert!(outlet.written(1));
        assert!(!outlet.written(left), "told once");
    }

    #[tokio::test]
    async fn the_last_bytes_are_marked_and_then_it_ends() {
        let (inlet, outlet) = outbox(None);
        inlet.finish(output(3));
        drop(inlet);
        let mut taken = Output::default();
        assert_eq!(outlet.take(&mut taken).await, Taken::Bytes { last: true });
        taken.clear();
        assert_eq!(outlet.take(&mut taken).await, Taken::End);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_bytes_have_a_little_time() {
        let (inlet, outlet) = outbox(None);
        inlet.push(&mut output(1));
        let mut overdue = Box::pin(outlet.overdue());
        tokio::time::timeout(FAREWELL_WITHIN * 100, &mut overdue).await.expect_err("nothing ends");
        inlet.finish(output(1));
        tokio::time::timeout(FAREWELL_WITHIN / 2, &mut overdue).await.expect_err("there is time");
        overdue.await;
    }

    #[tokio::test]
    async fn a_worker_that_is_gone_ends_it_at_once() {
        let (inlet, outlet) = outbox(None);
        let mut taken = Output::default();
        let mut taking = Box::pin(outlet.take(&mut taken));
        assert!(futures_util::poll!(&mut taking).is_pending());
        drop(inlet);
        assert_eq!(taking.await, Taken::Abandoned);
        outlet.overdue().await;
    }

    /// What fits into the socket goes at once, the rest by the connection's task, and then again at once.
    #[tokio::test]
    async fn what_the_worker_writes_by_itself_keeps_its_order() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a listener");
        let address = listener.local_addr().expect("its address");
        let mut peer = TcpStream::connect(address).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("the same");
        let (_reading, mut writing) = stream.into_halves();
        writing.writable().await.expect("an open socket");
        let (inlet, outlet) = outbox(writing.socket());

        let mut numbers = (0..u64::MAX).flat_map(u64::to_be_bytes);
        let mut next = |bytes: usize| {
            let mut output = Output::default();
            output.buffer().extend(numbers.by_ref().take(bytes));
            output
        };
        inlet.write_or_push(&mut next(1_000));
        assert_eq!(outlet.0.state.lock().backlog, 0, "nothing is left to the task");
        let mut total = 1_000;
        while outlet.0.state.lock().backlog == 0 {
            inlet.write_or_push(&mut next(100_000));
            total += 100_000;
        }
        let mut taken = Output::default();
        assert_eq!(outlet.take(&mut taken).await, Taken::Bytes { last: false });
        // Not past the one who writes.
        inlet.write_or_push(&mut next(1_000));
        total += 1_000;
        assert_eq!(outlet.0.state.lock().output.len(), 1_000);

        let reads = async {
            let mut got = vec![0; total];
            peer.read_exact(&mut got).await.expect("everything");
            got
        };
        let writes = async {
            for _ in 0..2 {
                for piece in taken.pieces() {
                    let mut left = piece;
                    while !left.is_empty() {
                        let written = writing.write(&[IoSlice::new(left)]).await.expect("an open socket");
                        left = &left[written..];
                    }
                }
                outlet.written(taken.len());
                taken.clear();
                if outlet.0.state.lock().backlog > 0 {
                    outlet.take(&mut taken).await;
                }
            }
        };
        let (got, ()) = tokio::join!(reads, writes);
        assert!(got.iter().copied().eq((0..u64::MAX).flat_map(u64::to_be_bytes).take(total)));
        drop(outlet);
        assert!(Arc::into_inner(writing).is_some(), "the socket is the connection's alone");
    }

    #[tokio::test]
    async fn reading_waits_for_admission() {
        let (inlet, outlet) = outbox(None);
        let mut waiting = Box::pin(outlet.until_readable());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        inlet.open();
        waiting.await;
    }

    #[tokio::test]
    async fn reading_waits_for_a_client_that_is_too_fast() {
        let (inlet, outlet) = outbox(None);
        inlet.open();
        outlet.until_readable().await;
        inlet.read_on(false);
        let mut waiting = Box::pin(outlet.until_readable());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        inlet.read_on(true);
        waiting.await;
    }
}
