//! What holds on every transport alike: a whole exchange in each version, packets that arrive in any
//! pieces, a goodbye that is heard, and what the record says of where a client came from.

use rustix::process::Signal;
use serde_json::json;

use crate::support::mqtt::{RawClient, connect_v5, hex};
use crate::support::transport::{ALL, Site};

/// CONNECT, SUBSCRIBE, a message to oneself at QoS 1, PINGREQ, DISCONNECT.
async fn exchange_v3(client: &mut RawClient) {
    client.send_hex("10 0d 00 04'MQTT'04 02 00 3c 00 01'a'").await;
    client.expect_hex("20 02 00 00").await;
    client.send_hex("82 08 00 01 00 03'x/y' 01").await;
    client.expect_hex("90 03 00 01 01").await;
    client.send_hex("32 09 00 03'x/y' 00 07'hi'").await;
    let (publish, puback) = publish_and_puback(client).await;
    assert_eq!(hex(&puback), "40 02 00 07");
    assert_eq!((&publish[..7], &publish[9..]), (&b"\x32\x09\x00\x03x/y"[..], &b"hi"[..]));
    client.send(&[0x40, 0x02, publish[7], publish[8]]).await;
    client.send_hex("c0 00").await;
    client.expect_hex("d0 00").await;
    client.send_hex("e0 00").await;
    client.expect_closed().await;
}

async fn exchange_v5(client: &mut RawClient) {
    client.send(&connect_v5("b", true, 0)).await;
    let connack = client.packet().await;
    assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0x00, 0x00), "{}", hex(&connack));
    client.send_hex("82 09 00 01 00 00 03'x/y' 01").await;
    client.expect_hex("90 04 00 01 00 01").await;
    client.send_hex("32 0a 00 03'x/y' 00 07 00'hi'").await;
    let (publish, puback) = publish_and_puback(client).await;
    assert_eq!((puback[0], &puback[2..4]), (0x40, &[0x00, 0x07][..]), "{}", hex(&puback));
    assert!(publish.starts_with(b"\x32\x0a\x00\x03x/y") && publish.ends_with(b"\x00hi"), "{}", hex(&publish));
    client.send(&[0x40, 0x02, publish[7], publish[8]]).await;
    client.send_hex("c0 00").await;
    client.expect_hex("d0 00").await;
    client.send_hex("e0 00").await;
    client.expect_closed().await;
}

/// One's own message and its PUBACK; which comes first is not said.
async fn publish_and_puback(client: &mut RawClient) -> (Vec<u8>, Vec<u8>) {
    let (first, second) = (client.packet().await, client.packet().await);
    if first[0] == 0x40 { (second, first) } else { (first, second) }
}

#[tokio::test]
async fn a_whole_exchange_on_every_transport_in_both_versions() {
    let site = Site::start(&[]).await;
    for listener in ALL {
        exchange_v3(&mut site.client(listener).await).await;
        exchange_v5(&mut site.client(listener).await).await;
    }
    site.stop().await;
}

#[tokio::test]
async fn packets_arrive_in_any_pieces_on_every_transport() {
    let site = Site::start(&[]).await;
    // CONNECT, SUBSCRIBE, PINGREQ.
    let packets =
        [connect_v5("c", true, 0), b"\x82\x09\x00\x01\x00\x00\x03x/y\x01".to_vec(), vec![0xc0, 0]].concat();
    for listener in ALL {
        for cut in 1..packets.len() {
            let mut client = site.client(listener).await;
            client.send(&packets[..cut]).await;
            // The other part must be another read of the server's, or another frame.
            tokio::task::yield_now().await;
            client.send(&packets[cut..]).await;
            let connack = client.packet().await;
            assert_eq!(connack[0], 0x20, "{listener} cut at {cut}: {}", hex(&connack));
            client.expect_hex("90 04 00 01 00 01").await;
            client.expect_hex("d0 00").await;
        }
        let mut client = site.client(listener).await;
        for byte in &packets {
            client.send(&[*byte]).await;
        }
        assert_eq!(client.packet().await[0], 0x20, "{listener}");
        client.expect_hex("90 04 00 01 00 01").await;
        client.expect_hex("d0 00").await;
    }
    site.stop().await;
}

#[tokio::test]
async fn a_large_message_goes_both_ways_on_every_transport() {
    let site = Site::start(&[]).await;
    // Close to the largest packet, so more than any buffer or frame on the way.
    let payload: Vec<u8> = (0..250_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut publish = vec![0x30];
    let mut length = payload.len() + 6;
    while length > 0 {
        let more = if length >= 128 { 0x80 } else { 0 };
        publish.push(u8::try_from(length % 128).expect("seven bits") | more);
        length /= 128;
    }
    publish.extend(b"\x00\x03x/y\x00");
    publish.extend(&payload);
    for listener in ALL {
        let mut client = site.client(listener).await;
        client.send(&connect_v5("d", true, 0)).await;
        assert_eq!(client.packet().await[0], 0x20);
        client.send_hex("82 09 00 01 00 00 03'x/y' 00").await;
        client.expect_hex("90 04 00 01 00 00").await;
        client.send(&publish).await;
        let received = client.packet().await;
        assert!(received == publish, "{listener}: {} bytes came back", received.len());
    }
    site.stop().await;
}

#[tokio::test]
async fn the_record_says_where_a_client_came_from() {
    let site = Site::start(&[]).await;
    let api = site.server.api();
    for (listener, transport) in ALL.into_iter().zip(["tcp", "tls", "ws", "wss", "quic"]) {
        let mut client = site.client(listener).await;
        client.send(&connect_v5(listener, true, 60)).await;
        assert_eq!(client.packet().await[0], 0x20);
        let session = api.get(&format!("/v1/clusters/default/sessions/{listener}")).await.expect(200);
        assert_eq!((&session["listener"], &session["transport"]), (&json!(listener), &json!(transport)));
        assert!(session["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{session}");
    }
    site.stop().await;
}

#[tokio::test]
async fn a_kick_and_a_stop_are_told_before_the_end_on_every_transport() {
    let mut site = Site::start(&[]).await;
    let api = site.server.api();
    let noise = [0xc0, 0x00].repeat(10_000);
    for listener in ALL {
        let mut client = site.client(listener).await;
        client.send(&connect_v5(listener, true, 60)).await;
        assert_eq!(client.packet().await[0], 0x20);
        // Packets that nobody will read any more must not cost the client its DISCONNECT.
        let path = format!("/v1/clusters/default/sessions/{listener}/disconnect");
        let kick = api.post(&path, json!({}));
        let (answer, ()) = tokio::join!(kick, client.send_anyway(&noise));
        answer.expect(200);
        let goodbye = loop {
            let packet = client.packet().await;
            if packet[0] != 0xd0 {
                break packet;
            }
        };
        assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x98), "{listener}: {}", hex(&goodbye));
        client.expect_closed().await;
    }
    let mut clients = Vec::new();
    for listener in ALL {
        let mut client = site.client(listener).await;
        client.send(&connect_v5(listener, true, 0)).await;
        assert_eq!(client.packet().await[0], 0x20);
        clients.push(client);
    }
    site.server.signal(Signal::TERM);
    for client in &mut clients {
        let goodbye = client.packet().await;
        assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x8b), "{}", hex(&goodbye));
        client.expect_closed().await;
    }
    let status = site.server.ended().await;
    assert_eq!(status.code(), Some(0), "{status}");
}
