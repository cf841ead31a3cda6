//! Users of clusters, and what they prove themselves by.
//!
//! Each mutation moves the cluster's `users_version` and the desired revision in its own transaction,
//! which must have locked the cluster. Taking something out of force (a user, a password) also begins a
//! new lineage; see the migration.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::types::Uuid;
use sqlx::{FromRow, PgConnection, Row};
use time::OffsetDateTime;

use super::{Error, Result, Store, Tx};
use crate::model::{ClusterId, ScramKeys, Secrets, Timestamp, User, Username, Users};

macro_rules! user_columns {
    () => {
        "username, secrets_id, is_superuser, created_at, updated_at, version"
    };
}

macro_rules! secrets_columns {
    () => {
        "secrets_id, password_hash, scram_salt, scram_iterations, scram_stored_key, scram_server_key"
    };
}

// No name is empty, so all are above the empty text.
const LIST: &str = concat!(
    "SELECT ",
    user_columns!(),
    " FROM users WHERE cluster_id = $1 AND username > $2 ORDER BY username LIMIT $3"
);

const GET: &str = concat!("SELECT ", user_columns!(), " FROM users WHERE cluster_id = $1 AND username = $2");

const SECRETS: &str =
    concat!("SELECT ", secrets_columns!(), " FROM users WHERE cluster_id = $1 AND username = $2");

const CHANGED: &str = concat!(
    "SELECT username, is_superuser, ",
    secrets_columns!(),
    " FROM users WHERE cluster_id = $1 AND users_version > $2"
);

const COUNT: &str = "SELECT count(*) FROM users WHERE cluster_id = $1";

const INSERT: &str = concat!(
    "INSERT INTO users (cluster_id, users_version, username, ",
    secrets_columns!(),
    ", is_superuser, created_at, updated_at, version) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, 1) RETURNING ",
    user_columns!()
);

const UPDATE: &str = concat!(
    "UPDATE users SET users_version = $2, is_superuser = $4, updated_at = $5, version = version + 1 \
     WHERE cluster_id = $1 AND username = $3 RETURNING ",
    user_columns!()
);

const UPDATE_SECRETS: &str = "UPDATE users SET secrets_id = $3, password_hash = $4, scram_salt = $5, \
     scram_iterations = $6, scram_stored_key = $7, scram_server_key = $8 \
     WHERE cluster_id = $1 AND username = $2";

const DELETE: &str = "DELETE FROM users WHERE cluster_id = $1 AND username = $2";

const MOVE_ON: &str =
    "UPDATE clusters SET users_version = users_version + 1 WHERE id = $1 RETURNING users_version";

const BEGIN_LINEAGE: &str = "UPDATE clusters SET users_version = users_version + 1, \
     users_lineage = gen_random_uuid() WHERE id = $1 RETURNING users_version";

impl Store {
    /// The next `limit` users of a cluster with names above `after`, in the byte order of names.
    pub async fn list_users(
        &self,
        cluster: &ClusterId,
        after: Option<&Username>,
        limit: u32,
    ) -> Result<Vec<User>> {
        let rows: Vec<UserColumns> = sqlx::query_as(LIST)
            .bind(cluster.as_str())
            .bind(after.map_or("", Username::as_str))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter().map(User::try_from).collect()
    }

    /// The user of that name.
    pub async fn get_user(&self, cluster: &ClusterId, username: &Username) -> Result<Option<User>> {
        let row: Option<UserColumns> = sqlx::query_as(GET)
            .bind(cluster.as_str())
            .bind(username.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.map(User::try_from).transpose()
    }

    /// What the user of that name proves itself by.
    pub async fn get_secrets(&self, cluster: &ClusterId, username: &Username) -> Result<Option<Secrets>> {
        let row: Option<SecretsColumns> = sqlx::query_as(SECRETS)
            .bind(cluster.as_str())
            .bind(username.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.map(Secrets::try_from).transpose()
    }
}

impl Tx {
    /// The user of that name, which nobody else changes while the cluster is locked.
    pub async fn get_user(&mut self, cluster: &ClusterId, username: &Username) -> Result<Option<User>> {
        let row: Option<UserColumns> = sqlx::query_as(GET)
            .bind(cluster.as_str())
            .bind(username.as_str())
            .fetch_optional(&mut *self.transaction)
            .await?;
        row.map(User::try_from).transpose()
    }

    /// How many users a cluster has.
    pub async fn count_users(&mut self, cluster: &ClusterId) -> Result<u32> {
        let count: i64 =
            sqlx::query_scalar(COUNT).bind(cluster.as_str()).fetch_one(&mut *self.transaction).await?;
        u32::try_from(count).map_err(Error::unreadable)
    }

    /// Makes a user in a cluster that this transaction has locked. There must be none of that name.
    pub async fn insert_user(
        &mut self,
        cluster: &ClusterId,
        username: &Username,
        secrets: &Secrets,
        is_superuser: bool,
        now: Timestamp,
    ) -> Result<User> {
        let users_version = self.move_users_on(cluster, MOVE_ON).await?;
        let row: UserColumns = sqlx::query_as(INSERT)
            .bind(cluster.as_str())
            .bind(users_version)
            .bind(username.as_str())
            .bind(secrets.id)
            .bind(&*secrets.password_hash)
            .bind(&secrets.scram.salt[..])
            .bind(iterations(&secrets.scram)?)
            .bind(&secrets.scram.stored_key[..])
            .bind(&secrets.scram.server_key[..])
            .bind(is_superuser)
            .bind(OffsetDateTime::from(now))
            .fetch_one(&mut *self.transaction)
            .await?;
        row.try_into()
    }

    /// Writes what is changed of a user that exists in a cluster that this transaction has locked; the
    /// secrets stay when there are none.
    pub async fn update_user(
        &mut self,
        cluster: &ClusterId,
        username: &Username,
        secrets: Option<&Secrets>,
        is_superuser: bool,
        now: Timestamp,
    ) -> Result<User> {
        if let Some(secrets) = secrets {
            sqlx::query(UPDATE_SECRETS)
                .bind(cluster.as_str())
                .bind(username.as_str())
                .bind(secrets.id)
                .bind(&*secrets.password_hash)
                .bind(&secrets.scram.salt[..])
                .bind(iterations(&secrets.scram)?)
                .bind(&secrets.scram.stored_key[..])
                .bind(&secrets.scram.server_key[..])
                .execute(&mut *self.transaction)
                .await?;
        }
        let step = if secrets.is_some() { BEGIN_LINEAGE } else { MOVE_ON };
        let users_version = self.move_users_on(cluster, step).await?;
        let row: UserColumns = sqlx::query_as(UPDATE)
            .bind(cluster.as_str())
            .bind(users_version)
            .bind(username.as_str())
            .bind(is_superuser)
            .bind(OffsetDateTime::from(now))
            .fetch_one(&mut *self.transaction)
            .await?;
        row.try_into()
    }

    /// Deletes a user of a cluster that this transaction has locked. Says whether it existed.
    pub async fn delete_user(&mut self, cluster: &ClusterId, username: &Username) -> Result<bool> {
        let done = sqlx::query(DELETE)
            .bind(cluster.as_str())
            .bind(username.as_str())
            .execute(&mut *self.transaction)
            .await?;
        let existed = done.rows_affected() > 0;
        if existed {
            self.move_users_on(cluster, BEGIN_LINEAGE).await?;
        }
        Ok(existed)
    }

    async fn move_users_on(&mut self, cluster: &ClusterId, step: &'static str) -> Result<i64> {
        let version =
            sqlx::query_scalar(step).bind(cluster.as_str()).fetch_one(&mut *self.transaction).await?;
        self.bump_desired_revision().await?;
        Ok(version)
    }
}

/// The columns of a cluster that say in which state its users are.
macro_rules! users_columns {
    () => {
        "users_version, users_lineage, users_decoy_key"
    };
}
pub(super) use users_columns;

/// In which state a cluster's users are.
#[derive(FromRow)]
pub(super) struct UsersColumns {
    #[sqlx(rename = "users_version")]
    version: i64,
    #[sqlx(rename = "users_lineage")]
    lineage: Uuid,
    #[sqlx(rename = "users_decoy_key")]
    decoy_key: Uuid,
}

impl UsersColumns {
    /// The users themselves: those that are known when they are still these, else brought up to date
    /// with as little reading as can be.
    pub(super) async fn users(
        self,
        connection: &mut PgConnection,
        cluster: &ClusterId,
        known: Option<&Arc<Users>>,
    ) -> Result<Arc<Users>> {
        let known = known.filter(|known| known.lineage == self.lineage);
        if let Some(known) = known
            && known.version == self.version
        {
            return Ok(Arc::clone(known));
        }
        let (mut by_name, mut superusers, after) = match known {
            Some(known) => (known.by_name.clone(), known.superusers.clone(), known.version),
            None => (HashMap::new(), HashSet::new(), -1),
        };
        let changed: Vec<PgRow> =
            sqlx::query(CHANGED).bind(cluster.as_str()).bind(after).fetch_all(connection).await?;
        for row in &changed {
            let username = Username::new(row.try_get("username")?).map_err(Error::unreadable)?;
            if row.try_get("is_superuser")? {
                superusers.insert(username.clone());
            } else {
                superusers.remove(&username);
            }
            by_name.insert(username, Arc::new(SecretsColumns::from_row(row)?.try_into()?));
        }
        Ok(Arc::new(Users {
            lineage: self.lineage,
            version: self.version,
            decoy_key: self.decoy_key,
            by_name,
            superusers,
        }))
    }
}

fn iterations(keys: &ScramKeys) -> Result<i32> {
    i32::try_from(keys.iterations.get()).map_err(Error::unreadable)
}

#[derive(FromRow)]
struct UserColumns {
    username: String,
    secrets_id: Uuid,
    is_superuser: bool,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    version: i64,
}

impl TryFrom<UserColumns> for User {
    type Error = Error;

    fn try_from(row: UserColumns) -> Result<Self> {
        Ok(Self {
            username: Username::new(&row.username).map_err(Error::unreadable)?,
            secrets_id: row.secrets_id,
            is_superuser: row.is_superuser,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
            version: row.version,
        })
    }
}

#[derive(FromRow)]
struct SecretsColumns {
    secrets_id: Uuid,
    password_hash: String,
    scram_salt: Vec<u8>,
    scram_iterations: i32,
    scram_stored_key: Vec<u8>,
    scram_server_key: Vec<u8>,
}

impl TryFrom<SecretsColumns> for Secrets {
    type Error = Error;

    fn try_from(row: SecretsColumns) -> Result<Self> {
        fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
            // The error of the conversion does not show the bytes.
            bytes.try_into().map_err(Error::unreadable)
        }
        let iterations = u32::try_from(row.scram_iterations).map_err(Error::unreadable)?;
        Ok(Self {
            id: row.secrets_id,
            password_hash: row.password_hash.into(),
            scram: ScramKeys {
                salt: fixed(&row.scram_salt)?,
                iterations: NonZeroU32::try_from(iterations).map_err(Error::unreadable)?,
                stored_key: fixed(&row.scram_stored_key)?,
                server_key: fixed(&row.scram_server_key)?,
            },
        })
    }
}
