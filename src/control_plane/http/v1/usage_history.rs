//! `/v1/clusters/{cluster}/usage/history`: how many connections were taken, hour by hour.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::code::Code;
use super::super::extract::{ClusterPath, Query};
use super::super::page::{Page, PageSize, Paging};
use super::super::problem::{Problem, Result};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::existing_cluster;
use crate::model::Timestamp;
use crate::store::{UsageHour, usage_hour_of};

/// What is shown when the caller does not say since when.
const SPAN: Duration = Duration::from_hours(24);

pub(super) fn routes(routes: Routes) -> Routes {
    let codes = [Code::StoreUnavailable, Code::PageTokenInvalid];
    routes.add(Scope::ClustersRead, &codes, routes!(list_usage_history))
}

/// How many connections were taken within an hour, by a sample every minute.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageHour, example = json!({
    "hour": "2026-01-31T12:00:00.000Z", "samples": 60,
    "total": {"peak": 812, "p95": 790}, "online": {"peak": 640, "p95": 633}, "limit": 1000
}))]
struct HourView {
    /// When it began. The hour that is not over yet is shown as far as it is known.
    hour: Timestamp,
    /// How many samples there are: 60 when the service ran all of it.
    #[schema(minimum = 1, maximum = 60)]
    samples: u32,
    /// Online and offline persistent sessions together: what the quota counts.
    total: Figures,
    /// Sessions with a connection.
    online: Figures,
    /// The quota at the last sample; null for none.
    #[schema(minimum = 0, required)]
    limit: Option<u32>,
}

/// What the samples of an hour come to.
#[derive(Debug, Serialize, ToSchema)]
struct Figures {
    /// The most.
    #[schema(minimum = 0)]
    peak: u32,
    /// What 95 of 100 samples do not exceed.
    #[schema(minimum = 0)]
    p95: u32,
}

impl From<UsageHour> for HourView {
    fn from(hour: UsageHour) -> Self {
        Self {
            hour: hour.hour,
            samples: hour.samples,
            total: Figures { peak: hour.total_peak, p95: hour.total_p95 },
            online: Figures { peak: hour.online_peak, p95: hour.online_p95 },
            limit: hour.limit,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct HistoryParams {
    /// Hours that end after this time; 24 hours before `to` when not sent.
    from: Option<Timestamp>,
    /// Hours that begin before this time; now when not sent.
    to: Option<Timestamp>,
    /// How many hours a page has at most: 1 to 1000, 100 when not sent; more is lowered.
    page_size: Option<PageSize>,
    /// Where the page begins: the `next_page_token` of the page before.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$")]
    page_token: Option<String>,
}

/// List a cluster's usage by the hour
///
/// Earliest first. Counted every minute, so what comes and goes within one is not seen; an hour in which the
/// service did not run is not there. Kept for 396 days.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/usage/history",
    tag = "clusters",
    params(ClusterPath, HistoryParams),
    responses((status = 200, description = "A page of hours.", body = Page<HourView>))
)]
async fn list_usage_history(
    State(state): State<ApiState>,
    path: ClusterPath,
    Query(params): Query<HistoryParams>,
) -> Result<Json<Page<HourView>>> {
    existing_cluster(&state, &path.cluster).await?;
    let bound = ("usage-history", &path.cluster, params.from, params.to);
    let paging = Paging::<Timestamp>::new(params.page_size, params.page_token.as_deref(), &bound)?;
    let to = params.to.unwrap_or_else(|| state.clock.wall());
    let from = params.from.unwrap_or_else(|| {
        let span = i64::try_from(SPAN.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(to.as_millis().saturating_sub(span))
    });
    if from > to {
        return Err(Problem::parameter(Code::InvalidParameter, "from", "not after `to`"));
    }
    let span = (usage_hour_of(from), to);
    let hours = state.store.usage_hours(&path.cluster, span, paging.after, paging.limit()).await?;
    paging.page(hours, |hour| hour.hour, HourView::from).map(Json)
}
