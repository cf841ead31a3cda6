//! The one place where an error becomes HTTP (RFC 9457).
//!
//! Handlers answer `Result<_, Problem>`. What the caller sees ([`Problem`]) and what is logged (its
//! `cause`) are two fields; a 500 shows neither detail nor cause. As a response a problem has only
//! its status: the [`envelope`](super::envelope) writes the body, because it knows the request's id.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::code::Code;
use crate::control_plane::api_keys::ApiKeyError;
use crate::control_plane::tokens::TokenError;
use crate::model::ClusterId;
use crate::seam::command::CommandError;
use crate::store;

/// The media type of every error.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// How long a caller should wait before it asks again, in seconds, where the service is at fault.
const RETRY_AFTER_SECS: u16 = 1;

/// What went wrong with one request.
#[derive(Clone)]
pub struct Problem {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
    /// How long a caller should wait, in seconds, where it should come back.
    retry_after_secs: u16,
}

/// What a handler answers.
pub(super) type Result<T, E = Problem> = std::result::Result<T, E>;

/// One wrong field or parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// Where in the body: a JSON pointer as a URI fragment (RFC 6901, 6).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "#/expiry/interval_seconds")]
    pub(super) pointer: Option<String>,
    /// Which path or query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "page_size")]
    pub(super) parameter: Option<String>,
    /// What is wrong with it.
    #[schema(example = "at most 259200")]
    pub(super) detail: String,
}

/// An error, as every operation answers it (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody<'a> {
    /// `urn:holdfast:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:holdfast:problem:session_not_found")]
    pub kind: String,
    /// What the code means in a few words; the same for every occurrence.
    #[schema(example = "No such session")]
    pub title: &'a str,
    /// The HTTP status, once more.
    #[schema(minimum = 400, maximum = 599, example = 404)]
    pub status: u16,
    /// What happened this time, for a person.
    #[schema(example = "client \"meter-17\" has no session in cluster \"default\"")]
    pub detail: &'a str,
    /// The path that was asked for.
    #[schema(example = "/v1/clusters/default/sessions/meter-17")]
    pub instance: &'a str,
    /// What went wrong, for a program. Never changes its meaning.
    #[schema(value_type = Code)]
    pub code: &'a str,
    /// The request's id, as in the `X-Request-Id` header and in the service's log.
    #[schema(example = "0b6d7cf1-6a0f-4f7e-9a39-5a1f6f4b1d3c")]
    pub request_id: &'a str,
    /// Which fields or parameters are wrong, where that is the matter.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    pub errors: &'a [FieldError],
}

impl Problem {
    /// A problem with what happened this time.
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            cause: None,
            retry_after_secs: RETRY_AFTER_SECS,
        }
    }

    /// A defect. The cause is logged; the caller sees only the request's id.
    pub(super) fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Code::Internal, "").caused_by(cause)
    }

    /// A field of the body is wrong. `pointer` is a JSON pointer; empty for the whole body.
    pub(super) fn field(code: Code, pointer: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let shown = if pointer.is_empty() { "the body" } else { pointer };
        let error =
            FieldError { pointer: Some(format!("#{pointer}")), parameter: None, detail: detail.clone() };
        Self { errors: vec![error], ..Self::new(code, format!("{shown}: {detail}")) }
    }

    /// A path or query parameter is wrong.
    pub(super) fn parameter(code: Code, parameter: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let error =
            FieldError { pointer: None, parameter: Some(parameter.to_owned()), detail: detail.clone() };
        Self { errors: vec![error], ..Self::new(code, format!("{parameter}: {detail}")) }
    }

    /// There is no such cluster for this caller.
    pub(super) fn cluster_not_found(cluster: impl fmt::Display) -> Self {
        Self::new(Code::ClusterNotFound, format!("there is no cluster \"{cluster}\""))
    }

    /// The client has no session.
    pub(super) fn session_not_found(cluster: &ClusterId, client_id: impl fmt::Display) -> Self {
        Self::new(
            Code::SessionNotFound,
            format!("client \"{client_id}\" has no session in cluster \"{cluster}\""),
        )
    }

    /// The cluster has no such user.
    pub(super) fn user_not_found(cluster: &ClusterId, username: impl fmt::Display) -> Self {
        Self::new(Code::UserNotFound, format!("cluster \"{cluster}\" has no user \"{username}\""))
    }

    /// What the log is told and the caller is not.
    #[must_use]
    pub(super) fn caused_by(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(Arc::from(cause.into()));
        self
    }

    /// Says how long to wait before asking again, where the status is one to come back after.
    #[must_use]
    pub(super) fn retry_after(mut self, wait: Duration) -> Self {
        let secs = wait.as_millis().div_ceil(1_000).max(1);
        self.retry_after_secs = u16::try_from(secs).unwrap_or(u16::MAX);
        self
    }

    /// What `Retry-After` says.
    #[cfg(test)]
    pub(super) fn retry_after_secs(&self) -> u16 {
        self.retry_after_secs
    }

    /// The problem of an error response that no handler made: the framework's own.
    pub(super) fn of_status(status: StatusCode) -> Self {
        let code = match status {
            StatusCode::NOT_FOUND => Code::RouteNotFound,
            StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
            StatusCode::REQUEST_TIMEOUT => Code::RequestTimeout,
            StatusCode::PAYLOAD_TOO_LARGE => Code::BodyTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
            status if status.is_client_error() => Code::InvalidRequest,
            _ => Code::Internal,
        };
        Self::new(code, code.about())
    }

    /// Its code.
    pub(super) fn code(&self) -> Code {
        self.code
    }

    /// What the log is told.
    pub(super) fn cause(&self) -> Option<&(dyn Error + Send + Sync)> {
        self.cause.as_deref()
    }

    /// The body for a request to `instance`.
    pub(super) fn body<'a>(&'a self, instance: &'a str, request_id: &'a str) -> ProblemBody<'a> {
        let hidden = self.code == Code::Internal;
        ProblemBody {
            kind: format!("urn:holdfast:problem:{}", self.code.as_str()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: if hidden { "see the service's log for this request_id" } else { &self.detail },
            instance,
            code: self.code.as_str(),
            request_id,
            errors: if hidden { &[] } else { &self.errors },
        }
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let mut response = status.into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            // RFC 6750, 3: an error word only when a token was sent.
            let challenge = match self.code {
                Code::TokenMissing => "Bearer realm=\"holdfast\"",
                _ => "Bearer realm=\"holdfast\", error=\"invalid_token\"",
            };
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(RETRY_AFTER, HeaderValue::from(self.retry_after_secs));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Away(_) => {
                Self::new(Code::StoreUnavailable, "the database does not answer").caused_by(error)
            }
            store::Error::Conflict(store::Constraint::ClusterExists) => {
                Self::new(Code::ClusterExists, "a cluster of this id exists")
            }
            store::Error::Conflict(store::Constraint::PolicyPriority) => {
                let detail = "another policy of the cluster has this priority";
                Self::field(Code::PolicyPriorityTaken, "/priority", detail)
            }
            store::Error::Conflict(store::Constraint::MessageRulePriority) => {
                let detail = "another message rule of the cluster has this priority";
                Self::field(Code::MessageRulePriorityTaken, "/priority", detail)
            }
            store::Error::Conflict(store::Constraint::AuthenticatorPosition) => {
                let detail = "another authenticator of the cluster has this position";
                Self::field(Code::AuthenticatorPositionTaken, "/position", detail)
            }
            store::Error::Conflict(store::Constraint::ApiKeyCluster) => {
                Self::new(Code::ClusterNotFound, "the cluster was deleted just now")
            }
            other => Self::internal(other),
        }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::Expired => Code::TokenExpired,
            TokenError::KeysAway => Code::KeysUnavailable,
            _ => Code::TokenInvalid,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ApiKeyError> for Problem {
    fn from(error: ApiKeyError) -> Self {
        let code = match error {
            ApiKeyError::Expired => Code::TokenExpired,
            ApiKeyError::Unknown | ApiKeyError::Revoked => Code::TokenInvalid,
        };
        Self::new(code, error.to_string())
    }
}

/// What a failed command says of a change: it may have been made.
pub(super) fn command_failed(
    error: &CommandError,
    cluster: &ClusterId,
    client_id: impl fmt::Display,
) -> Problem {
    match error {
        CommandError::NoSuchSession => Problem::session_not_found(cluster, client_id),
        CommandError::Superseded { session_id, epoch } => Problem::new(
            Code::SessionSuperseded,
            format!("the client's session is now {session_id} in epoch {}", epoch.0),
        ),
        CommandError::Protected => Problem::new(
            Code::SessionProtected,
            format!("the session of client \"{client_id}\" is protected"),
        ),
        CommandError::SessionExists => Problem::new(
            Code::SessionExists,
            format!("client \"{client_id}\" has a session that is not as the body says"),
        ),
        CommandError::NoSuchSubscription => Problem::new(
            Code::SubscriptionNotFound,
            format!("the session of client \"{client_id}\" does not subscribe to this filter"),
        ),
        CommandError::QuotaExceeded(why) => Problem::new(Code::QuotaExceeded, why.as_str()),
        CommandError::FilterRefused(why) => Problem::new(Code::TopicFilterRefused, why.as_str()),
        CommandError::StoreAway => Problem::new(
            Code::StoreUnavailable,
            "the effect is in force, but the database does not answer and the record may not show it yet",
        ),
        CommandError::TimedOut => {
            Problem::new(Code::NotConfirmed, "the data plane did not confirm the effect in time")
        }
        _ => data_plane_away(error),
    }
}

/// What a failed question to the data plane says: ask again.
pub(super) fn data_plane_away(error: &CommandError) -> Problem {
    let detail = match error {
        CommandError::LogUnreadable => return Problem::internal(error.clone()),
        CommandError::NoSuchCluster => "the data plane does not serve this cluster yet",
        CommandError::Stopped => "the data plane has stopped",
        _ => "the data plane did not answer in time",
    };
    Problem::new(Code::DataPlaneUnavailable, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_defect_shows_nothing_of_itself() {
        let problem = Problem::internal("password of the database is hunter2");
        let body = serde_json::to_string(&problem.body("/v1/plans", "r-1")).expect("json");
        assert!(body.contains("r-1") && !body.contains("hunter2"), "{body}");
        assert!(problem.cause().is_some());
    }

    #[test]
    fn a_field_is_pointed_at() {
        let problem = Problem::field(Code::InvalidBody, "/labels/a~1b", "too long");
        let body = serde_json::to_value(problem.body("/v1/clusters", "r-1")).expect("json");
        assert_eq!(body["errors"][0]["pointer"], "#/labels/a~1b");
        assert_eq!(body["detail"], "/labels/a~1b: too long");
        assert_eq!(body["code"], "invalid_body");
        assert_eq!(body["status"], 400);
    }

    #[test]
    fn callers_are_told_when_to_come_back_and_how_to_log_in() {
        let away = Problem::new(Code::StoreUnavailable, "").into_response();
        assert_eq!(away.headers()[RETRY_AFTER], "1");
        let missing = Problem::new(Code::TokenMissing, "").into_response();
        assert_eq!(missing.headers()[WWW_AUTHENTICATE], "Bearer realm=\"holdfast\"");
        let expired = Problem::from(TokenError::Expired).into_response();
        assert_eq!(expired.status(), StatusCode::UNAUTHORIZED);
        let challenge = expired.headers()[WWW_AUTHENTICATE].to_str().expect("text");
        assert!(challenge.contains("invalid_token"));
    }
}
