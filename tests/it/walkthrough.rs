//! The README's walk-through, as a customer would walk it: a device connects with a stock client, an
//! operator looks at its session and changes it, and the device meets what the operator read.

use std::collections::BTreeSet;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::ConnectReturnCode;
use serde_json::{Value, json};

use crate::support::http::Api;
use crate::support::mqtt::{RawClient, connect_v5};
use crate::support::server::Server;
use crate::support::stock::{self, Rumqtt, Rumqtting};
use crate::support::{PATIENCE, eventually};

const SESSIONS: &str = "/v1/clusters/default/sessions";

/// As many as the issue asks for: more than any window or batch on the way.
const MESSAGES: usize = 1_000;

/// A client that wants its session kept for an hour.
fn kept(client_id: &str) -> Rumqtting<'_> {
    Rumqtting { client_id, clean_start: false, expiry_secs: 3_600 }
}

/// A client that leaves nothing behind.
fn passing(client_id: &str) -> Rumqtting<'_> {
    Rumqtting { client_id, clean_start: true, expiry_secs: 0 }
}

fn numbered() -> impl Iterator<Item = String> {
    (0..MESSAGES).map(|n| format!("m{n}"))
}

/// Connects, subscribes to `filter` and leaves, so that a session waits offline.
async fn leave_session(server: &Server, client_id: &str, filter: &str) {
    let mut client = Rumqtt::connect(server.mqtt, kept(client_id)).await.expect("admitted");
    client.subscribe(filter).await;
    client.disconnect().await;
    offline(&server.api(), client_id).await;
}

/// Waits until the record says offline: the API learns of a client's own goodbye within a moment.
async fn offline(api: &Api, client_id: &str) -> Value {
    eventually("the record says offline", PATIENCE, async || {
        let session = api.get(&format!("{SESSIONS}/{client_id}")).await.expect(200);
        (session["state"] == "offline").then_some(session)
    })
    .await
}

#[tokio::test]
async fn a_session_waits_and_gets_what_it_missed_in_order() {
    let server = Server::start_dev().await;
    let api = server.api();
    leave_session(&server, "meter-1", "site/+/update").await;

    let listed = api.get(&format!("{SESSIONS}?state=offline&client_id_prefix=meter-")).await.expect(200);
    let session = &listed["items"][0];
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(session["client_id"], "meter-1");
    assert_eq!(session["state"], "offline");
    assert_eq!(session["expiry_interval_seconds"], 3_600);
    assert!(session["expires_at"].as_str() > session["disconnected_at"].as_str(), "{session}");

    let mut publisher = Rumqtt::connect(server.mqtt, passing("control-room")).await.expect("admitted");
    publisher.publish_all("site/7/update", numbered()).await;
    publisher.disconnect().await;

    let mut device = Rumqtt::connect(server.mqtt, kept("meter-1")).await.expect("admitted");
    assert!(device.connack.session_present);
    let received = device.messages(MESSAGES).await;
    assert_eq!(received, numbered().collect::<Vec<_>>());
    device.disconnect().await;
    server.stop().await;
}

#[tokio::test]
async fn a_kicked_session_is_gone_for_the_operator_and_for_the_device() {
    let server = Server::start_dev().await;
    let api = server.api();
    let mut device = RawClient::open(server.mqtt).await;
    device.send(&connect_v5("meter-1", false, 3_600)).await;
    assert_eq!(device.packet().await[0], 0x20);

    let ended = api.delete(&format!("{SESSIONS}/meter-1")).await.expect(200);
    assert_eq!(ended["was_online"], true);
    // No waiting: what was answered has happened.
    api.get(&format!("{SESSIONS}/meter-1")).await.expect_problem(404, "session_not_found");
    // PRODUCT 3: an administrative kick is 0x98.
    let goodbye = device.packet().await;
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x98), "{goodbye:02x?}");
    device.expect_closed().await;

    let device = Rumqtt::connect(server.mqtt, kept("meter-1")).await.expect("admitted");
    assert!(!device.connack.session_present);
    server.stop().await;
}

#[tokio::test]
async fn a_disconnected_session_stays_and_is_told_offline_at_once() {
    let server = Server::start_dev().await;
    let api = server.api();
    let mut device = RawClient::open(server.mqtt).await;
    device.send(&connect_v5("meter-1", false, 3_600)).await;
    assert_eq!(device.packet().await[0], 0x20);
    api.post(&format!("{SESSIONS}/meter-1/disconnect"), json!({})).await.expect(200);
    let session = api.get(&format!("{SESSIONS}/meter-1")).await.expect(200);
    assert_eq!(session["state"], "offline");
    assert_eq!(session["disconnect"], json!({"reason": "administrative", "by": "operator"}));
    let goodbye = device.packet().await;
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x98), "{goodbye:02x?}");
    device.expect_closed().await;
    let device = Rumqtt::connect(server.mqtt, kept("meter-1")).await.expect("admitted");
    assert!(device.connack.session_present);
    server.stop().await;
}

#[tokio::test]
async fn an_expiry_of_one_second_ends_an_offline_session_and_frees_its_connection() {
    let server = Server::start_dev().await;
    let api = server.api();
    leave_session(&server, "meter-1", "a/b").await;
    let usage = api.get("/v1/clusters/default/usage").await.expect(200);
    assert_eq!((&usage["offline_persistent"], &usage["total"]), (&json!(1), &json!(1)), "{usage}");

    // Counted from when the connection ended; that second may have passed already.
    let order = json!({"expiry": {"interval_seconds": 1}});
    api.patch(&format!("{SESSIONS}/meter-1?allow_immediate=true"), order).await.expect(200);
    eventually("the session is gone", Duration::from_secs(2), async || {
        let gone = api.get(&format!("{SESSIONS}/meter-1")).await.status == 404;
        let usage = api.get("/v1/clusters/default/usage").await.expect(200);
        (gone && usage["total"] == 0).then_some(())
    })
    .await;

    let device = Rumqtt::connect(server.mqtt, kept("meter-1")).await.expect("admitted");
    assert!(!device.connack.session_present);
    server.stop().await;
}

#[tokio::test]
async fn a_full_cluster_refuses_a_new_client_and_admits_a_known_one() {
    let server = Server::start_dev().await;
    let api = server.api();
    let quota = api.get("/v1/clusters/default/quota").await;
    let quota =
        api.put_over(&quota, "/v1/clusters/default/quota", json!({"connections": 3})).await.expect(200);
    assert_eq!(quota["connections"]["limit"], 3);

    leave_session(&server, "known", "a/b").await;
    let _one = Rumqtt::connect(server.mqtt, passing("one")).await.expect("admitted");
    let _two = Rumqtt::connect(server.mqtt, passing("two")).await.expect("admitted");

    let refusal = Rumqtt::connect(server.mqtt, passing("four")).await.err();
    assert_eq!(refusal, Some(ConnectReturnCode::QuotaExceeded));
    // The same on the wire: 0x97, and the connection closed.
    let mut raw = RawClient::open(server.mqtt).await;
    raw.send(&connect_v5("five", true, 0)).await;
    let connack = raw.packet().await;
    assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0x00, 0x97));
    raw.expect_closed().await;

    let known = Rumqtt::connect(server.mqtt, kept("known")).await.expect("a known client is admitted");
    assert!(known.connack.session_present);
    let usage = api.get("/v1/clusters/default/usage").await.expect(200);
    assert_eq!((&usage["total"], &usage["free"]), (&json!(3), &json!(0)), "{usage}");
    server.stop().await;
}

#[tokio::test]
async fn sessions_and_their_subscriptions_survive_a_kill() {
    let mut server = Server::start_dev().await;
    leave_session(&server, "meter-1", "a/+").await;
    let before = server.api().get(&format!("{SESSIONS}/meter-1")).await.expect(200);
    server.kill().await;
    server.start_again().await;

    let api = server.api();
    let after = api.get(&format!("{SESSIONS}/meter-1")).await.expect(200);
    assert_eq!(after["session_id"], before["session_id"]);
    let subscriptions = api.get(&format!("{SESSIONS}/meter-1/subscriptions")).await.expect(200);
    assert_eq!(subscriptions["items"][0]["filter"], "a/+", "{subscriptions}");

    let mut publisher = Rumqtt::connect(server.mqtt, passing("publisher")).await.expect("admitted");
    publisher.publish_all("a/b", ["after the kill".to_owned()]).await;
    let mut device = Rumqtt::connect(server.mqtt, kept("meter-1")).await.expect("admitted");
    assert!(device.connack.session_present);
    assert_eq!(device.messages(1).await, ["after the kill"]);
    server.stop().await;
}

#[tokio::test]
async fn the_same_with_mosquitto_s_tools() {
    if !stock::installed("mosquitto_sub") {
        return;
    }
    let server = Server::start_dev().await;
    let api = server.api();
    let session = ["-i", "meter-1", "-c", "-q", "1", "-t", "site/#"];
    let subscribe = stock::run("mosquitto_sub", server.mqtt, &[&session[..], &["-E"]].concat()).await;
    assert!(subscribe.status.success(), "{subscribe:?}");
    let session_record = offline(&api, "meter-1").await;
    assert_eq!(session_record["protocol"], "3.1.1");
    // PRODUCT S-5: clean session 0 of 3.1.1 waits three days.
    assert_eq!(session_record["expiry_interval_seconds"], 259_200);

    let lines: String = numbered().map(|line| line + "\n").collect();
    let publish = ["-q", "1", "-t", "site/7", "-l"];
    let publish = stock::run_with_input("mosquitto_pub", server.mqtt, &publish, lines.clone()).await;
    assert!(publish.status.success(), "{publish:?}");

    let count = MESSAGES.to_string();
    let receive =
        stock::run("mosquitto_sub", server.mqtt, &[&session[..], &["-C", &count, "-W", "20"]].concat()).await;
    assert!(receive.status.success(), "{receive:?}");
    assert_eq!(String::from_utf8_lossy(&receive.stdout), lines);
    server.stop().await;
}

#[tokio::test]
async fn the_same_with_paho_in_both_versions() {
    if !stock::installed("paho") {
        return;
    }
    let server = Server::start_dev().await;
    for version in ["311", "5"] {
        let id = format!("paho-{version}");
        let as_device = ["-i", &id, "-V", version, "--keep", "sub", "a/b"];
        let first = stock::run("paho", server.mqtt, &[&as_device[..], &["0"]].concat()).await;
        assert_eq!(
            String::from_utf8_lossy(&first.stdout),
            "connected session_present=0\nsubscribed 1\n",
            "{first:?}"
        );
        let publish = ["-i", "publisher", "-V", version, "pub", "a/b", "one", "two", "three"];
        let publish = stock::run("paho", server.mqtt, &publish).await;
        assert!(publish.status.success(), "{publish:?}");
        let second = stock::run("paho", server.mqtt, &[&as_device[..], &["3"]].concat()).await;
        assert_eq!(
            String::from_utf8_lossy(&second.stdout),
            "connected session_present=1\nmessage one\nmessage two\nmessage three\n",
            "{second:?}"
        );
        // The other version's publisher must not find this one's session in its way.
        server.api().delete(&format!("{SESSIONS}/{id}")).await.expect(200);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_documentation_is_served_without_a_request_leaving_the_host() {
    let server = Server::start_dev().await;
    let anybody = server.api_as(None);
    assert_eq!(anybody.get("/livez").await.status, 200);
    assert_eq!(anybody.get("/readyz").await.status, 200);
    let document = anybody.get("/openapi.json").await.expect(200);
    let paths: BTreeSet<&str> =
        document["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
    for path in
        ["/v1/clusters", "/v1/clusters/{cluster}/sessions/{client_id}", "/v1/clusters/{cluster}/quota"]
    {
        assert!(paths.contains(path), "{path} is not in {paths:?}");
    }
    let page = anybody.get("/docs/").await;
    assert_eq!(page.status, 200);
    let policy = page.headers.get("content-security-policy").and_then(|value| value.to_str().ok());
    assert!(policy.is_some_and(|policy| policy.contains("default-src 'none'")), "{policy:?}");
    for elsewhere in ["src=\"http", "href=\"http", "src=\"//", "href=\"//"] {
        assert!(!page.text.contains(elsewhere), "{elsewhere} in the page");
    }
    anybody.get("/v1/clusters").await.expect_problem(401, "token_missing");
    server.stop().await;
}
