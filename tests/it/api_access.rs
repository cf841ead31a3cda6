//! Authorisation policies and block rules over HTTP: the records, their conditions, and what is refused with
//! a pointer to the fault.

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::sessions::{T, cluster_id};

const POLICIES: &str = "/v1/clusters/c/authorization-policies";
const BLOCK_RULES: &str = "/v1/clusters/c/block-rules";

fn policy(priority: u32) -> Value {
    json!({
        "priority": priority, "effect": "allow", "actions": ["publish", "subscribe"],
        "resources": ["meters/${clientid}/#"], "client_ids": ["meter-*"], "networks": ["10.1.2.3/8"],
        "qos": [1, 0], "description": "each its own",
    })
}

fn block_rule() -> Value {
    json!({"subject": "client_id", "pattern": "m-*", "excludes": ["m-7"], "reason": "stolen"})
}

fn in_force(api: &Api) -> (usize, usize) {
    let access = api.desired.borrow().clusters[&cluster_id("c")].access.clone();
    (access.policies.len(), access.block_rules.len())
}

#[tokio::test]
async fn a_policy_is_made_read_changed_and_deleted() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin();
    let made = admin.post(POLICIES, &policy(10)).await;
    insta::assert_json_snapshot!("policy", made.expect(201), {
        ".id" => "[id]", ".created_at" => "[time]", ".updated_at" => "[time]",
    });
    assert_eq!(in_force(&api), (1, 0), "in force when it is answered");
    let path = made.header("location").to_owned();
    let read = admin.get(&path).await;
    assert_eq!((read.expect(200), read.etag()), (made.json(), made.etag()));

    let body = json!({"priority": 5, "effect": "deny", "actions": ["connect"]});
    let changed = admin.header("if-match", made.etag()).put(&path, &body).await;
    let shown = changed.expect(200);
    assert_eq!(
        (&shown["priority"], &shown["effect"], &shown["version"]),
        (&json!(5), &json!("deny"), &json!(2))
    );
    assert_eq!(
        (&shown["resources"], &shown["description"], &shown["id"]),
        (&json!([]), &Value::Null, &made.json()["id"])
    );
    let stale = admin.header("if-match", made.etag());
    stale.put(&path, &body).await.expect_problem("precondition_failed");
    stale.delete(&path).await.expect_problem("precondition_failed");
    admin.header("if-match", "x").delete(&path).await.expect_problem("invalid_header");

    admin.post(POLICIES, &policy(5)).await.expect_problem("policy_priority_taken");
    admin.post(POLICIES, &policy(6)).await.expect(201);
    let taken = admin.put(&path, &policy(6)).await.expect_problem("policy_priority_taken");
    assert_eq!(taken["errors"][0]["pointer"], "#/priority");
    assert_eq!(in_force(&api), (2, 0));
    admin.delete(&path).await.expect(204);
    admin.get(&path).await.expect_problem("policy_not_found");
    admin.put(&path, &body).await.expect_problem("policy_not_found");
    admin.delete(&path).await.expect_problem("policy_not_found");
    admin.get(&format!("{POLICIES}/x")).await.expect_problem("policy_not_found");
    assert_eq!(in_force(&api), (1, 0));
}

#[tokio::test]
async fn a_block_rule_is_made_read_changed_and_deleted() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin();
    let made = admin.post(BLOCK_RULES, &block_rule()).await;
    insta::assert_json_snapshot!("block_rule", made.expect(201), {
        ".id" => "[id]", ".created_at" => "[time]", ".updated_at" => "[time]",
    });
    assert_eq!(in_force(&api), (0, 1));
    let path = made.header("location").to_owned();
    let read = admin.get(&path).await;
    assert_eq!((read.expect(200), read.etag()), (made.json(), made.etag()));
    let until = holdfast::model::Timestamp::from_millis(T.as_millis() + 60_000).to_string();
    let body = json!({"subject": "ip", "pattern": "10.*", "expires_at": until});
    let changed = admin.put(&path, &body).await.expect(200);
    assert_eq!(
        (&changed["pattern"], &changed["expires_at"], &changed["reason"]),
        (&json!("10.*"), &json!(until), &Value::Null)
    );
    admin.header("if-match", made.etag()).put(&path, &body).await.expect_problem("precondition_failed");
    admin.delete(&path).await.expect(204);
    for missing in [path.as_str(), &format!("{BLOCK_RULES}/x")] {
        admin.get(missing).await.expect_problem("block_rule_not_found");
        admin.put(missing, &block_rule()).await.expect_problem("block_rule_not_found");
        admin.delete(missing).await.expect_problem("block_rule_not_found");
    }
    assert_eq!(in_force(&api), (0, 0));
}

#[tokio::test]
async fn rules_are_listed_in_pages() {
    let api = Api::with_clusters(&["c", "d"]).await;
    let admin = api.admin();
    for priority in [30, 0, 1_000_000, 20, 10] {
        admin.post(POLICIES, &policy(priority)).await.expect(201);
        let mut rule = block_rule();
        rule["reason"] = json!(priority.to_string());
        admin.post(BLOCK_RULES, &rule).await.expect(201);
    }
    admin.post("/v1/clusters/d/authorization-policies", &policy(15)).await.expect(201);
    let all = async |list: &str, field: &str| {
        let (mut found, mut path) = (Vec::new(), format!("{list}?page_size=2"));
        loop {
            let page = admin.get(&path).await.expect(200);
            found.extend(page["items"].as_array().expect("items").iter().map(|item| item[field].clone()));
            let Some(token) = page["next_page_token"].as_str() else { return found };
            path = format!("{list}?page_size=2&page_token={token}");
        }
    };
    assert_eq!(all(POLICIES, "priority").await, [0, 10, 20, 30, 1_000_000].map(Value::from));
    assert_eq!(all(BLOCK_RULES, "reason").await, ["30", "0", "1000000", "20", "10"].map(Value::from));
    for list in [POLICIES, BLOCK_RULES] {
        admin.get(&format!("{list}?page_token=e30")).await.expect_problem("page_token_invalid");
        let elsewhere = list.replace("/c/", "/none/");
        admin.get(&elsewhere).await.expect_problem("cluster_not_found");
        admin.get(&format!("{elsewhere}/x")).await.expect_problem("cluster_not_found");
        admin.delete(&format!("{elsewhere}/x")).await.expect_problem("cluster_not_found");
    }
    admin.post("/v1/clusters/none/block-rules", &block_rule()).await.expect_problem("cluster_not_found");
}

#[tokio::test]
async fn what_does_not_parse_is_pointed_at() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin();
    let many = |text: &str| Value::from(vec![text; 17]);
    for (field, value, pointer) in [
        ("priority", json!(-1), "/priority"),
        ("priority", json!(1_000_001), "/priority"),
        ("effect", json!("maybe"), "/effect"),
        ("actions", json!([]), "/actions"),
        ("actions", json!(["publish", "publish"]), "/actions"),
        ("actions", json!(["publish", "pub"]), "/actions/1"),
        ("resources", json!([]), "/resources"),
        ("resources", json!(["a", "a/#/b"]), "/resources/1"),
        ("resources", json!(["a+"]), "/resources/0"),
        ("resources", json!(["a", "b", "${user}"]), "/resources/2"),
        ("resources", json!(["$share/g/a"]), "/resources/0"),
        ("resources", json!([""]), "/resources/0"),
        ("resources", json!(["x".repeat(513)]), "/resources/0"),
        ("resources", many("a"), "/resources"),
        ("client_ids", json!(["a", ""]), "/client_ids/1"),
        ("client_ids", many("a"), "/client_ids"),
        ("usernames", json!(["x".repeat(257)]), "/usernames/0"),
        ("networks", json!(["10.0.0.0/8", "10.0.0.0/33"]), "/networks/1"),
        ("networks", json!(["10.0.0.*"]), "/networks/0"),
        ("qos", json!([0, 3]), "/qos/1"),
        ("retain", json!(true), "/retain"),
        ("retain", json!(null), "/retain"),
        ("description", json!("bell\u{7}"), "/description"),
        ("description", json!("x".repeat(257)), "/description"),
        ("colour", json!("red"), "/colour"),
    ] {
        let mut body = policy(1);
        body[field] = value;
        let problem = admin.post(POLICIES, &body).await.expect_problem("invalid_body");
        assert_eq!(problem["errors"][0]["pointer"], format!("#{pointer}"), "{body}");
    }
    for (actions, pointer) in [(json!(["connect"]), "#/resources"), (json!(["connect", "publish"]), "#/qos")]
    {
        let mut body = policy(1);
        body["actions"] = actions;
        let problem = admin.post(POLICIES, &body).await.expect_problem("invalid_body");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    for (field, value, pointer) in [
        ("subject", json!("clientid"), "/subject"),
        ("pattern", json!(""), "/pattern"),
        ("pattern", json!("a\u{0}"), "/pattern"),
        ("excludes", json!(["a", "b", "c", "d"]), "/excludes"),
        ("excludes", json!(["a", 7]), "/excludes/1"),
        ("expires_at", json!("2020-01-01T00:00:00Z"), "/expires_at"),
        ("expires_at", json!("soon"), "/expires_at"),
        ("reason", json!(""), "/reason"),
        ("extra", json!(1), "/extra"),
    ] {
        let mut body = block_rule();
        body[field] = value;
        let problem = admin.post(BLOCK_RULES, &body).await.expect_problem("invalid_body");
        assert_eq!(problem["errors"][0]["pointer"], format!("#{pointer}"), "{body}");
    }
    for (pattern, exclude, pointer) in
        [("ten", "1", "#/pattern"), ("10.0.0.0/40", "1", "#/pattern"), ("10.*", "x", "#/excludes/0")]
    {
        let body = json!({"subject": "ip", "pattern": pattern, "excludes": [exclude]});
        let problem = admin.post(BLOCK_RULES, &body).await.expect_problem("invalid_body");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    assert_eq!(in_force(&api), (0, 0), "nothing was made");
}

#[tokio::test]
async fn a_change_is_made_once_and_written_down() {
    let api = Api::with_clusters(&["c"]).await;
    let keyed = api.admin().header("idempotency-key", "k-1");
    let first = keyed.post(POLICIES, &policy(1)).await;
    let again = keyed.post(POLICIES, &policy(1)).await;
    assert_eq!((again.expect(201), again.replayed()), (first.expect(201), true));
    assert_eq!(again.header("location"), first.header("location"));
    let rule = api.admin().post(BLOCK_RULES, &block_rule()).await;
    api.admin().delete(rule.header("location")).await.expect(204);
    let log = api.admin().get("/v1/audit-log?page_size=10").await.expect(200);
    let rows: Vec<&Value> = log["items"].as_array().expect("rows").iter().collect();
    let of = |operation: &str| rows.iter().find(|row| row["operation"] == operation).expect(operation);
    assert_eq!(of("create_authorization_policy")["after"]["priority"], 1);
    assert_eq!(of("delete_block_rule")["before"]["pattern"], "m-*");
}

#[tokio::test]
async fn unchanged_rules_are_shared_between_snapshots() {
    let api = Api::with_clusters(&["c", "d"]).await;
    let access = |id: &str| api.desired.borrow().clusters[&cluster_id(id)].access.clone();
    api.admin().post(POLICIES, &policy(1)).await.expect(201);
    let before = access("c");
    api.admin().patch("/v1/clusters/c", &json!({"name": "other"})).await.expect(200);
    api.admin().post("/v1/clusters/d/block-rules", &block_rule()).await.expect(201);
    assert!(std::sync::Arc::ptr_eq(&before, &access("c")));
    // A cluster of the same id is another cluster.
    api.admin().delete("/v1/clusters/c").await.expect(204);
    api.admin().post("/v1/clusters", &json!({"id": "c"})).await.expect(201);
    assert_eq!(in_force(&api), (0, 0));
}
