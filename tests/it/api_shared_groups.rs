//! Shared groups over the API: what is shown, how one chooses, where it goes on, and its end.

use holdfast::seam::command::CommandError;
use serde_json::{Value, json};

use super::support::api::Api;
use super::support::data_plane::Mood;
use super::support::looked_at::GROUPS;

const ALL: &str = "/v1/clusters/c/shared-groups";

fn path(share: &str) -> String {
    format!("{ALL}/{}", share.replace('/', "%2F"))
}

async fn shares(api: &Api, query: &str) -> (Vec<String>, Value) {
    let page = api.admin().get(&format!("{ALL}{query}")).await.expect(200);
    let items = page["items"].as_array().expect("items").iter();
    (items.map(|item| item["group"].as_str().expect("a filter").to_owned()).collect(), page)
}

#[tokio::test]
async fn groups_are_listed_with_those_of_which_only_settings_are_kept() {
    let api = Api::with_clusters(&["c"]).await;
    assert_eq!(shares(&api, "").await.0, GROUPS);
    api.admin().put(&path("$share/ab/t/+"), &json!({"strategy": "hash_topic"})).await.expect(200);
    let (all, page) = shares(&api, "").await;
    assert_eq!(all, ["$share/a/t", "$share/ab/t/+", "$share/b/t", "$share/kept-by-nobody/t"]);
    let setting = &page["items"][1];
    assert_eq!(
        (&setting["members"], &setting["position"], &setting["lag"]),
        (&json!(0), &Value::Null, &json!(0))
    );
    assert_eq!((&setting["strategy"], &setting["strategy_source"]), (&json!("hash_topic"), &json!("group")));
    assert_eq!((&setting["share_name"], &setting["filter"]), (&json!("ab"), &json!("t/+")));
    assert_eq!(page["items"][0]["strategy_source"], "cluster");
    for size in 1..5 {
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let (some, page) = shares(&api, &format!("?page_size={size}{token}")).await;
            found.extend(some);
            let Some(next) = page["next_page_token"].as_str() else { break };
            token = format!("&page_token={next}");
        }
        assert_eq!(found, all, "pages of {size}");
    }
    api.admin().get(&format!("{ALL}?page_token=x")).await.expect_problem("page_token_invalid");
    api.admin().get("/v1/clusters/x/shared-groups").await.expect_problem("cluster_not_found");
}

#[tokio::test]
async fn a_group_is_shown_with_its_members() {
    let api = Api::with_clusters(&["c"]).await;
    let group = api.admin().get(&path("$share/a/t")).await.expect(200);
    assert_eq!(
        (&group["position"], &group["lag"], &group["unacknowledged"]),
        (&json!(7), &json!(3), &json!(2))
    );
    let member = &group["member_sessions"][0];
    assert_eq!((&member["client_id"], &member["state"]), (&json!("meter"), &json!("online")));
    api.admin().get(&path("$share/none/t")).await.expect_problem("shared_group_not_found");
    for wrong in ["t", "$share/a", "$share//t", "$share/a/#/t"] {
        api.admin().get(&path(wrong)).await.expect_problem("invalid_parameter");
    }
}

#[tokio::test]
async fn a_strategy_is_kept_versioned_and_taken_back() {
    let api = Api::with_clusters(&["c"]).await;
    let (admin, group) = (api.admin(), path("$share/a/t"));
    let read = admin.get(&group).await;
    assert_eq!(read.etag(), "\"0\"");
    let set = admin.header("if-match", "\"0\"").put(&group, &json!({"strategy": "hash_topic"})).await;
    assert_eq!(set.expect(200)["strategy_source"], "group");
    let desired = api.desired.borrow().clusters.values().next().expect("a cluster").clone();
    assert_eq!(desired.group_strategies.len(), 1, "the data plane knows of it");
    let tag = set.etag().to_owned();
    let stale = admin.header("if-match", "\"0\"").put(&group, &json!({"strategy": "random"})).await;
    stale.expect_problem("precondition_failed");
    let same = admin.header("if-match", &tag).put(&group, &json!({"strategy": "hash_topic"})).await;
    assert_eq!(same.etag(), tag, "nothing changed");
    for wrong in [json!({}), json!({"strategy": "best"}), json!({"strategy": "random", "x": 1})] {
        admin.put(&group, &wrong).await.expect_problem("invalid_body");
    }
    let back = admin.put(&group, &json!({"strategy": null})).await;
    assert_eq!((back.expect(200)["strategy_source"].clone(), back.etag()), (json!("cluster"), "\"0\""));
    assert!(api.desired.borrow().clusters.values().all(|cluster| cluster.group_strategies.is_empty()));
}

#[tokio::test]
async fn a_cluster_keeps_so_many_settings() {
    let api = Api::with_clusters(&["c"]).await;
    let mut tx = api.store.begin().await.expect("begin");
    let cluster = super::support::sessions::cluster_id("c");
    for n in 0..1_000 {
        let share = super::support::sessions::filter(&format!("$share/g/{n}"));
        let random = holdfast::model::SharedStrategy::Random;
        tx.put_group_setting(&cluster, &share, random, api.clock.wall()).await.expect("a setting");
    }
    tx.commit().await.expect("commit");
    let one_more = api.admin().put(&path("$share/a/t"), &json!({"strategy": "hash_topic"})).await;
    one_more.expect_problem("too_many_shared_groups");
    api.admin().put(&path("$share/g/7"), &json!({"strategy": "hash_topic"})).await.expect(200);
}

#[tokio::test]
async fn progress_is_moved_or_it_is_said_why_not() {
    let api = Api::with_clusters(&["c"]).await;
    let progress = |share: &str| format!("{}/progress", path(share));
    for to in ["now", "earliest", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00.500+01:00"] {
        let moved = api.admin().post(&progress("$share/a/t"), &json!({"to": to})).await.expect(200);
        assert_eq!(moved, json!({"group": "$share/a/t", "position": 7}));
    }
    for wrong in [json!({}), json!({"to": null}), json!({"to": "yesterday"}), json!({"to": 7})] {
        api.admin().post(&progress("$share/a/t"), &wrong).await.expect_problem("invalid_body");
    }
    let now = json!({"to": "now"});
    api.admin().post(&progress("$share/none/t"), &now).await.expect_problem("shared_group_not_found");
    let not_kept = progress("$share/kept-by-nobody/t");
    api.admin().post(&not_kept, &now).await.expect_problem("shared_group_not_kept");
    api.data_plane.be(Mood::Fails(CommandError::TimedOut));
    api.admin().post(&progress("$share/a/t"), &now).await.expect_problem("not_confirmed");
    api.data_plane.be(Mood::Fails(CommandError::Stopped));
    api.admin().post(&progress("$share/a/t"), &now).await.expect_problem("data_plane_unavailable");
}

#[tokio::test]
async fn a_group_with_members_is_ended_by_force() {
    let api = Api::with_clusters(&["c"]).await;
    let (admin, group) = (api.admin(), path("$share/a/t"));
    admin.put(&group, &json!({"strategy": "hash_topic"})).await.expect(200);
    admin.delete(&group).await.expect_problem("shared_group_in_use");
    assert_eq!(admin.get(&group).await.expect(200)["strategy_source"], "group", "nothing was done");
    let ended = admin.delete(&format!("{group}?force=true")).await.expect(200);
    assert_eq!(ended, json!({"group": "$share/a/t", "members": 1}));
    assert_eq!(admin.get(&group).await.expect(200)["strategy_source"], "cluster", "its settings are gone");
    // One that has settings only has nobody to be asked.
    let empty = path("$share/none/t");
    admin.delete(&empty).await.expect_problem("shared_group_not_found");
    admin.put(&empty, &json!({"strategy": "random"})).await.expect(200);
    assert_eq!(admin.delete(&empty).await.expect(200)["members"], 0);
    admin.get(&empty).await.expect_problem("shared_group_not_found");
    api.data_plane.be(Mood::Fails(CommandError::StoreAway));
    admin.delete(&format!("{group}?force=true")).await.expect_problem("store_unavailable");
}
