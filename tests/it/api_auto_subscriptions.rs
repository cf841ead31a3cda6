//! Automatic subscriptions over HTTP: the records, their conditions, their bound, and what is refused with a pointer
//! to the fault.

use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};

use crate::support::api::Api;
use crate::support::sessions::cluster_id;

const RULES: &str = "/v1/clusters/c/auto-subscriptions";

fn rule() -> Value {
    json!({
        "client_id": "m-*", "username": "team-?", "filter": "down/${clientid}/#", "qos": 1, "no_local": true,
        "retain_as_published": true, "retain_handling": 2, "description": "what meters are told",
    })
}

/// The filters in force, in the order in which they are tried.
fn in_force(api: &Api) -> Vec<String> {
    let state = api.desired.borrow();
    let rules = &state.clusters[&cluster_id("c")].automatic.rules;
    rules.iter().map(|rule| rule.spec.filter.as_str().to_owned()).collect()
}

#[tokio::test]
async fn an_automatic_subscription_is_made_read_changed_and_deleted() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin();
    let made = admin.post(RULES, &rule()).await;
    insta::assert_json_snapshot!("auto_subscription", made.expect(201), {
        ".id" => "[id]", ".created_at" => "[time]", ".updated_at" => "[time]",
    });
    assert_eq!(in_force(&api), ["down/${clientid}/#"], "in force when it is answered");
    let path = made.header("location").to_owned();
    let read = admin.get(&path).await;
    assert_eq!((read.expect(200), read.etag()), (made.json(), made.etag()));

    let body = json!({"filter": "$share/g/jobs", "qos": 2});
    let changed = admin.header("if-match", made.etag()).put(&path, &body).await.expect(200);
    assert_eq!((&changed["filter"], &changed["version"]), (&json!("$share/g/jobs"), &json!(2)));
    for null in ["client_id", "username", "description"] {
        assert_eq!(changed[null], Value::Null, "{null}");
    }
    assert_eq!((&changed["no_local"], &changed["retain_handling"]), (&json!(false), &json!(0)));
    let stale = admin.header("if-match", made.etag());
    stale.put(&path, &body).await.expect_problem("precondition_failed");
    stale.delete(&path).await.expect_problem("precondition_failed");
    admin.header("if-match", "x").delete(&path).await.expect_problem("invalid_header");

    admin.post(RULES, &json!({"filter": "second", "qos": 0})).await.expect(201);
    admin.put(&path, &body).await.expect(200);
    assert_eq!(in_force(&api), ["second", "$share/g/jobs"], "the newest first, and a change is no birth");
    admin.delete(&path).await.expect(204);
    for missing in [path.as_str(), &format!("{RULES}/x")] {
        admin.get(missing).await.expect_problem("auto_subscription_not_found");
        admin.put(missing, &body).await.expect_problem("auto_subscription_not_found");
        admin.delete(missing).await.expect_problem("auto_subscription_not_found");
    }
    assert_eq!(in_force(&api), ["second"]);
    let log = api.admin().get("/v1/audit-log?operation=delete_auto_subscription").await.expect(200);
    let deleted = log["items"].as_array().expect("items").iter().find(|row| row["outcome"] == "succeeded");
    assert_eq!(deleted.expect("a deletion")["before"]["filter"], "$share/g/jobs");
}

#[tokio::test]
async fn a_key_makes_one_rule_however_often_it_is_sent() {
    let api = Api::with_clusters(&["c"]).await;
    let keyed = api.admin().header("idempotency-key", "k");
    let first = keyed.post(RULES, &rule()).await;
    let again = keyed.post(RULES, &rule()).await;
    assert!(again.replayed() && again.json() == first.json());
    assert_eq!(in_force(&api).len(), 1);
    let other = json!({"filter": "x", "qos": 1});
    keyed.post(RULES, &other).await.expect_problem("idempotency_key_reused");
}

#[tokio::test]
async fn rules_are_listed_in_pages_and_belong_to_their_cluster() {
    let api = Api::with_clusters(&["c", "d"]).await;
    let admin = api.admin();
    for n in 0..5 {
        admin.post(RULES, &json!({"filter": n.to_string(), "qos": 1})).await.expect(201);
    }
    admin.post("/v1/clusters/d/auto-subscriptions", &json!({"filter": "d", "qos": 1})).await.expect(201);
    let (mut found, mut path) = (Vec::new(), format!("{RULES}?page_size=2"));
    loop {
        let page = admin.get(&path).await.expect(200);
        found.extend(page["items"].as_array().expect("items").iter().map(|item| item["filter"].clone()));
        let Some(token) = page["next_page_token"].as_str() else { break };
        path = format!("{RULES}?page_size=2&page_token={token}");
    }
    assert_eq!(found, ["0", "1", "2", "3", "4"], "the oldest first");
    assert_eq!(in_force(&api), ["4", "3", "2", "1", "0"]);
    admin.get(&format!("{RULES}?page_token=e30")).await.expect_problem("page_token_invalid");
    let nowhere = "/v1/clusters/none/auto-subscriptions";
    admin.get(nowhere).await.expect_problem("cluster_not_found");
    admin.post(nowhere, &rule()).await.expect_problem("cluster_not_found");
    admin.get(&format!("{nowhere}/x")).await.expect_problem("cluster_not_found");
    admin.delete(&format!("{nowhere}/x")).await.expect_problem("cluster_not_found");
}

#[tokio::test]
async fn what_does_not_parse_is_pointed_at() {
    let api = Api::with_clusters(&["c"]).await;
    for (field, value) in [
        ("client_id", json!("")),
        ("client_id", json!(null)),
        ("username", json!("x".repeat(257))),
        ("filter", json!("a/#/b")),
        ("filter", json!("a+")),
        ("filter", json!("${user}")),
        ("filter", json!("+${clientid}")),
        ("filter", json!("$share/g")),
        ("filter", json!("")),
        ("filter", json!("x".repeat(1_025))),
        ("filter", json!("x/".repeat(16))),
        ("qos", json!(3)),
        ("qos", json!("1")),
        ("retain_handling", json!(3)),
        ("retain_handling", json!(null)),
        ("no_local", json!(1)),
        ("description", json!("")),
        ("description", json!("x".repeat(257))),
        ("unknown", json!(1)),
    ] {
        let mut body = rule();
        body[field] = value;
        let problem = api.admin().post(RULES, &body).await.expect_problem("invalid_body");
        assert_eq!(problem["errors"][0]["pointer"], format!("#/{field}"), "{body}");
    }
    let mut shared = rule();
    shared["filter"] = json!("$share/g/t");
    let problem = api.admin().post(RULES, &shared).await.expect_problem("invalid_body");
    assert_eq!(problem["errors"][0]["pointer"], "#/no_local");
    for missing in ["filter", "qos"] {
        let mut body = rule();
        body.as_object_mut().expect("an object").remove(missing);
        api.admin().post(RULES, &body).await.expect_problem("invalid_body");
    }
    assert!(in_force(&api).is_empty());
}

#[tokio::test]
async fn a_cluster_has_at_most_a_hundred() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin();
    let first = admin.post(RULES, &rule()).await;
    let mut connection = PgConnection::connect_with(&api.database.options()).await.expect("connect");
    let many = "INSERT INTO auto_subscriptions SELECT 'c', gen_random_uuid(), NULL, spec, now(), now(), 1 \
         FROM auto_subscriptions, generate_series(1, 99) n";
    connection.execute(many).await.expect("make rules");
    connection.close().await.expect("close");
    admin.post(RULES, &rule()).await.expect_problem("too_many_auto_subscriptions");
    admin.put(first.header("location"), &rule()).await.expect(200);
    admin.delete(first.header("location")).await.expect(204);
    admin.post(RULES, &rule()).await.expect(201);
}
