//! Tokens of an external issuer: its keys come over HTTP, change, stay away, and are never taken for a secret.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast::clock::Clock;
use holdfast::config::{self, KeySource, TokenAlgorithms};
use holdfast::control_plane::bearers::Bearers;
use holdfast::control_plane::issuer::{ExternalIssuer, Pace};
use holdfast::outbound::{HttpClient, Reach};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use rcgen::KeyPair;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::support::api::{Answer, Api};

const ISSUER: &str = "https://id.example";

/// A key of the issuer.
struct SigningKey {
    kid: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
    public_pem: String,
    public_raw: Vec<u8>,
}

impl SigningKey {
    fn make(kid: &'static str, algorithm: Algorithm) -> Self {
        let signature = match algorithm {
            Algorithm::RS256 => &rcgen::PKCS_RSA_SHA256,
            Algorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            _ => &rcgen::PKCS_ED25519,
        };
        let pair = KeyPair::generate_for(signature).expect("a key");
        let pem = pair.serialize_pem();
        let key = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
            _ => EncodingKey::from_ed_pem(pem.as_bytes()),
        };
        Self {
            kid,
            algorithm,
            key: key.expect("a key"),
            public_pem: pair.public_key_pem(),
            public_raw: pair.public_key_raw().to_vec(),
        }
    }

    fn public(&self) -> Value {
        if self.algorithm == Algorithm::EdDSA {
            let x = URL_SAFE_NO_PAD.encode(&self.public_raw);
            return json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": x});
        }
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).expect("a public key");
        jwk.common.key_id = Some(self.kid.to_owned());
        serde_json::to_value(jwk).expect("json")
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.to_owned()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).expect("a token")
    }
}

/// What the issuer's server answers, and how often it was asked.
#[derive(Default)]
struct Served {
    answer: Mutex<(StatusCode, String)>,
    asked: AtomicUsize,
}

impl Served {
    fn keys(&self, keys: &[&SigningKey]) {
        let keys: Vec<_> = keys.iter().map(|key| key.public()).collect();
        *self.answer.lock() = (StatusCode::OK, json!({"keys": keys}).to_string());
    }

    fn fails(&self) {
        *self.answer.lock() = (StatusCode::BAD_GATEWAY, String::new());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// An API that takes the tokens of an issuer whose server this is.
async fn with_issuer(served: &Arc<Served>, pace: Pace) -> (Api, CancellationToken) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
    let handler = |State(served): State<Arc<Served>>| async move {
        served.asked.fetch_add(1, Ordering::SeqCst);
        served.answer.lock().clone()
    };
    let router = axum::Router::new().route("/keys", get(handler)).with_state(Arc::clone(served));
    tokio::spawn(async move { axum::serve(listener, router).await.expect("serve") });
    api_with(KeySource::Url(url.parse().expect("a URL")), pace).await
}

async fn api_with(keys: KeySource, pace: Pace) -> (Api, CancellationToken) {
    let settings =
        config::ExternalIssuer { keys, issuer: ISSUER.to_owned(), audience: "holdfast-api".to_owned() };
    let http = HttpClient::new(None, Reach::Anywhere).expect("a client");
    let algorithms = TokenAlgorithms::default();
    let issuer = Arc::new(ExternalIssuer::new(settings, algorithms, http, Clock::new(), pace));
    let stop = CancellationToken::new();
    tokio::spawn({
        let (issuer, stop) = (Arc::clone(&issuer), stop.clone());
        async move { issuer.run(stop).await }
    });
    let bearers = Bearers::new(Some(super::support::api::own_tokens()), Some(issuer));
    (Api::start_with(|state| state.judged_by(bearers)).await.and_clusters(&["c", "d"]).await, stop)
}

/// Asked for again at once, whoever wishes it.
fn eager() -> Pace {
    Pace { at_least: Duration::ZERO, ..Pace::default() }
}

fn claims(api: &Api) -> Value {
    let now = api.clock.wall().as_millis() / 1_000;
    json!({
        "iss": ISSUER, "aud": ["other", "holdfast-api"], "exp": now + 60, "nbf": now, "sub": "grace",
        "role": "admin",
    })
}

async fn ask(api: &Api, token: &str) -> Answer {
    api.with_token(token).get("/v1/clusters").await
}

#[tokio::test]
async fn each_kind_of_signature_is_accepted_and_says_who_calls() {
    let served = Arc::new(Served::default());
    let keys = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    let keys: Vec<_> = ["r", "e", "d"]
        .into_iter()
        .zip(keys)
        .map(|(kid, algorithm)| SigningKey::make(kid, algorithm))
        .collect();
    served.keys(&keys.iter().collect::<Vec<_>>());
    let (api, _) = with_issuer(&served, Pace::default()).await;
    for key in &keys {
        ask(&api, &key.sign(&claims(&api))).await.expect(200);
        let mut bound = claims(&api);
        bound["cluster"] = json!("c");
        bound["role"] = json!("viewer");
        bound.as_object_mut().expect("an object").remove("nbf");
        let tenant = key.sign(&bound);
        let page = ask(&api, &tenant).await.expect(200);
        assert_eq!(page["items"].as_array().map(Vec::len), Some(1), "{page}");
        let caller = api.with_token(&tenant);
        caller.get("/v1/clusters/d").await.expect_problem("cluster_not_found");
        caller.delete("/v1/clusters/c").await.expect_problem("forbidden");
    }
    assert_eq!(served.asked(), 1, "the keys are remembered");
    let admin = api.with_token(&keys[0].sign(&claims(&api)));
    admin.patch("/v1/clusters/c", &json!({"name": "x"})).await.expect(200);
    let audit = api.admin().get("/v1/audit-log").await.expect(200);
    assert!(audit["items"].as_array().expect("items").iter().any(|row| row["actor"] == "grace"), "{audit}");
}

#[tokio::test]
async fn every_claim_is_needed_and_checked() {
    let served = Arc::new(Served::default());
    let key = SigningKey::make("k", Algorithm::ES256);
    served.keys(&[&key]);
    let (api, _) = with_issuer(&served, Pace::default()).await;
    let now = api.clock.wall().as_millis() / 1_000;
    for claim in ["iss", "aud", "exp", "sub", "role"] {
        let mut body = claims(&api);
        body.as_object_mut().expect("an object").remove(claim);
        ask(&api, &key.sign(&body)).await.expect_problem("token_invalid");
    }
    for (claim, value, code) in [
        ("iss", json!("holdfast"), "token_invalid"),
        ("aud", json!("other"), "token_invalid"),
        ("exp", json!(now), "token_expired"),
        ("nbf", json!(now + 60), "token_invalid"),
        ("role", json!("root"), "token_invalid"),
        ("cluster", json!("Not A Cluster"), "token_invalid"),
    ] {
        let mut body = claims(&api);
        body[claim] = value;
        ask(&api, &key.sign(&body)).await.expect_problem(code);
    }
    ask(&api, &key.sign(&claims(&api))).await.expect(200);
}

#[tokio::test]
async fn a_new_key_is_fetched_and_an_old_one_forgotten() {
    let served = Arc::new(Served::default());
    let (old, new) = (SigningKey::make("old", Algorithm::ES256), SigningKey::make("new", Algorithm::EdDSA));
    served.keys(&[&old]);
    let (api, _) = with_issuer(&served, eager()).await;
    ask(&api, &old.sign(&claims(&api))).await.expect(200);
    served.keys(&[&new]);
    ask(&api, &old.sign(&claims(&api))).await.expect(200);
    ask(&api, &new.sign(&claims(&api))).await.expect(200);
    ask(&api, &old.sign(&claims(&api))).await.expect_problem("token_invalid");

    // While the keys cannot be read the last ones are used.
    served.fails();
    ask(&api, &old.sign(&claims(&api))).await.expect_problem("token_invalid");
    ask(&api, &new.sign(&claims(&api))).await.expect(200);
}

#[tokio::test]
async fn strangers_cannot_have_the_keys_read_at_will() {
    let served = Arc::new(Served::default());
    let key = SigningKey::make("k", Algorithm::ES256);
    served.keys(&[&key]);
    let (api, _) = with_issuer(&served, Pace::default()).await;
    ask(&api, &key.sign(&claims(&api))).await.expect(200);
    let stranger = SigningKey::make("unknown", Algorithm::ES256);
    for _ in 0..20 {
        ask(&api, &stranger.sign(&claims(&api))).await.expect_problem("token_invalid");
    }
    assert_eq!(served.asked(), 1);
}

#[tokio::test]
async fn an_issuer_that_is_away_is_told_and_does_not_keep_others_out() {
    let served = Arc::new(Served::default());
    served.fails();
    let (api, _) = with_issuer(&served, Pace::default()).await;
    let key = SigningKey::make("k", Algorithm::ES256);
    ask(&api, &key.sign(&claims(&api))).await.expect_problem("keys_unavailable");
    api.admin().get("/v1/clusters").await.expect(200);
    // Nothing listens there.
    assert_eq!(answered_without_keys().await["status"], 503);
}

/// What is answered to a good token whose issuer cannot be asked for its keys.
pub(crate) async fn answered_without_keys() -> Value {
    let nobody = KeySource::Url("http://127.0.0.1:9/keys".parse().expect("a URL"));
    let (api, _) = api_with(nobody, Pace::default()).await;
    let key = SigningKey::make("k", Algorithm::ES256);
    ask(&api, &key.sign(&claims(&api))).await.expect_problem("keys_unavailable")
}

#[tokio::test]
async fn keys_that_are_too_old_are_used_no_more() {
    let served = Arc::new(Served::default());
    let key = SigningKey::make("k", Algorithm::ES256);
    served.keys(&[&key]);
    let pace = Pace { stale_max: Duration::ZERO, ..Pace::default() };
    let (api, _) = with_issuer(&served, pace).await;
    let mut answer = ask(&api, &key.sign(&claims(&api))).await;
    // Within the millisecond in which they were read they are fresh.
    while answer.status == 200 {
        answer = ask(&api, &key.sign(&claims(&api))).await;
    }
    answer.expect_problem("keys_unavailable");
}

#[tokio::test]
async fn keys_come_from_a_file_too() {
    let key = SigningKey::make("k", Algorithm::EdDSA);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), json!({"keys": [key.public()]}).to_string()).expect("written");
    let (api, _) = api_with(KeySource::File(file.path().to_owned()), Pace::default()).await;
    ask(&api, &key.sign(&claims(&api))).await.expect(200);
}

#[tokio::test]
async fn a_public_key_is_no_secret_and_no_algorithm_is_the_tokens_choice() {
    let served = Arc::new(Served::default());
    let (rsa, ec) = (SigningKey::make("rsa", Algorithm::RS256), SigningKey::make("ec", Algorithm::ES256));
    served.keys(&[&rsa, &ec]);
    let (api, _) = with_issuer(&served, Pace::default()).await;
    let body = claims(&api);
    // HS256 "signed" with what everybody knows: the public key in each of its forms.
    let jwk = rsa.public();
    let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().expect("a modulus")).expect("base64");
    for secret in [rsa.public_pem.as_bytes(), jwk.to_string().as_bytes(), &modulus] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let header = Header { kid: Some("rsa".to_owned()), ..Header::new(algorithm) };
            let token =
                jsonwebtoken::encode(&header, &body, &EncodingKey::from_secret(secret)).expect("a token");
            ask(&api, &token).await.expect_problem("token_invalid");
        }
    }
    // A good signature under another key's name, under none, or by an algorithm that is not allowed.
    let under =
        |header: Header, key: &SigningKey| jsonwebtoken::encode(&header, &body, &key.key).expect("a token");
    let named = |kid: &str, algorithm| Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) };
    for token in [
        under(named("ec", Algorithm::RS256), &rsa),
        under(named("rsa", Algorithm::RS512), &rsa),
        under(named("rsa", Algorithm::PS256), &rsa),
        under(Header::new(Algorithm::RS256), &rsa),
        under(Header { crit: Some(vec!["b64".to_owned()]), ..named("rsa", Algorithm::RS256) }, &rsa),
        SigningKey::make("rsa", Algorithm::RS256).sign(&body),
    ] {
        ask(&api, &token).await.expect_problem("token_invalid");
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for algorithm in ["none", "None", "NONE", ""] {
        let header = part(&json!({"alg": algorithm, "kid": "rsa"}));
        ask(&api, &format!("{header}.{}.", part(&body))).await.expect_problem("token_invalid");
    }
    let good = rsa.sign(&body);
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let changed =
        signed.replacen(signed.split('.').nth(1).expect("a body"), &part(&json!({"sub": "mallory"})), 1);
    ask(&api, &format!("{changed}.{signature}")).await.expect_problem("token_invalid");
    ask(&api, &format!("{signed}.")).await.expect_problem("token_invalid");
    ask(&api, &"x".repeat(20_000)).await.expect_problem("token_invalid");
    ask(&api, &good).await.expect(200);
}

#[tokio::test]
async fn an_algorithm_that_is_not_allowed_is_refused_before_any_key_is_looked_at() {
    let bearers = Bearers::new(None, None);
    let api = Api::start_with(|state| state.judged_by(bearers)).await;
    api.admin().get("/v1/clusters").await.expect_problem("token_invalid");
    let key = SigningKey::make("k", Algorithm::ES256);
    ask(&api, &key.sign(&claims(&api))).await.expect_problem("token_invalid");
}
