//! `/v1/clusters/{cluster}/shared-groups`: shared subscriptions, by their whole filter `$share/{name}/{filter}`.
//!
//! The groups are the data plane's and live as long as they have members; what an operator has said of one is kept
//! in the database, with or without them. A list merges both.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::etag::{ETag, IfMatch};
use super::super::extract::{self, ClusterPath, GroupPath, Query};
use super::super::page::{Page, PageParams, Paging};
use super::super::problem::{Problem, Result, data_plane_away};
use super::super::routes::Routes;
use super::super::state::{ApiState, DATA_PLANE_WAIT};
use super::shared_group_view::{GroupDetailView, GroupView};
use super::{existing_cluster, locked_cluster};
use crate::model::{Cluster, SharedStrategy, TopicFilter};
use crate::seam::command::CommandError;
use crate::seam::groups::{GroupDetail, GroupState};
use crate::store::GroupSetting;

pub(super) fn routes(routes: Routes) -> Routes {
    let away = [Code::StoreUnavailable, Code::DataPlaneUnavailable];
    let list = [&away[..], &[Code::PageTokenInvalid]].concat();
    let get = [&away[..], &[Code::SharedGroupNotFound]].concat();
    let change = [&away[..], &[Code::PreconditionFailed, Code::InvalidHeader]].concat();
    let put = [&change[..], &[Code::TooManySharedGroups]].concat();
    routes
        .add(Scope::SessionsRead, &list, routes!(list_shared_groups))
        .add(Scope::SessionsRead, &get, routes!(get_shared_group))
        .add_enforced(Scope::SessionsWrite, &put, routes!(put_shared_group))
}

/// List the shared groups of a cluster
///
/// Those that have members, online or offline, and those of which an operator has said how they choose. In the byte
/// order of their whole filters.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/shared-groups",
    tag = "shared-groups",
    params(ClusterPath, PageParams),
    responses((status = 200, description = "A page of shared groups.", body = Page<GroupView>))
)]
async fn list_shared_groups(
    State(state): State<ApiState>,
    path: ClusterPath,
    Query(params): Query<PageParams>,
) -> Result<Json<Page<GroupView>>> {
    let cluster = existing_cluster(&state, &path.cluster).await?;
    let bound = ("shared-groups", &path.cluster);
    let paging = Paging::<String>::of(&params, &bound)?;
    let after = paging.after.clone().unwrap_or_default();
    let settings = state.store.list_group_settings(&cluster.id, &after, paging.limit()).await?;
    let groups = state.data_plane.groups(cluster.id.clone(), after, paging.limit() as usize, DATA_PLANE_WAIT);
    let groups = groups.await.map_err(|error| data_plane_away(&error))?;
    let mut merged = BTreeMap::<String, (Option<GroupState>, Option<GroupSetting>)>::new();
    for group in groups {
        let share = group.share.as_str().to_owned();
        merged.entry(share).or_default().0 = Some(group);
    }
    for setting in settings {
        let share = setting.filter.as_str().to_owned();
        merged.entry(share).or_default().1 = Some(setting);
    }
    let rows: Vec<_> = merged.into_iter().take(paging.limit() as usize).collect();
    let show = |(share, (group, setting)): (String, (Option<GroupState>, Option<GroupSetting>))| {
        GroupView::new(&cluster, share, group.as_ref(), setting.as_ref())
    };
    paging.page(rows, |(share, _)| share.clone(), show).map(Json)
}

/// A group, or none of which anything is known.
async fn existing_group(
    state: &ApiState,
    path: &GroupPath,
) -> Result<(Option<GroupDetail>, Option<GroupSetting>)> {
    let setting = state.store.group_setting(&path.cluster, &path.group).await?;
    let told = state.data_plane.group(path.cluster.clone(), path.group.clone(), DATA_PLANE_WAIT).await;
    match told {
        Ok(detail) => Ok((Some(detail), setting)),
        Err(CommandError::NoSuchGroup) if setting.is_some() => Ok((None, setting)),
        Err(error) => Err(group_failed(&error, path)),
    }
}

/// The group with its `ETag`, which is that of what an operator has said of it.
fn tagged(
    cluster: &Cluster,
    share: &TopicFilter,
    group: Option<GroupDetail>,
    setting: Option<&GroupSetting>,
) -> Response {
    let tag = ETag::of_group(setting).header();
    ([(ETAG, tag)], Json(GroupDetailView::new(cluster, share, group, setting))).into_response()
}

/// Get a shared group
///
/// How far it is, what waits for it, and its members: online or offline, each with what it holds and has not
/// acknowledged. The `ETag` is of what `put` changes.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/shared-groups/{group}",
    tag = "shared-groups",
    params(GroupPath),
    responses((
        status = 200,
        description = "The shared group.",
        body = GroupDetailView,
        headers(("ETag" = String, description = "The version of its settings."))
    ))
)]
async fn get_shared_group(State(state): State<ApiState>, path: GroupPath) -> Result<Response> {
    let cluster = existing_cluster(&state, &path.cluster).await?;
    let (group, setting) = existing_group(&state, &path).await?;
    Ok(tagged(&cluster, &path.group, group, setting.as_ref()))
}

/// A shared group as it should be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SharedGroupPut, example = json!({"strategy": "hash_topic"}))]
struct GroupPut {
    /// How it chooses who gets a message, whatever the cluster says; null for as the cluster does.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required)]
    strategy: Option<SharedStrategy>,
}

/// Set how a shared group chooses
///
/// Holds for the next message, over restarts, and until it is taken back: a group that ends and begins again chooses so
/// too, and one that has no members yet will. What waited for one member may then go to another.
#[utoipa::path(
    put,
    path = "/v1/clusters/{cluster}/shared-groups/{group}",
    tag = "shared-groups",
    params(GroupPath, IfMatch),
    request_body = GroupPut,
    responses((
        status = 200,
        description = "The shared group as it is now.",
        body = GroupDetailView,
        headers(("ETag" = String, description = "The version of its settings."))
    ))
)]
async fn put_shared_group(
    State(state): State<ApiState>,
    change: Change,
    path: GroupPath,
    if_match: IfMatch,
    extract::Json(body): extract::Json<GroupPut>,
) -> Result<Response> {
    let GroupPath { cluster: id, group: share } = &path;
    existing_cluster(&state, id).await?;
    // Before the transaction: nobody waits behind a lock for it.
    let group = match state.data_plane.group(id.clone(), share.clone(), DATA_PLANE_WAIT).await {
        Ok(group) => Some(group),
        Err(CommandError::NoSuchGroup) => None,
        Err(error) => return Err(data_plane_away(&error)),
    };
    let now = state.clock.wall();
    let mut tx = state.store.begin().await?;
    let cluster = locked_cluster(&mut tx, id).await?;
    let current = tx.group_setting(id, share).await?;
    if_match.check(&ETag::of_group(current.as_ref()))?;
    let before = current.as_ref().map(|setting| setting.strategy);
    let setting = match body.strategy {
        Some(strategy) if before == Some(strategy) => current,
        Some(strategy) => {
            if before.is_none() && tx.count_group_settings(id).await? >= GroupSetting::COUNT_MAX {
                let detail = format!("cluster \"{id}\" has settings for {} groups", GroupSetting::COUNT_MAX);
                return Err(Problem::new(Code::TooManySharedGroups, detail));
            }
            let version = tx.put_group_setting(id, share, strategy, now).await?;
            Some(GroupSetting { filter: share.clone(), strategy, version })
        }
        None => {
            tx.delete_group_setting(id, share).await?;
            None
        }
    };
    let response = tagged(&cluster, share, group, setting.as_ref());
    change.commit(tx, before.as_ref(), response).await
}

/// What a failed question or order about a group says.
pub(super) fn group_failed(error: &CommandError, path: &GroupPath) -> Problem {
    let GroupPath { cluster, group } = path;
    let group = group.as_str();
    match error {
        CommandError::NoSuchGroup => Problem::new(
            Code::SharedGroupNotFound,
            format!("cluster \"{cluster}\" has no shared group \"{group}\""),
        ),
        CommandError::GroupHasMembers { members } => Problem::new(
            Code::SharedGroupInUse,
            format!("the shared group \"{group}\" has {members} members: end it with force=true"),
        ),
        CommandError::GroupNotKept => Problem::new(
            Code::SharedGroupNotKept,
            format!("no member of the shared group \"{group}\" outlives its connection"),
        ),
        _ => data_plane_away(error),
    }
}
