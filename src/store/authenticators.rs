//! Authenticators of clusters.

use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::types::{Json, Uuid};
use sqlx::{FromRow, PgConnection, Row};

use super::cluster_items::{ClusterItem, Put, all_items, json, place, time};
use super::{Error, Result};
use crate::model::{Authenticator, AuthenticatorSettings, Authenticators, ClusterId, Timestamp};

macro_rules! columns {
    () => {
        "authenticator_id, position, description, is_enabled, settings, created_at, updated_at, version"
    };
}

/// An authenticator as it is kept.
#[derive(Clone, Debug)]
pub struct AuthenticatorRecord {
    /// The link.
    pub authenticator: Authenticator,
    /// What people say of it.
    pub description: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// An authenticator as it should be.
#[derive(Clone, Debug)]
pub struct NewAuthenticator {
    /// When it is asked.
    pub position: u32,
    /// What people say of it.
    pub description: Option<String>,
    /// Whether it is asked at all.
    pub is_enabled: bool,
    /// How it knows clients.
    pub settings: AuthenticatorSettings,
}

impl NewAuthenticator {
    /// The link that every cluster begins with.
    pub(super) fn first() -> Self {
        Self {
            position: Authenticator::POSITION_OF_FIRST,
            description: None,
            is_enabled: true,
            settings: AuthenticatorSettings::Password,
        }
    }
}

impl ClusterItem for AuthenticatorRecord {
    type New = NewAuthenticator;
    type Key = u32;

    const LIST: &'static str = concat!(
        "SELECT ",
        columns!(),
        " FROM authenticators WHERE cluster_id = $1 AND position > $2 ORDER BY position LIMIT $3"
    );
    const GET: &'static str = concat!(
        "SELECT ",
        columns!(),
        " FROM authenticators WHERE cluster_id = $1 AND authenticator_id = $2"
    );
    const COUNT: &'static str = "SELECT count(*) FROM authenticators WHERE cluster_id = $1";
    const INSERT: &'static str = concat!(
        "INSERT INTO authenticators (cluster_id, ",
        columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $7, 1) RETURNING ",
        columns!()
    );
    const UPDATE: &'static str = concat!(
        "UPDATE authenticators SET position = $3, description = $4, is_enabled = $5, settings = $6, \
         updated_at = $7, version = version + 1 WHERE cluster_id = $1 AND authenticator_id = $2 RETURNING ",
        columns!()
    );
    const DELETE: &'static str = "DELETE FROM authenticators WHERE cluster_id = $1 AND authenticator_id = $2";
    const BEGIN_REVISION: &'static str =
        "UPDATE clusters SET authenticators_revision = gen_random_uuid() WHERE id = $1";

    fn bind<'q>(put: Put<'q, Self>, new: &'q NewAuthenticator) -> Result<Put<'q, Self>> {
        Ok(put
            .bind(i32::try_from(new.position).map_err(Error::unreadable)?)
            .bind(new.description.as_deref())
            .bind(new.is_enabled)
            .bind(Json(&new.settings)))
    }
}

impl FromRow<'_, PgRow> for AuthenticatorRecord {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            authenticator: Authenticator {
                id: row.try_get("authenticator_id")?,
                position: place(row, "position")?,
                is_enabled: row.try_get("is_enabled")?,
                settings: json(row, "settings")?,
                version: row.try_get("version")?,
            },
            description: row.try_get("description")?,
            created_at: time(row, "created_at")?,
            updated_at: time(row, "updated_at")?,
        })
    }
}

/// The chain of a cluster whose `authenticators_revision` is `revision`: the known one when it is still that.
pub(super) async fn authenticators(
    connection: &mut PgConnection,
    cluster: &ClusterId,
    revision: Uuid,
    known: Option<&Arc<Authenticators>>,
) -> Result<Arc<Authenticators>> {
    if let Some(known) = known.filter(|known| known.revision == revision) {
        return Ok(Arc::clone(known));
    }
    let records: Vec<AuthenticatorRecord> = all_items(connection, cluster).await?;
    let chain = records.into_iter().map(|record| record.authenticator).collect();
    Ok(Arc::new(Authenticators { revision, chain }))
}
