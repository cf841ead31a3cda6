//! Every route × {no token, lesser role, other tenant, right role}.
//!
//! The routes come from the specification, what each needs is written down here: a route without a
//! row fails, and so does one whose row says otherwise than what is enforced.

use holdfast::control_plane::tokens::Role;
use holdfast::model::{AuthenticatorSettings, ClientHold, MessageRuleSpec, PolicySpec, WebhookSecret};
use holdfast::store::{
    AuthenticatorRecord, AutoSubscriptionRecord, BlockRuleRecord, HoldOrder, MessageRuleRecord, NewApiKey,
    NewAuthenticator, NewAutoSubscription, NewBlockRule, NewMessageRule, NewOperation, NewPolicy,
    PolicyRecord, PurgeAction, Webhook,
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::support::api::{Answer, Api, Caller, DOCUMENT};
use super::support::sessions::{client_id, commit, put, row, subscribe};

/// One operation: who may, and a request that succeeds.
struct Row {
    least: Role,
    /// Whether a token that is bound to a cluster lacks it.
    global: bool,
    body: Option<Value>,
    headers: &'static [(&'static str, &'static str)],
}

fn read() -> Row {
    Row { least: Role::Viewer, global: false, body: None, headers: &[] }
}

fn row_of(operation_id: &str) -> Row {
    match operation_id {
        "list_plans"
        | "list_clusters"
        | "get_cluster"
        | "get_quota"
        | "get_usage"
        | "list_usage_history"
        | "list_sessions"
        | "count_sessions"
        | "list_session_history"
        | "follow_events"
        | "list_refusals"
        | "get_operation"
        | "list_operation_sessions"
        | "get_session"
        | "list_holds"
        | "get_hold"
        | "list_shared_groups"
        | "get_shared_group"
        | "list_subscriptions" => read(),
        "list_nodes" => Row { global: true, ..read() },
        "put_shared_group" => {
            Row { least: Role::Operator, body: Some(json!({"strategy": "random"})), ..read() }
        }
        "move_shared_group" => Row { least: Role::Operator, body: Some(json!({"to": "now"})), ..read() },
        "list_api_keys"
        | "get_api_key"
        | "revoke_api_key"
        | "delete_auto_subscription"
        | "delete_cluster"
        | "list_users"
        | "get_user"
        | "delete_user"
        | "list_authenticators"
        | "get_authenticator"
        | "delete_authenticator"
        | "delete_authorization_policy"
        | "delete_webhook"
        | "retry_dead_letters" => Row { least: Role::Admin, ..read() },
        "check_admission" => Row { body: Some(json!({"client_id": "x"})), ..read() },
        "purge_sessions" => {
            let body = json!({"action": "delete", "filter": "state=offline"});
            Row { least: Role::Operator, body: Some(body), ..read() }
        }
        "create_api_key" => {
            Row { least: Role::Admin, body: Some(json!({"name": "k", "role": "viewer"})), ..read() }
        }
        "create_cluster" => {
            Row { least: Role::Admin, global: true, body: Some(json!({"id": "new"})), headers: &[] }
        }
        "patch_cluster" => Row { least: Role::Admin, body: Some(json!({"name": "x"})), ..read() },
        "put_quota" => Row {
            least: Role::Admin,
            body: Some(json!({"connections": 3})),
            headers: &[("if-match", "\"1\"")],
            ..read()
        },
        "create_webhook" => {
            let body = json!({"name": "n", "url": "https://hooks.example/"});
            Row { least: Role::Admin, body: Some(body), ..read() }
        }
        "patch_webhook" => Row { least: Role::Admin, body: Some(json!({"name": "m"})), ..read() },
        "put_user" => Row { least: Role::Admin, body: Some(json!({"password": "pencil"})), ..read() },
        "patch_session" => Row { least: Role::Operator, body: Some(json!({"expiry": null})), ..read() },
        "put_session" => Row { least: Role::Operator, body: Some(json!({})), ..read() },
        "put_subscription" => Row { least: Role::Operator, body: Some(json!({"qos": 1})), ..read() },
        "delete_session"
        | "disconnect_session"
        | "delete_shared_group"
        | "list_session_messages"
        | "list_webhooks"
        | "get_webhook"
        | "list_dead_letters"
        | "get_will"
        | "list_audit_log"
        | "cancel_operation"
        | "remove_hold"
        | "list_authorization_policies"
        | "get_authorization_policy"
        | "list_auto_subscriptions"
        | "get_auto_subscription"
        | "list_block_rules"
        | "get_block_rule"
        | "delete_block_rule"
        | "delete_subscription" => Row { least: Role::Operator, ..read() },
        "create_authenticator" | "put_authenticator" => {
            Row { least: Role::Admin, body: Some(json!({"position": 2, "password": {}})), ..read() }
        }
        other => rule_row_of(other),
    }
}

/// The same of what is written as a rule.
fn rule_row_of(operation_id: &str) -> Row {
    match operation_id {
        "create_authorization_policy" | "put_authorization_policy" => {
            let body = a_policy_like(if operation_id.starts_with("put") { 1 } else { 2 });
            Row { least: Role::Admin, body: Some(body), ..read() }
        }
        "create_auto_subscription" | "put_auto_subscription" => {
            Row { least: Role::Admin, body: Some(json!({"filter": "x", "qos": 1})), ..read() }
        }
        "create_block_rule" | "put_block_rule" => Row {
            least: Role::Operator,
            body: Some(json!({"subject": "client_id", "pattern": "x"})),
            ..read()
        },
        other => row_of_message_rules(other),
    }
}

fn row_of_message_rules(operation_id: &str) -> Row {
    let rule = |priority: u32| {
        let body = json!({"priority": priority, "name": "n", "effects": {"response_topic": "r"}});
        Row { least: Role::Admin, body: Some(body), ..read() }
    };
    match operation_id {
        "list_message_rules" | "get_message_rule" => Row { least: Role::Operator, ..read() },
        "create_message_rule" => rule(2),
        "put_message_rule" => rule(1),
        "delete_message_rule" => Row { least: Role::Admin, ..read() },
        other => panic!("the operation {other} has no row: say here who may call it"),
    }
}

fn a_policy_like(priority: u32) -> Value {
    json!({"priority": priority, "effect": "allow", "actions": ["connect"]})
}

/// Two clusters, a client that is online in each, and a user.
async fn fleet() -> Api {
    let api = Api::with_clusters(&["c", "d"]).await;
    let other = holdfast::seam::ports::SessionRow {
        cluster: super::support::sessions::cluster_id("d"),
        ..row(2, "meter")
    };
    let meter = holdfast::seam::ports::SessionRow { has_will: true, ..row(1, "meter") };
    commit(&api.store, &[put(meter), put(other), subscribe(1, "b/#")]).await;
    let mut tx = api.store.begin().await.expect("begin");
    for cluster in ["c", "d"] {
        let key = NewApiKey {
            id: format!("key-{cluster}"),
            name: "k".to_owned(),
            secret_hash: Vec::new(),
            role: "viewer".to_owned(),
            scopes: None,
            cluster: Some(super::support::sessions::cluster_id(cluster)),
            created_by: "ada".to_owned(),
            expires_at: None,
        };
        tx.insert_api_key(&key, api.clock.wall()).await.expect("a key");
        let operation = NewOperation {
            id: operation_id(cluster),
            cluster: super::support::sessions::cluster_id(cluster),
            action: PurgeAction::Delete,
            rate: None,
            actor: "ada".to_owned(),
            request_id: "r".to_owned(),
            options: holdfast::model::EndOptions::default(),
        };
        tx.insert_operation(&operation, &[], api.clock.wall()).await.expect("an operation");
        let until = api.clock.wall().plus_secs(60);
        let hold = HoldOrder {
            hold: ClientHold { until, reason: None },
            actor: "ada".to_owned(),
            request_id: "r".to_owned(),
            created_at: api.clock.wall(),
        };
        let (id, meter) = (super::support::sessions::cluster_id(cluster), [client_id("meter")]);
        tx.put_holds(&id, &meter, &hold, api.clock.wall()).await.expect("a hold");
    }
    let webhook = Webhook {
        cluster: super::support::sessions::cluster_id("c"),
        id: "hook".to_owned(),
        name: "n".to_owned(),
        url: "https://hooks.example/".parse().expect("a URL"),
        kinds: None,
        enabled: true,
        secret: WebhookSecret::new(vec![7; 32]).expect("a secret"),
    };
    tx.insert_webhook(&webhook, api.clock.wall()).await.expect("a webhook");
    let (c, now) = (super::support::sessions::cluster_id("c"), api.clock.wall());
    tx.insert_item::<PolicyRecord>(&c, RULE, &a_policy(), now).await.expect("a policy");
    tx.insert_item::<MessageRuleRecord>(&c, RULE, &a_message_rule(), now).await.expect("a message rule");
    tx.insert_item::<BlockRuleRecord>(&c, RULE, &a_block_rule(), now).await.expect("a block rule");
    let spec = json!({
        "client_id": null, "username": null, "filter": "x", "qos": 1, "no_local": false,
        "retain_as_published": false, "retain_handling": 0,
    });
    let rule = NewAutoSubscription {
        description: None,
        spec: serde_json::from_value(spec).expect("an automatic subscription"),
    };
    tx.insert_item::<AutoSubscriptionRecord>(&c, RULE, &rule, now).await.expect("an automatic subscription");
    let link = NewAuthenticator {
        position: 1,
        description: None,
        is_enabled: true,
        settings: AuthenticatorSettings::Password,
    };
    tx.insert_item::<AuthenticatorRecord>(&c, RULE, &link, now).await.expect("an authenticator");
    tx.commit().await.expect("commit");
    api.admin().put("/v1/clusters/c/users/ada", &json!({"password": "pencil"})).await.expect(201);
    api
}

/// The policy, the rules, the automatic subscription and the second authenticator of cluster `c`.
const RULE: Uuid = Uuid::from_u128(7);

fn a_policy() -> NewPolicy {
    let spec = json!({
        "effect": "allow", "actions": ["connect"], "resources": [], "client_ids": [], "usernames": [],
        "networks": [], "qos": [], "retain": null,
    });
    let spec: PolicySpec = serde_json::from_value(spec).expect("a policy");
    NewPolicy { priority: 1, description: None, spec }
}

fn a_message_rule() -> NewMessageRule {
    let spec = json!({"condition": {}, "effects": {"response_topic": "r", "user_properties": []}});
    let spec: MessageRuleSpec = serde_json::from_value(spec).expect("a rule");
    NewMessageRule { priority: 1, name: "n".to_owned(), description: None, is_enabled: true, spec }
}

fn a_block_rule() -> NewBlockRule {
    let spec = json!({"subject": "client_id", "pattern": "x", "excludes": []});
    let spec = serde_json::from_value(spec).expect("a block rule");
    NewBlockRule { spec, expires_at: None, reason: None }
}

fn operation_id(cluster: &str) -> Uuid {
    Uuid::from_u128(cluster.bytes().map(u128::from).sum())
}

async fn call(caller: &Caller<'_>, method: &Method, path: &str, row: &Row) -> Answer {
    let caller = row.headers.iter().fold(caller.clone(), |caller, (name, value)| caller.header(name, value));
    let body = row.body.as_ref().map(Value::to_string);
    caller.send(method.clone(), path, body).await
}

/// Every operation, with its path: cluster `c`, and of what has an id of its own, that of `own`.
fn operations(own: &str) -> Vec<(Method, String, String)> {
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let guarded = paths.iter().filter(|(path, _)| path.starts_with("/v1/"));
    let each = guarded.flat_map(|(path, item)| {
        item.as_object().expect("an item").iter().map(move |(method, operation)| {
            let method = method.to_ascii_uppercase().parse().expect("a method");
            let id = operation["operationId"].as_str().expect("an id").to_owned();
            let path =
                path.replace("{cluster}", "c").replace("{client_id}", "meter").replace("{username}", "ada");
            let path = path.replace("{filter}", "b%2F%23").replace("{webhook_id}", "hook");
            let path = path.replace("{policy_id}", &RULE.to_string());
            let path = path.replace("{message_rule_id}", &RULE.to_string());
            let path = path.replace("{auto_subscription_id}", &RULE.to_string());
            let path = path.replace("{block_rule_id}", &RULE.to_string());
            let path = path.replace("{authenticator_id}", &RULE.to_string());
            let path = path.replace("{operation_id}", &operation_id(own).to_string());
            let path = path.replace("{group}", "$share%2Fa%2Ft");
            let query = match id.as_str() {
                "list_session_messages" => "?of=backlog",
                "delete_shared_group" => "?force=true",
                _ => "",
            };
            (method, path.replace("{key_id}", &format!("key-{own}")) + query, id)
        })
    });
    each.collect()
}

#[tokio::test]
async fn every_route_lets_in_whom_it_should_and_nobody_else() {
    let api = fleet().await;
    let before = api.admin().get("/v1/clusters/c/sessions/meter").await.text;
    for (method, path, id) in operations("d") {
        let row = row_of(&id);
        let of_cluster = path.contains("/c");

        call(&api.anonymous(), &method, &path, &row).await.expect_problem("token_missing");
        call(&api.with_token("a.b.c"), &method, &path, &row).await.expect_problem("token_invalid");
        for lesser in [Role::Viewer, Role::Operator] {
            if lesser < row.least {
                let caller = api.with_token(&api.token(lesser, None));
                call(&caller, &method, &path, &row).await.expect_problem("forbidden");
            }
        }
        let tenant = api.with_token(&api.token(Role::Admin, Some("d")));
        let answer = call(&tenant, &method, &path, &row).await;
        if path.starts_with("/v1/clusters/c") {
            answer.expect_problem("cluster_not_found");
            // A viewer learns no more than an administrator.
            let viewer = api.with_token(&api.token(Role::Viewer, Some("d")));
            call(&viewer, &method, &path, &row).await.expect_problem("cluster_not_found");
        } else if row.global {
            answer.expect_problem("forbidden");
        } else {
            assert!(answer.status.is_success(), "{id}: {answer:?} {of_cluster}");
        }
    }
    assert_eq!(api.admin().get("/v1/clusters/c/sessions/meter").await.text, before, "nothing was done");
}

#[tokio::test]
async fn the_least_role_is_enough() {
    for (method, path, id) in operations("c") {
        let row = row_of(&id);
        // Each in a fleet of its own: some of them end what others need.
        let api = fleet().await;
        let bound = if row.global { None } else { Some("c") };
        let caller = api.with_token(&api.token(row.least, bound));
        let answer = call(&caller, &method, &path, &row).await;
        assert!(answer.status.is_success(), "{id}: {answer:?}");
    }
}

#[tokio::test]
async fn a_tenant_sees_its_own_cluster_alone() {
    let api = fleet().await;
    let tenant = api.with_token(&api.token(Role::Viewer, Some("d")));
    let page = tenant.get("/v1/clusters").await.expect(200);
    let ids: Vec<_> = page["items"].as_array().expect("items").iter().map(|c| c["id"].clone()).collect();
    assert_eq!(ids, [json!("d")]);
    assert!(page.get("next_page_token").is_none());
}
