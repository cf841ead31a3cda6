//! `/v1/clusters/{cluster}/message-rules`: what a cluster adds to what its clients publish.
//!
//! A rule is parsed here and nowhere else; what does not parse is refused with a pointer to the fault.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{ETAG, LOCATION};
use axum::response::{IntoResponse, Response};
use utoipa_axum::routes;
use uuid::Uuid;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::etag::{ETag, IfMatch};
use super::super::extract::{self, ClusterPath, NO_BODY, NoBody, Query};
use super::super::page::{Page, PageParams, Paging};
use super::super::problem::{Problem, Result};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::access_paths::MessageRulePath;
use super::message_rule_body::{MessageRulePut, MessageRuleView};
use super::{existing_cluster, locked_cluster};
use crate::model::{MessageRule, MessageRules};
use crate::store::{MessageRuleRecord, Tx};

pub(super) fn routes(routes: Routes) -> Routes {
    let list = [Code::StoreUnavailable, Code::PageTokenInvalid];
    let create = [Code::MessageRulePriorityTaken, Code::TooManyMessageRules];
    let matched = [Code::PreconditionFailed, Code::InvalidHeader, Code::MessageRuleNotFound];
    let put = [&matched[..], &[Code::MessageRulePriorityTaken]].concat();
    let delete = [&matched[..], &NO_BODY].concat();
    routes
        .add(Scope::MessageRulesRead, &list, routes!(list_message_rules))
        .add_enforced(Scope::MessageRulesWrite, &create, routes!(create_message_rule))
        .add(Scope::MessageRulesRead, &[Code::MessageRuleNotFound], routes!(get_message_rule))
        .add_enforced(Scope::MessageRulesWrite, &put, routes!(put_message_rule))
        .add_enforced(Scope::MessageRulesWrite, &delete, routes!(delete_message_rule))
}

/// The record with its `ETag`.
fn tagged(status: StatusCode, record: MessageRuleRecord) -> Response {
    let tag = ETag::of_record(record.rule.id, record.version).header();
    (status, [(ETAG, tag)], Json(MessageRuleView::from(record))).into_response()
}

/// List the message enhancement rules of a cluster
///
/// In the order in which they apply.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/message-rules",
    tag = "messages",
    params(ClusterPath, PageParams),
    responses((status = 200, description = "A page of rules.", body = Page<MessageRuleView>))
)]
async fn list_message_rules(
    State(state): State<ApiState>,
    path: ClusterPath,
    Query(params): Query<PageParams>,
) -> Result<Json<Page<MessageRuleView>>> {
    let bound = ("message-rules", &path.cluster);
    let paging = Paging::<u32>::of(&params, &bound)?;
    // What no list has given out.
    let after = paging.after.map(|priority| priority.min(MessageRule::PRIORITY_MAX));
    let rules = state.store.list_items::<MessageRuleRecord>(&path.cluster, after, paging.limit()).await?;
    if rules.is_empty() {
        existing_cluster(&state, &path.cluster).await?;
    }
    paging.page(rules, |record| record.rule.priority, MessageRuleView::from).map(Json)
}

/// Get a message enhancement rule
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/message-rules/{message_rule_id}",
    tag = "messages",
    params(MessageRulePath),
    responses((
        status = 200,
        description = "The rule.",
        body = MessageRuleView,
        headers(("ETag" = String, description = "The record's version."))
    ))
)]
async fn get_message_rule(State(state): State<ApiState>, path: MessageRulePath) -> Result<Response> {
    if let Some(id) = path.id()
        && let Some(record) = state.store.get_item::<MessageRuleRecord>(&path.cluster, id).await?
    {
        return Ok(tagged(StatusCode::OK, record));
    }
    existing_cluster(&state, &path.cluster).await?;
    Err(path.not_found())
}

/// Create a message enhancement rule
///
/// It adds properties of MQTT 5 to messages of clients, wills included, whatever version their publishers speak;
/// subscribers of MQTT 5 get them, now or later. Every enabled rule whose condition holds applies, in the order of
/// priorities: expiry, response topic and correlation data are those of the first rule that gives one, in place of
/// the publisher's; user properties of all rules come after the publisher's. A value that cannot be given is left
/// out and counted in the metric `holdfast_message_rule_values_left_out_total`.
///
/// What is answered holds for the next packet. Messages that were published before stay as they are. A will is
/// enhanced when it is published.
#[utoipa::path(
    post,
    path = "/v1/clusters/{cluster}/message-rules",
    tag = "messages",
    params(ClusterPath),
    request_body = MessageRulePut,
    responses((
        status = 201,
        description = "The rule that was made.",
        body = MessageRuleView,
        headers(
            ("ETag" = String, description = "The record's version."),
            ("Location" = String, description = "Its path.")
        )
    ))
)]
async fn create_message_rule(
    State(state): State<ApiState>,
    change: Change,
    path: ClusterPath,
    extract::Json(body): extract::Json<MessageRulePut>,
) -> Result<Response> {
    let (cluster, new) = (&path.cluster, body.checked()?);
    let mut tx = state.store.begin().await?;
    locked_cluster(&mut tx, cluster).await?;
    if tx.count_items::<MessageRuleRecord>(cluster).await? >= MessageRules::MAX {
        let detail = format!("cluster \"{cluster}\" has {} message rules", MessageRules::MAX);
        return Err(Problem::new(Code::TooManyMessageRules, detail));
    }
    let record =
        tx.insert_item::<MessageRuleRecord>(cluster, Uuid::now_v7(), &new, state.clock.wall()).await?;
    let location = format!("/v1/clusters/{cluster}/message-rules/{}", record.rule.id);
    let response = ([(LOCATION, location)], tagged(StatusCode::CREATED, record)).into_response();
    change.commit(tx, None::<&()>, response).await
}

/// The rule as it is, in a transaction that has locked its cluster.
async fn locked(tx: &mut Tx, path: &MessageRulePath, if_match: &IfMatch) -> Result<MessageRuleRecord> {
    let cluster = &path.cluster;
    locked_cluster(tx, cluster).await?;
    let id = path.id().ok_or_else(|| path.not_found())?;
    let current = tx.get_item::<MessageRuleRecord>(cluster, id).await?.ok_or_else(|| path.not_found())?;
    if_match.check(&ETag::of_record(current.rule.id, current.version))?;
    Ok(current)
}

/// Change a message enhancement rule
///
/// All of it is replaced. What is answered holds for the next packet.
#[utoipa::path(
    put,
    path = "/v1/clusters/{cluster}/message-rules/{message_rule_id}",
    tag = "messages",
    params(MessageRulePath, IfMatch),
    request_body = MessageRulePut,
    responses((
        status = 200,
        description = "The rule as it is now.",
        body = MessageRuleView,
        headers(("ETag" = String, description = "The record's version."))
    ))
)]
async fn put_message_rule(
    State(state): State<ApiState>,
    change: Change,
    path: MessageRulePath,
    if_match: IfMatch,
    extract::Json(body): extract::Json<MessageRulePut>,
) -> Result<Response> {
    let new = body.checked()?;
    let mut tx = state.store.begin().await?;
    let current = locked(&mut tx, &path, &if_match).await?;
    let updated =
        tx.update_item::<MessageRuleRecord>(&path.cluster, current.rule.id, &new, state.clock.wall()).await?;
    let response = tagged(StatusCode::OK, updated);
    change.commit(tx, Some(&MessageRuleView::from(current)), response).await
}

/// Delete a message enhancement rule
///
/// What is answered holds for the next packet. Messages that it was applied to stay as they are.
#[utoipa::path(
    delete,
    path = "/v1/clusters/{cluster}/message-rules/{message_rule_id}",
    tag = "messages",
    params(MessageRulePath, IfMatch),
    responses((status = 204, description = "The rule is gone."))
)]
async fn delete_message_rule(
    State(state): State<ApiState>,
    change: Change,
    path: MessageRulePath,
    if_match: IfMatch,
    _: NoBody,
) -> Result<Response> {
    let mut tx = state.store.begin().await?;
    let current = locked(&mut tx, &path, &if_match).await?;
    tx.delete_item::<MessageRuleRecord>(&path.cluster, current.rule.id).await?;
    let response = StatusCode::NO_CONTENT.into_response();
    change.commit(tx, Some(&MessageRuleView::from(current)), response).await
}
