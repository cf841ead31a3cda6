//! AUTH: one step of enhanced authentication, v5 only (MQTT 5.0, 3.15).

use bytes::Bytes;
use bytestring::ByteString;

use super::{Context, PacketType};
use crate::data_plane::protocol::property::{Properties, Property, Trim, UserProperties, put_reason};
use crate::data_plane::protocol::reason::ReasonCode;
use crate::data_plane::protocol::violation::Violation;
use crate::data_plane::protocol::wire::Reader;

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

impl Auth {
    /// An empty packet is success without properties (MQTT 5.0, 3.15.2.1).
    pub(super) fn decode(reader: &mut Reader<'_>, context: Context) -> Result<Self, Violation> {
        let is_empty = reader.is_empty();
        let code = if is_empty { ReasonCode::Success as u8 } else { reader.u8()? };
        let mut auth = Self {
            reason: ReasonCode::read(code, PacketType::Auth, context.sender)?,
            method: None,
            data: None,
            reason_string: None,
            user_properties: UserProperties::default(),
        };
        if is_empty {
            return Ok(auth);
        }
        let mut properties = Properties::read(reader, PacketType::Auth)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::AuthenticationMethod => auth.method = Some(properties.string()?),
                Property::AuthenticationData => auth.data = Some(properties.binary()?),
                Property::ReasonString => auth.reason_string = Some(properties.string()?),
                Property::UserProperty => auth.user_properties.push(properties.user()?),
                other => return properties.refuse(other),
            }
        }
        if auth.method.is_none() {
            return Err(Violation::AuthMethodMissing);
        }
        reader.finish()?;
        Ok(auth)
    }

    /// Appends the content in the shortest form.
    pub(super) fn encode(&self, trim: Trim, out: &mut Vec<u8>) {
        put_reason(out, self.reason, trim, |put| {
            put.string(Property::AuthenticationMethod, self.method.as_ref());
            put.binary(Property::AuthenticationData, self.data.as_ref());
            put.diagnostics(self.reason_string.as_ref(), &self.user_properties);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_plane::protocol::Packet;
    use crate::data_plane::protocol::testing::{V5, from_client, from_server, to_bytes};

    #[test]
    fn carries_a_step_both_ways() {
        let auth = Packet::Auth(Box::new(Auth {
            reason: ReasonCode::ContinueAuthentication,
            method: Some("SCRAM".into()),
            data: Some(Bytes::from_static(b"\x00\x01")),
            reason_string: Some("r".into()),
            user_properties: vec![("k".into(), "v".into())],
        }));
        let bytes =
            b"\xf0\x1a\x18\x18\x15\x00\x05SCRAM\x16\x00\x02\x00\x01\x1f\x00\x01r\x26\x00\x01k\x00\x01v";
        assert_eq!(to_bytes(&auth, V5), bytes);
        assert_eq!(from_client(V5, bytes).as_ref(), Ok(&auth));
        assert_eq!(from_server(V5, bytes), Ok(auth));
    }

    /// MQTT 5.0, 3.15.2.1.
    #[test]
    fn a_success_without_properties_is_empty() {
        let done = Auth {
            reason: ReasonCode::Success,
            method: None,
            data: None,
            reason_string: None,
            user_properties: UserProperties::default(),
        };
        let done = Packet::Auth(Box::new(done));
        assert_eq!(to_bytes(&done, V5), b"\xf0\x00");
        assert_eq!(from_server(V5, b"\xf0\x00"), Ok(done));
    }
}
