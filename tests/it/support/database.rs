//! A database for each test: a clone of a template that was migrated once.

use std::sync::atomic::{AtomicU32, Ordering};

use holdfast::clock::Clock;
use holdfast::store::Store;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Executor};
use tokio::sync::OnceCell;

use super::postgres::TestPostgres;

const TEMPLATE: &str = "holdfast_template";

/// A migrated, otherwise empty database. Dropped with its last word.
pub(crate) struct TestDatabase {
    name: String,
}

impl TestDatabase {
    /// A new one.
    pub(crate) async fn create() -> Self {
        static MIGRATED: OnceCell<()> = OnceCell::const_new();
        static NEXT: AtomicU32 = AtomicU32::new(1);
        MIGRATED.get_or_init(make_template).await;
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        maintain(format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")).await;
        Self { name }
    }

    /// How to connect to it.
    pub(crate) fn options(&self) -> PgConnectOptions {
        TestPostgres::shared().options(&self.name)
    }

    /// The same as a URL, for `--database-url`.
    pub(crate) fn url(&self) -> String {
        let options = self.options();
        let socket = options.get_socket().expect("it listens on a socket").display().to_string();
        let (user, port) = (options.get_username(), options.get_port());
        format!("postgres:///{}?host={socket}&port={port}&user={user}&sslmode=disable", self.name)
    }

    /// A store on it.
    pub(crate) async fn store(&self) -> Store {
        Store::connect(self.options(), Clock::new()).await.expect("connect to the test database")
    }

    /// Makes this database go away for everybody: connections break, new ones are refused.
    pub(crate) async fn go_away(&self) {
        let name = &self.name;
        maintain(format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")).await;
        maintain(format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'"
        ))
        .await;
    }

    /// Ends [`TestDatabase::go_away`].
    pub(crate) async fn come_back(&self) {
        maintain(format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true", self.name)).await;
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let drop_it = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        // A test's own runtime cannot be waited for from within it.
        let done = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(maintain(drop_it));
        });
        let done = done.join().is_ok() || std::thread::panicking();
        assert!(done, "could not drop the test database {}", self.name);
    }
}

async fn make_template() {
    maintain(format!("CREATE DATABASE {TEMPLATE}")).await;
    let options = TestPostgres::shared().options(TEMPLATE);
    let store = Store::connect(options, Clock::new()).await.expect("connect to the template");
    store.migrate().await.expect("migrate the template");
    store.close().await;
    // A template with a connection cannot be cloned.
    maintain(format!("ALTER DATABASE {TEMPLATE} WITH ALLOW_CONNECTIONS false")).await;
}

async fn maintain(sql: String) {
    let mut connection: PgConnection = TestPostgres::shared().maintenance().await;
    connection.execute(AssertSqlSafe(sql.clone())).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection.close().await.expect("close a connection");
}
