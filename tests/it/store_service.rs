//! One serving process for a database, and what a dead one left behind.

use holdfast::model::{DisconnectCause, EndedBy, SessionState, Timestamp};
use holdfast::seam::ports::SessionRow;
use holdfast::store::{ServiceLockError, Store};
use sqlx::postgres::PgConnectOptions;

use crate::support::database::TestDatabase;
use crate::support::sessions::{T, client_id, cluster_id, commit, make_clusters, offline, put, row};

async fn disconnected_at(store: &Store, client: &str) -> Option<Timestamp> {
    let record =
        store.get_session(&cluster_id("c"), &client_id(client), Timestamp::EPOCH).await.expect("get");
    record.expect("a session").row.disconnected_at
}

#[tokio::test]
async fn a_second_process_is_refused_until_the_first_is_gone() {
    let database = TestDatabase::create().await;
    let (first, second) = (database.store().await, database.store().await);
    let lock = first.lock_service().await.expect("the first takes it");
    let refused = second.lock_service().await.expect_err("the second does not");
    assert!(matches!(refused, ServiceLockError::Held), "{refused:?}");
    assert_eq!(refused.to_string(), "another holdfast process serves this database");
    // As a kill does: the connection ends without a word.
    drop(lock);
    second.lock_service().await.expect("the second takes it now").release().await;
    first.lock_service().await.expect("released").release().await;
}

#[tokio::test]
async fn another_database_is_another_lock() {
    let (one, other) = (TestDatabase::create().await, TestDatabase::create().await);
    let _held = one.store().await.lock_service().await.expect("take it");
    other.store().await.lock_service().await.expect("take the other");
}

#[tokio::test]
async fn a_heartbeat_after_an_outage_takes_the_lock_again() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let mut lock = store.lock_service().await.expect("take it");
    lock.heartbeat(T).await.expect("it lives");
    database.go_away().await;
    for _ in 0..2 {
        let away = lock.heartbeat(T).await.expect_err("the database is away");
        assert!(matches!(&away, ServiceLockError::Store(error) if error.is_away()), "{away:?}");
    }
    database.come_back().await;
    lock.heartbeat(T).await.expect("it lives again");
    let refused = store.lock_service().await.expect_err("it is held again");
    assert!(matches!(refused, ServiceLockError::Held), "{refused:?}");
}

#[tokio::test]
async fn who_lost_the_lock_in_an_outage_learns_it() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let mut first = store.lock_service().await.expect("take it");
    database.go_away().await;
    database.come_back().await;
    let _second = database.store().await.lock_service().await.expect("it is free");
    // The first attempt may still find the broken connection.
    let lost = match first.heartbeat(T).await.expect_err("not any more") {
        ServiceLockError::Store(error) if error.is_away() => {
            first.heartbeat(T).await.expect_err("not any more")
        }
        lost => lost,
    };
    assert!(matches!(lost, ServiceLockError::Held), "{lost:?}");
}

#[tokio::test]
async fn sessions_of_a_dead_process_end_at_its_last_heartbeat() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    make_clusters(&store, &["c"]).await;
    let (beat, now) = (T.plus_secs(100), T.plus_secs(5_000));
    let late = SessionRow { connected_at: Some(T.plus_secs(103)), ..row(2, "late") };
    let asleep = offline(row(3, "asleep"), T.plus_secs(50));
    commit(&store, &[put(row(1, "early")), put(late), put(asleep.clone())]).await;
    let mut lock = store.lock_service().await.expect("take it");
    lock.heartbeat(beat).await.expect("it lives");
    let before = store.get_session(&cluster_id("c"), &client_id("early"), now).await.expect("get");
    lock.release().await;

    assert_eq!(store.recover_after_restart(now).await.expect("recover"), 2);
    assert_eq!(disconnected_at(&store, "early").await, Some(beat));
    assert_eq!(disconnected_at(&store, "late").await, Some(T.plus_secs(103)), "not before it came");
    assert_eq!(disconnected_at(&store, "asleep").await, asleep.disconnected_at);
    let early = store.get_session(&cluster_id("c"), &client_id("early"), beat).await.expect("get");
    let early = early.expect("a session");
    assert_eq!(early.state(), SessionState::Offline);
    let cause = DisconnectCause { reason: "server_restart".to_owned(), by: EndedBy::Server };
    assert_eq!(early.row.disconnect, Some(cause));
    assert_eq!(early.expires_at, Some(beat.plus_secs(3_600)), "what fell due meanwhile is due");
    assert!(early.version > before.expect("a session").version);
    assert_eq!(store.recover_after_restart(now).await.expect("recover"), 0, "once is enough");
}

#[tokio::test]
async fn recovery_needs_no_heartbeat_and_never_writes_the_future() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    make_clusters(&store, &["c"]).await;
    commit(&store, &[put(row(1, "a"))]).await;
    store.recover_after_restart(T.plus_secs(9)).await.expect("recover");
    assert_eq!(disconnected_at(&store, "a").await, Some(T), "no heartbeat: when it came");

    commit(&store, &[put(row(2, "b"))]).await;
    let mut lock = store.lock_service().await.expect("take it");
    lock.heartbeat(T.plus_secs(900)).await.expect("it lives");
    store.recover_after_restart(T.plus_secs(9)).await.expect("recover");
    assert_eq!(disconnected_at(&store, "b").await, Some(T.plus_secs(9)), "the clock went back");
}

#[tokio::test]
async fn an_absent_database_is_known_soon() {
    let nowhere = PgConnectOptions::new_without_pgpass().socket("/nonexistent").username("nobody");
    let error = Store::connect(nowhere, holdfast::clock::Clock::new()).await.expect_err("nothing there");
    assert!(error.is_away(), "{error:?}");
}

#[tokio::test]
async fn the_url_of_a_test_database_leads_to_it() {
    let database = TestDatabase::create().await;
    let options: PgConnectOptions = database.url().parse().expect("a URL");
    let store = Store::connect(options, holdfast::clock::Clock::new()).await.expect("connect");
    assert_eq!(store.desired_revision().await.expect("it is migrated"), 0);
}
