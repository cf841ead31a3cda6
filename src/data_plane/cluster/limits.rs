//! Limits of single packets and of what is retained (PRODUCT ).

use std::sync::Arc;

use super::events::is_servers_own;
use super::{Cluster, facts, topic_within_limits};
use crate::data_plane::message_log::Change;
use crate::data_plane::protocol::{
    Connect, Packet, ReasonCode, UserProperties, forwarded_user_property_bytes, user_property_bytes,
};
use crate::model::{Message, Now, PropertyBytes};

/// How many bytes of user properties a packet may have, a will's counted for themselves (PRODUCT Q-9).
pub const USER_PROPERTY_BYTES_MAX: usize = 8 * 1_024;

/// Why a PUBLISH is not taken.
#[derive(Debug)]
pub(super) struct NotTaken {
    pub(super) reason: ReasonCode,
    /// The stable word of the record, should the connection end.
    pub(super) word: &'static str,
    pub(super) why: String,
    /// What a client is told that has no way to hear `reason`: nothing, and the message goes no further;
    /// else its connection ends.
    pub(super) silently: bool,
}

impl Cluster {
    /// Why a message could be passed on and not be retained.
    pub(super) fn may_retain(&self, message: &Message) -> Result<(), String> {
        if !message.retain {
            return Ok(());
        }
        let room = self.retained.room_for(message, &self.rules.quota);
        room.map_err(|full| format!("quota {}: limit {}, in use {}", full.limit, full.allowed, full.in_use))
    }

    /// Retains a message that asks for it, if there is room. If not its topic has none any longer: what came
    /// before is not the last one. Gives what is to be written down.
    pub(super) fn retain(&mut self, message: &Arc<Message>) -> Option<Change> {
        if !message.retain {
            return None;
        }
        if self.may_retain(message).is_ok() {
            let age = self.retained.put(message);
            return Some(facts::retained(message, age));
        }
        let topic = message.topic.as_str();
        self.retained.remove(topic).then(|| facts::not_retained(topic))
    }

    /// Retained messages that have expired are no more (PRODUCT S-13).
    pub(super) fn forget_expired_retained(&mut self, now: Now) {
        while let Some(topic) = self.retained.remove_expired(now.wall) {
            self.journal.change(vec![facts::not_retained(&topic)]);
        }
    }
}

/// Whether a message of a client's may be taken at all.
pub(super) fn may_take(message: &Message) -> Result<(), NotTaken> {
    let topic = message.topic.as_str();
    if let Err(why) = topic_within_limits(topic, message.topic.levels()) {
        let reason = ReasonCode::TopicNameInvalid;
        return Err(NotTaken { reason, word: "topic_invalid", why, silently: false });
    }
    if let Err(why) = forwarded_within_limits(&message.properties) {
        let reason = ReasonCode::QuotaExceeded;
        return Err(NotTaken { reason, word: "user_properties_too_large", why, silently: false });
    }
    if is_servers_own(topic) {
        // [MQTT-3.3.5-2] of 3.1.1: a positive acknowledgement, or the end; and 4.7.2.
        let why = "only the server publishes to $SYS and $events".to_owned();
        let reason = ReasonCode::NotAuthorized;
        return Err(NotTaken { reason, word: "not_authorized", why, silently: true });
    }
    Ok(())
}

/// The user properties of a CONNECT and of its will.
pub(super) fn connect_within_limits(connect: &Connect) -> Result<(), String> {
    user_properties_within_limits(&connect.user_properties)?;
    connect.will.as_ref().map_or(Ok(()), |will| forwarded_within_limits(&will.properties.forwarded))
}

/// The user properties of any other packet but PUBLISH.
pub(super) fn packet_within_limits(packet: &Packet) -> Result<(), String> {
    let user_properties = match packet {
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            &ack.user_properties
        }
        Packet::Subscribe(subscribe) => &subscribe.user_properties,
        Packet::Unsubscribe(unsubscribe) => &unsubscribe.user_properties,
        Packet::Auth(auth) => &auth.user_properties,
        _ => return Ok(()),
    };
    user_properties_within_limits(user_properties)
}

fn user_properties_within_limits(user_properties: &UserProperties) -> Result<(), String> {
    if user_properties.is_empty() {
        return Ok(());
    }
    within_limits(user_property_bytes(user_properties))
}

fn forwarded_within_limits(properties: &PropertyBytes) -> Result<(), String> {
    // Looked at closely only where they could be too many.
    if properties.0.len() <= USER_PROPERTY_BYTES_MAX {
        return Ok(());
    }
    within_limits(forwarded_user_property_bytes(properties))
}

fn within_limits(bytes: usize) -> Result<(), String> {
    if bytes <= USER_PROPERTY_BYTES_MAX {
        return Ok(());
    }
    Err(format!("limit user_property_bytes: at most {USER_PROPERTY_BYTES_MAX}, this packet has {bytes}"))
}
