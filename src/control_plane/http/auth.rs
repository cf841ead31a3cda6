//! Who calls, and whether they may.
//!
//! Two steps. [`authenticate`] turns the bearer token, or API key, into a [`Caller`], for every route of `/v1`.
//! [`Rule::guard`] then holds the caller against the scope that its route was registered with.
//! Routes are only registered through [`Routes`](super::routes::Routes), which asks for that scope:
//! a route without one cannot be written down.
//!
//! A cluster that a token is not bound to does not exist for its bearer: 404, before any role is
//! looked at.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tracing::Span;

use super::code::Code;
use super::envelope::CALLER_FIELD;
use super::problem::{Problem, Result};
use super::state::ApiState;
use crate::control_plane::api_keys::{self, ApiKeyError};
use crate::control_plane::bearers::Bearer;
use crate::control_plane::tokens::{Grant, Role};
use crate::model::{ClusterId, Timestamp};
use crate::store::ApiKeyRecord;

macro_rules! scopes {
    ($($(#[doc = $about:literal])* $variant:ident, $text:literal, $least:ident;)*) => {
        /// What a route does, for deciding who may.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub(super) enum Scope {
            $($(#[doc = $about])* #[serde(rename = $text)] $variant,)*
        }

        impl Scope {
            /// Every scope.
            pub(super) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As the specification and API keys write it.
            pub(super) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The least role that has it.
            pub(super) const fn least_role(self) -> Role {
                match self { $(Self::$variant => Role::$least,)* }
            }
        }
    };
}

scopes! {
    /// Read plans.
    PlansRead, "plans:read", Viewer;
    /// Read clusters, quotas and usage.
    ClustersRead, "clusters:read", Viewer;
    /// Change or delete a cluster, or change its quota.
    ClustersWrite, "clusters:write", Admin;
    /// Make a cluster: never with a token that is bound to one.
    ClustersCreate, "clusters:create", Admin;
    /// Read sessions and subscriptions.
    SessionsRead, "sessions:read", Viewer;
    /// Act on sessions.
    SessionsWrite, "sessions:write", Operator;
    /// Read what clients say: messages that wait or are in flight, and wills.
    MessagesRead, "messages:read", Operator;
    /// Read the audit log.
    AuditRead, "audit:read", Operator;
    /// Read the metrics of all clusters: never with a token that is bound to one.
    MetricsRead, "metrics:read", Viewer;
    /// Read the nodes that serve all clusters: never with a token that is bound to one.
    NodesRead, "nodes:read", Viewer;
    /// Read users.
    UsersRead, "users:read", Admin;
    /// Make, change or delete users.
    UsersWrite, "users:write", Admin;
    /// Read webhooks, without their secrets, and what they did not get.
    WebhooksRead, "webhooks:read", Operator;
    /// Make, change or delete webhooks, and have events tried again.
    WebhooksWrite, "webhooks:write", Admin;
    /// Read authorisation policies.
    PoliciesRead, "policies:read", Operator;
    /// Make, change or delete authorisation policies.
    PoliciesWrite, "policies:write", Admin;
    /// Read block rules.
    BlockRulesRead, "block-rules:read", Operator;
    /// Make, change or delete block rules.
    BlockRulesWrite, "block-rules:write", Operator;
    /// Read message enhancement rules.
    MessageRulesRead, "message-rules:read", Operator;
    /// Make, change or delete message enhancement rules.
    MessageRulesWrite, "message-rules:write", Admin;
    /// Read automatic subscriptions.
    AutoSubscriptionsRead, "auto-subscriptions:read", Operator;
    /// Make, change or delete automatic subscriptions.
    AutoSubscriptionsWrite, "auto-subscriptions:write", Admin;
    /// Read authenticators, without their secrets.
    AuthenticatorsRead, "authenticators:read", Admin;
    /// Make, change or delete authenticators.
    AuthenticatorsWrite, "authenticators:write", Admin;
    /// Read API keys, without their secrets.
    ApiKeysRead, "api-keys:read", Admin;
    /// Make and revoke API keys.
    ApiKeysWrite, "api-keys:write", Admin;
}

impl Scope {
    /// The reverse of [`Scope::as_str`].
    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scope| scope.as_str() == text)
    }

    /// Whether a token bound to one cluster lacks it, whatever its role.
    pub(super) const fn is_global(self) -> bool {
        matches!(self, Self::ClustersCreate | Self::MetricsRead | Self::NodesRead)
    }
}

/// Who made this request. As an extractor it is there on every route of `/v1`.
#[derive(Clone, Debug)]
pub(super) struct Caller(Arc<Identity>);

#[derive(Debug)]
struct Identity {
    grant: Grant,
    key: Option<KeyIdentity>,
    /// Whether somebody else issued the token.
    is_external: bool,
}

/// What an API key adds to what it grants.
#[derive(Debug)]
struct KeyIdentity {
    id: String,
    /// What of the role it has; `None` for all of it.
    scopes: Option<BTreeSet<Scope>>,
}

impl Caller {
    fn by_token(bearer: Bearer) -> Self {
        let Bearer { grant, is_external } = bearer;
        Self(Arc::new(Identity { grant, key: None, is_external }))
    }

    fn by_key(record: ApiKeyRecord) -> Result<Self> {
        let key = record.key;
        // A word that this program does not know grants nothing.
        let scopes = key.scopes.map(|words| words.iter().filter_map(|word| Scope::parse(word)).collect());
        let role = key.role.parse().map_err(Problem::internal)?;
        let grant = Grant { subject: key.name, role, cluster: key.cluster };
        let key = Some(KeyIdentity { id: key.id, scopes });
        Ok(Self(Arc::new(Identity { grant, key, is_external: false })))
    }

    /// The one cluster that exists for the caller; `None` for all of them.
    pub(super) fn cluster(&self) -> Option<&ClusterId> {
        self.0.grant.cluster.as_ref()
    }

    /// Who calls, for people.
    pub(super) fn subject(&self) -> &str {
        &self.0.grant.subject
    }

    /// The API key that was used, if one was.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.0.key.as_ref().map(|key| key.id.as_str())
    }

    /// Whose idempotency keys these are: what one caller sends never meets what another sends.
    pub(super) fn identity(&self) -> String {
        if let Some(id) = self.key_id() {
            return format!("key:{id}");
        }
        let issuer = if self.0.is_external { "external" } else { "token" };
        format!("{issuer}:{}:{}", self.cluster().map_or("*", ClusterId::as_str), self.subject())
    }

    /// Whether it may give these rights to another: no more than its own.
    pub(super) fn may_grant(
        &self,
        role: Role,
        scopes: Option<&BTreeSet<Scope>>,
        cluster: Option<&ClusterId>,
    ) -> bool {
        let in_cluster = self.cluster().is_none_or(|own| cluster.is_none_or(|given| given == own));
        let own_scopes = self.0.key.as_ref().and_then(|key| key.scopes.as_ref());
        let in_scopes = own_scopes.is_none_or(|own| scopes.is_some_and(|given| given.is_subset(own)));
        role <= self.0.grant.role && in_cluster && in_scopes
    }

    fn may_see(&self, cluster: &str) -> bool {
        self.cluster().is_none_or(|own| own.as_str() == cluster)
    }

    fn has(&self, scope: Scope) -> bool {
        let narrowed = self.0.key.as_ref().and_then(|key| key.scopes.as_ref());
        self.0.grant.role >= scope.least_role()
            && !(scope.is_global() && self.cluster().is_some())
            && narrowed.is_none_or(|scopes| scopes.contains(&scope))
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
    let now = state.clock.wall();
    let caller = match api_keys::parts(token) {
        Some((id, secret)) => by_key(&state, id, secret, now).await?,
        None => Caller::by_token(state.tokens.judge(token, now).await?),
    };
    Span::current().record(CALLER_FIELD, caller.subject());
    if let Some(rates) = &state.rates {
        rates.take(&caller.identity(), state.clock.mono())?;
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

async fn by_key(state: &ApiState, id: &str, secret: &str, now: Timestamp) -> Result<Caller> {
    let record = state.store.get_api_key(id).await?;
    api_keys::check(record.as_ref(), secret, now)?;
    let record = record.ok_or(ApiKeyError::Unknown)?;
    state.store.note_api_key_used(&record, now).await?;
    Caller::by_key(record)
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
        let grant = Grant { subject: "ada".to_owned(), role, cluster };
        Caller::by_token(Bearer { grant, is_external: false })
    }

    fn key(role: Role, scopes: &[Scope]) -> Caller {
        let grant = Grant { subject: "ci".to_owned(), role, cluster: None };
        let key = KeyIdentity { id: "k".to_owned(), scopes: Some(scopes.iter().copied().collect()) };
        Caller(Arc::new(Identity { grant, key: Some(key), is_external: false }))
    }

    #[test]
    fn a_key_may_have_less_than_its_role_and_never_more() {
        let reader = key(Role::Admin, &[Scope::SessionsRead]);
        assert!(reader.has(Scope::SessionsRead) && !reader.has(Scope::SessionsWrite));
        assert!(!key(Role::Viewer, &[Scope::SessionsWrite]).has(Scope::SessionsWrite));
    }

    #[test]
    fn nobody_grants_more_than_is_theirs() {
        let (a, b) = (ClusterId::new("a").expect("an id"), ClusterId::new("b").expect("an id"));
        let bound = caller(Role::Admin, Some("a"));
        assert!(bound.may_grant(Role::Admin, None, None) && bound.may_grant(Role::Viewer, None, Some(&a)));
        assert!(!bound.may_grant(Role::Viewer, None, Some(&b)));
        assert!(!caller(Role::Operator, None).may_grant(Role::Admin, None, None));
        let narrow = key(Role::Admin, &[Scope::ApiKeysWrite]);
        let own = BTreeSet::from([Scope::ApiKeysWrite]);
        assert!(narrow.may_grant(Role::Admin, Some(&own), None));
        assert!(!narrow.may_grant(Role::Admin, None, None));
        assert!(!narrow.may_grant(Role::Admin, Some(&BTreeSet::from([Scope::SessionsRead])), None));
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
