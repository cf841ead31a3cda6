//! Listing and reading sessions and their subscriptions over HTTP.

use holdfast::model::{ProtocolVersion, SessionEnd, Transport};
use holdfast::seam::command::CommandError;
use holdfast::seam::ports::{SessionRow, SessionWrite};
use serde_json::{Value, json};

use super::support::api::Api;
use super::support::data_plane::Mood;
use super::support::sessions::{
    T, client_id, commit, offline, put, row, session_id, subscribe, subscription,
};

const SESSIONS: &str = "/v1/clusters/c/sessions";

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().expect("items");
    items.iter().map(|session| session["client_id"].as_str().expect("an id").to_owned()).collect()
}

async fn listed(api: &Api, query: &str) -> Vec<String> {
    ids(&api.admin().get(&format!("{SESSIONS}?{query}")).await.expect(200))
}

/// Writes a client id as one path segment.
fn encoded(client: &str) -> String {
    client.bytes().fold(String::new(), |text, b| format!("{text}%{b:02X}"))
}

#[tokio::test]
async fn a_record_shows_what_its_row_knows() {
    let api = Api::with_clusters(&["c"]).await;
    let online = SessionRow {
        username: Some("meter".to_owned()),
        transport: Some(Transport::Quic),
        packet_bytes_max: Some(1_024),
        expiry_bounded: true,
        has_will: true,
        ..row(1, "online")
    };
    commit(&api.store, &[put(online), put(offline(row(2, "offline"), T.plus_secs(1))), subscribe(2, "x")])
        .await;
    let get = async |client: &str| api.admin().get(&format!("{SESSIONS}/{client}")).await;
    insta::assert_json_snapshot!("session_online", get("online").await.expect(200));
    let offline = get("offline").await;
    insta::assert_json_snapshot!("session_offline", offline.expect(200));
    let version = offline.json()["version"].as_i64().expect("a version");
    assert_eq!(offline.etag(), format!("\"{}.{version}\"", session_id(2)), "as the field says");
}

#[tokio::test]
async fn a_record_is_answered_also_when_the_data_plane_is_not_there() {
    let api = Api::with_clusters(&["c"]).await;
    commit(&api.store, &[put(row(1, "meter")), subscribe(1, "b/#")]).await;
    let path = format!("{SESSIONS}/meter");
    for (mood, why) in [
        (Mood::Silent, "timeout"),
        (Mood::Fails(CommandError::NoSuchSession), "moved_on"),
        (Mood::Fails(CommandError::NoSuchCluster), "not_served"),
    ] {
        api.data_plane.be(mood);
        let record = api.admin().get(&path).await.expect(200);
        assert_eq!(record["traffic_unavailable"], why);
        for field in ["backlog", "in_flight", "counters", "trimmed"] {
            assert_eq!(record.get(field), Some(&Value::Null), "{field}");
        }
        assert_eq!(record["client_id"], "meter");
        let subscriptions = api.admin().get(&format!("{path}/subscriptions")).await.expect(200);
        assert_eq!(subscriptions["items"][0]["lag"], Value::Null);
    }
    let listed = api.admin().get(SESSIONS).await.expect(200);
    assert!(listed["items"][0].get("backlog").is_none(), "lists ask the database only");
}

#[tokio::test]
async fn filters_narrow_together() {
    let api = Api::with_clusters(&["c", "d"]).await;
    let v3 = SessionRow { protocol: Some(ProtocolVersion::V3_1_1), ..row(3, "meter-3") };
    let named = SessionRow { username: Some("ada & co".to_owned()), ..row(4, "phone-4") };
    commit(&api.store, &[put(row(1, "meter-1")), put(offline(row(2, "meter-2"), T)), put(v3), put(named)])
        .await;
    for (query, expected) in [
        ("", "meter-1 meter-2 meter-3 phone-4"),
        ("state=online", "meter-1 meter-3 phone-4"),
        ("state=offline", "meter-2"),
        ("client_id=meter-2", "meter-2"),
        ("client_id=meter-2&state=online", ""),
        ("client_id_prefix=meter-", "meter-1 meter-2 meter-3"),
        ("client_id_prefix=METER", ""),
        ("protocol=3.1.1", "meter-3"),
        ("protocol=5&client_id_prefix=m", "meter-1 meter-2"),
        ("username=ada+%26%20co", "phone-4"),
        ("username=%00", ""),
    ] {
        assert_eq!(listed(&api, query).await.join(" "), expected, "{query}");
    }
    assert_eq!(ids(&api.admin().get("/v1/clusters/d/sessions").await.expect(200)), Vec::<String>::new());
    api.admin().get("/v1/clusters/none/sessions").await.expect_problem("cluster_not_found");
    for (query, code) in [
        ("state=asleep", "invalid_parameter"),
        ("protocol=4", "invalid_parameter"),
        ("client_id=", "invalid_parameter"),
        ("page_size=0", "invalid_parameter"),
        ("page_size=-1", "invalid_parameter"),
        ("page_size=ten", "invalid_parameter"),
        ("state=online&state=offline", "invalid_parameter"),
        ("client=meter-1", "unknown_parameter"),
        ("State=online", "unknown_parameter"),
    ] {
        let problem = api.admin().get(&format!("{SESSIONS}?{query}")).await.expect_problem(code);
        let named = problem["errors"][0]["parameter"].as_str().expect("a parameter");
        assert!(query.starts_with(&format!("{named}=")), "{query}: {problem}");
    }
}

#[tokio::test]
async fn an_expired_session_is_not_there() {
    let api = Api::with_clusters(&["c"]).await;
    commit(&api.store, &[put(offline(row(1, "gone"), T)), put(row(2, "here"))]).await;
    assert_eq!(listed(&api, "").await, ["gone", "here"]);
    api.clock.jump_millis(3_600_000);
    assert_eq!(listed(&api, "").await, ["here"]);
    api.admin().get(&format!("{SESSIONS}/gone")).await.expect_problem("session_not_found");
    api.admin().get(&format!("{SESSIONS}/gone/subscriptions")).await.expect_problem("session_not_found");
}

#[tokio::test]
async fn pages_follow_each_other_and_keep_their_filter() {
    let api = Api::with_clusters(&["c", "d"]).await;
    let rows: Vec<_> = (0..25_u8).map(|n| put(row(u128::from(n) + 1, &format!("m{n:02}")))).collect();
    commit(&api.store, &rows).await;
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = api.admin().get(&format!("{SESSIONS}?state=online&page_size=10{token}")).await.expect(200);
        seen.extend(ids(&page));
        if seen.len() == 10 {
            // What comes before the page's end does not shift the next one.
            commit(
                &api.store,
                &[put(row(100, "m00a")), SessionWrite::Remove(session_id(1), SessionEnd::Deleted)],
            )
            .await;
        }
        match page.get("next_page_token").and_then(Value::as_str) {
            Some(next) => token = format!("&page_token={next}"),
            None => break,
        }
    }
    let expected: Vec<_> = (0..25).map(|n| format!("m{n:02}")).collect();
    assert_eq!(seen, expected);

    let first = api.admin().get(&format!("{SESSIONS}?state=online&page_size=10")).await.expect(200);
    let token = first["next_page_token"].as_str().expect("a token");
    for path in [
        format!("{SESSIONS}?page_token={token}"),
        format!("{SESSIONS}?state=offline&page_token={token}"),
        format!("{SESSIONS}?state=online&client_id_prefix=m&page_token={token}"),
        format!("/v1/clusters/d/sessions?state=online&page_token={token}"),
        format!("{SESSIONS}?state=online&page_token={token}x"),
        format!("/v1/clusters?page_token={token}"),
    ] {
        api.admin().get(&path).await.expect_problem("page_token_invalid");
    }
    // Another page size is no other filter.
    api.admin().get(&format!("{SESSIONS}?state=online&page_size=3&page_token={token}")).await.expect(200);
}

#[tokio::test]
async fn any_client_id_can_be_named_in_a_path() {
    let api = Api::with_clusters(&["c"]).await;
    let clients = ["a/b", "with space", "zähler-Ω-☃", "100%", "%2F", "a?b#c", "..", "/", "+", "\u{7f}"];
    let rows: Vec<_> = clients.iter().zip(1..).map(|(client, n)| put(row(n, client))).collect();
    commit(&api.store, &rows).await;
    for client in clients {
        let path = format!("{SESSIONS}/{}", encoded(client));
        if client == ".." {
            continue; // URLs resolve a dot segment, encoded or not, before they are sent.
        }
        assert_eq!(api.admin().get(&path).await.expect(200)["client_id"], client);
        let subscriptions = api.admin().get(&format!("{path}/subscriptions")).await.expect(200);
        assert_eq!(subscriptions, json!({"items": []}));
        let ended = api.admin().delete(&path).await.expect(200);
        assert_eq!(ended["client_id"], client);
    }
    assert_eq!(listed(&api, "").await, [".."], "and nothing else was hit");
    for (client, code) in [
        ("%FF".to_owned(), "invalid_parameter"),
        (encoded("a\0"), "invalid_parameter"),
        ("x".repeat(257), "invalid_parameter"),
        ("x".repeat(256), "session_not_found"),
    ] {
        api.admin().get(&format!("{SESSIONS}/{client}")).await.expect_problem(code);
    }
    api.admin().get("/v1/clusters/No%20Cluster/sessions/a").await.expect_problem("cluster_not_found");
}

#[tokio::test]
async fn subscriptions_are_listed_with_all_their_options() {
    let api = Api::with_clusters(&["c"]).await;
    let plain = holdfast::model::Subscription {
        identifier: None,
        no_local: false,
        ..subscription("$share/readers/meters/+/power")
    };
    commit(
        &api.store,
        &[
            put(row(1, "meter")),
            SessionWrite::Subscribe(session_id(1), Box::new(plain)),
            subscribe(1, "b/#"),
            subscribe(1, "a/ü"),
        ],
    )
    .await;
    let path = format!("{SESSIONS}/meter/subscriptions");
    let page = api.admin().get(&path).await.expect(200);
    insta::assert_json_snapshot!("subscriptions", page, { ".items[].created_at" => "[time]" });

    let first = api.admin().get(&format!("{path}?page_size=2")).await.expect(200);
    let token = first["next_page_token"].as_str().expect("a token");
    let second = api.admin().get(&format!("{path}?page_size=2&page_token={token}")).await.expect(200);
    assert_eq!(second["items"][0]["filter"], "b/#");
    assert!(second.get("next_page_token").is_none());

    // The client's next session is another list.
    commit(&api.store, &[SessionWrite::Remove(session_id(1), SessionEnd::Deleted), put(row(2, "meter"))])
        .await;
    api.admin().get(&format!("{path}?page_token={token}")).await.expect_problem("page_token_invalid");
    assert_eq!(client_id("meter").as_str(), "meter");
}
