//! `…/refusals`: what clients were refused, and why.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::code::Code;
use super::super::extract::{ClusterPath, Query};
use super::super::page::{Page, PageSize, Paging};
use super::super::problem::Result;
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::existing_cluster;
use crate::model::{ClientId, RefusalKind, RefusalReason, Timestamp};
use crate::store::{RefusalFilter, RefusalRecord};

pub(super) fn routes(routes: Routes) -> Routes {
    routes.add(Scope::SessionsRead, &[Code::PageTokenInvalid], routes!(list_refusals))
}

/// Refusals of one kind, to one client id and user name from one address, for one reason.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Refusal, example = json!({
    "kind": "connect", "client_id": "meter-17", "username": "meter", "ip": "10.0.0.7", "code": 151,
    "reason": "connections", "detail": "quota connections: limit 3, in use 3", "count": 12,
    "first_at": "2026-01-31T12:00:00.000Z", "last_at": "2026-01-31T12:04:10.000Z"
}))]
struct RefusalView {
    /// What was refused.
    kind: RefusalKind,
    /// The client id; null where it had none, and where more was refused at once than is told apart.
    #[schema(required, example = "meter-17")]
    client_id: Option<String>,
    /// The user name that was given, at most its first 256 bytes; null for none.
    #[schema(required, example = "meter")]
    username: Option<String>,
    /// The address that it came from; null where more was refused at once than is told apart.
    #[schema(required, value_type = Option<String>, example = "10.0.0.7")]
    ip: Option<IpAddr>,
    /// The reason code as MQTT 5.0 has it, also for a client that speaks 3.1 or 3.1.1 and was told another or
    /// none: 151 is 0x97, quota exceeded; 159 is 0x9F, connection rate exceeded.
    #[schema(minimum = 128, maximum = 255, example = 151)]
    code: u8,
    /// Why. A quota is called as in the quota of the cluster.
    reason: RefusalReason,
    /// The last of them in words: quota, limit and use, where it is a quota.
    #[schema(example = "quota connections: limit 3, in use 3")]
    detail: String,
    /// How many there were. Messages that one publisher sent too fast count one by one; a 3.1.1 client that was
    /// slowed counts once each time.
    #[schema(minimum = 1)]
    count: u64,
    /// When the first of them was.
    first_at: Timestamp,
    /// When the last of them was.
    last_at: Timestamp,
}

impl From<RefusalRecord> for RefusalView {
    fn from(RefusalRecord { refusal, .. }: RefusalRecord) -> Self {
        Self {
            kind: refusal.kind,
            client_id: refusal.client_id,
            username: refusal.username,
            ip: refusal.ip,
            code: refusal.code,
            reason: refusal.reason,
            detail: refusal.detail,
            count: refusal.count,
            first_at: refusal.first_at,
            last_at: refusal.last_at,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// Only of this client id.
    client_id: Option<ClientId>,
    /// Only of this user name.
    #[param(min_length = 1, example = "meter")]
    username: Option<String>,
    /// Only from this address.
    #[param(value_type = Option<String>, min_length = 1, example = "10.0.0.7")]
    ip: Option<IpAddr>,
    /// Only of this kind.
    kind: Option<RefusalKind>,
    /// Only for this reason.
    reason: Option<RefusalReason>,
    /// Only with this reason code of MQTT 5.0, as a number.
    #[param(minimum = 0, maximum = 255, example = 151)]
    code: Option<u8>,
    /// Only what was refused at this time or later.
    since: Option<Timestamp>,
    /// How many refusals a page has at most: 1 to 1000, 100 when not sent; more is lowered.
    page_size: Option<PageSize>,
    /// Where the page begins: the `next_page_token` of the page before.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$")]
    page_token: Option<String>,
}

impl ListParams {
    fn filter(&self) -> RefusalFilter {
        RefusalFilter {
            client_id: self.client_id.clone(),
            username: self.username.clone(),
            ip: self.ip.map(|ip| ip.to_canonical().to_string()),
            kind: self.kind,
            reason: self.reason,
            code: self.code,
            since: self.since,
        }
    }
}

/// List what clients were refused
///
/// The most recently repeated first: CONNECTs, subscriptions, and publishes that came too fast. What was the same
/// is one item with a count. It is written down within about two seconds. A cluster keeps at
/// most 10,000 items, each for 30 days after its last repetition. An item that is repeated while you page
/// moves to the front.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/refusals",
    tag = "sessions",
    params(ClusterPath, ListParams),
    responses((status = 200, description = "A page of refusals.", body = Page<RefusalView>))
)]
async fn list_refusals(
    State(state): State<ApiState>,
    path: ClusterPath,
    Query(params): Query<ListParams>,
) -> Result<Json<Page<RefusalView>>> {
    existing_cluster(&state, &path.cluster).await?;
    let filter = params.filter();
    let bound = ("refusals", &path.cluster, format!("{filter:?}"));
    let paging = Paging::<(Timestamp, i64)>::new(params.page_size, params.page_token.as_deref(), &bound)?;
    let rows = state.store.list_refusals(&path.cluster, &filter, paging.after, paging.limit()).await?;
    paging.page(rows, |row| (row.refusal.last_at, row.id), RefusalView::from).map(Json)
}
