//! Carries purges out: one at a time, its sessions in batches, each batch noted before the next. Has commands
//! on single sessions followed beside that ([`super::commands`]).
//!
//! Whether it is woken by a nudge or by its timer, it does the same: take the oldest operation that
//! runs and go on with it. So a restart, a database that was away and a lost nudge are all the same to it. A session
//! that the data plane does not answer for stays to be done and is tried again.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::commands::{Commands, kicked};
use crate::clock::Clock;
use crate::seam::command::{CommandError, DataPlane, SessionRef, Target, UnderWay};
use crate::store::{self, NewOperation, PendingTarget, PurgeAction, Store};

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
    commands: Commands,
    commands_nudged: Notify,
}

impl Operations {
    /// A runner that has done nothing yet.
    pub fn new(store: Store, data_plane: DataPlane, clock: Clock) -> Self {
        let commands = Commands::new(store.clone(), data_plane.clone(), clock.clone());
        let (nudged, commands_nudged) = (Notify::new(), Notify::new());
        Self { store, data_plane, clock, nudged, commands, commands_nudged }
    }

    /// The data plane that it commands.
    pub fn data_plane(&self) -> DataPlane {
        self.data_plane.clone()
    }

    /// Wakes it.
    pub fn nudge(&self) {
        self.nudged.notify_one();
    }

    /// Keeps in mind the answer to the command of an operation that is about to be committed.
    pub fn follow(&self, operation: Uuid, answer: UnderWay) {
        self.commands.follow(operation, answer);
    }

    /// Forgets an answer whose operation was not committed.
    pub fn forget(&self, operation: Uuid) {
        self.commands.forget(operation);
    }

    /// Wakes what follows commands.
    pub fn nudge_commands(&self) {
        self.commands_nudged.notify_one();
    }

    /// Looks after commands under way for a while; see [`super::commands`].
    ///
    /// # Errors
    /// The database is away.
    pub async fn step_commands(&self) -> store::Result<bool> {
        self.commands.step().await
    }

    /// Works until `stop` is cancelled.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::join!(self.run_purges(&stop), self.follow_commands(&stop));
    }

    async fn follow_commands(&self, stop: &CancellationToken) {
        loop {
            let more = tokio::select! {
                () = stop.cancelled() => return,
                // A database that is away is told by the purges.
                more = self.step_commands() => more.unwrap_or(false),
            };
            if !more {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.commands_nudged.notified() => {}
                    () = tokio::time::sleep(POLL) => {}
                }
            }
        }
    }

    async fn run_purges(&self, stop: &CancellationToken) {
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
        let outcomes: Vec<_> =
            done.iter().map(|done| (done.target.client_id.clone(), done.outcome)).collect();
        let event = |done: &Done| Some(kicked(&operation, &done.target, done.met?, &self.clock));
        let events: Vec<_> = done.iter().filter_map(event).collect();
        self.store.targets_done(operation.id, &outcomes, &events, None).await?;
        if outcomes.is_empty() {
            return Ok(None);
        }
        let even = |rate: u32| Duration::from_secs(u64::try_from(taken).unwrap_or(u64::MAX)) / rate.max(1);
        Ok(Some(operation.rate.map_or(Duration::ZERO, even)))
    }

    /// Does it to one session. `None`: not answered for, to be tried again.
    async fn carry_out(&self, operation: &NewOperation, target: PendingTarget) -> Option<Done> {
        let delete = operation.action == PurgeAction::Delete;
        let fenced = Target {
            cluster: operation.cluster.clone(),
            client_id: target.client_id.clone(),
            if_session_id: Some(target.session_id),
            if_epoch: None,
        };
        let options = operation.options.clone();
        let mut under_way = if delete {
            self.data_plane.destroy(fenced, options)
        } else {
            self.data_plane.disconnect(fenced, options)
        };
        let met = under_way.answer_within(COMMAND_TIME_MAX).await;
        let outcome = match &met {
            Ok(_) if delete => "deleted",
            Ok(met) if met.was_online => "disconnected",
            Ok(_) => "not_connected",
            Err(
                CommandError::NoSuchSession | CommandError::Superseded { .. } | CommandError::NoSuchCluster,
            ) => "gone",
            Err(CommandError::Protected) => "protected",
            Err(_) => return None,
        };
        Some(Done { target, outcome, met: met.ok().filter(|met| delete || met.was_online) })
    }
}

/// What became of one session.
struct Done {
    target: PendingTarget,
    outcome: &'static str,
    /// The session, when something was done to it.
    met: Option<SessionRef>,
}
