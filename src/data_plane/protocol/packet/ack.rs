//! PUBACK, PUBREC, PUBREL, PUBCOMP: the acknowledgements of PUBLISH (MQTT 5.0, 3.4 to 3.7).

use bytestring::ByteString;

use super::{Context, PacketId, PacketType};
use crate::data_plane::protocol::property::{Trim, UserProperties, put_reason, read_diagnostics};
use crate::data_plane::protocol::reason::ReasonCode;
use crate::data_plane::protocol::violation::Violation;
use crate::data_plane::protocol::wire::{self, Reader};
use crate::model::ProtocolVersion;

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

impl Ack {
    /// Decodes the content of `packet`, one of the four.
    ///
    /// v5 leaves out a reason of success without properties, and the property length when there are no
    /// properties (MQTT 5.0, 3.4.2.1).
    pub(super) fn decode(
        packet: PacketType,
        reader: &mut Reader<'_>,
        context: Context,
    ) -> Result<Self, Violation> {
        let mut ack = Self::new(reader.packet_id()?, ReasonCode::Success);
        if context.version.is_v5() && !reader.is_empty() {
            ack.reason = ReasonCode::read(reader.u8()?, packet, context.sender)?;
            if !reader.is_empty() {
                (ack.reason_string, ack.user_properties) = read_diagnostics(reader, packet)?;
            }
        }
        Ok(ack)
    }

    /// Appends the content in the shortest form.
    pub(super) fn encode(&self, version: ProtocolVersion, trim: Trim, out: &mut Vec<u8>) {
        wire::put_u16(self.packet_id.get(), out);
        if !version.is_v5() {
            return;
        }
        put_reason(out, self.reason, trim, |put| {
            put.diagnostics(self.reason_string.as_ref(), &self.user_properties);
        });
    }
}
