//! `PUT …/sessions/{client_id}`: a session that is there before its client is.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::routes;
use uuid::Uuid;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::extract::{self, SessionPath};
use super::super::problem::{Problem, Result, command_failed};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::super::wait::{Pending, Wait};
use super::labels::Labels;
use super::session_expiry::{ExpiryOrder, check_ceiling};
use super::session_view::{SessionView, tagged};
use super::subscription_changes::SubscriptionOptions;
use super::subscriptions::Filter;
use super::{existing_cluster, quota_of};
use crate::model::{OperatorExpiry, OperatorPart, SessionExpiry, SessionId, Subscription, Timestamp};
use crate::seam::command::{CommandError, NewSession};
use crate::store::SessionRecord;

/// How many subscriptions one request may ask for.
const SUBSCRIPTIONS_MAX: usize = 1_000;

pub(super) fn routes(routes: Routes) -> Routes {
    let codes = [
        Code::DataPlaneUnavailable,
        Code::SessionExists,
        Code::QuotaExceeded,
        Code::TopicFilterRefused,
        Code::ExpiryInPast,
        Code::ExpiryAboveCeiling,
    ];
    routes.add(Scope::SessionsWrite, &codes, routes!(put_session))
}

/// A session as it should be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "expiry": {"interval_seconds": 86400}, "labels": {"site": "north"}, "protected": false,
    "subscriptions": {"site/north/update": {"qos": 1}}
}))]
struct SessionPut {
    /// When it ends, whatever its client asks for later. When not sent, or null, it waits for its client as long as the
    /// cluster lets any session wait, and from then on as the client asks.
    #[serde(default)]
    expiry: Option<ExpiryOrder>,
    /// The operator's own marks.
    #[serde(default)]
    labels: Labels,
    /// Whether deleting it over the API is refused.
    #[serde(default)]
    #[schema(nullable = false)]
    protected: bool,
    /// What it subscribes to from the beginning, by topic filter: all of it, or the request is refused. At most 1,000.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, SubscriptionOptions>, nullable = false)]
    subscriptions: BTreeMap<Filter, SubscriptionOptions>,
}

impl SessionPut {
    /// What is asked for, checked as far as the body alone tells.
    fn read(self, ceiling_secs: u32, now: Timestamp) -> Result<(OperatorPart, Vec<Subscription>)> {
        let expiry = self.expiry.map(OperatorExpiry::from);
        check_ceiling(expiry, now, ceiling_secs)?;
        let ends = SessionExpiry { client_secs: ceiling_secs, bounded_by_cluster: false, operator: expiry };
        if ends.expires_at(now) <= now {
            return Err(Problem::new(Code::ExpiryInPast, "the session would have expired already"));
        }
        let refused = |why| Problem::field(Code::InvalidBody, "/subscriptions", why);
        if self.subscriptions.len() > SUBSCRIPTIONS_MAX {
            return Err(refused("at most 1000 subscriptions"));
        }
        let each = self.subscriptions.into_iter().map(|(filter, options)| options.of(filter.0));
        let subscriptions = each.collect::<Result<_, _>>().map_err(refused)?;
        Ok((
            OperatorPart { expiry, labels: self.labels.into_map(), protected: self.protected },
            subscriptions,
        ))
    }
}

/// Make a session before its client's first connect
///
/// Offline, and in its place of the connection quota. What is published to its subscriptions from here on waits for the
/// client, whose first CONNECT without clean start gets session present 1. A CONNECT with clean start replaces it, as
/// any other. When the client has a session already, connected or not, nothing is done: 200 if that is as the body
/// says, and has its subscriptions among others; else 409 `session_exists`.
#[utoipa::path(
    put,
    path = "/v1/clusters/{cluster}/sessions/{client_id}",
    tag = "sessions",
    params(SessionPath, Wait),
    request_body = SessionPut,
    responses(
        (
            status = 200,
            description = "The session that the client has already; it is as the body says.",
            body = SessionView,
            headers(("ETag" = String, description = "The record's version."))
        ),
        (
            status = 201,
            description = "The session that was made.",
            body = SessionView,
            headers(("ETag" = String, description = "The record's version."))
        ),
        (
            status = 202,
            description = "Nobody knows yet whether it is made: the path tells.",
            body = Pending,
            headers(("Location" = String, description = "Its path."))
        )
    )
)]
async fn put_session(
    State(state): State<ApiState>,
    change: Change,
    path: SessionPath,
    wait: Wait,
    extract::Json(body): extract::Json<SessionPut>,
) -> Result<Response> {
    let SessionPath { cluster, client_id } = &path;
    let now = state.clock.wall();
    let ceiling_secs = quota_of(&existing_cluster(&state, cluster).await?)?.session_expiry_max_secs;
    let (part, subscriptions) = body.read(ceiling_secs, now)?;
    if let Some(record) = state.store.get_session(cluster, client_id, now).await? {
        return as_asked(&state, &path, record, &part, &subscriptions).await;
    }
    change.dispatch().await?;
    let new = NewSession {
        session_id: SessionId(Uuid::now_v7()),
        client_id: client_id.clone(),
        part: part.clone(),
        subscriptions: subscriptions.clone(),
    };
    let begun = state.data_plane.begin(cluster.clone(), new, wait.granted()).await;
    let record = state.store.get_session(cluster, client_id, state.clock.wall()).await?;
    match (begun, record) {
        (Ok(_), Some(record)) => {
            let tx = state.store.begin().await?;
            let response = (StatusCode::CREATED, tagged(record, state.clock.wall())).into_response();
            change.commit(tx, None::<&()>, response).await
        }
        // Its client came and went, or somebody deleted it.
        (Ok(_), None) => Err(Problem::session_not_found(cluster, client_id)),
        // Made by somebody else in between.
        (Err(CommandError::SessionExists), Some(record)) => {
            as_asked(&state, &path, record, &part, &subscriptions).await
        }
        (Err(CommandError::TimedOut), _) => Ok(change.under_way(change.path())),
        (Err(error), _) => Err(command_failed(&error, cluster, client_id)),
    }
}

/// The session that the client has already, if it is as asked for.
async fn as_asked(
    state: &ApiState,
    path: &SessionPath,
    record: SessionRecord,
    part: &OperatorPart,
    subscriptions: &[Subscription],
) -> Result<Response> {
    let has = OperatorPart {
        expiry: record.operator_expiry,
        labels: record.labels.clone(),
        protected: record.protected,
    };
    let mut is_as_asked = has == *part;
    for asked in subscriptions {
        let found = state.store.get_subscription(record.row.session_id, &asked.filter).await?;
        // Whoever has asked for it.
        let same = |held: Subscription| Subscription { origin: asked.origin, ..held } == *asked;
        is_as_asked &= found.is_some_and(|found| same(found.subscription));
    }
    if !is_as_asked {
        return Err(command_failed(&CommandError::SessionExists, &path.cluster, &path.client_id));
    }
    Ok(tagged(record, state.clock.wall()))
}
