//! A session's messages and its will as the API shows them, over a stand-in for the data plane; and the filters that
//! it answers.

use std::collections::BTreeSet;

use holdfast::control_plane::tokens::Role;
use holdfast::seam::command::CommandError;
use holdfast::seam::ports::SessionRow;
use holdfast::store::Store;
use serde_json::{Value, json};

use super::support::api::Api;
use super::support::data_plane::Mood;
use super::support::sessions::{T, commit, offline, put, row};

const MESSAGES: &str = "/v1/clusters/c/sessions/meter/messages";
const WILL: &str = "/v1/clusters/c/sessions/meter/will";

async fn fleet() -> Api {
    let api = Api::with_clusters(&["c"]).await;
    let with_will = SessionRow { has_will: true, ..row(1, "meter") };
    commit(&api.store, &[put(with_will), put(row(2, "willless"))]).await;
    api
}

fn items(page: &Value) -> &Vec<Value> {
    page["items"].as_array().expect("items")
}

#[tokio::test]
async fn a_backlog_is_paged_with_payloads_as_asked() {
    let api = fleet().await;
    let get = async |query: &str| api.admin().get(&format!("{MESSAGES}?of=backlog{query}")).await.expect(200);
    let first = get("&page_size=2&payload=text").await;
    let payloads = |page: &Value| -> Vec<Value> {
        let each = items(page).iter().map(|item| &item["message"]);
        each.map(|message| json!([message["payload"], message["payload_encoding"]])).collect()
    };
    assert_eq!(payloads(&first), [json!(["on", "text"]), json!(["/w==", "base64"])]);
    let token = first["next_page_token"].as_str().expect("a token");
    let second = get(&format!("&page_size=2&payload=omitted&page_token={token}")).await;
    assert_eq!(payloads(&second), [json!([null, "omitted"])]);
    assert!(second.get("next_page_token").is_none());
    let third = &items(&second)[0];
    assert_eq!(third["message"]["payload_bytes"], 3);
    assert_eq!((&third["position"], &third["exchange"]), (&json!(3), &Value::Null));
    assert_eq!(third["origin"]["publisher"], "backend");
    assert_eq!(third["origin"]["expires_in_seconds"], 60);
    assert_eq!(payloads(&get("").await)[0], json!(["b24=", "base64"]));

    let in_flight = api.admin().get(&format!("{MESSAGES}?of=in_flight")).await.expect(200);
    let exchange = json!({"packet_id": 1, "phase": "published", "shared_subscription": null});
    assert_eq!(items(&in_flight)[0]["exchange"], exchange);
    let stray = format!("{MESSAGES}?of=in_flight&page_token={token}");
    api.admin().get(&stray).await.expect_problem("page_token_invalid");
    for wrong in ["", "?of=everything", "?of=backlog&payload=hex"] {
        api.admin().get(&format!("{MESSAGES}{wrong}")).await.expect_problem("invalid_parameter");
    }
}

#[tokio::test]
async fn a_token_is_good_for_one_session() {
    let api = fleet().await;
    let page = api.admin().get(&format!("{MESSAGES}?of=backlog&page_size=1")).await.expect(200);
    let token = page["next_page_token"].as_str().expect("a token");
    commit(&api.store, &[put(row(9, "meter"))]).await;
    let path = format!("{MESSAGES}?of=backlog&page_token={token}");
    api.admin().get(&path).await.expect_problem("page_token_invalid");
}

#[tokio::test]
async fn a_will_is_shown_or_there_is_none() {
    let api = fleet().await;
    let will = api.admin().get(&format!("{WILL}?payload=text")).await.expect(200);
    assert_eq!(will["payload"], "gone");
    assert_eq!(will["topic"], "t");
    assert_eq!((&will["delay_seconds"], &will["message_expiry_seconds"]), (&json!(30), &json!(60)));
    assert_eq!(will["due_at"], T.to_string());
    let none = "/v1/clusters/c/sessions/willless/will";
    api.admin().get(none).await.expect_problem("will_not_found");
    api.admin().get("/v1/clusters/c/sessions/nobody/will").await.expect_problem("session_not_found");
}

#[tokio::test]
async fn what_clients_say_is_not_for_viewers() {
    let api = fleet().await;
    let viewer = api.with_token(&api.token(Role::Viewer, Some("c")));
    viewer.get(&format!("{MESSAGES}?of=backlog")).await.expect_problem("forbidden");
    viewer.get(WILL).await.expect_problem("forbidden");
}

#[tokio::test]
async fn without_the_data_plane_there_is_nothing_to_show() {
    let api = fleet().await;
    let path = format!("{MESSAGES}?of=backlog");
    for (error, code) in [
        (CommandError::NoSuchSession, "session_not_found"),
        (CommandError::Stopped, "data_plane_unavailable"),
        (CommandError::TimedOut, "data_plane_unavailable"),
        (CommandError::LogUnreadable, "internal"),
    ] {
        api.data_plane.be(Mood::Fails(error));
        api.admin().get(&path).await.expect_problem(code);
        api.admin().get(WILL).await.expect_problem(code);
    }
    let behind = "/v1/clusters/c/sessions?backlog_gte=1";
    api.admin().get(behind).await.expect_problem("internal");
}

#[tokio::test]
async fn sessions_with_a_backlog_are_found_page_by_page() {
    let api = Api::with_clusters(&["c"]).await;
    // 450 sessions, of which every tenth is behind: three looks of 200.
    let named =
        |n: u128| if n.is_multiple_of(10) { format!("behind-{n:03}") } else { format!("caught-up-{n:03}") };
    let batch: Vec<_> = (1..=450).map(|n| put(offline(row(n, &named(n)), T))).collect();
    commit(&api.store, &batch).await;
    for size in [7, 1_000] {
        let (mut found, mut looks) = (BTreeSet::new(), 0);
        let mut token = String::new();
        loop {
            let path = format!("/v1/clusters/c/sessions?backlog_gte=3&page_size={size}{token}");
            let page = api.admin().get(&path).await.expect(200);
            looks += 1;
            for item in items(&page) {
                assert!(found.insert(item["client_id"].to_string()), "once");
            }
            let Some(next) = page["next_page_token"].as_str() else { break };
            token = format!("&page_token={next}");
        }
        assert_eq!(found.len(), 45);
        assert!(found.iter().all(|client| client.contains("behind")));
        assert!((3..=10).contains(&looks), "{looks}");
    }
    let none =
        api.admin().get("/v1/clusters/c/sessions?backlog_gte=4&client_id_prefix=behind").await.expect(200);
    assert_eq!(items(&none).len(), 0);
    for wrong in ["0", "100001", "many"] {
        let path = format!("/v1/clusters/c/sessions?backlog_gte={wrong}");
        api.admin().get(&path).await.expect_problem("invalid_parameter");
    }
    // Neither a count nor a purge looks at 450 backlogs.
    let count = "/v1/clusters/c/session-count?backlog_gte=1";
    api.admin().get(count).await.expect_problem("unknown_parameter");
    let purge = json!({"action": "delete", "filter": "backlog_gte=1"});
    api.admin().post("/v1/clusters/c/session-purges", &purge).await.expect_problem("invalid_body");
}

#[tokio::test]
async fn a_session_is_at_the_node_that_wrote_it_last() {
    let api = Api::with_clusters(&["c"]).await;
    let node = |id: &str| Store::of_node(api.store.clone(), id);
    commit(&node("one"), &[put(row(1, "a")), put(row(2, "b"))]).await;
    commit(&node("two"), &[put(offline(row(2, "b"), T))]).await;
    commit(&api.store, &[put(row(3, "old"))]).await;
    let at = async |filter: &str| -> Vec<String> {
        let page = api.admin().get(&format!("/v1/clusters/c/sessions{filter}")).await.expect(200);
        items(&page).iter().map(|item| format!("{} {}", item["client_id"], item["node"])).collect()
    };
    assert_eq!(at("").await, ["\"a\" \"one\"", "\"b\" \"two\"", "\"old\" null"]);
    assert_eq!(at("?node=one").await, ["\"a\" \"one\""]);
    assert_eq!(at("?node=nowhere").await, [""; 0]);
    let count = api.admin().get("/v1/clusters/c/session-count?group_by=node&node=two").await.expect(200);
    assert_eq!(count["groups"], json!([{"values": {"node": "two"}, "count": 1}]));
}
