//! A webhook as the API shows it.

use std::collections::BTreeSet;

use axum::Json;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::etag::ETag;
use crate::model::{HttpUrl, Timestamp};
use crate::store::{Delivery, EventKind, WebhookRecord};

/// Where the events of a cluster's sessions are delivered to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhook, example = json!({
    "id": "9f1e2a4b6c8d0e1f", "name": "dashboard", "url": "https://hooks.example/sessions",
    "kinds": ["attached", "detached"], "enabled": true, "created_at": "2026-01-31T12:00:00.000Z",
    "updated_at": "2026-01-31T12:00:00.000Z", "version": 1,
    "delivery": {
        "position": 4711, "lag": 0, "attempts": 0, "next_attempt_at": null, "last_error": null,
        "last_delivered_at": "2026-01-31T14:30:00.000Z", "missed": 0, "dead_letters": 0
    }
}))]
pub(super) struct WebhookView {
    /// Its id; never changes.
    id: String,
    /// What people call it.
    name: String,
    /// Where to.
    url: HttpUrl,
    /// Which kinds of events are delivered; null for all.
    #[schema(required)]
    kinds: Option<BTreeSet<EventKind>>,
    /// Whether anything is. What happens meanwhile is delivered later.
    enabled: bool,
    /// When it was made.
    created_at: Timestamp,
    /// When it was last changed by an operator.
    updated_at: Timestamp,
    /// Counts those changes; its `ETag`.
    #[schema(minimum = 1)]
    version: i64,
    /// How far it is.
    delivery: DeliveryView,
}

/// How far a webhook is.
#[derive(Debug, Serialize, ToSchema)]
struct DeliveryView {
    /// The `seq` of the last event that was delivered, passed over or given up.
    #[schema(minimum = 0)]
    position: i64,
    /// How many events of the cluster there are behind it.
    #[schema(minimum = 0)]
    lag: u64,
    /// How often the next one was tried.
    #[schema(minimum = 0)]
    attempts: u32,
    /// When it is tried again; null when nothing is in the way.
    #[schema(required)]
    next_attempt_at: Option<Timestamp>,
    /// Why it failed; null when it did not.
    #[schema(required)]
    last_error: Option<String>,
    /// When an event was last delivered; null for never.
    #[schema(required)]
    last_delivered_at: Option<Timestamp>,
    /// Events that were no longer kept when their turn came: after 30 days, or more than 1,000,000 newer ones.
    #[schema(minimum = 0)]
    missed: u64,
    /// Events that were given up and wait to be tried again.
    #[schema(minimum = 0)]
    dead_letters: u64,
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        Self {
            position: delivery.position,
            lag: delivery.lag,
            attempts: delivery.attempts,
            next_attempt_at: delivery.next_attempt_at,
            last_error: delivery.last_error,
            last_delivered_at: delivery.last_delivered_at,
            missed: delivery.missed,
            dead_letters: delivery.dead_letters,
        }
    }
}

impl From<WebhookRecord> for WebhookView {
    fn from(record: WebhookRecord) -> Self {
        let webhook = record.webhook;
        Self {
            id: webhook.id,
            name: webhook.name,
            url: webhook.url,
            kinds: webhook.kinds,
            enabled: webhook.enabled,
            created_at: record.created_at,
            updated_at: record.updated_at,
            version: record.version,
            delivery: record.delivery.into(),
        }
    }
}

/// The record with its `ETag`.
pub(super) fn tagged(record: WebhookRecord) -> Response {
    let tag = ETag::of_webhook(&record).header();
    ([(ETAG, tag)], Json(WebhookView::from(record))).into_response()
}
