//! What the clients do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use holdfast::data_plane::protocol::{Ack, Packet, PacketId, Publish, PublishProperties, ReasonCode};
use holdfast::model::{QoS, TopicName};

use crate::broker::Broker;
use crate::client::{Client, Session, Way};

/// Bytes of payload; the first four are the message's number.
const PAYLOAD_BYTES: usize = 64;
/// How many messages a publisher has unacknowledged.
const WINDOW: u32 = 64;
/// How long a round may take before it counts as lost messages.
const ROUND_WITHIN: Duration = Duration::from_mins(5);

fn now() -> Instant {
    #[allow(clippy::disallowed_methods)] // a benchmark measures the time
    Instant::now()
}

/// So many clients subscribe with a session that lasts, and go.
pub(crate) async fn fall_asleep(
    broker: &Broker,
    group: &str,
    count: u32,
    filter: impl Fn(u32) -> String + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let (group, filter) = (group.to_owned(), Arc::new(filter));
    let (door, at_once) = (broker.door.clone(), broker.at_once);
    let one = move |number: u32| {
        let (door, group, filter) = (door.clone(), group.clone(), Arc::clone(&filter));
        async move {
            let mut client =
                Client::connect(&door, Way::Tcp, format!("{group}-{number}"), Session::Lasting).await?;
            client.subscribe(&filter(number), QoS::AtLeastOnce).await?;
            client.leave().await
        }
    };
    each(at_once, count, one).await
}

/// Each of so many publishers says so much.
pub(crate) async fn publish(broker: &Broker, publishers: u32, messages: u32) -> anyhow::Result<Duration> {
    let mut clients = Vec::new();
    for number in 0..publishers {
        clients.push(
            Client::connect(&broker.door, Way::Tcp, format!("publisher-{number}"), Session::Passing).await?,
        );
    }
    let began = now();
    let tasks: Vec<_> = clients
        .into_iter()
        .zip(0..)
        .map(|(client, number)| tokio::spawn(say(client, format!("pair/{number}"), messages)))
        .collect();
    for task in tasks {
        tokio::time::timeout(ROUND_WITHIN, task).await.context("no PUBACK")???;
    }
    Ok(began.elapsed())
}

async fn say(mut client: Client, topic: String, messages: u32) -> anyhow::Result<()> {
    let (mut sent, mut done) = (0, 0);
    while done < messages {
        while sent < messages && sent - done < WINDOW {
            client.queue(&message(&topic, sent)?);
            sent += 1;
        }
        client.flush().await?;
        for packet in client.receive().await? {
            ensure!(matches!(&packet, Packet::PubAck(ack) if !ack.reason.is_error()), "{packet:?}");
            done += 1;
        }
    }
    client.leave().await
}

/// One message; how long until its PUBACK.
pub(crate) async fn publish_once(broker: &Broker, topic: &str) -> anyhow::Result<Duration> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let mut client =
        Client::connect(&broker.door, Way::Tcp, "one-publisher".to_owned(), Session::Passing).await?;
    client.queue(&message(topic, NUMBER.fetch_add(1, Ordering::Relaxed))?);
    let began = now();
    client.flush().await?;
    let answer = client.receive().await?;
    let took = began.elapsed();
    ensure!(matches!(&answer[..], [Packet::PubAck(ack)] if !ack.reason.is_error()), "{answer:?}");
    client.leave().await?;
    Ok(took)
}

/// So many clients return, take so many messages each in order, and go.
pub(crate) async fn drain(
    broker: &Broker,
    group: &str,
    count: u32,
    messages: u32,
) -> anyhow::Result<Duration> {
    let group = group.to_owned();
    let (door, at_once) = (broker.door.clone(), broker.at_once);
    let began = now();
    let one = move |number: u32| {
        let (door, group) = (door.clone(), group.clone());
        async move {
            let client =
                Client::connect(&door, Way::Tcp, format!("{group}-{number}"), Session::Lasting).await?;
            take(client, messages).await
        }
    };
    each(at_once, count, one).await?;
    Ok(began.elapsed())
}

async fn take(mut client: Client, messages: u32) -> anyhow::Result<()> {
    let (mut taken, mut last) = (0, None);
    while taken < messages {
        for packet in client.receive().await? {
            let Packet::Publish(publish) = packet else { anyhow::bail!("a subscriber got {packet:?}") };
            let number = publish.payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
            ensure!(number > last, "{number:?} after {last:?}");
            last = number;
            taken += 1;
            let id = publish.packet_id.context("QoS 1")?;
            client.queue(&Packet::PubAck(Ack::new(id, ReasonCode::Success)));
        }
        client.flush().await?;
    }
    client.leave().await
}

/// Does something `count` times, `at_once` of them at a time.
async fn each<F>(
    at_once: u32,
    count: u32,
    one: impl Fn(u32) -> F + Send + Sync + 'static,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let (next, one) = (Arc::new(AtomicU32::new(0)), Arc::new(one));
    let mut tasks = Vec::new();
    for _ in 0..at_once.min(count) {
        let (next, one) = (Arc::clone(&next), Arc::clone(&one));
        tasks.push(tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(());
                }
                one(number).await?;
            }
        }));
    }
    for task in tasks {
        tokio::time::timeout(ROUND_WITHIN, task).await.context("messages were lost")???;
    }
    Ok(())
}

fn message(topic: &str, number: u32) -> anyhow::Result<Packet> {
    let mut payload = vec![0; PAYLOAD_BYTES];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    Ok(Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: Some(TopicName::new(topic.to_owned())?),
        packet_id: u16::try_from(number % 60_000 + 1).ok().and_then(PacketId::new),
        properties: PublishProperties::default(),
        payload: Bytes::from(payload),
    }))
}
