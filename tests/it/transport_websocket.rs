//! WebSocket frame by frame: what is upgraded and what not, how packets lie in frames, and what ends a
//! connection.

use crate::support::frames::{BINARY, CLOSE, CONTINUATION, Frame, FrameClient, PING, PONG, REQUEST, TEXT};
use crate::support::mqtt::connect_v5;
use crate::support::transport::{Site, tcp};
use crate::support::{PATIENCE, eventually};

const SUBSCRIBE: &[u8] = b"\x82\x09\x00\x01\x00\x00\x03x/y\x01";
const SUBACK: &[u8] = b"\x90\x04\x00\x01\x00\x01";
const PINGREQ: &[u8] = b"\xc0\x00";
const PINGRESP: &[u8] = b"\xd0\x00";

async fn open(site: &Site) -> FrameClient {
    FrameClient::open(tcp(site.server.address("ws")).await).await
}

async fn connected(site: &Site, client_id: &str) -> FrameClient {
    let mut client = open(site).await;
    client.send(BINARY, &connect_v5(client_id, true, 0)).await;
    let connack = client.frame().await.expect("a CONNACK");
    assert_eq!((connack.opcode, connack.payload[0], connack.payload[3]), (BINARY, 0x20, 0x00));
    client
}

#[tokio::test]
async fn only_a_request_for_mqtt_is_upgraded() {
    let site = Site::start(&[]).await;
    for (from, to, status, header) in [
        ("Sec-WebSocket-Protocol: mqtt\r\n", "", "400 Bad Request", ""),
        ("Sec-WebSocket-Protocol: mqtt\r\n", "Sec-WebSocket-Protocol: chat\r\n", "400 Bad Request", ""),
        ("/mqtt", "/", "404 Not Found", ""),
        ("GET", "POST", "405 Method Not Allowed", "allow: GET"),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", "", "426 Upgrade Required", "upgrade: websocket"),
        ("Version: 13", "Version: 8", "426 Upgrade Required", "sec-websocket-version: 13"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", "400 Bad Request", ""),
    ] {
        // The two lines stand the other way round in the request.
        let request = if to.is_empty() && from.starts_with("Connection") {
            REQUEST.replace("Upgrade: websocket\r\n", "").replace("Connection: Upgrade\r\n", "")
        } else {
            REQUEST.replace(from, to)
        };
        assert_ne!(request, REQUEST, "{from:?} is in it");
        let (_, head) = FrameClient::ask(tcp(site.server.address("ws")).await, &request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{from:?} → {to:?}: {head}");
        assert!(head.contains(header), "{from:?} → {to:?}: {head}");
    }
    for offer in ["mqtt", "chat, mqtt", "mqttv3.1, mqtt"] {
        let request = REQUEST.replace("Protocol: mqtt", &format!("Protocol: {offer}"));
        let (_, head) = FrameClient::ask(tcp(site.server.address("ws")).await, &request).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("sec-websocket-protocol: mqtt\r\n"), "[MQTT-6.0.0-4] {head}");
    }
    site.stop().await;
}

#[tokio::test]
async fn what_is_no_http_is_closed() {
    let site = Site::start(&[]).await;
    let connect = String::from_utf8(connect_v5("a", true, 0)).expect("ASCII");
    let (mut client, head) = FrameClient::ask(tcp(site.server.address("ws")).await, &connect).await;
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 400 "), "{head}");
    assert_eq!(client.frame().await, None);
    let endless = format!("{}X: {}\r\n\r\n", REQUEST.trim_end(), "x".repeat(100_000));
    let (mut client, head) = FrameClient::ask(tcp(site.server.address("ws")).await, &endless).await;
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 431 "), "{head}");
    assert_eq!(client.frame().await, None);
    // RFC 6455, 4.1: a client waits for the answer before it sends frames.
    let hasty = format!("{REQUEST}early");
    let (mut client, _) = FrameClient::ask(tcp(site.server.address("ws")).await, &hasty).await;
    assert_eq!(client.frame().await, None);
    connected(&site, "b").await;
    site.stop().await;
}

#[tokio::test]
async fn clients_of_3_1_may_offer_their_own_subprotocol() {
    let site = Site::start(&[]).await;
    let request = REQUEST.replace("Protocol: mqtt", "Protocol: mqttv3.1");
    let (mut client, head) = FrameClient::ask(tcp(site.server.address("ws")).await, &request).await;
    assert!(head.contains("sec-websocket-protocol: mqttv3.1\r\n"), "{head}");
    client.send(BINARY, b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01a").await;
    client.expect(b"\x20\x02\x00\x00").await;
    site.stop().await;
}

#[tokio::test]
async fn frames_and_packets_need_not_agree() {
    let site = Site::start(&[]).await;
    let connect = connect_v5("a", true, 0);
    let packets = [&connect[..], SUBSCRIBE, PINGREQ].concat();
    let expected_after_connack = [SUBACK, PINGRESP].concat();

    // Two frames, cut at every byte; frames of one byte each; all of it in one frame [MQTT-6.0.0-2].
    let mut ways: Vec<Vec<&[u8]>> =
        (1..packets.len()).map(|cut| vec![&packets[..cut], &packets[cut..]]).collect();
    ways.push(packets.chunks(1).collect());
    ways.push(vec![&packets]);
    // A frame without bytes is allowed and means nothing.
    ways.push(vec![b"", &packets[..9], b"", &packets[9..], b""]);
    for frames in ways {
        let mut client = open(&site).await;
        for frame in &frames {
            client.send(BINARY, frame).await;
        }
        expect_answers(&mut client, &expected_after_connack).await;
    }

    // One message in three parts, with a ping between them.
    let mut client = open(&site).await;
    client.send_part(BINARY, &packets[..5]).await;
    client.send(PING, b"between").await;
    assert_eq!(client.frame().await, Some(Frame { opcode: PONG, payload: b"between".to_vec() }));
    client.send_part(CONTINUATION, &packets[5..20]).await;
    client.send(CONTINUATION, &packets[20..]).await;
    expect_answers(&mut client, &expected_after_connack).await;
    site.stop().await;
}

/// CONNACK and then exactly these bytes, in whatever frames.
async fn expect_answers(client: &mut FrameClient, after_connack: &[u8]) {
    let mut bytes = Vec::new();
    loop {
        let frame = client.frame().await.expect("an answer");
        assert_eq!(frame.opcode, BINARY);
        bytes.extend(frame.payload);
        let connack = bytes.get(1).map(|length| 2 + usize::from(*length));
        if let Some(rest) = connack.and_then(|connack| bytes.get(connack..))
            && rest.len() >= after_connack.len()
        {
            assert_eq!((bytes[0], bytes[3], rest), (0x20, 0x00, after_connack));
            return;
        }
    }
}

#[tokio::test]
async fn a_text_frame_ends_the_connection() {
    let site = Site::start(&[]).await;
    // [MQTT-6.0.0-1], and RFC 6455, 7.4.1: unsupported data.
    let mut client = open(&site).await;
    client.send(TEXT, b"hello").await;
    client.expect_close(1003).await;
    let mut client = connected(&site, "a").await;
    client.send(TEXT, b"\xc0\x00").await;
    // Not UTF-8, so worse still.
    client.expect_close(1007).await;
    let mut client = connected(&site, "a").await;
    client.send(TEXT, b"").await;
    client.expect_close(1003).await;
    site.stop().await;
}

#[tokio::test]
async fn frames_against_the_rules_end_the_connection() {
    let site = Site::start(&[]).await;
    for (what, frame, code) in [
        ("not masked", &b"\x82\x02\xc0\x00"[..], 1002),
        ("a reserved bit", b"\xc2\x80\0\0\0\0", 1002),
        ("an unknown kind", b"\x83\x80\0\0\0\0", 1002),
        ("a continuation of nothing", b"\x80\x80\0\0\0\0", 1002),
        ("too large for a message", b"\x82\xff\x00\x00\x00\x00\x7f\xff\xff\xff\0\0\0\0", 1009),
    ] {
        let mut client = connected(&site, "a").await;
        client.send_bytes(frame).await;
        let close = client.frame().await.unwrap_or_else(|| panic!("{what}: no close"));
        assert_eq!((close.opcode, &close.payload[..2]), (CLOSE, &u16::to_be_bytes(code)[..]), "{what}");
        assert_eq!(client.frame().await, None, "{what}");
    }
    site.stop().await;
}

#[tokio::test]
async fn a_message_is_small_before_connect_and_may_hold_several_packets_after() {
    let site = Site::start(&[]).await;
    let mut stranger = open(&site).await;
    stranger.send(BINARY, &vec![0; 64 * 1_024 + 1]).await;
    stranger.expect_close(1009).await;

    let mut client = connected(&site, "a").await;
    // Three messages of 200,000 bytes at QoS 0 that nobody gets, and a PINGREQ.
    let mut publish = b"\x30\xc5\x9a\x0c\x00\x01t\x00".to_vec();
    let length = 0x45 + (0x1a << 7) + (0x0c << 14);
    publish.resize(4 + length, b'x');
    client.send(BINARY, &[&publish[..], &publish, &publish, PINGREQ].concat()).await;
    client.expect(PINGRESP).await;
    client.send(BINARY, &vec![0; 1_024 * 1_024 + 1]).await;
    client.expect_close(1009).await;
    site.stop().await;
}

#[tokio::test]
async fn pings_are_answered_before_and_after_connect() {
    let site = Site::start(&[]).await;
    let mut client = open(&site).await;
    client.send(PING, b"early").await;
    assert_eq!(client.frame().await, Some(Frame { opcode: PONG, payload: b"early".to_vec() }));
    client.send(BINARY, &connect_v5("a", true, 0)).await;
    assert_eq!(client.frame().await.expect("a CONNACK").payload[0], 0x20);
    // Many at once, and a pong that nobody asked for.
    for n in 0..100_u8 {
        client.send(PING, &[n]).await;
    }
    client.send(PONG, b"unasked").await;
    client.send(BINARY, PINGREQ).await;
    for n in 0..100_u8 {
        assert_eq!(client.frame().await, Some(Frame { opcode: PONG, payload: vec![n] }));
    }
    client.expect(PINGRESP).await;
    site.stop().await;
}

#[tokio::test]
async fn a_goodbye_of_mqtt_is_followed_by_one_of_the_websocket() {
    let site = Site::start(&[]).await;
    let mut client = connected(&site, "a").await;
    client.send(BINARY, b"\xe0\x00").await;
    client.expect_close(1000).await;
    // A protocol error: DISCONNECT first.
    let mut client = connected(&site, "a").await;
    client.send(BINARY, b"\x80\x00").await;
    let goodbye = client.frame().await.expect("a DISCONNECT");
    assert_eq!((goodbye.opcode, goodbye.payload[0], goodbye.payload[2]), (BINARY, 0xe0, 0x81));
    client.expect_close(1000).await;
    // The client closes: answered, and the session knows.
    let mut client = open(&site).await;
    client.send(BINARY, &connect_v5("kept", false, 60)).await;
    assert_eq!(client.frame().await.expect("a CONNACK").payload[0], 0x20);
    client.send(CLOSE, &1001_u16.to_be_bytes()).await;
    client.expect_close(1001).await;
    let api = site.server.api();
    eventually("the session is offline", PATIENCE, async || {
        let session = api.get("/v1/clusters/default/sessions/kept").await.expect(200);
        (session["state"] == "offline").then_some(())
    })
    .await;
    site.stop().await;
}
