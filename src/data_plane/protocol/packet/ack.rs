//! PUBACK, PUBREC, PUBREL, PUBCOMP: the acknowledgements of PUBLISH (MQTT 5.0, 3.4 to 3.7).

use bytestring::ByteString;

use super::{Context, Decoded, Packet, PacketId, PacketType};
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
    pub(super) fn decode(packet: PacketType, reader: &mut Reader<'_>, context: Context) -> Decoded {
        let mut ack = Self::new(reader.packet_id()?, ReasonCode::Success);
        if context.version.is_v5() && !reader.is_empty() {
            ack.reason = ReasonCode::read(reader.u8()?, packet, context.sender)?;
            if !reader.is_empty() {
                (ack.reason_string, ack.user_properties) = read_diagnostics(reader, packet)?;
            }
        }
        reader.finish()?;
        Ok(ack.into_packet(packet))
    }

    /// Decodes `content` where `packet` is one of the four and has nothing but its packet id, as most have:
    /// that needs none of the buffer's memory. `None` for any other.
    pub(in crate::data_plane::protocol) fn decode_bare(packet: PacketType, content: &[u8]) -> Decoded {
        let &[high, low] = content else { return Ok(None) };
        if !matches!(
            packet,
            PacketType::PubAck | PacketType::PubRec | PacketType::PubRel | PacketType::PubComp
        ) {
            return Ok(None);
        }
        let packet_id = PacketId::new(u16::from_be_bytes([high, low])).ok_or(Violation::PacketIdZero)?;
        Ok(Self::new(packet_id, ReasonCode::Success).into_packet(packet))
    }

    fn into_packet(self, packet: PacketType) -> Option<Packet> {
        Some(match packet {
            PacketType::PubAck => Packet::PubAck(self),
            PacketType::PubRec => Packet::PubRec(self),
            PacketType::PubRel => Packet::PubRel(self),
            PacketType::PubComp => Packet::PubComp(self),
            _ => return None,
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_plane::protocol::testing::{V3_1, V3_1_1, V5, from_client, from_server, to_bytes};

    fn ack(id: u16, reason: ReasonCode) -> Ack {
        Ack::new(PacketId::new(id).expect("not 0"), reason)
    }

    #[test]
    fn success_is_an_identifier_alone() {
        let of = |packet: fn(Ack) -> Packet| packet(ack(0x1234, ReasonCode::Success));
        for (packet, first) in [
            (of(Packet::PubAck), 0x40),
            (of(Packet::PubRec), 0x50),
            (of(Packet::PubRel), 0x62),
            (of(Packet::PubComp), 0x70),
        ] {
            for version in [V3_1, V3_1_1, V5] {
                let bytes = [first, 2, 0x12, 0x34];
                assert_eq!(to_bytes(&packet, version), bytes);
                assert_eq!(from_client(version, &bytes).as_ref(), Ok(&packet));
                assert_eq!(from_server(version, &bytes).as_ref(), Ok(&packet));
            }
            // The long forms of the same.
            for bytes in [&[first, 3, 0x12, 0x34, 0][..], &[first, 4, 0x12, 0x34, 0, 0]] {
                assert_eq!(from_client(V5, bytes).as_ref(), Ok(&packet));
            }
        }
    }

    #[test]
    fn a_failure_has_a_reason_and_may_say_more() {
        let mut failed = ack(1, ReasonCode::QuotaExceeded);
        assert_eq!(to_bytes(&Packet::PubRec(failed.clone()), V5), b"\x50\x03\x00\x01\x97");
        assert_eq!(to_bytes(&Packet::PubRec(failed.clone()), V3_1_1), b"\x50\x02\x00\x01");
        failed.reason_string = Some("full".into());
        failed.user_properties.push(("k".into(), "v".into()));
        let bytes = b"\x50\x12\x00\x01\x97\x0e\x1f\x00\x04full\x26\x00\x01k\x00\x01v";
        assert_eq!(to_bytes(&Packet::PubRec(failed.clone()), V5), bytes);
        assert_eq!(from_server(V5, bytes), Ok(Packet::PubRec(failed)));
    }

    /// V3.1 sends PUBREL again with DUP.
    #[test]
    fn v3_1_may_release_twice() {
        let released = Packet::PubRel(ack(1, ReasonCode::Success));
        assert_eq!(from_client(V3_1, b"\x6a\x02\x00\x01"), Ok(released));
        assert!(from_client(V3_1_1, b"\x6a\x02\x00\x01").is_err());
    }
}
