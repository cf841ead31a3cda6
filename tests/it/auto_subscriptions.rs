//! Automatic subscriptions over real sockets, for clients of 3.1.1 and 5.0: at CONNECT, over resume, `kill -9` and
//! changes of live rules, under the quotas, shared, with retained messages.

use serde_json::{Value, json};

use crate::support::access::Version::{V3, V5};
use crate::support::access::{connect, knock, publish, subscribe};
use crate::support::http::Api;
use crate::support::mqtt::RawClient;
use crate::support::server::Server;
use crate::support::{PATIENCE, eventually};

const CLUSTER: &str = "/v1/clusters/default";
const RULES: &str = "/v1/clusters/default/auto-subscriptions";

/// The filters of a client, each with who asked for it.
async fn held(api: &Api, client: &str) -> Value {
    let listed = api.get(&format!("{CLUSTER}/sessions/{client}/subscriptions")).await.expect(200);
    let items = listed["items"].as_array().expect("items");
    items.iter().map(|item| json!([item["filter"], item["origin"]])).collect()
}

/// The next packet is a PUBLISH of this topic; it is acknowledged.
async fn expect_message(client: &mut RawClient, topic: &str) {
    let packet = client.packet().await;
    assert_eq!(packet[0] & 0xf0, 0x30, "{packet:02x?}");
    assert_eq!(&packet[4..4 + topic.len()], topic.as_bytes());
    if packet[0] & 0x06 == 0x02 {
        let id = &packet[4 + topic.len()..6 + topic.len()];
        client.send(&[0x40, 2, id[0], id[1]]).await;
    }
}

/// Nothing was sent before the answer to this.
async fn expect_silence(client: &mut RawClient) {
    client.send_hex("c0 00").await;
    client.expect_hex("d0 00").await;
}

#[tokio::test]
async fn clients_are_subscribed_at_connect_and_it_outlives_resume_kill_and_rule() {
    let mut server = Server::start_dev().await;
    let api = server.api();
    let body = json!({"client_id": "m-*", "filter": "down/${clientid}", "qos": 1});
    let rule = api.post(RULES, body).await.expect(201);
    for (version, id) in [(V3, "m-3"), (V5, "m-5")] {
        let topic = format!("down/{id}");
        let mut device = connect(&server, version, id).await;
        assert_eq!(held(&api, id).await, json!([[topic, "automatic"]]));
        let mut sender = connect(&server, V5, "sender").await;
        assert_eq!(publish(&mut sender, V5, &topic, 1, false).await, Some(0), "somebody listens");
        expect_message(&mut device, &topic).await;
        expect_silence(&mut device).await;
        drop(device);
        publish(&mut sender, V5, &topic, 1, false).await;
        let history = api.get(&format!("{CLUSTER}/sessions/{id}/history")).await.expect(200);
        let begun = history["items"].as_array().expect("items").iter().find(|e| e["kind"] == "subscribed");
        assert_eq!(begun.expect("an event")["detail"]["origin"], "automatic");
    }
    let others = connect(&server, V5, "other").await;
    assert_eq!(held(&api, "other").await, json!([]));
    drop(others);

    server.kill().await;
    server.start_again().await;
    let api = server.api();
    api.delete(&format!("{RULES}/{}", rule["id"].as_str().expect("an id"))).await.expect(204);
    for (version, id) in [(V3, "m-3"), (V5, "m-5")] {
        let topic = format!("down/{id}");
        let mut device = connect(&server, version, id).await;
        expect_message(&mut device, &topic).await;
        expect_silence(&mut device).await;
        assert_eq!(held(&api, id).await, json!([[topic, "automatic"]]), "what a rule gave outlives it");
    }
    server.stop().await;
}

#[tokio::test]
async fn rules_that_change_hold_for_the_next_connect_after_the_answer() {
    let server = Server::start_dev().await;
    let api = server.api();
    for (version, id) in [(V3, "three"), (V5, "five")] {
        let rule = api.post(RULES, json!({"client_id": id, "filter": "a", "qos": 1})).await.expect(201);
        let path = format!("{RULES}/{}", rule["id"].as_str().expect("an id"));
        let mut first = connect(&server, version, id).await;
        assert_eq!(held(&api, id).await, json!([["a", "automatic"]]));
        let put = json!({"client_id": id, "filter": "b", "qos": 1});
        api.put(&path, put).await.expect(200);
        assert_eq!(held(&api, id).await, json!([["a", "automatic"]]), "who is there is not touched");

        // UNSUBSCRIBE holds until the next CONNECT, a SUBSCRIBE makes it the client's own.
        let properties = if version == V5 { "{ }" } else { "" };
        first.send_hex(&format!("a2 ~ 0009 {properties} s'a'")).await;
        assert_eq!(first.packet().await[0], 0xb0);
        assert_eq!(held(&api, id).await, json!([]));
        drop(first);
        let mut second = connect(&server, version, id).await;
        assert_eq!(held(&api, id).await, json!([["b", "automatic"]]));
        assert_eq!(subscribe(&mut second, version, "b", 0).await, 0);
        assert_eq!(held(&api, id).await, json!([["b", "client"]]));
        api.delete(&path).await.expect(204);
        drop(second);
        let _third = connect(&server, version, id).await;
        assert_eq!(held(&api, id).await, json!([["b", "client"]]));
    }
    server.stop().await;
}

#[tokio::test]
async fn at_a_quota_what_is_there_comes_first_then_the_rules_then_subscribe() {
    let server = Server::start_dev().await;
    let api = server.api();
    let quota = api.get(&format!("{CLUSTER}/quota")).await;
    api.put_over(&quota, &format!("{CLUSTER}/quota"), json!({"filters_per_client": 2})).await.expect(200);
    for (version, id, refused) in [(V3, "three", 0x80), (V5, "five", 0x97)] {
        let mut client = connect(&server, version, id).await;
        assert_eq!(subscribe(&mut client, version, "own", 1).await, 1);
        drop(client);
        for filter in ["old", "new"] {
            let body = json!({"client_id": id, "filter": filter, "qos": 1});
            api.post(RULES, body).await.expect(201);
        }
        let mut client = connect(&server, version, id).await;
        assert_eq!(held(&api, id).await, json!([["new", "automatic"], ["own", "client"]]));
        assert_eq!(subscribe(&mut client, version, "manual", 1).await, refused);
        let refusals = format!("{CLUSTER}/refusals?client_id={id}");
        let found = eventually("a refusal of a rule", PATIENCE, async || {
            let items = api.get(&refusals).await.expect(200)["items"].clone();
            items.as_array().into_iter().flatten().find(|item| item["count"] == 2).cloned()
        })
        .await;
        assert_eq!((&found["kind"], &found["reason"]), (&json!("subscribe"), &json!("filters_per_client")));
    }
    server.stop().await;
}

#[tokio::test]
async fn shared_and_retained_as_for_a_subscribe() {
    let server = Server::start_dev().await;
    let api = server.api();
    let mut sender = connect(&server, V5, "sender").await;
    publish(&mut sender, V5, "state/x", 1, true).await;
    for (filter, handling) in [("state/+", 0), ("$share/g/jobs", 0), ("quiet/${username}", 2)] {
        let body = json!({"client_id": "m-?", "filter": filter, "qos": 1, "retain_handling": handling});
        api.post(RULES, body).await.expect(201);
    }
    let mut members = Vec::new();
    for (version, id, user) in [(V3, "m-3", "ada"), (V5, "m-5", "bob")] {
        publish(&mut sender, V5, &format!("quiet/{user}"), 1, true).await;
        let (mut client, code) = knock(&server, version, id, Some(user)).await;
        assert_eq!(code, 0);
        expect_message(&mut client, "state/x").await;
        expect_silence(&mut client).await;
        members.push((client, version));
    }
    let group = api.get(&format!("{CLUSTER}/shared-groups/$share%2Fg%2Fjobs")).await.expect(200);
    assert_eq!(group["member_sessions"].as_array().map(Vec::len), Some(2), "{group}");
    // Both leave but one: what is published goes to the one who is there.
    let (mut left, version) = members.remove(1);
    drop(members);
    let gone = format!("{CLUSTER}/sessions/m-3");
    eventually("m-3 is away", PATIENCE, async || {
        (api.get(&gone).await.expect(200)["state"] == "offline").then_some(())
    })
    .await;
    publish(&mut sender, V5, "jobs", 1, false).await;
    expect_message(&mut left, "jobs").await;
    assert_eq!(version, V5);
    server.stop().await;
}

#[tokio::test]
async fn a_client_id_that_would_mean_more_than_itself_gets_nothing_and_that_is_told() {
    let server = Server::start_dev().await;
    let api = server.api();
    api.post(RULES, json!({"filter": "x/${clientid}", "qos": 1})).await.expect(201);
    for (version, id) in [(V3, "+"), (V5, "a/b")] {
        let _client = connect(&server, version, id).await;
        let path = id.replace('/', "%2F").replace('+', "%2B");
        assert_eq!(held(&api, &path).await, json!([]));
        let found = eventually("a refusal", PATIENCE, async || {
            let items = api.get(&format!("{CLUSTER}/refusals?client_id={path}")).await.expect(200);
            items["items"].as_array().and_then(|items| items.first().cloned())
        })
        .await;
        assert_eq!((&found["kind"], &found["reason"]), (&json!("subscribe"), &json!("filter_invalid")));
    }
    server.stop().await;
}
