//! `/v1/clusters/{cluster}/session-count`: how many sessions, and of which kinds.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::code::Code;
use super::super::extract::{ClusterPath, Query};
use super::super::problem::Result;
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::existing_cluster;
use super::session_filter::FilterParams;
use crate::store::CountBy;

/// How many groups an answer has at most; user names can be as many as sessions.
const GROUPS_MAX: u32 = 1_000;

pub(super) fn routes(routes: Routes) -> Routes {
    routes.add(Scope::SessionsRead, &[Code::StoreUnavailable], routes!(count_sessions))
}

/// How many sessions there are.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "total": 3, "truncated": false,
    "groups": [{"values": {"state": "online"}, "count": 2}, {"values": {"state": "offline"}, "count": 1}]
}))]
struct SessionCount {
    /// All that the filter lets through.
    #[schema(minimum = 0)]
    total: u64,
    /// The groups, greatest first; empty without `group_by`.
    #[schema(max_items = 1000)]
    groups: Vec<SessionGroup>,
    /// Whether there are more than the 1000 groups that are shown.
    truncated: bool,
}

/// Sessions that have the same values.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"values": {"state": "online", "protocol": "5"}, "count": 2}))]
struct SessionGroup {
    /// The values, by what `group_by` names; null for none (a client without user name).
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    values: BTreeMap<CountBy, Option<String>>,
    /// How many sessions have them.
    #[schema(minimum = 1)]
    count: u64,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct CountParams {
    /// What to count by: any of `state`, `protocol`, `transport`, `username`, `node`, separated by commas.
    #[param(value_type = Option<String>, pattern = "^(state|protocol|transport|username|node)(,(state|protocol|transport|username|node))*$", example = "state,protocol")]
    group_by: Option<GroupBy>,
}

/// Each word once.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "String")]
struct GroupBy(Vec<CountBy>);

impl TryFrom<String> for GroupBy {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut by = Vec::new();
        for word in text.split(',') {
            let word = match word {
                "state" => CountBy::State,
                "protocol" => CountBy::Protocol,
                "transport" => CountBy::Transport,
                "username" => CountBy::Username,
                "node" => CountBy::Node,
                _ => return Err("any of state, protocol, transport, username and node, separated by commas"),
            };
            if !by.contains(&word) {
                by.push(word);
            }
        }
        Ok(Self(by))
    }
}

/// Count the sessions of a cluster
///
/// With the filters of the list. Reads every session that the filter lets through: for the cluster's
/// exact use at this moment ask `/usage`, which reads none.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/session-count",
    tag = "sessions",
    params(ClusterPath, CountParams, FilterParams),
    responses((status = 200, description = "How many there are.", body = SessionCount))
)]
async fn count_sessions(
    State(state): State<ApiState>,
    path: ClusterPath,
    Query(params): Query<CountParams>,
    Query(filter): Query<FilterParams>,
) -> Result<Json<SessionCount>> {
    existing_cluster(&state, &path.cluster).await?;
    let by = params.group_by.unwrap_or_default().0;
    let now = state.clock.wall();
    // One more than is shown, to know whether there are more.
    let mut counted =
        state.store.count_sessions(&path.cluster, &filter.into(), &by, GROUPS_MAX + 1, now).await?;
    let truncated = counted.groups.len() > GROUPS_MAX as usize;
    counted.groups.truncate(if by.is_empty() { 0 } else { GROUPS_MAX as usize });
    let group = |(key, count): (Vec<Option<String>>, u64)| SessionGroup {
        values: by.iter().copied().zip(key).collect(),
        count,
    };
    Ok(Json(SessionCount {
        total: counted.total,
        groups: counted.groups.into_iter().map(group).collect(),
        truncated,
    }))
}
