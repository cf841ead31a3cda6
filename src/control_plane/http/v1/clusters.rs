//! `/v1/clusters`: tenants' logical MQTT services.

use std::num::NonZeroU16;

use axum::Json;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::routes;

use super::super::auth::{Caller, Scope};
use super::super::change::Change;
use super::super::code::Code;
use super::super::etag::{ETag, IfMatch};
use super::super::extract::{self, ClusterPath, NO_BODY, NoBody, Query, present};
use super::super::number::Within;
use super::super::page::{Page, PageParams, Paging};
use super::super::problem::{Problem, Result};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::cluster_view::{ClusterView, tagged};
use super::labels::{LABELS_MAX, Labels, LabelsPatch, Name, TOO_MANY};
use super::{existing_cluster, locked_cluster};
use crate::model::{
    Cluster, ClusterId, ClusterStatus, Plan, QuotaOverrides, RESEND_AFTER_SECS, SharedStrategy,
};
use crate::store::NewCluster;

pub(super) fn routes(routes: Routes) -> Routes {
    let create = [Code::ClusterExists];
    let change = [Code::PreconditionFailed, Code::InvalidHeader];
    let delete = [&change[..], &[Code::ClusterProtected], &NO_BODY].concat();
    let list = [Code::StoreUnavailable, Code::PageTokenInvalid];
    routes
        .add(Scope::ClustersRead, &list, routes!(list_clusters))
        .add_enforced(Scope::ClustersCreate, &create, routes!(create_cluster))
        .add(Scope::ClustersRead, &[Code::StoreUnavailable], routes!(get_cluster))
        .add_enforced(Scope::ClustersWrite, &change, routes!(patch_cluster))
        .add_enforced(Scope::ClustersWrite, &delete, routes!(delete_cluster))
}

/// A keep-alive; beyond what MQTT can say there is none.
type KeepAlive = Within<1, 65_535>;

/// After how long unanswered messages are sent again: at most a day.
type ResendAfter = Within<0, 86_400>;

fn keep_alive_secs(keep_alive: KeepAlive) -> Option<NonZeroU16> {
    u16::try_from(keep_alive.0).ok().and_then(NonZeroU16::new)
}

/// The name of a plan that exists.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
struct PlanName(String);

impl PartialSchema for PlanName {
    fn schema() -> RefOr<Schema> {
        let names = Plan::ALL.map(|plan| plan.name);
        let text = ObjectBuilder::new().schema_type(Type::String).description(Some("The name of a plan."));
        text.enum_values(Some(names)).into()
    }
}

impl ToSchema for PlanName {}

impl TryFrom<String> for PlanName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match Plan::by_name(&name) {
            Some(_) => Ok(Self(name)),
            None => Err(format!("a plan is one of {}", Plan::ALL.map(|plan| plan.name).join(", "))),
        }
    }
}

/// List the clusters
///
/// In order of their ids. A token that is bound to a cluster sees that one alone.
#[utoipa::path(
    get,
    path = "/v1/clusters",
    tag = "clusters",
    params(PageParams),
    responses((status = 200, description = "A page of clusters.", body = Page<ClusterView>))
)]
async fn list_clusters(
    State(state): State<ApiState>,
    caller: Caller,
    Query(params): Query<PageParams>,
) -> Result<Json<Page<ClusterView>>> {
    let filter = ("clusters", caller.cluster());
    let paging = Paging::of(&params, &filter)?;
    let clusters = match caller.cluster() {
        None => state.store.list_clusters(paging.after.as_ref(), paging.limit()).await?,
        Some(own) => state.store.get_cluster(own).await?.into_iter().collect(),
    };
    paging.page(clusters, |cluster| cluster.id.clone(), ClusterView::from).map(Json)
}

/// A cluster to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"id": "meters-north", "name": "Meters, north", "plan": "basic"}))]
struct ClusterCreate {
    /// Its id; it never changes, and is the first label of the cluster's host name.
    id: ClusterId,
    /// What people call it; its id when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    name: Option<Name>,
    /// The caller's own marks.
    #[serde(default)]
    labels: Labels,
    /// The plan whose quotas it has; `basic` when not sent. `GET /v1/plans` lists them.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    plan: Option<PlanName>,
    /// Whether a CONNECT without credentials is let in.
    #[serde(default)]
    allow_anonymous: bool,
    /// Which member of a shared group gets a message.
    #[serde(default)]
    shared_strategy: SharedStrategy,
    /// The longest keep-alive of a client, in seconds; null, or nothing, leaves each client its own.
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 65_535)]
    server_keep_alive_seconds: Option<KeepAlive>,
    /// After how many seconds a client of MQTT 3.1 or 3.1.1 gets again, while connected, what it has not
    /// answered; 0 for never, 120 when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = u32, maximum = 86_400, nullable = false)]
    resend_after_seconds: Option<ResendAfter>,
    /// Whether DELETE is refused until this is taken back.
    #[serde(default)]
    delete_protection: bool,
}

impl From<ClusterCreate> for NewCluster {
    fn from(body: ClusterCreate) -> Self {
        Self {
            name: body.name.map_or_else(|| body.id.to_string(), Name::into_string),
            id: body.id,
            labels: body.labels.into_map(),
            delete_protection: body.delete_protection,
            allow_anonymous: body.allow_anonymous,
            shared_strategy: body.shared_strategy,
            server_keep_alive_secs: body.server_keep_alive_seconds.and_then(keep_alive_secs),
            resend_after_secs: body.resend_after_seconds.map_or(RESEND_AFTER_SECS, |after| after.0),
            plan: body.plan.map_or_else(|| Plan::ALL[0].name.to_owned(), |plan| plan.0),
            overrides: QuotaOverrides::default(),
        }
    }
}

/// Create a cluster
///
/// It serves clients when this is answered.
#[utoipa::path(
    post,
    path = "/v1/clusters",
    tag = "clusters",
    request_body = ClusterCreate,
    responses((
        status = 201,
        description = "The cluster that was made.",
        body = ClusterView,
        headers(("ETag" = String, description = "The record's version."), ("Location" = String, description = "Its path."))
    ))
)]
async fn create_cluster(
    State(state): State<ApiState>,
    change: Change,
    extract::Json(body): extract::Json<ClusterCreate>,
) -> Result<Response> {
    let now = state.clock.wall();
    let mut tx = state.store.begin().await?;
    let cluster = tx.insert_cluster(&body.into(), now).await?;
    // A cluster id is a DNS label: always a header value.
    let location =
        HeaderValue::try_from(format!("/v1/clusters/{}", cluster.id)).map_err(Problem::internal)?;
    let response = (StatusCode::CREATED, [(LOCATION, location)], tagged(cluster)).into_response();
    change.commit(tx, None::<&()>, response).await
}

/// Get a cluster
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}",
    tag = "clusters",
    params(ClusterPath),
    responses((
        status = 200,
        description = "The cluster.",
        body = ClusterView,
        headers(("ETag" = String, description = "The record's version."))
    ))
)]
async fn get_cluster(State(state): State<ApiState>, path: ClusterPath) -> Result<Response> {
    existing_cluster(&state, &path.cluster).await.map(tagged)
}

/// Changes to a cluster; what is not sent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"status": "suspended", "labels": {"team": "metering", "trial": null}}))]
struct ClusterPatch {
    /// What people call it.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    name: Option<Name>,
    /// The caller's own marks: a value sets a label, null removes it, the others stay.
    #[serde(default)]
    labels: LabelsPatch,
    /// `suspended` refuses CONNECTs and ends live connections, `active` takes that back.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    status: Option<ClusterStatus>,
    /// The plan whose quotas it has, where it sets none itself.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    plan: Option<PlanName>,
    /// Whether a CONNECT without credentials is let in.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    allow_anonymous: Option<bool>,
    /// Which member of a shared group gets a message, from the next message on.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    shared_strategy: Option<SharedStrategy>,
    /// The longest keep-alive of a client, in seconds, of live connections too; null gives each client its
    /// own back. A v5 client is told at its next CONNECT.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 65_535)]
    #[allow(clippy::option_option)] // not sent, null, or a value
    server_keep_alive_seconds: Option<Option<KeepAlive>>,
    /// After how many seconds a client of MQTT 3.1 or 3.1.1 gets again, while connected, what it has not
    /// answered; 0 for never. Holds for live connections too.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = u32, maximum = 86_400, nullable = false)]
    resend_after_seconds: Option<ResendAfter>,
    /// Whether DELETE is refused until this is taken back.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    delete_protection: Option<bool>,
}

impl ClusterPatch {
    fn apply(self, mut cluster: Cluster) -> Result<Cluster> {
        self.labels.apply(&mut cluster.labels);
        if cluster.labels.len() > LABELS_MAX {
            return Err(Problem::field(Code::InvalidBody, "/labels", TOO_MANY));
        }
        if let Some(name) = self.name {
            cluster.name = name.into_string();
        }
        if let Some(plan) = self.plan {
            cluster.plan = plan.0;
        }
        if let Some(keep_alive) = self.server_keep_alive_seconds {
            cluster.server_keep_alive_secs = keep_alive.and_then(keep_alive_secs);
        }
        cluster.resend_after_secs =
            self.resend_after_seconds.map_or(cluster.resend_after_secs, |after| after.0);
        cluster.shared_strategy = self.shared_strategy.unwrap_or(cluster.shared_strategy);
        cluster.status = self.status.unwrap_or(cluster.status);
        cluster.allow_anonymous = self.allow_anonymous.unwrap_or(cluster.allow_anonymous);
        cluster.delete_protection = self.delete_protection.unwrap_or(cluster.delete_protection);
        Ok(cluster)
    }
}

/// Change a cluster
///
/// A JSON merge patch (RFC 7396). The change is enforced when this is answered. A patch that
/// changes nothing leaves the version as it is.
#[utoipa::path(
    patch,
    path = "/v1/clusters/{cluster}",
    tag = "clusters",
    params(ClusterPath, IfMatch),
    request_body(content = ClusterPatch, content_type = "application/json"),
    responses((
        status = 200,
        description = "The cluster as it is now.",
        body = ClusterView,
        headers(("ETag" = String, description = "The record's version."))
    ))
)]
async fn patch_cluster(
    State(state): State<ApiState>,
    change: Change,
    path: ClusterPath,
    if_match: IfMatch,
    extract::Json(body): extract::Json<ClusterPatch>,
) -> Result<Response> {
    let now = state.clock.wall();
    let mut tx = state.store.begin().await?;
    let current = locked_cluster(&mut tx, &path.cluster).await?;
    if_match.check(&ETag::of_cluster(&current))?;
    let wanted = body.apply(current.clone())?;
    if wanted == current {
        return Ok(tagged(current));
    }
    if wanted.plan != current.plan {
        tx.update_quota(&wanted.id, &wanted.plan, &wanted.overrides, now).await?;
    }
    let changed = tx.update_cluster(&wanted, now).await?;
    change.commit(tx, Some(&ClusterView::from(current)), tagged(changed)).await
}

/// Delete a cluster
///
/// With its sessions and all that belongs to them. Its connections are closed when this is
/// answered. Refused while it has `delete_protection`.
#[utoipa::path(
    delete,
    path = "/v1/clusters/{cluster}",
    tag = "clusters",
    params(ClusterPath, IfMatch),
    responses((status = 204, description = "The cluster is gone."))
)]
async fn delete_cluster(
    State(state): State<ApiState>,
    change: Change,
    path: ClusterPath,
    if_match: IfMatch,
    _: NoBody,
) -> Result<Response> {
    let mut tx = state.store.begin().await?;
    let current = locked_cluster(&mut tx, &path.cluster).await?;
    if_match.check(&ETag::of_cluster(&current))?;
    if current.delete_protection {
        let detail = format!("cluster \"{}\" has delete_protection", current.id);
        return Err(Problem::new(Code::ClusterProtected, detail));
    }
    tx.delete_cluster(&current.id).await?;
    let response = StatusCode::NO_CONTENT.into_response();
    change.commit(tx, Some(&ClusterView::from(current)), response).await
}
