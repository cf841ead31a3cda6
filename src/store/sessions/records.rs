//! The control plane's view: list, get, and an operator's order about expiry.

use sqlx::{Postgres, QueryBuilder};
use time::OffsetDateTime;

use super::{SessionColumns, SessionRecord, session_columns};
use crate::model::{
    ClientId, ClusterId, OperatorExpiry, ProtocolVersion, SessionId, SessionState, Timestamp,
};
use crate::store::{Error, Result, Store, Tx};

macro_rules! record_columns {
    () => {
        concat!(
            session_columns!(),
            ", (SELECT count(*) FROM subscriptions b WHERE b.session_id = s.session_id) AS subscription_count"
        )
    };
}

/// A session that is past its expiry does not exist (PRODUCT S-7). `expires_at` is null while online.
macro_rules! unexpired {
    ($now:literal) => {
        concat!("(s.expires_at IS NULL OR s.expires_at > ", $now, ")")
    };
}

const LIST: &str = concat!("SELECT ", record_columns!(), " FROM sessions s WHERE s.cluster_id = ");

const GET: &str = concat!(
    "SELECT ",
    record_columns!(),
    " FROM sessions s WHERE s.cluster_id = $1 AND s.client_id = $2 AND ",
    unexpired!("$3")
);

const LOCK: &str = concat!(
    "SELECT ",
    record_columns!(),
    " FROM sessions s WHERE s.cluster_id = $1 AND s.client_id = $2 AND ",
    unexpired!("$3"),
    " FOR NO KEY UPDATE OF s"
);

const SET_EXPIRY: &str = concat!(
    "UPDATE sessions s SET expiry_override_secs = $2, expiry_override_at = $3, version = version + 1 \
     WHERE s.session_id = $1 AND ",
    unexpired!("$4"),
    " RETURNING ",
    record_columns!()
);

/// Which sessions of a cluster to list. What is `None` does not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Online or offline.
    pub state: Option<SessionState>,
    /// This client alone.
    pub client_id: Option<ClientId>,
    /// Client ids that begin with this, byte for byte.
    pub client_id_prefix: Option<String>,
    /// Clients that speak this.
    pub protocol: Option<ProtocolVersion>,
    /// Clients that gave this user name.
    pub username: Option<String>,
}

impl Store {
    /// The next `limit` sessions of a cluster that the filter lets through, with client ids above
    /// `after`, in the byte order of client ids.
    pub async fn list_sessions(
        &self,
        cluster: &ClusterId,
        filter: &SessionFilter,
        after: Option<&ClientId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<SessionRecord>> {
        if filter.asks_for_nul() {
            return Ok(Vec::new());
        }
        let rows: Vec<RecordColumns> =
            list_query(cluster, filter, after, limit, now).build_query_as().fetch_all(&self.pool).await?;
        rows.into_iter().map(SessionRecord::try_from).collect()
    }

    /// The session of a client, if it has one at `now`.
    pub async fn get_session(
        &self,
        cluster: &ClusterId,
        client_id: &ClientId,
        now: Timestamp,
    ) -> Result<Option<SessionRecord>> {
        let row: Option<RecordColumns> = sqlx::query_as(GET)
            .bind(cluster.as_str())
            .bind(client_id.as_str())
            .bind(OffsetDateTime::from(now))
            .fetch_optional(&self.pool)
            .await?;
        row.map(SessionRecord::try_from).transpose()
    }
}

impl Tx {
    /// The session of a client, if it has one at `now`. Its row changes for nobody else, the data
    /// plane included, until this transaction ends: keep it short.
    pub async fn lock_session(
        &mut self,
        cluster: &ClusterId,
        client_id: &ClientId,
        now: Timestamp,
    ) -> Result<Option<SessionRecord>> {
        let row: Option<RecordColumns> = sqlx::query_as(LOCK)
            .bind(cluster.as_str())
            .bind(client_id.as_str())
            .bind(OffsetDateTime::from(now))
            .fetch_optional(&mut *self.transaction)
            .await?;
        row.map(SessionRecord::try_from).transpose()
    }

    /// Writes an operator's order about a session's expiry, or takes it back with `None`. The
    /// session is one that this transaction has locked at the same `now`.
    pub async fn set_session_expiry(
        &mut self,
        session: SessionId,
        order: Option<OperatorExpiry>,
        now: Timestamp,
    ) -> Result<SessionRecord> {
        let (secs, at) = match order {
            Some(OperatorExpiry::Interval(secs)) => (Some(i64::from(secs)), None),
            Some(OperatorExpiry::At(at)) => (None, Some(OffsetDateTime::from(at))),
            None => (None, None),
        };
        let row: RecordColumns = sqlx::query_as(SET_EXPIRY)
            .bind(session.0)
            .bind(secs)
            .bind(at)
            .bind(OffsetDateTime::from(now))
            .fetch_one(&mut *self.transaction)
            .await?;
        row.try_into()
    }
}

impl SessionFilter {
    /// Postgres has no text with U+0000 and neither has MQTT: nothing can match it.
    fn asks_for_nul(&self) -> bool {
        [&self.client_id_prefix, &self.username].into_iter().flatten().any(|text| text.contains('\0'))
    }
}

/// Conditions that a partial index needs are written out, not bound: the planner must see them.
fn list_query(
    cluster: &ClusterId,
    filter: &SessionFilter,
    after: Option<&ClientId>,
    limit: u32,
    now: Timestamp,
) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(LIST);
    query.push_bind(cluster.as_str().to_owned());
    match filter.state {
        Some(SessionState::Online) => {
            query.push(" AND s.disconnected_at IS NULL");
        }
        Some(SessionState::Offline) => {
            query.push(" AND s.disconnected_at IS NOT NULL AND s.expires_at > ");
            query.push_bind(OffsetDateTime::from(now));
        }
        None => {
            query.push(" AND (s.expires_at IS NULL OR s.expires_at > ");
            query.push_bind(OffsetDateTime::from(now)).push(")");
        }
    }
    if let Some(id) = &filter.client_id {
        query.push(" AND s.client_id = ").push_bind(id.as_str().to_owned());
    }
    if let Some(prefix) = &filter.client_id_prefix {
        query.push(" AND s.client_id >= ").push_bind(prefix.clone());
        if let Some(end) = end_of_prefix(prefix) {
            query.push(" AND s.client_id < ").push_bind(end);
        }
    }
    if let Some(protocol) = filter.protocol {
        query.push(" AND s.protocol = ").push_bind(protocol.as_str());
    }
    if let Some(username) = &filter.username {
        query.push(" AND left(s.username, 128) = left(").push_bind(username.clone());
        query.push(", 128) AND s.username = ").push_bind(username.clone());
    }
    if let Some(after) = after {
        query.push(" AND s.client_id > ").push_bind(after.as_str().to_owned());
    }
    query.push(" ORDER BY s.client_id LIMIT ").push_bind(i64::from(limit));
    query
}

/// The least text above every text that begins with `prefix`, in byte order; `None` when there is
/// none. UTF-8 orders bytes as it orders characters, so the last character that has a successor is
/// replaced by it. A range rather than LIKE: `%` and `_` mean themselves, and an index serves it.
fn end_of_prefix(prefix: &str) -> Option<String> {
    let mut kept = prefix.to_owned();
    while let Some(last) = kept.pop() {
        // A range of characters steps over the surrogates.
        if let Some(next) = (last..=char::MAX).nth(1) {
            kept.push(next);
            return Some(kept);
        }
    }
    None
}

/// A row as Postgres gives it, with the subscriptions counted.
#[derive(sqlx::FromRow)]
struct RecordColumns {
    #[sqlx(flatten)]
    session: SessionColumns,
    #[sqlx(try_from = "i64")]
    subscription_count: u32,
}

impl TryFrom<RecordColumns> for SessionRecord {
    type Error = Error;

    fn try_from(columns: RecordColumns) -> Result<Self> {
        let session = columns.session;
        Ok(Self {
            operator_expiry: session.operator_expiry()?,
            expires_at: session.expires_at.map(Timestamp::from),
            subscription_count: columns.subscription_count,
            version: session.version,
            row: session.into_row()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_text_that_does_not_begin_with_it() {
        for (prefix, end) in [
            ("", None),
            ("a", Some("b")),
            ("sensor-", Some("sensor.")),
            ("100%", Some("100&")),
            ("a\u{7f}", Some("a\u{80}")),
            ("\u{d7ff}", Some("\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}\u{10ffff}", None),
        ] {
            assert_eq!(end_of_prefix(prefix).as_deref(), end, "{prefix:?}");
        }
    }
}
