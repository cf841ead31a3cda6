//! The decoder of one connection, and the way out.
//!
//! [`Decoder`] cuts packets off the front of a read buffer. It knows which side it reads from and, from
//! CONNECT on, the version; it holds no bytes itself and reserves none, so a peer that declares a large
//! packet and sends a small part of it costs that part.

use std::num::NonZeroU32;

use bytes::{Buf, BytesMut};

use super::packet::{Ack, Connect, Context, Packet, PacketType, Sender, read_version};
use super::property::Trim;
use super::violation::Violation;
use super::wire::{self, Reader};
use crate::model::ProtocolVersion;

/// Incremental decoder for one connection.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// Whom it reads from.
    sender: Sender,
    /// `None` on the server's side until CONNECT was decoded.
    version: Option<ProtocolVersion>,
    /// The largest packet taken, fixed header included.
    packet_bytes_max: u32,
}

impl Decoder {
    /// The server's side, before CONNECT: nothing else is accepted first (`[MQTT-3.1.0-1]`), and that only
    /// up to `packet_bytes_max`.
    pub fn server(packet_bytes_max: u32) -> Self {
        Self { sender: Sender::Client, version: None, packet_bytes_max }
    }

    /// The client's side: tests and load generators. It knows which version it asked for.
    pub fn client(version: ProtocolVersion, packet_bytes_max: u32) -> Self {
        Self { sender: Sender::Server, version: Some(version), packet_bytes_max }
    }

    /// Sets the largest packet taken from now on, fixed header included: the cluster's, once CONNECT told
    /// which cluster it is.
    pub fn set_packet_bytes_max(&mut self, max: u32) {
        self.packet_bytes_max = max;
    }

    /// What the client speaks; on the server's side known once CONNECT was decoded.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.version
    }

    /// Takes one whole packet off the front of `buffer`; `None` when more bytes are needed.
    ///
    /// The packet shares the buffer's memory. The header is judged as soon as it is there.
    ///
    /// # Errors
    ///
    /// The rule that the bytes break. What is left in the buffer then means nothing: the connection is to
    /// be closed.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Packet>, Violation> {
        let Some(&first) = buffer.first() else { return Ok(None) };
        let (packet, flags) = self.admit(first)?;
        let Some((remaining, length_bytes)) = wire::read_varint(&buffer[1..])? else { return Ok(None) };
        let header_bytes = 1 + length_bytes;
        let bytes = header_bytes.saturating_add(remaining as usize);
        if bytes > self.packet_bytes_max as usize {
            let violation = Violation::PacketTooLarge { bytes, bytes_max: self.packet_bytes_max };
            return Err(tell_version(violation, packet, &buffer[header_bytes..]));
        }
        if buffer.len() < bytes {
            return Ok(None);
        }
        if let Some(ack) = Ack::decode_bare(packet, &buffer[header_bytes..bytes])? {
            buffer.advance(bytes);
            return Ok(Some(ack));
        }
        let frame = buffer.split_to(bytes).freeze();
        let Some(version) = self.version else {
            let connect = Connect::decode(&mut Reader::new(&frame, header_bytes))?;
            self.version = Some(connect.version);
            return Ok(Some(Packet::Connect(Box::new(connect))));
        };
        let context = Context { version, sender: self.sender };
        Packet::decode(packet, flags, frame, header_bytes, context)
    }

    /// Judges a packet by its first byte.
    fn admit(&self, first: u8) -> Result<(PacketType, u8), Violation> {
        let (bits, flags) = (first >> 4, first & 0x0F);
        let packet = PacketType::from_bits(bits).ok_or(Violation::ReservedPacketType(bits))?;
        match self.version {
            None if packet != PacketType::Connect => return Err(Violation::FirstPacketNotConnect(packet)),
            Some(version) if packet == PacketType::Auth && !version.is_v5() => {
                return Err(Violation::ReservedPacketType(bits));
            }
            Some(version) if !packet.may_come_from(self.sender, version) => {
                return Err(Violation::WrongDirection(packet));
            }
            Some(_) if packet == PacketType::Connect => return Err(Violation::SecondConnect),
            _ => {}
        }
        packet.check_flags(flags, self.version)?;
        Ok((packet, flags))
    }
}

/// Adds to a violation in CONNECT's header the version, when the bytes at hand tell it.
fn tell_version(violation: Violation, packet: PacketType, content: &[u8]) -> Violation {
    if packet != PacketType::Connect {
        return violation;
    }
    let start = bytes::Bytes::copy_from_slice(&content[..content.len().min(VERSION_BYTES_MAX)]);
    match read_version(&mut Reader::new(&start, 0)) {
        Ok(version) => Violation::InConnect { version, violation: Box::new(violation) },
        Err(_) => violation,
    }
}

/// The bytes of the longer protocol name, its length before it and the level after it.
const VERSION_BYTES_MAX: usize = 9;

/// Appends the packet in wire form for `version`; CONNECT in its own.
pub fn encode(packet: &Packet, version: ProtocolVersion, out: &mut Vec<u8>) {
    packet.encode(version, Trim::Nothing, out);
}

/// Appends the packet so that it is no larger than the receiver takes: without its reason string if need
/// be, then without its user properties (`[MQTT-3.2.2-19]`, `[MQTT-3.2.2-20]`, `[MQTT-3.4.2-2]`,
/// `[MQTT-3.4.2-3]` and their like for each packet).
///
/// Returns false, and appends nothing, when it does not fit even so (`[MQTT-3.1.2-24]`). User properties of
/// CONNECT, SUBSCRIBE, UNSUBSCRIBE and PUBLISH are part of what is said: they stay.
pub fn encode_within(
    packet: &Packet,
    version: ProtocolVersion,
    packet_bytes_max: Option<NonZeroU32>,
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    let bytes_max = packet_bytes_max.map_or(usize::MAX, |max| max.get() as usize);
    for trim in [Trim::Nothing, Trim::ReasonString, Trim::UserProperties] {
        packet.encode(version, trim, out);
        if out.len() - start <= bytes_max {
            return true;
        }
        out.truncate(start);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_plane::protocol::{Ack, ReasonCode};

    const LIMIT: u32 = 1024;
    /// MQTT 5.0, figure 3-6: a CONNECT with everything in its flags but the will, and its properties.
    const CONNECT_V5: &[u8] =
        b"\x10\x19\x00\x04MQTT\x05\xc2\x00\x0a\x05\x11\x00\x00\x00\x0a\x00\x01a\x00\x01u\x00\x01p";

    fn decode_one(decoder: &mut Decoder, bytes: &[u8]) -> Result<Option<Packet>, Violation> {
        decoder.decode(&mut BytesMut::from(bytes))
    }

    #[test]
    fn takes_a_connect_at_every_split_point() {
        for split in 0..CONNECT_V5.len() {
            let mut decoder = Decoder::server(LIMIT);
            let mut buffer = BytesMut::from(&CONNECT_V5[..split]);
            assert_eq!(decoder.decode(&mut buffer), Ok(None), "at {split}");
            buffer.extend_from_slice(&CONNECT_V5[split..]);
            let packet = decoder.decode(&mut buffer).expect("valid").expect("whole");
            let Packet::Connect(connect) = packet else { panic!("{packet:?}") };
            assert_eq!(connect.session_expiry_secs, Some(10));
            assert_eq!(connect.credentials.username.as_deref(), Some("u"));
            assert!(connect.clean_start && buffer.is_empty());
            assert_eq!(decoder.version(), Some(ProtocolVersion::V5));
            let mut out = Vec::new();
            encode(&Packet::Connect(connect), ProtocolVersion::V5, &mut out);
            assert_eq!(out, CONNECT_V5);
        }
    }

    #[test]
    fn wants_connect_first_and_once() {
        let ping = decode_one(&mut Decoder::server(LIMIT), b"\xc0\x00");
        assert_eq!(ping, Err(Violation::FirstPacketNotConnect(PacketType::PingReq)));
        let mut decoder = Decoder::server(LIMIT);
        assert!(decode_one(&mut decoder, CONNECT_V5).is_ok());
        assert_eq!(decode_one(&mut decoder, b"\xc0\x00"), Ok(Some(Packet::PingReq)));
        assert_eq!(decode_one(&mut decoder, CONNECT_V5), Err(Violation::SecondConnect));
        assert_eq!(
            decode_one(&mut decoder, b"\xd0\x00"),
            Err(Violation::WrongDirection(PacketType::PingResp))
        );
    }

    #[test]
    fn refuses_a_large_packet_by_its_header_and_says_so_to_v5() {
        let mut decoder = Decoder::server(20);
        let violation = decode_one(&mut decoder, CONNECT_V5).expect_err("27 bytes");
        assert_eq!(violation.reason(), ReasonCode::PacketTooLarge);
        let (version, connack) = violation.connack().expect("v5 is told");
        assert_eq!((version, connack.reason), (ProtocolVersion::V5, ReasonCode::PacketTooLarge));
        let violation = decode_one(&mut Decoder::server(20), &CONNECT_V5[..2]).expect_err("27 bytes");
        assert_eq!(violation.connack(), None);
    }

    #[test]
    fn answers_an_unsupported_level_in_the_clients_own_form() {
        for (bytes, answer) in [
            (&b"\x10\x0c\x00\x04MQTT\x06\x02\x00\x0a\x00\x00"[..], Some((ProtocolVersion::V5, 0x84))),
            (b"\x10\x0c\x00\x04MQTT\x03\x02\x00\x0a\x00\x00", Some((ProtocolVersion::V3_1_1, 1))),
            (b"\x10\x0e\x00\x06MQIsdp\x04\x02\x00\x0a\x00\x00", Some((ProtocolVersion::V3_1, 1))),
            (b"\x10\x0c\x00\x04HTTP\x05\x02\x00\x0a\x00\x00", None),
        ] {
            let violation = decode_one(&mut Decoder::server(LIMIT), bytes).expect_err("unsupported");
            let told = violation.connack().map(|(version, connack)| {
                let code = if version.is_v5() {
                    connack.reason as u8
                } else {
                    connack.reason.connect_return_code() as u8
                };
                (version, code)
            });
            assert_eq!(told, answer, "{violation}");
        }
    }

    #[test]
    fn leaves_out_what_the_receiver_has_no_room_for() {
        let ack = |with_user: bool| {
            let mut ack = Ack::new(crate::data_plane::protocol::PacketId::MIN, ReasonCode::QuotaExceeded);
            ack.reason_string = Some("too many".into());
            if with_user {
                ack.user_properties.push(("k".into(), "v".into()));
            }
            Packet::PubAck(ack)
        };
        let within = |packet: &Packet, max: u32| {
            let mut out = vec![0xFF];
            let fits = encode_within(packet, ProtocolVersion::V5, NonZeroU32::new(max), &mut out);
            (fits, out.len() - 1)
        };
        // 2 header, 2 id, 1 reason, 1 property length, 11 reason string, 7 user property
        assert_eq!(within(&ack(true), 24), (true, 24));
        assert_eq!(within(&ack(true), 23), (true, 13));
        assert_eq!(within(&ack(true), 12), (true, 5));
        assert_eq!(within(&ack(true), 4), (false, 0));
    }
}
