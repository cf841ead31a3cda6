//! MQTT byte by byte: the packets of a plain 3.1.1 and 5.0 exchange, and what becomes of a client that
//! breaks the rules while others go on.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::mqtt::{RawClient, connect_v5, hex};
use crate::support::server::Server;

/// A connection of MQTT 3.1.1 with a clean session, past its CONNACK.
async fn connected_v3(server: &Server, client_id: &str) -> RawClient {
    assert_eq!(client_id.len(), 1, "the lengths below are written down");
    let mut client = RawClient::open(server.mqtt).await;
    client.send_hex(&format!("10 0d 00 04'MQTT'04 02 00 3c 00 01'{client_id}'")).await;
    client.expect_hex("20 02 00 00").await;
    client
}

async fn connected_v5(server: &Server, client_id: &str) -> RawClient {
    let mut client = RawClient::open(server.mqtt).await;
    client.send(&connect_v5(client_id, true, 0)).await;
    let connack = client.packet().await;
    assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0x00, 0x00), "{}", hex(&connack));
    client
}

/// The next packet must be a DISCONNECT of this reason, and the last.
async fn expect_goodbye(mut client: RawClient, reason: u8) {
    let goodbye = client.packet().await;
    assert_eq!((goodbye[0], goodbye.get(2)), (0xe0, Some(&reason)), "{}", hex(&goodbye));
    client.expect_closed().await;
}

#[tokio::test]
async fn a_plain_exchange_of_3_1_1() {
    let server = Server::start_dev().await;
    let mut client = connected_v3(&server, "a").await;
    client.send_hex("82 08 00 01 00 03'x/+' 01").await;
    client.expect_hex("90 03 00 01 01").await;
    client.send_hex("32 09 00 03'x/y' 00 07'hi'").await;
    // Its own message and its PUBACK; which comes first is not said.
    let both = [client.packet().await, client.packet().await];
    let puback = both.iter().find(|packet| packet[0] == 0x40).expect("a PUBACK");
    assert_eq!(hex(puback), "40 02 00 07");
    let publish = both.iter().find(|packet| packet[0] == 0x32).expect("a PUBLISH");
    assert_eq!(hex(&publish[..7]), "32 09 00 03 78 2f 79");
    assert_eq!(&publish[9..], b"hi");
    client.send(&[0x40, 0x02, publish[7], publish[8]]).await;
    client.send_hex("a2 07 00 02 00 03'x/+'").await;
    client.expect_hex("b0 02 00 02").await;
    client.send_hex("c0 00").await;
    client.expect_hex("d0 00").await;
    client.send_hex("e0 00").await;
    client.expect_closed().await;
    server.stop().await;
}

#[tokio::test]
async fn an_expiry_above_the_ceiling_is_lowered_and_told() {
    let server = Server::start_dev().await;
    let mut client = RawClient::open(server.mqtt).await;
    client.send(&connect_v5("a", false, u32::MAX)).await;
    let connack = client.packet().await;
    // PRODUCT S-6: Session Expiry Interval (0x11) of 259,200 s.
    let told = connack.windows(5).any(|bytes| bytes == [0x11, 0x00, 0x03, 0xf4, 0x80]);
    assert!(told, "{}", hex(&connack));
    server.stop().await;
}

#[tokio::test]
async fn a_second_connection_takes_the_session_over() {
    let server = Server::start_dev().await;
    let first = connected_v5(&server, "a").await;
    let _second = connected_v5(&server, "a").await;
    expect_goodbye(first, 0x8e).await;
    server.stop().await;
}

#[tokio::test]
async fn who_breaks_the_rules_goes_and_nobody_else() {
    let server = Server::start_dev().await;
    let mut bystander = connected_v5(&server, "bystander").await;
    for (name, packet, reason) in [
        ("SUBSCRIBE with wrong flags", "80 09 00 01 00 00 03'x/y' 01", 0x81),
        ("a QoS of 3", "36 06 00 01'x' 00 07 00", 0x81),
        ("a remaining length of five bytes", "30 ff ff ff ff 01", 0x81),
        ("a second CONNECT", "10 0d 00 04'MQTT'05 02 00 3c 00 00 00", 0x82),
        ("SUBSCRIBE without a filter", "82 03 00 01 00", 0x82),
    ] {
        let mut client = connected_v5(&server, "breaker").await;
        client.send_hex(packet).await;
        let goodbye = client.packet().await;
        assert_eq!((goodbye[0], goodbye.get(2)), (0xe0, Some(&reason)), "{name}: {}", hex(&goodbye));
        client.expect_closed().await;
        bystander.send_hex("c0 00").await;
        bystander.expect_hex("d0 00").await;
    }
    // Before CONNECT, and in 3.1.1, there is no packet to say goodbye with.
    let mut stranger = RawClient::open(server.mqtt).await;
    stranger.send_hex("c0 00").await;
    stranger.expect_closed().await;
    let mut old = connected_v3(&server, "o").await;
    old.send_hex("80 08 00 01 00 03'x/y' 01").await;
    old.expect_closed().await;
    bystander.send_hex("c0 00").await;
    bystander.expect_hex("d0 00").await;
    server.stop().await;
}

#[tokio::test]
async fn silence_beyond_the_keep_alive_ends_the_connection() {
    let server = Server::start_dev().await;
    let mut client = RawClient::open(server.mqtt).await;
    client.send_hex("10 0e 00 04'MQTT'05 02 00 01 00 00 01's'").await;
    assert_eq!(client.packet().await[0], 0x20);
    let silent_since = Instant::now();
    expect_goodbye(client, 0x8d).await;
    // [MQTT-3.1.2-22]: one and a half times the keep-alive of 1 s; a sweep may add a little.
    let silent = silent_since.elapsed();
    assert!((Duration::from_millis(1_400)..Duration::from_secs(4)).contains(&silent), "{silent:?}");
    server.stop().await;
}
