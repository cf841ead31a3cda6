//! The composition root: builds every part in order, serves, and stops them in the reverse order.
//!
//! Order of start: certificates, data directory, database, schema, the right to serve it, what a first start
//! needs, stored sessions into the data plane, listeners, `ready`. Order of stop: listeners and
//! connections, then the records they have left, then the database. Holds no logic of its own.

mod bootstrap;
mod control_plane;
mod data_plane;
mod database;
mod listeners;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
pub(crate) use database::{open as open_database, private_options as private_postgres_options};
use listeners::MqttListeners;
use tokio::net::{TcpListener, TcpSocket};

use crate::clock::Clock;
use crate::config::{AuthenticatorTargets, Config};
use crate::control_plane::background::desired::DesiredPublisher;
use crate::control_plane::http::Node;
use crate::data_plane::runtime::authenticators::Links;
use crate::data_plane::runtime::tls::Tls;
use crate::lifecycle::{Shutdown, Tasks, announce_ready};
use crate::outbound::{HttpClient, Reach};
use crate::seam::verdicts::Verdicts;
use crate::seam::{command, desired};
use crate::store::{ServiceLock, ServiceLockError};

/// How often the database is told that this process serves it.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How many connections may wait to be accepted: a whole fleet may return at once. The system may allow
/// fewer (`net.core.somaxconn`).
const LISTEN_QUEUE: u32 = 4_096;

/// Serves until the shutdown.
///
/// # Errors
/// Whatever kept the service from starting, or made it stop.
pub async fn serve(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let clock = Clock::new();
    let tls = listeners::certificates(&config)?;
    let claim = config.data_dir.claim().with_context(|| claim_failure(&config))?;
    let database = database::open(&config, &clock).await?;
    let ends = serve_with(&config, tls, &shutdown, &clock, &database).await;
    database.close().await;
    drop(claim);
    ends
}

fn claim_failure(config: &Config) -> String {
    let path = config.data_dir.path().display();
    format!("cannot use the data directory {path}; is another holdfast using it?")
}

async fn serve_with(
    config: &Config,
    tls: Option<Arc<Tls>>,
    shutdown: &Shutdown,
    clock: &Clock,
    database: &database::Database,
) -> anyhow::Result<()> {
    let node = config.data_dir.node_id_or_new().context("cannot name this node")?;
    let store = database.store.clone().of_node(&node);
    store.migrate().await.context("cannot bring the database's tables up to date")?;
    let right = store.lock_service().await.context("cannot serve this database")?;
    store.recover_after_restart(clock.wall()).await.context("cannot recover the sessions")?;
    let secret = bootstrap::first_start(config, &store, clock).await?;

    let (snapshots, desired_state) = desired::channel();
    let publisher = Arc::new(DesiredPublisher::new(store.clone(), snapshots));
    publisher.refresh().await.context("cannot read the clusters")?;
    let (commands, orders) = command::channel();

    let http = bind("http", config.listeners.http)?;
    let mqtt = MqttListeners::bind(config, tls)?;
    let mut ready = vec![("http", http.local_addr()?)];
    ready.extend(mqtt.addresses()?);

    let tasks = Tasks::new(shutdown.clone());
    let log = data_plane::open_log(config).await?;
    let verdicts = Arc::new(Verdicts::default());
    let links = Links::new(clock.clone(), Some(http_client(config)?), Arc::clone(&verdicts));
    let arrivals = data_plane::Arriving { mqtt, hygiene: config.hygiene, links };
    data_plane::start(&tasks, clock, &store, log, desired_state, orders, arrivals).await?;
    let node = Node { id: node, started_at: clock.wall(), listeners: ready.clone() };
    let parts = control_plane::Parts { secret, store, commands, publisher, node, verdicts, listener: http };
    control_plane::start(&tasks, config, clock, parts)?;
    tasks.spawn_essential("heartbeat", heartbeat(right, clock.clone(), shutdown.clone()));

    announce_ready(&ready).context("cannot write to standard output")?;
    tasks.finish().await.map_err(Into::into)
}

/// How authenticators ask.
fn http_client(config: &Config) -> anyhow::Result<HttpClient> {
    let reach = match config.authenticator_targets {
        AuthenticatorTargets::Public => Reach::Public,
        AuthenticatorTargets::Any => Reach::Anywhere,
    };
    HttpClient::new(config.tokens.outbound_ca.as_deref(), reach).context("cannot use --outbound-ca")
}

fn bind(name: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    listen(address).with_context(|| format!("cannot listen on --{name} {address}"))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart need not wait until the kernel has forgotten the connections of before.
    socket.set_reuseaddr(true)?;
    // What is written is whole: waiting to fill a segment only adds delay. Every connection that is accepted has this
    // from here, without a system call of its own.
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_QUEUE)
}

/// Says every few seconds that this process serves the database. Another one that has taken over
/// ends this one; a database that is away does not.
async fn heartbeat(mut right: ServiceLock, clock: Clock, shutdown: Shutdown) -> Result<(), ServiceLockError> {
    while !shutdown.is_requested() {
        match right.heartbeat(clock.wall()).await {
            Err(error @ ServiceLockError::Held) => return Err(error),
            Err(error) => tracing::debug!(%error, "no heartbeat: the database is away"),
            Ok(()) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(HEARTBEAT) => {}
            () = shutdown.requested() => {}
        }
    }
    right.release().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_have_no_delay_from_their_listener() {
        let listener = listen((std::net::Ipv4Addr::LOCALHOST, 0).into()).expect("a listener");
        let address = listener.local_addr().expect("its address");
        let _client = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let (accepted, _) = listener.accept().await.expect("the same");
        assert!(accepted.nodelay().expect("the option"));
    }
}
