//! Retention over a journal with its threads, on a real directory.

use bytes::Bytes;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::data_plane::cluster::Memory;
use crate::data_plane::message_log::journal::{Events, Journal, Options, OsDisk};
use crate::data_plane::message_log::{Entry, Posted, RecentLog};
use crate::data_plane::runtime::journal::Inherited;
use crate::model::{
    ClientId, ClusterId, DesiredCluster, Epoch, Message, Plan, PropertyBytes, ProtocolVersion, QoS, Quota,
    QuotaOverrides, RetainHandling, SessionId, Subscription, TopicFilter, TopicName, Transport,
};
use crate::seam::ports::{SessionRow, StoredSession};

const T: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const PATIENCE: Duration = Duration::from_secs(20);
const OLD: ClusterNo = ClusterNo(1);
const YOUNG: ClusterNo = ClusterNo(2);

/// Two clusters, each with a session that sleeps and subscribes to `t`, on one journal.
struct Bench {
    retention: Retention,
    clusters: Clusters,
    log: LogWriter,
    now: Now,
    _directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::with_quota(QuotaOverrides::default())
    }

    fn with_quota(overrides: QuotaOverrides) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let events = Arc::new(LogEvents::default());
        let told = Arc::clone(&events);
        let callbacks =
            Events { durable: Box::new(move |_| told.durable()), fatal: Box::new(|fatal| panic!("{fatal}")) };
        let options = Options {
            segment_bytes: 64 << 10,
            reserve_bytes: 8 << 10,
            keep_free_bytes: 0,
            queue_bytes_max: 1 << 20,
        };
        let disk = Arc::new(OsDisk::new(directory.path().join("log")).expect("a directory"));
        let (journal, _) = Journal::open(disk, options, callbacks).expect("a journal");
        let log = LogWriter::new(Arc::new(journal), events, &Inherited::default());
        let now = Now { wall: T, mono: Monotonic::default() };
        let clusters = [OLD, YOUNG].map(|no| (no, cluster(no, now, &overrides))).into_iter().collect();
        Self { retention: Retention::default(), clusters, log, now, _directory: directory }
    }

    /// Says so many messages to `t`, from position `first` on, four to a segment, and waits for the disk.
    async fn say(&mut self, no: ClusterNo, first: u64, count: u64, at: Timestamp) {
        let entry = |seq| Entry { cluster: no, message: Some(posted(seq, at)), changes: Vec::new() };
        let batch = self.log.journal().submit((first..first + count).map(entry).collect());
        let events = self.log.events();
        while self.log.journal().durable() < batch {
            events.happened().await;
        }
    }

    /// Goes through the segments once, with all that has to be read for it.
    async fn round(&mut self) {
        let Self { retention, clusters, log, now, .. } = self;
        now.mono = Monotonic::from_millis(now.mono.since(Monotonic::default()).as_secs() * 1_000 + 2_000);
        retention.look(*now, log, clusters);
        let events = log.events();
        while retention.reading {
            if let Some(read) = log.take_filters() {
                retention.take(*now, read, log, clusters);
            } else {
                events.happened().await;
            }
        }
    }

    /// Goes round until so many sealed segments are left.
    async fn until_left(&mut self, segments: usize) {
        let all = async {
            while self.log.sealed().len() != segments {
                self.round().await;
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("the segments go");
    }

    /// What the session of a cluster has lost, and the cluster.
    fn lost(&self, no: ClusterNo) -> (u64, u64) {
        let cluster = &self.clusters[&no];
        let traffic = cluster.traffic_of(&client()).expect("a session").complete(None);
        (traffic.trimmed, cluster.lost_messages())
    }
}

fn client() -> ClientId {
    ClientId::new("sleeper").expect("an id")
}

fn posted(seq: u64, at: Timestamp) -> Posted {
    let message = Message {
        topic: TopicName::new("t").expect("a topic"),
        payload: Bytes::from(vec![7; 14_848]),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: PropertyBytes::default(),
        expires_at: None,
        published_at: at,
        publisher: None,
    };
    Posted {
        seq: Seq(seq),
        filters: std::iter::once(FilterKey::of("t")).collect(),
        message: Arc::new(message),
    }
}

fn cluster(no: ClusterNo, now: Now, overrides: &QuotaOverrides) -> Cluster {
    let plan = Plan::by_name("basic").expect("a plan");
    let rules = DesiredCluster {
        allow_anonymous: true,
        ..DesiredCluster::plain(ClusterId::default_cluster(), Quota::resolve(plan, overrides))
    };
    let mut cluster = Cluster::new(Arc::new(rules), no, RecentLog::new(Seq::ZERO, u64::MAX), 1);
    cluster.restore(now, stored(), &mut Memory::default());
    cluster
}

fn stored() -> StoredSession {
    let row = SessionRow {
        cluster: ClusterId::default_cluster(),
        client_id: client(),
        session_id: SessionId(Uuid::from_u128(1)),
        epoch: Epoch(1),
        protocol: Some(ProtocolVersion::V5),
        clean_start: false,
        username: None,
        peer: Some("192.0.2.1:1".to_owned()),
        listener: Some("mqtt".to_owned()),
        transport: Some(Transport::Tcp),
        keep_alive_secs: 0,
        receive_maximum: 10,
        packet_bytes_max: None,
        expiry_client_secs: 400_000,
        expiry_bounded: false,
        has_will: false,
        created_at: T,
        connected_at: Some(T),
        disconnected_at: Some(T),
        disconnect: None,
    };
    let subscription = Subscription {
        filter: TopicFilter::new("t").expect("a filter"),
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
        identifier: None,
        origin: crate::model::SubscriptionOrigin::Client,
    };
    StoredSession { row, operator_expiry: None, protected: false, subscriptions: vec![subscription] }
}

#[tokio::test]
async fn what_is_too_old_goes_and_is_counted_once_for_who_needed_it() {
    let mut bench = Bench::new();
    bench.say(OLD, 1, 9, T).await;
    assert_eq!(bench.log.sealed().len(), 2);
    bench.round().await;
    bench.now.wall = T.plus_secs(71 * 3_600);
    bench.round().await;
    assert_eq!((bench.log.sealed().len(), bench.lost(OLD)), (2, (0, 0)), "it is needed");
    bench.now.wall = T.plus_secs(72 * 3_600);
    bench.round().await;
    assert_eq!(bench.lost(OLD), (8, 8));
    bench.until_left(0).await;
    assert_eq!((bench.lost(OLD), bench.lost(YOUNG)), ((8, 8), (0, 0)), "going round again counts nothing");
}

#[tokio::test]
async fn what_is_over_the_quota_of_bytes_goes_oldest_first_and_is_counted() {
    // Q-10, S-14: a segment of the bench holds 60 KB.
    let mut bench = Bench::with_quota(QuotaOverrides { log_mib: Some(1), ..QuotaOverrides::default() });
    bench.say(OLD, 1, 69, T).await;
    assert_eq!(bench.log.sealed().len(), 17);
    bench.round().await;
    assert_eq!(
        (bench.log.sealed().len(), bench.lost(OLD)),
        (17, (0, 0)),
        "17 segments of four are below 1 MiB"
    );
    bench.say(OLD, 70, 12, T).await;
    assert_eq!(bench.log.sealed().len(), 20);
    bench.until_left(17).await;
    bench.round().await;
    assert_eq!((bench.log.sealed().len(), bench.lost(OLD)), (17, (12, 12)), "three segments of four");
    assert_eq!(bench.lost(YOUNG), (0, 0));
    assert!(bench.log.bytes_of(OLD) > 17 * 4 * 14_848);
}

#[tokio::test]
async fn nothing_is_lost_of_a_segment_that_another_cluster_still_needs() {
    let mut bench = Bench::new();
    bench.say(OLD, 1, 2, T).await;
    bench.say(YOUNG, 1, 3, T.plus_secs(3_600)).await;
    assert_eq!(bench.log.sealed().len(), 1);
    bench.now.wall = T.plus_secs(72 * 3_600);
    bench.round().await;
    assert_eq!((bench.log.sealed().len(), bench.lost(OLD)), (1, (0, 0)));
    bench.now.wall = T.plus_secs(73 * 3_600);
    bench.round().await;
    assert_eq!((bench.lost(OLD), bench.lost(YOUNG)), ((2, 2), (2, 2)));
    bench.until_left(0).await;
}
