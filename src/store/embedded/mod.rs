//! The private Postgres of the zero-configuration default: found, created, supervised, stopped.
//!
//! Promises:
//! - Durable: nothing committed is lost by a kill of this process, of Postgres, or of both.
//! - Private: a unix socket in a folder that only its account may enter, no TCP. Started by root it
//!   runs as another account.
//! - One process at a time uses one data directory. A Postgres that a killed process left running is
//!   taken over where it stands; one that dies is started again.
//!
//! It does not install Postgres, and does not carry data from one release to the next: it uses the
//! release that made the data, or says which one is missing.

mod account;
mod binaries;
mod error;
mod layout;
mod postmaster;
mod supervisor;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use account::Account;
pub use binaries::Binaries;
pub use error::EmbeddedError;

use layout::{Layout, PORT, has_socket};
use postmaster::{Launch, Postmaster, ROLE};

/// The service's database in it.
const DATABASE: &str = "holdfast";
/// How long a folder that another process has may stay so until it counts as in use.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const LOCK_LOOK_EVERY: Duration = Duration::from_millis(20);

/// Recovery after a crash may replay up to `max_wal_size`: wait that long for the first connection.
const READY_SECS_MAX: u64 = 120;
/// How often it is asked whether it takes connections.
const ASK_EVERY: Duration = Duration::from_millis(25);
/// A postmaster that was killed leaves children for a moment, and its successor ends at once while
/// they hold the shared memory: so often is another one tried.
const STARTS_MAX: u32 = 5;
/// The pause between two starts.
const START_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Where the private Postgres lies and where its programs are looked for.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// The service's data directory; Postgres gets `postgres` in it.
    pub data_dir: PathBuf,
    /// The folder of Postgres's programs (`$PG_BIN`); `None` looks for it.
    pub binaries: Option<PathBuf>,
    /// The search path (`$PATH`), the last place looked in.
    pub search_path: Option<OsString>,
    /// Where a socket goes whose path would be too long: the system's folder of temporary files.
    pub temp_dir: PathBuf,
}

/// A running private Postgres.
///
/// Dropping it leaves Postgres running, for the next start to take over; [`EmbeddedPostgres::stop`]
/// stops it.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    layout: Layout,
    socket_folder: PathBuf,
    stop: CancellationToken,
    supervisor: JoinHandle<()>,
    /// Held for as long as this lives.
    _lock: File,
}

impl EmbeddedPostgres {
    /// Makes it run, creating its data if there is none, and returns when it takes connections.
    ///
    /// # Errors
    /// [`EmbeddedError`], each variant one line that says what to do.
    pub async fn start(options: EmbeddedOptions) -> Result<Self, EmbeddedError> {
        let layout = Layout::under(&options.data_dir)?;
        let account = Account::choose(&layout.data)?;
        if let (Some(account), Some(data_dir)) = (&account, layout.base.parent()) {
            account.check_reaches(data_dir)?;
        }
        let lock = take(&layout, account.as_ref()).await?;
        let binaries =
            Binaries::find(options.binaries.as_deref(), options.search_path.as_deref(), Some(&layout.data))?;
        let socket_folder = layout.socket_folder(account.as_ref(), &options.temp_dir)?;
        let mut launch = Launch { binaries, account, layout: layout.clone(), socket_folder };
        launch.ensure_data().await?;

        let postmaster = launch.run_until_ready().await?;
        let socket_folder = launch.socket_folder.clone();
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(supervisor::supervise(launch, postmaster, stop.clone()));
        let embedded = Self { layout, socket_folder, stop, supervisor, _lock: lock };
        match create_database(&embedded.socket_folder).await {
            Ok(()) => Ok(embedded),
            Err(source) => {
                embedded.stop().await;
                Err(EmbeddedError::CreateDatabase(source))
            }
        }
    }

    /// How to connect to the service's database in it. Stays true over its restarts.
    pub fn connect_options(&self) -> PgConnectOptions {
        connect_options(&self.socket_folder).database(DATABASE)
    }

    /// Stops it and waits until it has ended, a few seconds at most. Connections still open are cut.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.supervisor).await {
            tracing::error!(%error, "the supervisor of the private Postgres has failed");
        }
        self.layout.clear_socket_folder(&self.socket_folder);
    }
}

/// Takes the folder. A process that is gone may have left a child that holds its lock until it begins its own
/// program: that is a moment, so a lock is in use only when it stays taken.
async fn take(layout: &Layout, account: Option<&Account>) -> Result<File, EmbeddedError> {
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    loop {
        match layout.take(account) {
            Err(EmbeddedError::InUse { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(LOCK_LOOK_EVERY).await;
            }
            taken => return taken,
        }
    }
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

/// What came of waiting for a postmaster.
enum Readiness {
    Ready,
    Ended,
    TimedOut,
}

impl Launch {
    /// A postmaster on the data that takes connections.
    async fn run_until_ready(&mut self) -> Result<Postmaster, EmbeddedError> {
        let deadline = Instant::now() + Duration::from_secs(READY_SECS_MAX);
        for _ in 0..STARTS_MAX {
            let mut postmaster = self.take_over_or_spawn().await?;
            match wait_ready(&mut postmaster, &self.socket_folder, deadline).await {
                Readiness::Ready => return Ok(postmaster),
                Readiness::Ended => tokio::time::sleep(START_AGAIN_AFTER).await,
                Readiness::TimedOut => {
                    let log = self.layout.log.clone();
                    return Err(EmbeddedError::NotReady { secs: READY_SECS_MAX, log });
                }
            }
        }
        Err(EmbeddedError::Died { said: self.layout.last_words(), log: self.layout.log.clone() })
    }

    async fn take_over_or_spawn(&mut self) -> Result<Postmaster, EmbeddedError> {
        if let Some((mut postmaster, socket_folder)) = Postmaster::left_running(&self.layout.data) {
            if has_socket(&socket_folder) {
                tracing::info!(?socket_folder, "taking over the private Postgres that was left running");
                self.socket_folder = socket_folder;
                return Ok(postmaster);
            }
            tracing::warn!(
                ?socket_folder,
                "the private Postgres left running lost its socket; it is stopped"
            );
            postmaster.stop().await;
        }
        self.spawn()
    }
}

async fn wait_ready(postmaster: &mut Postmaster, socket_folder: &Path, deadline: Instant) -> Readiness {
    let options = connect_options(socket_folder).database("postgres");
    let connects = async {
        loop {
            if let Ok(connection) = options.connect().await {
                // It answered; how the farewell goes does not matter.
                let _ = connection.close().await;
                return;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    tokio::select! {
        biased;
        _ = postmaster.ended() => Readiness::Ended,
        () = connects => Readiness::Ready,
        () = tokio::time::sleep_until(deadline) => Readiness::TimedOut,
    }
}

async fn create_database(socket_folder: &Path) -> sqlx::Result<()> {
    let mut connection = connect_options(socket_folder).database("postgres").connect().await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(DATABASE)
        .fetch_one(&mut connection)
        .await?;
    if !exists {
        sqlx::query("CREATE DATABASE holdfast").execute(&mut connection).await?;
    }
    connection.close().await
}

fn connect_options(socket_folder: &Path) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_folder)
        .port(PORT)
        .username(ROLE)
        .ssl_mode(PgSslMode::Disable)
}
