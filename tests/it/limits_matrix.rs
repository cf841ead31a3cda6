//! `docs/limits.md`: that the tests it names exist, and the rows that are alike for every limit, over real sockets.
//!
//! Each limit is met by a client of 3.1.1 and by one of 5.0, is answered as the matrix says, and costs two others of
//! the same cluster nothing. What is exact about each limit is tested where it is decided.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::access::Version::{self, V3, V5};
use crate::support::access::{connect, heard, knock, knock_with, publish, subscribe};
use crate::support::http::Api;
use crate::support::mqtt::{RawClient, hex};
use crate::support::server::Server;

const QUOTA: &str = "/v1/clusters/default/quota";

/// More than any rate of one in a second lets through while it is tried.
const TRIES: usize = 50;

/// What a client does that meets a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Connect,
    ConnectWithWill,
    Subscribe(&'static str),
    Unsubscribe,
    Publish,
    PublishRetained,
}

use Deed::{Connect, ConnectWithWill, Publish, PublishRetained, Subscribe, Unsubscribe};

/// What the client is told when it is over the limit: the code of the answer.
async fn told(server: &Server, client: &mut RawClient, version: Version, deed: Deed) -> u8 {
    for n in 0..TRIES {
        let id = format!("new-{n}");
        let code = match deed {
            Connect => knock(server, version, &id, None).await.1,
            ConnectWithWill => {
                let mut new = RawClient::open(server.mqtt).await;
                let connect = match version {
                    V3 => format!("10 ~ s'MQTT' 04 06 003c s'{id}' s'w' s'x'"),
                    V5 => format!("10 ~ s'MQTT' 05 06 003c {{ }} s'{id}' {{ }} s'w' s'x'"),
                };
                new.send_hex(&connect).await;
                new.packet().await[3]
            }
            Subscribe(filter) => subscribe(client, version, filter, 1).await,
            Unsubscribe => {
                client.send_hex("a2 ~ 0002 { } s'none'").await;
                // 0x11: there was no such subscription.
                client.packet().await.pop().filter(|code| *code != 0x11).unwrap_or_default()
            }
            Publish => {
                publish(client, version, "said", 1, false).await.filter(|code| *code != 0x10).unwrap_or(0)
            }
            PublishRetained => publish(client, version, "kept", 1, true).await.expect("an answer"),
        };
        if code >= 0x80 || (version == V3 && code > 2) {
            return code;
        }
    }
    0
}

/// Two clients that are there before anything is limited, and go on.
struct Others {
    writer: RawClient,
    reader: RawClient,
}

impl Others {
    async fn new(server: &Server) -> Self {
        let mut reader = connect(server, V3, "reader").await;
        assert_eq!(subscribe(&mut reader, V3, "marker", 0).await, 0);
        Self { writer: connect(server, V5, "writer").await, reader }
    }

    async fn go_on(&mut self) {
        assert_eq!(heard(&mut self.writer, &mut self.reader).await, 0);
        for client in [&mut self.writer, &mut self.reader] {
            client.send_hex("c0 00").await;
            client.expect_hex("d0 00").await;
        }
    }
}

async fn set_quota(api: &Api, body: Value) {
    let read = api.get(QUOTA).await;
    api.put_over(&read, QUOTA, body).await.expect(200);
}

#[tokio::test]
async fn each_quota_is_told_and_others_go_on() {
    let server = Server::start_dev().await;
    let api = server.api();
    let mut others = Others::new(&server).await;
    // Of messages each of the others says one, and has a share of its own.
    let rates = |rate: &str| json!({"rates": {rate: if rate.starts_with("client") { 5 } else { 1 }}});
    for (limit, deed, v5, v3) in [
        (json!({"connections": 0}), Connect, 0x97, 3),
        (json!({"subscriptions": 0}), Subscribe("a"), 0x97, 0x80),
        (json!({"filters_per_client": 0}), Subscribe("a"), 0x97, 0x80),
        (rates("connects_per_second"), Connect, 0x9f, 3),
        (rates("connects_with_will_per_second"), ConnectWithWill, 0x9f, 3),
        (rates("subscribes_per_second"), Subscribe("a"), 0x97, 0x80),
        (rates("unsubscribes_per_second"), Unsubscribe, 0x83, 0),
        (rates("client_messages_per_second"), Publish, 0x97, 0),
        (json!({"retained_messages": 0}), PublishRetained, 0x97, 0),
        (json!({"retained_bytes": 0}), PublishRetained, 0x97, 0),
        (json!({"shared_groups": 0}), Subscribe("$share/g/a"), 0x97, 0x80),
        (json!({"filters_per_shared_group": 0}), Subscribe("$share/g/a"), 0x97, 0x80),
        (json!({"members_per_shared_group": 0}), Subscribe("$share/g/a"), 0x97, 0x80),
    ] {
        for (version, code) in [(V5, v5), (V3, v3)] {
            if version == V3 && matches!(deed, Unsubscribe | Publish) {
                continue; // It is slowed: see below.
            }
            let (mut client, admitted) = knock_with(&server, version, ("actor", None), 0x02).await;
            assert_eq!(admitted, 0);
            set_quota(&api, limit.clone()).await;
            assert_eq!(told(&server, &mut client, version, deed).await, code, "{limit} {version:?}");
            others.go_on().await;
            set_quota(&api, json!({})).await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_v3_client_is_slowed_loses_nothing_and_others_go_on() {
    //
    let server = Server::start_dev().await;
    let api = server.api();
    let mut others = Others::new(&server).await;
    for (limit, packet, answer) in [
        ("unsubscribes_per_second", "a2 ~ 00{n} s'none'", 0xb0),
        ("client_messages_per_second", "32 ~ s'said' 00{n} 'm'", 0x40),
    ] {
        set_quota(&api, json!({"rates": {limit: 5}})).await;
        let mut client = connect(&server, V3, "actor").await;
        for n in 1..=20 {
            client.send_hex(&packet.replace("{n}", &format!("{n:02x}"))).await;
        }
        others.go_on().await;
        set_quota(&api, json!({})).await;
        for n in 1..=20 {
            let answered = client.packet().await;
            assert_eq!((answered[0], answered[3]), (answer, n), "{limit}: {}", hex(&answered));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn each_bound_of_a_packet_is_told_and_others_go_on() {
    //
    let server = Server::start_dev().await;
    let mut others = Others::new(&server).await;
    let deep = "x/".repeat(16);
    let long = "x".repeat(257);
    for (version, levels, id) in [(V5, 0x8f, 0x85), (V3, 0x80, 2)] {
        let mut client = connect(&server, version, "actor").await;
        assert_eq!(subscribe(&mut client, version, &deep, 1).await, levels);
        if version == V5 {
            assert_eq!(publish(&mut client, V5, &deep, 1, false).await, Some(0x90));
            let property = "x".repeat(8 * 1_024);
            client.send_hex(&format!("32 ~ s't' 0007 {{ 26 s'k' s'{property}' }} 'm'")).await;
            client.expect_hex("40 ~ 0007 97 ...").await;
        } else {
            client.send_hex(&format!("32 ~ s'{deep}' 0007 'm'")).await;
            client.expect_closed().await;
            client = connect(&server, version, "actor").await;
        }
        assert_eq!(knock(&server, version, &long, None).await.1, id);
        // Remaining length 300,000: it is refused by its head.
        client.send_hex("30 e0 a7 12").await;
        if version == V5 {
            let goodbye = client.packet().await;
            assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x95), "{}", hex(&goodbye));
        }
        client.expect_closed().await;
        others.go_on().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn an_expiry_beyond_the_bounds_is_moved_within_them_for_both_versions() {
    //
    let server = Server::start_dev().await;
    let api = server.api();
    let mut others = Others::new(&server).await;
    set_quota(&api, json!({"session_expiry_min_seconds": 30, "session_expiry_max_seconds": 60})).await;
    for (connect, told, id) in [
        ("10 ~ s'MQTT' 05 00 003c { 11 00000e10 } s'five'", Some("110000003c"), "five"),
        ("10 ~ s'MQTT' 05 00 003c { 11 00000001 } s'short'", Some("110000001e"), "short"),
        ("10 ~ s'MQTT' 04 00 003c s'three'", None, "three"),
    ] {
        let mut client = RawClient::open(server.mqtt).await;
        client.send_hex(connect).await;
        let connack = client.packet().await;
        assert_eq!(connack[3], 0);
        assert!(told.is_none_or(|told| hex(&connack).replace(' ', "").contains(told)), "{}", hex(&connack));
        let session = api.get(&format!("/v1/clusters/default/sessions/{id}")).await.expect(200);
        let expected = if id == "short" { 30 } else { 60 };
        assert_eq!(session["expiry_interval_seconds"], expected, "{session}");
        others.go_on().await;
    }
    server.stop().await;
}

/// The tests that the matrix names are there, and it has a row for every quota in every version.
#[test]
fn the_matrix_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let matrix = std::fs::read_to_string(root.join("docs/limits.md")).expect("docs/limits.md");
    let mut rows = BTreeSet::new();
    for row in matrix.lines().filter(|line| line.starts_with("| Q-")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [id, _, version, _, refused, unaffected] = cells[..] else { panic!("six columns: {row}") };
        rows.insert((id.to_owned(), version.to_owned()));
        let named = |cell: &'_ str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let (refused, unaffected) = (named(refused), named(unaffected));
        assert!(!refused.is_empty() && !unaffected.is_empty(), "no test: {row}");
        for test in refused.iter().chain(&unaffected) {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{test}: file::test"));
            let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|_| panic!("no file {file}"));
            assert!(has_test(&text, name), "{file} has no test {name}");
        }
    }
    let wanted = (1..=11).flat_map(|n| ["v3", "v5"].map(|version| (format!("Q-{n}"), version.to_owned())));
    assert_eq!(rows, wanted.collect());
}

/// Whether a function of that name is marked as a test, in the lines right above it.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_it = |line: &str| line.contains(&format!("fn {name}("));
    let Some(at) = lines.iter().position(|line| is_it(line)) else { return false };
    let marks = lines[..at].iter().rev().take_while(|line| line.starts_with('#') || line.starts_with("//"));
    marks.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
}

#[test]
fn only_what_is_marked_is_a_test() {
    let text = "#[test]\n// why\nfn real() {}\n\nfn helper() {}\n#[tokio::test(x)]\nasync fn live() {}\n";
    assert!(has_test(text, "real") && has_test(text, "live"));
    assert!(!has_test(text, "helper") && !has_test(text, "missing"));
}
