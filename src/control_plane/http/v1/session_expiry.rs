//! `PATCH …/sessions/{client_id}`: an operator's order about when a session ends.
//!
//! The record is written first, in one transaction; then the data plane is told. Between the two the
//! order is durable, and a data plane that restarts reads it.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::etag::IfMatch;
use super::super::extract::{self, Object, Query, SessionPath, Wait, present};
use super::super::number::AtMost;
use super::super::problem::{Problem, Result, command_failed};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::session_commands::{Fence, SESSION_COMMAND};
use super::session_view::{SessionView, tag, tagged};
use super::{existing_cluster, quota_of};
use crate::model::{OperatorExpiry, SessionExpiry, Timestamp};
use crate::seam::command::Target;
use crate::store::SessionRecord;

pub(super) fn routes(routes: Routes) -> Routes {
    let codes = [&SESSION_COMMAND[..], &[Code::ExpiryInPast, Code::ExpiryAboveCeiling]].concat();
    routes.add(Scope::SessionsWrite, &codes, routes!(patch_session))
}

/// Changes to a session; what is not sent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"expiry": {"interval_seconds": 3600}}))]
struct SessionPatch {
    /// When the session ends, whatever its client asked for; null gives the client's own back.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<ExpiryOrder>)]
    #[allow(clippy::option_option)] // not sent, null, or an order
    expiry: Option<Option<ExpiryOrder>>,
}

/// Either of two ways to say when a session ends.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(untagged, try_from = "Object<ExpiryFields>")]
enum ExpiryOrder {
    Interval(ExpiryInterval),
    At(ExpiryInstant),
}

/// So long after its connection ends, or has ended.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ExpiryInterval {
    /// Seconds; at most the quota's `session_expiry_max_seconds`. 0 ends the session with its
    /// connection.
    #[schema(minimum = 0, maximum = 259_200)]
    interval_seconds: u32,
}

/// At an instant.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ExpiryInstant {
    /// The instant; when the connection lasts longer, the session ends with it.
    expires_at: Timestamp,
}

/// Both ways side by side, so that a wrong field is pointed at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpiryFields {
    #[serde(default, deserialize_with = "present")]
    interval_seconds: Option<AtMost<{ u32::MAX }>>,
    #[serde(default, deserialize_with = "present")]
    expires_at: Option<Timestamp>,
}

impl TryFrom<Object<ExpiryFields>> for ExpiryOrder {
    type Error = &'static str;

    fn try_from(Object(fields): Object<ExpiryFields>) -> Result<Self, Self::Error> {
        match (fields.interval_seconds, fields.expires_at) {
            (Some(AtMost(interval_seconds)), None) => Ok(Self::Interval(ExpiryInterval { interval_seconds })),
            (None, Some(expires_at)) => Ok(Self::At(ExpiryInstant { expires_at })),
            _ => Err("either interval_seconds or expires_at"),
        }
    }
}

impl From<ExpiryOrder> for OperatorExpiry {
    fn from(order: ExpiryOrder) -> Self {
        match order {
            ExpiryOrder::Interval(order) => Self::Interval(order.interval_seconds),
            ExpiryOrder::At(order) => Self::At(order.expires_at),
        }
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

/// Change when a session ends
///
/// The order beats the client's own interval until it is taken back with null. An offline session's
/// `expires_at` is worked out anew at once, from when its connection ended. An online one's holds
/// when its connection ends, and the client is told in its next CONNACK.
#[utoipa::path(
    patch,
    path = "/v1/clusters/{cluster}/sessions/{client_id}",
    tag = "sessions",
    params(SessionPath, Fence, PatchParams, IfMatch, Wait),
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
    Wait(wait): Wait,
    extract::Json(body): extract::Json<SessionPatch>,
) -> Result<Response> {
    let now = state.clock.wall();
    let ceiling_secs = quota_of(&existing_cluster(&state, &path.cluster).await?)?.session_expiry_max_secs;
    let mut tx = state.store.begin().await?;
    let current = tx.lock_session(&path.cluster, &path.client_id, now).await?;
    let current = current.ok_or_else(|| Problem::session_not_found(&path.cluster, &path.client_id))?;
    fence.check(&current)?;
    if_match.check(&tag(&current))?;
    let Some(order) = body.expiry else { return Ok(tagged(current, now)) };
    let order = order.map(OperatorExpiry::from);
    check_ceiling(order, &current, ceiling_secs, now)?;
    if !params.allow_immediate {
        check_not_past(order, &current, now)?;
    }
    let changed = tx.set_session_expiry(current.row.session_id, order, now).await?;
    let id = changed.row.session_id;
    let response = change.commit(tx, Some(&SessionView::new(current, now)), tagged(changed, now)).await?;
    // The same session in whatever attachment it now is.
    let target = Target {
        cluster: path.cluster.clone(),
        client_id: path.client_id.clone(),
        if_session_id: Some(id),
        if_epoch: None,
    };
    let applied = state.data_plane.apply_expiry(target, order, wait).await;
    applied.map_err(|error| command_failed(&error, &path.cluster, &path.client_id))?;
    Ok(response)
}

/// No session waits longer than its cluster lets it.
fn check_ceiling(
    order: Option<OperatorExpiry>,
    current: &SessionRecord,
    ceiling_secs: u32,
    now: Timestamp,
) -> Result<()> {
    let (above, field) = match order {
        None => return Ok(()),
        Some(OperatorExpiry::Interval(secs)) => (secs > ceiling_secs, "interval_seconds"),
        Some(OperatorExpiry::At(at)) => {
            let from = current.row.disconnected_at.unwrap_or(now);
            (at > from.plus_secs(ceiling_secs), "expires_at")
        }
    };
    if above {
        let detail =
            format!("at most {ceiling_secs} seconds after the connection ends, the cluster's ceiling");
        return Err(Problem::field(Code::ExpiryAboveCeiling, &format!("/expiry/{field}"), detail));
    }
    Ok(())
}

/// An offline session that would be gone at once is more likely a mistake than a wish.
fn check_not_past(order: Option<OperatorExpiry>, current: &SessionRecord, now: Timestamp) -> Result<()> {
    let Some(disconnected_at) = current.row.disconnected_at else { return Ok(()) };
    let expires_at = SessionExpiry { operator: order, ..current.expiry() }.expires_at(disconnected_at);
    if expires_at <= now {
        let detail = format!(
            "the connection ended at {disconnected_at}, so the session would have expired at {expires_at}"
        );
        return Err(Problem::new(Code::ExpiryInPast, detail));
    }
    Ok(())
}
