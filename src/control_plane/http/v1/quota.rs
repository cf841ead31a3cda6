//! `/v1/clusters/{cluster}/quota`: the limits in force, where each comes from, and what is used. How it is set:
//! [`quota_put`](super::quota_put).

use axum::Json;
use axum::extract::State;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::code::Code;
use super::super::etag::ETag;
use super::super::extract::ClusterPath;
use super::super::problem::{Result, data_plane_away};
use super::super::routes::Routes;
use super::super::state::{ApiState, DATA_PLANE_WAIT};
use super::quota_put::Excess;
use super::quota_rates::{FlappingView, RatesView};
use super::{existing_cluster, quota_of};
use crate::model::{Cluster, Limit, QuotaSource};

pub(super) fn routes(routes: Routes) -> Routes {
    let read = [Code::StoreUnavailable, Code::DataPlaneUnavailable];
    routes.add(Scope::ClustersRead, &read, routes!(get_quota))
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
    "shared_groups": {"limit": 20, "source": "plan", "used": 1},
    "filters_per_shared_group": {"limit": 10, "source": "plan"},
    "members_per_shared_group": {"limit": 1024, "source": "plan"},
    "log_mib": {"limit": 16_384, "source": "plan", "used": 12},
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
    },
    "excess": {"on_excess": "shed_newest", "validate_only": false, "sessions_over": 1, "subscriptions_over": 0,
               "sessions_shed": 1, "sample": ["meter-17"]}
}))]
pub(super) struct QuotaView {
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
    /// Share names: all groups `$share/{name}/…` of one name are one here, whatever filters they share.
    shared_groups: UsedLimit,
    /// Filters that are shared under one name.
    filters_per_shared_group: PlainLimit,
    /// Sessions that share something under one name, online or not.
    members_per_shared_group: PlainLimit,
    /// What the cluster's messages may take in the message log, in MiB. Over it the oldest are let go of, a
    /// segment at a time, and counted for each session that had still to read them.
    log_mib: UsedLimit,
    /// The shortest that a session outlives its connection, in seconds.
    session_expiry_min_seconds: PlainLimit,
    /// The longest that a session outlives its connection, in seconds.
    session_expiry_max_seconds: PlainLimit,
    /// How often something may happen.
    rates: RatesView,
    /// The guard against clients that connect over and over.
    flapping: FlappingView,
    /// What there was above the new limits, and what became of it. Only where a quota was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    excess: Option<Excess>,
}

const MIB: u64 = 1_024 * 1_024;

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
pub(super) async fn tagged(state: &ApiState, cluster: Cluster, excess: Option<Excess>) -> Result<Response> {
    let quota = quota_of(&cluster)?;
    let now = state.clock.wall();
    let in_use = state.data_plane.quota_use(cluster.id.clone(), DATA_PLANE_WAIT).await;
    let in_use = in_use.map_err(|error| data_plane_away(&error))?;
    let subscriptions = state.store.count_subscriptions(&cluster.id, now).await?;
    let own = &cluster.overrides;
    let view = QuotaView {
        connections: UsedLimit {
            limit: quota.connections,
            source: source(own.connections),
            used: in_use.sessions.total().into(),
        },
        subscriptions: UsedLimit {
            limit: quota.subscriptions,
            source: source(own.subscriptions),
            used: subscriptions,
        },
        filters_per_client: PlainLimit::new(quota.filters_per_client, own.filters_per_client),
        retained_messages: PlainLimit::new(quota.retained_messages, own.retained_messages),
        retained_bytes: PlainLimit::new(quota.retained_bytes, own.retained_bytes),
        shared_groups: UsedLimit {
            limit: quota.shared_groups,
            source: source(own.shared_groups),
            used: in_use.shared_groups.into(),
        },
        filters_per_shared_group: PlainLimit::new(
            quota.filters_per_shared_group,
            own.filters_per_shared_group,
        ),
        members_per_shared_group: PlainLimit::new(
            quota.members_per_shared_group,
            own.members_per_shared_group,
        ),
        log_mib: UsedLimit {
            limit: quota.log_mib,
            source: source(own.log_mib),
            used: in_use.log_bytes.div_ceil(MIB),
        },
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
        excess,
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
    tagged(&state, cluster, None).await
}
