//! Block rules.

use sqlx::postgres::PgRow;
use sqlx::types::{Json, Uuid};
use sqlx::{FromRow, Row};
use time::OffsetDateTime;

use crate::model::{BlockRule, BlockRuleSpec, ClusterId, Timestamp};
use crate::store::cluster_items::{ClusterItem, Put, json, time};
use crate::store::{Result, Tx};

macro_rules! columns {
    () => {
        "block_rule_id, spec, expires_at, reason, created_at, updated_at, version"
    };
}

const DELETE_EXPIRED: &str = "DELETE FROM block_rules WHERE cluster_id = $1 AND expires_at <= $2";

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

impl ClusterItem for BlockRuleRecord {
    type New = NewBlockRule;
    type Key = Uuid;

    const LIST: &'static str = concat!(
        "SELECT ",
        columns!(),
        " FROM block_rules WHERE cluster_id = $1 AND block_rule_id > $2 ORDER BY block_rule_id LIMIT $3"
    );
    const GET: &'static str =
        concat!("SELECT ", columns!(), " FROM block_rules WHERE cluster_id = $1 AND block_rule_id = $2");
    // Those too that have expired.
    const COUNT: &'static str = "SELECT count(*) FROM block_rules WHERE cluster_id = $1";
    const INSERT: &'static str = concat!(
        "INSERT INTO block_rules (cluster_id, ",
        columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $6, 1) RETURNING ",
        columns!()
    );
    const UPDATE: &'static str = concat!(
        "UPDATE block_rules SET spec = $3, expires_at = $4, reason = $5, updated_at = $6, version = version + 1 \
         WHERE cluster_id = $1 AND block_rule_id = $2 RETURNING ",
        columns!()
    );
    const DELETE: &'static str = "DELETE FROM block_rules WHERE cluster_id = $1 AND block_rule_id = $2";
    const BEGIN_REVISION: &'static str = super::BEGIN_REVISION;

    fn bind<'q>(put: Put<'q, Self>, new: &'q NewBlockRule) -> Result<Put<'q, Self>> {
        Ok(put
            .bind(Json(&new.spec))
            .bind(new.expires_at.map(OffsetDateTime::from))
            .bind(new.reason.as_deref()))
    }
}

impl FromRow<'_, PgRow> for BlockRuleRecord {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let rule = BlockRule {
            id: row.try_get("block_rule_id")?,
            spec: json(row, "spec")?,
            expires_at: row.try_get::<Option<OffsetDateTime>, _>("expires_at")?.map(Timestamp::from),
            reason: row.try_get("reason")?,
        };
        Ok(Self {
            rule,
            created_at: time(row, "created_at")?,
            updated_at: time(row, "updated_at")?,
            version: row.try_get("version")?,
        })
    }
}

impl Tx {
    /// Deletes the block rules of a cluster that have expired.
    pub async fn delete_expired_block_rules(&mut self, cluster: &ClusterId, now: Timestamp) -> Result<()> {
        sqlx::query(DELETE_EXPIRED)
            .bind(cluster.as_str())
            .bind(OffsetDateTime::from(now))
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }
}
