//! Secrets are planted wherever one can be, and looked for wherever the service says anything: log lines at
//! every level, answers and errors of the API, the audit log, metrics, session records.

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::mqtt::RawClient;
use crate::support::outside::{Manner, Outside};
use crate::support::server::{Options, Server};

const CLUSTER: &str = "/v1/clusters/default";
const CHAIN: &str = "/v1/clusters/default/authenticators";

const USER_PASSWORD: &str = "planted-user-password";
const WRONG_PASSWORD: &str = "planted-wrong-password";
const JWT_SECRET: &str = "planted-jwt-secret-that-is-long-enough";
const HEADER: &str = "Bearer planted-header";

async fn knock(server: &Server, version: u8, (username, password): (&str, &str)) {
    let mut client = RawClient::open(server.mqtt).await;
    let properties = if version == 5 { "{ }" } else { "" };
    let connect = format!("10 ~ s'MQTT' {version:02x} c2 003c {properties} s'c' s'{username}' s'{password}'");
    client.send_hex(&connect).await;
    client.packet().await;
}

/// Everything that the service says over HTTP, errors included.
async fn said(server: &Server) -> Vec<String> {
    let api = server.api();
    let mut said = Vec::new();
    let list = api.get(CHAIN).await;
    let ids: Vec<_> = serde_json::from_str::<Value>(&list.text).expect("JSON")["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|link| link["id"].as_str().expect("an id").to_owned())
        .collect();
    said.push(list.text);
    for id in ids {
        said.push(api.get(&format!("{CHAIN}/{id}")).await.text);
    }
    for path in [
        "/metrics",
        "/v1/audit-log?page_size=1000",
        "/v1/api-keys",
        "/v1/clusters/default",
        "/v1/clusters/default/users",
        "/v1/clusters/default/sessions",
        "/v1/clusters/default/sessions/c/history",
        "/v1/clusters/default/refusals",
    ] {
        said.push(api.get(path).await.text);
    }
    said
}

#[tokio::test]
async fn no_secret_is_ever_said() {
    let outside = Outside::saying(&json!({"result": "ignore"})).await;
    let flags = vec!["--authenticator-targets".to_owned(), "any".to_owned()];
    let server = Server::start(Options { flags, log: Some("trace"), ..Options::default() }).await;
    let api = server.api();
    let mut said_before = Vec::new();
    api.put(&format!("{CLUSTER}/users/ada"), json!({"password": USER_PASSWORD})).await.expect(201);
    let key = api.post("/v1/api-keys", json!({"name": "k", "role": "viewer"})).await.expect(201);
    let key = key["secret"].as_str().or_else(|| key["key"].as_str()).expect("a secret").to_owned();
    let jwt = json!({"secret": JWT_SECRET, "token_in": "password"});
    let made = api.post(CHAIN, json!({"position": 200, "jwt": jwt})).await;
    said_before.push(made.text);
    let in_name = json!({"secret": JWT_SECRET, "token_in": "username"});
    said_before.push(api.post(CHAIN, json!({"position": 201, "jwt": in_name})).await.text);
    let fields = json!({"p": "${password}"});
    let http = json!({"url": format!("http://{}/?p=${{password}}", outside.address), "fields": fields,
        "headers": {"authorization": HEADER}, "timeout_seconds": 1});
    let made = api.post(CHAIN, json!({"position": 300, "http": http})).await.expect(201);
    let link = format!("{CHAIN}/{}", made["id"].as_str().expect("an id"));
    // Changes with a before and an after, and a refusal of one.
    let http = json!({"url": format!("http://{}/?p=${{password}}", outside.address), "fields": fields,
        "headers": {"authorization": HEADER}, "timeout_seconds": 1, "requests_max": 2});
    said_before.push(api.put(&link, json!({"position": 300, "http": http})).await.text);
    let broken = json!({"position": 9, "jwt": {"secret": JWT_SECRET, "algorithms": ["ES256"]}});
    said_before.push(api.post(CHAIN, broken).await.text);
    let broken = json!({"position": 9, "http": {"url": "x", "headers": {"authorization": HEADER}}});
    said_before.push(api.post(CHAIN, broken).await.text);

    let signed = |claims: Value| {
        let own = EncodingKey::from_secret(JWT_SECRET.as_bytes());
        jsonwebtoken::encode(&Header::default(), &claims, &own).expect("a token")
    };
    let (good, expired) = (signed(json!({})), signed(json!({"exp": 1})));
    for manner in [
        Manner::Says(200, r#"{"result":"ignore"}"#.to_owned()),
        Manner::Says(200, format!("no JSON {WRONG_PASSWORD}")),
        Manner::Says(500, WRONG_PASSWORD.to_owned()),
        Manner::Silent,
    ] {
        outside.be(manner);
        for version in [4, 5] {
            knock(&server, version, ("ada", USER_PASSWORD)).await;
            knock(&server, version, ("ada", WRONG_PASSWORD)).await;
            knock(&server, version, ("eve", WRONG_PASSWORD)).await;
            for token in [&good, &expired] {
                knock(&server, version, ("ada", token)).await;
                knock(&server, version, (token, "")).await;
            }
        }
    }
    let asked = outside.asked();
    assert!(
        asked.iter().any(|asked| asked.uri.contains("planted") && asked.headers["authorization"] == HEADER)
    );
    drop(outside);
    knock(&server, 5, ("eve", WRONG_PASSWORD)).await;
    server.api_as(Some(key.clone())).get("/v1/plans").await.expect(200);

    let mut all = said(&server).await;
    all.append(&mut said_before);
    all.extend(server.log());
    assert!(all.iter().any(|text| text.contains("has_secret")), "it looks where it should");
    assert!(all.iter().any(|text| text.contains("authenticators:write") || text.contains("authenticators")));
    for (what, secret) in [
        ("the user's password", USER_PASSWORD),
        ("a wrong password", WRONG_PASSWORD),
        ("the JWT secret", JWT_SECRET),
        ("the header", "planted-header"),
        ("the API key", &*key),
        ("a token", &*good),
        ("an expired token", &*expired),
    ] {
        let found: Vec<_> = all.iter().filter(|text| text.contains(secret)).collect();
        assert!(found.is_empty(), "{what} is in {found:#?}");
    }
    server.stop().await;
}
