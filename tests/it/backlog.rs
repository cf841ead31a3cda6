//! What waits for a session, read over the API of a real process (S-14).

use serde_json::{Value, json};

use super::support::mqtt::{RawClient, connect_v5};
use super::support::server::Server;

async fn connect(server: &Server, client_id: &str) -> RawClient {
    let mut client = RawClient::open(server.mqtt).await;
    client.send(&connect_v5(client_id, false, 1_000)).await;
    let connack = client.packet().await;
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    client
}

async fn session(server: &Server, rest: &str) -> Value {
    server.api().get(&format!("/v1/clusters/default/sessions/sleeper{rest}")).await.expect(200)
}

/// Messages, the position of the earliest, what is under way and what was sent.
fn figures(session: &Value) -> Value {
    assert_eq!(session["traffic_unavailable"], Value::Null, "{session}");
    let backlog = &session["backlog"];
    assert_eq!(backlog["complete"], true, "{session}");
    json!([
        backlog["messages"],
        backlog["oldest_position"],
        session["in_flight"],
        session["counters"]["sent"]
    ])
}

#[tokio::test]
async fn a_sleepers_backlog_is_told_also_after_kill_9_and_goes_with_reading() {
    let mut server = Server::start_dev().await;
    let mut sleeper = connect(&server, "sleeper").await;
    // t and t/#, at QoS 1
    sleeper.send_hex("82 0d 00 01 00 00 01't' 01 00 03't/#' 01").await;
    sleeper.expect_hex("90 05 00 01 00 01 01").await;
    sleeper.send_hex("e0 00").await;
    sleeper.expect_closed().await;
    let mut publisher = connect(&server, "publisher").await;
    for topic in ["32 08 00 01't' 00 01 00 'ab'", "32 0a 00 03't/x' 00 02 00 'ab'"] {
        publisher.send_hex(topic).await;
        assert_eq!(publisher.packet().await[0], 0x40);
    }
    let asleep = session(&server, "").await;
    assert_eq!(figures(&asleep), json!([2, 1, 0, 0]), "t matches both filters and counts once");
    assert!(asleep["backlog"]["oldest_at"].is_string(), "{asleep}");
    let lag = |page: &Value| json!([page["items"][0]["lag"], page["items"][1]["lag"]]);
    assert_eq!(lag(&session(&server, "/subscriptions").await), json!([1, 2]));

    server.kill().await;
    server.start_again().await;
    let again = session(&server, "").await;
    assert_eq!(figures(&again), json!([2, 1, 0, 0]), "counted on disk");
    assert_eq!(again["backlog"]["oldest_at"], asleep["backlog"]["oldest_at"]);
    assert_eq!(lag(&session(&server, "/subscriptions").await), json!([1, 2]));

    let mut sleeper = connect(&server, "sleeper").await;
    for id in [1, 2] {
        assert_eq!(sleeper.packet().await[0], 0x32);
        assert_eq!(figures(&session(&server, "").await)[0], 0, "sent or on its way");
        sleeper.send(&[0x40, 2, 0, id]).await;
    }
    sleeper.send_hex("c0 00").await;
    sleeper.expect_hex("d0 00").await;
    assert_eq!(figures(&session(&server, "").await), json!([0, null, 0, 2]));
    assert_eq!(lag(&session(&server, "/subscriptions").await), json!([0, 0]));
}

#[tokio::test]
async fn the_metrics_tell_of_the_log_by_cluster_and_of_no_client() {
    let server = Server::start_dev().await;
    let mut sleeper = connect(&server, "sleeper").await;
    sleeper.send_hex("82 07 00 01 00 00 01't' 01").await;
    sleeper.expect_hex("90 04 00 01 00 01").await;
    sleeper.send_hex("e0 00").await;
    sleeper.expect_closed().await;
    let value = async |name: &str| -> f64 {
        let answer = server.api().get("/metrics").await;
        assert!(!answer.text.contains("sleeper"), "{}", answer.text);
        let found = answer.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{name} is not in\n{}", answer.text)).parse().expect("a number")
    };
    let commits = value("holdfast_log_commits_total").await;
    assert!(value("holdfast_log_bytes{cluster=\"default\"}").await < 0.5);
    let mut publisher = connect(&server, "publisher").await;
    publisher.send_hex("32 08 00 01't' 00 01 00 'ab'").await;
    assert_eq!(publisher.packet().await[0], 0x40);
    assert!(value("holdfast_log_commits_total").await > commits);
    assert!(value("holdfast_log_batches_total").await > 0.5);
    assert!(value("holdfast_log_bytes{cluster=\"default\"}").await > 20.0);
    assert!(value("holdfast_log_segments").await > 0.5);
    for name in
        ["holdfast_log_trimmed_messages_total{cluster=\"default\"}", "holdfast_log_damaged_reads_total"]
    {
        assert!(value(name).await < 0.5, "{name}");
    }
    assert!(value("holdfast_log_oldest_message_age_seconds{cluster=\"default\"}").await >= 0.0);
}
