//! Accepting connections over TCP, and the transports that are laid over it.
//!
//! The loop that accepts does nothing else: what a connection needs before its CONNECT it does in its
//! own task, in one of the listener's places for half open connections. Without a place it is closed at
//! once. QUIC listens by itself (see [`quic`](super::quic)).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::arrival::{Entrance, OpenError, Opened, Place};
use super::proxy_protocol::read_header;
use super::tally::Tally;
use super::tls::{Tls, Within};
use super::websocket::{self, WebSocket};
use super::{Context, connection};
use crate::config::Arrivals;
use crate::model::Transport;

/// How long accepting rests when the process or the system has run out of something.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// What lies over TCP.
#[derive(Clone, Debug)]
pub enum Layers {
    /// Nothing.
    Tcp,
    /// TLS.
    Tls(Arc<Tls>),
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss(Arc<Tls>),
}

/// One listener.
#[derive(Debug)]
pub struct Listener {
    entrance: Entrance,
    layers: Layers,
    /// Whether every connection begins with a PROXY protocol header.
    proxied: bool,
}

impl Listener {
    /// A listener as it is configured.
    pub fn new(layers: Layers, arrivals: &Arrivals) -> Self {
        let transport = match layers {
            Layers::Tcp => Transport::Tcp,
            Layers::Tls(_) => Transport::Tls,
            Layers::Ws => Transport::Ws,
            Layers::Wss(_) => Transport::Wss,
        };
        let entrance = Entrance::new(transport, arrivals);
        let proxied = arrivals.proxy_protocol.contains(entrance.listener);
        Self { entrance, layers, proxied }
    }

    /// The name of its flag.
    pub fn name(&self) -> &'static str {
        self.entrance.listener
    }

    /// Accepts connections until `stop`, each a task of `tasks`. The socket has no delay (`TCP_NODELAY`), which they
    /// have from it.
    pub async fn accept(
        self,
        socket: TcpListener,
        context: Context,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) {
        let listener = Arc::new(self);
        let (mut turned_away, mut failed) = (Tally::default(), Tally::default());
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if let Some(place) = listener.entrance.enter() {
                        Arc::clone(&listener).begin(&tasks, context.clone(), place, stream, peer);
                    } else if let Some(count) = turned_away.count(context.clock.mono()) {
                        let listener = listener.name();
                        tracing::warn!(
                            listener,
                            count,
                            "{listener}: closed {count} new connections: too many have not said CONNECT yet"
                        );
                    }
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    if let Some(count) = failed.count(context.clock.mono()) {
                        let listener = listener.name();
                        tracing::warn!(listener, %error, count, "{listener}: cannot accept connections: {error}");
                    }
                    tokio::time::sleep(REST_AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Begins a connection as a task of its own. Each transport has its kind of task, so that one over plain TCP
    /// does not take the room of one over TLS.
    fn begin(
        self: Arc<Self>,
        tasks: &TaskTracker,
        context: Context,
        place: Place,
        stream: TcpStream,
        peer: SocketAddr,
    ) {
        let asked = context.clone();
        match self.layers.clone() {
            Layers::Tcp => {
                let opening = Box::pin(async move { self.tcp(&asked, stream, peer).await });
                tasks.spawn(connection::run(context, place, opening));
            }
            Layers::Tls(tls) => {
                let opening =
                    Box::pin(async move { self.tls(&asked, &tls, Within::Mqtt, stream, peer).await });
                tasks.spawn(connection::run(context, place, opening));
            }
            Layers::Ws => {
                let opening = Box::pin(async move { self.ws(&asked, stream, peer).await });
                tasks.spawn(connection::run(context, place, opening));
            }
            Layers::Wss(tls) => {
                let opening = Box::pin(async move { self.wss(&asked, &tls, stream, peer).await });
                tasks.spawn(connection::run(context, place, opening));
            }
        }
    }

    async fn tcp(
        &self,
        context: &Context,
        mut stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<Opened<TcpStream>, OpenError> {
        let client = if self.proxied { read_header(&mut stream, peer).await? } else { peer };
        context.arrives(client.ip())?;
        Ok(self.entrance.opened(stream, client))
    }

    async fn tls(
        &self,
        context: &Context,
        tls: &Tls,
        within: Within,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<Opened<TlsStream<TcpStream>>, OpenError> {
        tls.accept(within, &self.entrance, self.tcp(context, stream, peer).await?).await
    }

    async fn ws(
        &self,
        context: &Context,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<Opened<WebSocket<TcpStream>>, OpenError> {
        websocket::upgrade(&self.entrance, self.tcp(context, stream, peer).await?).await
    }

    async fn wss(
        &self,
        context: &Context,
        tls: &Tls,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<Opened<WebSocket<TlsStream<TcpStream>>>, OpenError> {
        websocket::upgrade(&self.entrance, self.tls(context, tls, Within::Http, stream, peer).await?).await
    }
}

/// Whether accepting failed because of a connection that was gone again, so that the next one may be
/// had at once.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
