//! A WebSocket as the stream of bytes that its binary frames stand for.
//!
//! Where one frame ends and the next begins means nothing to MQTT (`[MQTT-6.0.0-2]`): a packet may come
//! in several frames and a frame may hold several packets. What is written together becomes one frame.
//! A text frame ends the connection (`[MQTT-6.0.0-1]`). Pings are answered, a close is answered.
//!
//! Each direction copies once: in from the frame to the reader's buffer, out into the frame, which has
//! to own its bytes.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_websockets::{CloseCode, Error, Limits, Message, ServerBuilder, WebSocketStream};

use crate::config::Hygiene;
use crate::data_plane::PACKET_BYTES_MAX;
use crate::data_plane::runtime::carrier::{Carrier, halves_by_lock};

/// How many packets of the greatest size a client may put into one message, which is kept until it is
/// whole.
const PACKETS_PER_MESSAGE: usize = 4;

/// How much goes out in one frame, in bytes.
const FRAME_BYTES_MAX: usize = 64 * 1_024;

/// How many pings a client may have answered without reading the answers; then it is no longer read.
const PONGS_WAITING_MAX: u32 = 16;

/// A WebSocket on the server's side.
#[derive(Debug)]
pub struct WebSocket<S> {
    inner: WebSocketStream<S>,
    /// What was not yet read of the message at hand.
    unread: Bytes,
    /// Answers to pings that were queued since everything was last written.
    pongs_waiting: u32,
    /// Whether the close was queued.
    closing: bool,
}

impl<S: Carrier> WebSocket<S> {
    /// Frames over a stream whose HTTP request was answered.
    pub fn new(stream: S) -> Self {
        let limits = Limits::default().max_payload_len(Some(Hygiene::CONNECT_BYTES_MAX as usize));
        let inner = ServerBuilder::new().limits(limits).serve(stream);
        Self { inner, unread: Bytes::new(), pongs_waiting: 0, closing: false }
    }

    /// Takes in what comes next. `Ok(false)` at the end.
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.pongs_waiting >= PONGS_WAITING_MAX {
            ready!(Pin::new(&mut *self).poll_flush(context))?;
        }
        let Some(message) = ready!(pin!(&mut self.inner).poll_next(context)) else {
            return Poll::Ready(Ok(false));
        };
        let message = message.map_err(to_io)?;
        if message.is_binary() {
            self.unread = message.into_payload().into();
        } else if message.is_text() {
            self.queue_close(CloseCode::UNSUPPORTED_DATA);
            let what = io::Error::new(io::ErrorKind::InvalidData, "a text frame [MQTT-6.0.0-1]");
            return Poll::Ready(Err(what));
        } else if message.is_ping() {
            // The answer is queued already.
            self.pongs_waiting += 1;
        }
        Poll::Ready(Ok(true))
    }

    /// After the client's own close there is nothing more to say.
    fn queue_close(&mut self, code: CloseCode) {
        if !self.closing {
            self.closing = true;
            let _ = Pin::new(&mut self.inner).start_send(Message::close(Some(code), ""));
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.inner).poll_ready(context)).map_err(to_io)?;
        let whole: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut frame = BytesMut::with_capacity(whole.min(FRAME_BYTES_MAX));
        for piece in pieces {
            let room = FRAME_BYTES_MAX - frame.len();
            frame.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        let sent = frame.len();
        if sent > 0 {
            Pin::new(&mut self.inner).start_send(Message::binary(frame)).map_err(to_io)?;
        }
        Poll::Ready(Ok(sent))
    }
}

impl<S: Carrier> Carrier for WebSocket<S> {
    halves_by_lock!();

    fn greeted(&mut self) {
        let bytes_max = PACKETS_PER_MESSAGE * PACKET_BYTES_MAX.get() as usize;
        self.inner.limits_mut().set_max_payload_len(Some(bytes_max));
        self.inner.get_mut().greeted();
    }
}

impl<S: Carrier> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            if !ready!(self.poll_message(context))? {
                return Poll::Ready(Ok(()));
            }
        }
        let read = self.unread.len().min(into.remaining());
        into.put_slice(&self.unread[..read]);
        self.unread.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: Carrier> AsyncWrite for WebSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(context)).map_err(to_io)?;
        self.pongs_waiting = 0;
        Poll::Ready(Ok(()))
    }

    /// Sends a close and ends the stream without waiting for the client's close: the client may never
    /// send one (RFC 6455, 7.1.1 lets a server go first).
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.queue_close(CloseCode::NORMAL_CLOSURE);
        ready!(self.as_mut().poll_flush(context))?;
        Pin::new(self.inner.get_mut()).poll_shutdown(context)
    }
}

fn to_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}
