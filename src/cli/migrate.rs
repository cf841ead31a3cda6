//! `holdfast migrate`: the database's tables brought up to date, without serving.

use std::process::ExitCode;

use anyhow::Context;

use super::{output, small_runtime};
use crate::app;
use crate::clock::Clock;
use crate::config::{Config, DataDirFlags, DatabaseFlags, FileFlags, Flags};

/// Bring the database's tables up to date.
#[derive(Debug, clap::Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    file: FileFlags,
    #[command(flatten)]
    data_dir: DataDirFlags,
    #[command(flatten)]
    database: DatabaseFlags,
}

pub(super) fn run(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    let MigrateArgs { file, data_dir, database } = args;
    let config = Config::load(Flags { file, data_dir, database, ..Flags::default() })?;
    small_runtime()?.block_on(migrate(&config))?;
    output::line("the database is up to date")?;
    Ok(ExitCode::SUCCESS)
}

/// A database that is given may be migrated under a running service; the private one belongs to the
/// process that holds the data directory.
async fn migrate(config: &Config) -> anyhow::Result<()> {
    let _claim = match config.database.url {
        Some(_) => None,
        None => Some(config.data_dir.claim().with_context(|| {
            format!(
                "cannot use the data directory {}; is a service using it?",
                config.data_dir.path().display()
            )
        })?),
    };
    let database = app::open_database(config, &Clock::new()).await?;
    let migrated = database.store.migrate().await.context("cannot bring the database's tables up to date");
    database.close().await;
    migrated
}
