//! The tables of packets that must be refused, and with what.

use std::collections::HashSet;

use holdfast::data_plane::protocol::{Decoder, Violation};
use holdfast::model::ProtocolVersion::{self, V3_1, V3_1_1, V5};

use super::packets::Side;
use super::{decode_one, decoder_for};
use crate::support::notation::bytes;

/// As many as the tables are promised to hold.
const ROWS_MIN: usize = 120;

fn rows(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split('|').map(str::trim).collect())
}

/// Decodes `text` as the receiver that the first column tells.
fn refusal(sender: &str, version: ProtocolVersion, text: &str) -> Violation {
    let decoder = match sender {
        "new" => Decoder::server(1 << 20),
        "client" => decoder_for(Side::Client, version),
        "server" => decoder_for(Side::Server, version),
        other => panic!("sender {other}"),
    };
    decode_one(decoder, &bytes(text)).expect_err(text)
}

/// The rule itself, and the version when it was broken within CONNECT.
fn rule(violation: &Violation) -> (&Violation, Option<ProtocolVersion>) {
    match violation {
        Violation::InConnect { version, violation } => (violation, Some(*version)),
        violation => (violation, None),
    }
}

/// Whether `violation` is the variant `expected`, whose fields may be left out.
fn is(violation: &Violation, expected: &str) -> bool {
    let shown = format!("{violation:?}");
    shown == expected || shown.starts_with(&format!("{expected} {{"))
}

/// The statement, or the section alone when it has no number.
fn statement(violation: &Violation) -> &str {
    let statement = violation.statement();
    statement.strip_prefix("[MQTT 5.0, ").map_or(statement, |section| section.trim_end_matches(']'))
}

#[test]
fn v5_refuses_what_the_table_says() {
    let mut seen = HashSet::new();
    for row in rows(include_str!("invalid_v5.txt")) {
        let [sender, text, expected, told, name] = row[..] else { panic!("{row:?}") };
        assert!(seen.insert((sender, bytes(text))), "{name} is there twice");
        let violation = refusal(sender, V5, text);
        assert!(is(rule(&violation).0, expected), "{name}: {violation:?}");
        let is_told = format!("{:02x} {}", violation.reason() as u8, statement(&violation));
        assert_eq!(is_told, told, "{name}");
        assert!(violation.to_string().ends_with(violation.statement()), "{name}: {violation}");
    }
    assert!(seen.len() >= ROWS_MIN, "{} rows", seen.len());
}

#[test]
fn v3_refuses_what_the_table_says() {
    for row in rows(include_str!("invalid_v3.txt")) {
        let [from, text, expected, told, name] = row[..] else { panic!("{row:?}") };
        let (version, sender) = from.split_once(' ').expect("a version and a sender");
        let versions = match version {
            "3" => vec![V3_1, V3_1_1],
            "3.1" => vec![V3_1],
            _ => vec![V3_1_1],
        };
        for version in versions {
            let violation = refusal(sender.trim(), version, text);
            let (rule, in_connect) = rule(&violation);
            assert!(is(rule, expected), "{name} in {version:?}: {violation:?}");
            assert_eq!(statement(&violation), told, "{name}");
            assert!(in_connect.is_none_or(|read| read == version), "{name}: {violation:?}");
        }
    }
}

/// A CONNECT of v5 is answered whatever it breaks once its version could be read; one of v3 only when its
/// level is not served (3.1.1 `[MQTT-3.1.2-2]`, `[MQTT-3.1.4-1]`).
#[test]
fn a_refused_connect_is_answered_as_its_version_wants() {
    let v5 = rows(include_str!("invalid_v5.txt")).filter(|row| row[0] == "new").map(|row| (row[1], row[2]));
    let v3 = rows(include_str!("invalid_v3.txt"))
        .filter(|row| row[0].ends_with("new"))
        .map(|row| (row[1], row[2]));
    for (text, expected) in v5.chain(v3) {
        let violation = refusal("new", V5, text);
        let answer = violation.connack().map(|(version, connack)| {
            assert_eq!(connack.reason, violation.reason());
            version
        });
        let level = bytes(text).get(8).copied();
        match (expected, rule(&violation).1) {
            ("ProtocolLevelUnsupported", None) => assert!(answer.is_some(), "{text}"),
            (_, Some(V5)) => assert_eq!((answer, level), (Some(V5), Some(5)), "{text}"),
            _ => assert_eq!(answer, None, "{text}"),
        }
    }
}
