//! What a peer can do wrong with the bytes it sends, one variant for each rule.
//!
//! The standard tells two kinds apart (MQTT 5.0, 1.2): a *malformed packet* cannot be parsed; a
//! *protocol error* can, but says what is not allowed. Where the text names neither for a rule, that
//! definition decides. Either way the connection ends (`[MQTT-4.13.1-1]`).

use thiserror::Error;

use super::packet::{ConnAck, PacketType};
use super::property::Property;
use super::reason::ReasonCode;
use crate::model::{ProtocolVersion, TopicError};

/// A rule of the standard that a received packet breaks. Display is for our logs and for the reason
/// string; it never holds the client's data.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// `[MQTT-3.1.0-1]`
    #[error("the first packet must be CONNECT, not {0} [MQTT-3.1.0-1]")]
    FirstPacketNotConnect(PacketType),
    /// `[MQTT-3.1.0-2]`
    #[error("CONNECT may be sent only once [MQTT-3.1.0-2]")]
    SecondConnect,
    /// A packet type that the version reserves: 0, and 15 before v5 (MQTT 5.0, 2.1.2).
    #[error("packet type {0} is reserved [MQTT 5.0, 2.1.2]")]
    ReservedPacketType(u8),
    /// A packet that only the other side may send (MQTT 5.0, 2.1.2).
    #[error("{0} may not be sent in this direction [MQTT 5.0, 2.1.2]")]
    WrongDirection(PacketType),
    /// `[MQTT-2.1.3-1]`, 3.1.1 `[MQTT-2.2.2-2]`, and the packet's own: `[MQTT-3.6.1-1]`,
    /// `[MQTT-3.8.1-1]`, `[MQTT-3.10.1-1]`, `[MQTT-3.14.1-1]`, `[MQTT-3.15.1-1]`.
    #[error("the reserved flags of {packet} are {flags:#06b} {statement}", statement = self.statement())]
    ReservedFlags {
        /// The packet.
        packet: PacketType,
        /// The low four bits of its first byte.
        flags: u8,
    },
    /// A variable byte integer goes on after four bytes (MQTT 5.0, 1.5.5).
    #[error("a variable byte integer takes at most four bytes [MQTT 5.0, 1.5.5]")]
    VarintTooLong,
    /// `[MQTT-1.5.5-1]`
    #[error("a variable byte integer must take as few bytes as possible [MQTT-1.5.5-1]")]
    VarintNotMinimal,
    /// `[MQTT-3.2.2-15]`
    #[error("a packet of {bytes} bytes is larger than the {bytes_max} allowed [MQTT-3.2.2-15]")]
    PacketTooLarge {
        /// The whole packet, fixed header included.
        bytes: usize,
        /// The limit.
        bytes_max: u32,
    },
    /// A field reaches beyond the end of its packet or of its properties.
    #[error("the packet ends within a field [MQTT 5.0, 1.2]")]
    Truncated,
    /// The packet goes on after its last field.
    #[error("{bytes} bytes follow the last field [MQTT 5.0, 1.2]")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// `[MQTT-1.5.4-1]`, 3.1.1 `[MQTT-1.5.3-1]`
    #[error("a string is not well-formed UTF-8 [MQTT-1.5.4-1]")]
    IllFormedUtf8,
    /// `[MQTT-1.5.4-2]`, 3.1.1 `[MQTT-1.5.3-2]`
    #[error("a string contains U+0000 [MQTT-1.5.4-2]")]
    NulInString,
    /// `[MQTT-2.2.1-3]`, `[MQTT-2.2.1-4]`, 3.1.1 `[MQTT-2.3.1-1]`
    #[error("a packet identifier must not be 0 [MQTT-2.2.1-3]")]
    PacketIdZero,
    /// A reason code (3.1.1: return code) that this packet may not carry in this direction:
    /// `[MQTT-3.2.2-8]`, `[MQTT-3.4.2-1]`, `[MQTT-3.5.2-1]`, `[MQTT-3.6.2-1]`, `[MQTT-3.7.2-1]`,
    /// `[MQTT-3.9.3-2]`, `[MQTT-3.11.3-2]`, `[MQTT-3.14.2-1]`, `[MQTT-3.15.2-1]`.
    #[error("{packet} may not carry reason code {code:#04x} {statement}", statement = self.statement())]
    ReasonNotAllowed {
        /// The packet.
        packet: PacketType,
        /// The code it carries.
        code: u8,
    },

    /// A property identifier that the standard does not define (MQTT 5.0, 2.2.2.2).
    #[error("property {0:#04x} does not exist [MQTT 5.0, 2.2.2.2]")]
    PropertyUnknown(u32),
    /// A property that this packet may not carry (MQTT 5.0, 2.2.2.2).
    #[error("{packet} may not carry the property {property} [MQTT 5.0, 2.2.2.2]")]
    PropertyNotAllowed {
        /// The property.
        property: Property,
        /// The packet; the will's properties count as CONNECT's.
        packet: PacketType,
    },
    /// A property other than the user property given twice (MQTT 5.0, 2.2.2.2).
    #[error("the property {0} may be given only once [MQTT 5.0, 2.2.2.2]")]
    PropertyTwice(Property),
    /// A property's value is outside of its range; for the topic alias `[MQTT-3.3.2-8]`.
    #[error("the property {0} has a value that is not allowed {statement}", statement = self.statement())]
    PropertyValue(Property),
    /// `[MQTT-3.3.4-6]`
    #[error("a client must not send a subscription identifier in PUBLISH [MQTT-3.3.4-6]")]
    SubscriptionIdFromClient,
    /// `[MQTT-3.3.2-14]`
    #[error("the response topic is not a topic name: {0} [MQTT-3.3.2-14]")]
    ResponseTopicInvalid(TopicError),
    /// Payload format 1, but the payload is not UTF-8 (MQTT 5.0, 3.3.2.3.2 and 3.1.3.2.3).
    #[error("the payload is said to be UTF-8 and is not [MQTT 5.0, 3.3.2.3.2]")]
    PayloadFormatInvalid,

    /// `[MQTT-3.1.2-1]`: neither `MQTT` nor `MQIsdp`. Closed without a word.
    #[error("the protocol name is not MQTT [MQTT-3.1.2-1]")]
    ProtocolNameUnknown,
    /// `[MQTT-3.1.2-2]`
    #[error("protocol level {level} is not supported [MQTT-3.1.2-2]")]
    ProtocolLevelUnsupported {
        /// In whose form CONNACK is understood by such a client.
        answer: ProtocolVersion,
        /// The level byte.
        level: u8,
    },
    /// `[MQTT-3.1.2-3]`
    #[error("the reserved connect flag is set [MQTT-3.1.2-3]")]
    ConnectFlagReserved,
    /// `[MQTT-3.1.2-11]`, 3.1.1 `[MQTT-3.1.2-13]`
    #[error("a will QoS without a will [MQTT-3.1.2-11]")]
    WillQoSWithoutWill,
    /// `[MQTT-3.1.2-12]`, 3.1.1 `[MQTT-3.1.2-14]`
    #[error("the will QoS is 3 [MQTT-3.1.2-12]")]
    WillQoSReserved,
    /// `[MQTT-3.1.2-13]`, 3.1.1 `[MQTT-3.1.2-15]`
    #[error("will retain without a will [MQTT-3.1.2-13]")]
    WillRetainWithoutWill,
    /// 3.1.1 `[MQTT-3.1.2-22]`; v5 allows it.
    #[error("a password without a user name [MQTT-3.1.2-22 of 3.1.1]")]
    PasswordWithoutUsername,
    /// The will's topic: `[MQTT-3.3.2-2]`, `[MQTT-4.7.3-1]`.
    #[error("the will topic is not a topic name: {0} {statement}", statement = self.statement())]
    WillTopicInvalid(TopicError),
    /// Authentication data without a method (MQTT 5.0, 3.1.2.11.10).
    #[error("authentication data without an authentication method [MQTT 5.0, 3.1.2.11.10]")]
    AuthDataWithoutMethod,
    /// A CONNECT that breaks a rule after its version could be read: `[MQTT-3.1.4-1]`.
    #[error("in CONNECT: {violation}")]
    InConnect {
        /// What the client speaks.
        version: ProtocolVersion,
        /// The rule broken.
        violation: Box<Violation>,
    },
    /// `[MQTT-3.2.2-1]`
    #[error("the reserved acknowledge flags of CONNACK are set [MQTT-3.2.2-1]")]
    ConnAckFlagsReserved,
    /// `[MQTT-3.2.2-6]`, 3.1.1 `[MQTT-3.2.2-4]`
    #[error("a refusal with session present [MQTT-3.2.2-6]")]
    SessionPresentOnRefusal,

    /// `[MQTT-3.3.1-4]`
    #[error("the QoS is 3 [MQTT-3.3.1-4]")]
    PublishQoSReserved,
    /// `[MQTT-3.3.1-2]`
    #[error("DUP on QoS 0 [MQTT-3.3.1-2]")]
    DupOnQoS0,
    /// The topic of a PUBLISH: `[MQTT-3.3.2-2]`, `[MQTT-4.7.3-1]`.
    #[error("the topic is not a topic name: {0} {statement}", statement = self.statement())]
    TopicNameInvalid(TopicError),
    /// An empty topic without an alias (MQTT 5.0, 3.3.2.1).
    #[error("neither topic nor topic alias [MQTT 5.0, 3.3.2.1]")]
    TopicMissing,

    /// A filter: `[MQTT-4.7.1-1]`, `[MQTT-4.7.1-2]`, `[MQTT-4.7.3-1]`, `[MQTT-4.8.2-1]`, `[MQTT-4.8.2-2]`.
    #[error("a topic filter is not valid: {0} {statement}", statement = self.statement())]
    TopicFilterInvalid(TopicError),
    /// `[MQTT-3.8.3-2]`, `[MQTT-3.10.3-2]`
    #[error("{0} names no topic filter {statement}", statement = self.statement())]
    NoFilters(PacketType),
    /// `[MQTT-3.8.3-5]`, 3.1.1 `[MQTT-3-8.3-4]`
    #[error("the reserved subscription options are set [MQTT-3.8.3-5]")]
    SubscribeOptionsReserved,
    /// 3.1.1 `[MQTT-3-8.3-4]`; MQTT 5.0, 3.8.3.1.
    #[error("a subscription's QoS is 3 [MQTT 5.0, 3.8.3.1]")]
    SubscribeQoSReserved,
    /// MQTT 5.0, 3.8.3.1.
    #[error("a subscription's retain handling is 3 [MQTT 5.0, 3.8.3.1]")]
    RetainHandlingReserved,
    /// `[MQTT-3.8.3-4]`
    #[error("no local on a shared subscription [MQTT-3.8.3-4]")]
    NoLocalOnShared,
    /// `[MQTT-3.8.4-6]`: at least one filter was asked for, so at least one is answered.
    #[error("{0} holds no reason code [MQTT-3.8.4-6]")]
    NoReasons(PacketType),

    /// `[MQTT-3.14.2-2]`
    #[error("a server must not send a session expiry interval in DISCONNECT [MQTT-3.14.2-2]")]
    SessionExpiryFromServer,
    /// AUTH without a method (MQTT 5.0, 3.15.2.2.2).
    #[error("AUTH without an authentication method [MQTT 5.0, 3.15.2.2.2]")]
    AuthMethodMissing,
}

impl Violation {
    /// The reason code with which it is answered.
    pub fn reason(&self) -> ReasonCode {
        match self {
            Self::InConnect { violation, .. } => violation.reason(),
            Self::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::ProtocolNameUnknown | Self::ProtocolLevelUnsupported { .. } => {
                ReasonCode::UnsupportedProtocolVersion
            }
            Self::TopicNameInvalid(_) | Self::WillTopicInvalid(_) => ReasonCode::TopicNameInvalid,
            Self::TopicFilterInvalid(_) => ReasonCode::TopicFilterInvalid,
            Self::PayloadFormatInvalid => ReasonCode::PayloadFormatInvalid,
            // MQTT 5.0, 3.3.4.
            Self::PropertyValue(Property::TopicAlias) => ReasonCode::TopicAliasInvalid,
            Self::ReservedPacketType(_)
            | Self::ReservedFlags { .. }
            | Self::VarintTooLong
            | Self::VarintNotMinimal
            | Self::Truncated
            | Self::TrailingBytes { .. }
            | Self::IllFormedUtf8
            | Self::NulInString
            | Self::PropertyUnknown(_)
            | Self::PropertyNotAllowed { .. }
            | Self::ConnectFlagReserved
            | Self::WillQoSReserved
            | Self::PublishQoSReserved
            | Self::SubscribeOptionsReserved => ReasonCode::MalformedPacket,
            _ => ReasonCode::ProtocolError,
        }
    }

    /// The statement of MQTT 5.0 that is broken, `[MQTT-…]`; where it has no number, its section,
    /// `[MQTT 5.0, …]`; for what only 3.1.1 forbids, that standard's.
    pub fn statement(&self) -> &'static str {
        match self {
            Self::FirstPacketNotConnect(_) => "[MQTT-3.1.0-1]",
            Self::SecondConnect => "[MQTT-3.1.0-2]",
            Self::ReservedPacketType(_) | Self::WrongDirection(_) => "[MQTT 5.0, 2.1.2]",
            Self::ReservedFlags { packet, .. } => flags_statement(*packet),
            Self::VarintTooLong => "[MQTT 5.0, 1.5.5]",
            Self::VarintNotMinimal => "[MQTT-1.5.5-1]",
            Self::PacketTooLarge { .. } => "[MQTT-3.2.2-15]",
            Self::Truncated | Self::TrailingBytes { .. } => "[MQTT 5.0, 1.2]",
            Self::IllFormedUtf8 => "[MQTT-1.5.4-1]",
            Self::NulInString => "[MQTT-1.5.4-2]",
            Self::PacketIdZero => "[MQTT-2.2.1-3]",
            Self::ReasonNotAllowed { packet, .. } => reason_statement(*packet),
            Self::PropertyUnknown(_) | Self::PropertyNotAllowed { .. } | Self::PropertyTwice(_) => {
                "[MQTT 5.0, 2.2.2.2]"
            }
            Self::PropertyValue(property) => property.value_statement(),
            Self::SubscriptionIdFromClient => "[MQTT-3.3.4-6]",
            Self::ResponseTopicInvalid(_) => "[MQTT-3.3.2-14]",
            Self::PayloadFormatInvalid => "[MQTT 5.0, 3.3.2.3.2]",
            Self::ProtocolNameUnknown => "[MQTT-3.1.2-1]",
            Self::ProtocolLevelUnsupported { .. } => "[MQTT-3.1.2-2]",
            Self::ConnectFlagReserved => "[MQTT-3.1.2-3]",
            Self::WillQoSWithoutWill => "[MQTT-3.1.2-11]",
            Self::WillQoSReserved => "[MQTT-3.1.2-12]",
            Self::WillRetainWithoutWill => "[MQTT-3.1.2-13]",
            Self::PasswordWithoutUsername => "[MQTT-3.1.2-22 of 3.1.1]",
            Self::WillTopicInvalid(error)
            | Self::TopicNameInvalid(error)
            | Self::TopicFilterInvalid(error) => topic_statement(*error),
            Self::AuthDataWithoutMethod => "[MQTT 5.0, 3.1.2.11.10]",
            Self::InConnect { violation, .. } => violation.statement(),
            Self::ConnAckFlagsReserved => "[MQTT-3.2.2-1]",
            Self::SessionPresentOnRefusal => "[MQTT-3.2.2-6]",
            Self::PublishQoSReserved => "[MQTT-3.3.1-4]",
            Self::DupOnQoS0 => "[MQTT-3.3.1-2]",
            Self::TopicMissing => "[MQTT 5.0, 3.3.2.1]",
            Self::NoFilters(PacketType::Unsubscribe) => "[MQTT-3.10.3-2]",
            Self::NoFilters(_) => "[MQTT-3.8.3-2]",
            Self::SubscribeOptionsReserved => "[MQTT-3.8.3-5]",
            Self::SubscribeQoSReserved | Self::RetainHandlingReserved => "[MQTT 5.0, 3.8.3.1]",
            Self::NoLocalOnShared => "[MQTT-3.8.3-4]",
            Self::NoReasons(_) => "[MQTT-3.8.4-6]",
            Self::SessionExpiryFromServer => "[MQTT-3.14.2-2]",
            Self::AuthMethodMissing => "[MQTT 5.0, 3.15.2.2.2]",
        }
    }

    /// The CONNACK that a refused CONNECT is answered with, and in which version's form; `None` when the
    /// connection is closed without a word: no CONNECT was read, its protocol is not MQTT, or it is a
    /// malformed one of v3 (3.1.1 `[MQTT-3.1.4-1]`).
    pub fn connack(&self) -> Option<(ProtocolVersion, ConnAck)> {
        let version = match self {
            Self::ProtocolLevelUnsupported { answer, .. } => *answer,
            Self::InConnect { version: ProtocolVersion::V5, .. } => ProtocolVersion::V5,
            _ => return None,
        };
        Some((version, ConnAck { reason: self.reason(), ..ConnAck::default() }))
    }
}

fn topic_statement(error: TopicError) -> &'static str {
    match error {
        TopicError::Empty => "[MQTT-4.7.3-1]",
        TopicError::TooLong => "[MQTT-4.7.3-3]",
        TopicError::Nul => "[MQTT-4.7.3-2]",
        TopicError::WildcardInName => "[MQTT-3.3.2-2]",
        TopicError::MultiLevelWildcard => "[MQTT-4.7.1-1]",
        TopicError::SingleLevelWildcard => "[MQTT-4.7.1-2]",
        TopicError::ShareName => "[MQTT-4.8.2-2]",
    }
}

fn flags_statement(packet: PacketType) -> &'static str {
    match packet {
        PacketType::PubRel => "[MQTT-3.6.1-1]",
        PacketType::Subscribe => "[MQTT-3.8.1-1]",
        PacketType::Unsubscribe => "[MQTT-3.10.1-1]",
        PacketType::Disconnect => "[MQTT-3.14.1-1]",
        PacketType::Auth => "[MQTT-3.15.1-1]",
        _ => "[MQTT-2.1.3-1]",
    }
}

fn reason_statement(packet: PacketType) -> &'static str {
    match packet {
        PacketType::PubAck => "[MQTT-3.4.2-1]",
        PacketType::PubRec => "[MQTT-3.5.2-1]",
        PacketType::PubRel => "[MQTT-3.6.2-1]",
        PacketType::PubComp => "[MQTT-3.7.2-1]",
        PacketType::SubAck => "[MQTT-3.9.3-2]",
        PacketType::UnsubAck => "[MQTT-3.11.3-2]",
        PacketType::Disconnect => "[MQTT-3.14.2-1]",
        PacketType::Auth => "[MQTT-3.15.2-1]",
        _ => "[MQTT-3.2.2-8]",
    }
}
