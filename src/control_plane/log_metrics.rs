//! The message log in the metrics: what the data plane told of it, made anew for each answer.
//!
//! By cluster where it is a cluster's, never by client: what one session has lost or waits for is in its record.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::latency_metrics::Seconds;
use crate::model::Timestamp;
use crate::seam::figures::LogFigures;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    cluster: String,
}

/// Adds what is known of the log at `now`.
pub(super) fn register(registry: &mut Registry, log: &LogFigures, now: Timestamp) {
    let gauges = [
        ("log_segments", "Segments of the message log that hold entries", log.segments),
        ("log_segment_bytes", "Bytes of all segments of the message log, ready ones included", log.bytes),
        ("log_queued_bytes", "Bytes that wait to be written to the message log", log.queued_bytes),
    ];
    for (name, about, value) in gauges {
        registry.register(name, about, gauge(value));
    }
    let counters = [
        ("log_damaged_reads", "Messages that could not be read back", log.damaged_reads),
        ("log_commits", "Times that entries were written and synced", log.commits),
        ("log_batches", "Batches that were made durable: the turns that wrote something down", log.batches),
    ];
    for (name, about, value) in counters {
        registry.register(name, about, counter(value));
    }
    let about = "How long batches took from the data plane's hands until it knew them to be durable";
    registry.register("log_commit_seconds", about, Seconds(log.commit));
    of_clusters(registry, log, now);
}

fn of_clusters(registry: &mut Registry, log: &LogFigures, now: Timestamp) {
    let bytes = Family::<Labels, Gauge>::default();
    let oldest = Family::<Labels, Gauge>::default();
    let trimmed = Family::<Labels, Counter>::default();
    for cluster in &log.clusters {
        let labels = Labels { cluster: cluster.cluster.to_string() };
        bytes.get_or_create(&labels).set(i64::try_from(cluster.bytes).unwrap_or(i64::MAX));
        if let Some(at) = cluster.oldest_at {
            let age = i64::try_from(now.since(at).as_secs()).unwrap_or(i64::MAX);
            oldest.get_or_create(&labels).set(age);
        }
        trimmed.get_or_create(&labels).inc_by(cluster.trimmed);
    }
    registry.register("log_bytes", "What a cluster's messages take in the message log", bytes);
    let about = "How long ago the earliest message was published that the message log still has";
    registry.register("log_oldest_message_age_seconds", about, oldest);
    let about = "Messages that the log let go of unconsumed, one for each session or group that lost it";
    registry.register("log_trimmed_messages", about, trimmed);
}

fn gauge(value: u64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    gauge
}

fn counter(value: u64) -> Counter {
    let counter = Counter::default();
    counter.inc_by(value);
    counter
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::model::{ClusterId, Latency};
    use crate::seam::figures::ClusterLog;

    #[test]
    fn what_is_known_of_the_log_is_told() {
        let of = |cluster, oldest_at| ClusterLog { cluster, bytes: 7, oldest_at, trimmed: 8 };
        let empty = ClusterId::new("empty").expect("an id");
        let log = LogFigures {
            segments: 1,
            bytes: 2,
            queued_bytes: 3,
            damaged_reads: 4,
            commits: 5,
            batches: 6,
            commit: Latency { sum_micros: 7_000_000, ..Latency::default() },
            clusters: vec![of(ClusterId::default_cluster(), Some(Timestamp::EPOCH)), of(empty, None)],
        };
        let mut registry = Registry::with_prefix("holdfast");
        register(&mut registry, &log, Timestamp::from_millis(9_500));
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        for line in [
            "holdfast_log_segments 1",
            "holdfast_log_segment_bytes 2",
            "holdfast_log_queued_bytes 3",
            "holdfast_log_damaged_reads_total 4",
            "holdfast_log_commits_total 5",
            "holdfast_log_batches_total 6",
            "holdfast_log_commit_seconds_sum 7.0",
            "holdfast_log_bytes{cluster=\"default\"} 7",
            "holdfast_log_trimmed_messages_total{cluster=\"empty\"} 8",
            "holdfast_log_oldest_message_age_seconds{cluster=\"default\"} 9",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("seconds{cluster=\"empty\"}"), "nothing has no age\n{text}");
    }
}
