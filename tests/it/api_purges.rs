//! Purges: planned, made, paced, cancelled, and carried on after a crash.

use std::time::Duration;

use holdfast::control_plane::background::operations::Operations;
use holdfast::control_plane::tokens::Role;
use holdfast::model::SessionEnd;
use holdfast::seam::command::CommandError;
use holdfast::seam::ports::SessionWrite;
use serde_json::{Value, json};

use super::support::api::Api;
use super::support::data_plane::Mood;
use super::support::sessions::{T, commit, offline, put, row, session_id, subscribe};

const PURGES: &str = "/v1/clusters/c/session-purges";

/// `online`, `asleep-1` to `asleep-{n}`.
async fn fleet(n: u128) -> Api {
    let api = Api::with_clusters(&["c"]).await;
    let mut batch = vec![put(row(1_000, "online"))];
    batch.extend((1..=n).map(|i| put(offline(row(i, &format!("asleep-{i:03}")), T))));
    commit(&api.store, &batch).await;
    api
}

/// Plans it, checks that nothing was done, and makes it.
async fn purge(api: &Api, body: &Value) -> String {
    let before = api.data_plane.commands();
    let plan = api.admin().post(PURGES, body).await.expect(200);
    let mut body = body.clone();
    body["plan_token"] = plan["plan_token"].clone();
    let made = api.admin().header("x-request-id", "trace-7").post(PURGES, &body).await;
    assert_eq!(api.data_plane.commands(), before);
    let id = made.expect(202)["id"].as_str().expect("an id").to_owned();
    assert_eq!(made.header("location"), format!("/v1/operations/{id}"));
    id
}

async fn operation(api: &Api, id: &str) -> Value {
    api.admin().get(&format!("/v1/operations/{id}")).await.expect(200)
}

/// Works until there is nothing more to do.
async fn run(api: &Api) {
    while api.operations.step().await.expect("a step").is_some() {}
}

#[tokio::test]
async fn a_plan_says_what_would_be_done() {
    let api = fleet(12).await;
    commit(
        &api.store,
        &[subscribe(1, "$share/alone/x"), subscribe(2, "$share/both/x"), subscribe(1_000, "$share/both/x")],
    )
    .await;
    api.admin().patch("/v1/clusters/c/sessions/asleep-003", &json!({"protected": true})).await.expect(200);
    let plan =
        api.admin().post(PURGES, &json!({"action": "delete", "filter": "state=offline"})).await.expect(200);
    assert_eq!((&plan["sessions"], &plan["online"], &plan["protected"]), (&json!(12), &json!(0), &json!(1)));
    assert_eq!(plan["sample"].as_array().map(Vec::len), Some(10));
    assert_eq!(plan["sample"][0]["client_id"], "asleep-001");
    assert_eq!(plan["orphaned_shared_subscriptions"], json!(["$share/alone/x"]));
    let clients = json!({"action": "disconnect", "client_ids": ["online", "asleep-001", "nobody"]});
    let plan = api.admin().post(PURGES, &clients).await.expect(200);
    assert_eq!((&plan["sessions"], &plan["online"]), (&json!(2), &json!(1)));

    for (body, pointer) in [
        (json!({"action": "delete"}), "#"),
        (json!({"action": "delete", "filter": "", "client_ids": ["a"]}), "#"),
        (json!({"action": "delete", "client_ids": []}), "#/client_ids"),
        (json!({"action": "delete", "filter": "page_size=1"}), "#/filter"),
        (json!({"action": "delete", "filter": "state=asleep"}), "#/filter"),
        (json!({"action": "delete", "filter": "state="}), "#/filter"),
        (json!({"action": "delete", "filter": "", "rate_per_second": 0}), "#/rate_per_second"),
        (json!({"action": "ban", "filter": ""}), "#/action"),
    ] {
        let problem = api.admin().post(PURGES, &body).await.expect_problem("invalid_body");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    api.admin().post("/v1/clusters/x/session-purges", &clients).await.expect_problem("cluster_not_found");
}

#[tokio::test]
async fn a_plan_is_good_for_its_purge_for_a_while() {
    let api = fleet(2).await;
    let plan =
        api.admin().post(PURGES, &json!({"action": "delete", "filter": "state=offline"})).await.expect(200);
    let token = plan["plan_token"].clone();
    let with = |action: &str, filter: &str| json!({"action": action, "filter": filter, "plan_token": token});
    for body in [with("disconnect", "state=offline"), with("delete", "")] {
        api.admin().post(PURGES, &body).await.expect_problem("plan_token_invalid");
    }
    api.clock.jump_millis(600_000);
    api.admin().post(PURGES, &with("delete", "state=offline")).await.expect_problem("plan_token_invalid");
}

#[tokio::test]
async fn each_session_has_its_outcome() {
    let api = fleet(4).await;
    api.admin().patch("/v1/clusters/c/sessions/asleep-001", &json!({"protected": true})).await.expect(200);
    let id = purge(&api, &json!({"action": "delete", "filter": ""})).await;
    let made = operation(&api, &id).await;
    assert_eq!((&made["state"], &made["total"], &made["pending"]), (&json!("running"), &json!(5), &json!(5)));
    // Of two, the client has a new session meanwhile, or none.
    commit(
        &api.store,
        &[put(row(77, "asleep-002")), SessionWrite::Remove(session_id(3), SessionEnd::Deleted)],
    )
    .await;
    run(&api).await;
    let done = operation(&api, &id).await;
    assert_eq!((&done["state"], &done["pending"]), (&json!("succeeded"), &json!(0)));
    assert_eq!(done["outcomes"], json!({"deleted": 2, "gone": 2, "protected": 1}));
    let sessions = api.admin().get(&format!("/v1/operations/{id}/sessions?page_size=2")).await.expect(200);
    let outcomes: Vec<_> =
        sessions["items"].as_array().expect("items").iter().map(|s| s["outcome"].clone()).collect();
    assert_eq!(outcomes, [json!("protected"), json!("gone")]);
    let token = sessions["next_page_token"].as_str().expect("a token");
    let rest = api.admin().get(&format!("/v1/operations/{id}/sessions?page_token={token}")).await.expect(200);
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(3));
    api.admin().get("/v1/clusters/c/sessions/asleep-002").await.expect(200);

    let history = api.admin().get("/v1/clusters/c/sessions/online/history").await.expect(200);
    let kicked = &history["items"][0];
    assert_eq!((&kicked["kind"], &kicked["actor"]), (&json!("kicked"), &json!("ada")));
    assert_eq!((&kicked["request_id"], &kicked["detail"]["operation_id"]), (&json!("trace-7"), &json!(id)));
}

#[tokio::test]
async fn a_disconnect_ends_connections_alone() {
    let api = fleet(1).await;
    let id = purge(&api, &json!({"action": "disconnect", "filter": ""})).await;
    run(&api).await;
    assert_eq!(operation(&api, &id).await["outcomes"], json!({"disconnected": 1, "not_connected": 1}));
    assert_eq!(api.admin().get("/v1/clusters/c/sessions/online").await.expect(200)["state"], "offline");
}

#[tokio::test]
async fn a_crash_half_way_is_carried_on_from() {
    let api = fleet(250).await;
    let id = purge(&api, &json!({"action": "delete", "filter": "state=offline"})).await;
    api.operations.step().await.expect("a step");
    assert_eq!(operation(&api, &id).await["pending"], 50, "a batch is done");
    // The process dies; the next one knows of the operation what the database does.
    let mut next = None;
    api.data_plane.be(Mood::Fails(CommandError::Stopped));
    assert_eq!(api.operations.step().await.expect("a step"), next, "not answered for: to be tried again");
    assert_eq!(operation(&api, &id).await["pending"], 50);
    api.data_plane.be(Mood::Works);
    let again = Operations::new(api.store.clone(), api.operations.data_plane(), api.clock.clone());
    next = again.step().await.expect("a step");
    assert_eq!(next, Some(Duration::ZERO));
    assert_eq!(again.step().await.expect("a step"), Some(Duration::ZERO), "it is through");
    assert_eq!(again.step().await.expect("a step"), None);
    let done = operation(&api, &id).await;
    assert_eq!((&done["state"], &done["outcomes"]), (&json!("succeeded"), &json!({"deleted": 250})));
}

#[tokio::test]
async fn a_paced_one_goes_evenly_and_can_be_cancelled() {
    let api = fleet(30).await;
    let id =
        purge(&api, &json!({"action": "delete", "filter": "state=offline", "rate_per_second": 100})).await;
    assert_eq!(api.operations.step().await.expect("a step"), Some(Duration::from_millis(100)));
    assert_eq!(operation(&api, &id).await["pending"], 20);
    let cancelled = api.admin().post(&format!("/v1/operations/{id}/cancel"), &json!({})).await.expect(200);
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(cancelled["outcomes"], json!({"cancelled": 20, "deleted": 10}));
    assert_eq!(api.operations.step().await.expect("a step"), None);
    let again = api.admin().post(&format!("/v1/operations/{id}/cancel"), &json!({})).await;
    again.expect_problem("operation_ended");
    let left = api.admin().get("/v1/clusters/c/session-count?state=offline").await.expect(200);
    assert_eq!(left["total"], 20);
}

#[tokio::test]
async fn a_tenant_does_not_see_another_s_operation() {
    let api = fleet(1).await;
    api.admin().post("/v1/clusters", &json!({"id": "d"})).await.expect(201);
    let id = purge(&api, &json!({"action": "delete", "filter": "state=offline"})).await;
    let tenant = api.with_token(&api.token(Role::Admin, Some("d")));
    let path = format!("/v1/operations/{id}");
    tenant.get(&path).await.expect_problem("operation_not_found");
    tenant.get(&format!("{path}/sessions")).await.expect_problem("operation_not_found");
    tenant.post(&format!("{path}/cancel"), &json!({})).await.expect_problem("operation_not_found");
    let own = api.with_token(&api.token(Role::Viewer, Some("c")));
    own.get(&path).await.expect(200);
}
