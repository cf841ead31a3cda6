//! User name and password over real sockets: who is let in, who is not and how that is told, what a
//! change of the users does to clients that are there, and that no password is ever written down.

use rumqttc::v5::mqttbytes::v5::ConnectReturnCode;
use serde_json::json;

use crate::support::mqtt::{RawClient, hex};
use crate::support::server::{Options, Server};
use crate::support::stock::{self, Rumqtt, Rumqtting};
use crate::support::{PATIENCE, eventually};

const CLUSTER: &str = "/v1/clusters/default";
const ADA: &str = "/v1/clusters/default/users/ada";
const BOB: &str = "/v1/clusters/default/users/bob";

/// A server with the users `ada` (pencil) and `bob` (stylus), closed to anonymous clients.
async fn server() -> Server {
    let server = Server::start(Options::default()).await;
    server.api().put(ADA, json!({"password": "pencil"})).await.expect(201);
    server.api().put(BOB, json!({"password": "stylus"})).await.expect(201);
    server
}

/// What a client gives beside its id.
#[derive(Clone, Copy, Debug)]
struct Given(Option<&'static str>, Option<&'static str>);

impl Given {
    fn flags(self) -> u8 {
        u8::from(self.0.is_some()) << 7 | u8::from(self.1.is_some()) << 6
    }

    fn fields(self) -> String {
        let fields = [self.0, self.1].map(|field| field.map(|text| format!("s'{text}'")).unwrap_or_default());
        fields.join(" ")
    }
}

/// Sends CONNECT of 3.1.1 with a clean session; gives the client and its CONNACK.
async fn knock_v3(server: &Server, client_id: &str, given: Given) -> (RawClient, Vec<u8>) {
    let mut client = RawClient::open(server.mqtt).await;
    let (flags, fields) = (given.flags() | 0x02, given.fields());
    client.send_hex(&format!("10 ~ s'MQTT' 04 {flags:02x} 003c s'{client_id}' {fields}")).await;
    let connack = client.packet().await;
    (client, connack)
}

/// Sends CONNECT of 5.0 for a session of an hour; gives the client and its CONNACK.
async fn knock_v5(server: &Server, client_id: &str, given: Given) -> (RawClient, Vec<u8>) {
    let mut client = RawClient::open(server.mqtt).await;
    let (flags, fields) = (given.flags(), given.fields());
    client
        .send_hex(&format!("10 ~ s'MQTT' 05 {flags:02x} 003c {{ 11 00000e10 }} s'{client_id}' {fields}"))
        .await;
    let connack = client.packet().await;
    (client, connack)
}

/// The reason code of a CONNACK of 5.0, the return code of one of 3.1.1.
#[track_caller]
fn reason(connack: &[u8]) -> u8 {
    assert_eq!(connack[0], 0x20, "{}", hex(connack));
    connack[3]
}

#[tokio::test]
async fn the_right_password_lets_in_and_nothing_else_does() {
    let server = server().await;
    let mut refusals = Vec::new();
    for (given, v3, v5) in [
        (Given(Some("ada"), Some("pencil")), 0, 0),
        (Given(Some("bob"), Some("stylus")), 0, 0),
        (Given(Some("default/ada"), Some("pencil")), 0, 0),
        (Given(Some("ada"), Some("stylus")), 4, 0x86),
        (Given(Some("ada"), Some("")), 4, 0x86),
        (Given(Some("ada"), None), 4, 0x86),
        (Given(Some("eve"), Some("pencil")), 4, 0x86),
        (Given(Some("ADA"), Some("pencil")), 4, 0x86),
        (Given(Some(""), Some("")), 4, 0x86),
        (Given(None, None), 5, 0x87),
    ] {
        let (mut client, connack) = knock_v3(&server, "c", given).await;
        assert_eq!(reason(&connack), v3, "{given:?}");
        if v3 != 0 {
            client.expect_closed().await;
        }
        let (mut client, connack) = knock_v5(&server, "c", given).await;
        assert_eq!(reason(&connack), v5, "{given:?}");
        if v5 != 0 {
            client.expect_closed().await;
        }
        refusals.extend((v5 == 0x86).then_some(connack));
    }
    // [PRODUCT 4]: an unknown user and a wrong password look the same.
    refusals.dedup();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    // A password alone is allowed by 5.0 only.
    let (_, connack) = knock_v5(&server, "c", Given(None, Some("pencil"))).await;
    assert_eq!(reason(&connack), 0x86);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_is_refused_leaves_nothing_and_disturbs_nobody() {
    let server = server().await;
    let (mut ada, _) = knock_v5(&server, "c", Given(Some("ada"), Some("pencil"))).await;
    // The same client id: no takeover by somebody who proves nothing.
    let (_, connack) = knock_v5(&server, "c", Given(Some("ada"), Some("wrong"))).await;
    assert_eq!(reason(&connack), 0x86);
    let (_, connack) = knock_v5(&server, "d", Given(Some("eve"), Some("wrong"))).await;
    assert_eq!(reason(&connack), 0x86);
    ada.send_hex("c0 00").await;
    ada.expect_hex("d0 00").await;
    let sessions = server.api().get(&format!("{CLUSTER}/sessions")).await.expect(200);
    assert_eq!(sessions["items"].as_array().map(Vec::len), Some(1), "{sessions}");
    assert_eq!(
        (&sessions["items"][0]["client_id"], &sessions["items"][0]["username"]),
        (&json!("c"), &json!("ada"))
    );
    server.stop().await;
}

#[tokio::test]
async fn where_anonymous_clients_may_come_a_name_must_be_proven_all_the_same() {
    let server = server().await;
    server.api().patch(CLUSTER, json!({"allow_anonymous": true})).await.expect(200);
    for (given, v3, v5) in [
        (Given(None, None), 0, 0),
        (Given(Some("ada"), Some("pencil")), 0, 0),
        (Given(Some("ada"), Some("wrong")), 4, 0x86),
        (Given(Some("eve"), None), 4, 0x86),
    ] {
        assert_eq!(reason(&knock_v3(&server, "c", given).await.1), v3, "{given:?}");
        assert_eq!(reason(&knock_v5(&server, "c", given).await.1), v5, "{given:?}");
    }
    // Without users there is nothing to hold a name against.
    for user in [ADA, BOB] {
        server.api().delete(user).await.expect(204);
    }
    assert_eq!(reason(&knock_v5(&server, "c", Given(Some("eve"), Some("x"))).await.1), 0);
    server.stop().await;
}

#[tokio::test]
async fn who_loses_the_right_to_be_here_goes_at_once_and_nobody_else() {
    let server = server().await;
    let api = server.api();
    let pencil = Given(Some("ada"), Some("pencil"));
    let (mut ada, _) = knock_v5(&server, "a", pencil).await;
    let (mut old, _) = knock_v3(&server, "o", pencil).await;
    let (mut bob, _) = knock_v5(&server, "b", Given(Some("bob"), Some("stylus"))).await;

    // The password that is hers already, and one more user, change nothing.
    api.put(ADA, json!({"password": "pencil"})).await.expect(200);
    api.put(&format!("{CLUSTER}/users/eve"), json!({"password": "x"})).await.expect(201);
    for client in [&mut ada, &mut old, &mut bob] {
        client.send_hex("c0 00").await;
        client.expect_hex("d0 00").await;
    }

    api.put(ADA, json!({"password": "chalk"})).await.expect(200);
    ada.expect_hex("e0 ~ 98 ...").await;
    ada.expect_closed().await;
    old.expect_closed().await;
    assert_eq!(reason(&knock_v5(&server, "a", pencil).await.1), 0x86, "also what was remembered");
    let (mut ada, connack) = knock_v5(&server, "a", Given(Some("ada"), Some("chalk"))).await;
    assert_eq!((connack[2], reason(&connack)), (1, 0), "the session is still there");

    api.delete(ADA).await.expect(204);
    ada.expect_hex("e0 ~ 98 ...").await;
    ada.expect_closed().await;
    assert_eq!(reason(&knock_v5(&server, "a", Given(Some("ada"), Some("chalk"))).await.1), 0x86);
    let session = eventually("the record says offline", PATIENCE, async || {
        let session = api.get(&format!("{CLUSTER}/sessions/a")).await.expect(200);
        (session["state"] == "offline").then_some(session)
    });
    assert_eq!(session.await["disconnect"]["reason"], "user_changed");
    bob.send_hex("c0 00").await;
    bob.expect_hex("d0 00").await;
    server.stop().await;
}

#[tokio::test]
async fn users_outlive_a_restart() {
    let mut server = server().await;
    server.kill().await;
    server.start_again().await;
    assert_eq!(reason(&knock_v5(&server, "a", Given(Some("ada"), Some("pencil"))).await.1), 0);
    assert_eq!(reason(&knock_v5(&server, "a", Given(Some("ada"), Some("stylus"))).await.1), 0x86);
    server.stop().await;
}

#[tokio::test]
async fn stock_clients_come_in_with_a_password() {
    let server = server().await;
    let how = || Rumqtting { client_id: "r", clean_start: true, expiry_secs: 0 };
    let mut reader = Rumqtt::connect_as(server.mqtt, how(), ("ada", "pencil")).await.expect("let in");
    reader.subscribe("t").await;
    let refused = Rumqtt::connect_as(server.mqtt, how(), ("ada", "pen")).await;
    assert_eq!(refused.err(), Some(ConnectReturnCode::BadUserNamePassword));
    let refused = Rumqtt::connect(server.mqtt, how()).await;
    assert_eq!(refused.err(), Some(ConnectReturnCode::NotAuthorized));

    if stock::installed("mosquitto_pub") {
        for version in ["311", "5"] {
            let publish = ["-V", version, "-u", "bob", "-t", "t", "-q", "1", "-m", version, "-P"];
            let right = [&publish[..], &["stylus"]].concat();
            let sent = stock::run("mosquitto_pub", server.mqtt, &right).await;
            assert!(sent.status.success(), "{sent:?}");
            let wrong = [&publish[..], &["pencil"]].concat();
            let refused = stock::run("mosquitto_pub", server.mqtt, &wrong).await;
            let said = String::from_utf8_lossy(&refused.stderr).to_lowercase();
            assert!(!refused.status.success() && said.contains("bad user name or password"), "{refused:?}");
        }
        assert_eq!(reader.messages(2).await, ["311", "5"]);
    }
    server.stop().await;
}

#[tokio::test]
async fn no_password_is_written_down() {
    let server = Server::start(Options { log: Some("trace"), ..Options::default() }).await;
    let api = server.api();
    let mut answers = Vec::new();
    for body in [
        json!({"password": "planted-right"}),
        json!({"password": "planted-bell\u{7}"}),
        json!({"password": ["planted-list"]}),
        json!({"password": {"planted-key": 1}}),
        json!({"password": "planted-right", "is_superuser": "no"}),
    ] {
        answers.push(api.put(ADA, body).await.text);
    }
    for path in [ADA, "/v1/clusters/default/users", CLUSTER, "/v1/clusters/default/sessions"] {
        answers.push(api.get(path).await.text);
    }
    for given in [
        Given(Some("ada"), Some("planted-right")),
        Given(Some("ada"), Some("planted-wrong")),
        Given(Some("eve"), Some("planted-wrong")),
    ] {
        knock_v3(&server, "c", given).await;
        answers.push(String::from_utf8_lossy(&knock_v5(&server, "c", given).await.1).into_owned());
    }
    // A CONNECT that is malformed behind its password.
    let mut client = RawClient::open(server.mqtt).await;
    client.send_hex("10 ~ s'MQTT' 05 c2 003c { } s'c' s'ada' s'planted-tail' 00").await;
    answers.push(String::from_utf8_lossy(&client.packet().await).into_owned());
    answers.push(api.get("/v1/clusters/default/sessions").await.text);

    let log = server.log();
    assert!(log.iter().any(|line| line.contains("sqlx::query")), "the log tells all it can");
    let written = answers.iter().chain(&log);
    let leaks: Vec<_> =
        written.filter(|text| text.contains("planted") || text.contains("argon2id")).collect();
    assert!(leaks.is_empty(), "{leaks:?}");
    server.stop().await;
}
