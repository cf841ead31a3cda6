//! What is on disk: messages outlive the process, and their files go when nobody needs them (S-12, S-14).

use std::path::Path;

use crate::support::mqtt::{RawClient, connect_v5};
use crate::support::server::Server;
use crate::support::{PATIENCE, eventually};

const SUBSCRIBE_T: &str = "82 07 00 01 00 00 01't' 02";

async fn connect(server: &Server, client_id: &str) -> RawClient {
    let mut client = RawClient::open(server.mqtt).await;
    client.send(&connect_v5(client_id, false, 1_000)).await;
    let connack = client.packet().await;
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    client
}

/// A client that subscribes to `t` and goes.
async fn sleeper(server: &Server, client_id: &str) {
    let mut client = connect(server, client_id).await;
    client.send_hex(SUBSCRIBE_T).await;
    client.expect_hex("90 04 00 01 00 02").await;
    client.send_hex("e0 00").await;
    client.expect_closed().await;
}

/// PUBLISH to `t` at QoS 1.
fn publish(packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 1, b't'];
    body.extend(packet_id.to_be_bytes());
    body.push(0);
    body.extend(payload);
    let mut packet = vec![0x32];
    let mut len = body.len();
    while len > 127 {
        packet.push(u8::try_from(len & 127 | 128).expect("a byte"));
        len >>= 7;
    }
    packet.push(u8::try_from(len).expect("a byte"));
    packet.extend(body);
    packet
}

async fn publish_all(client: &mut RawClient, count: u16, payload_bytes: usize) {
    for id in 1..=count {
        let mut payload = vec![b'.'; payload_bytes];
        payload[..2].copy_from_slice(&id.to_be_bytes());
        client.send(&publish(id, &payload)).await;
        assert_eq!(client.packet().await[..4], [0x40, 2, id.to_be_bytes()[0], id.to_be_bytes()[1]]);
    }
}

/// Takes `count` messages at QoS 1 and acknowledges each; the numbers at their beginnings.
async fn take(client: &mut RawClient, count: usize) -> Vec<u16> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let packet = client.packet().await;
        assert_eq!(packet[0] & 0xf6, 0x32, "PUBLISH at QoS 1");
        let body = &packet[packet.len() - (packet.len() - 1 - len_bytes(&packet))..];
        let (id, payload) = (&body[3..5], &body[6..]);
        numbers.push(u16::from_be_bytes([payload[0], payload[1]]));
        client.send(&[0x40, 2, id[0], id[1]]).await;
    }
    numbers
}

fn len_bytes(packet: &[u8]) -> usize {
    1 + packet[1..].iter().take_while(|byte| **byte & 128 != 0).count()
}

fn log_bytes(data_dir: &Path) -> u64 {
    let files = std::fs::read_dir(data_dir.join("log")).expect("the message log").flatten();
    let segments = files.filter(|file| file.file_name().to_string_lossy().contains("segment"));
    segments.map(|file| file.metadata().map_or(0, |metadata| metadata.len())).sum()
}

#[tokio::test]
async fn acknowledged_messages_are_there_after_kill_9() {
    let mut server = Server::start_dev().await;
    sleeper(&server, "one").await;
    sleeper(&server, "two").await;
    let mut publisher = connect(&server, "p").await;
    publish_all(&mut publisher, 500, 20).await;
    server.kill().await;
    server.start_again().await;
    let mut one = connect(&server, "one").await;
    assert_eq!(take(&mut one, 500).await, (1..=500).collect::<Vec<u16>>());
    let mut publisher = connect(&server, "p").await;
    publish_all(&mut publisher, 3, 20).await;
    assert_eq!(take(&mut one, 3).await, [1, 2, 3]);
    server.kill().await;
    server.start_again().await;
    let mut two = connect(&server, "two").await;
    assert_eq!(take(&mut two, 503).await, (1..=500).chain(1..=3).collect::<Vec<u16>>());
}

#[tokio::test]
async fn segments_go_when_everything_in_them_is_consumed() {
    let server = Server::start_dev().await;
    sleeper(&server, "s").await;
    let mut publisher = connect(&server, "p").await;
    publish_all(&mut publisher, 400, 100_000).await;
    let full = log_bytes(&server.data_path());
    assert!(full > 40_000_000, "{full} bytes hold 40 MB");
    let mut reader = connect(&server, "s").await;
    assert_eq!(take(&mut reader, 400).await.len(), 400);
    eventually("the segments go", PATIENCE, async || {
        (log_bytes(&server.data_path()) < full / 2).then_some(())
    })
    .await;
}
