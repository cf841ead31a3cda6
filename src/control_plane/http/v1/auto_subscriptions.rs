//! `/v1/clusters/{cluster}/auto-subscriptions`: what clients are subscribed to when they connect.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{ETAG, LOCATION};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;
use uuid::Uuid;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::etag::{ETag, IfMatch};
use super::super::extract::{self, ClusterPath, NO_BODY, NoBody, Query, present};
use super::super::number::{numbered, present_numbered};
use super::super::page::{Page, PageParams, Paging};
use super::super::problem::{Problem, Result};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::access_paths::{AutoSubscriptionPath, Remark};
use super::{existing_cluster, locked_cluster};
use crate::model::{
    AutoSubscription, AutoSubscriptionSpec, AutoSubscriptions, FilterTemplate, Glob, QoS, RetainHandling,
    Timestamp,
};
use crate::store::{AutoSubscriptionRecord, NewAutoSubscription, Tx};

pub(super) fn routes(routes: Routes) -> Routes {
    let list = [Code::StoreUnavailable, Code::PageTokenInvalid];
    let create = [Code::TooManyAutoSubscriptions];
    let put = [Code::PreconditionFailed, Code::InvalidHeader, Code::AutoSubscriptionNotFound];
    let delete = [&put[..], &NO_BODY].concat();
    let get = [Code::AutoSubscriptionNotFound];
    routes
        .add(Scope::AutoSubscriptionsRead, &list, routes!(list_auto_subscriptions))
        .add_enforced(Scope::AutoSubscriptionsWrite, &create, routes!(create_auto_subscription))
        .add(Scope::AutoSubscriptionsRead, &get, routes!(get_auto_subscription))
        .add_enforced(Scope::AutoSubscriptionsWrite, &put, routes!(put_auto_subscription))
        .add_enforced(Scope::AutoSubscriptionsWrite, &delete, routes!(delete_auto_subscription))
}

/// An automatic subscription.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AutoSubscription, example = json!({
    "id": "019af8a0-5b7e-7c3d-9f1e-2a4b6c8d0e1f", "client_id": "meter-*", "username": null,
    "filter": "down/${clientid}/#", "qos": 1, "no_local": false, "retain_as_published": false,
    "retain_handling": 0, "description": "what meters are told", "created_at": "2026-01-31T12:00:00.000Z",
    "updated_at": "2026-01-31T12:00:00.000Z", "version": 1
}))]
struct AutoSubscriptionView {
    /// Its id; never changes.
    id: Uuid,
    /// For clients with such an id; null for all.
    #[schema(required)]
    client_id: Option<Glob>,
    /// For clients with such a user name, and none without one; null for all.
    #[schema(required)]
    username: Option<Glob>,
    /// What they subscribe to.
    filter: FilterTemplate,
    /// The greatest quality of service at which messages are sent.
    qos: QoS,
    /// Whether a client is not sent what it published itself.
    no_local: bool,
    /// Whether messages keep the retain flag that their publisher set.
    retain_as_published: bool,
    /// When retained messages are sent: 0 and 1 when the subscription begins, 2 never.
    retain_handling: RetainHandling,
    /// What people say of it.
    #[schema(required)]
    description: Option<String>,
    /// When it was made. Of several that give a client the same filter the newest holds.
    created_at: Timestamp,
    /// When it last changed.
    updated_at: Timestamp,
    /// Counts the changes.
    #[schema(minimum = 1)]
    version: i64,
}

impl From<AutoSubscriptionRecord> for AutoSubscriptionView {
    fn from(record: AutoSubscriptionRecord) -> Self {
        let AutoSubscription { id, spec } = record.rule;
        Self {
            id,
            client_id: spec.client_id,
            username: spec.username,
            filter: spec.filter,
            qos: spec.qos,
            no_local: spec.no_local,
            retain_as_published: spec.retain_as_published,
            retain_handling: spec.retain_handling,
            description: record.description,
            created_at: record.created_at,
            updated_at: record.updated_at,
            version: record.version,
        }
    }
}

/// The record with its `ETag`.
fn tagged(status: StatusCode, record: AutoSubscriptionRecord) -> Response {
    let tag = ETag::of_record(record.rule.id, record.version).header();
    (status, [(ETAG, tag)], Json(AutoSubscriptionView::from(record))).into_response()
}

/// List the automatic subscriptions of a cluster
///
/// The oldest first.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/auto-subscriptions",
    tag = "sessions",
    params(ClusterPath, PageParams),
    responses((
        status = 200,
        description = "A page of automatic subscriptions.",
        body = Page<AutoSubscriptionView>
    ))
)]
async fn list_auto_subscriptions(
    State(state): State<ApiState>,
    path: ClusterPath,
    Query(params): Query<PageParams>,
) -> Result<Json<Page<AutoSubscriptionView>>> {
    let bound = ("auto-subscriptions", &path.cluster);
    let paging = Paging::<Uuid>::of(&params, &bound)?;
    let rules =
        state.store.list_items::<AutoSubscriptionRecord>(&path.cluster, paging.after, paging.limit()).await?;
    if rules.is_empty() {
        existing_cluster(&state, &path.cluster).await?;
    }
    paging.page(rules, |record| record.rule.id, AutoSubscriptionView::from).map(Json)
}

/// Get an automatic subscription
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/auto-subscriptions/{auto_subscription_id}",
    tag = "sessions",
    params(AutoSubscriptionPath),
    responses((
        status = 200,
        description = "The automatic subscription.",
        body = AutoSubscriptionView,
        headers(("ETag" = String, description = "The record's version."))
    ))
)]
async fn get_auto_subscription(
    State(state): State<ApiState>,
    path: AutoSubscriptionPath,
) -> Result<Response> {
    if let Some(id) = path.id()
        && let Some(record) = state.store.get_item::<AutoSubscriptionRecord>(&path.cluster, id).await?
    {
        return Ok(tagged(StatusCode::OK, record));
    }
    existing_cluster(&state, &path.cluster).await?;
    Err(path.not_found())
}

/// An automatic subscription as it should be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AutoSubscriptionPut, example = json!({
    "client_id": "meter-*", "filter": "down/${clientid}/#", "qos": 1, "description": "what meters are told"
}))]
struct AutoSubscriptionPut {
    /// For clients with such an id; for all when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    client_id: Option<Glob>,
    /// For clients with such a user name, and none without one; for all when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    username: Option<Glob>,
    /// What they subscribe to. A client whose own id or user name stands in it and is missing, has a `/`, `+` or
    /// `#`, or begins with `$` is not subscribed.
    filter: FilterTemplate,
    /// The greatest quality of service at which messages are sent.
    #[serde(deserialize_with = "numbered")]
    qos: QoS,
    /// Whether a client is not sent what it published itself; not for a shared subscription.
    #[serde(default)]
    #[schema(nullable = false)]
    no_local: bool,
    /// Whether messages keep the retain flag that their publisher set.
    #[serde(default)]
    #[schema(nullable = false)]
    retain_as_published: bool,
    /// When retained messages are sent: 0 and 1 when the subscription begins, 2 never; 0 when not sent.
    #[serde(default, deserialize_with = "present_numbered")]
    #[schema(nullable = false)]
    retain_handling: Option<RetainHandling>,
    /// What people say of it: up to 256 characters.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, value_type = String, required = false, min_length = 1, max_length = 256)]
    description: Option<Remark>,
}

impl AutoSubscriptionPut {
    fn checked(self) -> Result<NewAutoSubscription> {
        if self.no_local && self.filter.is_shared() {
            let detail = "a shared subscription cannot have no_local [MQTT-3.8.3-4]";
            return Err(Problem::field(Code::InvalidBody, "/no_local", detail));
        }
        let spec = AutoSubscriptionSpec {
            client_id: self.client_id,
            username: self.username,
            filter: self.filter,
            qos: self.qos,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling: self.retain_handling.unwrap_or(RetainHandling::Send),
        };
        Ok(NewAutoSubscription { description: self.description.map(Remark::into_string), spec })
    }
}

/// Create an automatic subscription
///
/// From now on every CONNECT of a client whom it names subscribes that client, without a SUBSCRIBE. What its
/// session subscribes to already stays as it is; of several rules that give the same filter the newest holds. It
/// counts for the quotas as the client's own subscriptions do, and comes before what the client asks for at this
/// connection: what does not fit is left out and told by `GET …/refusals`. The policies of the cluster are not asked.
/// Retained messages are sent as for a SUBSCRIBE. Such a subscription is one of the session like any other, with the
/// origin `automatic`: the client may replace it by SUBSCRIBE, and end it by UNSUBSCRIBE until its next CONNECT.
/// Clients that are connected now are not touched.
#[utoipa::path(
    post,
    path = "/v1/clusters/{cluster}/auto-subscriptions",
    tag = "sessions",
    params(ClusterPath),
    request_body = AutoSubscriptionPut,
    responses((
        status = 201,
        description = "The automatic subscription that was made.",
        body = AutoSubscriptionView,
        headers(
            ("ETag" = String, description = "The record's version."),
            ("Location" = String, description = "Its path.")
        )
    ))
)]
async fn create_auto_subscription(
    State(state): State<ApiState>,
    change: Change,
    path: ClusterPath,
    extract::Json(body): extract::Json<AutoSubscriptionPut>,
) -> Result<Response> {
    let cluster = &path.cluster;
    let new = body.checked()?;
    let mut tx = state.store.begin().await?;
    locked_cluster(&mut tx, cluster).await?;
    if tx.count_items::<AutoSubscriptionRecord>(cluster).await? >= AutoSubscriptions::RULES_MAX {
        let detail =
            format!("cluster \"{cluster}\" has {} automatic subscriptions", AutoSubscriptions::RULES_MAX);
        return Err(Problem::new(Code::TooManyAutoSubscriptions, detail));
    }
    let id = Uuid::now_v7();
    let record = tx.insert_item::<AutoSubscriptionRecord>(cluster, id, &new, state.clock.wall()).await?;
    let location = format!("/v1/clusters/{cluster}/auto-subscriptions/{id}");
    let response = ([(LOCATION, location)], tagged(StatusCode::CREATED, record)).into_response();
    change.commit(tx, None::<&()>, response).await
}

/// The rule as it is, in a transaction that has locked its cluster.
async fn locked(
    tx: &mut Tx,
    path: &AutoSubscriptionPath,
    if_match: &IfMatch,
) -> Result<AutoSubscriptionRecord> {
    let cluster = &path.cluster;
    locked_cluster(tx, cluster).await?;
    let id = path.id().ok_or_else(|| path.not_found())?;
    let current =
        tx.get_item::<AutoSubscriptionRecord>(cluster, id).await?.ok_or_else(|| path.not_found())?;
    if_match.check(&ETag::of_record(current.rule.id, current.version))?;
    Ok(current)
}

/// Change an automatic subscription
///
/// All of it is replaced, from the next CONNECT on; it stays as old as it is. What clients were subscribed to by it
/// stays.
#[utoipa::path(
    put,
    path = "/v1/clusters/{cluster}/auto-subscriptions/{auto_subscription_id}",
    tag = "sessions",
    params(AutoSubscriptionPath, IfMatch),
    request_body = AutoSubscriptionPut,
    responses((
        status = 200,
        description = "The automatic subscription as it is now.",
        body = AutoSubscriptionView,
        headers(("ETag" = String, description = "The record's version."))
    ))
)]
async fn put_auto_subscription(
    State(state): State<ApiState>,
    change: Change,
    path: AutoSubscriptionPath,
    if_match: IfMatch,
    extract::Json(body): extract::Json<AutoSubscriptionPut>,
) -> Result<Response> {
    let new = body.checked()?;
    let mut tx = state.store.begin().await?;
    let current = locked(&mut tx, &path, &if_match).await?;
    let now = state.clock.wall();
    let updated = tx.update_item::<AutoSubscriptionRecord>(&path.cluster, current.rule.id, &new, now).await?;
    let response = tagged(StatusCode::OK, updated);
    change.commit(tx, Some(&AutoSubscriptionView::from(current)), response).await
}

/// Delete an automatic subscription
///
/// From the next CONNECT on nobody is subscribed by it. What clients were subscribed to by it stays, until they
/// unsubscribe or their sessions end.
#[utoipa::path(
    delete,
    path = "/v1/clusters/{cluster}/auto-subscriptions/{auto_subscription_id}",
    tag = "sessions",
    params(AutoSubscriptionPath, IfMatch),
    responses((status = 204, description = "The automatic subscription is gone."))
)]
async fn delete_auto_subscription(
    State(state): State<ApiState>,
    change: Change,
    path: AutoSubscriptionPath,
    if_match: IfMatch,
    _: NoBody,
) -> Result<Response> {
    let mut tx = state.store.begin().await?;
    let current = locked(&mut tx, &path, &if_match).await?;
    tx.delete_item::<AutoSubscriptionRecord>(&path.cluster, current.rule.id).await?;
    let response = StatusCode::NO_CONTENT.into_response();
    change.commit(tx, Some(&AutoSubscriptionView::from(current)), response).await
}
