//! The database goes away under traffic and comes back (DESIGN 1): who is connected goes on, who is
//! known may return, a new session that should last is refused, and nothing has to be restarted.

use serde_json::json;

use crate::support::mqtt::{RawClient, connect_v5, hex};
use crate::support::server::Server;
use crate::support::{PATIENCE, eventually};

const SUBSCRIBE_X: &str = "82 07 00 01 00 00 01'x' 01";
const PUBLISH_X: &str = "32 07 00 01'x' 00 07 00 'm'";

/// Connects with a session that lasts so long, and gives the CONNACK's flags and reason.
async fn connect(server: &Server, client_id: &str, clean: bool, expiry_secs: u32) -> (RawClient, (u8, u8)) {
    let mut client = RawClient::open(server.mqtt).await;
    client.send(&connect_v5(client_id, clean, expiry_secs)).await;
    let connack = client.packet().await;
    assert_eq!(connack[0], 0x20, "{}", hex(&connack));
    (client, (connack[2], connack[3]))
}

#[tokio::test]
async fn clients_go_on_without_the_database_and_all_is_caught_up_after() {
    let server = Server::start_dev().await;
    let (mut sleeper, _) = connect(&server, "sleeper", false, 600).await;
    sleeper.send_hex(SUBSCRIBE_X).await;
    sleeper.expect_hex("90 04 00 01 00 01").await;
    sleeper.send_hex("e0 00").await;
    sleeper.expect_closed().await;
    let (mut listener, _) = connect(&server, "listener", true, 0).await;
    listener.send_hex(SUBSCRIBE_X).await;
    listener.expect_hex("90 04 00 01 00 01").await;
    let (mut talker, _) = connect(&server, "talker", true, 0).await;

    server.database().go_away().await;

    talker.send_hex(PUBLISH_X).await;
    talker.expect_hex("40 02 00 07").await;
    listener.expect_hex("32 07 00 01'x' 00 01 00 'm'").await;
    let (_, refusal) = connect(&server, "newcomer", false, 600).await;
    assert_eq!(refusal, (0, 0x88), "a new session that should last");
    let (_passing, admitted) = connect(&server, "passing", true, 0).await;
    assert_eq!(admitted, (0, 0), "one that ends with its connection");
    let (mut sleeper, resumed) = connect(&server, "sleeper", false, 600).await;
    assert_eq!(resumed, (1, 0), "a known one");
    sleeper.expect_hex("32 07 00 01'x' 00 01 00 'm'").await;
    let problem = server.api().get("/v1/clusters/default/sessions").await.expect(503);
    assert_eq!(problem["code"], "store_unavailable");

    server.database().come_back().await;

    eventually("a new session that should last is admitted again", PATIENCE, async || {
        let (_, answer) = connect(&server, "newcomer", false, 600).await;
        (answer.1 == 0).then_some(())
    })
    .await;
    let session = eventually("what happened meanwhile is on record", PATIENCE, async || {
        let session = server.api().get("/v1/clusters/default/sessions/sleeper").await.expect(200);
        (session["epoch"] == 2).then_some(session)
    })
    .await;
    assert_eq!(session["state"], json!("online"));
    server.stop().await;
}

/// PRODUCT S-8: at the cap, under concurrency, never one over and never one short.
#[tokio::test]
async fn of_many_that_come_at_once_as_many_are_admitted_as_there_is_room() {
    const LIMIT: usize = 20;
    const CLIENTS: usize = 100;
    let server = Server::start_dev().await;
    let api = server.api();
    let quota = api.get("/v1/clusters/default/quota").await;
    api.put_over(&quota, "/v1/clusters/default/quota", json!({"connections": LIMIT})).await.expect(200);

    let mut attempts = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let address = server.mqtt;
        attempts.spawn(async move {
            // Half of them leave a session behind, whose admission waits for a commit.
            let expiry_secs = if number % 2 == 0 { 600 } else { 0 };
            let mut client = RawClient::open(address).await;
            client.send(&connect_v5(&format!("c{number}"), true, expiry_secs)).await;
            let connack = client.packet().await;
            (client, connack[3])
        });
    }
    let answers = attempts.join_all().await;
    let admitted = answers.iter().filter(|(_, reason)| *reason == 0).count();
    assert_eq!(admitted, LIMIT);
    assert!(answers.iter().all(|(_, reason)| matches!(reason, 0 | 0x97)));
    let usage = api.get("/v1/clusters/default/usage").await.expect(200);
    assert_eq!((&usage["total"], &usage["free"]), (&json!(LIMIT), &json!(0)), "{usage}");
    server.stop().await;
}
