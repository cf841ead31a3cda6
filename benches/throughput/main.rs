//! `make bench`: Holdfast beside Debian's mosquitto, on the same work, in the same run.
//!
//! For each scenario the brokers take turns, round by round, so that a noisy machine troubles both.
//! Every message carries its number; a round in which one is lost, repeated or out of order fails.
//! Printed are medians: messages delivered per second, CPU time of the broker per message, and the
//! ratios. QoS 0 is not among the scenarios yet: a broker may drop it from a client that is behind, so a
//! publisher that nothing holds back measures losses, not speed. Without mosquitto (`apt-get install mosquitto`) only Holdfast is measured.

#![allow(clippy::print_stdout)] // a benchmark is read on standard output

#[path = "../support/broker.rs"]
mod broker;
#[path = "../support/client.rs"]
mod client;
mod load;

use std::time::Duration;

use broker::Broker;
use holdfast::model::QoS;
use load::Scenario;

/// Rounds of each broker in each scenario; the median counts.
const ROUNDS: usize = 5;

const SCENARIOS: [Scenario; 3] = [
    Scenario { name: "50 pairs, QoS 1", pairs: 50, subscribers: 1, messages: 4_000, qos: QoS::AtLeastOnce },
    Scenario { name: "50 pairs, QoS 2", pairs: 50, subscribers: 1, messages: 1_000, qos: QoS::ExactlyOnce },
    Scenario {
        name: "fan-out 1 to 500, QoS 1",
        pairs: 1,
        subscribers: 500,
        messages: 1_000,
        qos: QoS::AtLeastOnce,
    },
];

/// What one round showed.
#[derive(Clone, Copy, Debug)]
struct Figures {
    delivered_per_sec: f64,
    cpu_micros_per_message: f64,
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut brokers = vec![Broker::holdfast()?];
    match Broker::mosquitto("persistence false")? {
        Some(mosquitto) => brokers.push(mosquitto),
        None => println!("mosquitto is not installed (apt-get install mosquitto): no yardstick"),
    }
    println!(
        "{:<26}{:<12}{:>14}{:>16}{:>10}",
        "scenario", "broker", "delivered/s", "CPU us/message", "ratio"
    );
    for scenario in &SCENARIOS {
        let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); brokers.len()];
        for _ in 0..ROUNDS {
            for (broker, figures) in brokers.iter().zip(&mut rounds) {
                figures.push(round(&runtime, broker, scenario)?);
            }
        }
        let yardstick = rounds.get(1).map(|rounds| median(rounds, |f| f.delivered_per_sec));
        for (broker, figures) in brokers.iter().zip(&rounds) {
            let rate = median(figures, |f| f.delivered_per_sec);
            let cpu = median(figures, |f| f.cpu_micros_per_message);
            let ratio = yardstick.map_or(String::new(), |yardstick| format!("{:.2}", rate / yardstick));
            println!("{:<26}{:<12}{rate:>14.0}{cpu:>16.2}{ratio:>10}", scenario.name, broker.name);
        }
    }
    Ok(())
}

fn round(runtime: &tokio::runtime::Runtime, broker: &Broker, scenario: &Scenario) -> anyhow::Result<Figures> {
    let before = broker.cpu_time()?;
    let (delivered, took): (u64, Duration) = runtime.block_on(load::run(broker.address, scenario))?;
    let cpu = broker.cpu_time()?.saturating_sub(before);
    let delivered = f64::from(u32::try_from(delivered)?);
    Ok(Figures {
        delivered_per_sec: delivered / took.as_secs_f64(),
        cpu_micros_per_message: cpu.as_secs_f64() * 1e6 / delivered,
    })
}

fn median(rounds: &[Figures], figure: impl Fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(figure).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
