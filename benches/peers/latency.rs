//! How long a message takes from its PUBLISH to its subscriber, at a rate that every broker bears, once everybody is
//! connected.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use holdfast::data_plane::protocol::{Packet, PacketId, Publish, PublishProperties};
use holdfast::model::{QoS, TopicName};
use tokio::sync::Barrier;
use tokio::time::{MissedTickBehavior, interval_at};

use crate::Bench;
use crate::broker::Broker;
use crate::client::{Client, Session, Way};
use crate::table::Table;

const TABLE: Table<4> =
    Table { columns: ["p99 us", "p50 us", "p99.9 us", "CPU us each"], more_is_better: false, rounds: 5 };

/// Publishers, each with a subscriber.
const PAIRS: u32 = 50;
/// How often each of them publishes; together 5,000 messages a second.
const EVERY: Duration = Duration::from_millis(10);
/// Messages of each publisher in a round.
const MESSAGES: u32 = 300;
const PAYLOAD_BYTES: usize = 64;
const ROUND_WITHIN: Duration = Duration::from_mins(1);

/// Runs both scenarios. With lasting sessions ours is on disk before it is delivered.
pub(crate) fn measure(bench: &Bench) -> anyhow::Result<()> {
    TABLE.head();
    let scenarios = [
        ("latency at 5,000/s, QoS 1", Session::Passing),
        ("latency, lasting sessions, QoS 1", Session::Lasting),
    ];
    for (name, session) in scenarios.into_iter().filter(|(name, _)| bench.wants(name)) {
        bench.compare(name, &TABLE, |broker| {
            let before = broker.cpu_time()?;
            let mut micros = bench.runtime.block_on(run(broker, session))?;
            let cpu =
                broker.cpu_time()?.saturating_sub(before).as_secs_f64() * 1e6 / f64::from(PAIRS * MESSAGES);
            micros.sort_unstable();
            let at = |per_mille: usize| {
                f64::from(micros[(micros.len() * per_mille / 1_000).min(micros.len() - 1)])
            };
            Ok([at(990), at(500), at(999), cpu])
        })?;
    }
    Ok(())
}

async fn run(broker: &Broker, session: Session) -> anyhow::Result<Vec<u32>> {
    #[allow(clippy::disallowed_methods)] // a benchmark measures the time
    let epoch = Instant::now();
    let (mut publishers, mut subscribers) = (Vec::new(), Vec::new());
    let start = Arc::new(Barrier::new(usize::try_from(PAIRS)?));
    for pair in 0..PAIRS {
        let mut client = Client::connect(&broker.door, Way::Tcp, format!("late-s{pair}"), session).await?;
        client.subscribe(&format!("late/{pair}"), QoS::AtLeastOnce).await?;
        subscribers.push(tokio::spawn(receive(client, epoch)));
        let client =
            Client::connect(&broker.door, Way::Tcp, format!("late-p{pair}"), Session::Passing).await?;
        publishers.push(tokio::spawn(publish(client, pair, epoch, Arc::clone(&start))));
    }
    let mut all = Vec::new();
    let done = async {
        for task in publishers {
            task.await??;
        }
        for task in subscribers {
            all.extend(task.await??);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(ROUND_WITHIN, done).await.context("messages were lost")??;
    Ok(all)
}

async fn publish(mut client: Client, pair: u32, epoch: Instant, start: Arc<Barrier>) -> anyhow::Result<()> {
    let topic = TopicName::new(format!("late/{pair}"))?;
    start.wait().await;
    // Evenly over the time, not all at once.
    let first = tokio::time::Instant::now() + EVERY * pair / PAIRS;
    let mut tick = interval_at(first, EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0..MESSAGES {
        tick.tick().await;
        let mut payload = vec![0; PAYLOAD_BYTES];
        payload[..16].copy_from_slice(&epoch.elapsed().as_nanos().to_be_bytes());
        client.queue(&Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: Some(topic.clone()),
            packet_id: u16::try_from(number % 60_000 + 1).ok().and_then(PacketId::new),
            properties: PublishProperties::default(),
            payload: Bytes::from(payload),
        }));
        client.flush().await?;
        client.receive().await?;
    }
    client.leave().await
}

/// How long each message took, in microseconds.
async fn receive(mut client: Client, epoch: Instant) -> anyhow::Result<Vec<u32>> {
    let mut micros = Vec::new();
    while micros.len() < usize::try_from(MESSAGES)? {
        for packet in client.receive().await? {
            let Some(publish) = client.acknowledge(packet)? else { continue };
            let sent = publish.payload.first_chunk().map(|bytes| u128::from_be_bytes(*bytes));
            let took = epoch.elapsed().as_nanos().saturating_sub(sent.context("a short payload")?) / 1_000;
            micros.push(u32::try_from(took)?);
        }
        client.flush().await?;
    }
    client.leave().await?;
    Ok(micros)
}
