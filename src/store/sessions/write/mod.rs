//! The data plane's batches: a few hundred facts, one transaction, one statement for each kind.
//!
//! Rows are written in the order of their keys, so that two batches cannot wait for each other in
//! a circle; should they still (with a cluster being deleted), the database ends one and the batch
//! is committed again. Committing a batch twice leaves what committing it once does, versions and
//! events included: events tell of rows that changed (`store::events`), but for those of sessions that came
//! and went and have no row.

mod subscriptions;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::QueryAs;
use sqlx::types::{Json, Uuid};
use sqlx::{FromRow, PgConnection, Postgres};
use time::OffsetDateTime;

use crate::model::{
    ClientId, ClusterId, OperatorExpiry, OperatorPart, ProtocolVersion, SessionEnd, SessionId, Subscription,
    Timestamp, TopicFilter, Transport,
};
use crate::seam::ports::{self, SessionRow, SessionStore, SessionWrite, StoredSession};
use crate::store::events::derive::{self, Before, before_columns};
use crate::store::events::{self, NewEvent};
use crate::store::{Error, Result, Store};
use subscriptions::change_subscriptions;

// Keeps the clusters until the commit. Taken before any lock on a session, as a deletion of the
// cluster does, so that the two do not wait for each other.
const LOCK_CLUSTERS: &str = "SELECT id FROM clusters WHERE id = ANY($1) ORDER BY id FOR KEY SHARE";

const REMOVE: &str =
    concat!("DELETE FROM sessions s WHERE s.session_id = ANY($1) RETURNING ", before_columns!());

const BEFORE: &str = concat!("SELECT ", before_columns!(), " FROM sessions s WHERE s.session_id = ANY($1)");

const BEFORE_OF_CLIENTS: &str = concat!(
    "SELECT ",
    before_columns!(),
    " FROM UNNEST($1::text[], $2::text[]) AS n (cluster_id, client_id)
    JOIN sessions s ON s.cluster_id = n.cluster_id AND s.client_id = n.client_id"
);

macro_rules! columns_of {
    ($of:literal: $first:ident $($column:ident)*) => {
        concat!($of, stringify!($first), $(", ", $of, stringify!($column)),*)
    };
}

/// The columns that a session's later writes may change: all of the data plane's but its names and
/// its beginning.
macro_rules! changing_columns {
    ($of:literal) => {
        columns_of!($of: epoch protocol clean_start username peer peer_ip listener transport keep_alive_secs
            receive_maximum packet_bytes_max expiry_client_secs expiry_bounded has_will connected_at
            disconnected_at disconnect_reason disconnect_by)
    };
}

macro_rules! put_columns {
    () => {
        concat!("session_id, cluster_id, client_id, created_at, ", changing_columns!(""))
    };
}

// A row that says nothing new is not written, so that a batch may be committed again without a new version.
const PUT: &str = concat!(
    "INSERT INTO sessions AS s (",
    put_columns!(),
    ", node, version) SELECT ",
    put_columns!(),
    ", $23, 1 FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::text[],
        $7::boolean[], $8::text[], $9::text[], $10::text[]::inet[], $11::text[], $12::text[],
        $13::integer[], $14::integer[], $15::bigint[], $16::bigint[], $17::boolean[], $18::boolean[],
        $19::timestamptz[], $20::timestamptz[], $21::text[], $22::text[]) AS n (",
    put_columns!(),
    ") ON CONFLICT (session_id) DO UPDATE SET (",
    changing_columns!(""),
    ", node, version) = (",
    changing_columns!("excluded."),
    ", excluded.node, s.version + 1) WHERE s.epoch <= excluded.epoch AND (",
    changing_columns!("s."),
    ") IS DISTINCT FROM (",
    changing_columns!("excluded."),
    ") RETURNING s.session_id"
);

// Only where an operator has written nothing yet, so that a batch that is committed again takes nothing back.
const BEGIN: &str = "
    UPDATE sessions SET (expiry_override_secs, expiry_override_at, labels, protected) = ($2, $3, $4, $5)
    WHERE session_id = $1 AND labels = '{}' AND NOT protected
        AND expiry_override_secs IS NULL AND expiry_override_at IS NULL";

// What has no choice of plans keeps its plan here, above all the checks of foreign keys, of which there is one for each
// row. Elsewhere each statement is planned for its values (`store::SETTINGS`).
const BEGIN_BATCH: &str = "BEGIN; SET LOCAL plan_cache_mode = auto";

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
        let mut transaction = self.pool.begin_with(BEGIN_BATCH).await?;
        let clusters = lock_clusters(&mut transaction, batch).await?;
        let mut happened = remove(&mut transaction, batch, &clusters, now).await?;
        let sessions = batch.sessions.iter().copied().filter(|row| clusters.contains(row.cluster.as_str()));
        let sessions = sessions.collect::<Vec<_>>();
        happened.extend(put(&mut transaction, &sessions, self.node.as_deref(), now).await?);
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

/// A statement whose plan is made for this batch, because there is a choice. A plan kept from when the tables were small would
/// read them whole, batch after batch, until the server next analyses them.
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
    rows: &[&SessionRow],
    node: Option<&str>,
    now: Timestamp,
) -> Result<Vec<NewEvent>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let columns = PutColumns::of(rows);
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
    let written: HashSet<Uuid> = write_rows(connection, columns, node).await?.into_iter().collect();
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

/// Writes rows and says which of them said something new.
async fn write_rows(
    connection: &mut PgConnection,
    columns: PutColumns<'_>,
    node: Option<&str>,
) -> Result<Vec<Uuid>> {
    let written = sqlx::query_scalar(PUT)
        .bind(columns.session_id)
        .bind(columns.cluster_id)
        .bind(columns.client_id)
        .bind(columns.created_at)
        .bind(columns.epoch)
        .bind(columns.protocol)
        .bind(columns.clean_start)
        .bind(columns.username)
        .bind(columns.peer)
        .bind(columns.peer_ip)
        .bind(columns.listener)
        .bind(columns.transport)
        .bind(columns.keep_alive_secs)
        .bind(columns.receive_maximum)
        .bind(columns.packet_bytes_max)
        .bind(columns.expiry_client_secs)
        .bind(columns.expiry_bounded)
        .bind(columns.has_will)
        .bind(columns.connected_at)
        .bind(columns.disconnected_at)
        .bind(columns.disconnect_reason)
        .bind(columns.disconnect_by)
        .bind(node)
        .fetch_all(connection)
        .await?;
    Ok(written)
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

/// Session rows turned into columns, as UNNEST takes them.
#[derive(Default)]
struct PutColumns<'a> {
    session_id: Vec<Uuid>,
    cluster_id: Vec<&'a str>,
    client_id: Vec<&'a str>,
    epoch: Vec<i64>,
    protocol: Vec<Option<&'a str>>,
    clean_start: Vec<bool>,
    username: Vec<Option<&'a str>>,
    peer: Vec<Option<&'a str>>,
    peer_ip: Vec<Option<String>>,
    listener: Vec<Option<&'a str>>,
    transport: Vec<Option<&'a str>>,
    keep_alive_secs: Vec<i32>,
    receive_maximum: Vec<i32>,
    packet_bytes_max: Vec<Option<i64>>,
    expiry_client_secs: Vec<i64>,
    expiry_bounded: Vec<bool>,
    has_will: Vec<bool>,
    created_at: Vec<OffsetDateTime>,
    connected_at: Vec<Option<OffsetDateTime>>,
    disconnected_at: Vec<Option<OffsetDateTime>>,
    disconnect_reason: Vec<Option<&'a str>>,
    disconnect_by: Vec<Option<&'a str>>,
}

impl<'a> PutColumns<'a> {
    fn of(rows: &[&'a SessionRow]) -> Self {
        let mut columns = Self::default();
        for row in rows {
            columns.push(row);
        }
        columns
    }

    fn push(&mut self, row: &'a SessionRow) {
        self.session_id.push(row.session_id.0);
        self.cluster_id.push(row.cluster.as_str());
        self.client_id.push(row.client_id.as_str());
        self.epoch.push(row.epoch.0.into());
        self.protocol.push(row.protocol.map(ProtocolVersion::as_str));
        self.clean_start.push(row.clean_start);
        self.username.push(row.username.as_deref());
        self.peer.push(row.peer.as_deref());
        self.peer_ip.push(row.peer.as_deref().and_then(ip_of));
        self.listener.push(row.listener.as_deref());
        self.transport.push(row.transport.map(Transport::as_str));
        self.keep_alive_secs.push(row.keep_alive_secs.into());
        self.receive_maximum.push(row.receive_maximum.into());
        self.packet_bytes_max.push(row.packet_bytes_max.map(i64::from));
        self.expiry_client_secs.push(row.expiry_client_secs.into());
        self.expiry_bounded.push(row.expiry_bounded);
        self.has_will.push(row.has_will);
        self.created_at.push(row.created_at.into());
        self.connected_at.push(row.connected_at.map(Into::into));
        self.disconnected_at.push(row.disconnected_at.map(Into::into));
        self.disconnect_reason.push(row.disconnect.as_ref().map(|cause| cause.reason.as_str()));
        self.disconnect_by.push(row.disconnect.as_ref().map(|cause| cause.by.as_str()));
    }
}

/// The address of a client's address and port, as Postgres reads it.
fn ip_of(peer: &str) -> Option<String> {
    peer.parse().ok().map(|peer: SocketAddr| peer.ip().to_string())
}
