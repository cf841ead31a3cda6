//! Policies over real sockets, 3.1.1 beside 5.0: each field, changes under live clients, and a restart.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::access::Version::{V3, V5};
use crate::support::access::{
    BLOCK_RULES, Version, allow_all, connect, deny, heard, knock, knock_with, publish, set_policies,
    subscribe,
};
use crate::support::mqtt::RawClient;
use crate::support::server::Server;

/// What a client tries.
#[derive(Clone, Copy, Debug)]
enum Act {
    Connect,
    Publish(&'static str, u8, bool),
    Subscribe(&'static str, u8),
}

use Act::{Connect, Publish, Subscribe};

/// What is tried, by which client, as which user, and whether it is permitted.
type Case = (Act, &'static str, Option<&'static str>, bool);

/// For each field of a policy: a policy that has it, and what it permits and what not.
fn fields() -> Vec<(&'static str, Value, Vec<Case>)> {
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
