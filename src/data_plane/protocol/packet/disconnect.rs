//! DISCONNECT: goodbye, from either side in v5, from the client in v3 (MQTT 5.0, 3.14).

use bytestring::ByteString;

use super::{Context, PacketType};
use crate::data_plane::protocol::property::{Properties, Property, Trim, UserProperties, put_reason};
use crate::data_plane::protocol::reason::ReasonCode;
use crate::data_plane::protocol::violation::Violation;
use crate::data_plane::protocol::wire::Reader;
use crate::model::ProtocolVersion;

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

impl Disconnect {
    /// v5 leaves out a reason of normal disconnection without properties, and the property length when
    /// there are no properties (MQTT 5.0, 3.14.2.1, 3.14.2.2.1).
    pub(super) fn decode(reader: &mut Reader<'_>, context: Context) -> Result<Self, Violation> {
        let mut disconnect = Self::default();
        if context.version.is_v5() && !reader.is_empty() {
            disconnect.reason = ReasonCode::read(reader.u8()?, PacketType::Disconnect, context.sender)?;
            if !reader.is_empty() {
                disconnect.decode_properties(reader, context)?;
            }
        }
        reader.finish()?;
        Ok(disconnect)
    }

    fn decode_properties(&mut self, reader: &mut Reader<'_>, context: Context) -> Result<(), Violation> {
        let mut properties = Properties::read(reader, PacketType::Disconnect)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::SessionExpiryInterval if !context.is_from_client() => {
                    return Err(Violation::SessionExpiryFromServer);
                }
                Property::SessionExpiryInterval => self.session_expiry_secs = Some(properties.u32()?),
                Property::ReasonString => self.reason_string = Some(properties.string()?),
                Property::UserProperty => self.user_properties.push(properties.user()?),
                Property::ServerReference => self.server_reference = Some(properties.string()?),
                other => return properties.refuse(other),
            }
        }
        Ok(())
    }

    /// Appends the content in the shortest form.
    pub(super) fn encode(&self, version: ProtocolVersion, trim: Trim, out: &mut Vec<u8>) {
        if !version.is_v5() {
            return;
        }
        put_reason(out, self.reason, trim, |put| {
            put.u32(Property::SessionExpiryInterval, self.session_expiry_secs);
            put.diagnostics(self.reason_string.as_ref(), &self.user_properties);
            put.string(Property::ServerReference, self.server_reference.as_ref());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_plane::protocol::Packet;
    use crate::data_plane::protocol::testing::{V3_1_1, V5, from_client, from_server, to_bytes};

    fn packet(disconnect: Disconnect) -> Packet {
        Packet::Disconnect(Box::new(disconnect))
    }

    #[test]
    fn a_normal_one_is_empty() {
        let normal = packet(Disconnect::default());
        for version in [V3_1_1, V5] {
            assert_eq!(to_bytes(&normal, version), b"\xe0\x00");
            assert_eq!(from_client(version, b"\xe0\x00").as_ref(), Ok(&normal));
        }
        assert_eq!(from_client(V5, b"\xe0\x01\x00").as_ref(), Ok(&normal));
        assert_eq!(from_client(V5, b"\xe0\x02\x00\x00").as_ref(), Ok(&normal));
    }

    /// MQTT 5.0, figure 3-24.
    #[test]
    fn reads_the_standards_example() {
        let disconnect = packet(Disconnect { session_expiry_secs: Some(0), ..Disconnect::default() });
        let bytes = b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00";
        assert_eq!(to_bytes(&disconnect, V5), bytes);
        assert_eq!(from_client(V5, bytes), Ok(disconnect));
    }

    #[test]
    fn a_server_says_why_and_where_else() {
        let mut moved = Disconnect { reason: ReasonCode::ServerMoved, ..Disconnect::default() };
        assert_eq!(to_bytes(&packet(moved.clone()), V5), b"\xe0\x01\x9d");
        moved.server_reference = Some("b".into());
        moved.reason_string = Some("r".into());
        moved.user_properties.push(("k".into(), "v".into()));
        let bytes = b"\xe0\x11\x9d\x0f\x1f\x00\x01r\x26\x00\x01k\x00\x01v\x1c\x00\x01b";
        assert_eq!(to_bytes(&packet(moved.clone()), V5), bytes);
        assert_eq!(from_server(V5, bytes), Ok(packet(moved)));
    }
}
