//! What waits, what is in flight, wills, shared groups and nodes of a real process, with clients that other people
//! wrote; messages that lie on disk only, and a restart in between.

use serde_json::{Value, json};

use super::support::mqtt::{RawClient, connect_v5};
use super::support::server::Server;
use super::support::stock::{Rumqtt, Rumqtting};
use super::support::{PATIENCE, eventually};

/// More than a segment of these tests (4 MiB) holds, and many times what one page does.
const MESSAGES: usize = 6_000;
const PAYLOAD_BYTES: usize = 1_000;

async fn client(server: &Server, client_id: &str) -> Rumqtt {
    let how = Rumqtting { client_id, clean_start: false, expiry_secs: 3_600 };
    Rumqtt::connect(server.mqtt, how).await.expect("let in")
}

async fn asleep(server: &Server, client_id: &str, filters: &[&str]) {
    let mut sleeper = client(server, client_id).await;
    for filter in filters {
        sleeper.subscribe(filter).await;
    }
    sleeper.disconnect().await;
}

/// A message that says its number, at its full length.
fn payload(n: usize) -> String {
    format!("{n:0PAYLOAD_BYTES$}")
}

async fn get(server: &Server, path: &str) -> Value {
    server.api().get(&format!("/v1/clusters/default/{path}")).await.expect(200)
}

/// Every item, page by page.
async fn all(server: &Server, path: &str) -> Vec<Value> {
    let (mut items, mut token) = (Vec::new(), String::new());
    loop {
        let mut page = get(server, &format!("{path}{token}")).await;
        items.append(page["items"].as_array_mut().expect("items"));
        match page["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => return items,
        }
    }
}

fn numbers(items: &[Value]) -> Vec<usize> {
    let number = |item: &Value| item["message"]["payload"].as_str().and_then(|text| text.parse().ok());
    items.iter().map(|item| number(item).unwrap_or_else(|| panic!("{item}"))).collect()
}

#[tokio::test]
async fn a_backlog_beyond_memory_is_browsed_after_a_restart_to_the_last_message() {
    let mut server = Server::start_dev().await;
    asleep(&server, "sleeper", &["t/#", "t/cmd"]).await;
    let mut publisher = client(&server, "publisher").await;
    publisher.publish_all("t/cmd", (0..MESSAGES).map(payload)).await;
    let path = "sessions/sleeper/messages?of=backlog&payload=text&page_size=1000";
    let first = get(&server, path).await;
    assert_eq!(first["items"][0]["origin"]["publisher"], "publisher");
    assert_eq!(numbers(&all(&server, path).await), (0..MESSAGES).collect::<Vec<_>>());

    server.kill().await;
    server.start_again().await;
    // Nothing is in memory now.
    assert_eq!(numbers(&all(&server, path).await), (0..MESSAGES).collect::<Vec<_>>());
    let page = server.api().get(&format!("/v1/clusters/default/{path}")).await;
    assert!(page.text.len() < 2 * 1_024 * 1_024, "an answer has a bound: {}", page.text.len());
    let mut publisher = client(&server, "publisher").await;
    publisher.publish_all("t/cmd", [payload(MESSAGES)]).await;
    assert_eq!(all(&server, path).await.len(), MESSAGES + 1, "on disk and in memory");

    let behind = |least: usize| format!("sessions?backlog_gte={least}");
    assert_eq!(all(&server, &behind(MESSAGES + 1)).await.len(), 1);
    assert_eq!(all(&server, &behind(MESSAGES + 2)).await.len(), 0);
    // It gets them all the same.
    let mut sleeper = client(&server, "sleeper").await;
    let got = sleeper.messages(MESSAGES + 1).await;
    assert_eq!(got.len(), MESSAGES + 1);
    assert_eq!(got[MESSAGES], payload(MESSAGES));
}

#[tokio::test]
async fn what_is_in_flight_keeps_its_packet_id_over_a_restart() {
    let mut server = Server::start_dev().await;
    let mut reader = RawClient::open(server.mqtt).await;
    reader.send(&connect_v5("reader", false, 1_000)).await;
    assert_eq!(reader.packet().await[0], 0x20);
    reader.send_hex("82 07 00 01 00 00 01't' 02").await;
    reader.expect_hex("90 04 00 01 00 02").await;
    let mut publisher = client(&server, "publisher").await;
    publisher.publish_all("t", ["one".to_owned(), "two".to_owned()]).await;
    for _ in 0..2 {
        assert_eq!(reader.packet().await[0] & 0xf0, 0x30);
    }
    let path = "sessions/reader/messages?of=in_flight&payload=text";
    let seen = |page: Vec<Value>| -> Vec<Value> {
        let each = page.into_iter().map(|item| {
            json!([
                item["exchange"]["packet_id"],
                item["exchange"]["phase"],
                item["message"]["payload"],
                item["qos"]
            ])
        });
        each.collect()
    };
    let both = [json!([1, "published", "one", 1]), json!([2, "published", "two", 1])];
    assert_eq!(seen(all(&server, path).await), both);
    drop(reader);
    let asleep = eventually("the record says offline", PATIENCE, async || {
        let session = get(&server, "sessions/reader").await;
        (session["state"] == "offline").then_some(session)
    });
    asleep.await;
    // Its progress went to the disk before this does, which is on disk when it is acknowledged.
    publisher.publish_all("t", ["three".to_owned()]).await;
    server.kill().await;
    server.start_again().await;
    assert_eq!(seen(all(&server, path).await), both);
    let backlog = all(&server, "sessions/reader/messages?of=backlog&payload=text").await;
    assert_eq!(backlog.len(), 1);
    assert_eq!(backlog[0]["message"]["payload"], "three");
}

#[tokio::test]
async fn a_will_is_there_with_its_due_time_until_it_is_published() {
    let server = Server::start_dev().await;
    let mut client = RawClient::open(server.mqtt).await;
    // Expiry 1,000 s; a will of QoS 1 after 600 s, content type and a user property.
    client
        .send_hex(
            "10 ~ s'MQTT' 05 0c 003c { 11 000003e8 } s'c' \
             { 18 00000258 03 s'text/plain' 26 s'k' s'v' } s'w' s'gone'",
        )
        .await;
    assert_eq!(client.packet().await[0], 0x20);
    let will = get(&server, "sessions/c/will?payload=text").await;
    assert_eq!(
        json!([will["topic"], will["payload"], will["published_qos"], will["delay_seconds"], will["due_at"]]),
        json!(["w", "gone", 1, 600, null])
    );
    assert_eq!(will["mqtt_properties"]["content_type"], "text/plain");
    assert_eq!(will["mqtt_properties"]["user_properties"], json!([{"name": "k", "value": "v"}]));
    drop(client);
    let due = eventually("the will is due", PATIENCE, async || {
        let will = get(&server, "sessions/c/will").await;
        will["due_at"].is_string().then_some(will)
    });
    assert_eq!(due.await["delay_seconds"], 600);
    let mut client = RawClient::open(server.mqtt).await;
    client.send(&connect_v5("c", false, 1_000)).await;
    assert_eq!(client.packet().await[0], 0x20);
    server.api().get("/v1/clusters/default/sessions/c/will").await.expect_problem(404, "will_not_found");
}

#[tokio::test]
async fn a_shared_group_is_seen_moved_and_ended() {
    let mut server = Server::start_dev().await;
    asleep(&server, "worker-1", &["$share/workers/jobs/#"]).await;
    let mut publisher = client(&server, "publisher").await;
    publisher.publish_all("jobs/a", (0..20).map(|n| n.to_string())).await;
    let group = "shared-groups/$share%2Fworkers%2Fjobs%2F%23";
    let seen = get(&server, group).await;
    assert_eq!(json!([seen["members"], seen["members_online"], seen["lag"]]), json!([1, 0, 20]), "{seen}");
    assert_eq!(seen["member_sessions"][0]["client_id"], "worker-1");
    let whole = format!("/v1/clusters/default/{group}");
    server.api().put(&whole, json!({"strategy": "hash_topic"})).await.expect(200);

    let mut worker = client(&server, "worker-1").await;
    assert_eq!(worker.messages(20).await.len(), 20);
    worker.disconnect().await;
    let again = server.api().post(&format!("{whole}/progress"), json!({"to": "earliest"})).await.expect(200);
    assert_eq!(again["position"], 0);
    server.kill().await;
    server.start_again().await;
    let seen = get(&server, group).await;
    assert_eq!(json!([seen["lag"], seen["strategy"]]), json!([20, "hash_topic"]), "{seen}");
    let mut worker = client(&server, "worker-1").await;
    let got = worker.messages(20).await;
    assert_eq!(got, (0..20).map(|n| n.to_string()).collect::<Vec<_>>(), "one member, in order");
    worker.disconnect().await;

    let mut publisher = client(&server, "publisher").await;
    publisher.publish_all("jobs/a", ["passed over".to_owned()]).await;
    server.api().post(&format!("{whole}/progress"), json!({"to": "now"})).await.expect(200);
    publisher.publish_all("jobs/a", ["next".to_owned()]).await;
    let mut worker = client(&server, "worker-1").await;
    assert_eq!(worker.messages(1).await, ["next"]);

    server.api().delete(&whole).await.expect_problem(409, "shared_group_in_use");
    let ended = server.api().delete(&format!("{whole}?force=true")).await.expect(200);
    assert_eq!(ended["members"], 1);
    assert_eq!(get(&server, "sessions/worker-1/subscriptions").await["items"], json!([]));
    server.api().get(&whole).await.expect_problem(404, "shared_group_not_found");
}

#[tokio::test]
async fn the_node_tells_of_itself_and_its_sessions_of_it() {
    let mut server = Server::start_dev().await;
    let nodes = async |server: &Server| server.api().get("/v1/nodes").await.expect(200)["items"].clone();
    let _client = client(&server, "here").await;
    let before = nodes(&server).await;
    assert_eq!(before.as_array().map(Vec::len), Some(1));
    assert_eq!(json!([before[0]["clusters"], before[0]["sessions_online"]]), json!([1, 1]));
    let mqtt = json!({"name": "mqtt", "address": server.mqtt.to_string()});
    assert!(before[0]["listeners"].as_array().expect("listeners").contains(&mqtt), "{before}");
    let id = before[0]["id"].as_str().expect("an id").to_owned();
    let here = all(&server, &format!("sessions?node={id}")).await;
    assert_eq!((here.len(), &here[0]["node"]), (1, &json!(id)));
    server.kill().await;
    server.start_again().await;
    let after = nodes(&server).await;
    assert_eq!(after[0]["id"], id, "the same node");
    assert_ne!(after[0]["started_at"], before[0]["started_at"]);
}
