//! `holdfast serve`: the service itself, until a signal ends it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tracing::info;

use crate::app;
use crate::config::{Config, Flags};
use crate::lifecycle::Shutdown;

/// How long threads that are busy with blocking calls may hold up the end of the process.
const BLOCKING_CALLS_MAX: Duration = Duration::from_millis(500);

/// Run the service.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    flags: Flags,
}

pub(super) fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let config = Config::load(args.flags)?;
    let (version, data_dir) = (env!("CARGO_PKG_VERSION"), config.data_dir.path().display());
    info!(version, %data_dir, "holdfast {version} starts, its data in {data_dir}");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("holdfast")
        .build()
        .context("cannot start the runtime")?;
    // On the main thread: the private Postgres is tied to the life of the thread that starts it.
    let end = runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.listen_for_signals().context("cannot listen for signals")?;
        app::serve(config, shutdown).await
    });
    runtime.shutdown_timeout(BLOCKING_CALLS_MAX);
    end.map(|()| ExitCode::SUCCESS)
}
