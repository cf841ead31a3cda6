//! `…/webhooks/{webhook_id}/dead-letters`: events that were given up, to be looked at and tried again.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::extract::{NO_BODY, NoBody, Query};
use super::super::page::{Page, PageParams, Paging};
use super::super::problem::Result;
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::webhooks::{WebhookPath, existing_webhook};
use crate::model::Timestamp;
use crate::store::DeadLetter;

pub(super) fn routes(routes: Routes) -> Routes {
    let list = [Code::StoreUnavailable, Code::WebhookNotFound, Code::PageTokenInvalid];
    let retry = [&[Code::StoreUnavailable, Code::WebhookNotFound][..], &NO_BODY].concat();
    routes.add(Scope::WebhooksRead, &list, routes!(list_dead_letters)).add(
        Scope::WebhooksWrite,
        &retry,
        routes!(retry_dead_letters),
    )
}

/// An event that was given up.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter, example = json!({
    "seq": 4711, "body": {"type": "session.detached", "timestamp": "2026-01-31T14:30:00.000Z", "data": {"seq": 4711}},
    "attempts": 12, "error": "the receiver answered 503 Service Unavailable",
    "died_at": "2026-01-31T15:10:00.000Z", "retry": false
}))]
struct DeadLetterView {
    /// The event's number in the cluster.
    #[schema(minimum = 1)]
    seq: i64,
    /// What was to be sent.
    #[schema(value_type = Object)]
    body: Value,
    /// How often it was.
    #[schema(minimum = 1)]
    attempts: u32,
    /// Why it failed.
    error: String,
    /// When it was given up.
    died_at: Timestamp,
    /// Whether it is to be tried again.
    retry: bool,
}

impl From<DeadLetter> for DeadLetterView {
    fn from(letter: DeadLetter) -> Self {
        let DeadLetter { seq, body, attempts, error, died_at, retry } = letter;
        Self { seq, body: serde_json::from_str(&body).unwrap_or_default(), attempts, error, died_at, retry }
    }
}

/// List the events that a webhook did not get
///
/// Oldest first. The newest 10,000 are kept until they are delivered or the webhook is deleted.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/webhooks/{webhook_id}/dead-letters",
    tag = "webhooks",
    params(WebhookPath, PageParams),
    responses((status = 200, description = "A page of dead letters.", body = Page<DeadLetterView>))
)]
async fn list_dead_letters(
    State(state): State<ApiState>,
    path: WebhookPath,
    Query(params): Query<PageParams>,
) -> Result<Json<Page<DeadLetterView>>> {
    existing_webhook(&state, &path).await?;
    let bound = ("dead-letters", &path.cluster, &path.webhook_id);
    let paging = Paging::<i64>::of(&params, &bound)?;
    let store = &state.store;
    let rows = store.list_dead_letters(&path.cluster, &path.webhook_id, paging.after, paging.limit()).await?;
    paging.page(rows, |letter| letter.seq, DeadLetterView::from).map(Json)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RetryParams {
    /// Only this one; all of them when not sent.
    #[param(value_type = Option<i64>, minimum = 0, maximum = 4_294_967_295_i64, example = 4711)]
    seq: Option<u32>,
}

/// How many dead letters are tried again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"retried": 3}))]
struct Retried {
    /// How many.
    #[schema(minimum = 0)]
    retried: u64,
}

/// Try events again that a webhook did not get
///
/// Once each, within a few seconds while the webhook is enabled and answers. What is delivered goes from the list;
/// what fails stays, and is not tried again by itself.
#[utoipa::path(
    post,
    path = "/v1/clusters/{cluster}/webhooks/{webhook_id}/dead-letters/retry",
    tag = "webhooks",
    params(WebhookPath, RetryParams),
    responses((status = 200, description = "How many are tried again.", body = Retried))
)]
async fn retry_dead_letters(
    State(state): State<ApiState>,
    change: Change,
    path: WebhookPath,
    Query(params): Query<RetryParams>,
    _: NoBody,
) -> Result<Response> {
    existing_webhook(&state, &path).await?;
    let mut tx = state.store.begin().await?;
    let seq = params.seq.map(i64::from);
    let retried = tx.retry_dead_letters(&path.cluster, &path.webhook_id, seq).await?;
    change.commit(tx, None::<&()>, Json(Retried { retried }).into_response()).await
}
