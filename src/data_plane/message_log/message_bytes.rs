//! A message as bytes on disk.
//!
//! # Format
//! Little-endian: flags (QoS in bits 0 and 1, retain 2, expires 3, publisher 4), `published_at` (i64,
//! milliseconds), `expires_at` (i64, if flagged), publisher (8 bytes, if flagged), then topic (u16
//! length), properties (u32 length), payload (u32 length).

use bytes::{Buf, BufMut, Bytes};
use bytestring::ByteString;

use crate::model::{ClientKey, Message, PropertyBytes, QoS, Timestamp, TopicName};

const RETAIN: u8 = 0b0000_0100;
const EXPIRES: u8 = 0b0000_1000;
const PUBLISHER: u8 = 0b0001_0000;

/// Appends a message to `out`.
pub fn put_message(out: &mut Vec<u8>, message: &Message) {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    out.put_u8(
        u8::from(message.qos)
            | flag(message.retain, RETAIN)
            | flag(message.expires_at.is_some(), EXPIRES)
            | flag(message.publisher.is_some(), PUBLISHER),
    );
    out.put_i64_le(message.published_at.as_millis());
    if let Some(at) = message.expires_at {
        out.put_i64_le(at.as_millis());
    }
    if let Some(publisher) = message.publisher {
        out.put_u64_le(publisher.0);
    }
    let topic = message.topic.as_str().as_bytes();
    out.put_u16_le(u16::try_from(topic.len()).unwrap_or(u16::MAX));
    out.put_slice(topic);
    for part in [&message.properties.0, &message.payload] {
        out.put_u32_le(u32::try_from(part.len()).unwrap_or(u32::MAX));
        out.put_slice(part);
    }
}

/// Takes a message off `bytes`, which it goes on to share; `None` when they are none.
pub fn get_message(bytes: &mut Bytes) -> Option<Message> {
    let flags = bytes.try_get_u8().ok()?;
    let qos = QoS::try_from(flags & 0b11).ok()?;
    let published_at = Timestamp::from_millis(bytes.try_get_i64_le().ok()?);
    let mut expires_at = None;
    if flags & EXPIRES != 0 {
        expires_at = Some(Timestamp::from_millis(bytes.try_get_i64_le().ok()?));
    }
    let mut publisher = None;
    if flags & PUBLISHER != 0 {
        publisher = Some(ClientKey(bytes.try_get_u64_le().ok()?));
    }
    let topic_len = usize::from(bytes.try_get_u16_le().ok()?);
    let topic = TopicName::new(ByteString::try_from(split(bytes, topic_len)?).ok()?).ok()?;
    let properties_len = usize::try_from(bytes.try_get_u32_le().ok()?).ok()?;
    let properties = PropertyBytes(split(bytes, properties_len)?);
    let payload_len = usize::try_from(bytes.try_get_u32_le().ok()?).ok()?;
    let payload = split(bytes, payload_len)?;
    let retain = flags & RETAIN != 0;
    Some(Message { topic, payload, qos, retain, properties, expires_at, published_at, publisher })
}

fn split(bytes: &mut Bytes, len: usize) -> Option<Bytes> {
    (len <= bytes.remaining()).then(|| bytes.split_to(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            topic: TopicName::new("a/ü").expect("a topic"),
            payload: Bytes::from_static(b"payload"),
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: PropertyBytes(Bytes::from_static(&[1, 1])),
            expires_at: Some(Timestamp::from_millis(5)),
            published_at: Timestamp::from_millis(4),
            publisher: Some(ClientKey(7)),
        }
    }

    fn fields(message: &Message) -> impl PartialEq + std::fmt::Debug + use<> {
        let Message { topic, payload, qos, retain, properties, expires_at, published_at, publisher } =
            message.clone();
        ((topic, payload, qos, retain), (properties, expires_at, published_at, publisher))
    }

    #[test]
    fn a_message_comes_back_whole() {
        for message in [
            message(),
            Message { expires_at: None, publisher: None, retain: false, payload: Bytes::new(), ..message() },
        ] {
            let mut bytes = Vec::new();
            put_message(&mut bytes, &message);
            bytes.push(9);
            let mut bytes = Bytes::from(bytes);
            assert_eq!(fields(&get_message(&mut bytes).expect("a message")), fields(&message));
            assert_eq!(bytes, &[9][..], "nothing more is taken");
        }
    }

    #[test]
    fn half_a_message_is_none() {
        let mut bytes = Vec::new();
        put_message(&mut bytes, &message());
        for len in 0..bytes.len() {
            assert!(get_message(&mut Bytes::copy_from_slice(&bytes[..len])).is_none(), "{len}");
        }
    }
}
