//! `holdfast doctor`: would the service start here, and if not, why not?
//!
//! Every check is made whatever the others say, so that one run shows all that is wrong. Nothing is
//! changed: no directory is created, no table migrated, no database started.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use rustix::fs::Access;

use super::{output, small_runtime};
use crate::app;
use crate::clock::Clock;
use crate::config::{self, Config, DataDir, Flags};
use crate::data_plane::runtime::tls::Tls;
use crate::store::embedded::{Account, Binaries};

/// The oldest release that the schema works with.
const POSTGRES_MIN: u32 = 15;

/// Check configuration, data directory, database and ports.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    flags: Flags,
}

/// One check: what was looked at, and what was found.
struct Check {
    subject: String,
    /// What is good about it, or why it is not.
    finding: anyhow::Result<String>,
}

pub(super) fn run(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let checks = match Config::load(args.flags) {
        Ok(config) => examine(&config)?,
        Err(error) => vec![Check { subject: "configuration".into(), finding: Err(error.into()) }],
    };
    output::line(&render(&checks))?;
    let healthy = checks.iter().all(|check| check.finding.is_ok());
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn examine(config: &Config) -> anyhow::Result<Vec<Check>> {
    let runtime = small_runtime()?;
    let mut checks = vec![
        Check { subject: "configuration".into(), finding: Ok("valid".into()) },
        Check { subject: "data directory".into(), finding: data_dir(&config.data_dir) },
        Check { subject: "database".into(), finding: runtime.block_on(database(config)) },
    ];
    if let Some(tls) = &config.tls {
        checks.push(Check { subject: "certificates".into(), finding: certificates(tls) });
    }
    for (name, address) in config.listeners.iter() {
        checks.push(Check { subject: format!("port {name}"), finding: port(name, address) });
    }
    Ok(checks)
}

fn render(checks: &[Check]) -> String {
    let rows = checks.iter().map(|check| {
        let (result, finding) = match &check.finding {
            Ok(finding) => ("ok", finding.clone()),
            Err(error) => ("failed", output::chain(error)),
        };
        vec![check.subject.clone(), result.to_owned(), finding]
    });
    output::table(&["CHECK", "RESULT", "FINDING"], &rows.collect::<Vec<_>>())
}

/// The directory, or the nearest one above it that exists, must be writable.
fn data_dir(data_dir: &DataDir) -> anyhow::Result<String> {
    let path = data_dir.path();
    let existing = path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let place = existing.display();
    if !existing.is_dir() {
        bail!("{place} is not a directory");
    }
    rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK)
        .with_context(|| format!("{place} cannot be written to"))?;
    if existing != path {
        return Ok(format!("{} does not exist yet and can be created", path.display()));
    }
    if let Ok(token) = std::fs::metadata(data_dir.admin_token_path())
        && token.mode() & 0o077 != 0
    {
        bail!("{} can be read by others; chmod 600 it", data_dir.admin_token_path().display());
    }
    match data_dir.signing_secret().context("the signing secret cannot be read")? {
        Some(_) => Ok(format!("{place} is writable and has its secrets")),
        None => Ok(format!("{place} is writable and has no secrets yet")),
    }
}

async fn database(config: &Config) -> anyhow::Result<String> {
    if config.database.url.is_none() {
        return private_database(config);
    }
    let database = app::open_database(config, &Clock::new()).await?;
    let version = database.store.server_version().await.context("the database does not answer");
    database.close().await;
    let version = version?;
    // "15.14 (Debian 15.14-0+deb12u1)", "18beta1".
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    match version[..digits].parse::<u32>() {
        Ok(major) if major < POSTGRES_MIN => bail!("it is Postgres {version}, and {POSTGRES_MIN} is needed"),
        _ => Ok(format!("Postgres {version} answers")),
    }
}

/// The private Postgres is not started: whether it could be is what can be told.
fn private_database(config: &Config) -> anyhow::Result<String> {
    let data = config.data_dir.postgres_path().join("data");
    let options = app::private_postgres_options(config);
    let binaries = Binaries::find(options.binaries.as_deref(), options.search_path.as_deref(), Some(&data))?;
    let account = Account::choose(&data)?;
    if let Some(account) = &account {
        let existing = data.ancestors().skip(2).find(|above| above.exists()).unwrap_or(Path::new("/"));
        account.check_reaches(existing)?;
    }
    let runs_as = account.map(|account| format!(", run as {}", account.name)).unwrap_or_default();
    let Binaries { folder, major } = binaries;
    Ok(format!("private: Postgres {major} of {}{runs_as}", folder.display()))
}

fn certificates(files: &config::Tls) -> anyhow::Result<String> {
    Tls::load(files.clone())?;
    Ok("can be used".to_owned())
}

/// A port is free when it can be bound; QUIC's is a UDP one.
fn port(name: &str, address: SocketAddr) -> anyhow::Result<String> {
    let bound = if name == "quic" {
        std::net::UdpSocket::bind(address).map(drop)
    } else {
        TcpListener::bind(address).map(drop)
    };
    bound.with_context(|| format!("{address} cannot be bound"))?;
    Ok(format!("{address} is free"))
}
