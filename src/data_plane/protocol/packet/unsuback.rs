//! UNSUBACK: the server's answer to UNSUBSCRIBE (MQTT 5.0, 3.11).

use bytestring::ByteString;

use super::{Context, PacketId, PacketType};
use crate::data_plane::protocol::property::{Trim, UserProperties, put_properties, read_diagnostics};
use crate::data_plane::protocol::reason::ReasonCode;
use crate::data_plane::protocol::violation::Violation;
use crate::data_plane::protocol::wire::{self, Reader};
use crate::model::ProtocolVersion;

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

impl UnsubAck {
    pub(super) fn decode(reader: &mut Reader<'_>, context: Context) -> Result<Self, Violation> {
        let mut unsuback = Self {
            packet_id: reader.packet_id()?,
            reasons: Vec::new(),
            reason_string: None,
            user_properties: UserProperties::default(),
        };
        if !context.version.is_v5() {
            reader.finish()?;
            return Ok(unsuback);
        }
        (unsuback.reason_string, unsuback.user_properties) = read_diagnostics(reader, PacketType::UnsubAck)?;
        unsuback.reasons.reserve_exact(reader.remaining());
        while !reader.is_empty() {
            let reason = ReasonCode::read(reader.u8()?, PacketType::UnsubAck, context.sender)?;
            unsuback.reasons.push(reason);
        }
        if unsuback.reasons.is_empty() {
            return Err(Violation::NoReasons(PacketType::UnsubAck));
        }
        Ok(unsuback)
    }

    pub(super) fn encode(&self, version: ProtocolVersion, trim: Trim, out: &mut Vec<u8>) {
        wire::put_u16(self.packet_id.get(), out);
        if version.is_v5() {
            put_properties(out, trim, |put| {
                put.diagnostics(self.reason_string.as_ref(), &self.user_properties);
            });
            out.extend(self.reasons.iter().map(|reason| *reason as u8));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_plane::protocol::Packet;
    use crate::data_plane::protocol::testing::{V3_1_1, V5, from_server, to_bytes};

    #[test]
    fn v3_gets_the_identifier_alone() {
        let mut unsuback = UnsubAck {
            packet_id: PacketId::new(7).expect("not 0"),
            reasons: vec![ReasonCode::Success, ReasonCode::NoSubscriptionExisted],
            reason_string: Some("r".into()),
            user_properties: UserProperties::default(),
        };
        let packet = Packet::UnsubAck(unsuback.clone());
        let v5 = b"\xb0\x09\x00\x07\x04\x1f\x00\x01r\x00\x11";
        assert_eq!(to_bytes(&packet, V5), v5);
        assert_eq!(from_server(V5, v5).as_ref(), Ok(&packet));
        assert_eq!(to_bytes(&packet, V3_1_1), b"\xb0\x02\x00\x07");
        unsuback.reasons.clear();
        unsuback.reason_string = None;
        assert_eq!(from_server(V3_1_1, b"\xb0\x02\x00\x07"), Ok(Packet::UnsubAck(unsuback)));
    }
}
