//! What can go wrong with the database, told apart by what the caller can do about it.

use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use thiserror::Error;

use crate::seam::ports;

/// Why the store did not do what was asked.
#[derive(Debug, Error)]
pub enum Error {
    /// The database cannot be reached, is stopping, or could not take the statement just now.
    /// Trying again later may help.
    #[error("the database is away")]
    Away(#[source] sqlx::Error),
    /// What was asked contradicts what is there.
    #[error("the database holds a conflicting row ({0:?})")]
    Conflict(Constraint),
    /// A text holds U+0000, which Postgres cannot keep.
    #[error("a text holds U+0000, which the database cannot keep")]
    Nul,
    /// The server is of a release that this program does not work with.
    #[error("the database is Postgres {found}, but {needed} or later is needed")]
    TooOld {
        /// Its release.
        found: u32,
        /// The oldest that will do.
        needed: u32,
    },
    /// The schema and this program do not fit together.
    #[error("the schema of the database could not be brought up to date")]
    Migrate(#[source] MigrateError),
    /// A defect in this program or in the data. Trying again will not help.
    #[error("the database refused a statement or holds a value that this program cannot read")]
    Defect(#[source] sqlx::Error),
}

/// A rule of the schema that a caller can run into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// A cluster of this id exists.
    ClusterExists,
    /// The cluster that an API key is bound to does not exist.
    ApiKeyCluster,
    /// Another policy of the cluster has the priority.
    PolicyPriority,
    /// Another message rule of the cluster has the priority.
    MessageRulePriority,
    /// Another authenticator of the cluster has the position.
    AuthenticatorPosition,
}

impl Constraint {
    fn by_name(name: &str) -> Option<Self> {
        match name {
            "clusters_pkey" => Some(Self::ClusterExists),
            "api_keys_cluster_id_fkey" => Some(Self::ApiKeyCluster),
            "authorization_policies_priority" => Some(Self::PolicyPriority),
            "message_rules_priority" => Some(Self::MessageRulePriority),
            "authenticators_position" => Some(Self::AuthenticatorPosition),
            _ => None,
        }
    }
}

impl Error {
    /// Whether trying again later may help.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away(_))
    }

    /// The database did not answer in time.
    pub(super) fn too_slow() -> Self {
        Self::Away(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))
    }

    /// A value in the database that the program's own types refuse.
    pub(super) fn unreadable(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Defect(sqlx::Error::Decode(why.into()))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if is_away(&error) {
            return Self::Away(error);
        }
        let said = error.as_database_error();
        // "character not in repertoire" for a text, "untranslatable character" for one within JSON.
        if said.and_then(DatabaseError::code).is_some_and(|code| ["22021", "22P05"].contains(&&*code)) {
            return Self::Nul;
        }
        match said.and_then(|e| e.constraint()).and_then(Constraint::by_name) {
            Some(constraint) => Self::Conflict(constraint),
            None => Self::Defect(error),
        }
    }
}

impl From<MigrateError> for Error {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) if is_away(&source) => {
                Self::Away(source)
            }
            other => Self::Migrate(other),
        }
    }
}

impl From<Error> for ports::StoreError {
    fn from(error: Error) -> Self {
        match error {
            Error::Away(source) => Self::Away(source.into()),
            other => Self::Refused(other.into()),
        }
    }
}

fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error
            .try_downcast_ref::<PgDatabaseError>()
            .is_some_and(|e| refuses_for_now(e.severity(), e.code())),
        _ => false,
    }
}

/// A FATAL or PANIC answer ends or refuses the whole connection (shutdown, start-up, too many
/// connections, no such role or database). Of the rest, some SQLSTATE classes pass by themselves.
fn refuses_for_now(severity: PgSeverity, sqlstate: &str) -> bool {
    // Connection exception, transaction rollback (deadlock, serialisation), insufficient resources
    // (disk, memory), operator intervention.
    const CLASSES: [&str; 4] = ["08", "40", "53", "57"];
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    const READ_ONLY_TRANSACTION: &str = "25006"; // a standby after a failover
    matches!(severity, PgSeverity::Fatal | PgSeverity::Panic)
        || sqlstate.get(..2).is_some_and(|class| CLASSES.contains(&class))
        || [LOCK_NOT_AVAILABLE, READ_ONLY_TRANSACTION].contains(&sqlstate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_an_outage_from_a_defect() {
        assert!(Error::from(sqlx::Error::PoolTimedOut).is_away());
        assert!(Error::from(sqlx::Error::Io(std::io::ErrorKind::ConnectionRefused.into())).is_away());
        assert!(!Error::from(sqlx::Error::RowNotFound).is_away());
        for (severity, sqlstate, away) in [
            (PgSeverity::Fatal, "57P01", true),
            (PgSeverity::Fatal, "55000", true),
            (PgSeverity::Fatal, "28P01", true),
            (PgSeverity::Error, "40P01", true),
            (PgSeverity::Error, "53100", true),
            (PgSeverity::Error, "55P03", true),
            (PgSeverity::Error, "23505", false),
            (PgSeverity::Error, "42P01", false),
            (PgSeverity::Error, "22021", false),
        ] {
            assert_eq!(refuses_for_now(severity, sqlstate), away, "{severity:?} {sqlstate}");
        }
    }
}
