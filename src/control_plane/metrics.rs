//! What the control plane counts of itself, in the text format of `OpenMetrics`.
//!
//! Labels are words of ours (route templates, methods, statuses) and cluster ids: their number is bounded by the
//! program and by the operators. Never a client id.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::latency_metrics::Seconds;
use super::{cluster_metrics, log_metrics};
use crate::model::{ClusterId, Latencies, SessionCounts, Timestamp};
use crate::seam::figures::{ClusterFigures, LogFigures};
use crate::seam::verdicts::{LinkTally, Verdicts};

/// The media type of what [`Metrics::encode`] gives.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From what is read from memory to what waits as long as a caller may ask for, in seconds.
const LATENCIES: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 20.0];

/// Counts requests since the start of the process.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Requests,
    /// How long commits of session records take, as the store counts them.
    record_commits: Arc<Latencies>,
    /// What comes of asking authenticators.
    verdicts: Arc<Verdicts>,
}

type Requests = Family<RequestLabels, Histogram>;

/// How many sessions a cluster has at this moment, and may have.
#[derive(Clone, Debug)]
pub struct ClusterCounts {
    /// Which cluster.
    pub cluster: ClusterId,
    /// As the data plane counts them.
    pub counts: SessionCounts,
    /// The quota; `None` for none.
    pub limit: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: String,
    status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterLabels {
    cluster: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    cluster: String,
    kind: &'static str,
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    cluster: String,
}

impl Metrics {
    /// Nothing counted yet, and what the store counts.
    pub fn new(record_commits: Arc<Latencies>) -> Self {
        Self {
            requests: Family::new_with_constructor(|| Histogram::new(LATENCIES)),
            record_commits,
            verdicts: Arc::default(),
        }
    }

    /// Counts one request: its route as a template, never as it was written.
    pub fn request(&self, route: &str, method: &str, status: u16, took: Duration) {
        let labels =
            RequestLabels { route: route.to_owned(), method: method.to_owned(), status: status.to_string() };
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// From now on tells what comes of asking authenticators.
    pub fn tell(&mut self, verdicts: Arc<Verdicts>) {
        self.verdicts = verdicts;
    }

    /// Everything as text.
    ///
    /// # Errors
    /// Never, writing to memory.
    pub fn encode(
        &self,
        clusters: &[ClusterCounts],
        figures: &[ClusterFigures],
        log: &LogFigures,
        now: Timestamp,
    ) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("holdfast");
        let about = "How long API requests took";
        registry.register("api_request_seconds", about, self.requests.clone());
        let about = "How long transactions took that the data plane's session records were committed in";
        registry.register("record_commit_seconds", about, Seconds(self.record_commits.read()));
        let (sessions, limits) = of_clusters(clusters);
        registry.register("sessions", "Sessions by state: what the quota counts", sessions);
        registry.register("sessions_limit", "The quota of sessions, where there is one", limits);
        cluster_metrics::register(&mut registry, figures);
        log_metrics::register(&mut registry, log, now);
        register_verdicts(&mut registry, &self.verdicts);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// Made anew for each answer, so that a cluster that is gone leaves no line.
fn of_clusters(clusters: &[ClusterCounts]) -> (Family<ClusterLabels, Gauge>, Family<LimitLabels, Gauge>) {
    let (sessions, limits) =
        (Family::<ClusterLabels, Gauge>::default(), Family::<LimitLabels, Gauge>::default());
    for ClusterCounts { cluster, counts, limit } in clusters {
        for (state, count) in [("online", counts.online), ("offline", counts.offline_persistent)] {
            let labels = ClusterLabels { cluster: cluster.to_string(), state };
            sessions.get_or_create(&labels).set(i64::from(count));
        }
        if let Some(limit) = limit {
            limits.get_or_create(&LimitLabels { cluster: cluster.to_string() }).set(i64::from(*limit));
        }
    }
    (sessions, limits)
}

/// What came of asking the links of chains: by cluster and kind, so that a chain of several links of a kind is
/// one line.
fn register_verdicts(registry: &mut Registry, verdicts: &Verdicts) {
    let asked = Family::<VerdictLabels, Counter>::default();
    for LinkTally { cluster, kind, allowed, denied, ignored, failures, .. } in verdicts.all() {
        for (verdict, count) in
            [("allowed", allowed), ("denied", denied), ("ignored", ignored), ("failed", failures)]
        {
            let labels = VerdictLabels { cluster: cluster.to_string(), kind, verdict };
            asked.get_or_create(&labels).inc_by(count);
        }
    }
    let about = "What authenticators said of clients; those that failed are among the ignored";
    registry.register("authentications", about, asked);
    let checks = Counter::<u64>::default();
    checks.inc_by(verdicts.password_checks());
    registry.register("password_checks", "Passwords that were held against their hash", checks);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told() {
        let record_commits = Arc::new(Latencies::default());
        record_commits.observe(900);
        record_commits.observe(30_000_000);
        let metrics = Metrics::new(record_commits);
        metrics.request("/v1/clusters/{cluster}", "GET", 200, Duration::from_millis(3));
        metrics.request("/v1/clusters/{cluster}", "GET", 200, Duration::from_millis(30));
        let cluster = ClusterId::default_cluster();
        let counts = SessionCounts { online: 2, offline_persistent: 1 };
        let text = metrics
            .encode(
                &[ClusterCounts { cluster, counts, limit: Some(5) }],
                &[],
                &LogFigures::default(),
                Timestamp::EPOCH,
            )
            .expect("text");
        for line in [
            "holdfast_api_request_seconds_count{route=\"/v1/clusters/{cluster}\",method=\"GET\",status=\"200\"} 2",
            "holdfast_sessions{cluster=\"default\",state=\"online\"} 2",
            "holdfast_sessions{cluster=\"default\",state=\"offline\"} 1",
            "holdfast_sessions_limit{cluster=\"default\"} 5",
            "holdfast_record_commit_seconds_bucket{le=\"0.0005\"} 0",
            "holdfast_record_commit_seconds_bucket{le=\"0.001\"} 1",
            "holdfast_record_commit_seconds_bucket{le=\"+Inf\"} 2",
            "holdfast_record_commit_seconds_sum 30.0009",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
