//! `make bench`: sessions that sleep. Holdfast, which syncs to disk before it acknowledges, beside
//! Debian's mosquitto with persistence on, which keeps messages in memory and syncs nothing.
//!
//! - *publish*: messages at QoS 1 to topics with a sleeping persistent subscriber each.
//! - *drain*: those subscribers return and get everything; each message is checked and acknowledged.
//! - *one to N*: one message to a topic with N sleeping persistent subscribers, until its PUBACK.
//! - *return of N*: they return and get it.
//! - *memory*: what a sleeping session with a filter of its own takes.
//!
//! `HOLDFAST_BENCH_SLEEPERS` sets the greatest N (default 10,000).

#![allow(clippy::print_stdout)] // a benchmark is read on standard output

#[path = "../support/broker.rs"]
mod broker;
#[path = "../support/client.rs"]
mod client;
mod work;

use std::time::Duration;

use anyhow::Context;

use broker::Broker;

/// Rounds of each broker; the median counts.
const ROUNDS: usize = 5;
/// Publishers, each with a sleeping subscriber.
const PAIRS: u32 = 50;
/// Messages of each publisher in a round.
const MESSAGES: u32 = 4_000;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut brokers = vec![Broker::holdfast()?];
    brokers.extend(Broker::mosquitto("mosquitto", "set_tcp_nodelay true\npersistence true")?);
    println!("{:<26}{:<12}{:>14}{:>16}{:>10}", "scenario", "broker", "per second", "CPU us each", "ratio");
    backlog(&runtime, &brokers)?;
    one_to_many(&runtime, &brokers)
}

/// What one round showed.
#[derive(Clone, Copy, Debug)]
struct Figures {
    per_sec: f64,
    cpu_micros: f64,
}

fn backlog(runtime: &tokio::runtime::Runtime, brokers: &[Broker]) -> anyhow::Result<()> {
    let mut publish: Vec<Vec<Figures>> = vec![Vec::new(); brokers.len()];
    let mut drain = publish.clone();
    for broker in brokers {
        runtime.block_on(work::fall_asleep(broker, "pair", PAIRS, |n| format!("pair/{n}")))?;
    }
    let count = PAIRS * MESSAGES;
    for _ in 0..ROUNDS {
        for (at, broker) in brokers.iter().enumerate() {
            publish[at]
                .push(measure(broker, count, || runtime.block_on(work::publish(broker, PAIRS, MESSAGES)))?);
            drain[at].push(measure(broker, count, || {
                runtime.block_on(work::drain(broker, "pair", PAIRS, MESSAGES))
            })?);
        }
    }
    print("publish to sleepers, QoS 1", brokers, &publish);
    print("drain on return, QoS 1", brokers, &drain);
    Ok(())
}

fn one_to_many(runtime: &tokio::runtime::Runtime, brokers: &[Broker]) -> anyhow::Result<()> {
    #[allow(clippy::disallowed_methods)] // no setting of the service
    let most = std::env::var("HOLDFAST_BENCH_SLEEPERS").ok().and_then(|text| text.parse().ok());
    let most: u32 = most.unwrap_or(10_000);
    for sleepers in [1, 100, 10_000, 100_000].into_iter().filter(|n| *n <= most) {
        let group = format!("many{sleepers}");
        let mut took: Vec<Vec<Duration>> = vec![Vec::new(); brokers.len()];
        for broker in brokers {
            let before = broker.resident_bytes()?;
            let topic = group.clone();
            runtime.block_on(work::fall_asleep(broker, &group, sleepers, move |_| topic.clone()))?;
            let grown = broker.resident_bytes()?.saturating_sub(before);
            if sleepers >= 10_000 {
                println!(
                    "{:<26}{:<12}{:>14} B a session",
                    "memory, one shared filter",
                    broker.name,
                    grown / u64::from(sleepers)
                );
            }
        }
        for _ in 0..ROUNDS {
            for (at, broker) in brokers.iter().enumerate() {
                took[at].push(runtime.block_on(work::publish_once(broker, &group))?);
            }
        }
        for (at, broker) in brokers.iter().enumerate() {
            took[at].sort();
            let micros = took[at][ROUNDS / 2].as_micros();
            println!("{:<26}{:<12}{micros:>14} us", format!("one to {sleepers}"), broker.name);
        }
        let count = sleepers * u32::try_from(ROUNDS)?;
        let mut back: Vec<Vec<Figures>> = vec![Vec::new(); brokers.len()];
        for (at, broker) in brokers.iter().enumerate() {
            back[at].push(measure(broker, count, || {
                runtime.block_on(work::drain(broker, &group, sleepers, u32::try_from(ROUNDS)?))
            })?);
        }
        print(&format!("return of {sleepers}"), brokers, &back);
    }
    Ok(())
}

fn measure(
    broker: &Broker,
    count: u32,
    work: impl FnOnce() -> anyhow::Result<Duration>,
) -> anyhow::Result<Figures> {
    let before = broker.cpu_time()?;
    let took = work().context(broker.name)?;
    let cpu = broker.cpu_time()?.saturating_sub(before);
    let count = f64::from(count);
    Ok(Figures { per_sec: count / took.as_secs_f64(), cpu_micros: cpu.as_secs_f64() * 1e6 / count })
}

fn print(scenario: &str, brokers: &[Broker], rounds: &[Vec<Figures>]) {
    let yardstick = rounds.get(1).map(|rounds| median(rounds, |f| f.per_sec));
    for (broker, figures) in brokers.iter().zip(rounds) {
        let (rate, cpu) = (median(figures, |f| f.per_sec), median(figures, |f| f.cpu_micros));
        let ratio = yardstick.map_or(String::new(), |yardstick| format!("{:.2}", rate / yardstick));
        println!("{scenario:<26}{:<12}{rate:>14.0}{cpu:>16.2}{ratio:>10}", broker.name);
    }
}

fn median(figures: &[Figures], of: impl Fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = figures.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
