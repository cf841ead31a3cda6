//! The control plane's view: list, count, get, and the operator's part.

use serde::{Deserialize, Serialize};
use sqlx::QueryBuilder;
use sqlx::types::Json;
use time::OffsetDateTime;

use super::write::expiry_columns;
use super::{SessionColumns, SessionFilter, SessionRecord, session_columns};
use crate::model::{ClientId, ClusterId, OperatorPart, SessionId, Timestamp};
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

const LIST: &str = concat!("SELECT ", record_columns!(), " FROM sessions s WHERE ");

const BY_ID: &str = concat!(
    "SELECT ",
    record_columns!(),
    " FROM sessions s WHERE s.session_id = ANY($1) ORDER BY s.client_id"
);

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

const SET_OPERATOR_PART: &str = concat!(
    "UPDATE sessions s SET expiry_override_secs = $2, expiry_override_at = $3, labels = $4, protected = $5, \
     version = version + 1 WHERE s.session_id = $1 AND ",
    unexpired!("$6"),
    " RETURNING ",
    record_columns!()
);

/// What sessions are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountBy {
    /// Online or offline.
    State,
    /// What the client speaks.
    Protocol,
    /// How its bytes arrive.
    Transport,
    /// The user name that the client gave.
    Username,
    /// The node that has the connection, or had the last one.
    Node,
}

impl CountBy {
    const fn column(self) -> &'static str {
        match self {
            Self::State => "CASE WHEN s.disconnected_at IS NULL THEN 'online' ELSE 'offline' END",
            Self::Protocol => "s.protocol",
            Self::Transport => "s.transport",
            Self::Username => "s.username",
            Self::Node => "s.node",
        }
    }
}

/// So many sessions have these values, in the order of what was asked for.
pub type SessionCounted = (Vec<Option<String>>, u64);

/// How many sessions there are, and of which kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCount {
    /// All together.
    pub total: u64,
    /// The greatest groups, greatest first.
    pub groups: Vec<SessionCounted>,
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
        let matching = self.matching_filters(filter).await?;
        let mut query = QueryBuilder::new(LIST);
        filter.narrow(&mut query, cluster, matching, now);
        if let Some(after) = after {
            query.push(" AND s.client_id > ").push_bind(after.as_str().to_owned());
        }
        query.push(" ORDER BY s.client_id LIMIT ").push_bind(i64::from(limit));
        let rows: Vec<RecordColumns> = query.build_query_as().fetch_all(&self.pool).await?;
        rows.into_iter().map(SessionRecord::try_from).collect()
    }

    /// How many sessions of a cluster the filter lets through, and the `limit` greatest groups of them. Reads
    /// all of those sessions.
    pub async fn count_sessions(
        &self,
        cluster: &ClusterId,
        filter: &SessionFilter,
        by: &[CountBy],
        limit: u32,
        now: Timestamp,
    ) -> Result<SessionCount> {
        if filter.asks_for_nul() {
            return Ok(SessionCount { total: 0, groups: Vec::new() });
        }
        let matching = self.matching_filters(filter).await?;
        let values = by.iter().map(|by| by.column()).collect::<Vec<_>>().join(", ");
        // One statement, so that the groups and the total are of the same moment.
        let mut query = QueryBuilder::new("WITH groups AS (SELECT ARRAY[");
        query.push(values).push("]::text[] AS key, count(*) AS sessions FROM sessions s WHERE ");
        filter.narrow(&mut query, cluster, matching, now);
        query.push(
            " GROUP BY key) SELECT key, sessions, (SELECT sum(sessions)::bigint FROM groups) AS total ",
        );
        query.push("FROM groups ORDER BY sessions DESC, key LIMIT ").push_bind(i64::from(limit));
        let rows: Vec<(Vec<Option<String>>, i64, i64)> = query.build_query_as().fetch_all(&self.pool).await?;
        let count = |n: i64| u64::try_from(n).map_err(Error::unreadable);
        let total = rows.first().map_or(Ok(0), |(_, _, total)| count(*total))?;
        let groups = rows.into_iter().map(|(key, sessions, _)| Ok((key, count(sessions)?)));
        Ok(SessionCount { total, groups: groups.collect::<Result<_>>()? })
    }

    /// The records of these sessions, as far as they exist, in the byte order of client ids.
    pub async fn sessions_by_id(&self, sessions: &[SessionId]) -> Result<Vec<SessionRecord>> {
        let sessions: Vec<_> = sessions.iter().map(|id| id.0).collect();
        let query = sqlx::query_as(BY_ID).bind(sessions);
        let rows: Vec<RecordColumns> = query.fetch_all(&self.pool).await?;
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

    /// Writes the operator's part of a record. The session is one that this transaction has locked at the same
    /// `now`.
    pub async fn set_operator_part(
        &mut self,
        session: SessionId,
        part: &OperatorPart,
        now: Timestamp,
    ) -> Result<SessionRecord> {
        let (secs, at) = expiry_columns(part.expiry);
        let row: RecordColumns = sqlx::query_as(SET_OPERATOR_PART)
            .bind(session.0)
            .bind(secs)
            .bind(at)
            .bind(Json(&part.labels))
            .bind(part.protected)
            .bind(OffsetDateTime::from(now))
            .fetch_one(&mut *self.transaction)
            .await?;
        row.try_into()
    }
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
            node: session.node.clone(),
            labels: session.labels.0.clone(),
            protected: session.protected,
            row: session.into_row()?,
        })
    }
}
