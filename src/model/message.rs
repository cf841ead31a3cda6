//! An application message on its way from a publisher to its subscribers.

use bytes::Bytes;

use super::{ClientKey, QoS, Timestamp, TopicName};

/// The MQTT 5 properties of a PUBLISH that a server must forward unaltered (`[MQTT-3.3.2-4]`,
/// `[MQTT-3.3.2-15]`, `[MQTT-3.3.2-16]`, `[MQTT-3.3.2-17]`, `[MQTT-3.3.2-18]`, `[MQTT-3.3.2-20]`),
/// in their wire form, already validated by the codec: payload format indicator, response topic,
/// correlation data, user properties, content type. Empty for messages from v3 clients, unless
/// the cluster's rules add some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyBytes(pub Bytes);

/// Payloads from this size up are most of the buffer they lie in, and stay there.
const DETACH_BELOW_BYTES: usize = 16 * 1_024;

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
    /// The client that published it; `None` when the server itself did. No-local compares it, and a shared
    /// group may choose by it.
    pub publisher: Option<ClientKey>,
}

impl Message {
    /// Moves the message to one piece of memory of its own, when what it borrows is much larger than
    /// itself: a 100-byte message must not keep a 64 KiB read buffer alive while it waits.
    pub fn detach(&mut self) {
        if self.payload.len() >= DETACH_BELOW_BYTES {
            self.topic = self.topic.detach();
            return;
        }
        let topic_len = self.topic.as_str().len();
        let properties_end = topic_len + self.properties.0.len();
        let mut own = Vec::with_capacity(self.size_bytes());
        own.extend_from_slice(self.topic.as_str().as_bytes());
        own.extend_from_slice(&self.properties.0);
        own.extend_from_slice(&self.payload);
        let own = Bytes::from(own);
        self.topic = self.topic.moved_to(own.slice(..topic_len));
        self.properties = PropertyBytes(own.slice(topic_len..properties_end));
        self.payload = own.slice(properties_end..);
    }

    /// Stands for a message that its receiver has and that is needed no longer: nothing is left of it.
    pub fn spent() -> Self {
        Self {
            topic: TopicName::spent(),
            payload: Bytes::new(),
            qos: QoS::ExactlyOnce,
            retain: false,
            properties: PropertyBytes::default(),
            expires_at: None,
            published_at: Timestamp::EPOCH,
            publisher: None,
        }
    }

    /// Whether the message may no longer be delivered (`[MQTT-3.3.2-5]`).
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// The bytes that the message itself occupies: topic, payload and properties.
    pub fn size_bytes(&self) -> usize {
        self.topic.as_str().len() + self.payload.len() + self.properties.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detaching_changes_nothing_but_the_memory() {
        let buffer = Bytes::from(vec![b'x'; 1_000]);
        let message = Message {
            topic: TopicName::new("a/b").expect("a topic"),
            payload: buffer.slice(10..20),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: PropertyBytes(buffer.slice(0..4)),
            expires_at: None,
            published_at: Timestamp::EPOCH,
            publisher: None,
        };
        let mut own = message.clone();
        own.detach();
        assert_eq!(own.topic, message.topic);
        assert_eq!(own.payload, message.payload);
        assert_eq!(own.properties, message.properties);
        assert!(!buffer.as_ptr_range().contains(&own.payload.as_ptr()));
    }
}
