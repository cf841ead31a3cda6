//! Ends a stream so that what was written last arrives.
//!
//! A TCP socket that is closed with unread bytes in it sends a reset instead of an end (RFC 9293,
//! 3.6.1; RFC 2525, 2.17), and on a reset the peer's system may throw away a CONNACK or DISCONNECT that
//! it has received and its program has not read yet. So the writing side is shut first, and what the
//! peer had sent by then is read and thrown away.
//!
//! A peer that has ended by itself sends nothing more, and loses nothing when the socket is closed at once.
//!
//! Deliberately short: whoever waits for the end of a connection must not wait for its peer.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::carrier::Carrier;

/// How long the end itself may take to be written.
const SHUTDOWN_WITHIN: Duration = Duration::from_millis(500);

/// For how long a peer that has been told of the end may be silent: enough for one close by to close its side.
const SILENT_MAX: Duration = Duration::from_millis(10);

/// How long it is listened to at most, while it goes on sending.
const DRAIN_WITHIN: Duration = Duration::from_millis(100);

/// How much of its bytes is thrown away at most.
const DRAIN_BYTES_MAX: u64 = 1_024 * 1_024;

/// How much of it at once.
const PIECE_BYTES: usize = 4_096;

/// Writes the end of the stream, then throws away what the peer has sent.
pub async fn close(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    if let Ok(Ok(())) = timeout(SHUTDOWN_WITHIN, stream.shutdown()).await {
        drain(stream).await;
    }
}

/// Writes the end of the stream to a peer that has written its own, where closing the socket does not say it.
pub async fn end<S: Carrier>(stream: &mut S) {
    if !S::ENDS_WITH_SOCKET {
        // However it ends, the stream is given up.
        let _ = timeout(SHUTDOWN_WITHIN, stream.shutdown()).await;
    }
}

async fn drain(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = stream.take(DRAIN_BYTES_MAX);
    // On the heap, so that a connection does not hold for life what it ends with.
    let mut thrown_away = BytesMut::with_capacity(PIECE_BYTES);
    let until_silent = async {
        while let Ok(Ok(1..)) = timeout(SILENT_MAX, rest.read_buf(&mut thrown_away)).await {
            thrown_away.clear();
        }
    };
    // However it ends, the stream is given up.
    let _ = timeout(DRAIN_WITHIN, until_silent).await;
}
