//! Every transport from the client's side, each as a stream of bytes that MQTT is spoken over.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use hyper::Uri;
use hyper::header::{HOST, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_websockets::{ClientBuilder, Message};

use super::PATIENCE;
use super::mqtt::{Carrier, RawClient};
use super::pki::{SERVER_NAME, ServerFiles};
use super::server::{Options, Server};

/// The transports by the names of their listeners.
pub(crate) const ALL: [&str; 5] = ["mqtt", "mqtts", "ws", "wss", "quic"];

/// A server with every listener, on a database of its own.
pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) files: ServerFiles,
}

impl Site {
    /// Starts it for anonymous clients, with further `flags`.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Self::start_with(ServerFiles::new(), flags, Vec::new()).await
    }

    /// Starts it with these files and, beside the `flags`, the parts of error lines that are expected.
    pub(crate) async fn start_with(
        files: ServerFiles,
        flags: &[&str],
        errors_expected: Vec<&'static str>,
    ) -> Self {
        let mut all = files.flags();
        all.push("--dev".to_owned());
        for listener in ALL.iter().filter(|name| **name != "mqtt") {
            all.extend([format!("--{listener}"), "127.0.0.1:0".to_owned()]);
        }
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let options = Options { flags: all, errors_expected, ..Options::default() };
        Self { server: Server::start(options).await, files }
    }

    /// A client that came in by this listener and has said nothing yet.
    pub(crate) async fn client(&self, listener: &str) -> RawClient {
        RawClient::over(self.stream(listener).await)
    }

    /// A connection by this listener.
    pub(crate) async fn stream(&self, listener: &str) -> Box<dyn Carrier> {
        let address = self.server.address(listener);
        let config = |protocol| Arc::new(self.files.authority.trusting(None, Some(protocol)));
        match listener {
            "mqtt" => Box::new(tcp(address).await),
            "mqtts" => Box::new(tls(address, SERVER_NAME, config("mqtt")).await.expect("a handshake")),
            "ws" => Box::new(websocket(tcp(address).await, SERVER_NAME, "mqtt").await.expect("an upgrade")),
            "wss" => {
                let stream = tls(address, SERVER_NAME, config("http/1.1")).await.expect("a handshake");
                Box::new(websocket(stream, SERVER_NAME, "mqtt").await.expect("an upgrade"))
            }
            "quic" => Box::new(quic(address, SERVER_NAME, config("mqtt")).await.expect("a connection")),
            other => panic!("no transport {other}"),
        }
    }

    pub(crate) async fn stop(self) {
        self.server.stop().await;
    }
}

pub(crate) async fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("a listener");
    stream.set_nodelay(true).expect("an option");
    stream
}

/// Shakes hands, asking for `name`.
pub(crate) async fn tls(
    address: SocketAddr,
    name: &str,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    TlsConnector::from(config).connect(name, tcp(address).await).await
}

/// Asks for `/mqtt` at `host` with the given subprotocol.
pub(crate) async fn websocket(
    stream: impl Carrier + 'static,
    host: &str,
    subprotocol: &str,
) -> Result<DuplexStream, tokio_websockets::Error> {
    let uri = Uri::from_str(&format!("ws://{host}/mqtt")).expect("an address");
    let builder = ClientBuilder::from_uri(uri)
        .add_header(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(subprotocol).expect("a name"))?;
    let (mut frames, response) = builder.connect_on(stream).await?;
    assert_eq!(response.headers().get(SEC_WEBSOCKET_PROTOCOL).expect("a choice"), subprotocol);
    assert!(response.headers().get(HOST).is_none());

    // What a test writes at once goes out as one frame; what comes in as frames is read as bytes.
    let (near, mut far) = tokio::io::duplex(1 << 20);
    tokio::spawn(async move {
        let mut out = BytesMut::new();
        loop {
            tokio::select! {
                written = far.read_buf(&mut out) => {
                    if !matches!(written, Ok(1..)) {
                        drop(frames.close().await);
                        return;
                    }
                    if frames.send(Message::binary(out.split())).await.is_err() {
                        return;
                    }
                }
                message = frames.next() => match message {
                    Some(Ok(message)) if message.is_binary() => {
                        if far.write_all(message.as_payload()).await.is_err() {
                            return;
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                },
            }
        }
    });
    Ok(near)
}

/// A connection with one stream. The endpoint lives as long as the stream.
pub(crate) struct QuicClient {
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) connection: quinn::Connection,
    pub(crate) stream: tokio::io::Join<quinn::RecvStream, quinn::SendStream>,
}

/// Shakes hands, asking for `name`, and opens a stream.
pub(crate) async fn quic(
    address: SocketAddr,
    name: &str,
    config: Arc<ClientConfig>,
) -> Result<DuplexStream, quinn::ConnectionError> {
    let QuicClient { endpoint, connection, mut stream } = quic_client(address, name, config).await?;
    let (near, mut far) = tokio::io::duplex(1 << 20);
    tokio::spawn(async move {
        // Ends when either side does.
        drop(tokio::io::copy_bidirectional(&mut far, &mut stream).await);
        drop(far);
        connection.close(0_u8.into(), b"");
        endpoint.wait_idle().await;
    });
    Ok(near)
}

/// The same with its parts in sight.
pub(crate) async fn quic_client(
    address: SocketAddr,
    name: &str,
    config: Arc<ClientConfig>,
) -> Result<QuicClient, quinn::ConnectionError> {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).expect("TLS 1.3");
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let client = quinn::ClientConfig::new(Arc::new(crypto));
    let connecting = endpoint.connect_with(client, address, name).expect("a configuration");
    let connection = timeout(PATIENCE, connecting).await.expect("an answer in time")?;
    let (send, recv) = connection.open_bi().await?;
    Ok(QuicClient { endpoint, connection, stream: tokio::io::join(recv, send) })
}
