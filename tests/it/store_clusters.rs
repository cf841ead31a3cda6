//! Clusters, quotas and the desired state in the store.

use std::collections::BTreeMap;

use holdfast::model::{ClusterId, ClusterStatus, QuotaOverrides, Timestamp};
use holdfast::store::{Constraint, Error, NewCluster};

use crate::support::database::TestDatabase;

const T: Timestamp = Timestamp::from_millis(1_800_000_000_123);

fn id(text: &str) -> ClusterId {
    ClusterId::new(text).expect("a cluster id")
}

fn new(text: &str) -> NewCluster {
    NewCluster {
        id: id(text),
        name: format!("The {text}"),
        labels: BTreeMap::from([("team".to_owned(), "ops ☃".to_owned())]),
        delete_protection: true,
        allow_anonymous: false,
        plan: "basic".to_owned(),
        overrides: QuotaOverrides { connections: Some(u32::MAX), ..QuotaOverrides::default() },
    }
}

#[tokio::test]
async fn a_cluster_reads_back_as_it_was_made() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let mut tx = store.begin().await.expect("begin");
    let made = tx.insert_cluster(&new("a"), T).await.expect("insert");
    tx.commit().await.expect("commit");

    assert_eq!(store.get_cluster(&id("a")).await.expect("get"), Some(made.clone()));
    assert_eq!(made.name, "The a");
    assert_eq!(made.labels["team"], "ops ☃");
    assert_eq!(made.status, ClusterStatus::Active);
    assert!(made.delete_protection && !made.allow_anonymous);
    assert_eq!(made.overrides, new("a").overrides);
    assert_eq!((made.created_at, made.updated_at), (T, T));
    assert_eq!((made.version, made.quota_version), (1, 1));
    assert_eq!(store.get_cluster(&id("b")).await.expect("get"), None);
}

#[tokio::test]
async fn an_id_that_is_taken_is_told_apart() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let mut tx = store.begin().await.expect("begin");
    tx.insert_cluster(&new("a"), T).await.expect("insert");
    tx.commit().await.expect("commit");
    let mut tx = store.begin().await.expect("begin");
    let error = tx.insert_cluster(&new("a"), T).await.expect_err("taken");
    assert!(matches!(error, Error::Conflict(Constraint::ClusterExists)), "{error:?}");
}
