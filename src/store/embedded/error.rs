//! Why the private Postgres does not run: one line that says what to do about it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::binaries::MAJOR_MIN;

/// Why the private Postgres could not be made to run.
#[derive(Debug, Error)]
pub enum EmbeddedError {
    /// There is no Postgres on this machine, or none that is new enough.
    #[error(
        "no Postgres {MAJOR_MIN} or later was found (looked in {searched}): install Debian's \
         `postgresql` package, or name a database with --database-url"
    )]
    NoBinaries {
        /// The folders looked in, comma separated.
        searched: String,
    },
    /// The data was made by a release that is not installed; releases do not read each other's.
    #[error(
        "{data} was made by Postgres {made_by}, which was not found (looked in {searched}): install \
         `postgresql-{made_by}`, or carry the data over with pg_upgrade"
    )]
    VersionMismatch {
        /// The data.
        data: PathBuf,
        /// The release that made it.
        made_by: u32,
        /// The folders looked in, comma separated.
        searched: String,
    },
    /// Started as root on a machine without an account to run Postgres under.
    #[error(
        "Postgres refuses to run as root, and this machine has neither a `postgres` nor a `nobody` account"
    )]
    NoAccount,
    /// Started as root, and the account cannot reach the data.
    #[error(
        "the account {account} that runs Postgres may not enter {folder}: \
         choose another --data-dir, or run `chmod o+x {folder}`"
    )]
    NotTraversable {
        /// The account.
        account: String,
        /// The first folder on the way that it may not enter.
        folder: PathBuf,
    },
    /// The data belongs to an account that this process cannot act as.
    #[error("{data} belongs to user id {owner}, but this process runs as user id {runs_as}")]
    OtherOwner {
        /// The data.
        data: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        runs_as: u32,
    },
    /// Another process uses the same data.
    #[error("another holdfast process uses the private Postgres in {folder}")]
    InUse {
        /// Where.
        folder: PathBuf,
    },
    /// A file or folder could not be made or read.
    #[error("could not {doing} {path}")]
    File {
        /// What was being tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What came of it.
        #[source]
        source: io::Error,
    },
    /// A program of Postgres could not be run.
    #[error("could not run {program}")]
    Run {
        /// Which.
        program: PathBuf,
        /// What came of it.
        #[source]
        source: io::Error,
    },
    /// The data could not be created.
    #[error("initdb failed: {said}")]
    Initdb {
        /// Its last words.
        said: String,
    },
    /// Postgres ends as soon as it is started.
    #[error("the private Postgres does not start: {said} (its log: {log})")]
    Died {
        /// The last line of its log.
        said: String,
        /// The log.
        log: PathBuf,
    },
    /// Postgres runs but takes no connections.
    #[error("the private Postgres took no connection within {secs} s (its log: {log})")]
    NotReady {
        /// How long was waited.
        secs: u64,
        /// The log.
        log: PathBuf,
    },
    /// Postgres takes connections but the service's database could not be created in it.
    #[error("could not create the database in the private Postgres")]
    CreateDatabase(#[source] sqlx::Error),
}

/// For `map_err`: what was being done with which file.
pub(super) fn file_error(
    doing: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> EmbeddedError {
    let path = path.into();
    move |source| EmbeddedError::File { doing, path, source }
}
