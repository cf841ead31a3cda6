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
        if !context.version.is_v5() || reader.is_empty() {
            return Ok(disconnect);
        }
        disconnect.reason = ReasonCode::read(reader.u8()?, PacketType::Disconnect, context.sender)?;
        if reader.is_empty() {
            return Ok(disconnect);
        }
        let mut properties = Properties::read(reader, PacketType::Disconnect)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::SessionExpiryInterval if !context.is_from_client() => {
                    return Err(Violation::SessionExpiryFromServer);
                }
                Property::SessionExpiryInterval => disconnect.session_expiry_secs = Some(properties.u32()?),
                Property::ReasonString => disconnect.reason_string = Some(properties.string()?),
                Property::UserProperty => disconnect.user_properties.push(properties.user()?),
                Property::ServerReference => disconnect.server_reference = Some(properties.string()?),
                other => return properties.refuse(other),
            }
        }
        Ok(disconnect)
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
