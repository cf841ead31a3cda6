//! The command line: what each command takes, and how it ends.
//!
//! Exit codes: 0 done, 1 it could not be done (one line on standard error says why), 2 the command
//! line, the environment or the configuration file is wrong. No logic of the service lives here; a
//! command that works on a running service goes through its public API like any other caller.

mod api_client;
mod clusters;
mod doctor;
mod migrate;
mod openapi;
mod output;
mod remote;
mod resources;
mod serve;
mod session_changes;
mod sessions;
mod token;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use thiserror::Error;

use crate::config::ConfigError;
use crate::telemetry::{self, FilterError};

/// A managed MQTT service that keeps sessions.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve(Box<serve::ServeArgs>),
    /// Bring the database's tables up to date, then end
    Migrate(migrate::MigrateArgs),
    /// Print the OpenAPI document of the HTTP API
    Openapi,
    /// Make tokens for callers of the HTTP API
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Check configuration, data directory, database and ports
    Doctor(Box<doctor::DoctorArgs>),
    /// Look at and change clusters of a running service
    Clusters(clusters::ClustersArgs),
    /// Look at and end sessions of a running service
    Sessions(sessions::SessionsArgs),
    #[command(flatten)]
    Resource(resources::ResourceCommand),
}

/// A command line that is wrong in a way the argument parser cannot see.
#[derive(Debug, Error)]
#[error("{0}")]
struct UsageError(String);

/// Runs the program on the process's own arguments and environment.
pub fn main() -> ExitCode {
    // The parser prints its own refusal and ends the process with 2.
    let cli = Cli::parse();
    // One provider for every TLS in the process. Refused where there is one, and there is none yet.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match telemetry::init().map_err(anyhow::Error::from).and_then(|()| run(cli.command)) {
        Ok(code) => code,
        Err(error) => {
            output::failure(&error);
            ExitCode::from(if is_usage(&error) { 2 } else { 1 })
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => serve::run(*args),
        Command::Migrate(args) => migrate::run(args),
        Command::Openapi => openapi::run(),
        Command::Token(command) => token::run(command),
        Command::Doctor(args) => doctor::run(*args),
        Command::Clusters(args) => clusters::run(args),
        Command::Sessions(args) => sessions::run(args),
        Command::Resource(command) => resources::run(command),
    }
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<ConfigError>() || error.is::<FilterError>() || error.is::<UsageError>()
}

/// A runtime for a command that does one thing and ends.
fn small_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
