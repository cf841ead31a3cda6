//! What is encoded is decoded to the same, however it is cut; any other bytes are refused or understood,
//! never more than that.

use std::num::NonZeroU32;

use bytes::{Bytes, BytesMut};
use holdfast::data_plane::protocol::{
    Packet, PublishHead, PublishTemplates, encode, encode_publish, encode_publish_head, encode_within,
    publish_len,
};
use holdfast::model::ProtocolVersion::{self, V5};
use holdfast::model::{Message, QoS, Timestamp};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::packets::{self, Side};
use super::{any_bytes, decode_one, decoder_for, decoder_of, to_bytes};

/// A version, a sender and a packet that fits both.
fn sent() -> impl Strategy<Value = (ProtocolVersion, Side, Packet)> {
    (packets::version(), packets::side())
        .prop_flat_map(|(version, side)| (Just(version), Just(side), packets::packet(version, side)))
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn every_packet_comes_back((version, side, packet) in sent()) {
        let bytes = to_bytes(&packet, version);
        prop_assert_eq!(decode_one(decoder_of(&packet, side, version), &bytes), Ok(packet));
    }

    /// `[MQTT-3.2.2-19]`, `[MQTT-3.2.2-20]` and their like: less is said, but the same.
    #[test]
    fn a_packet_is_fitted_or_not_sent((version, side, packet) in sent(), bytes_max in 1..300_u32) {
        let mut bytes = vec![0xAA];
        let whole = to_bytes(&packet, version);
        if encode_within(&packet, version, NonZeroU32::new(bytes_max), &mut bytes) {
            prop_assert!(bytes.len() - 1 <= bytes_max as usize);
            if whole.len() <= bytes_max as usize {
                prop_assert_eq!(&bytes[1..], &whole);
            } else {
                let decoded = decode_one(decoder_of(&packet, side, version), &bytes[1..]).expect("valid");
                prop_assert!(decoded == without(&packet, false) || decoded == without(&packet, true), "{:?}", decoded);
            }
        } else {
            prop_assert_eq!(&bytes, &[0xAA]);
            prop_assert!(whole.len() > bytes_max as usize);
        }
    }

    #[test]
    fn a_delivery_arrives_as_its_head_and_message_say(
        version in packets::version(),
        topic in packets::topic(),
        (properties, is_utf8) in packets::forwarded(),
        payload in vec(any::<u8>(), 0..300),
        qos in packets::qos(),
        id in packets::packet_id(),
        ids in vec(1..=268_435_455_u32, 0..3),
        alias in option::of(any::<std::num::NonZeroU16>()),
        [dup, retain, omit_topic] in any::<[bool; 3]>(),
        expiry in option::of(1..u32::MAX),
    ) {
        let now = Timestamp::from_millis(5_000);
        let payload = if is_utf8 { Bytes::from(String::from_utf8_lossy(&payload).into_owned()) } else { payload.into() };
        let ids: Vec<NonZeroU32> = ids.into_iter().filter_map(NonZeroU32::new).collect();
        let message = Message {
            topic, payload, qos, retain, properties,
            expires_at: expiry.map(|secs| now.plus_secs(secs)),
            published_at: now,
            publisher: None,
        };
        let acknowledged = qos != QoS::AtMostOnce;
        let head = PublishHead {
            dup: dup && acknowledged, qos, retain,
            packet_id: acknowledged.then_some(id),
            subscription_ids: &ids,
            topic_alias: alias,
            omit_topic, now,
        };
        let (mut bytes, mut parts, mut copied) = (Vec::new(), Vec::new(), Vec::new());
        encode_publish(&head, &message, version, &mut bytes);
        encode_publish_head(&head, &message, version, &mut parts);
        parts.extend_from_slice(&message.payload);
        PublishTemplates::default().encode(&head, &message, version, &mut copied);
        prop_assert_eq!(&bytes, &parts);
        prop_assert_eq!(&bytes, &copied);
        prop_assert_eq!(bytes.len(), publish_len(&head, &message, version));
        let Packet::Publish(publish) = decode_one(decoder_for(Side::Server, version), &bytes).expect("valid") else {
            panic!("a PUBLISH")
        };
        prop_assert_eq!((publish.dup, publish.qos, publish.retain), (head.dup, head.qos, head.retain));
        prop_assert_eq!((publish.packet_id, &publish.payload), (head.packet_id, &message.payload));
        let is_v5 = version.is_v5();
        let topic = Some(message.topic).filter(|_| !(is_v5 && omit_topic && alias.is_some()));
        prop_assert_eq!(publish.topic, topic);
        if is_v5 {
            prop_assert_eq!(publish.properties.message_expiry_secs, expiry);
            prop_assert_eq!(publish.properties.topic_alias, alias);
            prop_assert_eq!(publish.properties.subscription_ids.as_slice(), ids.as_slice());
            prop_assert_eq!(publish.properties.forwarded, message.properties);
        }
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..200)) {
        any_bytes::check(&bytes);
    }

    /// Nearly valid bytes get further than any.
    #[test]
    fn damaged_packets_do_no_harm(
        (version, side, packet) in sent(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4),
        seed in any::<u8>(),
    ) {
        let mut bytes = to_bytes(&packet, version);
        for (at, byte, kind) in damage {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ if bytes.len() > 1 => _ = bytes.remove(at),
                _ => {}
            }
        }
        let role = match (&packet, side) {
            (Packet::Connect(_), _) => 0,
            (_, Side::Client) => 1 + version as u8,
            (_, Side::Server) => 4 + version as u8,
        };
        any_bytes::check(&[&[role, seed], &bytes[..]].concat());
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn every_packet_comes_back_from_every_split((version, side, packet) in sent()) {
        let bytes = to_bytes(&packet, version);
        for split in 0..bytes.len() {
            let mut decoder = decoder_of(&packet, side, version);
            let mut buffer = BytesMut::from(&bytes[..split]);
            prop_assert_eq!(decoder.decode(&mut buffer), Ok(None), "the first {} bytes", split);
            buffer.extend_from_slice(&bytes[split..]);
            prop_assert_eq!(decoder.decode(&mut buffer), Ok(Some(packet.clone())));
            prop_assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_stream_comes_back_byte_by_byte(packets in vec(packets::packet(V5, Side::Server), 1..6)) {
        let mut bytes = Vec::new();
        for packet in &packets {
            encode(packet, V5, &mut bytes);
        }
        let (mut decoder, mut buffer, mut decoded) = (decoder_for(Side::Server, V5), BytesMut::new(), Vec::new());
        for byte in bytes {
            buffer.extend_from_slice(&[byte]);
            decoded.extend(decoder.decode(&mut buffer).expect("valid"));
        }
        prop_assert_eq!(decoded, packets);
    }
}

/// The packet without its reason string and, when `user` says so, without its user properties.
fn without(packet: &Packet, user: bool) -> Packet {
    let mut packet = packet.clone();
    let (reason_string, user_properties) = match &mut packet {
        Packet::ConnAck(packet) => (&mut packet.reason_string, &mut packet.user_properties),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            (&mut ack.reason_string, &mut ack.user_properties)
        }
        Packet::SubAck(packet) => (&mut packet.reason_string, &mut packet.user_properties),
        Packet::UnsubAck(packet) => (&mut packet.reason_string, &mut packet.user_properties),
        Packet::Disconnect(packet) => (&mut packet.reason_string, &mut packet.user_properties),
        Packet::Auth(packet) => (&mut packet.reason_string, &mut packet.user_properties),
        _ => return packet,
    };
    *reason_string = None;
    if user {
        user_properties.clear();
    }
    packet
}
