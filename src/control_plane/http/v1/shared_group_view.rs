//! A shared group as the API shows it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::{ClientId, Cluster, QoS, SessionId, SessionState, SharedStrategy, TopicFilter};
use crate::seam::groups::{GroupDetail, GroupMember, GroupState};
use crate::store::GroupSetting;

/// A shared group: sessions that share what is published to one filter.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SharedGroup, example = json!({
    "group": "$share/readers/meters/+/power", "share_name": "readers", "filter": "meters/+/power",
    "strategy": "hash_topic", "strategy_source": "group", "members": 2, "members_online": 1,
    "position": 48_211, "lag": 12, "lag_complete": true, "unacknowledged": 1
}))]
pub(super) struct GroupView {
    /// The whole filter, by which the group is addressed: percent-encoded in a path.
    group: String,
    /// The share name.
    share_name: String,
    /// The topic filter that the group subscribes to.
    filter: String,
    /// How it chooses who gets a message.
    strategy: SharedStrategy,
    /// Who decided that.
    strategy_source: StrategySource,
    /// How many sessions are members. The group ends, and its progress with it, when the last one goes; 0 of a group of
    /// which only the settings are kept.
    #[schema(minimum = 0)]
    members: u32,
    /// How many of them have a connection: only those get messages.
    #[schema(minimum = 0)]
    members_online: u32,
    /// Everything in the cluster's message log up to here was handed out. Null without members, and when none of them
    /// outlives its connection: then its messages are not in the log.
    #[schema(minimum = 0, required)]
    position: Option<u64>,
    /// How many messages wait for a member.
    #[schema(minimum = 0)]
    lag: u64,
    /// Whether all were counted. Counting stops at 100,000 messages, of all groups of a page together: then there
    /// are at least so many.
    lag_complete: bool,
    /// How many messages members hold and have not acknowledged.
    #[schema(minimum = 0)]
    unacknowledged: u64,
}

/// Who decided how a group chooses: the setting of the `group`, or that of its `cluster`.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StrategySource {
    Group,
    Cluster,
}

/// A shared group with its members.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SharedGroupDetail, example = json!({
    "group": "$share/readers/meters/+/power", "share_name": "readers", "filter": "meters/+/power",
    "strategy": "hash_topic", "strategy_source": "group", "members": 1, "members_online": 1,
    "position": 48_211, "lag": 12, "lag_complete": true, "unacknowledged": 1,
    "member_sessions": [{
        "client_id": "reader-1", "session_id": "019af8a0-5b7e-7c3d-9f1e-2a4b6c8d0e1f", "state": "online",
        "qos": 1, "unacknowledged": 1
    }]
}))]
pub(super) struct GroupDetailView {
    #[serde(flatten)]
    group: GroupView,
    #[serde(flatten)]
    members: MembersView,
}

/// Who shares.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SharedGroupMembers)]
struct MembersView {
    /// Its members, in the order in which they joined: at most the first 1,024.
    #[schema(max_items = 1024)]
    member_sessions: Vec<MemberView>,
}

/// A member of a shared group.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SharedGroupMember, example = json!({
    "client_id": "reader-1", "session_id": "019af8a0-5b7e-7c3d-9f1e-2a4b6c8d0e1f", "state": "online",
    "qos": 1, "unacknowledged": 1
}))]
struct MemberView {
    /// Whose session it is.
    client_id: ClientId,
    /// The session's identity.
    session_id: SessionId,
    /// Whether it has a connection.
    state: SessionState,
    /// The greatest quality of service at which it gets messages.
    qos: QoS,
    /// How many of the group's messages it holds and has not acknowledged.
    #[schema(minimum = 0)]
    unacknowledged: u64,
}

impl GroupView {
    /// What is known of the group with this whole filter.
    pub(super) fn new(
        cluster: &Cluster,
        share: String,
        group: Option<&GroupState>,
        setting: Option<&GroupSetting>,
    ) -> Self {
        let parts = TopicFilter::new(&share).ok();
        let parts = parts.as_ref().and_then(TopicFilter::shared);
        let count = |of: fn(&GroupState) -> u64| group.map_or(0, of);
        Self {
            share_name: parts.map(|parts| parts.group.to_owned()).unwrap_or_default(),
            filter: parts.map(|parts| parts.filter.to_owned()).unwrap_or_default(),
            strategy: setting.map_or(cluster.shared_strategy, |setting| setting.strategy),
            strategy_source: setting.map_or(StrategySource::Cluster, |_| StrategySource::Group),
            members: group.map_or(0, |group| group.members),
            members_online: group.map_or(0, |group| group.members_online),
            position: group.and_then(|group| group.position).map(|position| position.0),
            lag: count(|group| group.lag),
            lag_complete: group.is_none_or(|group| group.is_complete),
            unacknowledged: count(|group| group.unacknowledged),
            group: share,
        }
    }
}

impl GroupDetailView {
    /// What is known of the group, with its members.
    pub(super) fn new(
        cluster: &Cluster,
        share: &TopicFilter,
        group: Option<GroupDetail>,
        setting: Option<&GroupSetting>,
    ) -> Self {
        let (group, members) = group.map(|GroupDetail { group, members }| (group, members)).unzip();
        let members = members.unwrap_or_default().into_iter().map(MemberView::from);
        Self {
            group: GroupView::new(cluster, share.as_str().to_owned(), group.as_ref(), setting),
            members: MembersView { member_sessions: members.collect() },
        }
    }
}

impl From<GroupMember> for MemberView {
    fn from(member: GroupMember) -> Self {
        let GroupMember { client_id, session_id, is_online, qos, unacknowledged } = member;
        let state = if is_online { SessionState::Online } else { SessionState::Offline };
        Self { client_id, session_id, state, qos, unacknowledged }
    }
}
