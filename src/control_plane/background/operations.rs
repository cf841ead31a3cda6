//! Carries operations out: one at a time, its sessions in batches, each batch noted before the next.
//!
//! Whether it is woken by a nudge or by its timer, it does the same: take the oldest operation that
//! runs and go on with it. So a restart, a database that was away and a lost nudge are all the same to it. A session
//! that the data plane does not answer for stays to be done and is tried again.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::clock::Clock;
use crate::model::ClientId;
use crate::seam::command::{CommandError, DataPlane, SessionRef, Target};
use crate::store::{self, EventKind, NewEvent, NewOperation, PendingTarget, PurgeAction, Store};

/// How often it looks for work that nobody nudged about.
const POLL: Duration = Duration::from_secs(2);
/// How many sessions are taken at a time.
const BATCH: u32 = 200;
/// How many commands are under way at once: few against what the data plane takes from its clients.
const COMMANDS_AT_ONCE: usize = 32;
/// How long one session may take.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(5);

/// Carries operations out.
#[derive(Debug)]
pub struct Operations {
    store: Store,
    data_plane: DataPlane,
    clock: Clock,
    nudged: Notify,
}

impl Operations {
    /// A runner that has done nothing yet.
    pub fn new(store: Store, data_plane: DataPlane, clock: Clock) -> Self {
        Self { store, data_plane, clock, nudged: Notify::new() }
    }

    /// The data plane that it commands.
    pub fn data_plane(&self) -> DataPlane {
        self.data_plane.clone()
    }

    /// Wakes it.
    pub fn nudge(&self) {
        self.nudged.notify_one();
    }

    /// Works until `stop` is cancelled.
    pub async fn run(&self, stop: CancellationToken) {
        let mut failing = false;
        loop {
            let pause = match self.step().await {
                Ok(Some(pause)) => {
                    failing = false;
                    pause
                }
                Ok(None) => POLL,
                Err(error) => {
                    if !failing {
                        warn!(%error, "operations wait for the database: {error}");
                    }
                    failing = true;
                    POLL
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.nudged.notified(), if pause == POLL => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Does the next batch, and says how long to wait before the one after it; `None` when there is nothing
    /// to do, or nothing that could be done now.
    ///
    /// # Errors
    /// The database is away.
    pub async fn step(&self) -> store::Result<Option<Duration>> {
        let Some(operation) = self.store.running_operation().await? else { return Ok(None) };
        // A paced one goes by tenths of a second, so that it is even.
        let batch = operation.rate.map_or(BATCH, |rate| (rate / 10).clamp(1, BATCH));
        let targets = self.store.pending_targets(operation.id, batch).await?;
        if targets.is_empty() {
            self.store.finish_operation(operation.id, self.clock.wall()).await?;
            return Ok(Some(Duration::ZERO));
        }
        let taken = targets.len();
        let done: Vec<Done> = stream::iter(targets)
            .map(|target| self.carry_out(&operation, target))
            .buffer_unordered(COMMANDS_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let outcomes: Vec<_> = done.iter().map(|done| (done.client_id.clone(), done.outcome)).collect();
        let events: Vec<_> = done.iter().filter_map(|done| self.kicked(&operation, done)).collect();
        self.store.targets_done(operation.id, &outcomes, &events).await?;
        if outcomes.is_empty() {
            return Ok(None);
        }
        let even = |rate: u32| Duration::from_secs(u64::try_from(taken).unwrap_or(u64::MAX)) / rate.max(1);
        Ok(Some(operation.rate.map_or(Duration::ZERO, even)))
    }

    /// Does it to one session. `None`: not answered for, to be tried again.
    async fn carry_out(&self, operation: &NewOperation, target: PendingTarget) -> Option<Done> {
        let delete = operation.action == PurgeAction::Delete;
        if delete && target.protected {
            return Some(Done { client_id: target.client_id, outcome: "protected", met: None });
        }
        let fenced = Target {
            cluster: operation.cluster.clone(),
            client_id: target.client_id.clone(),
            if_session_id: Some(target.session_id),
            if_epoch: None,
        };
        let met = if delete {
            self.data_plane.destroy(fenced, COMMAND_TIME_MAX).await
        } else {
            self.data_plane.disconnect(fenced, COMMAND_TIME_MAX).await
        };
        let outcome = match &met {
            Ok(_) if delete => "deleted",
            Ok(met) if met.was_online => "disconnected",
            Ok(_) => "not_connected",
            Err(
                CommandError::NoSuchSession | CommandError::Superseded { .. } | CommandError::NoSuchCluster,
            ) => "gone",
            Err(_) => return None,
        };
        Some(Done {
            client_id: target.client_id,
            outcome,
            met: met.ok().filter(|met| delete || met.was_online),
        })
    }

    /// What the client's history says of it.
    fn kicked(&self, operation: &NewOperation, done: &Done) -> Option<NewEvent> {
        let met = done.met?;
        Some(NewEvent {
            cluster: operation.cluster.clone(),
            client_id: done.client_id.clone(),
            session_id: met.session_id,
            epoch: met.epoch,
            at: self.clock.wall(),
            kind: EventKind::Kicked,
            detail: json!({
                "operation": operation.action, "was_online": met.was_online, "operation_id": operation.id,
            }),
            actor: Some(operation.actor.clone()),
            request_id: Some(operation.request_id.clone()),
        })
    }
}

/// What became of one session.
struct Done {
    client_id: ClientId,
    outcome: &'static str,
    /// The session, when something was done to it.
    met: Option<SessionRef>,
}
