//! A connection before its CONNECT: by which listener it comes, what is known of it, and how many there
//! may be.
//!
//! A transport is a function from what came in to an [`Opened`] stream that carries MQTT; TLS and
//! WebSocket are laid over another one. All of it, CONNECT included, happens in one place among the
//! half open ones of the listener and before one deadline (see [`connection`](super::connection)).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::proxy_protocol::ProxyError;
use super::selection::{self, Asked};
use super::websocket::UpgradeError;
use crate::config::{Arrivals, Domain};
use crate::data_plane::session::link::Origin;
use crate::model::{ClusterId, Transport};

/// What the connections of one listener have in common.
#[derive(Debug)]
pub struct Entrance {
    /// The listener by the name of its flag.
    pub listener: &'static str,
    transport: Transport,
    cluster: ClusterId,
    domain: Option<Domain>,
    half_open: Arc<Semaphore>,
    half_open_max: usize,
}

/// A place among a listener's half open connections; free again when it is dropped.
#[derive(Debug)]
pub struct Place(#[allow(dead_code)] OwnedSemaphorePermit);

impl Entrance {
    /// An entrance as it is configured.
    pub fn new(transport: Transport, arrivals: &Arrivals) -> Self {
        let listener = match transport {
            Transport::Tcp => "mqtt",
            Transport::Tls => "mqtts",
            Transport::Ws => "ws",
            Transport::Wss => "wss",
            Transport::Quic => "quic",
        };
        let half_open_max = usize::try_from(arrivals.half_open_max.get()).unwrap_or(usize::MAX);
        let half_open_max = half_open_max.min(Semaphore::MAX_PERMITS);
        Self {
            listener,
            transport,
            cluster: arrivals.listener_clusters.of(listener),
            domain: arrivals.domain.clone(),
            half_open: Arc::new(Semaphore::new(half_open_max)),
            half_open_max,
        }
    }

    /// A place for one more half open connection, if there is one.
    pub fn enter(&self) -> Option<Place> {
        Arc::clone(&self.half_open).try_acquire_owned().ok().map(Place)
    }

    /// Whether more than half of the places are taken.
    pub fn is_crowded(&self) -> bool {
        self.half_open.available_permits() < self.half_open_max / 2
    }

    /// A stream from `peer` of which nothing else is known.
    pub fn opened<S>(&self, stream: S, peer: SocketAddr) -> Opened<S> {
        let origin = Origin {
            peer: peer.to_string(),
            listener: self.listener.to_owned(),
            transport: self.transport,
            tls_subject: None,
        };
        let asked = Asked { by_host: None, listener: self.cluster.clone() };
        Opened { stream, origin, asked, certificates: Vec::new() }
    }

    /// Notes the host name that a client asks for. The first one that names a cluster counts.
    pub fn note_host(&self, asked: &mut Asked, host: &str) {
        if let Some(domain) = &self.domain
            && asked.by_host.is_none()
        {
            asked.by_host = selection::cluster_of_host(host, domain.as_str());
        }
    }
}

/// A stream that carries MQTT, and what is known of who is at its other end.
#[derive(Debug)]
pub struct Opened<S> {
    /// The stream.
    pub stream: S,
    /// Where it comes from, for the record.
    pub origin: Origin,
    /// What decides on its cluster.
    pub asked: Asked,
    /// The certificates that it showed, its own first. That it has the key is proven; whether they are worth
    /// anything is for its cluster to say.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl<S> Opened<S> {
    /// The same with another stream, made of this one.
    pub fn over<T>(self, layer: impl FnOnce(S) -> T) -> Opened<T> {
        let Self { stream, origin, asked, certificates } = self;
        Opened { stream: layer(stream), origin, asked, certificates }
    }
}

/// A stream being opened. On the heap, so that a connection holds none of it afterwards.
pub type Opening<S> = Pin<Box<dyn Future<Output = Result<Opened<S>, OpenError>> + Send>>;

/// Why a stream was not opened. Always the peer's doing, or the network's.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The network broke, or the peer went away.
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    /// Too many connections come from this address.
    #[error("too many connections a second from this address")]
    TooMany,
    /// What stands before us did not say whose connection it is.
    #[error("no usable PROXY protocol header")]
    Proxy(#[from] ProxyError),
    /// No TLS.
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    /// No WebSocket.
    #[error("the WebSocket was not opened")]
    WebSocket(#[from] UpgradeError),
    /// No QUIC connection, or no stream in it.
    #[error("the QUIC connection was not opened")]
    Quic(#[from] quinn::ConnectionError),
}
