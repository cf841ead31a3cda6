//! Message enhancement rules over HTTP: the records, their conditions, and what is refused with a pointer to the
//! fault.

use serde_json::{Value, json};

use crate::support::api::{Api, DOCUMENT};
use crate::support::sessions::cluster_id;

const RULES: &str = "/v1/clusters/c/message-rules";

fn rule(priority: u32) -> Value {
    json!({
        "priority": priority, "name": "requests", "description": "answers go to whoever asked",
        "condition": {"client_id": "meter-*", "username": "team-?", "topic_filter": "meters/+/request"},
        "effects": {
            "message_expiry": {"mode": "cap", "seconds": 3600.0}, "response_topic": "replies/${clientid}",
            "correlation_data": "${username} $$5",
            "user_properties": [{"name": "from", "value": "${topic}"}, {"name": "from", "value": "2"}],
        },
    })
}

/// The least that is a rule.
fn least(priority: u32) -> Value {
    json!({"priority": priority, "name": "n", "effects": {"correlation_data": "x"}})
}

fn in_force(api: &Api) -> Vec<u32> {
    let rules = api.desired.borrow().clusters[&cluster_id("c")].message_rules.clone();
    rules.rules.iter().map(|rule| rule.priority).collect()
}

#[tokio::test]
async fn a_rule_is_made_read_changed_and_deleted() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin();
    let made = admin.post(RULES, &rule(10)).await;
    insta::assert_json_snapshot!("message_rule", made.expect(201), {
        ".id" => "[id]", ".created_at" => "[time]", ".updated_at" => "[time]",
    });
    assert_eq!(in_force(&api), [10], "in force when it is answered");
    let path = made.header("location").to_owned();
    let read = admin.get(&path).await;
    assert_eq!((read.expect(200), read.etag()), (made.json(), made.etag()));

    let changed = admin.header("if-match", made.etag()).put(&path, &least(5)).await;
    let shown = changed.expect(200);
    assert_eq!(
        (&shown["priority"], &shown["enabled"], &shown["version"], &shown["id"]),
        (&json!(5), &json!(true), &json!(2), &made.json()["id"])
    );
    assert_eq!(
        (&shown["description"], &shown["condition"], &shown["effects"]),
        (
            &Value::Null,
            &json!({"client_id": null, "username": null, "topic_filter": null}),
            &json!({
                "message_expiry": null, "response_topic": null, "correlation_data": "x",
                "user_properties": []
            })
        )
    );
    let stale = admin.header("if-match", made.etag());
    stale.put(&path, &least(5)).await.expect_problem("precondition_failed");
    stale.delete(&path).await.expect_problem("precondition_failed");
    admin.header("if-match", "x").delete(&path).await.expect_problem("invalid_header");

    // What is disabled is kept, and takes its priority, but does nothing.
    let mut disabled = rule(6);
    disabled["enabled"] = json!(false);
    let other = admin.post(RULES, &disabled).await;
    assert_eq!(other.expect(201)["enabled"], false);
    assert_eq!(in_force(&api), [5]);
    admin.post(RULES, &rule(5)).await.expect_problem("message_rule_priority_taken");
    let taken = admin.put(&path, &rule(6)).await.expect_problem("message_rule_priority_taken");
    assert_eq!(taken["errors"][0]["pointer"], "#/priority");
    admin.put(other.header("location"), &rule(4)).await.expect(200);
    assert_eq!(in_force(&api), [4, 5], "in the order of priorities");

    admin.delete(&path).await.expect(204);
    for missing in [path.as_str(), &format!("{RULES}/x")] {
        admin.get(missing).await.expect_problem("message_rule_not_found");
        admin.put(missing, &least(1)).await.expect_problem("message_rule_not_found");
        admin.delete(missing).await.expect_problem("message_rule_not_found");
    }
    assert_eq!(in_force(&api), [4]);
}

#[tokio::test]
async fn a_cluster_has_at_most_ten_rules_listed_in_pages() {
    let api = Api::with_clusters(&["c", "d"]).await;
    let admin = api.admin();
    for priority in [30, 0, 1_000_000, 20, 10, 1, 2, 3, 4, 5] {
        let mut body = least(priority);
        body["enabled"] = json!(priority % 20 == 0);
        admin.post(RULES, &body).await.expect(201);
    }
    admin.post(RULES, &least(6)).await.expect_problem("too_many_message_rules");
    admin.post("/v1/clusters/d/message-rules", &least(15)).await.expect(201);
    let (mut found, mut path) = (Vec::new(), format!("{RULES}?page_size=4"));
    loop {
        let page = admin.get(&path).await.expect(200);
        found.extend(page["items"].as_array().expect("items").iter().map(|item| item["priority"].clone()));
        let Some(token) = page["next_page_token"].as_str() else { break };
        path = format!("{RULES}?page_size=4&page_token={token}");
    }
    assert_eq!(found, [0, 1, 2, 3, 4, 5, 10, 20, 30, 1_000_000].map(Value::from));
    assert_eq!(in_force(&api), [0, 20, 1_000_000]);
    admin.get(&format!("{RULES}?page_token=e30")).await.expect_problem("page_token_invalid");
    let elsewhere = "/v1/clusters/none/message-rules";
    admin.get(elsewhere).await.expect_problem("cluster_not_found");
    admin.post(elsewhere, &least(1)).await.expect_problem("cluster_not_found");
    admin.get(&format!("{elsewhere}/x")).await.expect_problem("cluster_not_found");
    admin.delete(&format!("{elsewhere}/x")).await.expect_problem("cluster_not_found");
}

#[tokio::test]
async fn what_does_not_parse_is_pointed_at() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin();
    let long = "x".repeat(1_025);
    let property = json!({"name": "k", "value": "v"});
    for (field, value, pointer) in [
        ("/priority", json!(-1), "/priority"),
        ("/priority", json!(1_000_001), "/priority"),
        ("/name", json!(""), "/name"),
        ("/name", json!("bell\u{7}"), "/name"),
        ("/name", json!(null), "/name"),
        ("/description", json!("x".repeat(257)), "/description"),
        ("/enabled", json!("yes"), "/enabled"),
        ("/condition", json!(null), "/condition"),
        ("/condition", json!({"client": "x"}), "/condition/client"),
        ("/condition/client_id", json!(""), "/condition/client_id"),
        ("/condition/client_id", json!("x".repeat(257)), "/condition/client_id"),
        ("/condition/username", json!(null), "/condition/username"),
        ("/condition/topic_filter", json!("a/#/b"), "/condition/topic_filter"),
        ("/condition/topic_filter", json!("a+"), "/condition/topic_filter"),
        ("/condition/topic_filter", json!("$share/g/a"), "/condition/topic_filter"),
        ("/condition/topic_filter", json!(""), "/condition/topic_filter"),
        ("/condition/topic_filter", json!(long), "/condition/topic_filter"),
        ("/effects", json!(null), "/effects"),
        ("/effects", json!({}), "/effects"),
        ("/effects", json!({"user_properties": []}), "/effects"),
        ("/effects", json!({"content_type": "x"}), "/effects/content_type"),
        ("/effects/message_expiry", json!(60), "/effects/message_expiry"),
        ("/effects/message_expiry/mode", json!("add"), "/effects/message_expiry/mode"),
        ("/effects/message_expiry/seconds", json!(0), "/effects/message_expiry/seconds"),
        ("/effects/message_expiry/seconds", json!(1.5), "/effects/message_expiry/seconds"),
        ("/effects/message_expiry/seconds", json!(4_294_967_296_u64), "/effects/message_expiry/seconds"),
        ("/effects/response_topic", json!("a/+"), "/effects/response_topic"),
        ("/effects/response_topic", json!("${clientid}/#"), "/effects/response_topic"),
        ("/effects/response_topic", json!(""), "/effects/response_topic"),
        ("/effects/response_topic", json!("$SYS/x"), "/effects/response_topic"),
        ("/effects/response_topic", json!(null), "/effects/response_topic"),
        ("/effects/correlation_data", json!("${traceid}"), "/effects/correlation_data"),
        ("/effects/correlation_data", json!("5$"), "/effects/correlation_data"),
        ("/effects/correlation_data", json!("${clientid"), "/effects/correlation_data"),
        ("/effects/correlation_data", json!(long), "/effects/correlation_data"),
        (
            "/effects/user_properties",
            json!([property, {"name": "", "value": "v"}]),
            "/effects/user_properties/1/name",
        ),
        (
            "/effects/user_properties",
            json!([{"name": "k", "value": "a\nb"}]),
            "/effects/user_properties/0/value",
        ),
        (
            "/effects/user_properties",
            json!([{"name": "k", "value": "$x"}]),
            "/effects/user_properties/0/value",
        ),
        ("/effects/user_properties", json!([{"name": "k"}]), "/effects/user_properties/0"),
        ("/effects/user_properties", Value::from(vec![property.clone(); 17]), "/effects/user_properties"),
        ("/colour", json!("red"), "/colour"),
    ] {
        let mut body = rule(1);
        let (parent, name) = field.rsplit_once('/').expect("a pointer");
        body.pointer_mut(parent).expect("an object")[name] = value;
        let problem = admin.post(RULES, &body).await.expect_problem("invalid_body");
        assert_eq!(problem["errors"][0]["pointer"], format!("#{pointer}"), "{body}");
        let detail = problem["errors"][0]["detail"].as_str().expect("a detail");
        assert!(!detail.is_empty() && !detail.contains("untagged"), "{detail}");
    }
    assert_eq!(in_force(&api), [0_u32; 0], "nothing was made");
}

#[tokio::test]
async fn the_examples_of_the_specification_work() {
    let api = Api::with_clusters(&["c"]).await;
    let schema = |name: &str| DOCUMENT["components"]["schemas"][name]["example"].clone();
    let made = api.admin().post(RULES, &schema("MessageRulePut")).await.expect(201);
    let shown = schema("MessageRule");
    for field in shown.as_object().expect("an object").keys() {
        assert!(made.get(field).is_some(), "{field}");
    }
    assert_eq!(made.as_object().map(serde_json::Map::len), shown.as_object().map(serde_json::Map::len));
}

#[tokio::test]
async fn a_change_is_made_once_and_written_down() {
    let api = Api::with_clusters(&["c"]).await;
    let keyed = api.admin().header("idempotency-key", "k-1");
    let first = keyed.post(RULES, &rule(1)).await;
    let again = keyed.post(RULES, &rule(1)).await;
    assert_eq!((again.expect(201), again.replayed()), (first.expect(201), true));
    assert_eq!(again.header("location"), first.header("location"));
    api.admin().delete(first.header("location")).await.expect(204);
    let log = api.admin().get("/v1/audit-log?page_size=10").await.expect(200);
    let rows: Vec<&Value> = log["items"].as_array().expect("rows").iter().collect();
    let of = |operation: &str| rows.iter().find(|row| row["operation"] == operation).expect(operation);
    assert_eq!(of("create_message_rule")["after"]["priority"], 1);
    assert_eq!(of("delete_message_rule")["before"]["effects"]["response_topic"], "replies/${clientid}");
}

#[tokio::test]
async fn unchanged_rules_are_shared_between_snapshots() {
    let api = Api::with_clusters(&["c", "d"]).await;
    let rules = |id: &str| api.desired.borrow().clusters[&cluster_id(id)].message_rules.clone();
    api.admin().post(RULES, &rule(1)).await.expect(201);
    let before = rules("c");
    api.admin().patch("/v1/clusters/c", &json!({"name": "other"})).await.expect(200);
    api.admin().post("/v1/clusters/d/message-rules", &rule(1)).await.expect(201);
    assert!(std::sync::Arc::ptr_eq(&before, &rules("c")));
    // A cluster of the same id is another cluster.
    api.admin().delete("/v1/clusters/c").await.expect(204);
    api.admin().post("/v1/clusters", &json!({"id": "c"})).await.expect(201);
    assert_eq!(in_force(&api), [0_u32; 0]);
}
