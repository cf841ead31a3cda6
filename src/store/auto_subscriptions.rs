//! Automatic subscriptions of clusters.

use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::types::{Json, Uuid};
use sqlx::{FromRow, PgConnection, Row};

use super::Result;
use super::cluster_items::{ClusterItem, Put, json, time};
use crate::model::{AutoSubscription, AutoSubscriptionSpec, AutoSubscriptions, ClusterId, Timestamp};

macro_rules! columns {
    () => {
        "auto_subscription_id, description, spec, created_at, updated_at, version"
    };
}

// Ids grow with the time at which the rules are made.
const NEWEST_FIRST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM auto_subscriptions WHERE cluster_id = $1 ORDER BY auto_subscription_id DESC"
);

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

impl ClusterItem for AutoSubscriptionRecord {
    type New = NewAutoSubscription;
    type Key = Uuid;

    const LIST: &'static str = concat!(
        "SELECT ",
        columns!(),
        " FROM auto_subscriptions WHERE cluster_id = $1 AND auto_subscription_id > $2 \
         ORDER BY auto_subscription_id LIMIT $3"
    );
    const GET: &'static str = concat!(
        "SELECT ",
        columns!(),
        " FROM auto_subscriptions WHERE cluster_id = $1 AND auto_subscription_id = $2"
    );
    const COUNT: &'static str = "SELECT count(*) FROM auto_subscriptions WHERE cluster_id = $1";
    const INSERT: &'static str = concat!(
        "INSERT INTO auto_subscriptions (cluster_id, ",
        columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $5, 1) RETURNING ",
        columns!()
    );
    const UPDATE: &'static str = concat!(
        "UPDATE auto_subscriptions SET description = $3, spec = $4, updated_at = $5, version = version + 1 \
         WHERE cluster_id = $1 AND auto_subscription_id = $2 RETURNING ",
        columns!()
    );
    const DELETE: &'static str =
        "DELETE FROM auto_subscriptions WHERE cluster_id = $1 AND auto_subscription_id = $2";
    const BEGIN_REVISION: &'static str =
        "UPDATE clusters SET auto_subscriptions_revision = gen_random_uuid() WHERE id = $1";

    fn bind<'q>(put: Put<'q, Self>, new: &'q NewAutoSubscription) -> Result<Put<'q, Self>> {
        Ok(put.bind(new.description.as_deref()).bind(Json(&new.spec)))
    }
}

impl FromRow<'_, PgRow> for AutoSubscriptionRecord {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            rule: AutoSubscription { id: row.try_get("auto_subscription_id")?, spec: json(row, "spec")? },
            description: row.try_get("description")?,
            created_at: time(row, "created_at")?,
            updated_at: time(row, "updated_at")?,
            version: row.try_get("version")?,
        })
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
    let records: Vec<AutoSubscriptionRecord> =
        sqlx::query_as(NEWEST_FIRST).bind(cluster.as_str()).fetch_all(connection).await?;
    let rules = records.into_iter().map(|record| record.rule).collect();
    Ok(Arc::new(AutoSubscriptions { revision, rules }))
}
