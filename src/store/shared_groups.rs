//! How shared groups choose who gets a message, where an operator has said so.
//!
//! The groups themselves are the data plane's: a row here says nothing of whether one has members.

use sqlx::FromRow;
use time::OffsetDateTime;

use super::{Error, Result, Store, Tx};
use crate::model::{ClusterId, SharedStrategy, Timestamp, TopicFilter};

// No filter is empty, so all are above the empty text.
const LIST: &str = "SELECT filter, strategy, version FROM shared_group_settings \
     WHERE cluster_id = $1 AND filter > $2 ORDER BY filter LIMIT $3";

const GET: &str =
    "SELECT filter, strategy, version FROM shared_group_settings WHERE cluster_id = $1 AND filter = $2";

const COUNT: &str = "SELECT count(*) FROM shared_group_settings WHERE cluster_id = $1";

const PUT: &str = "INSERT INTO shared_group_settings (cluster_id, filter, strategy, updated_at, version) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (cluster_id, filter) DO UPDATE SET strategy = excluded.strategy, \
     updated_at = excluded.updated_at, version = excluded.version";

const DELETE: &str = "DELETE FROM shared_group_settings WHERE cluster_id = $1 AND filter = $2";

/// What an operator has said of one shared group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSetting {
    /// The whole filter: `$share/{name}/…`.
    pub filter: TopicFilter,
    /// How it chooses.
    pub strategy: SharedStrategy,
    /// Another one for each change; its `ETag`.
    pub version: i64,
}

impl GroupSetting {
    /// How many a cluster may have: the data plane holds them all.
    pub const COUNT_MAX: u32 = 1_000;
}

impl Store {
    /// The next `limit` settings of a cluster with filters above `after`, in the byte order of filters.
    pub async fn list_group_settings(
        &self,
        cluster: &ClusterId,
        after: &str,
        limit: u32,
    ) -> Result<Vec<GroupSetting>> {
        let rows: Vec<Columns> = sqlx::query_as(LIST)
            .bind(cluster.as_str())
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter().map(GroupSetting::try_from).collect()
    }

    /// What was said of one group, if anything.
    pub async fn group_setting(
        &self,
        cluster: &ClusterId,
        filter: &TopicFilter,
    ) -> Result<Option<GroupSetting>> {
        let query = sqlx::query_as(GET).bind(cluster.as_str()).bind(filter.as_str());
        let row: Option<Columns> = query.fetch_optional(&self.pool).await?;
        row.map(GroupSetting::try_from).transpose()
    }
}

impl Tx {
    /// What was said of one group, which nobody else changes while the cluster is locked.
    pub async fn group_setting(
        &mut self,
        cluster: &ClusterId,
        filter: &TopicFilter,
    ) -> Result<Option<GroupSetting>> {
        let query = sqlx::query_as(GET).bind(cluster.as_str()).bind(filter.as_str());
        let row: Option<Columns> = query.fetch_optional(&mut *self.transaction).await?;
        row.map(GroupSetting::try_from).transpose()
    }

    /// Of how many groups of a cluster something is said.
    pub async fn count_group_settings(&mut self, cluster: &ClusterId) -> Result<u32> {
        let count: i64 =
            sqlx::query_scalar(COUNT).bind(cluster.as_str()).fetch_one(&mut *self.transaction).await?;
        u32::try_from(count).map_err(Error::unreadable)
    }

    /// Says how a group of a cluster that this transaction has locked chooses. Gives the setting's version.
    pub async fn put_group_setting(
        &mut self,
        cluster: &ClusterId,
        filter: &TopicFilter,
        strategy: SharedStrategy,
        now: Timestamp,
    ) -> Result<i64> {
        self.bump_desired_revision().await?;
        let version = self.desired_revision().unwrap_or_default();
        sqlx::query(PUT)
            .bind(cluster.as_str())
            .bind(filter.as_str())
            .bind(strategy.as_str())
            .bind(OffsetDateTime::from(now))
            .bind(version)
            .execute(&mut *self.transaction)
            .await?;
        Ok(version)
    }

    /// Takes back what was said of a group of a cluster that this transaction has locked. Says whether anything
    /// was.
    pub async fn delete_group_setting(&mut self, cluster: &ClusterId, filter: &TopicFilter) -> Result<bool> {
        let query = sqlx::query(DELETE).bind(cluster.as_str()).bind(filter.as_str());
        let existed = query.execute(&mut *self.transaction).await?.rows_affected() > 0;
        if existed {
            self.bump_desired_revision().await?;
        }
        Ok(existed)
    }
}

/// A row as Postgres gives it.
#[derive(FromRow)]
struct Columns {
    filter: String,
    strategy: String,
    version: i64,
}

impl TryFrom<Columns> for GroupSetting {
    type Error = Error;

    fn try_from(columns: Columns) -> Result<Self> {
        let Columns { filter, strategy, version } = columns;
        let strategy = SharedStrategy::parse(&strategy)
            .ok_or_else(|| Error::unreadable(format!("the strategy of a shared group: {strategy:?}")))?;
        Ok(Self { filter: TopicFilter::new(&filter).map_err(Error::unreadable)?, strategy, version })
    }
}
