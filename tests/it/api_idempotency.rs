//! A change asked for twice under one key is made once, whatever happens in between.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast::control_plane::background::cleaner;
use holdfast::control_plane::tokens::Role;
use holdfast::store::{Claim, IdempotencyKey, KeptAnswer, Store};
use serde_json::json;
use uuid::Uuid;

use super::support::api::Api;
use super::support::data_plane::Mood;
use super::support::database::TestDatabase;
use super::support::sessions::{T, cluster_id, commit, new_cluster, offline, put, row};

const KEY: &str = "idempotency-key";
const METER: &str = "/v1/clusters/c/sessions/meter";

#[tokio::test]
async fn the_same_request_is_answered_as_the_first_time() {
    let api = Api::start().await;
    let admin = api.admin().header(KEY, "k-1");
    let body = json!({"id": "c", "name": "Meters"});
    let first = admin.post("/v1/clusters", &body).await;
    assert!(!first.replayed());
    let again = admin.post("/v1/clusters", &body).await;
    assert!(again.replayed());
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    for name in ["etag", "location", "content-type"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert_eq!(first.expect(201)["version"], 1);

    // Another body, another path, another method: other requests.
    admin.post("/v1/clusters", &json!({"id": "d"})).await.expect_problem("idempotency_key_reused");
    admin.patch("/v1/clusters/c", &body).await.expect_problem("idempotency_key_reused");
    admin.delete("/v1/clusters/c?x=1").await.expect_problem("unknown_parameter");
    admin.delete("/v1/clusters/c").await.expect_problem("idempotency_key_reused");
    // Another caller's keys are other keys.
    let other = api.with_token(&api.token(Role::Admin, Some("c"))).header(KEY, "k-1");
    other.patch("/v1/clusters/c", &json!({"name": "x"})).await.expect(200);
    // Without the key it is done again.
    api.admin().post("/v1/clusters", &body).await.expect_problem("cluster_exists");
}

#[tokio::test]
async fn every_kind_of_change_is_made_once() {
    let api = Api::with_clusters(&["c"]).await;
    commit(&api.store, &[put(row(1, "meter"))]).await;
    let admin = |key: &str| api.admin().header(KEY, key);
    let patch = json!({"expiry": {"interval_seconds": 60}});
    for _ in 0..2 {
        admin("patch").patch(METER, &patch).await.expect(200);
        let renamed = admin("rename").patch("/v1/clusters/c", &json!({"name": "x"})).await.expect(200);
        assert_eq!(renamed["version"], 2);
        let quota = admin("quota").header("if-match", "\"1\"");
        let quota = quota.put("/v1/clusters/c/quota", &json!({"connections": 9})).await;
        assert_eq!(quota.expect(200)["connections"]["limit"], 9, "its If-Match held the first time");
        let ended = admin("disconnect").post(&format!("{METER}/disconnect"), &json!({})).await.expect(200);
        assert_eq!(ended["was_online"], true, "as the first time");
    }
    for replayed in [false, true] {
        let ended = admin("delete").delete(METER).await;
        ended.expect(200);
        assert_eq!(ended.replayed(), replayed);
    }
    for replayed in [false, true] {
        let gone = admin("gone").delete("/v1/clusters/c").await;
        assert_eq!((gone.status.as_u16(), gone.text.as_str(), gone.replayed()), (204, "", replayed));
    }
}

#[tokio::test]
async fn a_request_without_effect_gives_its_key_back() {
    let api = Api::with_clusters(&["c"]).await;
    commit(&api.store, &[put(offline(row(1, "meter"), T))]).await;
    let admin = api.admin().header(KEY, "k");
    for _ in 0..2 {
        let refused = admin.post(&format!("{METER}/disconnect"), &json!({})).await;
        refused.expect_problem("session_not_connected");
        assert!(!refused.replayed());
    }
    admin.post("/v1/clusters", &json!({"id": "c"})).await.expect_problem("cluster_exists");
    admin.post("/v1/clusters", &json!({"id": "d"})).await.expect(201);
    for bad in ["", "two words", &"x".repeat(256)] {
        let bad = api.admin().header(KEY, bad);
        bad.post("/v1/clusters", &json!({"id": "e"})).await.expect_problem("invalid_header");
    }
}

#[tokio::test]
async fn a_request_under_way_is_not_made_again() {
    let api = Api::with_clusters(&["c"]).await;
    commit(&api.store, &[put(row(1, "meter"))]).await;
    api.data_plane.be(Mood::Silent);
    let before = api.data_plane.commands();
    let admin = api.admin().header(KEY, "k").header("prefer", "wait=1");
    let second = async {
        while api.data_plane.commands() == before {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        admin.delete(METER).await.expect_problem("idempotency_key_in_flight");
    };
    let (first, ()) = tokio::join!(admin.delete(METER), second);
    let operation = first.expect(202);
    assert_eq!(api.data_plane.commands(), before + 1);

    // It is followed and not repeated.
    let again = admin.delete(METER).await;
    assert!(again.replayed());
    assert_eq!(again.expect(202)["id"], operation["id"]);
    assert_eq!(api.data_plane.commands(), before + 1);

    // Nobody knows what became of it, nor has a record to follow it by.
    let admin = api.admin().header(KEY, "l").header("prefer", "wait=0");
    let ghost = "/v1/clusters/c/sessions/ghost";
    admin.delete(ghost).await.expect_problem("not_confirmed");
    api.data_plane.be(Mood::Works);
    admin.delete(ghost).await.expect_problem("idempotency_outcome_unknown");
}

#[tokio::test]
async fn an_answer_that_was_lost_holds_when_it_is_given_again() {
    let api = Api::with_clusters(&["c"]).await;
    api.data_plane.be(Mood::Silent);
    let admin = api.admin().header(KEY, "k").header("prefer", "wait=0");
    let first = admin.post("/v1/clusters", &json!({"id": "d"})).await;
    assert!(first.is_pending() && !first.replayed());
    assert_eq!(first.header("preference-applied"), "wait=0");
    let etag = first.etag();
    let made = first.expect(202);
    // Committed with its answer, which is given when the data plane enforces it.
    let again = admin.post("/v1/clusters", &json!({"id": "d"})).await;
    assert!(again.is_pending() && again.replayed());
    assert_eq!((again.etag(), again.expect(202)), (etag, made.clone()));
    api.data_plane.be(Mood::Works);
    let again = admin.header("prefer", "wait=9").post("/v1/clusters", &json!({"id": "d"})).await;
    assert!(!again.is_pending() && again.replayed());
    assert_eq!((again.etag(), again.expect(201)), (etag, made));
}

#[tokio::test]
async fn a_day_later_the_key_is_a_new_one() {
    let api = Api::start().await;
    let patch = json!({"name": "x"});
    api.admin().post("/v1/clusters", &json!({"id": "c"})).await.expect(201);
    api.admin().header(KEY, "k").patch("/v1/clusters/c", &patch).await.expect(200);
    api.clock.jump_millis(24 * 3_600_000 - 60_000);
    assert!(api.admin().header(KEY, "k").patch("/v1/clusters/c", &patch).await.replayed());
    api.clock.jump_millis(60_000);
    let other = json!({"name": "y"});
    assert!(!api.admin().header(KEY, "k").patch("/v1/clusters/c", &other).await.replayed());

    api.clock.jump_millis(24 * 3_600_000);
    cleaner::clean(&api.store, api.clock.wall()).await.expect("clean");
    assert_eq!(api.store.forget_keys(api.clock.wall(), 10).await.expect("forget"), 0, "all are forgotten");
}

fn key(run: u128) -> IdempotencyKey {
    IdempotencyKey { caller: "ada".to_owned(), key: "k".to_owned(), run: Uuid::from_u128(run) }
}

fn created() -> KeptAnswer {
    let headers = BTreeMap::from([("etag".to_owned(), "\"1\"".to_owned())]);
    KeptAnswer { status: 201, headers, body: b"{}".to_vec(), enforced: true }
}

async fn claim(store: &Store, run: u128, request: &[u8]) -> Claim {
    store.claim_key(&key(run), request, T).await.expect("claim")
}

#[tokio::test]
async fn a_crash_leaves_effect_and_answer_or_neither() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    assert_eq!(claim(&store, 1, b"r").await, Claim::Claimed);
    assert_eq!(claim(&store, 1, b"r").await, Claim::InFlight);
    let mut tx = store.begin().await.expect("begin");
    tx.insert_cluster(&new_cluster("c"), T).await.expect("insert");
    tx.answer_key(&key(1), &created()).await.expect("answer");
    drop(tx); // as a crash before the commit does

    // The next run makes the change: nothing of the first one's is there.
    assert_eq!(store.get_cluster(&cluster_id("c")).await.expect("get"), None);
    assert_eq!(claim(&store, 2, b"other").await, Claim::OtherRequest);
    assert_eq!(claim(&store, 2, b"r").await, Claim::Claimed);
    let mut tx = store.begin().await.expect("begin");
    tx.answer_key(&key(1), &created()).await.expect_err("the first run holds it no longer");
    drop(tx);
    let mut tx = store.begin().await.expect("begin");
    tx.insert_cluster(&new_cluster("c"), T).await.expect("insert");
    tx.answer_key(&key(2), &created()).await.expect("answer");
    tx.commit().await.expect("commit");
    // A crash after the commit: the run after that one gives the answer.
    store.release_key(&key(2)).await.expect("an answer is not released");
    assert_eq!(claim(&store, 3, b"r").await, Claim::Answered(created()));
}

#[tokio::test]
async fn a_crash_after_a_command_leaves_its_outcome_unknown() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    assert_eq!(claim(&store, 1, b"r").await, Claim::Claimed);
    store.mark_key_dispatched(&key(1)).await.expect("mark");
    assert_eq!(claim(&store, 1, b"r").await, Claim::InFlight);
    assert_eq!(claim(&store, 2, b"r").await, Claim::OutcomeUnknown);
    assert_eq!(claim(&store, 2, b"other").await, Claim::OtherRequest);
}
