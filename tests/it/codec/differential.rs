//! Against another codec, rmqtt's, which knows the three versions: it understands what we write and we
//! understand what it writes, field by field.
//!
//! It is less strict than we are, so its verdicts on invalid packets are no measure; what it refuses, we
//! should not take.

use std::num::NonZeroU32;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use holdfast::data_plane::protocol::{
    Ack, ConnAck, Connect, ForwardedProperties, ForwardedProperty, Packet, Publish, PublishProperties,
    ReasonCode, SubAck, SubscribeFilter, Will,
};
use holdfast::model::ProtocolVersion::{self, V3_1, V5};
use holdfast::model::{PropertyBytes, QoS, TopicName};
use proptest::prelude::*;
use rmqtt_codec::types::{Protocol, Publish as OtherPublish, QoS as OtherQoS};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::{Decoder as _, Encoder as _};

use super::packets::{self, Side};
use super::{decode_one, decoder_of, to_bytes};

/// A packet as the other codec has it.
#[derive(Debug, PartialEq)]
enum Other {
    V3(v3::Packet),
    V5(v5::Packet),
}

impl Other {
    fn of(packet: &Packet, version: ProtocolVersion) -> Self {
        if version == V5 { Self::V5(to_v5(packet)) } else { Self::V3(to_v3(packet, version)) }
    }

    fn decode(bytes: &[u8], version: ProtocolVersion) -> Result<Self, String> {
        let mut buffer = BytesMut::from(bytes);
        let decoded = if version == V5 {
            let decoded = v5::Codec::new(0, 0).decode(&mut buffer).map_err(|error| error.to_string())?;
            Self::V5(decoded.ok_or("not whole")?.0)
        } else {
            let decoded = v3::Codec::new(0).decode(&mut buffer).map_err(|error| error.to_string())?;
            Self::V3(decoded.ok_or("not whole")?.0)
        };
        if buffer.is_empty() { Ok(decoded) } else { Err(format!("{} bytes are left", buffer.len())) }
    }

    fn encode(self) -> BytesMut {
        let mut out = BytesMut::new();
        match self {
            Self::V3(packet) => v3::Codec::new(0).encode(packet, &mut out).expect("it encodes"),
            Self::V5(packet) => v5::Codec::new(0, 0).encode(packet, &mut out).expect("it encodes"),
        }
        out
    }
}

fn sent() -> impl Strategy<Value = (ProtocolVersion, Side, Packet)> {
    (packets::version(), packets::side())
        .prop_flat_map(|(version, side)| (Just(version), Just(side), packets::packet(version, side)))
        .prop_filter("it refuses them", |(_, _, packet)| !is_refused(packet))
}

/// What is valid and it refuses all the same: a message expiry of 0, and an empty client identifier without
/// a clean start, on which our session decides.
fn is_refused(packet: &Packet) -> bool {
    match packet {
        Packet::Publish(publish) => publish.properties.message_expiry_secs == Some(0),
        Packet::Connect(connect) => {
            let will = connect.will.as_ref();
            will.is_some_and(|will| will.properties.message_expiry_secs == Some(0))
                || (connect.client_id.is_empty() && !connect.clean_start)
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_understands_what_we_write((version, _, packet) in sent()) {
        let decoded = Other::decode(&to_bytes(&packet, version), version);
        prop_assert_eq!(decoded, Ok(Other::of(&packet, version)));
    }

    #[test]
    fn we_understand_what_it_writes((version, side, packet) in sent()) {
        let mut bytes = Other::of(&packet, version).encode();
        if version == V3_1 && bytes[0] == 0x10 {
            // It writes the level of 3.1.1 under the name of V3.1.
            let name = bytes.windows(6).position(|name| name == b"MQIsdp").expect("the name");
            bytes[name + 6] = 3;
        }
        let decoded = decode_one(decoder_of(&packet, side, version), &bytes).expect("valid");
        prop_assert_eq!(Other::of(&decoded, version), Other::of(&packet, version));
    }

    #[test]
    fn what_we_take_damaged_it_takes_too(
        (version, side, packet) in sent(),
        (at, byte) in (any::<prop::sample::Index>(), any::<u8>()),
    ) {
        let mut bytes = to_bytes(&packet, version);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let taken = decoder_of(&packet, side, version).decode(&mut BytesMut::from(&bytes[..]));
        if let Ok(Some(taken)) = taken {
            let version = if let Packet::Connect(connect) = &taken { connect.version } else { version };
            // The freedoms of V3.1 it does not know.
            let is_known = is_refused(&taken) || version == V3_1;
            if !is_known && to_bytes(&taken, version).len() == bytes.len() {
                prop_assert_eq!(Other::decode(&bytes, version), Ok(Other::of(&taken, version)));
            }
        }
    }
}

fn qos(qos: QoS) -> OtherQoS {
    OtherQoS::try_from(u8::from(qos)).expect("the same three")
}

fn reason<T: TryFrom<u8>>(reason: ReasonCode) -> T {
    T::try_from(reason as u8).ok().expect("the same codes")
}

fn topic(topic: Option<&TopicName>) -> ByteString {
    topic.map_or("", TopicName::as_str).into()
}

fn to_v3(packet: &Packet, version: ProtocolVersion) -> v3::Packet {
    match packet {
        Packet::Connect(connect) => connect_v3(connect, version).into(),
        Packet::ConnAck(connack) => v3::Packet::ConnectAck(v3::ConnectAck {
            return_code: v3::ConnectAckReason::try_from(connack.reason.connect_return_code() as u8)
                .expect("the same six"),
            session_present: connack.session_present,
        }),
        Packet::Publish(publish) => publish_other(publish, None).into(),
        Packet::PubAck(ack) => v3::Packet::PublishAck { packet_id: ack.packet_id },
        Packet::PubRec(ack) => v3::Packet::PublishReceived { packet_id: ack.packet_id },
        Packet::PubRel(ack) => v3::Packet::PublishRelease { packet_id: ack.packet_id },
        Packet::PubComp(ack) => v3::Packet::PublishComplete { packet_id: ack.packet_id },
        Packet::Subscribe(subscribe) => v3::Packet::Subscribe {
            packet_id: subscribe.packet_id,
            topic_filters: subscribe
                .filters
                .iter()
                .map(|filter| (filter.filter.as_str().into(), qos(filter.qos)))
                .collect(),
        },
        Packet::SubAck(suback) => v3::Packet::SubscribeAck {
            packet_id: suback.packet_id,
            status: suback
                .reasons
                .iter()
                .map(|reason| match QoS::try_from(*reason as u8) {
                    Ok(granted) => v3::SubscribeReturnCode::Success(qos(granted)),
                    Err(_) => v3::SubscribeReturnCode::Failure,
                })
                .collect(),
        },
        Packet::Unsubscribe(unsubscribe) => v3::Packet::Unsubscribe {
            packet_id: unsubscribe.packet_id,
            topic_filters: unsubscribe.filters.iter().map(|filter| filter.as_str().into()).collect(),
        },
        Packet::UnsubAck(unsuback) => v3::Packet::UnsubscribeAck { packet_id: unsuback.packet_id },
        Packet::PingReq => v3::Packet::PingRequest,
        Packet::PingResp => v3::Packet::PingResponse,
        Packet::Disconnect(_) => v3::Packet::Disconnect,
        Packet::Auth(_) => panic!("no AUTH in v3"),
    }
}

fn connect_v3(connect: &Connect, version: ProtocolVersion) -> v3::Connect {
    v3::Connect {
        protocol: Protocol(if version == V3_1 { 3 } else { 4 }),
        clean_session: connect.clean_start,
        keep_alive: connect.keep_alive_secs,
        last_will: connect.will.as_ref().map(|will| v3::LastWill {
            qos: qos(will.qos),
            retain: will.retain,
            topic: topic(Some(&will.topic)),
            message: will.payload.clone(),
        }),
        client_id: connect.client_id.clone(),
        username: connect.credentials.username.clone(),
        password: connect.credentials.password.clone(),
        cert: None,
    }
}

fn publish_other(publish: &Publish, properties: Option<v5::PublishProperties>) -> OtherPublish {
    OtherPublish {
        dup: publish.dup,
        retain: publish.retain,
        qos: qos(publish.qos),
        topic: topic(publish.topic.as_ref()),
        packet_id: publish.packet_id,
        payload: publish.payload.clone(),
        properties,
    }
}

fn to_v5(packet: &Packet) -> v5::Packet {
    match packet {
        Packet::Connect(connect) => connect_v5(connect).into(),
        Packet::ConnAck(connack) => connack_v5(connack).into(),
        Packet::Publish(publish) => {
            publish_other(publish, Some(publish_properties(&publish.properties))).into()
        }
        Packet::PubAck(ack) => v5::Packet::PublishAck(ack_v5(ack)),
        Packet::PubRec(ack) => v5::Packet::PublishReceived(ack_v5(ack)),
        Packet::PubRel(ack) => v5::Packet::PublishRelease(ack2_v5(ack)),
        Packet::PubComp(ack) => v5::Packet::PublishComplete(ack2_v5(ack)),
        Packet::Subscribe(subscribe) => v5::Packet::Subscribe(v5::Subscribe {
            packet_id: subscribe.packet_id,
            id: subscribe.subscription_id,
            user_properties: subscribe.user_properties.clone(),
            topic_filters: subscribe.filters.iter().map(filter_v5).collect(),
        }),
        Packet::SubAck(suback) => v5::Packet::SubscribeAck(suback_v5(suback)),
        Packet::Unsubscribe(unsubscribe) => v5::Packet::Unsubscribe(v5::Unsubscribe {
            packet_id: unsubscribe.packet_id,
            user_properties: unsubscribe.user_properties.clone(),
            topic_filters: unsubscribe.filters.iter().map(|filter| filter.as_str().into()).collect(),
        }),
        Packet::UnsubAck(unsuback) => v5::Packet::UnsubscribeAck(v5::UnsubscribeAck {
            packet_id: unsuback.packet_id,
            properties: unsuback.user_properties.clone(),
            reason_string: unsuback.reason_string.clone(),
            status: unsuback.reasons.iter().map(|code| reason(*code)).collect(),
        }),
        Packet::PingReq => v5::Packet::PingRequest,
        Packet::PingResp => v5::Packet::PingResponse,
        Packet::Disconnect(disconnect) => v5::Packet::Disconnect(v5::Disconnect {
            reason_code: reason(disconnect.reason),
            session_expiry_interval_secs: disconnect.session_expiry_secs,
            server_reference: disconnect.server_reference.clone(),
            reason_string: disconnect.reason_string.clone(),
            user_properties: disconnect.user_properties.clone(),
        }),
        Packet::Auth(auth) => v5::Packet::Auth(v5::Auth {
            reason_code: reason(auth.reason),
            auth_method: auth.method.clone(),
            auth_data: auth.data.clone(),
            reason_string: auth.reason_string.clone(),
            user_properties: auth.user_properties.clone(),
        }),
    }
}

fn connect_v5(connect: &Connect) -> v5::Connect {
    v5::Connect {
        clean_start: connect.clean_start,
        keep_alive: connect.keep_alive_secs,
        session_expiry_interval_secs: connect.session_expiry_secs.unwrap_or(0),
        auth_method: connect.auth_method.clone(),
        auth_data: connect.auth_data.clone(),
        request_problem_info: connect.request_problem_information,
        request_response_info: connect.request_response_information,
        receive_max: connect.receive_maximum,
        topic_alias_max: connect.topic_alias_maximum,
        user_properties: connect.user_properties.clone(),
        max_packet_size: connect.packet_bytes_max,
        last_will: connect.will.as_ref().map(will_v5),
        client_id: connect.client_id.clone(),
        username: connect.credentials.username.clone(),
        password: connect.credentials.password.clone(),
        cert: None,
    }
}

fn will_v5(will: &Will) -> v5::LastWill {
    let values = Values::of(&will.properties.forwarded);
    v5::LastWill {
        qos: qos(will.qos),
        retain: will.retain,
        topic: topic(Some(&will.topic)),
        message: will.payload.clone(),
        will_delay_interval_sec: Some(will.delay_secs).filter(|secs| *secs > 0),
        correlation_data: values.correlation_data,
        message_expiry_interval: will.properties.message_expiry_secs.and_then(NonZeroU32::new),
        content_type: values.content_type,
        user_properties: values.user_properties,
        is_utf8_payload: values.is_utf8,
        response_topic: values.response_topic,
    }
}

fn publish_properties(properties: &PublishProperties) -> v5::PublishProperties {
    let values = Values::of(&properties.forwarded);
    v5::PublishProperties {
        topic_alias: properties.topic_alias,
        correlation_data: values.correlation_data,
        message_expiry_interval: properties.message_expiry_secs.and_then(NonZeroU32::new),
        content_type: values.content_type,
        user_properties: values.user_properties,
        is_utf8_payload: values.is_utf8 == Some(true),
        response_topic: values.response_topic,
        subscription_ids: properties.subscription_ids.to_vec(),
    }
}

/// Forwarded properties, each in its place.
#[derive(Default)]
struct Values {
    is_utf8: Option<bool>,
    content_type: Option<ByteString>,
    response_topic: Option<ByteString>,
    correlation_data: Option<Bytes>,
    user_properties: Vec<(ByteString, ByteString)>,
}

impl Values {
    fn of(properties: &PropertyBytes) -> Self {
        let mut values = Self::default();
        for property in ForwardedProperties::of(properties) {
            match property {
                ForwardedProperty::PayloadFormat { is_utf8 } => values.is_utf8 = Some(is_utf8),
                ForwardedProperty::ContentType(text) => values.content_type = Some(text.into()),
                ForwardedProperty::ResponseTopic(text) => values.response_topic = Some(text.into()),
                ForwardedProperty::CorrelationData(data) => {
                    values.correlation_data = Some(Bytes::copy_from_slice(data));
                }
                ForwardedProperty::UserProperty(name, value) => {
                    values.user_properties.push((name.into(), value.into()));
                }
            }
        }
        values
    }
}

fn connack_v5(connack: &ConnAck) -> v5::ConnectAck {
    let default = v5::ConnectAck::default();
    v5::ConnectAck {
        session_present: connack.session_present,
        reason_code: reason(connack.reason),
        session_expiry_interval_secs: connack.session_expiry_secs,
        receive_max: connack.receive_maximum.unwrap_or(default.receive_max),
        max_qos: connack.maximum_qos.map_or(OtherQoS::ExactlyOnce, qos),
        max_packet_size: connack.packet_bytes_max.map(NonZeroU32::get),
        assigned_client_id: connack.assigned_client_id.clone(),
        topic_alias_max: connack.topic_alias_maximum.unwrap_or(0),
        retain_available: connack.retain_available.unwrap_or(true),
        wildcard_subscription_available: connack.wildcard_available.unwrap_or(true),
        subscription_identifiers_available: connack.subscription_ids_available.unwrap_or(true),
        shared_subscription_available: connack.shared_available.unwrap_or(true),
        server_keepalive_sec: connack.server_keep_alive_secs,
        response_info: connack.response_information.clone(),
        server_reference: connack.server_reference.clone(),
        auth_method: connack.auth_method.clone(),
        auth_data: connack.auth_data.clone(),
        reason_string: connack.reason_string.clone(),
        user_properties: connack.user_properties.clone(),
    }
}

fn ack_v5(ack: &Ack) -> v5::PublishAck {
    v5::PublishAck {
        packet_id: ack.packet_id,
        reason_code: reason(ack.reason),
        properties: ack.user_properties.clone(),
        reason_string: ack.reason_string.clone(),
    }
}

fn ack2_v5(ack: &Ack) -> v5::PublishAck2 {
    v5::PublishAck2 {
        packet_id: ack.packet_id,
        reason_code: reason(ack.reason),
        properties: ack.user_properties.clone(),
        reason_string: ack.reason_string.clone(),
    }
}

fn filter_v5(filter: &SubscribeFilter) -> (ByteString, v5::SubscriptionOptions) {
    let options = v5::SubscriptionOptions {
        qos: qos(filter.qos),
        no_local: filter.no_local,
        retain_as_published: filter.retain_as_published,
        retain_handling: v5::RetainHandling::try_from(u8::from(filter.retain_handling))
            .expect("the same three"),
    };
    (filter.filter.as_str().into(), options)
}

fn suback_v5(suback: &SubAck) -> v5::SubscribeAck {
    v5::SubscribeAck {
        packet_id: suback.packet_id,
        properties: suback.user_properties.clone(),
        reason_string: suback.reason_string.clone(),
        status: suback.reasons.iter().map(|code| reason(*code)).collect(),
    }
}
