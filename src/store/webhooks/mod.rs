//! Webhooks: where the events of a cluster's sessions are delivered to, and how far that is ([`delivery`]).

mod delivery;

use std::collections::BTreeSet;

use sqlx::types::Json;
use time::OffsetDateTime;

pub use delivery::{DeadLetter, Delivery, DueWebhook, GivenUp};

use super::{Error, EventKind, Result, Store, Tx};
use crate::model::{ClusterId, HttpUrl, Timestamp, WebhookSecret};

macro_rules! webhook_columns {
    () => {
        "w.cluster_id, w.id, w.name, w.url, w.kinds, w.enabled, w.secret, w.created_at, w.updated_at, w.version, \
         w.position, w.attempts, w.next_attempt_at, w.last_error, w.last_delivered_at, w.missed, \
         (SELECT count(*) FROM webhook_dead_letters d WHERE d.cluster_id = w.cluster_id AND d.webhook_id = w.id) \
             AS dead_letters, \
         greatest(coalesce((SELECT h.last FROM session_event_heads h WHERE h.cluster_id = w.cluster_id), 0) \
             - w.position, 0) AS lag"
    };
}
use webhook_columns;

// It begins with what happens from now on.
const INSERT: &str = "INSERT INTO webhooks (cluster_id, id, name, url, kinds, enabled, secret, created_at, \
     updated_at, version, position) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, 1, \
     coalesce((SELECT last FROM session_event_heads WHERE cluster_id = $1), 0))";

// Another target is tried at once.
const UPDATE: &str = "UPDATE webhooks SET name = $3, url = $4, kinds = $5, enabled = $6, secret = $7, \
     updated_at = $8, version = version + 1, next_attempt_at = NULL, failures = 0 \
     WHERE cluster_id = $1 AND id = $2";

const DELETE: &str = "DELETE FROM webhooks WHERE cluster_id = $1 AND id = $2";

const COUNT: &str = "SELECT count(*) FROM webhooks WHERE cluster_id = $1";

const GET: &str =
    concat!("SELECT ", webhook_columns!(), " FROM webhooks w WHERE w.cluster_id = $1 AND w.id = $2");

const LIST: &str = concat!(
    "SELECT ",
    webhook_columns!(),
    " FROM webhooks w WHERE w.cluster_id = $1 AND w.id > $2 ORDER BY w.id LIMIT $3"
);

/// A webhook as an operator sets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Of which cluster's sessions.
    pub cluster: ClusterId,
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Where to.
    pub url: HttpUrl,
    /// Which events; `None` for all.
    pub kinds: Option<BTreeSet<EventKind>>,
    /// Whether anything is delivered.
    pub enabled: bool,
    /// What signs it.
    pub secret: WebhookSecret,
}

/// A webhook as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookRecord {
    /// What was set.
    pub webhook: Webhook,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last set otherwise.
    pub updated_at: Timestamp,
    /// Counts how often it was.
    pub version: i64,
    /// How far it is.
    pub delivery: Delivery,
}

impl Store {
    /// The webhook of that id.
    pub async fn get_webhook(&self, cluster: &ClusterId, id: &str) -> Result<Option<WebhookRecord>> {
        if id.contains('\0') {
            return Ok(None);
        }
        let row: Option<WebhookColumns> =
            sqlx::query_as(GET).bind(cluster.as_str()).bind(id).fetch_optional(&self.pool).await?;
        row.map(WebhookRecord::try_from).transpose()
    }

    /// The next `limit` webhooks with ids above `after`.
    pub async fn list_webhooks(
        &self,
        cluster: &ClusterId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<WebhookRecord>> {
        let rows: Vec<WebhookColumns> = sqlx::query_as(LIST)
            .bind(cluster.as_str())
            .bind(after.unwrap_or_default())
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter().map(WebhookRecord::try_from).collect()
    }
}

impl Tx {
    /// Makes a webhook, which gets what happens from now on.
    pub async fn insert_webhook(&mut self, new: &Webhook, now: Timestamp) -> Result<WebhookRecord> {
        self.write_webhook(INSERT, new, now).await?;
        self.webhook(&new.cluster, &new.id).await
    }

    /// Sets a webhook otherwise.
    pub async fn update_webhook(&mut self, new: &Webhook, now: Timestamp) -> Result<WebhookRecord> {
        self.write_webhook(UPDATE, new, now).await?;
        self.webhook(&new.cluster, &new.id).await
    }

    /// Removes a webhook with all that was given up.
    pub async fn delete_webhook(&mut self, cluster: &ClusterId, id: &str) -> Result<()> {
        sqlx::query(DELETE).bind(cluster.as_str()).bind(id).execute(&mut *self.transaction).await?;
        Ok(())
    }

    /// How many the cluster has.
    pub async fn count_webhooks(&mut self, cluster: &ClusterId) -> Result<u32> {
        let query = sqlx::query_scalar(COUNT).bind(cluster.as_str());
        let count: i64 = query.fetch_one(&mut *self.transaction).await?;
        u32::try_from(count).map_err(Error::unreadable)
    }

    async fn write_webhook(&mut self, sql: &'static str, new: &Webhook, now: Timestamp) -> Result<()> {
        let done = sqlx::query(sql)
            .bind(new.cluster.as_str())
            .bind(&new.id)
            .bind(&new.name)
            .bind(new.url.as_str())
            .bind(new.kinds.as_ref().map(Json))
            .bind(new.enabled)
            .bind(new.secret.expose())
            .bind(OffsetDateTime::from(now))
            .execute(&mut *self.transaction)
            .await?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(Error::unreadable("the webhook is gone")) }
    }

    async fn webhook(&mut self, cluster: &ClusterId, id: &str) -> Result<WebhookRecord> {
        let row: WebhookColumns =
            sqlx::query_as(GET).bind(cluster.as_str()).bind(id).fetch_one(&mut *self.transaction).await?;
        row.try_into()
    }
}

/// A row as Postgres gives it.
#[derive(sqlx::FromRow)]
pub(super) struct WebhookColumns {
    cluster_id: String,
    id: String,
    name: String,
    url: String,
    kinds: Option<Json<BTreeSet<EventKind>>>,
    enabled: bool,
    secret: Vec<u8>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    version: i64,
    position: i64,
    #[sqlx(try_from = "i64")]
    attempts: u32,
    next_attempt_at: Option<OffsetDateTime>,
    last_error: Option<String>,
    last_delivered_at: Option<OffsetDateTime>,
    missed: i64,
    dead_letters: i64,
    lag: i64,
}

impl TryFrom<WebhookColumns> for WebhookRecord {
    type Error = Error;

    fn try_from(row: WebhookColumns) -> Result<Self> {
        let count = |number: i64| u64::try_from(number).map_err(Error::unreadable);
        Ok(Self {
            webhook: Webhook {
                cluster: ClusterId::new(&row.cluster_id).map_err(Error::unreadable)?,
                id: row.id,
                name: row.name,
                url: row.url.parse().map_err(Error::unreadable)?,
                kinds: row.kinds.map(|kinds| kinds.0),
                enabled: row.enabled,
                secret: WebhookSecret::new(row.secret).map_err(Error::unreadable)?,
            },
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
            version: row.version,
            delivery: Delivery {
                position: row.position,
                lag: count(row.lag)?,
                attempts: row.attempts,
                next_attempt_at: row.next_attempt_at.map(Timestamp::from),
                last_error: row.last_error,
                last_delivered_at: row.last_delivered_at.map(Timestamp::from),
                missed: count(row.missed)?,
                dead_letters: count(row.dead_letters)?,
            },
        })
    }
}
