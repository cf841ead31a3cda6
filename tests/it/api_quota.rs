//! Quotas and usage over HTTP.

use serde_json::{Value, json};

use super::support::api::Api;
use super::support::sessions::{T, cluster_id, commit, offline, put, row, subscribe};

const QUOTA: &str = "/v1/clusters/c/quota";

#[tokio::test]
async fn a_quota_shows_limits_sources_and_use() {
    let api = Api::with_clusters(&["c"]).await;
    commit(
        &api.store,
        &[put(row(1, "a")), put(offline(row(2, "b"), T)), subscribe(1, "x/1"), subscribe(2, "x/2")],
    )
    .await;
    let quota = api.admin().get(QUOTA).await;
    insta::assert_json_snapshot!("quota", quota.expect(200));
    assert_eq!(quota.etag(), "\"1\"");
    insta::assert_json_snapshot!("usage", api.admin().get("/v1/clusters/c/usage").await.expect(200));
}

#[tokio::test]
async fn overrides_are_set_and_taken_back() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin();
    admin.put(QUOTA, &json!({"connections": 3})).await.expect_problem("precondition_required");

    let body = json!({"connections": 3, "filters_per_client": 5, "session_expiry_max_seconds": 60});
    let set = admin.header("if-match", "\"1\"").put(QUOTA, &body).await;
    let quota = set.expect(200);
    assert_eq!(quota["connections"], json!({"limit": 3, "source": "override", "used": 0}));
    assert_eq!(quota["subscriptions"], json!({"limit": 90, "source": "plan", "used": 0}));
    assert_eq!(quota["filters_per_client"], json!({"limit": 5, "source": "override"}));
    {
        let state = api.desired.borrow();
        let enforced = &state.clusters[&cluster_id("c")].quota;
        assert_eq!((enforced.connections, enforced.session_expiry_max_secs), (Some(3), 60));
    }

    admin.header("if-match", "\"1\"").put(QUOTA, &json!({})).await.expect_problem("precondition_failed");
    // Null takes one back, and so does leaving it out.
    let cleared = admin.header("if-match", set.etag()).put(QUOTA, &json!({"connections": null})).await;
    let quota = cleared.expect(200);
    assert_eq!(quota["connections"]["source"], "plan");
    assert_eq!(quota["filters_per_client"], json!({"limit": 30, "source": "plan"}));
}

#[tokio::test]
async fn another_plan_is_another_version_of_the_quota() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin();
    admin.patch("/v1/clusters/c", &json!({"name": "renamed"})).await.expect(200);
    assert_eq!(admin.get(QUOTA).await.etag(), "\"1\"", "a name is no quota");
    admin.patch("/v1/clusters/c", &json!({"plan": "unlimited"})).await.expect(200);
    let quota = admin.get(QUOTA).await;
    assert_eq!(quota.etag(), "\"2\"");
    assert_eq!(quota.expect(200)["connections"]["limit"], Value::Null);
    let usage = admin.get("/v1/clusters/c/usage").await.expect(200);
    assert_eq!((&usage["limit"], &usage["free"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn bounds_are_kept() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin().header("if-match", "*");
    for (field, most) in [
        ("connections", 100_000_000),
        ("subscriptions", 1_000_000_000),
        ("filters_per_client", 1_000_000),
        ("retained_messages", 1_000_000_000),
        ("retained_bytes", 4_294_967_295_i64),
        ("session_expiry_min_seconds", 259_200),
        ("session_expiry_max_seconds", 259_200),
    ] {
        admin.put(QUOTA, &json!({field: most})).await.expect(200);
        for wrong in [json!(most + 1), json!(-1), json!("3"), json!(1.5), json!(1e30)] {
            let problem = admin.put(QUOTA, &json!({field: wrong})).await.expect_problem("invalid_body");
            assert_eq!(problem["errors"][0]["pointer"], format!("#/{field}"), "{wrong}");
        }
    }
    let body = json!({"session_expiry_min_seconds": 61, "session_expiry_max_seconds": 60});
    let problem = admin.put(QUOTA, &body).await.expect_problem("invalid_body");
    assert_eq!(problem["errors"][0]["pointer"], "#/session_expiry_min_seconds");
    let kept = api.admin().get(QUOTA).await.expect(200);
    assert_eq!(kept["session_expiry_max_seconds"]["limit"], 259_200, "a refused change leaves nothing");
}

#[tokio::test]
async fn rates_and_the_guard_are_set_and_taken_back() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin().header("if-match", "*");
    let body = json!({
        "connections": 50_000, "rates": {"messages_per_second": 7, "client_bytes_per_second": 8},
        "flapping": {"connects": 0, "hold_seconds": 5},
    });
    let quota = admin.put(QUOTA, &body).await.expect(200);
    let rates = &quota["rates"];
    assert_eq!(rates["messages_per_second"], json!({"limit": 7, "source": "override"}));
    assert_eq!(rates["client_bytes_per_second"], json!({"limit": 8, "source": "override"}));
    assert_eq!(rates["client_messages_per_second"], json!({"limit": null, "source": "plan"}));
    assert_eq!(rates["connects_per_second"], json!({"limit": 500, "source": "plan"}), "by the connections");
    assert_eq!(quota["flapping"]["connects"], json!({"limit": 0, "source": "override"}));
    assert_eq!(quota["flapping"]["window_seconds"], json!({"limit": 60, "source": "plan"}));
    {
        let state = api.desired.borrow();
        let enforced = &state.clusters[&cluster_id("c")].quota;
        assert_eq!((enforced.rates.messages, enforced.flapping.hold_secs), (Some(7), 5));
    }
    let quota = admin.put(QUOTA, &json!({"rates": {"messages_per_second": null}})).await.expect(200);
    assert_eq!(quota["rates"]["messages_per_second"], json!({"limit": 10_000, "source": "plan"}));
    assert_eq!(quota["flapping"]["connects"]["source"], "plan");
    let plans = api.admin().get("/v1/plans").await.expect(200);
    assert_eq!(plans["items"][0]["rates"]["messages_per_second"], 10_000);
    assert_eq!(plans["items"][3]["rates"]["messages_per_second"], Value::Null, "unlimited");
}

#[tokio::test]
async fn bounds_of_rates_are_kept() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin().header("if-match", "*");
    let rates = [
        "connects_per_second",
        "connects_with_will_per_second",
        "subscribes_per_second",
        "unsubscribes_per_second",
        "messages_per_second",
        "client_messages_per_second",
        "client_bytes_per_second",
    ];
    let rates = rates.map(|name| ("rates", name, 1, 1_000_000_000));
    let flapping = [
        ("flapping", "connects", 0, 100),
        ("flapping", "window_seconds", 1, 86_400),
        ("flapping", "hold_seconds", 1, 86_400),
    ];
    for (object, field, least, most) in rates.into_iter().chain(flapping) {
        for right in [least, most] {
            let quota = admin.put(QUOTA, &json!({object: {field: right}})).await.expect(200);
            assert_eq!(quota[object][field], json!({"limit": right, "source": "override"}));
        }
        for wrong in [json!(least - 1), json!(most + 1), json!("3"), json!(1.5)] {
            let sent = json!({object: {field: wrong}});
            let problem = admin.put(QUOTA, &sent).await.expect_problem("invalid_body");
            assert_eq!(problem["errors"][0]["pointer"], format!("#/{object}/{field}"), "{sent}");
        }
    }
    let unknown = admin.put(QUOTA, &json!({"rates": {"x": 1}})).await.expect_problem("invalid_body");
    assert_eq!(unknown["errors"][0]["pointer"], "#/rates/x");
}

#[tokio::test]
async fn an_expired_session_uses_nothing() {
    let api = Api::with_clusters(&["c"]).await;
    commit(&api.store, &[put(offline(row(1, "a"), T)), subscribe(1, "x")]).await;
    assert_eq!(api.admin().get("/v1/clusters/c/usage").await.expect(200)["total"], 1);
    api.clock.jump_millis(3_600_000);
    assert_eq!(api.admin().get("/v1/clusters/c/usage").await.expect(200)["total"], 0);
    assert_eq!(api.admin().get(QUOTA).await.expect(200)["subscriptions"]["used"], 0);
}
