//! One serving process for one database: its lock, its heartbeat, and what a dead one left behind.
//!
//! The lock is an advisory lock of Postgres on a connection of its own: it goes when the connection
//! goes, so a killed process leaves none behind. The heartbeat is written over that same connection,
//! which makes one act of "I live" and "I still hold the lock": after an outage of Postgres the
//! next heartbeat takes the lock again, or learns that another process has it.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use thiserror::Error;
use time::OffsetDateTime;

use super::{Error, Result, Store, within};
use crate::model::Timestamp;

/// The key of the lock; nothing else in the database takes advisory locks of this key.
const LOCK_KEY: i64 = 0x686f_6c64_6661_7374; // "holdfast"
/// How often, and how far apart, the lock is tried before it counts as held: the server needs a
/// moment to see that a killed process's connection is gone.
const TRIES: u32 = 15;
const TRY_EVERY: Duration = Duration::from_millis(200);
/// A process on another machine that vanishes without a word is noticed by TCP keep-alive.
const KEEPALIVES: [(&str, &str); 3] =
    [("tcp_keepalives_idle", "5"), ("tcp_keepalives_interval", "2"), ("tcp_keepalives_count", "3")];
/// A step that is not answered by then has failed.
const ANSWER_MAX: Duration = Duration::from_secs(4);

const LOCK: &str = "SELECT pg_try_advisory_lock($1)";
const WHO_AM_I: &str = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()";
const END: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2";
const HEARTBEAT: &str = "UPDATE service SET heartbeat_at = $1";

// Not later than now, lest the wall clock went back; not before the connection began, lest it did
// after the last heartbeat.
// Each is an event, numbered as `store::events` does.
const RECOVER: &str = "
    WITH recovered AS (
        UPDATE sessions s
        SET disconnected_at = greatest(least(coalesce(h.heartbeat_at, s.connected_at), $1), s.connected_at),
            disconnect_reason = 'server_restart', disconnect_by = 'server', version = s.version + 1
        FROM service h WHERE s.disconnected_at IS NULL
        RETURNING s.cluster_id, s.client_id, s.session_id, s.epoch, s.disconnected_at
    ), heads AS (
        INSERT INTO session_event_heads AS h (cluster_id, last, first)
        SELECT cluster_id, count(*), 1 FROM recovered GROUP BY cluster_id
        ON CONFLICT (cluster_id) DO UPDATE SET last = h.last + excluded.last
        RETURNING cluster_id, last
    )
    INSERT INTO session_events (cluster_id, seq, at, client_id, session_id, epoch, kind, detail)
    SELECT r.cluster_id, h.last + 1 - row_number() OVER (PARTITION BY r.cluster_id ORDER BY r.session_id),
        r.disconnected_at, r.client_id, r.session_id, r.epoch, 'detached',
        '{\"reason\": \"server_restart\", \"by\": \"server\"}'
    FROM recovered r JOIN heads h USING (cluster_id)";

/// Why this process may not serve this database, or does not know whether it may.
#[derive(Debug, Error)]
pub enum ServiceLockError {
    /// Another process serves it. Whoever gets this stops serving.
    #[error("another holdfast process serves this database")]
    Held,
    /// The database did not answer. Try again.
    #[error(transparent)]
    Store(#[from] Error),
}

/// The right to serve a database, held by one process at a time.
#[derive(Debug)]
pub struct ServiceLock {
    options: PgConnectOptions,
    /// `None` after it broke.
    connection: Option<PgConnection>,
    /// Who the server thinks has the lock.
    backend: Backend,
}

/// The server's end of a connection. Process ids are given again, so its start counts too.
type Backend = (i32, OffsetDateTime);

impl Store {
    /// Takes the right to serve this database.
    ///
    /// # Errors
    /// [`ServiceLockError::Held`] when another process has it.
    pub async fn lock_service(&self) -> Result<ServiceLock, ServiceLockError> {
        let options = self.pool.connect_options().as_ref().clone().options(KEEPALIVES);
        let (connection, backend) = take_lock(&options, None).await?;
        Ok(ServiceLock { options, connection: Some(connection), backend })
    }

    /// Makes offline what a process that died left online, as of its last heartbeat: what fell due
    /// while nobody served is due at once. Says how many sessions that were.
    ///
    /// Call it once, under the lock and before the first heartbeat. Sessions that are thereby over
    /// stay as rows: the data plane ends them when it has loaded them, as it ends all others.
    pub async fn recover_after_restart(&self, now: Timestamp) -> Result<u64> {
        let done = sqlx::query(RECOVER).bind(OffsetDateTime::from(now)).execute(&self.pool).await?;
        Ok(done.rows_affected())
    }
}

impl ServiceLock {
    /// Says that this process serves at `now`. Call it every few seconds.
    ///
    /// # Errors
    /// [`ServiceLockError::Store`] when the database is away; the next call tries to take the lock
    /// again. [`ServiceLockError::Held`] when another process took it meanwhile.
    ///
    /// # Cancel safety
    /// A call that is dropped counts as one that failed.
    pub async fn heartbeat(&mut self, now: Timestamp) -> Result<(), ServiceLockError> {
        // Taken out, and put back when it has answered: it is not kept when anything goes wrong.
        let mut connection = if let Some(connection) = self.connection.take() {
            connection
        } else {
            let (connection, backend) = take_lock(&self.options, Some(self.backend)).await?;
            self.backend = backend;
            connection
        };
        let write = sqlx::query(HEARTBEAT).bind(OffsetDateTime::from(now)).execute(&mut connection);
        within(ANSWER_MAX, write).await?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Gives the lock back.
    pub async fn release(self) {
        if let Some(connection) = self.connection {
            // When closing fails the connection is broken, and the lock gone with it.
            let _ = within(ANSWER_MAX, connection.close()).await;
        }
    }
}

/// Connects and takes the lock. `previous` is our own earlier connection: the server may not have
/// noticed yet that it broke, and then we would take ourselves for another process.
async fn take_lock(
    options: &PgConnectOptions,
    previous: Option<Backend>,
) -> Result<(PgConnection, Backend), ServiceLockError> {
    let mut connection = within(ANSWER_MAX, options.connect()).await?;
    if let Some((pid, started)) = previous {
        let end = sqlx::query(END).bind(pid).bind(started).execute(&mut connection);
        within(ANSWER_MAX, end).await?;
    }
    for _ in 0..TRIES {
        let ask = sqlx::query_scalar(LOCK).bind(LOCK_KEY).fetch_one(&mut connection);
        if within(ANSWER_MAX, ask).await? {
            let backend = within(ANSWER_MAX, sqlx::query_as(WHO_AM_I).fetch_one(&mut connection)).await?;
            return Ok((connection, backend));
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
    Err(ServiceLockError::Held)
}
