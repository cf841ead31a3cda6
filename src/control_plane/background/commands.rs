//! Follows commands that their requests did not wait out, until it is known what became of them.
//!
//! While the process lives that is the command's own answer: the socket closed, the record written. A
//! command whose answer was lost, with the process or with the database, is given again, behind the
//! fence of the session and attachment that were meant; if those are no more, the history says who ended them.
//! So an operation ends with what has happened, and never ends what came after.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use parking_lot::Mutex;
use serde_json::json;
use uuid::Uuid;

use crate::clock::Clock;
use crate::model::{Epoch, SessionId};
use crate::seam::command::{CommandError, DataPlane, SessionRef, Target, UnderWay};
use crate::store::{
    self, EventKind, NewEvent, NewOperation, PendingTarget, PurgeAction, RunningCommand, Store,
};

/// How many commands are followed at once; more wait for their turn.
const COMMANDS_AT_ONCE: u32 = 64;
/// How long one is waited for before the others have their turn.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How many answers are kept in mind. Those beyond are found out as after a restart.
const UNDER_WAY_MAX: usize = 4_096;

/// Follows commands.
#[derive(Debug)]
pub(super) struct Commands {
    store: Store,
    data_plane: DataPlane,
    clock: Clock,
    /// Answers that are still to come, by their operation.
    under_way: Mutex<HashMap<Uuid, UnderWay>>,
}

impl Commands {
    pub(super) fn new(store: Store, data_plane: DataPlane, clock: Clock) -> Self {
        Self { store, data_plane, clock, under_way: Mutex::default() }
    }

    /// Forgets an answer whose operation was not committed.
    pub(super) fn forget(&self, operation: Uuid) {
        self.under_way.lock().remove(&operation);
    }

    /// Keeps in mind the answer to the command of an operation that is about to be committed.
    pub(super) fn follow(&self, operation: Uuid, answer: UnderWay) {
        let mut under_way = self.under_way.lock();
        if under_way.len() < UNDER_WAY_MAX {
            under_way.insert(operation, answer);
        }
    }

    /// Looks after every command for a while. Returns whether it is worth looking again at once: not when
    /// there is none, nor when one could not be given.
    ///
    /// # Errors
    /// The database is away.
    pub(super) async fn step(&self) -> store::Result<bool> {
        let running = self.store.running_commands(COMMANDS_AT_ONCE).await?;
        let mut worth = !running.is_empty();
        let mut outcomes = stream::iter(running)
            .map(|command| self.look_after(command))
            .buffer_unordered(COMMANDS_AT_ONCE as usize);
        let mut failure = None;
        while let Some(done) = outcomes.next().await {
            match done {
                Ok(found) => worth &= found,
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(worth), Err)
    }

    /// Returns whether it was found out, or waited for.
    async fn look_after(&self, command: RunningCommand) -> store::Result<bool> {
        let RunningCommand { operation, target } = command;
        let kept = self.under_way.lock().remove(&operation.id);
        let mut answer = match kept {
            Some(answer) => answer,
            None => self.give_again(&operation, &target),
        };
        let outcome = match answer.answer_within(ANSWER_WITHIN).await {
            Err(CommandError::TimedOut) => {
                self.follow(operation.id, answer);
                return Ok(true);
            }
            answer => self.outcome(&operation, &target, answer).await?,
        };
        let Some((word, met)) = outcome else { return Ok(false) };
        let events: Vec<_> = met.map(|met| self.kicked(&operation, &target, met)).into_iter().collect();
        let now = Some(self.clock.wall());
        self.store.targets_done(operation.id, &[(target.client_id, word)], &events, now).await?;
        Ok(true)
    }

    fn give_again(&self, operation: &NewOperation, target: &PendingTarget) -> UnderWay {
        let fenced = Target {
            cluster: operation.cluster.clone(),
            client_id: target.client_id.clone(),
            if_session_id: Some(target.session_id),
            if_epoch: target.epoch,
        };
        let options = operation.options.clone();
        match operation.action {
            PurgeAction::Delete => self.data_plane.destroy(fenced, options),
            PurgeAction::Disconnect => self.data_plane.disconnect(fenced, options),
        }
    }

    /// What an answer means, with what it met if an operator ended that. `None`: not known yet.
    async fn outcome(
        &self,
        operation: &NewOperation,
        target: &PendingTarget,
        answer: Result<SessionRef, CommandError>,
    ) -> store::Result<Option<(&'static str, Option<SessionRef>)>> {
        let done = match operation.action {
            PurgeAction::Delete => "deleted",
            PurgeAction::Disconnect => "disconnected",
        };
        let delete = operation.action == PurgeAction::Delete;
        match answer {
            Ok(met) if delete || met.was_online => Ok(Some((done, Some(met)))),
            Err(CommandError::Protected) => Ok(Some(("protected", None))),
            // The connection is over, or session and all: by this operation, or otherwise.
            Ok(_) => self.by_history(operation, target, done).await,
            Err(CommandError::NoSuchSession | CommandError::Superseded { .. }) => {
                if delete && self.is_on_record(target.session_id).await? {
                    return Ok(None);
                }
                self.by_history(operation, target, done).await
            }
            Err(CommandError::NoSuchCluster) => Ok(Some(("gone", None))),
            Err(_) => Ok(None),
        }
    }

    async fn is_on_record(&self, session: SessionId) -> store::Result<bool> {
        Ok(!self.store.sessions_by_id(&[session]).await?.is_empty())
    }

    async fn by_history(
        &self,
        operation: &NewOperation,
        target: &PendingTarget,
        done: &'static str,
    ) -> store::Result<Option<(&'static str, Option<SessionRef>)>> {
        if !self.store.ended_by_operator(operation, target).await? {
            return Ok(Some(("gone", None)));
        }
        let met = SessionRef {
            session_id: target.session_id,
            epoch: target.epoch.unwrap_or(Epoch(0)),
            was_online: operation.action == PurgeAction::Disconnect,
            was_subscribed: false,
        };
        Ok(Some((done, Some(met))))
    }

    fn kicked(&self, operation: &NewOperation, target: &PendingTarget, met: SessionRef) -> NewEvent {
        kicked(operation, target, met, &self.clock)
    }
}

/// What the client's history says of what an operation did to its session.
pub(super) fn kicked(
    operation: &NewOperation,
    target: &PendingTarget,
    met: SessionRef,
    clock: &Clock,
) -> NewEvent {
    NewEvent {
        cluster: operation.cluster.clone(),
        client_id: target.client_id.clone(),
        session_id: met.session_id,
        epoch: met.epoch,
        at: clock.wall(),
        kind: EventKind::Kicked,
        detail: json!({
            "operation": operation.action, "was_online": met.was_online, "operation_id": operation.id,
            "will": operation.options.will, "reason": operation.options.reason,
        }),
        actor: Some(operation.actor.clone()),
        request_id: Some(operation.request_id.clone()),
    }
}
