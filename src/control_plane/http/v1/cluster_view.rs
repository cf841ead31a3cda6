//! A cluster as the API shows it.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use axum::Json;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::etag::ETag;
use crate::model::{Cluster, ClusterId, ClusterStatus, SharedStrategy, Timestamp};

/// A cluster: one tenant's logical MQTT service.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cluster, example = json!({
    "id": "default", "name": "Meters, north", "labels": {"team": "metering"}, "status": "active",
    "plan": "basic", "allow_anonymous": false, "delete_protection": true,
    "shared_strategy": "random", "server_keep_alive_seconds": 300,
    "resend_after_seconds": 120,
    "created_at": "2026-01-31T12:00:00.000Z", "updated_at": "2026-01-31T12:00:00.000Z", "version": 1
}))]
pub(super) struct ClusterView {
    /// Its id; never changes.
    id: ClusterId,
    /// What people call it.
    name: String,
    /// The caller's own marks.
    labels: BTreeMap<String, String>,
    /// Whether it serves clients.
    status: ClusterStatus,
    /// The plan whose quotas it has, where it sets none itself.
    plan: String,
    /// Whether a CONNECT without credentials is let in.
    allow_anonymous: bool,
    /// Which member of a shared group gets a message.
    shared_strategy: SharedStrategy,
    /// The longest keep-alive of a client, in seconds; null leaves each client its own.
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 65_535, required)]
    server_keep_alive_seconds: Option<NonZeroU16>,
    /// After how many seconds a client of MQTT 3.1 or 3.1.1 gets again, while connected, what it has not
    /// answered; 0 for never. MQTT 5.0 forbids it.
    #[schema(maximum = 86_400)]
    resend_after_seconds: u32,
    /// Whether DELETE is refused until this is taken back.
    delete_protection: bool,
    /// When it was made.
    created_at: Timestamp,
    /// When it, or its quota, last changed.
    updated_at: Timestamp,
    /// Counts the changes. The record's `ETag` is this number in double quotes.
    #[schema(minimum = 1)]
    version: i64,
}

impl From<Cluster> for ClusterView {
    fn from(cluster: Cluster) -> Self {
        Self {
            id: cluster.id,
            name: cluster.name,
            labels: cluster.labels,
            status: cluster.status,
            plan: cluster.plan,
            allow_anonymous: cluster.allow_anonymous,
            shared_strategy: cluster.shared_strategy,
            server_keep_alive_seconds: cluster.server_keep_alive_secs,
            resend_after_seconds: cluster.resend_after_secs,
            delete_protection: cluster.delete_protection,
            created_at: cluster.created_at,
            updated_at: cluster.updated_at,
            version: cluster.version,
        }
    }
}

/// The record with its `ETag`.
pub(super) fn tagged(cluster: Cluster) -> Response {
    let tag = ETag::of_cluster(&cluster).header();
    ([(ETAG, tag)], Json(ClusterView::from(cluster))).into_response()
}
