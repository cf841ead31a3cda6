//! Sessions that operators make before their clients come, and what they subscribe them to, over HTTP.

use serde_json::{Value, json};

use super::support::api::Api;
use super::support::data_plane::Mood;
use super::support::sessions::{T, client_id, cluster_id, commit, put, row, subscribe};

const NEW: &str = "/v1/clusters/c/sessions/new";

fn wanted() -> Value {
    json!({
        "expiry": {"interval_seconds": 3600}, "labels": {"site": "north"}, "protected": true,
        "subscriptions": {"a/+": {"qos": 1}, "$share/g/b": {"qos": 0, "retain_handling": 2, "subscription_identifier": 7}},
    })
}

#[tokio::test]
async fn a_session_is_there_before_its_client() {
    let api = Api::with_clusters(&["c"]).await;
    let made = api.admin().put(NEW, &wanted()).await;
    let session = made.expect(201);
    assert!(!made.etag().is_empty());
    assert_eq!((&session["state"], &session["epoch"]), (&json!("offline"), &json!(0)));
    for unknown in ["protocol", "peer", "listener", "transport", "connected_at", "username", "disconnect"] {
        assert_eq!(session[unknown], Value::Null, "{unknown}");
    }
    assert_eq!((&session["labels"], &session["protected"]), (&json!({"site": "north"}), &json!(true)));
    assert_eq!((&session["expiry_source"], &session["subscription_count"]), (&json!("operator"), &json!(2)));
    let listed = api.admin().get("/v1/clusters/c/sessions?label=site%3Dnorth").await.expect(200);
    assert_eq!(listed["items"], json!([session]));
    let subscriptions = api.admin().get(&format!("{NEW}/subscriptions")).await.expect(200);
    let origins: Vec<_> =
        subscriptions["items"].as_array().expect("items").iter().map(|s| &s["origin"]).collect();
    assert_eq!(origins, [&json!("operator"), &json!("operator")]);
    let history = api.admin().get(&format!("{NEW}/history")).await.expect(200);
    let created = history["items"].as_array().expect("items").last().expect("an event").clone();
    assert_eq!((&created["kind"], &created["detail"]), (&json!("created"), &json!({"provisioned": true})));
    let rows = api.admin().get("/v1/audit-log?client_id=new").await.expect(200);
    assert_eq!(rows["items"][0]["operation"], "put_session");
    for kind in ["protocol", "transport"] {
        let counted =
            api.admin().get(&format!("/v1/clusters/c/session-count?group_by={kind}")).await.expect(200);
        assert_eq!(counted["total"], 1, "{counted}");
    }
}

#[tokio::test]
async fn asked_again_it_is_the_same_and_otherwise_refused() {
    let api = Api::with_clusters(&["c"]).await;
    let session = api.admin().put(NEW, &wanted()).await.expect(201);
    let before = api.data_plane.commands();
    assert_eq!(api.admin().put(NEW, &wanted()).await.expect(200), session);
    let mut fewer = wanted();
    fewer["subscriptions"] = json!({"a/+": {"qos": 1}});
    api.admin().put(NEW, &fewer).await.expect(200);
    for (field, value) in [
        ("labels", json!({})),
        ("protected", json!(false)),
        ("expiry", Value::Null),
        ("subscriptions", json!({"a/+": {"qos": 2}})),
        ("subscriptions", json!({"x": {"qos": 1}})),
    ] {
        let mut other = wanted();
        other[field] = value;
        api.admin().put(NEW, &other).await.expect_problem("session_exists");
    }
    assert_eq!(api.data_plane.commands(), before);
    // A live one likewise, whoever has subscribed it.
    commit(&api.store, &[put(row(9, "live")), subscribe(9, "x")]).await;
    let live = "/v1/clusters/c/sessions/live";
    let same = json!({"subscriptions": {"x": {
        "qos": 1, "no_local": true, "retain_handling": 1, "subscription_identifier": 268_435_455,
    }}});
    assert_eq!(api.admin().put(live, &same).await.expect(200)["state"], "online");
    api.admin().put(live, &wanted()).await.expect_problem("session_exists");
}

#[tokio::test]
async fn what_does_not_fit_is_pointed_at() {
    let api = Api::with_clusters(&["c"]).await;
    for (body, code) in [
        (json!({"expiry": {"interval_seconds": 0}}), "expiry_in_past"),
        (json!({"expiry": {"expires_at": T.to_string()}}), "expiry_in_past"),
        (json!({"expiry": {"interval_seconds": 259_201}}), "expiry_above_ceiling"),
        (json!({"subscriptions": {"a/#/b": {"qos": 1}}}), "invalid_body"),
        (json!({"subscriptions": {"a": {"qos": 3}}}), "invalid_body"),
        (json!({"subscriptions": {"a": {}}}), "invalid_body"),
        (json!({"subscriptions": {"$share/g/a": {"qos": 1, "no_local": true}}}), "invalid_body"),
        (json!({"label": {}}), "invalid_body"),
    ] {
        api.clock.jump_millis(1);
        api.admin().put(NEW, &body).await.expect_problem(code);
    }
    api.admin().get(NEW).await.expect_problem("session_not_found");
    api.admin().put("/v1/clusters/x/sessions/new", &json!({})).await.expect_problem("cluster_not_found");
    api.data_plane.be(Mood::Silent);
    let answer = api.admin().header("prefer", "wait=0").put(NEW, &json!({})).await;
    assert_eq!((answer.header("location"), answer.header("preference-applied")), (NEW, "wait=0"));
    assert_eq!(answer.expect(202)["path"], NEW);
}

#[tokio::test]
async fn a_client_is_subscribed_and_unsubscribed_in_its_place() {
    let api = Api::with_clusters(&["c"]).await;
    commit(&api.store, &[put(row(1, "meter"))]).await;
    let path = "/v1/clusters/c/sessions/meter/subscriptions/site%2F%2B%2Fupdate%2F%23";
    let put = api.admin().put(path, &json!({"qos": 2, "retain_as_published": true})).await.expect(201);
    assert_eq!(
        (&put["filter"], &put["qos"], &put["origin"]),
        (&json!("site/+/update/#"), &json!(2), &json!("operator"))
    );
    let listed = api.admin().get("/v1/clusters/c/sessions/meter/subscriptions").await.expect(200);
    assert_eq!(listed["items"][0]["filter"], "site/+/update/#");
    let rows = api.admin().get("/v1/audit-log?client_id=meter").await.expect(200);
    assert_eq!(rows["items"][0]["after"]["filter"], "site/+/update/#");
    api.admin().delete(path).await.expect(204);
    api.admin().delete(path).await.expect_problem("subscription_not_found");
    let now = api.clock.wall();
    let record = api.store.get_session(&cluster_id("c"), &client_id("meter"), now).await.expect("read");
    assert_eq!(record.expect("a session").subscription_count, 0);

    let fenced = format!("{path}?if_epoch=9");
    api.admin().put(&fenced, &json!({"qos": 1})).await.expect_problem("session_superseded");
    api.admin().delete(&fenced).await.expect_problem("session_superseded");
    for (filter, body, code) in [
        ("a%2F%23%2Fb", json!({"qos": 1}), "invalid_parameter"),
        ("a", json!({"qos": 3}), "invalid_body"),
        ("a", json!({"qos": 1, "retain_handling": 3}), "invalid_body"),
        ("a", json!({"qos": 1, "subscription_identifier": 0}), "invalid_body"),
        ("%24share%2Fg%2Fa", json!({"qos": 1, "no_local": true}), "invalid_body"),
    ] {
        let path = format!("/v1/clusters/c/sessions/meter/subscriptions/{filter}");
        api.admin().put(&path, &body).await.expect_problem(code);
    }
    let nobody = "/v1/clusters/c/sessions/nobody/subscriptions/a";
    api.admin().put(nobody, &json!({"qos": 1})).await.expect_problem("session_not_found");
    api.admin().delete(nobody).await.expect_problem("session_not_found");
    api.data_plane.be(Mood::Silent);
    let hasty = api.admin().header("prefer", "wait=0");
    let list = "/v1/clusters/c/sessions/meter/subscriptions";
    assert_eq!(hasty.put(path, &json!({"qos": 1})).await.expect(202)["path"], list);
    assert_eq!(hasty.delete(path).await.expect(202)["path"], list);
    // Nobody knows what became of it, so it is not made again under its key.
    let keyed = hasty.header("idempotency-key", "k");
    keyed.put(path, &json!({"qos": 1})).await.expect(202);
    api.data_plane.be(Mood::Works);
    keyed.put(path, &json!({"qos": 1})).await.expect_problem("idempotency_outcome_unknown");
}
