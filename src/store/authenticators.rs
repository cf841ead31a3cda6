//! Authenticators of clusters.
//!
//! Each mutation gives the cluster another `authenticators_revision` and moves the desired revision on, in its
//! own transaction, which must have locked the cluster.

use std::sync::Arc;

use sqlx::types::{Json, Uuid};
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use super::{Error, Result, Store, Tx};
use crate::model::{Authenticator, AuthenticatorSettings, Authenticators, ClusterId, Timestamp};

macro_rules! columns {
    () => {
        "authenticator_id, position, description, is_enabled, settings, created_at, updated_at, version"
    };
}

// Every position is above -1.
const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM authenticators WHERE cluster_id = $1 AND position > $2 ORDER BY position LIMIT $3"
);

const GET: &str =
    concat!("SELECT ", columns!(), " FROM authenticators WHERE cluster_id = $1 AND authenticator_id = $2");

const COUNT: &str = "SELECT count(*) FROM authenticators WHERE cluster_id = $1";

const INSERT: &str = concat!(
    "INSERT INTO authenticators (cluster_id, ",
    columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $7, 1) RETURNING ",
    columns!()
);

const UPDATE: &str = concat!(
    "UPDATE authenticators SET position = $3, description = $4, is_enabled = $5, settings = $6, \
     updated_at = $7, version = version + 1 WHERE cluster_id = $1 AND authenticator_id = $2 RETURNING ",
    columns!()
);

const DELETE: &str = "DELETE FROM authenticators WHERE cluster_id = $1 AND authenticator_id = $2";

const BEGIN_REVISION: &str = "UPDATE clusters SET authenticators_revision = gen_random_uuid() WHERE id = $1";

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

impl Store {
    /// The next `limit` links of a cluster's chain with positions above `after`, in that order.
    pub async fn list_authenticators(
        &self,
        cluster: &ClusterId,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Vec<AuthenticatorRecord>> {
        let rows: Vec<Columns> = sqlx::query_as(LIST)
            .bind(cluster.as_str())
            .bind(after.map_or(Ok(-1), i32::try_from).map_err(Error::unreadable)?)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter().map(AuthenticatorRecord::try_from).collect()
    }

    /// A link.
    pub async fn get_authenticator(
        &self,
        cluster: &ClusterId,
        id: Uuid,
    ) -> Result<Option<AuthenticatorRecord>> {
        let row: Option<Columns> =
            sqlx::query_as(GET).bind(cluster.as_str()).bind(id).fetch_optional(&self.pool).await?;
        row.map(AuthenticatorRecord::try_from).transpose()
    }
}

impl Tx {
    /// A link, which nobody else changes while the cluster is locked.
    pub async fn get_authenticator(
        &mut self,
        cluster: &ClusterId,
        id: Uuid,
    ) -> Result<Option<AuthenticatorRecord>> {
        let row: Option<Columns> = sqlx::query_as(GET)
            .bind(cluster.as_str())
            .bind(id)
            .fetch_optional(&mut *self.transaction)
            .await?;
        row.map(AuthenticatorRecord::try_from).transpose()
    }

    /// How many links a cluster's chain has.
    pub async fn count_authenticators(&mut self, cluster: &ClusterId) -> Result<u32> {
        let count: i64 =
            sqlx::query_scalar(COUNT).bind(cluster.as_str()).fetch_one(&mut *self.transaction).await?;
        u32::try_from(count).map_err(Error::unreadable)
    }

    /// Makes a link in a cluster that this transaction has locked, or made.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another link of the cluster has the position.
    pub async fn insert_authenticator(
        &mut self,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewAuthenticator,
        now: Timestamp,
    ) -> Result<AuthenticatorRecord> {
        self.put_authenticator(INSERT, cluster, id, new, now).await
    }

    /// Makes a link that exists another, in a cluster that this transaction has locked.
    ///
    /// # Errors
    /// As [`Tx::insert_authenticator`].
    pub async fn update_authenticator(
        &mut self,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewAuthenticator,
        now: Timestamp,
    ) -> Result<AuthenticatorRecord> {
        self.put_authenticator(UPDATE, cluster, id, new, now).await
    }

    async fn put_authenticator(
        &mut self,
        statement: &'static str,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewAuthenticator,
        now: Timestamp,
    ) -> Result<AuthenticatorRecord> {
        let row: Columns = sqlx::query_as(statement)
            .bind(cluster.as_str())
            .bind(id)
            .bind(i32::try_from(new.position).map_err(Error::unreadable)?)
            .bind(new.description.as_deref())
            .bind(new.is_enabled)
            .bind(Json(&new.settings))
            .bind(OffsetDateTime::from(now))
            .fetch_one(&mut *self.transaction)
            .await?;
        self.begin_authenticators_revision(cluster).await?;
        row.try_into()
    }

    /// Deletes a link of a cluster that this transaction has locked. Says whether it existed.
    pub async fn delete_authenticator(&mut self, cluster: &ClusterId, id: Uuid) -> Result<bool> {
        let done =
            sqlx::query(DELETE).bind(cluster.as_str()).bind(id).execute(&mut *self.transaction).await?;
        let existed = done.rows_affected() > 0;
        if existed {
            self.begin_authenticators_revision(cluster).await?;
        }
        Ok(existed)
    }

    async fn begin_authenticators_revision(&mut self, cluster: &ClusterId) -> Result<()> {
        sqlx::query(BEGIN_REVISION).bind(cluster.as_str()).execute(&mut *self.transaction).await?;
        self.bump_desired_revision().await
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
    let rows: Vec<Columns> =
        sqlx::query_as(LIST).bind(cluster.as_str()).bind(-1).bind(i64::MAX).fetch_all(connection).await?;
    let link = |row| AuthenticatorRecord::try_from(row).map(|record| record.authenticator);
    Ok(Arc::new(Authenticators { revision, chain: rows.into_iter().map(link).collect::<Result<_>>()? }))
}

#[derive(FromRow)]
struct Columns {
    authenticator_id: Uuid,
    position: i32,
    description: Option<String>,
    is_enabled: bool,
    settings: Json<AuthenticatorSettings>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    version: i64,
}

impl TryFrom<Columns> for AuthenticatorRecord {
    type Error = Error;

    fn try_from(row: Columns) -> Result<Self> {
        Ok(Self {
            authenticator: Authenticator {
                id: row.authenticator_id,
                position: u32::try_from(row.position).map_err(Error::unreadable)?,
                is_enabled: row.is_enabled,
                settings: row.settings.0,
                version: row.version,
            },
            description: row.description,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
        })
    }
}
