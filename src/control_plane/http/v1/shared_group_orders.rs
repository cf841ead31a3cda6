//! Moving a shared group to another place of the message log, and ending it.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::extract::{self, GroupPath, NO_BODY, NoBody, Query};
use super::super::problem::{Problem, Result};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::super::wait::Wait;
use super::shared_groups::group_failed;
use super::{existing_cluster, locked_cluster};
use crate::model::Timestamp;
use crate::seam::command::CommandError;
use crate::seam::groups::GroupPlace;

pub(super) fn routes(routes: Routes) -> Routes {
    let order = [
        Code::StoreUnavailable,
        Code::DataPlaneUnavailable,
        Code::NotConfirmed,
        Code::SharedGroupNotFound,
        Code::InvalidHeader,
    ];
    let progress = [&order[..], &[Code::SharedGroupNotKept]].concat();
    let delete = [&order[..], &NO_BODY, &[Code::SharedGroupInUse]].concat();
    routes.add(Scope::SessionsWrite, &progress, routes!(move_shared_group)).add_enforced(
        Scope::SessionsWrite,
        &delete,
        routes!(delete_shared_group),
    )
}

/// Where a shared group is to go on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SharedGroupProgress, example = json!({"to": "2026-01-31T12:00:00.000Z"}))]
struct Progress {
    /// `now`: at the end of the message log, what waits is passed over. `earliest`: at the first message that the log
    /// still holds. A time: at the first message that the service took then or later; one to come is `now`.
    #[schema(value_type = String, min_length = 1)]
    to: To,
}

/// A place by its name, or a time.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct To(GroupPlace);

impl TryFrom<String> for To {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let time = || text.parse::<Timestamp>().map(GroupPlace::Time);
        Ok(Self(match text.as_str() {
            "now" => GroupPlace::Now,
            "earliest" => GroupPlace::Earliest,
            _ => time().map_err(|_| "now, earliest, or an RFC 3339 time such as 2026-01-31T12:00:00.000Z")?,
        }))
    }
}

/// Where a shared group goes on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SharedGroupPosition, example = json!({"group": "$share/readers/meters/+/power", "position": 48_000}))]
struct Moved {
    /// The whole filter.
    group: String,
    /// Everything in the cluster's message log up to here counts as handed out.
    #[schema(minimum = 0)]
    position: u64,
}

/// Move a shared group's progress
///
/// Back, to have messages handed out again, or forward, to pass over what waits. Answered when that holds also after a
/// crash. What members hold and have not acknowledged stays with them, and is not handed out beside. Messages that were
/// acknowledged and lie behind the new place are handed out again, at QoS 2 too. The message log holds what some
/// session or group still had to read, and what lies in the same files (up to 72 hours): `earliest` begins with the
/// first message there is.
#[utoipa::path(
    post,
    path = "/v1/clusters/{cluster}/shared-groups/{group}/progress",
    tag = "shared-groups",
    params(GroupPath, Wait),
    request_body = Progress,
    responses((status = 200, description = "Where it goes on.", body = Moved))
)]
async fn move_shared_group(
    State(state): State<ApiState>,
    change: Change,
    path: GroupPath,
    wait: Wait,
    extract::Json(body): extract::Json<Progress>,
) -> Result<Response> {
    existing_cluster(&state, &path.cluster).await?;
    change.dispatch().await?;
    let moved = state
        .data_plane
        .move_group(path.cluster.clone(), path.group.clone(), body.to.0, wait.granted())
        .await;
    let position = moved.map_err(|error| order_failed(&error, &path))?.0;
    let response = Json(Moved { group: path.group.as_str().to_owned(), position }).into_response();
    let tx = state.store.begin().await?;
    change.commit(tx, None::<&()>, response).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DeleteParams {
    /// Whether to end it though sessions are members, online or offline: they lose the subscription.
    force: Option<bool>,
}

/// A shared group that was ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SharedGroupEnded, example = json!({"group": "$share/readers/meters/+/power", "members": 2}))]
struct Ended {
    /// The whole filter.
    group: String,
    /// How many sessions were members, and no longer subscribe to it.
    #[schema(minimum = 0)]
    members: u32,
}

/// End a shared group
///
/// Its progress and its settings go. A group lives as long as it has members, so with `force` each of them loses the
/// subscription, as if it had unsubscribed: messages that it holds are finished, those that wait are nobody's. MQTT has
/// no way to tell the clients. One that subscribes again begins a new group, at the end of the message log. Without
/// `force` a group that has members is not touched. Answered when the sessions' records say so.
#[utoipa::path(
    delete,
    path = "/v1/clusters/{cluster}/shared-groups/{group}",
    tag = "shared-groups",
    params(GroupPath, DeleteParams, Wait),
    responses((status = 200, description = "The shared group that was ended.", body = Ended))
)]
async fn delete_shared_group(
    State(state): State<ApiState>,
    change: Change,
    path: GroupPath,
    Query(params): Query<DeleteParams>,
    wait: Wait,
    _: NoBody,
) -> Result<Response> {
    existing_cluster(&state, &path.cluster).await?;
    change.dispatch().await?;
    let force = params.force.unwrap_or_default();
    let ended =
        state.data_plane.end_group(path.cluster.clone(), path.group.clone(), force, wait.granted()).await;
    let members = match ended {
        Ok(members) => Some(members),
        Err(CommandError::NoSuchGroup) => None,
        Err(error) => return Err(order_failed(&error, &path)),
    };
    let GroupPath { cluster, group } = &path;
    let mut tx = state.store.begin().await?;
    locked_cluster(&mut tx, cluster).await?;
    let had_settings = tx.delete_group_setting(cluster, group).await?;
    if members.is_none() && !had_settings {
        return Err(group_failed(&CommandError::NoSuchGroup, &path));
    }
    let ended = Ended { group: group.as_str().to_owned(), members: members.unwrap_or_default() };
    change.commit(tx, None::<&()>, Json(ended).into_response()).await
}

fn order_failed(error: &CommandError, path: &GroupPath) -> Problem {
    match error {
        CommandError::TimedOut => {
            Problem::new(Code::NotConfirmed, "the data plane did not confirm the effect in time")
        }
        CommandError::StoreAway => Problem::new(
            Code::StoreUnavailable,
            "the effect is in force, but the database does not answer and the records may not show it yet",
        ),
        _ => group_failed(error, path),
    }
}
