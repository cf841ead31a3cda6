//! The service under test as a process that is killed at any moment, its start included.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::support::server::program;

/// A first start creates a private Postgres; a later one may have it recover. A machine that stalls for minutes
/// proves nothing of what is checked here.
const START_MAX: Duration = Duration::from_mins(10);
const STOP_MAX: Duration = Duration::from_secs(20);

pub(super) struct Service {
    folder: PathBuf,
    running: Option<Running>,
    /// How much of the log was looked at.
    log_read: usize,
}

struct Running {
    child: Child,
    /// Held, so that the service can write to it.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Service {
    /// With its data in `folder`.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, running: None, log_read: 0 }
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("service.log")
    }

    /// Where the message log has its files.
    pub(super) fn message_log(&self) -> PathBuf {
        self.folder.join("data/log")
    }

    /// Starts it. With `patience` it is killed when it is not ready by then; returns whether it is.
    pub(super) async fn start(&mut self, patience: Option<Duration>) -> Result<Option<SocketAddr>, String> {
        let log = std::fs::File::options().create(true).append(true).open(self.log_path());
        let mut command = program();
        command.args(["serve", "--dev", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]);
        command.args(["--log-segment-mib", "4", "--data-dir"]).arg(self.folder.join("data"));
        // The private Postgres outlives a kill, and must not hold a pipe of ours.
        command.stderr(Stdio::from(log.map_err(|error| format!("the log: {error}"))?)).kill_on_drop(false);
        let mut child = command.spawn().map_err(|error| format!("start: {error}"))?;
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let ready = timeout(patience.unwrap_or(START_MAX), lines.next_line()).await;
        self.running = Some(Running { child, _stdout: lines });
        match ready {
            Ok(Ok(Some(line))) if line.starts_with("ready ") => {
                let word = line.split(' ').find_map(|word| word.strip_prefix("mqtt="));
                let address = word.and_then(|word| word.parse().ok());
                address.map(Some).ok_or_else(|| format!("no address in {line:?}"))
            }
            Err(_) if patience.is_some() => {
                self.end(Signal::KILL).await?;
                Ok(None)
            }
            Err(_) => Err(format!("not ready within {START_MAX:?}")),
            Ok(other) => Err(format!("it did not start: {other:?}")),
        }
    }

    /// Ends it by a signal, and waits for that.
    pub(super) async fn end(&mut self, signal: Signal) -> Result<(), String> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        let id = running.child.id().ok_or("it had ended by itself")?;
        kill_process(Pid::from_raw(id.cast_signed()).ok_or("no pid")?, signal).map_err(|e| e.to_string())?;
        let status = timeout(STOP_MAX, running.child.wait()).await;
        let status = status.map_err(|_| format!("it still runs {STOP_MAX:?} after {signal:?}"))?;
        let status = status.map_err(|error| format!("wait: {error}"))?;
        match status.code() {
            None if signal == Signal::KILL => Ok(()),
            Some(0) if signal == Signal::TERM => Ok(()),
            _ => Err(format!("it ended with {status} after {signal:?}")),
        }
    }

    /// Sends a signal to its private Postgres.
    pub(super) fn signal_postgres(&self, signal: Signal) -> Result<(), String> {
        let file = self.folder.join("data/postgres/data/postmaster.pid");
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let pid = text.lines().next().and_then(|line| line.trim().parse().ok()).and_then(Pid::from_raw);
        kill_process(pid.ok_or("no pid of Postgres")?, signal).map_err(|error| error.to_string())
    }

    /// Lines since the last call that say that somebody must act.
    pub(super) fn new_errors(&mut self) -> Vec<String> {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let new = text.get(self.log_read..).unwrap_or_default();
        let is_error = |line: &&str| line.contains("\"level\":\"ERROR\"") || line.contains("panicked at");
        let errors = new.lines().filter(is_error).map(ToOwned::to_owned).collect();
        self.log_read = text.len();
        errors
    }

    /// Leaves a note in the service's log, for who reads it later.
    pub(super) fn note(&self, what: &str) {
        if let Ok(mut log) = std::fs::File::options().create(true).append(true).open(self.log_path()) {
            let _ = writeln!(log, "--- {what}");
        }
    }

    /// Where all its files are.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Service {
    /// Asks it to stop; its Postgres, which goes with it then, outlives a kill.
    fn drop(&mut self) {
        let child = self.running.as_mut().map(|running| &mut running.child);
        let pid = child.as_ref().and_then(|child| Pid::from_raw(child.id()?.cast_signed()));
        if let (Some(child), Some(pid)) = (child, pid) {
            let _ = kill_process(pid, Signal::TERM);
            for _ in 0..STOP_MAX.as_millis() / 20 {
                if !matches!(child.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        // Gone already after an orderly end.
        let _ = self.signal_postgres(Signal::INT);
    }
}
