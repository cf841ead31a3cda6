//! Ending connections and sessions. What is answered with 200 has happened: the socket is closed and
//! the record says so.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::etag::IfMatch;
use super::super::extract::{NO_BODY, NoBody, Query, SessionPath, Wait};
use super::super::problem::{Problem, Result, command_failed};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::existing_cluster;
use super::session_view::tag;
use super::sessions::existing_session;
use crate::model::{ClientId, ClusterId, Epoch, SessionId};
use crate::seam::command::{CommandError, SessionRef, Target};
use crate::store::{EventKind, SessionRecord};

/// What every command to a session can answer, beside what its path implies.
pub(super) const SESSION_COMMAND: [Code; 6] = [
    Code::StoreUnavailable,
    Code::DataPlaneUnavailable,
    Code::NotConfirmed,
    Code::SessionSuperseded,
    Code::PreconditionFailed,
    Code::InvalidHeader,
];

pub(super) fn routes(routes: Routes) -> Routes {
    let delete = [&SESSION_COMMAND[..], &NO_BODY].concat();
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

/// The session that a command ended, or whose connection it ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "cluster": "default", "client_id": "meter-17",
    "session_id": "019af8a0-5b7e-7c3d-9f1e-2a4b6c8d0e1f", "epoch": 3, "was_online": true
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
}

impl Ended {
    fn new(path: SessionPath, met: SessionRef) -> Self {
        Self {
            cluster: path.cluster,
            client_id: path.client_id,
            session_id: met.session_id,
            epoch: met.epoch,
            was_online: met.was_online,
        }
    }
}

/// The session that a request means. With `If-Match` it is the one that was read, in the attachment
/// that was read: a client that returns in between is not hit.
async fn target(state: &ApiState, path: &SessionPath, fence: Fence, if_match: &IfMatch) -> Result<Target> {
    let mut target = Target {
        cluster: path.cluster.clone(),
        client_id: path.client_id.clone(),
        if_session_id: fence.if_session_id,
        if_epoch: fence.if_epoch,
    };
    if if_match.is_conditional() {
        let record = existing_session(state, path).await?;
        fence.check(&record)?;
        if_match.check(&tag(&record))?;
        target.if_session_id = Some(record.row.session_id);
        target.if_epoch = Some(record.row.epoch);
    } else {
        existing_cluster(state, &path.cluster).await?;
    }
    Ok(target)
}

/// The answer, kept together with the event that says who did it.
async fn kicked(
    state: &ApiState,
    change: &Change,
    path: SessionPath,
    met: SessionRef,
    operation: &str,
) -> Result<Response> {
    let detail = json!({"operation": operation, "was_online": met.was_online});
    let event = change.event(&path, (met.session_id, met.epoch), EventKind::Kicked, detail);
    let response = Json(Ended::new(path, met)).into_response();
    let mut tx = state.store.begin().await?;
    tx.add_events(&[event]).await?;
    change.commit(tx, None::<&()>, response).await
}

/// Refuses to delete what an operator has protected.
async fn check_not_protected(state: &ApiState, path: &SessionPath) -> Result<()> {
    let now = state.clock.wall();
    match state.store.get_session(&path.cluster, &path.client_id, now).await? {
        Some(record) if record.protected => {
            let detail = format!("the session of client \"{}\" is protected", path.client_id);
            Err(Problem::new(Code::SessionProtected, detail))
        }
        // The data plane may know a session whose record is on its way.
        _ => Ok(()),
    }
}

/// End a session
///
/// Closes its connection with reason 0x98 and destroys it: subscriptions, progress and messages
/// under way go with it, and the client's next CONNECT begins a new one (session present 0).
/// Answered when the socket is closed and the record is gone.
#[utoipa::path(
    delete,
    path = "/v1/clusters/{cluster}/sessions/{client_id}",
    tag = "sessions",
    params(SessionPath, Fence, IfMatch, Wait),
    responses((status = 200, description = "The session that was ended.", body = Ended))
)]
#[allow(clippy::too_many_arguments)] // one for each part of the request
async fn delete_session(
    State(state): State<ApiState>,
    change: Change,
    path: SessionPath,
    Query(fence): Query<Fence>,
    if_match: IfMatch,
    Wait(wait): Wait,
    _: NoBody,
) -> Result<Response> {
    let target = target(&state, &path, fence, &if_match).await?;
    check_not_protected(&state, &path).await?;
    change.dispatch().await?;
    let met = state.data_plane.destroy(target, wait).await;
    let met = met.map_err(|error| command_failed(&error, &path.cluster, &path.client_id))?;
    kicked(&state, &change, path, met, "delete").await
}

/// End a session's connection
///
/// Closes the connection with reason 0x98 and keeps the session, which may come back. Answered when
/// the socket is closed and the record says offline.
#[utoipa::path(
    post,
    path = "/v1/clusters/{cluster}/sessions/{client_id}/disconnect",
    tag = "sessions",
    params(SessionPath, Fence, IfMatch, Wait),
    responses((status = 200, description = "The session whose connection was ended.", body = Ended))
)]
#[allow(clippy::too_many_arguments)] // one for each part of the request
async fn disconnect_session(
    State(state): State<ApiState>,
    change: Change,
    path: SessionPath,
    Query(fence): Query<Fence>,
    if_match: IfMatch,
    Wait(wait): Wait,
    _: NoBody,
) -> Result<Response> {
    let target = target(&state, &path, fence, &if_match).await?;
    change.dispatch().await?;
    let met = state.data_plane.disconnect(target, wait).await;
    let met = met.map_err(|error| command_failed(&error, &path.cluster, &path.client_id))?;
    if !met.was_online {
        return Err(Problem::new(Code::SessionNotConnected, "the session is offline already"));
    }
    kicked(&state, &change, path, met, "disconnect").await
}
