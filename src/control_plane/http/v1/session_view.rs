//! A session's record as the API shows it.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::etag::ETag;
use crate::model::{
    ClientId, ClusterId, EndedBy, Epoch, ExpirySource, ProtocolVersion, SessionId, SessionState, Timestamp,
    Transport,
};
use crate::store::SessionRecord;

/// A client session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session, example = json!({
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
    "node": "3f9c2a7b1d0e4c58", "version": 7
}))]
pub(super) struct SessionView {
    /// The cluster.
    cluster: ClusterId,
    /// The client; one session for each.
    client_id: ClientId,
    /// The session's identity.
    session_id: SessionId,
    /// The session's attachment to its connection, or to its last one.
    epoch: Epoch,
    /// Whether it has a connection.
    state: SessionState,
    /// What the client speaks; null before its first connection.
    #[schema(required)]
    protocol: Option<ProtocolVersion>,
    /// Whether the client asked for a fresh session at its last CONNECT.
    clean_start: bool,
    /// The user name that the client gave; null for none.
    #[schema(required)]
    username: Option<String>,
    /// Where the client connected from: address and port; null before its first connection.
    #[schema(required, example = "10.0.0.7:51234")]
    peer: Option<String>,
    /// The listener that it came in by; null before its first connection.
    #[schema(required, example = "mqtt")]
    listener: Option<String>,
    /// How its bytes arrive; null before its first connection.
    #[schema(required)]
    transport: Option<Transport>,
    /// The keep-alive in force; 0 for none.
    #[schema(minimum = 0, maximum = 65_535)]
    keep_alive_seconds: u16,
    /// When the session began.
    created_at: Timestamp,
    /// When the last connection began; null before the first.
    #[schema(required)]
    connected_at: Option<Timestamp>,
    /// When the last connection ended; null while online. Before the first connection, when the session was
    /// made over the API.
    #[schema(required)]
    disconnected_at: Option<Timestamp>,
    /// Why the last connection ended; null when there was none before.
    #[schema(required)]
    disconnect: Option<DisconnectView>,
    /// How long the session outlives its connection.
    #[schema(minimum = 0)]
    expiry_interval_seconds: u32,
    /// Who decided that.
    expiry_source: ExpirySource,
    /// When the session ends if its client does not return; null while online.
    #[schema(required)]
    expires_at: Option<Timestamp>,
    /// How many QoS 1 and 2 messages may be under way to the client at once.
    #[schema(minimum = 1, maximum = 65_535)]
    receive_maximum: u16,
    /// The largest packet that the client takes, in bytes; null for any.
    #[schema(minimum = 1, required)]
    packet_bytes_max: Option<u32>,
    /// Whether a will is kept with the session.
    will_present: bool,
    /// How many subscriptions it has.
    #[schema(minimum = 0)]
    subscription_count: u32,
    /// The operator's own marks.
    labels: BTreeMap<String, String>,
    /// Whether deleting it over the API is refused.
    protected: bool,
    /// The node that has its connection, or had the last one; null of a record that is older than nodes' names.
    #[schema(required)]
    node: Option<String>,
    /// Counts the writes to the record. Its `ETag` is `"{session_id}.{version}"`.
    #[schema(minimum = 0)]
    version: i64,
}

/// Why a connection ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Disconnect)]
pub(super) struct DisconnectView {
    /// A stable word: `normal`, `with_will`, `connection_lost`, `keep_alive_timeout`, `taken_over`,
    /// `administrative`, `malformed_packet`, `server_restart` and more.
    #[schema(example = "keep_alive_timeout")]
    reason: String,
    /// Who ended it.
    by: EndedBy,
}

impl SessionView {
    /// The record as it is at `now`.
    pub(super) fn new(record: SessionRecord, now: Timestamp) -> Self {
        let (state, expiry, row) = (record.state(), record.expiry(), record.row);
        Self {
            state,
            expiry_interval_seconds: expiry.interval_secs(row.disconnected_at.unwrap_or(now)),
            expiry_source: expiry.source(),
            expires_at: record.expires_at,
            subscription_count: record.subscription_count,
            labels: record.labels,
            protected: record.protected,
            node: record.node,
            version: record.version,
            cluster: row.cluster,
            client_id: row.client_id,
            session_id: row.session_id,
            epoch: row.epoch,
            protocol: row.protocol,
            clean_start: row.clean_start,
            username: row.username,
            peer: row.peer,
            listener: row.listener,
            transport: row.transport,
            keep_alive_seconds: row.keep_alive_secs,
            created_at: row.created_at,
            connected_at: row.connected_at,
            disconnected_at: row.disconnected_at,
            disconnect: row.disconnect.map(|cause| DisconnectView { reason: cause.reason, by: cause.by }),
            receive_maximum: row.receive_maximum,
            packet_bytes_max: row.packet_bytes_max,
            will_present: row.has_will,
        }
    }
}

/// The tag of a record.
pub(super) fn tag(record: &SessionRecord) -> ETag {
    ETag::of_session(record.row.session_id, record.version)
}

/// The record with its `ETag`.
pub(super) fn tagged(record: SessionRecord, now: Timestamp) -> Response {
    let tag = tag(&record).header();
    ([(ETAG, tag)], Json(SessionView::new(record, now))).into_response()
}
