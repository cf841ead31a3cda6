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
