//! The codec from outside, through what it offers to the rest of the data plane.

#[path = "../../../fuzz/src/any_bytes.rs"]
mod any_bytes;
mod differential;
mod invalid;
mod packets;
mod reason_codes;
mod replay;
mod round_trip;

use bytes::BytesMut;
use holdfast::data_plane::protocol::{Decoder, Packet, Violation, encode};
use holdfast::model::ProtocolVersion::{self, V3_1, V3_1_1, V5};
use packets::Side;

/// Above every packet in these tests.
const PACKET_BYTES_MAX: u32 = 1 << 22;

/// The decoder of the side that `sender` talks to, past CONNECT.
fn decoder_for(sender: Side, version: ProtocolVersion) -> Decoder {
    if sender == Side::Server {
        return Decoder::client(version, PACKET_BYTES_MAX);
    }
    let connect: &[u8] = match version {
        V3_1 => b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01c",
        V3_1_1 => b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c",
        V5 => b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c",
    };
    let mut decoder = Decoder::server(PACKET_BYTES_MAX);
    decoder.decode(&mut BytesMut::from(connect)).expect("valid").expect("whole");
    decoder
}

/// The decoder that takes `packet`: CONNECT only a new one.
fn decoder_of(packet: &Packet, sender: Side, version: ProtocolVersion) -> Decoder {
    match packet {
        Packet::Connect(_) => Decoder::server(PACKET_BYTES_MAX),
        _ => decoder_for(sender, version),
    }
}

fn to_bytes(packet: &Packet, version: ProtocolVersion) -> Vec<u8> {
    let mut out = Vec::new();
    encode(packet, version, &mut out);
    out
}

/// Decodes the one packet that `bytes` hold.
fn decode_one(mut decoder: Decoder, bytes: &[u8]) -> Result<Packet, Violation> {
    let mut buffer = BytesMut::from(bytes);
    let packet = decoder.decode(&mut buffer)?.unwrap_or_else(|| panic!("{bytes:02x?} is not a whole packet"));
    assert!(buffer.is_empty(), "{} bytes are left after {packet:?}", buffer.len());
    Ok(packet)
}
