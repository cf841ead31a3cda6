//! `/v1/clusters/{cluster}/usage`: how many connections of the quota are taken.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::code::Code;
use super::super::extract::ClusterPath;
use super::super::problem::{Result, data_plane_away};
use super::super::routes::Routes;
use super::super::state::{ApiState, DATA_PLANE_WAIT};
use super::{existing_cluster, quota_of};
use crate::model::Limit;
use crate::seam::command::SessionCounts;

pub(super) fn routes(routes: Routes) -> Routes {
    let codes = [Code::StoreUnavailable, Code::DataPlaneUnavailable];
    routes.add(Scope::ClustersRead, &codes, routes!(get_usage))
}

/// How many connections of a cluster's quota are taken, exactly, at this moment.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Usage, example = json!({
    "online": 2, "offline_persistent": 1, "total": 3, "limit": 1000, "free": 997
}))]
struct UsageView {
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
    fn new(counts: SessionCounts, limit: Limit) -> Self {
        let total = counts.online.saturating_add(counts.offline_persistent);
        Self {
            online: counts.online,
            offline_persistent: counts.offline_persistent,
            total,
            limit,
            free: limit.map(|limit| limit.saturating_sub(total)),
        }
    }
}

/// Get a cluster's usage
///
/// Counted by the data plane when asked, by the clock: a session that has expired is not counted,
/// whether or not it was removed yet.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/usage",
    tag = "clusters",
    params(ClusterPath),
    responses((status = 200, description = "What is used now.", body = UsageView))
)]
async fn get_usage(State(state): State<ApiState>, path: ClusterPath) -> Result<Json<UsageView>> {
    let cluster = existing_cluster(&state, &path.cluster).await?;
    let limit = quota_of(&cluster)?.connections;
    let counts = state.data_plane.count(cluster.id, DATA_PLANE_WAIT).await;
    Ok(Json(UsageView::new(counts.map_err(|error| data_plane_away(&error))?, limit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_free_above_the_limit() {
        let counts = SessionCounts { online: 3, offline_persistent: 4 };
        let free = |limit| UsageView::new(counts, limit).free;
        assert_eq!(
            [free(Some(5)), free(Some(7)), free(Some(8)), free(None)],
            [Some(0), Some(0), Some(1), None]
        );
        assert_eq!(UsageView::new(counts, None).total, 7);
    }
}
