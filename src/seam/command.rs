//! Commands: what must happen now, with a deadline and an answer.
//!
//! An `Ok` answer means that the effect is complete: the socket closed, the session gone from the
//! registry, the record committed. A command that misses its deadline may still take effect later.

use thiserror::Error;
use tokio::sync::oneshot;

use super::admission::{AdmissionQuestion, AdmissionVerdict};
use super::backlog::SessionTraffic;
pub use super::calls::{DataPlane, UnderWay, channel};
use super::figures::{ClusterFigures, LogFigures};
use super::groups::{GroupDetail, GroupPlace, GroupState};
use super::messages::{BrowseRequest, Browsed, ShownWill};
use super::quota::QuotaCommand;
pub use crate::model::SessionCounts;
use crate::model::{
    ClientId, ClusterId, EndOptions, Epoch, OperatorExpiry, OperatorPart, Seq, SessionId, Subscription,
    TopicFilter,
};

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
        /// What becomes of the will, and why.
        options: EndOptions,
        /// Where the answer goes.
        reply: Reply<SessionRef>,
    },
    /// End the connection and destroy the session. Answered when the socket is closed and the
    /// record is gone. A protected session is left alone.
    Destroy {
        /// Which session.
        target: Target,
        /// What becomes of the will, and why.
        options: EndOptions,
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
    /// Protect a session from being destroyed by a command, or no longer; already committed to the record.
    Protect {
        /// Which session.
        target: Target,
        /// Whether it is protected from now on.
        protected: bool,
        /// Where the answer goes.
        reply: Reply<SessionRef>,
    },
    /// Begin a session for a client that has none, offline. Answered when all of it is durable.
    Begin {
        /// The cluster.
        cluster: ClusterId,
        /// What to begin.
        session: Box<NewSession>,
        /// Where the answer goes.
        reply: Reply<SessionRef>,
    },
    /// Subscribe on a client's behalf. Answered when it is durable.
    Subscribe {
        /// Which session.
        target: Target,
        /// To what, and how.
        subscription: Box<Subscription>,
        /// Where the answer goes.
        reply: Reply<SessionRef>,
    },
    /// Unsubscribe on a client's behalf. Answered when it is durable.
    Unsubscribe {
        /// Which session.
        target: Target,
        /// From what.
        filter: TopicFilter,
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
    /// Tell for which clients' sessions at least so many messages wait, in the order of the clients.
    Behind {
        /// Which cluster.
        cluster: ClusterId,
        /// Whose sessions. Of a client without one the answer is no.
        clients: Vec<ClientId>,
        /// How many messages.
        at_least: u32,
        /// Where the answer goes.
        reply: Reply<Vec<bool>>,
    },
    /// Show some of a session's messages.
    Browse {
        /// Which cluster.
        cluster: ClusterId,
        /// Whose messages, and which.
        request: BrowseRequest,
        /// Where the answer goes.
        reply: Reply<Browsed>,
    },
    /// Show a session's will, if it has one.
    Will {
        /// Which cluster.
        cluster: ClusterId,
        /// Whose.
        client_id: ClientId,
        /// Where the answer goes.
        reply: Reply<Option<ShownWill>>,
    },
    /// Tell of a cluster's shared groups, in the byte order of their filters.
    Groups {
        /// Which cluster.
        cluster: ClusterId,
        /// Only those whose whole filter comes behind this.
        after: String,
        /// At most so many.
        groups_max: usize,
        /// Where the answer goes.
        reply: Reply<Vec<GroupState>>,
    },
    /// Tell of one shared group and its members.
    Group {
        /// Which cluster.
        cluster: ClusterId,
        /// Its whole filter.
        share: TopicFilter,
        /// Where the answer goes.
        reply: Reply<GroupDetail>,
    },
    /// Have a shared group go on elsewhere. Answered with its new position when that outlives a crash.
    MoveGroup {
        /// Which cluster.
        cluster: ClusterId,
        /// Its whole filter.
        share: TopicFilter,
        /// Where to.
        to: GroupPlace,
        /// Where the answer goes.
        reply: Reply<Seq>,
    },
    /// End a shared group: its members lose the subscription. Answered with how many there were when their
    /// records are committed.
    EndGroup {
        /// Which cluster.
        cluster: ClusterId,
        /// Its whole filter.
        share: TopicFilter,
        /// Whether to end it though sessions are members.
        force: bool,
        /// Where the answer goes.
        reply: Reply<u32>,
    },
    /// Say whether a client would get in. Changes nothing.
    CheckAdmission {
        /// Which cluster.
        cluster: ClusterId,
        /// What it would ask.
        question: Box<AdmissionQuestion>,
        /// Where the answer goes.
        reply: Reply<AdmissionVerdict>,
    },
    /// Tell what the clusters count.
    ClusterFigures {
        /// Where the answer goes.
        reply: Reply<Vec<ClusterFigures>>,
    },
    /// Tell how the message log stands.
    LogFigures {
        /// Where the answer goes.
        reply: Reply<LogFigures>,
    },
    /// Something about a cluster's quota.
    Quota(QuotaCommand),
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

/// A session that begins without a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSession {
    /// Its identity; fresh.
    pub session_id: SessionId,
    /// Whose it is.
    pub client_id: ClientId,
    /// The operator's part of its record.
    pub part: OperatorPart,
    /// What it subscribes to, each filter once.
    pub subscriptions: Vec<Subscription>,
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
    /// Whether the subscription that the command is about was there before.
    pub was_subscribed: bool,
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
    /// The session is protected; nothing was done.
    #[error("the session is protected")]
    Protected,
    /// The client has a session already; nothing was done.
    #[error("the client has a session")]
    SessionExists,
    /// The session does not subscribe to that; nothing was done.
    #[error("no such subscription")]
    NoSuchSubscription,
    /// A quota is used up; nothing was done.
    #[error("{0}")]
    QuotaExceeded(String),
    /// A filter is beyond what is taken; nothing was done.
    #[error("{0}")]
    FilterRefused(String),
    /// There is no such shared group.
    #[error("no such shared group")]
    NoSuchGroup,
    /// The shared group has members.
    #[error("the shared group has {members} members")]
    GroupHasMembers {
        /// How many.
        members: u32,
    },
    /// The shared group's messages are not in the log.
    #[error("no member of the shared group outlives its connection")]
    GroupNotKept,
    /// The message log could not be read.
    #[error("the message log cannot be read")]
    LogUnreadable,
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
