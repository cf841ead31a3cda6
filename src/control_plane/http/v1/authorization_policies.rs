//! `/v1/clusters/{cluster}/authorization-policies`: what a cluster's clients may do.
//!
//! A policy is parsed here and nowhere else; what does not parse is refused with a pointer to the fault.

use std::collections::BTreeSet;

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
use super::super::number::{numbered_set, whole};
use super::super::page::{Page, PageParams, Paging};
use super::super::problem::{Problem, Result};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::access_paths::{PolicyPath, Remark};
use super::{existing_cluster, locked_cluster};
use crate::model::{
    AccessAction, AccessRules, ClusterId, Glob, Network, Policy, PolicyEffect, PolicySpec, QoS, Resource,
    Timestamp,
};
use crate::store::{NewPolicy, PolicyRecord};

pub(super) fn routes(routes: Routes) -> Routes {
    let list = [Code::StoreUnavailable, Code::PageTokenInvalid];
    let create = [Code::PolicyPriorityTaken, Code::TooManyAccessRules];
    let matched = [Code::PreconditionFailed, Code::InvalidHeader, Code::PolicyNotFound];
    let put = [&matched[..], &[Code::PolicyPriorityTaken]].concat();
    let delete = [&matched[..], &NO_BODY].concat();
    routes
        .add(Scope::PoliciesRead, &list, routes!(list_authorization_policies))
        .add_enforced(Scope::PoliciesWrite, &create, routes!(create_authorization_policy))
        .add(Scope::PoliciesRead, &[Code::PolicyNotFound], routes!(get_authorization_policy))
        .add_enforced(Scope::PoliciesWrite, &put, routes!(put_authorization_policy))
        .add_enforced(Scope::PoliciesWrite, &delete, routes!(delete_authorization_policy))
}

/// An authorisation policy.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuthorizationPolicy, example = json!({
    "id": "019af8a0-5b7e-7c3d-9f1e-2a4b6c8d0e1f", "priority": 100, "description": "each meter its own",
    "effect": "allow", "actions": ["publish", "subscribe"], "resources": ["meters/${clientid}/#"],
    "client_ids": ["meter-*"], "usernames": [], "networks": [], "qos": [], "retain": null,
    "created_at": "2026-01-31T12:00:00.000Z", "updated_at": "2026-01-31T12:00:00.000Z", "version": 1
}))]
struct PolicyView {
    /// Its id; never changes.
    id: Uuid,
    /// When it is asked: smaller first. No two of a cluster have the same.
    #[schema(minimum = 0, maximum = 1_000_000)]
    priority: u32,
    /// What people say of it.
    #[schema(required)]
    description: Option<String>,
    /// What it says of what it holds for.
    effect: PolicyEffect,
    /// Of what.
    actions: Vec<AccessAction>,
    /// On which topics; empty if it is about connecting alone.
    resources: Vec<Resource>,
    /// By which clients; empty for all.
    client_ids: Vec<Glob>,
    /// As which users; empty for all, clients without a user name too.
    usernames: Vec<Glob>,
    /// From where; empty for everywhere.
    #[schema(value_type = Vec<String>)]
    networks: Vec<Network>,
    /// At which QoS; empty for any.
    qos: Vec<QoS>,
    /// With or without the retain flag; null for both.
    #[schema(required)]
    retain: Option<bool>,
    /// When it was made.
    created_at: Timestamp,
    /// When it last changed.
    updated_at: Timestamp,
    /// Counts the changes.
    #[schema(minimum = 1)]
    version: i64,
}

impl From<PolicyRecord> for PolicyView {
    fn from(record: PolicyRecord) -> Self {
        let PolicyRecord { policy: Policy { id, priority, spec }, .. } = record;
        Self {
            id,
            priority,
            description: record.description,
            effect: spec.effect,
            actions: spec.actions,
            resources: spec.resources,
            client_ids: spec.client_ids,
            usernames: spec.usernames,
            networks: spec.networks,
            qos: spec.qos,
            retain: spec.retain,
            created_at: record.created_at,
            updated_at: record.updated_at,
            version: record.version,
        }
    }
}

/// The record with its `ETag`.
fn tagged(status: StatusCode, record: PolicyRecord) -> Response {
    let tag = ETag::of_record(record.policy.id, record.version).header();
    (status, [(ETAG, tag)], Json(PolicyView::from(record))).into_response()
}

/// List the authorisation policies of a cluster
///
/// In the order in which they are asked.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/authorization-policies",
    tag = "access",
    params(ClusterPath, PageParams),
    responses((status = 200, description = "A page of policies.", body = Page<PolicyView>))
)]
async fn list_authorization_policies(
    State(state): State<ApiState>,
    path: ClusterPath,
    Query(params): Query<PageParams>,
) -> Result<Json<Page<PolicyView>>> {
    let bound = ("authorization-policies", &path.cluster);
    let paging = Paging::<u32>::of(&params, &bound)?;
    // What no list has given out.
    let after = paging.after.map(|priority| priority.min(Policy::PRIORITY_MAX));
    let policies = state.store.list_items::<PolicyRecord>(&path.cluster, after, paging.limit()).await?;
    if policies.is_empty() {
        existing_cluster(&state, &path.cluster).await?;
    }
    paging.page(policies, |record| record.policy.priority, PolicyView::from).map(Json)
}

/// Get an authorisation policy
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/authorization-policies/{policy_id}",
    tag = "access",
    params(PolicyPath),
    responses((
        status = 200,
        description = "The policy.",
        body = PolicyView,
        headers(("ETag" = String, description = "The record's version."))
    ))
)]
async fn get_authorization_policy(State(state): State<ApiState>, path: PolicyPath) -> Result<Response> {
    if let Some(id) = path.id()
        && let Some(record) = state.store.get_item::<PolicyRecord>(&path.cluster, id).await?
    {
        return Ok(tagged(StatusCode::OK, record));
    }
    existing_cluster(&state, &path.cluster).await?;
    Err(path.not_found())
}

/// An authorisation policy as it should be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AuthorizationPolicyPut, example = json!({
    "priority": 100, "effect": "allow", "actions": ["publish", "subscribe"],
    "resources": ["meters/${clientid}/#"], "client_ids": ["meter-*"]
}))]
struct PolicyPut {
    /// When it is asked: smaller first. No two of a cluster have the same.
    #[schema(minimum = 0, maximum = 1_000_000)]
    #[serde(deserialize_with = "whole")]
    priority: u32,
    /// What people say of it: up to 256 characters.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, value_type = String, required = false, min_length = 1, max_length = 256)]
    description: Option<Remark>,
    /// What it says of what it holds for.
    effect: PolicyEffect,
    /// Of what; each only once. A will is published.
    #[schema(min_items = 1, max_items = 3)]
    actions: Vec<AccessAction>,
    /// On which topics. Needed for `publish` and `subscribe`; `connect` has none. A subscription is allowed
    /// only by a resource that has every topic of its filter, and denied by one that has any of them.
    #[serde(default)]
    #[schema(max_items = 16)]
    resources: Vec<Resource>,
    /// By which clients; all when not sent.
    #[serde(default)]
    #[schema(max_items = 16)]
    client_ids: Vec<Glob>,
    /// As which users; all when not sent, clients without a user name too.
    #[serde(default)]
    #[schema(max_items = 16)]
    usernames: Vec<Glob>,
    /// From which addresses or networks; from everywhere when not sent.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 16, example = json!(["10.0.0.0/8"]))]
    networks: Vec<Network>,
    /// At which QoS, any when not sent; of a subscription the greatest that it asks for. `connect` has none.
    #[serde(default, deserialize_with = "numbered_set")]
    #[schema(value_type = Vec<QoS>)]
    qos: BTreeSet<QoS>,
    /// With or without the retain flag; both when not sent. Only with `publish` alone.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    retain: Option<bool>,
}

impl PolicyPut {
    fn checked(self) -> Result<NewPolicy> {
        if self.priority > Policy::PRIORITY_MAX {
            let detail = format!("at most {}", Policy::PRIORITY_MAX);
            return Err(Problem::field(Code::InvalidBody, "/priority", detail));
        }
        let spec = PolicySpec {
            effect: self.effect,
            actions: self.actions,
            resources: self.resources,
            client_ids: self.client_ids,
            usernames: self.usernames,
            networks: self.networks,
            qos: self.qos.into_iter().collect(),
            retain: self.retain,
        };
        spec.check().map_err(|(pointer, detail)| Problem::field(Code::InvalidBody, pointer, detail))?;
        let description = self.description.map(Remark::into_string);
        Ok(NewPolicy { priority: self.priority, description, spec })
    }
}

/// Create an authorisation policy
///
/// **The first policy closes the cluster**: from then on whatever no policy allows is denied, connecting too,
/// and clients that are not allowed to connect lose their connections. Begin with
/// `{"priority": 1000000, "effect": "allow", "actions": ["connect", "publish", "subscribe"], "resources": ["#"]}`.
///
/// What is answered holds for the next packet. A subscription that is not permitted any longer stays and
/// gets nothing until it is permitted again.
#[utoipa::path(
    post,
    path = "/v1/clusters/{cluster}/authorization-policies",
    tag = "access",
    params(ClusterPath),
    request_body = PolicyPut,
    responses((
        status = 201,
        description = "The policy that was made.",
        body = PolicyView,
        headers(
            ("ETag" = String, description = "The record's version."),
            ("Location" = String, description = "Its path.")
        )
    ))
)]
async fn create_authorization_policy(
    State(state): State<ApiState>,
    change: Change,
    path: ClusterPath,
    extract::Json(body): extract::Json<PolicyPut>,
) -> Result<Response> {
    let (cluster, new) = (&path.cluster, body.checked()?);
    let mut tx = state.store.begin().await?;
    locked_cluster(&mut tx, cluster).await?;
    if tx.count_items::<PolicyRecord>(cluster).await? >= AccessRules::POLICIES_MAX {
        let detail = format!("cluster \"{cluster}\" has {} policies", AccessRules::POLICIES_MAX);
        return Err(Problem::new(Code::TooManyAccessRules, detail));
    }
    let record = tx.insert_item::<PolicyRecord>(cluster, Uuid::now_v7(), &new, state.clock.wall()).await?;
    let location = format!("/v1/clusters/{cluster}/authorization-policies/{}", record.policy.id);
    let response = ([(LOCATION, location)], tagged(StatusCode::CREATED, record)).into_response();
    change.commit(tx, None::<&()>, response).await
}

/// The policy as it is, in a transaction that has locked its cluster.
async fn locked(tx: &mut crate::store::Tx, path: &PolicyPath, if_match: &IfMatch) -> Result<PolicyRecord> {
    let cluster: &ClusterId = &path.cluster;
    locked_cluster(tx, cluster).await?;
    let id = path.id().ok_or_else(|| path.not_found())?;
    let current = tx.get_item::<PolicyRecord>(cluster, id).await?.ok_or_else(|| path.not_found())?;
    if_match.check(&ETag::of_record(current.policy.id, current.version))?;
    Ok(current)
}

/// Change an authorisation policy
///
/// All of it is replaced. What is answered holds for the next packet.
#[utoipa::path(
    put,
    path = "/v1/clusters/{cluster}/authorization-policies/{policy_id}",
    tag = "access",
    params(PolicyPath, IfMatch),
    request_body = PolicyPut,
    responses((
        status = 200,
        description = "The policy as it is now.",
        body = PolicyView,
        headers(("ETag" = String, description = "The record's version."))
    ))
)]
async fn put_authorization_policy(
    State(state): State<ApiState>,
    change: Change,
    path: PolicyPath,
    if_match: IfMatch,
    extract::Json(body): extract::Json<PolicyPut>,
) -> Result<Response> {
    let new = body.checked()?;
    let mut tx = state.store.begin().await?;
    let current = locked(&mut tx, &path, &if_match).await?;
    let updated =
        tx.update_item::<PolicyRecord>(&path.cluster, current.policy.id, &new, state.clock.wall()).await?;
    let response = tagged(StatusCode::OK, updated);
    change.commit(tx, Some(&PolicyView::from(current)), response).await
}

/// Delete an authorisation policy
///
/// With the last one the cluster is open again: every client may do everything but use topics that begin
/// with `$`.
#[utoipa::path(
    delete,
    path = "/v1/clusters/{cluster}/authorization-policies/{policy_id}",
    tag = "access",
    params(PolicyPath, IfMatch),
    responses((status = 204, description = "The policy is gone."))
)]
async fn delete_authorization_policy(
    State(state): State<ApiState>,
    change: Change,
    path: PolicyPath,
    if_match: IfMatch,
    _: NoBody,
) -> Result<Response> {
    let mut tx = state.store.begin().await?;
    let current = locked(&mut tx, &path, &if_match).await?;
    tx.delete_item::<PolicyRecord>(&path.cluster, current.policy.id).await?;
    let response = StatusCode::NO_CONTENT.into_response();
    change.commit(tx, Some(&PolicyView::from(current)), response).await
}
