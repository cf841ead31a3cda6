//! The list of refusals and the admission check over HTTP: paging, filters, and what may go wrong.

use holdfast::model::{Epoch, Refusal, RefusalKind, RefusalReason};
use holdfast::seam::command::CommandError;
use holdfast::seam::ports::RefusalStore;
use serde_json::{Value, json};

use super::support::api::Api;
use super::support::data_plane::Mood;
use super::support::sessions::{T, cluster_id, session_id};

const REFUSALS: &str = "/v1/clusters/c/refusals";

fn refusal(n: u32) -> Refusal {
    Refusal {
        kind: RefusalKind::Connect,
        client_id: Some(format!("c-{n}")),
        username: Some("ada".to_owned()),
        ip: Some([192, 0, 2, 1].into()),
        code: 0x97,
        reason: RefusalReason::Connections,
        detail: "quota connections: limit 1, in use 1".to_owned(),
        count: n.into(),
        first_at: T,
        last_at: T.plus_secs(n),
        session: Some((session_id(1), Epoch::FIRST)),
    }
}

#[tokio::test]
async fn pages_follow_each_other_and_a_token_is_good_for_its_filter() {
    let api = Api::with_clusters(&["c", "d"]).await;
    let batch: Vec<_> = (1..=5).map(|n| (cluster_id("c"), refusal(n))).collect();
    api.store.record_refusals(&batch).await.expect("record");
    let admin = api.admin();
    let (mut found, mut path) = (Vec::new(), format!("{REFUSALS}?page_size=2"));
    loop {
        let page = admin.get(&path).await.expect(200);
        found.extend(page["items"].as_array().expect("items").clone());
        let Some(token) = page["next_page_token"].as_str() else { break };
        path = format!("{REFUSALS}?page_size=2&page_token={token}");
    }
    let counts: Vec<&Value> = found.iter().map(|item| &item["count"]).collect();
    assert_eq!(counts, [5, 4, 3, 2, 1]);
    insta::assert_json_snapshot!("refusal", found[0]);

    let page = admin.get(&format!("{REFUSALS}?page_size=2&code=151")).await.expect(200);
    let token = page["next_page_token"].as_str().expect("a token");
    let other = admin.get(&format!("{REFUSALS}?code=159&page_token={token}")).await;
    other.expect_problem("page_token_invalid");
    let elsewhere = admin.get(&format!("/v1/clusters/d/refusals?code=151&page_token={token}")).await;
    elsewhere.expect_problem("page_token_invalid");

    for (query, count) in [
        ("client_id=c-3", 1),
        ("username=ada", 5),
        ("ip=192.0.2.1", 5),
        ("ip=::ffff:192.0.2.1", 5),
        ("ip=192.0.2.2", 0),
        ("kind=publish", 0),
        ("kind=connect&reason=connections", 5),
        ("code=159", 0),
        ("since=2200-01-01T00:00:00Z", 0),
    ] {
        let page = admin.get(&format!("{REFUSALS}?{query}")).await.expect(200);
        assert_eq!(page["items"].as_array().map(Vec::len), Some(count), "{query}");
    }
    for wrong in ["kind=x", "reason=x", "code=x", "code=256", "ip=x", "since=x", "page_size=0"] {
        admin.get(&format!("{REFUSALS}?{wrong}")).await.expect_problem("invalid_parameter");
    }
    admin.get(&format!("{REFUSALS}?x=1")).await.expect_problem("unknown_parameter");
    admin.get("/v1/clusters/nowhere/refusals").await.expect_problem("cluster_not_found");
}

#[tokio::test]
async fn an_admission_check_is_answered_by_the_data_plane_or_not_at_all() {
    let api = Api::with_clusters(&["c"]).await;
    let (admin, path) = (api.admin(), "/v1/clusters/c/admission-checks");
    let verdict = admin.post(path, &json!({"client_id": "a", "will": true})).await.expect(200);
    insta::assert_json_snapshot!("admission_refused", verdict);
    assert_eq!(admin.post(path, &json!({})).await.expect(200)["admitted"], true);
    api.data_plane.be(Mood::Fails(CommandError::Stopped));
    admin.post(path, &json!({})).await.expect_problem("data_plane_unavailable");
    api.data_plane.be(Mood::Fails(CommandError::NoSuchCluster));
    admin.post(path, &json!({})).await.expect_problem("cluster_not_found");
}
