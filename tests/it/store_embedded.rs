//! The private Postgres: created once, found again, taken over, kept alive.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use holdfast::clock::Clock;
use holdfast::model::ClusterId;
use holdfast::store::Store;
use holdfast::store::embedded::{EmbeddedError, EmbeddedOptions, EmbeddedPostgres};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::scratch;
use crate::support::sessions::{cluster_id, make_clusters};

/// Names the data directory to the process that [`serves_until_killed`] becomes.
const CHILD_DATA_DIR: &str = "HOLDFAST_TEST_EMBEDDED_DATA_DIR";

/// A data directory that any account may reach, and no Postgres left in it at the end.
struct DataDir {
    folder: TempDir,
    /// Below the folder.
    path: PathBuf,
}

impl DataDir {
    fn new() -> Self {
        Self::deep("")
    }

    fn deep(below: &str) -> Self {
        let folder = scratch::folder();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("open the folder");
        let path = folder.path().join(below);
        Self { folder, path }
    }

    fn options(&self) -> EmbeddedOptions {
        EmbeddedOptions {
            data_dir: self.path.clone(),
            binaries: None,
            search_path: std::env::var_os("PATH"),
            temp_dir: self.folder.path().to_owned(),
        }
    }

    async fn start(&self) -> Result<EmbeddedPostgres, EmbeddedError> {
        EmbeddedPostgres::start(self.options()).await
    }

    fn data(&self) -> PathBuf {
        self.path.join("postgres/data")
    }

    /// The process id of the postmaster, if there is one.
    fn postmaster(&self) -> Option<Pid> {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        Pid::from_raw(file.lines().next()?.parse().ok()?)
    }

    fn kill_postmaster(&self) {
        let pid = self.postmaster().expect("it runs");
        kill_process(pid, Signal::KILL).expect("kill the postmaster");
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if let Some(pid) = self.postmaster() {
            let _ = kill_process(pid, Signal::QUIT);
        }
    }
}

async fn store(postgres: &EmbeddedPostgres) -> Store {
    let store = Store::connect(postgres.connect_options(), Clock::new()).await.expect("connect");
    store.migrate().await.expect("migrate");
    store
}

async fn cluster_exists(store: &Store, id: &ClusterId) -> bool {
    store.get_cluster(id).await.expect("get").is_some()
}

/// What Postgres says of its own settings.
async fn setting(postgres: &EmbeddedPostgres, name: &str) -> String {
    use sqlx::ConnectOptions;
    let mut connection = postgres.connect_options().connect().await.expect("connect");
    let asked = sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&mut connection);
    asked.await.expect("a setting")
}

/// Awaits a condition that another process brings about.
async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), wait).await.unwrap_or_else(|_| panic!("never {what}"));
}

#[tokio::test]
async fn the_first_start_creates_it_and_the_second_finds_it() {
    let dir = DataDir::deep("with space, \"quote\" and ☃");
    let postgres = dir.start().await.expect("the first start");
    make_clusters(&store(&postgres).await, &["kept"]).await;
    for (name, value) in [
        ("listen_addresses", ""),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("unix_socket_permissions", "0700"),
        ("server_encoding", "UTF8"),
    ] {
        assert_eq!(setting(&postgres, name).await, value, "{name}");
    }
    let owner = fs::metadata(dir.data()).expect("data").uid();
    assert_ne!(owner, 0, "never root's");
    assert_eq!(fs::metadata(dir.data()).expect("data").mode() & 0o777, 0o700);
    postgres.stop().await;
    assert_eq!(dir.postmaster(), None, "it has stopped");

    let postgres = dir.start().await.expect("the second start");
    assert!(cluster_exists(&store(&postgres).await, &cluster_id("kept")).await);
    postgres.stop().await;
}

#[tokio::test]
async fn what_a_killed_process_left_running_is_taken_over() {
    let dir = DataDir::new();
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "store_embedded::serves_until_killed", "--ignored", "--nocapture"])
        .env(CHILD_DATA_DIR, &dir.path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("start a child");
    let said = BufReader::new(child.stdout.take().expect("its output"));
    let ready = said.lines().map_while(Result::ok).any(|line| line.contains("serving"));
    assert!(ready, "the child serves");
    let refused = dir.start().await.expect_err("the child has it");
    assert!(matches!(refused, EmbeddedError::InUse { .. }), "{refused}");
    let before = dir.postmaster().expect("it runs");
    child.kill().expect("kill the child");
    child.wait().expect("the child has ended");

    let postgres = dir.start().await.expect("take it over");
    assert_eq!(dir.postmaster(), Some(before), "the same postmaster");
    assert!(cluster_exists(&store(&postgres).await, &cluster_id("childs")).await);
    postgres.stop().await;
    assert_eq!(dir.postmaster(), None, "a postmaster that was taken over stops too");
}

/// Not a test: what `what_a_killed_process_left_running_is_taken_over` starts and kills.
#[tokio::test]
#[ignore = "runs as a child of another test"]
async fn serves_until_killed() {
    let Some(data_dir) = std::env::var_os(CHILD_DATA_DIR) else { return };
    let data_dir = PathBuf::from(data_dir);
    let options = EmbeddedOptions { temp_dir: data_dir.clone(), data_dir, binaries: None, search_path: None };
    let postgres = EmbeddedPostgres::start(options).await.expect("start");
    make_clusters(&store(&postgres).await, &["childs"]).await;
    println!("serving");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn it_recovers_when_it_was_killed_with_its_parent() {
    let dir = DataDir::new();
    let postgres = dir.start().await.expect("start");
    make_clusters(&store(&postgres).await, &["kept"]).await;
    drop(postgres);
    dir.kill_postmaster();
    let postgres = dir.start().await.expect("start again");
    assert!(cluster_exists(&store(&postgres).await, &cluster_id("kept")).await);
    postgres.stop().await;
}

#[tokio::test]
async fn it_is_started_again_when_it_dies() {
    let dir = DataDir::new();
    let postgres = dir.start().await.expect("start");
    let store = store(&postgres).await;
    let mut lock = store.lock_service().await.expect("take the lock");
    make_clusters(&store, &["kept"]).await;
    let before = dir.postmaster().expect("it runs");
    dir.kill_postmaster();
    eventually("answers again", async || store.ping().await.is_ok() && dir.postmaster() != Some(before))
        .await;
    assert!(cluster_exists(&store, &cluster_id("kept")).await);
    eventually("holds the lock again", async || {
        lock.heartbeat(holdfast::model::Timestamp::EPOCH).await.is_ok()
    })
    .await;
    postgres.stop().await;
    assert_eq!(dir.postmaster(), None, "the one it started stops too");
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_got_round() {
    let dir = DataDir::deep(&"deep/".repeat(30));
    let postgres = dir.start().await.expect("start");
    let socket = postgres.connect_options().get_socket().expect("a socket").clone();
    assert_eq!(socket.parent(), Some(dir.folder.path()));
    assert_eq!(fs::metadata(&socket).expect("its folder").mode() & 0o777, 0o700);
    make_clusters(&store(&postgres).await, &["kept"]).await;
    // A process that is killed cannot tell where the socket lies; the next one finds it.
    drop(postgres);
    let postgres = dir.start().await.expect("take it over");
    assert_eq!(postgres.connect_options().get_socket(), Some(&socket));
    assert!(cluster_exists(&store(&postgres).await, &cluster_id("kept")).await);
    postgres.stop().await;
    assert!(!socket.exists(), "nothing stays behind");
}

#[tokio::test]
async fn one_that_lost_its_socket_is_started_anew() {
    let dir = DataDir::new();
    let postgres = dir.start().await.expect("start");
    drop(postgres);
    let before = dir.postmaster();
    fs::remove_file(dir.path.join("postgres/socket/.s.PGSQL.5432")).expect("remove the socket");
    let postgres = dir.start().await.expect("start again");
    assert_ne!(dir.postmaster(), before);
    assert!(!cluster_exists(&store(&postgres).await, &cluster_id("none")).await);
    postgres.stop().await;
}

#[tokio::test]
async fn a_half_made_one_is_thrown_away() {
    let dir = DataDir::new();
    let half = dir.path.join("postgres/data.unfinished-1");
    fs::create_dir_all(&half).expect("make a folder");
    fs::write(half.join("PG_VERSION"), "1").expect("write a file");
    dir.start().await.expect("start").stop().await;
    assert!(!half.exists());
}

#[tokio::test]
async fn says_in_one_line_what_is_missing() {
    let dir = DataDir::new();
    let nowhere = EmbeddedOptions { binaries: Some("/nonexistent".into()), ..dir.options() };
    let error = EmbeddedPostgres::start(nowhere).await.expect_err("no binaries").to_string();
    assert_eq!(
        error,
        "no Postgres 15 or later was found (looked in /nonexistent): install Debian's `postgresql` \
         package, or name a database with --database-url"
    );

    fs::create_dir_all(dir.data()).expect("make a folder");
    fs::write(dir.data().join("PG_VERSION"), "9\n").expect("write a file");
    let error = start_as_owner(&dir).await.expect_err("another release").to_string();
    assert!(error.contains("was made by Postgres 9, which was not found"), "{error}");
}

/// The data given to whom it would belong.
async fn start_as_owner(dir: &DataDir) -> Result<EmbeddedPostgres, EmbeddedError> {
    let account = holdfast::store::embedded::Account::choose(Path::new("/nonexistent"))?;
    if let Some(account) = account {
        std::os::unix::fs::chown(dir.data(), Some(account.uid), Some(account.gid)).expect("give it away");
    }
    dir.start().await
}

#[tokio::test]
async fn root_is_told_when_the_account_cannot_reach_the_data() {
    if !rustix::process::geteuid().is_root() {
        return; // Who is not root runs it as itself and reaches what it can reach.
    }
    let dir = DataDir::deep("closed/data");
    let closed = dir.folder.path().join("closed");
    fs::create_dir(&closed).expect("make a folder");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("close it");
    let error = dir.start().await.expect_err("not reachable").to_string();
    assert!(error.contains(&format!("may not enter {}", closed.display())), "{error}");
    assert!(error.contains("chmod o+x"), "{error}");
}
