//! Commands: what must happen now, with a deadline and an answer.
//!
//! An `Ok` answer means that the effect is complete: the socket closed, the session gone from the
//! registry, the record committed. A command that misses its deadline may still take effect later.

use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::backlog::SessionTraffic;
use super::figures::LogFigures;
pub use crate::model::SessionCounts;
use crate::model::{ClientId, ClusterId, Epoch, OperatorExpiry, SessionId};

/// How many commands may wait for the data plane; more wait with their callers.
pub const COMMANDS_QUEUED_MAX: usize = 1_024;

/// The session a command is meant for, and the fence that keeps it from hitting a later one.
#[derive(Clone, Debug)]
pub struct Target {
    /// The cluster.
    pub cluster: ClusterId,
    /// The client.
    pub client_id: ClientId,
    /// Only if the session is still this one.
    pub if_session_id: Option<SessionId>,
    /// Only if the attachment is still this one.
    pub if_epoch: Option<Epoch>,
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, CommandError>>;

/// One command.
#[derive(Debug)]
pub enum Command {
    /// End the connection, keep the session. Answered when the socket is closed and the record
    /// says offline.
    Disconnect {
        /// Which session.
        target: Target,
        /// Where the answer goes.
        reply: Reply<SessionRef>,
    },
    /// End the connection and destroy the session. Answered when the socket is closed and the
    /// record is gone.
    Destroy {
        /// Which session.
        target: Target,
        /// Where the answer goes.
        reply: Reply<SessionRef>,
    },
    /// Enforce an expiry that was already committed to the record.
    ApplyExpiry {
        /// Which session.
        target: Target,
        /// The operator's order; `None` gives the client's own back.
        operator: Option<OperatorExpiry>,
        /// Where the answer goes.
        reply: Reply<SessionRef>,
    },
    /// Count the sessions of a cluster, exactly, by the clock.
    Count {
        /// Which cluster.
        cluster: ClusterId,
        /// Where the answer goes.
        reply: Reply<SessionCounts>,
    },
    /// Tell what waits for a session and is under way to it.
    Traffic {
        /// Which cluster.
        cluster: ClusterId,
        /// Whose session.
        client_id: ClientId,
        /// Where the answer goes.
        reply: Reply<SessionTraffic>,
    },
    /// Tell how the message log stands.
    LogFigures {
        /// Where the answer goes.
        reply: Reply<LogFigures>,
    },
    /// Answered when the connections that block rules have ended are closed and their records say so. To be
    /// asked when the rules are enforced.
    AwaitExpulsions {
        /// Of which cluster.
        cluster: ClusterId,
        /// Where the answer goes.
        reply: Reply<()>,
    },
    /// Answered when desired state of at least this revision is enforced.
    AwaitRevision {
        /// The revision.
        revision: i64,
        /// Where the answer goes.
        reply: Reply<()>,
    },
}

/// The session that a command met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRef {
    /// Which session.
    pub session_id: SessionId,
    /// Its attachment when the command took effect.
    pub epoch: Epoch,
    /// Whether a connection was attached.
    pub was_online: bool,
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// The data plane does not serve this cluster.
    #[error("no such cluster")]
    NoSuchCluster,
    /// The client has no session.
    #[error("no such session")]
    NoSuchSession,
    /// The fence did not hold: the session moved on.
    #[error("the session has moved on")]
    Superseded {
        /// The session that exists now.
        session_id: SessionId,
        /// Its attachment.
        epoch: Epoch,
    },
    /// The effect is in force but could not be recorded: the database is away.
    #[error("the session store is away")]
    StoreAway,
    /// The deadline passed; the command may still take effect.
    #[error("the data plane did not answer in time")]
    TimedOut,
    /// The data plane is stopping.
    #[error("the data plane has stopped")]
    Stopped,
}

/// The control plane's end: typed calls that wait for the answer.
#[derive(Clone, Debug)]
pub struct DataPlane {
    commands: mpsc::Sender<Command>,
}

/// A new channel; the receiver belongs to the data plane.
pub fn channel() -> (DataPlane, mpsc::Receiver<Command>) {
    let (commands, receiver) = mpsc::channel(COMMANDS_QUEUED_MAX);
    (DataPlane { commands }, receiver)
}

impl DataPlane {
    /// See [`Command::Disconnect`].
    pub async fn disconnect(&self, target: Target, deadline: Duration) -> Result<SessionRef, CommandError> {
        self.ask(deadline, |reply| Command::Disconnect { target, reply }).await
    }

    /// See [`Command::Destroy`].
    pub async fn destroy(&self, target: Target, deadline: Duration) -> Result<SessionRef, CommandError> {
        self.ask(deadline, |reply| Command::Destroy { target, reply }).await
    }

    /// See [`Command::ApplyExpiry`].
    pub async fn apply_expiry(
        &self,
        target: Target,
        operator: Option<OperatorExpiry>,
        deadline: Duration,
    ) -> Result<SessionRef, CommandError> {
        self.ask(deadline, |reply| Command::ApplyExpiry { target, operator, reply }).await
    }

    /// See [`Command::Count`].
    pub async fn count(&self, cluster: ClusterId, deadline: Duration) -> Result<SessionCounts, CommandError> {
        self.ask(deadline, |reply| Command::Count { cluster, reply }).await
    }

    /// See [`Command::Traffic`].
    pub async fn traffic(
        &self,
        cluster: ClusterId,
        client_id: ClientId,
        deadline: Duration,
    ) -> Result<SessionTraffic, CommandError> {
        self.ask(deadline, |reply| Command::Traffic { cluster, client_id, reply }).await
    }

    /// See [`Command::LogFigures`].
    pub async fn log_figures(&self, deadline: Duration) -> Result<LogFigures, CommandError> {
        self.ask(deadline, |reply| Command::LogFigures { reply }).await
    }

    /// See [`Command::AwaitRevision`].
    pub async fn await_revision(&self, revision: i64, deadline: Duration) -> Result<(), CommandError> {
        self.ask(deadline, |reply| Command::AwaitRevision { revision, reply }).await
    }

    /// See [`Command::AwaitExpulsions`].
    pub async fn await_expulsions(&self, cluster: ClusterId, deadline: Duration) -> Result<(), CommandError> {
        self.ask(deadline, |reply| Command::AwaitExpulsions { cluster, reply }).await
    }

    async fn ask<T>(
        &self,
        deadline: Duration,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.commands.send(command(reply)).await.map_err(|_| CommandError::Stopped)?;
            answer.await.map_err(|_| CommandError::Stopped)?
        };
        tokio::time::timeout(deadline, exchange).await.unwrap_or(Err(CommandError::TimedOut))
    }
}
