//! `/v1/operations/{operation_id}`: work that outlasts its request: how far it is, its end, its sessions.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{FromRequestParts, RawPathParams, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use uuid::Uuid;

use super::super::auth::{Caller, Scope};
use super::super::change::Change;
use super::super::code::Code;
use super::super::extract::{NO_BODY, NoBody, Query};
use super::super::page::{Page, PageParams, Paging};
use super::super::problem::{Problem, Result};
use super::super::routes::Routes;
use super::super::state::ApiState;
use crate::model::{ClientId, ClusterId, OperatorReason, SessionId, Timestamp, WillChoice};
use crate::store::{Operation, PurgeAction, TargetOutcome};

pub(super) fn routes(routes: Routes) -> Routes {
    let one = [Code::OperationNotFound];
    let list = [Code::OperationNotFound, Code::PageTokenInvalid];
    let cancel = [&[Code::OperationNotFound, Code::OperationEnded][..], &NO_BODY].concat();
    routes
        .add(Scope::SessionsRead, &one, routes!(get_operation))
        .add(Scope::SessionsRead, &list, routes!(list_operation_sessions))
        .add(Scope::SessionsWrite, &cancel, routes!(cancel_operation))
}

/// Work that outlasts its request: a purge, or a command on one session that was not confirmed in time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Operation, example = json!({
    "id": "4f1d2c3b-5a69-4788-9aab-bccddeeff001", "cluster": "default", "action": "delete",
    "state": "running", "rate_per_second": 100, "will": "publish", "reason": null, "actor": "ada", "request_id": "trace-7",
    "created_at": "2026-01-31T12:00:00.000Z", "finished_at": null, "total": 10000, "pending": 4000,
    "outcomes": {"deleted": 5990, "gone": 7, "protected": 3}
}))]
pub(super) struct OperationView {
    /// Its id.
    id: Uuid,
    /// The cluster.
    cluster: ClusterId,
    /// What is done to each session: `disconnect` or `delete`.
    action: PurgeAction,
    /// `running`, `succeeded` (every session has an outcome) or `cancelled`.
    #[schema(example = "running")]
    state: String,
    /// Sessions a second at most; null for as fast as can be.
    #[schema(required, minimum = 1)]
    rate_per_second: Option<u32>,
    /// What becomes of the wills.
    will: WillChoice,
    /// Why it is done; null when nobody said.
    #[schema(required)]
    reason: Option<OperatorReason>,
    /// Who ordered it.
    #[schema(example = "ada")]
    actor: String,
    /// In which request, as the audit log has it.
    request_id: String,
    /// When it was ordered.
    created_at: Timestamp,
    /// When it ended; null while it runs.
    #[schema(required)]
    finished_at: Option<Timestamp>,
    /// How many sessions it is about: those that were there when it was ordered.
    #[schema(minimum = 0)]
    total: u64,
    /// How many are still to be done.
    #[schema(minimum = 0)]
    pending: u64,
    /// How many have which outcome: `disconnected`, `deleted`; `not_connected`, `protected`: nothing was done; `gone`:
    /// the session, or the connection that was meant, had ended otherwise, or a purge was at it in the moment of a
    /// crash; `cancelled`.
    outcomes: BTreeMap<String, u64>,
}

impl From<Operation> for OperationView {
    fn from(operation: Operation) -> Self {
        let new = operation.new;
        Self {
            id: new.id,
            cluster: new.cluster,
            action: new.action,
            state: operation.state,
            rate_per_second: new.rate,
            will: new.options.will,
            reason: new.options.reason,
            actor: new.actor,
            request_id: new.request_id,
            created_at: operation.created_at,
            finished_at: operation.finished_at,
            total: operation.total,
            pending: operation.pending,
            outcomes: operation.outcomes.into_iter().collect(),
        }
    }
}

impl OperationView {
    /// The answer to the request that has made it.
    pub(super) fn accepted(self) -> Response {
        let location = [(LOCATION, format!("/v1/operations/{}", self.id))];
        (StatusCode::ACCEPTED, location, Json(self)).into_response()
    }
}

/// The operation that a path names.
#[derive(Clone, Debug, IntoParams)]
#[into_params(parameter_in = Path)]
struct OperationPath {
    /// The operation's id.
    operation_id: Uuid,
}

impl<S: Send + Sync> FromRequestParts<S> for OperationPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let path = RawPathParams::from_request_parts(parts, state).await;
        let path = path
            .map_err(|error| Problem::parameter(Code::InvalidParameter, "operation_id", error.body_text()))?;
        let text = path.iter().find(|(name, _)| *name == "operation_id").map(|(_, value)| value);
        let text = text.ok_or_else(|| Problem::internal("the route has no parameter operation_id"))?;
        // What cannot be an id is the id of no operation.
        let operation_id = Uuid::try_parse(text).map_err(|_| not_found(text))?;
        Ok(Self { operation_id })
    }
}

fn not_found(id: impl std::fmt::Display) -> Problem {
    Problem::new(Code::OperationNotFound, format!("there is no operation \"{id}\""))
}

/// The operation, or 404: also for one of a cluster that the caller's token may not see.
async fn existing(state: &ApiState, caller: &Caller, path: &OperationPath) -> Result<Operation> {
    let found = state.store.get_operation(path.operation_id).await?;
    let seen = found.filter(|operation| caller.cluster().is_none_or(|own| *own == operation.new.cluster));
    seen.ok_or_else(|| not_found(path.operation_id))
}

/// Get an operation
///
/// Kept for 30 days after its end.
#[utoipa::path(
    get,
    path = "/v1/operations/{operation_id}",
    tag = "operations",
    params(OperationPath),
    responses((status = 200, description = "The operation.", body = OperationView))
)]
async fn get_operation(
    State(state): State<ApiState>,
    caller: Caller,
    path: OperationPath,
) -> Result<Json<OperationView>> {
    Ok(Json(existing(&state, &caller, &path).await?.into()))
}

/// A session of an operation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "client_id": "meter-17", "session_id": "019af8a0-5b7e-7c3d-9f1e-2a4b6c8d0e1f", "outcome": "deleted"
}))]
struct OperationSession {
    /// The client.
    client_id: ClientId,
    /// The session that is meant; the client's next one is not hit.
    session_id: SessionId,
    /// What became of it; null while it is to be done.
    #[schema(required, example = "deleted")]
    outcome: Option<String>,
}

/// List an operation's sessions
///
/// In the byte order of their client ids, each with what became of it.
#[utoipa::path(
    get,
    path = "/v1/operations/{operation_id}/sessions",
    tag = "operations",
    params(OperationPath, PageParams),
    responses((status = 200, description = "A page of sessions.", body = Page<OperationSession>))
)]
async fn list_operation_sessions(
    State(state): State<ApiState>,
    caller: Caller,
    path: OperationPath,
    Query(params): Query<PageParams>,
) -> Result<Json<Page<OperationSession>>> {
    let id = existing(&state, &caller, &path).await?.new.id;
    let paging = Paging::<ClientId>::of(&params, &("operation", id))?;
    let rows = state.store.operation_targets(id, paging.after.as_ref(), paging.limit()).await?;
    let show =
        |(client_id, session_id, outcome): TargetOutcome| OperationSession { client_id, session_id, outcome };
    paging.page(rows, |(client_id, ..)| client_id.clone(), show).map(Json)
}

/// Cancel an operation
///
/// What is done stays done; what is not is not done any more, but for the sessions that are under way at that moment.
#[utoipa::path(
    post,
    path = "/v1/operations/{operation_id}/cancel",
    tag = "operations",
    params(OperationPath),
    responses((status = 200, description = "The operation as it is now.", body = OperationView))
)]
async fn cancel_operation(
    State(state): State<ApiState>,
    caller: Caller,
    change: Change,
    path: OperationPath,
    _: NoBody,
) -> Result<Response> {
    let before = existing(&state, &caller, &path).await?;
    let now = state.clock.wall();
    let mut tx = state.store.begin().await?;
    if !tx.cancel_operation(before.new.id, now).await? {
        return Err(Problem::new(Code::OperationEnded, "the operation has ended already"));
    }
    let after = tx.get_operation(before.new.id).await?.ok_or_else(|| not_found(before.new.id))?;
    let response = Json(OperationView::from(after)).into_response();
    change.commit(tx, Some(&OperationView::from(before)), response).await
}
