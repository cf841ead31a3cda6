//! One message to many subscribers: its PUBLISH is encoded once and copied.
//!
//! Subscribers of one message differ in the first byte (DUP, QoS, RETAIN) and the packet identifier; the
//! rest is the same for all of a version unless they have subscription identifiers or topic aliases. A
//! further subscriber then costs one copy of the packet and three bytes written over.

use super::packet::{PublishHead, encode_publish, first_byte};
use crate::model::{Message, ProtocolVersion};

/// The PUBLISH of one message, to be written many times. Made for one point in time: the remaining
/// message expiry is in it.
#[derive(Clone, Debug)]
pub struct PublishTemplate {
    bytes: Vec<u8>,
    /// Where the two bytes of the packet identifier lie.
    packet_id_at: Option<usize>,
}

impl PublishTemplate {
    /// Encodes `message` as `head` says; `None` when `head` holds what is the subscriber's own:
    /// subscription identifiers or a topic alias.
    pub fn new(head: &PublishHead<'_>, message: &Message, version: ProtocolVersion) -> Option<Self> {
        if is_own(head) {
            return None;
        }
        let mut bytes = Vec::new();
        encode_publish(head, message, version, &mut bytes);
        // The identifier follows the fixed header and the topic.
        let length_bytes = 1 + bytes[1..].iter().take_while(|byte| **byte & 0x80 != 0).count();
        let topic_end = 1 + length_bytes + 2 + message.topic.as_str().len();
        Some(Self { bytes, packet_id_at: head.packet_id.map(|_| topic_end) })
    }

    /// Appends the packet with the flags and packet identifier of `head`, which has one exactly when the
    /// head had that this was made from.
    pub fn append(&self, head: &PublishHead<'_>, out: &mut Vec<u8>) {
        debug_assert!(self.packet_id_at.is_some() == head.packet_id.is_some() && !is_own(head));
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        out[start] = first_byte(head.dup, head.qos, head.retain);
        if let (Some(at), Some(id)) = (self.packet_id_at, head.packet_id) {
            out[start + at..start + at + 2].copy_from_slice(&id.get().to_be_bytes());
        }
    }

    /// How many bytes the whole packet takes.
    pub fn packet_bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// The templates of one message for the subscribers of one turn, made as they are needed.
#[derive(Clone, Debug, Default)]
pub struct PublishTemplates {
    /// v3 and v5, each without and with a packet identifier.
    templates: [[Option<PublishTemplate>; 2]; 2],
}

impl PublishTemplates {
    /// Does what [`encode_publish`] does, by copying where it can. `message` and `head.now` are to be the
    /// same at each call.
    pub fn encode(
        &mut self,
        head: &PublishHead<'_>,
        message: &Message,
        version: ProtocolVersion,
        out: &mut Vec<u8>,
    ) {
        if is_own(head) {
            return encode_publish(head, message, version, out);
        }
        let slot = &mut self.templates[usize::from(version.is_v5())][usize::from(head.packet_id.is_some())];
        if slot.is_none() {
            *slot = PublishTemplate::new(head, message, version);
        }
        if let Some(template) = slot {
            template.append(head, out);
        }
    }
}

fn is_own(head: &PublishHead<'_>) -> bool {
    !head.subscription_ids.is_empty() || head.topic_alias.is_some()
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU16, NonZeroU32};

    use bytes::Bytes;

    use super::*;
    use crate::model::{PropertyBytes, QoS, Timestamp, TopicName};

    const NOW: Timestamp = Timestamp::from_millis(10_000);

    fn message(payload_bytes: usize) -> Message {
        Message {
            topic: TopicName::new("a/b").expect("a topic"),
            payload: Bytes::from(vec![7; payload_bytes]),
            qos: QoS::ExactlyOnce,
            retain: false,
            properties: PropertyBytes(Bytes::from_static(b"\x03\x00\x01x")),
            expires_at: Some(NOW.plus_secs(60)),
            published_at: NOW,
            publisher: None,
        }
    }

    fn head(qos: QoS, dup: bool, retain: bool, id: u16) -> PublishHead<'static> {
        let packet_id = NonZeroU16::new(id);
        PublishHead {
            dup,
            qos,
            retain,
            packet_id,
            subscription_ids: &[],
            topic_alias: None,
            omit_topic: false,
            now: NOW,
        }
    }

    #[test]
    fn a_copy_is_what_would_have_been_encoded() {
        let ids = [NonZeroU32::MIN];
        for payload_bytes in [0, 100, 200, 20_000] {
            let message = message(payload_bytes);
            let mut templates = PublishTemplates::default();
            let mut own = head(QoS::AtLeastOnce, false, false, 9);
            own.subscription_ids = &ids;
            for version in [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
                for head in [
                    head(QoS::AtMostOnce, false, false, 0),
                    head(QoS::AtMostOnce, false, true, 0),
                    head(QoS::AtLeastOnce, false, false, 1),
                    head(QoS::ExactlyOnce, true, true, 0xFFFE),
                    own,
                ] {
                    let (mut copied, mut encoded) = (vec![1], vec![1]);
                    templates.encode(&head, &message, version, &mut copied);
                    encode_publish(&head, &message, version, &mut encoded);
                    assert_eq!(copied, encoded, "{head:?} {version:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_the_subscribers_own_has_no_template() {
        let mut own = head(QoS::AtMostOnce, false, false, 0);
        own.topic_alias = Some(NonZeroU16::MIN);
        assert!(PublishTemplate::new(&own, &message(1), ProtocolVersion::V5).is_none());
    }
}
