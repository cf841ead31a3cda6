//! Rates and caps over real sockets: who is refused or slowed, how that is told, and that nobody else pays
//! for it. What the rates are exactly is tested in virtual time, in the cluster; no time decides here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast::clock::Clock;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::http::Api;
use crate::support::mqtt::{RawClient, connect_v5, hex};
use crate::support::notation;
use crate::support::server::{Options, Server};
use crate::support::{PATIENCE, eventually};

const CLUSTER: &str = "/v1/clusters/default";

/// Sets a cluster's quota.
async fn set_quota(api: &Api, cluster: &str, body: Value) {
    let path = format!("{cluster}/quota");
    let read = api.get(&path).await;
    api.put_over(&read, &path, body).await.expect(200);
}

/// A clean session of MQTT 5.0 in a cluster that the user name chooses.
async fn connect_to(server: &Server, cluster: &str, client_id: &str) -> RawClient {
    let mut client = RawClient::open(server.mqtt).await;
    client.send_hex(&format!("10 ~ s'MQTT' 05 82 003c {{ }} s'{client_id}' s'{cluster}/x'")).await;
    client.expect_hex("20 ~ 00 00 ...").await;
    client
}

async fn connect_v3(server: &Server, client_id: &str) -> RawClient {
    let mut client = RawClient::open(server.mqtt).await;
    client.send_hex(&format!("10 ~ s'MQTT' 04 02 003c s'{client_id}'")).await;
    client.expect_hex("20 02 00 00").await;
    client
}

/// PUBLISH at QoS 1 without properties, to `t`.
fn publish(v5: bool, id: u16, text: &str) -> Vec<u8> {
    let properties = if v5 { "{ }" } else { "" };
    notation::bytes(&format!("32 ~ s't' {id:04x} {properties} '{text}'"))
}

/// What a stock client publishes: several seconds' worth.
const MESSAGES: usize = 70;

/// With this many bytes a second, what has sent more than one waits as long as anybody can.
const ALMOST_NOTHING: u32 = 1;

#[tokio::test]
async fn a_v5_publisher_is_refused_and_hears_why() {
    let server = Server::start_dev().await;
    set_quota(&server.api(), CLUSTER, json!({"rates": {"client_bytes_per_second": ALMOST_NOTHING}})).await;
    let mut client = RawClient::open(server.mqtt).await;
    client.send(&connect_v5("fast", true, 0)).await;
    client.packet().await;
    client.send(&publish(true, 1, "a first long message")).await;
    client.expect_hex("40 ~ 0001 10 ...").await;
    client.send(&publish(true, 2, "x")).await;
    let refused = client.packet().await;
    let told = String::from_utf8_lossy(&refused).into_owned();
    assert_eq!((refused[0], refused[4]), (0x40, 0x97), "{}", hex(&refused));
    assert!(told.contains("quota client_bytes_per_second: limit 1, in use "), "{told}");
    // The connection stays, and QoS 0 is lost without a word.
    client.send_hex("30 ~ s't' { } 'lost'").await;
    client.send_hex("c0 00").await;
    client.expect_hex("d0 00").await;
    // Taken back, the next message passes on the same connection.
    set_quota(&server.api(), CLUSTER, json!({})).await;
    client.send(&publish(true, 2, "x")).await;
    client.expect_hex("40 ~ 0002 10 ...").await;
    let session = eventually("the record of a session that passes follows", PATIENCE, async || {
        let answer = server.api().get(&format!("{CLUSTER}/sessions/fast")).await;
        (answer.status.is_success()).then(|| answer.expect(200))
    });
    let session = session.await;
    assert_eq!(session["counters"]["dropped_over_rate"], 1, "{session}");
}

#[tokio::test]
async fn a_v3_publisher_is_slowed_loses_nothing_and_holds_up_nobody() {
    let server = Server::start_dev().await;
    set_quota(&server.api(), CLUSTER, json!({"rates": {"client_bytes_per_second": ALMOST_NOTHING}})).await;
    let mut slow = connect_v3(&server, "slow").await;
    slow.send(&publish(false, 1, "a first long message")).await;
    slow.expect_hex("40 02 0001").await;
    // What came with the message that waits is answered where it need not wait.
    let mut both = publish(false, 2, "x");
    both.extend(notation::bytes("c0 00"));
    slow.send(&both).await;
    slow.expect_hex("d0 00").await;
    // It is not read any further: this lies in the socket.
    slow.send(&publish(false, 3, "y")).await;
    let mut other = connect_v3(&server, "other").await;
    other.send(&publish(false, 1, "z")).await;
    other.expect_hex("40 02 0001").await;
    set_quota(&server.api(), CLUSTER, json!({})).await;
    slow.expect_hex("40 02 0002").await;
    slow.expect_hex("40 02 0003").await;
}

#[tokio::test]
async fn a_stock_client_of_3_1_1_gets_every_acknowledgement_at_the_rate() {
    let server = Server::start_dev().await;
    set_quota(&server.api(), CLUSTER, json!({"rates": {"client_messages_per_second": 20}})).await;
    let mut listener = connect_v3(&server, "listener").await;
    listener.send_hex("82 ~ 0001 s't' 00").await;
    listener.expect_hex("90 ~ 0001 00").await;
    let mut options = rumqttc::MqttOptions::new("stock", server.mqtt.ip().to_string(), server.mqtt.port());
    options.set_clean_session(false).set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = rumqttc::AsyncClient::new(options, 100);
    for n in 0..MESSAGES {
        client.publish("t", rumqttc::QoS::AtLeastOnce, false, format!("{n:02}")).await.expect("room");
    }
    let mut acknowledged = 0;
    while acknowledged < MESSAGES {
        let event = tokio::time::timeout(PATIENCE, events.poll()).await.expect("in time");
        if let rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_)) = event.expect("one connection") {
            acknowledged += 1;
        }
    }
    for n in 0..MESSAGES {
        let packet = listener.packet().await;
        assert_eq!(packet[packet.len() - 2..], *format!("{n:02}").as_bytes(), "none lost, in order");
    }
}

#[tokio::test]
async fn refusals_are_found_by_whoever_asks_why() {
    let server = Server::start_dev().await;
    let api = server.api();
    set_quota(&api, CLUSTER, json!({"connections": 1})).await;
    let mut inside = RawClient::open(server.mqtt).await;
    inside.send(&connect_v5("inside", true, 60)).await;
    inside.packet().await;
    for _ in 0..3 {
        let mut client = RawClient::open(server.mqtt).await;
        client.send_hex("10 ~ s'MQTT' 05 82 003c { } s'outside' s'ada'").await;
        let connack = client.packet().await;
        assert_eq!(connack[3], 0x97, "{}", hex(&connack));
        client.expect_closed().await;
    }
    let path = format!("{CLUSTER}/refusals?client_id=outside");
    let items = eventually("three refusals", PATIENCE, async || {
        let items = api.get(&path).await.expect(200)["items"].clone();
        (items[0]["count"] == 3).then_some(items)
    })
    .await;
    let item = &items[0];
    assert_eq!(items.as_array().map(Vec::len), Some(1), "{items}");
    assert_eq!(
        (&item["kind"], &item["reason"], &item["code"], &item["username"], &item["ip"]),
        (&json!("connect"), &json!("connections"), &json!(151), &json!("ada"), &json!("127.0.0.1"))
    );
    assert_eq!(item["detail"], "quota connections: limit 1, in use 1");

    // A client that has a session finds it in its history too.
    set_quota(&api, CLUSTER, json!({"connections": 1, "filters_per_client": 0})).await;
    inside.send_hex("82 ~ 0001 { } s'a/b' 01").await;
    inside.expect_hex("90 ~ 0001 { ... } 97").await;
    let path = format!("{CLUSTER}/sessions/inside/history");
    let event = eventually("a refused event", PATIENCE, async || {
        let events = api.get(&path).await.expect(200)["items"].clone();
        events.as_array().into_iter().flatten().find(|event| event["kind"] == "refused").cloned()
    })
    .await;
    assert_eq!(
        (&event["detail"]["kind"], &event["detail"]["reason"]),
        (&json!("subscribe"), &json!("filters_per_client"))
    );

    let metrics = api.get("/metrics").await.text;
    let line = "holdfast_refusals_total{cluster=\"default\",kind=\"connect\",reason=\"connections\"} 3";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
}

#[tokio::test]
async fn an_admission_check_says_what_a_connect_would_meet() {
    let server = Server::start_dev().await;
    let api = server.api();
    let path = format!("{CLUSTER}/admission-checks");
    let check = async |body: Value| api.post(&path, body).await.expect(200);
    let verdict = check(json!({"client_id": "new", "session_expiry_seconds": 1_000_000})).await;
    let expected = json!({
        "admitted": true, "refusal": null, "session_present": false, "session_expiry_seconds": 259_200,
        "session": null,
    });
    assert_eq!(verdict, expected);

    set_quota(&api, CLUSTER, json!({"connections": 1})).await;
    let mut known = RawClient::open(server.mqtt).await;
    known.send(&connect_v5("known", false, 60)).await;
    known.packet().await;
    let refused = check(json!({"client_id": "new", "protocol": "3.1.1"})).await;
    let expected = json!({
        "reason": "connections", "code": 151, "return_code": 3, "limit": 1, "in_use": 1,
        "detail": "quota connections: limit 1, in use 1",
    });
    assert_eq!((&refused["admitted"], &refused["refusal"]), (&json!(false), &expected));
    let resumed = check(json!({"client_id": "known"})).await;
    assert_eq!((&resumed["admitted"], &resumed["session_present"]), (&json!(true), &json!(true)));
    assert_eq!(resumed["session"]["online"], true);
    let clean = check(json!({"client_id": "known", "clean_start": true})).await;
    assert_eq!((&clean["admitted"], &clean["session_present"]), (&json!(true), &json!(false)));
    let nameless = check(json!({"protocol": "3.1.1"})).await;
    assert_eq!((&nameless["refusal"]["code"], &nameless["refusal"]["return_code"]), (&json!(133), &json!(2)));

    // Nothing was changed by any of them.
    known.send_hex("c0 00").await;
    known.expect_hex("d0 00").await;
    let refusals = api.get(&format!("{CLUSTER}/refusals")).await.expect(200);
    assert_eq!(refusals["items"], json!([]));

    api.put(&format!("{CLUSTER}/users/ada"), json!({"password": "pencil"})).await.expect(201);
    let ada = check(json!({"client_id": "known", "username": "ada"})).await;
    assert_eq!(ada["admitted"], true, "{ada}");
    let bob = check(json!({"client_id": "known", "username": "bob"})).await;
    assert_eq!((&bob["refusal"]["code"], &bob["refusal"]["return_code"]), (&json!(134), &json!(4)));
    api.patch(CLUSTER, json!({"status": "suspended"})).await.expect(200);
    let suspended = check(json!({"client_id": "known"})).await;
    assert_eq!(suspended["refusal"]["reason"], "cluster_suspended");
    for wrong in [json!({"client_id": 7}), json!({"protocol": "6"}), json!({"ip": "x"}), json!({"x": 1})] {
        api.post(&path, wrong).await.expect_problem(400, "invalid_body");
    }
    let nowhere = "/v1/clusters/nowhere/admission-checks";
    api.post(nowhere, json!({})).await.expect_problem(404, "cluster_not_found");
}

/// How many CONNECTs come, from how many tasks, for how many places.
const CONNECTS: usize = 10_000;
const TASKS: usize = 200;
const PLACES: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connects_meet_an_exact_cap() {
    let server = Server::start_dev().await;
    set_quota(&server.api(), CLUSTER, json!({"connections": PLACES})).await;
    let (address, sockets) = (server.mqtt, Arc::new(Semaphore::new(TASKS)));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let sockets = Arc::clone(&sockets);
            tokio::spawn(async move {
                let mut inside = Vec::new();
                for n in 0..CONNECTS / TASKS {
                    let _socket = sockets.acquire().await.expect("never closed");
                    let mut client = RawClient::open(address).await;
                    // Every other one would last.
                    let expiry = if n % 2 == 0 { 0 } else { 600 };
                    client.send(&connect_v5(&format!("c-{task}-{n}"), true, expiry)).await;
                    match client.packet().await[3] {
                        0x00 => inside.push(client),
                        0x97 => client.expect_closed().await,
                        code => panic!("CONNACK {code:#04x}"),
                    }
                }
                inside
            })
        })
        .collect();
    let mut inside = Vec::new();
    for task in tasks {
        inside.extend(task.await.expect("no panic"));
    }
    assert_eq!(inside.len(), PLACES, "not one over, not one short");
    let usage = server.api().get(&format!("{CLUSTER}/usage")).await.expect(200);
    assert_eq!((&usage["online"], &usage["total"]), (&json!(PLACES), &json!(PLACES)));
    let path = format!("{CLUSTER}/refusals?reason=connections&page_size=1000");
    eventually("every refusal counted", PATIENCE, async || {
        let (mut count, mut token) = (0, String::new());
        loop {
            let page = server.api().get(&format!("{path}{token}")).await.expect(200);
            let counts = page["items"].as_array().into_iter().flatten();
            count += counts.filter_map(|item| item["count"].as_u64()).sum::<u64>();
            match page["next_page_token"].as_str() {
                Some(next) => token = format!("&page_token={next}"),
                None => return (count == (CONNECTS - PLACES) as u64).then_some(()),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_noisy_cluster_costs_a_quiet_one_nothing_but_its_turn() {
    let server = Server::start_dev().await;
    let api = server.api();
    for cluster in ["noisy", "quiet"] {
        let body = json!({"id": cluster, "allow_anonymous": true, "plan": "basic"});
        api.post("/v1/clusters", body).await.expect(201);
    }
    set_quota(&api, "/v1/clusters/noisy", json!({"rates": {"messages_per_second": 50}})).await;
    let mut quiet = connect_to(&server, "quiet", "q").await;
    quiet.send_hex("82 ~ 0001 { } s't' 00").await;
    quiet.expect_hex("90 ~ 0001 { } 00").await;
    let alone = exchange(&mut quiet).await;

    let floods: Vec<_> = [connect_to(&server, "noisy", "a").await, connect_to(&server, "noisy", "b").await]
        .into_iter()
        .map(|client| tokio::spawn(flood(client)))
        .collect();
    let refused =
        "holdfast_refusals_total{cluster=\"noisy\",kind=\"publish\",reason=\"messages_per_second\"}";
    eventually("refusals in the noisy cluster", PATIENCE, async || {
        let metrics = api.get("/metrics").await.text;
        metrics.lines().any(|line| line.starts_with(refused)).then_some(())
    })
    .await;
    let beside = exchange(&mut quiet).await;
    for flood in &floods {
        assert!(!flood.is_finished(), "the noise lasts as long as the measurement");
        flood.abort();
    }
    eprintln!("round trip in the quiet cluster, ms: alone {alone:?}, beside the noise {beside:?}");
    let metrics = api.get("/metrics").await.text;
    assert!(!metrics.contains("holdfast_refusals_total{cluster=\"quiet\""), "{metrics}");
}

/// Publishes as fast as it is answered.
async fn flood(mut client: RawClient) {
    let batch: Vec<u8> = (1..=50).flat_map(|id| publish(true, id, "noise")).collect();
    let mut answers = BTreeMap::<u8, u64>::new();
    loop {
        client.send(&batch).await;
        for _ in 0..50 {
            *answers.entry(client.packet().await[4]).or_default() += 1;
        }
    }
}

/// Sends 200 messages to itself, each acknowledged and heard. Gives the middle and the longest of the times.
async fn exchange(client: &mut RawClient) -> (u128, u128) {
    let (clock, mut took) = (Clock::new(), Vec::<Duration>::new());
    for id in 1..=200 {
        let began = clock.mono();
        client.send(&publish(true, id, "quiet")).await;
        let (mut acknowledged, mut heard) = (false, false);
        while !(acknowledged && heard) {
            let packet = client.packet().await;
            match packet[0] {
                0x40 => acknowledged = packet.get(4).is_none_or(|code| *code == 0),
                0x30 => heard = true,
                _ => panic!("{}", hex(&packet)),
            }
        }
        took.push(clock.mono().since(began));
    }
    took.sort_unstable();
    (took[100].as_millis(), took[199].as_millis())
}

#[tokio::test]
async fn a_flapping_client_is_held_and_its_connection_stays() {
    let server = Server::start_dev().await;
    let guard = json!({"flapping": {"connects": 3, "window_seconds": 600, "hold_seconds": 600}});
    set_quota(&server.api(), CLUSTER, guard).await;
    let mut last = None;
    for _ in 0..3 {
        let mut client = RawClient::open(server.mqtt).await;
        client.send(&connect_v5("loop", false, 60)).await;
        assert_eq!(client.packet().await[3], 0);
        last = Some(client);
    }
    let mut refused = RawClient::open(server.mqtt).await;
    refused.send(&connect_v5("loop", false, 60)).await;
    assert_eq!(refused.packet().await[3], 0x9F);
    refused.expect_closed().await;
    let mut refused = RawClient::open(server.mqtt).await;
    refused.send_hex("10 ~ s'MQTT' 04 00 003c s'loop'").await;
    refused.expect_hex("20 02 00 03").await;
    let mut last = last.expect("three connections");
    last.send_hex("c0 00").await;
    last.expect_hex("d0 00").await;
    set_quota(&server.api(), CLUSTER, json!({"flapping": {"connects": 0}})).await;
    let mut back = RawClient::open(server.mqtt).await;
    back.send(&connect_v5("loop", false, 60)).await;
    assert_eq!(back.packet().await[3], 0);
}

#[tokio::test]
async fn strangers_have_bounds() {
    let flags = ["--dev", "--connect-bytes-max", "256", "--connect-within", "1"].map(str::to_owned);
    let server = Server::start(Options { flags: flags.to_vec(), ..Options::default() }).await;
    let mut long = RawClient::open(server.mqtt).await;
    long.send_anyway(&connect_v5(&"x".repeat(250), true, 0)).await;
    // [MQTT-3.1.4-1]: a CONNECT that is too large may be answered, or not.
    if let Some(connack) = long.packet_or_end().await {
        assert_eq!((connack[0], connack[3]), (0x20, 0x95), "{}", hex(&connack));
        long.expect_closed().await;
    }
    let mut silent = RawClient::open(server.mqtt).await;
    silent.expect_closed().await;
    let mut known = RawClient::open(server.mqtt).await;
    known.send(&connect_v5("known", true, 0)).await;
    assert_eq!(known.packet().await[3], 0);
    // Let in, it may send more, and say nothing.
    known.send(&publish(true, 1, &"x".repeat(1_000))).await;
    known.expect_hex("40 ~ 0001 10 ...").await;
}

#[tokio::test]
async fn an_address_has_a_rate_of_its_own() {
    let flags = ["--dev", "--address-rate-max", "1"].map(str::to_owned);
    let server = Server::start(Options { flags: flags.to_vec(), ..Options::default() }).await;
    let (mut inside, mut outside) = (0, 0);
    for n in 0..20 {
        let mut client = RawClient::open(server.mqtt).await;
        client.send_anyway(&connect_v5(&format!("c-{n}"), true, 0)).await;
        match client.packet_or_end().await {
            Some(connack) => {
                assert_eq!(connack[3], 0);
                inside += 1;
            }
            None => outside += 1,
        }
    }
    assert!(inside >= 1 && outside >= 1, "{inside} inside, {outside} outside");
}
