//! `/metrics`: what the service counts of itself.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::code::Code;
use super::super::problem::{Problem, Result, data_plane_away};
use super::super::routes::Routes;
use super::super::state::{ApiState, DATA_PLANE_WAIT};
use super::quota_of;
use crate::control_plane::metrics::{ClusterCounts, MEDIA_TYPE};
use crate::model::ClusterId;

/// How many clusters are read at a time.
const CLUSTERS_AT_ONCE: u32 = 1_000;

pub(super) fn routes(routes: Routes) -> Routes {
    routes.add(Scope::MetricsRead, &[Code::DataPlaneUnavailable], routes!(get_metrics))
}

/// Get the metrics
///
/// In the text format of `OpenMetrics`, which Prometheus reads. `holdfast_api_request_seconds`: how long API
/// requests took, by route, method and status. `holdfast_sessions`: sessions by cluster and state, counted by the
/// data plane at this moment. `holdfast_sessions_limit`: the quota. `holdfast_refusals_total`: what was refused,
/// by cluster, kind and reason, as in the list of refusals. `holdfast_connects_total`, `holdfast_messages_received_total`,
/// `holdfast_messages_sent_total`: CONNECTs that were let in, PUBLISH packets taken and sent, by cluster. `holdfast_messages_dropped_total`: messages that were lost, by
/// cluster and reason (`slow`, `queue_full`, `over_rate`). `holdfast_record_commit_seconds` and
/// `holdfast_log_commit_seconds`: how long session records and messages took to be durable. Of the message log: `holdfast_log_bytes`,
/// `holdfast_log_oldest_message_age_seconds` and `holdfast_log_trimmed_messages_total` (lost unconsumed) by cluster;
/// `holdfast_log_segments`, `holdfast_log_segment_bytes`, `holdfast_log_queued_bytes`,
/// `holdfast_log_damaged_reads_total`, `holdfast_log_commits_total` and `holdfast_log_batches_total` of the whole.
/// `holdfast_authentications_total`: what authenticators said of clients, by cluster, kind and verdict; of
/// `ignored` those that `failed` are a part. `holdfast_password_checks_total`: how often a password was held
/// against its hash.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses((
        status = 200,
        description = "The metrics.",
        body = String,
        content_type = "application/openmetrics-text",
        example = "holdfast_sessions{cluster=\"default\",state=\"online\"} 2\n# EOF\n"
    ))
)]
async fn get_metrics(State(state): State<ApiState>) -> Result<Response> {
    let mut clusters = Vec::new();
    let mut after: Option<ClusterId> = None;
    loop {
        let page = state.store.list_clusters(after.as_ref(), CLUSTERS_AT_ONCE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        for cluster in page {
            let limit = quota_of(&cluster)?.connections;
            let counts = state.data_plane.count(cluster.id.clone(), DATA_PLANE_WAIT).await;
            let counts = counts.map_err(|error| data_plane_away(&error))?;
            clusters.push(ClusterCounts { cluster: cluster.id, counts, limit });
        }
    }
    let log = state.data_plane.log_figures(DATA_PLANE_WAIT).await.map_err(|error| data_plane_away(&error))?;
    let figures = state.data_plane.cluster_figures(DATA_PLANE_WAIT).await;
    let figures = figures.map_err(|error| data_plane_away(&error))?;
    let text =
        state.metrics.encode(&clusters, &figures, &log, state.clock.wall()).map_err(Problem::internal)?;
    Ok(([(CONTENT_TYPE, MEDIA_TYPE)], text).into_response())
}
