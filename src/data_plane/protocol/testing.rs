//! What the tests beside the packets share.

use bytes::BytesMut;

use super::{Decoder, Packet, Violation, encode};
use crate::model::ProtocolVersion;

pub(super) use crate::model::ProtocolVersion::{V3_1, V3_1_1, V5};

/// Above every packet in these tests.
const PACKET_BYTES_MAX: u32 = 1 << 20;

/// A server's decoder after CONNECT.
pub(super) fn server(version: ProtocolVersion) -> Decoder {
    let connect: &[u8] = match version {
        V3_1 => b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01c",
        V3_1_1 => b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c",
        V5 => b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c",
    };
    let mut decoder = Decoder::server(PACKET_BYTES_MAX);
    let taken = decoder.decode(&mut BytesMut::from(connect));
    assert!(matches!(taken, Ok(Some(Packet::Connect(_)))), "{taken:?}");
    decoder
}

/// Decodes one packet, which `bytes` hold to the last, as a server.
pub(super) fn from_client(version: ProtocolVersion, bytes: &[u8]) -> Result<Packet, Violation> {
    decode_whole(server(version), bytes)
}

/// Decodes one packet, which `bytes` hold to the last, as a client.
pub(super) fn from_server(version: ProtocolVersion, bytes: &[u8]) -> Result<Packet, Violation> {
    decode_whole(Decoder::client(version, PACKET_BYTES_MAX), bytes)
}

/// Decodes a CONNECT.
pub(super) fn from_stranger(bytes: &[u8]) -> Result<Packet, Violation> {
    decode_whole(Decoder::server(PACKET_BYTES_MAX), bytes)
}

fn decode_whole(mut decoder: Decoder, bytes: &[u8]) -> Result<Packet, Violation> {
    let mut buffer = BytesMut::from(bytes);
    let packet = decoder.decode(&mut buffer)?;
    assert!(buffer.is_empty(), "{} bytes are left", buffer.len());
    Ok(packet.expect("a whole packet"))
}

/// The packet in wire form.
pub(super) fn to_bytes(packet: &Packet, version: ProtocolVersion) -> Vec<u8> {
    let mut out = Vec::new();
    encode(packet, version, &mut out);
    out
}
