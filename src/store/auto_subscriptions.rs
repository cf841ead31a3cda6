//! Automatic subscriptions of clusters.
//!
//! Each mutation gives the cluster another `auto_subscriptions_revision` and moves the desired revision on, in its
//! own transaction, which must have locked the cluster.

use std::sync::Arc;

use sqlx::types::{Json, Uuid};
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use super::{Error, Result, Store, Tx};
use crate::model::{AutoSubscription, AutoSubscriptionSpec, AutoSubscriptions, ClusterId, Timestamp};

macro_rules! columns {
    () => {
        "auto_subscription_id, description, spec, created_at, updated_at, version"
    };
}

const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM auto_subscriptions WHERE cluster_id = $1 AND auto_subscription_id > $2 \
     ORDER BY auto_subscription_id LIMIT $3"
);

const NEWEST_FIRST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM auto_subscriptions WHERE cluster_id = $1 ORDER BY auto_subscription_id DESC"
);

const GET: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM auto_subscriptions WHERE cluster_id = $1 AND auto_subscription_id = $2"
);

const COUNT: &str = "SELECT count(*) FROM auto_subscriptions WHERE cluster_id = $1";

const INSERT: &str = concat!(
    "INSERT INTO auto_subscriptions (cluster_id, ",
    columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $5, 1) RETURNING ",
    columns!()
);

const UPDATE: &str = concat!(
    "UPDATE auto_subscriptions SET description = $3, spec = $4, updated_at = $5, version = version + 1 \
     WHERE cluster_id = $1 AND auto_subscription_id = $2 RETURNING ",
    columns!()
);

const DELETE: &str = "DELETE FROM auto_subscriptions WHERE cluster_id = $1 AND auto_subscription_id = $2";

const BEGIN_REVISION: &str =
    "UPDATE clusters SET auto_subscriptions_revision = gen_random_uuid() WHERE id = $1";

/// An automatic subscription as it is kept.
#[derive(Clone, Debug)]
pub struct AutoSubscriptionRecord {
    /// The rule.
    pub rule: AutoSubscription,
    /// What people say of it.
    pub description: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Counts the changes.
    pub version: i64,
}

/// An automatic subscription as it should be.
#[derive(Clone, Debug)]
pub struct NewAutoSubscription {
    /// What people say of it.
    pub description: Option<String>,
    /// Whom it is for, and what they subscribe to.
    pub spec: AutoSubscriptionSpec,
}

impl Store {
    /// The next `limit` rules of a cluster with ids above `after`, in that order: the oldest first.
    pub async fn list_auto_subscriptions(
        &self,
        cluster: &ClusterId,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<AutoSubscriptionRecord>> {
        let rows: Vec<Columns> = sqlx::query_as(LIST)
            .bind(cluster.as_str())
            .bind(after.unwrap_or(Uuid::nil()))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.into_iter().map(AutoSubscriptionRecord::from).collect())
    }

    /// A rule.
    pub async fn get_auto_subscription(
        &self,
        cluster: &ClusterId,
        id: Uuid,
    ) -> Result<Option<AutoSubscriptionRecord>> {
        let row: Option<Columns> =
            sqlx::query_as(GET).bind(cluster.as_str()).bind(id).fetch_optional(&self.pool).await?;
        Ok(row.map(AutoSubscriptionRecord::from))
    }
}

impl Tx {
    /// A rule, which nobody else changes while the cluster is locked.
    pub async fn get_auto_subscription(
        &mut self,
        cluster: &ClusterId,
        id: Uuid,
    ) -> Result<Option<AutoSubscriptionRecord>> {
        let query = sqlx::query_as(GET).bind(cluster.as_str()).bind(id);
        let row: Option<Columns> = query.fetch_optional(&mut *self.transaction).await?;
        Ok(row.map(AutoSubscriptionRecord::from))
    }

    /// How many rules a cluster has.
    pub async fn count_auto_subscriptions(&mut self, cluster: &ClusterId) -> Result<u32> {
        let count: i64 =
            sqlx::query_scalar(COUNT).bind(cluster.as_str()).fetch_one(&mut *self.transaction).await?;
        u32::try_from(count).map_err(Error::unreadable)
    }

    /// Makes a rule in a cluster that this transaction has locked. `id` is above those of the rules there are.
    pub async fn insert_auto_subscription(
        &mut self,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewAutoSubscription,
        now: Timestamp,
    ) -> Result<AutoSubscriptionRecord> {
        self.put_auto_subscription(INSERT, cluster, id, new, now).await
    }

    /// Makes a rule that exists another, in a cluster that this transaction has locked.
    pub async fn update_auto_subscription(
        &mut self,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewAutoSubscription,
        now: Timestamp,
    ) -> Result<AutoSubscriptionRecord> {
        self.put_auto_subscription(UPDATE, cluster, id, new, now).await
    }

    async fn put_auto_subscription(
        &mut self,
        statement: &'static str,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewAutoSubscription,
        now: Timestamp,
    ) -> Result<AutoSubscriptionRecord> {
        let row: Columns = sqlx::query_as(statement)
            .bind(cluster.as_str())
            .bind(id)
            .bind(new.description.as_deref())
            .bind(Json(&new.spec))
            .bind(OffsetDateTime::from(now))
            .fetch_one(&mut *self.transaction)
            .await?;
        self.begin_auto_subscriptions_revision(cluster).await?;
        Ok(row.into())
    }

    /// Deletes a rule of a cluster that this transaction has locked. Says whether it existed.
    pub async fn delete_auto_subscription(&mut self, cluster: &ClusterId, id: Uuid) -> Result<bool> {
        let query = sqlx::query(DELETE).bind(cluster.as_str()).bind(id);
        let existed = query.execute(&mut *self.transaction).await?.rows_affected() > 0;
        if existed {
            self.begin_auto_subscriptions_revision(cluster).await?;
        }
        Ok(existed)
    }

    async fn begin_auto_subscriptions_revision(&mut self, cluster: &ClusterId) -> Result<()> {
        sqlx::query(BEGIN_REVISION).bind(cluster.as_str()).execute(&mut *self.transaction).await?;
        self.bump_desired_revision().await
    }
}

/// The rules of a cluster whose `auto_subscriptions_revision` is `revision`: those that are known when they are still
/// these.
pub(super) async fn auto_subscriptions(
    connection: &mut PgConnection,
    cluster: &ClusterId,
    revision: Uuid,
    known: Option<&Arc<AutoSubscriptions>>,
) -> Result<Arc<AutoSubscriptions>> {
    if let Some(known) = known.filter(|known| known.revision == revision) {
        return Ok(Arc::clone(known));
    }
    let rows: Vec<Columns> =
        sqlx::query_as(NEWEST_FIRST).bind(cluster.as_str()).fetch_all(connection).await?;
    let rules = rows.into_iter().map(|row| AutoSubscriptionRecord::from(row).rule).collect();
    Ok(Arc::new(AutoSubscriptions { revision, rules }))
}

#[derive(FromRow)]
struct Columns {
    auto_subscription_id: Uuid,
    description: Option<String>,
    spec: Json<AutoSubscriptionSpec>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    version: i64,
}

impl From<Columns> for AutoSubscriptionRecord {
    fn from(row: Columns) -> Self {
        Self {
            rule: AutoSubscription { id: row.auto_subscription_id, spec: row.spec.0 },
            description: row.description,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
            version: row.version,
        }
    }
}
