//! Clusters and their quota settings.
//!
//! Each mutation bumps the revision of the desired state in its own transaction, so that the data
//! plane hears of exactly what was committed.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use sqlx::types::{Json, Uuid};
use time::OffsetDateTime;

use super::{AuthenticatorRecord, Error, NewAuthenticator, Result, Store, Tx};
use crate::model::{
    Cluster, ClusterId, ClusterStatus, QuotaOverrides, RateOverrides, SharedStrategy, Timestamp,
};

macro_rules! cluster_columns {
    () => {
        "id, name, labels, status, delete_protection, allow_anonymous, plan, quota_connections, \
         quota_subscriptions, quota_filters_per_client, quota_session_expiry_min_secs, \
         quota_session_expiry_max_secs, created_at, updated_at, version, quota_version, \
         shared_strategy, server_keep_alive_secs, quota_retained_messages, quota_retained_bytes, \
         resend_after_secs, quota_rates, quota_shared_groups, quota_filters_per_shared_group, \
         quota_members_per_shared_group, quota_log_mib"
    };
}
pub(super) use cluster_columns;

// No id is empty, so all are above the empty text.
const LIST: &str =
    concat!("SELECT ", cluster_columns!(), " FROM clusters WHERE id > $1 ORDER BY id LIMIT $2");

const GET: &str = concat!("SELECT ", cluster_columns!(), " FROM clusters WHERE id = $1");

// NO KEY UPDATE: two operators wait for each other, the data plane's batches (which take a KEY
// SHARE lock for the foreign key) do not wait for either.
const LOCK: &str = concat!("SELECT ", cluster_columns!(), " FROM clusters WHERE id = $1 FOR NO KEY UPDATE");

const INSERT: &str = concat!(
    "INSERT INTO clusters (",
    cluster_columns!(),
    ") VALUES ($1, $2, $3, 'active', $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, 1, 1, $13, $14, $15, \
     $16, $17, $18, $19, $20, $21, $22) RETURNING ",
    cluster_columns!()
);

const UPDATE: &str = concat!(
    "UPDATE clusters SET name = $2, labels = $3, status = $4, delete_protection = $5, \
     allow_anonymous = $6, updated_at = $7, shared_strategy = $8, server_keep_alive_secs = $9, \
     resend_after_secs = $10, version = version + 1 WHERE id = $1 RETURNING ",
    cluster_columns!()
);

const UPDATE_QUOTA: &str = concat!(
    "UPDATE clusters SET plan = $2, quota_connections = $3, quota_subscriptions = $4, \
     quota_filters_per_client = $5, quota_session_expiry_min_secs = $6, \
     quota_session_expiry_max_secs = $7, updated_at = $8, quota_retained_messages = $9, \
     quota_retained_bytes = $10, quota_rates = $11, quota_shared_groups = $12, \
     quota_filters_per_shared_group = $13, quota_members_per_shared_group = $14, quota_log_mib = $15, \
     version = version + 1, \
     quota_version = quota_version + 1 WHERE id = $1 RETURNING ",
    cluster_columns!()
);

const DELETE: &str = "DELETE FROM clusters WHERE id = $1";

/// What a cluster begins with; it begins active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCluster {
    /// Its id.
    pub id: ClusterId,
    /// What people call it.
    pub name: String,
    /// The caller's own marks.
    pub labels: BTreeMap<String, String>,
    /// Whether DELETE is refused until this is taken back.
    pub delete_protection: bool,
    /// Whether a CONNECT without credentials is let in.
    pub allow_anonymous: bool,
    /// How its shared groups choose who gets a message.
    pub shared_strategy: SharedStrategy,
    /// The longest keep-alive, in seconds; `None` leaves each client its own.
    pub server_keep_alive_secs: Option<NonZeroU16>,
    /// After how long a v3 client gets again what it has not answered; 0 for never.
    pub resend_after_secs: u32,
    /// The name of its plan.
    pub plan: String,
    /// What it sets over its plan.
    pub overrides: QuotaOverrides,
}

impl Store {
    /// The next `limit` clusters with ids above `after`, in order of id.
    pub async fn list_clusters(&self, after: Option<&ClusterId>, limit: u32) -> Result<Vec<Cluster>> {
        let rows: Vec<ClusterColumns> = sqlx::query_as(LIST)
            .bind(after.map_or("", ClusterId::as_str))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter().map(Cluster::try_from).collect()
    }

    /// The cluster of that id.
    pub async fn get_cluster(&self, id: &ClusterId) -> Result<Option<Cluster>> {
        let row: Option<ClusterColumns> =
            sqlx::query_as(GET).bind(id.as_str()).fetch_optional(&self.pool).await?;
        row.map(Cluster::try_from).transpose()
    }
}

impl Tx {
    /// Makes a cluster.
    ///
    /// # Errors
    /// [`Error::Conflict`] with [`super::Constraint::ClusterExists`] when the id is taken; the
    /// transaction is then over.
    pub async fn insert_cluster(&mut self, new: &NewCluster, now: Timestamp) -> Result<Cluster> {
        let quota = &new.overrides;
        let row: ClusterColumns = sqlx::query_as(INSERT)
            .bind(new.id.as_str())
            .bind(&new.name)
            .bind(Json(&new.labels))
            .bind(new.delete_protection)
            .bind(new.allow_anonymous)
            .bind(&new.plan)
            .bind(quota.connections.map(i64::from))
            .bind(quota.subscriptions.map(i64::from))
            .bind(quota.filters_per_client.map(i64::from))
            .bind(quota.session_expiry_min_secs.map(i64::from))
            .bind(quota.session_expiry_max_secs.map(i64::from))
            .bind(OffsetDateTime::from(now))
            .bind(new.shared_strategy.as_str())
            .bind(new.server_keep_alive_secs.map(|secs| i32::from(secs.get())))
            .bind(quota.retained_messages.map(i64::from))
            .bind(quota.retained_bytes.map(i64::from))
            .bind(i64::from(new.resend_after_secs))
            .bind(Json(&quota.rates))
            .bind(quota.shared_groups.map(i64::from))
            .bind(quota.filters_per_shared_group.map(i64::from))
            .bind(quota.members_per_shared_group.map(i64::from))
            .bind(quota.log_mib.map(i64::from))
            .fetch_one(&mut *self.transaction)
            .await?;
        let (id, first) = (Uuid::now_v7(), NewAuthenticator::first());
        self.insert_item::<AuthenticatorRecord>(&new.id, id, &first, now).await?;
        row.try_into()
    }

    /// The cluster of that id, which nobody else changes until this transaction ends.
    pub async fn lock_cluster(&mut self, id: &ClusterId) -> Result<Option<Cluster>> {
        let row: Option<ClusterColumns> =
            sqlx::query_as(LOCK).bind(id.as_str()).fetch_optional(&mut *self.transaction).await?;
        row.map(Cluster::try_from).transpose()
    }

    /// Writes all of a cluster but its plan and quota. It is one that this
    /// transaction has locked; times and versions are the store's own.
    pub async fn update_cluster(&mut self, cluster: &Cluster, now: Timestamp) -> Result<Cluster> {
        let row: ClusterColumns = sqlx::query_as(UPDATE)
            .bind(cluster.id.as_str())
            .bind(&cluster.name)
            .bind(Json(&cluster.labels))
            .bind(cluster.status.as_str())
            .bind(cluster.delete_protection)
            .bind(cluster.allow_anonymous)
            .bind(OffsetDateTime::from(now))
            .bind(cluster.shared_strategy.as_str())
            .bind(cluster.server_keep_alive_secs.map(|secs| i32::from(secs.get())))
            .bind(i64::from(cluster.resend_after_secs))
            .fetch_one(&mut *self.transaction)
            .await?;
        self.bump_desired_revision().await?;
        row.try_into()
    }

    /// Writes plan and overrides of a cluster that this transaction has locked.
    pub async fn update_quota(
        &mut self,
        id: &ClusterId,
        plan: &str,
        overrides: &QuotaOverrides,
        now: Timestamp,
    ) -> Result<Cluster> {
        let row: ClusterColumns = sqlx::query_as(UPDATE_QUOTA)
            .bind(id.as_str())
            .bind(plan)
            .bind(overrides.connections.map(i64::from))
            .bind(overrides.subscriptions.map(i64::from))
            .bind(overrides.filters_per_client.map(i64::from))
            .bind(overrides.session_expiry_min_secs.map(i64::from))
            .bind(overrides.session_expiry_max_secs.map(i64::from))
            .bind(OffsetDateTime::from(now))
            .bind(overrides.retained_messages.map(i64::from))
            .bind(overrides.retained_bytes.map(i64::from))
            .bind(Json(&overrides.rates))
            .bind(overrides.shared_groups.map(i64::from))
            .bind(overrides.filters_per_shared_group.map(i64::from))
            .bind(overrides.members_per_shared_group.map(i64::from))
            .bind(overrides.log_mib.map(i64::from))
            .fetch_one(&mut *self.transaction)
            .await?;
        self.bump_desired_revision().await?;
        row.try_into()
    }

    /// Deletes a cluster with its sessions and their subscriptions. Says whether it existed.
    pub async fn delete_cluster(&mut self, id: &ClusterId) -> Result<bool> {
        let done = sqlx::query(DELETE).bind(id.as_str()).execute(&mut *self.transaction).await?;
        let existed = done.rows_affected() > 0;
        if existed {
            // After the deletion, which waits for the batches that add to them.
            self.clear_events(id).await?;
            self.bump_desired_revision().await?;
        }
        Ok(existed)
    }
}

/// A row as Postgres gives it.
#[derive(sqlx::FromRow)]
pub(super) struct ClusterColumns {
    id: String,
    name: String,
    labels: Json<BTreeMap<String, String>>,
    status: String,
    delete_protection: bool,
    allow_anonymous: bool,
    plan: String,
    quota_connections: Option<i64>,
    quota_subscriptions: Option<i64>,
    quota_filters_per_client: Option<i64>,
    quota_session_expiry_min_secs: Option<i64>,
    quota_session_expiry_max_secs: Option<i64>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    version: i64,
    quota_version: i64,
    shared_strategy: String,
    server_keep_alive_secs: Option<i32>,
    quota_retained_messages: Option<i64>,
    quota_retained_bytes: Option<i64>,
    resend_after_secs: i32,
    quota_rates: Json<RateOverrides>,
    quota_shared_groups: Option<i64>,
    quota_filters_per_shared_group: Option<i64>,
    quota_members_per_shared_group: Option<i64>,
    quota_log_mib: Option<i64>,
}

impl TryFrom<ClusterColumns> for Cluster {
    type Error = Error;

    fn try_from(row: ClusterColumns) -> Result<Self> {
        let limit = |value: Option<i64>| value.map(u32::try_from).transpose().map_err(Error::unreadable);
        let keep_alive = row.server_keep_alive_secs.map(|secs| u16::try_from(secs)?.try_into()).transpose();
        let keep_alive: std::result::Result<_, std::num::TryFromIntError> = keep_alive;
        Ok(Self {
            id: ClusterId::new(&row.id).map_err(Error::unreadable)?,
            name: row.name,
            labels: row.labels.0,
            status: ClusterStatus::parse(&row.status)
                .ok_or_else(|| Error::unreadable(format!("cluster status {:?}", row.status)))?,
            delete_protection: row.delete_protection,
            allow_anonymous: row.allow_anonymous,
            shared_strategy: SharedStrategy::parse(&row.shared_strategy)
                .ok_or_else(|| Error::unreadable(format!("shared strategy {:?}", row.shared_strategy)))?,
            server_keep_alive_secs: keep_alive.map_err(Error::unreadable)?,
            resend_after_secs: row.resend_after_secs.try_into().map_err(Error::unreadable)?,
            plan: row.plan,
            overrides: QuotaOverrides {
                connections: limit(row.quota_connections)?,
                subscriptions: limit(row.quota_subscriptions)?,
                filters_per_client: limit(row.quota_filters_per_client)?,
                retained_messages: limit(row.quota_retained_messages)?,
                retained_bytes: limit(row.quota_retained_bytes)?,
                shared_groups: limit(row.quota_shared_groups)?,
                filters_per_shared_group: limit(row.quota_filters_per_shared_group)?,
                members_per_shared_group: limit(row.quota_members_per_shared_group)?,
                log_mib: limit(row.quota_log_mib)?,
                session_expiry_min_secs: limit(row.quota_session_expiry_min_secs)?,
                session_expiry_max_secs: limit(row.quota_session_expiry_max_secs)?,
                rates: row.quota_rates.0,
            },
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
            version: row.version,
            quota_version: row.quota_version,
        })
    }
}
