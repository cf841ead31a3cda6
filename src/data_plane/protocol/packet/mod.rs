//! The packets as values, one shape for all protocol versions.
//!
//! A v3 packet leaves what only v5 has at its default. Strings and payloads borrow the buffer they
//! were read from.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use bytestring::ByteString;

use super::property::{PublishProperties, UserProperties};
use super::reason::ReasonCode;
use crate::model::{ProtocolVersion, QoS, RetainHandling, Timestamp, TopicFilter, TopicName};

/// A packet identifier: never 0 (`[MQTT-2.2.1-3]`).
pub type PacketId = NonZeroU16;

/// Any control packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Client to server: let me in.
    Connect(Box<Connect>),
    /// Server to client: the answer.
    ConnAck(Box<ConnAck>),
    /// Either way: a message.
    Publish(Publish),
    /// Either way: QoS 1 acknowledged.
    PubAck(Ack),
    /// Either way: QoS 2 received.
    PubRec(Ack),
    /// Either way: QoS 2 released.
    PubRel(Ack),
    /// Either way: QoS 2 complete.
    PubComp(Ack),
    /// Client to server: send me these.
    Subscribe(Subscribe),
    /// Server to client: the answer, a reason for each filter.
    SubAck(SubAck),
    /// Client to server: send me these no longer.
    Unsubscribe(Unsubscribe),
    /// Server to client: the answer, in v5 a reason for each filter.
    UnsubAck(UnsubAck),
    /// Client to server: are you there.
    PingReq,
    /// Server to client: yes.
    PingResp,
    /// Either way (v3: client to server): goodbye.
    Disconnect(Box<Disconnect>),
    /// Either way, v5: enhanced authentication.
    Auth(Box<Auth>),
}

/// CONNECT (MQTT 5.0, 3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// What the client speaks from here on.
    pub version: ProtocolVersion,
    /// v5 clean start; v3 clean session.
    pub clean_start: bool,
    /// Seconds; 0 turns it off.
    pub keep_alive_secs: u16,
    /// May be empty: the server then assigns one. Its length is judged by the session's owner.
    pub client_id: ByteString,
    /// The will, if any.
    pub will: Option<Will>,
    /// User name and password.
    pub credentials: Credentials,
    /// v5: seconds. Absent means 0 (`[MQTT-3.1.2-23]`); v3 leaves it absent.
    pub session_expiry_secs: Option<u32>,
    /// v5: how many QoS 1 and 2 messages the client takes at once. Absent means 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// v5: the largest packet the client takes.
    pub packet_bytes_max: Option<NonZeroU32>,
    /// v5: the highest topic alias the client takes; 0 for none.
    pub topic_alias_maximum: u16,
    /// v5: whether the client asks for Response Information.
    pub request_response_information: bool,
    /// v5: whether reason strings and user properties may be sent on every packet (default true).
    pub request_problem_information: bool,
    /// v5: user properties.
    pub user_properties: UserProperties,
    /// v5: the enhanced authentication method.
    pub auth_method: Option<ByteString>,
    /// v5: the first data of that method.
    pub auth_data: Option<Bytes>,
}

/// User name and password as given. Not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user name field.
    pub username: Option<ByteString>,
    /// The password field.
    pub password: Option<Bytes>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "<redacted>"))
            .finish()
    }
}

/// The will in a CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Where it is published to.
    pub topic: TopicName,
    /// What is said.
    pub payload: Bytes,
    /// At which quality of service.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// v5: seconds between the connection's end and the publication; 0 for at once.
    pub delay_secs: u32,
    /// v5: the properties of the message. Never a topic alias.
    pub properties: PublishProperties,
}

/// CONNACK (MQTT 5.0, 3.2). A v3 client gets the return code that `reason` maps to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnAck {
    /// Whether an earlier session goes on.
    pub session_present: bool,
    /// Success or why not.
    pub reason: ReasonCode,
    /// The session expiry in force, when it is not what the client asked for.
    pub session_expiry_secs: Option<u32>,
    /// How many QoS 1 and 2 messages the server takes at once.
    pub receive_maximum: Option<NonZeroU16>,
    /// The highest QoS served, when it is not 2.
    pub maximum_qos: Option<QoS>,
    /// Whether retained messages are served; absent means yes.
    pub retain_available: Option<bool>,
    /// The largest packet the server takes.
    pub packet_bytes_max: Option<NonZeroU32>,
    /// The id the server chose.
    pub assigned_client_id: Option<ByteString>,
    /// The highest topic alias the server takes.
    pub topic_alias_maximum: Option<u16>,
    /// For people.
    pub reason_string: Option<ByteString>,
    /// User properties.
    pub user_properties: UserProperties,
    /// Whether wildcard subscriptions are served; absent means yes.
    pub wildcard_available: Option<bool>,
    /// Whether subscription identifiers are served; absent means yes.
    pub subscription_ids_available: Option<bool>,
    /// Whether shared subscriptions are served; absent means yes.
    pub shared_available: Option<bool>,
    /// The keep-alive the client must use instead of its own.
    pub server_keep_alive_secs: Option<u16>,
    /// The basis of response topics.
    pub response_information: Option<ByteString>,
    /// Another server to use.
    pub server_reference: Option<ByteString>,
    /// The enhanced authentication method.
    pub auth_method: Option<ByteString>,
    /// The last data of that method.
    pub auth_data: Option<Bytes>,
}

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

/// PUBACK, PUBREC, PUBREL or PUBCOMP (MQTT 5.0, 3.4 to 3.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The packet id of the exchange.
    pub packet_id: PacketId,
    /// Always success in v3.
    pub reason: ReasonCode,
    /// For people.
    pub reason_string: Option<ByteString>,
    /// User properties.
    pub user_properties: UserProperties,
}

impl Ack {
    /// An acknowledgement with nothing but its reason.
    pub fn new(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self { packet_id, reason, reason_string: None, user_properties: UserProperties::default() }
    }
}

/// SUBSCRIBE (MQTT 5.0, 3.8). At least one filter (`[MQTT-3.8.3-2]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The packet id of the exchange.
    pub packet_id: PacketId,
    /// v5: the identifier for all filters of this packet.
    pub subscription_id: Option<NonZeroU32>,
    /// v5: user properties.
    pub user_properties: UserProperties,
    /// What is asked for, in the client's order.
    pub filters: Vec<SubscribeFilter>,
}

/// One filter of a SUBSCRIBE with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeFilter {
    /// The filter; its wildcards are valid.
    pub filter: TopicFilter,
    /// The greatest quality of service wanted.
    pub qos: QoS,
    /// v5: not my own messages. Never with a shared subscription (`[MQTT-3.8.3-4]`).
    pub no_local: bool,
    /// v5: keep the retain flag as published.
    pub retain_as_published: bool,
    /// v5: when retained messages are sent; v3 is [`RetainHandling::Send`].
    pub retain_handling: RetainHandling,
}

/// SUBACK (MQTT 5.0, 3.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubAck {
    /// The packet id of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// One for each filter, in order (`[MQTT-3.9.3-1]`). A failure goes to v3 as 0x80.
    pub reasons: Vec<ReasonCode>,
    /// For people.
    pub reason_string: Option<ByteString>,
    /// User properties.
    pub user_properties: UserProperties,
}

/// UNSUBSCRIBE (MQTT 5.0, 3.10). At least one filter (`[MQTT-3.10.3-2]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// The packet id of the exchange.
    pub packet_id: PacketId,
    /// v5: user properties.
    pub user_properties: UserProperties,
    /// What is no longer wanted, in the client's order.
    pub filters: Vec<TopicFilter>,
}

/// UNSUBACK (MQTT 5.0, 3.11). A v3 client gets the packet id alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsubAck {
    /// The packet id of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// One for each filter, in order (`[MQTT-3.11.3-1]`).
    pub reasons: Vec<ReasonCode>,
    /// For people.
    pub reason_string: Option<ByteString>,
    /// User properties.
    pub user_properties: UserProperties,
}

/// DISCONNECT (MQTT 5.0, 3.14).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disconnect {
    /// Why; normal disconnection in v3.
    pub reason: ReasonCode,
    /// From the client: a new session expiry interval.
    pub session_expiry_secs: Option<u32>,
    /// For people.
    pub reason_string: Option<ByteString>,
    /// User properties.
    pub user_properties: UserProperties,
    /// From the server: another one to use.
    pub server_reference: Option<ByteString>,
}

/// AUTH (MQTT 5.0, 3.15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Success, continue or re-authenticate.
    pub reason: ReasonCode,
    /// The method; required unless the packet is empty (`[MQTT-3.15.2-1]` ff.).
    pub method: Option<ByteString>,
    /// The data of this step.
    pub data: Option<Bytes>,
    /// For people.
    pub reason_string: Option<ByteString>,
    /// User properties.
    pub user_properties: UserProperties,
}
