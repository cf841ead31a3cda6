//! The composition root: builds every part in order, serves, and stops them in the reverse order.
//!
//! Order of start: certificates, data directory, database, schema, the right to serve it, what a first start
//! needs, stored sessions into the data plane, listeners, `ready`. Order of stop: listeners and
//! connections, then the records they have left, then the database. Holds no logic of its own.

mod bootstrap;
mod data_plane;
mod database;
mod listeners;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
pub(crate) use database::{open as open_database, private_options as private_postgres_options};
use listeners::MqttListeners;
use tokio::net::{TcpListener, TcpSocket};

use crate::clock::Clock;
use crate::config::{Config, TokenAlgorithm, WebhookTargets};
use crate::control_plane::background::desired::DesiredPublisher;
use crate::control_plane::background::webhooks::{self, Deliverer};
use crate::control_plane::background::{cleaner, usage};
use crate::control_plane::bearers::Bearers;
use crate::control_plane::http::{self, ApiState};
use crate::control_plane::issuer::{ExternalIssuer, Pace};
use crate::control_plane::tokens::{TokenSecret, TokenVerifier};
use crate::data_plane::runtime::tls::Tls;
use crate::lifecycle::{Shutdown, TaskFailure, Tasks, announce_ready};
use crate::outbound::{HttpClient, Reach};
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
    let store = database.store.clone();
    store.migrate().await.context("cannot bring the database's tables up to date")?;
    let right = store.lock_service().await.context("cannot serve this database")?;
    store.recover_after_restart(clock.wall()).await.context("cannot recover the sessions")?;
    let secret = bootstrap::first_start(config, &store, clock).await?;

    let (snapshots, desired_state) = desired::channel();
    let publisher = Arc::new(DesiredPublisher::new(store.clone(), snapshots));
    publisher.refresh().await.context("cannot read the clusters")?;
    let (commands, orders) = command::channel();

    let http_listener = bind("http", config.listeners.http).await?;
    let mqtt = MqttListeners::bind(config, tls).await?;
    let mut ready = vec![("http", http_listener.local_addr()?)];
    ready.extend(mqtt.addresses()?);

    let tasks = Tasks::new(shutdown.clone());
    let log = data_plane::open_log(config).await?;
    data_plane::start(&tasks, clock, &store, log, desired_state, orders, mqtt).await?;
    let stop = shutdown.soft_token();
    let cleaning = cleaner::run(store.clone(), clock.clone(), stop.clone());
    tasks.spawn_essential("cleaner", async move {
        cleaning.await;
        Ok::<_, TaskFailure>(())
    });
    let http_client = HttpClient::new(config.tokens.outbound_ca.as_deref(), Reach::Public)
        .context("cannot use --outbound-ca")?;
    let sampling = usage::run(store.clone(), commands.clone(), clock.clone(), stop.clone());
    tasks.spawn_essential("usage", async move {
        sampling.await;
        Ok::<_, TaskFailure>(())
    });
    let (bearers, external) = bearers(config, &secret, &http_client, clock);
    let state = ApiState::new(
        store,
        commands,
        Arc::clone(&publisher),
        clock.clone(),
        TokenVerifier::new(&secret),
        tasks.tracker(),
    )
    .stopped_by(stop.clone())
    .judged_by(bearers)
    .limited_to(config.api.rate_limit)
    .with_webhooks_at(config.api.webhook_targets);
    let reach = match config.api.webhook_targets {
        WebhookTargets::Public => Reach::Public,
        WebhookTargets::Any => Reach::Anywhere,
    };
    let deliverer =
        Deliverer::new(state.store.clone(), clock.clone(), http_client.reaching(reach), webhooks::Pace::default());
    let delivering = Arc::new(deliverer).run(stop.clone());
    tasks.spawn_essential("webhooks", async move {
        delivering.await;
        Ok::<_, TaskFailure>(())
    });
    if let Some(external) = external {
        let stopping = stop.clone();
        tasks.spawn_essential("key set", async move {
            external.run(stopping).await;
            Ok::<_, TaskFailure>(())
        });
    }
    let (operations, stopping) = (Arc::clone(&state.operations), stop.clone());
    tasks.spawn_essential("operations", async move {
        operations.run(stopping).await;
        Ok::<_, TaskFailure>(())
    });
    let limits = http::server::Limits::default();
    tasks.spawn_essential(
        "http",
        http::server::serve(http_listener, http::router(state), limits, stop.clone()),
    );
    tasks.spawn_essential("desired state", async move {
        publisher.run(stop).await;
        Ok::<_, TaskFailure>(())
    });
    tasks.spawn_essential("heartbeat", heartbeat(right, clock.clone(), shutdown.clone()));

    announce_ready(&ready).context("cannot write to standard output")?;
    tasks.finish().await.map_err(Into::into)
}

/// Who judges bearer tokens, and the external issuer among them, whose keys are to be kept up to date.
fn bearers(
    config: &Config,
    secret: &TokenSecret,
    http: &HttpClient,
    clock: &Clock,
) -> (Bearers, Option<Arc<ExternalIssuer>>) {
    let tokens = &config.tokens;
    let own = tokens.algorithms.contains(TokenAlgorithm::Hs256).then(|| TokenVerifier::new(secret));
    let external = tokens.external.clone().map(|settings| {
        let (algorithms, http) = (tokens.algorithms.clone(), http.reaching(Reach::Anywhere));
        Arc::new(ExternalIssuer::new(settings, algorithms, http, clock.clone(), Pace::default()))
    });
    (Bearers::new(own, external.clone()), external)
}

async fn bind(name: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on --{name} {address}"))
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
