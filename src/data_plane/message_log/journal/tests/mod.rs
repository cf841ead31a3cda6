//! The journal against a disk that crashes, fills up and fails.

mod codec;
mod counting;
mod faults;
mod large;
mod schedule;
mod sim_disk;
mod threads;
mod torture;

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::super::{Change, ClusterNo, Entry, FilterKey, Posted};
use super::committer::Committer;
use super::core::Core;
use super::disk::Disk;
use super::keeper::Keeper;
use super::queue::BatchNo;
use super::reader::{ReadBatch, ReadRequest};
use super::{Events, Fatal, OpenError, Options, Parts, Recovered, reader, stock};
use crate::model::{Message, PropertyBytes, QoS, Seq, Timestamp, TopicName};

/// The smallest there are.
const OPTIONS: Options =
    Options { segment_bytes: 64 << 10, reserve_bytes: 8 << 10, keep_free_bytes: 0, queue_bytes_max: 1 << 20 };

/// A journal without threads: each of them is run by hand, so that a schedule can be repeated.
struct ByHand {
    core: Arc<Core>,
    committer: Committer,
    keeper: Keeper,
    /// The batches that were reported durable.
    told: Arc<Mutex<Vec<BatchNo>>>,
    _lock: Box<dyn Send + Sync>,
}

impl ByHand {
    fn open(disk: Arc<dyn Disk>) -> Result<(Self, Recovered), OpenError> {
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let events = Events {
            durable: Box::new(move |no| tell.lock().push(no)),
            fatal: Box::new(|fatal| panic!("{fatal}")),
        };
        let (Parts { core, keeper }, recovered, lock) = Parts::open(disk, OPTIONS, events)?;
        let of = Arc::clone(&core);
        let next = move || {
            let _ = stock::prepare(&of);
            of.stock.close();
            of.stock.take()
        };
        let committer = Committer::new(Arc::clone(&core), Box::new(next));
        Ok((Self { core, committer, keeper, told, _lock: lock }, recovered))
    }

    fn commit(&mut self, entries: Vec<Entry>) -> Result<(), Fatal> {
        self.core.submit(entries);
        let batches = self.core.queue.take().expect("a batch was submitted");
        self.committer.commit(batches)
    }

    fn read(&self, request: &ReadRequest) -> ReadBatch {
        reader::read(&self.core, request).expect("a readable journal")
    }

    /// Positions of all messages of a filter.
    fn seqs(&self, cluster: ClusterNo, filter: FilterKey) -> Vec<u64> {
        self.read(&all(cluster, filter)).messages.iter().map(|entry| entry.place.seq.0).collect()
    }
}

const C: ClusterNo = ClusterNo(1);
const A: FilterKey = FilterKey(0xA);
const B: FilterKey = FilterKey(0xB);

fn all(cluster: ClusterNo, filter: FilterKey) -> ReadRequest {
    let after = vec![(filter, Seq::ZERO)];
    ReadRequest { cluster, after, through: None, messages_max: usize::MAX, bytes_max: usize::MAX }
}

fn message(payload: impl Into<Bytes>) -> Arc<Message> {
    Arc::new(Message {
        topic: TopicName::new("a/b").expect("a topic"),
        payload: payload.into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: PropertyBytes::default(),
        expires_at: None,
        published_at: Timestamp::from_millis(1_000),
        publisher: None,
    })
}

fn said(cluster: ClusterNo, seq: u64, filters: &[FilterKey], payload: impl Into<Bytes>) -> Entry {
    let filters = SmallVec::from_slice(filters);
    Entry {
        cluster,
        message: Some(Posted { seq: Seq(seq), filters, message: message(payload) }),
        changes: Vec::new(),
    }
}

fn changed(cluster: ClusterNo, changes: Vec<Change>) -> Entry {
    Entry { cluster, message: None, changes }
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Change {
    Change::Put { key: key.into(), value: value.into() }
}

/// As much payload as fills a segment with four entries.
fn quarter() -> Vec<u8> {
    vec![7; 14_848]
}
