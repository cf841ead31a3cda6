//! Clusters over HTTP, and what the data plane is told of them.

use holdfast::model::{ClusterId, ClusterStatus, SharedStrategy};
use serde_json::{Value, json};

use super::support::api::Api;
use super::support::sessions::{cluster_id, commit, put, row};

fn enforced(api: &Api, id: &str) -> Option<ClusterStatus> {
    let state = api.desired.borrow();
    state.clusters.get(&cluster_id(id)).map(|cluster: &std::sync::Arc<_>| cluster.status)
}

#[tokio::test]
async fn a_cluster_is_made_changed_and_deleted() {
    let api = Api::start().await;
    let admin = api.admin();

    let body =
        json!({"id": "meters", "labels": {"team": "metering"}, "plan": "pro", "allow_anonymous": true});
    let made = admin.post("/v1/clusters", &body).await;
    insta::assert_json_snapshot!("cluster", made.expect(201), {
        ".created_at" => "[time]", ".updated_at" => "[time]",
    });
    assert_eq!((made.header("location"), made.etag()), ("/v1/clusters/meters", "\"1\""));
    assert_eq!(enforced(&api, "meters"), Some(ClusterStatus::Active), "enforced when answered");

    let read = admin.get("/v1/clusters/meters").await;
    assert_eq!((read.expect(200), read.etag()), (made.json(), made.etag()));

    let patch = json!({
        "name": "Meters, north", "labels": {"team": null, "site": "7"}, "status": "suspended", "plan": "basic"
    });
    let changed = admin.header("if-match", made.etag()).patch("/v1/clusters/meters", &patch).await;
    let cluster = changed.expect(200);
    assert_eq!(cluster["name"], "Meters, north");
    assert_eq!(cluster["labels"], json!({"site": "7"}));
    assert_eq!((&cluster["status"], &cluster["plan"]), (&json!("suspended"), &json!("basic")));
    assert_eq!(cluster["allow_anonymous"], true, "what is not sent stays");
    assert_eq!(enforced(&api, "meters"), Some(ClusterStatus::Suspended));

    let stale =
        admin.header("if-match", made.etag()).patch("/v1/clusters/meters", &json!({"name": "x"})).await;
    stale.expect_problem("precondition_failed");

    admin.delete("/v1/clusters/meters").await.expect(204);
    assert_eq!(enforced(&api, "meters"), None);
    admin.get("/v1/clusters/meters").await.expect_problem("cluster_not_found");
    admin.delete("/v1/clusters/meters").await.expect_problem("cluster_not_found");
}

#[tokio::test]
async fn settings_of_sessions_are_enforced_when_answered() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin();
    let enforced = || {
        let state = api.desired.borrow();
        let cluster = &state.clusters[&cluster_id("c")];
        (cluster.shared_strategy, cluster.server_keep_alive_secs.map(std::num::NonZeroU16::get))
    };
    assert_eq!(enforced(), (SharedStrategy::Random, None));
    let patch = json!({"shared_strategy": "hash_topic", "server_keep_alive_seconds": 65_535});
    let cluster = admin.patch("/v1/clusters/c", &patch).await;
    let cluster = cluster.expect(200);
    assert_eq!(cluster["shared_strategy"], "hash_topic");
    assert_eq!(cluster["server_keep_alive_seconds"], 65_535);
    assert_eq!(enforced(), (SharedStrategy::HashTopic, Some(65_535)));
    admin.patch("/v1/clusters/c", &json!({"name": "other"})).await.expect(200);
    assert_eq!(enforced(), (SharedStrategy::HashTopic, Some(65_535)), "what is not sent stays");
    let none = json!({"server_keep_alive_seconds": null, "shared_strategy": "hash_client_id"});
    assert_eq!(
        admin.patch("/v1/clusters/c", &none).await.expect(200)["server_keep_alive_seconds"],
        Value::Null
    );
    assert_eq!(enforced(), (SharedStrategy::HashClientId, None));
    for wrong in [
        json!({"server_keep_alive_seconds": 0}),
        json!({"server_keep_alive_seconds": 65_536}),
        json!({"shared_strategy": "sticky"}),
        json!({"resend_after_seconds": 86_401}),
        json!({"resend_after_seconds": null}),
    ] {
        admin.patch("/v1/clusters/c", &wrong).await.expect_problem("invalid_body");
    }
    let body = json!({"id": "d", "shared_strategy": "hash_topic", "server_keep_alive_seconds": 30});
    let made = admin.post("/v1/clusters", &body).await.expect(201);
    assert_eq!(
        (&made["server_keep_alive_seconds"], &made["resend_after_seconds"]),
        (&json!(30), &json!(120))
    );
    let resend_after = |id: &str| api.desired.borrow().clusters[&cluster_id(id)].resend_after_secs;
    for secs in [0, 86_400] {
        let patch = json!({"resend_after_seconds": secs});
        assert_eq!(admin.patch("/v1/clusters/d", &patch).await.expect(200)["resend_after_seconds"], secs);
        assert_eq!(resend_after("d"), secs);
    }
    admin.post("/v1/clusters", &json!({"id": "e", "resend_after_seconds": 7})).await.expect(201);
    assert_eq!(resend_after("e"), 7);
}

#[tokio::test]
async fn a_patch_that_changes_nothing_leaves_the_version() {
    let api = Api::with_clusters(&["c"]).await;
    let revision = api.desired.borrow().revision;
    for patch in [json!({}), json!({"status": "active", "labels": {"none": null}})] {
        let answer = api.admin().patch("/v1/clusters/c", &patch).await;
        answer.expect(200);
        assert_eq!(answer.etag(), "\"1\"");
    }
    assert_eq!(api.desired.borrow().revision, revision);
}

#[tokio::test]
async fn a_protected_cluster_is_not_deleted() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin();
    admin.patch("/v1/clusters/c", &json!({"delete_protection": true})).await.expect(200);
    admin.delete("/v1/clusters/c").await.expect_problem("cluster_protected");
    admin.patch("/v1/clusters/c", &json!({"delete_protection": false})).await.expect(200);
    admin.header("if-match", "\"1\"").delete("/v1/clusters/c").await.expect_problem("precondition_failed");
    admin.header("if-match", "\"3\"").delete("/v1/clusters/c").await.expect(204);
}

#[tokio::test]
async fn deleting_a_cluster_deletes_its_sessions() {
    let api = Api::with_clusters(&["c"]).await;
    commit(&api.store, &[put(row(1, "meter"))]).await;
    api.admin().get("/v1/clusters/c/sessions/meter").await.expect(200);
    api.admin().delete("/v1/clusters/c").await.expect(204);
    api.admin().post("/v1/clusters", &json!({"id": "c"})).await.expect(201);
    api.admin().get("/v1/clusters/c/sessions/meter").await.expect_problem("session_not_found");
}

#[tokio::test]
async fn clusters_are_listed_page_by_page() {
    let api = Api::with_clusters(&["a", "b", "c", "d", "e"]).await;
    let mut seen = Vec::new();
    let mut path = "/v1/clusters?page_size=2".to_owned();
    let mut pages = 0;
    loop {
        let page = api.admin().get(&path).await.expect(200);
        pages += 1;
        let items = page["items"].as_array().expect("items");
        seen.extend(items.iter().map(|c| c["id"].as_str().expect("an id").to_owned()));
        let Some(token) = page.get("next_page_token").and_then(Value::as_str) else { break };
        path = format!("/v1/clusters?page_size=2&page_token={token}");
    }
    assert_eq!((seen.join(""), pages), ("abcde".to_owned(), 3));
    api.admin().get("/v1/clusters?page_size=1000000").await.expect(200);
}

#[tokio::test]
async fn bounds_are_kept() {
    let api = Api::with_clusters(&["c"]).await;
    let long = "x".repeat(256);
    for (body, pointer) in [
        (json!({}), "#"),
        (json!([]), "#"),
        (json!({"id": "No"}), "#/id"),
        (json!({"id": "x".repeat(64)}), "#/id"),
        (json!({"id": "n", "name": ""}), "#/name"),
        (json!({"id": "n", "name": null}), "#/name"),
        (json!({"id": "n", "name": long}), "#/name"),
        (json!({"id": "n", "name": "a\u{0}b"}), "#/name"),
        (json!({"id": "n", "plan": "gold"}), "#/plan"),
        (json!({"id": "n", "labels": {"a b": "x"}}), "#/labels"),
        (json!({"id": "n", "labels": {"a": long}}), "#/labels/a"),
        (json!({"id": "n", "version": 7}), "#/version"),
        (json!({"id": "n", "delete_protection": "yes"}), "#/delete_protection"),
    ] {
        let problem = api.admin().post("/v1/clusters", &body).await.expect_problem("invalid_body");
        let found = problem["errors"][0]["pointer"].as_str().expect("a pointer");
        assert!(found == pointer || found.starts_with(&format!("{pointer}/")), "{body}: {problem}");
    }
    let too_many: Value = (0..65).map(|i| (format!("k{i}"), json!("v"))).collect();
    for body in
        [json!({"status": "paused"}), json!({"labels": too_many}), json!({"id": "d"}), json!({"plan": null})]
    {
        api.admin().patch("/v1/clusters/c", &body).await.expect_problem("invalid_body");
    }
    assert!(ClusterId::new("n").is_ok());
    api.admin().get("/v1/clusters/n").await.expect_problem("cluster_not_found");
}

#[tokio::test]
async fn two_operators_with_one_etag_change_it_once() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin().header("if-match", "\"1\"");
    let (one, two) = (json!({"name": "one"}), json!({"name": "two"}));
    let (first, second) =
        tokio::join!(admin.patch("/v1/clusters/c", &one), admin.patch("/v1/clusters/c", &two));
    let mut codes = [first.status.as_u16(), second.status.as_u16()];
    codes.sort_unstable();
    assert_eq!(codes, [200, 412]);
}
