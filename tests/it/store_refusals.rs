//! Refusals in the database: added up, bounded, found again, told in the history once for each series.

use holdfast::model::{ClusterId, Refusal, RefusalKind, RefusalReason, Timestamp};
use holdfast::seam::ports::RefusalStore;
use holdfast::store::{EventKind, REFUSALS_MAX, RefusalFilter, SERIES_PAUSE_MAX, Store};

use super::support::database::TestDatabase;
use super::support::sessions::{T, client_id, cluster_id, make_clusters, session_id};

fn refusal(client: &str, at: Timestamp) -> Refusal {
    Refusal {
        kind: RefusalKind::Connect,
        client_id: Some(client.to_owned()),
        username: None,
        ip: Some([192, 0, 2, 1].into()),
        code: 0x97,
        reason: RefusalReason::Connections,
        detail: "quota connections: limit 1, in use 1".to_owned(),
        count: 1,
        first_at: at,
        last_at: at,
        session: Some((session_id(1), holdfast::model::Epoch::FIRST)),
    }
}

async fn record(store: &Store, cluster: &str, refusals: Vec<Refusal>) {
    let batch: Vec<(ClusterId, Refusal)> =
        refusals.into_iter().map(|refusal| (cluster_id(cluster), refusal)).collect();
    store.record_refusals(&batch).await.expect("record");
}

async fn list(store: &Store, filter: RefusalFilter) -> Vec<Refusal> {
    let rows = store.list_refusals(&cluster_id("c"), &filter, None, 1_000).await.expect("list");
    rows.into_iter().map(|row| row.refusal).collect()
}

#[tokio::test]
async fn what_goes_on_is_one_row_and_one_event_for_each_series() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    make_clusters(&store, &["c"]).await;
    let pause = u32::try_from(SERIES_PAUSE_MAX.as_secs()).expect("short");
    // Within a series, at the edge of a pause, and after one.
    let times = [T, T.plus_secs(1), T.plus_secs(1 + pause), T.plus_secs(3 + 2 * pause)];
    for at in times {
        record(&store, "c", vec![Refusal { count: 2, ..refusal("a", at) }]).await;
    }
    let expected = Refusal { count: 8, first_at: T, session: None, ..refusal("a", times[3]) };
    assert_eq!(list(&store, RefusalFilter::default()).await, [expected]);
    let history = store.client_history(&cluster_id("c"), &client_id("a"), None, 100).await.expect("history");
    let told: Vec<_> = history.iter().map(|event| (event.event.kind, event.event.at)).collect();
    assert_eq!(told, [(EventKind::Refused, times[3]), (EventKind::Refused, T)]);
    assert_eq!(history[0].event.detail["reason"], "connections");
}

#[tokio::test]
async fn each_filter_narrows() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    make_clusters(&store, &["c", "d"]).await;
    let other = Refusal {
        kind: RefusalKind::Publish,
        username: Some("ada".to_owned()),
        ip: Some("2001:db8::1".parse().expect("an address")),
        code: 0x9F,
        reason: RefusalReason::MessagesPerSecond,
        session: None,
        ..refusal("b", T.plus_secs(10))
    };
    let nobody = Refusal { client_id: None, ip: None, session: None, ..refusal("", T) };
    record(&store, "c", vec![refusal("a", T), other.clone(), nobody]).await;
    record(&store, "d", vec![refusal("a", T)]).await;
    // Of a cluster that is gone nothing is kept, and the rest of the batch is.
    let gone = (cluster_id("gone"), refusal("a", T));
    store.record_refusals(&[gone, (cluster_id("d"), refusal("z", T))]).await.expect("record");

    assert_eq!(list(&store, RefusalFilter::default()).await.len(), 3);
    let all = RefusalFilter::default;
    for filter in [
        RefusalFilter { client_id: Some(client_id("b")), ..all() },
        RefusalFilter { username: Some("ada".to_owned()), ..all() },
        RefusalFilter { ip: Some("2001:db8::1".to_owned()), ..all() },
        RefusalFilter { kind: Some(RefusalKind::Publish), ..all() },
        RefusalFilter { reason: Some(RefusalReason::MessagesPerSecond), ..all() },
        RefusalFilter { code: Some(0x9F), ..all() },
        RefusalFilter { since: Some(T.plus_secs(10)), ..all() },
    ] {
        assert_eq!(list(&store, filter.clone()).await, std::slice::from_ref(&other), "{filter:?}");
    }
    let nul = RefusalFilter { username: Some("a\0".to_owned()), ..all() };
    assert_eq!(list(&store, nul).await, []);
    assert_eq!(store.forget_refusals(T, 1).await.expect("forget"), 1);
    assert_eq!(store.forget_refusals(T, 100).await.expect("forget"), 3);
    assert_eq!(list(&store, all()).await, [other]);
}

#[tokio::test]
async fn a_cluster_keeps_a_bounded_number_and_the_oldest_go() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    make_clusters(&store, &["c"]).await;
    let long = "ü".repeat(128);
    for batch in 0..=REFUSALS_MAX / 500 {
        let of = |n| {
            let number = batch * 500 + n;
            let client = format!("{number:06}");
            Refusal { username: Some(long.clone()), session: None, ..refusal(&client, T.plus_secs(number)) }
        };
        record(&store, "c", (0..500).map(of).collect()).await;
    }
    let (mut count, mut before, mut oldest) = (0, None, String::new());
    loop {
        let page = store
            .list_refusals(&cluster_id("c"), &RefusalFilter::default(), before, 999)
            .await
            .expect("list");
        let Some(last) = page.last() else { break };
        count += page.len();
        before = Some((last.refusal.last_at, last.id));
        oldest = last.refusal.client_id.clone().expect("a client");
    }
    assert_eq!((count, oldest.as_str()), (REFUSALS_MAX as usize, "000500"));
}
