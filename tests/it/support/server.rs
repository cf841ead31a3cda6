//! The service as a process: started on free ports, its lines collected, stopped, killed, started again.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::database::TestDatabase;
use super::http::Api;

/// How long a start may take: a private Postgres is created within it.
const START_MAX: Duration = Duration::from_mins(1);
/// How long a stop may take, by the contract.
const STOP_MAX: Duration = Duration::from_secs(10);

/// A running service. Dropping it kills the process.
pub(crate) struct Server {
    options: Options,
    process: Process,
    /// Kept over a restart, dropped with the server, as is the directory.
    database: Option<TestDatabase>,
    data_dir: TempDir,
    ready: Ready,
    pub(crate) http: SocketAddr,
    pub(crate) mqtt: SocketAddr,
}

/// The line that tells where it serves.
#[derive(Debug)]
struct Ready(String);

impl Ready {
    #[track_caller]
    fn address(&self, name: &str) -> SocketAddr {
        let word = self.0.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let word = word.unwrap_or_else(|| panic!("no {name} in {:?}", self.0));
        word.parse().unwrap_or_else(|error| panic!("{word}: {error}"))
    }
}

/// How to start it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Which database.
    pub(crate) database: Database,
    /// Further flags of `serve`.
    pub(crate) flags: Vec<String>,
    /// Which lines it logs, as `HOLDFAST_LOG` has it; its default when there is none.
    pub(crate) log: Option<&'static str>,
    /// Parts of `ERROR` lines that this test provokes; any other one fails it.
    pub(crate) errors_expected: Vec<&'static str>,
}

/// The database of a server under test.
#[derive(Clone, Debug, Default)]
pub(crate) enum Database {
    /// A new one in the Postgres of the test run, dropped with the server.
    #[default]
    New,
    /// The private one of the program itself.
    Private,
}

/// The path of the program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_holdfast");

/// The program with an environment that holds none of its settings.
pub(crate) fn program() -> Command {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars_os() {
        let ours = name.to_str().is_some_and(|name| name.starts_with("HOLDFAST_") || name == "RUST_LOG");
        // Where Postgres is on this machine is no setting of a test.
        if ours && name != "HOLDFAST_PG_BIN" {
            command.env_remove(name);
        }
    }
    // Tests that start many services need not fill the disk with zeros.
    command.env("HOLDFAST_LOG_SEGMENT_MIB", "4");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

impl Server {
    /// A service for development: anonymous clients are let into `default`.
    pub(crate) async fn start_dev() -> Self {
        Self::start(Options { flags: vec!["--dev".to_owned()], ..Options::default() }).await
    }

    /// Starts a service in a new data directory and waits until it serves.
    pub(crate) async fn start(options: Options) -> Self {
        let data_dir = data_dir();
        let database = match options.database {
            Database::New => Some(TestDatabase::create().await),
            Database::Private => None,
        };
        let (process, ready) = launch(&options, database.as_ref(), data_dir.path()).await;
        let (http, mqtt) = (ready.address("http"), ready.address("mqtt"));
        Self { options, process, database, data_dir, ready, http, mqtt }
    }

    /// Where the listener of this name is, such as `wss`.
    #[track_caller]
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        self.ready.address(name)
    }

    /// The database of the test run that it uses.
    #[track_caller]
    pub(crate) fn database(&self) -> &TestDatabase {
        self.database.as_ref().expect("a database of the test run")
    }

    /// The administrator as a caller.
    pub(crate) fn api(&self) -> Api {
        let token = std::fs::read_to_string(self.data_path().join("admin.token")).expect("an admin.token");
        Api::new(self.http, token.trim_end().to_owned())
    }

    /// A caller with this token, or with none.
    pub(crate) fn api_as(&self, token: Option<String>) -> Api {
        Api::new(self.http, token)
    }

    pub(crate) fn data_path(&self) -> PathBuf {
        self.data_dir.path().join("data")
    }

    /// What it has written to standard error so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.process.log.lock().expect("the lines").clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Stops it as an operator would and checks that it ended well and said nothing alarming.
    pub(crate) async fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "{status}; its lines:\n{}", self.log().join("\n"));
        self.check_log();
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let ended = timeout(STOP_MAX, self.process.wait()).await;
        ended.unwrap_or_else(|_| {
            panic!("still running after {STOP_MAX:?}; its lines:\n{}", self.log().join("\n"))
        })
    }

    /// Ends it as a power cut would.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        let status = self.process.wait().await;
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "it had ended before: {status}");
    }

    /// Starts it again on the same data, on new ports; it must have ended.
    pub(crate) async fn start_again(&mut self) {
        self.check_log();
        let (process, ready) = launch(&self.options, self.database.as_ref(), self.data_dir.path()).await;
        (self.http, self.mqtt) = (ready.address("http"), ready.address("mqtt"));
        (self.process, self.ready) = (process, ready);
    }

    /// The same with other flags of `serve`.
    pub(crate) async fn start_again_with(&mut self, flags: &[&str]) {
        self.options.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.start_again().await;
    }

    /// Fails the test on an `ERROR` line that it did not announce.
    #[track_caller]
    fn check_log(&self) {
        let expected = |line: &str| self.options.errors_expected.iter().any(|part| line.contains(part));
        let unexpected: Vec<_> =
            self.log().into_iter().filter(|line| is_error(line) && !expected(line)).collect();
        assert!(unexpected.is_empty(), "it logged errors:\n{}", unexpected.join("\n"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A private Postgres goes with the service when that is asked to go, and not when it is killed.
        let gentle = matches!(self.options.database, Database::Private);
        if self.process.child.id().is_some() {
            self.signal(if gentle { Signal::TERM } else { Signal::KILL });
            for _ in 0..STOP_MAX.as_millis() / 20 {
                if !matches!(self.process.child.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if std::thread::panicking() {
            eprintln!("the lines of the server:\n{}", self.log().join("\n"));
        } else {
            self.check_log();
        }
    }
}

/// A directory that the unprivileged user of a private Postgres may enter.
fn data_dir() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let open = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("holdfast-it-").permissions(open).tempdir().expect("a directory")
}

async fn launch(options: &Options, database: Option<&TestDatabase>, data_dir: &Path) -> (Process, Ready) {
    let mut command = program();
    command.args(["serve", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--data-dir"]);
    command.arg(data_dir.join("data"));
    if let Some(database) = database {
        command.args(["--database-url", &database.url()]);
    }
    if let Some(log) = options.log {
        command.env("HOLDFAST_LOG", log);
    }
    let mut process = Process::spawn(command.args(&options.flags));
    let ready = timeout(START_MAX, process.ready.recv()).await;
    let Ok(Some(ready)) = ready else {
        let lines = process.log.lock().expect("the lines").join("\n");
        panic!("the server did not get ready; its lines:\n{lines}");
    };
    (process, Ready(ready))
}

/// Whether a line of the log, JSON or text, says that somebody must act.
fn is_error(line: &str) -> bool {
    match serde_json::from_str::<serde_json::Value>(line) {
        Ok(json) => json["level"] == "ERROR",
        // A panic before the logs are set up, or a refusal to start.
        Err(_) => line.contains("panicked at") || line.contains(" ERROR "),
    }
}

/// One run of the program.
struct Process {
    child: Child,
    /// The `ready …` line.
    ready: mpsc::Receiver<String>,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the program starts");
        let log = Arc::<Mutex<Vec<String>>>::default();
        let (sender, ready) = mpsc::channel(1);
        let lines = Arc::clone(&log);
        let stdout = read_lines(child.stdout.take(), move |line| {
            if line.starts_with("ready ") {
                drop(sender.try_send(line));
            } else {
                lines.lock().expect("the lines").push(format!("on standard output: {line}"));
            }
        });
        let lines = Arc::clone(&log);
        let stderr = read_lines(child.stderr.take(), move |line| lines.lock().expect("the lines").push(line));
        Self { child, ready, log, readers: vec![stdout, stderr] }
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("a process that was not waited for");
        let pid = Pid::from_raw(id.try_into().expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("a process of ours");
    }

    /// Waits for the end of the process and of its output.
    async fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().await.expect("a child of ours");
        for reader in self.readers.drain(..) {
            // A private Postgres that outlives a killed service may keep the pipe open.
            drop(timeout(Duration::from_millis(500), reader).await);
        }
        status
    }
}

fn read_lines(
    from: Option<impl AsyncRead + Unpin + Send + 'static>,
    each: impl Fn(String) + Send + 'static,
) -> JoinHandle<()> {
    let mut lines = BufReader::new(from.expect("a pipe")).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            each(line);
        }
    })
}
