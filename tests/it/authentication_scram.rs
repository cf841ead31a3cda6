//! Enhanced authentication with SCRAM-SHA-256 over real sockets (MQTT 5.0, 4.12): let in, refused, and
//! authenticated again. The packets are written down; the proofs are computed by another hand than the
//! server's.

use serde_json::json;

use crate::support::mqtt::{RawClient, hex};
use crate::support::notation;
use crate::support::scram::ScramClient;
use crate::support::server::{Options, Server};
use crate::support::transport::{ALL, Site};

const USERS: &str = "/v1/clusters/default/users";
const METHOD: &str = "SCRAM-SHA-256";

async fn server() -> Server {
    let server = Server::start(Options::default()).await;
    server.api().put(&format!("{USERS}/ada"), json!({"password": "pencil"})).await.expect(201);
    server.api().put(&format!("{USERS}/bob"), json!({"password": "stylus"})).await.expect(201);
    server
}

/// CONNECT with a method and the client's first data; `named` follows the client id.
async fn connect(client: &mut RawClient, client_id: &str, data: &str, named: Option<&str>) {
    let (flags, field) = named.map_or(("02", String::new()), |name| ("82", format!("s'{name}'")));
    client
        .send_hex(&format!(
            "10 ~ s'MQTT' 05 {flags} 003c {{ 11 00000e10 15 s'{METHOD}' 16 s'{data}' }} s'{client_id}' {field}"
        ))
        .await;
}

async fn send_auth(client: &mut RawClient, reason: u8, data: &str) {
    client.send_hex(&format!("f0 ~ {reason:02x} {{ 15 s'{METHOD}' 16 s'{data}' }}")).await;
}

/// The data in a packet, which must name the method (`[MQTT-4.12.0-5]`).
#[track_caller]
fn data(packet: &[u8]) -> String {
    let named = notation::bytes(&format!("15 s'{METHOD}' 16"));
    let at = packet.windows(named.len()).position(|part| part == named);
    let rest = &packet[at.unwrap_or_else(|| panic!("{}: no method", hex(packet))) + named.len()..];
    let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
    String::from_utf8(rest[2..2 + length].to_vec()).expect("a text")
}

/// Answers the server's AUTH; gives what the server should answer to that.
async fn prove(client: &mut RawClient, scram: &ScramClient) -> String {
    let ask = client.expect_hex("f0 ~ 18 ...").await; // [MQTT-4.12.0-2]
    let last = scram.last(&data(&ask));
    send_auth(client, 0x18, &last.client_final).await; // [MQTT-4.12.0-3]
    last.server_final
}

/// Comes in as a user, by proof.
async fn come_in(client: &mut RawClient, client_id: &str, scram: &ScramClient) {
    connect(client, client_id, &scram.first(), None).await;
    let server_final = prove(client, scram).await;
    let connack = client.expect_hex("20 ~ 00 00 ...").await;
    assert_eq!(data(&connack), server_final, "the server knows the password too");
}

fn ada() -> ScramClient {
    ScramClient::new("ada", "pencil")
}

#[tokio::test]
async fn a_client_proves_itself_and_does_so_again() {
    let server = server().await;
    let mut client = RawClient::open(server.mqtt).await;
    come_in(&mut client, "c", &ada()).await;
    let session = server.api().get("/v1/clusters/default/sessions/c").await.expect(200);
    assert_eq!(session["username"], "ada");
    client.send_hex("82 ~ 0001 { } s't' 00").await;
    client.expect_hex("90 ~ 0001 { } 00").await;

    send_auth(&mut client, 0x19, &ada().first()).await;
    // 4.12.1: everything else goes on meanwhile.
    client.send_hex("30 ~ s't' { } 'x'").await;
    let ask = client.expect_hex("f0 ~ 18 ...").await;
    client.expect_hex("30 ~ s't' { } 'x'").await;
    let last = ada().last(&data(&ask));
    send_auth(&mut client, 0x18, &last.client_final).await;
    let done = client.expect_hex("f0 ~ 00 ...").await;
    assert_eq!(data(&done), last.server_final);
    client.send_hex("c0 00").await;
    client.expect_hex("d0 00").await;

    // CONNECT may name the user that is proven.
    let mut named = RawClient::open(server.mqtt).await;
    connect(&mut named, "d", &ada().first(), Some("ada")).await;
    prove(&mut named, &ada()).await;
    named.expect_hex("20 ~ 00 00 ...").await;

    // Who was let in by a proof goes as others do when the user goes.
    server.api().delete(&format!("{USERS}/ada")).await.expect(204);
    for client in [&mut client, &mut named] {
        client.expect_hex("e0 ~ 98 ...").await;
        client.expect_closed().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn who_proves_nothing_is_refused_and_learns_nothing() {
    let server = server().await;
    let mut refusals = Vec::new();
    let mut salts = Vec::new();
    for scram in [
        ScramClient::new("ada", "stylus"),
        ScramClient::new("eve", "pencil"),
        ScramClient::new("eve", "pencil"),
    ] {
        let mut client = RawClient::open(server.mqtt).await;
        connect(&mut client, "c", &scram.first(), None).await;
        let server_first = data(&client.expect_hex("f0 ~ 18 ...").await);
        let (_, salt) = server_first.split_once(",s=").expect("a salt");
        salts.push(salt.to_owned());
        send_auth(&mut client, 0x18, &scram.last(&server_first).client_final).await;
        refusals.push(client.expect_hex("20 ~ 00 86 ...").await); // [MQTT-4.12.0-4]
        client.expect_closed().await;
    }
    refusals.dedup();
    assert_eq!(refusals.len(), 1, "an unknown user and a wrong password look the same");
    assert_eq!(salts[1], salts[2], "also when asked again");
    assert_ne!(salts[0], salts[1]);
    assert_eq!(salts[0].len(), salts[1].len());

    // A proof for somebody else than CONNECT names.
    let mut client = RawClient::open(server.mqtt).await;
    connect(&mut client, "c", &ada().first(), Some("bob")).await;
    prove(&mut client, &ada()).await;
    client.expect_hex("20 ~ 00 87 ...").await;
    client.expect_closed().await;
    let sessions = server.api().get("/v1/clusters/default/sessions").await.expect(200);
    assert_eq!(sessions["items"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn an_old_proof_is_worth_nothing() {
    let server = server().await;
    let mut client = RawClient::open(server.mqtt).await;
    connect(&mut client, "c", &ada().first(), None).await;
    let heard = ada().last(&data(&client.expect_hex("f0 ~ 18 ...").await)).client_final;
    let mut thief = RawClient::open(server.mqtt).await;
    connect(&mut thief, "c", &ada().first(), None).await;
    thief.expect_hex("f0 ~ 18 ...").await;
    send_auth(&mut thief, 0x18, &heard).await;
    thief.expect_hex("20 ~ 00 87 ...").await;
    thief.expect_closed().await;
    // Nor to who gives it twice on one connection.
    send_auth(&mut client, 0x18, &heard).await;
    client.expect_hex("20 ~ 00 00 ...").await;
    send_auth(&mut client, 0x19, &ada().first()).await;
    client.expect_hex("f0 ~ 18 ...").await;
    send_auth(&mut client, 0x18, &heard).await;
    client.expect_hex("e0 ~ 87 ...").await;
    client.expect_closed().await;
    server.stop().await;
}

#[tokio::test]
async fn who_fails_to_authenticate_again_goes_and_nobody_else() {
    let server = server().await;
    let mut bystander = RawClient::open(server.mqtt).await;
    come_in(&mut bystander, "b", &ScramClient::new("bob", "stylus")).await;
    for (wrong, why) in [
        (ScramClient::new("ada", "stylus"), "another password"),
        (ScramClient::new("bob", "stylus"), "another user"),
        (ScramClient::new("eve", "pencil"), "nobody"),
    ] {
        let mut client = RawClient::open(server.mqtt).await;
        come_in(&mut client, "c", &ada()).await;
        send_auth(&mut client, 0x19, &wrong.first()).await;
        prove(&mut client, &wrong).await;
        let goodbye = client.packet().await; // [MQTT-4.12.1-2]
        assert!(notation::matches(&goodbye, "e0 ~ 87 ..."), "{why}: {}", hex(&goodbye));
        client.expect_closed().await;
    }
    let mut client = RawClient::open(server.mqtt).await;
    come_in(&mut client, "c", &ada()).await;
    client.send_hex(&format!("f0 ~ 19 {{ 15 s'OTHER' 16 s'{}' }}", ada().first())).await;
    client.expect_hex("e0 ~ 8c ...").await; // [MQTT-4.12.1-1]
    client.expect_closed().await;
    bystander.send_hex("c0 00").await;
    bystander.expect_hex("d0 00").await;
    server.stop().await;
}

#[tokio::test]
async fn it_works_on_every_transport() {
    let site = Site::start(&[]).await;
    site.server.api().put(&format!("{USERS}/ada"), json!({"password": "pencil"})).await.expect(201);
    for listener in ALL {
        let mut client = site.client(listener).await;
        come_in(&mut client, "c", &ada()).await;
        client.send_hex("c0 00").await;
        client.expect_hex("d0 00").await;
    }
    site.stop().await;
}
