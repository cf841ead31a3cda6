//! How operators end sessions over HTTP: what they may say, what is held, and what becomes of a command that is
//! not confirmed in time.

use holdfast::control_plane::background::cleaner;
use holdfast::control_plane::background::operations::Operations;
use holdfast::model::{DisconnectCause, EndedBy, SessionEnd};
use holdfast::seam::command::CommandError;
use holdfast::seam::ports::{SessionRow, SessionWrite};
use serde_json::{Value, json};

use super::support::api::Api;
use super::support::data_plane::Mood;
use super::support::sessions::{T, commit, offline, put, row, session_id};

const METER: &str = "/v1/clusters/c/sessions/meter";
const HOLDS: &str = "/v1/clusters/c/holds";

/// A client that is online.
async fn fleet() -> Api {
    let api = Api::with_clusters(&["c"]).await;
    commit(&api.store, &[put(row(1, "meter")), put(offline(row(2, "asleep"), T))]).await;
    api
}

async fn kicked(api: &Api) -> Value {
    let history = api.admin().get(&format!("{METER}/history")).await.expect(200);
    let events = history["items"].as_array().expect("items");
    events.iter().find(|event| event["kind"] == "kicked").expect("a kick")["detail"].clone()
}

#[tokio::test]
async fn what_an_operator_says_is_answered_and_kept() {
    let api = fleet().await;
    let query = "will=suppress&reason=moved%20away&hold_seconds=60";
    let ended = api.admin().delete(&format!("{METER}?{query}")).await.expect(200);
    let until = api.clock.wall();
    assert_eq!((&ended["will"], &ended["reason"]), (&json!("suppress"), &json!("moved away")));
    assert!(
        ended["held_until"].as_str().is_some_and(|at| *at <= *until.plus_secs(60).to_string()),
        "{ended}"
    );
    let told = kicked(&api).await;
    assert_eq!((&told["will"], &told["reason"]), (&json!("suppress"), &json!("moved away")));
    assert_eq!(told["held_until"], ended["held_until"]);
    let rows = api.admin().get("/v1/audit-log?client_id=meter").await.expect(200);
    assert_eq!(rows["items"][0]["after"]["reason"], "moved away");
    // The record's removal says why, whoever has asked for it.
    let history = api.admin().get(&format!("{METER}/history")).await.expect(200);
    let ends: Vec<_> =
        history["items"].as_array().expect("items").iter().filter(|e| e["kind"] == "ended").collect();
    assert_eq!(ends[0]["detail"], json!({"reason": "deleted"}));
}

#[tokio::test]
async fn what_cannot_be_said_is_refused() {
    let api = fleet().await;
    let long = format!("reason={}", "x".repeat(257));
    for wrong in [
        "will=maybe",
        "reason=",
        "reason=a%0Ab",
        &long,
        "hold_seconds=0",
        "hold_seconds=2592001",
        "hold_seconds=x",
    ] {
        api.admin().delete(&format!("{METER}?{wrong}")).await.expect_problem("invalid_parameter");
        api.admin()
            .post(&format!("{METER}/disconnect?{wrong}"), &json!({}))
            .await
            .expect_problem("invalid_parameter");
    }
    let purge = |field: &str, value: Value| json!({"action": "delete", "filter": "", field: value});
    for (field, value) in [("will", json!("maybe")), ("reason", json!("")), ("hold_seconds", json!(0))] {
        let answer = api.admin().post("/v1/clusters/c/session-purges", &purge(field, value)).await;
        assert_eq!(answer.expect_problem("invalid_body")["errors"][0]["pointer"], format!("#/{field}"));
    }
    assert_eq!(api.admin().get(METER).await.expect(200)["state"], "online");
}

#[tokio::test]
async fn a_hold_is_seen_enforced_and_removed() {
    let api = fleet().await;
    let disconnect = format!("{METER}/disconnect?reason=flapping&hold_seconds=60");
    let ended = api.admin().header("x-request-id", "trace-7").post(&disconnect, &json!({})).await.expect(200);
    let hold = api.admin().get(&format!("{HOLDS}/meter")).await.expect(200);
    assert_eq!(hold["until"], ended["held_until"]);
    assert_eq!(
        (&hold["client_id"], &hold["reason"], &hold["actor"], &hold["request_id"]),
        (&json!("meter"), &json!("flapping"), &json!("ada"), &json!("trace-7"))
    );
    let enforced = |api: &Api| {
        let desired = api.desired.borrow();
        let cluster = desired.clusters.values().next().expect("a cluster");
        cluster.holds.on("meter", api.clock.wall()).is_some()
    };
    assert!(enforced(&api));
    let listed = api.admin().get(HOLDS).await.expect(200);
    assert_eq!(listed["items"], json!([hold]));

    api.admin().delete(&format!("{HOLDS}/meter")).await.expect(204);
    assert!(!enforced(&api));
    api.admin().delete(&format!("{HOLDS}/meter")).await.expect_problem("hold_not_found");
    api.admin().get(&format!("{HOLDS}/meter")).await.expect_problem("hold_not_found");
    api.admin().get("/v1/clusters/x/holds").await.expect_problem("cluster_not_found");
    api.admin().get("/v1/clusters/x/holds/meter").await.expect_problem("cluster_not_found");
    api.admin().delete("/v1/clusters/x/holds/meter").await.expect_problem("cluster_not_found");
}

#[tokio::test]
async fn a_hold_that_is_over_does_not_exist() {
    let api = fleet().await;
    api.admin().delete(&format!("{METER}?hold_seconds=60")).await.expect(200);
    api.clock.jump_millis(60_000);
    api.admin().get(&format!("{HOLDS}/meter")).await.expect_problem("hold_not_found");
    assert_eq!(api.admin().get(HOLDS).await.expect(200)["items"], json!([]));
    cleaner::clean(&api.store, api.clock.wall()).await.expect("clean");
    assert_eq!(api.store.forget_holds(api.clock.wall(), 10).await.expect("forget"), 0, "it was removed");
}

#[tokio::test]
async fn a_hold_is_taken_back_when_nothing_is_ended() {
    let api = fleet().await;
    let asleep = "/v1/clusters/c/sessions/asleep/disconnect";
    api.admin()
        .post(&format!("{asleep}?hold_seconds=60"), &json!({}))
        .await
        .expect_problem("session_not_connected");
    let ghost = "/v1/clusters/c/sessions/ghost?hold_seconds=60";
    api.admin().delete(ghost).await.expect_problem("session_not_found");
    let fenced = format!("{METER}?hold_seconds=60&if_epoch=9");
    api.admin().delete(&fenced).await.expect_problem("session_superseded");
    assert_eq!(api.admin().get(HOLDS).await.expect(200)["items"], json!([]));
    // One that was there before is there again.
    api.admin().post(&format!("{METER}/disconnect?hold_seconds=60"), &json!({})).await.expect(200);
    let hold = api.admin().get(&format!("{HOLDS}/meter")).await.expect(200);
    let again = format!("{METER}/disconnect?hold_seconds=600");
    api.admin().post(&again, &json!({})).await.expect_problem("session_not_connected");
    assert_eq!(api.admin().get(&format!("{HOLDS}/meter")).await.expect(200), hold);
}

#[tokio::test]
async fn a_purge_holds_whom_it_means_and_says_why() {
    let api = fleet().await;
    let path = "/v1/clusters/c/session-purges";
    let mut body =
        json!({"action": "delete", "filter": "", "will": "suppress", "reason": "moved", "hold_seconds": 60});
    let plan = api.admin().post(path, &body).await.expect(200);
    assert_eq!(api.admin().get(HOLDS).await.expect(200)["items"], json!([]), "a plan does nothing");
    body["plan_token"] = plan["plan_token"].clone();
    let mut other = body.clone();
    other["reason"] = json!("another");
    api.admin().post(path, &other).await.expect_problem("plan_token_invalid");
    let made = api.admin().post(path, &body).await.expect(202);
    assert_eq!((&made["will"], &made["reason"]), (&json!("suppress"), &json!("moved")));
    let holds = api.admin().get(HOLDS).await.expect(200);
    let held: Vec<_> =
        holds["items"].as_array().expect("items").iter().map(|h| h["client_id"].clone()).collect();
    assert_eq!(held, [json!("asleep"), json!("meter")]);
    while api.operations.step().await.expect("a step").is_some() {}
    assert_eq!(kicked(&api).await["reason"], "moved");
}

/// Ends it without waiting, and gives the operation that follows it.
async fn unconfirmed(api: &Api, path: &str) -> String {
    let hasty = api.admin().header("prefer", "wait=0").header("x-request-id", "trace-7");
    let answer = if path.contains("disconnect") {
        hasty.post(path, &json!({})).await
    } else {
        hasty.delete(path).await
    };
    let made = answer.expect(202);
    assert_eq!((&made["state"], &made["total"], &made["pending"]), (&json!("running"), &json!(1), &json!(1)));
    let id = made["id"].as_str().expect("an id").to_owned();
    assert_eq!(answer.header("location"), format!("/v1/operations/{id}"));
    id
}

async fn operation(api: &Api, id: &str) -> Value {
    api.admin().get(&format!("/v1/operations/{id}")).await.expect(200)
}

#[tokio::test]
async fn what_is_confirmed_later_is_told_by_the_operation() {
    for (path, outcome) in [
        (format!("{METER}?reason=slow&will=suppress"), "deleted"),
        (format!("{METER}/disconnect?reason=slow&will=suppress"), "disconnected"),
    ] {
        let api = fleet().await;
        api.data_plane.be(Mood::Delayed);
        let id = unconfirmed(&api, &path).await;
        assert!(api.operations.step().await.expect("a step").is_none(), "it is no purge");
        assert_eq!(operation(&api, &id).await["state"], "running");
        api.data_plane.release().await;
        assert!(api.operations.step_commands().await.expect("a step"));
        let done = operation(&api, &id).await;
        assert_eq!((&done["state"], &done["outcomes"]), (&json!("succeeded"), &json!({outcome: 1})));
        assert_eq!((&done["reason"], &done["will"]), (&json!("slow"), &json!("suppress")));
        let told = kicked(&api).await;
        assert_eq!((&told["operation_id"], &told["reason"]), (&json!(id), &json!("slow")));
        let sessions = api.admin().get(&format!("/v1/operations/{id}/sessions")).await.expect(200);
        assert_eq!(sessions["items"][0]["outcome"], outcome);
        assert!(!api.operations.step_commands().await.expect("a step"), "nothing is left to do");
    }
}

/// The next process knows what the database does.
fn next_process(api: &Api) -> Operations {
    Operations::new(api.store.clone(), api.operations.data_plane(), api.clock.clone())
}

async fn outcome_after_restart(api: &Api, id: &str) -> Value {
    api.data_plane.be(Mood::Works);
    let _ = next_process(api).step_commands().await.expect("a step");
    operation(api, id).await["outcomes"].clone()
}

#[tokio::test]
async fn a_command_that_was_lost_with_the_process_is_given_again() {
    for (path, outcome) in [(METER.to_owned(), "deleted"), (format!("{METER}/disconnect"), "disconnected")] {
        let api = fleet().await;
        api.data_plane.be(Mood::Silent);
        let id = unconfirmed(&api, &path).await;
        // The data plane of the next process does not answer at first either.
        api.data_plane.be(Mood::Fails(CommandError::Stopped));
        assert!(!next_process(&api).step_commands().await.expect("a step"));
        assert_eq!(operation(&api, &id).await["state"], "running");
        assert_eq!(outcome_after_restart(&api, &id).await, json!({outcome: 1}));
    }
}

#[tokio::test]
async fn what_had_happened_before_a_crash_is_found_in_the_record() {
    // Deleted, and the record says so.
    let api = fleet().await;
    api.data_plane.be(Mood::Silent);
    let id = unconfirmed(&api, METER).await;
    commit(&api.store, &[SessionWrite::Remove(session_id(1), SessionEnd::Deleted)]).await;
    assert_eq!(outcome_after_restart(&api, &id).await, json!({"deleted": 1}));

    // Its client has replaced it.
    let api = fleet().await;
    api.data_plane.be(Mood::Silent);
    let id = unconfirmed(&api, METER).await;
    commit(&api.store, &[SessionWrite::Remove(session_id(1), SessionEnd::Replaced), put(row(3, "meter"))])
        .await;
    assert_eq!(outcome_after_restart(&api, &id).await, json!({"gone": 1}));
    assert_eq!(api.admin().get(METER).await.expect(200)["state"], "online", "the next one is not hit");

    // Disconnected, and connected again.
    let api = fleet().await;
    api.data_plane.be(Mood::Silent);
    let id = unconfirmed(&api, &format!("{METER}/disconnect")).await;
    let cause = DisconnectCause { reason: "administrative".to_owned(), by: EndedBy::Operator };
    commit(&api.store, &[put(SessionRow { disconnect: Some(cause), ..offline(row(1, "meter"), T) })]).await;
    commit(&api.store, &[put(SessionRow { epoch: holdfast::model::Epoch(2), ..row(1, "meter") })]).await;
    assert_eq!(outcome_after_restart(&api, &id).await, json!({"disconnected": 1}));
    assert_eq!(api.admin().get(METER).await.expect(200)["state"], "online", "the next one is not hit");

    // Its connection had ended by itself.
    let api = fleet().await;
    api.data_plane.be(Mood::Silent);
    let id = unconfirmed(&api, &format!("{METER}/disconnect")).await;
    commit(&api.store, &[put(offline(row(1, "meter"), T))]).await;
    assert_eq!(outcome_after_restart(&api, &id).await, json!({"gone": 1}));
}

#[tokio::test]
async fn a_command_that_is_followed_can_be_cancelled() {
    let api = fleet().await;
    api.data_plane.be(Mood::Silent);
    let id = unconfirmed(&api, METER).await;
    let cancelled = api.admin().post(&format!("/v1/operations/{id}/cancel"), &json!({})).await.expect(200);
    assert_eq!(cancelled["outcomes"], json!({"cancelled": 1}));
    api.data_plane.be(Mood::Works);
    assert!(!api.operations.step_commands().await.expect("a step"));
    assert_eq!(api.admin().get(METER).await.expect(200)["state"], "online");
}

#[tokio::test]
async fn protection_has_the_last_word_in_the_data_plane() {
    let api = fleet().await;
    api.data_plane.be(Mood::Fails(CommandError::Protected));
    api.admin().delete(METER).await.expect_problem("session_protected");
    api.data_plane.be(Mood::Works);
    // An answer of 200 says that the data plane knows.
    api.data_plane.be(Mood::Silent);
    let hasty = api.admin().header("prefer", "wait=0");
    assert!(hasty.patch(METER, &json!({"protected": true})).await.is_pending());
    api.data_plane.be(Mood::Works);
    api.admin().delete(METER).await.expect_problem("session_protected");
}
