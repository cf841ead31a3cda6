//! `PATCH …/sessions/{client_id}`: the operator's part of a session: when it ends, its labels, its protection.
//!
//! The record is written first, in one transaction; then the data plane is told. Between the two an
//! order is durable, and a data plane that restarts reads it.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::etag::IfMatch;
use super::super::extract::{self, Query, SessionPath, present};
use super::super::problem::{Problem, Result};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::labels::{LABELS_MAX, LabelsPatch, TOO_MANY};
use super::session_commands::{Fence, SESSION_COMMAND};
use super::session_expiry::{ExpiryOrder, check_ceiling, check_not_past};
use super::session_view::{SessionView, tag, tagged};
use super::{existing_cluster, quota_of};
use crate::model::{OperatorExpiry, OperatorPart, Timestamp};
use crate::seam::command::Target;
use crate::store::{EventKind, SessionRecord};

pub(super) fn routes(routes: Routes) -> Routes {
    let codes = [&SESSION_COMMAND[..], &[Code::ExpiryInPast, Code::ExpiryAboveCeiling]].concat();
    routes.add_enforced(Scope::SessionsWrite, &codes, routes!(patch_session))
}

/// Changes to a session; what is not sent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"expiry": {"interval_seconds": 3600}, "labels": {"site": "north"}, "protected": true}))]
struct SessionPatch {
    /// When the session ends, whatever its client asked for; null gives the client's own back.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<ExpiryOrder>)]
    #[allow(clippy::option_option)] // not sent, null, or an order
    expiry: Option<Option<ExpiryOrder>>,
    /// The operator's own marks: a value sets a label, null removes it, the others stay.
    #[serde(default)]
    labels: LabelsPatch,
    /// Whether deleting the session over the API is refused. Its expiry and its client still end it.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    protected: Option<bool>,
}

impl SessionPatch {
    /// The operator's part as it is wanted. `order` is the patch's own, when it has one.
    #[allow(clippy::option_option)] // not sent, null, or an order
    fn apply(self, mut part: OperatorPart, order: Option<Option<OperatorExpiry>>) -> Result<OperatorPart> {
        self.labels.apply(&mut part.labels);
        if part.labels.len() > LABELS_MAX {
            return Err(Problem::field(Code::InvalidBody, "/labels", TOO_MANY));
        }
        part.protected = self.protected.unwrap_or(part.protected);
        part.expiry = order.unwrap_or(part.expiry);
        Ok(part)
    }
}

/// The expiry in force, as an event tells it.
fn expiry_view(record: &SessionRecord, now: Timestamp) -> Value {
    let expiry = record.expiry();
    json!({
        "interval_seconds": expiry.interval_secs(record.row.disconnected_at.unwrap_or(now)),
        "source": expiry.source(),
        "expires_at": record.expires_at,
    })
}

fn part_of(record: &SessionRecord) -> OperatorPart {
    OperatorPart {
        expiry: record.operator_expiry,
        labels: record.labels.clone(),
        protected: record.protected,
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PatchParams {
    /// Lets an offline session whose new expiry has passed already end now, instead of refusing.
    #[serde(default)]
    #[param(nullable = false)]
    allow_immediate: bool,
}

/// Change a session
///
/// When it ends, its labels, whether it is protected. Labels and protection go with the session: the
/// client's next one has none. The order about its expiry beats the client's own interval until it is
/// taken back with null. An offline session's `expires_at` is worked out anew at once, from when its
/// connection ended. An online one's holds when its connection ends, and the client is told in its next
/// CONNACK.
#[utoipa::path(
    patch,
    path = "/v1/clusters/{cluster}/sessions/{client_id}",
    tag = "sessions",
    params(SessionPath, Fence, PatchParams, IfMatch),
    request_body(content = SessionPatch, content_type = "application/json"),
    responses((
        status = 200,
        description = "The session as it is now. With `allow_immediate` it may be as it was last.",
        body = SessionView,
        headers(("ETag" = String, description = "The record's version."))
    ))
)]
#[allow(clippy::too_many_arguments)] // one for each part of the request
async fn patch_session(
    State(state): State<ApiState>,
    change: Change,
    path: SessionPath,
    Query(fence): Query<Fence>,
    Query(params): Query<PatchParams>,
    if_match: IfMatch,
    extract::Json(body): extract::Json<SessionPatch>,
) -> Result<Response> {
    let now = state.clock.wall();
    let ceiling_secs = quota_of(&existing_cluster(&state, &path.cluster).await?)?.session_expiry_max_secs;
    let mut tx = state.store.begin().await?;
    let current = tx.lock_session(&path.cluster, &path.client_id, now).await?;
    let current = current.ok_or_else(|| Problem::session_not_found(&path.cluster, &path.client_id))?;
    fence.check(&current)?;
    if_match.check(&tag(&current))?;
    let order = body.expiry.map(|order| order.map(OperatorExpiry::from));
    if let Some(order) = order {
        check_ceiling(order, current.row.disconnected_at.unwrap_or(now), ceiling_secs)?;
        if !params.allow_immediate {
            check_not_past(order, &current, now)?;
        }
    }
    let (had, wanted) = (part_of(&current), body.apply(part_of(&current), order)?);
    if had == wanted && order.is_none() {
        return Ok(tagged(current, now));
    }
    let changed = tx.set_operator_part(current.row.session_id, &wanted, now).await?;
    let id = changed.row.session_id;
    if order.is_some() {
        let detail = json!({"from": expiry_view(&current, now), "to": expiry_view(&changed, now)});
        let met = (id, changed.row.epoch);
        tx.add_events(&[change.event(&path, met, EventKind::ExpiryChanged, detail)]).await?;
    }
    // The same session in whatever attachment it now is.
    let target = Target {
        cluster: path.cluster.clone(),
        client_id: path.client_id.clone(),
        if_session_id: Some(id),
        if_epoch: None,
    };
    // When it has them, the data plane refuses to delete the session, or no longer does, and ends it in time.
    let protect = (had.protected != wanted.protected)
        .then(|| state.data_plane.protect(target.clone(), wanted.protected));
    let expire = order.map(|order| state.data_plane.apply_expiry(target, order));
    let orders = protect.into_iter().chain(expire).collect();
    let before = SessionView::new(current, now);
    change.commit_and_order(tx, &before, tagged(changed, now), &path, orders).await
}
