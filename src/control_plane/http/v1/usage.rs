//! `/v1/clusters/{cluster}/usage`: how many connections of the quota are, or were, taken.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::code::Code;
use super::super::extract::{ClusterPath, Query};
use super::super::problem::{Problem, Result, data_plane_away};
use super::super::routes::Routes;
use super::super::state::{ApiState, DATA_PLANE_WAIT};
use super::{existing_cluster, quota_of};
use crate::model::{ClusterId, Limit, Timestamp};
use crate::seam::command::SessionCounts;

pub(super) fn routes(routes: Routes) -> Routes {
    let codes = [Code::StoreUnavailable, Code::DataPlaneUnavailable, Code::UsageUnknown];
    routes.add(Scope::ClustersRead, &codes, routes!(get_usage))
}

/// How long before a past instant its sample may lie: a minute and what counting takes.
const SAMPLE_WITHIN: Duration = Duration::from_mins(2);

/// How many connections of a cluster's quota are taken.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Usage, example = json!({
    "at": "2026-01-31T12:00:00.000Z", "online": 2, "offline_persistent": 1, "total": 3, "limit": 1000, "free": 997
}))]
struct UsageView {
    /// When they were counted.
    at: Timestamp,
    /// Sessions with a connection.
    #[schema(minimum = 0)]
    online: u32,
    /// Sessions without one that wait for their client and have not expired.
    #[schema(minimum = 0)]
    offline_persistent: u32,
    /// Both together: what the quota counts.
    #[schema(minimum = 0)]
    total: u32,
    /// The quota; null for none.
    #[schema(minimum = 0, required)]
    limit: Option<u32>,
    /// How many new clients are let in; null for any number.
    #[schema(minimum = 0, required)]
    free: Option<u32>,
}

impl UsageView {
    fn new(at: Timestamp, counts: SessionCounts, limit: Limit) -> Self {
        let total = counts.online.saturating_add(counts.offline_persistent);
        Self {
            at,
            online: counts.online,
            offline_persistent: counts.offline_persistent,
            total,
            limit,
            free: limit.map(|limit| limit.saturating_sub(total)),
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct UsageParams {
    /// A past instant of the last 7 days; now when not sent. The answer is the last count at or before it.
    at: Option<Timestamp>,
}

/// Get a cluster's usage
///
/// Without `at` counted by the data plane when asked, exactly, by the clock: a session that has expired is not
/// counted, whether or not it was removed yet. With `at` as it was counted then: once a minute.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/usage",
    tag = "clusters",
    params(ClusterPath, UsageParams),
    responses((status = 200, description = "What is, or was, used.", body = UsageView))
)]
async fn get_usage(
    State(state): State<ApiState>,
    path: ClusterPath,
    Query(params): Query<UsageParams>,
) -> Result<Json<UsageView>> {
    let cluster = existing_cluster(&state, &path.cluster).await?;
    if let Some(at) = params.at {
        return usage_at(&state, &cluster.id, at).await.map(Json);
    }
    let limit = quota_of(&cluster)?.connections;
    let at = state.clock.wall();
    let counts = state.data_plane.count(cluster.id, DATA_PLANE_WAIT).await;
    Ok(Json(UsageView::new(at, counts.map_err(|error| data_plane_away(&error))?, limit)))
}

async fn usage_at(state: &ApiState, cluster: &ClusterId, at: Timestamp) -> Result<UsageView> {
    if at > state.clock.wall() {
        return Err(Problem::parameter(Code::InvalidParameter, "at", "it has not come yet"));
    }
    let sample = state.store.usage_at(cluster, at, SAMPLE_WITHIN).await?;
    let sample =
        sample.ok_or_else(|| Problem::new(Code::UsageUnknown, format!("nothing was counted at {at}")))?;
    Ok(UsageView::new(sample.at, sample.counts, sample.limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_free_above_the_limit() {
        let counts = SessionCounts { online: 3, offline_persistent: 4 };
        let free = |limit| UsageView::new(Timestamp::EPOCH, counts, limit).free;
        assert_eq!(
            [free(Some(5)), free(Some(7)), free(Some(8)), free(None)],
            [Some(0), Some(0), Some(1), None]
        );
        assert_eq!(UsageView::new(Timestamp::EPOCH, counts, None).total, 7);
    }
}
