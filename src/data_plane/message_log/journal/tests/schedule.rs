//! Random schedules of everything the journal does, cut off at random moments by a crash.
//!
//! After each: what was reported durable is there; what was not is there up to some entry; nothing
//! else is; the facts are those of exactly these entries; and no damage is reported, because a crash does none.

use std::collections::{BTreeMap, BTreeSet};

use super::sim_disk::{Chance, Fault, SimDisk};
use super::*;

/// Schedules of which each has another seed.
const SCHEDULES: u64 = 40;
const STEPS: usize = 60;
/// In each entry of the first cluster, under this key: its number.
const COUNTER: &[u8] = b"counter";

const CLUSTERS: [ClusterNo; 2] = [ClusterNo(1), ClusterNo(2)];
const FILTERS: [FilterKey; 3] = [FilterKey(0xA), FilterKey(0xB), FilterKey(u64::MAX)];

type FactMap = BTreeMap<(ClusterNo, Bytes), Bytes>;

/// What should be true.
struct World {
    seed: u64,
    chance: Chance,
    disk: SimDisk,
    /// All entries that may be in the journal, in order.
    entries: Vec<Entry>,
    /// So many of them were reported durable.
    durable: usize,
    /// Messages that were in segments that were released.
    released: BTreeSet<(ClusterNo, Seq)>,
}

#[test]
fn what_is_reported_durable_survives_any_crash_and_nothing_else_appears() {
    let mut recycled = 0;
    for seed in 0..SCHEDULES {
        let mut world = World {
            seed,
            chance: Chance(seed),
            disk: SimDisk::new(),
            entries: Vec::new(),
            durable: 0,
            released: BTreeSet::new(),
        };
        for _ in 0..4 {
            recycled += world.live();
        }
        world.recover();
    }
    assert!(recycled > 100, "{recycled} files were used again: the schedules miss what they are for");
}

impl World {
    /// Opens the journal, checks it, lives on until the power goes. Tells how many files were used again.
    fn live(&mut self) -> usize {
        if self.chance.one_in(3) {
            // The power goes while the journal is being opened.
            self.disk.fail(Fault::StopAfter(self.chance.below(12)));
            drop(ByHand::open(self.disk.as_disk()));
            self.disk = self.disk.crash(&mut self.chance);
        }
        let mut journal = self.recover();
        let until = 20 + self.chance.below(400);
        self.disk.fail(Fault::StopAfter(until));
        let mut recycled = 0;
        for _ in 0..STEPS {
            match self.chance.below(10) {
                0..6 => {
                    if self.commit(&mut journal).is_err() {
                        break;
                    }
                }
                6 => drop(stock::prepare(&journal.core)),
                7 => drop(journal.keeper.work()),
                8 => self.release(&journal),
                _ => self.check_messages(&journal, self.entries.len()),
            }
            recycled += usize::from(self.disk.names().iter().any(|name| name.starts_with("spare-")));
        }
        // The process may only have been killed. The system then keeps what it has in memory.
        let killed = self.chance.one_in(3);
        self.disk = if killed { self.disk.kill() } else { self.disk.crash(&mut self.chance) };
        recycled
    }

    fn commit(&mut self, journal: &mut ByHand) -> Result<(), Fatal> {
        let count = 1 + self.chance.below(6);
        let entries: Vec<Entry> = (0..count).map(|_| self.entry()).collect();
        let done = journal.commit(entries);
        if done.is_ok() {
            self.durable = self.entries.len();
        }
        done
    }

    fn entry(&mut self) -> Entry {
        let cluster = CLUSTERS[usize::try_from(self.chance.below(2)).expect("small")];
        let number = self.entries.len() as u64 + 1;
        let said_before = |entry: &&Entry| entry.cluster == cluster && entry.message.is_some();
        let seq = self.entries.iter().filter(said_before).count() as u64 + 1;
        let filters: Vec<FilterKey> = FILTERS.into_iter().filter(|_| self.chance.one_in(2)).collect();
        let mut entry = if filters.is_empty() {
            changed(cluster, Vec::new())
        } else {
            let len = if self.chance.one_in(4) { 12_000 } else { 300 };
            let len = usize::try_from(self.chance.below(len)).expect("small");
            let mut payload = number.to_le_bytes().to_vec();
            payload.resize(8 + len, (number % 251) as u8);
            said(cluster, seq, &filters, payload)
        };
        for _ in 0..self.chance.below(4) {
            entry.changes.push(self.change(number));
        }
        entry.changes.push(put(COUNTER, number.to_le_bytes().to_vec()));
        self.entries.push(entry.clone());
        entry
    }

    fn change(&mut self, number: u64) -> Change {
        let mut key = vec![b'k'];
        for _ in 0..self.chance.below(4) {
            key.push(b'0' + u8::try_from(self.chance.below(4)).expect("small"));
        }
        let key = Bytes::from(key);
        match self.chance.below(8) {
            0 => Change::DeleteAll { prefix: key },
            1 | 2 => Change::Delete { key },
            _ => put(key, format!("{number}")),
        }
    }

    fn release(&mut self, journal: &ByHand) {
        let sealed: Vec<_> = journal.core.catalog.read().sealed.values().map(|it| it.summary()).collect();
        if sealed.is_empty() {
            return;
        }
        // Mostly the oldest, as retention does; sometimes any.
        let any = usize::try_from(self.chance.below(sealed.len() as u64)).expect("small");
        let segment = &sealed[if self.chance.one_in(4) { any } else { 0 }];
        for span in &segment.clusters {
            self.released.extend((span.first.0..=span.last.0).map(|seq| (span.cluster, Seq(seq))));
        }
        journal.core.release(segment.number);
    }

    /// Opens the journal after a crash, and forgets what did not survive.
    fn recover(&mut self) -> ByHand {
        let seed = self.seed;
        let (journal, recovered) = match ByHand::open(self.disk.as_disk()) {
            Ok(opened) => opened,
            Err(error) => panic!("seed {seed}: {error}: {:?}", self.disk.names()),
        };
        assert_eq!(recovered.report.damage, [], "seed {seed}");
        let mut facts = FactMap::new();
        for fact in recovered.facts {
            let fact = fact.expect("a readable checkpoint");
            assert_eq!(facts.insert((fact.cluster, fact.key), fact.value), None, "seed {seed}: each once");
        }
        let counter = |(key, value): (&(ClusterNo, Bytes), &Bytes)| {
            (key.1 == COUNTER).then(|| u64::from_le_bytes(value[..].try_into().expect("8 bytes")))
        };
        let there = usize::try_from(facts.iter().filter_map(counter).max().unwrap_or(0)).expect("small");
        assert!(
            there >= self.durable,
            "seed {seed}: {there} entries are left, {} were durable",
            self.durable
        );
        assert!(there <= self.entries.len(), "seed {seed}");
        self.entries.truncate(there);
        assert_eq!(facts, fold(&self.entries), "seed {seed}: facts after {there} entries");
        for cluster in CLUSTERS {
            let of = |entry: &&Entry| entry.cluster == cluster && entry.message.is_some();
            let last = self.entries.iter().filter(of).count() as u64;
            let told = recovered.last_seqs.get(&cluster).copied().unwrap_or_default();
            assert_eq!(told, Seq(last), "seed {seed}: the last position of {cluster:?}");
        }
        // What is there is durable now: it may have been shown to somebody.
        self.durable = there;
        self.check_messages(&journal, there);
        journal
    }

    /// Each message of the first `there` entries is found under its filters, as it was, unless its
    /// segment was released; and nothing else.
    fn check_messages(&self, journal: &ByHand, there: usize) {
        let seed = self.seed;
        for cluster in CLUSTERS {
            for filter in FILTERS {
                let batch = journal.read(&all(cluster, filter));
                assert_eq!(batch.damaged, 0, "seed {seed}");
                let found: BTreeMap<Seq, &Bytes> =
                    batch.messages.iter().map(|entry| (entry.place.seq, &entry.message.payload)).collect();
                assert_eq!(found.len(), batch.messages.len(), "seed {seed}: each once");
                let mut expected = 0;
                for posted in self.entries[..there].iter().filter(|entry| entry.cluster == cluster) {
                    let Some(posted) = &posted.message else { continue };
                    if !posted.filters.contains(&filter) {
                        continue;
                    }
                    match found.get(&posted.seq) {
                        Some(payload) => {
                            assert_eq!(**payload, posted.message.payload, "seed {seed}: {:?}", posted.seq);
                            expected += 1;
                        }
                        None => assert!(
                            self.released.contains(&(cluster, posted.seq)),
                            "seed {seed}: {cluster:?} {:?} is lost",
                            posted.seq
                        ),
                    }
                }
                assert_eq!(expected, found.len(), "seed {seed}: something that was never said");
            }
        }
    }
}

fn fold(entries: &[Entry]) -> FactMap {
    let mut facts = FactMap::new();
    for entry in entries {
        for change in &entry.changes {
            match change {
                Change::Put { key, value } => drop(facts.insert((entry.cluster, key.clone()), value.clone())),
                Change::Delete { key } => drop(facts.remove(&(entry.cluster, key.clone()))),
                Change::DeleteAll { prefix } => {
                    facts.retain(|(cluster, key), _| *cluster != entry.cluster || !key.starts_with(prefix));
                }
            }
        }
    }
    facts
}
