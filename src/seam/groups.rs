//! Shared groups as they are told, and where one may be moved to (PRODUCT S-4).

use crate::model::{ClientId, QoS, Seq, SessionId, SharedStrategy, Timestamp, TopicFilter};

/// A shared group at one moment. It lives as long as a session is a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// The whole filter: `$share/{name}/…`.
    pub share: TopicFilter,
    /// How it chooses who gets a message.
    pub strategy: SharedStrategy,
    /// Everything in the log up to here was handed out; `None` of a group whose messages are not in the log,
    /// because no member outlives its connection.
    pub position: Option<Seq>,
    /// Messages that wait for a member.
    pub lag: u64,
    /// Whether all that wait were counted; else these are at least so many.
    pub is_complete: bool,
    /// Messages that members hold and have not acknowledged.
    pub unacknowledged: u64,
    /// Its members.
    pub members: u32,
    /// Those with a connection.
    pub members_online: u32,
}

/// A shared group with its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDetail {
    /// The group.
    pub group: GroupState,
    /// Its members in the order in which they joined: the first of them, when there are many.
    pub members: Vec<GroupMember>,
}

/// A member of a shared group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Whose session it is.
    pub client_id: ClientId,
    /// The session.
    pub session_id: SessionId,
    /// Whether it has a connection.
    pub is_online: bool,
    /// The greatest quality of service at which it gets messages.
    pub qos: QoS,
    /// The group's messages that it holds and has not acknowledged.
    pub unacknowledged: u64,
}

/// Where a group is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupPlace {
    /// At the end of the log: what waits is passed over.
    Now,
    /// At the earliest message that the log still has.
    Earliest,
    /// At the first message that was published then or later.
    Time(Timestamp),
}
