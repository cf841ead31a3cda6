//! Clusters, quotas and the desired state in the store.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use holdfast::model::{
    Cluster, ClusterStatus, Flapping, Quota, QuotaOverrides, RateOverrides, Rates, SharedStrategy,
};
use holdfast::seam::desired::DesiredState;
use holdfast::store::{Constraint, Error, NewCluster, Store};
use tokio::sync::oneshot;

use crate::support::database::TestDatabase;
use crate::support::sessions::{T, cluster_id, commit, make_clusters, new_cluster, put, row};

async fn insert(store: &Store, new: &NewCluster) -> Cluster {
    let mut tx = store.begin().await.expect("begin");
    let cluster = tx.insert_cluster(new, T).await.expect("insert");
    tx.commit().await.expect("commit");
    cluster
}

fn decorated(id: &str) -> NewCluster {
    NewCluster {
        name: "Meters ☃".to_owned(),
        labels: BTreeMap::from([("team".to_owned(), "\"ops\" ☃".to_owned())]),
        delete_protection: true,
        allow_anonymous: true,
        shared_strategy: SharedStrategy::HashTopic,
        server_keep_alive_secs: NonZeroU16::new(u16::MAX),
        resend_after_secs: 120,
        overrides: QuotaOverrides {
            connections: Some(u32::MAX),
            subscriptions: Some(0),
            filters_per_client: Some(5),
            retained_messages: Some(7),
            retained_bytes: Some(u32::MAX),
            shared_groups: Some(11),
            filters_per_shared_group: Some(12),
            members_per_shared_group: Some(13),
            log_mib: Some(14),
            session_expiry_min_secs: Some(60),
            session_expiry_max_secs: Some(7_200),
            rates: RateOverrides {
                connects: Some(1),
                connects_with_will: Some(2),
                subscribes: Some(3),
                unsubscribes: Some(4),
                messages: Some(5),
                client_messages: Some(6),
                client_bytes: Some(u32::MAX),
                flapping_connects: Some(0),
                flapping_window_secs: Some(7),
                flapping_hold_secs: Some(8),
            },
        },
        ..new_cluster(id)
    }
}

#[tokio::test]
async fn a_cluster_reads_back_as_it_was_made() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let new = decorated("a");
    let made = insert(&store, &new).await;

    assert_eq!(store.get_cluster(&new.id).await.expect("get"), Some(made.clone()));
    let expected = Cluster {
        id: new.id,
        name: new.name,
        labels: new.labels,
        status: ClusterStatus::Active,
        delete_protection: true,
        allow_anonymous: true,
        shared_strategy: SharedStrategy::HashTopic,
        server_keep_alive_secs: NonZeroU16::new(u16::MAX),
        resend_after_secs: 120,
        plan: "basic".to_owned(),
        overrides: new.overrides,
        created_at: T,
        updated_at: T,
        version: 1,
        quota_version: 1,
    };
    assert_eq!(made, expected);
    assert_eq!(store.get_cluster(&cluster_id("b")).await.expect("get"), None);
}

#[tokio::test]
async fn an_id_that_is_taken_is_told_apart() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    make_clusters(&store, &["a"]).await;
    let mut tx = store.begin().await.expect("begin");
    let error = tx.insert_cluster(&new_cluster("a"), T).await.expect_err("taken");
    assert!(matches!(error, Error::Conflict(Constraint::ClusterExists)), "{error:?}");
}

#[tokio::test]
async fn a_text_that_cannot_be_kept_is_told_apart() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let nul = "a\0b".to_owned();
    let labels = BTreeMap::from([("k".to_owned(), nul.clone())]);
    for new in [NewCluster { name: nul, ..new_cluster("a") }, NewCluster { labels, ..new_cluster("a") }] {
        let mut tx = store.begin().await.expect("begin");
        let error = tx.insert_cluster(&new, T).await.expect_err("U+0000");
        assert!(matches!(error, Error::Nul), "{error:?}");
    }
}

#[tokio::test]
async fn lists_page_by_page_in_the_order_of_bytes() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    // A dictionary would put the hyphen elsewhere.
    make_clusters(&store, &["b", "a0", "a", "a-b", "ab"]).await;
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.list_clusters(after.as_ref(), 2).await.expect("list");
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        seen.extend(page.into_iter().map(|cluster| cluster.id.to_string()));
    }
    assert_eq!(seen, ["a", "a-b", "a0", "ab", "b"]);
}

#[tokio::test]
async fn updates_count_versions_and_quota_versions() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let made = insert(&store, &decorated("a")).await;
    let later = T.plus_secs(1);

    let mut tx = store.begin().await.expect("begin");
    let locked = tx.lock_cluster(&made.id).await.expect("lock").expect("exists");
    assert_eq!(locked, made);
    let changed = Cluster {
        name: "Other".to_owned(),
        labels: BTreeMap::new(),
        status: ClusterStatus::Suspended,
        delete_protection: false,
        allow_anonymous: false,
        shared_strategy: SharedStrategy::HashClientId,
        server_keep_alive_secs: None,
        resend_after_secs: 120,
        ..locked
    };
    let updated = tx.update_cluster(&changed, later).await.expect("update");
    assert_eq!(updated, Cluster { updated_at: later, version: 2, ..changed });

    let overrides = QuotaOverrides { connections: Some(3), ..QuotaOverrides::default() };
    let quota = tx.update_quota(&made.id, "pro", &overrides, later).await.expect("update the quota");
    tx.commit().await.expect("commit");
    let expected = Cluster { plan: "pro".to_owned(), overrides, version: 3, quota_version: 2, ..updated };
    assert_eq!(quota, expected);
    assert_eq!(store.get_cluster(&made.id).await.expect("get"), Some(expected));
}

#[tokio::test]
async fn two_transactions_that_lock_a_cluster_follow_each_other() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let made = insert(&store, &new_cluster("c")).await;

    let mut first = store.begin().await.expect("begin");
    let locked = first.lock_cluster(&made.id).await.expect("lock").expect("exists");
    let (asks, asked) = oneshot::channel();
    let second = tokio::spawn({
        let store = store.clone();
        async move {
            let mut second = store.begin().await.expect("begin");
            asks.send(()).expect("the first waits");
            second.lock_cluster(&cluster_id("c")).await.expect("lock").expect("exists").version
        }
    });
    asked.await.expect("the second asks");
    // The data plane's batches do not wait for an operator.
    commit(&store, &[put(row(1, "dev"))]).await;
    first.update_cluster(&locked, T).await.expect("update");
    first.commit().await.expect("commit");
    assert_eq!(second.await.expect("the second ends"), 2);
}

#[tokio::test]
async fn a_deleted_cluster_takes_its_sessions_with_it() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    make_clusters(&store, &["c"]).await;
    commit(&store, &[put(row(1, "dev"))]).await;

    let mut tx = store.begin().await.expect("begin");
    assert!(tx.delete_cluster(&cluster_id("c")).await.expect("delete"));
    assert!(!tx.delete_cluster(&cluster_id("c")).await.expect("delete"));
    tx.commit().await.expect("commit");
    assert_eq!(store.get_cluster(&cluster_id("c")).await.expect("get"), None);
    let session = store.get_session(&cluster_id("c"), &row(1, "dev").client_id, T).await.expect("get");
    assert_eq!(session, None);
}

#[tokio::test]
async fn every_mutation_and_nothing_else_moves_the_desired_revision() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let before = store.desired_revision().await.expect("revision");
    let state = store.desired_state(&DesiredState::default()).await.expect("state");
    assert_eq!((state.revision, state.clusters.len()), (before, 0));

    let mut tx = store.begin().await.expect("begin");
    assert_eq!(tx.desired_revision(), None);
    let made = tx.insert_cluster(&new_cluster("a"), T).await.expect("insert");
    assert_eq!(tx.desired_revision(), Some(before + 1));
    tx.update_cluster(&made, T).await.expect("update");
    tx.update_quota(&made.id, "pro", &QuotaOverrides::default(), T).await.expect("update the quota");
    tx.delete_cluster(&made.id).await.expect("delete");
    tx.delete_cluster(&made.id).await.expect("delete what is gone");
    assert_eq!(tx.desired_revision(), Some(before + 4));
    assert_eq!(store.desired_revision().await.expect("revision"), before, "not before the commit");
    tx.commit().await.expect("commit");
    assert_eq!(store.desired_revision().await.expect("revision"), before + 4);

    let mut tx = store.begin().await.expect("begin");
    tx.insert_cluster(&new_cluster("b"), T).await.expect("insert");
    drop(tx);
    assert_eq!(store.desired_revision().await.expect("revision"), before + 4, "taken back");
    assert_eq!(store.get_cluster(&cluster_id("b")).await.expect("get"), None);
}

#[tokio::test]
async fn the_desired_state_holds_the_limits_in_force() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    make_clusters(&store, &["plain"]).await;
    let made = insert(&store, &decorated("own")).await;
    let mut tx = store.begin().await.expect("begin");
    let suspended = Cluster { status: ClusterStatus::Suspended, ..made };
    tx.update_cluster(&suspended, T).await.expect("update");
    tx.commit().await.expect("commit");

    let state = store.desired_state(&DesiredState::default()).await.expect("state");
    assert_eq!(state.revision, store.desired_revision().await.expect("revision"));
    assert_eq!(state.clusters.len(), 2);
    let plain = &state.clusters[&cluster_id("plain")];
    assert_eq!((plain.status, plain.allow_anonymous), (ClusterStatus::Active, false));
    assert_eq!(plain.quota.connections, Some(1_000));
    assert_eq!(plain.quota.subscriptions, Some(30_000));
    let own = &state.clusters[&cluster_id("own")];
    assert_eq!((own.status, own.allow_anonymous), (ClusterStatus::Suspended, true));
    let expected = Quota {
        connections: Some(u32::MAX),
        subscriptions: Some(0),
        filters_per_client: Some(5),
        retained_messages: Some(7),
        retained_bytes: Some(u32::MAX),
        shared_groups: Some(11),
        filters_per_shared_group: Some(12),
        members_per_shared_group: Some(13),
        log_mib: Some(14),
        session_expiry_min_secs: 60,
        session_expiry_max_secs: 7_200,
        rates: Rates {
            connects: Some(1),
            connects_with_will: Some(2),
            subscribes: Some(3),
            unsubscribes: Some(4),
            messages: Some(5),
            client_messages: Some(6),
            client_bytes: Some(u32::MAX),
        },
        flapping: Flapping { connects: 0, window_secs: 7, hold_secs: 8 },
    };
    assert_eq!(own.quota, expected);
}

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    make_clusters(&store, &["a"]).await;
    store.migrate().await.expect("migrate again");
    assert!(store.get_cluster(&cluster_id("a")).await.expect("get").is_some());
}
