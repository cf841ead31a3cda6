//! Which reason code a packet may carry in which direction, as the tables of MQTT 5.0 say, against every
//! byte that it might.

use holdfast::data_plane::protocol::ReasonCode;
use holdfast::model::ProtocolVersion::{V3_1, V3_1_1, V5};

use super::packets::Side;
use super::{decode_one, decoder_for};

/// The reason codes of a packet type: tables 3-1 and 3-4 to 3-11, in the order of the standard.
pub(crate) fn allowed(packet: u8, sender: Side) -> Vec<u8> {
    let from_server = sender == Side::Server;
    match packet {
        2 => vec![
            0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97,
            0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
        ],
        // "This is sent only by the Server."
        4 | 5 if from_server => vec![0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
        4 | 5 => vec![0x00, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
        6 | 7 => vec![0x00, 0x92],
        9 => vec![0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2],
        11 => vec![0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91],
        // Table 2-6 allows 0x8C too.
        14 if from_server => vec![
            0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95,
            0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
        ],
        14 => vec![0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99],
        15 if from_server => vec![0x00, 0x18],
        15 => vec![0x18, 0x19],
        other => panic!("packet type {other} has no reason code"),
    }
}

/// A v5 packet with this reason code and nothing to complain of but that.
fn packet(packet: u8, code: u8) -> Vec<u8> {
    match packet {
        2 => vec![0x20, 3, 0, code, 0],
        6 => vec![0x62, 3, 0, 1, code],
        4 | 5 | 7 => vec![packet << 4, 3, 0, 1, code],
        9 | 11 => vec![packet << 4, 4, 0, 1, 0, code],
        14 => vec![0xE0, 1, code],
        _ => vec![0xF0, 6, code, 4, 0x15, 0, 1, b'm'],
    }
}

#[test]
fn v5_takes_the_codes_of_the_tables_and_no_other() {
    for side in [Side::Client, Side::Server] {
        for packet_type in [2, 4, 5, 6, 7, 9, 11, 14, 15] {
            if side == Side::Client && matches!(packet_type, 2 | 9 | 11) {
                continue;
            }
            for code in 0..=u8::MAX {
                let decoded = decode_one(decoder_for(side, V5), &packet(packet_type, code));
                let is_allowed = allowed(packet_type, side).contains(&code);
                assert_eq!(decoded.is_ok(), is_allowed, "{side:?} {packet_type} {code:#04x}: {decoded:?}");
                if let Err(violation) = decoded {
                    assert_eq!(violation.reason(), ReasonCode::ProtocolError, "{violation}");
                }
            }
        }
    }
}

#[test]
fn v3_takes_six_return_codes_and_four_grants() {
    for version in [V3_1, V3_1_1] {
        for code in 0..=u8::MAX {
            let connack = decode_one(decoder_for(Side::Server, version), &[0x20, 2, 0, code]);
            assert_eq!(connack.is_ok(), code < 6, "{connack:?}");
            let suback = decode_one(decoder_for(Side::Server, version), &[0x90, 3, 0, 1, code]);
            assert_eq!(suback.is_ok(), code < 3 || code == 0x80, "{suback:?}");
        }
    }
}

#[test]
fn a_byte_is_a_reason_code_exactly_when_the_standard_defines_it() {
    for byte in 0..=u8::MAX {
        let defined = matches!(byte, 0..=2 | 4 | 0x10 | 0x11 | 0x18 | 0x19 | 0x80..=0xA2);
        assert_eq!(ReasonCode::from_byte(byte).map(|reason| reason as u8), defined.then_some(byte));
    }
}
