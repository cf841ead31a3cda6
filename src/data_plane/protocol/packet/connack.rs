//! CONNACK: the server's answer to CONNECT (MQTT 5.0, 3.2).

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use bytestring::ByteString;

use super::{Context, PacketType};
use crate::data_plane::protocol::property::{Properties, Property, Trim, UserProperties, put_properties};
use crate::data_plane::protocol::reason::{ConnectReturnCode, ReasonCode};
use crate::data_plane::protocol::violation::Violation;
use crate::data_plane::protocol::wire::Reader;
use crate::model::{ProtocolVersion, QoS};

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

impl ConnAck {
    pub(super) fn decode(reader: &mut Reader<'_>, context: Context) -> Result<Self, Violation> {
        let flags = reader.u8()?;
        // V3.1 does not use this byte.
        let has_flags = context.version != ProtocolVersion::V3_1;
        if has_flags && flags & !1 != 0 {
            return Err(Violation::ConnAckFlagsReserved);
        }
        let code = reader.u8()?;
        let reason = if context.version.is_v5() {
            ReasonCode::read(code, PacketType::ConnAck, context.sender)?
        } else {
            ConnectReturnCode::reason_from_byte(code)
                .ok_or(Violation::ReasonNotAllowed { packet: PacketType::ConnAck, code })?
        };
        let mut connack = Self { session_present: has_flags && flags == 1, reason, ..Self::default() };
        if connack.session_present && reason != ReasonCode::Success {
            return Err(Violation::SessionPresentOnRefusal);
        }
        if context.version.is_v5() {
            connack.decode_properties(reader)?;
        }
        reader.finish()?;
        Ok(connack)
    }

    fn decode_properties(&mut self, reader: &mut Reader<'_>) -> Result<(), Violation> {
        let mut properties = Properties::read(reader, PacketType::ConnAck)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::SessionExpiryInterval => self.session_expiry_secs = Some(properties.u32()?),
                Property::ReceiveMaximum => self.receive_maximum = Some(properties.nonzero_u16(property)?),
                Property::MaximumQoS => {
                    let is_one = properties.flag(property)?;
                    self.maximum_qos = Some(if is_one { QoS::AtLeastOnce } else { QoS::AtMostOnce });
                }
                Property::RetainAvailable => self.retain_available = Some(properties.flag(property)?),
                Property::MaximumPacketSize => {
                    self.packet_bytes_max = Some(properties.nonzero_u32(property)?);
                }
                Property::AssignedClientIdentifier => self.assigned_client_id = Some(properties.string()?),
                Property::TopicAliasMaximum => self.topic_alias_maximum = Some(properties.u16()?),
                Property::ReasonString => self.reason_string = Some(properties.string()?),
                Property::UserProperty => self.user_properties.push(properties.user()?),
                Property::WildcardSubscriptionAvailable => {
                    self.wildcard_available = Some(properties.flag(property)?);
                }
                Property::SubscriptionIdentifierAvailable => {
                    self.subscription_ids_available = Some(properties.flag(property)?);
                }
                Property::SharedSubscriptionAvailable => {
                    self.shared_available = Some(properties.flag(property)?);
                }
                Property::ServerKeepAlive => self.server_keep_alive_secs = Some(properties.u16()?),
                Property::ResponseInformation => self.response_information = Some(properties.string()?),
                Property::ServerReference => self.server_reference = Some(properties.string()?),
                Property::AuthenticationMethod => self.auth_method = Some(properties.string()?),
                Property::AuthenticationData => self.auth_data = Some(properties.binary()?),
                other => return properties.refuse(other),
            }
        }
        Ok(())
    }

    pub(super) fn encode(&self, version: ProtocolVersion, trim: Trim, out: &mut Vec<u8>) {
        let session_present = self.session_present && version != ProtocolVersion::V3_1;
        out.push(u8::from(session_present));
        if !version.is_v5() {
            return out.push(self.reason.connect_return_code() as u8);
        }
        out.push(self.reason as u8);
        put_properties(out, trim, |put| {
            put.u32(Property::SessionExpiryInterval, self.session_expiry_secs);
            put.u16(Property::ReceiveMaximum, self.receive_maximum.map(NonZeroU16::get));
            // The property is absent when QoS 2 is served (MQTT 5.0, 3.2.2.3.4).
            let maximum_qos = self.maximum_qos.filter(|qos| *qos != QoS::ExactlyOnce);
            put.byte(Property::MaximumQoS, maximum_qos.map(u8::from));
            put.byte(Property::RetainAvailable, self.retain_available.map(u8::from));
            put.u32(Property::MaximumPacketSize, self.packet_bytes_max.map(NonZeroU32::get));
            put.string(Property::AssignedClientIdentifier, self.assigned_client_id.as_ref());
            put.u16(Property::TopicAliasMaximum, self.topic_alias_maximum);
            put.diagnostics(self.reason_string.as_ref(), &self.user_properties);
            put.byte(Property::WildcardSubscriptionAvailable, self.wildcard_available.map(u8::from));
            put.byte(
                Property::SubscriptionIdentifierAvailable,
                self.subscription_ids_available.map(u8::from),
            );
            put.byte(Property::SharedSubscriptionAvailable, self.shared_available.map(u8::from));
            put.u16(Property::ServerKeepAlive, self.server_keep_alive_secs);
            put.string(Property::ResponseInformation, self.response_information.as_ref());
            put.string(Property::ServerReference, self.server_reference.as_ref());
            put.string(Property::AuthenticationMethod, self.auth_method.as_ref());
            put.binary(Property::AuthenticationData, self.auth_data.as_ref());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_plane::protocol::Packet;
    use crate::data_plane::protocol::testing::{V3_1, V3_1_1, V5, from_server, to_bytes};

    #[test]
    fn v3_has_a_flag_and_a_return_code() {
        let connack = |session_present, reason| {
            Packet::ConnAck(Box::new(ConnAck { session_present, reason, ..ConnAck::default() }))
        };
        let accepted = connack(true, ReasonCode::Success);
        assert_eq!(to_bytes(&accepted, V3_1_1), b"\x20\x02\x01\x00");
        assert_eq!(to_bytes(&accepted, V3_1), b"\x20\x02\x00\x00", "V3.1 does not know session present");
        let full = connack(false, ReasonCode::QuotaExceeded);
        assert_eq!(to_bytes(&full, V3_1_1), b"\x20\x02\x00\x03");
        assert_eq!(from_server(V3_1_1, b"\x20\x02\x01\x00"), Ok(accepted));
        assert_eq!(from_server(V3_1, b"\x20\x02\x01\x05"), Ok(connack(false, ReasonCode::NotAuthorized)));
    }

    #[test]
    fn v5_has_every_property() {
        let connack = Packet::ConnAck(Box::new(ConnAck {
            session_present: true,
            reason: ReasonCode::Success,
            session_expiry_secs: Some(1),
            receive_maximum: NonZeroU16::new(2),
            maximum_qos: Some(QoS::AtLeastOnce),
            retain_available: Some(false),
            packet_bytes_max: NonZeroU32::new(3),
            assigned_client_id: Some("i".into()),
            topic_alias_maximum: Some(4),
            reason_string: Some("r".into()),
            user_properties: vec![("k".into(), "v".into())],
            wildcard_available: Some(true),
            subscription_ids_available: Some(false),
            shared_available: Some(true),
            server_keep_alive_secs: Some(5),
            response_information: Some("ri".into()),
            server_reference: Some("sr".into()),
            auth_method: Some("m".into()),
            auth_data: Some(Bytes::from_static(b"\xff")),
        }));
        let bytes =
            b"\x20\x41\x01\x00\x3e\x11\x00\x00\x00\x01\x21\x00\x02\x24\x01\x25\x00\x27\x00\x00\x00\x03\
            \x12\x00\x01i\x22\x00\x04\x1f\x00\x01r\x26\x00\x01k\x00\x01v\x28\x01\x29\x00\x2a\x01\x13\x00\x05\
            \x1a\x00\x02ri\x1c\x00\x02sr\x15\x00\x01m\x16\x00\x01\xff";
        assert_eq!(to_bytes(&connack, V5), bytes);
        assert_eq!(from_server(V5, bytes), Ok(connack));
    }

    /// MQTT 5.0, 3.2.2.3.4: 2 is told by absence.
    #[test]
    fn does_not_send_a_maximum_qos_of_2() {
        let connack = ConnAck { maximum_qos: Some(QoS::ExactlyOnce), ..ConnAck::default() };
        assert_eq!(to_bytes(&Packet::ConnAck(Box::new(connack)), V5), b"\x20\x03\x00\x00\x00");
    }
}
