//! Accepting connections.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Context, connection};
use crate::data_plane::session::link::Origin;
use crate::model::{ClusterId, Transport};

/// How long accepting rests when the process has run out of file descriptors.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Accepts plain TCP connections until `stop`, each a task of `tasks`.
pub async fn tcp(
    context: Context,
    listener: TcpListener,
    cluster: ClusterId,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                tasks.spawn(serve_tcp(context.clone(), stream, peer, cluster.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed; resting");
                tokio::time::sleep(REST_AFTER_FAILURE).await;
            }
        }
    }
}

async fn serve_tcp(context: Context, stream: TcpStream, peer: SocketAddr, cluster: ClusterId) {
    // Output is written once per turn in whole packets: waiting to fill a segment only adds delay.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "the peer was gone before it was served");
        return;
    }
    let origin = Origin { peer: peer.to_string(), listener: "mqtt".to_owned(), transport: Transport::Tcp };
    connection::run(context, stream, origin, cluster).await;
}
