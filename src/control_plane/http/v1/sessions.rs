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
use super::super::problem::{Problem, Result};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::existing_cluster;
use super::session_filter::FilterParams;
use super::session_traffic::{SessionDetailView, traffic_of};
use super::session_view::{SessionView, tag};
use crate::model::ClientId;
use crate::store::{SessionFilter, SessionRecord};

pub(super) fn routes(routes: Routes) -> Routes {
    let list = [Code::StoreUnavailable, Code::PageTokenInvalid];
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
    let bound = ("sessions", &path.cluster, format!("{filter:?}"));
    let paging = Paging::<ClientId>::new(params.page_size, params.page_token.as_deref(), &bound)?;
    let after = paging.after.as_ref();
    let records = state.store.list_sessions(&path.cluster, &filter, after, paging.limit(), now).await?;
    if records.is_empty() {
        existing_cluster(&state, &path.cluster).await?;
    }
    let key = |record: &SessionRecord| record.row.client_id.clone();
    paging.page(records, key, |record| SessionView::new(record, now)).map(Json)
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
