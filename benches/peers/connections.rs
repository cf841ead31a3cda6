//! Connections: how many come a second, and what one takes that does nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::Bench;
use crate::broker::Broker;
use crate::client::{Client, Session, Way};
use crate::table::Table;

const STORM: Table<2> = Table { columns: ["connects/s", "CPU us each"], more_is_better: true, rounds: 5 };
// Once: what a process has grown by it keeps for the next round.
const IDLE: Table<1> = Table { columns: ["resident B each"], more_is_better: false, rounds: 1 };

/// Connections of a round.
const CONNECTIONS: u32 = 5_000;
/// Idle connections, and how many before them.
const IDLE_CONNECTIONS: u32 = 10_000;
const IDLE_BEFORE: u32 = 5_000;
/// How many clients whose sessions end with them come at a time.
const PASSING_AT_ONCE: u32 = 100;
const ROUND_WITHIN: Duration = Duration::from_mins(2);

/// Storms of connects.
pub(crate) fn measure_storms(bench: &Bench) -> anyhow::Result<()> {
    STORM.head();
    let storms = [
        ("connect storm, clean", Session::Passing, Way::Tcp),
        ("connect storm, lasting, new", Session::Lasting, Way::Tcp),
        ("TLS, connect storm, clean", Session::Passing, Way::Tls),
    ];
    for (name, session, way) in storms.into_iter().filter(|(name, ..)| bench.wants(name)) {
        let mut round = 0;
        bench.compare(name, &STORM, |broker| {
            round += 1;
            let before = broker.cpu_time()?;
            let took = bench.runtime.block_on(storm(broker, way, session, round))?;
            let cpu = broker.cpu_time()?.saturating_sub(before).as_secs_f64() * 1e6 / f64::from(CONNECTIONS);
            Ok([f64::from(CONNECTIONS) / took.as_secs_f64(), cpu])
        })?;
    }
    Ok(())
}

/// Idle connections. To be measured first: memory that a process has once had is used again, and not counted.
pub(crate) fn measure_idle(bench: &Bench) -> anyhow::Result<()> {
    let name = "idle connections";
    if bench.wants(name) {
        IDLE.head();
        bench.compare(name, &IDLE, |broker| bench.runtime.block_on(idle(broker)).map(|bytes| [bytes]))?;
    }
    Ok(())
}

/// So many clients come, each a new one, and go as soon as they are in.
async fn storm(broker: &Broker, way: Way, session: Session, round: u32) -> anyhow::Result<Duration> {
    let next = Arc::new(AtomicU32::new(0));
    #[allow(clippy::disallowed_methods)] // a benchmark measures the time
    let began = Instant::now();
    let mut tasks = Vec::new();
    // Sessions that are written down come as many at once as a broker lets in; others alike for all.
    let at_once = if session == Session::Passing { PASSING_AT_ONCE } else { broker.at_once };
    for _ in 0..at_once {
        let (next, door) = (Arc::clone(&next), broker.door.clone());
        tasks.push(tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= CONNECTIONS {
                    return anyhow::Ok(());
                }
                let name = format!("storm-{round}-{number}");
                Client::connect(&door, way, name, session).await?.leave().await?;
            }
        }));
    }
    for task in tasks {
        tokio::time::timeout(ROUND_WITHIN, task).await.context("connections were refused")???;
    }
    Ok(began.elapsed())
}

/// What the process grows by for each of so many connections that do nothing. Others come before them, and take what
/// memory it has left over from its start.
async fn idle(broker: &Broker) -> anyhow::Result<f64> {
    let (mut clients, mut before) = (Vec::new(), 0);
    for number in 0..IDLE_BEFORE + IDLE_CONNECTIONS {
        if number == IDLE_BEFORE {
            before = broker.resident_bytes()?;
        }
        clients
            .push(Client::connect(&broker.door, Way::Tcp, format!("idle-{number}"), Session::Passing).await?);
    }
    let grown = broker.resident_bytes()?.saturating_sub(before);
    Ok(f64::from(u32::try_from(grown)?) / f64::from(IDLE_CONNECTIONS))
}
