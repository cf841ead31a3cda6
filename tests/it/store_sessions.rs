//! The data plane's batches: what a commit leaves, and what a load gives back.

use holdfast::model::{
    DisconnectCause, EndedBy, Epoch, OperatorExpiry, ProtocolVersion, SessionEnd, SessionId, Transport,
};
use holdfast::seam::ports::{SessionRow, SessionStore, SessionWrite, StoreError, StoredSession};
use holdfast::store::{FILTER_BYTES_MAX, SessionRecord, Store};

use crate::support::database::TestDatabase;
use crate::support::sessions::{
    T, client_id, cluster_id, commit, filter, make_clusters, offline, put, row, session_id, subscribe,
    subscription,
};

async fn with_cluster() -> (TestDatabase, Store) {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    make_clusters(&store, &["c"]).await;
    (database, store)
}

async fn record(store: &Store, client: &str) -> Option<SessionRecord> {
    store.get_session(&cluster_id("c"), &client_id(client), T).await.expect("get a session")
}

async fn load_all(store: &Store) -> Vec<StoredSession> {
    store.load(None, 1_000).await.expect("load")
}

/// A row whose every column differs from those of [`row`], as far as it may change.
fn busy(n: u128, client: &str) -> SessionRow {
    SessionRow {
        epoch: Epoch(u32::MAX),
        protocol: Some(ProtocolVersion::V3_1_1),
        clean_start: true,
        username: Some("user ☃".to_owned()),
        peer: Some("[2001:db8::1]:1".to_owned()),
        listener: Some("wss".to_owned()),
        transport: Some(Transport::Wss),
        keep_alive_secs: u16::MAX,
        receive_maximum: 1,
        packet_bytes_max: Some(u32::MAX),
        expiry_client_secs: u32::MAX,
        expiry_bounded: true,
        has_will: true,
        connected_at: Some(T.plus_secs(1)),
        disconnected_at: Some(T.plus_secs(2)),
        disconnect: Some(DisconnectCause { reason: "keep_alive_timeout".to_owned(), by: EndedBy::Server }),
        ..row(n, client)
    }
}

#[tokio::test]
async fn a_session_is_loaded_as_it_was_put() {
    let (_database, store) = with_cluster().await;
    let batch = [
        put(row(1, "a")),
        put(busy(2, "b")),
        subscribe(2, "a/#"),
        subscribe(2, "$share/g/+"),
        subscribe(1, "x"),
    ];
    commit(&store, &batch).await;
    let expected = [
        StoredSession {
            row: row(1, "a"),
            operator_expiry: None,
            protected: false,
            subscriptions: vec![subscription("x")],
        },
        StoredSession {
            row: busy(2, "b"),
            operator_expiry: None,
            protected: false,
            subscriptions: vec![subscription("$share/g/+"), subscription("a/#")],
        },
    ];
    assert_eq!(load_all(&store).await, expected);
}

#[tokio::test]
async fn every_column_of_a_session_is_replaced() {
    let (_database, store) = with_cluster().await;
    commit(&store, &[put(row(1, "a"))]).await;
    commit(&store, &[put(busy(1, "a"))]).await;
    assert_eq!(load_all(&store).await[0].row, busy(1, "a"));
    let back = SessionRow { epoch: Epoch(u32::MAX), ..row(1, "a") };
    commit(&store, &[put(back.clone())]).await;
    assert_eq!(load_all(&store).await[0].row, back);
}

#[tokio::test]
async fn committing_a_batch_again_changes_nothing() {
    let (_database, store) = with_cluster().await;
    commit(&store, &[put(row(9, "old"))]).await;
    let batch = [
        SessionWrite::Remove(session_id(9), SessionEnd::Deleted),
        put(row(1, "a")),
        subscribe(1, "x"),
        SessionWrite::Unsubscribe(session_id(1), filter("y")),
    ];
    commit(&store, &batch).await;
    let (sessions, version) = (load_all(&store).await, record(&store, "a").await.expect("a").version);
    commit(&store, &batch).await;
    assert_eq!(load_all(&store).await, sessions);
    assert_eq!(record(&store, "a").await.expect("a").version, version);
    assert_eq!(record(&store, "old").await, None);
}

#[tokio::test]
async fn the_row_of_the_greater_epoch_stands() {
    let (_database, store) = with_cluster().await;
    let second = SessionRow { epoch: Epoch(2), keep_alive_secs: 2, ..row(1, "a") };
    commit(&store, &[put(second.clone())]).await;
    let version = record(&store, "a").await.expect("a").version;
    commit(&store, &[put(offline(row(1, "a"), T))]).await;
    assert_eq!(record(&store, "a").await.expect("a").row, second);
    assert_eq!(record(&store, "a").await.expect("a").version, version);
    let ended = offline(second, T);
    commit(&store, &[put(ended.clone())]).await;
    assert_eq!(record(&store, "a").await.expect("a").row, ended, "the same epoch may say more");
}

#[tokio::test]
async fn each_write_to_the_row_counts_in_its_version() {
    let (_database, store) = with_cluster().await;
    commit(&store, &[put(row(1, "a"))]).await;
    let mut expected = record(&store, "a").await.expect("a").version;
    for (write, counts) in [
        (put(offline(row(1, "a"), T)), 1),
        (put(SessionRow { epoch: Epoch(2), ..row(1, "a") }), 1),
        (subscribe(1, "x"), 0),
        (SessionWrite::Unsubscribe(session_id(1), filter("x")), 0),
    ] {
        commit(&store, std::slice::from_ref(&write)).await;
        expected += counts;
        assert_eq!(record(&store, "a").await.expect("a").version, expected, "{write:?}");
    }
}

#[tokio::test]
async fn a_new_session_replaces_one_whose_removal_was_lost() {
    let (_database, store) = with_cluster().await;
    commit(&store, &[put(row(2, "a")), subscribe(2, "x")]).await;
    // The lesser id: a wall clock may go back between two sessions.
    commit(&store, &[put(row(1, "a"))]).await;
    let expected =
        [StoredSession { row: row(1, "a"), operator_expiry: None, protected: false, subscriptions: vec![] }];
    assert_eq!(load_all(&store).await, expected);
}

#[tokio::test]
async fn of_two_sessions_of_a_client_in_one_batch_the_later_stands() {
    let (_database, store) = with_cluster().await;
    commit(&store, &[put(row(1, "a")), subscribe(1, "x"), put(row(2, "a")), subscribe(2, "y")]).await;
    let expected = [StoredSession {
        row: row(2, "a"),
        operator_expiry: None,
        protected: false,
        subscriptions: vec![subscription("y")],
    }];
    assert_eq!(load_all(&store).await, expected);
}

#[tokio::test]
async fn sessions_and_subscriptions_of_what_is_gone_are_passed_over() {
    let (_database, store) = with_cluster().await;
    let nowhere = SessionRow { cluster: cluster_id("gone"), ..row(1, "a") };
    let batch = [put(nowhere), subscribe(1, "x"), put(row(2, "b")), subscribe(3, "x"), subscribe(2, "x")];
    commit(&store, &batch).await;
    let expected = [StoredSession {
        row: row(2, "b"),
        operator_expiry: None,
        protected: false,
        subscriptions: vec![subscription("x")],
    }];
    assert_eq!(load_all(&store).await, expected);
    commit(
        &store,
        &[
            SessionWrite::Remove(session_id(7), SessionEnd::Deleted),
            SessionWrite::Unsubscribe(session_id(7), filter("x")),
        ],
    )
    .await;
    commit(&store, &[]).await;
}

#[tokio::test]
async fn the_same_client_id_in_two_clusters_is_two_clients() {
    let (_database, store) = with_cluster().await;
    make_clusters(&store, &["d"]).await;
    let other = SessionRow { cluster: cluster_id("d"), ..row(2, "a") };
    commit(&store, &[put(row(1, "a")), put(other)]).await;
    assert_eq!(load_all(&store).await.len(), 2);
}

#[tokio::test]
async fn a_subscription_is_replaced_and_removed_by_its_filter() {
    let (_database, store) = with_cluster().await;
    commit(&store, &[put(row(1, "a")), subscribe(1, "x"), subscribe(1, "X")]).await;
    let plain = holdfast::model::Subscription {
        qos: holdfast::model::QoS::ExactlyOnce,
        no_local: false,
        retain_as_published: true,
        retain_handling: holdfast::model::RetainHandling::DoNotSend,
        identifier: None,
        ..subscription("x")
    };
    commit(&store, &[SessionWrite::Subscribe(session_id(1), Box::new(plain.clone()))]).await;
    assert_eq!(load_all(&store).await[0].subscriptions, [subscription("X"), plain.clone()]);
    commit(&store, &[SessionWrite::Unsubscribe(session_id(1), filter("X"))]).await;
    assert_eq!(load_all(&store).await[0].subscriptions, [plain]);
    commit(&store, &[SessionWrite::Remove(session_id(1), SessionEnd::Deleted)]).await;
    assert_eq!(load_all(&store).await, []);
}

#[tokio::test]
async fn the_last_word_about_a_filter_holds() {
    let (_database, store) = with_cluster().await;
    let unsubscribe = |text| SessionWrite::Unsubscribe(session_id(1), filter(text));
    let batch = [put(row(1, "a")), subscribe(1, "x"), unsubscribe("x"), unsubscribe("y"), subscribe(1, "y")];
    commit(&store, &batch).await;
    assert_eq!(load_all(&store).await[0].subscriptions, [subscription("y")]);
}

#[tokio::test]
async fn a_batch_of_hundreds_loads_in_pages() {
    let (_database, store) = with_cluster().await;
    let ids = 1..=700_u128;
    let batch: Vec<SessionWrite> = ids
        .clone()
        .flat_map(|n| [put(row(n, &format!("dev-{n}"))), subscribe(n, "a"), subscribe(n, &format!("b/{n}"))])
        .collect();
    commit(&store, &batch).await;
    let mut seen: Vec<SessionId> = Vec::new();
    loop {
        let page = store.load(seen.last().copied(), 300).await.expect("load");
        assert!(page.len() <= 300);
        if page.is_empty() {
            break;
        }
        assert!(page.iter().all(|session| session.subscriptions.len() == 2));
        seen.extend(page.iter().map(|session| session.row.session_id));
    }
    assert_eq!(seen, ids.map(session_id).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_operator_s_part_outlives_the_data_plane_s_writes() {
    let (_database, store) = with_cluster().await;
    commit(&store, &[put(row(1, "a"))]).await;
    let mut tx = store.begin().await.expect("begin");
    let order = Some(OperatorExpiry::Interval(5));
    tx.set_operator_part(session_id(1), &crate::support::sessions::with_expiry(order), T)
        .await
        .expect("set the expiry");
    tx.commit().await.expect("commit");
    commit(&store, &[put(offline(row(1, "a"), T))]).await;
    let record = record(&store, "a").await.expect("a");
    assert_eq!((record.operator_expiry, record.expires_at), (order, Some(T.plus_secs(5))));
    assert_eq!(load_all(&store).await[0].operator_expiry, order);
    // A new session of the client does not inherit it.
    commit(&store, &[put(row(2, "a"))]).await;
    assert_eq!(load_all(&store).await[0].operator_expiry, None);
}

#[tokio::test]
async fn a_filter_that_cannot_be_kept_refuses_the_whole_batch() {
    let (_database, store) = with_cluster().await;
    let longest = "f".repeat(FILTER_BYTES_MAX);
    commit(&store, &[put(row(1, "a")), subscribe(1, &longest)]).await;
    let too_long = "f".repeat(FILTER_BYTES_MAX + 1);
    let refused = store.commit(&[put(row(2, "b")), subscribe(1, &too_long)]).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    assert_eq!(record(&store, "b").await, None);
}

#[tokio::test]
async fn an_outage_is_told_apart_and_the_same_batch_is_committed_after_it() {
    let (database, store) = with_cluster().await;
    let batch = [put(row(1, "a")), subscribe(1, "x")];
    database.go_away().await;
    for _ in 0..2 {
        let away = store.commit(&batch).await;
        assert!(matches!(away, Err(StoreError::Away(_))), "{away:?}");
        assert!(matches!(store.load(None, 1).await, Err(StoreError::Away(_))));
        assert!(store.ping().await.is_err_and(|error| error.is_away()));
        assert!(store.begin().await.is_err_and(|error| error.is_away()));
    }
    database.come_back().await;
    commit(&store, &batch).await;
    assert_eq!(load_all(&store).await.len(), 1);
}
