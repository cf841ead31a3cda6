//! `/v1/clusters/{cluster}/block-rules`: clients that are kept out.

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
use super::super::page::{Page, PageParams, Paging};
use super::super::problem::{Problem, Result};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::access_paths::{BlockRulePath, Remark};
use super::{existing_cluster, locked_cluster};
use crate::model::{AccessRules, BlockPattern, BlockRule, BlockRuleSpec, BlockSubject, Glob, Timestamp};
use crate::store::{BlockRuleRecord, NewBlockRule, Tx};

pub(super) fn routes(routes: Routes) -> Routes {
    let list = [Code::StoreUnavailable, Code::PageTokenInvalid];
    let create = [Code::TooManyAccessRules];
    let put = [Code::PreconditionFailed, Code::InvalidHeader, Code::BlockRuleNotFound];
    let delete = [&put[..], &NO_BODY].concat();
    routes
        .add(Scope::BlockRulesRead, &list, routes!(list_block_rules))
        .add_enforced(Scope::BlockRulesWrite, &create, routes!(create_block_rule))
        .add(Scope::BlockRulesRead, &[Code::BlockRuleNotFound], routes!(get_block_rule))
        .add_enforced(Scope::BlockRulesWrite, &put, routes!(put_block_rule))
        .add_enforced(Scope::BlockRulesWrite, &delete, routes!(delete_block_rule))
}

/// A block rule.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BlockRule, example = json!({
    "id": "019af8a0-5b7e-7c3d-9f1e-2a4b6c8d0e1f", "subject": "client_id", "pattern": "meter-*",
    "excludes": ["meter-17"], "reason": "stolen batch", "expires_at": "2026-02-28T12:00:00.000Z",
    "created_at": "2026-01-31T12:00:00.000Z", "updated_at": "2026-01-31T12:00:00.000Z", "version": 1
}))]
struct BlockRuleView {
    /// Its id; never changes.
    id: Uuid,
    /// What of a client it looks at.
    subject: BlockSubject,
    /// Whom it keeps out.
    #[schema(value_type = Glob)]
    pattern: BlockPattern,
    /// Whom of these it does not.
    #[schema(value_type = Vec<Glob>)]
    excludes: Vec<BlockPattern>,
    /// Why, for people.
    #[schema(required)]
    reason: Option<String>,
    /// From when on it no longer keeps anybody out; null for never.
    #[schema(required)]
    expires_at: Option<Timestamp>,
    /// When it was made.
    created_at: Timestamp,
    /// When it last changed.
    updated_at: Timestamp,
    /// Counts the changes.
    #[schema(minimum = 1)]
    version: i64,
}

impl From<BlockRuleRecord> for BlockRuleView {
    fn from(record: BlockRuleRecord) -> Self {
        let BlockRule { id, spec, expires_at, reason } = record.rule;
        Self {
            id,
            subject: spec.subject,
            pattern: spec.pattern,
            excludes: spec.excludes,
            reason,
            expires_at,
            created_at: record.created_at,
            updated_at: record.updated_at,
            version: record.version,
        }
    }
}

/// The record with its `ETag`.
fn tagged(status: StatusCode, record: BlockRuleRecord) -> Response {
    let tag = ETag::of_record(record.rule.id, record.version).header();
    (status, [(ETAG, tag)], Json(BlockRuleView::from(record))).into_response()
}

/// List the block rules of a cluster
///
/// The oldest first; those too that have expired.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/block-rules",
    tag = "access",
    params(ClusterPath, PageParams),
    responses((status = 200, description = "A page of block rules.", body = Page<BlockRuleView>))
)]
async fn list_block_rules(
    State(state): State<ApiState>,
    path: ClusterPath,
    Query(params): Query<PageParams>,
) -> Result<Json<Page<BlockRuleView>>> {
    let bound = ("block-rules", &path.cluster);
    let paging = Paging::<Uuid>::of(&params, &bound)?;
    let rules =
        state.store.list_items::<BlockRuleRecord>(&path.cluster, paging.after, paging.limit()).await?;
    if rules.is_empty() {
        existing_cluster(&state, &path.cluster).await?;
    }
    paging.page(rules, |record| record.rule.id, BlockRuleView::from).map(Json)
}

/// Get a block rule
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/block-rules/{block_rule_id}",
    tag = "access",
    params(BlockRulePath),
    responses((
        status = 200,
        description = "The block rule.",
        body = BlockRuleView,
        headers(("ETag" = String, description = "The record's version."))
    ))
)]
async fn get_block_rule(State(state): State<ApiState>, path: BlockRulePath) -> Result<Response> {
    if let Some(id) = path.id()
        && let Some(record) = state.store.get_item::<BlockRuleRecord>(&path.cluster, id).await?
    {
        return Ok(tagged(StatusCode::OK, record));
    }
    existing_cluster(&state, &path.cluster).await?;
    Err(path.not_found())
}

/// A block rule as it should be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BlockRulePut, example = json!({
    "subject": "client_id", "pattern": "meter-*", "excludes": ["meter-17"], "reason": "stolen batch"
}))]
struct BlockRulePut {
    /// What of a client it looks at.
    subject: BlockSubject,
    /// Whom it keeps out. For `ip` a pattern of the address as RFC 5952 writes it, or a network such as
    /// `10.0.0.0/8`.
    #[schema(value_type = Glob)]
    pattern: BlockPattern,
    /// Whom of these it does not: up to 3.
    #[serde(default)]
    #[schema(value_type = Vec<Glob>, max_items = 3)]
    excludes: Vec<BlockPattern>,
    /// Why, for people: up to 256 characters. Clients are not told.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, value_type = String, required = false, min_length = 1, max_length = 256)]
    reason: Option<Remark>,
    /// From when on it no longer keeps anybody out; never when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    expires_at: Option<Timestamp>,
}

impl BlockRulePut {
    fn checked(self, now: Timestamp) -> Result<NewBlockRule> {
        let field = |pointer: &str, detail: String| Problem::field(Code::InvalidBody, pointer, detail);
        if self.excludes.len() > BlockRuleSpec::EXCLUDES_MAX {
            return Err(field("/excludes", format!("at most {}", BlockRuleSpec::EXCLUDES_MAX)));
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return Err(field("/expires_at", "it has passed already".to_owned()));
        }
        let spec = BlockRuleSpec { subject: self.subject, pattern: self.pattern, excludes: self.excludes };
        spec.check().map_err(|(pointer, error)| field(&pointer, error.to_string()))?;
        Ok(NewBlockRule { spec, expires_at: self.expires_at, reason: self.reason.map(Remark::into_string) })
    }
}

/// Create a block rule
///
/// Whom it names is refused from now on (0x8A), and loses its connection (0x8A) before the answer: the
/// sockets are closed and the sessions' records say so. Sessions stay until they expire.
#[utoipa::path(
    post,
    path = "/v1/clusters/{cluster}/block-rules",
    tag = "access",
    params(ClusterPath),
    request_body = BlockRulePut,
    responses((
        status = 201,
        description = "The block rule that was made.",
        body = BlockRuleView,
        headers(
            ("ETag" = String, description = "The record's version."),
            ("Location" = String, description = "Its path.")
        )
    ))
)]
async fn create_block_rule(
    State(state): State<ApiState>,
    change: Change,
    path: ClusterPath,
    extract::Json(body): extract::Json<BlockRulePut>,
) -> Result<Response> {
    let (cluster, now) = (&path.cluster, state.clock.wall());
    let new = body.checked(now)?;
    let mut tx = state.store.begin().await?;
    locked_cluster(&mut tx, cluster).await?;
    if tx.count_items::<BlockRuleRecord>(cluster).await? >= AccessRules::BLOCK_RULES_MAX {
        // Those that have expired are kept for people to read while there is room.
        tx.delete_expired_block_rules(cluster, now).await?;
    }
    if tx.count_items::<BlockRuleRecord>(cluster).await? >= AccessRules::BLOCK_RULES_MAX {
        let detail = format!("cluster \"{cluster}\" has {} block rules", AccessRules::BLOCK_RULES_MAX);
        return Err(Problem::new(Code::TooManyAccessRules, detail));
    }
    let record = tx.insert_item::<BlockRuleRecord>(cluster, Uuid::now_v7(), &new, now).await?;
    let location = format!("/v1/clusters/{cluster}/block-rules/{}", record.rule.id);
    let response = ([(LOCATION, location)], tagged(StatusCode::CREATED, record)).into_response();
    let response = change.commit(tx, None::<&()>, response).await?;
    Ok(change.when_expelled(cluster, response).await)
}

/// The rule as it is, in a transaction that has locked its cluster.
async fn locked(tx: &mut Tx, path: &BlockRulePath, if_match: &IfMatch) -> Result<BlockRuleRecord> {
    let cluster = &path.cluster;
    locked_cluster(tx, cluster).await?;
    let id = path.id().ok_or_else(|| path.not_found())?;
    let current = tx.get_item::<BlockRuleRecord>(cluster, id).await?.ok_or_else(|| path.not_found())?;
    if_match.check(&ETag::of_record(current.rule.id, current.version))?;
    Ok(current)
}

/// Change a block rule
///
/// All of it is replaced. It takes effect as a new one does.
#[utoipa::path(
    put,
    path = "/v1/clusters/{cluster}/block-rules/{block_rule_id}",
    tag = "access",
    params(BlockRulePath, IfMatch),
    request_body = BlockRulePut,
    responses((
        status = 200,
        description = "The block rule as it is now.",
        body = BlockRuleView,
        headers(("ETag" = String, description = "The record's version."))
    ))
)]
async fn put_block_rule(
    State(state): State<ApiState>,
    change: Change,
    path: BlockRulePath,
    if_match: IfMatch,
    extract::Json(body): extract::Json<BlockRulePut>,
) -> Result<Response> {
    let now = state.clock.wall();
    let new = body.checked(now)?;
    let mut tx = state.store.begin().await?;
    let current = locked(&mut tx, &path, &if_match).await?;
    let updated = tx.update_item::<BlockRuleRecord>(&path.cluster, current.rule.id, &new, now).await?;
    let response = tagged(StatusCode::OK, updated);
    let response = change.commit(tx, Some(&BlockRuleView::from(current)), response).await?;
    Ok(change.when_expelled(&path.cluster, response).await)
}

/// Delete a block rule
///
/// Whom it named may come back.
#[utoipa::path(
    delete,
    path = "/v1/clusters/{cluster}/block-rules/{block_rule_id}",
    tag = "access",
    params(BlockRulePath, IfMatch),
    responses((status = 204, description = "The block rule is gone."))
)]
async fn delete_block_rule(
    State(state): State<ApiState>,
    change: Change,
    path: BlockRulePath,
    if_match: IfMatch,
    _: NoBody,
) -> Result<Response> {
    let mut tx = state.store.begin().await?;
    let current = locked(&mut tx, &path, &if_match).await?;
    tx.delete_item::<BlockRuleRecord>(&path.cluster, current.rule.id).await?;
    let response = StatusCode::NO_CONTENT.into_response();
    change.commit(tx, Some(&BlockRuleView::from(current)), response).await
}
