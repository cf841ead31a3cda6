//! CONNECT: a client asks to be let in (MQTT 5.0, 3.1; MQTT 3.1.1, 3.1; MQTT V3.1, 3.1).

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use bytestring::ByteString;

use super::PacketType;
use crate::data_plane::protocol::property::{
    Properties, Property, PublishProperties, Trim, UserProperties, put_properties,
};
use crate::data_plane::protocol::violation::Violation;
use crate::data_plane::protocol::wire::{self, Reader};
use crate::model::{ProtocolVersion, QoS, TopicName};

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

const FLAG_RESERVED: u8 = 0b0000_0001;
const FLAG_CLEAN_START: u8 = 0b0000_0010;
const FLAG_WILL: u8 = 0b0000_0100;
const WILL_QOS_SHIFT: u8 = 3;
const FLAG_WILL_RETAIN: u8 = 0b0010_0000;
const FLAG_PASSWORD: u8 = 0b0100_0000;
const FLAG_USERNAME: u8 = 0b1000_0000;

impl Connect {
    /// A CONNECT that says nothing but who comes: no clean start, no keep-alive, and in v5 no property.
    pub fn bare(version: ProtocolVersion, client_id: ByteString) -> Self {
        Self {
            version,
            clean_start: false,
            keep_alive_secs: 0,
            client_id,
            will: None,
            credentials: Credentials::default(),
            session_expiry_secs: None,
            receive_maximum: None,
            packet_bytes_max: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            user_properties: UserProperties::default(),
            auth_method: None,
            auth_data: None,
        }
    }

    /// Decodes the packet's content after the fixed header.
    ///
    /// From the moment the version is known, violations tell it, so that they can be answered.
    pub(in crate::data_plane::protocol) fn decode(reader: &mut Reader<'_>) -> Result<Self, Violation> {
        let version = read_version(reader)?;
        decode_after_version(reader, version)
            .map_err(|violation| Violation::InConnect { version, violation: Box::new(violation) })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (name, level) = match self.version {
            ProtocolVersion::V3_1 => ("MQIsdp", 3),
            ProtocolVersion::V3_1_1 => ("MQTT", 4),
            ProtocolVersion::V5 => ("MQTT", 5),
        };
        wire::put_string(name, out);
        out.extend_from_slice(&[level, self.flags()]);
        wire::put_u16(self.keep_alive_secs, out);
        if self.version.is_v5() {
            self.encode_properties(out);
        }
        wire::put_string(&self.client_id, out);
        if let Some(will) = &self.will {
            if self.version.is_v5() {
                will.encode_properties(out);
            }
            wire::put_string(will.topic.as_str(), out);
            wire::put_binary(&will.payload, out);
        }
        if let Some(username) = &self.credentials.username {
            wire::put_string(username, out);
        }
        if let Some(password) = &self.credentials.password {
            wire::put_binary(password, out);
        }
    }

    fn flags(&self) -> u8 {
        let mut flags = if self.clean_start { FLAG_CLEAN_START } else { 0 };
        if let Some(will) = &self.will {
            flags |= FLAG_WILL | u8::from(will.qos) << WILL_QOS_SHIFT;
            flags |= if will.retain { FLAG_WILL_RETAIN } else { 0 };
        }
        flags |= if self.credentials.username.is_some() { FLAG_USERNAME } else { 0 };
        flags | if self.credentials.password.is_some() { FLAG_PASSWORD } else { 0 }
    }

    fn encode_properties(&self, out: &mut Vec<u8>) {
        put_properties(out, Trim::Nothing, |put| {
            put.u32(Property::SessionExpiryInterval, self.session_expiry_secs);
            put.u16(Property::ReceiveMaximum, self.receive_maximum.map(NonZeroU16::get));
            put.u32(Property::MaximumPacketSize, self.packet_bytes_max.map(NonZeroU32::get));
            put.u16(
                Property::TopicAliasMaximum,
                Some(self.topic_alias_maximum).filter(|maximum| *maximum > 0),
            );
            put.byte(Property::RequestResponseInformation, self.request_response_information.then_some(1));
            put.byte(Property::RequestProblemInformation, (!self.request_problem_information).then_some(0));
            put.user(&self.user_properties);
            put.string(Property::AuthenticationMethod, self.auth_method.as_ref());
            put.binary(Property::AuthenticationData, self.auth_data.as_ref());
        });
    }

    fn decode_properties(&mut self, reader: &mut Reader<'_>) -> Result<(), Violation> {
        let mut properties = Properties::read(reader, PacketType::Connect)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::SessionExpiryInterval => self.session_expiry_secs = Some(properties.u32()?),
                Property::ReceiveMaximum => self.receive_maximum = Some(properties.nonzero_u16(property)?),
                Property::MaximumPacketSize => {
                    self.packet_bytes_max = Some(properties.nonzero_u32(property)?);
                }
                Property::TopicAliasMaximum => self.topic_alias_maximum = properties.u16()?,
                Property::RequestResponseInformation => {
                    self.request_response_information = properties.flag(property)?;
                }
                Property::RequestProblemInformation => {
                    self.request_problem_information = properties.flag(property)?;
                }
                Property::UserProperty => self.user_properties.push(properties.user()?),
                Property::AuthenticationMethod => self.auth_method = Some(properties.string()?),
                Property::AuthenticationData => self.auth_data = Some(properties.binary()?),
                other => return properties.refuse(other),
            }
        }
        if self.auth_data.is_some() && self.auth_method.is_none() {
            return Err(Violation::AuthDataWithoutMethod);
        }
        Ok(())
    }
}

impl Will {
    fn decode(reader: &mut Reader<'_>, version: ProtocolVersion, flags: u8) -> Result<Self, Violation> {
        let qos = QoS::try_from(flags >> WILL_QOS_SHIFT & 3).map_err(|_| Violation::WillQoSReserved)?;
        let mut properties = PublishProperties::default();
        let (mut delay_secs, mut payload_is_utf8) = (0, false);
        if version.is_v5() {
            (delay_secs, payload_is_utf8) = properties.read_will(reader)?;
        }
        let topic = TopicName::new(reader.string()?).map_err(Violation::WillTopicInvalid)?;
        let payload = reader.binary()?;
        if payload_is_utf8 && std::str::from_utf8(&payload).is_err() {
            return Err(Violation::PayloadFormatInvalid);
        }
        let retain = flags & FLAG_WILL_RETAIN != 0;
        Ok(Self { topic, payload, qos, retain, delay_secs, properties })
    }

    fn encode_properties(&self, out: &mut Vec<u8>) {
        put_properties(out, Trim::Nothing, |put| {
            put.u32(Property::WillDelayInterval, Some(self.delay_secs).filter(|secs| *secs > 0));
            put.u32(Property::MessageExpiryInterval, self.properties.message_expiry_secs);
            put.raw(&self.properties.forwarded.0);
        });
    }
}

/// Reads the protocol name and level (`[MQTT-3.1.2-1]`, `[MQTT-3.1.2-2]`).
pub(in crate::data_plane::protocol) fn read_version(
    reader: &mut Reader<'_>,
) -> Result<ProtocolVersion, Violation> {
    let bytes = usize::from(reader.u16()?);
    let name = reader.take(bytes)?;
    let is_old_name = match name {
        b"MQTT" => false,
        b"MQIsdp" => true,
        _ => return Err(Violation::ProtocolNameUnknown),
    };
    match (is_old_name, reader.u8()?) {
        (true, 3) => Ok(ProtocolVersion::V3_1),
        (false, 4) => Ok(ProtocolVersion::V3_1_1),
        (false, 5) => Ok(ProtocolVersion::V5),
        (_, level) => {
            Err(Violation::ProtocolLevelUnsupported { answer: answer_version(is_old_name, level), level })
        }
    }
}

/// The version in whose form a client of an unsupported level reads CONNACK: from level 5 on it has
/// properties. Bit 7 is how bridges of old brokers mark themselves.
fn answer_version(is_old_name: bool, level: u8) -> ProtocolVersion {
    match (is_old_name, level & 0x7F) {
        (true, _) => ProtocolVersion::V3_1,
        (false, ..5) => ProtocolVersion::V3_1_1,
        (false, _) => ProtocolVersion::V5,
    }
}

fn decode_after_version(reader: &mut Reader<'_>, version: ProtocolVersion) -> Result<Connect, Violation> {
    let flags = reader.u8()?;
    check_flags(flags, version)?;
    let mut connect = Connect {
        clean_start: flags & FLAG_CLEAN_START != 0,
        keep_alive_secs: reader.u16()?,
        ..Connect::bare(version, ByteString::new())
    };
    if version.is_v5() {
        connect.decode_properties(reader)?;
    }
    connect.client_id = reader.string()?;
    if flags & FLAG_WILL != 0 {
        connect.will = Some(Will::decode(reader, version, flags)?);
    }
    // V3.1, 3.1: the end of the packet takes precedence over these two flags.
    let is_given = |flag, reader: &Reader<'_>| {
        flags & flag != 0 && !(version == ProtocolVersion::V3_1 && reader.is_empty())
    };
    if is_given(FLAG_USERNAME, reader) {
        connect.credentials.username = Some(reader.string()?);
    }
    if is_given(FLAG_PASSWORD, reader) {
        connect.credentials.password = Some(reader.binary()?);
    }
    reader.finish()?;
    Ok(connect)
}

/// V3.1 leaves the reserved flag open and disregards the will's flags when there is no will.
fn check_flags(flags: u8, version: ProtocolVersion) -> Result<(), Violation> {
    let is_password_alone = flags & FLAG_PASSWORD != 0 && flags & FLAG_USERNAME == 0;
    if is_password_alone && !version.is_v5() {
        return Err(Violation::PasswordWithoutUsername);
    }
    if version == ProtocolVersion::V3_1 {
        return Ok(());
    }
    if flags & FLAG_RESERVED != 0 {
        Err(Violation::ConnectFlagReserved)
    } else if flags & FLAG_WILL != 0 {
        Ok(())
    } else if flags >> WILL_QOS_SHIFT & 3 != 0 {
        Err(Violation::WillQoSWithoutWill)
    } else if flags & FLAG_WILL_RETAIN != 0 {
        Err(Violation::WillRetainWithoutWill)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_plane::protocol::Packet;
    use crate::data_plane::protocol::testing::{from_stranger, to_bytes};

    fn connect(bytes: &[u8]) -> Connect {
        match from_stranger(bytes) {
            Ok(Packet::Connect(connect)) => {
                let encoded = to_bytes(&Packet::Connect(connect.clone()), connect.version);
                assert_eq!(encoded, bytes, "encoded again");
                *connect
            }
            other => panic!("{other:?}"),
        }
    }

    /// The variable header of MQTT 5.0, figure 3-6, with a payload for its flags.
    #[test]
    fn reads_the_standards_example() {
        let connect = connect(
            b"\x10\x26\x00\x04MQTT\x05\xce\x00\x0a\x05\x11\x00\x00\x00\x0a\
              \x00\x01c\x05\x18\x00\x00\x00\x07\x00\x01t\x00\x02\x00\xff\x00\x01u\x00\x01p",
        );
        assert_eq!(connect.version, ProtocolVersion::V5);
        assert!(connect.clean_start);
        assert_eq!((connect.keep_alive_secs, connect.session_expiry_secs), (10, Some(10)));
        let will = connect.will.expect("a will");
        assert_eq!((will.topic.as_str(), &will.payload[..]), ("t", &[0, 255][..]));
        assert_eq!((will.qos, will.retain, will.delay_secs), (QoS::AtLeastOnce, false, 7));
        assert_eq!(connect.credentials.username.as_deref(), Some("u"));
        assert_eq!(connect.credentials.password.as_deref(), Some(&b"p"[..]));
    }

    /// MQTT 3.1.1, figure 3.6, and the same in V3.1.
    #[test]
    fn reads_both_versions_3() {
        let payload = b"\x00\x01c\x00\x01t\x00\x00\x00\x01u\x00\x01p";
        for (head, version) in [
            (&b"\x10\x1a\x00\x06MQIsdp\x03\xee\x00\x0a"[..], ProtocolVersion::V3_1),
            (b"\x10\x18\x00\x04MQTT\x04\xee\x00\x0a", ProtocolVersion::V3_1_1),
        ] {
            let connect = connect(&[head, payload].concat());
            assert_eq!(connect.version, version);
            let will = connect.will.expect("a will");
            assert!(will.retain && will.payload.is_empty());
            assert_eq!(connect.session_expiry_secs, None);
        }
    }

    #[test]
    fn reads_every_property() {
        let connect = connect(
            b"\x10\x37\x00\x04MQTT\x05\x00\x00\x00\x2a\
              \x11\xff\xff\xff\xff\x21\x00\x14\x27\x00\x00\x04\x00\x22\x00\x0a\x19\x01\x17\x00\
              \x26\x00\x01k\x00\x01v\x26\x00\x01k\x00\x00\x15\x00\x01m\x16\x00\x02\x00\x01\x00\x00",
        );
        assert_eq!(connect.session_expiry_secs, Some(u32::MAX));
        assert_eq!(connect.receive_maximum.map(NonZeroU16::get), Some(20));
        assert_eq!(connect.packet_bytes_max.map(NonZeroU32::get), Some(1024));
        assert_eq!(connect.topic_alias_maximum, 10);
        assert!(connect.request_response_information && !connect.request_problem_information);
        assert_eq!(connect.user_properties, [("k".into(), "v".into()), ("k".into(), "".into())]);
        assert_eq!(connect.auth_method.as_deref(), Some("m"));
        assert_eq!(connect.auth_data.as_deref(), Some(&[0, 1][..]));
        assert!(connect.client_id.is_empty());
    }

    /// V3.1, 3.1: what it leaves open that 3.1.1 forbids.
    #[test]
    fn leaves_to_v3_1_its_freedoms() {
        let read = |bytes: &[u8]| match from_stranger(bytes) {
            Ok(Packet::Connect(connect)) => connect,
            other => panic!("{other:?}"),
        };
        // Will QoS 3 and will retain without a will, the reserved flag.
        let connect = read(b"\x10\x0f\x00\x06MQIsdp\x03\x39\x00\x00\x00\x01c");
        assert_eq!(connect.will, None);
        // Flags for a user name and a password that are not there.
        let connect = read(b"\x10\x0f\x00\x06MQIsdp\x03\xc0\x00\x00\x00\x01c");
        assert_eq!(connect.credentials, Credentials::default());
        let connect = read(b"\x10\x12\x00\x06MQIsdp\x03\xc0\x00\x00\x00\x01c\x00\x01u");
        assert_eq!(connect.credentials.username.as_deref(), Some("u"));
        assert_eq!(connect.credentials.password, None);
    }

    #[test]
    fn v5_takes_a_password_without_a_user_name() {
        let connect = connect(b"\x10\x11\x00\x04MQTT\x05\x40\x00\x00\x00\x00\x01c\x00\x01p");
        assert_eq!(connect.credentials.password.as_deref(), Some(&b"p"[..]));
    }

    #[test]
    fn does_not_show_the_password() {
        let connect = connect(b"\x10\x17\x00\x04MQTT\x05\xc0\x00\x00\x00\x00\x01c\x00\x01u\x00\x04tops");
        assert!(!format!("{connect:?}").contains("tops"));
    }
}
