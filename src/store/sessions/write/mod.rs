//! The data plane's batches: up to a thousand facts, one transaction, one statement for each kind.
//!
//! Rows are written in the order of their keys, so that two batches cannot wait for each other in
//! a circle; should they still (with a cluster being deleted), the database ends one and the batch
//! is committed again. Committing a batch twice leaves what committing it once does, versions and
//! events included: events tell of rows that changed (`store::events`), but for those of sessions that came
//! and went and have no row.

mod columns;
mod subscriptions;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::QueryAs;
use sqlx::types::{Json, Uuid};
use sqlx::{FromRow, PgConnection, Postgres};
use time::OffsetDateTime;

use crate::model::{
    ClientId, ClusterId, OperatorExpiry, OperatorPart, SessionEnd, SessionId, Subscription, Timestamp,
    TopicFilter,
};
use crate::seam::ports::{self, SessionRow, SessionStore, SessionWrite, StoredSession};
use crate::store::events::derive::{self, Before, before_columns};
use crate::store::events::{self, NewEvent};
use crate::store::{BEGIN_CHANGE, Error, Result, Store};
use columns::Columns;
use subscriptions::change_subscriptions;

// Keeps the clusters until the commit. Taken before any lock on a session, as a deletion of the
// cluster does, so that the two do not wait for each other.
const LOCK_CLUSTERS: &str = "SELECT id FROM clusters WHERE id = ANY($1) ORDER BY id FOR KEY SHARE";

const REMOVE: &str =
    concat!("DELETE FROM sessions s WHERE s.session_id = ANY($1) RETURNING ", before_columns!());

const BEFORE: &str = concat!("SELECT ", before_columns!(), " FROM sessions s WHERE s.session_id = ANY($1)");

// One by one, by the index: a plain join reads the whole table as soon as it is thought to be small.
const BEFORE_OF_CLIENTS: &str = concat!(
    "SELECT ",
    before_columns!(),
    " FROM UNNEST($1::text[], $2::text[]) AS n (cluster_id, client_id)
    CROSS JOIN LATERAL (
        SELECT * FROM sessions s WHERE s.cluster_id = n.cluster_id AND s.client_id = n.client_id LIMIT 1
    ) s"
);

// Only where an operator has written nothing yet, so that a batch that is committed again takes nothing back.
const BEGIN: &str = "
    UPDATE sessions SET (expiry_override_secs, expiry_override_at, labels, protected) = ($2, $3, $4, $5)
    WHERE session_id = $1 AND labels = '{}' AND NOT protected
        AND expiry_override_secs IS NULL AND expiry_override_at IS NULL";

/// A batch that is not committed by then has failed: the network may have swallowed it.
const COMMIT_MAX: Duration = Duration::from_secs(15);

impl SessionStore for Store {
    async fn commit(&self, batch: &[SessionWrite]) -> Result<(), ports::StoreError> {
        let batch = Batch::of(batch);
        let began = self.clock.micros();
        let committed = tokio::time::timeout(COMMIT_MAX, self.commit_batch(&batch)).await;
        if let Ok(Ok(())) = committed {
            self.record_commits.observe(self.clock.micros().saturating_sub(began));
        }
        Ok(committed.unwrap_or_else(|_| Err(Error::too_slow()))?)
    }

    async fn load(
        &self,
        after: Option<SessionId>,
        limit: u32,
    ) -> Result<Vec<StoredSession>, ports::StoreError> {
        Ok(self.load_sessions(after, limit).await?)
    }
}

impl Store {
    async fn commit_batch(&self, batch: &Batch<'_>) -> Result<()> {
        let now = self.clock.wall();
        let mut transaction = self.pool.begin_with(BEGIN_CHANGE).await?;
        let clusters = lock_clusters(&mut transaction, batch).await?;
        let mut happened = remove(&mut transaction, batch, &clusters, now).await?;
        happened.extend(put(&mut transaction, batch, &clusters, self.node.as_deref(), now).await?);
        begin(&mut transaction, &batch.parts).await?;
        happened.extend(change_subscriptions(&mut transaction, batch, now).await?);
        // Last: from here to the commit nobody else adds events.
        events::add(&mut transaction, &happened).await?;
        transaction.commit().await?;
        if !happened.is_empty() {
            self.tell_events();
        }
        Ok(())
    }
}

/// A session that is gone.
struct Removal<'a> {
    session: Uuid,
    end: SessionEnd,
    /// What it was last like, where that was not committed before.
    last: Option<&'a SessionRow>,
}

/// A batch sorted by kind, each kind in the order of its keys.
#[derive(Default)]
struct Batch<'a> {
    removals: Vec<Removal<'a>>,
    sessions: Vec<&'a SessionRow>,
    parts: Vec<(Uuid, &'a OperatorPart)>,
    unsubscriptions: Vec<(Uuid, &'a str)>,
    subscriptions: Vec<(Uuid, &'a Subscription)>,
}

impl<'a> Batch<'a> {
    fn of(writes: &'a [SessionWrite]) -> Self {
        let mut batch = Self::default();
        // Of two sessions of one client the later is the client's; the table has room for one.
        let mut by_client: HashMap<(&ClusterId, &ClientId), &SessionRow> = HashMap::new();
        // Of several words about one filter the last holds; a statement may touch a row once.
        let mut by_filter: BTreeMap<(Uuid, &TopicFilter), Option<&Subscription>> = BTreeMap::new();
        for write in writes {
            match write {
                SessionWrite::Remove(session, end) => {
                    batch.removals.push(Removal { session: session.0, end: *end, last: None });
                }
                SessionWrite::Pass(row, end) => {
                    batch.removals.push(Removal { session: row.session_id.0, end: *end, last: Some(row) });
                }
                SessionWrite::Begin(session, part) => batch.parts.push((session.0, part)),
                SessionWrite::Put(row) => {
                    by_client.insert((&row.cluster, &row.client_id), row);
                }
                SessionWrite::Subscribe(session, subscription) => {
                    by_filter.insert((session.0, &subscription.filter), Some(subscription));
                }
                SessionWrite::Unsubscribe(session, filter) => {
                    by_filter.insert((session.0, filter), None);
                }
            }
        }
        batch.removals.sort_unstable_by_key(|removal| removal.session);
        batch.parts.sort_unstable_by_key(|(session, _)| *session);
        batch.sessions.extend(by_client.into_values());
        batch.sessions.sort_unstable_by_key(|row| row.session_id);
        for ((session, filter), subscription) in by_filter {
            match subscription {
                Some(subscription) => batch.subscriptions.push((session, subscription)),
                None => batch.unsubscriptions.push((session, filter.as_str())),
            }
        }
        batch
    }
}

/// A statement whose plan is made for this batch, because there is a choice. A plan kept from when the tables were
/// small would read them whole, batch after batch, until the server next analyses them.
fn rows_planned_anew<R>(sql: &'static str) -> QueryAs<'static, Postgres, R, PgArguments>
where
    R: for<'r> FromRow<'r, PgRow>,
{
    sqlx::query_as(sql).persistent(false)
}

/// The clusters of the batch's sessions that exist, locked. Sessions of the others are passed over.
async fn lock_clusters(connection: &mut PgConnection, batch: &Batch<'_>) -> Result<HashSet<String>> {
    let passed = batch.removals.iter().filter_map(|removal| removal.last);
    let rows = batch.sessions.iter().copied().chain(passed);
    let clusters: BTreeSet<&str> = rows.map(|row| row.cluster.as_str()).collect();
    if clusters.is_empty() {
        return Ok(HashSet::new());
    }
    let query = sqlx::query_scalar(LOCK_CLUSTERS).bind(Vec::from_iter(clusters));
    Ok(query.fetch_all(connection).await?.into_iter().collect())
}

async fn remove(
    connection: &mut PgConnection,
    batch: &Batch<'_>,
    clusters: &HashSet<String>,
    now: Timestamp,
) -> Result<Vec<NewEvent>> {
    if batch.removals.is_empty() {
        return Ok(Vec::new());
    }
    let sessions: Vec<Uuid> = batch.removals.iter().map(|removal| removal.session).collect();
    let removed: Vec<Before> = rows_planned_anew(REMOVE).bind(sessions).fetch_all(&mut *connection).await?;
    let removed: HashMap<Uuid, Before> = removed.into_iter().map(|row| (row.session_id, row)).collect();
    let mut happened = Vec::new();
    for Removal { session, end, last } in &batch.removals {
        let before = removed.get(session);
        let last = last.filter(|row| clusters.contains(row.cluster.as_str()));
        happened.extend(last.into_iter().flat_map(|row| derive::put(before, row)));
        match (before, last) {
            (Some(before), _) => happened.push(before.removed(*end, now)?),
            (None, Some(row)) => happened.push(derive::passed(row, *end, now)),
            (None, None) => {}
        }
    }
    Ok(happened)
}

async fn put(
    connection: &mut PgConnection,
    batch: &Batch<'_>,
    clusters: &HashSet<String>,
    node: Option<&str>,
    now: Timestamp,
) -> Result<Vec<NewEvent>> {
    let rows = batch.sessions.iter().copied().filter(|row| clusters.contains(row.cluster.as_str()));
    let rows: Vec<&SessionRow> = rows.collect();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let columns = Columns::of(&rows);
    let arriving: HashSet<Uuid> = columns.session_id.iter().copied().collect();
    let before: Vec<Before> = rows_planned_anew(BEFORE_OF_CLIENTS)
        .bind(&columns.cluster_id)
        .bind(&columns.client_id)
        .fetch_all(&mut *connection)
        .await?;
    let (before, predecessors): (Vec<Before>, Vec<Before>) =
        before.into_iter().partition(|row| arriving.contains(&row.session_id));
    let mut happened = remove_predecessors(connection, &predecessors, now).await?;
    let before: HashMap<Uuid, Before> = before.into_iter().map(|row| (row.session_id, row)).collect();
    let written: HashSet<Uuid> = columns.write(connection, node).await?.into_iter().collect();
    for row in rows.iter().filter(|row| written.contains(&row.session_id.0)) {
        happened.extend(derive::put(before.get(&row.session_id.0), row));
    }
    Ok(happened)
}

/// A client has one session. When a new one arrives and the old one's row still stands, its removal was
/// lost.
async fn remove_predecessors(
    connection: &mut PgConnection,
    predecessors: &[Before],
    now: Timestamp,
) -> Result<Vec<NewEvent>> {
    if predecessors.is_empty() {
        return Ok(Vec::new());
    }
    let sessions: Vec<Uuid> = predecessors.iter().map(|row| row.session_id).collect();
    let removed: Vec<Before> = rows_planned_anew(REMOVE).bind(sessions).fetch_all(connection).await?;
    removed.iter().map(|row| row.removed(SessionEnd::Replaced, now)).collect()
}

/// Rows as they are, by session.
async fn read_before(connection: &mut PgConnection, sessions: &[Uuid]) -> Result<HashMap<Uuid, Before>> {
    let rows: Vec<Before> = rows_planned_anew(BEFORE).bind(sessions).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|row| (row.session_id, row)).collect())
}

/// Writes what operators said of sessions that they had begin. Few at a time: one statement each.
async fn begin(connection: &mut PgConnection, parts: &[(Uuid, &OperatorPart)]) -> Result<()> {
    for (session, part) in parts {
        let (secs, at) = expiry_columns(part.expiry);
        sqlx::query(BEGIN)
            .bind(session)
            .bind(secs)
            .bind(at)
            .bind(Json(&part.labels))
            .bind(part.protected)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// An operator's order as the row has it: an interval, or an instant.
pub(super) fn expiry_columns(order: Option<OperatorExpiry>) -> (Option<i64>, Option<OffsetDateTime>) {
    match order {
        Some(OperatorExpiry::Interval(secs)) => (Some(i64::from(secs)), None),
        Some(OperatorExpiry::At(at)) => (None, Some(OffsetDateTime::from(at))),
        None => (None, None),
    }
}
