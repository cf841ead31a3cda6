//! The authentication chain over real sockets, 3.1.1 beside 5.0: tokens, certificates, another service in
//! each of its manners, the order of the links, and what a change does to clients that are there.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ED25519};
use serde_json::{Value, json};

use crate::support::mqtt::{RawClient, hex};
use crate::support::outside::{Manner, Outside};
use crate::support::pki::{Authority, Identity, SERVER_NAME};
use crate::support::server::{Options, Server};
use crate::support::transport::{Site, quic, tls, websocket};
use crate::support::{PATIENCE, eventually};

const CLUSTER: &str = "/v1/clusters/default";
const CHAIN: &str = "/v1/clusters/default/authenticators";
const SECRET: &str = "a secret that is as long as a hash is";
const V3: u8 = 4;
const V5: u8 = 5;

/// A server that is closed to anonymous clients, and asks authenticators on this machine.
async fn server() -> Server {
    let flags = vec!["--authenticator-targets".to_owned(), "any".to_owned()];
    Server::start(Options { flags, ..Options::default() }).await
}

/// Adds a link; gives its path.
async fn add(server: &Server, position: u32, settings: Value) -> String {
    let mut body = settings;
    body["position"] = json!(position);
    let made = server.api().post(CHAIN, body).await.expect(201);
    format!("{CHAIN}/{}", made["id"].as_str().expect("an id"))
}

fn by_secret() -> Value {
    json!({"jwt": {"secret": SECRET}})
}

fn token(claims: &Value) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes()))
        .expect("a token")
}

/// Seconds since 1970, and so many more.
fn in_secs(more: f64) -> f64 {
    let now = holdfast::clock::Clock::new().wall().as_millis();
    f64::from(u32::try_from(now / 1_000).expect("before 2106")) + more
}

/// CONNECT of a session of an hour with this name and password.
fn connect(version: u8, client_id: &str, username: Option<&str>, password: Option<&str>) -> String {
    let flags = u8::from(username.is_some()) << 7 | u8::from(password.is_some()) << 6;
    let text = |text: Option<&str>| text.map(|text| format!("s'{text}'")).unwrap_or_default();
    let properties = if version == V5 { "{ 11 00000e10 }" } else { "" };
    let (username, password) = (text(username), text(password));
    format!("10 ~ s'MQTT' {version:02x} {flags:02x} 003c {properties} s'{client_id}' {username} {password}")
}

/// Connects; gives the client and the code of its CONNACK.
async fn knock(
    server: &Server,
    version: u8,
    (client_id, username, password): (&str, Option<&str>, Option<&str>),
) -> (RawClient, u8) {
    let mut client = RawClient::open(server.mqtt).await;
    client.send_hex(&connect(version, client_id, username, password)).await;
    let connack = client.packet().await;
    assert_eq!(connack[0], 0x20, "{}", hex(&connack));
    (client, connack[3])
}

/// The codes for 3.1.1 and 5.0.
async fn codes(server: &Server, who: (&str, Option<&str>, Option<&str>)) -> (u8, u8) {
    (knock(server, V3, who).await.1, knock(server, V5, who).await.1)
}

const IN: (u8, u8) = (0, 0);
const BAD: (u8, u8) = (4, 0x86);
const DENIED: (u8, u8) = (5, 0x87);

/// What the API says of a session.
async fn session(server: &Server, client_id: &str) -> Value {
    server.api().get(&format!("{CLUSTER}/sessions/{client_id}")).await.expect(200)
}

#[tokio::test]
async fn a_token_lets_in_whom_it_names_for_as_long_as_it_says() {
    let server = server().await;
    let claims = json!({"aud": "mqtt", "client": "${clientid}"});
    let settings = json!({"jwt": {"secret": SECRET, "claims": claims, "username_claim": "sub"}});
    add(&server, 10, settings).await;
    let good = |client: &str| json!({"aud": ["mqtt"], "client": client, "sub": "ada", "exp": in_secs(60.0)});
    let password = |claims: &Value| token(claims);
    let (mine, other) = (password(&good("c")), password(&good("d")));
    assert_eq!(codes(&server, ("c", Some("anything"), Some(&mine))).await, IN);
    // A password alone is allowed by 5.0 only.
    assert_eq!(knock(&server, V5, ("c", None, Some(&mine))).await.1, 0);
    assert_eq!(session(&server, "c").await["username"], "ada");
    assert_eq!(codes(&server, ("c", Some("u"), Some(&other))).await, BAD, "another client's");
    for (name, wrong) in
        [("aud", json!("other")), ("sub", json!(7)), ("exp", json!(1)), ("nbf", json!(in_secs(60.0)))]
    {
        let mut claims = good("c");
        claims[name] = wrong;
        assert_eq!(codes(&server, ("c", Some("u"), Some(&password(&claims)))).await, BAD, "{name}");
    }
    for no_token in ["pencil", "", "a.b.c"] {
        assert_eq!(codes(&server, ("c", Some("u"), Some(no_token))).await, BAD, "{no_token}");
    }
    assert_eq!(codes(&server, ("c", None, None)).await, DENIED, "anonymous");

    // [PRODUCT 4]: the end of the token is the end of the connection.
    let mut brief = good("c");
    brief["exp"] = json!(in_secs(5.0));
    let brief = password(&brief);
    let (mut v5, code) = knock(&server, V5, ("c", Some("u"), Some(&brief))).await;
    assert_eq!(code, 0);
    let goodbye = v5.packet().await;
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x87), "{}", hex(&goodbye));
    v5.expect_closed().await;
    let reason = eventually("the record says why", PATIENCE, async || {
        let record = session(&server, "c").await;
        record["disconnect"]["reason"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(reason, "credentials_expired");
    let mut brief = good("d");
    brief["exp"] = json!(in_secs(5.0));
    let (mut v3, _) = knock(&server, V3, ("d", Some("u"), Some(&password(&brief)))).await;
    v3.expect_closed().await;
    server.stop().await;
}

#[tokio::test]
async fn a_token_for_a_user_name_is_nobodys_name() {
    let server = server().await;
    add(&server, 10, json!({"jwt": {"secret": SECRET, "token_in": "username"}})).await;
    let secret = token(&json!({"exp": in_secs(60.0)}));
    assert_eq!(codes(&server, ("c", Some(&secret), None)).await, IN);
    assert_eq!(session(&server, "c").await["username"], Value::Null);
    let shown = server.api().get(&format!("{CLUSTER}/sessions")).await.text;
    assert!(!shown.contains(&secret) && !server.log().join("\n").contains(&secret));
    server.stop().await;
}

#[tokio::test]
async fn what_a_token_says_its_bearer_may_do_comes_before_the_policies() {
    let server = server().await;
    add(&server, 10, by_secret()).await;
    let acl = json!([
        {"effect": "deny", "actions": ["publish"], "resources": ["own/secret"]},
        {"effect": "allow", "actions": ["publish", "subscribe"], "resources": ["own/#"]},
    ]);
    let bound = token(&json!({"acl": acl}));
    let policies = format!("{CLUSTER}/authorization-policies");
    for (client, with_policies) in [("a", false), ("b", true)] {
        if with_policies {
            let body = json!({"priority": 1, "effect": "allow", "actions": ["connect"]});
            server.api().post(&policies, body).await.expect(201);
            let body = json!({"priority": 2, "effect": "allow", "actions": ["publish"], "resources": ["own/#", "x"]});
            server.api().post(&policies, body).await.expect(201);
        }
        let (mut v5, code) = knock(&server, V5, (client, Some("u"), Some(&bound))).await;
        assert_eq!(code, 0);
        v5.send_hex("82 ~ 0001 { } s'own/a' 01").await;
        v5.expect_hex("90 ~ 0001 { } 01").await;
        v5.send_hex("82 ~ 0002 { } s'other' 01").await;
        assert_eq!(v5.packet().await.last(), Some(&0x87));
        v5.send_hex("32 ~ s'own/secret' 0003 { } 'm'").await;
        assert_eq!(v5.packet().await[4], 0x87);
        // Of what the token says nothing, the policies decide.
        v5.send_hex("32 ~ s'x' 0004 { } 'm'").await;
        let code = v5.packet().await.get(4).copied().unwrap_or_default();
        assert_eq!(code, if with_policies { 0x10 } else { 0x87 }, "{client}");
        // A will too.
        let will = format!("10 ~ s'MQTT' 05 c4 003c {{ }} s'w' {{ }} s'other' s'' s'u' s'{bound}'");
        let mut client = RawClient::open(server.mqtt).await;
        client.send_hex(&will).await;
        assert_eq!(client.packet().await[3], 0x87);
    }
    let above = token(&json!({"is_superuser": true}));
    let (mut v3, _) = knock(&server, V3, ("s", Some("u"), Some(&above))).await;
    v3.send_hex("82 ~ 0001 s'anything' 01").await;
    v3.expect_hex("90 03 0001 01").await;
    let plain = token(&json!({}));
    let (mut v3, _) = knock(&server, V3, ("p", Some("u"), Some(&plain))).await;
    v3.send_hex("82 ~ 0001 s'anything' 01").await;
    v3.expect_hex("90 03 0001 80").await;
    server.stop().await;
}

#[tokio::test]
async fn keys_are_fetched_when_a_token_needs_them() {
    let server = server().await;
    let pair = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let x = base64_url(pair.public_key_raw());
    let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]});
    let outside = Outside::saying(&keys).await;
    let url = format!("http://{}/keys", outside.address);
    let link = add(&server, 10, json!({"jwt": {"jwks_url": url}})).await;
    let private = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).expect("a key");
    let signed = |kid: &str| {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &json!({}), &private).expect("a token")
    };
    assert_eq!(codes(&server, ("c", Some("u"), Some(&signed("k")))).await, IN);
    assert_eq!(outside.asked().len(), 1);
    // Strangers have it fetched no more often than that.
    for _ in 0..3 {
        assert_eq!(codes(&server, ("c", Some("u"), Some(&signed("other")))).await, BAD);
    }
    assert_eq!(outside.asked().len(), 1);
    // The issuer goes; what was fetched is still good. A new link has nothing to check by, and says so.
    drop(outside);
    assert_eq!(codes(&server, ("c", Some("u"), Some(&signed("k")))).await, IN);
    server.api().delete(&link).await.expect(204);
    let link = add(&server, 10, json!({"jwt": {"jwks_url": url}})).await;
    assert_eq!(codes(&server, ("c", Some("u"), Some(&signed("k")))).await, BAD);
    let asked = server.api().get(&link).await.expect(200)["asked"].clone();
    assert_eq!((&asked["failures"], &asked["allowed"]), (&json!(2), &json!(0)), "{asked}");
    assert!(asked["last_failure"].as_str().is_some_and(|why| why.starts_with("the key set: ")), "{asked}");
    server.stop().await;
}

fn base64_url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// Connects over TLS, a secure WebSocket and QUIC with this certificate; gives the clients and their codes.
async fn knock_with(site: &Site, identity: Option<&Identity>, client_id: &str) -> Vec<(RawClient, u8)> {
    let ours = &site.files.authority;
    let over = |protocol| Arc::new(ours.trusting(identity, Some(protocol)));
    let address = |name| site.server.address(name);
    let mqtts = tls(address("mqtts"), SERVER_NAME, over("mqtt")).await.expect("a handshake");
    let wss = tls(address("wss"), SERVER_NAME, over("http/1.1")).await.expect("a handshake");
    let wss = websocket(wss, SERVER_NAME, "mqtt").await.expect("an upgrade");
    let quic = quic(address("quic"), SERVER_NAME, over("mqtt")).await.expect("a connection");
    let clients =
        [("mqtts", RawClient::over(mqtts)), ("wss", RawClient::over(wss)), ("quic", RawClient::over(quic))];
    let mut knocked = Vec::new();
    for (name, mut client) in clients {
        client.send_hex(&connect(V5, &format!("{client_id}-{name}"), None, None)).await;
        let connack = client.packet().await;
        knocked.push((client, connack[3]));
    }
    knocked
}

fn all(knocked: &[(RawClient, u8)]) -> Vec<u8> {
    knocked.iter().map(|(_, code)| *code).collect()
}

#[tokio::test]
async fn a_certificate_lets_in_whom_it_names_until_it_is_revoked() {
    let site = Site::start(&[]).await;
    site.server.api().patch(CLUSTER, json!({"allow_anonymous": false})).await.expect(200);
    let (tenants, stranger) = (Authority::new(), Authority::new());
    let (meter, foreign) = (tenants.client("meter-1"), stranger.client("meter-1"));
    // While no cluster wants one nobody is asked, and whoever has one is anonymous.
    assert_eq!(all(&knock_with(&site, Some(&meter), "x").await), [0x87; 3]);
    let link = add(&site.server, 10, json!({"tls": {"ca": tenants.pem()}})).await;
    let mut clients = knock_with(&site, Some(&meter), "m").await;
    assert_eq!(all(&clients), [0; 3]);
    for transport in ["mqtts", "wss", "quic"] {
        let record = session(&site.server, &format!("m-{transport}")).await;
        assert_eq!(record["username"], "meter-1", "{record}");
    }
    assert_eq!(all(&knock_with(&site, Some(&foreign), "f").await), [0x87; 3], "another authority");
    assert_eq!(all(&knock_with(&site, None, "n").await), [0x87; 3], "none");
    // A server's certificate is none for clients, and none of this authority.
    let ours = site.files.authority.client("meter-1");
    assert_eq!(all(&knock_with(&site, Some(&ours), "o").await), [0x87; 3], "the server's own authority");

    let current = site.server.api().get(&link).await;
    let body = json!({"position": 10, "tls": {"ca": tenants.pem(), "revoked": [meter.fingerprint()]}});
    site.server.api().put_over(&current, &link, body).await.expect(200);
    for (client, _) in &mut clients {
        let goodbye = client.packet().await;
        assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x98), "{}", hex(&goodbye));
    }
    assert_eq!(all(&knock_with(&site, Some(&meter), "m").await), [0x87; 3]);
    assert_eq!(all(&knock_with(&site, Some(&tenants.client("meter-2")), "m").await), [0; 3]);
    site.stop().await;
}

#[tokio::test]
async fn another_service_is_asked_and_each_of_its_answers_is_heeded() {
    let server = server().await;
    let outside = Outside::saying(&json!({"result": "allow"})).await;
    let fields = json!({"client": "${clientid}", "user": "${username}", "pass": "${password}", "from": "${peer}",
        "cluster": "${cluster}"});
    let http = json!({"url": format!("http://{}/auth?c=${{clientid}}", outside.address), "fields": fields,
        "headers": {"X-Key": "planted"}, "timeout_seconds": 1});
    let link = add(&server, 10, json!({"http": http})).await;
    let ada = ("a&b=c/d", Some("ada"), Some("pen cil"));
    assert_eq!(codes(&server, ada).await, IN);
    let asked = outside.asked().pop().expect("a request");
    assert_eq!((asked.method.as_str(), &*asked.uri), ("POST", "/auth?c=a%26b%3Dc%2Fd"));
    assert_eq!(asked.headers["x-key"], "planted");
    let told: Value = serde_json::from_str(&asked.body).expect("JSON");
    let expected = json!({"client": "a&b=c/d", "user": "ada", "pass": "pen cil", "from": "127.0.0.1",
        "cluster": "default"});
    assert_eq!(told, expected);

    let says = |status, body: &str| Manner::Says(status, body.to_owned());
    for (manner, expected) in [
        (says(204, ""), IN),
        (says(200, r#"{"result":"deny"}"#), DENIED),
        (says(200, r#"{"result":"ignore"}"#), BAD),
        (says(200, "no JSON"), BAD),
        (says(200, r#"{"result":"allow","acl":"?"}"#), BAD),
        (says(200, r#"{"result":"allow","expire_at":1}"#), DENIED),
        (says(401, r#"{"result":"allow"}"#), BAD),
        (says(302, ""), BAD),
        (says(500, ""), BAD),
        (Manner::Silent, BAD),
    ] {
        outside.be(manner.clone());
        assert_eq!(codes(&server, ada).await, expected, "{manner:?}");
    }
    // Everything that it says goes with the connection.
    let acl = json!({"result": "allow", "acl": {"subscribe": ["a"]}, "expire_at": in_secs(5.0).ceil()});
    outside.be(says(200, &acl.to_string().replace(".0", "")));
    let (mut client, let_in) = knock(&server, V5, ada).await;
    assert_eq!(let_in, 0);
    client.send_hex("82 ~ 0001 { } s'b' 00").await;
    assert_eq!(client.packet().await.last(), Some(&0x87));
    let goodbye = client.packet().await;
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x87), "{}", hex(&goodbye));

    // Dead: the chain goes on, and the link says what is wrong.
    drop(outside);
    assert_eq!(codes(&server, ada).await, BAD);
    let shown = server.api().get(&link).await.expect(200);
    let asked = &shown["asked"];
    assert_eq!(asked["last_failure"], "the connection failed", "{shown}");
    assert_eq!((&asked["allowed"], &asked["denied"]), (&json!(5), &json!(4)), "{shown}");
    // No JSON, an acl, 401, 302, 500, silent, dead: each twice.
    assert_eq!((&asked["failures"], &asked["ignored"]), (&json!(14), &json!(16)), "{shown}");
    let metrics = server.api().get("/metrics").await.text;
    let counted = r#"holdfast_authentications_total{cluster="default",kind="http",verdict="failed"} 14"#;
    assert!(metrics.lines().any(|found| found == counted), "{metrics}");
    server.stop().await;
}

#[tokio::test]
async fn links_are_asked_in_order_until_one_decides() {
    let server = server().await;
    server.api().put(&format!("{CLUSTER}/users/ada"), json!({"password": "pencil"})).await.expect(201);
    let outside = Outside::saying(&json!({"result": "deny"})).await;
    let http = json!({"url": format!("http://{}/", outside.address), "method": "GET"});
    let last = add(&server, 300, json!({"http": http})).await;
    add(&server, 200, by_secret()).await;
    let good = token(&json!({}));
    // The password's link is at 100: it decides for its users, and knows nothing of others.
    assert_eq!(codes(&server, ("c", Some("ada"), Some("pencil"))).await, IN);
    assert_eq!(codes(&server, ("c", Some("ada"), Some(&good))).await, IN);
    assert_eq!(outside.asked().len(), 0);
    // A wrong password and an unknown user look the same all along the chain.
    assert_eq!(codes(&server, ("c", Some("ada"), Some("wrong"))).await, DENIED);
    assert_eq!(codes(&server, ("c", Some("eve"), Some("wrong"))).await, DENIED);
    assert_eq!(outside.asked().len(), 4);
    // Put first, the other service decides on everybody, also on who says nothing.
    let current = server.api().get(&last).await;
    let http = json!({"url": format!("http://{}/", outside.address), "method": "GET"});
    server.api().put_over(&current, &last, json!({"position": 1, "http": http})).await.expect(200);
    assert_eq!(codes(&server, ("c", Some("ada"), Some("pencil"))).await, DENIED);
    outside.be(Manner::Says(204, String::new()));
    assert_eq!(codes(&server, ("c", None, None)).await, IN);
    // Disabled it is not asked.
    let current = server.api().get(&last).await;
    let http = json!({"url": format!("http://{}/", outside.address), "method": "GET"});
    let body = json!({"position": 1, "enabled": false, "http": http});
    let before = outside.asked().len();
    server.api().put_over(&current, &last, body).await.expect(200);
    assert_eq!(codes(&server, ("c", Some("ada"), Some("pencil"))).await, IN);
    assert_eq!((codes(&server, ("c", None, None)).await, outside.asked().len()), (DENIED, before));
    server.stop().await;
}

#[tokio::test]
async fn a_link_that_goes_takes_its_connections_along_and_no_others() {
    let server = server().await;
    server.api().put(&format!("{CLUSTER}/users/ada"), json!({"password": "pencil"})).await.expect(201);
    let link = add(&server, 10, by_secret()).await;
    let good = token(&json!({}));
    let (mut by_token, _) = knock(&server, V5, ("t", Some("u"), Some(&good))).await;
    let (mut by_token_v3, _) = knock(&server, V3, ("t3", Some("u"), Some(&good))).await;
    let (mut by_password, _) = knock(&server, V5, ("p", Some("ada"), Some("pencil"))).await;
    server.api().delete(&link).await.expect(204);
    let goodbye = by_token.packet().await;
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x98), "{}", hex(&goodbye));
    by_token_v3.expect_closed().await;
    by_password.send_hex("c0 00").await;
    by_password.expect_hex("d0 00").await;
    let reason = eventually("the record says why", PATIENCE, async || {
        let record = session(&server, "t").await;
        record["disconnect"]["reason"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(reason, "credentials_revoked");

    // The link of passwords is one as any other, and SCRAM is on and off with it.
    let chain = server.api().get(CHAIN).await.expect(200);
    assert_eq!(
        (&chain["items"][0]["kind"], &chain["items"][0]["position"]),
        (&json!("password"), &json!(100))
    );
    let path = format!("{CHAIN}/{}", chain["items"][0]["id"].as_str().expect("an id"));
    let off = json!({"position": 100, "enabled": false, "password": {}});
    server.api().put(&path, off).await.expect(200);
    let goodbye = by_password.packet().await;
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x98), "{}", hex(&goodbye));
    assert_eq!(codes(&server, ("p", Some("ada"), Some("pencil"))).await, BAD);
    let mut scram = RawClient::open(server.mqtt).await;
    scram.send_hex("10 ~ s'MQTT' 05 02 003c { 15 s'SCRAM-SHA-256' 16 s'n,,n=ada,r=abc' } s's'").await;
    assert_eq!(scram.packet().await[3], 0x8c);
    server.stop().await;
}
