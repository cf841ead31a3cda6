//! One connection: bytes in to the worker, bytes out from the outbox.
//!
//! Knows nothing of transports, nor of how a client says who it is: both is [`greeting`]'s. Holds no
//! protocol state but the decoder's. A reading and a writing half run side by side in one task, so that a
//! client that does not read cannot keep us from hearing it, and the other way round.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::BytesMut;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use uuid::Uuid;

use super::arrival::{Carrier, Opened, Opening, Place};
use super::greeting::{self, Greeted};
use super::outbox::{Outbox, Taken};
use super::{Context, Input, goodbye};
use crate::data_plane::PACKET_BYTES_MAX;
use crate::data_plane::cluster::ConnectRequest;
use crate::data_plane::protocol::{Connect, Decoder, Packet, Violation};
use crate::data_plane::session::link::ConnId;
use crate::data_plane::session::output::Output;

/// How much is read at once from a connection that has been quiet. An idle connection holds no more.
const READ_SMALL_BYTES: usize = 512;

/// How much is read at once from a connection that sends a lot.
const READ_LARGE_BYTES: usize = 64 * 1_024;

/// How much memory a connection's output buffer keeps while nothing is written.
const WRITE_KEEP_BYTES: usize = 0;

/// How many pieces are handed to the socket in one call.
const PIECES_AT_ONCE: usize = 64;

/// How the exchange of packets came to its end.
enum End {
    /// The last of the output was written, or the peer went away or sent what the transport does not carry.
    Over,
    /// The connection broke, or the last bytes took too long, or the worker is no more.
    Cut,
}

/// Runs a connection from its first byte to its last, and tells the worker when it is closed.
pub async fn run<S: Carrier>(context: Context, place: Place, opening: Opening<S>) {
    // On the heap, so that a connection does not hold for life what was needed to open it.
    let Some(greeted) = Box::pin(greeting::greet(&context, opening)).await else { return };
    drop(place);
    let Greeted { opened: Opened { stream, origin, .. }, mut reader, connect, judged, pass: _pass } = greeted;
    let conn = context.next_conn();
    let outbox = Arc::new(Outbox::default());
    let request = ConnectRequest { conn, origin, connect, proven: judged.proven, fresh_id: Uuid::now_v7() };
    let input = Input::Connect {
        cluster: judged.cluster,
        judged_by: judged.by,
        request: Box::new(request),
        outbox: Arc::clone(&outbox),
    };
    if context.mailbox.send(input).await.is_err() {
        return;
    }
    let (mut reading, mut writing) = tokio::io::split(stream);
    let end = tokio::select! {
        () = reader.pump(&context, conn, &outbox, &mut reading) => End::Over,
        written = write_all(&context, conn, &outbox, &mut writing) => written.map_or(End::Cut, |()| End::Over),
        () = outbox.farewell_overdue() => End::Cut,
        () = context.mailbox.closed() => End::Cut,
    };
    let mut stream = reading.unsplit(writing);
    match end {
        End::Over if reader.has_heard_all => goodbye::end(&mut stream).await,
        End::Over => goodbye::close(&mut stream).await,
        End::Cut => {}
    }
    // The socket is closed before the worker hears of it: that is what proves a kick.
    drop(stream);
    let _ = context.mailbox.send(Input::Closed { conn }).await;
}

/// The reading half.
pub(super) struct Reader {
    decoder: Decoder,
    buffer: BytesMut,
    /// How much to make room for; follows how much comes.
    read_bytes: usize,
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
            match self.fill(from).await {
                Ok(1..) => {}
                end => {
                    self.has_heard_all = end.is_ok();
                    return;
                }
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
    Ok(())
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
