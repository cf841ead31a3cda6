//! What surrounds every request: its id, its span, its log line, and the body of every error.
//!
//! Outermost of all layers, so that nothing leaves the service without an `X-Request-Id`, without
//! `Cache-Control: no-store`, or, being an error, as anything but `application/problem+json`:
//! errors that the framework makes by itself (404, 405, 408, 413 …) become problems here.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::field::Empty;
use tracing::{Instrument, debug, error, info, info_span, warn};
use uuid::Uuid;

use super::problem::{MEDIA_TYPE, Problem};
use super::state::ApiState;

/// The header that carries the request's id, both ways.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The field of the request's span that says who calls, once that is known.
pub(super) const CALLER_FIELD: &str = "caller";

/// The id of a request, for whoever works on it.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) String);

/// The longest request id taken from a caller.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Wraps a request; see the module.
pub(super) async fn envelope(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let request_id = request_id(request.headers());
    request.extensions_mut().insert(RequestId(request_id.clone()));
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let started = state.clock.mono();
    let span = info_span!("http", %request_id, %method, path, caller = Empty);
    async move {
        let mut response = next.run(request).await;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            response = written(response, &path, &request_id);
        }
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            headers.insert(REQUEST_ID, value);
        }
        let millis = u64::try_from(state.clock.mono().since(started).as_millis()).unwrap_or(u64::MAX);
        let status = status.as_u16();
        if is_probe(&path) {
            debug!(status, millis, "answered {status} in {millis} ms");
        } else {
            info!(status, millis, "answered {status} in {millis} ms");
        }
        response
    }
    .instrument(span)
    .await
}

/// The caller's id when it is well-formed, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(&b);
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(plain))
        .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

/// Probes come every few seconds and say nothing new.
fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz")
}

/// Gives an error response its body, and logs what the service itself is to blame for.
fn written(response: Response, instance: &str, request_id: &str) -> Response {
    let (mut parts, _) = response.into_parts();
    let problem = parts.extensions.remove::<Problem>().unwrap_or_else(|| Problem::of_status(parts.status));
    if parts.status == StatusCode::INTERNAL_SERVER_ERROR {
        error!(cause = chain(&problem), "the request failed by a defect: {}", chain(&problem));
    } else if let Some(cause) = problem.cause() {
        warn!(cause = chain(&problem), "the request failed: {problem:?} ({cause})");
    }
    let body = Json(problem.body(instance, request_id));
    let mut written = (problem.code().status(), body).into_response();
    let headers = written.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    for kept in [ALLOW, RETRY_AFTER, WWW_AUTHENTICATE] {
        if let Some(value) = parts.headers.remove(&kept) {
            headers.insert(kept, value);
        }
    }
    written
}

/// The cause with all its sources, outermost first.
fn chain(problem: &Problem) -> String {
    let Some(cause) = problem.cause() else { return "none".to_owned() };
    let mut text = cause.to_string();
    let mut next = cause.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(value: &[u8]) -> String {
        let value = HeaderValue::from_bytes(value).expect("a header value");
        request_id(&HeaderMap::from_iter([(REQUEST_ID, value)]))
    }

    #[test]
    fn a_well_formed_request_id_is_kept_and_any_other_replaced() {
        for good in ["a", "0b6d7cf1-6a0f-4f7e-9a39-5a1f6f4b1d3c", "trace:1/2_x.y+z="] {
            assert_eq!(id_for(good.as_bytes()), good);
        }
        let long = "x".repeat(129);
        for bad in [b"" as &[u8], b"two words", b"<script>", b"\xff", long.as_bytes()] {
            assert!(Uuid::parse_str(&id_for(bad)).is_ok(), "{bad:?}");
        }
        assert!(Uuid::parse_str(&request_id(&HeaderMap::new())).is_ok());
    }
}
