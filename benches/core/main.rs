//! `cargo bench --bench core`: what a message costs in the pure rooms: codec, matching, sessions, log. No
//! socket, no disk, one thread.
//!
//! Each row is time, and allocations, for one message (or one call). For instruction counts, which repeat exactly
//! on any machine, run one row alone under callgrind and divide by what it says it did:
//! `HOLDFAST_BENCH_ONLY="pair, QoS 1" valgrind --tool=callgrind target/release/deps/core-…`.

#![allow(clippy::print_stdout, clippy::disallowed_methods)] // read on standard output; it measures time

mod stage;

use std::hint::black_box;
use std::time::Instant;

use bytes::BytesMut;
use holdfast::data_plane::broker::Slot;
use holdfast::data_plane::broker::subscription_index::{Subscriber, SubscriptionIndex};
use holdfast::data_plane::protocol::{Decoder, Packet};
use holdfast::model::{QoS, RetainHandling, Subscription, SubscriptionOrigin, TopicFilter};

use stage::{Stage, publish};

/// Filters for the rows about matching.
const FILTERS: u32 = 100_000;

fn main() -> anyhow::Result<()> {
    let only = std::env::var("HOLDFAST_BENCH_ONLY").unwrap_or_default();
    let wants = |name: &str| name.contains(&only);
    println!("{:<34}{:>12}{:>16}{:>12}", "row", "ns each", "allocations", "done");
    if wants("decode a PUBLISH") {
        decode();
    }
    if wants("match") {
        matching(&wants)?;
    }
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let name = format!("pair, QoS {}", u8::from(qos));
        if wants(&name) {
            row(&name, 1, Stage::pair(qos, false)?, |stage| stage.exchange(64));
        }
    }
    if wants("to a sleeper, QoS 1") {
        row("to a sleeper, QoS 1", 1, Stage::pair(QoS::AtLeastOnce, true)?, |stage| stage.exchange(64));
    }
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let name = format!("one to 1,000, QoS {}, each copy", u8::from(qos));
        if wants(&name) {
            row(&name, 1_000, Stage::fan_out(qos, 1_000)?, |stage| stage.exchange(1));
        }
    }
    Ok(())
}

/// Measures `round` on `subject`: it returns how many messages it has handled, each with `copies` deliveries.
fn row<T>(name: &str, copies: u64, mut subject: T, mut round: impl FnMut(&mut T) -> u64) {
    round(&mut subject);
    let (mut best, mut done, mut allocations) = (f64::INFINITY, 0, 0.0);
    for _ in 0..5 {
        let mut handled = 0;
        let began = Instant::now();
        let counted = allocation_counter::measure(|| {
            while handled * copies < 50_000 {
                handled += black_box(round(&mut subject));
            }
        });
        #[allow(clippy::cast_precision_loss)] // far below 2^52
        let per_copy = |total: f64| total / (handled * copies) as f64;
        best = f64::min(best, per_copy(began.elapsed().as_secs_f64() * 1e9));
        #[allow(clippy::cast_precision_loss)]
        {
            allocations = per_copy(counted.count_total as f64);
        }
        done += handled * copies;
    }
    println!("{name:<34}{best:>12.0}{allocations:>16.2}{done:>12}");
}

fn decode() {
    let packet = publish("pair/0", QoS::AtLeastOnce, 7, 64);
    let many = packet.repeat(64);
    let mut decoder = Decoder::server(1 << 20);
    // A server's decoder learns the version from CONNECT.
    let mut hello = BytesMut::from(stage::connect("c", true).as_slice());
    let _ = decoder.decode(&mut hello);
    row("decode a PUBLISH", 1, decoder, |decoder| {
        let mut buffer = BytesMut::from(many.as_slice());
        let mut count = 0;
        while let Ok(Some(Packet::Publish(publish))) = decoder.decode(&mut buffer) {
            black_box(publish);
            count += 1;
        }
        count
    });
}

/// A fleet: a filter of its own for each device, and wildcards at three levels.
fn matching(wants: &impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let mut index = SubscriptionIndex::default();
    for n in 0..FILTERS {
        let filter = match n % 10 {
            0 => format!("fleet/+/dev/{n}/cmd"),
            1 => format!("fleet/{}/dev/{n}/#", n % 100),
            _ => format!("fleet/{}/dev/{n}/cmd", n % 100),
        };
        let filter = TopicFilter::new(&filter)?;
        let subscription = Subscription {
            filter: filter.clone(),
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
            identifier: None,
            origin: SubscriptionOrigin::Client,
        };
        index.put(&filter, Subscriber::new(Slot(n), &subscription, false));
    }
    let topics: Vec<String> = (0..FILTERS).map(|n| format!("fleet/{}/dev/{n}/cmd", n % 100)).collect();
    if wants("match, topic seen before") {
        let mut n = 0;
        row("match, topic seen before", 1, &mut index, |index| {
            n = (n + 7_919) % 10_000;
            u64::from(!index.matches(&topics[n]).is_empty())
        });
    }
    if wants("match, new topic") {
        let mut n = 0_u64;
        row("match, new topic", 1, &mut index, |index| {
            n += 1;
            let topic = format!("fleet/{}/dev/{}/cmd/{n}", n % 100, n % 100_000);
            black_box(index.matches(&topic));
            1
        });
    }
    Ok(())
}
