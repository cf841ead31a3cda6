//! Quotas and usage over HTTP.

use holdfast::seam::ports::SessionRow;
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
    let usage = api.admin().get("/v1/clusters/c/usage").await.expect(200);
    insta::assert_json_snapshot!("usage", usage, {".at" => "[time]"});
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
        ("shared_groups", 1_000_000),
        ("filters_per_shared_group", 1_000_000),
        ("members_per_shared_group", 100_000_000),
        ("log_mib", 1_073_741_824),
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

/// Three sessions of one minute each: `a` and `b` offline, `c` online and the newest.
async fn three() -> Api {
    let api = Api::with_clusters(&["c"]).await;
    let began = |n: u32, client: &str| SessionRow { created_at: T.plus_secs(n), ..row(n.into(), client) };
    commit(
        &api.store,
        &[
            put(offline(began(1, "a"), T.plus_secs(60))),
            put(offline(began(2, "b"), T.plus_secs(30))),
            put(began(3, "c")),
            subscribe(1, "x/1"),
        ],
    )
    .await;
    api
}

async fn clients(api: &Api) -> Vec<String> {
    let page = api.admin().get("/v1/clusters/c/sessions").await.expect(200);
    let items = page["items"].as_array().expect("items");
    items.iter().map(|item| item["client_id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn a_lower_limit_touches_nobody_unless_asked() {
    let api = three().await;
    let admin = api.admin().header("if-match", "*");
    let quota = admin.put(QUOTA, &json!({"connections": 1})).await.expect(200);
    assert_eq!(quota["connections"], json!({"limit": 1, "source": "override", "used": 3}));
    let expected = json!({
        "on_excess": "refuse_new", "validate_only": false, "sessions_over": 2, "subscriptions_over": 0,
        "sessions_shed": 0, "sample": [],
    });
    assert_eq!(quota["excess"], expected);
    assert_eq!(clients(&api).await, ["a", "b", "c"]);
    assert!(api.admin().get(QUOTA).await.expect(200).get("excess").is_none());
}

#[tokio::test]
async fn a_trial_says_what_would_happen_and_changes_nothing() {
    let api = three().await;
    let admin = api.admin().header("if-match", "\"1\"");
    for (policy, shed) in [
        ("refuse_new", json!([])),
        ("shed_newest", json!(["c", "b"])),
        ("shed_oldest_offline", json!(["b", "a"])),
    ] {
        let path = format!("{QUOTA}?validate_only=true&on_excess={policy}");
        let answer = admin.put(&path, &json!({"connections": 1})).await;
        let quota = answer.expect(200);
        assert_eq!(quota["excess"]["sessions_over"], 2, "{quota}");
        assert_eq!(quota["excess"]["sample"], shed);
        assert_eq!((&quota["connections"]["limit"], answer.etag()), (&json!(1), "\"1\""));
    }
    let path = format!("{QUOTA}?validate_only=true&on_excess=reject_change");
    admin.put(&path, &json!({"connections": 2})).await.expect_problem("quota_below_use");
    admin.put(&path, &json!({"connections": 3})).await.expect(200);
    assert_eq!(clients(&api).await, ["a", "b", "c"]);
    let kept = api.admin().get(QUOTA).await;
    assert_eq!((kept.etag(), &kept.expect(200)["connections"]["source"]), ("\"1\"", &json!("plan")));
    admin.put(&format!("{QUOTA}?on_excess=shed_all"), &json!({})).await.expect_problem("invalid_parameter");
    admin.put(&format!("{QUOTA}?validate_only=1"), &json!({})).await.expect_problem("invalid_parameter");
}

#[tokio::test]
async fn a_change_that_does_not_fit_is_rejected_when_asked() {
    let api = three().await;
    let admin = api.admin().header("if-match", "*");
    let path = format!("{QUOTA}?on_excess=reject_change");
    for body in [json!({"connections": 2}), json!({"subscriptions": 0}), json!({"shared_groups": 1})] {
        admin.put(&path, &body).await.expect_problem("quota_below_use");
    }
    assert_eq!(api.admin().get(QUOTA).await.etag(), "\"1\"");
    let quota = admin.put(&path, &json!({"connections": 3, "subscriptions": 1})).await.expect(200);
    assert_eq!((&quota["connections"]["limit"], &quota["excess"]["sessions_over"]), (&json!(3), &json!(0)));
}

#[tokio::test]
async fn sessions_are_shed_told_and_spared_when_protected() {
    let api = three().await;
    api.admin().patch("/v1/clusters/c/sessions/c", &json!({"protected": true})).await.expect(200);
    let named = api.admin().header("if-match", "*").header("x-request-id", "trace-8");
    let keyed = named.header("idempotency-key", "k-1");
    let path = format!("{QUOTA}?on_excess=shed_newest");
    let first = keyed.put(&path, &json!({"connections": 1})).await;
    let quota = first.expect(200);
    assert_eq!(
        (&quota["excess"]["sessions_shed"], &quota["excess"]["sample"]),
        (&json!(2), &json!(["b", "a"]))
    );
    assert_eq!(quota["connections"]["used"], 1);
    assert_eq!(clients(&api).await, ["c"]);
    let history = api.admin().get("/v1/clusters/c/sessions/b/history").await.expect(200);
    let kicked = &history["items"][0];
    assert_eq!(
        (&kicked["kind"], &kicked["actor"], &kicked["request_id"]),
        (&json!("kicked"), &json!("ada"), &json!("trace-8"))
    );
    assert_eq!(kicked["detail"], json!({"operation": "quota", "was_online": false}));
    let again = keyed.put(&path, &json!({"connections": 1})).await;
    assert!(again.replayed());
    assert_eq!(again.expect(200), quota);

    // What is left is protected: it stays, and is told to be above the limit.
    let quota = named.put(&path, &json!({"connections": 0})).await.expect(200);
    assert_eq!(
        (&quota["excess"]["sessions_over"], &quota["excess"]["sessions_shed"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(clients(&api).await, ["c"]);
}
