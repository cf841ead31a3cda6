//! What operators do to sessions, as their clients meet it: ends with a reason, holds, sessions that are there before
//! their clients, subscriptions on their behalf. With restarts, and in races.

use serde_json::{Value, json};

use crate::support::http::Api;
use crate::support::mqtt::{RawClient, connect_v5};
use crate::support::server::Server;
use crate::support::{PATIENCE, eventually, notation};

const SESSIONS: &str = "/v1/clusters/default/sessions";
const HOLDS: &str = "/v1/clusters/default/holds";

/// CONNECT of 3.1.1 without clean session; keep-alive 60 s.
fn connect_v3(client_id: &str) -> Vec<u8> {
    notation::bytes(&format!("10 ~ s'MQTT' 04 00 003c s'{client_id}'"))
}

/// Connects, and gives what CONNACK says: session present and reason.
async fn knock(server: &Server, connect: &[u8]) -> (RawClient, (u8, u8)) {
    let mut client = RawClient::open(server.mqtt).await;
    client.send(connect).await;
    let connack = client.packet().await;
    assert_eq!(connack[0], 0x20, "{connack:02x?}");
    (client, (connack[2], connack[3]))
}

async fn admitted(server: &Server, connect: &[u8]) -> (RawClient, bool) {
    let (client, (present, reason)) = knock(server, connect).await;
    assert_eq!(reason, 0);
    (client, present == 1)
}

/// Publishes at QoS 1 what is one byte long.
async fn publish(server: &Server, topic: &str, texts: &[char], retain: bool) {
    let (mut publisher, _) = admitted(server, &connect_v5("publisher", true, 0)).await;
    for text in texts {
        let first = if retain { "33" } else { "32" };
        publisher.send_hex(&format!("{first} ~ s'{topic}' 00 07 00 '{text}'")).await;
        assert_eq!(publisher.packet().await[0], 0x40);
    }
    publisher.send_hex("e0 00").await;
    publisher.expect_closed().await;
}

#[tokio::test]
async fn a_kick_says_why_and_holds_the_client_id_over_a_restart() {
    let mut server = Server::start_dev().await;
    let (mut device, _) = admitted(&server, &connect_v5("meter", false, 600)).await;
    let ended =
        server.api().delete(&format!("{SESSIONS}/meter?reason=moved&hold_seconds=600")).await.expect(200);
    device.expect_hex("e0 ~ 98 { 1f s'moved' }").await;
    device.expect_closed().await;
    for restarted in [false, true] {
        if restarted {
            server.kill().await;
            server.start_again().await;
        }
        let (_, refusal) = knock(&server, &connect_v5("meter", false, 600)).await;
        assert_eq!(refusal, (0, 0x8a), "restarted: {restarted}");
        let (_, refusal) = knock(&server, &connect_v3("meter")).await;
        assert_eq!(refusal, (0, 5), "restarted: {restarted}");
        let hold = server.api().get(&format!("{HOLDS}/meter")).await.expect(200);
        assert_eq!((&hold["until"], &hold["reason"]), (&ended["held_until"], &json!("moved")));
    }
    let until = ended["held_until"].as_str().expect("a time").to_owned();
    let mut refused = RawClient::open(server.mqtt).await;
    refused.send(&connect_v5("meter", false, 600)).await;
    refused
        .expect_hex(&format!("20 ~ 00 8a {{ 1f s'an operator holds this client id until {until}' }}"))
        .await;
    admitted(&server, &connect_v5("other", true, 0)).await;
    server.api().delete(&format!("{HOLDS}/meter")).await.expect(204);
    let (_device, present) = admitted(&server, &connect_v5("meter", false, 600)).await;
    assert!(!present);
    server.stop().await;
}

#[tokio::test]
async fn a_suppressed_will_is_not_published() {
    let server = Server::start_dev().await;
    let (mut witness, _) = admitted(&server, &connect_v5("witness", true, 0)).await;
    witness.send_hex("82 ~ 00 01 00 s'will' 01").await;
    witness.expect_hex("90 04 00 01 00 01").await;
    let with_will = notation::bytes("10 ~ s'MQTT' 05 0c 003c { 11 00000258 } s'meter' {} s'will' s'gone'");
    for query in ["will=suppress", "will=publish"] {
        let (mut device, _) = admitted(&server, &with_will).await;
        let path = format!("{SESSIONS}/meter/disconnect?{query}");
        let ended = server.api().post(&path, json!({})).await.expect(200);
        assert_eq!(ended["will"], query.trim_start_matches("will="));
        device.expect_hex("e0 ~ 98 ...").await;
        let session = server.api().get(&format!("{SESSIONS}/meter")).await.expect(200);
        assert_eq!(session["will_present"], false);
    }
    // The first one would have come first.
    witness.expect_hex("32 ~ s'will' 00 01 00 'gone'").await;
    witness.send_hex("c0 00").await;
    witness.expect_hex("d0 00").await;
    server.stop().await;
}

/// API.md, "Fencing": a kick that is meant for one attachment, against the client's return.
#[tokio::test]
async fn a_kick_that_races_a_return_hits_the_old_connection_or_nothing() {
    let server = Server::start_dev().await;
    let api = server.api();
    for round in 0..20 {
        let (_first, _) = admitted(&server, &connect_v5("meter", false, 600)).await;
        let read = api.get(&format!("{SESSIONS}/meter")).await.expect(200);
        let (id, epoch) = (read["session_id"].as_str().expect("an id"), &read["epoch"]);
        let path = format!("{SESSIONS}/meter?if_session_id={id}&if_epoch={epoch}");
        let connect = connect_v5("meter", false, 600);
        let (kick, (mut second, present)) = tokio::join!(api.delete(&path), admitted(&server, &connect));
        let hit = kick.status.as_u16() == 200;
        if !hit {
            kick.expect_problem(409, "session_superseded");
        }
        assert_eq!(present, !hit, "round {round}");
        second.send_hex("c0 00").await;
        second.expect_hex("d0 00").await;
        let now = api.get(&format!("{SESSIONS}/meter")).await.expect(200);
        assert_eq!(now["state"], "online");
        assert_eq!(now["session_id"] == read["session_id"], !hit, "round {round}");
    }
    server.stop().await;
}

/// Protection is decided where sessions end: of a PATCH that protects and a DELETE one is too late.
#[tokio::test]
async fn protection_and_deletion_cannot_both_be_had() {
    let server = Server::start_dev().await;
    let api = server.api();
    let path = format!("{SESSIONS}/meter");
    for round in 0..20 {
        api.put(&path, json!({})).await.expect(201);
        let (patched, deleted) =
            tokio::join!(api.patch(&path, json!({"protected": true})), api.delete(&path));
        match (patched.status.as_u16(), deleted.status.as_u16()) {
            (200, 409) => {
                deleted.expect_problem(409, "session_protected");
                assert_eq!(api.get(&path).await.expect(200)["protected"], true);
                api.patch(&path, json!({"protected": false})).await.expect(200);
                drop(api.delete(&path).await.expect(200));
            }
            (404, 200) => drop(api.get(&path).await.expect_problem(404, "session_not_found")),
            other => panic!("round {round}: {other:?}"),
        }
    }
    server.stop().await;
}

/// A client that takes no byte any more: what it is sent fills every buffer on the way.
async fn deaf(server: &Server) -> RawClient {
    let (mut device, _) = admitted(server, &connect_v5("deaf", false, 600)).await;
    device.send_hex("82 ~ 00 01 00 s'flood' 00").await;
    device.expect_hex("90 04 00 01 00 00").await;
    let (mut publisher, _) = admitted(server, &connect_v5("publisher", true, 0)).await;
    let block = notation::bytes("30 ~ s'flood' 00 'x'*65000");
    // Once something is dropped, the connection is congested.
    let fill = async {
        loop {
            for _ in 0..50 {
                publisher.send(&block).await;
            }
            let session = server.api().get(&format!("{SESSIONS}/deaf")).await.expect(200);
            if session["counters"]["dropped_slow"].as_u64() > Some(0) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, fill).await.expect("the connection is full in time");
    device
}

async fn ended(api: &Api, id: &Value) -> Value {
    let path = format!("/v1/operations/{}", id.as_str().expect("an id"));
    eventually("the operation ends", PATIENCE, async || {
        let operation = api.get(&path).await.expect(200);
        (operation["state"] == "succeeded").then_some(operation)
    })
    .await
}

#[tokio::test]
async fn what_is_not_confirmed_in_time_is_told_by_an_operation_also_after_a_crash() {
    let mut server = Server::start_dev().await;
    for crash in [false, true] {
        let _device = deaf(&server).await;
        let hasty = server.api().preferring("wait=0");
        let accepted = hasty.delete(&format!("{SESSIONS}/deaf?reason=deaf")).await.expect(202);
        if crash {
            server.kill().await;
            server.start_again().await;
        }
        let operation = ended(&server.api(), &accepted["id"]).await;
        assert_eq!(operation["outcomes"], json!({"deleted": 1}), "crash: {crash}");
        server.api().get(&format!("{SESSIONS}/deaf")).await.expect_problem(404, "session_not_found");
        let history = server.api().get(&format!("{SESSIONS}/deaf/history")).await.expect(200);
        let kicked =
            history["items"].as_array().expect("items").iter().find(|event| event["kind"] == "kicked");
        assert_eq!(kicked.expect("a kick")["detail"]["reason"], "deaf");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_session_that_was_made_first_gets_what_was_published_meanwhile() {
    let mut server = Server::start_dev().await;
    publish(&server, "site/kept", &['k'], true).await;
    let body =
        json!({"labels": {"site": "north"}, "protected": true, "subscriptions": {"site/+": {"qos": 1}}});
    for (client, crash) in [("new-5", false), ("new-3", false), ("crashed-5", true), ("crashed-3", true)] {
        let path = format!("{SESSIONS}/{client}");
        let made = server.api().put(&path, body.clone()).await.expect(201);
        if crash {
            server.kill().await;
            server.start_again().await;
        }
        publish(&server, "site/1", &['a', 'b'], false).await;
        let again = server.api().put(&path, body.clone()).await.expect(200);
        assert_eq!(again["session_id"], made["session_id"]);

        let v5 = client.ends_with('5');
        let connect = if v5 { connect_v5(client, false, 600) } else { connect_v3(client) };
        let (mut device, present) = admitted(&server, &connect).await;
        assert!(present, "{client}");
        let properties = if v5 { "00" } else { "" };
        device.expect_hex(&format!("33 ~ s'site/kept' ?? ?? {properties} 'k'")).await;
        for text in ['a', 'b'] {
            device.expect_hex(&format!("32 ~ s'site/1' ?? ?? {properties} '{text}'")).await;
        }
        let session = server.api().get(&path).await.expect(200);
        assert_eq!((&session["session_id"], &session["epoch"]), (&made["session_id"], &json!(1)));
        assert_eq!((&session["state"], &session["labels"]), (&json!("online"), &json!({"site": "north"})));
        server.api().delete(&path).await.expect_problem(409, "session_protected");
        server.api().patch(&path, json!({"protected": false})).await.expect(200);
        server.api().delete(&path).await.expect(200);
    }
    server.stop().await;
}

/// PRODUCT S-8: made sessions and clients together, never one over and never one short.
#[tokio::test]
async fn sessions_that_are_made_share_the_quota_with_those_that_come() {
    const LIMIT: usize = 10;
    let server = Server::start_dev().await;
    let api = server.api();
    let quota = api.get("/v1/clusters/default/quota").await;
    api.put_over(&quota, "/v1/clusters/default/quota", json!({"connections": LIMIT})).await.expect(200);
    let mut attempts = tokio::task::JoinSet::new();
    for number in 0..40 {
        let (api, address) = (api.clone(), server.mqtt);
        attempts.spawn(async move {
            if number % 2 == 0 {
                let answer = api.put(&format!("{SESSIONS}/made-{number}"), json!({})).await;
                let made = answer.status.as_u16() == 201;
                if !made {
                    answer.expect_problem(409, "quota_exceeded");
                }
                return (None, made);
            }
            let mut client = RawClient::open(address).await;
            client.send(&connect_v5(&format!("came-{number}"), false, 600)).await;
            let came = client.packet().await[3] == 0;
            (Some(client), came)
        });
    }
    let answers = attempts.join_all().await;
    assert_eq!(answers.iter().filter(|(_, inside)| *inside).count(), LIMIT);
    let usage = api.get("/v1/clusters/default/usage").await.expect(200);
    assert_eq!((&usage["total"], &usage["free"]), (&json!(LIMIT), &json!(0)));
    server.stop().await;
}

#[tokio::test]
async fn a_subscription_on_behalf_holds_for_the_next_message_and_over_a_restart() {
    let mut server = Server::start_dev().await;
    publish(&server, "a/kept", &['k'], true).await;
    for (client, connect, properties) in
        [("five", connect_v5("five", false, 600), "00"), ("three", connect_v3("three"), "")]
    {
        let (mut device, _) = admitted(&server, &connect).await;
        let path = format!("{SESSIONS}/{client}/subscriptions/a%2F%2B");
        server.api().put(&path, json!({"qos": 1})).await.expect(201);
        let packet = device.expect_hex(&format!("33 ~ s'a/kept' ?? ?? {properties} 'k'")).await;
        let id = &packet[packet.len() - 2 - properties.len() / 2 - 1..][..2];
        device.send(&[&[0x40, 2], id].concat()).await;
        publish(&server, "a/1", &['x'], false).await;
        let packet = device.expect_hex(&format!("32 ~ s'a/1' ?? ?? {properties} 'x'")).await;
        let id = &packet[packet.len() - 1 - properties.len() / 2 - 2..][..2];
        device.send(&[&[0x40, 2], id].concat()).await;
        device.send_hex("e0 00").await;
        device.expect_closed().await;

        server.kill().await;
        server.start_again().await;
        server.api().put(&path, json!({"qos": 1, "retain_handling": 2})).await.expect(200);
        publish(&server, "a/2", &['y'], false).await;
        let (mut device, present) = admitted(&server, &connect).await;
        assert!(present);
        // Its acknowledgement of the one before may not have been on disk when the service was killed.
        let mut packet = device.packet().await;
        if notation::matches(&packet, &format!("32 ~ s'a/1' ?? ?? {properties} 'x'")) {
            packet = device.packet().await;
        }
        assert!(notation::matches(&packet, &format!("32 ~ s'a/2' ?? ?? {properties} 'y'")), "{packet:02x?}");
        let listed = server.api().get(&format!("{SESSIONS}/{client}/subscriptions")).await.expect(200);
        assert_eq!(listed["items"][0]["origin"], "operator");

        server.api().delete(&path).await.expect(204);
        publish(&server, "a/3", &['z'], false).await;
        device.send_hex("c0 00").await;
        device.expect_hex("d0 00").await;
        server.api().delete(&path).await.expect_problem(404, "subscription_not_found");
    }
    server.stop().await;
}

#[tokio::test]
async fn quotas_of_subscriptions_hold_for_operators() {
    let server = Server::start_dev().await;
    let api = server.api();
    let quota = api.get("/v1/clusters/default/quota").await;
    let limits = json!({"filters_per_client": 1, "subscriptions": 2});
    api.put_over(&quota, "/v1/clusters/default/quota", limits).await.expect(200);
    let (_device, _) = admitted(&server, &connect_v5("meter", false, 600)).await;
    let path = |filter: &str| format!("{SESSIONS}/meter/subscriptions/{filter}");
    api.put(&path("a"), json!({"qos": 1})).await.expect(201);
    api.put(&path("a"), json!({"qos": 2})).await.expect(200);
    let problem = api.put(&path("b"), json!({"qos": 1})).await.expect_problem(409, "quota_exceeded");
    assert_eq!(problem["detail"], "quota filters_per_client: limit 1, in use 1");
    let deep = "a%2F".repeat(16);
    api.put(&path(&deep), json!({"qos": 1})).await.expect_problem(422, "topic_filter_refused");
    let made = json!({"subscriptions": {"a": {"qos": 1}}});
    api.put(&format!("{SESSIONS}/second"), made.clone()).await.expect(201);
    let problem = api.put(&format!("{SESSIONS}/third"), made).await.expect_problem(409, "quota_exceeded");
    assert_eq!(problem["detail"], "quota subscriptions: limit 2, in use 2");
    api.get(&format!("{SESSIONS}/third")).await.expect_problem(404, "session_not_found");
    server.stop().await;
}

#[tokio::test]
async fn quotas_of_shared_groups_hold_for_operators() {
    //
    let mut server = Server::start_dev().await;
    let api = server.api();
    let quota = api.get("/v1/clusters/default/quota").await;
    let limits = json!({"shared_groups": 1, "filters_per_shared_group": 1, "members_per_shared_group": 1});
    api.put_over(&quota, "/v1/clusters/default/quota", limits).await.expect(200);
    let share = |group: &str, filter: &str| json!({"subscriptions": {(format!("$share/{group}/{filter}")): {"qos": 1}}});
    api.put(&format!("{SESSIONS}/one"), share("g", "a")).await.expect(201);
    for (group, filter, quota) in [
        ("h", "a", "shared_groups"),
        ("g", "b", "filters_per_shared_group"),
        ("g", "a", "members_per_shared_group"),
    ] {
        let made = api.put(&format!("{SESSIONS}/two"), share(group, filter)).await;
        let problem = made.expect_problem(409, "quota_exceeded");
        assert_eq!(problem["detail"], format!("quota {quota}: limit 1, in use 1"));
    }
    let used = api.get("/v1/clusters/default/quota").await.expect(200);
    assert_eq!(used["shared_groups"], json!({"limit": 1, "source": "override", "used": 1}));

    // Clients of both versions, over the socket, before and after a restart.
    let (mut v5, _) = admitted(&server, &connect_v5("v5", true, 0)).await;
    v5.send_hex("82 ~ 0001 { } s'$share/h/a' 01 s'plain' 01").await;
    let why = "quota shared_groups: limit 1, in use 1";
    v5.expect_hex(&format!("90 ~ 0001 {{ 1f s'{why}' }} 97 01")).await;
    let (mut v3, _) = admitted(&server, &connect_v3("v3")).await;
    v3.send_hex("82 ~ 0001 s'$share/g/a' 01 s'plain' 01").await;
    v3.expect_hex("90 ~ 0001 80 01").await;
    server.kill().await;
    server.start_again().await;
    let (mut v5, _) = admitted(&server, &connect_v5("v5", true, 0)).await;
    v5.send_hex("82 ~ 0001 { } s'$share/g/a' 01").await;
    v5.expect_hex("90 ~ 0001 { ... } 97").await;
    server.api().delete(&format!("{SESSIONS}/one")).await.expect(200);
    v5.send_hex("82 ~ 0002 { } s'$share/g/a' 01").await;
    v5.expect_hex("90 ~ 0002 { } 01").await;
    server.stop().await;
}
