//! What must hold for any bytes that a peer may send: the body of the fuzz target, run by the tests as well.
//!
//! - No input panics, and the decoder never makes the read buffer larger.
//! - How the bytes are cut into reads changes nothing.
//! - What was understood is encoded to bytes that are understood as the same, and are encoded as the same.

use bytes::BytesMut;
use holdfast::data_plane::protocol::{Decoder, Packet, ReasonCode, encode};
use holdfast::model::ProtocolVersion::{self, V3_1, V3_1_1, V5};

/// The largest packet taken in these runs.
const PACKET_BYTES_MAX: u32 = 1 << 16;

/// What became of a stream.
#[derive(Debug, PartialEq)]
struct Outcome {
    packets: Vec<Packet>,
    version: Option<ProtocolVersion>,
    end: Option<(ReasonCode, &'static str)>,
}

/// Checks one input: a byte for the decoder's role (modulo 7: a new server, a server past CONNECT in 3.1,
/// 3.1.1, 5.0, a client in the three), a byte from which the cuts follow, then what the peer sends.
pub(crate) fn check(input: &[u8]) {
    let [role, seed, stream @ ..] = input else { return };
    let whole = run(*role, &[stream]);
    let mut cuts = Vec::new();
    let (mut rest, mut state) = (stream, u32::from(*seed));
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (chunk, after) = rest.split_at((1 + (state >> 28) as usize).min(rest.len()));
        cuts.push(chunk);
        rest = after;
    }
    assert_eq!(run(*role, &cuts), whole, "cut into reads");
    for packet in &whole.packets {
        let (role, version) = match (packet, whole.version) {
            (Packet::Connect(connect), _) => (0, connect.version),
            (_, Some(version)) if *role % 7 == 0 => (1 + version as u8, version),
            (_, Some(version)) => (*role, version),
            (_, None) => panic!("{packet:?} before CONNECT"),
        };
        comes_back(role, version, packet);
    }
}

fn decoder(role: u8) -> Decoder {
    let past_connect = |connect: &[u8]| {
        let mut decoder = Decoder::server(PACKET_BYTES_MAX);
        assert!(matches!(decoder.decode(&mut BytesMut::from(connect)), Ok(Some(_))));
        decoder
    };
    match role % 7 {
        0 => Decoder::server(PACKET_BYTES_MAX),
        1 => past_connect(b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01c"),
        2 => past_connect(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c"),
        3 => past_connect(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c"),
        4 => Decoder::client(V3_1, PACKET_BYTES_MAX),
        5 => Decoder::client(V3_1_1, PACKET_BYTES_MAX),
        _ => Decoder::client(V5, PACKET_BYTES_MAX),
    }
}

fn run(role: u8, chunks: &[&[u8]]) -> Outcome {
    let (mut decoder, mut buffer, mut packets) = (decoder(role), BytesMut::new(), Vec::new());
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            let capacity = buffer.capacity();
            let taken = decoder.decode(&mut buffer);
            assert!(buffer.capacity() <= capacity, "the decoder reserved memory");
            match taken {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(violation) => {
                    assert!(violation.reason().is_error() && !violation.to_string().is_empty());
                    let end = Some((violation.reason(), violation.statement()));
                    return Outcome { packets, version: decoder.version(), end };
                }
            }
        }
    }
    Outcome { packets, version: decoder.version(), end: None }
}

fn comes_back(role: u8, version: ProtocolVersion, packet: &Packet) {
    let mut bytes = Vec::new();
    encode(packet, version, &mut bytes);
    let outcome = run(role, &[&bytes]);
    assert_eq!(outcome.end, None, "{packet:?}");
    assert_eq!(outcome.packets, std::slice::from_ref(packet));
    let mut again = Vec::new();
    encode(&outcome.packets[0], version, &mut again);
    assert_eq!(again, bytes);
}
