//! How long a caller waits for an effect, and what it is answered when that was not long enough.
//!
//! - [`Wait`]: what the caller prefers, `Prefer: wait=N` (RFC 7240, 4.3).
//! - [`pending`]: the change is committed and the data plane does not enforce it yet. It will, over a crash too: 202
//!   in place of the status, with the record as it is, and `Enforcement: pending`. The same request under the same
//!   `Idempotency-Key` tells when it does.
//! - [`Pending`]: the data plane was asked to make a change that it records itself, and has not answered: 202, and where
//!   to look.

use std::time::Duration;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::header::LOCATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::{self, Ref, RefOr};
use utoipa::{IntoParams, ToSchema};

use super::etag::optional_header;
use super::problem::Result;
use super::state::DATA_PLANE_WAIT;

/// The header that marks the answer of a change that is committed and not enforced yet.
pub(super) const ENFORCEMENT: HeaderName = HeaderName::from_static("enforcement");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What the specification says of the 202 of a change that is enforced.
const NOT_YET: &str = "The change is committed as the body shows it, where there is one, but the data plane did not \
    confirm in time that it enforces it. It will, over a crash too. The same request with the same `Idempotency-Key` tells: \
    202 again, or what it would have been answered.";

/// How long the caller would wait for an effect, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    asked_secs: Option<u64>,
}

impl Wait {
    /// The longest wait granted; below the time that a whole request may take.
    pub(super) const SECS_MAX: u64 = 20;

    /// As the headers of a request say it.
    pub(super) fn preferred(headers: &HeaderMap) -> Self {
        let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let secs = preferences.flat_map(|value| value.split([',', ';'])).find_map(wait_secs);
        Self { asked_secs: secs.map(|secs| secs.min(Self::SECS_MAX)) }
    }

    /// How long that is.
    pub(super) fn granted(self) -> Duration {
        self.asked_secs.map_or(DATA_PLANE_WAIT, Duration::from_secs)
    }

    /// Says in an answer that the caller's wait was the one that ended.
    fn applied(self, response: &mut Response) {
        let Some(secs) = self.asked_secs else { return };
        if let Ok(value) = HeaderValue::try_from(format!("wait={secs}")) {
            response.headers_mut().insert(PREFERENCE_APPLIED, value);
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Wait {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::preferred(&parts.headers))
    }
}

/// A preference that cannot be read is as if it had not been sent (RFC 7240, 2).
fn wait_secs(preference: &str) -> Option<u64> {
    let (name, value) = preference.split_once('=')?;
    let is_wait = name.trim().eq_ignore_ascii_case("wait");
    is_wait.then(|| value.trim().trim_matches('"').parse().ok()).flatten()
}

impl IntoParams for Wait {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let about = "`wait=N`: how many seconds to wait for the effect, at most 20; 2 when not sent.";
        vec![optional_header("Prefer", about, "wait=5")]
    }
}

/// The answer to a change that is committed and not enforced yet.
pub(super) fn pending(mut response: Response, wait: Wait) -> Response {
    *response.status_mut() = StatusCode::ACCEPTED;
    response.headers_mut().insert(ENFORCEMENT, HeaderValue::from_static("pending"));
    wait.applied(&mut response);
    response
}

/// Says in the specification that an operation can answer so, and takes the preference.
pub(super) fn document(operation: &mut Operation) {
    let parameters = operation.parameters.get_or_insert_with(Vec::new);
    let takes_wait =
        parameters.iter().any(|parameter| matches!(parameter, RefOr::T(known) if known.name == "Prefer"));
    if !takes_wait {
        parameters.extend(Wait::into_params(|| None).into_iter().map(RefOr::T));
    }
    let answers = &mut operation.responses.responses;
    let done = answers.iter().find(|(status, _)| status.starts_with('2')).map(|(_, done)| done.clone());
    let done = done.map(|done| described(done, NOT_YET));
    // One that answers 202 in any case has said why.
    let Some(RefOr::T(mut not_yet)) = answers.remove("202").or(done) else { return };
    for name in ["Enforcement", "Preference-Applied"] {
        let header = Ref::new(format!("#/components/headers/{name}"));
        not_yet.headers.insert(name.to_owned(), RefOr::Ref(header));
    }
    answers.insert("202".to_owned(), RefOr::T(not_yet));
}

fn described(mut response: RefOr<openapi::Response>, about: &str) -> RefOr<openapi::Response> {
    if let RefOr::T(response) = &mut response {
        about.clone_into(&mut response.description);
    }
    response
}

/// A change that the data plane was asked for and has not confirmed in time: nobody knows yet whether it is made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "path": "/v1/clusters/default/sessions/meter-17",
    "detail": "The data plane has not confirmed it yet. Read the path to see whether it is made."
}))]
pub(super) struct Pending {
    /// Where to see whether it is made.
    path: String,
    /// The same in a sentence.
    detail: &'static str,
}

impl Pending {
    /// The answer that names `path`.
    pub(super) fn answer(path: &str, wait: Wait) -> Response {
        let detail = "The data plane has not confirmed it yet. Read the path to see whether it is made.";
        let location = [(LOCATION, path.to_owned())];
        let body = Self { path: path.to_owned(), detail };
        let mut response = (StatusCode::ACCEPTED, location, Json(body)).into_response();
        wait.applied(&mut response);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_what_the_caller_prefers_within_bounds() {
        for (prefer, wait) in [
            ("wait=5", Some(5)),
            ("respond-async, wait=10", Some(10)),
            ("WAIT = 0", Some(0)),
            ("wait=3600", Some(Wait::SECS_MAX)),
            ("wait=soon", None),
            ("return=minimal", None),
            ("", None),
        ] {
            let headers =
                HeaderMap::from_iter([(HeaderName::from_static("prefer"), HeaderValue::from_static(prefer))]);
            assert_eq!(Wait::preferred(&headers), Wait { asked_secs: wait }, "{prefer}");
        }
        assert_eq!(Wait { asked_secs: None }.granted(), DATA_PLANE_WAIT);
        assert_eq!(Wait { asked_secs: Some(0) }.granted(), Duration::ZERO);
    }

    #[test]
    fn what_is_pending_keeps_its_record() {
        let made = (StatusCode::CREATED, [(LOCATION, "/v1/x")], "record").into_response();
        let response = pending(made, Wait { asked_secs: Some(3) });
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let header = |name: &HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header(&ENFORCEMENT), Some("pending"));
        assert_eq!(header(&PREFERENCE_APPLIED), Some("wait=3"));
        assert_eq!(header(&LOCATION), Some("/v1/x"));
    }
}
