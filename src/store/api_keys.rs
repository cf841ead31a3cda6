//! API keys: made once, looked up at every request that uses one, revoked and never deleted.

use std::time::Duration;

use sqlx::types::Json;
use time::OffsetDateTime;

use super::{Error, Result, Store, Tx};
use crate::model::{ClusterId, Timestamp};

/// How exactly it is known when a key was last used: not every request writes a row.
const LAST_USED_EVERY: Duration = Duration::from_mins(1);

macro_rules! key_columns {
    () => {
        "id, name, secret_hash, role, scopes, cluster_id, created_by, created_at, expires_at, revoked_at, \
         last_used_at"
    };
}

const INSERT: &str = concat!(
    "INSERT INTO api_keys (",
    key_columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, NULL, NULL) RETURNING ",
    key_columns!()
);

const GET: &str = concat!("SELECT ", key_columns!(), " FROM api_keys WHERE id = $1");

const LIST: &str = concat!("SELECT ", key_columns!(), " FROM api_keys WHERE id > $1 ORDER BY id LIMIT $2");

const LIST_OF_CLUSTER: &str = concat!(
    "SELECT ",
    key_columns!(),
    " FROM api_keys WHERE cluster_id = $3 AND id > $1 ORDER BY id LIMIT $2"
);

// The first revocation is the one that counts.
const REVOKE: &str = concat!(
    "UPDATE api_keys SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1 RETURNING ",
    key_columns!()
);

const USED: &str =
    "UPDATE api_keys SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at <= $3)";

/// A key that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewApiKey {
    /// The public part.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// SHA-256 of the secret part.
    pub secret_hash: Vec<u8>,
    /// The word of its role.
    pub role: String,
    /// What of the role it has, as words; `None` for all of it.
    pub scopes: Option<Vec<String>>,
    /// The one cluster that exists for it.
    pub cluster: Option<ClusterId>,
    /// Who made it.
    pub created_by: String,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
}

/// A key as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// What it was made of.
    pub key: NewApiKey,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
}

impl Store {
    /// The key of that id, revoked and expired ones too.
    pub async fn get_api_key(&self, id: &str) -> Result<Option<ApiKeyRecord>> {
        if id.contains('\0') {
            return Ok(None);
        }
        let row: Option<KeyColumns> = sqlx::query_as(GET).bind(id).fetch_optional(&self.pool).await?;
        row.map(ApiKeyRecord::try_from).transpose()
    }

    /// The next `limit` keys with ids above `after`, of all clusters or of one.
    pub async fn list_api_keys(
        &self,
        cluster: Option<&ClusterId>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ApiKeyRecord>> {
        let sql = if cluster.is_some() { LIST_OF_CLUSTER } else { LIST };
        let mut query = sqlx::query_as(sql).bind(after.unwrap_or_default()).bind(i64::from(limit));
        if let Some(cluster) = cluster {
            query = query.bind(cluster.as_str());
        }
        let rows: Vec<KeyColumns> = query.fetch_all(&self.pool).await?;
        rows.into_iter().map(ApiKeyRecord::try_from).collect()
    }

    /// Notes that a key is used, unless that was noted within the last minute.
    pub async fn note_api_key_used(&self, record: &ApiKeyRecord, now: Timestamp) -> Result<()> {
        let stale = record.last_used_at.is_none_or(|used| now.since(used) >= LAST_USED_EVERY);
        if stale {
            let at = OffsetDateTime::from(now);
            let query = sqlx::query(USED).bind(&record.key.id).bind(at).bind(at - LAST_USED_EVERY);
            query.execute(&self.pool).await?;
        }
        Ok(())
    }
}

impl Tx {
    /// Makes a key.
    ///
    /// # Errors
    /// [`Error::Conflict`] with [`super::Constraint::ApiKeyCluster`] when its cluster does not exist.
    pub async fn insert_api_key(&mut self, new: &NewApiKey, now: Timestamp) -> Result<ApiKeyRecord> {
        let row: KeyColumns = sqlx::query_as(INSERT)
            .bind(&new.id)
            .bind(&new.name)
            .bind(&new.secret_hash)
            .bind(&new.role)
            .bind(new.scopes.as_ref().map(Json))
            .bind(new.cluster.as_ref().map(ClusterId::as_str))
            .bind(&new.created_by)
            .bind(OffsetDateTime::from(now))
            .bind(new.expires_at.map(OffsetDateTime::from))
            .fetch_one(&mut *self.transaction)
            .await?;
        row.try_into()
    }

    /// Revokes a key that exists.
    pub async fn revoke_api_key(&mut self, id: &str, now: Timestamp) -> Result<ApiKeyRecord> {
        let query = sqlx::query_as(REVOKE).bind(id).bind(OffsetDateTime::from(now));
        let row: KeyColumns = query.fetch_one(&mut *self.transaction).await?;
        row.try_into()
    }
}

/// A row as Postgres gives it.
#[derive(sqlx::FromRow)]
struct KeyColumns {
    id: String,
    name: String,
    secret_hash: Vec<u8>,
    role: String,
    scopes: Option<Json<Vec<String>>>,
    cluster_id: Option<String>,
    created_by: String,
    created_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
    last_used_at: Option<OffsetDateTime>,
}

impl TryFrom<KeyColumns> for ApiKeyRecord {
    type Error = Error;

    fn try_from(row: KeyColumns) -> Result<Self> {
        let cluster = row.cluster_id.map(|id| ClusterId::new(&id)).transpose().map_err(Error::unreadable)?;
        Ok(Self {
            created_at: row.created_at.into(),
            revoked_at: row.revoked_at.map(Timestamp::from),
            last_used_at: row.last_used_at.map(Timestamp::from),
            key: NewApiKey {
                id: row.id,
                name: row.name,
                secret_hash: row.secret_hash,
                role: row.role,
                scopes: row.scopes.map(|scopes| scopes.0),
                cluster,
                created_by: row.created_by,
                expires_at: row.expires_at.map(Timestamp::from),
            },
        })
    }
}
