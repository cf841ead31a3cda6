//! The database: the one that was given, or the private one.

use anyhow::Context;
use sqlx::postgres::PgConnectOptions;

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::store::Store;
use crate::store::embedded::{EmbeddedOptions, EmbeddedPostgres};

/// A connected store, and the private Postgres under it where there is one.
#[derive(Debug)]
pub(crate) struct Database {
    /// The store.
    pub(crate) store: Store,
    private: Option<EmbeddedPostgres>,
}

impl Database {
    /// Closes the connections, then stops the private Postgres.
    pub(crate) async fn close(self) {
        self.store.close().await;
        if let Some(postgres) = self.private {
            postgres.stop().await;
        }
    }
}

/// Connects, starting the private Postgres first where no other was given.
pub(crate) async fn open(config: &Config, clock: &Clock) -> anyhow::Result<Database> {
    if let Some(url) = &config.database.url {
        let options: PgConnectOptions =
            url.expose().parse().with_context(|| format!("--database-url {url} cannot be used"))?;
        let store = Store::connect(options, clock.clone())
            .await
            .with_context(|| format!("cannot reach the database at {url}"))?;
        return Ok(Database { store, private: None });
    }
    let postgres = EmbeddedPostgres::start(private_options(config))
        .await
        .context("cannot start the private Postgres")?;
    match Store::connect(postgres.connect_options(), clock.clone()).await {
        Ok(store) => Ok(Database { store, private: Some(postgres) }),
        Err(error) => {
            postgres.stop().await;
            Err(error).context("cannot reach the private Postgres")
        }
    }
}

/// Where the private Postgres lies and where its programs are looked for.
pub(crate) fn private_options(config: &Config) -> EmbeddedOptions {
    EmbeddedOptions {
        data_dir: config.data_dir.path().to_owned(),
        binaries: config.database.pg_bin.clone(),
        search_path: config::search_path(),
        temp_dir: std::env::temp_dir(),
    }
}
