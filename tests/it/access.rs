//! Policies and block rules over real sockets, 3.1.1 beside 5.0: each field of a policy, changes under live
//! clients, block rules proven by the answer that made them, and all of it after a restart.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::mqtt::{RawClient, hex};
use crate::support::server::{Options, Server};
use crate::support::{PATIENCE, eventually};

const CLUSTER: &str = "/v1/clusters/default";
const POLICIES: &str = "/v1/clusters/default/authorization-policies";
const BLOCK_RULES: &str = "/v1/clusters/default/block-rules";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V3,
    V5,
}

use Version::{V3, V5};

/// Sends CONNECT for a session of an hour that goes on if there is one; gives the client and the code of its
/// CONNACK.
async fn knock(server: &Server, version: Version, id: &str, user: Option<&str>) -> (RawClient, u8) {
    knock_with(server, version, (id, user), 0x00).await
}

async fn knock_with(
    server: &Server,
    version: Version,
    (id, user): (&str, Option<&str>),
    flags: u8,
) -> (RawClient, u8) {
    let mut client = RawClient::open(server.mqtt).await;
    let flags = format!("{:02x}", flags | if user.is_some() { 0x80 } else { 0x00 });
    let user = user.map(|user| format!("s'{user}'")).unwrap_or_default();
    let connect = match version {
        V3 => format!("10 ~ s'MQTT' 04 {flags} 003c s'{id}' {user}"),
        V5 => format!("10 ~ s'MQTT' 05 {flags} 003c {{ 11 00000e10 }} s'{id}' {user}"),
    };
    client.send_hex(&connect).await;
    let connack = client.packet().await;
    assert_eq!(connack[0], 0x20, "{}", hex(&connack));
    (client, connack[3])
}

async fn connect(server: &Server, version: Version, id: &str) -> RawClient {
    let (client, code) = knock(server, version, id, None).await;
    assert_eq!(code, 0, "{id}");
    client
}

/// The code of the SUBACK.
async fn subscribe(client: &mut RawClient, version: Version, filter: &str, qos: u8) -> u8 {
    let properties = if version == V5 { "{ }" } else { "" };
    client.send_hex(&format!("82 ~ 0001 {properties} s'{filter}' {qos:02x}")).await;
    let suback = client.packet().await;
    assert_eq!(suback[0], 0x90, "{}", hex(&suback));
    *suback.last().expect("a code")
}

/// Publishes and gives the code of the answer, if there is one and it has one.
async fn publish(client: &mut RawClient, version: Version, topic: &str, qos: u8, retain: bool) -> Option<u8> {
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
async fn set_policies(server: &Server, policies: &[Value]) {
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

fn allow_all() -> Value {
    json!({"effect": "allow", "actions": ["connect", "publish", "subscribe"], "resources": ["#"]})
}

fn deny(action: &str, resource: &str) -> Value {
    json!({"effect": "deny", "actions": [action], "resources": [resource]})
}

/// What a client tries.
#[derive(Clone, Copy, Debug)]
enum Act {
    Connect,
    Publish(&'static str, u8, bool),
    Subscribe(&'static str, u8),
}

use Act::{Connect, Publish, Subscribe};

/// For each field of a policy: a policy that has it, and what it permits and what not.
fn fields() -> Vec<(&'static str, Value, Vec<(Act, &'static str, Option<&'static str>, bool)>)> {
    let allow = |actions: &[&str], mut more: Value| {
        (more["effect"], more["actions"]) = (json!("allow"), json!(actions));
        more
    };
    let topics = json!({"resources": ["t/*"]});
    vec![
        ("actions", allow(&["connect"], json!({})), vec![(Connect, "c", None, true)]),
        (
            "actions",
            allow(&["publish"], topics.clone()),
            vec![
                (Connect, "c", None, false),
                (Publish("t/1", 1, false), "c", None, true),
                (Subscribe("t/1", 1), "c", None, false),
            ],
        ),
        (
            "actions",
            allow(&["subscribe"], topics),
            vec![(Publish("t/1", 1, false), "c", None, false), (Subscribe("t/#", 1), "c", None, true)],
        ),
        (
            "resources",
            allow(
                &["publish", "subscribe"],
                json!({"resources": ["a/*/z", "b/+", "d/${clientid}/#", "u/${username}"]}),
            ),
            vec![
                (Publish("a/1/2/z", 1, false), "c", None, true),
                (Publish("b/1", 2, false), "c", None, true),
                (Publish("b/1/2", 2, false), "c", None, false),
                (Publish("d/c/1", 1, true), "c", None, true),
                (Publish("d/e/1", 1, false), "c", None, false),
                (Publish("u/ada", 1, false), "c", Some("ada"), true),
                (Publish("u/ada", 1, false), "c", Some("eve"), false),
                (Publish("u/ada", 1, false), "c", None, false),
                (Subscribe("d/c/#", 1), "c", None, true),
                (Subscribe("d/+/#", 1), "c", None, false),
                (Subscribe("#", 0), "c", None, false),
                (Subscribe("b/+", 2), "c", None, true),
                (Subscribe("$share/g/b/+", 1), "c", None, true),
                (Subscribe("$SYS/#", 1), "c", None, false),
            ],
        ),
        (
            "client_ids",
            allow(&["connect"], json!({"client_ids": ["m-?", "n*"]})),
            vec![
                (Connect, "m-1", None, true),
                (Connect, "n", None, true),
                (Connect, "m-12", None, false),
                (Connect, "c", None, false),
            ],
        ),
        (
            "usernames",
            allow(&["connect"], json!({"usernames": ["ada", "team-*"]})),
            vec![
                (Connect, "c", Some("ada"), true),
                (Connect, "c", Some("team-7"), true),
                (Connect, "c", Some("eve"), false),
                (Connect, "c", None, false),
            ],
        ),
        (
            "networks",
            allow(&["connect"], json!({"networks": ["10.0.0.0/8", "127.0.0.0/8"]})),
            vec![(Connect, "c", None, true)],
        ),
        (
            "networks",
            allow(&["connect"], json!({"networks": ["10.0.0.0/8", "::1"]})),
            vec![(Connect, "c", None, false)],
        ),
        (
            "qos",
            allow(&["publish", "subscribe"], json!({"resources": ["#"], "qos": [0, 1]})),
            vec![
                (Publish("t", 0, false), "c", None, true),
                (Publish("t", 1, false), "c", None, true),
                (Publish("t", 2, false), "c", None, false),
                (Subscribe("t", 1), "c", None, true),
                (Subscribe("t", 2), "c", None, false),
            ],
        ),
        (
            "retain",
            allow(&["publish"], json!({"resources": ["#"], "retain": false})),
            vec![
                (Publish("t", 0, false), "c", None, true),
                (Publish("t", 1, true), "c", None, false),
                (Publish("t", 0, true), "c", None, false),
            ],
        ),
    ]
}

/// Tries, and tells whether it was permitted: by the answer, and for a publish by who hears it.
async fn permitted(
    server: &Server,
    version: Version,
    (act, id, user): (Act, &str, Option<&str>),
    probe: &mut RawClient,
) -> bool {
    // A session of its own: no subscription of an earlier try.
    let (mut client, code) = knock_with(server, version, (id, user), 0x02).await;
    let granted = match act {
        Connect => {
            assert!([0, if version == V5 { 0x87 } else { 5 }].contains(&code), "{code:#x}");
            code == 0
        }
        Subscribe(filter, qos) => {
            let code = subscribe(&mut client, version, filter, qos).await;
            assert!([qos, if version == V5 { 0x87 } else { 0x80 }].contains(&code), "{code:#x}");
            code == qos
        }
        Publish(topic, qos, retain) => {
            let answer = publish(&mut client, version, topic, qos, retain).await;
            // The connection has done all that was asked before it answers this.
            client.send_hex("c0 00").await;
            client.expect_hex("d0 00").await;
            probe.send_hex(&format!("30 ~ s'{topic}' {{ }} 'end'")).await;
            let heard = probe.packet().await;
            let is_end = heard.ends_with(b"end");
            if !is_end {
                assert!(probe.packet().await.ends_with(b"end"));
            }
            // 3.1.1 has no way to say it ([MQTT-3.3.5-2]).
            let denied = if version == V5 { 0x87 } else { 0 };
            assert!(answer.is_none_or(|code| code == if is_end { denied } else { 0 }), "{answer:?}");
            !is_end
        }
    };
    if code == 0 {
        client.send_hex("e0 00").await;
        // What was retained may come first.
        while client.packet_or_end().await.is_some() {}
    }
    granted
}

#[tokio::test]
async fn each_field_of_a_policy_decides() {
    let server = Server::start_dev().await;
    let mut probe = connect(&server, V5, "probe").await;
    let ours = json!({
        "effect": "allow", "actions": ["connect", "publish", "subscribe"], "resources": ["#"],
        "client_ids": ["probe"],
    });
    set_policies(&server, std::slice::from_ref(&ours)).await;
    assert_eq!(subscribe(&mut probe, V5, "#", 0).await, 0);
    let mut met = BTreeSet::new();
    for (field, policy, cases) in fields() {
        for (act, id, user, expected) in cases {
            let mut policies = vec![ours.clone(), policy.clone()];
            if !matches!(act, Connect) {
                policies.push(json!({"effect": "allow", "actions": ["connect"]}));
            }
            set_policies(&server, &policies).await;
            for version in [V3, V5] {
                let found = permitted(&server, version, (act, id, user), &mut probe).await;
                assert_eq!(found, expected, "{field} {version:?}: {act:?} as {id} {user:?} under {policy}");
            }
            met.insert((field, expected));
        }
    }
    for field in ["actions", "resources", "client_ids", "usernames", "networks", "qos", "retain"] {
        assert!(met.contains(&(field, true)) && met.contains(&(field, false)), "{field}: both ways");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_smallest_priority_that_holds_decides() {
    let server = Server::start_dev().await;
    for version in [V3, V5] {
        set_policies(&server, &[deny("subscribe", "a/secret"), allow_all()]).await;
        let mut client = connect(&server, version, "c").await;
        let denied = if version == V5 { 0x87 } else { 0x80 };
        for (filter, code) in [("a/1", 1), ("a/secret", denied), ("a/+", denied), ("#", denied), ("b/#", 1)] {
            assert_eq!(subscribe(&mut client, version, filter, 1).await, code, "{filter}");
        }
        set_policies(&server, &[allow_all(), deny("subscribe", "a/secret")]).await;
        assert_eq!(subscribe(&mut client, version, "a/secret", 1).await, 1);
    }
    server.stop().await;
}

/// What is published until the marker, which everybody may hear.
async fn heard(writer: &mut RawClient, reader: &mut RawClient) -> usize {
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

#[tokio::test]
async fn a_change_holds_for_live_clients_when_it_is_answered() {
    let server = Server::start_dev().await;
    let mut writer = connect(&server, V5, "writer").await;
    for (version, id) in [(V3, "three"), (V5, "five")] {
        set_policies(&server, &[allow_all()]).await;
        let mut reader = connect(&server, version, id).await;
        for filter in ["a/#", "marker"] {
            subscribe(&mut reader, version, filter, 0).await;
        }
        publish(&mut writer, V5, "a/1", 1, false).await;
        assert_eq!(heard(&mut writer, &mut reader).await, 1);

        set_policies(&server, &[deny("subscribe", "a/*"), allow_all()]).await;
        publish(&mut writer, V5, "a/1", 1, false).await;
        assert_eq!(heard(&mut writer, &mut reader).await, 0, "{version:?}");

        set_policies(&server, &[allow_all()]).await;
        publish(&mut writer, V5, "a/1", 1, false).await;
        assert_eq!(heard(&mut writer, &mut reader).await, 1, "{version:?}");

        set_policies(&server, &[deny("publish", "a/*"), allow_all()]).await;
        assert_eq!(publish(&mut writer, V5, "a/1", 1, false).await, Some(0x87));
        assert_eq!(heard(&mut writer, &mut reader).await, 0);

        // Nobody but the writer may connect.
        let mut only_writer = allow_all();
        only_writer["client_ids"] = json!(["writer"]);
        set_policies(&server, &[only_writer]).await;
        if version == V5 {
            reader.expect_hex("e0 ~ 87 ...").await;
        }
        reader.expect_closed().await;
        let (_, code) = knock(&server, version, id, None).await;
        assert_eq!(code, if version == V5 { 0x87 } else { 5 });
    }
    server.stop().await;
}

#[tokio::test]
async fn rules_and_what_they_mute_outlive_a_crash() {
    let mut server = Server::start_dev().await;
    let mut reader = connect(&server, V5, "reader").await;
    for filter in ["a/#", "marker"] {
        subscribe(&mut reader, V5, filter, 1).await;
    }
    set_policies(&server, &[deny("subscribe", "a/*"), allow_all()]).await;
    let rule = json!({"subject": "client_id", "pattern": "rogue-*"});
    server.api().post(BLOCK_RULES, rule).await.expect(201);
    server.kill().await;
    server.start_again().await;

    for version in [V3, V5] {
        let (_, code) = knock(&server, version, "rogue-1", None).await;
        assert_eq!(code, if version == V5 { 0x8a } else { 5 });
    }
    let mut writer = connect(&server, V5, "writer").await;
    publish(&mut writer, V5, "a/1", 1, false).await;
    let mut reader = connect(&server, V5, "reader").await;
    publish(&mut writer, V5, "a/1", 1, false).await;
    assert_eq!(heard(&mut writer, &mut reader).await, 0);
    set_policies(&server, &[allow_all()]).await;
    publish(&mut writer, V5, "a/1", 0, false).await;
    assert_eq!(heard(&mut writer, &mut reader).await, 1, "the subscription is still there");
    server.stop().await;
}

#[tokio::test]
async fn who_is_blocked_is_gone_when_the_rule_is_answered() {
    let server = Server::start_dev().await;
    let api = server.api();
    for (subject, pattern, exclude) in
        [("client_id", "m-?", "m-9"), ("username", "team-*", "team-9"), ("ip", "127.0.0.?", "127.0.0.9")]
    {
        let user = |n: u8| (subject == "username").then(|| format!("team-{n}"));
        let (mut five, _) = knock(&server, V5, "m-5", user(5).as_deref()).await;
        let (mut three, _) = knock(&server, V3, "m-3", user(3).as_deref()).await;
        let (mut spared, _) = knock(&server, V5, "m-9", user(9).as_deref()).await;
        let body = json!({"subject": subject, "pattern": pattern, "excludes": [exclude], "reason": "stolen"});
        let rule = api.post(BLOCK_RULES, body).await.expect(201);
        for id in ["m-5", "m-3"] {
            let session = api.get(&format!("{CLUSTER}/sessions/{id}")).await.expect(200);
            assert_eq!(
                (&session["state"], &session["disconnect"]["reason"]),
                (&json!("offline"), &json!("blocked"))
            );
            assert_eq!(session["disconnect"]["by"], "operator");
        }
        five.expect_hex("e0 ~ 8a ...").await;
        five.expect_closed().await;
        three.expect_closed().await;
        if subject == "ip" {
            // Everybody here has the same address.
            spared.expect_hex("e0 ~ 8a ...").await;
        } else {
            spared.send_hex("c0 00").await;
            spared.expect_hex("d0 00").await;
        }
        for (version, id, code) in [(V5, "m-5", 0x8a), (V3, "m-3", 5)] {
            let user = user(if version == V5 { 5 } else { 3 });
            let (mut client, found) = knock(&server, version, id, user.as_deref()).await;
            assert_eq!(found, code, "{subject}");
            client.expect_closed().await;
        }
        let id = rule["id"].as_str().expect("an id");
        api.delete(&format!("{BLOCK_RULES}/{id}")).await.expect(204);
        assert_eq!(knock(&server, V5, "m-5", user(5).as_deref()).await.1, 0);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_rule_that_has_expired_blocks_nobody() {
    let server = Server::start_dev().await;
    let api = server.api();
    let soon = time::OffsetDateTime::now_utc() + time::Duration::seconds(2);
    let soon = soon.format(&time::format_description::well_known::Rfc3339).expect("a time");
    let body = json!({"subject": "client_id", "pattern": "c", "expires_at": soon});
    let rule = api.post(BLOCK_RULES, body).await.expect(201);
    eventually("the rule has expired", PATIENCE, async || {
        let (_, code) = knock(&server, V5, "c", None).await;
        assert!([0, 0x8a].contains(&code), "{code:#x}");
        (code == 0).then_some(())
    })
    .await;
    let id = rule["id"].as_str().expect("an id");
    api.get(&format!("{BLOCK_RULES}/{id}")).await.expect(200);
    server.stop().await;
}

#[tokio::test]
async fn who_is_blocked_is_told_so_before_its_password_is_looked_at() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    api.put(&format!("{CLUSTER}/users/ada"), json!({"password": "pencil"})).await.expect(201);
    assert_eq!(knock(&server, V5, "c", Some("ada")).await.1, 0x86);
    api.post(BLOCK_RULES, json!({"subject": "username", "pattern": "ada"})).await.expect(201);
    assert_eq!(knock(&server, V5, "c", Some("ada")).await.1, 0x8a);
    assert_eq!(knock(&server, V3, "c", Some("ada")).await.1, 5);
    server.stop().await;
}
