//! What happened to sessions: written in the transaction that made it happen, read by history and stream.
//!
//! Events of a cluster are numbered without gaps in the order of their commits: the number comes from the
//! cluster's head row, whose lock is taken last in a transaction and held to its end. Whoever has read up to
//! a number has read all up to it.
//!
//! They are derived from what the data plane writes ([`mod@derive`]), several to a row ([`mod@rows`]), and written
//! by the control plane for what an operator does ([`Tx::add_events`]). They outlive their session, for a bounded
//! time ([`Store::retire_events`]).

pub(super) mod derive;
mod rows;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;

use rows::{EventRow, NewRow};

use super::{Error, Result, Store, Tx};
use crate::model::{ClientId, ClusterId, Epoch, SessionId, Timestamp};

/// How many events of a cluster are kept at most.
pub const EVENTS_MAX: u32 = 1_000_000;

// Heads in the order of the ids, so that two transactions cannot wait for each other in a circle. `behind`: how many
// of the cluster's events come after the row's last.
const INSERT: &str = "
    WITH heads AS (
        INSERT INTO session_event_heads AS h (cluster_id, last, first)
        SELECT cluster_id, n, 1 FROM UNNEST($1::text[], $2::bigint[]) AS e (cluster_id, n)
        ON CONFLICT (cluster_id) DO UPDATE SET last = h.last + excluded.last RETURNING cluster_id, last
    )
    INSERT INTO session_events (cluster_id, seq, at, client_id, session_id, epoch, kind, detail, earlier, actor,
        request_id)
    SELECT cluster_id, heads.last - behind, at, client_id, session_id, epoch, kind, detail, earlier, actor, request_id
    FROM UNNEST($3::text[], $4::bigint[], $5::timestamptz[], $6::text[], $7::uuid[], $8::bigint[], $9::text[],
        $10::jsonb[], $11::jsonb[], $12::text[], $13::text[]) AS e (cluster_id, behind, at, client_id, session_id,
        epoch, kind, detail, earlier, actor, request_id)
    JOIN heads USING (cluster_id)";

const SPAN: &str = "SELECT first, last FROM session_event_heads WHERE cluster_id = $1";

// What is below `first` is gone for readers, whether or not it was removed yet.
const READ: &str = "SELECT e.*, h.first FROM session_events e JOIN session_event_heads h USING (cluster_id) \
     WHERE e.seq >= h.first AND e.cluster_id = ";

const CLEAR: &str = "UPDATE session_event_heads SET first = last + 1 WHERE cluster_id = $1";

// The first of the first row that is young enough; the order of commits is that of times but for a moment.
const RETIRE: &str = "UPDATE session_event_heads h SET first = greatest(h.first, h.last - $2 + 1, coalesce(
        (SELECT e.seq - coalesce(jsonb_array_length(e.earlier), 0) FROM session_events e
         WHERE e.cluster_id = h.cluster_id AND e.seq >= h.first AND e.at > $1 ORDER BY e.seq LIMIT 1), h.last + 1))
    WHERE h.first <= h.last";

const FORGET: &str = "DELETE FROM session_events WHERE (cluster_id, seq) IN (
        SELECT e.cluster_id, e.seq FROM session_event_heads h
        JOIN session_events e ON e.cluster_id = h.cluster_id AND e.seq < h.first LIMIT $1)";

macro_rules! kinds {
    ($($(#[doc = $about:literal])* $variant:ident, $text:literal;)*) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum EventKind {
            $($(#[doc = $about])* $variant,)*
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As the API and the store write it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

kinds! {
    /// A CONNECT began the session.
    Created, "created";
    /// A connection was attached to the session.
    Attached, "attached";
    /// Another connection took the session over.
    TakenOver, "taken_over";
    /// The session's connection ended.
    Detached, "detached";
    /// The session subscribed, or changed a subscription.
    Subscribed, "subscribed";
    /// The session unsubscribed.
    Unsubscribed, "unsubscribed";
    /// An operator changed when the session ends.
    ExpiryChanged, "expiry_changed";
    /// An operator ended the connection or the session.
    Kicked, "kicked";
    /// The client was refused something: a CONNECT, a SUBSCRIBE, a PUBLISH that came too fast.
    Refused, "refused";
    /// The session's time was over.
    Expired, "expired";
    /// The session ended otherwise: with its connection, by a new one, by an operator.
    Ended, "ended";
}

impl EventKind {
    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text)
    }
}

/// Something that happens to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// The cluster.
    pub cluster: ClusterId,
    /// The client.
    pub client_id: ClientId,
    /// The session.
    pub session_id: SessionId,
    /// Its attachment.
    pub epoch: Epoch,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// What belongs to that kind: an object.
    pub detail: Value,
    /// Who, where it was an operator.
    pub actor: Option<String>,
    /// In which request, where it was an operator.
    pub request_id: Option<String>,
}

/// Something that happened to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEvent {
    /// Its number in the cluster.
    pub seq: i64,
    /// The event.
    pub event: NewEvent,
}

/// Which events of a cluster may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventSpan {
    /// The lowest number there is.
    pub first: i64,
    /// The highest; one less than `first` when there is none.
    pub last: i64,
}

impl Store {
    /// Which events of a cluster may be read.
    pub async fn event_span(&self, cluster: &ClusterId) -> Result<EventSpan> {
        let span: Option<(i64, i64)> =
            sqlx::query_as(SPAN).bind(cluster.as_str()).fetch_optional(&self.pool).await?;
        let (first, last) = span.unwrap_or((1, 0));
        Ok(EventSpan { first, last })
    }

    /// The next `limit` events after a number, oldest first: of the cluster or of one client.
    pub async fn events_after(
        &self,
        cluster: &ClusterId,
        client_id: Option<&ClientId>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<SessionEvent>> {
        let mut query = of(cluster, client_id);
        query
            .push(" AND e.seq > ")
            .push_bind(after)
            .push(" ORDER BY e.seq LIMIT ")
            .push_bind(i64::from(limit));
        let mut events = Vec::new();
        for row in self.read_rows(query).await? {
            events.extend(row.events()?.filter(|event| event.seq > after));
        }
        events.truncate(limit as usize);
        Ok(events)
    }

    /// The `limit` events of a client before a number, newest first.
    pub async fn client_history(
        &self,
        cluster: &ClusterId,
        client_id: &ClientId,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<SessionEvent>> {
        let mut query = of(cluster, Some(client_id));
        let before = before.unwrap_or(i64::MAX);
        // The row that ends behind the place may begin before it.
        let row_max = i64::from(rows::ROW_MAX);
        query.push(" AND e.seq < ").push_bind(before.saturating_add(row_max));
        query.push(" ORDER BY e.seq DESC LIMIT ").push_bind(i64::from(limit) + row_max);
        let mut events = Vec::new();
        for row in self.read_rows(query).await? {
            events.extend(row.events()?.rev().filter(|event| event.seq < before));
        }
        events.truncate(limit as usize);
        Ok(events)
    }

    async fn read_rows(&self, mut query: QueryBuilder<Postgres>) -> Result<Vec<EventRow>> {
        Ok(query.build_query_as().fetch_all(&self.pool).await?)
    }

    /// Told whenever this process has committed events.
    pub fn events_told(&self) -> tokio::sync::watch::Receiver<u64> {
        self.told.subscribe()
    }

    pub(super) fn tell_events(&self) {
        self.told.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Hides what is from before `until` or beyond [`EVENTS_MAX`].
    pub async fn retire_events(&self, until: Timestamp) -> Result<()> {
        let query = sqlx::query(RETIRE).bind(OffsetDateTime::from(until)).bind(i64::from(EVENTS_MAX));
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// Removes up to `limit` rows of events that are hidden, and says how many that were.
    pub async fn forget_events(&self, limit: u32) -> Result<u64> {
        let done = sqlx::query(FORGET).bind(i64::from(limit)).execute(&self.pool).await?;
        Ok(done.rows_affected())
    }
}

fn of(cluster: &ClusterId, client_id: Option<&ClientId>) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(READ);
    query.push_bind(cluster.as_str().to_owned());
    if let Some(client_id) = client_id {
        query.push(" AND e.client_id = ").push_bind(client_id.as_str().to_owned());
    }
    query
}

impl Tx {
    /// Adds events. The last thing that a transaction does before it is committed: nobody else in the cluster
    /// adds any until then.
    pub async fn add_events(&mut self, events: &[NewEvent]) -> Result<()> {
        add(&mut self.transaction, events).await?;
        self.has_events |= !events.is_empty();
        Ok(())
    }

    /// Hides all events of a cluster.
    pub(super) async fn clear_events(&mut self, cluster: &ClusterId) -> Result<()> {
        sqlx::query(CLEAR).bind(cluster.as_str()).execute(&mut *self.transaction).await?;
        Ok(())
    }
}

/// Numbers the events and writes them.
pub(super) async fn add(connection: &mut PgConnection, events: &[NewEvent]) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let mut counts = BTreeMap::<&str, i64>::new();
    for event in events {
        *counts.entry(event.cluster.as_str()).or_default() += 1;
    }
    let rows: Vec<NewRow<'_>> = NewRow::all_of(events).collect();
    let mut left = counts.clone();
    let mut behind = Vec::with_capacity(rows.len());
    for row in &rows {
        let left = left.entry(row.last.cluster.as_str()).or_default();
        *left -= i64::try_from(row.len()).map_err(Error::unreadable)?;
        behind.push(*left);
    }
    let lasts = || rows.iter().map(|row| row.last);
    sqlx::query(INSERT)
        .bind(counts.keys().copied().collect::<Vec<_>>())
        .bind(counts.values().copied().collect::<Vec<_>>())
        .bind(lasts().map(|event| event.cluster.as_str()).collect::<Vec<_>>())
        .bind(behind)
        .bind(lasts().map(|event| OffsetDateTime::from(event.at)).collect::<Vec<_>>())
        .bind(lasts().map(|event| event.client_id.as_str()).collect::<Vec<_>>())
        .bind(lasts().map(|event| event.session_id.0).collect::<Vec<_>>())
        .bind(lasts().map(|event| i64::from(event.epoch.0)).collect::<Vec<_>>())
        .bind(lasts().map(|event| event.kind.as_str()).collect::<Vec<_>>())
        .bind(lasts().map(|event| Json(&event.detail)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.steps()).collect::<Vec<_>>())
        .bind(lasts().map(|event| event.actor.as_deref()).collect::<Vec<_>>())
        .bind(lasts().map(|event| event.request_id.as_deref()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}
