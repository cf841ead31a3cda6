//! Every problem code is provoked, and answered as it is documented.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Request;
use futures_util::stream;
use holdfast::control_plane::http::{Code, REQUESTS_MAX};
use holdfast::control_plane::tokens::Role;
use holdfast::model::Timestamp;
use holdfast::seam::command::CommandError;
use holdfast::store::{AuditFilter, AuditOutcome};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};
use tower::ServiceExt;

use super::support::api::{Answer, Api, token_at};
use super::support::data_plane::Mood;
use super::support::sessions::{T, commit, offline, put, row, session_id};

const METER: &str = "/v1/clusters/c/sessions/meter";
const REJECTING: &str = "/v1/clusters/c/quota?on_excess=reject_change";
const ASLEEP: &str = "/v1/clusters/c/sessions/asleep";

/// The codes that were met, and a check that each is the one meant.
#[derive(Default)]
struct Met(BTreeSet<String>);

impl Met {
    #[track_caller]
    fn code(&mut self, code: Code, answer: &Answer) {
        let body = answer.expect_problem(code.as_str());
        self.body(code, &body);
    }

    #[track_caller]
    fn body(&mut self, code: Code, body: &Value) {
        assert_eq!(body["code"], code.as_str(), "{body}");
        assert_eq!(body["status"], code.status().as_u16(), "{body}");
        assert_eq!(body["title"], code.title(), "{body}");
        assert_eq!(body["type"], format!("urn:holdfast:problem:{}", code.as_str()), "{body}");
        self.0.insert(code.as_str().to_owned());
    }
}

#[tokio::test]
async fn every_code_is_provoked() {
    let mut met = Met::default();
    let api = Api::with_clusters(&["c"]).await;
    commit(&api.store, &[put(row(1, "meter")), put(offline(row(2, "asleep"), T))]).await;
    api.clock.jump_millis(10_000);

    what_is_sent(&api, &mut met).await;
    who_asks(&api, &mut met).await;
    what_contradicts(&api, &mut met).await;
    in_a_client_s_place(&api, &mut met).await;
    what_the_service_cannot_do(&api, &mut met).await;
    met.code(Code::RateLimited, &super::api_limits::refused_for_haste().await.1);
    met.body(Code::KeysUnavailable, &super::api_jwks::answered_without_keys().await);
    met.body(
        Code::RequestTimeout,
        &interrupted(&api, Body::from_stream(stream::pending::<Result<Bytes, String>>()), true).await,
    );

    let all: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    assert_eq!(met.0, all, "a code that is not provoked here");
}

async fn what_is_sent(api: &Api, met: &mut Met) {
    let admin = api.admin();
    let send = async |body: String| admin.send(Method::POST, "/v1/clusters", Some(body)).await;
    met.code(Code::InvalidJson, &send("{".to_owned()).await);
    met.code(Code::InvalidBody, &send("{}".to_owned()).await);
    met.code(Code::BodyTooLarge, &send(format!("\"{}\"", "x".repeat(65_536))).await);
    let form = admin.header("content-type", "application/x-www-form-urlencoded");
    met.code(
        Code::UnsupportedMediaType,
        &form.send(Method::POST, "/v1/clusters", Some("id=x".to_owned())).await,
    );
    met.code(Code::InvalidParameter, &admin.get("/v1/clusters?page_size=0").await);
    met.code(Code::UnknownParameter, &admin.get("/v1/plans?page_size=1").await);
    met.code(Code::PageTokenInvalid, &admin.get("/v1/clusters?page_token=x").await);
    met.code(Code::InvalidHeader, &admin.header("if-match", "x").delete(METER).await);
    met.code(Code::RouteNotFound, &admin.get("/v1/cluster").await);
    let answer = admin.send(Method::PUT, "/v1/clusters", None).await;
    met.code(Code::MethodNotAllowed, &answer);
    assert_eq!(answer.header("allow"), "GET,HEAD,POST");
    met.code(Code::MethodNotAllowed, &api.anonymous().send(Method::POST, "/livez", None).await);

    met.code(Code::UsageUnknown, &admin.get("/v1/clusters/c/usage?at=2001-01-01T00:00:00Z").await);
    met.code(Code::WebhookNotFound, &admin.get("/v1/clusters/c/webhooks/x").await);
    met.code(Code::TooManyWebhooks, &super::api_webhooks::one_too_many(api).await);
    let lower = admin.header("if-match", "*").put(REJECTING, &json!({"connections": 1})).await;
    met.code(Code::QuotaBelowUse, &lower);
    let broken = stream::iter([Ok(Bytes::from_static(b"{")), Err("the caller hung up".to_owned())]);
    met.body(Code::InvalidRequest, &interrupted(api, Body::from_stream(broken), false).await);
    let unexpected = json!({"reason": "x"});
    met.code(Code::InvalidBody, &admin.post(&format!("{METER}/disconnect"), &unexpected).await);
}

/// Creates a cluster with a body that does not arrive as it should, without a socket between.
async fn interrupted(api: &Api, body: Body, endless: bool) -> Value {
    let request = Request::post("/v1/clusters")
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {}", api.token(Role::Admin, None)))
        .body(body)
        .expect("a request");
    let before = started(api).await;
    let answer = tokio::spawn(api.router.clone().oneshot(request));
    if endless {
        while started(api).await == before {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // The database has been spoken to: from here on only the body is waited for.
        tokio::time::pause();
    }
    let response = answer.await.expect("it ends").expect("an answer");
    if endless {
        tokio::time::resume();
    }
    let body = axum::body::to_bytes(response.into_body(), 65_536).await.expect("a body");
    serde_json::from_slice(&body).expect("json")
}

/// How many changes wait for something.
async fn started(api: &Api) -> usize {
    let filter = AuditFilter { outcome: Some(AuditOutcome::Started), ..AuditFilter::default() };
    api.store.list_audit(&filter, None, 100).await.expect("the log").len()
}

async fn who_asks(api: &Api, met: &mut Met) {
    met.code(Code::TokenMissing, &api.anonymous().get("/v1/plans").await);
    let basic = api.anonymous().header("authorization", "Basic YWRhOng=");
    met.code(Code::TokenMissing, &basic.get("/v1/plans").await);
    met.code(Code::TokenInvalid, &api.with_token("x").get("/v1/plans").await);
    let expired = token_at(Role::Admin, None, Timestamp::from_millis(T.as_millis() - 120_000));
    met.code(Code::TokenExpired, &api.with_token(&expired).get("/v1/plans").await);
    let viewer = api.with_token(&api.token(Role::Viewer, None));
    met.code(Code::Forbidden, &viewer.delete(METER).await);
}

async fn what_contradicts(api: &Api, met: &mut Met) {
    let admin = api.admin();
    let quota = "/v1/clusters/c/quota";
    met.code(Code::ClusterNotFound, &admin.get("/v1/clusters/x").await);
    met.code(Code::OperationNotFound, &admin.get("/v1/operations/x").await);
    purges(api, met).await;
    shared_groups(api, met).await;
    met.code(Code::WillNotFound, &admin.get(&format!("{METER}/will")).await);
    met.code(Code::EventsGone, &admin.get("/v1/clusters/c/events?since=1000").await);
    met.code(Code::ApiKeyNotFound, &admin.get("/v1/api-keys/x").await);
    met.code(Code::SessionNotFound, &admin.get("/v1/clusters/c/sessions/x").await);
    met.code(Code::UserNotFound, &admin.get("/v1/clusters/c/users/x").await);
    met.code(Code::TooManyUsers, &one_user_more(api).await);
    access_rules(api, met).await;
    message_rules(api, met).await;
    authenticators(api, met).await;
    met.code(Code::ClusterExists, &admin.post("/v1/clusters", &json!({"id": "c"})).await);
    met.code(Code::PreconditionRequired, &admin.put(quota, &json!({})).await);
    met.code(Code::PreconditionFailed, &admin.header("if-match", "\"9\"").put(quota, &json!({})).await);
    admin.patch(ASLEEP, &json!({"protected": true})).await.expect(200);
    met.code(Code::SessionProtected, &admin.delete(ASLEEP).await);
    met.code(
        Code::SessionSuperseded,
        &admin.delete(&format!("{METER}?if_session_id={}", session_id(9))).await,
    );
    met.code(Code::SessionNotConnected, &admin.post(&format!("{ASLEEP}/disconnect"), &json!({})).await);
    let keyed = admin.header("idempotency-key", "k");
    keyed.patch("/v1/clusters/c", &json!({"name": "x"})).await.expect(200);
    met.code(Code::IdempotencyKeyReused, &keyed.patch("/v1/clusters/c", &json!({"name": "y"})).await);
    let expiry = |seconds: u32| json!({"expiry": {"interval_seconds": seconds}});
    met.code(Code::ExpiryInPast, &admin.patch(ASLEEP, &expiry(5)).await);
    met.code(Code::ExpiryAboveCeiling, &admin.patch(ASLEEP, &expiry(259_201)).await);
    admin.patch("/v1/clusters/c", &json!({"delete_protection": true})).await.expect(200);
    met.code(Code::ClusterProtected, &admin.delete("/v1/clusters/c").await);
}

async fn access_rules(api: &Api, met: &mut Met) {
    let (policies, rules) = ("/v1/clusters/c/authorization-policies", "/v1/clusters/c/block-rules");
    let admin = api.admin();
    met.code(Code::PolicyNotFound, &admin.get(&format!("{policies}/x")).await);
    met.code(Code::BlockRuleNotFound, &admin.get(&format!("{rules}/x")).await);
    let body = json!({"priority": 0, "effect": "allow", "actions": ["connect"]});
    let path = admin.post(policies, &body).await.header("location").to_owned();
    met.code(Code::PolicyPriorityTaken, &admin.post(policies, &body).await);
    let mut connection = PgConnection::connect_with(&api.database.options()).await.expect("connect");
    let many = "INSERT INTO authorization_policies SELECT 'c', gen_random_uuid(), n, NULL, spec, now(), now(), 1 \
         FROM authorization_policies, generate_series(1, 499) n";
    connection.execute(many).await.expect("make policies");
    let body = json!({"priority": 1000, "effect": "allow", "actions": ["connect"]});
    met.code(Code::TooManyAccessRules, &admin.post(policies, &body).await);
    connection.execute("DELETE FROM authorization_policies WHERE priority > 0").await.expect("delete them");
    admin.delete(&path).await.expect(204);

    let automatic = "/v1/clusters/c/auto-subscriptions";
    met.code(Code::AutoSubscriptionNotFound, &admin.get(&format!("{automatic}/x")).await);
    let body = json!({"filter": "x", "qos": 1});
    admin.post(automatic, &body).await.expect(201);
    let many = "INSERT INTO auto_subscriptions SELECT 'c', gen_random_uuid(), NULL, spec, now(), now(), 1 \
         FROM auto_subscriptions, generate_series(1, 99) n";
    connection.execute(many).await.expect("make rules");
    met.code(Code::TooManyAutoSubscriptions, &admin.post(automatic, &body).await);
    connection.execute("DELETE FROM auto_subscriptions").await.expect("delete them");

    // Of block rules those that have expired make room.
    let body = json!({"subject": "client_id", "pattern": "x"});
    admin.post(rules, &body).await.expect(201);
    let many = "INSERT INTO block_rules SELECT 'c', gen_random_uuid(), spec, '2100-01-01', NULL, now(), now(), 1 \
         FROM block_rules, generate_series(1, 999) n";
    connection.execute(many).await.expect("make rules");
    met.code(Code::TooManyAccessRules, &admin.post(rules, &body).await);
    connection.execute("UPDATE block_rules SET expires_at = '2020-01-01'").await.expect("let them expire");
    admin.post(rules, &body).await.expect(201);
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM block_rules")
        .fetch_one(&mut connection)
        .await
        .expect("count");
    assert_eq!(left, 1);
    connection.execute("DELETE FROM block_rules").await.expect("delete it");
    connection.close().await.expect("close");
}

async fn shared_groups(api: &Api, met: &mut Met) {
    const MANY: &str = "INSERT INTO shared_group_settings SELECT 'c', '$share/g/' || n, 'random', now(), 1 \
         FROM generate_series(1, 1000) n";
    let admin = api.admin();
    let group = |share: &str| format!("/v1/clusters/c/shared-groups/$share%2F{share}%2Ft");
    met.code(Code::SharedGroupNotFound, &admin.get(&group("none")).await);
    met.code(Code::SharedGroupInUse, &admin.delete(&group("a")).await);
    let progress = format!("{}/progress", group("kept-by-nobody"));
    met.code(Code::SharedGroupNotKept, &admin.post(&progress, &json!({"to": "now"})).await);
    let mut connection = PgConnection::connect_with(&api.database.options()).await.expect("connect");
    connection.execute(MANY).await.expect("make settings");
    let one_more = admin.put(&group("a"), &json!({"strategy": "hash_topic"})).await;
    met.code(Code::TooManySharedGroups, &one_more);
    connection.execute("DELETE FROM shared_group_settings").await.expect("delete them");
    connection.close().await.expect("close");
}

async fn message_rules(api: &Api, met: &mut Met) {
    let (rules, admin) = ("/v1/clusters/c/message-rules", api.admin());
    met.code(Code::MessageRuleNotFound, &admin.get(&format!("{rules}/x")).await);
    let rule = |priority: u32| json!({"priority": priority, "name": "n", "effects": {"response_topic": "r"}});
    admin.post(rules, &rule(0)).await.expect(201);
    met.code(Code::MessageRulePriorityTaken, &admin.post(rules, &rule(0)).await);
    for priority in 1..10 {
        admin.post(rules, &rule(priority)).await.expect(201);
    }
    met.code(Code::TooManyMessageRules, &admin.post(rules, &rule(10)).await);
}

async fn authenticators(api: &Api, met: &mut Met) {
    let (chain, admin) = ("/v1/clusters/c/authenticators", api.admin());
    met.code(Code::AuthenticatorNotFound, &admin.get(&format!("{chain}/x")).await);
    let link = |position: u32| json!({"position": position, "password": {}});
    met.code(Code::AuthenticatorPositionTaken, &admin.post(chain, &link(100)).await);
    for position in 1..8 {
        admin.post(chain, &link(position)).await.expect(201);
    }
    met.code(Code::TooManyAuthenticators, &admin.post(chain, &link(8)).await);
}

/// Makes one user more than a cluster may have; the others were made behind the service's back.
async fn one_user_more(api: &Api) -> Answer {
    const MANY: &str = "INSERT INTO users SELECT 'c', 'user-' || n, gen_random_uuid(), '', '', 1, '', '', false, \
         now(), now(), 1, 1 FROM generate_series(1, 100000) n";
    let mut connection = PgConnection::connect_with(&api.database.options()).await.expect("connect");
    connection.execute(MANY).await.expect("make users");
    let answer = api.admin().put("/v1/clusters/c/users/one-more", &json!({"password": "x"})).await;
    connection.execute("DELETE FROM users").await.expect("delete them");
    connection.close().await.expect("close");
    answer
}

async fn purges(api: &Api, met: &mut Met) {
    let admin = api.admin();
    let path = "/v1/clusters/c/session-purges";
    let body = json!({"action": "delete", "filter": "username=nobody", "plan_token": "x"});
    met.code(Code::PlanTokenInvalid, &admin.post(path, &body).await);
    let plan = admin.post(path, &json!({"action": "delete", "filter": "username=nobody"})).await.expect(200);
    let body = json!({"action": "delete", "filter": "username=nobody", "plan_token": plan["plan_token"]});
    let id = admin.post(path, &body).await.expect(202)["id"].as_str().expect("an id").to_owned();
    api.operations.step().await.expect("a step");
    met.code(Code::OperationEnded, &admin.post(&format!("/v1/operations/{id}/cancel"), &json!({})).await);

    let mut connection = PgConnection::connect_with(&api.database.options()).await.expect("connect");
    let many = "INSERT INTO sessions (session_id, cluster_id, client_id, epoch, protocol, clean_start, peer, \
         listener, transport, keep_alive_secs, receive_maximum, expiry_client_secs, expiry_bounded, has_will, \
         created_at, connected_at, version) \
         SELECT md5(n::text)::uuid, cluster_id, 'many-' || n, epoch, protocol, clean_start, peer, listener, \
         transport, keep_alive_secs, receive_maximum, expiry_client_secs, expiry_bounded, has_will, created_at, \
         connected_at, version FROM sessions, generate_series(1, 100001) n WHERE client_id = 'meter'";
    connection.execute(many).await.expect("insert");
    met.code(Code::PurgeTooLarge, &admin.post(path, &json!({"action": "delete", "filter": ""})).await);
    connection.execute("DELETE FROM sessions WHERE client_id LIKE 'many-%'").await.expect("delete");
}

async fn in_a_client_s_place(api: &Api, met: &mut Met) {
    let admin = api.admin();
    let filter = format!("{METER}/subscriptions/a%2Fb");
    met.code(Code::SubscriptionNotFound, &admin.delete(&filter).await);
    met.code(Code::SessionExists, &admin.put(METER, &json!({"labels": {"site": "north"}})).await);
    met.code(Code::HoldNotFound, &admin.get("/v1/clusters/c/holds/meter").await);
    for (error, code) in [
        (
            CommandError::QuotaExceeded("quota subscriptions: limit 1, in use 1".to_owned()),
            Code::QuotaExceeded,
        ),
        (CommandError::FilterRefused("limit topic_levels".to_owned()), Code::TopicFilterRefused),
    ] {
        api.data_plane.be(Mood::Fails(error));
        met.code(code, &admin.put(&filter, &json!({"qos": 1})).await);
        met.code(code, &admin.put("/v1/clusters/c/sessions/new", &json!({})).await);
    }
    api.data_plane.be(Mood::Works);

    let mut connection = PgConnection::connect_with(&api.database.options()).await.expect("connect");
    let many = "INSERT INTO client_holds SELECT 'c', 'held-' || n, '2100-01-01', null, 'ada', 'r', '2020-01-01' \
         FROM generate_series(1, 100000) n";
    connection.execute(many).await.expect("insert");
    met.code(Code::TooManyHolds, &admin.delete(&format!("{METER}?hold_seconds=60")).await);
    connection.execute("DELETE FROM client_holds").await.expect("delete");
    admin.get(METER).await.expect(200);
}

async fn what_the_service_cannot_do(api: &Api, met: &mut Met) {
    let admin = api.admin();
    api.data_plane.be(Mood::Fails(CommandError::TimedOut));
    let keyed = admin.header("idempotency-key", "u");
    let ghost = "/v1/clusters/c/sessions/ghost";
    met.code(Code::NotConfirmed, &keyed.delete(ghost).await);
    met.code(Code::IdempotencyOutcomeUnknown, &keyed.delete(ghost).await);
    api.data_plane.be(Mood::Silent);
    let (before, keyed) = (api.data_plane.commands(), admin.header("idempotency-key", "f"));
    let second = async {
        while api.data_plane.commands() == before {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        keyed.delete(METER).await
    };
    let (_, second) = tokio::join!(keyed.delete(METER), second);
    met.code(Code::IdempotencyKeyInFlight, &second);
    api.data_plane.be(Mood::Fails(CommandError::TimedOut));
    met.code(Code::DataPlaneUnavailable, &admin.get("/v1/clusters/c/usage").await);
    met.code(Code::NotReady, &api.anonymous().get("/readyz").await);
    overloaded(api, met).await;
    api.data_plane.be(Mood::Works);
    api.anonymous().get("/readyz").await.expect(200);

    let mut connection = PgConnection::connect_with(&api.database.options()).await.expect("connect");
    connection.execute("UPDATE clusters SET plan = 'gone' WHERE id = 'c'").await.expect("spoil a row");
    let broken = admin.get("/v1/clusters/c/usage").await;
    met.code(Code::Internal, &broken);
    assert!(!broken.text.contains("gone") && !broken.text.contains("plan"), "{}", broken.text);

    api.database.go_away().await;
    met.code(Code::StoreUnavailable, &admin.get("/v1/clusters").await);
    met.code(Code::NotReady, &api.anonymous().get("/readyz").await);
    api.anonymous().get("/livez").await.expect(200);
    api.database.come_back().await;
    admin.get("/v1/clusters").await.expect(200);
    api.anonymous().get("/readyz").await.expect(200);
}

/// Fills every place with a question that is not answered.
async fn overloaded(api: &Api, met: &mut Met) {
    api.data_plane.be(Mood::Silent);
    let (before, admin) = (api.data_plane.commands(), api.admin());
    let waiting = (0..REQUESTS_MAX).map(|_| admin.get("/v1/clusters/c/usage"));
    let waiting = futures_util::future::join_all(waiting);
    let one_more = async {
        while api.data_plane.commands() < before + REQUESTS_MAX {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        met.code(Code::Overloaded, &admin.get("/v1/plans").await);
        api.anonymous().get("/livez").await.expect(200);
    };
    let (answers, ()) = tokio::join!(waiting, one_more);
    assert!(answers.iter().all(|answer| answer.status == 503));
    admin.get("/v1/plans").await.expect(200);
}

#[tokio::test]
async fn a_well_formed_request_id_comes_back() {
    let api = Api::start().await;
    let named = api.anonymous().header("x-request-id", "trace-7");
    assert_eq!(named.get("/livez").await.header("x-request-id"), "trace-7");
    assert_eq!(named.get("/nowhere").await.expect_problem("route_not_found")["request_id"], "trace-7");
    let bad = api.anonymous().header("x-request-id", "two words");
    assert_ne!(bad.get("/livez").await.header("x-request-id"), "two words");
}

#[tokio::test]
async fn a_change_is_carried_through_when_its_caller_hangs_up() {
    let api = Api::start().await;
    api.data_plane.be(Mood::Silent);
    let (before, admin) = (api.data_plane.commands(), api.admin());
    let body = json!({"id": "c"});
    let hasty = admin.post("/v1/clusters", &body);
    // Until the data plane was asked to enforce it; then the connection is dropped.
    let asked = async {
        while api.data_plane.commands() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = hasty => panic!("nobody answers"),
        () = asked => {}
    }
    assert!(api.desired.borrow().clusters.len() == 1, "committed and published");
}

#[tokio::test]
async fn desired_state_is_published_again_when_the_database_returns() {
    let api = Api::start().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let publisher = std::sync::Arc::clone(&api.publisher);
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { publisher.run(stop).await }
    });
    // Written past the API, as another process would.
    let mut tx = api.store.begin().await.expect("begin");
    tx.insert_cluster(&super::support::sessions::new_cluster("other"), T).await.expect("insert");
    tx.commit().await.expect("commit");
    api.publisher.nudge();
    let mut desired = api.desired.clone();
    let seen = desired.wait_for(|state| state.clusters.len() == 1);
    tokio::time::timeout(Duration::from_secs(10), seen).await.expect("in time").expect("published");

    api.database.go_away().await;
    api.publisher.nudge();
    assert_eq!(api.desired.borrow().clusters.len(), 1, "the last state stays in force");
    api.database.come_back().await;
    let mut tx = api.store.begin().await.expect("begin");
    tx.insert_cluster(&super::support::sessions::new_cluster("third"), T).await.expect("insert");
    tx.commit().await.expect("commit");
    let seen = desired.wait_for(|state| state.clusters.len() == 2);
    tokio::time::timeout(Duration::from_secs(20), seen).await.expect("in time").expect("published");
    stop.cancel();
    running.await.expect("it ends when told to");
}
