//! The control plane's tasks: the API, and what it does without being asked.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::config::{Config, TokenAlgorithm, WebhookTargets};
use crate::control_plane::background::desired::DesiredPublisher;
use crate::control_plane::background::webhooks::{self, Deliverer};
use crate::control_plane::background::{cleaner, usage};
use crate::control_plane::bearers::Bearers;
use crate::control_plane::http::{self, ApiState, Node};
use crate::control_plane::issuer::{ExternalIssuer, Pace};
use crate::control_plane::tokens::{TokenSecret, TokenVerifier};
use crate::lifecycle::{TaskFailure, Tasks};
use crate::outbound::{HttpClient, Reach};
use crate::seam::command::DataPlane;
use crate::seam::verdicts::Verdicts;
use crate::store::Store;

/// What it is made of.
pub(super) struct Parts {
    /// What the service's own tokens are signed with.
    pub(super) secret: TokenSecret,
    pub(super) store: Store,
    pub(super) commands: DataPlane,
    pub(super) publisher: Arc<DesiredPublisher>,
    /// This process, as `/v1/nodes` tells of it.
    pub(super) node: Node,
    /// What comes of asking authenticators.
    pub(super) verdicts: Arc<Verdicts>,
    pub(super) listener: TcpListener,
}

/// Starts all of it.
///
/// # Errors
/// `--outbound-ca` cannot be used.
pub(super) fn start(tasks: &Tasks, config: &Config, clock: &Clock, parts: Parts) -> anyhow::Result<()> {
    let Parts { secret, store, commands, publisher, node, verdicts, listener } = parts;
    let stop = tasks.shutdown().soft_token();
    let client = HttpClient::new(config.tokens.outbound_ca.as_deref(), Reach::Public)
        .context("cannot use --outbound-ca")?;
    let (bearers, external) = bearers(config, &secret, &client, clock);
    let verifier = TokenVerifier::new(&secret);
    let desired = Arc::clone(&publisher);
    let state = ApiState::new(store, commands, desired, clock.clone(), verifier, tasks.tracker())
        .at_node(node)
        .telling(verdicts)
        .stopped_by(stop.clone())
        .judged_by(bearers)
        .limited_to(config.api.rate_limit)
        .with_webhooks_at(config.api.webhook_targets);

    let reach = match config.api.webhook_targets {
        WebhookTargets::Public => Reach::Public,
        WebhookTargets::Any => Reach::Anywhere,
    };
    let pace = webhooks::Pace::default();
    let deliverer = Deliverer::new(state.store.clone(), clock.clone(), client.reaching(reach), pace);
    spawn(tasks, "webhooks", Arc::new(deliverer).run(stop.clone()));
    spawn(tasks, "cleaner", cleaner::run(state.store.clone(), clock.clone(), stop.clone()));
    let counting = usage::run(state.store.clone(), state.data_plane.clone(), clock.clone(), stop.clone());
    spawn(tasks, "usage", counting);
    let (operations, stopping) = (Arc::clone(&state.operations), stop.clone());
    spawn(tasks, "operations", async move { operations.run(stopping).await });
    let stopping = stop.clone();
    spawn(tasks, "desired state", async move { publisher.run(stopping).await });
    if let Some(external) = external {
        let stopping = stop.clone();
        spawn(tasks, "key set", async move { external.run(stopping).await });
    }
    let serving = http::server::serve(listener, http::router(state), http::server::Limits::default(), stop);
    tasks.spawn_essential("http", serving);
    Ok(())
}

fn spawn(tasks: &Tasks, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn_essential(name, async move {
        task.await;
        Ok::<_, TaskFailure>(())
    });
}

/// Who judges bearer tokens, and the external issuer among them, whose keys are to be kept up to date.
fn bearers(
    config: &Config,
    secret: &TokenSecret,
    client: &HttpClient,
    clock: &Clock,
) -> (Bearers, Option<Arc<ExternalIssuer>>) {
    let tokens = &config.tokens;
    let own = tokens.algorithms.contains(TokenAlgorithm::Hs256).then(|| TokenVerifier::new(secret));
    let external = tokens.external.clone().map(|settings| {
        let (algorithms, client) = (tokens.algorithms.clone(), client.reaching(Reach::Anywhere));
        Arc::new(ExternalIssuer::new(settings, algorithms, client, clock.clone(), Pace::default()))
    });
    (Bearers::new(own, external.clone()), external)
}
