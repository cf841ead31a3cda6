//! `…/holds`: client ids that an operator refuses for a while, made with the end of a session or connection.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::extract::{ClusterPath, NO_BODY, NoBody, Query, SessionPath};
use super::super::number::Within;
use super::super::page::{Page, PageParams, Paging};
use super::super::problem::{Problem, Result};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::existing_cluster;
use crate::model::{ClientHold, ClientId, ClusterId, OperatorReason, Timestamp};
use crate::store::{HOLDS_MAX, HoldOrder, HoldRecord, Tx};

/// The longest hold: 30 days.
const SECS_MAX: u32 = 2_592_000;

pub(super) fn routes(routes: Routes) -> Routes {
    let list = [Code::PageTokenInvalid];
    let one = [Code::HoldNotFound];
    let remove = [&one[..], &NO_BODY].concat();
    routes
        .add(Scope::SessionsRead, &list, routes!(list_holds))
        .add(Scope::SessionsRead, &one, routes!(get_hold))
        .add_enforced(Scope::SessionsWrite, &remove, routes!(remove_hold))
}

/// How long a client id is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Within<1, SECS_MAX>", into = "u32")]
pub(super) struct HoldSeconds(u32);

impl From<Within<1, SECS_MAX>> for HoldSeconds {
    fn from(secs: Within<1, SECS_MAX>) -> Self {
        Self(secs.0)
    }
}

impl From<HoldSeconds> for u32 {
    fn from(secs: HoldSeconds) -> Self {
        secs.0
    }
}

impl HoldSeconds {
    /// The order that this request gives at `now`.
    pub(super) fn order(self, change: &Change, reason: Option<OperatorReason>, now: Timestamp) -> HoldOrder {
        let (actor, request_id) = change.who();
        let hold = ClientHold { until: now.plus_secs(self.0), reason };
        HoldOrder { hold, actor, request_id, created_at: now }
    }

    /// Reads it from a query, in which all values are texts.
    pub(super) fn from_query<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Self>, D::Error> {
        let secs = u32::deserialize(value)?;
        let within = (1..=SECS_MAX).contains(&secs);
        let refused =
            || serde::de::Error::custom(format_args!("it must be a whole number from 1 to {SECS_MAX}"));
        within.then_some(Some(Self(secs))).ok_or_else(refused)
    }
}

impl PartialSchema for HoldSeconds {
    fn schema() -> RefOr<Schema> {
        let secs = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(SECS_MAX));
        secs.description(Some("For how many seconds; at most 30 days.")).examples([3_600]).into()
    }
}

impl ToSchema for HoldSeconds {}

/// Holds these client ids, if there is room.
pub(super) async fn put(
    tx: &mut Tx,
    cluster: &ClusterId,
    clients: &[ClientId],
    order: &HoldOrder,
    now: Timestamp,
) -> Result<()> {
    let held = tx.put_holds(cluster, clients, order, now).await?;
    if held > HOLDS_MAX {
        let detail = format!("cluster \"{cluster}\" would hold {held} client ids of at most {HOLDS_MAX}");
        return Err(Problem::new(Code::TooManyHolds, detail));
    }
    Ok(())
}

/// A client id that is refused for a while.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Hold, example = json!({
    "client_id": "meter-17", "until": "2026-01-31T13:00:00.000Z", "reason": "moved to another site",
    "actor": "ada", "request_id": "trace-7", "created_at": "2026-01-31T12:00:00.000Z"
}))]
struct HoldView {
    /// The client id.
    client_id: ClientId,
    /// Until when its CONNECT is refused: v5 with 0x8A and a reason string that names this time, v3 with 5.
    until: Timestamp,
    /// Why; null when nobody said.
    #[schema(required)]
    reason: Option<OperatorReason>,
    /// Who ordered it.
    #[schema(example = "ada")]
    actor: String,
    /// In which request, as the audit log has it.
    request_id: String,
    /// When.
    created_at: Timestamp,
}

impl From<HoldRecord> for HoldView {
    fn from(HoldRecord { client_id, order }: HoldRecord) -> Self {
        Self {
            client_id,
            until: order.hold.until,
            reason: order.hold.reason,
            actor: order.actor,
            request_id: order.request_id,
            created_at: order.created_at,
        }
    }
}

/// List the client ids that are held
///
/// In their byte order. A hold is made by `hold_seconds` when a session or its connection is ended, or with a purge.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/holds",
    tag = "sessions",
    params(ClusterPath, PageParams),
    responses((status = 200, description = "A page of holds.", body = Page<HoldView>))
)]
async fn list_holds(
    State(state): State<ApiState>,
    path: ClusterPath,
    Query(params): Query<PageParams>,
) -> Result<Json<Page<HoldView>>> {
    existing_cluster(&state, &path.cluster).await?;
    let bound = ("holds", &path.cluster);
    let paging = Paging::<ClientId>::of(&params, &bound)?;
    let now = state.clock.wall();
    let holds = state.store.list_holds(&path.cluster, paging.after.as_ref(), paging.limit(), now).await?;
    paging.page(holds, |hold| hold.client_id.clone(), HoldView::from).map(Json)
}

fn not_held(path: &SessionPath) -> Problem {
    Problem::new(Code::HoldNotFound, format!("client id \"{}\" is not held", path.client_id))
}

/// Get the hold on a client id
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/holds/{client_id}",
    tag = "sessions",
    params(SessionPath),
    responses((status = 200, description = "The hold.", body = HoldView))
)]
async fn get_hold(State(state): State<ApiState>, path: SessionPath) -> Result<Json<HoldView>> {
    existing_cluster(&state, &path.cluster).await?;
    let found = state.store.get_hold(&path.cluster, &path.client_id, state.clock.wall()).await?;
    found.map(|hold| Json(hold.into())).ok_or_else(|| not_held(&path))
}

/// Remove the hold on a client id
///
/// What is answered holds for the client's next CONNECT.
#[utoipa::path(
    delete,
    path = "/v1/clusters/{cluster}/holds/{client_id}",
    tag = "sessions",
    params(SessionPath),
    responses((status = 204, description = "The client id is held no longer."))
)]
async fn remove_hold(
    State(state): State<ApiState>,
    change: Change,
    path: SessionPath,
    _: NoBody,
) -> Result<Response> {
    existing_cluster(&state, &path.cluster).await?;
    let mut tx = state.store.begin().await?;
    let removed = tx.remove_hold(&path.cluster, &path.client_id, state.clock.wall()).await?;
    let before = removed.map(HoldView::from).ok_or_else(|| not_held(&path))?;
    change.commit(tx, Some(&before), StatusCode::NO_CONTENT.into_response()).await
}
