//! `/v1/nodes`: the processes that serve. One process serves a database at a time, so there is one: this.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::code::Code;
use super::super::page::Page;
use super::super::problem::{Result, data_plane_away};
use super::super::routes::Routes;
use super::super::state::{ApiState, DATA_PLANE_WAIT};
use crate::model::Timestamp;
use crate::seam::command::CommandError;

pub(super) fn routes(routes: Routes) -> Routes {
    let codes = [Code::StoreUnavailable, Code::DataPlaneUnavailable];
    routes.add(Scope::NodesRead, &codes, routes!(list_nodes))
}

/// A process that serves.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node, example = json!({
    "id": "3f9c2a7b1d0e4c58", "version": "0.1.0", "started_at": "2026-01-31T12:00:00.000Z",
    "listeners": [{"name": "http", "address": "127.0.0.1:8080"}, {"name": "mqtt", "address": "127.0.0.1:1883"}],
    "clusters": 3, "sessions_online": 1_204
}))]
struct NodeView {
    /// Its name. Made with its data directory, and the same for as long as that is kept.
    #[schema(pattern = "^[0-9a-f-]{16,36}$")]
    id: String,
    /// The version of the program.
    version: &'static str,
    /// When it started.
    started_at: Timestamp,
    /// Where it listens.
    listeners: Vec<ListenerView>,
    /// How many clusters it owns.
    #[schema(minimum = 0)]
    clusters: u64,
    /// How many sessions of theirs have a connection.
    #[schema(minimum = 0)]
    sessions_online: u64,
}

/// Where a node listens.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Listener)]
struct ListenerView {
    /// Its name, as session records have it: `mqtt`, `mqtts`, `ws`, `wss`, `quic`; `http` is the API.
    name: &'static str,
    /// Address and port.
    address: String,
}

/// List the nodes
///
/// The processes that serve. One process serves a database at a time, with all of its clusters: there is one item, the
/// node that answers. Session records name the node that has a session's connection, or had the last one.
#[utoipa::path(
    get,
    path = "/v1/nodes",
    tag = "nodes",
    responses((status = 200, description = "Every node.", body = Page<NodeView>))
)]
async fn list_nodes(State(state): State<ApiState>) -> Result<Json<Page<NodeView>>> {
    let (mut clusters, mut sessions_online) = (0, 0);
    let told =
        state.data_plane.log_figures(DATA_PLANE_WAIT).await.map_err(|error| data_plane_away(&error))?;
    for owned in told.clusters {
        match state.data_plane.count(owned.cluster, DATA_PLANE_WAIT).await {
            Ok(counts) => sessions_online += u64::from(counts.online),
            // Deleted in between.
            Err(CommandError::NoSuchCluster) => continue,
            Err(error) => return Err(data_plane_away(&error)),
        }
        clusters += 1;
    }
    let node = &state.node;
    let listeners = node.listeners.iter();
    let listeners = listeners.map(|(name, at)| ListenerView { name, address: at.to_string() }).collect();
    let view = NodeView {
        id: node.id.clone(),
        version: env!("CARGO_PKG_VERSION"),
        started_at: node.started_at,
        listeners,
        clusters,
        sessions_online,
    };
    Ok(Json(Page { items: vec![view], next_page_token: None }))
}
