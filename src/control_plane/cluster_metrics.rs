//! What the clusters count, in the metrics: what the data plane told, made anew for each answer.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::seam::figures::ClusterFigures;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    cluster: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    cluster: String,
    kind: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabels {
    cluster: String,
    reason: &'static str,
}

/// Adds what the clusters count.
pub(super) fn register(registry: &mut Registry, figures: &[ClusterFigures]) {
    let refusals = Family::<RefusalLabels, Counter>::default();
    let dropped = Family::<DropLabels, Counter>::default();
    let [connects, received, sent, left_out] = std::array::from_fn(|_| Family::<Labels, Counter>::default());
    for ClusterFigures { cluster, connects: let_in, messages, values_left_out, refusals: refused } in figures
    {
        for (family, count) in [
            (&connects, *let_in),
            (&received, messages.received),
            (&sent, messages.sent),
            (&left_out, *values_left_out),
        ] {
            family.get_or_create(&Labels { cluster: cluster.to_string() }).inc_by(count);
        }
        for (kind, reason, count) in refused {
            let (kind, reason) = (kind.as_str(), reason.as_str());
            let labels = RefusalLabels { cluster: cluster.to_string(), kind, reason };
            refusals.get_or_create(&labels).inc_by(*count);
        }
        for (reason, count) in [
            ("slow", messages.dropped_slow),
            ("queue_full", messages.dropped_queue_full),
            ("over_rate", messages.dropped_over_rate),
        ] {
            dropped.get_or_create(&DropLabels { cluster: cluster.to_string(), reason }).inc_by(count);
        }
    }
    registry.register("connects", "CONNECTs that were let in", connects);
    registry.register("messages_received", "PUBLISH packets taken from clients", received);
    registry.register("messages_sent", "PUBLISH packets sent to clients", sent);
    let about = "Values that message rules could not add: without room, or no topic name";
    registry.register("message_rule_values_left_out", about, left_out);
    let about = "CONNECTs, subscriptions and publishes that were refused, or slowed, by reason";
    registry.register("refusals", about, refusals);
    registry.register("messages_dropped", "Messages that were lost, by reason", dropped);
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::model::{ClusterId, MessageCounters, RefusalKind, RefusalReason};

    #[test]
    fn what_was_refused_and_lost_is_told() {
        let figures = ClusterFigures {
            cluster: ClusterId::default_cluster(),
            connects: 5,
            messages: MessageCounters {
                received: 6,
                sent: 7,
                dropped_slow: 1,
                dropped_over_rate: 3,
                ..MessageCounters::default()
            },
            values_left_out: 8,
            refusals: vec![(RefusalKind::Connect, RefusalReason::Connections, 4)],
        };
        let mut registry = Registry::with_prefix("holdfast");
        register(&mut registry, &[figures]);
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        for line in [
            "holdfast_connects_total{cluster=\"default\"} 5",
            "holdfast_messages_received_total{cluster=\"default\"} 6",
            "holdfast_messages_sent_total{cluster=\"default\"} 7",
            "holdfast_message_rule_values_left_out_total{cluster=\"default\"} 8",
            "holdfast_refusals_total{cluster=\"default\",kind=\"connect\",reason=\"connections\"} 4",
            "holdfast_messages_dropped_total{cluster=\"default\",reason=\"slow\"} 1",
            "holdfast_messages_dropped_total{cluster=\"default\",reason=\"queue_full\"} 0",
            "holdfast_messages_dropped_total{cluster=\"default\",reason=\"over_rate\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
