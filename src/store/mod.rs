//! Postgres: clusters, quotas, users, session records, subscriptions. The only SQL of the program.
//!
//! [`Store`] is the pool: reads, and the data plane's batches. [`Tx`] is one transaction: what the
//! control plane changes. One file for each table group; every statement is a constant beside the
//! function that runs it or the type of the rows, and every one is run by a test against a real Postgres.
//!
//! Promises:
//! - Time is a parameter. No statement asks the server's clock, so a test can say what time it is.
//!   (Subscriptions are stamped with the [`Clock`] that the store was given, because the port by
//!   which they arrive does not carry the time.)
//! - A session that is offline and past its expiry does not exist for a reader, whether or not it
//!   was removed yet (PRODUCT S-7).
//! - An [`Error`] says whether trying again may help.
//!
//! What it does not do: check quotas, roles or `ETag`s (the control plane does, under a row lock), or
//! decide when a session ends (the data plane does).

mod access;
mod api_keys;
mod audit;
mod authenticators;
mod auto_subscriptions;
mod cluster_items;
mod clusters;
mod desired;
pub mod embedded;
mod error;
mod events;
mod holds;
mod idempotency;
mod message_rules;
mod operations;
mod refusals;
mod service;
mod sessions;
mod shared_groups;
mod subscriptions;
mod usage;
mod users;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Postgres, Transaction};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::model::Latencies;

pub use access::{BlockRuleRecord, NewBlockRule, NewPolicy, PolicyRecord};
pub use api_keys::{ApiKeyRecord, NewApiKey};
pub use audit::{AuditEnd, AuditFilter, AuditOutcome, AuditRecord, AuditStart};
pub use authenticators::{AuthenticatorRecord, NewAuthenticator};
pub use auto_subscriptions::{AutoSubscriptionRecord, NewAutoSubscription};
pub use cluster_items::{ClusterItem, ItemKey, Put};
pub use clusters::NewCluster;
pub use error::{Constraint, Error};
pub use events::{EVENTS_MAX, EventKind, EventSpan, NewEvent, SessionEvent};
pub use holds::{HOLDS_MAX, HoldOrder, HoldRecord};
pub use idempotency::{Claim, IdempotencyKey, KEY_AGE_MAX, KeptAnswer};
pub use message_rules::{MessageRuleRecord, NewMessageRule};
pub use operations::{NewOperation, Operation, PendingTarget, PurgeAction, RunningCommand, TargetOutcome};
pub use refusals::{REFUSALS_MAX, RefusalFilter, RefusalRecord, SERIES_PAUSE_MAX};
pub use service::{ServiceLock, ServiceLockError};
pub use sessions::{CountBy, Network, SessionCount, SessionCounted, SessionFilter, SessionRecord};
pub use shared_groups::GroupSetting;
pub use subscriptions::{FILTER_BYTES_MAX, SubscriptionRecord};
pub use usage::{UsageHour, UsageSample, hour_of as usage_hour_of};
pub use webhooks::{DeadLetter, Delivery, DueWebhook, GivenUp, Webhook, WebhookRecord};

/// What a function of the store answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How long a statement may wait for a connection: an absent database is known this soon.
const ACQUIRE_MAX: Duration = Duration::from_secs(2);
/// The oldest Postgres that has what the schema uses.
const SERVER_VERSION_MIN: u32 = 15;
/// Connections of one process. The data plane commits on one; the rest answer HTTP.
const CONNECTIONS_MAX: u32 = 16;
/// A connection that has rested for longer is asked whether it still stands before it is used: after an absence
/// of the database none of those that were open does.
const PROBE_AFTER: Duration = Duration::from_millis(100);
/// Bounds set on every pooled connection: a wait for a row lock fails and may be tried again, and a
/// transaction that was abandoned half-way lets go of its locks. And a plan for each set of values: which index is best
/// hangs on how many rows they pick, and a plan kept from when the tables were small would read them whole.
const SETTINGS: [(&str, &str); 3] = [
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "30s"),
    ("plan_cache_mode", "force_custom_plan"),
];

/// Begins what changes rows. There plans are kept, above all those of foreign keys, which are checked and cascade row by
/// row: with a plan for each a batch costs half as much again. What has a choice of plans says so itself.
const BEGIN_CHANGE: &str = "BEGIN; SET LOCAL plan_cache_mode = auto";

static MIGRATIONS: Migrator = sqlx::migrate!();

/// The database, by a pool of connections. Cheap to clone; clones share the pool.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    clock: Clock,
    /// Counts the commits of events, so that whoever waits for them need not ask the database.
    told: Arc<watch::Sender<u64>>,
    /// The node that writes sessions, as their records name it.
    node: Option<Arc<str>>,
    /// How long commits of session records take.
    record_commits: Arc<Latencies>,
}

impl Store {
    /// Connects. The schema is not looked at: call [`Store::migrate`] before anything else.
    ///
    /// # Errors
    /// [`Error::Away`] when the database does not answer soon, with what it or the network said;
    /// [`Error::TooOld`] when it is not one that this program works with.
    pub async fn connect(options: PgConnectOptions, clock: Clock) -> Result<Self> {
        let options = options.options(SETTINGS).application_name("holdfast");
        // One connection without the pool, which hides why it could not connect.
        let first = within(ACQUIRE_MAX, options.connect()).await?;
        let version = first.server_version_num().map_or(0, |number| number / 10_000);
        first.close().await?;
        if version < SERVER_VERSION_MIN {
            return Err(Error::TooOld { found: version, needed: SERVER_VERSION_MIN });
        }
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(ACQUIRE_MAX)
            .test_before_acquire(false)
            .before_acquire(|connection, rest| {
                Box::pin(async move {
                    if rest.idle_for > PROBE_AFTER {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            });
        let (told, record_commits) = (Arc::new(watch::Sender::new(0)), Arc::default());
        Ok(Self { pool: pool.connect_lazy_with(options), clock, told, node: None, record_commits })
    }

    /// The same for the node of this name, which the records of sessions then tell.
    #[must_use]
    pub fn of_node(self, node: &str) -> Self {
        Self { node: Some(node.into()), ..self }
    }

    /// Brings the schema up to this program. Safe to run from several processes at once.
    ///
    /// # Errors
    /// [`Error::Migrate`] when the schema is newer than this program, or a migration fails.
    pub async fn migrate(&self) -> Result<()> {
        // A connection of its own: a migration may wait for a lock longer than a request may.
        let options = self.pool.connect_options().as_ref().clone().options([("lock_timeout", "0")]);
        let mut connection = options.connect().await?;
        MIGRATIONS.run(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }

    /// Begins a transaction. Dropping it takes everything back.
    pub async fn begin(&self) -> Result<Tx> {
        let transaction = self.pool.begin_with(BEGIN_CHANGE).await?;
        Ok(Tx { transaction, desired_revision: None, has_events: false, store: self.clone() })
    }

    /// Asks the database for an answer, which must come soon.
    pub async fn ping(&self) -> Result<()> {
        within(ACQUIRE_MAX, sqlx::query("SELECT 1").execute(&self.pool)).await?;
        Ok(())
    }

    /// The version of the server, as it tells it.
    pub async fn server_version(&self) -> Result<String> {
        Ok(sqlx::query_scalar("SHOW server_version").fetch_one(&self.pool).await?)
    }

    /// How long the commits of session records take that the data plane waits for.
    pub fn record_commits(&self) -> Arc<Latencies> {
        Arc::clone(&self.record_commits)
    }

    /// Waits for the statements under way and closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// One transaction. Its mutations are seen by others when [`Tx::commit`] returns, or never.
#[derive(Debug)]
pub struct Tx {
    transaction: Transaction<'static, Postgres>,
    /// The desired revision this transaction bumped to, if it did.
    desired_revision: Option<i64>,
    /// Whether readers of events are to be told.
    has_events: bool,
    store: Store,
}

impl Tx {
    /// Makes everything done in this transaction durable and visible.
    ///
    /// # Errors
    /// [`Error::Away`] leaves it unknown whether it was committed.
    pub async fn commit(self) -> Result<()> {
        self.transaction.commit().await?;
        if self.has_events {
            self.store.tell_events();
        }
        Ok(())
    }
}

/// Takes a database that does not answer in time for one that is away.
async fn within<T>(patience: Duration, exchange: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    match tokio::time::timeout(patience, exchange).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::too_slow()),
    }
}
