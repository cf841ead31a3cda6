//! Ending connections and sessions. What is answered with 200 has happened: the socket is closed and
//! the record says so. What is answered with 202 is under way, and an operation will tell.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use uuid::Uuid;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::etag::IfMatch;
use super::super::extract::{NO_BODY, NoBody, Query, SessionPath};
use super::super::problem::{Problem, Result, command_failed};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::super::wait::Wait;
use super::existing_cluster;
use super::holds::{self, HoldSeconds};
use super::operations::OperationView;
use super::session_view::tag;
use super::sessions::existing_session;
use crate::model::{
    ClientId, ClusterId, EndOptions, Epoch, OperatorReason, SessionId, Timestamp, WillChoice,
};
use crate::seam::command::{CommandError, SessionRef, Target, UnderWay};
use crate::store::{EventKind, HoldRecord, NewOperation, PendingTarget, PurgeAction, SessionRecord};

/// What every command to a session can answer, beside what its path implies.
pub(super) const SESSION_COMMAND: [Code; 5] = [
    Code::StoreUnavailable,
    Code::DataPlaneUnavailable,
    Code::SessionSuperseded,
    Code::PreconditionFailed,
    Code::InvalidHeader,
];

pub(super) fn routes(routes: Routes) -> Routes {
    let delete = [&SESSION_COMMAND[..], &NO_BODY, &[Code::NotConfirmed, Code::TooManyHolds]].concat();
    let disconnect = [&delete[..], &[Code::SessionNotConnected]].concat();
    let delete = [&delete[..], &[Code::SessionProtected]].concat();
    routes.add(Scope::SessionsWrite, &delete, routes!(delete_session)).add(
        Scope::SessionsWrite,
        &disconnect,
        routes!(disconnect_session),
    )
}

/// Keeps a command from hitting a later session, or a later connection, of the same client.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Fence {
    /// Only if the session is still this one.
    if_session_id: Option<SessionId>,
    /// Only if the session is still in this attachment.
    if_epoch: Option<Epoch>,
}

impl Fence {
    /// The attachment that must be in force.
    pub(super) fn epoch(self) -> Option<Epoch> {
        self.if_epoch
    }

    /// Refuses a session that has moved on.
    pub(super) fn check(self, current: &SessionRecord) -> Result<()> {
        let row = &current.row;
        let same = self.if_session_id.is_none_or(|id| id == row.session_id)
            && self.if_epoch.is_none_or(|epoch| epoch == row.epoch);
        if same {
            return Ok(());
        }
        let moved_on = CommandError::Superseded { session_id: row.session_id, epoch: row.epoch };
        Err(command_failed(&moved_on, &row.cluster, &row.client_id))
    }
}

/// How an operator ends a session or its connection.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct EndParams {
    /// What becomes of the client's will; `publish` when not sent.
    #[serde(default)]
    #[param(nullable = false)]
    will: WillChoice,
    /// Why: kept in the history and in the audit log, and told to a v5 client that has not asked for no
    /// problem information.
    #[param(nullable = false)]
    reason: Option<OperatorReason>,
    /// Refuses the client id for so many seconds from now on, over restarts too. In force before the connection ends;
    /// taken back when nothing is ended. See `…/holds`.
    #[serde(default, deserialize_with = "HoldSeconds::from_query")]
    #[param(nullable = false)]
    hold_seconds: Option<HoldSeconds>,
}

/// The session that a command ended, or whose connection it ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "cluster": "default", "client_id": "meter-17",
    "session_id": "019af8a0-5b7e-7c3d-9f1e-2a4b6c8d0e1f", "epoch": 3, "was_online": true,
    "will": "publish", "reason": "moved to another site", "held_until": null
}))]
struct Ended {
    /// The cluster.
    cluster: ClusterId,
    /// The client.
    client_id: ClientId,
    /// The session's identity.
    session_id: SessionId,
    /// Its attachment when the command took effect.
    epoch: Epoch,
    /// Whether a connection was attached, which is closed now.
    was_online: bool,
    /// What became of the will, if there was one.
    will: WillChoice,
    /// Why; null when nobody said.
    #[schema(required)]
    reason: Option<OperatorReason>,
    /// Until when the client id is refused; null when it is not held by this request.
    #[schema(required)]
    held_until: Option<Timestamp>,
}

/// The parts of a request that ends something.
struct Ending {
    state: ApiState,
    change: Change,
    path: SessionPath,
    action: PurgeAction,
    options: EndOptions,
    held_until: Option<Timestamp>,
}

impl Ending {
    /// Does it, and says what became of it.
    async fn run(
        mut self,
        fence: Fence,
        if_match: &IfMatch,
        wait: Duration,
        hold: Option<HoldSeconds>,
    ) -> Result<Response> {
        let (target, known) = self.target(fence, if_match).await?;
        self.check(known.as_ref())?;
        let before = match hold {
            Some(hold) => Some(self.hold(hold).await?),
            None => None,
        };
        self.change.dispatch().await?;
        let data_plane = &self.state.data_plane;
        let (meant, options) = (target.clone(), self.options.clone());
        let mut under_way = match self.action {
            PurgeAction::Delete => data_plane.destroy(meant, options),
            PurgeAction::Disconnect => data_plane.disconnect(meant, options),
        };
        let refused = match under_way.answer_within(wait).await {
            Ok(met) if met.was_online || self.action == PurgeAction::Delete => return self.done(met).await,
            Ok(_) => Problem::new(Code::SessionNotConnected, "the session is offline already"),
            Err(CommandError::TimedOut) => return self.accepted(&target, known, under_way).await,
            Err(error) => command_failed(&error, &self.path.cluster, &self.path.client_id),
        };
        if let (Some(before), true) = (before, refused.code().status().is_client_error()) {
            self.take_back(before).await?;
        }
        Err(refused)
    }

    /// The session that a request means, and its record. With `If-Match` it is the one that was read, in the
    /// attachment that was read: a client that returns in between is not hit.
    async fn target(&self, fence: Fence, if_match: &IfMatch) -> Result<(Target, Option<SessionRecord>)> {
        let path = &self.path;
        let mut target = Target {
            cluster: path.cluster.clone(),
            client_id: path.client_id.clone(),
            if_session_id: fence.if_session_id,
            if_epoch: fence.if_epoch,
        };
        if if_match.is_conditional() {
            let record = existing_session(&self.state, path).await?;
            fence.check(&record)?;
            if_match.check(&tag(&record))?;
            target.if_session_id = Some(record.row.session_id);
            target.if_epoch = Some(record.row.epoch);
            return Ok((target, Some(record)));
        }
        let now = self.state.clock.wall();
        let record = self.state.store.get_session(&path.cluster, &path.client_id, now).await?;
        if record.is_none() {
            // The data plane may know a session whose record is on its way.
            existing_cluster(&self.state, &path.cluster).await?;
        }
        Ok((target, record))
    }

    /// Refuses early what the data plane would refuse; it has the last word.
    fn check(&self, known: Option<&SessionRecord>) -> Result<()> {
        if self.action == PurgeAction::Delete && known.is_some_and(|record| record.protected) {
            let (cluster, client_id) = (&self.path.cluster, &self.path.client_id);
            return Err(command_failed(&CommandError::Protected, cluster, client_id));
        }
        Ok(())
    }

    /// Puts the hold in force, and gives what was in force before.
    async fn hold(&mut self, secs: HoldSeconds) -> Result<Option<HoldRecord>> {
        let SessionPath { cluster, client_id } = &self.path;
        let now = self.state.clock.wall();
        let before = self.state.store.get_hold(cluster, client_id, now).await?;
        let order = secs.order(&self.change, self.options.reason.clone(), now);
        let mut tx = self.state.store.begin().await?;
        holds::put(&mut tx, cluster, std::slice::from_ref(client_id), &order, now).await?;
        tx.commit().await?;
        self.state.enforced().await?;
        self.held_until = Some(order.hold.until);
        Ok(before)
    }

    /// Nothing was ended: puts the holds back as they were.
    async fn take_back(&self, before: Option<HoldRecord>) -> Result<()> {
        let SessionPath { cluster, client_id } = &self.path;
        let now = self.state.clock.wall();
        let mut tx = self.state.store.begin().await?;
        match before {
            Some(HoldRecord { order, .. }) => {
                tx.put_holds(cluster, std::slice::from_ref(client_id), &order, now).await?;
            }
            None => _ = tx.remove_hold(cluster, client_id, now).await?,
        }
        tx.commit().await?;
        self.state.enforced().await
    }

    /// The answer, kept together with the event that says who did it.
    async fn done(self, met: SessionRef) -> Result<Response> {
        let Self { state, change, path, action, options, held_until } = self;
        let detail = json!({
            "operation": action, "was_online": met.was_online,
            "will": options.will, "reason": options.reason, "held_until": held_until,
        });
        let event = change.event(&path, (met.session_id, met.epoch), EventKind::Kicked, detail);
        let SessionRef { session_id, epoch, was_online, .. } = met;
        let SessionPath { cluster, client_id } = path;
        let EndOptions { will, reason } = options;
        let ended = Ended { cluster, client_id, session_id, epoch, was_online, will, reason, held_until };
        let mut tx = state.store.begin().await?;
        tx.add_events(&[event]).await?;
        change.commit(tx, None::<&()>, Json(ended).into_response()).await
    }

    /// What is not confirmed in time becomes an operation, which ends when it is known what became of it.
    async fn accepted(
        self,
        target: &Target,
        known: Option<SessionRecord>,
        under_way: UnderWay,
    ) -> Result<Response> {
        let session = target.if_session_id.or(known.as_ref().map(|record| record.row.session_id));
        let Some(session_id) = session else {
            return Err(command_failed(&CommandError::TimedOut, &target.cluster, &target.client_id));
        };
        // A disconnect means a connection: should it be given again, it must not hit a later one.
        let epoch = match self.action {
            PurgeAction::Delete => target.if_epoch,
            PurgeAction::Disconnect => target.if_epoch.or(known.map(|record| record.row.epoch)),
        };
        let (actor, request_id) = self.change.who();
        let id = Uuid::new_v4();
        let new = NewOperation {
            id,
            cluster: target.cluster.clone(),
            action: self.action,
            rate: None,
            actor,
            request_id,
            options: self.options,
        };
        let pending = PendingTarget { client_id: target.client_id.clone(), session_id, epoch };
        self.state.operations.follow(id, under_way);
        let accepted = accept(&self.state, &self.change, &new, &pending).await;
        match accepted {
            Ok(_) => self.state.operations.nudge_commands(),
            Err(_) => self.state.operations.forget(id),
        }
        accepted
    }
}

/// Makes the operation that follows a command, and answers with it.
async fn accept(
    state: &ApiState,
    change: &Change,
    new: &NewOperation,
    target: &PendingTarget,
) -> Result<Response> {
    let mut tx = state.store.begin().await?;
    tx.insert_command(new, target, state.clock.wall()).await?;
    let made = tx.get_operation(new.id).await?;
    let made = made.ok_or_else(|| Problem::internal("an operation that was just made is not there"))?;
    change.commit(tx, None::<&()>, OperationView::from(made).accepted()).await
}

/// End a session
///
/// Closes its connection with reason 0x98 and destroys it: subscriptions, progress and messages
/// under way go with it, and the client's next CONNECT begins a new one (session present 0).
/// Answered with 200 when the socket is closed and the record is gone. When that takes longer than the caller waits,
/// with 202 and an operation that ends when it is known what became of it.
#[utoipa::path(
    delete,
    path = "/v1/clusters/{cluster}/sessions/{client_id}",
    tag = "sessions",
    params(SessionPath, Fence, EndParams, IfMatch, Wait),
    responses(
        (status = 200, description = "The session that was ended.", body = Ended),
        (
            status = 202,
            description = "The operation that will tell.",
            body = OperationView,
            headers(("Location" = String, description = "Its path."))
        )
    )
)]
#[allow(clippy::too_many_arguments)] // one for each part of the request
async fn delete_session(
    State(state): State<ApiState>,
    change: Change,
    path: SessionPath,
    Query(fence): Query<Fence>,
    Query(params): Query<EndParams>,
    if_match: IfMatch,
    wait: Wait,
    _: NoBody,
) -> Result<Response> {
    let EndParams { will, reason, hold_seconds } = params;
    let options = EndOptions { will, reason };
    let ending = Ending { state, change, path, action: PurgeAction::Delete, options, held_until: None };
    ending.run(fence, &if_match, wait.granted(), hold_seconds).await
}

/// End a session's connection
///
/// Closes the connection with reason 0x98 and keeps the session, which may come back. Answered with 200 when
/// the socket is closed and the record says offline. When that takes longer than the caller waits,
/// with 202 and an operation that ends when it is known what became of it.
#[utoipa::path(
    post,
    path = "/v1/clusters/{cluster}/sessions/{client_id}/disconnect",
    tag = "sessions",
    params(SessionPath, Fence, EndParams, IfMatch, Wait),
    responses(
        (status = 200, description = "The session whose connection was ended.", body = Ended),
        (
            status = 202,
            description = "The operation that will tell.",
            body = OperationView,
            headers(("Location" = String, description = "Its path."))
        )
    )
)]
#[allow(clippy::too_many_arguments)] // one for each part of the request
async fn disconnect_session(
    State(state): State<ApiState>,
    change: Change,
    path: SessionPath,
    Query(fence): Query<Fence>,
    Query(params): Query<EndParams>,
    if_match: IfMatch,
    wait: Wait,
    _: NoBody,
) -> Result<Response> {
    let EndParams { will, reason, hold_seconds } = params;
    let options = EndOptions { will, reason };
    let ending = Ending { state, change, path, action: PurgeAction::Disconnect, options, held_until: None };
    ending.run(fence, &if_match, wait.granted(), hold_seconds).await
}
