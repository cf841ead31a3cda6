//! The audit log: who asked for which change, and what became of it.
//!
//! A row is written before the effect ([`Store::start_audit`]). What the record was and is goes in with
//! the effect's own transaction ([`Tx::note_audit`]); outcome and duration follow
//! ([`Store::finish_audit`]). A row that a crash has left says `started`, or tells in `after` what
//! was committed.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder};
use time::OffsetDateTime;

use super::{Error, Result, Store, Tx};
use crate::model::Timestamp;

const START: &str = "INSERT INTO audit_log (at, actor, key_id, ip, request_id, operation, method, path, \
     cluster_id, client_id, outcome) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'started') RETURNING id";

const NOTE: &str = "UPDATE audit_log SET before = $2, after = $3 WHERE id = $1";

const FINISH: &str =
    "UPDATE audit_log SET outcome = $2, status = $3, code = $4, duration_ms = $5 WHERE id = $1";

const FINISH_WITH: &str = "UPDATE audit_log SET outcome = $2, status = $3, code = $4, duration_ms = $5, \
     after = coalesce(after, $6) WHERE id = $1";

const LIST: &str = "SELECT id, at, actor, key_id, ip, request_id, operation, method, path, cluster_id, \
     client_id, outcome, status, code, duration_ms, before, after FROM audit_log WHERE true";

const FORGET: &str = "DELETE FROM audit_log WHERE id IN (SELECT id FROM audit_log WHERE at <= $1 LIMIT $2)";

/// What is known of a change before it is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditStart {
    /// Who asks: the subject of the token, or the name of the API key.
    pub actor: String,
    /// The API key that was used, if one was.
    pub key_id: Option<String>,
    /// The address that the request came from.
    pub ip: Option<String>,
    /// The request's id.
    pub request_id: String,
    /// The name of the operation, as the specification has it.
    pub operation: String,
    /// The HTTP method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The cluster that the path names.
    pub cluster: Option<String>,
    /// The client that the path names.
    pub client_id: Option<String>,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditOutcome {
    /// Being worked on, or left so by a crash.
    Started,
    /// Done.
    Succeeded,
    /// Nothing was done; the caller is told why.
    Refused,
    /// The service could not do it, or does not know whether it is done.
    Failed,
}

impl AuditOutcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Started, Self::Succeeded, Self::Refused, Self::Failed];

    /// As the API and the store write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    /// The reverse of [`AuditOutcome::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

/// The end of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEnd {
    /// What became of it.
    pub outcome: AuditOutcome,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The problem's code, if it was one.
    pub code: Option<&'static str>,
    /// How long it took.
    pub duration_millis: u64,
    /// What was answered, where no transaction has noted it.
    pub after: Option<Value>,
}

/// A row of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Grows with every change.
    pub id: i64,
    /// When it was asked for.
    pub at: Timestamp,
    /// Who asked for what.
    pub start: AuditStart,
    /// What became of it.
    pub outcome: AuditOutcome,
    /// The HTTP status of the answer.
    pub status: Option<u16>,
    /// The problem's code, if it was one.
    pub code: Option<String>,
    /// How long it took.
    pub duration_millis: Option<u64>,
    /// The record before.
    pub before: Option<Value>,
    /// The record after, or the answer.
    pub after: Option<Value>,
}

/// Which rows to list. What is `None` does not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Of this cluster.
    pub cluster: Option<String>,
    /// About this client.
    pub client_id: Option<String>,
    /// By this actor.
    pub actor: Option<String>,
    /// With this API key.
    pub key_id: Option<String>,
    /// Of this request.
    pub request_id: Option<String>,
    /// Of this operation.
    pub operation: Option<String>,
    /// With this outcome.
    pub outcome: Option<AuditOutcome>,
    /// Asked for at this time or later.
    pub since: Option<Timestamp>,
    /// Asked for before this time.
    pub until: Option<Timestamp>,
}

impl Store {
    /// Writes that a change is asked for, and gives the row's id.
    pub async fn start_audit(&self, start: &AuditStart, now: Timestamp) -> Result<i64> {
        let id = sqlx::query_scalar(START)
            .bind(OffsetDateTime::from(now))
            .bind(&start.actor)
            .bind(&start.key_id)
            .bind(&start.ip)
            .bind(&start.request_id)
            .bind(&start.operation)
            .bind(&start.method)
            .bind(&start.path)
            .bind(&start.cluster)
            .bind(&start.client_id)
            .fetch_one(&self.pool)
            .await?;
        Ok(id)
    }

    /// Writes what became of it.
    pub async fn finish_audit(&self, id: i64, end: &AuditEnd) -> Result<()> {
        let sql = if end.after.is_some() { FINISH_WITH } else { FINISH };
        let mut query = sqlx::query(sql)
            .bind(id)
            .bind(end.outcome.as_str())
            .bind(i16::try_from(end.status).map_err(Error::unreadable)?)
            .bind(end.code)
            .bind(i64::try_from(end.duration_millis).unwrap_or(i64::MAX));
        if let Some(after) = &end.after {
            query = query.bind(Json(after));
        }
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// The next `limit` rows that the filter lets through with ids below `before`, newest first.
    pub async fn list_audit(
        &self,
        filter: &AuditFilter,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditRecord>> {
        let mut query = QueryBuilder::<Postgres>::new(LIST);
        let texts = [
            ("cluster_id", &filter.cluster),
            ("client_id", &filter.client_id),
            ("actor", &filter.actor),
            ("key_id", &filter.key_id),
            ("request_id", &filter.request_id),
            ("operation", &filter.operation),
        ];
        // Postgres has no text with U+0000: nothing can match it.
        if texts.iter().any(|(_, text)| text.as_ref().is_some_and(|text| text.contains('\0'))) {
            return Ok(Vec::new());
        }
        for (column, text) in texts {
            if let Some(text) = text {
                query.push(" AND ").push(column).push(" = ").push_bind(text.clone());
            }
        }
        if let Some(outcome) = filter.outcome {
            query.push(" AND outcome = ").push_bind(outcome.as_str());
        }
        if let Some(since) = filter.since {
            query.push(" AND at >= ").push_bind(OffsetDateTime::from(since));
        }
        if let Some(until) = filter.until {
            query.push(" AND at < ").push_bind(OffsetDateTime::from(until));
        }
        if let Some(before) = before {
            query.push(" AND id < ").push_bind(before);
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(limit));
        let rows: Vec<AuditColumns> = query.build_query_as().fetch_all(&self.pool).await?;
        rows.into_iter().map(AuditRecord::try_from).collect()
    }

    /// Forgets up to `limit` rows from before `until`, and says how many that were.
    pub async fn forget_audit(&self, until: Timestamp, limit: u32) -> Result<u64> {
        let until = OffsetDateTime::from(until);
        let done = sqlx::query(FORGET).bind(until).bind(i64::from(limit)).execute(&self.pool).await?;
        Ok(done.rows_affected())
    }
}

impl Tx {
    /// Writes what the record was before and is after, in the transaction of the effect.
    pub async fn note_audit(&mut self, id: i64, before: Option<&Value>, after: Option<&Value>) -> Result<()> {
        sqlx::query(NOTE)
            .bind(id)
            .bind(before.map(Json))
            .bind(after.map(Json))
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }
}

/// A row as Postgres gives it.
#[derive(sqlx::FromRow)]
struct AuditColumns {
    id: i64,
    at: OffsetDateTime,
    actor: String,
    key_id: Option<String>,
    ip: Option<String>,
    request_id: String,
    operation: String,
    method: String,
    path: String,
    cluster_id: Option<String>,
    client_id: Option<String>,
    outcome: String,
    status: Option<i16>,
    code: Option<String>,
    duration_ms: Option<i64>,
    before: Option<Value>,
    after: Option<Value>,
}

impl TryFrom<AuditColumns> for AuditRecord {
    type Error = Error;

    fn try_from(row: AuditColumns) -> Result<Self> {
        Ok(Self {
            id: row.id,
            at: row.at.into(),
            outcome: AuditOutcome::parse(&row.outcome)
                .ok_or_else(|| Error::unreadable(format!("audit outcome {:?}", row.outcome)))?,
            status: row.status.map(u16::try_from).transpose().map_err(Error::unreadable)?,
            code: row.code,
            duration_millis: row.duration_ms.map(u64::try_from).transpose().map_err(Error::unreadable)?,
            before: row.before,
            after: row.after,
            start: AuditStart {
                actor: row.actor,
                key_id: row.key_id,
                ip: row.ip,
                request_id: row.request_id,
                operation: row.operation,
                method: row.method,
                path: row.path,
                cluster: row.cluster_id,
                client_id: row.client_id,
            },
        })
    }
}
