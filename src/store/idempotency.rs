//! Idempotency keys: which changes were asked for under a key, and how they were answered.
//!
//! A key is *claimed* before any effect. Its answer is written in the transaction of the effect
//! ([`Tx::answer_key`]), so that both are there or neither is. Where the effect is the data plane's,
//! the row says so before the command is sent ([`Store::mark_key_dispatched`]).
//!
//! What a dead process left follows from the row: without answer and not dispatched, nothing has
//! happened and the key may be claimed again; dispatched, nobody knows.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::types::{Json, Uuid};
use time::OffsetDateTime;

use super::{Error, Result, Store, Tx};
use crate::model::Timestamp;

/// How long an answer is kept.
pub const KEY_AGE_MAX: Duration = Duration::from_hours(24);

// Two rows may be taken over: one whose day is over, and, by the same request, one of a dead run that
// had no effect.
const CLAIM: &str = "
    INSERT INTO idempotency_keys AS k (caller, key, request_hash, run, created_at)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (caller, key) DO UPDATE SET request_hash = excluded.request_hash, run = excluded.run,
        created_at = excluded.created_at, dispatched = false, unknown = false, status = NULL,
        headers = NULL, body = NULL, enforced = false
    WHERE k.created_at <= $6 OR (k.status IS NULL AND NOT k.dispatched AND k.run <> excluded.run
        AND k.request_hash = excluded.request_hash)";

const READ: &str = "SELECT request_hash, run, dispatched, unknown, status, headers, body, enforced \
     FROM idempotency_keys WHERE caller = $1 AND key = $2";

const DISPATCH: &str =
    "UPDATE idempotency_keys SET dispatched = true WHERE caller = $1 AND key = $2 AND run = $3";

const LOSE: &str = "UPDATE idempotency_keys SET unknown = true \
     WHERE caller = $1 AND key = $2 AND run = $3 AND status IS NULL";

// Never one that has an answer: a commit whose confirmation was lost may have written it.
const RELEASE: &str =
    "DELETE FROM idempotency_keys WHERE caller = $1 AND key = $2 AND run = $3 AND status IS NULL";

const ANSWER: &str = "UPDATE idempotency_keys SET status = $4, headers = $5, body = $6, enforced = $7 \
     WHERE caller = $1 AND key = $2 AND run = $3 AND status IS NULL";

const FORGET: &str = "DELETE FROM idempotency_keys WHERE (caller, key) IN (
        SELECT caller, key FROM idempotency_keys WHERE created_at <= $1 LIMIT $2)";

/// A key as one run of the program holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Who sent it; keys of different callers never meet.
    pub caller: String,
    /// What was sent.
    pub key: String,
    /// The run of the program that works on it.
    pub run: Uuid,
}

/// An answer that is kept to be given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The headers that belong to the record.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the data plane had to enforce the change.
    pub enforced: bool,
}

/// What a claim found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The key is the caller's: do the work.
    Claimed,
    /// The key was sent with another request.
    OtherRequest,
    /// The same request is being worked on.
    InFlight,
    /// The same request was dispatched to the data plane, and its outcome was not recorded.
    OutcomeUnknown,
    /// The same request was answered.
    Answered(KeptAnswer),
}

#[derive(sqlx::FromRow)]
struct KeyColumns {
    request_hash: Vec<u8>,
    run: Uuid,
    dispatched: bool,
    unknown: bool,
    status: Option<i16>,
    headers: Option<Json<BTreeMap<String, String>>>,
    body: Option<Vec<u8>>,
    enforced: bool,
}

impl Store {
    /// Claims a key for a request with this hash, or says what became of it.
    pub async fn claim_key(&self, key: &IdempotencyKey, request: &[u8], now: Timestamp) -> Result<Claim> {
        let claimed = sqlx::query(CLAIM)
            .bind(&key.caller)
            .bind(&key.key)
            .bind(request)
            .bind(key.run)
            .bind(OffsetDateTime::from(now))
            .bind(OffsetDateTime::from(now) - KEY_AGE_MAX)
            .execute(&self.pool)
            .await?;
        if claimed.rows_affected() > 0 {
            return Ok(Claim::Claimed);
        }
        let row: Option<KeyColumns> =
            sqlx::query_as(READ).bind(&key.caller).bind(&key.key).fetch_optional(&self.pool).await?;
        // Released between the two statements: the other request is just ending.
        let Some(row) = row else { return Ok(Claim::InFlight) };
        if row.request_hash != request {
            return Ok(Claim::OtherRequest);
        }
        let Some(status) = row.status else {
            let lost = row.unknown || (row.dispatched && row.run != key.run);
            return Ok(if lost { Claim::OutcomeUnknown } else { Claim::InFlight });
        };
        Ok(Claim::Answered(KeptAnswer {
            status: u16::try_from(status).map_err(Error::unreadable)?,
            headers: row.headers.map(|headers| headers.0).unwrap_or_default(),
            body: row.body.unwrap_or_default(),
            enforced: row.enforced,
        }))
    }

    /// Says that a command is about to go to the data plane under this key.
    pub async fn mark_key_dispatched(&self, key: &IdempotencyKey) -> Result<()> {
        self.change_key(DISPATCH, key).await
    }

    /// Says that a command went to the data plane under this key and nobody knows what became of it.
    pub async fn lose_key(&self, key: &IdempotencyKey) -> Result<()> {
        self.change_key(LOSE, key).await
    }

    /// Gives a key back whose request had no effect.
    pub async fn release_key(&self, key: &IdempotencyKey) -> Result<()> {
        self.change_key(RELEASE, key).await
    }

    async fn change_key(&self, sql: &'static str, key: &IdempotencyKey) -> Result<()> {
        sqlx::query(sql).bind(&key.caller).bind(&key.key).bind(key.run).execute(&self.pool).await?;
        Ok(())
    }

    /// Keeps the answer to a request whose effect is complete already.
    pub async fn answer_key(&self, key: &IdempotencyKey, answer: &KeptAnswer) -> Result<()> {
        let mut tx = self.begin().await?;
        tx.answer_key(key, answer).await?;
        tx.commit().await
    }

    /// Forgets up to `limit` keys whose day is over, and says how many that were.
    pub async fn forget_keys(&self, now: Timestamp, limit: u32) -> Result<u64> {
        let until = OffsetDateTime::from(now) - KEY_AGE_MAX;
        let done = sqlx::query(FORGET).bind(until).bind(i64::from(limit)).execute(&self.pool).await?;
        Ok(done.rows_affected())
    }
}

impl Tx {
    /// Keeps the answer in the transaction of the effect.
    ///
    /// # Errors
    /// [`Error::Defect`] when the key is not this run's to answer; the effect must not be committed.
    pub async fn answer_key(&mut self, key: &IdempotencyKey, answer: &KeptAnswer) -> Result<()> {
        let done = sqlx::query(ANSWER)
            .bind(&key.caller)
            .bind(&key.key)
            .bind(key.run)
            .bind(i16::try_from(answer.status).map_err(Error::unreadable)?)
            .bind(Json(&answer.headers))
            .bind(&answer.body)
            .bind(answer.enforced)
            .execute(&mut *self.transaction)
            .await?;
        if done.rows_affected() == 1 {
            Ok(())
        } else {
            Err(Error::unreadable("the idempotency key is no longer held by its request"))
        }
    }
}
