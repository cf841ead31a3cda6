//! The listener of the API: connections, and the bounds on what one may do before it has sent a request.
//!
//! A connection that does not send the head of its request in time is closed, at its first request and between
//! requests; so is one whose head is too long. What a request may then take is bounded by the layers of the
//! [`router`](super::router). Above [`Limits::connections`] further ones wait to be taken.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

/// How long to wait before the next try when a connection cannot be taken: it is mostly a lack of file
/// descriptors, which others give back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the head of a request may be: the headers of a token and a few more.
const HEAD_BYTES_MAX: usize = 64 * 1_024;

/// What a connection may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many there may be at once.
    pub connections: usize,
    /// How long one may take to send the head of a request, and be idle between requests.
    pub head_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 4_096, head_time_max: Duration::from_secs(20) }
    }
}

/// Serves until `stop` is cancelled, then lets requests under way be finished.
///
/// # Errors
/// Never by itself: what goes wrong with one connection ends that one.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) -> io::Result<()> {
    let (room, connections) = (Arc::new(Semaphore::new(limits.connections)), TaskTracker::new());
    let mut failing = false;
    loop {
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    let _permit = permit;
                    converse(stream, peer, router, limits, stop).await;
                });
            }
            Err(error) => {
                if !failing {
                    warn!(%error, "no connection of the API can be taken for now: {error}");
                }
                failing = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
    Ok(())
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let service = service_fn(move |request| answer(router.clone(), peer, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time_max)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "a connection of the API ended: {error}");
    }
}

async fn answer(
    router: Router,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let mut request = request.map(Body::new);
    // The address of the caller is for the audit log.
    request.extensions_mut().insert(ConnectInfo(peer));
    router.oneshot(request).await
}
