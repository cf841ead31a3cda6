//! What a path names: a cluster, and something in it. Percent-decoded, and refused where it cannot be a name.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use utoipa::IntoParams;

use super::code::Code;
use super::problem::{Problem, Result};
use crate::model::{ClientId, ClusterId, TopicFilter, Username};
use crate::store::FILTER_BYTES_MAX;

/// The cluster that a path names.
#[derive(Clone, Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ClusterPath {
    /// The cluster's id.
    #[param(example = "default")]
    pub(super) cluster: ClusterId,
}

impl<S: Send + Sync> FromRequestParts<S> for ClusterPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let cluster = segment(parts, state, "cluster").await?;
        // What cannot be an id is the id of no cluster.
        let cluster = ClusterId::new(&cluster).map_err(|_| Problem::cluster_not_found(&cluster))?;
        Ok(Self { cluster })
    }
}

/// The session that a path names.
#[derive(Clone, Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct SessionPath {
    /// The cluster's id.
    #[param(example = "default")]
    pub(super) cluster: ClusterId,
    /// The client's id, percent-encoded: a `/` in it is written `%2F`.
    #[param(example = "meter-17")]
    pub(super) client_id: ClientId,
}

impl<S: Send + Sync> FromRequestParts<S> for SessionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let ClusterPath { cluster } = ClusterPath::from_request_parts(parts, state).await?;
        let client_id = segment(parts, state, "client_id").await?;
        let client_id = ClientId::new(&client_id)
            .map_err(|error| Problem::parameter(Code::InvalidParameter, "client_id", error.to_string()))?;
        Ok(Self { cluster, client_id })
    }
}

/// The user that a path names.
#[derive(Clone, Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct UserPath {
    /// The cluster's id.
    #[param(example = "default")]
    pub(super) cluster: ClusterId,
    /// The user's name, percent-encoded: a `/` in it is written `%2F`.
    #[param(example = "meter-17")]
    pub(super) username: Username,
}

impl<S: Send + Sync> FromRequestParts<S> for UserPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let ClusterPath { cluster } = ClusterPath::from_request_parts(parts, state).await?;
        let username = segment(parts, state, "username").await?;
        let username = Username::new(&username)
            .map_err(|error| Problem::parameter(Code::InvalidParameter, "username", error.to_string()))?;
        Ok(Self { cluster, username })
    }
}

/// The subscription that a path names.
#[derive(Clone, Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct SubscriptionPath {
    /// The cluster's id.
    #[param(example = "default")]
    pub(super) cluster: ClusterId,
    /// The client's id, percent-encoded: a `/` in it is written `%2F`.
    #[param(example = "meter-17")]
    pub(super) client_id: ClientId,
    /// The topic filter, `$share/{group}/` included, percent-encoded: `/` is written `%2F`, `#` `%23`, `+` may
    /// stay.
    #[param(value_type = String, min_length = 1, max_length = 2048, example = "site%2F%2B%2Fupdate")]
    pub(super) filter: TopicFilter,
}

impl SubscriptionPath {
    /// The session in it.
    pub(super) fn session(&self) -> SessionPath {
        SessionPath { cluster: self.cluster.clone(), client_id: self.client_id.clone() }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SubscriptionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let SessionPath { cluster, client_id } = SessionPath::from_request_parts(parts, state).await?;
        let filter = segment(parts, state, "filter").await?;
        let filter = TopicFilter::new(&filter)
            .map_err(|error| Problem::parameter(Code::InvalidParameter, "filter", error.to_string()))?;
        Ok(Self { cluster, client_id, filter })
    }
}

/// The shared group that a path names.
#[derive(Clone, Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct GroupPath {
    /// The cluster's id.
    #[param(example = "default")]
    pub(super) cluster: ClusterId,
    /// The whole filter of the shared subscription, percent-encoded: `$share/readers/meters/+/power` is written
    /// `$share%2Freaders%2Fmeters%2F+%2Fpower`.
    #[param(value_type = String, example = "$share/readers/meters/+/power")]
    pub(super) group: TopicFilter,
}

impl<S: Send + Sync> FromRequestParts<S> for GroupPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let ClusterPath { cluster } = ClusterPath::from_request_parts(parts, state).await?;
        let text = segment(parts, state, "group").await?;
        let refused = |why: String| Problem::parameter(Code::InvalidParameter, "group", why);
        let group = TopicFilter::new(&text).map_err(|error| refused(error.to_string()))?;
        if group.shared().is_none() {
            return Err(refused(
                "the whole filter of a shared subscription: $share/{name}/{filter}".to_owned(),
            ));
        }
        if group.as_str().len() > FILTER_BYTES_MAX {
            return Err(refused(format!("at most {FILTER_BYTES_MAX} bytes")));
        }
        Ok(Self { cluster, group })
    }
}

/// A part of the path, percent-decoded.
pub(super) async fn segment<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Result<String> {
    let path = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|error| Problem::parameter(Code::InvalidParameter, name, error.body_text()))?;
    let found = path.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    found.ok_or_else(|| Problem::internal(format!("the route has no parameter {name}")))
}
