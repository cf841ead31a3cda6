//! `/v1/clusters/{cluster}/quota`: the limits in force, where each comes from, and what is used.

use axum::Json;
use axum::extract::State;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::etag::{ETag, IfMatch};
use super::super::extract::{self, ClusterPath};
use super::super::number::AtMost;
use super::super::problem::{Problem, Result, data_plane_away};
use super::super::routes::Routes;
use super::super::state::{ApiState, DATA_PLANE_WAIT};
use super::quota_rates::{FlappingPut, FlappingView, RatesPut, RatesView, overrides};
use super::{existing_cluster, quota_of};
use crate::model::{Cluster, Limit, Quota, QuotaOverrides, QuotaSource};

pub(super) fn routes(routes: Routes) -> Routes {
    let read = [Code::StoreUnavailable, Code::DataPlaneUnavailable];
    let write = [
        Code::StoreUnavailable,
        Code::DataPlaneUnavailable,
        Code::NotConfirmed,
        Code::PreconditionFailed,
        Code::PreconditionRequired,
        Code::InvalidHeader,
    ];
    routes.add(Scope::ClustersRead, &read, routes!(get_quota)).add(
        Scope::ClustersWrite,
        &write,
        routes!(put_quota),
    )
}

/// The limits in force for a cluster.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Quota, example = json!({
    "plan": "basic",
    "connections": {"limit": 3, "source": "override", "used": 2},
    "subscriptions": {"limit": 90, "source": "plan", "used": 5},
    "filters_per_client": {"limit": 30, "source": "plan"},
    "retained_messages": {"limit": 10_000, "source": "plan"},
    "retained_bytes": {"limit": 67_108_864, "source": "plan"},
    "session_expiry_min_seconds": {"limit": 0, "source": "plan"},
    "session_expiry_max_seconds": {"limit": 259_200, "source": "plan"},
    "rates": {
        "connects_per_second": {"limit": 100, "source": "plan"},
        "connects_with_will_per_second": {"limit": 100, "source": "plan"},
        "subscribes_per_second": {"limit": 100, "source": "plan"},
        "unsubscribes_per_second": {"limit": 100, "source": "plan"},
        "messages_per_second": {"limit": 10_000, "source": "plan"},
        "client_messages_per_second": {"limit": 50, "source": "override"},
        "client_bytes_per_second": {"limit": null, "source": "plan"}
    },
    "flapping": {
        "connects": {"limit": 60, "source": "plan"},
        "window_seconds": {"limit": 60, "source": "plan"},
        "hold_seconds": {"limit": 60, "source": "plan"}
    }
}))]
struct QuotaView {
    /// The plan that gives every limit that the cluster does not set itself.
    plan: String,
    /// Online sessions and unexpired offline persistent sessions together. At the limit a new client
    /// id is refused; one that has a session always comes back.
    connections: UsedLimit,
    /// Subscriptions of all sessions together. The plan's limit is a multiple of `connections`.
    subscriptions: UsedLimit,
    /// Filters of one client.
    filters_per_client: PlainLimit,
    /// Retained messages.
    retained_messages: PlainLimit,
    /// Bytes of all retained messages: topics, payloads and properties.
    retained_bytes: PlainLimit,
    /// The shortest that a session outlives its connection, in seconds.
    session_expiry_min_seconds: PlainLimit,
    /// The longest that a session outlives its connection, in seconds.
    session_expiry_max_seconds: PlainLimit,
    /// How often something may happen.
    rates: RatesView,
    /// The guard against clients that connect over and over.
    flapping: FlappingView,
}

/// A limit and how much of it is used.
#[derive(Debug, Serialize, ToSchema)]
struct UsedLimit {
    /// The limit; null for none.
    #[schema(minimum = 0, required)]
    limit: Option<u32>,
    /// Where it comes from.
    source: QuotaSource,
    /// How much of it is used at this moment. More than the limit after that was lowered: what
    /// exists is not taken away.
    #[schema(minimum = 0)]
    used: u64,
}

/// A limit.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PlainLimit {
    /// The limit; null for none.
    #[schema(minimum = 0, required)]
    limit: Option<u32>,
    /// Where it comes from.
    source: QuotaSource,
}

impl PlainLimit {
    pub(super) fn new(limit: Limit, own: Option<u32>) -> Self {
        Self { limit, source: source(own) }
    }
}

fn source(own: Option<u32>) -> QuotaSource {
    if own.is_some() { QuotaSource::Override } else { QuotaSource::Plan }
}

/// The record with its `ETag`.
async fn tagged(state: &ApiState, cluster: Cluster) -> Result<Response> {
    let quota = quota_of(&cluster)?;
    let now = state.clock.wall();
    let counts = state.data_plane.count(cluster.id.clone(), DATA_PLANE_WAIT).await;
    let counts = counts.map_err(|error| data_plane_away(&error))?;
    let subscriptions = state.store.count_subscriptions(&cluster.id, now).await?;
    let own = &cluster.overrides;
    let view = QuotaView {
        connections: UsedLimit {
            limit: quota.connections,
            source: source(own.connections),
            used: u64::from(counts.online) + u64::from(counts.offline_persistent),
        },
        subscriptions: UsedLimit {
            limit: quota.subscriptions,
            source: source(own.subscriptions),
            used: subscriptions,
        },
        filters_per_client: PlainLimit::new(quota.filters_per_client, own.filters_per_client),
        retained_messages: PlainLimit::new(quota.retained_messages, own.retained_messages),
        retained_bytes: PlainLimit::new(quota.retained_bytes, own.retained_bytes),
        session_expiry_min_seconds: PlainLimit::new(
            Some(quota.session_expiry_min_secs),
            own.session_expiry_min_secs,
        ),
        session_expiry_max_seconds: PlainLimit::new(
            Some(quota.session_expiry_max_secs),
            own.session_expiry_max_secs,
        ),
        rates: RatesView::new(&quota.rates, &own.rates),
        flapping: FlappingView::new(quota.flapping, &own.rates),
        plan: cluster.plan.clone(),
    };
    Ok(([(ETAG, ETag::of_quota(&cluster).header())], Json(view)).into_response())
}

/// Get a cluster's quota
///
/// Each limit in force, whether it is the plan's or the cluster's own, and how much is used.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/quota",
    tag = "clusters",
    params(ClusterPath),
    responses((
        status = 200,
        description = "The limits in force.",
        body = QuotaView,
        headers(("ETag" = String, description = "The version of the quota's settings."))
    ))
)]
async fn get_quota(State(state): State<ApiState>, path: ClusterPath) -> Result<Response> {
    let cluster = existing_cluster(&state, &path.cluster).await?;
    tagged(&state, cluster).await
}

/// What a cluster sets over its plan. Null, or nothing, leaves the plan's value.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = QuotaOverrides, example = json!({"connections": 3, "filters_per_client": null}))]
struct QuotaPut {
    /// Online sessions and unexpired offline persistent sessions together.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 100_000_000)]
    connections: Option<AtMost<100_000_000>>,
    /// Subscriptions of all sessions together.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000_000)]
    subscriptions: Option<AtMost<1_000_000_000>>,
    /// Filters of one client.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000)]
    filters_per_client: Option<AtMost<1_000_000>>,
    /// Retained messages; over it a message is passed on and not retained.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000_000)]
    retained_messages: Option<AtMost<1_000_000_000>>,
    /// Bytes of all retained messages: topics, payloads and properties.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 4_294_967_295_i64)]
    retained_bytes: Option<AtMost<{ u32::MAX }>>,
    /// The shortest that a session outlives its connection, in seconds; a shorter wish is raised.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 259_200)]
    session_expiry_min_seconds: Option<AtMost<{ Quota::SESSION_EXPIRY_MAX_SECS }>>,
    /// The longest that a session outlives its connection, in seconds; a longer wish is lowered.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 259_200)]
    session_expiry_max_seconds: Option<AtMost<{ Quota::SESSION_EXPIRY_MAX_SECS }>>,
    /// How often something may happen.
    rates: Option<RatesPut>,
    /// The guard against clients that connect over and over.
    flapping: Option<FlappingPut>,
}

impl From<QuotaPut> for QuotaOverrides {
    fn from(body: QuotaPut) -> Self {
        Self {
            connections: body.connections.map(|n| n.0),
            subscriptions: body.subscriptions.map(|n| n.0),
            filters_per_client: body.filters_per_client.map(|n| n.0),
            retained_messages: body.retained_messages.map(|n| n.0),
            retained_bytes: body.retained_bytes.map(|n| n.0),
            session_expiry_min_secs: body.session_expiry_min_seconds.map(|n| n.0),
            session_expiry_max_secs: body.session_expiry_max_seconds.map(|n| n.0),
            rates: overrides(body.rates, body.flapping),
        }
    }
}

/// Set a cluster's quota
///
/// Replaces everything that the cluster sets over its plan: what is null or not sent is the plan's
/// again. The limits are enforced when this is answered. Sessions and subscriptions that exist are
/// not touched by a lower limit; new ones are refused until there is room.
#[utoipa::path(
    put,
    path = "/v1/clusters/{cluster}/quota",
    tag = "clusters",
    params(ClusterPath, ("If-Match" = String, Header, description = "The `ETag` of the quota that was read.", example = "*")),
    request_body = QuotaPut,
    responses((
        status = 200,
        description = "The limits in force now.",
        body = QuotaView,
        headers(("ETag" = String, description = "The version of the quota's settings."))
    ))
)]
async fn put_quota(
    State(state): State<ApiState>,
    change: Change,
    path: ClusterPath,
    if_match: IfMatch,
    extract::Json(body): extract::Json<QuotaPut>,
) -> Result<Response> {
    let now = state.clock.wall();
    let overrides = QuotaOverrides::from(body);
    let mut tx = state.store.begin().await?;
    let current = tx.lock_cluster(&path.cluster).await?;
    let current = current.ok_or_else(|| Problem::cluster_not_found(&path.cluster))?;
    if_match.check_required(&ETag::of_quota(&current))?;
    if overrides == current.overrides {
        return tagged(&state, current).await;
    }
    let changed = tx.update_quota(&current.id, &current.plan, &overrides, now).await?;
    check(&quota_of(&changed)?)?;
    // What is used now does not hang on the change, and may be asked before it is committed.
    let response = tagged(&state, changed).await?;
    let response = change.commit(tx, Some(&current.overrides), response).await?;
    state.enforced().await?;
    Ok(response)
}

/// Bounds that contradict each other bound nothing.
fn check(quota: &Quota) -> Result<()> {
    if quota.session_expiry_min_secs <= quota.session_expiry_max_secs {
        return Ok(());
    }
    let detail = format!("at most session_expiry_max_seconds, which is {}", quota.session_expiry_max_secs);
    Err(Problem::field(Code::InvalidBody, "/session_expiry_min_seconds", detail))
}
