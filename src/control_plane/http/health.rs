//! Probes: whether the process lives, and whether it can do its work.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::code::Code;
use super::problem::{Problem, Result};
use super::routes::public;
use super::state::ApiState;

/// A probe is asked every few seconds: better no answer than a late one.
const DATA_PLANE_WAIT: Duration = Duration::from_secs(1);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    public(&[], routes!(livez)).merge(public(&[Code::NotReady], routes!(readyz)))
}

/// The answer of a probe.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// Always `ok`; anything else is a problem.
    #[schema(example = "ok")]
    status: &'static str,
}

const OK: Json<Health> = Json(Health { status: "ok" });

/// Whether the process lives
///
/// Asks nobody. An orchestrator restarts a process that does not answer.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "health",
    responses((status = 200, description = "It lives.", body = Health))
)]
async fn livez() -> Json<Health> {
    OK
}

/// Whether the service can do its work
///
/// Asks the database and the data plane. While the database is away, connected clients go on
/// publishing and receiving and known sessions resume, but nothing can be changed and no new
/// persistent session begins.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses((status = 200, description = "It is ready.", body = Health))
)]
async fn readyz(State(state): State<ApiState>) -> Result<Json<Health>> {
    let not_ready = |detail: &str| Problem::new(Code::NotReady, detail);
    state.store.ping().await.map_err(|error| not_ready("the database does not answer").caused_by(error))?;
    // Any revision is enforced already: this only asks whether commands are answered.
    let alive = state.data_plane.await_revision(0, DATA_PLANE_WAIT).await;
    alive.map_err(|error| not_ready("the data plane does not answer").caused_by(error))?;
    Ok(OK)
}
