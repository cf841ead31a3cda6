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

use super::{output, parts, small_runtime};
use crate::config::{self, Config, DataDir, Flags};
use crate::data_plane::runtime::tls::Tls;

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
    match &config.database.url {
        Some(url) => {
            let version = parts::database_version(url).await.with_context(|| format!("cannot use {url}"))?;
            Ok(format!("{url} answers: Postgres {version}"))
        }
        None => parts::private_postgres(config).await,
    }
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
