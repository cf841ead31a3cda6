//! Brokers under load: started for the benchmark, stopped with it.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::client::Door;

/// A broker in a process of its own.
pub(crate) struct Broker {
    pub(crate) name: &'static str,
    pub(crate) door: Door,
    /// How many clients may come at a time.
    #[allow(dead_code)] // not every benchmark asks
    pub(crate) at_once: u32,
    ours: Option<Ours>,
    process: Child,
    files: TempDir,
}

/// How often, and how long between, it is asked whether a broker answers.
const ATTEMPTS: u32 = 200;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);

/// Where `make peers` puts brokers that no package brings.
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers/bin");

#[allow(dead_code)] // not every benchmark asks for everything
impl Broker {
    /// This repository's, with its private Postgres.
    pub(crate) fn holdfast() -> anyhow::Result<Self> {
        Self::holdfast_built("holdfast", env!("CARGO_BIN_EXE_holdfast").into())
    }

    /// This repository's as it was built some time.
    pub(crate) fn holdfast_built(name: &'static str, program: PathBuf) -> anyhow::Result<Self> {
        let files = folder()?;
        let certificate = Certificate::make(files.path())?;
        let (process, ready) = start(&program, files.path(), &certificate)?;
        let door = Door { tcp: ready.mqtt, tls: Some((ready.mqtts, certificate.trust()?)) };
        let ours = Some(Ours { program, http: ready.http, certificate });
        Ok(Self { name, door, at_once: 1_000, ours, process, files })
    }

    /// The same on the same data, in another process.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        self.stop();
        let ours = self.ours.as_mut().context("not ours")?;
        let (process, ready) = start(&ours.program, self.files.path(), &ours.certificate)?;
        self.process = process;
        self.door = Door { tcp: ready.mqtt, tls: Some((ready.mqtts, ours.certificate.trust()?)) };
        ours.http = ready.http;
        Ok(())
    }

    /// Where the API is.
    pub(crate) fn http(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.ours.as_ref().context("not ours")?.http)
    }

    fn stop(&mut self) {
        let pid = self.process.id().to_string();
        // SIGTERM, so that the private Postgres is stopped too.
        drop(Command::new("kill").arg(pid).status());
        drop(self.process.wait());
    }

    /// Debian's: no limits on queues, no log, and with further settings. `None` when it is not installed.
    pub(crate) fn mosquitto(name: &'static str, settings: &str) -> anyhow::Result<Option<Self>> {
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];
        let Some(program) = program.into_iter().find(|program| Path::new(program).exists()) else {
            println!("mosquitto is not installed (apt-get install mosquitto): it is left out");
            return Ok(None);
        };
        let files = folder()?;
        let certificate = Certificate::make(files.path())?;
        let (tcp, tls) = (free_address()?, free_address()?);
        let config = files.path().join("mosquitto.conf");
        std::fs::write(
            &config,
            format!(
                "per_listener_settings false\nallow_anonymous true\nlog_type none\nmax_queued_messages 0\n\
                 max_inflight_messages 0\n{settings}\nlistener {} 127.0.0.1\nlistener {} 127.0.0.1\n\
                 certfile {}\nkeyfile {}\n",
                tcp.port(),
                tls.port(),
                certificate.cert.display(),
                certificate.key.display()
            ),
        )?;
        let process = Command::new(program)
            .arg("-c")
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start mosquitto")?;
        let door = Door { tcp, tls: Some((tls, certificate.trust()?)) };
        // As many at once as its listen queue holds: whom it drops comes again a second later.
        Self { name, door, at_once: 100, ours: None, process, files }.answering().map(Some)
    }

    /// From the crate registry; keeps nothing on disk. `None` when `make peers` was not run.
    pub(crate) fn rumqttd() -> anyhow::Result<Option<Self>> {
        let settings = |tcp: SocketAddr| {
            format!(
                "id = 0\n[router]\nid = 0\nmax_connections = 20000\nmax_outgoing_packet_count = 200\n\
                 max_segment_size = 104857600\nmax_segment_count = 10\n[v5.1]\nname = \"v5\"\nlisten = \"{tcp}\"\n\
                 next_connection_delay_ms = 1\n[v5.1.connections]\nconnection_timeout_ms = 60000\n\
                 max_payload_size = 1048576\nmax_inflight_count = 100\ndynamic_filters = true\n"
            )
        };
        Self::of_registry("rumqttd", settings, &["-q", "-c"])
    }

    /// The same for rmqttd, without limits on its queues.
    pub(crate) fn rmqttd() -> anyhow::Result<Option<Self>> {
        let rpc = free_address()?;
        let settings = |tcp: SocketAddr| {
            format!(
                "[node]\nid = 1\n[rpc]\nserver_addr = \"{rpc}\"\n[log]\nto = \"off\"\nlevel = \"error\"\n\
                 [listener.tcp.external]\naddr = \"{tcp}\"\nnodelay = true\nallow_anonymous = true\n\
                 max_handshaking_limit = 10000\nmax_inflight = 65535\nmax_mqueue_len = 1000000\n\
                 mqueue_rate_limit = \"1000000000,1s\"\n"
            )
        };
        Self::of_registry("rmqttd", settings, &["-f"])
    }

    /// A broker that `make peers` has built, with a file of settings, whose name follows `arguments`.
    fn of_registry(
        name: &'static str,
        settings: impl FnOnce(SocketAddr) -> String,
        arguments: &[&str],
    ) -> anyhow::Result<Option<Self>> {
        let program = Path::new(PEERS).join(name);
        if !program.exists() {
            println!("{name} is not there (make peers): it is left out");
            return Ok(None);
        }
        let files = folder()?;
        let tcp = free_address()?;
        let config = files.path().join("settings.toml");
        std::fs::write(&config, settings(tcp))?;
        let process = Command::new(program)
            .args(arguments)
            .arg(&config)
            .current_dir(files.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Self { name, door: Door { tcp, tls: None }, at_once: 100, ours: None, process, files }
            .answering()
            .map(Some)
    }

    /// Waits until it answers.
    fn answering(self) -> anyhow::Result<Self> {
        for _ in 0..ATTEMPTS {
            if TcpStream::connect(self.door.tcp).is_ok() {
                return Ok(self);
            }
            std::thread::sleep(BETWEEN_ATTEMPTS);
        }
        bail!("{} does not answer at {}", self.name, self.door.tcp)
    }

    /// Whether the others are compared with it.
    pub(crate) fn is_yardstick(&self) -> bool {
        self.name.starts_with("mosquitto")
    }

    /// Whether it has a part in a scenario of that name.
    pub(crate) fn can(&self, scenario: &str) -> bool {
        self.door.tls.is_some() || !scenario.starts_with("TLS")
    }

    /// Resident memory of the process in bytes, from `/proc`.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1_024)
    }

    /// The folder that the broker keeps its files in.
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
        self.stop();
    }
}

/// What only this repository's broker has.
struct Ours {
    program: PathBuf,
    http: SocketAddr,
    certificate: Certificate,
}

/// Where it serves.
struct Ready {
    http: SocketAddr,
    mqtt: SocketAddr,
    mqtts: SocketAddr,
}

/// Starts this repository's broker on the data in a folder.
fn start(program: &Path, folder: &Path, certificate: &Certificate) -> anyhow::Result<(Child, Ready)> {
    let mut process = Command::new(program)
        .args(["serve", "--dev", "--api-rate-limit", "0"])
        .args(["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--mqtts", "127.0.0.1:0"])
        .arg("--tls-cert")
        .arg(&certificate.cert)
        .arg("--tls-key")
        .arg(&certificate.key)
        .arg("--data-dir")
        .arg(folder.join("data"))
        .env("HOLDFAST_LOG", "warn")
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start holdfast")?;
    let mut line = String::new();
    let stdout = process.stdout.take().context("no standard output")?;
    BufReader::new(stdout).read_line(&mut line)?;
    let address = |listener: &str| -> anyhow::Result<SocketAddr> {
        let address = line.split_whitespace().find_map(|word| word.strip_prefix(listener));
        Ok(address.with_context(|| format!("no {listener} in {line:?}"))?.parse()?)
    };
    let ready = Ready { http: address("http=")?, mqtt: address("mqtt=")?, mqtts: address("mqtts=")? };
    Ok((process, ready))
}

/// A certificate for `localhost` that vouches for itself.
struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    der: CertificateDer<'static>,
}

impl Certificate {
    fn make(folder: &Path) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&cert, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        // mosquitto gives up root before it reads it.
        #[cfg(unix)]
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        Ok(Self { cert, key, der: made.cert.der().clone() })
    }

    fn trust(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone())?;
        Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
    }
}

/// An address that nobody listened at a moment ago.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A folder that an unprivileged Postgres may enter.
fn folder() -> anyhow::Result<TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::with_prefix("holdfast-bench-")?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}
