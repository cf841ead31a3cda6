//! Clients of both versions and the rules that are set for them.

use serde_json::{Value, json};

use super::mqtt::{RawClient, hex};
use super::server::Server;

pub(crate) const POLICIES: &str = "/v1/clusters/default/authorization-policies";
pub(crate) const BLOCK_RULES: &str = "/v1/clusters/default/block-rules";

/// What a client speaks: 3.1.1 or 5.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V3,
    V5,
}

use Version::V5;

/// Sends CONNECT for a session of an hour that goes on if there is one; gives the client and the code of its
/// CONNACK.
pub(crate) async fn knock(
    server: &Server,
    version: Version,
    id: &str,
    user: Option<&str>,
) -> (RawClient, u8) {
    knock_with(server, version, (id, user), 0x00).await
}

pub(crate) async fn knock_with(
    server: &Server,
    version: Version,
    (id, user): (&str, Option<&str>),
    flags: u8,
) -> (RawClient, u8) {
    let mut client = RawClient::open(server.mqtt).await;
    let flags = format!("{:02x}", flags | if user.is_some() { 0x80 } else { 0x00 });
    let user = user.map(|user| format!("s'{user}'")).unwrap_or_default();
    let connect = match version {
        Version::V3 => format!("10 ~ s'MQTT' 04 {flags} 003c s'{id}' {user}"),
        V5 => format!("10 ~ s'MQTT' 05 {flags} 003c {{ 11 00000e10 }} s'{id}' {user}"),
    };
    client.send_hex(&connect).await;
    let connack = client.packet().await;
    assert_eq!(connack[0], 0x20, "{}", hex(&connack));
    (client, connack[3])
}

pub(crate) async fn connect(server: &Server, version: Version, id: &str) -> RawClient {
    let (client, code) = knock(server, version, id, None).await;
    assert_eq!(code, 0, "{id}");
    client
}

/// The code of the SUBACK.
pub(crate) async fn subscribe(client: &mut RawClient, version: Version, filter: &str, qos: u8) -> u8 {
    let properties = if version == V5 { "{ }" } else { "" };
    client.send_hex(&format!("82 ~ 0001 {properties} s'{filter}' {qos:02x}")).await;
    let suback = client.packet().await;
    assert_eq!(suback[0], 0x90, "{}", hex(&suback));
    *suback.last().expect("a code")
}

/// Publishes and gives the code of the answer, if there is one and it has one.
pub(crate) async fn publish(
    client: &mut RawClient,
    version: Version,
    topic: &str,
    qos: u8,
    retain: bool,
) -> Option<u8> {
    let (id, properties) = (if qos > 0 { "0007" } else { "" }, if version == V5 { "{ }" } else { "" });
    let flags = 0x30 | qos << 1 | u8::from(retain);
    client.send_hex(&format!("{flags:02x} ~ s'{topic}' {id} {properties} 'm'")).await;
    if qos == 0 {
        return None;
    }
    let answer = client.packet().await;
    assert_eq!(answer[0], if qos == 1 { 0x40 } else { 0x50 }, "{}", hex(&answer));
    Some(answer.get(4).copied().unwrap_or(0))
}

/// The policies of these descriptions, in this order, and no others. The new ones are there before the old
/// ones go, so that nobody is denied in between who is allowed before and after.
pub(crate) async fn set_policies(server: &Server, policies: &[Value]) {
    let api = server.api();
    let old = api.get(POLICIES).await.expect(200);
    let old = old["items"].as_array().expect("items");
    let after = old.last().map_or(0, |policy| policy["priority"].as_u64().expect("a number") + 1);
    for (priority, policy) in (after..).zip(policies) {
        let mut body = policy.clone();
        body["priority"] = priority.into();
        api.post(POLICIES, body).await.expect(201);
    }
    for policy in old {
        let id = policy["id"].as_str().expect("an id");
        api.delete(&format!("{POLICIES}/{id}")).await.expect(204);
    }
}

pub(crate) fn allow_all() -> Value {
    json!({"effect": "allow", "actions": ["connect", "publish", "subscribe"], "resources": ["#"]})
}

pub(crate) fn deny(action: &str, resource: &str) -> Value {
    json!({"effect": "deny", "actions": [action], "resources": [resource]})
}

/// What is published until the marker, which everybody may hear.
pub(crate) async fn heard(writer: &mut RawClient, reader: &mut RawClient) -> usize {
    writer.send_hex("30 ~ s'marker' { } 'end'").await;
    let mut messages = 0;
    loop {
        let packet = reader.packet().await;
        assert_eq!(packet[0] & 0xf0, 0x30, "{}", hex(&packet));
        if packet.ends_with(b"end") {
            return messages;
        }
        messages += 1;
    }
}
