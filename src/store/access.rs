//! Authorisation policies and block rules of clusters.
//!
//! Each mutation gives the cluster another `access_revision` and moves the desired revision on, in its own
//! transaction, which must have locked the cluster.

use std::sync::Arc;

use sqlx::types::{Json, Uuid};
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use super::{Error, Result, Store, Tx};
use crate::model::{AccessRules, BlockRule, BlockRuleSpec, ClusterId, Policy, PolicySpec, Timestamp};

macro_rules! policy_columns {
    () => {
        "policy_id, priority, description, spec, created_at, updated_at, version"
    };
}

macro_rules! block_rule_columns {
    () => {
        "block_rule_id, spec, expires_at, reason, created_at, updated_at, version"
    };
}

// Every priority is above -1.
const LIST_POLICIES: &str = concat!(
    "SELECT ",
    policy_columns!(),
    " FROM authorization_policies WHERE cluster_id = $1 AND priority > $2 ORDER BY priority LIMIT $3"
);

const GET_POLICY: &str = concat!(
    "SELECT ",
    policy_columns!(),
    " FROM authorization_policies WHERE cluster_id = $1 AND policy_id = $2"
);

const COUNT_POLICIES: &str = "SELECT count(*) FROM authorization_policies WHERE cluster_id = $1";

const INSERT_POLICY: &str = concat!(
    "INSERT INTO authorization_policies (cluster_id, ",
    policy_columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $6, 1) RETURNING ",
    policy_columns!()
);

const UPDATE_POLICY: &str = concat!(
    "UPDATE authorization_policies SET priority = $3, description = $4, spec = $5, updated_at = $6, \
     version = version + 1 WHERE cluster_id = $1 AND policy_id = $2 RETURNING ",
    policy_columns!()
);

const DELETE_POLICY: &str = "DELETE FROM authorization_policies WHERE cluster_id = $1 AND policy_id = $2";

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

const BEGIN_REVISION: &str = "UPDATE clusters SET access_revision = gen_random_uuid() WHERE id = $1";

/// A policy as it is kept.
#[derive(Clone, Debug)]
pub struct PolicyRecord {
    /// The policy.
    pub policy: Policy,
    /// What people say of it.
    pub description: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Counts the changes.
    pub version: i64,
}

/// A policy as it should be.
#[derive(Clone, Debug)]
pub struct NewPolicy {
    /// When it is asked.
    pub priority: u32,
    /// What people say of it.
    pub description: Option<String>,
    /// What it says.
    pub spec: PolicySpec,
}

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
    /// The next `limit` policies of a cluster with priorities above `after`, in that order.
    pub async fn list_policies(
        &self,
        cluster: &ClusterId,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Vec<PolicyRecord>> {
        let rows: Vec<PolicyColumns> = sqlx::query_as(LIST_POLICIES)
            .bind(cluster.as_str())
            .bind(after.map_or(Ok(-1), i32::try_from).map_err(Error::unreadable)?)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter().map(PolicyRecord::try_from).collect()
    }

    /// A policy.
    pub async fn get_policy(&self, cluster: &ClusterId, id: Uuid) -> Result<Option<PolicyRecord>> {
        let row: Option<PolicyColumns> =
            sqlx::query_as(GET_POLICY).bind(cluster.as_str()).bind(id).fetch_optional(&self.pool).await?;
        row.map(PolicyRecord::try_from).transpose()
    }

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
    /// A policy, which nobody else changes while the cluster is locked.
    pub async fn get_policy(&mut self, cluster: &ClusterId, id: Uuid) -> Result<Option<PolicyRecord>> {
        let row: Option<PolicyColumns> = sqlx::query_as(GET_POLICY)
            .bind(cluster.as_str())
            .bind(id)
            .fetch_optional(&mut *self.transaction)
            .await?;
        row.map(PolicyRecord::try_from).transpose()
    }

    /// How many policies a cluster has.
    pub async fn count_policies(&mut self, cluster: &ClusterId) -> Result<u32> {
        self.count_access(COUNT_POLICIES, cluster).await
    }

    /// Makes a policy in a cluster that this transaction has locked.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another policy of the cluster has the priority.
    pub async fn insert_policy(
        &mut self,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewPolicy,
        now: Timestamp,
    ) -> Result<PolicyRecord> {
        self.put_policy(INSERT_POLICY, cluster, id, new, now).await
    }

    /// Makes a policy that exists another, in a cluster that this transaction has locked.
    ///
    /// # Errors
    /// As [`Tx::insert_policy`].
    pub async fn update_policy(
        &mut self,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewPolicy,
        now: Timestamp,
    ) -> Result<PolicyRecord> {
        self.put_policy(UPDATE_POLICY, cluster, id, new, now).await
    }

    async fn put_policy(
        &mut self,
        statement: &'static str,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewPolicy,
        now: Timestamp,
    ) -> Result<PolicyRecord> {
        let row: PolicyColumns = sqlx::query_as(statement)
            .bind(cluster.as_str())
            .bind(id)
            .bind(i32::try_from(new.priority).map_err(Error::unreadable)?)
            .bind(new.description.as_deref())
            .bind(Json(&new.spec))
            .bind(OffsetDateTime::from(now))
            .fetch_one(&mut *self.transaction)
            .await?;
        self.begin_access_revision(cluster).await?;
        row.try_into()
    }

    /// Deletes a policy of a cluster that this transaction has locked. Says whether it existed.
    pub async fn delete_policy(&mut self, cluster: &ClusterId, id: Uuid) -> Result<bool> {
        self.delete_access(DELETE_POLICY, cluster, id).await
    }

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

    async fn count_access(&mut self, statement: &'static str, cluster: &ClusterId) -> Result<u32> {
        let count: i64 =
            sqlx::query_scalar(statement).bind(cluster.as_str()).fetch_one(&mut *self.transaction).await?;
        u32::try_from(count).map_err(Error::unreadable)
    }

    async fn delete_access(
        &mut self,
        statement: &'static str,
        cluster: &ClusterId,
        id: Uuid,
    ) -> Result<bool> {
        let done =
            sqlx::query(statement).bind(cluster.as_str()).bind(id).execute(&mut *self.transaction).await?;
        let existed = done.rows_affected() > 0;
        if existed {
            self.begin_access_revision(cluster).await?;
        }
        Ok(existed)
    }

    async fn begin_access_revision(&mut self, cluster: &ClusterId) -> Result<()> {
        sqlx::query(BEGIN_REVISION).bind(cluster.as_str()).execute(&mut *self.transaction).await?;
        self.bump_desired_revision().await
    }
}

/// The rules of a cluster whose `access_revision` is `revision`: those that are known when they are
/// still these.
pub(super) async fn access_rules(
    connection: &mut PgConnection,
    cluster: &ClusterId,
    revision: Uuid,
    known: Option<&Arc<AccessRules>>,
) -> Result<Arc<AccessRules>> {
    if let Some(known) = known.filter(|known| known.revision == revision) {
        return Ok(Arc::clone(known));
    }
    let policies: Vec<PolicyColumns> = sqlx::query_as(LIST_POLICIES)
        .bind(cluster.as_str())
        .bind(-1)
        .bind(i64::MAX)
        .fetch_all(&mut *connection)
        .await?;
    let block_rules: Vec<BlockRuleColumns> = sqlx::query_as(LIST_BLOCK_RULES)
        .bind(cluster.as_str())
        .bind(Uuid::nil())
        .bind(i64::MAX)
        .fetch_all(connection)
        .await?;
    let policy = |row| PolicyRecord::try_from(row).map(|record| record.policy);
    let block_rule = |row| BlockRuleRecord::try_from(row).map(|record| record.rule);
    Ok(Arc::new(AccessRules {
        revision,
        policies: policies.into_iter().map(policy).collect::<Result<_>>()?,
        block_rules: block_rules.into_iter().map(block_rule).collect::<Result<_>>()?,
    }))
}

#[derive(FromRow)]
struct PolicyColumns {
    policy_id: Uuid,
    priority: i32,
    description: Option<String>,
    spec: Json<PolicySpec>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    version: i64,
}

impl TryFrom<PolicyColumns> for PolicyRecord {
    type Error = Error;

    fn try_from(row: PolicyColumns) -> Result<Self> {
        let priority = u32::try_from(row.priority).map_err(Error::unreadable)?;
        Ok(Self {
            policy: Policy { id: row.policy_id, priority, spec: row.spec.0 },
            description: row.description,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
            version: row.version,
        })
    }
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
