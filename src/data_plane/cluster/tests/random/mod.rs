//! Random schedules against a small model: what may be lost is not missed, what may not is not lost.
//!
//! Some clients of mixed versions publish and subscribe at mixed QoS, acknowledge late, out of order or
//! never, lose links with whatever was on them, come back, take over, are destroyed by orders, expire;
//! records are committed late or not at all. A failing schedule prints its seed.

mod client;
mod model;

use client::Client;
use model::{FILTERS, TOPICS};

use super::packets::*;
use super::records::Mode;
use super::*;
use crate::data_plane::cluster::RecordOutcome;
use crate::model::OperatorExpiry;

/// Schedules that run with every `cargo test`.
const SEEDS: u64 = 50;
/// Schedules for a longer look: `cargo test --lib many_random -- --ignored`.
const MANY_SEEDS: u64 = 20_000;
const STEPS: usize = 400;

#[test]
fn random_schedules_lose_nothing_that_was_promised() {
    run_all(1..=SEEDS);
}

#[test]
#[ignore = "takes minutes"]
fn many_random_schedules_lose_nothing_that_was_promised() {
    run_all(SEEDS + 1..=MANY_SEEDS);
}

fn run_all(seeds: std::ops::RangeInclusive<u64>) {
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "the schedule of seed {seed} fails; run it alone with `run({seed})`");
    }
}

fn run(seed: u64) {
    let mut schedule = Schedule::new(seed);
    for _ in 0..STEPS {
        schedule.step();
        schedule.observe();
        schedule.check_counts();
    }
    schedule.finish();
}

/// Splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("small")
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

struct Schedule {
    world: World,
    random: Random,
    clients: Vec<Client>,
    /// Messages that were ever made.
    last_message: usize,
    /// Messages that have arrived at the server.
    arrivals: usize,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let makers = [v5, v3, v31];
        let clients = (0..8).map(|n| Client::new(makers[if n < 5 { 0 } else { n % 3 }], n)).collect();
        Self { world: World::new(), random: Random(seed), clients, last_message: 0, arrivals: 0 }
    }

    fn step(&mut self) {
        let at = self.random.below(self.clients.len());
        let roll = self.random.below(100);
        match roll {
            0..30 => self.publish(at),
            30..42 => self.clients[at].acknowledge(&mut self.world, &mut self.random),
            42..58 => self.read(at),
            58..66 => self.connect(at),
            66..72 => self.subscribe(at),
            72..75 => self.unsubscribe(at),
            75..78 => self.clients[at].lose_link(&mut self.world),
            78..81 => self.cut(at),
            81..83 => self.goodbye(at),
            83..86 => self.flow(at),
            86..92 => self.time(),
            92..95 => self.order(at),
            _ => self.store(),
        }
    }

    fn publish(&mut self, at: usize) {
        let (qos, topic) = (self.random.pick(&[Q0, Q1, Q1, Q2, Q2]), self.random.below(TOPICS.len()));
        let retain = self.random.one_in(20);
        if !self.clients[at].is_attached() {
            return;
        }
        self.last_message += 1;
        let arrived = self.clients[at].publish(&mut self.world, self.last_message, topic, qos, retain);
        if arrived {
            self.arrived(at, self.last_message, topic, qos);
        }
    }

    /// A message is at the server: whoever subscribes is owed it.
    fn arrived(&mut self, publisher: usize, message: usize, topic: usize, qos: QoS) {
        self.arrivals += 1;
        for (at, client) in self.clients.iter_mut().enumerate() {
            client.owe(self.world.now.wall, message, self.arrivals, topic, qos, at == publisher);
        }
    }

    fn connect(&mut self, at: usize) {
        // Mostly those who are away.
        if self.clients[at].peer.is_some() && !self.random.one_in(4) {
            return;
        }
        self.clients[at].connect(&mut self.world, &mut self.random);
    }

    fn subscribe(&mut self, at: usize) {
        let (filter, qos) = (self.random.pick(&FILTERS), self.random.pick(&[Q0, Q1, Q2]));
        let no_local = self.random.one_in(4);
        self.clients[at].subscribe(&mut self.world, filter, qos, no_local);
    }

    fn unsubscribe(&mut self, at: usize) {
        let filter = self.random.pick(&FILTERS);
        self.clients[at].unsubscribe(&mut self.world, filter);
    }

    fn read(&mut self, at: usize) {
        let packets = 1 + self.random.below(8);
        self.clients[at].read(packets);
    }

    fn cut(&mut self, at: usize) {
        if let Some(peer) = self.clients[at].peer {
            self.world.cut(peer);
        }
    }

    fn goodbye(&mut self, at: usize) {
        let expiry = self.random.pick(&[None, None, Some(0), Some(5), Some(100)]);
        self.clients[at].goodbye(&mut self.world, expiry);
    }

    fn flow(&mut self, at: usize) {
        if let Some(peer) = self.clients[at].peer.filter(|_| self.clients[at].is_attached()) {
            if self.random.one_in(2) {
                self.world.congest(peer);
            } else {
                self.world.relieve(peer);
            }
        }
    }

    fn time(&mut self) {
        let secs = self.random.pick(&[1, 1, 2, 5, 5, 10, 20, 121]);
        self.world.advance(secs);
    }

    fn order(&mut self, at: usize) {
        let interval = self.random.pick(&[0, 5, 100]);
        let order = match self.random.below(5) {
            0 | 1 => DISCONNECT,
            2 => DESTROY,
            3 => Order::ApplyExpiry(Some(OperatorExpiry::Interval(interval))),
            _ => Order::ApplyExpiry(None),
        };
        let client = &mut self.clients[at];
        let known = client.has_session(self.world.now.wall);
        let command = self.world.order(&client.id, order.clone());
        match self.world.answer(command) {
            Some(Err(CommandError::NoSuchSession)) => assert!(!known, "{} has a session", client.id),
            Some(Err(other)) => assert_eq!(other, CommandError::StoreAway),
            Some(Ok(_)) | None => assert!(known, "{} has no session", client.id),
        }
        client.ordered(self.world.now.wall, &order);
    }

    fn store(&mut self) {
        match self.random.below(6) {
            0 => self.world.records.mode = Mode::Late,
            1 => self.world.store_goes_away(),
            2 => self.world.store_comes_back(),
            3 => self.world.decide_records(RecordOutcome::StoreAway),
            _ => {
                self.world.decide_records(RecordOutcome::Committed);
                self.world.cluster.set_store_away(false);
            }
        }
    }

    fn observe(&mut self) {
        for at in 0..self.clients.len() {
            self.clients[at].observe(&mut self.world, &mut self.random);
            for (message, topic) in self.clients[at].resume(&mut self.world) {
                self.arrived(at, message, topic, Q2);
            }
        }
    }

    fn check_counts(&mut self) {
        let now = self.world.now.wall;
        let online = self.clients.iter().filter(|client| client.peer.is_some()).count();
        let known = self.clients.iter().filter(|client| client.has_session(now)).count();
        let expected = (u32::try_from(online).expect("few"), u32::try_from(known - online).expect("few"));
        assert_eq!(self.world.counts(), expected);
    }

    /// Everybody whose session is left gets what it is owed; then everything goes.
    fn finish(mut self) {
        self.world.store_comes_back();
        self.observe();
        for at in 0..self.clients.len() {
            self.cut(at);
        }
        self.observe();
        let now = self.world.now.wall;
        for at in 0..self.clients.len() {
            if self.clients[at].has_session(now) {
                self.clients[at].come_back(&mut self.world);
            }
        }
        self.observe();
        for _ in 0..2 {
            for client in &mut self.clients {
                client.read_and_acknowledge_all(&mut self.world, &mut self.random);
            }
        }
        for client in &mut self.clients {
            client.check_nothing_lost();
            self.world.order(&client.id, DESTROY);
        }
        self.world.advance(1_000);
        let World { cluster, records, .. } = &self.world;
        assert_eq!(cluster.counts().total(), 0);
        assert!(cluster.sessions.is_empty() && cluster.index.is_empty() && cluster.wills.is_empty());
        assert!(cluster.pending.is_empty(), "{:?}", cluster.pending);
        assert_eq!((cluster.log.bytes(), records.len()), (0, 0));
    }
}
