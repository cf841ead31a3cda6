//! The load: publishers with a bounded window, subscribers that check what they get.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use holdfast::data_plane::protocol::{Ack, Packet, PacketId, Publish, PublishProperties, ReasonCode};
use holdfast::model::{QoS, TopicName};
use tokio::sync::Barrier;

use crate::client::{Client, Session};

/// What is done in a round.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Publishers, each with a topic of its own.
    pub(crate) pairs: u32,
    /// Subscribers of each topic.
    pub(crate) subscribers: u32,
    /// Messages of each publisher.
    pub(crate) messages: u32,
    pub(crate) qos: QoS,
}

/// Bytes of payload; the first four are the message's number.
const PAYLOAD_BYTES: usize = 64;

/// How many messages a publisher has unacknowledged.
const WINDOW: u32 = 64;

/// How long a round may take before it counts as lost messages.
const ROUND_WITHIN: Duration = Duration::from_mins(2);

/// Runs a round: how many messages were delivered, and how long that took.
pub(crate) async fn run(broker: SocketAddr, scenario: &Scenario) -> anyhow::Result<(u64, Duration)> {
    let (pairs, each, messages, qos) =
        (scenario.pairs, scenario.subscribers, scenario.messages, scenario.qos);
    let clients = usize::try_from(pairs * (each + 1))?;
    let start = Arc::new(Barrier::new(clients + 1));
    let (mut publishers, mut subscribers) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        for number in 0..each {
            let mut client =
                Client::connect(broker, &format!("bench-s{pair}-{number}"), Session::Passing).await?;
            client.subscribe(&format!("bench/{pair}"), qos).await?;
            subscribers.push(tokio::spawn(receive(client, messages, Arc::clone(&start))));
        }
        let client = Client::connect(broker, &format!("bench-p{pair}"), Session::Passing).await?;
        publishers.push(tokio::spawn(publish(client, pair, messages, qos, Arc::clone(&start))));
    }
    start.wait().await;
    #[allow(clippy::disallowed_methods)] // a benchmark measures the time
    let began = Instant::now();
    let all = async {
        for task in subscribers.into_iter().chain(publishers) {
            task.await??;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(ROUND_WITHIN, all).await.context("messages were lost")??;
    Ok((u64::from(pairs) * u64::from(each) * u64::from(messages), began.elapsed()))
}

async fn publish(
    mut client: Client,
    pair: u32,
    messages: u32,
    qos: QoS,
    start: Arc<Barrier>,
) -> anyhow::Result<()> {
    let topic = TopicName::new(format!("bench/{pair}"))?;
    start.wait().await;
    let (mut sent, mut done) = (0, 0);
    while done < messages {
        while sent < messages && sent - done < WINDOW {
            let mut payload = vec![0; PAYLOAD_BYTES];
            payload[..4].copy_from_slice(&sent.to_be_bytes());
            let id = u16::try_from(sent % 60_000 + 1).ok().and_then(PacketId::new);
            client.queue(&Packet::Publish(Publish {
                dup: false,
                qos,
                retain: false,
                topic: Some(topic.clone()),
                packet_id: id,
                properties: PublishProperties::default(),
                payload: Bytes::from(payload),
            }));
            sent += 1;
        }
        client.flush().await?;
        for packet in client.receive().await? {
            match packet {
                Packet::PubAck(_) | Packet::PubComp(_) => done += 1,
                Packet::PubRec(ack) => {
                    client.queue(&Packet::PubRel(Ack::new(ack.packet_id, ReasonCode::Success)));
                }
                other => anyhow::bail!("a publisher got {other:?}"),
            }
        }
    }
    Ok(())
}

/// Takes every message, checks that none is lost, repeated or out of order, and acknowledges it.
async fn receive(mut client: Client, messages: u32, start: Arc<Barrier>) -> anyhow::Result<()> {
    start.wait().await;
    let mut expected = 0;
    while expected < messages {
        for packet in client.receive().await? {
            match packet {
                Packet::Publish(publish) => {
                    let number = publish.payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
                    ensure!(number == Some(expected), "expected message {expected}, got {number:?}");
                    expected += 1;
                    if let Some(id) = publish.packet_id {
                        let ack = Ack::new(id, ReasonCode::Success);
                        let once = publish.qos == QoS::ExactlyOnce;
                        client.queue(&if once { Packet::PubRec(ack) } else { Packet::PubAck(ack) });
                    }
                }
                Packet::PubRel(ack) => {
                    client.queue(&Packet::PubComp(Ack::new(ack.packet_id, ReasonCode::Success)));
                }
                other => anyhow::bail!("a subscriber got {other:?}"),
            }
        }
        client.flush().await?;
    }
    Ok(())
}
