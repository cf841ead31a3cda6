//! PUBLISH: a message (MQTT 5.0, 3.3).
//!
//! The hot path. Decoding shares the read buffer and allocates nothing; encoding computes the length
//! first and appends once.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{Buf, Bytes};

use super::{Context, PacketId, PacketType};
use crate::data_plane::protocol::property::{Property, PublishProperties, read_publish_properties};
use crate::data_plane::protocol::violation::Violation;
use crate::data_plane::protocol::wire::{self, Reader};
use crate::model::{Message, ProtocolVersion, QoS, Timestamp, TopicError, TopicName};

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
    /// Decodes the content of `frame` after the fixed header. What the frame ends with becomes the payload.
    pub(super) fn decode(
        flags: u8,
        mut frame: Bytes,
        header_bytes: usize,
        context: Context,
    ) -> Result<Self, Violation> {
        let qos = QoS::try_from(flags >> QOS_SHIFT & 3).map_err(|_| Violation::PublishQoSReserved)?;
        let dup = flags & FLAG_DUP != 0;
        if dup && qos == QoS::AtMostOnce {
            return Err(Violation::DupOnQoS0);
        }
        let mut reader = Reader::new(&frame, header_bytes);
        let topic = reader.utf8()?;
        let packet_id = if qos == QoS::AtMostOnce { None } else { Some(reader.packet_id()?) };
        let (properties, payload_is_utf8) = if context.version.is_v5() {
            let read = read_publish_properties(&mut reader, PacketType::Publish)?;
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
            Some(TopicName::new(topic).map_err(|error| match error {
                TopicError::Nul => Violation::NulInString,
                error => Violation::TopicNameInvalid(error),
            })?)
        };
        let payload_at = reader.position();
        frame.advance(payload_at);
        if payload_is_utf8 && std::str::from_utf8(&frame).is_err() {
            return Err(Violation::PayloadFormatInvalid);
        }
        let retain = flags & FLAG_RETAIN != 0;
        Ok(Self { dup, qos, retain, topic, packet_id, properties, payload: frame })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_plane::protocol::Packet;
    use crate::data_plane::protocol::testing::{V3_1, V3_1_1, V5, from_client, from_server, to_bytes};
    use crate::model::PropertyBytes;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn publish(version: ProtocolVersion, bytes: &[u8]) -> Publish {
        match from_client(version, bytes) {
            Ok(Packet::Publish(publish)) => publish,
            other => panic!("{other:?}"),
        }
    }

    /// MQTT 5.0, figure 3-9; MQTT 3.1.1, figure 3.11.
    #[test]
    fn reads_the_standards_example() {
        let v5 = b"\x32\x0a\x00\x03a/b\x00\x0a\x00hi";
        let v3 = b"\x32\x09\x00\x03a/b\x00\x0ahi";
        for (version, bytes) in [(V5, &v5[..]), (V3_1_1, v3), (V3_1, v3)] {
            let publish = publish(version, bytes);
            assert_eq!(publish.topic.as_ref().map(TopicName::as_str), Some("a/b"));
            assert_eq!(publish.packet_id, PacketId::new(10));
            assert_eq!((publish.qos, publish.dup, publish.retain), (QoS::AtLeastOnce, false, false));
            assert_eq!(&publish.payload[..], b"hi");
            assert_eq!(to_bytes(&Packet::Publish(publish), version), bytes);
        }
    }

    #[test]
    fn shares_the_read_buffer() {
        let mut buffer = bytes::BytesMut::from(&b"\x31\x10\x00\x03a/b\x07\x26\x00\x01k\x00\x01vabc"[..]);
        let memory = buffer.as_ptr() as usize..buffer.as_ptr() as usize + buffer.len();
        let mut decoder = crate::data_plane::protocol::testing::server(V5);
        let Ok(Some(Packet::Publish(publish))) = decoder.decode(&mut buffer) else { panic!("a PUBLISH") };
        let topic = publish.topic.expect("a topic");
        for part in
            [topic.as_str().as_ptr(), publish.payload.as_ptr(), publish.properties.forwarded.0.as_ptr()]
        {
            assert!(memory.contains(&(part as usize)));
        }
    }

    #[test]
    fn keeps_what_is_forwarded_in_order_and_leaves_out_the_rest() {
        // content type, expiry, user property, alias, correlation data, response topic
        let publish = publish(
            V5,
            b"\x30\x20\x00\x01t\x1c\x03\x00\x01c\x02\x00\x00\x00\x3c\x26\x00\x01k\x00\x01v\x23\x00\x05\
              \x09\x00\x01\x00\x08\x00\x02r/",
        );
        assert_eq!(publish.properties.message_expiry_secs, Some(60));
        assert_eq!(publish.properties.topic_alias, NonZeroU16::new(5));
        let kept = b"\x03\x00\x01c\x26\x00\x01k\x00\x01v\x09\x00\x01\x00\x08\x00\x02r/";
        assert_eq!(&publish.properties.forwarded.0[..], kept);
        assert!(publish.payload.is_empty());
    }

    #[test]
    fn an_alias_may_stand_for_the_topic() {
        let bytes = b"\x30\x06\x00\x00\x03\x23\x00\x01";
        let publish = publish(V5, bytes);
        assert_eq!((&publish.topic, publish.properties.topic_alias), (&None, NonZeroU16::new(1)));
        assert_eq!(to_bytes(&Packet::Publish(publish), V5), bytes);
    }

    #[test]
    fn a_server_tells_all_subscription_identifiers() {
        let bytes = b"\x30\x0a\x00\x01t\x05\x0b\x80\x01\x0b\x02x";
        let Ok(Packet::Publish(publish)) = from_server(V5, bytes) else { panic!("a PUBLISH") };
        let ids: Vec<u32> = publish.properties.subscription_ids.iter().map(|id| id.get()).collect();
        assert_eq!(ids, [128, 2]);
        assert_eq!(to_bytes(&Packet::Publish(publish), V5), bytes);
    }

    fn message() -> Message {
        Message {
            topic: TopicName::new("a/b").expect("a topic"),
            payload: Bytes::from_static(b"hi"),
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: PropertyBytes(Bytes::from_static(b"\x01\x01")),
            expires_at: Some(NOW.plus_secs(61)),
            published_at: NOW,
            publisher: None,
        }
    }

    fn head(subscription_ids: &[NonZeroU32]) -> PublishHead<'_> {
        PublishHead {
            dup: true,
            qos: QoS::ExactlyOnce,
            retain: false,
            packet_id: PacketId::new(258),
            subscription_ids,
            topic_alias: NonZeroU16::new(3),
            omit_topic: false,
            now: NOW.plus_secs(1),
        }
    }

    #[test]
    fn a_delivery_has_what_is_the_subscribers_own() {
        let ids = [NonZeroU32::new(200).expect("not 0"), NonZeroU32::MIN];
        let (message, mut head) = (message(), head(&ids));
        let mut out = Vec::new();
        encode_publish(&head, &message, V5, &mut out);
        let v5 =
            b"\x3c\x19\x00\x03a/b\x01\x02\x0f\x02\x00\x00\x00\x3c\x23\x00\x03\x0b\xc8\x01\x0b\x01\x01\x01hi";
        assert_eq!(out, v5);
        assert_eq!(publish_len(&head, &message, V5), v5.len());
        out.clear();
        head.omit_topic = true;
        encode_publish(&head, &message, V5, &mut out);
        assert_eq!(out[..6], *b"\x3c\x16\x00\x00\x01\x02");
        out.clear();
        encode_publish(&head, &message, V3_1_1, &mut out);
        assert_eq!(out, b"\x3c\x09\x00\x03a/b\x01\x02hi", "v3 knows no alias: the topic stays");
        assert_eq!(publish_len(&head, &message, V3_1_1), out.len());
    }

    #[test]
    fn the_payload_may_follow_from_elsewhere() {
        let mut message = message();
        message.payload = Bytes::from(vec![7; 20_000]);
        for version in [V3_1_1, V5] {
            let (mut whole, mut parts) = (Vec::new(), Vec::new());
            encode_publish(&head(&[]), &message, version, &mut whole);
            encode_publish_head(&head(&[]), &message, version, &mut parts);
            assert_eq!(parts.len() + 20_000, publish_len(&head(&[]), &message, version));
            parts.extend_from_slice(&message.payload);
            assert_eq!(whole, parts);
        }
    }
}
