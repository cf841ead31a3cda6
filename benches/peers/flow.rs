//! Messages flat out: publishers with a bounded window, subscribers that check what they get.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use holdfast::data_plane::protocol::{Ack, Packet, PacketId, Publish, PublishProperties, ReasonCode};
use holdfast::model::{QoS, TopicName};
use tokio::sync::{Barrier, Notify};

use crate::Bench;
use crate::broker::Broker;
use crate::client::{Client, Session, Way};
use crate::table::Table;

/// What is done in a round.
struct Scenario {
    name: &'static str,
    /// Publishers, each with a topic of its own.
    publishers: u32,
    audience: Audience,
    /// Messages of each publisher.
    messages: u32,
    payload_bytes: usize,
    qos: QoS,
    way: Way,
}

#[derive(Clone, Copy)]
enum Audience {
    /// So many subscribers of each topic; each gets everything.
    Each(u32),
    /// So many members of one shared group on all topics; each message goes to one.
    Shared(u32),
    /// One subscriber of all topics.
    One,
}

const fn pairs(name: &'static str, payload_bytes: usize, messages: u32, qos: QoS) -> Scenario {
    Scenario {
        name,
        publishers: 100,
        audience: Audience::Each(1),
        messages,
        payload_bytes,
        qos,
        way: Way::Tcp,
    }
}

const fn fan_out(name: &'static str, messages: u32, qos: QoS) -> Scenario {
    let audience = Audience::Each(1_000);
    Scenario { name, publishers: 1, audience, messages, payload_bytes: 64, qos, way: Way::Tcp }
}

const fn fan_in(name: &'static str, qos: QoS) -> Scenario {
    Scenario { audience: Audience::One, ..pairs(name, 64, 1_000, qos) }
}

const SCENARIOS: [Scenario; 19] = [
    pairs("100 pairs, QoS 0, 64 B", 64, 3_000, QoS::AtMostOnce),
    pairs("100 pairs, QoS 1, 64 B", 64, 2_000, QoS::AtLeastOnce),
    pairs("100 pairs, QoS 2, 64 B", 64, 700, QoS::ExactlyOnce),
    pairs("100 pairs, QoS 0, 1 KiB", 1_024, 2_000, QoS::AtMostOnce),
    pairs("100 pairs, QoS 1, 1 KiB", 1_024, 1_500, QoS::AtLeastOnce),
    pairs("100 pairs, QoS 2, 1 KiB", 1_024, 500, QoS::ExactlyOnce),
    fan_out("fan-out 1 to 1,000, QoS 0", 500, QoS::AtMostOnce),
    fan_out("fan-out 1 to 1,000, QoS 1", 500, QoS::AtLeastOnce),
    fan_in("fan-in 100 to 1, QoS 0", QoS::AtMostOnce),
    fan_in("fan-in 100 to 1, QoS 1", QoS::AtLeastOnce),
    Scenario {
        audience: Audience::Shared(8),
        ..pairs("shared group of 8, QoS 1", 64, 1_000, QoS::AtLeastOnce)
    },
    Scenario { way: Way::Tls, ..pairs("TLS, 100 pairs, QoS 0, 1 KiB", 1_024, 1_500, QoS::AtMostOnce) },
    Scenario { way: Way::Tls, ..pairs("TLS, 100 pairs, QoS 1, 1 KiB", 1_024, 1_000, QoS::AtLeastOnce) },
    Scenario { way: Way::Tls, ..pairs("TLS, 100 pairs, QoS 2, 1 KiB", 1_024, 400, QoS::ExactlyOnce) },
    Scenario { way: Way::Tls, ..fan_out("TLS, fan-out 1 to 1,000, QoS 0", 200, QoS::AtMostOnce) },
    Scenario { way: Way::Tls, ..fan_out("TLS, fan-out 1 to 1,000, QoS 1", 200, QoS::AtLeastOnce) },
    Scenario { way: Way::Tls, ..fan_in("TLS, fan-in 100 to 1, QoS 1", QoS::AtLeastOnce) },
    Scenario {
        audience: Audience::Shared(8),
        way: Way::Tls,
        ..pairs("TLS, shared group of 8, QoS 1", 64, 1_000, QoS::AtLeastOnce)
    },
    Scenario { publishers: 1, ..pairs("1 pair, QoS 1, 64 B", 64, 50_000, QoS::AtLeastOnce) },
];

const TABLE: Table<3> =
    Table { columns: ["delivered/s", "CPU us each", "resident MiB"], more_is_better: true, rounds: 5 };

/// How many messages a publisher has unacknowledged, or where nothing else holds it back its slowest subscriber has
/// not got.
const WINDOW: u32 = 64;

/// The same of each publisher where all have one subscriber: together fewer than any broker queues for it.
const WINDOW_FAN_IN: u32 = 8;

/// How long a round may take before it counts as lost messages.
const ROUND_WITHIN: Duration = Duration::from_mins(2);

/// Runs every scenario.
pub(crate) fn measure(bench: &Bench) -> anyhow::Result<()> {
    TABLE.head();
    for scenario in SCENARIOS.iter().filter(|scenario| bench.wants(scenario.name)) {
        bench.compare(scenario.name, &TABLE, |broker| {
            let Round { delivered, took, cpu } = bench.runtime.block_on(run(broker, scenario))?;
            let delivered = f64::from(delivered);
            let resident = f64::from(u32::try_from(broker.resident_bytes()? >> 10)?) / 1_024.0;
            Ok([delivered / took.as_secs_f64(), cpu.as_secs_f64() * 1e6 / delivered, resident])
        })?;
    }
    Ok(())
}

/// How many messages of one topic its subscribers have, for a publisher whom no answer holds back: at QoS 0, or because
/// its subscriber has more to do than it.
struct Pace {
    got: Vec<AtomicU32>,
    moved: Notify,
}

impl Pace {
    fn of(subscribers: u32) -> Arc<Self> {
        Arc::new(Self { got: (0..subscribers).map(|_| AtomicU32::new(0)).collect(), moved: Notify::new() })
    }

    fn slowest(&self) -> u32 {
        self.got.iter().map(|got| got.load(Ordering::Relaxed)).min().unwrap_or(u32::MAX)
    }
}

/// What a round gave, from when everybody was connected.
struct Round {
    /// Messages.
    delivered: u32,
    took: Duration,
    /// The broker's.
    cpu: Duration,
}

async fn run(broker: &Broker, scenario: &Scenario) -> anyhow::Result<Round> {
    let &Scenario { publishers, audience, messages, qos, way, payload_bytes, .. } = scenario;
    let connect = |name: String| Client::connect(&broker.door, way, name, Session::Passing);
    let subscribers = match audience {
        Audience::Each(each) => publishers * each,
        Audience::Shared(members) => members,
        Audience::One => 1,
    };
    let each = match audience {
        Audience::Each(each) => each,
        Audience::Shared(_) => 0,
        Audience::One => 1,
    };
    let paces: Vec<Arc<Pace>> = (0..publishers).map(|_| Pace::of(each)).collect();
    let start = Arc::new(Barrier::new(usize::try_from(publishers + subscribers + 1)?));
    let mut tasks = Vec::new();
    if let Audience::Shared(members) = audience {
        let left = Arc::new(AtomicU32::new(publishers * messages));
        let all_got = Arc::new(Notify::new());
        for number in 0..members {
            let mut client = connect(format!("bench-m{number}")).await?;
            client.subscribe("$share/bench/bench/+", qos).await?;
            let member =
                share(client, publishers, Arc::clone(&left), Arc::clone(&all_got), Arc::clone(&start));
            tasks.push(tokio::spawn(member));
        }
    }
    if let Audience::One = audience {
        let mut client = connect("bench-all".to_owned()).await?;
        client.subscribe("bench/+", qos).await?;
        tasks.push(tokio::spawn(receive_all(client, messages, paces.clone(), Arc::clone(&start))));
    }
    for (publisher, pace) in (0..publishers).zip(paces) {
        let own = if let Audience::Each(each) = audience { each } else { 0 };
        for number in 0..own {
            let mut client = connect(format!("bench-s{publisher}-{number}")).await?;
            client.subscribe(&format!("bench/{publisher}"), qos).await?;
            let receives = receive(client, number, messages, Arc::clone(&pace), Arc::clone(&start));
            tasks.push(tokio::spawn(receives));
        }
        let client = connect(format!("bench-p{publisher}")).await?;
        let words =
            Words { publisher, messages, payload_bytes, qos, paced: matches!(audience, Audience::One) };
        tasks.push(tokio::spawn(publish(client, words, pace, Arc::clone(&start))));
    }
    let cpu_before = broker.cpu_time()?;
    start.wait().await;
    #[allow(clippy::disallowed_methods)] // a benchmark measures the time
    let began = Instant::now();
    let all = async {
        for task in tasks {
            task.await??;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(ROUND_WITHIN, all).await.context("messages were lost")??;
    let took = began.elapsed();
    let cpu = broker.cpu_time()?.saturating_sub(cpu_before);
    Ok(Round { delivered: publishers * each.max(1) * messages, took, cpu })
}

/// What a publisher says.
#[derive(Clone, Copy)]
struct Words {
    publisher: u32,
    messages: u32,
    payload_bytes: usize,
    qos: QoS,
    /// Whether it waits for its subscriber, not only for the broker.
    paced: bool,
}

impl Words {
    /// The publisher's message of this number: publisher and number stand at the beginning of its payload.
    fn message(self, topic: &TopicName, number: u32) -> Packet {
        let mut payload = vec![0; self.payload_bytes];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        payload[4..8].copy_from_slice(&self.publisher.to_be_bytes());
        Packet::Publish(Publish {
            dup: false,
            qos: self.qos,
            retain: false,
            topic: Some(topic.clone()),
            packet_id: u16::try_from(number % 60_000 + 1)
                .ok()
                .and_then(PacketId::new)
                .filter(|_| self.qos != QoS::AtMostOnce),
            properties: PublishProperties::default(),
            payload: Bytes::from(payload),
        })
    }
}

async fn publish(
    mut client: Client,
    words: Words,
    pace: Arc<Pace>,
    start: Arc<Barrier>,
) -> anyhow::Result<()> {
    let topic = TopicName::new(format!("bench/{}", words.publisher))?;
    start.wait().await;
    let answered = words.qos != QoS::AtMostOnce;
    let waits = words.paced || !answered;
    let window = if words.paced { WINDOW_FAN_IN } else { WINDOW };
    let (mut sent, mut acknowledged, mut done) = (0, 0, 0);
    while done < words.messages {
        while sent < words.messages && sent - done < window {
            client.queue(&words.message(&topic, sent));
            sent += 1;
        }
        client.flush().await?;
        let packets = tokio::select! {
            packets = client.receive(), if answered => packets?,
            () = pace.moved.notified(), if waits => Vec::new(),
        };
        for packet in packets {
            match packet {
                Packet::PubAck(_) | Packet::PubComp(_) => acknowledged += 1,
                Packet::PubRec(ack) => {
                    client.queue(&Packet::PubRel(Ack::new(ack.packet_id, ReasonCode::Success)));
                }
                other => anyhow::bail!("a publisher got {other:?}"),
            }
        }
        done = if answered { acknowledged } else { sent };
        if waits {
            done = done.min(pace.slowest());
        }
    }
    Ok(())
}

/// Takes every message, checks that none is lost, repeated or out of order, and acknowledges it.
async fn receive(
    mut client: Client,
    number: u32,
    messages: u32,
    pace: Arc<Pace>,
    start: Arc<Barrier>,
) -> anyhow::Result<()> {
    start.wait().await;
    let got = &pace.got[usize::try_from(number)?];
    let mut expected = 0;
    while expected < messages {
        let told = expected / (WINDOW / 2);
        for packet in client.receive().await? {
            let Some(publish) = client.acknowledge(packet)? else { continue };
            let number = publish.payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
            ensure!(number == Some(expected), "expected message {expected}, got {number:?}");
            expected += 1;
        }
        got.store(expected, Ordering::Relaxed);
        if expected / (WINDOW / 2) != told || expected == messages {
            pace.moved.notify_one();
        }
        client.flush().await?;
    }
    Ok(())
}

/// Takes the messages of all publishers, checks that none is lost, repeated or out of order, and acknowledges them.
async fn receive_all(
    mut client: Client,
    messages: u32,
    paces: Vec<Arc<Pace>>,
    start: Arc<Barrier>,
) -> anyhow::Result<()> {
    start.wait().await;
    let mut expected = vec![0; paces.len()];
    let mut left = messages * u32::try_from(paces.len())?;
    while left > 0 {
        for packet in client.receive().await? {
            let Some(publish) = client.acknowledge(packet)? else { continue };
            let (number, publisher) = number_and_publisher(&publish)?;
            let expected = expected.get_mut(publisher).context("an unknown publisher")?;
            ensure!(number == *expected, "expected message {expected} of {publisher}, got {number}");
            *expected += 1;
            left -= 1;
            paces[publisher].got[0].store(*expected, Ordering::Relaxed);
            if *expected % (WINDOW_FAN_IN / 2) == 0 || *expected == messages {
                paces[publisher].moved.notify_one();
            }
        }
        client.flush().await?;
    }
    Ok(())
}

/// What stands at the beginning of a message.
fn number_and_publisher(publish: &Publish) -> anyhow::Result<(u32, usize)> {
    let word = |at: usize| publish.payload.get(at..at + 4)?.first_chunk().map(|b| u32::from_be_bytes(*b));
    let publisher = word(4).context("a short payload")?;
    Ok((word(0).context("a short payload")?, usize::try_from(publisher)?))
}

/// Takes what the group gives it until the group has everything; each publisher's numbers must grow.
async fn share(
    mut client: Client,
    publishers: u32,
    left: Arc<AtomicU32>,
    all_got: Arc<Notify>,
    start: Arc<Barrier>,
) -> anyhow::Result<()> {
    start.wait().await;
    let mut last: Vec<Option<u32>> = vec![None; usize::try_from(publishers)?];
    loop {
        let packets = tokio::select! {
            packets = client.receive() => packets?,
            () = all_got.notified() => {
                all_got.notify_one();
                return Ok(());
            }
        };
        for packet in packets {
            let Some(publish) = client.acknowledge(packet)? else { continue };
            let (number, publisher) = number_and_publisher(&publish)?;
            let last = last.get_mut(publisher).context("an unknown publisher")?;
            ensure!(Some(number) > *last, "{number} after {last:?} of publisher {publisher}");
            *last = Some(number);
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                all_got.notify_one();
            }
        }
        client.flush().await?;
    }
}
