//! Authenticators over HTTP: the record, its conditions, that settings which cannot work are refused with a
//! pointer, and that a secret goes in and never comes out.

use holdfast::model::{AuthenticatorSettings, JwtKey};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::pki::Authority;
use crate::support::sessions::cluster_id;

const CHAIN: &str = "/v1/clusters/c/authenticators";
const SECRET: &str = "a secret that is as long as a hash is";

/// The settings that the data plane is told, in order.
fn told(api: &Api) -> Vec<AuthenticatorSettings> {
    let chain = api.desired.borrow().clusters[&cluster_id("c")].authenticators.clone();
    chain.enabled().map(|link| link.settings.clone()).collect()
}

/// The secrets that the data plane is told.
fn secrets(api: &Api) -> Vec<String> {
    let secret = |settings| match settings {
        AuthenticatorSettings::Jwt(jwt) => match jwt.key {
            JwtKey::Secret { secret, .. } => vec![secret.expose().to_owned()],
            _ => Vec::new(),
        },
        AuthenticatorSettings::Http(http) => {
            http.headers.values().map(|value| value.expose().to_owned()).collect()
        }
        _ => Vec::new(),
    };
    told(api).into_iter().flat_map(secret).collect()
}

fn path_of(link: &Value) -> String {
    format!("{CHAIN}/{}", link["id"].as_str().expect("an id"))
}

#[tokio::test]
async fn a_cluster_begins_with_its_users_and_gets_further_links() {
    let api = Api::with_clusters(&["c", "d"]).await;
    let admin = api.admin();
    let first = admin.get(CHAIN).await.expect(200);
    insta::assert_json_snapshot!("first_authenticator", first["items"], {
        "[].id" => "[id]", "[].created_at" => "[time]", "[].updated_at" => "[time]",
    });
    let body = json!({"position": 7, "description": "the fleet's", "jwt": {"secret": SECRET}});
    let made = admin.post(CHAIN, &body).await;
    insta::assert_json_snapshot!("authenticator", made.expect(201), {
        ".id" => "[id]", ".created_at" => "[time]", ".updated_at" => "[time]",
    });
    assert_eq!(made.header("location"), path_of(&made.json()));
    assert_eq!(secrets(&api), [SECRET], "in force when it is answered");
    let read = admin.get(&path_of(&made.json())).await;
    assert_eq!((read.expect(200), read.etag()), (made.json(), made.etag()));
    // The list is in the order in which they are asked, and another cluster's is its own.
    let list = admin.get(&format!("{CHAIN}?page_size=1")).await.expect(200);
    assert_eq!(list["items"][0]["kind"], "jwt");
    let token = list["next_page_token"].as_str().expect("another page").to_owned();
    let list = admin.get(&format!("{CHAIN}?page_size=1&page_token={token}")).await.expect(200);
    assert_eq!((&list["items"][0]["kind"], &list["next_page_token"]), (&json!("password"), &Value::Null));
    let other = admin.get("/v1/clusters/d/authenticators").await.expect(200);
    assert_eq!(other["items"].as_array().map(Vec::len), Some(1));
    admin.get("/v1/clusters/none/authenticators").await.expect_problem("cluster_not_found");

    admin.delete(&path_of(&made.json())).await.expect(204);
    admin.delete(&path_of(&made.json())).await.expect_problem("authenticator_not_found");
    assert_eq!(told(&api).len(), 1);
}

#[tokio::test]
async fn a_secret_that_is_not_sent_again_stays() {
    let api = Api::with_clusters(&["c"]).await;
    let admin = api.admin();
    let body = json!({"position": 1, "jwt": {"secret": SECRET}});
    let jwt = path_of(&admin.post(CHAIN, &body).await.expect(201));
    let changed = admin.put(&jwt, &json!({"position": 2, "jwt": {"claims": {"aud": "x"}}})).await;
    let changed = changed.expect(200);
    assert_eq!((&changed["jwt"]["has_secret"], &changed["version"]), (&json!(true), &json!(2)));
    let http = json!({"url": "https://a.example/", "headers": {"Authorization": "Bearer planted", "x": "y"}});
    let link = admin.post(CHAIN, &json!({"position": 3, "http": http})).await.expect(201);
    let shown = &link["http"]["headers"];
    assert_eq!(shown, &json!({"authorization": null, "x": null}));
    let http = json!({"url": "https://b.example/", "headers": {"authorization": null}});
    admin.put(&path_of(&link), &json!({"position": 3, "http": http})).await.expect(200);
    assert_eq!(secrets(&api), [SECRET, "Bearer planted"]);
    // A conditional change is made to what was read.
    let stale = admin.header("if-match", "\"x\"").put(&jwt, &json!({"position": 2, "jwt": {}})).await;
    stale.expect_problem("precondition_failed");
    // Another key takes its place, and one of its kind it stays.
    let pem = KeyPair::generate_for(&PKCS_ED25519).expect("a key").public_key_pem();
    let body = json!({"position": 2, "jwt": {"public_key": pem}});
    let changed = admin.put(&jwt, &body).await.expect(200);
    assert_eq!((&changed["jwt"]["public_key"], &changed["jwt"]["has_secret"]), (&json!(pem), &json!(false)));
    let other_kind = admin.put(&jwt, &json!({"position": 2, "password": {}})).await;
    let problem = other_kind.expect_problem("invalid_body");
    assert_eq!(problem["errors"][0]["pointer"], "#/password");
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_and_pointed_at() {
    let api = Api::with_clusters(&["c"]).await;
    let private = KeyPair::generate().expect("a key");
    let own = CertificateParams::default().self_signed(&private).expect("a certificate").pem();
    let http = |more: Value| {
        let mut http = json!({"url": "https://a.example/"});
        http.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({"http": http})
    };
    let jwt = |jwt: Value| json!({"jwt": jwt});
    for (settings, pointer) in [
        (json!({}), ""),
        (json!({"password": {}, "jwt": {"secret": SECRET}}), ""),
        (json!({"password": {"more": 1}}), "/password/more"),
        (json!({"password": {}, "position": 1_000_001}), "/position"),
        (jwt(json!({})), "/jwt"),
        (jwt(json!({"secret": SECRET, "jwks_url": "https://a.example/"})), "/jwt"),
        (jwt(json!({"secret": "too short"})), "/jwt/secret"),
        (jwt(json!({"secret": 7_777_777})), "/jwt/secret"),
        (jwt(json!({"secret": "planted%", "secret_is_base64": true})), "/jwt/secret"),
        (jwt(json!({"secret": SECRET, "algorithms": ["RS256"]})), "/jwt/algorithms"),
        (jwt(json!({"secret": SECRET, "algorithms": ["none"]})), "/jwt/algorithms/0"),
        (jwt(json!({"public_key": "no PEM"})), "/jwt/public_key"),
        (jwt(json!({"public_key": private.serialize_pem()})), "/jwt/public_key"),
        (jwt(json!({"jwks": {"keys": []}})), "/jwt/jwks"),
        (jwt(json!({"jwks_url": "ftp://a"})), "/jwt/jwks_url"),
        (jwt(json!({"secret": SECRET, "claims": {"a": "${x}"}})), "/jwt/claims/a"),
        (jwt(json!({"secret": SECRET, "claims": {"a": "${password}"}})), "/jwt/claims"),
        (jwt(json!({"secret": SECRET, "username_claim": ""})), "/jwt/username_claim"),
        (json!({"tls": {"ca": "no PEM"}}), "/tls/ca"),
        (json!({"tls": {"ca": private.serialize_pem()}}), "/tls/ca"),
        (json!({"tls": {"ca": own, "revoked": ["ab"]}}), "/tls/revoked/0"),
        (http(json!({"url": "https://${clientid}/"})), "/http/url"),
        (http(json!({"url": "https://a.example/${x}"})), "/http/url"),
        (http(json!({"url": "a.example"})), "/http/url"),
        (http(json!({"fields": {"a": "${"}})), "/http/fields/a"),
        (http(json!({"headers": {"Host": "b"}})), "/http/headers/Host"),
        (http(json!({"headers": {"a b": "c"}})), "/http/headers/a b"),
        (http(json!({"headers": {"a": "planted\n"}})), "/http/headers/a"),
        (http(json!({"headers": {"a": null}})), "/http/headers/a"),
        (http(json!({"headers": {"a": 7_777_777}})), "/http/headers"),
        (http(json!({"method": "GET", "fields": {"a": "b"}})), "/http/method"),
        (http(json!({"timeout_seconds": 6})), "/http/timeout_seconds"),
        (http(json!({"requests_max": 0})), "/http/requests_max"),
    ] {
        let mut body = settings.clone();
        if body["position"].is_null() {
            body["position"] = json!(1);
        }
        let answer = api.admin().post(CHAIN, &body).await;
        let problem = answer.expect_problem("invalid_body");
        let found = problem["errors"][0]["pointer"].as_str().and_then(|found| found.strip_prefix('#'));
        assert_eq!(found, Some(pointer), "{settings}: {problem}");
        for secret in [SECRET, "planted", "7777777", "PRIVATE"] {
            assert!(!problem.to_string().contains(secret), "{problem}");
        }
    }
    assert_eq!(told(&api).len(), 1);
    // What can work is taken.
    let ca = Authority::new();
    for (position, settings) in
        [json!({"tls": {"ca": ca.pem()}}), http(json!({"encoding": "form"}))].into_iter().enumerate()
    {
        let mut body = settings;
        body["position"] = json!(position);
        api.admin().post(CHAIN, &body).await.expect(201);
    }
}
