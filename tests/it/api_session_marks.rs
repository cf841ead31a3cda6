//! Labels and protection of a session, and counting.

use holdfast::model::ProtocolVersion;
use holdfast::seam::ports::SessionRow;
use serde_json::{Value, json};

use super::support::api::Api;
use super::support::sessions::{T, commit, offline, put, row, session_id};

const METER: &str = "/v1/clusters/c/sessions/meter";
const COUNT: &str = "/v1/clusters/c/session-count";

async fn fleet() -> Api {
    let api = Api::with_clusters(&["c"]).await;
    commit(&api.store, &[put(row(1, "meter")), put(offline(row(2, "asleep"), T))]).await;
    api
}

#[tokio::test]
async fn labels_are_set_removed_and_kept_by_the_data_plane() {
    let api = fleet().await;
    let admin = api.admin();
    let body = json!({"labels": {"site": "north", "trial": "1"}});
    let marked = admin.patch(METER, &body).await.expect(200);
    assert_eq!(marked["labels"], json!({"site": "north", "trial": "1"}));
    let marked = admin.patch(METER, &json!({"labels": {"trial": null, "floor": "2"}})).await.expect(200);
    assert_eq!(marked["labels"], json!({"site": "north", "floor": "2"}));
    let same = admin.patch(METER, &json!({"labels": {"floor": "2"}})).await.expect(200);
    assert_eq!(same["version"], marked["version"], "nothing changed");
    assert_eq!(api.data_plane.commands(), 1, "labels are nothing to the data plane: only the cluster was");

    commit(&api.store, &[put(offline(row(1, "meter"), T.plus_secs(5)))]).await;
    assert_eq!(admin.get(METER).await.expect(200)["labels"], marked["labels"]);
    let many: serde_json::Map<_, _> = (0..63).map(|n| (format!("k{n}"), json!("v"))).collect();
    let problem = admin.patch(METER, &json!({"labels": many})).await.expect_problem("invalid_body");
    assert_eq!(problem["errors"][0]["pointer"], "#/labels");
    // The client's next session is another one.
    commit(&api.store, &[put(row(9, "meter"))]).await;
    assert_eq!(admin.get(METER).await.expect(200)["labels"], json!({}));
}

#[tokio::test]
async fn a_protected_session_is_not_deleted() {
    let api = fleet().await;
    let admin = api.admin();
    admin.patch(METER, &json!({"protected": true})).await.expect(200);
    admin.delete(METER).await.expect_problem("session_protected");
    let fenced = format!("{METER}?if_session_id={}", session_id(1));
    admin.delete(&fenced).await.expect_problem("session_protected");
    admin.post(&format!("{METER}/disconnect"), &json!({})).await.expect(200);
    assert_eq!(admin.get(METER).await.expect(200)["protected"], true);
    admin.patch(METER, &json!({"protected": false})).await.expect(200);
    admin.delete(METER).await.expect(200);
}

#[tokio::test]
async fn sessions_are_counted_by_what_they_are() {
    let api = fleet().await;
    let named = |n, client: &str| SessionRow { username: Some("ada".to_owned()), ..row(n, client) };
    let v3 = SessionRow { protocol: Some(ProtocolVersion::V3_1_1), ..named(4, "d") };
    commit(&api.store, &[put(named(3, "c")), put(v3)]).await;
    let count = async |query: &str| api.admin().get(&format!("{COUNT}?{query}")).await.expect(200);
    assert_eq!(count("").await, json!({"total": 4, "groups": [], "truncated": false}));
    let group = |values: Value, count: u32| json!({"values": values, "count": count});
    let by_state = [group(json!({"state": "online"}), 3), group(json!({"state": "offline"}), 1)];
    assert_eq!(count("group_by=state").await["groups"], json!(by_state));
    let by_two = count("group_by=username,protocol,username&state=online").await;
    assert_eq!(by_two["total"], 3);
    let expected = [
        group(json!({"username": "ada", "protocol": "3.1.1"}), 1),
        group(json!({"username": "ada", "protocol": "5"}), 1),
        group(json!({"username": null, "protocol": "5"}), 1),
    ];
    assert_eq!(by_two["groups"], json!(expected));
    assert_eq!(count("username=nobody").await["total"], 0);
    api.clock.jump_millis(3_600_000);
    assert_eq!(count("").await["total"], 3, "what has expired is not counted");
    for bad in ["group_by=nodes", "group_by=state,", "group_by="] {
        api.admin().get(&format!("{COUNT}?{bad}")).await.expect_problem("invalid_parameter");
    }
    api.admin().get("/v1/clusters/x/session-count").await.expect_problem("cluster_not_found");
}

#[tokio::test]
async fn filters_have_forms() {
    let api = fleet().await;
    let list = "/v1/clusters/c/sessions";
    for bad in [
        "peer=10.0.0.0/33",
        "peer=host",
        "peer=::1/129",
        "label=x",
        "label==x",
        "subscribed_to=a/%2B",
        "subscribed_to=a/%23",
        "offline_for_gte=-1",
        "connected_after=yesterday",
        "expiry_source=nobody",
        "protected=maybe",
        "transport=pigeon",
    ] {
        let problem = api.admin().get(&format!("{list}?{bad}")).await.expect_problem("invalid_parameter");
        let named = problem["errors"][0]["parameter"].as_str().expect("a parameter");
        assert!(bad.starts_with(named), "{bad}: {problem}");
    }
    api.admin().patch(METER, &json!({"labels": {"site": "north"}})).await.expect(200);
    for (query, expected) in [
        ("label=site=north", "meter"),
        ("label=site=south", ""),
        ("peer=192.0.2.0/24&state=offline", "asleep"),
        ("client_id_contains=ete", "meter"),
        ("expiry_source=operator", ""),
    ] {
        let page = api.admin().get(&format!("{list}?{query}")).await.expect(200);
        let found: Vec<_> = page["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|s| s["client_id"].as_str().expect("an id"))
            .collect();
        assert_eq!(found.join(" "), expected, "{query}");
    }
}
