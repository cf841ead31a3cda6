//! The control plane's view of sessions: list, get, expiry, subscriptions.

use holdfast::model::{
    ClientId, OperatorExpiry, ProtocolVersion, SessionEnd, SessionExpiry, SessionState, Timestamp,
};
use holdfast::seam::ports::{SessionRow, SessionWrite};
use holdfast::store::{SessionFilter, SessionRecord, Store};

use crate::support::database::TestDatabase;
use crate::support::sessions::{
    T, client_id, cluster_id, commit, make_clusters, offline, put, row, session_id, subscribe, subscription,
    with_expiry,
};

async fn with_sessions(rows: impl IntoIterator<Item = SessionRow>) -> (TestDatabase, Store) {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    make_clusters(&store, &["c", "d"]).await;
    let batch: Vec<SessionWrite> = rows.into_iter().map(put).collect();
    commit(&store, &batch).await;
    (database, store)
}

async fn list(store: &Store, filter: &SessionFilter) -> Vec<String> {
    let found = store.list_sessions(&cluster_id("c"), filter, None, 100, T).await.expect("list");
    found.into_iter().map(|record| record.row.client_id.to_string()).collect()
}

async fn get(store: &Store, client: &str, now: Timestamp) -> Option<SessionRecord> {
    store.get_session(&cluster_id("c"), &client_id(client), now).await.expect("get")
}

async fn order(store: &Store, client: &str, order: Option<OperatorExpiry>) -> SessionRecord {
    let mut tx = store.begin().await.expect("begin");
    let locked =
        tx.lock_session(&cluster_id("c"), &client_id(client), T).await.expect("lock").expect("exists");
    let id = locked.row.session_id;
    let record = tx.set_operator_part(id, &with_expiry(order), T).await.expect("set the expiry");
    tx.commit().await.expect("commit");
    record
}

#[tokio::test]
async fn a_record_tells_what_its_row_does() {
    let (_database, store) = with_sessions([row(1, "a")]).await;
    commit(&store, &[subscribe(1, "x"), subscribe(1, "y")]).await;
    let online = get(&store, "a", T).await.expect("a session");
    assert_eq!(online.row, row(1, "a"));
    assert_eq!((online.state(), online.expires_at), (SessionState::Online, None));
    assert_eq!((online.subscription_count, online.operator_expiry), (2, None));
    let expiry = SessionExpiry { client_secs: 3_600, bounded_by_cluster: false, operator: None };
    assert_eq!(online.expiry(), expiry);

    commit(&store, &[put(offline(row(1, "a"), T))]).await;
    let offline = get(&store, "a", T).await.expect("a session");
    assert_eq!((offline.state(), offline.expires_at), (SessionState::Offline, Some(T.plus_secs(3_600))));
    assert_eq!(store.get_session(&cluster_id("d"), &client_id("a"), T).await.expect("get"), None);
}

#[tokio::test]
async fn a_session_is_absent_from_the_moment_it_expires() {
    let (_database, store) = with_sessions([offline(row(1, "a"), T), row(2, "b")]).await;
    let last = Timestamp::from_millis(T.plus_secs(3_600).as_millis() - 1);
    let due = T.plus_secs(3_600);
    for (now, there) in [(last, true), (due, false)] {
        assert_eq!(get(&store, "a", now).await.is_some(), there, "get at {now}");
        let mut tx = store.begin().await.expect("begin");
        let locked = tx.lock_session(&cluster_id("c"), &client_id("a"), now).await.expect("lock");
        assert_eq!(locked.is_some(), there, "lock at {now}");
        for state in [None, Some(SessionState::Offline)] {
            let filter = SessionFilter { state, ..SessionFilter::default() };
            let found = store.list_sessions(&cluster_id("c"), &filter, None, 10, now).await.expect("list");
            let listed = found.iter().any(|record| record.row.client_id.as_str() == "a");
            assert_eq!(listed, there, "list {state:?} at {now}");
        }
    }
    assert!(get(&store, "b", Timestamp::MAX).await.is_some(), "an online one does not expire");
}

#[tokio::test]
async fn expires_at_follows_the_rule_of_the_model() {
    use OperatorExpiry::{At, Interval};
    let orders = [
        None,
        Some(Interval(0)),
        Some(Interval(5)),
        Some(Interval(u32::MAX)),
        Some(At(T)),
        Some(At(T.plus_secs(90))),
        Some(At(Timestamp::from_millis(T.as_millis() - 1))),
        Some(At(Timestamp::EPOCH)),
        Some(At(Timestamp::MAX)),
    ];
    let mut n = 0;
    for client_secs in [0, 1, 259_200, u32::MAX] {
        for ends_at in [T, Timestamp::EPOCH, Timestamp::MAX] {
            for order in orders {
                n += 1;
                let client = format!("dev-{n}");
                let online = SessionRow { expiry_client_secs: client_secs, ..row(n, &client) };
                let expiry = SessionExpiry { client_secs, bounded_by_cluster: false, operator: order };
                check_expiry(online, ends_at, expiry).await;
            }
        }
    }
}

/// Orders it while online, then ends the connection; and the other way round.
async fn check_expiry(online: SessionRow, ends_at: Timestamp, expiry: SessionExpiry) {
    static SHARED: tokio::sync::OnceCell<(TestDatabase, Store)> = tokio::sync::OnceCell::const_new();
    let (_, store) = SHARED.get_or_init(|| with_sessions([])).await;
    let (id, ended) = (online.session_id, offline(online.clone(), ends_at));
    let set = async |operator| {
        let mut tx = store.begin().await.expect("begin");
        // As of the beginning of time nothing has expired.
        let record = tx.set_operator_part(id, &with_expiry(operator), Timestamp::EPOCH).await;
        tx.commit().await.expect("commit");
        record
    };
    commit(store, &[put(online.clone())]).await;
    assert_eq!(set(expiry.operator).await.expect("set").expires_at, None, "online: {expiry:?}");
    commit(store, &[put(ended.clone())]).await;
    assert_eq!(expires_at(store, &ended).await, expiry.expires_at(ends_at), "{expiry:?} {ends_at}");

    if expiry.expires_at(ends_at) > Timestamp::EPOCH {
        let cleared = SessionExpiry { operator: None, ..expiry };
        set(None).await.expect("clear");
        assert_eq!(expires_at(store, &ended).await, cleared.expires_at(ends_at), "cleared {expiry:?}");
    }
    commit(store, &[SessionWrite::Remove(id, SessionEnd::Deleted)]).await;
}

/// By way of the list of all, which may be asked as of any time.
async fn expires_at(store: &Store, row: &SessionRow) -> Timestamp {
    let before = Timestamp::EPOCH;
    let found = store.get_session(&row.cluster, &row.client_id, before).await.expect("get");
    found.map_or(before, |record| record.expires_at.expect("offline"))
}

#[tokio::test]
async fn an_order_changes_version_and_source() {
    let (_database, store) = with_sessions([offline(row(1, "a"), T)]).await;
    let before = get(&store, "a", T).await.expect("a session");
    let interval = order(&store, "a", Some(OperatorExpiry::Interval(60))).await;
    assert_eq!(interval.version, before.version + 1);
    assert_eq!(interval.expires_at, Some(T.plus_secs(60)));
    assert_eq!(interval.expiry().source().as_str(), "operator");
    assert_eq!(get(&store, "a", T).await, Some(interval));
    let at = order(&store, "a", Some(OperatorExpiry::At(T.plus_secs(7)))).await;
    assert_eq!(at.operator_expiry, Some(OperatorExpiry::At(T.plus_secs(7))), "it replaces the other kind");
    let cleared = order(&store, "a", None).await;
    assert_eq!(cleared.expires_at, before.expires_at);
    assert_eq!(cleared.version, before.version + 3);
    assert_eq!(cleared.expiry().source().as_str(), "client");
}

#[tokio::test]
async fn two_operators_follow_each_other() {
    let (_database, store) = with_sessions([row(1, "a")]).await;
    let mut first = store.begin().await.expect("begin");
    let (cluster, client) = (cluster_id("c"), client_id("a"));
    let seen = first.lock_session(&cluster, &client, T).await.expect("lock").expect("exists");
    let (asks, asked) = tokio::sync::oneshot::channel();
    let second = tokio::spawn({
        let store = store.clone();
        async move {
            let mut second = store.begin().await.expect("begin");
            asks.send(()).expect("the first waits");
            second.lock_session(&cluster, &client, T).await.expect("lock").expect("exists")
        }
    });
    asked.await.expect("the second asks");
    let order = Some(OperatorExpiry::Interval(1));
    let changed = first.set_operator_part(session_id(1), &with_expiry(order), T).await.expect("set");
    first.commit().await.expect("commit");
    let second = second.await.expect("the second ends");
    assert_eq!(second.version, seen.version + 1, "it sees what the first wrote, so an old ETag fails");
    assert_eq!(second, changed);
}

#[tokio::test]
async fn filters_narrow_and_combine() {
    let rows = [
        row(1, "a"),
        offline(row(2, "b"), T),
        SessionRow { protocol: Some(ProtocolVersion::V3_1), username: Some("eve".to_owned()), ..row(3, "c") },
        SessionRow { protocol: Some(ProtocolVersion::V3_1_1), ..offline(row(4, "d"), T) },
        SessionRow { username: Some("Eve".to_owned()), ..offline(row(5, "e"), T) },
        SessionRow { cluster: cluster_id("d"), ..row(6, "a") },
    ];
    let (_database, store) = with_sessions(rows).await;
    let all = SessionFilter::default();
    let online = SessionFilter { state: Some(SessionState::Online), ..all.clone() };
    let offline = SessionFilter { state: Some(SessionState::Offline), ..all.clone() };
    let v3 = SessionFilter { protocol: Some(ProtocolVersion::V3_1_1), ..all.clone() };
    let eve = SessionFilter { username: Some("eve".to_owned()), ..all.clone() };
    let one = SessionFilter { client_id: Some(client_id("b")), ..all.clone() };
    for (filter, expected) in [
        (all, vec!["a", "b", "c", "d", "e"]),
        (online.clone(), vec!["a", "c"]),
        (offline.clone(), vec!["b", "d", "e"]),
        (v3.clone(), vec!["d"]),
        (eve.clone(), vec!["c"]),
        (one.clone(), vec!["b"]),
        (SessionFilter { state: one.state.or(online.state), ..one }, vec![]),
        (SessionFilter { state: online.state, ..v3 }, vec![]),
        (SessionFilter { state: online.state, protocol: Some(ProtocolVersion::V3_1), ..eve }, vec!["c"]),
        (SessionFilter { client_id_prefix: Some("d".to_owned()), ..offline }, vec!["d"]),
    ] {
        assert_eq!(list(&store, &filter).await, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn long_user_names_are_told_apart_beyond_what_the_index_holds() {
    let long = "n".repeat(65_535);
    let nearly = format!("{}m", "n".repeat(65_534));
    let named = |n, client, name: &String| SessionRow { username: Some(name.clone()), ..row(n, client) };
    let (_database, store) = with_sessions([named(1, "a", &long), named(2, "b", &nearly)]).await;
    for (name, expected) in [(long, vec!["a"]), (nearly, vec!["b"]), ("n".repeat(128), vec![])] {
        let filter = SessionFilter { username: Some(name), ..SessionFilter::default() };
        assert_eq!(list(&store, &filter).await, expected);
    }
}

#[tokio::test]
async fn a_prefix_means_its_bytes() {
    let ids =
        ["100%", "100%-a", "1000", "a_b", "a_c", "axb", "A_b", "ä", "äh", "z\u{10ffff}", "z\u{10ffff}x", "{"];
    let rows = ids.iter().zip(1..).map(|(id, n)| row(n, id));
    let (_database, store) = with_sessions(rows).await;
    for (prefix, expected) in [
        ("100%", vec!["100%", "100%-a"]),
        ("a_", vec!["a_b", "a_c"]),
        ("a", vec!["a_b", "a_c", "axb"]),
        ("A", vec!["A_b"]),
        ("ä", vec!["ä", "äh"]),
        ("z\u{10ffff}", vec!["z\u{10ffff}", "z\u{10ffff}x"]),
        ("z", vec!["z\u{10ffff}", "z\u{10ffff}x"]),
        ("\\", vec![]),
        ("a\0", vec![]),
        ("\0", vec![]),
    ] {
        let filter = SessionFilter { client_id_prefix: Some(prefix.to_owned()), ..SessionFilter::default() };
        assert_eq!(list(&store, &filter).await, expected, "{prefix:?}");
    }
    let everything = SessionFilter { client_id_prefix: Some(String::new()), ..SessionFilter::default() };
    assert_eq!(list(&store, &everything).await.len(), ids.len());
}

#[tokio::test]
async fn pages_cover_the_list_once_in_the_order_of_bytes() {
    let ids = ["b", "B", "a", "ä", "a-1", "a1", "Z", "é", "~"];
    let (_database, store) = with_sessions(ids.iter().zip(1..).map(|(id, n)| row(n, id))).await;
    let mut sorted = ids;
    sorted.sort_unstable();
    for limit in 1..=10 {
        let mut seen: Vec<ClientId> = Vec::new();
        loop {
            let (cluster, filter) = (cluster_id("c"), SessionFilter::default());
            let page =
                store.list_sessions(&cluster, &filter, seen.last(), limit, T).await.expect("list a page");
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= limit as usize);
            seen.extend(page.into_iter().map(|record| record.row.client_id));
        }
        assert_eq!(seen.iter().map(ClientId::as_str).collect::<Vec<_>>(), sorted, "by {limit}");
    }
}

#[tokio::test]
async fn subscriptions_are_listed_by_filter_in_pages() {
    let (_database, store) = with_sessions([row(1, "a"), row(2, "b")]).await;
    commit(&store, &[subscribe(1, "b"), subscribe(1, "$share/g/a"), subscribe(1, "B/+"), subscribe(2, "z")])
        .await;
    let all = store.list_subscriptions(session_id(1), None, 10).await.expect("list");
    let filters: Vec<&str> = all.iter().map(|record| record.subscription.filter.as_str()).collect();
    assert_eq!(filters, ["$share/g/a", "B/+", "b"]);
    assert_eq!(all[2].subscription, subscription("b"));
    let after = &all[0].subscription.filter;
    let page = store.list_subscriptions(session_id(1), Some(after), 1).await.expect("list");
    assert_eq!(page, all[1..2]);

    let first = all[2].created_at;
    let again = SessionWrite::Subscribe(
        session_id(1),
        Box::new(holdfast::model::Subscription { no_local: false, ..subscription("b") }),
    );
    commit(&store, &[again]).await;
    let all = store.list_subscriptions(session_id(1), None, 10).await.expect("list");
    assert!(!all[2].subscription.no_local);
    assert_eq!(all[2].created_at, first, "a subscription that is replaced keeps its age");
}
