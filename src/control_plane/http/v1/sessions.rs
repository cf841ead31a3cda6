//! `/v1/clusters/{cluster}/sessions`: listing sessions and reading one.

use axum::Json;
use axum::extract::State;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::code::Code;
use super::super::extract::{ClusterPath, Query, SessionPath};
use super::super::page::{Page, PageSize, Paging};
use super::super::problem::{Problem, Result, data_plane_away};
use super::super::routes::Routes;
use super::super::state::{ApiState, DATA_PLANE_WAIT};
use super::existing_cluster;
use super::session_filter::FilterParams;
use super::session_traffic::{SessionDetailView, traffic_of};
use super::session_view::{SessionView, tag};
use crate::model::ClientId;
use crate::store::{SessionFilter, SessionRecord};

pub(super) fn routes(routes: Routes) -> Routes {
    let list = [Code::StoreUnavailable, Code::DataPlaneUnavailable, Code::PageTokenInvalid];
    routes.add(Scope::SessionsRead, &list, routes!(list_sessions)).add(
        Scope::SessionsRead,
        &[Code::StoreUnavailable],
        routes!(get_session),
    )
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// How many sessions a page has at most: 1 to 1000, 100 when not sent; more is lowered.
    page_size: Option<PageSize>,
    /// Where the page begins: the `next_page_token` of the page before.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$")]
    page_token: Option<String>,
    /// Only sessions for which at least so many messages wait, as their `backlog` counts them. Counted when asked, so a
    /// page looks at no more than 200 sessions that pass the other filters: it may be shorter than `page_size`, or empty,
    /// though there is a `next_page_token`. Narrow by other filters what need not be looked at.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100_000)]
    backlog_gte: Option<AtLeast>,
}

/// How many sessions a page of those with a backlog looks at: few enough for the data plane to count.
const LOOKED_AT_MAX: u32 = 200;

/// How many messages are counted at most.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u32")]
struct AtLeast(u32);

impl TryFrom<u32> for AtLeast {
    type Error = &'static str;

    fn try_from(messages: u32) -> Result<Self, Self::Error> {
        if (1..=100_000).contains(&messages) { Ok(Self(messages)) } else { Err("1 to 100000") }
    }
}

/// List the sessions of a cluster
///
/// In the byte order of their client ids. Filters narrow together. A session that has expired is
/// not listed, whether or not it was removed yet.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/sessions",
    tag = "sessions",
    params(ClusterPath, FilterParams, ListParams),
    responses((status = 200, description = "A page of sessions.", body = Page<SessionView>))
)]
async fn list_sessions(
    State(state): State<ApiState>,
    path: ClusterPath,
    Query(filter): Query<FilterParams>,
    Query(params): Query<ListParams>,
) -> Result<Json<Page<SessionView>>> {
    let now = state.clock.wall();
    let filter = SessionFilter::from(filter);
    let at_least = params.backlog_gte.map(|at_least| at_least.0);
    let bound = ("sessions", &path.cluster, format!("{filter:?}"), at_least);
    let paging = Paging::<ClientId>::new(params.page_size, params.page_token.as_deref(), &bound)?;
    let after = paging.after.as_ref();
    let limit = at_least.map_or(paging.limit(), |_| LOOKED_AT_MAX + 1);
    let records = state.store.list_sessions(&path.cluster, &filter, after, limit, now).await?;
    if records.is_empty() {
        existing_cluster(&state, &path.cluster).await?;
    }
    if let Some(at_least) = at_least {
        let (records, next) = only_behind(&state, &path, records, at_least, paging.size().into()).await?;
        let items = records.into_iter().map(|record| SessionView::new(record, now)).collect();
        return paging.page_until(items, next.as_ref()).map(Json);
    }
    let key = |record: &SessionRecord| record.row.client_id.clone();
    paging.page(records, key, |record| SessionView::new(record, now)).map(Json)
}

/// Those of `records` for which so many messages wait, at most `size`, and behind whom to look on. Of the records, which
/// were asked for with one more than are looked at, the last says only that there is more.
async fn only_behind(
    state: &ApiState,
    path: &ClusterPath,
    mut records: Vec<SessionRecord>,
    at_least: u32,
    size: usize,
) -> Result<(Vec<SessionRecord>, Option<ClientId>)> {
    let mut more = records.len() > LOOKED_AT_MAX as usize;
    records.truncate(LOOKED_AT_MAX as usize);
    let clients = records.iter().map(|record| record.row.client_id.clone()).collect();
    let told = state.data_plane.behind(path.cluster.clone(), clients, at_least, DATA_PLANE_WAIT).await;
    let told = told.map_err(|error| data_plane_away(&error))?;
    let (mut found, mut last) = (Vec::new(), None);
    for (record, is_behind) in records.into_iter().zip(told) {
        if found.len() == size {
            more = true;
            break;
        }
        last = Some(record.row.client_id.clone());
        if is_behind {
            found.push(record);
        }
    }
    Ok((found, last.filter(|_| more)))
}

/// The session of a client, or 404 for the cluster or for the session.
pub(super) async fn existing_session(state: &ApiState, path: &SessionPath) -> Result<SessionRecord> {
    let now = state.clock.wall();
    if let Some(record) = state.store.get_session(&path.cluster, &path.client_id, now).await? {
        return Ok(record);
    }
    existing_cluster(state, &path.cluster).await?;
    Err(Problem::session_not_found(&path.cluster, &path.client_id))
}

/// Get a client's session
///
/// With what waits for it and is under way to it, which the data plane counts when asked. That does not count
/// for the `ETag`. When the data plane does not answer, the record is answered without it.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/sessions/{client_id}",
    tag = "sessions",
    params(SessionPath),
    responses((
        status = 200,
        description = "The session.",
        body = SessionDetailView,
        headers(("ETag" = String, description = "The record's version."))
    ))
)]
async fn get_session(State(state): State<ApiState>, path: SessionPath) -> Result<Response> {
    let record = existing_session(&state, &path).await?;
    let traffic = traffic_of(&state, &record).await;
    let tag = tag(&record).header();
    let view = SessionDetailView::new(record, traffic, state.clock.wall());
    Ok(([(ETAG, tag)], Json(view)).into_response())
}
