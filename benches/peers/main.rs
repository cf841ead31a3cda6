//! `make bench`: Holdfast beside other brokers, on the same work, in the same run.
//!
//! The brokers take turns, round by round, so that a noisy machine troubles all of them. Every message carries
//! its number; a round in which one is lost, repeated or out of order fails. Printed are medians, and the
//! ratio to the better of mosquitto's two settings, with and without `set_tcp_nodelay`.
//!
//! - *flow*: pairs, fan-out and shared groups, flat out, with a bounded window.
//! - *latency*: 5,000 messages a second, from PUBLISH to PUBLISH.
//! - *connections*: how many come a second, and what an idle one takes.
//!
//! Debian's mosquitto is found where apt puts it; `make peers` builds rumqttd and rmqttd. A broker that is
//! not there is left out.
//!
//! | variable | effect |
//! | --- | --- |
//! | `HOLDFAST_BENCH_ONLY` | runs the scenarios whose names contain it |
//! | `HOLDFAST_BENCH_PEERS` | the peers to be measured, by the beginnings of their names, between commas |
//! | `HOLDFAST_BENCH_BEFORE` | another build of ours, a path, to be measured beside this one |
//! | `HOLDFAST_BENCH_ROUNDS` | rounds of each scenario |

#![allow(clippy::print_stdout)] // a benchmark is read on standard output

#[path = "../support/broker.rs"]
mod broker;
#[path = "../support/client.rs"]
mod client;
mod connections;
mod flow;
mod latency;
mod table;

use broker::Broker;
use table::Table;
use tokio::runtime::{Builder, Runtime};

fn main() -> anyhow::Result<()> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let mut brokers = vec![Broker::holdfast()?];
    if let Some(before) = setting("BEFORE") {
        brokers.push(Broker::holdfast_built("holdfast before", before.into())?);
    }
    let peers = setting("PEERS");
    let wanted = |peer: &str| peers.as_ref().is_none_or(|some| some.split(',').any(|s| peer.starts_with(s)));
    if wanted("mosquitto") {
        brokers.extend(Broker::mosquitto("mosquitto", "set_tcp_nodelay true\npersistence false")?);
        brokers.extend(Broker::mosquitto("mosquitto-default", "persistence false")?);
    }
    if wanted("rumqttd") {
        brokers.extend(Broker::rumqttd()?);
    }
    if wanted("rmqttd") {
        brokers.extend(Broker::rmqttd()?);
    }
    let only = setting("ONLY").unwrap_or_default();
    let rounds = setting("ROUNDS").map(|rounds| rounds.parse()).transpose()?;
    let bench = Bench { runtime, brokers, only, rounds };
    connections::measure_idle(&bench)?;
    flow::measure(&bench)?;
    latency::measure(&bench)?;
    connections::measure_storms(&bench)
}

#[allow(clippy::disallowed_methods)] // no setting of the service
fn setting(name: &str) -> Option<String> {
    std::env::var(format!("HOLDFAST_BENCH_{name}")).ok()
}

/// The brokers and what runs the clients.
struct Bench {
    runtime: Runtime,
    /// Ours is the first.
    brokers: Vec<Broker>,
    only: String,
    rounds: Option<usize>,
}

impl Bench {
    /// Whether this scenario is to be run.
    fn wants(&self, scenario: &str) -> bool {
        scenario.contains(&self.only)
    }

    /// Lets the brokers take turns and prints the medians of what `round` tells of each: the first figure is
    /// what counts, more is better if `more_is_better`.
    fn compare<const N: usize>(
        &self,
        scenario: &str,
        table: &Table<N>,
        mut round: impl FnMut(&Broker) -> anyhow::Result<[f64; N]>,
    ) -> anyhow::Result<()> {
        let mut rounds: Vec<Vec<[f64; N]>> = vec![Vec::new(); self.brokers.len()];
        let mut failures: Vec<Option<anyhow::Error>> = self.brokers.iter().map(|_| None).collect();
        for _ in 0..self.rounds.filter(|_| table.rounds > 1).unwrap_or(table.rounds) {
            for (at, broker) in self.brokers.iter().enumerate().filter(|(_, b)| b.can(scenario)) {
                if failures[at].is_some() {
                    continue;
                }
                match round(broker) {
                    Ok(figures) => rounds[at].push(figures),
                    // A peer that fails is told of; we may not.
                    Err(error) if at > 0 => failures[at] = Some(error),
                    Err(error) => return Err(error.context(broker.name)),
                }
            }
        }
        for (broker, failure) in self.brokers.iter().zip(failures) {
            if let Some(failure) = failure {
                println!("{scenario:<34}{:<19} failed: {failure}", broker.name);
            }
        }
        table.print(scenario, &self.brokers, &rounds);
        Ok(())
    }
}
