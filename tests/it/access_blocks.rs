//! Block rules over real sockets: who is named is gone when the rule is answered, and stays away while it
//! holds.

use serde_json::json;

use crate::support::access::Version::{V3, V5};
use crate::support::access::{BLOCK_RULES, knock};
use crate::support::server::{Options, Server};
use crate::support::{PATIENCE, eventually};

const CLUSTER: &str = "/v1/clusters/default";

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
