//! `/v1/clusters/{cluster}/users`: whom the clients of a cluster may prove to be.
//!
//! A password comes in and never goes out: it is in no answer, no error and no log line.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::super::auth::Scope;
use super::super::change::Change;
use super::super::code::Code;
use super::super::etag::{ETag, IfMatch};
use super::super::extract::{self, ClusterPath, NO_BODY, NoBody, Query, UserPath, present};
use super::super::page::{Page, PageParams, Paging};
use super::super::problem::{Problem, Result};
use super::super::routes::Routes;
use super::super::state::ApiState;
use super::{existing_cluster, locked_cluster};
use crate::model::{Password, Timestamp, User, Username, Users};

pub(super) fn routes(routes: Routes) -> Routes {
    let list = [Code::StoreUnavailable, Code::PageTokenInvalid];
    let change = [Code::StoreUnavailable, Code::PreconditionFailed, Code::InvalidHeader];
    let put = [&change[..], &[Code::TooManyUsers]].concat();
    let delete = [&change[..], &NO_BODY, &[Code::UserNotFound]].concat();
    routes
        .add(Scope::UsersRead, &list, routes!(list_users))
        .add(Scope::UsersRead, &[Code::StoreUnavailable, Code::UserNotFound], routes!(get_user))
        .add_enforced(Scope::UsersWrite, &put, routes!(put_user))
        .add_enforced(Scope::UsersWrite, &delete, routes!(delete_user))
}

/// A user: whom a client may prove to be. Its password is never shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User, example = json!({
    "username": "meter-17", "is_superuser": false,
    "created_at": "2026-01-31T12:00:00.000Z", "updated_at": "2026-01-31T12:00:00.000Z", "version": 1
}))]
pub(super) struct UserView {
    /// Its name; never changes.
    username: Username,
    /// Whether it stands above the cluster's authorisation policies.
    is_superuser: bool,
    /// When it was made.
    created_at: Timestamp,
    /// When it last changed.
    updated_at: Timestamp,
    /// Counts the changes.
    #[schema(minimum = 1)]
    version: i64,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            username: user.username,
            is_superuser: user.is_superuser,
            created_at: user.created_at,
            updated_at: user.updated_at,
            version: user.version,
        }
    }
}

/// The record with its `ETag`.
fn tagged(status: StatusCode, user: User) -> Response {
    let tag = ETag::of_user(&user).header();
    (status, [(ETAG, tag)], Json(UserView::from(user))).into_response()
}

/// List the users of a cluster
///
/// In the byte order of their names.
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/users",
    tag = "users",
    params(ClusterPath, PageParams),
    responses((status = 200, description = "A page of users.", body = Page<UserView>))
)]
async fn list_users(
    State(state): State<ApiState>,
    path: ClusterPath,
    Query(params): Query<PageParams>,
) -> Result<Json<Page<UserView>>> {
    let bound = ("users", &path.cluster);
    let paging = Paging::<Username>::of(&params, &bound)?;
    let users = state.store.list_users(&path.cluster, paging.after.as_ref(), paging.limit()).await?;
    if users.is_empty() {
        existing_cluster(&state, &path.cluster).await?;
    }
    paging.page(users, |user| user.username.clone(), UserView::from).map(Json)
}

/// Get a user
#[utoipa::path(
    get,
    path = "/v1/clusters/{cluster}/users/{username}",
    tag = "users",
    params(UserPath),
    responses((
        status = 200,
        description = "The user.",
        body = UserView,
        headers(("ETag" = String, description = "The record's version."))
    ))
)]
async fn get_user(State(state): State<ApiState>, path: UserPath) -> Result<Response> {
    if let Some(user) = state.store.get_user(&path.cluster, &path.username).await? {
        return Ok(tagged(StatusCode::OK, user));
    }
    existing_cluster(&state, &path.cluster).await?;
    Err(Problem::user_not_found(&path.cluster, &path.username))
}

/// A user as it should be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserPut, example = json!({"password": "correct horse battery staple"}))]
struct UserPut {
    /// Its password: 1 to 1,024 bytes of UTF-8 without control characters and others that `SASLprep` (RFC
    /// 4013) refuses. A new user needs one; when it is not sent, that of an existing user stays.
    #[serde(default, deserialize_with = "password")]
    #[schema(value_type = String, required = false, nullable = false, write_only, min_length = 1, max_length = 1024)]
    password: Option<Password>,
    /// Whether it stands above the cluster's authorisation policies; false when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    is_superuser: Option<bool>,
}

/// Reads a password. What else is sent in its place may be one too: no error repeats it.
fn password<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Password>, D::Error> {
    use serde::de::Error;
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => Password::new(&text).map(Some).map_err(Error::custom),
        _ => Err(Error::custom("a password is a text")),
    }
}

/// Make or change a user
///
/// What is answered holds for the next CONNECT. Another password ends the connections that were let in by
/// the one before (0x98); the password that the user has already changes nothing.
#[utoipa::path(
    put,
    path = "/v1/clusters/{cluster}/users/{username}",
    tag = "users",
    params(UserPath, IfMatch),
    request_body = UserPut,
    responses(
        (
            status = 200,
            description = "The user as it is now.",
            body = UserView,
            headers(("ETag" = String, description = "The record's version."))
        ),
        (
            status = 201,
            description = "The user that was made.",
            body = UserView,
            headers(("ETag" = String, description = "The record's version."))
        )
    )
)]
async fn put_user(
    State(state): State<ApiState>,
    change: Change,
    path: UserPath,
    if_match: IfMatch,
    extract::Json(body): extract::Json<UserPut>,
) -> Result<Response> {
    let UserPath { cluster, username } = &path;
    let is_superuser = body.is_superuser.unwrap_or_default();
    // Before the transaction: nobody waits behind a lock for it.
    let secrets = match body.password {
        Some(password) => {
            let current = state.store.get_secrets(cluster, username).await?;
            Some(state.passwords.secrets(password, current).await.map_err(Problem::internal)?)
        }
        None => None,
    };
    let now = state.clock.wall();
    let mut tx = state.store.begin().await?;
    locked_cluster(&mut tx, cluster).await?;
    let current = tx.get_user(cluster, username).await?;
    if_match.check_maybe(current.as_ref().map(ETag::of_user))?;
    let before = current.clone().map(UserView::from);
    let (status, user) = match (current, secrets) {
        (None, None) => return Err(Problem::field(Code::InvalidBody, "/password", "a new user needs one")),
        (None, Some(secrets)) => {
            if tx.count_users(cluster).await? >= Users::COUNT_MAX {
                let detail = format!("cluster \"{cluster}\" has {} users", Users::COUNT_MAX);
                return Err(Problem::new(Code::TooManyUsers, detail));
            }
            (StatusCode::CREATED, tx.insert_user(cluster, username, &secrets, is_superuser, now).await?)
        }
        (Some(current), secrets) => {
            let new = secrets.filter(|secrets| secrets.id != current.secrets_id);
            if new.is_none() && is_superuser == current.is_superuser {
                return Ok(tagged(StatusCode::OK, current));
            }
            let changed = tx.update_user(cluster, username, new.as_ref(), is_superuser, now).await?;
            (StatusCode::OK, changed)
        }
    };
    change.commit(tx, before.as_ref(), tagged(status, user)).await
}

/// Delete a user
///
/// Its connections are ended (0x98), and nobody is let in as this user any more. Sessions stay, for a
/// client that comes back as another user.
#[utoipa::path(
    delete,
    path = "/v1/clusters/{cluster}/users/{username}",
    tag = "users",
    params(UserPath, IfMatch),
    responses((status = 204, description = "The user is gone."))
)]
async fn delete_user(
    State(state): State<ApiState>,
    change: Change,
    path: UserPath,
    if_match: IfMatch,
    _: NoBody,
) -> Result<Response> {
    let UserPath { cluster, username } = &path;
    let mut tx = state.store.begin().await?;
    locked_cluster(&mut tx, cluster).await?;
    let current = tx.get_user(cluster, username).await?;
    let current = current.ok_or_else(|| Problem::user_not_found(cluster, username))?;
    if_match.check(&ETag::of_user(&current))?;
    tx.delete_user(cluster, username).await?;
    let response = StatusCode::NO_CONTENT.into_response();
    change.commit(tx, Some(&UserView::from(current)), response).await
}
