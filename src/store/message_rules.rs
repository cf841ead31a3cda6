//! Message enhancement rules of clusters.
//!
//! Each mutation gives the cluster another `message_rules_revision` and moves the desired revision on, in its own
//! transaction, which must have locked the cluster.

use std::sync::Arc;

use sqlx::types::{Json, Uuid};
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use super::{Error, Result, Store, Tx};
use crate::model::{ClusterId, MessageRule, MessageRuleSpec, MessageRules, Timestamp};

macro_rules! columns {
    () => {
        "message_rule_id, priority, name, description, is_enabled, spec, created_at, updated_at, version"
    };
}

// Every priority is above -1.
const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM message_rules WHERE cluster_id = $1 AND priority > $2 ORDER BY priority LIMIT $3"
);

const GET: &str =
    concat!("SELECT ", columns!(), " FROM message_rules WHERE cluster_id = $1 AND message_rule_id = $2");

const COUNT: &str = "SELECT count(*) FROM message_rules WHERE cluster_id = $1";

const INSERT: &str = concat!(
    "INSERT INTO message_rules (cluster_id, ",
    columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, 1) RETURNING ",
    columns!()
);

const UPDATE: &str = concat!(
    "UPDATE message_rules SET priority = $3, name = $4, description = $5, is_enabled = $6, spec = $7, \
     updated_at = $8, version = version + 1 WHERE cluster_id = $1 AND message_rule_id = $2 RETURNING ",
    columns!()
);

const DELETE: &str = "DELETE FROM message_rules WHERE cluster_id = $1 AND message_rule_id = $2";

const BEGIN_REVISION: &str = "UPDATE clusters SET message_rules_revision = gen_random_uuid() WHERE id = $1";

/// A rule as it is kept.
#[derive(Clone, Debug)]
pub struct MessageRuleRecord {
    /// The rule.
    pub rule: MessageRule,
    /// What people call it.
    pub name: String,
    /// What people say of it.
    pub description: Option<String>,
    /// Whether it applies.
    pub is_enabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Counts the changes.
    pub version: i64,
}

/// A rule as it should be.
#[derive(Clone, Debug)]
pub struct NewMessageRule {
    /// When it applies.
    pub priority: u32,
    /// What people call it.
    pub name: String,
    /// What people say of it.
    pub description: Option<String>,
    /// Whether it applies.
    pub is_enabled: bool,
    /// What it says.
    pub spec: MessageRuleSpec,
}

impl Store {
    /// The next `limit` rules of a cluster with priorities above `after`, in that order.
    pub async fn list_message_rules(
        &self,
        cluster: &ClusterId,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Vec<MessageRuleRecord>> {
        let rows: Vec<Columns> = sqlx::query_as(LIST)
            .bind(cluster.as_str())
            .bind(after.map_or(Ok(-1), i32::try_from).map_err(Error::unreadable)?)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter().map(MessageRuleRecord::try_from).collect()
    }

    /// A rule.
    pub async fn get_message_rule(&self, cluster: &ClusterId, id: Uuid) -> Result<Option<MessageRuleRecord>> {
        let row: Option<Columns> =
            sqlx::query_as(GET).bind(cluster.as_str()).bind(id).fetch_optional(&self.pool).await?;
        row.map(MessageRuleRecord::try_from).transpose()
    }
}

impl Tx {
    /// A rule, which nobody else changes while the cluster is locked.
    pub async fn get_message_rule(
        &mut self,
        cluster: &ClusterId,
        id: Uuid,
    ) -> Result<Option<MessageRuleRecord>> {
        let row: Option<Columns> = sqlx::query_as(GET)
            .bind(cluster.as_str())
            .bind(id)
            .fetch_optional(&mut *self.transaction)
            .await?;
        row.map(MessageRuleRecord::try_from).transpose()
    }

    /// How many rules a cluster has.
    pub async fn count_message_rules(&mut self, cluster: &ClusterId) -> Result<u32> {
        let count: i64 =
            sqlx::query_scalar(COUNT).bind(cluster.as_str()).fetch_one(&mut *self.transaction).await?;
        u32::try_from(count).map_err(Error::unreadable)
    }

    /// Makes a rule in a cluster that this transaction has locked.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another rule of the cluster has the priority.
    pub async fn insert_message_rule(
        &mut self,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewMessageRule,
        now: Timestamp,
    ) -> Result<MessageRuleRecord> {
        self.put_message_rule(INSERT, cluster, id, new, now).await
    }

    /// Makes a rule that exists another, in a cluster that this transaction has locked.
    ///
    /// # Errors
    /// As [`Tx::insert_message_rule`].
    pub async fn update_message_rule(
        &mut self,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewMessageRule,
        now: Timestamp,
    ) -> Result<MessageRuleRecord> {
        self.put_message_rule(UPDATE, cluster, id, new, now).await
    }

    async fn put_message_rule(
        &mut self,
        statement: &'static str,
        cluster: &ClusterId,
        id: Uuid,
        new: &NewMessageRule,
        now: Timestamp,
    ) -> Result<MessageRuleRecord> {
        let row: Columns = sqlx::query_as(statement)
            .bind(cluster.as_str())
            .bind(id)
            .bind(i32::try_from(new.priority).map_err(Error::unreadable)?)
            .bind(&new.name)
            .bind(new.description.as_deref())
            .bind(new.is_enabled)
            .bind(Json(&new.spec))
            .bind(OffsetDateTime::from(now))
            .fetch_one(&mut *self.transaction)
            .await?;
        self.begin_message_rules_revision(cluster).await?;
        row.try_into()
    }

    /// Deletes a rule of a cluster that this transaction has locked. Says whether it existed.
    pub async fn delete_message_rule(&mut self, cluster: &ClusterId, id: Uuid) -> Result<bool> {
        let done =
            sqlx::query(DELETE).bind(cluster.as_str()).bind(id).execute(&mut *self.transaction).await?;
        let existed = done.rows_affected() > 0;
        if existed {
            self.begin_message_rules_revision(cluster).await?;
        }
        Ok(existed)
    }

    async fn begin_message_rules_revision(&mut self, cluster: &ClusterId) -> Result<()> {
        sqlx::query(BEGIN_REVISION).bind(cluster.as_str()).execute(&mut *self.transaction).await?;
        self.bump_desired_revision().await
    }
}

/// The enabled rules of a cluster whose `message_rules_revision` is `revision`: the known ones when they are still
/// these.
pub(super) async fn message_rules(
    connection: &mut PgConnection,
    cluster: &ClusterId,
    revision: Uuid,
    known: Option<&Arc<MessageRules>>,
) -> Result<Arc<MessageRules>> {
    if let Some(known) = known.filter(|known| known.revision == revision) {
        return Ok(Arc::clone(known));
    }
    let rows: Vec<Columns> =
        sqlx::query_as(LIST).bind(cluster.as_str()).bind(-1).bind(i64::MAX).fetch_all(connection).await?;
    let enabled = rows.into_iter().filter(|row| row.is_enabled);
    let rule = |row| MessageRuleRecord::try_from(row).map(|record| record.rule);
    Ok(Arc::new(MessageRules { revision, rules: enabled.map(rule).collect::<Result<_>>()? }))
}

#[derive(FromRow)]
struct Columns {
    message_rule_id: Uuid,
    priority: i32,
    name: String,
    description: Option<String>,
    is_enabled: bool,
    spec: Json<MessageRuleSpec>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    version: i64,
}

impl TryFrom<Columns> for MessageRuleRecord {
    type Error = Error;

    fn try_from(row: Columns) -> Result<Self> {
        let priority = u32::try_from(row.priority).map_err(Error::unreadable)?;
        Ok(Self {
            rule: MessageRule { id: row.message_rule_id, priority, spec: row.spec.0 },
            name: row.name,
            description: row.description,
            is_enabled: row.is_enabled,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
            version: row.version,
        })
    }
}
