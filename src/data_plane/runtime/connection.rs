//! One connection: bytes in to the worker, bytes out from the outbox.
//!
//! Knows nothing of transports: it waits until one is opened, then for CONNECT, both before one deadline
//! and in one place among the half open connections. Holds no protocol state but the decoder's. A reading and a writing half run side by side in one
//! task, so that a client that does not read cannot keep us from hearing it, and the other way round.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use uuid::Uuid;

use super::arrival::{Carrier, OpenError, Opened, Opening, Place};
use super::outbox::{FAREWELL_WITHIN, Outbox, Taken};
use super::{Context, Input, goodbye};
use crate::data_plane::PACKET_BYTES_MAX;
use crate::data_plane::cluster::ConnectRequest;
use crate::data_plane::protocol::{Connect, Decoder, Packet, Violation, encode};
use crate::data_plane::session::link::ConnId;
use crate::data_plane::session::output::Output;

/// How long a connection may take from its first byte to the last of its CONNECT: TLS, WebSocket and
/// whatever else is laid over it included.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// The largest CONNECT, in bytes: all that an unknown peer can make us keep.
pub const CONNECT_BYTES_MAX: u32 = 64 * 1_024;

/// How much is read at once from a connection that has been quiet. An idle connection holds no more.
const READ_SMALL_BYTES: usize = 512;

/// How much is read at once from a connection that sends a lot.
const READ_LARGE_BYTES: usize = 64 * 1_024;

/// How much memory a connection's output buffer keeps while nothing is written.
const WRITE_KEEP_BYTES: usize = 0;

/// How many pieces are handed to the socket in one call.
const PIECES_AT_ONCE: usize = 64;

/// A connection that has said who it is.
struct Greeted<S> {
    opened: Opened<S>,
    reader: Reader,
    connect: Connect,
}

/// How the exchange of packets came to its end.
enum End {
    /// The last of the output was written, with the end of the stream.
    Said,
    /// The peer went away, or sent what the transport does not carry.
    Gone,
    /// The connection broke, or the last bytes took too long, or the worker is no more.
    Cut,
}

/// Runs a connection from its first byte to its last, and tells the worker when it is closed.
pub async fn run<S: Carrier>(context: Context, place: Place, opening: Opening<S>) {
    // On the heap, so that a connection does not hold for life what was needed to open it.
    let Some(greeted) = Box::pin(greet(&context, opening)).await else { return };
    drop(place);
    let Greeted { opened: Opened { stream, origin, asked }, mut reader, connect } = greeted;
    let conn = context.next_conn();
    let outbox = Arc::new(Outbox::default());
    let request = ConnectRequest { conn, origin, connect, fresh_id: Uuid::now_v7() };
    let input = Input::Connect { asked, request: Box::new(request), outbox: Arc::clone(&outbox) };
    if context.mailbox.send(input).await.is_err() {
        return;
    }
    let (mut reading, mut writing) = tokio::io::split(stream);
    let end = tokio::select! {
        () = reader.pump(&context, conn, &outbox, &mut reading) => End::Gone,
        written = write_all(&context, conn, &outbox, &mut writing) => written.map_or(End::Cut, |()| End::Said),
        () = outbox.farewell_overdue() => End::Cut,
        () = context.mailbox.closed() => End::Cut,
    };
    let mut stream = reading.unsplit(writing);
    match end {
        End::Said => goodbye::drain(&mut stream).await,
        End::Gone => goodbye::close(&mut stream).await,
        End::Cut => {}
    }
    // The socket is closed before the worker hears of it: that is what proves a kick.
    drop(stream);
    let _ = context.mailbox.send(Input::Closed { conn }).await;
}

/// Opens the stream and reads its CONNECT, if all of that comes in time and while there is a worker.
async fn greet<S: Carrier>(context: &Context, opening: Opening<S>) -> Option<Greeted<S>> {
    tokio::select! {
        greeted = tokio::time::timeout(CONNECT_WITHIN, open_and_read(opening)) => match greeted {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection was not opened: {error}");
                None
            }
            Err(_) => None,
        },
        () = context.mailbox.closed() => None,
    }
}

async fn open_and_read<S: Carrier>(opening: Opening<S>) -> Result<Option<Greeted<S>>, OpenError> {
    let mut opened = opening.await?;
    let mut reader = Reader::new();
    match reader.connect(&mut opened.stream).await {
        Ok(Some(connect)) => {
            opened.stream.greeted();
            Ok(Some(Greeted { opened, reader, connect }))
        }
        Ok(None) => {
            goodbye::close(&mut opened.stream).await;
            Ok(None)
        }
        Err(violation) => {
            refuse(&mut opened.stream, &violation).await;
            Ok(None)
        }
    }
}

/// The reading half.
struct Reader {
    decoder: Decoder,
    buffer: BytesMut,
    /// How much to make room for; follows how much comes.
    read_bytes: usize,
}

impl Reader {
    fn new() -> Self {
        Self {
            decoder: Decoder::server(CONNECT_BYTES_MAX),
            buffer: BytesMut::new(),
            read_bytes: READ_SMALL_BYTES,
        }
    }

    /// The first packet; `None` when the peer goes away before it is whole.
    async fn connect(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Result<Option<Connect>, Violation> {
        loop {
            if let Some(packet) = self.decoder.decode(&mut self.buffer)? {
                let Packet::Connect(connect) = packet else { return Ok(None) };
                self.decoder.set_packet_bytes_max(PACKET_BYTES_MAX.get());
                return Ok(Some(*connect));
            }
            if !matches!(self.fill(from).await, Ok(1..)) {
                return Ok(None);
            }
        }
    }

    /// Hands every batch of packets to the worker until the peer goes away or breaks the rules.
    async fn pump(
        &mut self,
        context: &Context,
        conn: ConnId,
        outbox: &Outbox,
        from: &mut (impl AsyncRead + Unpin),
    ) {
        loop {
            outbox.until_readable().await;
            let mut packets = Vec::new();
            let violation = loop {
                match self.decoder.decode(&mut self.buffer) {
                    Ok(Some(packet)) => packets.push(packet),
                    Ok(None) => break None,
                    Err(violation) => break Some(violation),
                }
            };
            let broken = violation.is_some();
            if broken || !packets.is_empty() {
                let input = Input::Packets { conn, packets, violation };
                if context.mailbox.send(input).await.is_err() {
                    return;
                }
            }
            if broken {
                // The worker answers and ends the connection; nothing more is read.
                std::future::pending::<()>().await;
            }
            if !matches!(self.fill(from).await, Ok(1..)) {
                return;
            }
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
async fn write_all(
    context: &Context,
    conn: ConnId,
    outbox: &Outbox,
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut output = Output::default();
    while let Taken::Bytes { last } = outbox.take(&mut output).await {
        write_pieces(&output, to).await?;
        let written = output.len();
        output.clear(WRITE_KEEP_BYTES);
        if outbox.written(written) && context.mailbox.send(Input::Writable { conn }).await.is_err() {
            break;
        }
        if last {
            break;
        }
    }
    to.shutdown().await
}

async fn write_pieces(output: &Output, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let all: SmallVec<[&[u8]; 4]> = output.pieces().collect();
    for some in all.chunks(PIECES_AT_ONCE) {
        let mut slices: SmallVec<[IoSlice<'_>; 4]> = some.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            match to.write_vectored(left).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => IoSlice::advance_slices(&mut left, written),
            }
        }
    }
    to.flush().await
}

/// Answers a CONNECT that is no packet, as far as the standard allows (`[MQTT-3.1.4-1]`).
async fn refuse(to: &mut (impl AsyncRead + AsyncWrite + Unpin), violation: &Violation) {
    if let Some((version, connack)) = violation.connack() {
        let mut bytes = Vec::new();
        encode(&Packet::ConnAck(Box::new(connack)), version, &mut bytes);
        // The peer may be gone or not read; there is nobody left to tell.
        let _ = tokio::time::timeout(FAREWELL_WITHIN, to.write_all(&bytes)).await;
    }
    goodbye::close(to).await;
}
