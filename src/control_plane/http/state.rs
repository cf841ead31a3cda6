//! What every handler can reach.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;
use uuid::Uuid;

use super::code::Code;
use super::problem::{self, Problem, Result};
use super::rate::Rates;
use crate::clock::Clock;
use crate::config::WebhookTargets;
use crate::control_plane::background::desired::DesiredPublisher;
use crate::control_plane::background::operations::Operations;
use crate::control_plane::bearers::Bearers;
use crate::control_plane::metrics::Metrics;
use crate::control_plane::passwords::Passwords;
use crate::control_plane::tokens::TokenVerifier;
use crate::model::{ClusterId, Timestamp};
use crate::seam::command::{CommandError, DataPlane, UnderWay};
use crate::seam::verdicts::Verdicts;
use crate::store::Store;

/// How many API requests are worked on at once. More are refused, not queued: a queue here would
/// only add its waiting time to every answer. Above the store's connections, because most requests
/// spend most of their time elsewhere.
pub const REQUESTS_MAX: usize = 256;

/// How many streams of events are followed at once. They are long, so they have a bound of their own.
pub(super) const STREAMS_MAX: usize = 64;

/// How long a change waits for the data plane to enforce it, and a question for its answer.
pub(super) const DATA_PLANE_WAIT: Duration = Duration::from_secs(2);

/// For how long the data plane may take an order whose caller has gone: a minute of a full queue is a data plane that
/// stands still, and will read the record when it starts again.
const SEEN_THROUGH_MAX: Duration = Duration::from_mins(1);

/// The process that serves, as `/v1/nodes` shows it.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name: that of its data directory.
    pub id: String,
    /// When it started.
    pub started_at: Timestamp,
    /// The name and address of each of its listeners.
    pub listeners: Vec<(&'static str, SocketAddr)>,
}

/// The parts of the service that the API works with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ApiState {
    /// The database.
    pub store: Store,
    /// Commands to the data plane.
    pub data_plane: DataPlane,
    /// Publishes what the data plane should enforce.
    pub desired: Arc<DesiredPublisher>,
    /// The time.
    pub clock: Clock,
    /// Checks bearer tokens.
    pub tokens: Arc<Bearers>,
    /// Works on users' passwords.
    pub passwords: Passwords,
    /// Changes under way. They run to their end even when their caller hangs up; who stops the
    /// service closes this tracker and waits for it.
    pub tasks: TaskTracker,
    /// This process.
    pub(super) node: Arc<Node>,
    /// This run of the program, as idempotency keys name it.
    pub(super) run: Uuid,
    /// Permits for requests; see [`REQUESTS_MAX`].
    pub(super) requests: Arc<Semaphore>,
    /// Carries purges out; who serves runs it.
    pub operations: Arc<Operations>,
    /// How often each caller may ask; `None` for as often as it likes.
    pub(super) rates: Option<Arc<Rates>>,
    /// Where webhooks may be.
    pub(super) webhook_targets: WebhookTargets,
    /// What is counted of requests.
    pub(super) metrics: Metrics,
    /// What comes of asking authenticators.
    pub verdicts: Arc<Verdicts>,
    /// Permits for streams; see [`STREAMS_MAX`].
    pub(super) streams: Arc<Semaphore>,
    /// Ends the streams, which would otherwise keep the service from stopping.
    pub(super) stopping: CancellationToken,
}

impl ApiState {
    /// The state of one service.
    pub fn new(
        store: Store,
        data_plane: DataPlane,
        desired: Arc<DesiredPublisher>,
        clock: Clock,
        tokens: TokenVerifier,
        tasks: TaskTracker,
    ) -> Self {
        let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
        let (streams, stopping) = (Arc::new(Semaphore::new(STREAMS_MAX)), CancellationToken::new());
        let operations = Operations::new(store.clone(), data_plane.clone(), clock.clone());
        let operations = Arc::new(operations);
        let run = Uuid::new_v4();
        let node = Node { id: run.to_string(), started_at: clock.wall(), listeners: Vec::new() };
        let metrics = Metrics::new(store.record_commits());
        Self {
            store,
            data_plane,
            desired,
            clock,
            tokens: Arc::new(tokens.into()),
            passwords: Passwords::default(),
            tasks,
            node: Arc::new(node),
            run,
            requests,
            operations,
            rates: None,
            webhook_targets: WebhookTargets::default(),
            metrics,
            verdicts: Arc::default(),
            streams,
            stopping,
        }
    }

    /// The same in a process that is this node.
    #[must_use]
    pub fn at_node(self, node: Node) -> Self {
        Self { node: Arc::new(node), ..self }
    }

    /// The same, which takes the tokens that `tokens` judges.
    #[must_use]
    pub fn judged_by(self, tokens: Bearers) -> Self {
        Self { tokens: Arc::new(tokens), ..self }
    }

    /// The same, which answers each caller so many requests a second; `None` for any number.
    #[must_use]
    pub fn limited_to(self, rate: Option<NonZeroU32>) -> Self {
        Self { rates: rate.map(|rate| Arc::new(Rates::new(rate))), ..self }
    }

    /// The same, which takes webhooks there.
    #[must_use]
    pub fn with_webhooks_at(self, targets: WebhookTargets) -> Self {
        Self { webhook_targets: targets, ..self }
    }

    /// The same, whose streams end when `stopping` is cancelled.
    #[must_use]
    pub fn stopped_by(self, stopping: CancellationToken) -> Self {
        Self { stopping, ..self }
    }

    /// The same, which tells what comes of asking authenticators.
    #[must_use]
    pub fn telling(mut self, verdicts: Arc<Verdicts>) -> Self {
        self.metrics.tell(Arc::clone(&verdicts));
        Self { verdicts, ..self }
    }

    /// Waits until the data plane enforces what is committed, so that what comes next can build on it.
    pub(super) async fn enforced(&self) -> Result<()> {
        self.enforced_within(DATA_PLANE_WAIT).await
    }

    /// Whether the data plane enforces within `wait` what is committed, so that an answer holds for the next packet.
    /// What it does not enforce by then it will: it is given what is committed until it has it.
    pub(super) async fn enforces(&self, wait: Duration) -> bool {
        match self.enforced_within(wait).await {
            Ok(()) => true,
            Err(problem) => {
                warn!(
                    code = problem.code().as_str(),
                    "a change is committed and not enforced yet: {problem:?}"
                );
                false
            }
        }
    }

    async fn enforced_within(&self, wait: Duration) -> Result<()> {
        let revision = self.desired.refresh().await.map_err(|error| {
            self.desired.nudge();
            let detail = "the change is committed, but could not be read back for the data plane yet";
            Problem::new(Code::NotConfirmed, detail).caused_by(error)
        })?;
        match self.data_plane.await_revision(revision, wait).await {
            Ok(()) => Ok(()),
            Err(CommandError::TimedOut) => {
                let detail = "the change is committed, but the data plane does not enforce it yet";
                Err(Problem::new(Code::NotConfirmed, detail))
            }
            Err(error) => Err(problem::data_plane_away(&error)),
        }
    }

    /// Whether the connections are closed within `wait` that the cluster's block rules have ended.
    pub(super) async fn expels(&self, cluster: &ClusterId, wait: Duration) -> bool {
        match self.data_plane.await_expulsions(cluster.clone(), wait).await {
            // A cluster that was deleted meanwhile has no connections.
            Ok(()) | Err(CommandError::NoSuchCluster) => true,
            Err(error) => {
                warn!(%cluster, "not every connection that a block rule ends is closed yet: {error}");
                false
            }
        }
    }

    /// Hands the data plane an order that nobody waits for any longer, and whose outcome is in the record already.
    pub(super) fn see_through(&self, mut order: UnderWay) {
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move {
            // The next start reads the record.
            let given_up = stopping.run_until_cancelled(order.answer_within(SEEN_THROUGH_MAX)).await;
            if let Some(Err(error)) = given_up {
                warn!("an order whose record is committed was not carried out: {error}");
            }
        });
    }
}
