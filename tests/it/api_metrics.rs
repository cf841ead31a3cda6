//! The metrics, and who may read them.

use holdfast::control_plane::tokens::Role;
use holdfast::model::ProtocolVersion;
use holdfast::seam::ports::SessionRow;
use serde_json::json;

use super::support::api::Api;
use super::support::sessions::{T, commit, offline, put, row};

#[tokio::test]
async fn sessions_and_requests_are_told_without_client_ids() {
    let api = Api::with_clusters(&["c"]).await;
    let v3 = SessionRow { protocol: Some(ProtocolVersion::V3_1_1), ..row(3, "secret-3") };
    commit(&api.store, &[put(row(1, "secret-1")), put(offline(row(2, "secret-2"), T)), put(v3)]).await;
    api.admin().get("/v1/clusters/c/sessions/secret-1").await.expect(200);
    api.admin()
        .patch("/v1/clusters/c/sessions/secret-9", &json!({}))
        .await
        .expect_problem("session_not_found");
    let viewer = api.with_token(&api.token(Role::Viewer, None));
    let answer = viewer.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    let route = "/v1/clusters/{cluster}/sessions/{client_id}";
    for line in [
        "holdfast_sessions{cluster=\"c\",state=\"online\"} 2".to_owned(),
        "holdfast_sessions{cluster=\"c\",state=\"offline\"} 1".to_owned(),
        format!("holdfast_api_request_seconds_count{{route=\"{route}\",method=\"GET\",status=\"200\"}} 1"),
        format!("holdfast_api_request_seconds_count{{route=\"{route}\",method=\"PATCH\",status=\"404\"}} 1"),
    ] {
        assert!(answer.text.lines().any(|found| found == line), "{line} is not in\n{}", answer.text);
    }
    assert!(!answer.text.contains("secret"), "{}", answer.text);

    api.anonymous().get("/metrics").await.expect_problem("token_missing");
    let tenant = api.with_token(&api.token(Role::Admin, Some("c")));
    tenant.get("/metrics").await.expect_problem("forbidden");
}
