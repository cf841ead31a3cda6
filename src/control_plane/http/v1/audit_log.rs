//! `/v1/audit-log`: who asked for which change, and what became of it.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::auth::{Caller, Scope};
use super::super::code::Code;
use super::super::extract::Query;
use super::super::page::{Page, PageSize, Paging};
use super::super::problem::Result;
use super::super::routes::Routes;
use super::super::state::ApiState;
use crate::model::{ClientId, ClusterId, Timestamp};
use crate::store::{AuditFilter, AuditOutcome, AuditRecord};

pub(super) fn routes(routes: Routes) -> Routes {
    let codes = [Code::StoreUnavailable, Code::PageTokenInvalid];
    routes.add(Scope::AuditRead, &codes, routes!(list_audit_log))
}

/// A change that was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry, example = json!({
    "id": 4711, "at": "2026-01-31T12:00:00.000Z", "actor": "ada", "key_id": null, "ip": "10.0.0.7",
    "request_id": "0b6d7cf1-6a0f-4f7e-9a39-5a1f6f4b1d3c", "operation": "disconnect_session",
    "method": "POST", "path": "/v1/clusters/default/sessions/meter-17/disconnect", "cluster": "default",
    "client_id": "meter-17", "outcome": "succeeded", "status": 200, "code": null, "duration_ms": 3,
    "before": null, "after": {"was_online": true}
}))]
struct AuditView {
    /// Grows with every change.
    #[schema(minimum = 1)]
    id: i64,
    /// When it was asked for.
    at: Timestamp,
    /// Who asked: the `sub` of the token, or the name of the API key.
    #[schema(example = "ada")]
    actor: String,
    /// The id of the API key that was used; null for a token.
    #[schema(required)]
    key_id: Option<String>,
    /// The address that the request came from; null when it is not known.
    #[schema(required, example = "10.0.0.7")]
    ip: Option<String>,
    /// The request's id, as in its answer and in the service's log.
    #[schema(example = "0b6d7cf1-6a0f-4f7e-9a39-5a1f6f4b1d3c")]
    request_id: String,
    /// The operation, by its name in this specification.
    #[schema(example = "disconnect_session")]
    operation: String,
    /// The HTTP method.
    #[schema(example = "POST")]
    method: String,
    /// The path.
    #[schema(example = "/v1/clusters/default/sessions/meter-17/disconnect")]
    path: String,
    /// The cluster that the path names; null for none.
    #[schema(required, example = "default")]
    cluster: Option<String>,
    /// The client that the path names; null for none.
    #[schema(required, example = "meter-17")]
    client_id: Option<String>,
    /// What became of it.
    outcome: AuditOutcome,
    /// The HTTP status of the answer; null while `started`.
    #[schema(required, minimum = 100, maximum = 599)]
    status: Option<u16>,
    /// The problem's code; null when there was none.
    #[schema(required, example = "session_not_found")]
    code: Option<String>,
    /// How long it took, in milliseconds; null while `started`.
    #[schema(required, minimum = 0)]
    duration_ms: Option<u64>,
    /// The record before the change; null where there was none or where the data plane made the change.
    #[schema(required, value_type = Option<Object>)]
    before: Option<Value>,
    /// The record after the change, or what was answered; null for nothing.
    #[schema(required, value_type = Option<Object>)]
    after: Option<Value>,
}

impl From<AuditRecord> for AuditView {
    fn from(record: AuditRecord) -> Self {
        let start = record.start;
        Self {
            id: record.id,
            at: record.at,
            actor: start.actor,
            key_id: start.key_id,
            ip: start.ip,
            request_id: start.request_id,
            operation: start.operation,
            method: start.method,
            path: start.path,
            cluster: start.cluster,
            client_id: start.client_id,
            outcome: record.outcome,
            status: record.status,
            code: record.code,
            duration_ms: record.duration_millis,
            before: record.before,
            after: record.after,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// Only changes to this cluster, or to what belongs to it.
    cluster: Option<ClusterId>,
    /// Only changes to the session of this client.
    client_id: Option<ClientId>,
    /// Only changes that this one asked for.
    #[param(min_length = 1, example = "ada")]
    actor: Option<String>,
    /// Only changes asked for with this API key.
    #[param(min_length = 1)]
    key_id: Option<String>,
    /// Only the change of this request.
    #[param(min_length = 1)]
    request_id: Option<String>,
    /// Only this operation, by its name in this specification.
    #[param(min_length = 1, example = "disconnect_session")]
    operation: Option<String>,
    /// Only changes that this became of.
    outcome: Option<AuditOutcome>,
    /// Only changes asked for at this time or later.
    since: Option<Timestamp>,
    /// Only changes asked for before this time.
    until: Option<Timestamp>,
    /// How many entries a page has at most: 1 to 1000, 100 when not sent; more is lowered.
    page_size: Option<PageSize>,
    /// Where the page begins: the `next_page_token` of the page before.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$")]
    page_token: Option<String>,
}

impl ListParams {
    fn filter(&self, caller: &Caller) -> AuditFilter {
        let cluster = self.cluster.as_ref().map(ToString::to_string);
        AuditFilter {
            cluster: caller.cluster().map(ToString::to_string).or(cluster),
            client_id: self.client_id.as_ref().map(ToString::to_string),
            actor: self.actor.clone(),
            key_id: self.key_id.clone(),
            request_id: self.request_id.clone(),
            operation: self.operation.clone(),
            outcome: self.outcome,
            since: self.since,
            until: self.until,
        }
    }

    /// Whether the caller asks for what its token does not see.
    fn asks_beyond(&self, caller: &Caller) -> bool {
        caller.cluster().zip(self.cluster.as_ref()).is_some_and(|(own, asked)| own != asked)
    }
}

/// List the changes that were asked for
///
/// Newest first. A row is written before the effect and completed after it: `started` is being worked
/// on, or is what a crash has left; read the record to learn what became of that. Rows are kept for 396
/// days. A token that is bound to a cluster sees the changes to that one alone. Refusals for
/// want of a token or of a role change nothing and are not listed.
#[utoipa::path(
    get,
    path = "/v1/audit-log",
    tag = "audit",
    params(ListParams),
    responses((status = 200, description = "A page of changes.", body = Page<AuditView>))
)]
async fn list_audit_log(
    State(state): State<ApiState>,
    caller: Caller,
    Query(params): Query<ListParams>,
) -> Result<Json<Page<AuditView>>> {
    let filter = params.filter(&caller);
    let bound = ("audit-log", format!("{filter:?}"));
    let paging = Paging::<i64>::new(params.page_size, params.page_token.as_deref(), &bound)?;
    let rows = if params.asks_beyond(&caller) {
        Vec::new()
    } else {
        state.store.list_audit(&filter, paging.after, paging.limit()).await?
    };
    paging.page(rows, |record| record.id, AuditView::from).map(Json)
}
