//! Block rules.

use sqlx::types::{Json, Uuid};
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use crate::model::{BlockRule, BlockRuleSpec, ClusterId, Timestamp};
use crate::store::{Error, Result, Store, Tx};

macro_rules! block_rule_columns {
    () => {
        "block_rule_id, spec, expires_at, reason, created_at, updated_at, version"
    };
}

const LIST_BLOCK_RULES: &str = concat!(
    "SELECT ",
    block_rule_columns!(),
    " FROM block_rules WHERE cluster_id = $1 AND block_rule_id > $2 ORDER BY block_rule_id LIMIT $3"
);

const GET_BLOCK_RULE: &str = concat!(
    "SELECT ",
    block_rule_columns!(),
    " FROM block_rules WHERE cluster_id = $1 AND block_rule_id = $2"
);

const COUNT_BLOCK_RULES: &str = "SELECT count(*) FROM block_rules WHERE cluster_id = $1";

const DELETE_EXPIRED: &str = "DELETE FROM block_rules WHERE cluster_id = $1 AND expires_at <= $2";

const INSERT_BLOCK_RULE: &str = concat!(
    "INSERT INTO block_rules (cluster_id, ",
    block_rule_columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $6, 1) RETURNING ",
    block_rule_columns!()
);

const UPDATE_BLOCK_RULE: &str = concat!(
    "UPDATE block_rules SET spec = $3, expires_at = $4, reason = $5, updated_at = $6, version = version + 1 \
     WHERE cluster_id = $1 AND block_rule_id = $2 RETURNING ",
    block_rule_columns!()
);

const DELETE_BLOCK_RULE: &str = "DELETE FROM block_rules WHERE cluster_id = $1 AND block_rule_id = $2";

/// A block rule as it is kept.
#[derive(Clone, Debug)]
pub struct BlockRuleRecord {
    /// The rule.
    pub rule: BlockRule,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Counts the changes.
    pub version: i64,
}

/// A block rule as it should be.
#[derive(Clone, Debug)]
pub struct NewBlockRule {
    /// Whom it keeps out.
    pub spec: BlockRuleSpec,
    /// From when on it no longer does.
    pub expires_at: Option<Timestamp>,
    /// Why, for people.
    pub reason: Option<String>,
}

impl Store {
    /// The next `limit` block rules of a cluster with ids above `after`, in that order: the oldest first.
    pub async fn list_block_rules(
        &self,
        cluster: &ClusterId,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<BlockRuleRecord>> {
        let rows: Vec<BlockRuleColumns> = sqlx::query_as(LIST_BLOCK_RULES)
            .bind(cluster.as_str())
            .bind(after.unwrap_or(Uuid::nil()))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter().map(BlockRuleRecord::try_from).collect()
    }

    /// A block rule.
    pub async fn get_block_rule(&self, cluster: &ClusterId, id: Uuid) -> Result<Option<BlockRuleRecord>> {
        let row: Option<BlockRuleColumns> =
            sqlx::query_as(GET_BLOCK_RULE).bind(cluster.as_str()).bind(id).fetch_optional(&self.pool).await?;
        row.map(BlockRuleRecord::try_from).transpose()
    }
}

impl Tx {
    /// A block rule, which nobody else changes while the cluster is locked.
    pub async fn get_block_rule(&mut self, cluster: &ClusterId, id: Uuid) -> Result<Option<BlockRuleRecord>> {
        let row: Option<BlockRuleColumns> = sqlx::query_as(GET_BLOCK_RULE)
            .bind(cluster.as_str())
            .bind(id)
            .fetch_optional(&mut *self.transaction)
            .await?;
        row.map(BlockRuleRecord::try_from).transpose()
    }

    /// How many block rules a cluster has, those too that have expired.
    pub async fn count_block_rules(&mut self, cluster: &ClusterId) -> Result<u32> {
        self.count_access(COUNT_BLOCK_RULES, cluster).await
    }

    /// Deletes the block rules of a cluster that have expired.
    pub async fn delete_expired_block_rules(&mut self, cluster: &ClusterId, now: Timestamp) -> Result<()> {
        sqlx::query(DELETE_EXPIRED)
            .bind(cluster.as_str())
            .bind(OffsetDateTime::from(now))
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }

    /// Makes a block rule in a cluster that this transaction has locked.
    pub async fn insert_block_rule(
        &mut self,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewBlockRule,
        now: Timestamp,
    ) -> Result<BlockRuleRecord> {
        self.put_block_rule(INSERT_BLOCK_RULE, cluster, id, new, now).await
    }

    /// Makes a block rule that exists another, in a cluster that this transaction has locked.
    pub async fn update_block_rule(
        &mut self,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewBlockRule,
        now: Timestamp,
    ) -> Result<BlockRuleRecord> {
        self.put_block_rule(UPDATE_BLOCK_RULE, cluster, id, new, now).await
    }

    async fn put_block_rule(
        &mut self,
        statement: &'static str,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewBlockRule,
        now: Timestamp,
    ) -> Result<BlockRuleRecord> {
        let row: BlockRuleColumns = sqlx::query_as(statement)
            .bind(cluster.as_str())
            .bind(id)
            .bind(Json(&new.spec))
            .bind(new.expires_at.map(OffsetDateTime::from))
            .bind(new.reason.as_deref())
            .bind(OffsetDateTime::from(now))
            .fetch_one(&mut *self.transaction)
            .await?;
        self.begin_access_revision(cluster).await?;
        row.try_into()
    }

    /// Deletes a block rule of a cluster that this transaction has locked. Says whether it existed.
    pub async fn delete_block_rule(&mut self, cluster: &ClusterId, id: Uuid) -> Result<bool> {
        self.delete_access(DELETE_BLOCK_RULE, cluster, id).await
    }
}

/// Every block rule of a cluster.
pub(super) async fn all(connection: &mut PgConnection, cluster: &ClusterId) -> Result<Vec<BlockRule>> {
    let rows: Vec<BlockRuleColumns> = sqlx::query_as(LIST_BLOCK_RULES)
        .bind(cluster.as_str())
        .bind(Uuid::nil())
        .bind(i64::MAX)
        .fetch_all(connection)
        .await?;
    rows.into_iter().map(|row| Ok(BlockRuleRecord::try_from(row)?.rule)).collect()
}

#[derive(FromRow)]
struct BlockRuleColumns {
    block_rule_id: Uuid,
    spec: Json<BlockRuleSpec>,
    expires_at: Option<OffsetDateTime>,
    reason: Option<String>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    version: i64,
}

impl TryFrom<BlockRuleColumns> for BlockRuleRecord {
    type Error = Error;

    fn try_from(row: BlockRuleColumns) -> Result<Self> {
        let rule = BlockRule {
            id: row.block_rule_id,
            spec: row.spec.0,
            expires_at: row.expires_at.map(Timestamp::from),
            reason: row.reason,
        };
        Ok(Self {
            rule,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
            version: row.version,
        })
    }
}
