//! A change is answered when the data plane enforces it. When it does not say so in time, the change is committed all
//! the same: 202, with the record, and the same request under its key tells when it holds.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use super::support::api::{Answer, Api, Caller, DOCUMENT};
use super::support::data_plane::Mood;
use super::support::sessions::{commit, put, row};

/// A change of cluster `c` that the data plane enforces: its operation, how it is asked for, and what it is answered
/// when it holds.
type Enforced = (&'static str, Method, String, Option<Value>, u16);

/// One of each, in an order in which they can be made.
async fn changes(api: &Api) -> Vec<Enforced> {
    let admin = api.admin();
    let made = async |list: &str, body: Value| {
        let path = format!("/v1/clusters/c/{list}");
        let id = admin.post(&path, &body).await.expect(201)["id"].as_str().expect("an id").to_owned();
        format!("{path}/{id}")
    };
    let (policies, rules, chain) = (
        "/v1/clusters/c/authorization-policies",
        "/v1/clusters/c/block-rules",
        "/v1/clusters/c/authenticators",
    );
    let policy = |priority: u32| json!({"priority": priority, "effect": "allow", "actions": ["publish"], "resources": ["a/#"]});
    let rule = |pattern: &str| json!({"subject": "client_id", "pattern": pattern});
    let link = |position: u32| json!({"position": position, "password": {}});
    let (one_policy, one_rule) =
        (made("authorization-policies", policy(1)).await, made("block-rules", rule("x")).await);
    let one_link = made("authenticators", link(1)).await;
    let enhancement = |priority: u32| json!({"name": "r", "priority": priority, "effects": {"response_topic": "replies/${clientid}"}});
    let automatic = |filter: &str| json!({"filter": filter, "qos": 1});
    let one_enhancement = made("message-rules", enhancement(1)).await;
    let one_automatic = made("auto-subscriptions", automatic("a/#")).await;
    admin.delete("/v1/clusters/c/sessions/held?hold_seconds=60").await.expect(200);
    let purge = json!({"action": "delete", "filter": "client_id=purged", "hold_seconds": 60});
    let plan = admin.post("/v1/clusters/c/session-purges", &purge).await.expect(200);
    let purge = json!({
        "action": "delete", "filter": "client_id=purged", "hold_seconds": 60, "plan_token": plan["plan_token"],
    });
    let of = |rest: &str| format!("/v1/clusters/c/{rest}");
    let group = of("shared-groups/%24share%2Funused%2Ft");
    vec![
        ("create_cluster", Method::POST, "/v1/clusters".to_owned(), Some(json!({"id": "d"})), 201),
        ("patch_cluster", Method::PATCH, "/v1/clusters/c".to_owned(), Some(json!({"name": "C"})), 200),
        ("put_quota", Method::PUT, of("quota"), Some(json!({"connections": 9})), 200),
        ("put_user", Method::PUT, of("users/ada"), Some(json!({"password": "a long password"})), 201),
        ("delete_user", Method::DELETE, of("users/ada"), None, 204),
        ("create_authorization_policy", Method::POST, policies.to_owned(), Some(policy(2)), 201),
        ("put_authorization_policy", Method::PUT, one_policy.clone(), Some(policy(3)), 200),
        ("delete_authorization_policy", Method::DELETE, one_policy, None, 204),
        ("create_block_rule", Method::POST, rules.to_owned(), Some(rule("y")), 201),
        ("put_block_rule", Method::PUT, one_rule.clone(), Some(rule("z")), 200),
        ("delete_block_rule", Method::DELETE, one_rule, None, 204),
        ("create_authenticator", Method::POST, chain.to_owned(), Some(link(2)), 201),
        ("put_authenticator", Method::PUT, one_link.clone(), Some(link(3)), 200),
        ("delete_authenticator", Method::DELETE, one_link, None, 204),
        ("create_message_rule", Method::POST, of("message-rules"), Some(enhancement(2)), 201),
        ("put_message_rule", Method::PUT, one_enhancement.clone(), Some(enhancement(3)), 200),
        ("delete_message_rule", Method::DELETE, one_enhancement, None, 204),
        ("create_auto_subscription", Method::POST, of("auto-subscriptions"), Some(automatic("b/#")), 201),
        ("put_auto_subscription", Method::PUT, one_automatic.clone(), Some(automatic("c/#")), 200),
        ("delete_auto_subscription", Method::DELETE, one_automatic, None, 204),
        ("remove_hold", Method::DELETE, of("holds/held"), None, 204),
        ("put_shared_group", Method::PUT, group.clone(), Some(json!({"strategy": "random"})), 200),
        ("delete_shared_group", Method::DELETE, group, None, 200),
        ("patch_session", Method::PATCH, of("sessions/meter"), Some(json!({"protected": true})), 200),
        ("purge_sessions", Method::POST, of("session-purges"), Some(purge), 202),
        ("delete_cluster", Method::DELETE, "/v1/clusters/c".to_owned(), None, 204),
    ]
}

async fn ask(caller: &Caller<'_>, (_, method, path, body, _): &Enforced) -> Answer {
    caller.send(method.clone(), path, body.as_ref().map(Value::to_string)).await
}

#[tokio::test]
async fn what_is_committed_and_not_enforced_is_202_and_holds_later() {
    let api = Api::with_clusters(&["c"]).await;
    let rows = [put(row(1, "meter")), put(row(2, "held")), put(row(3, "purged"))];
    commit(&api.store, &rows).await;
    let changes = changes(&api).await;
    for change in &changes {
        let (operation, .., status) = change;
        let admin = api.admin().header("idempotency-key", operation);
        let admin = if *operation == "put_quota" { admin.header("if-match", "*") } else { admin };
        let hasty = admin.header("prefer", "wait=0");

        api.data_plane.be(Mood::Lags);
        let first = ask(&hasty, change).await;
        assert!(first.is_pending(), "{operation}: {} {}", first.status, first.text);
        assert_eq!(first.header("preference-applied"), "wait=0");
        // Nothing more is committed, and it is as pending as before.
        let again = ask(&hasty, change).await;
        assert!(again.is_pending() && again.replayed(), "{operation}: {again:?}");
        assert_eq!(again.text, first.text, "{operation}");

        api.data_plane.be(Mood::Works);
        let at_last = ask(&admin, change).await;
        assert!(!at_last.is_pending() && at_last.replayed(), "{operation}: {at_last:?}");
        assert_eq!((at_last.status.as_u16(), &at_last.text), (*status, &first.text), "{operation}");
    }
    let made: BTreeSet<&str> = changes.iter().map(|(operation, ..)| *operation).collect();
    assert_eq!(made, documented(), "an operation that can be pending is not provoked here");
}

/// The operations that say that they can be pending.
fn documented() -> BTreeSet<&'static str> {
    let items = DOCUMENT["paths"].as_object().expect("paths").values();
    let operations = items.flat_map(|item| item.as_object().expect("an item").values());
    operations
        .filter(|operation| operation["responses"]["202"]["headers"]["Enforcement"].is_object())
        .map(|operation| operation["operationId"].as_str().expect("an id"))
        .collect()
}

/// The audit log has it as what it is: done.
#[tokio::test]
async fn what_is_pending_has_succeeded() {
    let api = Api::with_clusters(&["c"]).await;
    api.data_plane.be(Mood::Lags);
    let hasty = api.admin().header("prefer", "wait=0");
    assert!(hasty.patch("/v1/clusters/c", &json!({"name": "C"})).await.is_pending());
    let row = &api.admin().get("/v1/audit-log?operation=patch_cluster").await.expect(200)["items"][0];
    assert_eq!((&row["outcome"], &row["status"]), (&json!("succeeded"), &json!(202)));
    assert_eq!((&row["before"]["name"], &row["after"]["name"]), (&json!("c"), &json!("C")));
    assert_eq!(api.admin().get("/v1/clusters/c").await.expect(200)["name"], "C");
}
