//! Requests that the service itself makes over HTTP: for key sets, to webhooks.
//!
//! A request has one time for all of it and a bound on what is read of the answer. It follows no redirect,
//! keeps no connection and no cookie, and goes through no proxy. The name is looked up and its addresses are
//! judged ([`Reach`]) here, and the connection is made to the address that was judged: a name
//! that answers otherwise a moment later leads nowhere else.
//!
//! Certificates are checked against the authorities that browsers trust, and those that an operator adds.

mod address;

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{self, Either};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

pub use address::Reach;

use crate::model::HttpUrl;

/// How many of a name's addresses are tried.
const ADDRESSES_MAX: usize = 4;

/// How long one address may take to take the connection: the next one may be alive.
const CONNECT_MAX: Duration = Duration::from_secs(3);

const AGENT: &str = concat!("holdfast/", env!("CARGO_PKG_VERSION"));

/// Makes requests. Cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    tls: TlsConnector,
    reach: Reach,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    /// How.
    pub method: Method,
    /// Whom and what.
    pub url: &'a HttpUrl,
    /// Beside those that say where the request goes and who makes it.
    pub headers: HeaderMap,
    /// The body; empty for none.
    pub body: Bytes,
    /// How long all of it may take.
    pub time_max: Duration,
    /// How much of the answer's body is read.
    pub answer_bytes_max: usize,
}

/// What was answered, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer. Says nothing that whoever named the address may not know.
#[derive(Debug, Error)]
pub enum OutboundError {
    /// The name has no address.
    #[error("the host has no address")]
    NoAddress(#[source] Option<io::Error>),
    /// All its addresses are ones that may not be asked.
    #[error("the host's address {0} is not a public one")]
    NotAllowed(IpAddr),
    /// Nobody takes the connection.
    #[error("the connection failed")]
    Connect(#[source] io::Error),
    /// The certificate is not trusted, or the handshake failed otherwise.
    #[error("TLS failed")]
    Tls(#[source] io::Error),
    /// What came back is no answer, or it broke off.
    #[error("the exchange failed")]
    Exchange(#[source] Box<dyn Error + Send + Sync>),
    /// It is an answer, and not the one that was asked for.
    #[error("answered with {}", .0.as_u16())]
    Status(StatusCode),
    /// More came than is read.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
    /// All of it took too long.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
}

/// Why there is no client. Names the file.
#[derive(Debug, Error)]
#[error("{file}: holds no certificates in PEM that can be trusted")]
pub struct AuthoritiesError {
    file: String,
    source: Box<dyn Error + Send + Sync>,
}

impl HttpClient {
    /// A client that asks whom `reach` allows. `authorities`: a file of certificates in PEM to be
    /// trusted too.
    ///
    /// # Errors
    /// The file cannot be read, or holds no certificate.
    pub fn new(authorities: Option<&Path>, reach: Reach) -> Result<Self, AuthoritiesError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(file) = authorities {
            add_authorities(&mut roots, file)
                .map_err(|source| AuthoritiesError { file: file.display().to_string(), source })?;
        }
        // The versions are rustls' own defaults, which its provider has.
        let builder =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|source| AuthoritiesError { file: "TLS".to_owned(), source: source.into() })?;
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), reach })
    }

    /// The same for another reach.
    #[must_use]
    pub fn reaching(&self, reach: Reach) -> Self {
        Self { reach, ..self.clone() }
    }

    /// Asks, and reads the answer.
    ///
    /// # Errors
    /// There is no answer. The request may have arrived all the same.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub async fn send(&self, asked: Outgoing<'_>) -> Result<Incoming, OutboundError> {
        let time_max = asked.time_max;
        let exchange = self.exchange(asked);
        tokio::time::timeout(time_max, exchange).await.unwrap_or(Err(OutboundError::TimedOut(time_max)))
    }

    /// Gets what is there: the body of an answer that says so.
    ///
    /// # Errors
    /// There is no answer, or it is of another status.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub async fn get(
        &self,
        url: &HttpUrl,
        time_max: Duration,
        bytes_max: usize,
    ) -> Result<Bytes, OutboundError> {
        let asked = Outgoing {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            time_max,
            answer_bytes_max: bytes_max,
        };
        let answer = self.send(asked).await?;
        if answer.status.is_success() { Ok(answer.body) } else { Err(OutboundError::Status(answer.status)) }
    }

    async fn exchange(&self, asked: Outgoing<'_>) -> Result<Incoming, OutboundError> {
        let url = asked.url;
        let stream = self.connect(url).await?;
        if !url.is_https() {
            return converse(stream, asked).await;
        }
        let name = ServerName::try_from(url.host().to_owned())
            .map_err(|error| OutboundError::Tls(io::Error::other(error)))?;
        let stream = self.tls.connect(name, stream).await.map_err(OutboundError::Tls)?;
        converse(stream, asked).await
    }

    /// A connection to the first of the host's addresses that may be asked and takes it.
    async fn connect(&self, url: &HttpUrl) -> Result<TcpStream, OutboundError> {
        let found = lookup_host((url.host(), url.port())).await;
        let found: Vec<SocketAddr> =
            found.map_err(|error| OutboundError::NoAddress(Some(error)))?.take(ADDRESSES_MAX).collect();
        let (allowed, refused): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|address| self.reach.allows(address.ip()));
        let mut failure = match refused.first() {
            Some(address) => OutboundError::NotAllowed(address.ip()),
            None => OutboundError::NoAddress(None),
        };
        for address in allowed {
            match tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = OutboundError::Connect(error),
                Err(_) => failure = OutboundError::Connect(io::ErrorKind::TimedOut.into()),
            }
        }
        Err(failure)
    }
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient").field("reach", &self.reach).finish_non_exhaustive()
    }
}

fn add_authorities(roots: &mut RootCertStore, file: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut any = false;
    for certificate in CertificateDer::pem_file_iter(file)? {
        roots.add(certificate?)?;
        any = true;
    }
    if any { Ok(()) } else { Err("no certificate".into()) }
}

/// One request and its answer over a connection of their own.
async fn converse<S>(stream: S, asked: Outgoing<'_>) -> Result<Incoming, OutboundError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let failed = |error: hyper::Error| OutboundError::Exchange(Box::new(error));
    let answer_bytes_max = asked.answer_bytes_max;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let mut request = Request::builder()
        .method(asked.method)
        .uri(asked.url.path_and_query())
        .header(HOST, asked.url.authority())
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "close")
        .body(Full::new(asked.body))
        .map_err(|error| OutboundError::Exchange(Box::new(error)))?;
    request.headers_mut().extend(asked.headers);
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), answer_bytes_max).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                OutboundError::TooLarge(answer_bytes_max)
            } else {
                OutboundError::Exchange(error)
            }
        })?;
        Ok(Incoming { status, body: body.to_bytes() })
    };
    // The connection moves the bytes. Its end, good or bad, is seen by the exchange.
    let moving = async {
        let _ = connection.await;
        future::pending::<()>().await;
    };
    match future::select(std::pin::pin!(exchange), std::pin::pin!(moving)).await {
        Either::Left((answer, _)) => answer,
        Either::Right(((), exchange)) => exchange.await,
    }
}
