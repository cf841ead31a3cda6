//! An application message on its way from a publisher to its subscribers.

use bytes::Bytes;

use super::{QoS, SessionId, Timestamp, TopicName};

/// The MQTT 5 properties of a PUBLISH that a server must forward unaltered (`[MQTT-3.3.2-4]`,
/// `[MQTT-3.3.2-15]`, `[MQTT-3.3.2-16]`, `[MQTT-3.3.2-17]`, `[MQTT-3.3.2-18]`, `[MQTT-3.3.2-20]`),
/// in their wire form, already validated by the codec: payload format indicator, response topic,
/// correlation data, user properties, content type. Empty for messages from v3 clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyBytes(pub Bytes);

/// One application message.
///
/// Shared between its subscribers; owns its memory (no network buffer is kept alive by it).
#[derive(Clone, Debug)]
pub struct Message {
    /// Where it was published to.
    pub topic: TopicName,
    /// What was said. At most the cluster's packet size.
    pub payload: Bytes,
    /// The publisher's quality of service: a subscriber gets at most this.
    pub qos: QoS,
    /// Whether the publisher asked that it be retained.
    pub retain: bool,
    /// Properties to forward unaltered.
    pub properties: PropertyBytes,
    /// When it expires, if it does (`[MQTT-3.3.2-5]`).
    pub expires_at: Option<Timestamp>,
    /// When the server took it.
    pub published_at: Timestamp,
    /// The session that published it; `None` when the server itself did. No-local compares it.
    pub publisher: Option<SessionId>,
}

impl Message {
    /// Whether the message may no longer be delivered (`[MQTT-3.3.2-5]`).
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// The bytes that the message itself occupies: topic, payload and properties.
    pub fn size_bytes(&self) -> usize {
        self.topic.as_str().len() + self.payload.len() + self.properties.0.len()
    }
}
