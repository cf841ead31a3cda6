//! Message enhancement rules over real sockets: publishers of 3.1.1 and 5.0, subscribers now and later, changes
//! under live traffic, and `kill -9`.

use serde_json::{Value, json};

use crate::support::access::Version::{V3, V5};
use crate::support::access::{connect, knock_with, publish, subscribe};
use crate::support::mqtt::RawClient;
use crate::support::server::Server;
use crate::support::{PATIENCE, eventually};

const RULES: &str = "/v1/clusters/default/message-rules";

/// A rule that says who published, to everybody.
fn tell_who(priority: u32, mark: &str) -> Value {
    let value = format!("{mark} ${{clientid}} ${{username}}");
    json!({
        "priority": priority, "name": "who", "condition": {"topic_filter": "t/#"},
        "effects": {"user_properties": [{"name": "who", "value": value}]},
    })
}

/// Makes a rule; its path.
async fn make(server: &Server, body: Value) -> String {
    let made = server.api().post(RULES, body).await.expect(201);
    format!("{RULES}/{}", made["id"].as_str().expect("an id"))
}

/// Sends the client to sleep: its session waits.
async fn sleep(mut client: RawClient) {
    client.send_hex("e0 00").await;
    while client.packet_or_end().await.is_some() {}
}

#[tokio::test]
async fn subscribers_get_what_the_rules_add_online_offline_and_retained() {
    let server = Server::start_dev().await;
    let mut effects = tell_who(1, "by");
    effects["effects"]["response_topic"] = json!("replies/${clientid}");
    effects["effects"]["correlation_data"] = json!("${topic}");
    make(&server, effects).await;
    let expiry = json!({
        "priority": 2, "name": "expiry", "condition": {"username": "ad?"},
        "effects": {"message_expiry": {"mode": "set", "seconds": 3600}},
    });
    make(&server, expiry).await;
    for (version, user) in [(V3, None), (V5, None), (V3, Some("ada")), (V5, Some("ada"))] {
        for qos in [0, 1, 2] {
            let mut online = connect(&server, V5, "online").await;
            let mut plain = connect(&server, V3, "plain").await;
            let mut offline = connect(&server, V5, "offline").await;
            assert_eq!(subscribe(&mut online, V5, "t/#", 0).await, 0);
            assert_eq!(subscribe(&mut plain, V3, "t/#", 0).await, 0);
            assert_eq!(subscribe(&mut offline, V5, "t/#", 1).await, 1);
            sleep(offline).await;
            let (mut writer, _) = knock_with(&server, version, ("p", user), 0x02).await;
            publish(&mut writer, version, "t/1", qos, true).await;

            let named = user.unwrap_or_default();
            let forwarded = format!("08 s'replies/p' 09 s't/1' 26 s'who' s'by p {named}'");
            // The interval that is left, as long as less than a second has passed.
            let left = if user.is_some() { "02 00 00 0e ??" } else { "" };
            online.expect_hex(&format!("30 ~ s't/1' {{ {left} {forwarded} }} 'm'")).await;
            plain.expect_hex("30 ~ s't/1' 'm'").await;
            let mut late = connect(&server, V5, "late").await;
            assert_eq!(subscribe(&mut late, V5, "t/1", 0).await, 0);
            late.expect_hex(&format!("31 ~ s't/1' {{ {left} {forwarded} }} 'm'")).await;
            let mut offline = connect(&server, V5, "offline").await;
            if qos > 0 {
                offline.expect_hex(&format!("32 ~ s't/1' $id {{ {left} {forwarded} }} 'm'")).await;
            }
            // The next round begins without any of them.
            for id in ["online", "plain", "offline", "late", "p"] {
                server.api().delete(&format!("/v1/clusters/default/sessions/{id}")).await.expect(200);
            }
            let (mut cleaner, _) = knock_with(&server, V3, ("p", None), 0x02).await;
            cleaner.send_hex("33 ~ s't/1' 0001").await;
            cleaner.expect_hex("40 02 00 01").await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_change_holds_for_the_next_message_when_it_is_answered() {
    let server = Server::start_dev().await;
    let mut reader = connect(&server, V5, "r").await;
    subscribe(&mut reader, V5, "t/#", 0).await;
    let mut writers = [(V3, connect(&server, V3, "p").await), (V5, connect(&server, V5, "q").await)];
    let path = make(&server, tell_who(1, "0")).await;
    let api = server.api();
    for round in 1..20 {
        let mark = format!("round {round}");
        api.put(&path, tell_who(1, &mark)).await.expect(200);
        for ((version, writer), id) in writers.iter_mut().zip(["p", "q"]) {
            publish(writer, *version, "t/1", 0, false).await;
            reader.expect_hex(&format!("30 ~ s't/1' {{ 26 s'who' s'{mark} {id} ' }} 'm'")).await;
        }
    }
    // A second rule comes after it, whatever came first.
    let second = make(&server, tell_who(0, "first")).await;
    publish(&mut writers[0].1, V3, "t/1", 0, false).await;
    let both = "26 s'who' s'first p ' 26 s'who' s'round 19 p '";
    reader.expect_hex(&format!("30 ~ s't/1' {{ {both} }} 'm'")).await;
    let mut off = tell_who(1, "off");
    off["enabled"] = json!(false);
    api.put(&path, off).await.expect(200);
    publish(&mut writers[0].1, V3, "t/1", 0, false).await;
    reader.expect_hex("30 ~ s't/1' { 26 s'who' s'first p ' } 'm'").await;
    api.delete(&second).await.expect(204);
    for (version, writer) in &mut writers {
        publish(writer, *version, "t/1", 0, false).await;
        reader.expect_hex("30 ~ s't/1' { } 'm'").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_will_is_enhanced_as_a_message_of_its_client() {
    let server = Server::start_dev().await;
    make(&server, tell_who(1, "by")).await;
    let mut reader = connect(&server, V5, "r").await;
    subscribe(&mut reader, V5, "t/#", 0).await;
    for connect in [
        "10 ~ s'MQTT' 04 86 003c s'c' s't/w' s'gone' s'ada'",
        "10 ~ s'MQTT' 05 86 003c { } s'c' { } s't/w' s'gone' s'ada'",
    ] {
        let mut client = RawClient::open(server.mqtt).await;
        client.send_hex(connect).await;
        assert_eq!(client.packet().await[3], 0);
        drop(client);
        reader.expect_hex("30 ~ s't/w' { 26 s'who' s'by c ada' } 'gone'").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn rules_and_what_they_added_outlive_the_process() {
    let mut server = Server::start_dev().await;
    let path = make(&server, tell_who(1, "before")).await;
    let mut sleeper = connect(&server, V5, "s").await;
    subscribe(&mut sleeper, V5, "t/#", 1).await;
    sleep(sleeper).await;
    let mut writer = connect(&server, V3, "p").await;
    assert_eq!(publish(&mut writer, V3, "t/1", 1, true).await, Some(0));
    // One that is connected, and has a will, when the power goes.
    let mut client = RawClient::open(server.mqtt).await;
    client.send_hex("10 ~ s'MQTT' 05 0e 003c { } s'c' { } s't/w' s'gone'").await;
    assert_eq!(client.packet().await[3], 0);
    server.api().put(&path, tell_who(1, "after")).await.expect(200);
    server.kill().await;
    server.start_again().await;

    let mut sleeper = connect(&server, V5, "s").await;
    sleeper.expect_hex("32 ~ s't/1' $id { 26 s'who' s'before p ' } 'm'").await;
    sleeper.expect_hex("32 ~ s't/w' $id { 26 s'who' s'after c ' } 'gone'").await;
    let mut late = connect(&server, V5, "late").await;
    subscribe(&mut late, V5, "t/1", 0).await;
    late.expect_hex("31 ~ s't/1' { 26 s'who' s'before p ' } 'm'").await;
    let mut writer = connect(&server, V3, "p").await;
    publish(&mut writer, V3, "t/1", 0, false).await;
    late.expect_hex("30 ~ s't/1' { 26 s'who' s'after p ' } 'm'").await;
    server.stop().await;
}

#[tokio::test]
async fn what_could_not_be_added_is_in_the_metrics() {
    let server = Server::start_dev().await;
    let mut rule = tell_who(1, "by");
    rule["effects"]["response_topic"] = json!("replies/${clientid}");
    make(&server, rule).await;
    let mut reader = connect(&server, V5, "r").await;
    subscribe(&mut reader, V5, "t/#", 0).await;
    let mut sly = connect(&server, V3, "a+b").await;
    publish(&mut sly, V3, "t/1", 0, false).await;
    reader.expect_hex("30 ~ s't/1' { 26 s'who' s'by a+b ' } 'm'").await;
    let line = "holdfast_message_rule_values_left_out_total{cluster=\"default\"} 1";
    eventually("it is counted", PATIENCE, async || {
        server.api().get("/metrics").await.text.lines().any(|found| found == line).then_some(())
    })
    .await;
    server.stop().await;
}
