//! The audit log: a row for every change that was asked for, before it is made.

use std::time::Duration;

use holdfast::control_plane::background::cleaner;
use holdfast::control_plane::tokens::Role;
use holdfast::store::AuditStart;
use serde_json::{Value, json};

use super::support::api::Api;
use super::support::data_plane::Mood;
use super::support::sessions::{T, commit, offline, put, row};

const LOG: &str = "/v1/audit-log";
const METER: &str = "/v1/clusters/c/sessions/meter";

async fn log(api: &Api, query: &str) -> Vec<Value> {
    let page = api.admin().get(&format!("{LOG}?{query}")).await.expect(200);
    page["items"].as_array().expect("items").clone()
}

#[tokio::test]
async fn a_change_is_told_with_what_was_and_what_is() {
    let api = Api::with_clusters(&["c"]).await;
    let before = api.admin().get("/v1/clusters/c").await.expect(200);
    let named = api.admin().header("x-request-id", "trace-7");
    let after = named.patch("/v1/clusters/c", &json!({"name": "Meters"})).await.expect(200);
    let rows = log(&api, "request_id=trace-7").await;
    let [row] = rows.as_slice() else { panic!("one row: {rows:?}") };
    assert_eq!((&row["before"], &row["after"]), (&before, &after));
    assert_eq!(
        (&row["actor"], &row["ip"], &row["key_id"]),
        (&json!("ada"), &json!("127.0.0.1"), &Value::Null)
    );
    assert_eq!((&row["operation"], &row["method"]), (&json!("patch_cluster"), &json!("PATCH")));
    assert_eq!((&row["path"], &row["cluster"]), (&json!("/v1/clusters/c"), &json!("c")));
    assert_eq!(
        (&row["outcome"], &row["status"], &row["code"]),
        (&json!("succeeded"), &json!(200), &Value::Null)
    );
    assert!(row["at"].as_str().expect("a time") >= T.to_string().as_str());
    assert!(row["duration_ms"].is_u64());
}

#[tokio::test]
async fn who_kicked_it_is_one_question() {
    let api = Api::with_clusters(&["c"]).await;
    commit(&api.store, &[put(row(1, "meter")), put(offline(row(2, "asleep"), T))]).await;
    api.admin().post(&format!("{METER}/disconnect"), &json!({})).await.expect(200);
    api.admin()
        .post(&format!("{METER}/disconnect"), &json!({}))
        .await
        .expect_problem("session_not_connected");
    api.admin().delete("/v1/clusters/c/sessions/asleep").await.expect(200);
    let rows = log(&api, "cluster=c&client_id=meter").await;
    let told: Vec<_> = rows.iter().map(|row| (&row["operation"], &row["outcome"], &row["code"])).collect();
    let operation = json!("disconnect_session");
    // Newest first.
    let expected = [
        (&operation, &json!("refused"), &json!("session_not_connected")),
        (&operation, &json!("succeeded"), &Value::Null),
    ];
    assert_eq!(told, expected);
    assert_eq!(rows[1]["after"]["was_online"], true);
}

#[tokio::test]
async fn a_refusal_and_a_failure_are_told_as_such() {
    let api = Api::with_clusters(&["c"]).await;
    commit(&api.store, &[put(row(1, "meter"))]).await;
    let viewer = api.with_token(&api.token(Role::Viewer, None));
    viewer.delete(METER).await.expect_problem("forbidden");
    assert!(log(&api, "client_id=meter").await.is_empty(), "who may not, asks for no change");
    api.data_plane.be(Mood::Fails(holdfast::seam::command::CommandError::Stopped));
    api.admin().delete(METER).await.expect_problem("data_plane_unavailable");
    api.admin().patch("/v1/clusters/c", &json!({"nmae": 1})).await.expect_problem("invalid_body");
    let rows = log(&api, "outcome=failed").await;
    assert_eq!((&rows[0]["code"], &rows[0]["status"]), (&json!("data_plane_unavailable"), &json!(503)));
    let rows = log(&api, "outcome=refused").await;
    assert_eq!((&rows[0]["code"], &rows[0]["status"]), (&json!("invalid_body"), &json!(400)));
}

#[tokio::test]
async fn a_row_is_there_before_the_effect() {
    let api = Api::with_clusters(&["c"]).await;
    commit(&api.store, &[put(row(1, "meter"))]).await;
    api.data_plane.be(Mood::Silent);
    let (before, admin) = (api.data_plane.commands(), api.admin().header("prefer", "wait=1"));
    let meanwhile = async {
        while api.data_plane.commands() == before {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        log(&api, "client_id=meter").await
    };
    let (answer, rows) = tokio::join!(admin.delete(METER), meanwhile);
    answer.expect(202);
    // What a crash at that moment would have left.
    assert_eq!((&rows[0]["outcome"], &rows[0]["status"]), (&json!("started"), &Value::Null));
}

#[tokio::test]
async fn filters_narrow_together_and_pages_follow_each_other() {
    let api = Api::with_clusters(&["c", "d"]).await;
    for n in 0..5 {
        api.clock.jump_millis(60_000);
        let cluster = if n == 3 { "d" } else { "c" };
        api.admin()
            .patch(&format!("/v1/clusters/{cluster}"), &json!({"name": format!("n{n}")}))
            .await
            .expect(200);
    }
    let names = |rows: &[Value]| -> Vec<String> {
        rows.iter().map(|row| row["after"]["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names(&log(&api, "operation=patch_cluster").await), ["n4", "n3", "n2", "n1", "n0"]);
    assert_eq!(names(&log(&api, "operation=patch_cluster&cluster=d").await), ["n3"]);
    let (from, to) = (T.plus_secs(90), T.plus_secs(210));
    let query = format!("operation=patch_cluster&since={from}&until={to}");
    assert_eq!(names(&log(&api, &query).await), ["n2", "n1"]);
    assert!(log(&api, "actor=nobody").await.is_empty() && log(&api, "actor=%00").await.is_empty());
    assert_eq!(log(&api, "actor=ada").await.len(), 7);

    let path = format!("{LOG}?operation=patch_cluster&page_size=2");
    let (mut seen, mut token) = (Vec::new(), None::<String>);
    loop {
        let next = token.map_or(String::new(), |token| format!("&page_token={token}"));
        let page = api.admin().get(&format!("{path}{next}")).await.expect(200);
        seen.extend(names(page["items"].as_array().expect("items")));
        let Some(next) = page["next_page_token"].as_str() else { break };
        token = Some(next.to_owned());
        api.admin().get(&format!("{LOG}?page_token={next}")).await.expect_problem("page_token_invalid");
    }
    assert_eq!(seen, ["n4", "n3", "n2", "n1", "n0"]);
    for bad in ["outcome=done", "since=yesterday", "page_size=0", "cluster=A", "client_id="] {
        api.admin().get(&format!("{LOG}?{bad}")).await.expect_problem("invalid_parameter");
    }
}

#[tokio::test]
async fn a_tenant_reads_of_its_own_cluster_alone() {
    let api = Api::with_clusters(&["c", "d"]).await;
    api.admin().patch("/v1/clusters/c", &json!({"name": "x"})).await.expect(200);
    let tenant = api.with_token(&api.token(Role::Admin, Some("d")));
    let page = tenant.get(LOG).await.expect(200);
    assert_eq!(page["items"], json!([]), "making a cluster is a change to none");
    assert_eq!(tenant.get(&format!("{LOG}?cluster=c")).await.expect(200)["items"], json!([]));
    tenant.patch("/v1/clusters/d", &json!({"name": "x"})).await.expect(200);
    assert_eq!(tenant.get(LOG).await.expect(200)["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn rows_are_kept_for_their_time() {
    let api = Api::start().await;
    let start = AuditStart { actor: "ada".to_owned(), ..AuditStart::default() };
    api.store.start_audit(&start, T).await.expect("start");
    let age = i64::try_from(cleaner::AUDIT_AGE_MAX.as_millis()).expect("millis");
    api.clock.jump_millis(age - 60_000);
    cleaner::clean(&api.store, api.clock.wall()).await.expect("clean");
    assert_eq!(log(&api, "").await.len(), 1);
    api.clock.jump_millis(60_000);
    cleaner::clean(&api.store, api.clock.wall()).await.expect("clean");
    assert!(log(&api, "").await.is_empty());
}
