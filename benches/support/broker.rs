//! Brokers under load: started for the benchmark, stopped with it.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;

/// A broker in a process of its own.
pub(crate) struct Broker {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// How many clients may come at a time.
    #[allow(dead_code)] // not every benchmark asks
    pub(crate) at_once: u32,
    process: Child,
    files: TempDir,
}

/// How often, and how long between, it is asked whether mosquitto answers.
const ATTEMPTS: u32 = 100;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);

impl Broker {
    /// This repository's, with its private Postgres.
    pub(crate) fn holdfast() -> anyhow::Result<Self> {
        let files = folder()?;
        let mut process = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(["serve", "--dev", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--data-dir"])
            .arg(files.path().join("data"))
            .env("HOLDFAST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start holdfast")?;
        let mut ready = String::new();
        let stdout = process.stdout.take().context("no standard output")?;
        BufReader::new(stdout).read_line(&mut ready)?;
        let address = ready.split_whitespace().find_map(|word| word.strip_prefix("mqtt="));
        let address = address.with_context(|| format!("no MQTT address in {ready:?}"))?.parse()?;
        Ok(Self { name: "holdfast", address, at_once: 1_000, process, files })
    }

    /// Debian's, tuned: no limits on queues, no delay, no log, and with further settings. `None` when it
    /// is not installed.
    pub(crate) fn mosquitto(settings: &str) -> anyhow::Result<Option<Self>> {
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];
        let Some(program) = program.into_iter().find(|program| Path::new(program).exists()) else {
            return Ok(None);
        };
        let files = folder()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let config = files.path().join("mosquitto.conf");
        std::fs::write(
            &config,
            format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\nlog_type none\nset_tcp_nodelay true\n\
                 max_queued_messages 0\nmax_inflight_messages 0\n{settings}\n"
            ),
        )?;
        let process = Command::new(program)
            .arg("-c")
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start mosquitto")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        for _ in 0..ATTEMPTS {
            if TcpStream::connect(address).is_ok() {
                // As many as its listen queue holds: whom it drops comes again a second later.
                return Ok(Some(Self { name: "mosquitto", address, at_once: 100, process, files }));
            }
            std::thread::sleep(BETWEEN_ATTEMPTS);
        }
        bail!("mosquitto does not answer at {address}")
    }

    /// Resident memory of the process in bytes, from `/proc`.
    #[allow(dead_code)] // not every benchmark asks
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1_024)
    }

    /// The folder that the broker keeps its files in.
    #[allow(dead_code)] // not every benchmark asks
    pub(crate) fn folder(&self) -> &Path {
        self.files.path()
    }

    /// CPU time the process has used, user and system, from `/proc`.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The name may hold spaces; it ends with the last parenthesis. utime and stime are 14 and 15.
        let (_, fields) = stat.rsplit_once(')').context("no /proc/PID/stat")?;
        let ticks: Vec<u64> =
            fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
        Ok(Duration::from_millis(ticks.iter().sum::<u64>() * MILLIS_PER_TICK))
    }
}

/// Linux counts CPU time in hundredths of a second.
const MILLIS_PER_TICK: u64 = 10;

impl Drop for Broker {
    fn drop(&mut self) {
        let pid = self.process.id().to_string();
        // SIGTERM, so that the private Postgres is stopped too.
        drop(Command::new("kill").arg(pid).status());
        drop(self.process.wait());
    }
}

/// A folder that an unprivileged Postgres may enter.
fn folder() -> anyhow::Result<TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::with_prefix("holdfast-bench-")?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}
