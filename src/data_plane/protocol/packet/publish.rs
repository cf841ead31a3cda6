//! PUBLISH: a message (MQTT 5.0, 3.3).
//!
//! The hot path. Decoding shares the read buffer and allocates nothing; encoding computes the length
//! first and appends once.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

use super::{Context, PacketId, PacketType};
use crate::data_plane::protocol::property::{Property, PublishProperties, read_publish_properties};
use crate::data_plane::protocol::violation::Violation;
use crate::data_plane::protocol::wire::{self, Reader};
use crate::model::{Message, ProtocolVersion, QoS, Timestamp, TopicName};

/// PUBLISH as received (MQTT 5.0, 3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Whether this may be a re-delivery; never with QoS 0 (`[MQTT-3.3.1-2]`).
    pub dup: bool,
    /// The quality of service.
    pub qos: QoS,
    /// Retain it, or: this was retained.
    pub retain: bool,
    /// `None` when the topic field is empty and an alias stands for it (v5).
    pub topic: Option<TopicName>,
    /// Present exactly with QoS 1 and 2 (`[MQTT-2.2.1-2]`).
    pub packet_id: Option<PacketId>,
    /// v5 properties.
    pub properties: PublishProperties,
    /// What is said; may be empty.
    pub payload: Bytes,
}

/// What differs from subscriber to subscriber when one message is sent to many; the rest (topic,
/// forwarded properties, payload) comes from the [`Message`](crate::model::Message).
#[derive(Clone, Copy, Debug)]
pub struct PublishHead<'a> {
    /// Whether this may be a re-delivery.
    pub dup: bool,
    /// The quality of service of this delivery.
    pub qos: QoS,
    /// The retain flag as this subscriber sees it.
    pub retain: bool,
    /// Present exactly with QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// v5: identifiers of all subscriptions that matched; more than one with overlapping ones.
    pub subscription_ids: &'a [NonZeroU32],
    /// v5: a topic alias to set, or (with `omit_topic`) to use.
    pub topic_alias: Option<NonZeroU16>,
    /// v5: send an empty topic; the alias stands for it.
    pub omit_topic: bool,
    /// The time at which the remaining message expiry is computed (`[MQTT-3.3.2-6]`).
    pub now: Timestamp,
}

const FLAG_RETAIN: u8 = 0b0001;
const QOS_SHIFT: u8 = 1;
const FLAG_DUP: u8 = 0b1000;

impl Publish {
    pub(super) fn decode(flags: u8, reader: &mut Reader<'_>, context: Context) -> Result<Self, Violation> {
        let qos = QoS::try_from(flags >> QOS_SHIFT & 3).map_err(|_| Violation::PublishQoSReserved)?;
        let dup = flags & FLAG_DUP != 0;
        if dup && qos == QoS::AtMostOnce {
            return Err(Violation::DupOnQoS0);
        }
        let topic = reader.string()?;
        let packet_id = if qos == QoS::AtMostOnce { None } else { Some(reader.packet_id()?) };
        let (properties, payload_is_utf8) = if context.version.is_v5() {
            let read = read_publish_properties(reader, PacketType::Publish)?;
            (read.properties, read.payload_is_utf8)
        } else {
            (PublishProperties::default(), false)
        };
        if context.is_from_client() && !properties.subscription_ids.is_empty() {
            return Err(Violation::SubscriptionIdFromClient);
        }
        let topic = if topic.is_empty() && context.version.is_v5() {
            properties.topic_alias.ok_or(Violation::TopicMissing)?;
            None
        } else {
            Some(TopicName::new(topic).map_err(Violation::TopicNameInvalid)?)
        };
        let payload = reader.rest();
        if payload_is_utf8 && std::str::from_utf8(&payload).is_err() {
            return Err(Violation::PayloadFormatInvalid);
        }
        Ok(Self { dup, qos, retain: flags & FLAG_RETAIN != 0, topic, packet_id, properties, payload })
    }

    /// Appends the whole packet, fixed header included.
    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        Parts {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: self.topic.as_ref().map_or("", TopicName::as_str),
            packet_id: self.packet_id,
            message_expiry_secs: self.properties.message_expiry_secs,
            topic_alias: self.properties.topic_alias,
            subscription_ids: &self.properties.subscription_ids,
            forwarded: &self.properties.forwarded.0,
            payload_bytes: self.payload.len(),
        }
        .put(version, out);
        out.extend_from_slice(&self.payload);
    }
}

/// Appends the PUBLISH that delivers `message` as `head` says, payload included.
pub fn encode_publish(
    head: &PublishHead<'_>,
    message: &Message,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) {
    encode_publish_head(head, message, version, out);
    out.extend_from_slice(&message.payload);
}

/// The same without the payload's bytes, which are to follow: for a large one that is sent from the
/// message's own memory.
pub fn encode_publish_head(
    head: &PublishHead<'_>,
    message: &Message,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) {
    Parts::of(head, message, version).put(version, out);
}

/// How many bytes the whole packet takes: to compare with the client's Maximum Packet Size before it is
/// sent (`[MQTT-3.1.2-24]`).
pub fn publish_len(head: &PublishHead<'_>, message: &Message, version: ProtocolVersion) -> usize {
    let remaining = Parts::of(head, message, version).remaining(version);
    1 + wire::varint_len(remaining) + remaining
}

/// What a PUBLISH is written from, wherever it comes from.
struct Parts<'a> {
    dup: bool,
    qos: QoS,
    retain: bool,
    topic: &'a str,
    packet_id: Option<PacketId>,
    message_expiry_secs: Option<u32>,
    topic_alias: Option<NonZeroU16>,
    subscription_ids: &'a [NonZeroU32],
    forwarded: &'a [u8],
    payload_bytes: usize,
}

impl<'a> Parts<'a> {
    fn of(head: &PublishHead<'a>, message: &'a Message, version: ProtocolVersion) -> Self {
        let omit_topic = head.omit_topic && head.topic_alias.is_some() && version.is_v5();
        Self {
            dup: head.dup,
            qos: head.qos,
            retain: head.retain,
            topic: if omit_topic { "" } else { message.topic.as_str() },
            packet_id: head.packet_id,
            // [MQTT-3.3.2-6]
            message_expiry_secs: message.expires_at.map(|at| at.secs_after(head.now)),
            topic_alias: head.topic_alias,
            subscription_ids: head.subscription_ids,
            forwarded: &message.properties.0,
            payload_bytes: message.payload.len(),
        }
    }

    fn properties_len(&self) -> usize {
        let ids =
            self.subscription_ids.iter().map(|id| 1 + wire::varint_len(id.get() as usize)).sum::<usize>();
        let expiry = if self.message_expiry_secs.is_some() { 5 } else { 0 };
        let alias = if self.topic_alias.is_some() { 3 } else { 0 };
        ids + expiry + alias + self.forwarded.len()
    }

    /// The remaining length: everything after the fixed header.
    fn remaining(&self, version: ProtocolVersion) -> usize {
        let packet_id = if self.packet_id.is_some() { 2 } else { 0 };
        let properties = if version.is_v5() {
            let len = self.properties_len();
            wire::varint_len(len) + len
        } else {
            0
        };
        2 + self.topic.len() + packet_id + properties + self.payload_bytes
    }

    /// Appends everything but the payload.
    fn put(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        debug_assert_eq!(self.qos == QoS::AtMostOnce, self.packet_id.is_none(), "[MQTT-2.2.1-2]");
        let remaining = self.remaining(version);
        out.reserve(1 + wire::varint_len(remaining) + remaining);
        out.push(first_byte(self.dup, self.qos, self.retain));
        wire::put_varint(remaining, out);
        wire::put_string(self.topic, out);
        if let Some(id) = self.packet_id {
            wire::put_u16(id.get(), out);
        }
        if version.is_v5() {
            self.put_properties(out);
        }
    }

    fn put_properties(&self, out: &mut Vec<u8>) {
        wire::put_varint(self.properties_len(), out);
        if let Some(secs) = self.message_expiry_secs {
            out.push(Property::MessageExpiryInterval as u8);
            wire::put_u32(secs, out);
        }
        if let Some(alias) = self.topic_alias {
            out.push(Property::TopicAlias as u8);
            wire::put_u16(alias.get(), out);
        }
        for id in self.subscription_ids {
            out.push(Property::SubscriptionIdentifier as u8);
            wire::put_varint(id.get() as usize, out);
        }
        out.extend_from_slice(self.forwarded);
    }
}

/// The first byte of a PUBLISH: its type and flags.
pub(in crate::data_plane::protocol) fn first_byte(dup: bool, qos: QoS, retain: bool) -> u8 {
    (PacketType::Publish as u8) << 4
        | if dup { FLAG_DUP } else { 0 }
        | u8::from(qos) << QOS_SHIFT
        | if retain { FLAG_RETAIN } else { 0 }
}
