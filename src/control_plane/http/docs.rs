//! `/openapi.json` and `/docs`: the specification, for programs and for people.
//!
//! Swagger UI is compiled in. No request leaves the host: the page loads nothing from elsewhere, the
//! UI's online validator is off, and the content security policy forbids what is left.

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::openapi::openapi;
use super::problem::Problem;
use super::state::ApiState;

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

pub(super) fn routes() -> Router<ApiState> {
    // Built once: the document does not change while the program runs.
    let document = openapi().to_json().map(Bytes::from).map_err(|error| error.to_string());
    let config = Config::new(["/openapi.json"]).validator_url("none").use_base_layout();
    let ui: Router<ApiState> = SwaggerUi::new("/docs").config(config).into();
    let ui = ui.layer(axum::middleware::map_response(|mut response: Response| async {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
        response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response
    }));
    ui.route("/openapi.json", get(async move || specification(document.clone())))
}

fn specification(document: Result<Bytes, String>) -> Response {
    match document {
        Ok(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => Problem::internal(error).into_response(),
    }
}
