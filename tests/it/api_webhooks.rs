//! Webhooks: what they are sent, signed, in which order, and what becomes of what they do not take.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, verify};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast::config::WebhookTargets;
use holdfast::control_plane::background::cleaner;
use holdfast::control_plane::background::webhooks::{Deliverer, Pace};
use holdfast::outbound::{HttpClient, Reach};
use parking_lot::Mutex;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::support::api::Api;
use super::support::sessions::{T, commit, offline, put, row, subscribe};
use super::support::{PATIENCE, eventually};

const WEBHOOKS: &str = "/v1/clusters/c/webhooks";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";

/// One request that a receiver got.
#[derive(Clone)]
struct Received {
    headers: HeaderMap,
    body: String,
}

impl Received {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("json")
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().expect("a text")
    }

    /// As a receiver checks it, with nothing of ours.
    fn is_signed_by(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.trim_start_matches("whsec_")).expect("base64");
        let signature = self.header("webhook-signature").strip_prefix("v1,").expect("a version");
        let signed =
            format!("{}.{}.{}", self.header("webhook-id"), self.header("webhook-timestamp"), self.body);
        let key = Key::new(HMAC_SHA256, &key);
        verify(&key, signed.as_bytes(), &STANDARD.decode(signature).expect("base64")).is_ok()
    }
}

/// Somebody who takes webhooks: all that came, and what is answered next; 204 when nothing is said.
#[derive(Default)]
struct Receiver {
    got: Mutex<Vec<Received>>,
    answers: Mutex<VecDeque<u16>>,
}

impl Receiver {
    async fn start() -> (Arc<Self>, String) {
        let (receiver, address) = Self::at(SocketAddr::from(([127, 0, 0, 1], 0))).await;
        (receiver, format!("http://{address}/hook?x=1"))
    }

    async fn at(address: SocketAddr) -> (Arc<Self>, SocketAddr) {
        let receiver = Arc::new(Self::default());
        let listener = tokio::net::TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let handler = |State(receiver): State<Arc<Self>>, headers: HeaderMap, body: String| async move {
            receiver.got.lock().push(Received { headers, body });
            let status = receiver.answers.lock().pop_front().unwrap_or(204);
            StatusCode::from_u16(status).expect("a status")
        };
        let router = axum::Router::new().route("/hook", post(handler)).with_state(Arc::clone(&receiver));
        tokio::spawn(async move { axum::serve(listener, router).await.expect("serve") });
        (receiver, address)
    }

    fn answers(&self, statuses: &[u16]) {
        self.answers.lock().extend(statuses);
    }

    /// So many requests, when they have come.
    async fn got(&self, count: usize) -> Vec<Received> {
        let come = || self.got.lock().clone();
        eventually("requests came", PATIENCE, async || (come().len() >= count).then(come)).await
    }
}

fn seqs(received: &[Received]) -> Vec<i64> {
    received.iter().map(|request| request.json()["data"]["seq"].as_i64().expect("a number")).collect()
}

/// An API that takes webhooks anywhere.
async fn api() -> Api {
    let api = Api::start_with(|state| state.with_webhooks_at(WebhookTargets::Any)).await;
    api.and_clusters(&["c", "d"]).await
}

/// Tries again at once, three times; twice what is refused.
fn eager() -> Pace {
    Pace {
        first_pause: Duration::ZERO,
        attempts_max: 3,
        refusals_max: 2,
        poll: Duration::from_millis(5),
        ..Pace::default()
    }
}

/// Delivers until dropped.
struct Delivering {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Delivering {
    fn start(api: &Api, reach: Reach) -> Self {
        let http = HttpClient::new(None, reach).expect("a client");
        let deliverer = Arc::new(Deliverer::new(api.store.clone(), api.clock.clone(), http, eager()));
        let stop = CancellationToken::new();
        Self { task: tokio::spawn(deliverer.run(stop.clone())), stop }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("it ends");
    }
}

async fn make(api: &Api, body: &Value) -> Value {
    api.admin().post(WEBHOOKS, body).await.expect(201)["webhook"].clone()
}

/// The webhook's delivery, once it is as wished.
async fn delivery(api: &Api, id: &Value, wished: impl Fn(&Value) -> bool) -> Value {
    let path = format!("{WEBHOOKS}/{}", id.as_str().expect("an id"));
    eventually("the delivery is as wished", PATIENCE, async || {
        let delivery = api.admin().get(&path).await.expect(200)["delivery"].clone();
        wished(&delivery).then_some(delivery)
    })
    .await
}

#[tokio::test]
async fn events_come_signed_in_order_and_once() {
    let api = api().await;
    commit(&api.store, &[put(row(9, "before"))]).await;
    let (receiver, url) = Receiver::start().await;
    let webhook = make(&api, &json!({"name": "n", "url": url, "secret": SECRET})).await;
    let delivering = Delivering::start(&api, Reach::Anywhere);
    commit(&api.store, &[put(row(1, "meter")), subscribe(1, "x/+")]).await;
    commit(&api.store, &[put(offline(row(1, "meter"), T))]).await;

    let got = receiver.got(4).await;
    let history = api.admin().get("/v1/clusters/c/sessions/meter/history").await.expect(200);
    let mut events = history["items"].as_array().expect("items").clone();
    events.reverse();
    for (request, event) in got.iter().zip(&events) {
        let kind = event["kind"].as_str().expect("a kind");
        let expected = json!({"type": format!("session.{kind}"), "timestamp": event["at"], "data": event});
        assert_eq!(request.json(), expected);
        assert_eq!(request.header("content-type"), "application/json");
        let id = format!("c.{}.{}", webhook["id"].as_str().expect("an id"), event["seq"]);
        assert_eq!(request.header("webhook-id"), id);
        assert!(request.is_signed_by(SECRET) && !request.is_signed_by("whsec_AAAA"));
        let now = api.clock.wall().as_millis() / 1_000;
        let sent: i64 = request.header("webhook-timestamp").parse().expect("seconds");
        assert!((now - 60..=now).contains(&sent));
    }
    assert_eq!(seqs(&got), [3, 4, 5, 6], "what was before the webhook is not sent");
    let shown = delivery(&api, &webhook["id"], |delivery| delivery["lag"] == 0).await;
    assert_eq!((&shown["position"], &shown["dead_letters"]), (&json!(6), &json!(0)));
    assert!(shown["last_delivered_at"].is_string() && shown["last_error"].is_null());

    // The position survives a restart: nothing is missed and nothing comes twice.
    delivering.end().await;
    commit(&api.store, &[put(row(2, "other"))]).await;
    let _delivering = Delivering::start(&api, Reach::Anywhere);
    assert_eq!(seqs(&receiver.got(6).await), [3, 4, 5, 6, 7, 8]);
}

#[tokio::test]
async fn a_failure_holds_the_next_event_back_until_it_is_delivered() {
    let api = api().await;
    let (receiver, url) = Receiver::start().await;
    let webhook = make(&api, &json!({"name": "n", "url": url})).await;
    receiver.answers(&[204, 503, 500]);
    let _delivering = Delivering::start(&api, Reach::Anywhere);
    commit(&api.store, &[put(row(1, "a")), put(row(2, "b"))]).await;
    let got = receiver.got(6).await;
    assert_eq!(seqs(&got), [1, 2, 2, 2, 3, 4]);
    assert_eq!(got[1].header("webhook-id"), got[3].header("webhook-id"));
    let shown = delivery(&api, &webhook["id"], |delivery| delivery["lag"] == 0).await;
    assert_eq!((&shown["attempts"], &shown["last_error"]), (&json!(0), &Value::Null));
}

#[tokio::test]
async fn what_is_given_up_is_kept_and_tried_again_when_asked() {
    let api = api().await;
    let (receiver, url) = Receiver::start().await;
    let webhook = make(&api, &json!({"name": "n", "url": url})).await;
    let id = webhook["id"].as_str().expect("an id");
    // The first event is refused twice, the second not taken three times, the rest is.
    receiver.answers(&[400, 400, 503, 503, 503]);
    let _delivering = Delivering::start(&api, Reach::Anywhere);
    commit(&api.store, &[put(row(1, "a")), put(row(2, "b"))]).await;
    assert_eq!(seqs(&receiver.got(7).await), [1, 1, 2, 2, 2, 3, 4]);
    delivery(&api, &webhook["id"], |delivery| delivery["dead_letters"] == 2 && delivery["lag"] == 0).await;

    let letters = format!("{WEBHOOKS}/{id}/dead-letters");
    let page = api.admin().get(&format!("{letters}?page_size=1")).await.expect(200);
    let first = &page["items"][0];
    assert_eq!((&first["seq"], &first["attempts"], &first["retry"]), (&json!(1), &json!(2), &json!(false)));
    assert_eq!(first["error"], "the receiver answered 400 Bad Request");
    assert_eq!(first["body"]["data"]["seq"], 1);
    let token = page["next_page_token"].as_str().expect("a token");
    let rest = api.admin().get(&format!("{letters}?page_size=1&page_token={token}")).await.expect(200);
    assert_eq!((&rest["items"][0]["seq"], &rest["items"][0]["attempts"]), (&json!(2), &json!(3)));

    receiver.answers(&[500]);
    let retried = api.admin().post(&format!("{letters}/retry?seq=2"), &json!({})).await.expect(200);
    assert_eq!(retried["retried"], 1);
    assert_eq!(seqs(&receiver.got(8).await)[7], 2);
    eventually("it is dead again", PATIENCE, async || {
        let page = api.admin().get(&letters).await.expect(200);
        (page["items"][1]["attempts"] == 4 && page["items"][1]["retry"] == false).then_some(())
    })
    .await;
    let retried = api.admin().post(&format!("{letters}/retry"), &json!({})).await.expect(200);
    assert_eq!(retried["retried"], 2);
    delivery(&api, &webhook["id"], |delivery| delivery["dead_letters"] == 0).await;
    assert_eq!(seqs(&receiver.got(10).await)[8..], [1, 2]);
    assert_eq!(api.admin().post(&format!("{letters}/retry"), &json!({})).await.expect(200)["retried"], 0);
}

#[tokio::test]
async fn a_receiver_that_is_away_gets_all_when_it_returns() {
    let api = api().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let http = HttpClient::new(None, Reach::Anywhere).expect("a client");
    // Nothing is given up while it is away.
    let pace = Pace { attempts_max: u32::MAX, ..eager() };
    let deliverer = Arc::new(Deliverer::new(api.store.clone(), api.clock.clone(), http, pace));
    tokio::spawn(deliverer.run(CancellationToken::new()));
    let webhook = make(&api, &json!({"name": "n", "url": format!("http://{free}/hook")})).await;
    commit(&api.store, &[put(row(1, "a"))]).await;
    let shown = delivery(&api, &webhook["id"], |delivery| delivery["attempts"].as_u64() > Some(2)).await;
    assert_eq!((&shown["lag"], &shown["dead_letters"]), (&json!(2), &json!(0)));
    assert!(shown["last_error"].as_str().expect("an error").starts_with("the connection failed: "));
    let (receiver, _) = Receiver::at(free).await;
    assert_eq!(seqs(&receiver.got(2).await), [1, 2]);
}

#[tokio::test]
async fn only_the_kinds_that_are_wanted_come_and_none_while_disabled() {
    let api = api().await;
    let (receiver, url) = Receiver::start().await;
    let webhook =
        make(&api, &json!({"name": "n", "url": url, "kinds": ["detached"], "enabled": false})).await;
    let path = format!("{WEBHOOKS}/{}", webhook["id"].as_str().expect("an id"));
    let _delivering = Delivering::start(&api, Reach::Anywhere);
    commit(&api.store, &[put(row(1, "a"))]).await;
    commit(&api.store, &[put(offline(row(1, "a"), T))]).await;
    commit(&api.store, &[put(row(2, "b"))]).await;
    let (other, other_url) = Receiver::start().await;
    let read = api.admin().get(&path).await;
    let change = json!({"enabled": true, "url": other_url, "secret": SECRET});
    api.admin()
        .header("if-match", "\"0.0\"")
        .patch(&path, &change)
        .await
        .expect_problem("precondition_failed");
    let changed = api.admin().header("if-match", read.etag()).patch(&path, &change).await;
    assert_eq!((&changed.expect(200)["version"], changed.etag() == read.etag()), (&json!(2), false));
    let got = other.got(1).await;
    assert_eq!((seqs(&got), got[0].is_signed_by(SECRET)), (vec![3], true));
    delivery(&api, &webhook["id"], |delivery| delivery["lag"] == 0).await;
    assert_eq!((receiver.got.lock().len(), other.got.lock().len()), (0, 1));
    let all = api.admin().patch(&path, &json!({"kinds": null})).await.expect(200);
    assert_eq!(all["kinds"], Value::Null);
    api.admin().delete(&path).await.expect(204);
    api.admin().get(&path).await.expect_problem("webhook_not_found");
}

#[tokio::test]
async fn events_that_are_no_longer_kept_are_counted() {
    let api = api().await;
    let (receiver, url) = Receiver::start().await;
    let webhook = make(&api, &json!({"name": "n", "url": url})).await;
    commit(&api.store, &[put(row(1, "a"))]).await;
    let month = i64::try_from(cleaner::EVENT_AGE_MAX.as_millis()).expect("a number");
    api.clock.jump_millis(month + 60_000);
    cleaner::clean(&api.store, api.clock.wall()).await.expect("cleaned");
    let now = api.clock.wall();
    let late = holdfast::seam::ports::SessionRow { created_at: now, connected_at: Some(now), ..row(2, "b") };
    commit(&api.store, &[put(late)]).await;
    let _delivering = Delivering::start(&api, Reach::Anywhere);
    assert_eq!(seqs(&receiver.got(2).await), [3, 4]);
    let shown = delivery(&api, &webhook["id"], |delivery| delivery["lag"] == 0).await;
    assert_eq!(shown["missed"], 2);
}

#[tokio::test]
async fn nothing_leaves_for_an_address_that_is_not_public() {
    let api = Api::with_clusters(&["c"]).await;
    for url in [
        "http://hooks.example/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "ftp://hooks.example/",
        "https://ada:pw@hooks.example/",
        "x",
    ] {
        let problem = api.admin().post(WEBHOOKS, &json!({"name": "n", "url": url})).await;
        assert_eq!(problem.expect_problem("invalid_body")["errors"][0]["pointer"], "#/url", "{url}");
    }
    make(&api, &json!({"name": "n", "url": "https://hooks.example/"})).await;

    // What a name resolves to is judged when it is asked, also where the setting was another when it was made.
    let api = self::api().await;
    let (receiver, url) = Receiver::start().await;
    let webhook = make(&api, &json!({"name": "n", "url": url.replace("127.0.0.1", "localhost")})).await;
    let _delivering = Delivering::start(&api, Reach::Public);
    commit(&api.store, &[put(row(1, "a"))]).await;
    let shown = delivery(&api, &webhook["id"], |delivery| delivery["last_error"].is_string()).await;
    let error = shown["last_error"].as_str().expect("an error");
    assert!(error.contains("is not a public one"), "{error}");
    assert!(receiver.got.lock().is_empty());
}

#[tokio::test]
async fn a_secret_is_shown_once_and_bodies_are_checked() {
    let api = api().await;
    let keyed = api.admin().header("idempotency-key", "k");
    let body = json!({"name": "n", "url": "https://hooks.example/"});
    let made = keyed.post(WEBHOOKS, &body).await;
    let secret = made.expect(201)["secret"].as_str().expect("a secret").to_owned();
    assert!(secret.starts_with("whsec_"));
    let again = keyed.post(WEBHOOKS, &body).await;
    assert!(again.replayed());
    assert_eq!(again.expect(201)["secret"], Value::Null);
    let path = made.header("location").to_owned();
    assert!(!api.admin().get(&path).await.text.contains(&secret));
    assert!(!api.admin().get("/v1/audit-log").await.text.contains(&secret));
    api.admin().patch(&path, &json!({"secret": SECRET})).await.expect(200);
    assert!(!api.admin().get("/v1/audit-log").await.text.contains(SECRET));
    for (field, wrong) in [
        ("secret", json!("hunter2")),
        ("secret", json!(7)),
        ("kinds", json!([])),
        ("kinds", json!(["sleeping"])),
        ("name", json!("")),
        ("enabled", json!(null)),
        ("url", json!(7)),
    ] {
        let mut changed = body.clone();
        changed[field] = wrong;
        let problem = api.admin().post(WEBHOOKS, &changed).await.expect_problem("invalid_body");
        let pointer = problem["errors"][0]["pointer"].as_str().expect("a pointer");
        assert!(pointer.starts_with(&format!("#/{field}")), "{problem}");
        assert!(!problem.to_string().contains("hunter2"));
    }
    // Another tenant's webhook is not there.
    let other = path.replace("/clusters/c/", "/clusters/d/");
    api.admin().get(&other).await.expect_problem("webhook_not_found");
    api.admin().delete("/v1/clusters/c").await.expect(204);
    api.admin().get(&path).await.expect_problem("cluster_not_found");
}

/// What is answered to one webhook too many.
pub(crate) async fn one_too_many(api: &Api) -> super::support::api::Answer {
    let body = json!({"name": "n", "url": "https://hooks.example/"});
    for _ in 0..10 {
        make(api, &body).await;
    }
    api.admin().post(WEBHOOKS, &body).await
}
