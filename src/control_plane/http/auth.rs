//! Who calls, and whether they may.
//!
//! Two steps. [`authenticate`] turns the bearer token into a [`Caller`], for every route of `/v1`.
//! [`Rule::guard`] then holds the caller against the scope that its route was registered with.
//! Routes are only registered through [`Routes`](super::routes::Routes), which asks for that scope:
//! a route without one cannot be written down.
//!
//! A cluster that a token is not bound to does not exist for its bearer: 404, before any role is
//! looked at.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use tracing::Span;

use super::code::Code;
use super::envelope::CALLER_FIELD;
use super::problem::{Problem, Result};
use super::state::ApiState;
use crate::control_plane::tokens::{Grant, Role};
use crate::model::ClusterId;

/// What a route does, for deciding who may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Read plans.
    PlansRead,
    /// Read clusters, quotas and usage.
    ClustersRead,
    /// Change or delete a cluster, or change its quota.
    ClustersWrite,
    /// Make a cluster: never with a token that is bound to one.
    ClustersCreate,
    /// Read sessions and subscriptions.
    SessionsRead,
    /// Act on sessions.
    SessionsWrite,
    /// Read users.
    UsersRead,
    /// Make, change or delete users.
    UsersWrite,
}

impl Scope {
    /// As the specification writes it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::PlansRead => "plans:read",
            Self::ClustersRead => "clusters:read",
            Self::ClustersWrite => "clusters:write",
            Self::ClustersCreate => "clusters:create",
            Self::SessionsRead => "sessions:read",
            Self::SessionsWrite => "sessions:write",
            Self::UsersRead => "users:read",
            Self::UsersWrite => "users:write",
        }
    }

    /// The least role that has it.
    pub(super) const fn least_role(self) -> Role {
        match self {
            Self::PlansRead | Self::ClustersRead | Self::SessionsRead => Role::Viewer,
            Self::SessionsWrite => Role::Operator,
            Self::ClustersWrite | Self::ClustersCreate | Self::UsersRead | Self::UsersWrite => Role::Admin,
        }
    }

    /// Whether a token bound to one cluster lacks it, whatever its role.
    pub(super) const fn is_global(self) -> bool {
        matches!(self, Self::ClustersCreate)
    }
}

/// Who made this request. As an extractor it is there on every route of `/v1`.
#[derive(Clone, Debug)]
pub(super) struct Caller(Arc<Grant>);

impl Caller {
    /// The one cluster that exists for the caller; `None` for all of them.
    pub(super) fn cluster(&self) -> Option<&ClusterId> {
        self.0.cluster.as_ref()
    }

    fn may_see(&self, cluster: &str) -> bool {
        self.cluster().is_none_or(|own| own.as_str() == cluster)
    }

    fn has(&self, scope: Scope) -> bool {
        self.0.role >= scope.least_role() && !(scope.is_global() && self.0.cluster.is_some())
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parts.extensions.get::<Self>().cloned().ok_or_else(token_missing)
    }
}

/// Lets a request pass with the [`Caller`] that its token names, or answers 401.
pub(super) async fn authenticate(
    State(state): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let token = bearer(&request)?;
    let grant = state.tokens.verify(token, state.clock.wall())?;
    Span::current().record(CALLER_FIELD, &grant.subject);
    request.extensions_mut().insert(Caller(Arc::new(grant)));
    Ok(next.run(request).await)
}

/// RFC 6750, 2.1. The scheme is compared without regard to case (RFC 9110, 11.1).
fn bearer(request: &Request) -> Result<&str> {
    let value = request.headers().get(AUTHORIZATION).ok_or_else(token_missing)?;
    let text = value.to_str().unwrap_or_default();
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(token_missing()),
    }
}

fn token_missing() -> Problem {
    Problem::new(Code::TokenMissing, "send Authorization: Bearer {token}")
}

/// What a route demands of a request before its handler sees it.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// The scope that the caller must have.
    pub(super) scope: Scope,
    /// The query parameters that the operation documents; any other is refused.
    pub(super) query: Arc<[String]>,
}

impl Rule {
    /// Lets a request pass when it satisfies the rule.
    pub(super) async fn guard(self, request: Request, next: Next) -> Response {
        let (mut parts, body) = request.into_parts();
        match self.check(&mut parts).await {
            Ok(()) => next.run(Request::from_parts(parts, body)).await,
            Err(problem) => problem.into_response(),
        }
    }

    async fn check(&self, parts: &mut Parts) -> Result<()> {
        let caller = Caller::from_request_parts(parts, &()).await?;
        let path = RawPathParams::from_request_parts(parts, &())
            .await
            .map_err(|error| Problem::new(Code::InvalidParameter, error.body_text()))?;
        if let Some((_, cluster)) = path.iter().find(|(name, _)| *name == "cluster")
            && !caller.may_see(cluster)
        {
            return Err(Problem::cluster_not_found(cluster));
        }
        if !caller.has(self.scope) {
            return Err(forbidden(self.scope));
        }
        self.check_query(parts.uri.query().unwrap_or_default())
    }

    fn check_query(&self, query: &str) -> Result<()> {
        let sent: Vec<(String, String)> = serde_html_form::from_str(query)
            .map_err(|error| Problem::new(Code::InvalidParameter, error.to_string()))?;
        match sent.iter().find(|(name, _)| !self.query.contains(name)) {
            None => check_not_empty(&sent),
            Some((name, _)) if self.query.is_empty() => {
                let detail = "this operation has no query parameters";
                Err(Problem::parameter(Code::UnknownParameter, name, detail))
            }
            Some((name, _)) => {
                let detail = format!("this operation has only {}", self.query.join(", "));
                Err(Problem::parameter(Code::UnknownParameter, name, detail))
            }
        }
    }
}

/// An empty value is more likely a script's empty variable than a wish: were it as if not sent, a
/// filter would let everything through and a fence would not hold.
fn check_not_empty(sent: &[(String, String)]) -> Result<()> {
    match sent.iter().find(|(_, value)| value.is_empty()) {
        None => Ok(()),
        Some((name, _)) => Err(Problem::parameter(Code::InvalidParameter, name, "it must not be empty")),
    }
}

fn forbidden(scope: Scope) -> Problem {
    let bound = if scope.is_global() { " that is not bound to one cluster" } else { "" };
    let detail = format!("{} needs a token of role {} or above{bound}", scope.as_str(), scope.least_role());
    Problem::new(Code::Forbidden, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(role: Role, cluster: Option<&str>) -> Caller {
        let cluster = cluster.map(|id| ClusterId::new(id).expect("a cluster id"));
        Caller(Arc::new(Grant { subject: "ada".to_owned(), role, cluster }))
    }

    #[test]
    fn roles_contain_the_lesser_ones() {
        for (role, scopes) in [
            (Role::Viewer, [true, false, false]),
            (Role::Operator, [true, true, false]),
            (Role::Admin, [true, true, true]),
        ] {
            let has = [Scope::SessionsRead, Scope::SessionsWrite, Scope::ClustersWrite]
                .map(|scope| caller(role, None).has(scope));
            assert_eq!(has, scopes, "{role}");
        }
    }

    #[test]
    fn a_bound_administrator_rules_one_cluster_and_makes_none() {
        let bound = caller(Role::Admin, Some("a"));
        assert!(bound.has(Scope::ClustersWrite) && !bound.has(Scope::ClustersCreate));
        assert!(bound.may_see("a") && !bound.may_see("b"));
        assert!(caller(Role::Admin, None).has(Scope::ClustersCreate));
    }

    #[test]
    fn parameters_that_are_not_documented_are_refused() {
        let rule = Rule { scope: Scope::PlansRead, query: Arc::new(["state".to_owned()]) };
        assert!(rule.check_query("").is_ok());
        assert!(rule.check_query("state=online").is_ok());
        let problem = rule.check_query("state=online&stat%65s=x").expect_err("a problem");
        assert_eq!(problem.code(), Code::UnknownParameter);
        for query in ["state=", "state"] {
            let problem = rule.check_query(query).expect_err("a problem");
            assert_eq!(problem.code(), Code::InvalidParameter, "{query}");
        }
    }
}
