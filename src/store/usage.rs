//! How many connections were taken: a sample every minute, and the hours made of them.

use std::time::Duration;

use time::OffsetDateTime;

use super::{BEGIN_CHANGE, Error, Result, Store};
use crate::model::{ClusterId, Limit, SessionCounts, Timestamp};

// A cluster that was deleted meanwhile is passed over.
const INSERT: &str = "INSERT INTO usage_samples (cluster_id, at, online, offline, connections_limit) \
     SELECT c.id, $1, s.online, s.offline, s.connections_limit \
     FROM UNNEST($2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) \
         AS s (id, online, offline, connections_limit) \
     JOIN clusters c ON c.id = s.id \
     ON CONFLICT (cluster_id, at) DO UPDATE SET online = excluded.online, offline = excluded.offline, \
         connections_limit = excluded.connections_limit";

const ROLL_UP: &str = "INSERT INTO usage_hours (cluster_id, hour, samples, total_peak, total_p95, \
         online_peak, online_p95, connections_limit) \
     SELECT cluster_id, $1, count(*), max(online + offline), \
         percentile_disc(0.95) WITHIN GROUP (ORDER BY online + offline), \
         max(online), percentile_disc(0.95) WITHIN GROUP (ORDER BY online), \
         (array_agg(connections_limit ORDER BY at DESC))[1] \
     FROM usage_samples WHERE at >= $1 AND at < $2 GROUP BY cluster_id \
     ON CONFLICT (cluster_id, hour) DO UPDATE SET samples = excluded.samples, \
         total_peak = excluded.total_peak, total_p95 = excluded.total_p95, \
         online_peak = excluded.online_peak, online_p95 = excluded.online_p95, \
         connections_limit = excluded.connections_limit";

const AT: &str = "SELECT at, online, offline, connections_limit FROM usage_samples \
     WHERE cluster_id = $1 AND at <= $2 AND at > $3 ORDER BY at DESC LIMIT 1";

const HOURS: &str = "SELECT hour, samples, total_peak, total_p95, online_peak, online_p95, connections_limit \
     FROM usage_hours WHERE cluster_id = $1 AND hour >= $2 AND hour < $3 AND hour > $4 ORDER BY hour LIMIT $5";

const FORGET_SAMPLES: &str = "DELETE FROM usage_samples WHERE (cluster_id, at) IN \
     (SELECT cluster_id, at FROM usage_samples WHERE at < $1 LIMIT $2)";

const FORGET_HOURS: &str = "DELETE FROM usage_hours WHERE (cluster_id, hour) IN \
     (SELECT cluster_id, hour FROM usage_hours WHERE hour < $1 LIMIT $2)";

const HOUR_MILLIS: i64 = 3_600_000;

/// How many connections of a cluster were taken at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageSample {
    /// When.
    pub at: Timestamp,
    /// How many.
    pub counts: SessionCounts,
    /// The quota then.
    pub limit: Limit,
}

/// How many connections of a cluster were taken within an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageHour {
    /// When it began.
    pub hour: Timestamp,
    /// How many samples there are of it: 60 when the service ran all of it.
    pub samples: u32,
    /// The most of online and offline sessions together.
    pub total_peak: u32,
    /// What 95 of 100 samples did not exceed, of the same.
    pub total_p95: u32,
    /// The most of online sessions.
    pub online_peak: u32,
    /// What 95 of 100 samples did not exceed, of the same.
    pub online_p95: u32,
    /// The quota at the last sample.
    pub limit: Limit,
}

/// The beginning of the hour that a time is in.
pub fn hour_of(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millis() - at.as_millis().rem_euclid(HOUR_MILLIS))
}

impl Store {
    /// Keeps samples that were taken at `at`, and counts their hour anew.
    pub async fn add_usage(
        &self,
        at: Timestamp,
        samples: &[(ClusterId, SessionCounts, Limit)],
    ) -> Result<()> {
        let hour = hour_of(at);
        let next = Timestamp::from_millis(hour.as_millis() + HOUR_MILLIS);
        let mut tx = self.pool.begin_with(BEGIN_CHANGE).await?;
        sqlx::query(INSERT)
            .bind(OffsetDateTime::from(at))
            .bind(samples.iter().map(|(id, ..)| id.as_str()).collect::<Vec<_>>())
            .bind(samples.iter().map(|(_, counts, _)| i64::from(counts.online)).collect::<Vec<_>>())
            .bind(
                samples.iter().map(|(_, counts, _)| i64::from(counts.offline_persistent)).collect::<Vec<_>>(),
            )
            .bind(samples.iter().map(|(.., limit)| limit.map(i64::from)).collect::<Vec<_>>())
            .execute(&mut *tx)
            .await?;
        sqlx::query(ROLL_UP)
            .bind(OffsetDateTime::from(hour))
            .bind(OffsetDateTime::from(next))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// The last sample at or before `at`, and not longer before it than `within`.
    pub async fn usage_at(
        &self,
        cluster: &ClusterId,
        at: Timestamp,
        within: Duration,
    ) -> Result<Option<UsageSample>> {
        let at = OffsetDateTime::from(at);
        let row: Option<(OffsetDateTime, i64, i64, Option<i64>)> = sqlx::query_as(AT)
            .bind(cluster.as_str())
            .bind(at)
            .bind(at - within)
            .fetch_optional(&self.pool)
            .await?;
        let sample = row.map(|(at, online, offline, limit)| {
            let counts = SessionCounts { online: count(online)?, offline_persistent: count(offline)? };
            Ok(UsageSample { at: at.into(), counts, limit: limit.map(count).transpose()? })
        });
        sample.transpose()
    }

    /// The next `limit` hours after `after`, of those that began from `from` on and before `to`, earliest first.
    pub async fn usage_hours(
        &self,
        cluster: &ClusterId,
        (from, to): (Timestamp, Timestamp),
        after: Option<Timestamp>,
        limit: u32,
    ) -> Result<Vec<UsageHour>> {
        let rows: Vec<HourColumns> = sqlx::query_as(HOURS)
            .bind(cluster.as_str())
            .bind(OffsetDateTime::from(from))
            .bind(OffsetDateTime::from(to))
            .bind(OffsetDateTime::from(after.unwrap_or(Timestamp::EPOCH)))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter().map(UsageHour::try_from).collect()
    }

    /// Forgets up to `limit` samples from before then, and says how many that were.
    pub async fn forget_usage_samples(&self, until: Timestamp, limit: u32) -> Result<u64> {
        self.forget_usage(FORGET_SAMPLES, until, limit).await
    }

    /// Forgets up to `limit` hours from before then, and says how many that were.
    pub async fn forget_usage_hours(&self, until: Timestamp, limit: u32) -> Result<u64> {
        self.forget_usage(FORGET_HOURS, until, limit).await
    }

    async fn forget_usage(&self, sql: &'static str, until: Timestamp, limit: u32) -> Result<u64> {
        let query = sqlx::query(sql).bind(OffsetDateTime::from(until)).bind(i64::from(limit));
        Ok(query.execute(&self.pool).await?.rows_affected())
    }
}

/// A row as Postgres gives it.
#[derive(sqlx::FromRow)]
struct HourColumns {
    hour: OffsetDateTime,
    samples: i64,
    total_peak: i64,
    total_p95: i64,
    online_peak: i64,
    online_p95: i64,
    connections_limit: Option<i64>,
}

impl TryFrom<HourColumns> for UsageHour {
    type Error = Error;

    fn try_from(row: HourColumns) -> Result<Self> {
        Ok(Self {
            hour: row.hour.into(),
            samples: count(row.samples)?,
            total_peak: count(row.total_peak)?,
            total_p95: count(row.total_p95)?,
            online_peak: count(row.online_peak)?,
            online_p95: count(row.online_p95)?,
            limit: row.connections_limit.map(count).transpose()?,
        })
    }
}

fn count(number: i64) -> Result<u32> {
    u32::try_from(number).map_err(Error::unreadable)
}
