//! MQTT over QUIC (RFC 9000): ALPN `mqtt`, one connection, one bidirectional stream that the client opens.
//!
//! Further streams are refused by the transport: there is credit for one and none for unidirectional
//! ones. Nothing is taken early (0-RTT): a CONNECT must not be open to replay.
//!
//! The idle timeout is the longest silence that MQTT allows, so that QUIC never ends what the keep-alive
//! still lets live; no pings are sent that would wake a sleeping device. A client that wants a shorter
//! one says so in its own transport parameters, and the smaller of the two holds (RFC 9000, 10.1).

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use quinn::crypto::rustls::{HandshakeData, NoInitialCipherSuite, QuicServerConfig};
use quinn::{
    Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, RecvStream, SendStream, ServerConfig,
    StoppedError, TokioRuntime, TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::arrival::{Entrance, OpenError, Opened, Place};
use super::carrier::{Carrier, halves_by_lock};
use super::tally::Tally;
use super::tls::{Reloads, Tls, Within};
use super::{Context, connection};
use crate::config::Arrivals;
use crate::model::Transport;

/// The longest silence that MQTT allows: one and a half times the longest keep-alive (`[MQTT-3.1.2-22]`),
/// in seconds. A connection without a keep-alive is held to it too; otherwise one whose peer vanished
/// would never end.
const IDLE_SECS_MAX: u32 = 65_535 * 3 / 2;

/// How much of a client's output is kept that was not read yet, and of ours that was not acknowledged,
/// in bytes; the latter bounds a slow consumer together with its outbox.
const WINDOW_BYTES: u32 = 256 * 1_024;

/// How long connections have to end when the service stops; more than they are given by the worker.
const GOODBYE_WITHIN: Duration = Duration::from_secs(4);

/// Of the application's error codes MQTT over QUIC uses none: what there is to say is said in packets.
const NO_ERROR: VarInt = VarInt::from_u32(0);

/// The listener.
#[derive(Debug)]
pub struct Quic {
    endpoint: Endpoint,
    entrance: Entrance,
    tls: Arc<Tls>,
    reloads: Reloads,
}

/// Why there is no QUIC listener.
#[derive(Debug, Error)]
pub enum QuicError {
    /// The port cannot be had.
    #[error(transparent)]
    Bind(#[from] io::Error),
    /// The provider of TLS lacks what QUIC begins with.
    #[error("TLS cannot be used for QUIC")]
    Tls(#[from] NoInitialCipherSuite),
}

impl Quic {
    /// Takes the port. Must be called within the runtime.
    ///
    /// # Errors
    /// [`QuicError`].
    pub fn bind(address: SocketAddr, tls: Arc<Tls>, arrivals: &Arrivals) -> Result<Self, QuicError> {
        let reloads = tls.reloads();
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Some(server_config(&tls)?),
            UdpSocket::bind(address)?,
            Arc::new(TokioRuntime),
        )?;
        Ok(Self { endpoint, entrance: Entrance::new(Transport::Quic, arrivals), tls, reloads })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Accepts connections until `stop`, each a task of `tasks`, and then waits for their last packets
    /// to be gone.
    pub async fn accept(self, context: Context, stop: CancellationToken, tasks: TaskTracker) {
        let Self { endpoint, entrance, tls, mut reloads } = self;
        let entrance = Arc::new(entrance);
        let mut turned_away = Tally::default();
        loop {
            let incoming = tokio::select! {
                incoming = endpoint.accept() => incoming,
                () = reloads.next() => {
                    match server_config(&tls) {
                        Ok(config) => endpoint.set_server_config(Some(config)),
                        Err(error) => tracing::error!(%error, "quic: the new certificates cannot be used: {error}"),
                    }
                    continue;
                }
                () = stop.cancelled() => break,
            };
            // There is none any more only when the endpoint was closed, which nobody does.
            let Some(incoming) = incoming else { break };
            match entrance.enter() {
                // Who claims an address has to be reachable there before there is a rush (RFC 9000, 8.1.2).
                Some(_) if entrance.is_crowded() && incoming.may_retry() => drop(incoming.retry()),
                Some(place) => {
                    let opening = (Arc::clone(&entrance), Arc::clone(&tls), incoming);
                    tasks.spawn(serve(context.clone(), place, opening));
                }
                None => {
                    incoming.refuse();
                    if let Some(count) = turned_away.count(context.clock.mono()) {
                        tracing::warn!(
                            listener = "quic",
                            count,
                            "quic: refused {count} new connections: too many have not said CONNECT yet"
                        );
                    }
                }
            }
        }
        let refuse_others = async {
            while let Some(incoming) = endpoint.accept().await {
                incoming.refuse();
            }
        };
        let _ = timeout(GOODBYE_WITHIN, async {
            tokio::select! {
                () = endpoint.wait_idle() => {}
                () = refuse_others => {}
            }
        })
        .await;
    }
}

async fn serve(
    context: Context,
    place: Place,
    (entrance, tls, incoming): (Arc<Entrance>, Arc<Tls>, Incoming),
) {
    let asked = context.clone();
    let opening = Box::pin(async move { open(&asked, &entrance, &tls, incoming).await });
    connection::run(context, place, opening).await;
}

/// Shakes hands and waits for the stream.
async fn open(
    context: &Context,
    entrance: &Entrance,
    tls: &Tls,
    incoming: Incoming,
) -> Result<Opened<QuicStream>, OpenError> {
    if let Err(too_many) = context.arrives(incoming.remote_address().ip()) {
        incoming.refuse();
        return Err(too_many);
    }
    let connection = incoming.accept()?.await?;
    let (send, recv) = connection.accept_bi().await?;
    let peer = connection.remote_address();
    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    let certificates =
        connection.peer_identity().and_then(|id| id.downcast::<Vec<CertificateDer<'static>>>().ok());
    let stream = QuicStream { connection, send, recv, delivered: None };
    let mut opened = entrance.opened(stream, peer);
    if let Some(name) = data.and_then(|data| data.server_name) {
        entrance.note_host(&mut opened.asked, &name);
    }
    opened.certificates = certificates.map(|shown| *shown).unwrap_or_default();
    opened.origin.tls_subject = tls.trusted_subject(&opened.certificates);
    Ok(opened)
}

fn server_config(tls: &Tls) -> Result<ServerConfig, NoInitialCipherSuite> {
    let crypto = QuicServerConfig::try_from(tls.config(Within::Mqtt))?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(1_u8.into())
        .max_concurrent_uni_streams(0_u8.into())
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_SECS_MAX * 1_000))))
        .stream_receive_window(WINDOW_BYTES.into())
        .receive_window(WINDOW_BYTES.into())
        .send_window(WINDOW_BYTES.into());
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// The two directions of the one stream, with the connection around them.
///
/// Its end, as [`AsyncWrite::poll_shutdown`], is reached when the client's side has everything: closing
/// the connection would throw away what is still on its way (RFC 9000, 10.2).
struct QuicStream {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    /// Waits for the client's acknowledgement of everything, once the end was written.
    delivered: Option<Delivered>,
}

type Delivered = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send>>;

impl Carrier for QuicStream {
    halves_by_lock!();
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        self.connection.close(NO_ERROR, b"");
    }
}

impl AsyncRead for QuicStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.recv), context, into)
    }
}

impl AsyncWrite for QuicStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let delivered = match &mut this.delivered {
            Some(delivered) => delivered,
            none => {
                // Stopped by the client: then it does not want the rest.
                let _ = this.send.finish();
                none.insert(Box::pin(this.send.stopped()))
            }
        };
        let outcome = ready!(delivered.as_mut().poll(context));
        this.delivered = None;
        Poll::Ready(outcome.map(drop).map_err(io::Error::from))
    }
}
