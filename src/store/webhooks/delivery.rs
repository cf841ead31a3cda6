//! How far a webhook is: its position in the cluster's events, its failures, and what was given up.

use time::OffsetDateTime;

use super::{WebhookColumns, WebhookRecord, webhook_columns};
use crate::model::{ClusterId, Timestamp};
use crate::store::{BEGIN_CHANGE, EventSpan, Result, Store, Tx};

/// How many dead letters of a webhook are kept; the oldest go.
const DEAD_LETTERS_MAX: u32 = 10_000;

// Asked after each commit of events: most databases have none, and planning what follows costs more than the rest.
const ANY_ENABLED: &str = "SELECT EXISTS (SELECT FROM webhooks WHERE enabled)";

const DUE: &str = concat!(
    "SELECT h.first, h.last, w.failures, ",
    webhook_columns!(),
    " FROM webhooks w JOIN session_event_heads h ON h.cluster_id = w.cluster_id \
     WHERE w.enabled AND (w.next_attempt_at IS NULL OR w.next_attempt_at <= $1) AND (h.last > w.position \
         OR EXISTS (SELECT 1 FROM webhook_dead_letters d WHERE d.cluster_id = w.cluster_id \
             AND d.webhook_id = w.id AND d.retry)) \
     ORDER BY w.next_attempt_at NULLS FIRST, w.cluster_id, w.id LIMIT $2"
);

// What an operator changed meanwhile is told by the version.
const ADVANCE: &str = "UPDATE webhooks SET position = $3, attempts = 0, failures = 0, next_attempt_at = NULL, \
     last_error = NULL, last_delivered_at = coalesce($4, last_delivered_at), missed = missed + $5 \
     WHERE cluster_id = $1 AND id = $2 AND position <= $3 RETURNING version";

const FAILED: &str = "UPDATE webhooks SET attempts = $3, failures = $4, next_attempt_at = $5, last_error = $6 \
     WHERE cluster_id = $1 AND id = $2 RETURNING version";

const GIVE_UP: &str = "UPDATE webhooks SET position = $3, attempts = 0, failures = $4, next_attempt_at = $5, \
     last_error = $6 WHERE cluster_id = $1 AND id = $2 AND position < $3 RETURNING version";

const BURY: &str = "INSERT INTO webhook_dead_letters (cluster_id, webhook_id, seq, body, attempts, error, died_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (cluster_id, webhook_id, seq) DO NOTHING";

const FORGET: &str = "DELETE FROM webhook_dead_letters WHERE cluster_id = $1 AND webhook_id = $2 AND seq <= \
     (SELECT seq FROM webhook_dead_letters WHERE cluster_id = $1 AND webhook_id = $2 ORDER BY seq DESC \
      OFFSET $3 LIMIT 1)";

const LIST: &str = "SELECT seq, body, attempts, error, died_at, retry FROM webhook_dead_letters \
     WHERE cluster_id = $1 AND webhook_id = $2 AND seq > $3 ORDER BY seq LIMIT $4";

const RETRYING: &str = "SELECT seq, body, attempts, error, died_at, retry FROM webhook_dead_letters \
     WHERE cluster_id = $1 AND webhook_id = $2 AND retry ORDER BY seq LIMIT $3";

const RETRY: &str = "UPDATE webhook_dead_letters SET retry = true \
     WHERE cluster_id = $1 AND webhook_id = $2 AND ($3::bigint IS NULL OR seq = $3)";

const RAISED: &str =
    "DELETE FROM webhook_dead_letters WHERE cluster_id = $1 AND webhook_id = $2 AND seq = $3";

const STILL_DEAD: &str = "UPDATE webhook_dead_letters SET retry = false, attempts = attempts + 1, error = $4 \
     WHERE cluster_id = $1 AND webhook_id = $2 AND seq = $3";

/// How far a webhook is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// The last event that was delivered, passed over or given up.
    pub position: i64,
    /// How many events there are behind it.
    pub lag: u64,
    /// How often the next one was tried.
    pub attempts: u32,
    /// When it is tried again; `None` when nothing is in the way.
    pub next_attempt_at: Option<Timestamp>,
    /// Why it failed.
    pub last_error: Option<String>,
    /// When an event was last delivered.
    pub last_delivered_at: Option<Timestamp>,
    /// Events that were no longer kept when their turn came.
    pub missed: u64,
    /// Events that were given up.
    pub dead_letters: u64,
}

/// A webhook that has something to deliver.
#[derive(Clone, Debug)]
pub struct DueWebhook {
    /// The webhook.
    pub record: WebhookRecord,
    /// How often in a row it could not be reached.
    pub failures: u32,
    /// Which events of its cluster are kept.
    pub span: EventSpan,
}

/// An event that is tried no more.
#[derive(Clone, Debug)]
pub struct GivenUp {
    /// Which event.
    pub seq: i64,
    /// What was to be sent.
    pub body: String,
    /// How often it was.
    pub attempts: u32,
    /// Why it failed.
    pub error: String,
}

/// An event that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Which event.
    pub seq: i64,
    /// What was to be sent.
    pub body: String,
    /// How often it was.
    pub attempts: u32,
    /// Why it failed.
    pub error: String,
    /// When it was given up.
    pub died_at: Timestamp,
    /// Whether somebody wants it tried again.
    pub retry: bool,
}

impl Store {
    /// Webhooks that have something to deliver at `now`, those that wait longest first.
    pub async fn due_webhooks(&self, now: Timestamp, limit: u32) -> Result<Vec<DueWebhook>> {
        if !sqlx::query_scalar(ANY_ENABLED).fetch_one(&self.pool).await? {
            return Ok(Vec::new());
        }
        let rows: Vec<DueColumns> = sqlx::query_as(DUE)
            .bind(OffsetDateTime::from(now))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        let due = rows.into_iter().map(|row| {
            Ok(DueWebhook {
                record: row.webhook.try_into()?,
                failures: row.failures,
                span: EventSpan { first: row.first, last: row.last },
            })
        });
        due.collect()
    }

    /// The webhook is done with all events up to `seq`; `delivered_at` when the last of them was delivered, and
    /// `missed` when some were gone. Says the webhook's version; `None` when it is gone.
    pub async fn webhook_advanced(
        &self,
        (cluster, id): (&ClusterId, &str),
        seq: i64,
        delivered_at: Option<Timestamp>,
        missed: i64,
    ) -> Result<Option<i64>> {
        let query = sqlx::query_scalar(ADVANCE)
            .bind(cluster.as_str())
            .bind(id)
            .bind(seq)
            .bind(delivered_at.map(OffsetDateTime::from))
            .bind(missed);
        Ok(query.fetch_optional(&self.pool).await?)
    }

    /// The event behind the position was tried so often and has failed.
    pub async fn webhook_failed(
        &self,
        (cluster, id): (&ClusterId, &str),
        (attempts, failures): (u32, u32),
        next_attempt_at: Timestamp,
        error: &str,
    ) -> Result<()> {
        sqlx::query(FAILED)
            .bind(cluster.as_str())
            .bind(id)
            .bind(i64::from(attempts))
            .bind(i64::from(failures))
            .bind(OffsetDateTime::from(next_attempt_at))
            .bind(error)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Gives an event up and goes on behind it.
    pub async fn webhook_gave_up(
        &self,
        (cluster, id): (&ClusterId, &str),
        event: &GivenUp,
        failures: u32,
        next_attempt_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<()> {
        let mut tx = self.pool.begin_with(BEGIN_CHANGE).await?;
        let moved = sqlx::query(GIVE_UP)
            .bind(cluster.as_str())
            .bind(id)
            .bind(event.seq)
            .bind(i64::from(failures))
            .bind(next_attempt_at.map(OffsetDateTime::from))
            .bind(&event.error)
            .fetch_optional(&mut *tx)
            .await?;
        if moved.is_some() {
            sqlx::query(BURY)
                .bind(cluster.as_str())
                .bind(id)
                .bind(event.seq)
                .bind(&event.body)
                .bind(i64::from(event.attempts))
                .bind(&event.error)
                .bind(OffsetDateTime::from(now))
                .execute(&mut *tx)
                .await?;
            let kept = i64::from(DEAD_LETTERS_MAX);
            sqlx::query(FORGET).bind(cluster.as_str()).bind(id).bind(kept).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// The next `limit` dead letters after an event, oldest first.
    pub async fn list_dead_letters(
        &self,
        cluster: &ClusterId,
        id: &str,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>> {
        let query = sqlx::query_as(LIST).bind(cluster.as_str()).bind(id);
        let query = query.bind(after.unwrap_or_default()).bind(i64::from(limit));
        let rows: Vec<LetterColumns> = query.fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(DeadLetter::from).collect())
    }

    /// Up to `limit` dead letters that somebody wants tried again, oldest first.
    pub async fn retrying_dead_letters(
        &self,
        (cluster, id): (&ClusterId, &str),
        limit: u32,
    ) -> Result<Vec<DeadLetter>> {
        let query = sqlx::query_as(RETRYING).bind(cluster.as_str()).bind(id).bind(i64::from(limit));
        let rows: Vec<LetterColumns> = query.fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(DeadLetter::from).collect())
    }

    /// A dead letter was delivered after all.
    pub async fn dead_letter_delivered(&self, (cluster, id): (&ClusterId, &str), seq: i64) -> Result<()> {
        sqlx::query(RAISED).bind(cluster.as_str()).bind(id).bind(seq).execute(&self.pool).await?;
        Ok(())
    }

    /// A dead letter has failed once more; it is not tried again by itself.
    pub async fn dead_letter_failed(
        &self,
        (cluster, id): (&ClusterId, &str),
        seq: i64,
        error: &str,
    ) -> Result<()> {
        let query = sqlx::query(STILL_DEAD).bind(cluster.as_str()).bind(id).bind(seq).bind(error);
        query.execute(&self.pool).await?;
        Ok(())
    }
}

impl Tx {
    /// Has a dead letter, or all of them, tried again. Says how many that are.
    pub async fn retry_dead_letters(
        &mut self,
        cluster: &ClusterId,
        id: &str,
        seq: Option<i64>,
    ) -> Result<u64> {
        let query = sqlx::query(RETRY).bind(cluster.as_str()).bind(id).bind(seq);
        Ok(query.execute(&mut *self.transaction).await?.rows_affected())
    }
}

/// A row as Postgres gives it.
#[derive(sqlx::FromRow)]
struct DueColumns {
    first: i64,
    last: i64,
    #[sqlx(try_from = "i64")]
    failures: u32,
    #[sqlx(flatten)]
    webhook: WebhookColumns,
}

/// A row as Postgres gives it.
#[derive(sqlx::FromRow)]
struct LetterColumns {
    seq: i64,
    body: String,
    #[sqlx(try_from = "i64")]
    attempts: u32,
    error: String,
    died_at: OffsetDateTime,
    retry: bool,
}

impl From<LetterColumns> for DeadLetter {
    fn from(row: LetterColumns) -> Self {
        let LetterColumns { seq, body, attempts, error, died_at, retry } = row;
        Self { seq, body, attempts, error, died_at: died_at.into(), retry }
    }
}
