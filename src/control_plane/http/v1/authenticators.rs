//! `/v1/clusters/{cluster}/authenticators`: the links of a cluster's authentication chain.
//!
//! Settings with which nothing could be checked are refused here, with a pointer. A secret comes in and never
//! goes out: it is in no answer, no error, no audit row and no log line.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{ETAG, LOCATION};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;
use uuid::Uuid;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::etag::{ETag, IfMatch};
use super::super::extract::{self, ClusterPath, NO_BODY, NoBody, Query, present};
use super::super::number::whole;
use super::super::page::{Page, PageParams, Paging};
use super::super::problem::{Problem, Result};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::access_paths::{AuthenticatorPath, Remark};
use super::authenticator_settings::{HttpBody, HttpView, JwtBody, JwtView, PasswordBody, TlsBody};
use super::{existing_cluster, locked_cluster};
use crate::credentials;
use crate::model::{Authenticator, AuthenticatorSettings, Authenticators, Timestamp};
use crate::seam::verdicts::{LinkTally, Verdicts};
use crate::store::{AuthenticatorRecord, NewAuthenticator, Tx};

pub(super) fn routes(routes: Routes) -> Routes {
    let list = [Code::StoreUnavailable, Code::PageTokenInvalid];
    let create = [Code::AuthenticatorPositionTaken, Code::TooManyAuthenticators];
    let matched = [Code::PreconditionFailed, Code::InvalidHeader, Code::AuthenticatorNotFound];
    let put = [&matched[..], &[Code::AuthenticatorPositionTaken]].concat();
    let delete = [&matched[..], &NO_BODY].concat();
    routes
        .add(Scope::AuthenticatorsRead, &list, routes!(list_authenticators))
        .add_enforced(Scope::AuthenticatorsWrite, &create, routes!(create_authenticator))
        .add(Scope::AuthenticatorsRead, &[Code::AuthenticatorNotFound], routes!(get_authenticator))
        .add_enforced(Scope::AuthenticatorsWrite, &put, routes!(put_authenticator))
        .add_enforced(Scope::AuthenticatorsWrite, &delete, routes!(delete_authenticator))
}

/// An authenticator: one link of the cluster's chain. Its secrets are never shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Authenticator, example = json!({
    "id": "019af8a0-5b7e-7c3d-9f1e-2a4b6c8d0e1f", "kind": "password", "position": 100, "enabled": true,
    "description": null, "password": {},
    "asked": {"allowed": 17, "denied": 0, "ignored": 2, "failures": 0, "last_failure": null, "last_failure_at": null},
    "created_at": "2026-01-31T12:00:00.000Z", "updated_at": "2026-01-31T12:00:00.000Z", "version": 1
}))]
struct AuthenticatorView {
    /// Its id; never changes.
    id: Uuid,
    /// How it knows clients: the section of that name has the settings.
    kind: &'static str,
    /// When it is asked: smaller first. No two of a cluster have the same.
    #[schema(minimum = 0, maximum = 1_000_000)]
    position: u32,
    /// Whether it is asked at all.
    enabled: bool,
    /// What people say of it.
    #[schema(required)]
    description: Option<String>,
    /// Users by their passwords.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    password: Option<PasswordBody>,
    /// JSON Web Tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    jwt: Option<JwtView>,
    /// Certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    tls: Option<TlsBody>,
    /// Another service.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    http: Option<HttpView>,
    /// What came of asking it since the service started.
    asked: AskedView,
    /// When it was made.
    created_at: Timestamp,
    /// When it last changed.
    updated_at: Timestamp,
    /// Counts the changes.
    #[schema(minimum = 1)]
    version: i64,
}

/// What came of asking an authenticator since the service started.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = AuthenticatorAsked)]
struct AskedView {
    /// How often it let a client in.
    #[schema(minimum = 0)]
    allowed: u64,
    /// How often it turned one away.
    #[schema(minimum = 0)]
    denied: u64,
    /// How often it knew nothing of a client, failures included.
    #[schema(minimum = 0)]
    ignored: u64,
    /// How often it could not be asked, or gave no answer that can be understood.
    #[schema(minimum = 0)]
    failures: u64,
    /// What was wrong the last time.
    #[schema(required)]
    last_failure: Option<String>,
    /// When that was.
    #[schema(required)]
    last_failure_at: Option<Timestamp>,
}

impl From<LinkTally> for AskedView {
    fn from(tally: LinkTally) -> Self {
        let LinkTally { allowed, denied, ignored, failures, last_failure, .. } = tally;
        let (last_failure_at, last_failure) = last_failure.unzip();
        Self { allowed, denied, ignored, failures, last_failure, last_failure_at }
    }
}

impl AuthenticatorView {
    fn new(record: AuthenticatorRecord, verdicts: &Verdicts) -> Self {
        let AuthenticatorRecord { authenticator, description, created_at, updated_at } = record;
        let Authenticator { id, position, is_enabled, settings, version } = authenticator;
        let kind = settings.kind();
        let (mut password, mut jwt, mut tls, mut http) = (None, None, None, None);
        match settings {
            AuthenticatorSettings::Password => password = Some(PasswordBody {}),
            AuthenticatorSettings::Jwt(settings) => jwt = Some(settings.into()),
            AuthenticatorSettings::Tls(settings) => tls = Some(settings.into()),
            AuthenticatorSettings::Http(settings) => http = Some(settings.into()),
        }
        let asked = verdicts.of(id).map(AskedView::from).unwrap_or_default();
        let enabled = is_enabled;
        Self {
            id,
            kind,
            position,
            enabled,
            description,
            password,
            jwt,
            tls,
            http,
            asked,
            created_at,
            updated_at,
            version,
        }
    }
}

/// The record with its `ETag`.
fn tagged(status: StatusCode, record: AuthenticatorRecord, verdicts: &Verdicts) -> Response {
    let tag = ETag::of_record(record.authenticator.id, record.authenticator.version).header();
    (status, [(ETAG, tag)], Json(AuthenticatorView::new(record, verdicts))).into_response()
}

/// List the authenticators of a cluster
///
/// In the order in which they are asked. A new cluster has one: users, by their passwords.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/authenticators",
    tag = "access",
    params(ClusterPath, PageParams),
    responses((status = 200, description = "A page of authenticators.", body = Page<AuthenticatorView>))
)]
async fn list_authenticators(
    State(state): State<ApiState>,
    path: ClusterPath,
    Query(params): Query<PageParams>,
) -> Result<Json<Page<AuthenticatorView>>> {
    let bound = ("authenticators", &path.cluster);
    let paging = Paging::<u32>::of(&params, &bound)?;
    // What no list has given out.
    let after = paging.after.map(|position| position.min(Authenticator::POSITION_MAX));
    let records = state.store.list_items::<AuthenticatorRecord>(&path.cluster, after, paging.limit()).await?;
    if records.is_empty() {
        existing_cluster(&state, &path.cluster).await?;
    }
    let verdicts = Arc::clone(&state.verdicts);
    let view = move |record| AuthenticatorView::new(record, &verdicts);
    paging.page(records, |record| record.authenticator.position, view).map(Json)
}

/// Get an authenticator
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/authenticators/{authenticator_id}",
    tag = "access",
    params(AuthenticatorPath),
    responses((
        status = 200,
        description = "The authenticator.",
        body = AuthenticatorView,
        headers(("ETag" = String, description = "The record's version."))
    ))
)]
async fn get_authenticator(State(state): State<ApiState>, path: AuthenticatorPath) -> Result<Response> {
    if let Some(id) = path.id()
        && let Some(record) = state.store.get_item::<AuthenticatorRecord>(&path.cluster, id).await?
    {
        return Ok(tagged(StatusCode::OK, record, &state.verdicts));
    }
    existing_cluster(&state, &path.cluster).await?;
    Err(path.not_found())
}

/// An authenticator as it should be: with exactly one of `password`, `jwt`, `tls` and `http`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AuthenticatorPut, example = json!({
    "position": 200, "jwt": {"jwks_url": "https://issuer.example.com/keys", "claims": {"aud": "mqtt"}}
}))]
struct AuthenticatorPut {
    /// When it is asked: smaller first. No two of a cluster have the same.
    #[schema(minimum = 0, maximum = 1_000_000)]
    #[serde(deserialize_with = "whole")]
    position: u32,
    /// Whether it is asked at all; true when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    enabled: Option<bool>,
    /// What people say of it: up to 256 characters.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, value_type = String, required = false, min_length = 1, max_length = 256)]
    description: Option<Remark>,
    /// Users by their passwords.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    password: Option<PasswordBody>,
    /// JSON Web Tokens.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    jwt: Option<JwtBody>,
    /// Certificates.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    tls: Option<TlsBody>,
    /// Another service.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    http: Option<HttpBody>,
}

impl AuthenticatorPut {
    /// What is not sent of secrets is as in `current`.
    fn checked(self, current: Option<&AuthenticatorSettings>) -> Result<NewAuthenticator> {
        let field = |pointer: &str, detail: String| Problem::field(Code::InvalidBody, pointer, detail);
        if self.position > Authenticator::POSITION_MAX {
            return Err(field("/position", format!("at most {}", Authenticator::POSITION_MAX)));
        }
        let settings = match (self.password, self.jwt, self.tls, self.http) {
            (Some(_), None, None, None) => AuthenticatorSettings::Password,
            (None, Some(jwt), None, None) => jwt.settings(current)?,
            (None, None, Some(tls), None) => tls.settings()?,
            (None, None, None, Some(http)) => http.settings(current)?,
            _ => return Err(field("", "exactly one of password, jwt, tls and http".to_owned())),
        };
        let kind = settings.kind();
        if current.is_some_and(|current| current.kind() != kind) {
            return Err(field(&format!("/{kind}"), "its kind never changes: make another one".to_owned()));
        }
        credentials::check(&settings)
            .map_err(|error| field(&format!("/{kind}{}", error.pointer), error.why))?;
        Ok(NewAuthenticator {
            position: self.position,
            description: self.description.map(Remark::into_string),
            is_enabled: self.enabled.unwrap_or(true),
            settings,
        })
    }
}

/// Create an authenticator
///
/// It is asked from the next CONNECT on.
#[utoipa::path(
    post,
    path = "/v1/clusters/{cluster}/authenticators",
    tag = "access",
    params(ClusterPath),
    request_body = AuthenticatorPut,
    responses((
        status = 201,
        description = "The authenticator that was made.",
        body = AuthenticatorView,
        headers(
            ("ETag" = String, description = "The record's version."),
            ("Location" = String, description = "Its path.")
        )
    ))
)]
async fn create_authenticator(
    State(state): State<ApiState>,
    change: Change,
    path: ClusterPath,
    extract::Json(body): extract::Json<AuthenticatorPut>,
) -> Result<Response> {
    let (cluster, new) = (&path.cluster, body.checked(None)?);
    let mut tx = state.store.begin().await?;
    locked_cluster(&mut tx, cluster).await?;
    if tx.count_items::<AuthenticatorRecord>(cluster).await? >= Authenticators::COUNT_MAX {
        let detail = format!("cluster \"{cluster}\" has {} authenticators", Authenticators::COUNT_MAX);
        return Err(Problem::new(Code::TooManyAuthenticators, detail));
    }
    let record =
        tx.insert_item::<AuthenticatorRecord>(cluster, Uuid::now_v7(), &new, state.clock.wall()).await?;
    let location = format!("/v1/clusters/{cluster}/authenticators/{}", record.authenticator.id);
    let response = tagged(StatusCode::CREATED, record, &state.verdicts);
    let response = ([(LOCATION, location)], response).into_response();
    change.commit(tx, None::<&()>, response).await
}

/// The authenticator as it is, in a transaction that has locked its cluster.
async fn locked(tx: &mut Tx, path: &AuthenticatorPath, if_match: &IfMatch) -> Result<AuthenticatorRecord> {
    let cluster = &path.cluster;
    locked_cluster(tx, cluster).await?;
    let id = path.id().ok_or_else(|| path.not_found())?;
    let current = tx.get_item::<AuthenticatorRecord>(cluster, id).await?.ok_or_else(|| path.not_found())?;
    if_match.check(&ETag::of_record(current.authenticator.id, current.authenticator.version))?;
    Ok(current)
}

/// Change an authenticator
///
/// All of it is replaced, but its kind, and secrets that are not sent. It holds from the next CONNECT on. A
/// connection that it has let in goes on, unless the authenticator is disabled now or has revoked its
/// certificate: then it is ended (0x98).
#[utoipa::path(
    put,
    path = "/v1/clusters/{cluster}/authenticators/{authenticator_id}",
    tag = "access",
    params(AuthenticatorPath, IfMatch),
    request_body = AuthenticatorPut,
    responses((
        status = 200,
        description = "The authenticator as it is now.",
        body = AuthenticatorView,
        headers(("ETag" = String, description = "The record's version."))
    ))
)]
async fn put_authenticator(
    State(state): State<ApiState>,
    change: Change,
    path: AuthenticatorPath,
    if_match: IfMatch,
    extract::Json(body): extract::Json<AuthenticatorPut>,
) -> Result<Response> {
    let mut tx = state.store.begin().await?;
    let current = locked(&mut tx, &path, &if_match).await?;
    let new = body.checked(Some(&current.authenticator.settings))?;
    let (id, now) = (current.authenticator.id, state.clock.wall());
    let updated = tx.update_item::<AuthenticatorRecord>(&path.cluster, id, &new, now).await?;
    let response = tagged(StatusCode::OK, updated, &state.verdicts);
    let before = AuthenticatorView::new(current, &state.verdicts);
    change.commit(tx, Some(&before), response).await
}

/// Delete an authenticator
///
/// The connections that it has let in are ended (0x98).
#[utoipa::path(
    delete,
    path = "/v1/clusters/{cluster}/authenticators/{authenticator_id}",
    tag = "access",
    params(AuthenticatorPath, IfMatch),
    responses((status = 204, description = "The authenticator is gone."))
)]
async fn delete_authenticator(
    State(state): State<ApiState>,
    change: Change,
    path: AuthenticatorPath,
    if_match: IfMatch,
    _: NoBody,
) -> Result<Response> {
    let mut tx = state.store.begin().await?;
    let current = locked(&mut tx, &path, &if_match).await?;
    tx.delete_item::<AuthenticatorRecord>(&path.cluster, current.authenticator.id).await?;
    let response = StatusCode::NO_CONTENT.into_response();
    let before = AuthenticatorView::new(current, &state.verdicts);
    change.commit(tx, Some(&before), response).await
}
