//! SUBACK: the server's answer to SUBSCRIBE (MQTT 5.0, 3.9).

use bytestring::ByteString;

use super::{Context, PacketId, PacketType};
use crate::data_plane::protocol::property::{Trim, UserProperties, put_properties, read_diagnostics};
use crate::data_plane::protocol::reason::ReasonCode;
use crate::data_plane::protocol::violation::Violation;
use crate::data_plane::protocol::wire::{self, Reader};
use crate::model::ProtocolVersion;

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

impl SubAck {
    pub(super) fn decode(reader: &mut Reader<'_>, context: Context) -> Result<Self, Violation> {
        let packet_id = reader.packet_id()?;
        let (reason_string, user_properties) = if context.version.is_v5() {
            read_diagnostics(reader, PacketType::SubAck)?
        } else {
            Default::default()
        };
        let mut reasons = Vec::with_capacity(reader.remaining());
        while !reader.is_empty() {
            let code = reader.u8()?;
            let reason = ReasonCode::read(code, PacketType::SubAck, context.sender)?;
            // v3 knows one failure only.
            if !context.version.is_v5() && reason.is_error() && reason != ReasonCode::UnspecifiedError {
                return Err(Violation::ReasonNotAllowed { packet: PacketType::SubAck, code });
            }
            reasons.push(reason);
        }
        if reasons.is_empty() {
            return Err(Violation::NoReasons(PacketType::SubAck));
        }
        Ok(Self { packet_id, reasons, reason_string, user_properties })
    }

    pub(super) fn encode(&self, version: ProtocolVersion, trim: Trim, out: &mut Vec<u8>) {
        wire::put_u16(self.packet_id.get(), out);
        if version.is_v5() {
            put_properties(out, trim, |put| {
                put.diagnostics(self.reason_string.as_ref(), &self.user_properties);
            });
        }
        out.extend(self.reasons.iter().map(|reason| match reason {
            failure if failure.is_error() && !version.is_v5() => ReasonCode::UnspecifiedError as u8,
            reason => *reason as u8,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_plane::protocol::Packet;
    use crate::data_plane::protocol::testing::{V3_1_1, V5, from_server, to_bytes};

    #[test]
    fn a_failure_goes_to_v3_as_0x80() {
        let suback = |reasons: &[ReasonCode]| {
            Packet::SubAck(SubAck {
                packet_id: PacketId::MIN,
                reasons: reasons.to_vec(),
                reason_string: None,
                user_properties: UserProperties::default(),
            })
        };
        let granted = [ReasonCode::Success, ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS2];
        let packet = suback(&[&granted[..], &[ReasonCode::QuotaExceeded]].concat());
        assert_eq!(to_bytes(&packet, V5), b"\x90\x07\x00\x01\x00\x00\x01\x02\x97");
        assert_eq!(from_server(V5, b"\x90\x07\x00\x01\x00\x00\x01\x02\x97").as_ref(), Ok(&packet));
        assert_eq!(to_bytes(&packet, V3_1_1), b"\x90\x06\x00\x01\x00\x01\x02\x80");
        let read = from_server(V3_1_1, b"\x90\x06\x00\x01\x00\x01\x02\x80");
        assert_eq!(read, Ok(suback(&[&granted[..], &[ReasonCode::UnspecifiedError]].concat())));
    }
}
