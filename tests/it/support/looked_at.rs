//! What the stand-in for the data plane tells of messages and shared groups: always the same.

use std::num::NonZeroU16;

use bytes::Bytes;
use holdfast::model::{QoS, Seq, SessionId, SharedStrategy, Timestamp, TopicFilter};
use holdfast::seam::command::CommandError;
use holdfast::seam::groups::{GroupDetail, GroupMember, GroupState};
use holdfast::seam::messages::{
    BrowseOf, BrowsePlace, BrowseRequest, Browsed, BrowsedMessage, Exchange, ExchangePhase, ShownMessage,
    ShownProperties, ShownWill,
};

use super::sessions::{T, client_id, session_id};

/// Shared groups that have a member.
pub(crate) const GROUPS: [&str; 3] = ["$share/a/t", "$share/b/t", "$share/kept-by-nobody/t"];

/// Three messages, of which the second is text no more.
pub(crate) fn messages(session: SessionId, request: &BrowseRequest) -> Browsed {
    let payloads: [&[u8]; 3] = [b"on", b"\xff", b"off"];
    let all = payloads.iter().zip(1..).map(|(payload, position)| BrowsedMessage {
        position: Some(Seq(position)),
        qos: QoS::AtLeastOnce,
        retain: false,
        subscription_ids: Vec::new(),
        exchange: (request.of == BrowseOf::InFlight).then_some(Exchange {
            packet_id: NonZeroU16::MIN,
            phase: ExchangePhase::Published,
            share: None,
        }),
        message: Some(message(payload)),
    });
    let after = request.after.last;
    let mut messages: Vec<_> = all.filter(|it| it.position.is_some_and(|seq| seq.0 > after)).collect();
    let more = messages.len() > request.messages_max;
    messages.truncate(request.messages_max);
    let last = messages.last().and_then(|it| it.position).map_or(after, |seq| seq.0);
    Browsed { session_id: session, messages, next: more.then_some(BrowsePlace { queued: 0, last }) }
}

pub(crate) fn will(session: SessionId) -> ShownWill {
    ShownWill {
        session_id: session,
        message: message(b"gone"),
        message_expiry_secs: Some(60),
        delay_secs: 30,
        due_at: Some(T),
    }
}

pub(crate) fn groups(after: &str, limit: usize) -> Vec<GroupState> {
    GROUPS.iter().filter(|share| **share > after).take(limit).map(|share| state(share)).collect()
}

pub(crate) fn group(share: &TopicFilter) -> Result<GroupDetail, CommandError> {
    match share.as_str() {
        "$share/kept-by-nobody/t" => Err(CommandError::GroupNotKept),
        share if GROUPS.contains(&share) => {
            let member = GroupMember {
                client_id: client_id("meter"),
                session_id: session_id(1),
                is_online: true,
                qos: QoS::AtLeastOnce,
                unacknowledged: 2,
            };
            Ok(GroupDetail { group: state(share), members: vec![member] })
        }
        _ => Err(CommandError::NoSuchGroup),
    }
}

pub(crate) fn end(share: &TopicFilter, force: bool) -> Result<u32, CommandError> {
    let detail = group(share)?;
    if force { Ok(detail.group.members) } else { Err(CommandError::GroupHasMembers { members: 1 }) }
}

fn state(share: &str) -> GroupState {
    GroupState {
        share: TopicFilter::new(share).expect("a filter"),
        strategy: SharedStrategy::Random,
        position: Some(Seq(7)),
        lag: 3,
        is_complete: true,
        unacknowledged: 2,
        members: 1,
        members_online: 1,
    }
}

fn message(payload: &'static [u8]) -> ShownMessage {
    ShownMessage {
        topic: "t".to_owned(),
        payload: Bytes::from_static(payload),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: ShownProperties::default(),
        published_at: Timestamp::from_millis(T.as_millis()),
        expires_at: Some(T.plus_secs(60)),
        publisher: Some(client_id("backend")),
    }
}
