//! One `postgres` process: starting it, finding one that was left running, ending it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::process::{Child, Command};

use super::account::Account;
use super::binaries::Binaries;
use super::error::{EmbeddedError, file_error};
use super::layout::{Layout, PORT};

/// The role that owns everything.
pub(super) const ROLE: &str = "holdfast";

/// How often a process that is not our child is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The fast stop (roll back, checkpoint, end) has this long.
const FAST_STOP_MAX: Duration = Duration::from_secs(6);
/// The immediate stop (end, recover from the write-ahead log at the next start) has this long.
const IMMEDIATE_STOP_MAX: Duration = Duration::from_secs(2);

/// What differs from Postgres's defaults. Given at every start, so that data made by an older
/// release of this program gets them too.
///
/// Durable: `fsync`, `full_page_writes` and `synchronous_commit` stay as they are, on. Sized for few
/// connections that commit batches: memory is moderate, checkpoints are far apart, the write-ahead
/// log holds only what recovery needs (nobody replicates a private database).
const SETTINGS: [(&str, &str); 18] = [
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("max_connections", "40"),
    ("shared_buffers", "256MB"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("wal_compression", "on"),
    ("max_wal_size", "2GB"),
    ("checkpoint_timeout", "15min"),
    ("checkpoint_completion_target", "0.9"),
    // Session rows change with every connect: vacuum before they are many.
    ("autovacuum_vacuum_scale_factor", "0.05"),
    ("autovacuum_naptime", "15s"),
    // The private database lies in memory for the most part, or on a disk that seeks for nothing.
    ("random_page_cost", "1.1"),
    ("jit", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("lc_messages", "C"),
    ("cluster_name", "holdfast"),
];

/// Everything needed to start a postmaster, again and again.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) binaries: Binaries,
    pub(super) account: Option<Account>,
    pub(super) layout: Layout,
    /// Where the socket goes.
    pub(super) socket_folder: PathBuf,
}

impl Launch {
    /// Creates the data unless it exists. It appears whole or not at all.
    pub(super) async fn ensure_data(&self) -> Result<(), EmbeddedError> {
        let data = &self.layout.data;
        if data.exists() {
            return Ok(());
        }
        let unfinished = self.layout.unfinished_data(self.account.as_ref())?;
        let program = self.binaries.program("initdb");
        let mut initdb = self.command(&program);
        initdb.arg("--pgdata").arg(&unfinished).args(["--username", ROLE]);
        // Whoever can enter the socket's folder is trusted: only this account (and root) can.
        initdb.args(["--auth-local=trust", "--auth-host=reject"]);
        initdb.args(["--encoding=UTF8", "--locale=C", "--data-checksums", "--no-instructions"]);
        let ended = initdb.output().await.map_err(|source| EmbeddedError::Run { program, source })?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr);
            let said = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
            return Err(EmbeddedError::Initdb { said: said.to_owned() });
        }
        fs::rename(&unfinished, data).map_err(file_error("rename", unfinished))
    }

    /// Starts a postmaster. It takes connections some time later.
    pub(super) fn spawn(&self) -> Result<Postmaster, EmbeddedError> {
        let program = self.binaries.program("postgres");
        let log = self.layout.open_log()?;
        let also_log = log.try_clone().map_err(file_error("open", &self.layout.log))?;
        let mut postgres = self.command(&program);
        postgres.arg("-D").arg(&self.layout.data).arg("-p").arg(PORT.to_string());
        // A list, separated by commas unless they are quoted.
        let socket_folder = self.socket_folder.display().to_string().replace('"', "\"\"");
        postgres.arg("-k").arg(format!("\"{socket_folder}\""));
        for (name, value) in SETTINGS {
            postgres.arg("-c").arg(format!("{name}={value}"));
        }
        postgres.stdout(log).stderr(also_log);
        let child = postgres.spawn().map_err(|source| EmbeddedError::Run { program, source })?;
        Ok(Postmaster::Child(child))
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // A process group of its own: Ctrl-C on the terminal is for this program, which needs the
        // database until it has stopped.
        command.current_dir("/").process_group(0).env("LC_ALL", "C").stdin(Stdio::null());
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }
}

/// A running (or just ended) postmaster.
#[derive(Debug)]
pub(super) enum Postmaster {
    /// This process started it.
    Child(Child),
    /// A process that was killed left it.
    Adopted {
        /// Its process id.
        pid: Pid,
        /// Its data, by which it is told from another process of the same id.
        data: PathBuf,
    },
}

impl Postmaster {
    /// The postmaster that runs on this data, and the folder of its socket.
    pub(super) fn left_running(data: &Path) -> Option<(Self, PathBuf)> {
        // Line 1 is the process id, line 5 the folder of the socket.
        let file = fs::read_to_string(data.join("postmaster.pid")).ok()?;
        let mut lines = file.lines();
        let pid = Pid::from_raw(lines.next()?.trim().parse().ok()?)?;
        let socket_folder = lines.nth(3).filter(|line| !line.is_empty())?;
        let found = Self::Adopted { pid, data: data.canonicalize().ok()? };
        found.is_alive().then(|| (found, PathBuf::from(socket_folder)))
    }

    /// Waits until it has ended, and says how when it was our child.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub(super) async fn ended(&mut self) -> Option<ExitStatus> {
        if let Self::Child(child) = self {
            // An error says that there is no such child: it has ended.
            return child.wait().await.ok();
        }
        while self.is_alive() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        None
    }

    /// Stops it: fast, and when that takes too long, at once. Nothing committed is lost either way.
    pub(super) async fn stop(&mut self) {
        for (signal, patience) in [(Signal::INT, FAST_STOP_MAX), (Signal::QUIT, IMMEDIATE_STOP_MAX)] {
            self.signal(signal);
            if tokio::time::timeout(patience, self.ended()).await.is_ok() {
                return;
            }
            tracing::warn!(?signal, ?patience, "the private Postgres does not stop");
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = match self {
            // None once it has ended and was waited for.
            Self::Child(child) => child.id().and_then(|id| Pid::from_raw(id.cast_signed())),
            Self::Adopted { pid, .. } => self.is_alive().then_some(*pid),
        };
        if let Some(pid) = pid {
            // It may end between the look and the signal: that is what was wanted.
            let _ = kill_process(pid, signal);
        }
    }

    fn is_alive(&self) -> bool {
        match self {
            Self::Child(child) => child.id().is_some(),
            // A postmaster works in its data directory. Ids are given again: another process of
            // this id works elsewhere, and one that has ended nowhere.
            Self::Adopted { pid, data } => match fs::read_link(format!("/proc/{}/cwd", pid.as_raw_pid())) {
                Ok(works_in) => works_in == *data,
                Err(_) if Path::new("/proc/self/cwd").exists() => false,
                Err(_) => test_kill_process(*pid).is_ok(),
            },
        }
    }
}
