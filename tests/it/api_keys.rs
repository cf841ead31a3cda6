//! API keys: made, used, narrowed, revoked.

use holdfast::control_plane::tokens::Role;
use holdfast::model::Timestamp;
use serde_json::{Value, json};

use super::support::api::{Api, Caller};
use super::support::sessions::{T, commit, put, row};

const KEYS: &str = "/v1/api-keys";

async fn fleet() -> Api {
    let api = Api::with_clusters(&["c", "d"]).await;
    commit(&api.store, &[put(row(1, "meter"))]).await;
    api
}

async fn create(caller: &Caller<'_>, body: &Value) -> (String, String) {
    let created = caller.post(KEYS, body).await.expect(201);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    (text(&created["api_key"]["id"]), text(&created["key"]))
}

#[tokio::test]
async fn a_key_is_shown_once_and_does_what_its_role_may() {
    let api = fleet().await;
    let (id, key) = create(&api.admin(), &json!({"name": "dashboard", "role": "viewer"})).await;
    assert!(key.starts_with(&format!("hfk_{id}_")), "{key}");
    let dashboard = api.with_token(&key);
    dashboard.get("/v1/clusters/c/sessions/meter").await.expect(200);
    dashboard.delete("/v1/clusters/c/sessions/meter").await.expect_problem("forbidden");
    let path = format!("{KEYS}/{id}");
    dashboard.get(&path).await.expect_problem("forbidden");

    let shown = api.admin().get(&path).await.expect(200);
    assert_eq!((&shown["name"], &shown["created_by"]), (&json!("dashboard"), &json!("ada")));
    assert!(shown["last_used_at"].as_str().expect("a time") >= T.to_string().as_str());
    let secret = key.rsplit('_').next().expect("a secret");
    let listed = api.admin().get(KEYS).await;
    assert_eq!(listed.expect(200)["items"], json!([shown]));
    let log = api.admin().get("/v1/audit-log").await;
    for text in [&listed.text, &shown.to_string(), &log.text] {
        assert!(!text.contains(secret), "{text}");
    }
    assert_eq!(log.json()["items"][0]["after"]["api_key"]["id"], json!(id));
}

#[tokio::test]
async fn a_key_that_is_not_good_is_refused() {
    let api = fleet().await;
    let at = |secs: u32| api.clock.wall().plus_secs(secs).to_string();
    let (id, key) = create(&api.admin(), &json!({"name": "k", "role": "admin", "expires_at": at(600)})).await;
    let get = async |token: &str| api.with_token(token).get("/v1/plans").await;
    get(&key).await.expect(200);
    for bad in
        [format!("{key}x"), format!("hfk_{id}_"), "hfk_0000000000000000_x".to_owned(), "hfk_x".to_owned()]
    {
        get(&bad).await.expect_problem("token_invalid");
    }
    api.clock.jump_millis(601_000);
    get(&key).await.expect_problem("token_expired");

    let (id, key) = create(&api.admin(), &json!({"name": "k", "role": "viewer"})).await;
    let revoked = api.admin().delete(&format!("{KEYS}/{id}")).await.expect(200);
    assert!(revoked["revoked_at"].is_string());
    get(&key).await.expect_problem("token_invalid");
    api.clock.jump_millis(60_000);
    let again = api.admin().delete(&format!("{KEYS}/{id}")).await.expect(200);
    assert_eq!(again["revoked_at"], revoked["revoked_at"], "the first time counts");
    for path in ["nothing", "%00"] {
        api.admin().get(&format!("{KEYS}/{path}")).await.expect_problem("api_key_not_found");
    }
}

#[tokio::test]
async fn scopes_narrow_a_role() {
    let api = fleet().await;
    let body = json!({"name": "kicker", "role": "operator", "scopes": ["sessions:write"]});
    let (id, key) = create(&api.admin(), &body).await;
    let kicker = api.with_token(&key);
    kicker.get("/v1/clusters/c/sessions/meter").await.expect_problem("forbidden");
    kicker.post("/v1/clusters/c/sessions/meter/disconnect", &json!({})).await.expect(200);
    let row = api.admin().get(&format!("/v1/audit-log?key_id={id}")).await.expect(200);
    assert_eq!(row["items"][0]["actor"], "kicker");
    assert_eq!(row["items"].as_array().map(Vec::len), Some(1));
}

/// The specification says no other thing.
#[tokio::test]
async fn a_scope_said_twice_is_one_scope() {
    let api = fleet().await;
    let body =
        json!({"name": "k", "role": "viewer", "scopes": ["sessions:read", "plans:read", "sessions:read"]});
    let made = api.admin().post("/v1/api-keys", &body).await.expect(201);
    assert_eq!(made["api_key"]["scopes"], json!(["plans:read", "sessions:read"]));
}

#[tokio::test]
async fn nobody_makes_a_key_with_more_rights() {
    let api = fleet().await;
    let tenant = api.with_token(&api.token(Role::Admin, Some("d")));
    let (id, key) = create(&tenant, &json!({"name": "k", "role": "admin"})).await;
    api.with_token(&key).get("/v1/clusters/c").await.expect_problem("cluster_not_found");
    api.with_token(&key).get("/v1/clusters/d").await.expect(200);
    let beyond = json!({"name": "k", "role": "viewer", "cluster": "c"});
    tenant.post(KEYS, &beyond).await.expect_problem("forbidden");
    let body = json!({"name": "maker", "role": "admin", "scopes": ["api-keys:write", "api-keys:read"]});
    let (maker_id, maker) = create(&api.admin(), &body).await;
    api.with_token(&maker)
        .post(KEYS, &json!({"name": "k", "role": "admin"}))
        .await
        .expect_problem("forbidden");
    let narrow = json!({"name": "k", "role": "admin", "scopes": ["api-keys:read"]});
    create(&api.with_token(&maker), &narrow).await;

    let own = tenant.get(KEYS).await.expect(200);
    assert_eq!(own["items"].as_array().expect("items").len(), 1);
    assert_eq!(own["items"][0]["id"], json!(id));
    tenant.get(&format!("{KEYS}/{maker_id}")).await.expect_problem("api_key_not_found");
    tenant.delete(&format!("{KEYS}/{maker_id}")).await.expect_problem("api_key_not_found");

    for (body, pointer) in [
        (json!({"role": "viewer"}), "#"),
        (json!({"name": "k", "role": "root"}), "#/role"),
        (json!({"name": "k", "role": "viewer", "scopes": []}), "#/scopes"),
        (json!({"name": "k", "role": "viewer", "scopes": ["sessions:write"]}), "#/scopes"),
        (json!({"name": "k", "role": "viewer", "expires_at": Timestamp::EPOCH}), "#/expires_at"),
    ] {
        let problem = api.admin().post(KEYS, &body).await.expect_problem("invalid_body");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    let nowhere = json!({"name": "k", "role": "viewer", "cluster": "x"});
    api.admin().post(KEYS, &nowhere).await.expect_problem("cluster_not_found");
}

#[tokio::test]
async fn a_key_goes_with_its_cluster_and_an_answer_given_again_holds_no_secret() {
    let api = fleet().await;
    let admin = api.admin().header("idempotency-key", "k");
    let body = json!({"name": "k", "role": "viewer", "cluster": "d"});
    let created = admin.post(KEYS, &body).await.expect(201);
    let again = admin.post(KEYS, &body).await;
    assert!(again.replayed());
    assert_eq!(again.expect(201)["key"], Value::Null);
    assert_eq!(again.json()["api_key"], created["api_key"]);
    api.admin().delete("/v1/clusters/d").await.expect(204);
    let key = created["key"].as_str().expect("a key");
    api.with_token(key).get("/v1/plans").await.expect_problem("token_invalid");
}
