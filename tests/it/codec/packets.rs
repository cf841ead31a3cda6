//! Strategies for every packet that a version allows in a direction, in the form in which it comes back:
//! what a version cannot say is at its default.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use bytestring::ByteString;
use holdfast::data_plane::protocol::{
    Ack, Auth, ConnAck, Connect, Credentials, Disconnect, ForwardedValues, Packet, PacketId, Publish,
    PublishProperties, ReasonCode, SubAck, Subscribe, SubscribeFilter, UnsubAck, Unsubscribe, UserProperties,
    Will,
};
use holdfast::model::ProtocolVersion::{self, V3_1, V5};
use holdfast::model::{PropertyBytes, QoS, RetainHandling, TopicFilter, TopicName};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::reason_codes::allowed;

/// Who sends a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Any version.
pub(crate) fn version() -> impl Strategy<Value = ProtocolVersion> {
    prop::sample::select(vec![V3_1, ProtocolVersion::V3_1_1, V5])
}

/// Either side.
pub(crate) fn side() -> impl Strategy<Value = Side> {
    prop::sample::select(vec![Side::Client, Side::Server])
}

/// Any packet that `sender` may send in `version`.
pub(crate) fn packet(version: ProtocolVersion, sender: Side) -> BoxedStrategy<Packet> {
    let both = prop_oneof![
        publish(version, sender).prop_map(Packet::Publish),
        ack(version, sender, 4).prop_map(Packet::PubAck),
        ack(version, sender, 5).prop_map(Packet::PubRec),
        ack(version, sender, 6).prop_map(Packet::PubRel),
        ack(version, sender, 7).prop_map(Packet::PubComp),
    ];
    let one = match sender {
        Side::Client => prop_oneof![
            connect(version).prop_map(|connect| Packet::Connect(Box::new(connect))),
            subscribe(version).prop_map(Packet::Subscribe),
            unsubscribe(version).prop_map(Packet::Unsubscribe),
            Just(Packet::PingReq),
        ]
        .boxed(),
        Side::Server => prop_oneof![
            connack(version).prop_map(|connack| Packet::ConnAck(Box::new(connack))),
            suback(version).prop_map(Packet::SubAck),
            unsuback(version).prop_map(Packet::UnsubAck),
            Just(Packet::PingResp),
        ]
        .boxed(),
    };
    let last = disconnect(version, sender).prop_map(|disconnect| Packet::Disconnect(Box::new(disconnect)));
    match (version, sender) {
        (V5, _) => {
            let auth = auth(sender).prop_map(|auth| Packet::Auth(Box::new(auth)));
            prop_oneof![both, one, last, auth].boxed()
        }
        (_, Side::Client) => prop_oneof![both, one, last].boxed(),
        (_, Side::Server) => prop_oneof![both, one].boxed(),
    }
}

/// Text without U+0000; sometimes longer than a length of one byte.
fn text() -> impl Strategy<Value = ByteString> {
    let char = any::<char>().prop_filter("U+0000", |char| *char != '\0');
    prop_oneof![
        9 => vec(char.clone(), 0..12),
        1 => vec(char, 100..200),
    ]
    .prop_map(|chars| chars.into_iter().collect::<String>().into())
}

fn blob() -> impl Strategy<Value = Bytes> {
    prop_oneof![9 => vec(any::<u8>(), 0..24), 1 => vec(any::<u8>(), 100..400)].prop_map(Bytes::from)
}

fn level() -> impl Strategy<Value = String> {
    text().prop_map(|text| text.replace(['+', '#', '/', '$'], "_"))
}

pub(crate) fn topic() -> impl Strategy<Value = TopicName> {
    (vec(level(), 1..4), any::<bool>()).prop_map(|(levels, reserved)| {
        let text = levels.join("/");
        TopicName::new(if reserved || text.is_empty() { format!("$SYS/{text}") } else { text })
            .expect("a topic")
    })
}

fn filter() -> impl Strategy<Value = TopicFilter> {
    let wanted = prop_oneof![3 => level(), 1 => Just("+".to_owned())];
    let group = level().prop_map(|level| format!("$share/g{level}/"));
    (option::of(group), vec(wanted, 1..4), any::<bool>()).prop_map(|(group, mut levels, all)| {
        if all || levels.join("/").is_empty() {
            levels.push("#".to_owned());
        }
        TopicFilter::new(&format!("{}{}", group.unwrap_or_default(), levels.join("/"))).expect("a filter")
    })
}

fn user_properties() -> impl Strategy<Value = UserProperties> {
    vec((text(), text()), 0..3)
}

pub(crate) fn qos() -> impl Strategy<Value = QoS> {
    prop::sample::select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

pub(crate) fn packet_id() -> impl Strategy<Value = PacketId> {
    any::<NonZeroU16>()
}

fn subscription_id() -> impl Strategy<Value = NonZeroU32> {
    (1..=268_435_455_u32).prop_map(|id| NonZeroU32::new(id).expect("not 0"))
}

/// What is forwarded with a message, and whether it calls the payload UTF-8.
pub(crate) fn forwarded() -> impl Strategy<Value = (PropertyBytes, bool)> {
    let values = (
        option::of(any::<bool>()),
        option::of(text()),
        option::of(topic()),
        option::of(blob()),
        user_properties(),
    );
    values.prop_map(|(is_utf8, content_type, response_topic, correlation_data, user_properties)| {
        let values = ForwardedValues {
            payload_is_utf8: is_utf8,
            content_type: content_type.as_deref(),
            response_topic: response_topic.as_ref(),
            correlation_data: correlation_data.as_deref(),
            user_properties: &user_properties,
        };
        (values.to_bytes().expect("valid"), is_utf8 == Some(true))
    })
}

/// Properties and a payload that fits them.
fn content(version: ProtocolVersion) -> impl Strategy<Value = (PublishProperties, Bytes)> {
    let parts = (option::of(any::<u32>()), forwarded(), blob(), text());
    parts.prop_map(move |(expiry, (forwarded, is_utf8), blob, text)| {
        if version != V5 {
            return (PublishProperties::default(), blob);
        }
        let properties =
            PublishProperties { message_expiry_secs: expiry, forwarded, ..PublishProperties::default() };
        (properties, if is_utf8 { text.into_bytes() } else { blob })
    })
}

fn publish(version: ProtocolVersion, sender: Side) -> impl Strategy<Value = Publish> {
    let alias = option::of(any::<NonZeroU16>());
    let ids = vec(subscription_id(), 0..3);
    let parts = (content(version), qos(), packet_id(), topic(), alias, ids, any::<[bool; 3]>());
    parts.prop_map(move |((mut properties, payload), qos, id, topic, alias, ids, [dup, retain, omit])| {
        let mut topic = Some(topic);
        if version == V5 {
            properties.topic_alias = alias;
            if alias.is_some() && omit {
                topic = None;
            }
            if sender == Side::Server {
                properties.subscription_ids = ids.into();
            }
        }
        let acknowledged = qos != QoS::AtMostOnce;
        let packet_id = acknowledged.then_some(id);
        Publish { dup: dup && acknowledged, qos, retain, topic, packet_id, properties, payload }
    })
}

fn connect(version: ProtocolVersion) -> impl Strategy<Value = Connect> {
    let will = (content(version), topic(), qos(), any::<bool>(), any::<u32>()).prop_map(
        move |((properties, payload), topic, qos, retain, delay_secs)| {
            let delay_secs = if version == V5 { delay_secs } else { 0 };
            Will { topic, payload, qos, retain, delay_secs, properties }
        },
    );
    let head =
        (any::<[bool; 3]>(), any::<u16>(), text(), option::of(will), option::of(text()), option::of(blob()));
    let numbers = (
        option::of(any::<u32>()),
        option::of(any::<NonZeroU16>()),
        option::of(any::<NonZeroU32>()),
        any::<u16>(),
    );
    let auth = option::of((text(), option::of(blob())));
    (head, numbers, user_properties(), auth).prop_map(move |(head, numbers, user_properties, auth)| {
        let ([clean_start, response, problem], keep_alive_secs, client_id, will, username, password) = head;
        let password = password.filter(|_| version == V5 || username.is_some());
        let mut connect = Connect {
            clean_start,
            keep_alive_secs,
            will,
            credentials: Credentials { username, password },
            ..Connect::bare(version, client_id)
        };
        if version == V5 {
            (
                connect.session_expiry_secs,
                connect.receive_maximum,
                connect.packet_bytes_max,
                connect.topic_alias_maximum,
            ) = numbers;
            connect.request_response_information = response;
            connect.request_problem_information = problem;
            connect.user_properties = user_properties;
            (connect.auth_method, connect.auth_data) =
                auth.map_or((None, None), |(method, data)| (Some(method), data));
        }
        connect
    })
}

fn connack(version: ProtocolVersion) -> BoxedStrategy<ConnAck> {
    let reasons = match version {
        V5 => allowed(2, Side::Server),
        // The reasons that the six return codes stand for.
        _ => vec![0x00, 0x84, 0x85, 0x88, 0x86, 0x87],
    };
    let head = (reason(reasons), any::<bool>()).prop_map(move |(reason, session_present)| ConnAck {
        reason,
        session_present: session_present && reason == ReasonCode::Success && version != V3_1,
        ..ConnAck::default()
    });
    if version != V5 {
        return head.boxed();
    }
    let flag = || option::of(any::<bool>());
    let flags = (flag(), flag(), flag(), flag(), option::of(any::<bool>()));
    let numbers = (
        option::of(any::<u32>()),
        option::of(any::<NonZeroU16>()),
        option::of(any::<NonZeroU32>()),
        option::of(any::<u16>()),
        option::of(any::<u16>()),
    );
    let texts =
        (option::of(text()), option::of(text()), option::of(text()), option::of(text()), option::of(text()));
    (head, flags, numbers, texts, option::of(blob()), user_properties())
        .prop_map(|(mut connack, flags, numbers, texts, auth_data, user_properties)| {
            let maximum_qos;
            (
                connack.retain_available,
                connack.wildcard_available,
                connack.subscription_ids_available,
                connack.shared_available,
                maximum_qos,
            ) = flags;
            connack.maximum_qos =
                maximum_qos.map(|is_one| if is_one { QoS::AtLeastOnce } else { QoS::AtMostOnce });
            (
                connack.session_expiry_secs,
                connack.receive_maximum,
                connack.packet_bytes_max,
                connack.topic_alias_maximum,
                connack.server_keep_alive_secs,
            ) = numbers;
            (
                connack.assigned_client_id,
                connack.reason_string,
                connack.response_information,
                connack.server_reference,
                connack.auth_method,
            ) = texts;
            connack.auth_data = auth_data;
            connack.user_properties = user_properties;
            connack
        })
        .boxed()
}

fn ack(version: ProtocolVersion, sender: Side, packet: u8) -> impl Strategy<Value = Ack> {
    let reasons = if version == V5 { allowed(packet, sender) } else { vec![0] };
    (packet_id(), reason(reasons), diagnostics(version)).prop_map(
        |(packet_id, reason, (text, user_properties))| Ack {
            packet_id,
            reason,
            reason_string: text,
            user_properties,
        },
    )
}

fn subscribe(version: ProtocolVersion) -> impl Strategy<Value = Subscribe> {
    let handling = prop::sample::select(vec![
        RetainHandling::Send,
        RetainHandling::SendIfNew,
        RetainHandling::DoNotSend,
    ]);
    let one = (filter(), qos(), any::<[bool; 2]>(), handling).prop_map(
        move |(filter, qos, [local, keep], handling)| {
            let is_v5 = version == V5;
            SubscribeFilter {
                no_local: local && is_v5 && filter.shared().is_none(),
                filter,
                qos,
                retain_as_published: keep && is_v5,
                retain_handling: if is_v5 { handling } else { RetainHandling::Send },
            }
        },
    );
    (packet_id(), option::of(subscription_id()), user_properties(), vec(one, 1..5)).prop_map(
        move |(packet_id, subscription_id, user_properties, filters)| Subscribe {
            packet_id,
            subscription_id: subscription_id.filter(|_| version == V5),
            user_properties: if version == V5 { user_properties } else { UserProperties::default() },
            filters,
        },
    )
}

fn suback(version: ProtocolVersion) -> impl Strategy<Value = SubAck> {
    let reasons = if version == V5 { allowed(9, Side::Server) } else { vec![0, 1, 2, 0x80] };
    (packet_id(), vec(reason(reasons), 1..5), diagnostics(version)).prop_map(
        |(packet_id, reasons, (reason_string, user_properties))| SubAck {
            packet_id,
            reasons,
            reason_string,
            user_properties,
        },
    )
}

fn unsubscribe(version: ProtocolVersion) -> impl Strategy<Value = Unsubscribe> {
    (packet_id(), diagnostics(version), vec(filter(), 1..5)).prop_map(
        |(packet_id, (_, user_properties), filters)| Unsubscribe { packet_id, user_properties, filters },
    )
}

fn unsuback(version: ProtocolVersion) -> impl Strategy<Value = UnsubAck> {
    (packet_id(), vec(reason(allowed(11, Side::Server)), 1..5), diagnostics(version)).prop_map(
        move |(packet_id, reasons, (reason_string, user_properties))| UnsubAck {
            packet_id,
            reasons: if version == V5 { reasons } else { Vec::new() },
            reason_string,
            user_properties,
        },
    )
}

fn disconnect(version: ProtocolVersion, sender: Side) -> impl Strategy<Value = Disconnect> {
    let parts = (reason(allowed(14, sender)), option::of(any::<u32>()), diagnostics(V5), option::of(text()));
    parts.prop_map(move |(reason, expiry, (reason_string, user_properties), server_reference)| {
        if version != V5 {
            return Disconnect::default();
        }
        let session_expiry_secs = expiry.filter(|_| sender == Side::Client);
        Disconnect { reason, session_expiry_secs, reason_string, user_properties, server_reference }
    })
}

fn auth(sender: Side) -> impl Strategy<Value = Auth> {
    let parts = (reason(allowed(15, sender)), text(), option::of(blob()), diagnostics(V5));
    parts.prop_map(|(reason, method, data, (reason_string, user_properties))| Auth {
        reason,
        method: Some(method),
        data,
        reason_string,
        user_properties,
    })
}

fn reason(codes: Vec<u8>) -> impl Strategy<Value = ReasonCode> {
    prop::sample::select(codes).prop_map(|code| ReasonCode::from_byte(code).expect("defined"))
}

/// A reason string and user properties, in v5.
fn diagnostics(version: ProtocolVersion) -> impl Strategy<Value = (Option<ByteString>, UserProperties)> {
    (option::of(text()), user_properties()).prop_map(move |diagnostics| match version {
        V5 => diagnostics,
        _ => (None, UserProperties::default()),
    })
}
