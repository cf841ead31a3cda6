//! `holdfast token create`: a signed token for a caller of the HTTP API, made from the secret in the
//! data directory. Works whether or not the service runs, and needs no database.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::output;
use crate::clock::Clock;
use crate::config::{Config, DataDirFlags, FileFlags, Flags};
use crate::control_plane::tokens::{Grant, Role, TokenIssuer, TokenSecret};
use crate::model::ClusterId;

/// Make tokens for callers of the HTTP API.
#[derive(Debug, clap::Subcommand)]
pub(super) enum TokenCommand {
    /// Print a new token
    Create(CreateArgs),
}

/// Print a new token.
#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    /// What its bearer may do: look, also change sessions, or everything
    #[arg(long, value_parser = PossibleValuesParser::new(ROLES).try_map(|role| role.parse::<Role>()))]
    role: Role,
    /// Good for this cluster only [default: all]
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<ClusterId>,
    /// How long it is good for, such as 90s, 15m, 12h or 30d
    #[arg(long, value_name = "TIME", default_value = "12h", value_parser = duration_secs)]
    ttl: u32,
    /// Who calls, for logs and audit
    #[arg(long, value_name = "NAME", default_value = "cli")]
    subject: String,
    #[command(flatten)]
    file: FileFlags,
    #[command(flatten)]
    data_dir: DataDirFlags,
}

/// The words that [`Role`] is read from.
const ROLES: [&str; 3] = [Role::Viewer.as_str(), Role::Operator.as_str(), Role::Admin.as_str()];

pub(super) fn run(command: TokenCommand) -> anyhow::Result<ExitCode> {
    let TokenCommand::Create(CreateArgs { role, cluster, ttl, subject, file, data_dir }) = command;
    let config = Config::load(Flags { file, data_dir, ..Flags::default() })?;
    let place = config.data_dir.path().display();
    let secret = config
        .data_dir
        .signing_secret()
        .with_context(|| format!("cannot read the signing secret in {place}"))?
        .ok_or_else(|| {
            anyhow!("{place} has no signing secret: start the service once, or name its --data-dir")
        })?;
    let issuer = TokenIssuer::new(&TokenSecret::new(secret.expose()));
    let ttl = Duration::from_secs(ttl.into());
    output::line(&issuer.issue(&Grant { subject, role, cluster }, Clock::new().wall(), ttl)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Parses a number with a unit; the error says what is allowed.
fn duration_secs(text: &str) -> Result<u32, String> {
    let expected = || "expected a number above 0 with s, m, h or d, such as 12h".to_owned();
    let unit = text.char_indices().next_back().ok_or_else(expected)?;
    let secs = match unit.1 {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(expected()),
    };
    let number: u32 = text.get(..unit.0).and_then(|n| n.parse().ok()).ok_or_else(expected)?;
    number.checked_mul(secs).filter(|secs| *secs > 0).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(duration_secs("90s"), Ok(90));
        assert_eq!(duration_secs("15m"), Ok(900));
        assert_eq!(duration_secs("12h"), Ok(43_200));
        assert_eq!(duration_secs("30d"), Ok(2_592_000));
        for bad in ["", "h", "12", "0s", "-1h", "1.5h", "12ä", "99999999d"] {
            assert!(duration_secs(bad).is_err(), "{bad}");
        }
    }
}
