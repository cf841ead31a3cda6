//! What operators do to sessions over HTTP: expiry, disconnect, delete, and the fences around them.

use holdfast::model::OperatorExpiry;
use holdfast::seam::command::CommandError;
use serde_json::{Value, json};

use super::support::api::Api;
use super::support::data_plane::Mood;
use super::support::sessions::{T, client_id, cluster_id, commit, offline, put, row, session_id};

const METER: &str = "/v1/clusters/c/sessions/meter";

/// A client that is online and one that went offline at [`T`].
async fn fleet() -> Api {
    let api = Api::with_clusters(&["c"]).await;
    commit(&api.store, &[put(row(1, "meter")), put(offline(row(2, "asleep"), T))]).await;
    api
}

async fn order(api: &Api, client: &str) -> Option<OperatorExpiry> {
    let now = api.clock.wall();
    let record = api.store.get_session(&cluster_id("c"), &client_id(client), now).await.expect("read");
    record.expect("a session").operator_expiry
}

fn interval(seconds: u32) -> Value {
    json!({"expiry": {"interval_seconds": seconds}})
}

#[tokio::test]
async fn an_order_beats_the_client_s_expiry_until_it_is_taken_back() {
    let api = fleet().await;
    let admin = api.admin();
    let read = admin.get("/v1/clusters/c/sessions/asleep").await;
    let changed =
        admin.header("if-match", read.etag()).patch("/v1/clusters/c/sessions/asleep", &interval(7_200)).await;
    let session = changed.expect(200);
    assert_eq!(session["expires_at"], T.plus_secs(7_200).to_string());
    assert_eq!(
        (&session["expiry_source"], &session["expiry_interval_seconds"]),
        (&json!("operator"), &json!(7_200))
    );
    assert_eq!(order(&api, "asleep").await, Some(OperatorExpiry::Interval(7_200)));
    let read = admin.get("/v1/clusters/c/sessions/asleep").await.expect(200);
    for (field, value) in session.as_object().expect("a session") {
        assert_eq!(read.get(field), Some(value), "{field}");
    }

    let at = T.plus_secs(600).to_string();
    let session = admin
        .patch("/v1/clusters/c/sessions/asleep", &json!({"expiry": {"expires_at": at}}))
        .await
        .expect(200);
    assert_eq!(session["expires_at"], at);

    let session = admin.patch("/v1/clusters/c/sessions/asleep", &json!({"expiry": null})).await.expect(200);
    assert_eq!(session["expires_at"], T.plus_secs(3_600).to_string());
    assert_eq!(session["expiry_source"], "client");
    assert_eq!(order(&api, "asleep").await, None);

    let unchanged = admin.patch("/v1/clusters/c/sessions/asleep", &json!({})).await.expect(200);
    assert_eq!(unchanged, session);
}

#[tokio::test]
async fn an_online_session_is_told_later() {
    let api = fleet().await;
    let session = api.admin().patch(METER, &interval(60)).await.expect(200);
    assert_eq!((&session["state"], &session["expires_at"]), (&json!("online"), &Value::Null));
    assert_eq!(session["expiry_interval_seconds"], 60);
    // An instant that has passed holds when the connection ends.
    let past = json!({"expiry": {"expires_at": "2020-01-01T00:00:00Z"}});
    api.admin().patch(METER, &past).await.expect(200);
    api.admin().patch(METER, &interval(0)).await.expect(200);
}

#[tokio::test]
async fn an_expiry_that_has_passed_needs_a_second_word() {
    let api = fleet().await;
    api.clock.jump_millis(120_000);
    let path = "/v1/clusters/c/sessions/asleep";
    for body in [interval(60), interval(0), json!({"expiry": {"expires_at": T.plus_secs(1).to_string()}})] {
        api.admin().patch(path, &body).await.expect_problem("expiry_in_past");
        api.admin()
            .patch(&format!("{path}?allow_immediate=false"), &body)
            .await
            .expect_problem("expiry_in_past");
    }
    assert_eq!(order(&api, "asleep").await, None, "nothing was done");
    let ended = api.admin().patch(&format!("{path}?allow_immediate=true"), &interval(60)).await.expect(200);
    assert_eq!(ended["expires_at"], T.plus_secs(60).to_string());
    api.admin().get(path).await.expect_problem("session_not_found");
}

#[tokio::test]
async fn no_order_goes_over_the_cluster_s_ceiling() {
    let api = fleet().await;
    api.admin()
        .header("if-match", "*")
        .put("/v1/clusters/c/quota", &json!({"session_expiry_max_seconds": 600}))
        .await
        .expect(200);
    for client in ["meter", "asleep"] {
        let path = format!("/v1/clusters/c/sessions/{client}");
        api.admin().patch(&path, &interval(600)).await.expect(200);
        let problem = api.admin().patch(&path, &interval(601)).await.expect_problem("expiry_above_ceiling");
        assert_eq!(problem["status"], 422);
        assert_eq!(problem["errors"][0]["pointer"], "#/expiry/interval_seconds");
        assert!(
            problem["detail"].as_str().expect("a text").contains("600"),
            "it names the ceiling: {problem}"
        );
        let late = json!({"expiry": {"expires_at": T.plus_secs(10_000).to_string()}});
        let problem = api.admin().patch(&path, &late).await.expect_problem("expiry_above_ceiling");
        assert_eq!(problem["errors"][0]["pointer"], "#/expiry/expires_at");
        assert_eq!(order(&api, client).await, Some(OperatorExpiry::Interval(600)));
    }
}

#[tokio::test]
async fn an_order_says_one_thing() {
    let api = fleet().await;
    for (expiry, pointer) in [
        (json!({}), "#/expiry"),
        (json!({"interval_seconds": 1, "expires_at": "2027-01-01T00:00:00Z"}), "#/expiry"),
        (json!({"interval_seconds": null}), "#/expiry/interval_seconds"),
        (json!({"interval_seconds": -1}), "#/expiry/interval_seconds"),
        (json!({"interval_seconds": 4_294_967_296_u64}), "#/expiry/interval_seconds"),
        (json!({"expires_at": "tomorrow"}), "#/expiry/expires_at"),
        (json!({"seconds": 1}), "#/expiry/seconds"),
        (json!([1]), "#/expiry"),
        (json!(60), "#/expiry"),
    ] {
        let body = json!({"expiry": expiry});
        let problem = api.admin().patch(METER, &body).await.expect_problem("invalid_body");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
    api.admin().patch(METER, &json!({"labels": {}})).await.expect(200);
    api.admin().patch(METER, &json!({"label": {}})).await.expect_problem("invalid_body");
}

#[tokio::test]
async fn a_disconnect_keeps_the_session_and_a_delete_ends_it() {
    let api = fleet().await;
    let admin = api.admin();
    let ended = admin.post(&format!("{METER}/disconnect"), &json!({})).await.expect(200);
    insta::assert_json_snapshot!("ended", ended);
    let session = admin.get(METER).await.expect(200);
    assert_eq!(session["state"], "offline");
    assert_eq!(session["disconnect"], json!({"reason": "administrative", "by": "operator"}));

    admin.post(&format!("{METER}/disconnect"), &json!({})).await.expect_problem("session_not_connected");
    let ended = admin.delete(METER).await.expect(200);
    assert_eq!(ended["was_online"], false);
    admin.get(METER).await.expect_problem("session_not_found");
    admin.delete(METER).await.expect_problem("session_not_found");
    admin.post(&format!("{METER}/disconnect"), &json!({})).await.expect_problem("session_not_found");
    admin.patch(METER, &interval(1)).await.expect_problem("session_not_found");
    for path in ["/v1/clusters/x/sessions/meter", "/v1/clusters/x/sessions/meter/subscriptions"] {
        admin.get(path).await.expect_problem("cluster_not_found");
    }
    admin.delete("/v1/clusters/x/sessions/meter").await.expect_problem("cluster_not_found");
    admin.patch("/v1/clusters/x/sessions/meter", &interval(1)).await.expect_problem("cluster_not_found");
}

#[tokio::test]
async fn a_command_for_an_earlier_session_does_nothing() {
    let api = fleet().await;
    let admin = api.admin();
    let (this, other) = (session_id(1), session_id(9));
    for fence in [
        format!("if_session_id={other}"),
        "if_epoch=2".to_owned(),
        format!("if_session_id={this}&if_epoch=2"),
    ] {
        let answers = [
            admin.delete(&format!("{METER}?{fence}")).await,
            admin.post(&format!("{METER}/disconnect?{fence}"), &json!({})).await,
            admin.patch(&format!("{METER}?{fence}"), &interval(1)).await,
        ];
        for answer in answers {
            let problem = answer.expect_problem("session_superseded");
            assert!(problem["detail"].as_str().expect("a text").contains(&this.to_string()), "{problem}");
        }
    }
    assert_eq!(admin.get(METER).await.expect(200)["state"], "online");
    admin.patch(&format!("{METER}?if_session_id={this}"), &interval(60)).await.expect(200);
    admin.delete(&format!("{METER}?if_session_id={this}&if_epoch=1")).await.expect(200);
    for wrong in ["if_session_id=seven", "if_session_id=", "if_epoch=-1", "if_epoch=x", "if_epoch"] {
        admin.delete(&format!("{METER}?{wrong}")).await.expect_problem("invalid_parameter");
    }
}

#[tokio::test]
async fn if_match_is_honoured_by_every_change() {
    let api = fleet().await;
    let admin = api.admin();
    let read = admin.get(METER).await;
    admin.patch(METER, &interval(60)).await.expect(200);
    let stale = admin.header("if-match", read.etag());
    stale.patch(METER, &interval(61)).await.expect_problem("precondition_failed");
    stale.delete(METER).await.expect_problem("precondition_failed");
    stale.post(&format!("{METER}/disconnect"), &json!({})).await.expect_problem("precondition_failed");
    admin.header("if-match", "7").delete(METER).await.expect_problem("invalid_header");
    assert_eq!(admin.get(METER).await.expect(200)["state"], "online");

    let fresh = admin.header("if-match", admin.get(METER).await.etag());
    fresh.post(&format!("{METER}/disconnect"), &json!({})).await.expect(200);
    let fresh = admin.header("if-match", admin.get(METER).await.etag());
    fresh.delete(METER).await.expect(200);
}

#[tokio::test]
async fn the_caller_says_how_long_to_wait() {
    let api = fleet().await;
    api.data_plane.be(Mood::Silent);
    let hasty = api.admin().header("prefer", "wait=0");
    hasty.delete(METER).await.expect(202);
    hasty.post(&format!("{METER}/disconnect"), &json!({})).await.expect(202);
    let patched = hasty.patch(METER, &interval(60)).await;
    assert!(patched.is_pending());
    assert_eq!(patched.expect(202)["expiry_interval_seconds"], 60);
    assert_eq!(order(&api, "meter").await, Some(OperatorExpiry::Interval(60)), "the order is committed");
}

#[tokio::test]
async fn what_the_data_plane_refuses_is_told() {
    let api = fleet().await;
    let superseded = CommandError::Superseded { session_id: session_id(9), epoch: holdfast::model::Epoch(4) };
    for (error, code) in [
        (CommandError::NoSuchSession, "session_not_found"),
        (superseded, "session_superseded"),
        (CommandError::StoreAway, "store_unavailable"),
        (CommandError::NoSuchCluster, "data_plane_unavailable"),
    ] {
        api.data_plane.be(Mood::Fails(error));
        api.admin().delete(METER).await.expect_problem(code);
        api.admin().patch(METER, &interval(60)).await.expect_problem(code);
    }
    api.data_plane.be(Mood::Fails(CommandError::Stopped));
    api.admin().delete(METER).await.expect_problem("data_plane_unavailable");
    // Committed: whoever starts next reads it.
    assert!(api.admin().patch(METER, &interval(70)).await.is_pending());
    assert_eq!(order(&api, "meter").await, Some(OperatorExpiry::Interval(70)));
    api.data_plane.be(Mood::Fails(CommandError::TimedOut));
    // There is no record of it, so it cannot be followed.
    api.admin().delete("/v1/clusters/c/sessions/unknown").await.expect_problem("not_confirmed");
}
