//! Message enhancement rules of clusters.

use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::types::{Json, Uuid};
use sqlx::{FromRow, PgConnection, Row};

use super::cluster_items::{ClusterItem, Put, all_items, json, place, time};
use super::{Error, Result};
use crate::model::{ClusterId, MessageRule, MessageRuleSpec, MessageRules, Timestamp};

macro_rules! columns {
    () => {
        "message_rule_id, priority, name, description, is_enabled, spec, created_at, updated_at, version"
    };
}

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

impl ClusterItem for MessageRuleRecord {
    type New = NewMessageRule;
    type Key = u32;

    const LIST: &'static str = concat!(
        "SELECT ",
        columns!(),
        " FROM message_rules WHERE cluster_id = $1 AND priority > $2 ORDER BY priority LIMIT $3"
    );
    const GET: &'static str =
        concat!("SELECT ", columns!(), " FROM message_rules WHERE cluster_id = $1 AND message_rule_id = $2");
    const COUNT: &'static str = "SELECT count(*) FROM message_rules WHERE cluster_id = $1";
    const INSERT: &'static str = concat!(
        "INSERT INTO message_rules (cluster_id, ",
        columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, 1) RETURNING ",
        columns!()
    );
    const UPDATE: &'static str = concat!(
        "UPDATE message_rules SET priority = $3, name = $4, description = $5, is_enabled = $6, spec = $7, \
         updated_at = $8, version = version + 1 WHERE cluster_id = $1 AND message_rule_id = $2 RETURNING ",
        columns!()
    );
    const DELETE: &'static str = "DELETE FROM message_rules WHERE cluster_id = $1 AND message_rule_id = $2";
    const BEGIN_REVISION: &'static str =
        "UPDATE clusters SET message_rules_revision = gen_random_uuid() WHERE id = $1";

    fn bind<'q>(put: Put<'q, Self>, new: &'q NewMessageRule) -> Result<Put<'q, Self>> {
        Ok(put
            .bind(i32::try_from(new.priority).map_err(Error::unreadable)?)
            .bind(&new.name)
            .bind(new.description.as_deref())
            .bind(new.is_enabled)
            .bind(Json(&new.spec)))
    }
}

impl FromRow<'_, PgRow> for MessageRuleRecord {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let priority = place(row, "priority")?;
        Ok(Self {
            rule: MessageRule { id: row.try_get("message_rule_id")?, priority, spec: json(row, "spec")? },
            name: row.try_get("name")?,
            description: row.try_get("description")?,
            is_enabled: row.try_get("is_enabled")?,
            created_at: time(row, "created_at")?,
            updated_at: time(row, "updated_at")?,
            version: row.try_get("version")?,
        })
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
    let records: Vec<MessageRuleRecord> = all_items(connection, cluster).await?;
    let enabled = records.into_iter().filter(|record| record.is_enabled);
    Ok(Arc::new(MessageRules { revision, rules: enabled.map(|record| record.rule).collect() }))
}
