//! Ports: what the data plane needs kept, as a trait that the store implements.
//!
//! Writes are idempotent upserts and deletes of whole facts, so that a batch that failed half-way,
//! or whose answer was lost, is simply committed again.

use std::future::Future;

use thiserror::Error;

use crate::model::{
    ClientId, ClusterId, DisconnectCause, Epoch, OperatorExpiry, OperatorPart, ProtocolVersion, Refusal,
    SessionEnd, SessionId, Subscription, Timestamp, TopicFilter, Transport,
};

/// The data plane's part of a session's record. The operator's part (expiry order, labels, protection) is
/// the control plane's and touched by a [`SessionWrite`] once, when an operator has a session begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The cluster.
    pub cluster: ClusterId,
    /// The client.
    pub client_id: ClientId,
    /// The session; the row's key.
    pub session_id: SessionId,
    /// The attachment that wrote this. The store keeps the row of the greatest.
    pub epoch: Epoch,
    /// What the client speaks; `None` before its first connection, which follows a session that an operator began.
    pub protocol: Option<ProtocolVersion>,
    /// Whether the client asked for a fresh session at its last CONNECT.
    pub clean_start: bool,
    /// The user name given, if any.
    pub username: Option<String>,
    /// Where the client came from: `address:port`; `None` before its first connection.
    pub peer: Option<String>,
    /// The listener it came in by; `None` before its first connection.
    pub listener: Option<String>,
    /// How its bytes arrive; `None` before its first connection.
    pub transport: Option<Transport>,
    /// The keep-alive in force, in seconds; 0 for none.
    pub keep_alive_secs: u16,
    /// How many QoS 1 and 2 messages may be under way to the client.
    pub receive_maximum: u16,
    /// The largest packet the client takes, in bytes.
    pub packet_bytes_max: Option<u32>,
    /// What the client was granted, in seconds.
    pub expiry_client_secs: u32,
    /// Whether that differs from what it asked for.
    pub expiry_bounded: bool,
    /// Whether a will waits with the session.
    pub has_will: bool,
    /// When the session began.
    pub created_at: Timestamp,
    /// When the last connection began; `None` before its first connection.
    pub connected_at: Option<Timestamp>,
    /// When the last connection ended, or the session began without one; `None` while online.
    pub disconnected_at: Option<Timestamp>,
    /// Why the last connection ended.
    pub disconnect: Option<DisconnectCause>,
}

/// A session as read back at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// The data plane's part.
    pub row: SessionRow,
    /// The operator's order.
    pub operator_expiry: Option<OperatorExpiry>,
    /// Whether the operator has it protected from being deleted over the API.
    pub protected: bool,
    /// What it subscribes to.
    pub subscriptions: Vec<Subscription>,
}

/// One fact to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionWrite {
    /// The session is like this now.
    Put(Box<SessionRow>),
    /// The session is gone, with all that belongs to it, and this is why.
    Remove(SessionId, SessionEnd),
    /// The session came, was last like this, and is gone, all since the last commit: its history tells of it.
    Pass(Box<SessionRow>, SessionEnd),
    /// The session was begun by an operator, with this as his part. What he has written since stays.
    Begin(SessionId, Box<OperatorPart>),
    /// The session subscribes to this, replacing what it had for the same filter.
    Subscribe(SessionId, Box<Subscription>),
    /// The session no longer subscribes to this.
    Unsubscribe(SessionId, TopicFilter),
}

/// Why a batch was not committed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database does not answer; the same batch may be committed later.
    #[error("the session store is away")]
    Away(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database refuses the batch; trying again will not help.
    #[error("the session store refuses the batch")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Keeps session records and subscriptions.
pub trait SessionStore: Send + Sync + 'static {
    /// Commits the batch in one transaction: removals, then sessions, then operators' parts, then subscriptions.
    ///
    /// A batch holds each session and each (session, filter) at most once. A
    /// subscription whose session does not exist is passed over, and so is a session whose cluster
    /// does not exist.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of the batch is then committed.
    fn commit(&self, batch: &[SessionWrite]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The next `limit` sessions with ids above `after`, in order of id, subscriptions included.
    ///
    /// # Errors
    /// [`StoreError::Away`].
    fn load(
        &self,
        after: Option<SessionId>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<StoredSession>, StoreError>> + Send;
}

/// Keeps what was refused.
pub trait RefusalStore: Send + Sync + 'static {
    /// Adds refusals to those that are kept, in one transaction. A batch holds at most one of a cluster,
    /// kind, reason, code, client id, user name and address. Those of a cluster that does not exist are passed
    /// over. Committed twice they count twice: a batch whose fate is unknown may be.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of the batch is then committed, as far as can be known.
    fn record_refusals(
        &self,
        batch: &[(ClusterId, Refusal)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}
