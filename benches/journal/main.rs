//! `cargo bench --bench journal [-- GIB]`: the message log on this machine's disk.
//!
//! Printed are: entries made durable per second, by how many are handed over at once; how long opening
//! takes with `GIB` (1 when not given) of messages kept; and how fast they are read back, by one
//! filter that has all of them and by filters that have few. Files are made in the system's
//! temporary directory: set `TMPDIR` to measure another disk. What is read back lies in the system's cache.

#![allow(clippy::print_stdout)] // a benchmark is read on standard output
#![allow(clippy::disallowed_methods)] // it measures time

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use holdfast::data_plane::message_log::journal::{
    BatchNo, Events, Journal, Options, OsDisk, ReadBatch, ReadRequest, Recovered,
};
use holdfast::data_plane::message_log::{Change, ClusterNo, Entry, FilterKey, Posted};
use holdfast::model::{Message, PropertyBytes, QoS, Seq, Timestamp, TopicName};
use smallvec::smallvec;

const CLUSTER: ClusterNo = ClusterNo(1);
const PAYLOAD_BYTES: usize = 256;
/// Batches that are under way at once, as when a worker goes on while the last turn is synced.
const WINDOW: u64 = 2;
/// Distinct filters, and as many facts: sessions with one filter each.
const FILTERS: u64 = 100_000;
/// Has every message, as well as one of the others.
const COMMON: FilterKey = FilterKey(1);

/// A journal, and word of what is durable.
struct Bench {
    journal: Journal,
    durable: mpsc::Receiver<BatchNo>,
    message: Arc<Message>,
    seq: u64,
}

fn main() -> anyhow::Result<()> {
    let gib = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1);
    println!("{:<44}{:>12}", "entries of 256 bytes, handed over at once", "durable/s");
    for batch in [1, 64, 1_024] {
        let directory = tempfile::tempdir()?;
        let (mut bench, _) = open(directory.path())?;
        bench.fill(2 * 1_024, 1_024)?; // until the first segments are ready
        let batches = (200_000 / batch).clamp(400, 4_000);
        let began = Instant::now();
        bench.fill(batches * batch, batch)?;
        println!("{batch:<44}{:>12.0}", per_second(batches * batch, began));
        bench.journal.close()?;
    }
    let directory = tempfile::tempdir()?;
    let (mut bench, _) = open(directory.path())?;
    let count = gib * (1 << 30) / 384; // what one takes, with its frame and change
    let began = Instant::now();
    bench.fill(count, 1_024)?;
    println!("{:<44}{:>12.0}", format!("{gib} GiB at batches of 1,024"), per_second(count, began));
    while bench.journal.figures().uncovered > 0 {
        std::thread::yield_now();
    }
    bench.journal.close()?;
    recover_and_read(directory.path(), bench.seq)
}

fn recover_and_read(directory: &Path, count: u64) -> anyhow::Result<()> {
    let began = Instant::now();
    let (bench, recovered) = open(directory)?;
    let opened = began.elapsed();
    let facts = recovered.facts.count();
    println!("{:<44}{:>12.2?}", "opening", opened);
    println!(
        "{:<44}{:>12.2?}   {:?}",
        format!("opening and {facts} facts"),
        began.elapsed(),
        recovered.report
    );

    let began = Instant::now();
    let (mut after, mut read) = (Seq::ZERO, 0);
    while after < Seq(count.min(2_000_000)) {
        let batch = bench.read(vec![(COMMON, after)], 256)?;
        after = batch.through;
        read += batch.messages.len() as u64;
    }
    println!("{:<44}{:>12.0}", "messages/s read by one filter, 256 at once", per_second(read, began));
    let began = Instant::now();
    let sessions = 20_000;
    let (mut read, newest) = (0, Seq(count - count.min(FILTERS)));
    for no in 0..sessions {
        read += bench.read(vec![(filter(no * 7), newest)], 256)?.messages.len() as u64;
    }
    println!("{:<44}{:>12.0}", "sessions/s that read their newest message", per_second(sessions, began));
    anyhow::ensure!(read == sessions, "{read} of {sessions} messages were found");
    let began = Instant::now();
    let sessions = 2_000;
    for no in 0..sessions {
        bench.read(vec![(FilterKey(no << 32 | 5), Seq::ZERO)], 256)?;
    }
    println!("{:<44}{:>12.0}", "sessions/s that find nothing in all segments", per_second(sessions, began));
    bench.journal.close()?;
    Ok(())
}

fn open(directory: &Path) -> anyhow::Result<(Bench, Recovered)> {
    let (to, durable) = mpsc::channel();
    let events = Events {
        durable: Box::new(move |no| {
            let _ = to.send(no);
        }),
        fatal: Box::new(|fatal| println!("{fatal}")),
    };
    let disk = Arc::new(OsDisk::new(directory.to_owned())?);
    let (journal, recovered) = Journal::open(disk, Options::default(), events)?;
    let message = Arc::new(Message {
        topic: TopicName::new("devices/17/telemetry")?,
        payload: Bytes::from(vec![b'x'; PAYLOAD_BYTES]),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: PropertyBytes::default(),
        expires_at: None,
        published_at: Timestamp::from_millis(1_767_225_600_000),
        publisher: None,
    });
    let seq = recovered.last_seqs.get(&CLUSTER).map_or(0, |seq| seq.0);
    Ok((Bench { journal, durable, message, seq }, recovered))
}

impl Bench {
    /// Makes `count` messages durable, each with a change.
    fn fill(&mut self, count: u64, batch: u64) -> anyhow::Result<()> {
        let mut last = BatchNo::default();
        for _ in 0..count / batch {
            while self.journal.room().bytes < 2 << 20 {
                std::thread::yield_now();
            }
            let entries = (0..batch).map(|_| self.entry()).collect();
            last = self.journal.submit(entries);
            self.wait_for(BatchNo(last.0.saturating_sub(WINDOW - 1)))?;
        }
        self.wait_for(last)
    }

    fn entry(&mut self) -> Entry {
        self.seq += 1;
        let key = Bytes::copy_from_slice(&(self.seq % FILTERS).to_be_bytes());
        let value = Bytes::copy_from_slice(&self.seq.to_be_bytes());
        Entry {
            cluster: CLUSTER,
            message: Some(Posted {
                seq: Seq(self.seq),
                filters: smallvec![COMMON, filter(self.seq)],
                message: Arc::clone(&self.message),
            }),
            changes: vec![Change::Put { key, value }],
        }
    }

    fn wait_for(&self, no: BatchNo) -> anyhow::Result<()> {
        while self.journal.durable() < no {
            self.durable.recv().context("the journal failed")?;
        }
        Ok(())
    }

    fn read(&self, after: Vec<(FilterKey, Seq)>, messages_max: usize) -> anyhow::Result<ReadBatch> {
        let (to, answer) = mpsc::channel();
        let request =
            ReadRequest { cluster: CLUSTER, after, through: None, messages_max, bytes_max: 1 << 20 };
        self.journal.read(request, move |batch| {
            let _ = to.send(batch);
        })?;
        Ok(answer.recv()??)
    }
}

fn filter(no: u64) -> FilterKey {
    FilterKey::of(&format!("devices/{}/commands", no % FILTERS))
}

fn per_second(count: u64, began: Instant) -> f64 {
    // Counts here are far below 2^32.
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / began.elapsed().as_secs_f64()
}
