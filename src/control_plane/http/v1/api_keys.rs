//! `/v1/api-keys`: what programs send in place of a token.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{FromRequestParts, RawPathParams, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::super::auth::{Caller, Scope};
use super::super::change::Change;
use super::super::code::Code;
use super::super::extract::{self, NO_BODY, NoBody, Query, present};
use super::super::page::{Page, PageParams, Paging};
use super::super::problem::{Problem, Result};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::existing_cluster;
use super::labels::Name;
use crate::control_plane::api_keys::FreshKey;
use crate::control_plane::tokens::Role;
use crate::model::{ClusterId, Timestamp};
use crate::store::{ApiKeyRecord, NewApiKey};

pub(super) fn routes(routes: Routes) -> Routes {
    let list = [Code::StoreUnavailable, Code::PageTokenInvalid];
    let one = [Code::StoreUnavailable, Code::ApiKeyNotFound];
    let revoke = [&one[..], &NO_BODY].concat();
    routes
        .add(Scope::ApiKeysRead, &list, routes!(list_api_keys))
        .add(Scope::ApiKeysWrite, &[Code::ClusterNotFound], routes!(create_api_key))
        .add(Scope::ApiKeysRead, &one, routes!(get_api_key))
        .add(Scope::ApiKeysWrite, &revoke, routes!(revoke_api_key))
}

/// An API key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey, example = json!({
    "id": "3f9c2a7b1d0e4c58", "name": "dashboard", "role": "viewer", "scopes": null, "cluster": "default",
    "created_by": "ada", "created_at": "2026-01-31T12:00:00.000Z", "expires_at": null, "revoked_at": null,
    "last_used_at": "2026-01-31T14:00:00.000Z"
}))]
struct ApiKeyView {
    /// Its public part, which the audit log names.
    #[schema(example = "3f9c2a7b1d0e4c58")]
    id: String,
    /// What people call it.
    name: String,
    /// Its role.
    role: Role,
    /// What of the role it has; null for all of it.
    #[schema(required)]
    scopes: Option<Vec<Scope>>,
    /// The one cluster that exists for it; null for all of them.
    #[schema(required)]
    cluster: Option<ClusterId>,
    /// Who made it.
    #[schema(example = "ada")]
    created_by: String,
    /// When it was made.
    created_at: Timestamp,
    /// When it ends by itself; null for never.
    #[schema(required)]
    expires_at: Option<Timestamp>,
    /// When it was revoked; null while it is good.
    #[schema(required)]
    revoked_at: Option<Timestamp>,
    /// When it was last used, to the minute; null for never.
    #[schema(required)]
    last_used_at: Option<Timestamp>,
}

impl TryFrom<ApiKeyRecord> for ApiKeyView {
    type Error = Problem;

    fn try_from(record: ApiKeyRecord) -> Result<Self> {
        let key = record.key;
        Ok(Self {
            role: key.role.parse().map_err(Problem::internal)?,
            scopes: key.scopes.map(|words| words.iter().filter_map(|word| Scope::parse(word)).collect()),
            id: key.id,
            name: key.name,
            cluster: key.cluster,
            created_by: key.created_by,
            created_at: record.created_at,
            expires_at: key.expires_at,
            revoked_at: record.revoked_at,
            last_used_at: record.last_used_at,
        })
    }
}

/// An API key that was just made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "api_key": {
        "id": "3f9c2a7b1d0e4c58", "name": "dashboard", "role": "viewer", "scopes": null, "cluster": "default",
        "created_by": "ada", "created_at": "2026-01-31T12:00:00.000Z", "expires_at": null, "revoked_at": null,
        "last_used_at": null
    },
    "key": "hfk_3f9c2a7b1d0e4c58_Zm9yIHRoZSBleGFtcGxlIG9ubHksIG5vdCBhIGtleSE"
}))]
struct ApiKeyCreated {
    /// Its record.
    api_key: ApiKeyView,
    /// The whole key: send it as `Authorization: Bearer {key}`. Shown this once; null when the answer is
    /// given again for an `Idempotency-Key`, because it is not kept.
    #[schema(required, example = "hfk_3f9c2a7b1d0e4c58_Zm9yIHRoZSBleGFtcGxlIG9ubHksIG5vdCBhIGtleSE")]
    key: Option<String>,
}

/// List the API keys
///
/// In order of their ids, revoked and expired ones too. A token that is bound to a cluster sees the keys that
/// are bound to it.
#[utoipa::path(
    get,
    path = "/v1/api-keys",
    tag = "access",
    params(PageParams),
    responses((status = 200, description = "A page of keys.", body = Page<ApiKeyView>))
)]
async fn list_api_keys(
    State(state): State<ApiState>,
    caller: Caller,
    Query(params): Query<PageParams>,
) -> Result<Json<Page<ApiKeyView>>> {
    let bound = ("api-keys", caller.cluster());
    let paging = Paging::<String>::of(&params, &bound)?;
    let rows = state.store.list_api_keys(caller.cluster(), paging.after.as_deref(), paging.limit()).await?;
    let page = paging.page(rows, |record| record.key.id.clone(), ApiKeyView::try_from)?;
    let items = page.items.into_iter().collect::<Result<_>>()?;
    Ok(Json(Page { items, next_page_token: page.next_page_token }))
}

/// An API key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "dashboard", "role": "viewer"}))]
struct ApiKeyCreate {
    /// What people call it.
    name: Name,
    /// Its role; at most that of its maker.
    role: Role,
    /// What of the role it has; all of it when not sent. Each must be one that the role has.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Vec<Scope>, required = false, nullable = false, min_items = 1)]
    scopes: Option<BTreeSet<Scope>>,
    /// The one cluster that exists for it; when not sent all of them, or the one that its maker is bound to.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    cluster: Option<ClusterId>,
    /// When it ends by itself; never when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    expires_at: Option<Timestamp>,
}

impl ApiKeyCreate {
    /// Refuses what contradicts itself, and what would have more rights than its maker.
    fn check(&self, caller: &Caller, now: Timestamp) -> Result<()> {
        let field = |pointer: &str, detail: String| Err(Problem::field(Code::InvalidBody, pointer, detail));
        if self.scopes.as_ref().is_some_and(BTreeSet::is_empty) {
            return field("/scopes", "at least one".to_owned());
        }
        let beyond = self.scopes.iter().flatten().find(|scope| scope.least_role() > self.role);
        if let Some(scope) = beyond {
            return field("/scopes", format!("the role {} does not have {}", self.role, scope.as_str()));
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return field("/expires_at", "it has passed already".to_owned());
        }
        if !caller.may_grant(self.role, self.scopes.as_ref(), self.cluster.as_ref()) {
            let detail = "a key has no more rights than who makes it";
            return Err(Problem::new(Code::Forbidden, detail));
        }
        Ok(())
    }
}

/// Create an API key
///
/// The answer is the only place where the key is shown.
#[utoipa::path(
    post,
    path = "/v1/api-keys",
    tag = "access",
    request_body = ApiKeyCreate,
    responses((
        status = 201,
        description = "The key that was made.",
        body = ApiKeyCreated,
        headers(("Location" = String, description = "Its path."))
    ))
)]
async fn create_api_key(
    State(state): State<ApiState>,
    caller: Caller,
    change: Change,
    extract::Json(body): extract::Json<ApiKeyCreate>,
) -> Result<Response> {
    let now = state.clock.wall();
    body.check(&caller, now)?;
    let cluster = body.cluster.or_else(|| caller.cluster().cloned());
    if let Some(cluster) = &cluster {
        existing_cluster(&state, cluster).await?;
    }
    let fresh = FreshKey::make().map_err(Problem::internal)?;
    let new = NewApiKey {
        id: fresh.id,
        name: body.name.into_string(),
        secret_hash: fresh.secret_hash,
        role: body.role.to_string(),
        scopes: body.scopes.map(|scopes| scopes.iter().map(|scope| scope.as_str().to_owned()).collect()),
        cluster,
        created_by: caller.subject().to_owned(),
        expires_at: body.expires_at,
    };
    let mut tx = state.store.begin().await?;
    let record = ApiKeyView::try_from(tx.insert_api_key(&new, now).await?)?;
    let location = [(LOCATION, format!("/v1/api-keys/{}", record.id))];
    let mut created = ApiKeyCreated { api_key: record, key: None };
    let shown = serde_json::to_value(&created).map_err(Problem::internal)?;
    created.key = Some(fresh.text);
    let response = (StatusCode::CREATED, location, Json(created)).into_response();
    change.commit_secret(tx, &shown, response).await
}

/// The key that a path names.
#[derive(Clone, Debug, IntoParams)]
#[into_params(parameter_in = Path)]
struct KeyPath {
    /// The key's id.
    #[param(example = "3f9c2a7b1d0e4c58")]
    key_id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for KeyPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let path = RawPathParams::from_request_parts(parts, state).await;
        let path =
            path.map_err(|error| Problem::parameter(Code::InvalidParameter, "key_id", error.body_text()))?;
        let key_id = path.iter().find(|(name, _)| *name == "key_id").map(|(_, value)| value.to_owned());
        let key_id = key_id.ok_or_else(|| Problem::internal("the route has no parameter key_id"))?;
        Ok(Self { key_id })
    }
}

/// The key, or 404: also for one that the caller's token may not see.
async fn existing_key(state: &ApiState, caller: &Caller, path: &KeyPath) -> Result<ApiKeyRecord> {
    let found = state.store.get_api_key(&path.key_id).await?;
    let seen =
        found.filter(|record| caller.cluster().is_none_or(|own| record.key.cluster.as_ref() == Some(own)));
    seen.ok_or_else(|| Problem::new(Code::ApiKeyNotFound, format!("there is no API key \"{}\"", path.key_id)))
}

/// Get an API key
#[utoipa::path(
    get,
    path = "/v1/api-keys/{key_id}",
    tag = "access",
    params(KeyPath),
    responses((status = 200, description = "The key, without its secret.", body = ApiKeyView))
)]
async fn get_api_key(
    State(state): State<ApiState>,
    caller: Caller,
    path: KeyPath,
) -> Result<Json<ApiKeyView>> {
    existing_key(&state, &caller, &path).await?.try_into().map(Json)
}

/// Revoke an API key
///
/// Requests with it are refused from now on. Its record stays, for the audit log. Revoking it once more
/// changes nothing.
#[utoipa::path(
    delete,
    path = "/v1/api-keys/{key_id}",
    tag = "access",
    params(KeyPath),
    responses((status = 200, description = "The key as it is now.", body = ApiKeyView))
)]
async fn revoke_api_key(
    State(state): State<ApiState>,
    caller: Caller,
    change: Change,
    path: KeyPath,
    _: NoBody,
) -> Result<Response> {
    let before = ApiKeyView::try_from(existing_key(&state, &caller, &path).await?)?;
    let mut tx = state.store.begin().await?;
    let revoked = tx.revoke_api_key(&path.key_id, state.clock.wall()).await?;
    let response = Json(ApiKeyView::try_from(revoked)?).into_response();
    change.commit(tx, Some(&before), response).await
}
