//! Start and stop as an init system sees them.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::support::mqtt::{RawClient, connect_v5};
use crate::support::server::{Database, Options, Server};

#[tokio::test]
async fn sigterm_says_goodbye_to_clients_and_ends_well() {
    let mut server = Server::start_dev().await;
    let mut client = RawClient::open(server.mqtt).await;
    client.send(&connect_v5("meter-1", true, 0)).await;
    assert_eq!(client.packet().await[0], 0x20);

    let asked = Instant::now();
    server.signal(Signal::TERM);
    // [MQTT-3.14.2.1]: 0x8B, the server is shutting down.
    let goodbye = client.packet().await;
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x8b), "{goodbye:02x?}");
    client.expect_closed().await;
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn sigint_ends_it_as_sigterm_does() {
    let mut server = Server::start_dev().await;
    server.signal(Signal::INT);
    assert_eq!(server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_start_keeps_the_token_and_the_secret() {
    let mut server = Server::start_dev().await;
    let api = server.api();
    api.get("/v1/clusters").await.expect(200);
    let token = std::fs::read_to_string(server.data_path().join("admin.token")).expect("a token");
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0));
    server.start_again().await;
    let again = std::fs::read_to_string(server.data_path().join("admin.token")).expect("a token");
    assert_eq!(token, again);
    server.api().get("/v1/clusters").await.expect(200);
    server.stop().await;
}

/// Dropping `--dev` closes nothing: whoever started with it once is told that anybody may still come in.
#[tokio::test]
async fn what_dev_left_open_is_told_until_it_is_closed() {
    let warnings =
        |server: &Server| server.log().iter().filter(|line| line.contains("as --dev left it")).count();
    let mut server = Server::start_dev().await;
    assert_eq!(warnings(&server), 0);
    server.kill().await;
    server.start_again_with(&[]).await;
    assert_eq!(warnings(&server), 1);
    let closed = serde_json::json!({"allow_anonymous": false});
    server.api().patch("/v1/clusters/default", closed).await.expect(200);
    server.kill().await;
    server.start_again_with(&[]).await;
    assert_eq!(warnings(&server), 0);
    server.stop().await;
}

#[tokio::test]
async fn without_a_database_it_brings_its_own_and_finds_it_again_after_a_kill() {
    let options =
        Options { database: Database::Private, flags: vec!["--dev".to_owned()], ..Options::default() };
    let mut server = Server::start(options).await;
    let mut client = RawClient::open(server.mqtt).await;
    client.send(&connect_v5("meter-1", false, 3_600)).await;
    assert_eq!(client.packet().await[0], 0x20);
    server.kill().await;
    server.start_again().await;
    let session = server.api().get("/v1/clusters/default/sessions/meter-1").await.expect(200);
    assert_eq!(session["state"], "offline");

    let postmaster = server.data_path().join("postgres/data/postmaster.pid");
    assert!(postmaster.exists());
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0));
    assert!(!postmaster.exists(), "Postgres was left running");
}

#[tokio::test]
async fn logs_are_json_where_nobody_watches() {
    let server = Server::start_dev().await;
    let log = server.log();
    assert!(!log.is_empty());
    for line in log {
        let json: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(json["level"].is_string() && json["message"].is_string(), "{line}");
    }
    server.stop().await;
}
