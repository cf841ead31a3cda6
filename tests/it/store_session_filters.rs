//! Every filter of the list, against a real database, on its own and with others.

use std::collections::BTreeMap;

use holdfast::model::{
    ExpirySource, OperatorExpiry, OperatorPart, ProtocolVersion, SessionState, Timestamp, TopicFilter,
    TopicName, Transport,
};
use holdfast::seam::ports::SessionRow;
use holdfast::store::{Network, SessionFilter, Store};

use crate::support::database::TestDatabase;
use crate::support::sessions::{
    T, cluster_id, commit, make_clusters, offline, put, row, session_id, subscribe,
};

/// Six clients that differ in all that can be asked for.
async fn fleet() -> (TestDatabase, Store) {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    make_clusters(&store, &["c", "d"]).await;
    let at = |secs| T.plus_secs(secs);
    let plain = SessionRow { connected_at: Some(at(10)), ..row(1, "plain") };
    let asleep = offline(SessionRow { expiry_client_secs: 100, ..row(2, "asleep") }, at(20));
    let v6 = SessionRow {
        peer: Some("[2001:db8::7]:50123".to_owned()),
        transport: Some(Transport::Quic),
        ..row(3, "v6")
    };
    let near = SessionRow { peer: Some("10.1.2.3:7".to_owned()), expiry_bounded: true, ..row(4, "near") };
    let odd = SessionRow {
        peer: Some("[fe80::1%3]:7".to_owned()),
        protocol: Some(ProtocolVersion::V3_1),
        ..row(5, "odd%_")
    };
    let other = SessionRow { cluster: cluster_id("d"), ..row(6, "other") };
    let rows = [plain, asleep, v6, near, odd, other];
    commit(&store, &rows.map(put)).await;
    let labels = BTreeMap::from([("site".to_owned(), "north".to_owned()), ("n".to_owned(), "1".to_owned())]);
    let part = OperatorPart { expiry: Some(OperatorExpiry::Interval(60)), labels, protected: true };
    let mut tx = store.begin().await.expect("begin");
    tx.set_operator_part(session_id(1), &part, T).await.expect("set");
    tx.commit().await.expect("commit");
    (database, store)
}

async fn list(store: &Store, filter: &SessionFilter, now: Timestamp) -> String {
    let found = store.list_sessions(&cluster_id("c"), filter, None, 100, now).await.expect("list");
    let counted = store.count_sessions(&cluster_id("c"), filter, &[], 1, now).await.expect("count");
    assert_eq!(counted.total, found.len() as u64, "{filter:?}");
    found.iter().map(|record| record.row.client_id.as_str()).collect::<Vec<_>>().join(" ")
}

fn network(address: &str, bits: u32) -> Network {
    Network::new(address.parse().expect("an address"), bits).expect("a network")
}

#[tokio::test]
async fn each_filter_lets_through_what_it_says() {
    let (_database, store) = fleet().await;
    let all = SessionFilter::default();
    let now = T.plus_secs(50);
    let text = |text: &str| Some(text.to_owned());
    for (filter, expected) in [
        (SessionFilter { client_id_contains: text("ea"), ..all.clone() }, "near"),
        (SessionFilter { client_id_contains: text("%_"), ..all.clone() }, "odd%_"),
        (SessionFilter { client_id_contains: text("\0"), ..all.clone() }, ""),
        (SessionFilter { transport: Some(Transport::Quic), ..all.clone() }, "v6"),
        (SessionFilter { peer: Some(network("10.0.0.0", 8)), ..all.clone() }, "near"),
        (SessionFilter { peer: Some(network("10.1.2.4", 32)), ..all.clone() }, ""),
        (SessionFilter { peer: Some(network("192.0.2.1", 32)), ..all.clone() }, "asleep plain"),
        (SessionFilter { peer: Some(network("0.0.0.0", 0)), ..all.clone() }, "asleep near plain"),
        (SessionFilter { peer: Some(network("2001:db8::", 32)), ..all.clone() }, "v6"),
        (SessionFilter { connected_after: Some(T.plus_secs(10)), ..all.clone() }, "plain"),
        (SessionFilter { connected_before: Some(T.plus_secs(10)), ..all.clone() }, "asleep near odd%_ v6"),
        (SessionFilter { disconnected_after: Some(T.plus_secs(20)), ..all.clone() }, "asleep"),
        (SessionFilter { disconnected_before: Some(T.plus_secs(20)), ..all.clone() }, ""),
        (SessionFilter { expires_before: Some(T.plus_secs(121)), ..all.clone() }, "asleep"),
        (SessionFilter { expires_before: Some(T.plus_secs(120)), ..all.clone() }, ""),
        (SessionFilter { offline_for_secs: Some(30), ..all.clone() }, "asleep"),
        (SessionFilter { offline_for_secs: Some(31), ..all.clone() }, ""),
        (SessionFilter { expiry_source: Some(ExpirySource::Operator), ..all.clone() }, "plain"),
        (SessionFilter { expiry_source: Some(ExpirySource::ClusterCeiling), ..all.clone() }, "near"),
        (SessionFilter { expiry_source: Some(ExpirySource::Client), ..all.clone() }, "asleep odd%_ v6"),
        (SessionFilter { label: Some(("site".to_owned(), "north".to_owned())), ..all.clone() }, "plain"),
        (SessionFilter { label: Some(("site".to_owned(), "n".to_owned())), ..all.clone() }, ""),
        (SessionFilter { protected: Some(true), ..all.clone() }, "plain"),
        (SessionFilter { protected: Some(false), ..all.clone() }, "asleep near odd%_ v6"),
        (
            SessionFilter {
                state: Some(SessionState::Online),
                expiry_source: Some(ExpirySource::Client),
                protocol: Some(ProtocolVersion::V5),
                ..all.clone()
            },
            "v6",
        ),
    ] {
        assert_eq!(list(&store, &filter, now).await, expected, "{filter:?}");
    }
    let expired = SessionFilter { expires_before: Some(Timestamp::MAX), ..all };
    assert_eq!(list(&store, &expired, T.plus_secs(120)).await, "", "what has expired is not there");
}

#[tokio::test]
async fn who_gets_a_topic_is_found_by_matching() {
    let (_database, store) = fleet().await;
    commit(
        &store,
        &[
            subscribe(1, "a/+/c"),
            subscribe(1, "a/b/c"),
            subscribe(2, "#"),
            subscribe(3, "$share/g/a/b/#"),
            subscribe(3, "+"),
            subscribe(4, "a/b"),
            subscribe(4, "$SYS/#"),
            subscribe(5, "+/+/+/+"),
            subscribe(5, "/+"),
            subscribe(6, "a/b/c"),
        ],
    )
    .await;
    for (topic, expected) in [
        ("a/b/c", "asleep plain v6"),
        ("a/b", "asleep near v6"),
        ("a", "asleep v6"),
        ("a/x/c", "asleep plain"),
        ("a/b/c/d", "asleep odd%_ v6"),
        ("a//c", "asleep plain"),
        ("/x", "asleep odd%_"),
        ("a/b-c", "asleep"),
        ("$SYS/x", "near"),
        ("$SYS", "near"),
        ("$x/b/c/d", ""),
    ] {
        let topic = TopicName::new(topic.to_owned()).expect("a topic");
        let filter = SessionFilter { subscribed_to: Some(topic.clone()), ..SessionFilter::default() };
        assert_eq!(list(&store, &filter, T.plus_secs(50)).await, expected, "{}", topic.as_str());
    }
    // A topic as deep as can be is a walk along what exists, not through all that could.
    let deep = TopicName::new(vec!["x"; 200].join("/")).expect("a topic");
    let filter = SessionFilter { subscribed_to: Some(deep), ..SessionFilter::default() };
    assert_eq!(list(&store, &filter, T.plus_secs(50)).await, "asleep");
}

#[tokio::test]
async fn matching_agrees_with_the_model() {
    let (_database, store) = fleet().await;
    let filters =
        ["#", "+", "+/+", "a/#", "a/+", "a/b", "+/b", "/+", "+/", "/", "a/+/#", "a//b", "$s/#", "$s/+"];
    for filter in filters {
        commit(
            &store,
            &[holdfast::seam::ports::SessionWrite::Subscribe(
                session_id(1),
                Box::new(holdfast::model::Subscription {
                    filter: TopicFilter::new(filter).expect("a filter"),
                    ..crate::support::sessions::subscription("x")
                }),
            )],
        )
        .await;
        for topic in ["a", "a/b", "a/", "/", "/b", "b", "a//b", "a/b/c", "$s", "$s/a", "$s/a/b"] {
            let name = TopicName::new(topic.to_owned()).expect("a topic");
            let matches = TopicFilter::new(filter).expect("a filter").matches(&name);
            let asked = SessionFilter { subscribed_to: Some(name), ..SessionFilter::default() };
            let found = !list(&store, &asked, T.plus_secs(50)).await.is_empty();
            assert_eq!(found, matches, "{filter} {topic}");
        }
        let gone = TopicFilter::new(filter).expect("a filter");
        commit(&store, &[holdfast::seam::ports::SessionWrite::Unsubscribe(session_id(1), gone)]).await;
    }
}
