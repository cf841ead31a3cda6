//! Clusters and session rows for tests that speak to the store.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use holdfast::model::{
    ClientId, ClusterId, DisconnectCause, EndedBy, Epoch, OperatorExpiry, OperatorPart, ProtocolVersion, QoS,
    QuotaOverrides, RetainHandling, SessionId, Subscription, SubscriptionOrigin, Timestamp, TopicFilter,
    Transport,
};
use holdfast::seam::ports::{SessionRow, SessionStore, SessionWrite};
use holdfast::store::{NewCluster, Store};
use uuid::Uuid;

/// A moment of no significance, with milliseconds.
pub(crate) const T: Timestamp = Timestamp::from_millis(1_800_000_000_123);

pub(crate) fn cluster_id(text: &str) -> ClusterId {
    ClusterId::new(text).expect("a cluster id")
}

pub(crate) fn client_id(text: &str) -> ClientId {
    ClientId::new(text).expect("a client id")
}

pub(crate) fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).expect("a topic filter")
}

/// Session number `n`; a greater number sorts later.
pub(crate) fn session_id(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(n))
}

pub(crate) fn new_cluster(id: &str) -> NewCluster {
    NewCluster {
        id: cluster_id(id),
        name: id.to_owned(),
        labels: BTreeMap::new(),
        delete_protection: false,
        allow_anonymous: false,
        shared_strategy: holdfast::model::SharedStrategy::Random,
        server_keep_alive_secs: None,
        resend_after_secs: 120,
        plan: "basic".to_owned(),
        overrides: QuotaOverrides::default(),
    }
}

/// Makes clusters of these ids.
pub(crate) async fn make_clusters(store: &Store, ids: &[&str]) {
    let mut tx = store.begin().await.expect("begin");
    for id in ids {
        tx.insert_cluster(&new_cluster(id), T).await.expect("insert a cluster");
    }
    tx.commit().await.expect("commit");
}

/// Session number `n` of a client of cluster `c`: online since [`T`], for an hour after it ends.
pub(crate) fn row(n: u128, client: &str) -> SessionRow {
    SessionRow {
        cluster: cluster_id("c"),
        client_id: client_id(client),
        session_id: session_id(n),
        epoch: Epoch::FIRST,
        protocol: Some(ProtocolVersion::V5),
        clean_start: false,
        username: None,
        peer: Some("192.0.2.1:50123".to_owned()),
        listener: Some("mqtt".to_owned()),
        transport: Some(Transport::Tcp),
        keep_alive_secs: 60,
        receive_maximum: 65_535,
        packet_bytes_max: None,
        expiry_client_secs: 3_600,
        expiry_bounded: false,
        has_will: false,
        created_at: T,
        connected_at: Some(T),
        disconnected_at: None,
        disconnect: None,
    }
}

/// The same session when its connection has ended.
pub(crate) fn offline(row: SessionRow, at: Timestamp) -> SessionRow {
    let cause = DisconnectCause { reason: "normal".to_owned(), by: EndedBy::Client };
    SessionRow { disconnected_at: Some(at), disconnect: Some(cause), ..row }
}

pub(crate) fn subscription(text: &str) -> Subscription {
    Subscription {
        filter: filter(text),
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: false,
        retain_handling: RetainHandling::SendIfNew,
        identifier: NonZeroU32::new(268_435_455),
        origin: SubscriptionOrigin::Client,
    }
}

pub(crate) fn put(row: SessionRow) -> SessionWrite {
    SessionWrite::Put(Box::new(row))
}

pub(crate) fn subscribe(n: u128, text: &str) -> SessionWrite {
    SessionWrite::Subscribe(session_id(n), Box::new(subscription(text)))
}

/// The operator's part with this order and nothing else.
pub(crate) fn with_expiry(expiry: Option<OperatorExpiry>) -> OperatorPart {
    OperatorPart { expiry, ..OperatorPart::default() }
}

/// Commits a batch that must succeed.
pub(crate) async fn commit(store: &Store, batch: &[SessionWrite]) {
    store.commit(batch).await.expect("commit a batch");
}
