//! `/v1/clusters/{cluster}/webhooks`: where the events of a cluster's sessions are delivered to.
//!
//! A secret is shown to whoever makes it and to nobody else.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{FromRequestParts, RawPathParams, State};
use axum::http::StatusCode;
use axum::http::header::{ETAG, LOCATION};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::etag::{ETag, IfMatch};
use super::super::extract::{self, ClusterPath, NO_BODY, NoBody, Query, present};
use super::super::page::{Page, PageParams, Paging};
use super::super::problem::{Problem, Result};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::labels::Name;
use super::webhook_view::{WebhookView, tagged};
use super::{existing_cluster, locked_cluster};
use crate::config::WebhookTargets;
use crate::control_plane::webhooks::fresh_secret;
use crate::model::{ClusterId, HttpUrl, WebhookSecret};
use crate::outbound::Reach;
use crate::store::{EventKind, Webhook, WebhookRecord};

/// How many webhooks a cluster may have.
const WEBHOOKS_MAX: u32 = 10;

pub(super) fn routes(routes: Routes) -> Routes {
    let list = [Code::StoreUnavailable, Code::PageTokenInvalid];
    let one = [Code::StoreUnavailable, Code::WebhookNotFound];
    let create = [Code::StoreUnavailable, Code::TooManyWebhooks];
    let patch = [&one[..], &[Code::PreconditionFailed, Code::InvalidHeader]].concat();
    let delete = [&patch[..], &NO_BODY].concat();
    routes
        .add(Scope::WebhooksRead, &list, routes!(list_webhooks))
        .add(Scope::WebhooksWrite, &create, routes!(create_webhook))
        .add(Scope::WebhooksRead, &one, routes!(get_webhook))
        .add(Scope::WebhooksWrite, &patch, routes!(patch_webhook))
        .add(Scope::WebhooksWrite, &delete, routes!(delete_webhook))
}

/// The webhook that a path names.
#[derive(Clone, Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct WebhookPath {
    /// The cluster's id.
    #[param(example = "default")]
    pub(super) cluster: ClusterId,
    /// The webhook's id.
    #[param(example = "9f1e2a4b6c8d0e1f")]
    pub(super) webhook_id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for WebhookPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let ClusterPath { cluster } = ClusterPath::from_request_parts(parts, state).await?;
        let path = RawPathParams::from_request_parts(parts, state).await;
        let path = path
            .map_err(|error| Problem::parameter(Code::InvalidParameter, "webhook_id", error.body_text()))?;
        let webhook_id =
            path.iter().find(|(name, _)| *name == "webhook_id").map(|(_, value)| value.to_owned());
        let webhook_id =
            webhook_id.ok_or_else(|| Problem::internal("the route has no parameter webhook_id"))?;
        Ok(Self { cluster, webhook_id })
    }
}

/// The webhook, or 404.
pub(super) async fn existing_webhook(state: &ApiState, path: &WebhookPath) -> Result<WebhookRecord> {
    if let Some(record) = state.store.get_webhook(&path.cluster, &path.webhook_id).await? {
        return Ok(record);
    }
    existing_cluster(state, &path.cluster).await?;
    let detail = format!("cluster \"{}\" has no webhook \"{}\"", path.cluster, path.webhook_id);
    Err(Problem::new(Code::WebhookNotFound, detail))
}

/// List the webhooks of a cluster
///
/// In order of their ids.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/webhooks",
    tag = "webhooks",
    params(ClusterPath, PageParams),
    responses((status = 200, description = "A page of webhooks.", body = Page<WebhookView>))
)]
async fn list_webhooks(
    State(state): State<ApiState>,
    path: ClusterPath,
    Query(params): Query<PageParams>,
) -> Result<Json<Page<WebhookView>>> {
    existing_cluster(&state, &path.cluster).await?;
    let bound = ("webhooks", &path.cluster);
    let paging = Paging::<String>::of(&params, &bound)?;
    let rows = state.store.list_webhooks(&path.cluster, paging.after.as_deref(), paging.limit()).await?;
    paging.page(rows, |record| record.webhook.id.clone(), WebhookView::from).map(Json)
}

/// A webhook to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "dashboard", "url": "https://hooks.example/sessions", "kinds": ["attached", "detached"]}))]
struct WebhookCreate {
    /// What people call it.
    name: Name,
    /// Where to: https, at an address of the public internet, unless the service was started with
    /// `--webhook-targets any`.
    url: HttpUrl,
    /// Which kinds of events are delivered; all when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Vec<EventKind>, required = false, nullable = false, min_items = 1)]
    kinds: Option<BTreeSet<EventKind>>,
    /// Whether anything is; true when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    enabled: Option<bool>,
    /// What signs it: `whsec_` and 24 to 64 bytes in base64. One is made when none is sent.
    #[serde(default, deserialize_with = "secret")]
    #[schema(value_type = String, required = false, nullable = false, write_only, pattern = "^whsec_([A-Za-z0-9+/]{4}){8,21}$")]
    secret: Option<WebhookSecret>,
}

/// A webhook that was just made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "webhook": {
        "id": "9f1e2a4b6c8d0e1f", "name": "dashboard", "url": "https://hooks.example/sessions",
        "kinds": null, "enabled": true, "created_at": "2026-01-31T12:00:00.000Z",
        "updated_at": "2026-01-31T12:00:00.000Z", "version": 1,
        "delivery": {
            "position": 4711, "lag": 0, "attempts": 0, "next_attempt_at": null, "last_error": null,
            "last_delivered_at": null, "missed": 0, "dead_letters": 0
        }
    },
    "secret": "whsec_Zm9yIHRoZSBleGFtcGxlIG9ubHksIG5vdCBhIGtleSE="
}))]
struct WebhookCreated {
    /// Its record.
    webhook: WebhookView,
    /// What signs what is delivered. Shown this once; null when the answer is given again for an
    /// `Idempotency-Key`.
    #[schema(required)]
    secret: Option<String>,
}

/// Reads a secret. No error repeats what was sent.
fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<WebhookSecret>, D::Error> {
    use serde::de::Error;
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => WebhookSecret::parse(&text).map(Some).map_err(Error::custom),
        _ => Err(Error::custom("a secret is a text")),
    }
}

/// Refuses a target that nothing would be delivered to. What a name resolves to is looked at when it is asked.
fn check_url(state: &ApiState, url: &HttpUrl) -> Result<()> {
    if state.webhook_targets == WebhookTargets::Any {
        return Ok(());
    }
    let address = url.host().parse().ok();
    if url.is_https() && !url.is_loopback() && address.is_none_or(|address| Reach::Public.allows(address)) {
        return Ok(());
    }
    Err(Problem::field(Code::InvalidBody, "/url", "expected https:// at an address of the public internet"))
}

fn check_kinds(kinds: Option<&BTreeSet<EventKind>>) -> Result<()> {
    if kinds.is_some_and(BTreeSet::is_empty) {
        return Err(Problem::field(Code::InvalidBody, "/kinds", "at least one"));
    }
    Ok(())
}

/// Create a webhook
///
/// Each event of the cluster's sessions from now on is sent by POST as JSON (`{type, timestamp, data}`, where `data` is the
/// event as `…/events` has it), in their order and at least once: an event that is not answered 2xx within 10 s is
/// tried again after 1 s, 2 s, 4 s … up to 10 min, and those behind it wait. It is given up, and kept as a dead
/// letter, after 12 attempts, or 3 when the receiver answers with a status that is neither 2xx, 5xx, 408, 425 nor 429.
/// Redirects are not followed. `webhook-signature` is `v1,` and the HMAC-SHA256 of
/// `{webhook-id}.{webhook-timestamp}.{body}` in base64, as the Standard Webhooks specification has it.
/// A cluster has at most 10.
#[utoipa::path(
    post,
    path = "/v1/clusters/{cluster}/webhooks",
    tag = "webhooks",
    params(ClusterPath),
    request_body = WebhookCreate,
    responses((
        status = 201,
        description = "The webhook that was made.",
        body = WebhookCreated,
        headers(("Location" = String, description = "Its path."), ("ETag" = String, description = "Its version."))
    ))
)]
async fn create_webhook(
    State(state): State<ApiState>,
    change: Change,
    path: ClusterPath,
    extract::Json(body): extract::Json<WebhookCreate>,
) -> Result<Response> {
    check_url(&state, &body.url)?;
    check_kinds(body.kinds.as_ref())?;
    let secret = body.secret.map_or_else(fresh_secret, Ok).map_err(Problem::internal)?;
    let mut tx = state.store.begin().await?;
    locked_cluster(&mut tx, &path.cluster).await?;
    if tx.count_webhooks(&path.cluster).await? >= WEBHOOKS_MAX {
        let detail = format!("cluster \"{}\" has {WEBHOOKS_MAX} webhooks", path.cluster);
        return Err(Problem::new(Code::TooManyWebhooks, detail));
    }
    let mut id = [0; 8];
    getrandom::fill(&mut id).map_err(Problem::internal)?;
    let new = Webhook {
        cluster: path.cluster,
        id: format!("{:016x}", u64::from_be_bytes(id)),
        name: body.name.into_string(),
        url: body.url,
        kinds: body.kinds,
        enabled: body.enabled.unwrap_or(true),
        secret,
    };
    let record = tx.insert_webhook(&new, state.clock.wall()).await?;
    let location = format!("/v1/clusters/{}/webhooks/{}", new.cluster, new.id);
    let tag = ETag::of_webhook(&record).header();
    let mut created = WebhookCreated { webhook: record.into(), secret: None };
    let shown = serde_json::to_value(&created).map_err(Problem::internal)?;
    created.secret = Some(new.secret.expose_text());
    let response =
        (StatusCode::CREATED, [(LOCATION, location)], [(ETAG, tag)], Json(created)).into_response();
    change.commit_secret(tx, &shown, response).await
}

/// Get a webhook
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/webhooks/{webhook_id}",
    tag = "webhooks",
    params(WebhookPath),
    responses((
        status = 200,
        description = "The webhook, without its secret.",
        body = WebhookView,
        headers(("ETag" = String, description = "Its version."))
    ))
)]
async fn get_webhook(State(state): State<ApiState>, path: WebhookPath) -> Result<Response> {
    existing_webhook(&state, &path).await.map(tagged)
}

/// What a webhook should be from now on; what is not sent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"enabled": false}))]
struct WebhookPatch {
    /// What people call it.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    name: Option<Name>,
    /// Where to.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    url: Option<HttpUrl>,
    /// Which kinds of events are delivered; null for all.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<EventKind>>, min_items = 1)]
    #[allow(clippy::option_option)] // not sent, null, a value
    kinds: Option<Option<BTreeSet<EventKind>>>,
    /// Whether anything is. What happens meanwhile is delivered later.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    enabled: Option<bool>,
    /// What signs it from now on: `whsec_` and 24 to 64 bytes in base64.
    #[serde(default, deserialize_with = "secret")]
    #[schema(value_type = String, required = false, nullable = false, write_only, pattern = "^whsec_([A-Za-z0-9+/]{4}){8,21}$")]
    secret: Option<WebhookSecret>,
}

/// Change a webhook
///
/// Holds for the next request to it, which is made at once if there is anything to deliver.
#[utoipa::path(
    patch,
    path = "/v1/clusters/{cluster}/webhooks/{webhook_id}",
    tag = "webhooks",
    params(WebhookPath, IfMatch),
    request_body = WebhookPatch,
    responses((
        status = 200,
        description = "The webhook as it is now.",
        body = WebhookView,
        headers(("ETag" = String, description = "Its version."))
    ))
)]
async fn patch_webhook(
    State(state): State<ApiState>,
    change: Change,
    path: WebhookPath,
    if_match: IfMatch,
    extract::Json(body): extract::Json<WebhookPatch>,
) -> Result<Response> {
    if let Some(url) = &body.url {
        check_url(&state, url)?;
    }
    check_kinds(body.kinds.as_ref().and_then(Option::as_ref))?;
    let mut tx = state.store.begin().await?;
    locked_cluster(&mut tx, &path.cluster).await?;
    let current = existing_webhook(&state, &path).await?;
    if_match.check(&ETag::of_webhook(&current))?;
    let before = current.webhook.clone();
    let new = Webhook {
        name: body.name.map_or(before.name, Name::into_string),
        url: body.url.unwrap_or(before.url),
        kinds: body.kinds.unwrap_or(before.kinds),
        enabled: body.enabled.unwrap_or(before.enabled),
        secret: body.secret.unwrap_or(before.secret),
        ..before
    };
    if new == current.webhook {
        return Ok(tagged(current));
    }
    let changed = tx.update_webhook(&new, state.clock.wall()).await?;
    change.commit(tx, Some(&WebhookView::from(current)), tagged(changed)).await
}

/// Delete a webhook
///
/// With all that was given up. A request to it that is under way may still arrive.
#[utoipa::path(
    delete,
    path = "/v1/clusters/{cluster}/webhooks/{webhook_id}",
    tag = "webhooks",
    params(WebhookPath, IfMatch),
    responses((status = 204, description = "The webhook is gone."))
)]
async fn delete_webhook(
    State(state): State<ApiState>,
    change: Change,
    path: WebhookPath,
    if_match: IfMatch,
    _: NoBody,
) -> Result<Response> {
    let mut tx = state.store.begin().await?;
    locked_cluster(&mut tx, &path.cluster).await?;
    let current = existing_webhook(&state, &path).await?;
    if_match.check(&ETag::of_webhook(&current))?;
    tx.delete_webhook(&path.cluster, &path.webhook_id).await?;
    change.commit(tx, Some(&WebhookView::from(current)), StatusCode::NO_CONTENT.into_response()).await
}
