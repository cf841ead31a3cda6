//! Retained messages as a newcomer finds them: of each topic what was acknowledged last, or sent since.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use holdfast::data_plane::protocol::{Packet, PacketId, ReasonCode};
use holdfast::model::{ProtocolVersion, QoS};
use tokio::time::Instant;

use super::client::Stage;
use super::history::{History, Stream};
use super::wire::{self, Wire};
use crate::support::PATIENCE;

/// What a topic may retain: a number of its stream between these.
#[derive(Debug, PartialEq, Eq)]
struct Bounds {
    topic: &'static str,
    lowest: u32,
    highest: u32,
}

/// Subscribes as a newcomer and compares. Nothing is said when the service went away meanwhile.
pub(super) async fn visit(stage: &Stage, address: SocketAddr) {
    let lowest = stage.record.with(|history, _| lowest(history));
    let Some(found) = look(address).await else { return };
    stage.record.with(|history, now| {
        let all = bounds(history, &lowest);
        let wrong = all.iter().filter_map(|bounds| judge(bounds, found.get(bounds.topic).copied()));
        let wrong: Vec<_> = wrong.map(|what| format!("at {now} µs: {what}")).collect();
        history.faults.extend(wrong);
    });
}

fn retained(history: &History) -> impl Iterator<Item = &Stream> {
    history.streams.iter().filter(|stream| stream.retain)
}

fn lowest(history: &History) -> Vec<u32> {
    let last = |stream: &Stream| {
        let acknowledged = stream.messages.iter().rposition(|message| message.acknowledged.is_some());
        stream.base + acknowledged.map_or(0, |at| u32::try_from(at + 1).expect("not so many"))
    };
    retained(history).map(last).collect()
}

fn bounds(history: &History, lowest: &[u32]) -> Vec<Bounds> {
    let streams = retained(history).zip(lowest);
    streams
        .map(|(stream, lowest)| Bounds {
            topic: stream.topic,
            lowest: *lowest,
            highest: stream.last_number(),
        })
        .collect()
}

/// What is wrong with what was found.
fn judge(bounds: &Bounds, found: Option<u32>) -> Option<String> {
    let Bounds { lowest, highest, .. } = *bounds;
    let allowed = match found {
        Some(number) => (lowest..=highest).contains(&number),
        None => lowest == 0 || (lowest..=highest).any(Stream::clears),
    };
    (!allowed).then(|| format!("retained {found:?}, expected {bounds:?}"))
}

/// The number retained at each topic; `None` when the connection broke.
async fn look(address: SocketAddr) -> Option<HashMap<String, u32>> {
    let version = ProtocolVersion::V5;
    let mut wire = Wire::open(address, version).await.ok()?;
    wire.put(&wire::connect("", version, true, 0, None, None));
    wire.put(&wire::subscribe(PacketId::MIN, version, "r/#", QoS::AtMostOnce, false));
    wire.flush().await.ok()?;
    let mut found = HashMap::new();
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        for packet in wire.receive(Duration::from_millis(50)).await.ok()? {
            match packet {
                Packet::ConnAck(connack) if connack.reason != ReasonCode::Success => return None,
                // What comes behind the answer to this comes too late.
                Packet::SubAck(_) => {
                    wire.put(&Packet::PingReq);
                    wire.flush().await.ok()?;
                }
                Packet::Publish(publish) if publish.retain => {
                    let token = wire::token(&publish.payload)?;
                    found.insert(publish.topic?.as_str().to_owned(), token.number);
                }
                Packet::PingResp => return Some(found),
                _ => {}
            }
        }
    }
    None
}

#[test]
fn a_newcomer_must_find_what_was_acknowledged_last() {
    let bounds = Bounds { topic: "r/a", lowest: 6, highest: 8 };
    for (found, allowed) in
        [(Some(6), true), (Some(8), true), (Some(4), false), (Some(9), false), (None, false)]
    {
        assert_eq!(judge(&bounds, found).is_none(), allowed, "{found:?}");
    }
    let cleared = Bounds { topic: "r/a", lowest: 8, highest: 10 };
    assert_eq!(judge(&cleared, None), None, "10 clears the topic");
}
