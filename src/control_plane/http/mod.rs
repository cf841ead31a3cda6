//! The HTTP API: conventions here, resources in [`v1`].
//!
//! A request passes, from the outside in: the envelope (request id, log line, error bodies), the
//! panic catcher, the time limit, the routing; under `/v1` also the bound on requests at once, the
//! token, the caller's rate, the route's scope, and for changes the detachment from their caller, the idempotency key and the
//! audit row ([`change`]). A handler then is:
//! parse, begin, store calls, commit, have it enforced, answer.
//!
//! Every answer has an `X-Request-Id`; every error is a problem (RFC 9457) with a stable code; a
//! change is answered when it holds for the next packet.

mod auth;
mod change;
mod code;
mod docs;
mod envelope;
mod etag;
mod extract;
mod health;
mod idempotency;
mod number;
mod openapi;
mod page;
mod path;
mod problem;
mod rate;
mod routes;
mod schema;
pub mod server;
mod state;
mod v1;
mod wait;

use std::any::Any;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;
use tracing::Instrument;

pub use code::Code;
pub use openapi::openapi;
pub use problem::Problem;
pub use state::{ApiState, Node, REQUESTS_MAX};
pub(in crate::control_plane) use v1::EventView;

/// The longest body that is read.
pub const BODY_BYTES_MAX: usize = 65_536;

/// How long a request may take, its body's arrival included. Above every deadline within.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);

/// The whole API, ready to serve.
pub fn router(state: ApiState) -> Router {
    let (v1, _) = v1::routes().into_router().split_for_parts();
    let v1 = v1
        .route_layer(from_fn_with_state(state.clone(), detached))
        .route_layer(from_fn_with_state(state.clone(), auth::authenticate))
        .route_layer(from_fn_with_state(state.clone(), bounded));
    let (health, _) = health::routes().split_for_parts();
    v1.merge(health)
        .merge(docs::routes())
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_TIME_MAX))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(state.clone(), envelope::envelope))
        .with_state(state)
}

/// Works on so many requests at once and refuses more; counts both.
async fn bounded(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let (method, started) = (request.method().clone(), state.clock.mono());
    let response = within_bound(&state, request, next).await.into_response();
    let took = state.clock.mono().since(started);
    if let Some(route) = route {
        state.metrics.request(route.as_str(), method.as_str(), response.status().as_u16(), took);
    }
    response
}

async fn within_bound(state: &ApiState, request: Request, next: Next) -> Result<Response, Problem> {
    match state.requests.try_acquire() {
        Ok(_permit) => Ok(next.run(request).await),
        Err(_) => Err(Problem::new(Code::Overloaded, format!("{REQUESTS_MAX} requests are being worked on"))),
    }
}

/// Runs a change to its end even when its caller hangs up or its time is over: what is committed
/// must also be told to the data plane.
async fn detached(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    request.extensions_mut().insert(state.clone());
    let change = state.tasks.spawn(next.run(request).in_current_span());
    match change.await {
        Ok(response) => response,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => panicked(panic),
            Err(error) => Problem::internal(error).into_response(),
        },
    }
}

// The layer hands the panic over in its box.
#[allow(clippy::needless_pass_by_value)]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned());
    Problem::internal(format!("panicked: {message}")).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_problem_that_shows_nothing() {
        #[allow(clippy::unused_async)]
        async fn fails() -> StatusCode {
            panic!("secret {}", 7)
        }
        let router = Router::new().route("/", get(fails)).layer(CatchPanicLayer::custom(panicked));
        let request = Request::get("/").body(Body::empty()).expect("a request");
        let response = router.oneshot(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let problem = response.extensions().get::<Problem>().expect("a problem").clone();
        let cause = problem.cause().expect("a cause for the log").to_string();
        assert_eq!(cause, "panicked: secret 7");
        let shown = serde_json::to_string(&problem.body("/", "r-1")).expect("json");
        assert!(!shown.contains("secret"), "{shown}");
    }
}
