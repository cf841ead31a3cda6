//! What waits for a session, is under way to it, and became of the rest, as the API shows it.
//!
//! The data plane tells it, beside the record, which the database tells. It has [`TRAFFIC_WAIT`] for that: the
//! record is answered in any case.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::super::state::ApiState;
use super::session_view::SessionView;
use crate::model::{MessageCounters, SessionId, Timestamp};
use crate::seam::backlog::{Backlog, SessionTraffic};
use crate::seam::command::CommandError;
use crate::store::SessionRecord;

/// How long the record of a session waits for what the data plane knows of it.
const TRAFFIC_WAIT: Duration = Duration::from_secs(1);

/// A client session, with what waits for it and is under way to it at this moment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionDetail, example = json!({
    "cluster": "default", "client_id": "meter-17",
    "session_id": "019af8a0-5b7e-7c3d-9f1e-2a4b6c8d0e1f", "epoch": 3, "state": "offline",
    "protocol": "5", "clean_start": false, "username": "meter", "peer": "10.0.0.7:51234",
    "listener": "mqtt", "transport": "tcp", "keep_alive_seconds": 60,
    "created_at": "2026-01-31T12:00:00.000Z", "connected_at": "2026-01-31T14:00:00.000Z",
    "disconnected_at": "2026-01-31T14:30:00.000Z",
    "disconnect": {"reason": "keep_alive_timeout", "by": "server"},
    "expiry_interval_seconds": 3600, "expiry_source": "client", "expires_at": "2026-01-31T15:30:00.000Z",
    "receive_maximum": 65_535, "packet_bytes_max": null, "will_present": false,
    "subscription_count": 2, "labels": {"site": "north"}, "protected": false,
    "node": "3f9c2a7b1d0e4c58", "version": 7,
    "backlog": {
        "messages": 12, "bytes": 2_340, "complete": true,
        "oldest_position": 48_211, "oldest_at": "2026-01-31T14:31:00.000Z"
    },
    "in_flight": 1,
    "counters": {"received": 40, "sent": 1_210, "dropped_slow": 0, "dropped_queue_full": 0, "dropped_over_rate": 0},
    "trimmed": 0, "traffic_unavailable": null
}))]
pub(super) struct SessionDetailView {
    #[serde(flatten)]
    session: SessionView,
    #[serde(flatten)]
    traffic: TrafficView,
}

/// What waits for a session and is under way to it.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Traffic)]
struct TrafficView {
    /// What waits; null when the data plane does not tell.
    #[schema(required)]
    backlog: Option<BacklogView>,
    /// How many QoS 1 and 2 messages were sent and are not acknowledged to the end; without a connection
    /// those with which it goes on when it returns. Null when the data plane does not tell.
    #[schema(minimum = 0, required)]
    in_flight: Option<u64>,
    /// What was counted since the service started; null when the data plane does not tell.
    #[schema(required)]
    counters: Option<CountersView>,
    /// How many messages the message log let go of before the session had them: older than 72 hours, or
    /// beyond the cluster's bytes. Null when the data plane does not tell.
    #[schema(minimum = 0, required)]
    trimmed: Option<u64>,
    /// Why `backlog`, `in_flight`, `counters` and `trimmed` are null; null when they are not.
    #[schema(required)]
    traffic_unavailable: Option<Unavailable>,
}

/// Why nothing is told of a session's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unavailable {
    /// The data plane did not answer within a second.
    Timeout,
    /// The data plane has stopped, or does not serve the cluster.
    NotServed,
    /// The data plane does not know the session: it has just ended, or just begun.
    MovedOn,
}

/// Messages that wait: what was published to the session's filters behind its position, each once. Those that
/// expire meanwhile, or that it published itself under no-local, are among them. Messages of shared groups
/// are not: they wait for the group.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Backlog)]
struct BacklogView {
    /// How many.
    #[schema(minimum = 0)]
    messages: u64,
    /// What they take in the message log, about.
    #[schema(minimum = 0)]
    bytes: u64,
    /// Whether all were counted. Counting stops at 100,000 messages: then there are at least so many.
    complete: bool,
    /// Where the earliest lies in the cluster's message log; null for none, and for a session that ends with its
    /// connection.
    #[schema(minimum = 1, required)]
    oldest_position: Option<u64>,
    /// When the earliest was published; null for none.
    #[schema(required)]
    oldest_at: Option<Timestamp>,
}

/// PUBLISH packets, counted since the service started. One that is sent again counts again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionCounters)]
struct CountersView {
    /// Taken from the client.
    #[schema(minimum = 0)]
    received: u64,
    /// Sent to the client.
    #[schema(minimum = 0)]
    sent: u64,
    /// QoS 0 messages lost because the connection was too slow.
    #[schema(minimum = 0)]
    dropped_slow: u64,
    /// QoS 1 and 2 messages lost because the queue of a session that ends with its connection was full.
    #[schema(minimum = 0)]
    dropped_queue_full: u64,
    /// QoS 0 messages of the client's that were dropped because they came faster than a rate allows.
    #[schema(minimum = 0)]
    dropped_over_rate: u64,
}

impl SessionDetailView {
    /// The record as it is at `now`, with what the data plane tells.
    pub(super) fn new(
        record: SessionRecord,
        traffic: Result<SessionTraffic, Unavailable>,
        now: Timestamp,
    ) -> Self {
        Self { session: SessionView::new(record, now), traffic: traffic.into() }
    }
}

impl From<Result<SessionTraffic, Unavailable>> for TrafficView {
    fn from(told: Result<SessionTraffic, Unavailable>) -> Self {
        match told {
            Err(why) => Self { traffic_unavailable: Some(why), ..Self::default() },
            Ok(SessionTraffic { backlog, in_flight, counters, trimmed, .. }) => Self {
                backlog: Some(backlog.into()),
                in_flight: Some(in_flight),
                counters: Some(counters.into()),
                trimmed: Some(trimmed),
                traffic_unavailable: None,
            },
        }
    }
}

impl From<Backlog> for BacklogView {
    fn from(Backlog { messages, bytes, oldest, is_complete }: Backlog) -> Self {
        Self {
            messages,
            bytes,
            complete: is_complete,
            oldest_position: oldest.and_then(|oldest| oldest.position).map(|seq| seq.0),
            oldest_at: oldest.and_then(|oldest| oldest.published_at),
        }
    }
}

impl From<MessageCounters> for CountersView {
    fn from(counted: MessageCounters) -> Self {
        let MessageCounters { received, sent, dropped_slow, dropped_queue_full, dropped_over_rate } = counted;
        Self { received, sent, dropped_slow, dropped_queue_full, dropped_over_rate }
    }
}

/// What the data plane tells of the session that `record` is about.
pub(super) async fn traffic_of(
    state: &ApiState,
    record: &SessionRecord,
) -> Result<SessionTraffic, Unavailable> {
    let (cluster, client_id) = (record.row.cluster.clone(), record.row.client_id.clone());
    let told = state.data_plane.traffic(cluster, client_id, TRAFFIC_WAIT).await;
    let of_another = |id: SessionId| id != record.row.session_id;
    match told {
        Ok(traffic) if of_another(traffic.session_id) => Err(Unavailable::MovedOn),
        Ok(traffic) => Ok(traffic),
        Err(CommandError::NoSuchSession) => Err(Unavailable::MovedOn),
        Err(CommandError::TimedOut) => Err(Unavailable::Timeout),
        Err(_) => Err(Unavailable::NotServed),
    }
}
