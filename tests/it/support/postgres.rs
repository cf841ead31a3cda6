//! The Postgres of a test run: started by the first test that asks, gone with the process.
//!
//! Nothing in it is worth keeping, so it does not sync to disk. A watchdog shell blocks on a pipe
//! that only this process holds: when the process ends, killed or not, the pipe closes, and the
//! watchdog stops Postgres and removes its files.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use holdfast::store::embedded::{Account, Binaries};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};

use super::scratch;

/// The settings of a database that may be lost at any moment.
const SETTINGS: &str = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off \
    -c max_connections=400 -c shared_buffers=128MB -c autovacuum=off -c listen_addresses='' \
    -c log_min_messages=fatal -c jit=off";

/// A running Postgres.
pub(crate) struct TestPostgres {
    socket_folder: PathBuf,
    /// The watchdog's pipe. Never written to.
    _alive: ChildStdin,
}

impl TestPostgres {
    /// The one of this process.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<TestPostgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// How to connect to a database in it, as its superuser.
    pub(crate) fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket_folder)
            .port(5432)
            .username("tests")
            .database(database)
            .ssl_mode(PgSslMode::Disable)
    }

    /// A connection for creating and dropping databases.
    pub(crate) async fn maintenance(&self) -> PgConnection {
        self.options("postgres").connect().await.expect("connect to the Postgres of this test run")
    }

    fn start() -> Self {
        let folder = scratch::folder().keep();
        let account = Account::choose(&folder.join("data")).expect("an account to run Postgres under");
        if let Some(account) = &account {
            chown(&folder, Some(account.uid), Some(account.gid)).expect("give the folder away");
        }
        let search_path = std::env::var_os("PATH");
        let binaries = Binaries::find(None, search_path.as_deref(), None).expect("Postgres is installed");
        let shell = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]).current_dir("/").env("LC_ALL", "C").process_group(0);
            command.env("BIN", &binaries.folder).env("FOLDER", &folder).env("SETTINGS", SETTINGS);
            if let Some(account) = &account {
                command.uid(account.uid).gid(account.gid);
            }
            command
        };

        // The watchdog comes first, so that nothing outlives a process killed during the start.
        let mut watchdog = shell(
            r#"trap "" INT TERM HUP; read -r _; "$BIN/pg_ctl" -D "$FOLDER/data" -m immediate stop; rm -rf "$FOLDER""#,
        );
        watchdog.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let alive = watchdog.spawn().expect("start the watchdog").stdin.take().expect("it has a pipe");

        let start = shell(
            r#"set -e
            "$BIN/initdb" -D "$FOLDER/data" -U tests -A trust -E UTF8 --locale=C --no-sync --no-instructions
            "$BIN/pg_ctl" -D "$FOLDER/data" -w -l "$FOLDER/log" -o "-k $FOLDER $SETTINGS" start"#,
        )
        .output()
        .expect("run the shell");
        assert!(
            start.status.success(),
            "Postgres does not start: {}",
            String::from_utf8_lossy(&start.stderr)
        );
        Self { socket_folder: folder, _alive: alive }
    }
}
