//! `…/session-purges`: many sessions disconnected or deleted, first as a plan, then as an operation.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use uuid::Uuid;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::extract::{self, ClusterPath, present};
use super::super::idempotency::fingerprint;
use super::super::problem::{Problem, Result};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::existing_cluster;
use super::holds::{self, HoldSeconds};
use super::operations::OperationView;
use super::session_filter::FilterParams;
use super::session_view::SessionView;
use crate::model::{ClientId, EndOptions, OperatorReason, SessionState, Timestamp, WillChoice};
use crate::store::{NewOperation, PurgeAction, SessionFilter};

/// How many sessions one purge may be about.
const SESSIONS_MAX: u32 = 100_000;
/// How many sessions a plan shows.
const SAMPLE: u32 = 10;
/// How long a plan is good.
const PLAN_AGE_MAX_SECS: u32 = 600;

pub(super) fn routes(routes: Routes) -> Routes {
    let codes = [Code::PlanTokenInvalid, Code::PurgeTooLarge, Code::TooManyHolds, Code::DataPlaneUnavailable];
    routes.add_enforced(Scope::SessionsWrite, &codes, routes!(purge_sessions))
}

/// Which sessions to purge, and how.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SessionPurge, example = json!({"action": "delete", "filter": "state=offline&client_id_prefix=trial-"}))]
struct Purge {
    /// What is done to each: `disconnect` ends the connection, `delete` the session.
    action: PurgeAction,
    /// The query of the list of sessions that shows those that are meant, without paging: empty for all. Either
    /// this or `client_ids`.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, example = "state=offline&client_id_prefix=trial-")]
    filter: Option<String>,
    /// The clients whose sessions are meant.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, min_items = 1, max_items = 10_000)]
    client_ids: Option<Vec<ClientId>>,
    /// What becomes of the wills; `publish` when not sent.
    #[serde(default)]
    will: WillChoice,
    /// Why, as for one session.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    reason: Option<OperatorReason>,
    /// Refuses the client ids that are meant for so many seconds, counted from when the purge is made, and whatever
    /// becomes of their sessions.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    hold_seconds: Option<HoldSeconds>,
    /// How many sessions a second at most; as fast as can be when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, minimum = 1, maximum = 100_000)]
    rate_per_second: Option<u32>,
    /// From the plan of the same purge: with it the purge is made, without it it is planned.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, min_length = 1)]
    plan_token: Option<String>,
}

/// What a purge would do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "sessions": 3, "online": 1, "protected": 0, "sample": [], "orphaned_shared_subscriptions": [],
    "plan_token": "WzEsInNlc3Npb24tcHVyZ2UiXQ", "plan_expires_at": "2026-01-31T12:10:00.000Z"
}))]
struct PurgePlan {
    /// How many sessions are meant.
    #[schema(minimum = 0, maximum = 100_000)]
    sessions: u32,
    /// How many of them have a connection.
    #[schema(minimum = 0)]
    online: u64,
    /// How many of them are protected, and so would not be deleted.
    #[schema(minimum = 0)]
    protected: u64,
    /// The first of them, in the order of the list.
    #[schema(max_items = 10)]
    sample: Vec<SessionView>,
    /// Shared subscriptions that would lose their last session, and with it their progress: at most 100; empty
    /// for `disconnect`.
    #[schema(max_items = 100)]
    orphaned_shared_subscriptions: Vec<String>,
    /// Send it with the same purge to have it made.
    plan_token: String,
    /// Until when.
    plan_expires_at: Timestamp,
}

impl Purge {
    /// Both ways of saying which, as a filter and a list.
    fn selection(&self) -> Result<(SessionFilter, Option<&[ClientId]>)> {
        match (&self.filter, &self.client_ids) {
            (Some(query), None) => Ok((parse_filter(query)?, None)),
            (None, Some(clients)) if (1..=10_000).contains(&clients.len()) => {
                Ok((SessionFilter::default(), Some(clients)))
            }
            (None, Some(_)) => Err(Problem::field(Code::InvalidBody, "/client_ids", "1 to 10000 of them")),
            _ => Err(Problem::field(Code::InvalidBody, "", "either filter or client_ids")),
        }
    }

    /// Refuses what is out of bounds.
    fn check(&self) -> Result<()> {
        match self.rate_per_second {
            Some(rate) if !(1..=100_000).contains(&rate) => {
                Err(Problem::field(Code::InvalidBody, "/rate_per_second", "1 to 100000"))
            }
            _ => Ok(()),
        }
    }

    /// What makes two purges the same: all but pace and token.
    fn identity(&self, path: &ClusterPath) -> Result<Vec<u8>> {
        let how = (self.will, &self.reason, self.hold_seconds);
        let parts = (self.action, &self.filter, &self.client_ids, how);
        let text = serde_json::to_vec(&parts).map_err(Problem::internal)?;
        Ok(fingerprint("session-purge", path.cluster.as_str(), &text))
    }
}

/// A filter in the form of the list's query; nothing else may be in it.
fn parse_filter(query: &str) -> Result<SessionFilter> {
    let refused = |detail: String| Problem::field(Code::InvalidBody, "/filter", detail);
    let sent: Vec<(String, String)> =
        serde_html_form::from_str(query).map_err(|error| refused(error.to_string()))?;
    let known: Vec<String> =
        FilterParams::into_params(|| None).into_iter().map(|parameter| parameter.name).collect();
    for (name, value) in &sent {
        if !known.contains(name) {
            return Err(refused(format!("{name} is no filter of the list of sessions")));
        }
        if value.is_empty() {
            return Err(refused(format!("{name} must not be empty")));
        }
    }
    let params: FilterParams =
        serde_html_form::from_str(query).map_err(|error| refused(error.to_string()))?;
    Ok(params.into())
}

/// Plan a purge, or make it
///
/// Without `plan_token` nothing is done: the answer says how many sessions are meant, shows some, and warns of
/// shared subscriptions that would lose their last session. With the token of that plan, within 10 minutes, the
/// purge becomes an operation on the sessions that are meant at that moment: paced, cancellable, with an
/// outcome for each session, and carried on after a restart. A session that its client begins later is not hit.
#[utoipa::path(
    post,
    path = "/v1/clusters/{cluster}/session-purges",
    tag = "sessions",
    params(ClusterPath),
    request_body = Purge,
    responses(
        (status = 200, description = "The plan. Nothing was done.", body = PurgePlan),
        (
            status = 202,
            description = "The operation that was made.",
            body = OperationView,
            headers(("Location" = String, description = "Its path."))
        )
    )
)]
async fn purge_sessions(
    State(state): State<ApiState>,
    path: ClusterPath,
    change: Change,
    extract::Json(body): extract::Json<Purge>,
) -> Result<Response> {
    existing_cluster(&state, &path.cluster).await?;
    body.check()?;
    let (filter, clients) = body.selection()?;
    let identity = body.identity(&path)?;
    let now = state.clock.wall();
    if let Some(token) = &body.plan_token {
        check_plan(token, &identity, now)?;
    }
    let targets = state.store.purge_targets(&path.cluster, &filter, clients, SESSIONS_MAX + 1, now).await?;
    if targets.len() > SESSIONS_MAX as usize {
        let detail = format!("more than {SESSIONS_MAX} sessions are meant: narrow the filter");
        return Err(Problem::new(Code::PurgeTooLarge, detail));
    }
    if body.plan_token.is_none() {
        let sessions = u32::try_from(targets.len()).unwrap_or(u32::MAX);
        let records = state.store.sessions_by_id(&targets).await?;
        let orphaned = match body.action {
            PurgeAction::Delete => state.store.orphaned_groups(&path.cluster, &targets, now).await?,
            PurgeAction::Disconnect => Vec::new(),
        };
        let plan_expires_at = now.plus_secs(PLAN_AGE_MAX_SECS);
        let count = |of: fn(&crate::store::SessionRecord) -> bool| {
            u64::try_from(records.iter().filter(|record| of(record)).count()).unwrap_or(u64::MAX)
        };
        let plan = PurgePlan {
            sessions,
            online: count(|record| record.state() == SessionState::Online),
            protected: count(|record| record.protected),
            orphaned_shared_subscriptions: orphaned,
            plan_token: plan_token(&identity, plan_expires_at)?,
            plan_expires_at,
            sample: records.into_iter().take(SAMPLE as usize).map(|r| SessionView::new(r, now)).collect(),
        };
        return Ok(Json(plan).into_response());
    }
    let (actor, request_id) = change.who();
    let new = NewOperation {
        id: Uuid::new_v4(),
        cluster: path.cluster,
        action: body.action,
        rate: body.rate_per_second,
        actor,
        request_id,
        options: EndOptions { will: body.will, reason: body.reason },
    };
    let mut tx = state.store.begin().await?;
    tx.insert_operation(&new, &targets, now).await?;
    if let Some(hold) = body.hold_seconds {
        let clients = tx.operation_clients(new.id).await?;
        let hold = hold.order(&change, new.options.reason.clone(), now);
        holds::put(&mut tx, &new.cluster, &clients, &hold, now).await?;
    }
    let made = tx.get_operation(new.id).await?;
    let made = made.ok_or_else(|| Problem::internal("an operation that was just made is not there"))?;
    let response = change.commit(tx, None::<&()>, OperationView::from(made).accepted()).await?;
    state.operations.nudge();
    Ok(response)
}

/// Says that this purge was planned. Not secret and not signed: who forges it deceives only himself.
fn plan_token(identity: &[u8], until: Timestamp) -> Result<String> {
    let token = serde_json::to_vec(&(identity, until)).map_err(Problem::internal)?;
    Ok(URL_SAFE_NO_PAD.encode(token))
}

fn check_plan(token: &str, identity: &[u8], now: Timestamp) -> Result<()> {
    let refused = |detail: &str| Problem::field(Code::PlanTokenInvalid, "/plan_token", detail);
    let read = URL_SAFE_NO_PAD.decode(token).ok();
    let read = read.and_then(|bytes| serde_json::from_slice::<(Vec<u8>, Timestamp)>(&bytes).ok());
    match read {
        None => Err(refused("it is not one that a plan has given out")),
        Some((planned, _)) if planned != identity => Err(refused("it is of another purge")),
        Some((_, until)) if until <= now => Err(refused("it has expired: plan again")),
        Some(_) => Ok(()),
    }
}
