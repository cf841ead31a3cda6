//! The store with a million sessions. Prints what it measures; run it by name:
//!
//! ```text
//! cargo test --test it store_scale -- --ignored --nocapture
//! ```
//!
//! `HOLDFAST_TEST_SESSIONS` sets another number. The private Postgres has the product's settings; its
//! files lie in memory where there is enough of it, so that no disk is measured.

#![allow(clippy::print_stdout, reason = "a measurement is for reading")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use holdfast::clock::Clock;
use holdfast::model::{
    ClientId, ExpirySource, OperatorExpiry, OperatorPart, ProtocolVersion, SessionState, Timestamp, TopicName,
};
use holdfast::seam::ports::{SessionRow, SessionStore, SessionWrite};
use holdfast::store::embedded::{EmbeddedOptions, EmbeddedPostgres};
use holdfast::store::{CountBy, Network, SessionFilter, Store};

use crate::support::scratch;
use crate::support::sessions::{
    T, client_id, cluster_id, commit, make_clusters, offline, put, row, session_id, subscribe,
};

/// Sessions in one batch.
const BATCH: u128 = 500;
/// Sessions in one page of a load.
const LOAD_PAGE: u32 = 5_000;

#[tokio::test]
#[ignore = "takes minutes: a measurement"]
async fn a_million_sessions() {
    let folder = scratch::folder();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("open the folder");
    let options = EmbeddedOptions {
        data_dir: folder.path().join("data"),
        binaries: None,
        search_path: std::env::var_os("PATH"),
        temp_dir: folder.path().to_owned(),
    };
    let postgres = EmbeddedPostgres::start(options).await.expect("start");
    let store = Store::connect(postgres.connect_options(), Clock::new()).await.expect("connect");
    store.migrate().await.expect("migrate");
    make_clusters(&store, &["c"]).await;
    let sessions = std::env::var_os("HOLDFAST_TEST_SESSIONS")
        .map_or(1_000_000, |n| n.into_string().expect("a number").parse().expect("a number"));

    fill(&store, sessions).await;
    flip(&store, sessions).await;
    mark(&store, sessions).await;
    load(&store, sessions).await;
    lists(&store, sessions).await;
    let (recovered, took) = timed(store.recover_after_restart(T.plus_secs(2))).await;
    println!("recover_after_restart: {} sessions in {took:?}", recovered.expect("recover"));
    postgres.stop().await;
}

fn client(n: u128) -> String {
    format!("device-{n:08}")
}

/// One in ten online, one in a thousand MQTT 3.1, a user name shared by a thousand.
fn session(n: u128) -> SessionRow {
    let protocol = if n.is_multiple_of(1_000) { ProtocolVersion::V3_1 } else { ProtocolVersion::V5 };
    let peer = format!("10.{}.{}.{}:50123", n % 256, n / 256 % 256, n / 65_536 % 256);
    let username = Some(format!("fleet-{}", n % 1_000));
    let connected_at = ago(1 + n * 7 % 1_000);
    let row = SessionRow {
        protocol: Some(protocol),
        peer: Some(peer),
        username,
        connected_at: Some(connected_at),
        ..row(n, &client(n))
    };
    if n.is_multiple_of(10) { row } else { offline(row, ago(n * 7 % 1_000)) }
}

/// So many seconds before [`T`].
fn ago(secs: u128) -> Timestamp {
    Timestamp::from_millis(T.as_millis() - i64::try_from(secs).expect("few") * 1_000)
}

fn network(address: &str, bits: u32) -> Option<Network> {
    Network::new(address.parse().expect("an address"), bits)
}

fn label(value: &str) -> (String, String) {
    ("site".to_owned(), value.to_owned())
}

fn topic(text: &str) -> TopicName {
    TopicName::new(text.to_owned()).expect("a topic")
}

/// One in a thousand has labels, an order about its expiry, and protection.
async fn mark(store: &Store, sessions: u128) {
    let mut tx = store.begin().await.expect("begin");
    for n in (1..=sessions).step_by(1_000) {
        let part = OperatorPart {
            expiry: Some(OperatorExpiry::Interval(7_200)),
            labels: BTreeMap::from([label(&(n / 1_000 % 10).to_string())]),
            protected: true,
        };
        tx.set_operator_part(session_id(n), &part, T).await.expect("mark");
    }
    tx.commit().await.expect("commit");
}

async fn timed<R>(work: impl Future<Output = R>) -> (R, Duration) {
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    let begun = Instant::now();
    let result = work.await;
    (result, begun.elapsed())
}

async fn fill(store: &Store, sessions: u128) {
    let mut batches = Vec::new();
    let mut first = 1;
    while first <= sessions {
        let ids = first..(first + BATCH).min(sessions + 1);
        let batch: Vec<SessionWrite> = ids
            .flat_map(|n| {
                let (command, own) = (format!("cmd/{}", n % 100), format!("dev/{n}/#"));
                [put(session(n)), subscribe(n, &command), subscribe(n, &own)]
            })
            .collect();
        batches.push(timed(commit(store, &batch)).await.1);
        first += BATCH;
    }
    report("commit of 500 new sessions with 2 subscriptions each", &mut batches);
}

/// Connects and disconnects: what a batch costs when the table is full.
async fn flip(store: &Store, sessions: u128) {
    let mut batches = Vec::new();
    for round in 0..100_u128 {
        let batch: Vec<SessionWrite> = (0..BATCH)
            .map(|i| {
                // Spread over the table as devices are.
                let n = 1 + (round * BATCH + i) * 7_919 % sessions;
                let epoch = holdfast::model::Epoch(2);
                put(SessionRow { epoch, disconnected_at: None, disconnect: None, ..session(n) })
            })
            .collect();
        batches.push(timed(commit(store, &batch)).await.1);
    }
    report("commit of 500 resumed sessions", &mut batches);
}

async fn load(store: &Store, sessions: u128) {
    let work = async {
        let mut after = None;
        let mut loaded = 0_u128;
        loop {
            let page = store.load(after, LOAD_PAGE).await.expect("load");
            let Some(last) = page.last() else { break loaded };
            after = Some(last.row.session_id);
            loaded += page.len() as u128;
        }
    };
    let cpu_before = cpu_millis();
    let (loaded, took) = timed(work).await;
    let cpu = cpu_millis() - cpu_before;
    assert_eq!(loaded, sessions);
    println!("load: {loaded} sessions with 2 subscriptions each in {took:?}, {cpu} ms of CPU on our side");
}

/// What this process has used so far: fields 14 and 15 of its line, in hundredths of a second.
fn cpu_millis() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("a line");
    let after_name = stat.rsplit_once(") ").expect("the name is in brackets").1;
    after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks") * 10).sum()
}

async fn lists(store: &Store, sessions: u128) {
    let all = SessionFilter::default();
    let deep = client_id(&client(sessions * 9 / 10));
    for (what, filter, after) in [
        ("first page", all.clone(), None),
        ("page at nine tenths", all.clone(), Some(&deep)),
        ("online", SessionFilter { state: Some(SessionState::Online), ..all.clone() }, None),
        ("offline, deep", SessionFilter { state: Some(SessionState::Offline), ..all.clone() }, Some(&deep)),
        ("prefix", SessionFilter { client_id_prefix: Some("device-0009".to_owned()), ..all.clone() }, None),
        (
            "protocol 3.1, deep",
            SessionFilter { protocol: Some(ProtocolVersion::V3_1), ..all.clone() },
            Some(&deep),
        ),
        ("user name", SessionFilter { username: Some("fleet-7".to_owned()), ..all.clone() }, None),
        ("user name of nobody", SessionFilter { username: Some("x".to_owned()), ..all.clone() }, None),
        ("one address", SessionFilter { peer: network("10.0.3.7", 32), ..all.clone() }, None),
        ("a network of 1 in 16", SessionFilter { peer: network("10.0.0.0", 12), ..all.clone() }, Some(&deep)),
        (
            "connected in the last second",
            SessionFilter { connected_after: Some(T), ..all.clone() },
            Some(&deep),
        ),
        (
            "connected in the last 1 in 1,000",
            SessionFilter { connected_after: Some(ago(1)), ..all.clone() },
            None,
        ),
        ("offline for a while", SessionFilter { offline_for_secs: Some(500), ..all.clone() }, Some(&deep)),
        ("the longest offline", SessionFilter { offline_for_secs: Some(999), ..all.clone() }, None),
        (
            "soon to expire",
            SessionFilter { expires_before: Some(ago(998).plus_secs(3_600)), ..all.clone() },
            None,
        ),
        ("label", SessionFilter { label: Some(label("7")), ..all.clone() }, None),
        ("label of nobody", SessionFilter { label: Some(label("x")), ..all.clone() }, None),
        (
            "expiry of an operator",
            SessionFilter { expiry_source: Some(ExpirySource::Operator), ..all.clone() },
            None,
        ),
        ("protected", SessionFilter { protected: Some(true), ..all.clone() }, None),
        (
            "subscribed by 1 in 100",
            SessionFilter { subscribed_to: Some(topic("cmd/7")), ..all.clone() },
            Some(&deep),
        ),
        ("subscribed by one", SessionFilter { subscribed_to: Some(topic("dev/77/x")), ..all }, None),
    ] {
        let mut pages = Vec::new();
        for _ in 0..200 {
            pages.push(timed(list(store, &filter, after)).await.1);
        }
        report(&format!("list page of 100, {what}"), &mut pages);
    }
    let contains =
        SessionFilter { client_id_contains: Some("999999".to_owned()), ..SessionFilter::default() };
    let mut pages = Vec::new();
    for _ in 0..5 {
        pages.push(timed(list(store, &contains, None)).await.1);
    }
    report("list of those whose id contains a text (not indexed)", &mut pages);
    let mut counts = Vec::new();
    for _ in 0..5 {
        let (by, all) = ([CountBy::State, CountBy::Protocol], SessionFilter::default());
        counts.push(timed(store.count_sessions(&cluster_id("c"), &all, &by, 100, T)).await.1);
    }
    report("count of all by state and protocol (not indexed)", &mut counts);
    let mut gets = Vec::new();
    for i in 0..1_000_u128 {
        let client = client_id(&client(1 + i * 7_919 % sessions));
        let get = timed(store.get_session(&cluster_id("c"), &client, T)).await;
        assert!(get.0.expect("get").is_some());
        gets.push(get.1);
    }
    report("get", &mut gets);
}

async fn list(store: &Store, filter: &SessionFilter, after: Option<&ClientId>) {
    store.list_sessions(&cluster_id("c"), filter, after, 100, T).await.expect("list");
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let total: Duration = times.iter().sum();
    println!("{what}: median {median:?}, p99 {p99:?}, total {total:?} of {}", times.len());
}
