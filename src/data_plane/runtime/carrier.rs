//! What carries the bytes of a connection: a stream, and its two halves once the client is let in.

use std::io::{self, IoSlice};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::server::TlsStream;

/// A stream that carries MQTT.
pub trait Carrier: AsyncRead + AsyncWrite + Send + Sized + Unpin {
    /// Whether the end of its socket is its own: there is no word of its own to say first.
    const ENDS_WITH_SOCKET: bool = false;

    /// What is read from.
    type Reading: Reading;
    /// What is written to.
    type Writing: Writing;

    /// The peer's CONNECT was read: from now on it may send more at once than a stranger may.
    fn greeted(&mut self) {}

    /// The two halves.
    fn into_halves(self) -> (Self::Reading, Self::Writing);

    /// The whole of two halves, of which nobody else may still have a part; else `None`.
    fn of_halves(reading: Self::Reading, writing: Self::Writing) -> Option<Self>;
}

/// The half of a carrier that is read from.
pub trait Reading: AsyncRead + Send + Unpin {
    /// Returns when there is something to be read, an end or an error included; at once where that cannot be known.
    fn until_ready(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// The half of a carrier that is written to.
pub trait Writing: Send {
    /// Writes some of `pieces`, and says how many bytes; 0 when the stream takes no more.
    fn write(&mut self, pieces: &[IoSlice<'_>]) -> impl Future<Output = io::Result<usize>> + Send;

    /// Has what was written leave.
    fn flush(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// The socket, where what is written to it is what the peer reads: others may write to it too, in turn.
    fn socket(&self) -> Option<Arc<OwnedWriteHalf>> {
        None
    }
}

impl Carrier for TcpStream {
    const ENDS_WITH_SOCKET: bool = true;

    type Reading = OwnedReadHalf;
    type Writing = Arc<OwnedWriteHalf>;

    fn into_halves(self) -> (Self::Reading, Self::Writing) {
        let (reading, writing) = self.into_split();
        (reading, Arc::new(writing))
    }

    fn of_halves(reading: Self::Reading, writing: Self::Writing) -> Option<Self> {
        reading.reunite(Arc::into_inner(writing)?).ok()
    }
}

impl Reading for OwnedReadHalf {
    async fn until_ready(&mut self) {
        // What is wrong with the socket shows when it is read.
        let _ = self.readable().await;
    }
}

impl<S: AsyncRead + Send> Reading for ReadHalf<S> {}

impl Writing for Arc<OwnedWriteHalf> {
    async fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match self.try_write_vectored(pieces) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                written => return written,
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn socket(&self) -> Option<Self> {
        Some(Self::clone(self))
    }
}

/// The halves of a [`Carrier`] that is no socket: they lock it in turn.
macro_rules! halves_by_lock {
    () => {
        type Reading = tokio::io::ReadHalf<Self>;
        type Writing = tokio::io::WriteHalf<Self>;

        fn into_halves(self) -> (Self::Reading, Self::Writing) {
            tokio::io::split(self)
        }

        fn of_halves(reading: Self::Reading, writing: Self::Writing) -> Option<Self> {
            Some(reading.unsplit(writing))
        }
    };
}
pub(super) use halves_by_lock;

impl<S: Carrier> Carrier for TlsStream<S> {
    halves_by_lock!();
}

impl<S: AsyncWrite + Send> Writing for WriteHalf<S> {
    async fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_vectored(pieces).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        AsyncWriteExt::flush(self).await
    }
}
