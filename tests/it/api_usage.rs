//! Usage as it was: counted every minute, by the hour, and forgotten in time.

use holdfast::control_plane::background::{cleaner, usage};
use serde_json::{Value, json};

use super::support::api::Api;
use super::support::data_plane::Mood;
use super::support::sessions::{T, commit, offline, put, row};

const USAGE: &str = "/v1/clusters/c/usage";

async fn sample(api: &Api) {
    usage::sample(&api.store, &api.commands, api.clock.wall()).await.expect("a sample");
}

async fn history(api: &Api, query: &str) -> Vec<Value> {
    let page = api.admin().get(&format!("{USAGE}/history{query}")).await.expect(200);
    page["items"].as_array().expect("items").clone()
}

#[tokio::test]
async fn a_past_instant_shows_what_was_counted_then() {
    let api = Api::with_clusters(&["c", "d"]).await;
    api.admin()
        .header("if-match", "*")
        .put("/v1/clusters/c/quota", &json!({"connections": 7}))
        .await
        .expect(200);
    commit(&api.store, &[put(row(1, "a"))]).await;
    sample(&api).await;
    api.clock.jump_millis(600_000);
    commit(&api.store, &[put(row(2, "b")), put(offline(row(3, "c"), T.plus_secs(600)))]).await;
    sample(&api).await;

    let at = |secs: u32| format!("{USAGE}?at={}", T.plus_secs(secs));
    let then = api.admin().get(&at(59)).await.expect(200);
    assert_eq!(
        (&then["online"], &then["offline_persistent"], &then["total"], &then["limit"], &then["free"]),
        (&json!(1), &json!(0), &json!(1), &json!(7), &json!(6))
    );
    let later = api.admin().get(&at(600)).await.expect(200);
    assert_eq!((&later["online"], &later["total"], &later["free"]), (&json!(2), &json!(3), &json!(4)));
    api.admin().get(&at(400)).await.expect_problem("usage_unknown");
    api.admin().get(&at(9_000)).await.expect_problem("invalid_parameter");
    api.admin().get(&format!("{USAGE}?at=yesterday")).await.expect_problem("invalid_parameter");
    assert_eq!(api.admin().get(&format!("/v1/clusters/d/usage?at={T}")).await.expect(200)["total"], 0);
}

#[tokio::test]
async fn hours_have_a_peak_and_what_is_usual() {
    let api = Api::with_clusters(&["c"]).await;
    // T is a moment after the beginning of an hour: 20 minutes with one client, then one with two.
    for minute in 0..20 {
        if minute == 0 {
            commit(&api.store, &[put(row(1, "a"))]).await;
        }
        sample(&api).await;
        api.clock.jump_millis(60_000);
    }
    commit(&api.store, &[put(row(2, "b"))]).await;
    sample(&api).await;
    // The same minute once more is the same sample.
    sample(&api).await;
    let hours = history(&api, "").await;
    let expected = json!({
        "hour": "2027-01-15T08:00:00.000Z", "samples": 21, "total": {"peak": 2, "p95": 1}, "online": {"peak": 2, "p95": 1},
        "limit": hours[0]["limit"],
    });
    assert_eq!(hours, [expected]);

    for _ in 0..3 {
        api.clock.jump_millis(3_600_000);
        sample(&api).await;
    }
    let all = history(&api, "").await;
    assert_eq!(all.len(), 4);
    let page = api.admin().get(&format!("{USAGE}/history?page_size=3")).await.expect(200);
    let token = page["next_page_token"].as_str().expect("a token");
    assert_eq!(history(&api, &format!("?page_size=3&page_token={token}")).await, all[3..]);
    let from = format!("?from={}&to={}", T.plus_secs(3_700), T.plus_secs(7_199));
    assert_eq!(
        history(&api, &from).await,
        all[1..2],
        "hours that end after the one and begin before the other"
    );
    let backwards = format!("{USAGE}/history?from={}&to={T}", T.plus_secs(1));
    api.admin().get(&backwards).await.expect_problem("invalid_parameter");
}

#[tokio::test]
async fn samples_go_before_hours_and_a_cluster_takes_both_along() {
    let api = Api::with_clusters(&["c"]).await;
    sample(&api).await;
    let week = i64::try_from(usage::SAMPLE_AGE_MAX.as_millis()).expect("a number");
    api.clock.jump_millis(week - 60_000);
    cleaner::clean(&api.store, api.clock.wall()).await.expect("cleaned");
    api.admin().get(&format!("{USAGE}?at={}", T.plus_secs(59))).await.expect(200);
    api.clock.jump_millis(3_600_000);
    cleaner::clean(&api.store, api.clock.wall()).await.expect("cleaned");
    api.admin().get(&format!("{USAGE}?at={}", T.plus_secs(59))).await.expect_problem("usage_unknown");
    let query = format!("?from={T}");
    assert_eq!(history(&api, &query).await.len(), 1);
    let year = i64::try_from(usage::HOUR_AGE_MAX.as_millis()).expect("a number");
    api.clock.jump_millis(year);
    cleaner::clean(&api.store, api.clock.wall()).await.expect("cleaned");
    assert!(history(&api, &query).await.is_empty());

    sample(&api).await;
    api.admin().delete("/v1/clusters/c").await.expect(204);
    sample(&api).await;
}

#[tokio::test]
async fn a_minute_without_an_answer_has_no_sample() {
    let api = Api::with_clusters(&["c"]).await;
    api.data_plane.be(Mood::Fails(holdfast::seam::command::CommandError::Stopped));
    let failed = usage::sample(&api.store, &api.commands, api.clock.wall()).await;
    assert!(matches!(failed, Err(usage::SampleError::DataPlane(_))), "{failed:?}");
    api.admin().get(&format!("{USAGE}?at={T}")).await.expect_problem("usage_unknown");
}
