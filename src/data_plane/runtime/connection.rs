//! One connection: bytes in to the worker, bytes out from the outbox.
//!
//! Knows nothing of transports, nor of how a client says who it is: both is [`greeting`]'s. Holds no
//! protocol state but the decoder's. A reading and a writing half run side by side in one task, so that a
//! client that does not read cannot keep us from hearing it, and the other way round.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::task::Poll;

use bytes::BytesMut;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncReadExt};
use uuid::Uuid;

use super::arrival::{Opened, Opening, Place};
use super::authentication::Pass;
use super::carrier::{Carrier, Reading, Writing};
use super::greeting::{self, Greeted};
use super::outbox::{Outlet, PIECES_AT_ONCE, Taken, outbox};
use super::{Context, Input, goodbye};
use crate::data_plane::PACKET_BYTES_MAX;
use crate::data_plane::cluster::ConnectRequest;
use crate::data_plane::protocol::{Connect, Decoder, Packet, Violation};
use crate::data_plane::session::link::ConnId;
use crate::data_plane::session::output::Output;

/// How much is read at once from a connection that has been quiet.
const READ_SMALL_BYTES: usize = 512;

/// How much is read at once from a connection that sends a lot.
const READ_LARGE_BYTES: usize = 64 * 1_024;

/// For how many packets room is made before they are read.
const PACKETS_FORESEEN_MAX: usize = 256;

/// How the exchange of packets came to its end.
enum End {
    /// The last of the output was written, or the peer went away or sent what the transport does not carry.
    Over,
    /// The connection broke, or the last bytes took too long, or the worker is no more.
    Cut,
}

/// A connection that the worker knows of.
struct Begun<S: Carrier> {
    conn: ConnId,
    reading: S::Reading,
    writing: S::Writing,
    reader: Reader,
    outlet: Outlet,
    /// Held while the connection lasts.
    pass: Option<Pass>,
}

/// Runs a connection from its first byte to its last, and tells the worker when it is closed.
pub async fn run<S: Carrier>(context: Context, place: Place, opening: Opening<S>) {
    // What is only needed to begin, or to end, is on the heap meanwhile: a connection does not hold it for life.
    let Some(begun) = Box::pin(begin(&context, place, opening)).await else { return };
    let Begun { conn, mut reading, mut writing, mut reader, outlet, pass: _pass } = begun;
    let end = tokio::select! {
        () = reader.pump(&context, conn, &outlet, &mut reading) => End::Over,
        end = write_all(&context, conn, &outlet, &mut writing) => end,
    };
    // The worker can write to it no longer.
    drop(outlet);
    let Some(stream) = S::of_halves(reading, writing) else {
        tracing::error!(
            "a connection has ended while somebody else held its socket; nobody is told that it is closed"
        );
        return;
    };
    // The socket is closed before the worker hears of it: that is what proves a kick.
    Box::pin(finish(stream, end, reader.has_heard_all)).await;
    let _ = context.mailbox.send(Input::Closed { conn }).await;
}

/// Learns who the client is, and tells the worker of it.
async fn begin<S: Carrier>(context: &Context, place: Place, opening: Opening<S>) -> Option<Begun<S>> {
    let greeted = greeting::greet(context, opening).await?;
    drop(place);
    let Greeted { opened: Opened { stream, origin, .. }, reader, connect, judged, pass } = greeted;
    let conn = context.next_conn();
    let (reading, writing) = stream.into_halves();
    let (inlet, outlet) = outbox(writing.socket());
    let request = ConnectRequest { conn, origin, connect, proven: judged.proven, fresh_id: Uuid::now_v7() };
    let input = Input::Connect {
        cluster: judged.cluster,
        judged_by: judged.by,
        request: Box::new(request),
        outbox: inlet,
    };
    context.mailbox.send(input).await.ok()?;
    Some(Begun { conn, reading, writing, reader, outlet, pass })
}

/// Closes the stream.
async fn finish<S: Carrier>(mut stream: S, end: End, has_heard_all: bool) {
    match end {
        End::Over if has_heard_all => goodbye::end(&mut stream).await,
        End::Over => goodbye::close(&mut stream).await,
        End::Cut => {}
    }
}

/// The reading half.
pub(super) struct Reader {
    decoder: Decoder,
    buffer: BytesMut,
    /// How much to make room for; follows how much comes.
    read_bytes: usize,
    /// How many packets came at once the last time: room is made for as many.
    packets_at_once: usize,
    /// Whether the peer has ended: by DISCONNECT, after which it sends nothing (`[MQTT-3.14.4-2]`), or by the end of
    /// the stream.
    has_heard_all: bool,
}

impl Reader {
    /// Reads packets of at most so many bytes, until its client is let in.
    pub(super) fn new(connect_bytes_max: u32) -> Self {
        Self {
            decoder: Decoder::server(connect_bytes_max),
            buffer: BytesMut::new(),
            read_bytes: READ_SMALL_BYTES,
            packets_at_once: 1,
            has_heard_all: false,
        }
    }

    /// The first packet; `None` when the peer goes away before it is whole.
    pub(super) async fn connect(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<Connect>, Violation> {
        match self.next(from).await? {
            Some(Packet::Connect(connect)) => Ok(Some(*connect)),
            _ => Ok(None),
        }
    }

    /// The next packet; `None` when the peer goes away before it is whole.
    pub(super) async fn next(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<Packet>, Violation> {
        loop {
            if let Some(packet) = self.decoder.decode(&mut self.buffer)? {
                return Ok(Some(packet));
            }
            if !matches!(self.fill(from).await, Ok(1..)) {
                return Ok(None);
            }
        }
    }

    /// The peer may send what a client may that was let in.
    pub(super) fn greeted(&mut self) {
        self.decoder.set_packet_bytes_max(PACKET_BYTES_MAX.get());
    }

    /// Hands every batch of packets to the worker until the peer goes away or breaks the rules.
    async fn pump(&mut self, context: &Context, conn: ConnId, outlet: &Outlet, from: &mut impl Reading) {
        loop {
            outlet.until_readable().await;
            let (packets, violation) = self.decode_all();
            let broken = violation.is_some();
            self.has_heard_all = matches!(packets.last(), Some(Packet::Disconnect(_)));
            if broken || !packets.is_empty() {
                let input = Input::Packets { conn, packets, violation };
                if context.mailbox.send(input).await.is_err() {
                    return;
                }
            }
            if broken || self.has_heard_all {
                // The worker ends the connection; nothing more is read.
                std::future::pending::<()>().await;
            }
            self.until_ready(from).await;
            match self.fill(from).await {
                Ok(1..) => {}
                end => {
                    self.has_heard_all = end.is_ok();
                    return;
                }
            }
        }
    }

    /// The packets that were read, up to the end or to what is none.
    fn decode_all(&mut self) -> (Vec<Packet>, Option<Violation>) {
        let mut packets = Vec::new();
        let violation = loop {
            match self.decoder.decode(&mut self.buffer) {
                Ok(Some(packet)) => {
                    if packets.is_empty() {
                        packets.reserve_exact(self.packets_at_once);
                    }
                    packets.push(packet);
                }
                Ok(None) => break None,
                Err(violation) => break Some(violation),
            }
        };
        self.packets_at_once = packets.len().clamp(1, PACKETS_FORESEEN_MAX);
        (packets, violation)
    }

    /// Waits until there is something to be read. Meanwhile whoever says little has no memory for what it may say.
    async fn until_ready(&mut self, from: &mut impl Reading) {
        let mut ready = pin!(from.until_ready());
        let is_ready = poll_fn(|context| Poll::Ready(ready.as_mut().poll(context).is_ready())).await;
        if !is_ready {
            if self.buffer.is_empty() && self.read_bytes == READ_SMALL_BYTES {
                self.buffer = BytesMut::new();
            }
            ready.await;
        }
    }

    /// Reads once. The buffer grows for who sends a lot and is given back when it is empty.
    async fn fill(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        if self.buffer.is_empty() && self.buffer.capacity() < self.read_bytes {
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(self.read_bytes);
        let read = from.read_buf(&mut self.buffer).await?;
        self.read_bytes = if read >= self.read_bytes {
            (self.read_bytes * 8).min(READ_LARGE_BYTES)
        } else if read < self.read_bytes / 8 {
            (self.read_bytes / 8).max(READ_SMALL_BYTES)
        } else {
            self.read_bytes
        };
        Ok(read)
    }
}

/// The writing half: writes whatever the outbox holds until its end.
async fn write_all(context: &Context, conn: ConnId, outlet: &Outlet, to: &mut impl Writing) -> End {
    let mut output = Output::default();
    let mut overdue = pin!(outlet.overdue());
    loop {
        let last = match outlet.take(&mut output).await {
            Taken::Bytes { last } => last,
            Taken::End => return End::Over,
            Taken::Abandoned => return End::Cut,
        };
        // In this order: what can be written at once is, and nothing else is looked at.
        let written = tokio::select! {
            biased;
            written = write_pieces(&output, to) => written,
            () = &mut overdue => return End::Cut,
        };
        if written.is_err() {
            return End::Cut;
        }
        let bytes = output.len();
        output.clear();
        if outlet.written(bytes) && context.mailbox.send(Input::Writable { conn }).await.is_err() {
            return End::Cut;
        }
        if last {
            return End::Over;
        }
        // A socket that always takes more must not keep the reading half, or the thread's other tasks, waiting.
        tokio::task::coop::consume_budget().await;
    }
}

async fn write_pieces(output: &Output, to: &mut impl Writing) -> io::Result<()> {
    let all: SmallVec<[&[u8]; 4]> = output.pieces().collect();
    for some in all.chunks(PIECES_AT_ONCE) {
        let mut slices: SmallVec<[IoSlice<'_>; 4]> = some.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            match to.write(left).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => IoSlice::advance_slices(&mut left, written),
            }
        }
    }
    to.flush().await
}
