//! History and the event stream: what happened, in the order of the commits, with no gap and no repeat.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast::control_plane::background::cleaner;
use holdfast::model::{ClusterId, DisconnectCause, EndOptions, EndedBy, Epoch, SessionEnd};
use holdfast::seam::ports::{SessionRow, SessionWrite};
use holdfast::store::{NewOperation, PendingTarget, PurgeAction};
use serde_json::{Value, json};
use uuid::Uuid;

use super::support::PATIENCE;
use super::support::api::Api;
use super::support::sessions::{
    T, client_id, cluster_id, commit, filter, offline, put, row, session_id, subscribe,
};

const METER: &str = "/v1/clusters/c/sessions/meter";
const EVENTS: &str = "/v1/clusters/c/events";

async fn history(api: &Api, client: &str) -> Vec<Value> {
    let page = api.admin().get(&format!("/v1/clusters/c/sessions/{client}/history")).await.expect(200);
    page["items"].as_array().expect("items").clone()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["kind"].as_str().expect("a kind")).collect()
}

/// A stream as its reader sees it.
struct Stream {
    response: reqwest::Response,
    buffer: String,
}

impl Stream {
    async fn open(api: &Api, query: &str) -> Self {
        let response = api.admin().open(&format!("{EVENTS}?{query}")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, buffer: String::new() }
    }

    /// The next event's data, whose id and kind are the same as the frame's.
    async fn next(&mut self) -> Value {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("an event in time")
    }

    async fn read(&mut self) -> Value {
        loop {
            if let Some((frame, rest)) = self.buffer.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.buffer = rest;
                let fields: BTreeMap<_, _> = frame.lines().filter_map(|line| line.split_once(": ")).collect();
                let Some(data) = fields.get("data") else { continue };
                let data: Value = serde_json::from_str(data).expect("json");
                assert_eq!(
                    (data["seq"].to_string(), &data["kind"]),
                    (fields["id"].to_owned(), &json!(fields["event"]))
                );
                return data;
            }
            let chunk = self.response.chunk().await.expect("a chunk").expect("the stream goes on");
            self.buffer.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        }
    }
}

#[tokio::test]
async fn a_history_tells_who_did_what_and_outlives_the_session() {
    let api = Api::with_clusters(&["c"]).await;
    commit(&api.store, &[put(row(1, "meter")), subscribe(1, "x/+")]).await;
    let second = SessionRow { epoch: Epoch(2), peer: Some("192.0.2.9:7".to_owned()), ..row(1, "meter") };
    commit(&api.store, &[put(second.clone())]).await;
    commit(&api.store, &[SessionWrite::Unsubscribe(session_id(1), filter("x/+"))]).await;
    let named = api.admin().header("x-request-id", "trace-7");
    named.patch(METER, &json!({"expiry": {"interval_seconds": 60}})).await.expect(200);
    named.post(&format!("{METER}/disconnect"), &json!({})).await.expect(200);
    let back = SessionRow { epoch: Epoch(3), connected_at: Some(T.plus_secs(9)), ..second };
    commit(&api.store, &[put(back)]).await;
    named.delete(METER).await.expect(200);

    let events = history(&api, "meter").await;
    let expected = [
        "kicked",
        "ended",
        "attached",
        "kicked",
        "detached",
        "expiry_changed",
        "unsubscribed",
        "taken_over",
        "subscribed",
        "attached",
        "created",
    ];
    assert_eq!(kinds(&events), expected, "newest first");
    let of = |n: usize| &events[events.len() - 1 - n];
    assert_eq!(of(0)["detail"], json!({"protocol": "5", "clean_start": false}));
    assert_eq!(of(1)["detail"], json!({"peer": "192.0.2.1:50123", "transport": "tcp", "resumed": false}));
    assert_eq!(of(2)["detail"], json!({"filter": "x/+", "qos": 1, "origin": "client"}));
    let told =
        json!({"from_peer": "192.0.2.1:50123", "from_epoch": 1, "peer": "192.0.2.9:7", "transport": "tcp"});
    assert_eq!(of(3)["detail"], told);
    assert_eq!(of(5)["detail"]["from"]["interval_seconds"], 3_600);
    assert_eq!(
        of(5)["detail"]["to"],
        json!({"interval_seconds": 60, "source": "operator", "expires_at": null})
    );
    assert_eq!(of(6)["detail"], json!({"reason": "administrative", "by": "operator"}));
    let told = json!({
        "operation": "disconnect", "was_online": true, "will": "publish", "reason": null, "held_until": null,
    });
    assert_eq!(of(7)["detail"], told);
    assert_eq!(of(8)["detail"]["resumed"], true);
    for n in [5, 7, 10] {
        assert_eq!((&of(n)["actor"], &of(n)["request_id"]), (&json!("ada"), &json!("trace-7")));
    }
    let seqs: Vec<_> = events.iter().map(|event| event["seq"].as_i64().expect("a number")).collect();
    assert_eq!(seqs, (1..=11).rev().collect::<Vec<_>>());

    let page = api.admin().get(&format!("{METER}/history?page_size=10")).await.expect(200);
    let token = page["next_page_token"].as_str().expect("a token");
    let rest = api.admin().get(&format!("{METER}/history?page_size=10&page_token={token}")).await.expect(200);
    assert_eq!(kinds(rest["items"].as_array().expect("items")), ["created"]);
    assert_eq!(history(&api, "nobody").await, Vec::<Value>::new());
    api.admin().get("/v1/clusters/x/sessions/meter/history").await.expect_problem("cluster_not_found");
}

#[tokio::test]
async fn an_end_says_why() {
    let api = Api::with_clusters(&["c"]).await;
    let cause = DisconnectCause { reason: "keep_alive_timeout".to_owned(), by: EndedBy::Server };
    let lost = SessionRow { disconnect: Some(cause), ..offline(row(1, "lost"), T.plus_secs(3)) };
    // Begun and ended between two commits: one step.
    commit(&api.store, &[put(lost.clone())]).await;
    assert_eq!(kinds(&history(&api, "lost").await), ["detached", "attached", "created"]);
    // The same batch again says nothing new.
    commit(&api.store, &[put(lost)]).await;
    assert_eq!(history(&api, "lost").await.len(), 3);
    assert_eq!(history(&api, "lost").await[0]["detail"]["reason"], "keep_alive_timeout");

    commit(&api.store, &[put(row(2, "replaced"))]).await;
    commit(&api.store, &[SessionWrite::Remove(session_id(2), SessionEnd::Replaced), put(row(3, "replaced"))])
        .await;
    let events = history(&api, "replaced").await;
    assert_eq!(kinds(&events), ["attached", "created", "ended", "attached", "created"]);
    assert_eq!(events[2]["detail"]["reason"], "replaced");
    commit(&api.store, &[put(row(4, "replaced"))]).await;
    assert_eq!(history(&api, "replaced").await[2]["detail"]["reason"], "replaced", "its removal was lost");

    commit(&api.store, &[put(row(5, "clean")), put(offline(row(6, "old"), T))]).await;
    commit(&api.store, &[SessionWrite::Remove(session_id(5), SessionEnd::WithConnection)]).await;
    assert_eq!(history(&api, "clean").await[0]["detail"]["reason"], "with_connection");
    // The store stamps with the clock that it shares with the API.
    api.clock.jump_millis(3_600_000);
    commit(&api.store, &[SessionWrite::Remove(session_id(6), SessionEnd::Expired)]).await;
    let expired = &history(&api, "old").await[0];
    assert_eq!(
        (&expired["kind"], &expired["at"]),
        (&json!("expired"), &json!(T.plus_secs(3_600).to_string()))
    );

    let online = api.store.recover_after_restart(api.clock.wall()).await.expect("recover");
    assert_eq!(online, 1);
    let events = history(&api, "replaced").await;
    assert_eq!(events[0]["detail"], json!({"reason": "server_restart", "by": "server"}));
}

#[tokio::test]
async fn a_session_that_came_and_went_between_two_commits_has_a_history() {
    let api = Api::with_clusters(&["c"]).await;
    let pass = |row| SessionWrite::Pass(Box::new(row), SessionEnd::WithConnection);
    let elsewhere = SessionRow { cluster: ClusterId::new("gone").expect("an id"), ..row(2, "visitor") };
    commit(&api.store, &[pass(row(1, "visitor")), pass(elsewhere)]).await;
    let events = history(&api, "visitor").await;
    assert_eq!(kinds(&events), ["ended", "attached", "created"]);
    assert_eq!(events[0]["detail"]["reason"], "with_connection");
    api.admin().get("/v1/clusters/c/sessions/visitor").await.expect_problem("session_not_found");

    // A row that was there is gone, and tells what has happened since.
    commit(&api.store, &[put(row(3, "guest"))]).await;
    commit(&api.store, &[pass(offline(row(3, "guest"), T.plus_secs(1)))]).await;
    assert_eq!(kinds(&history(&api, "guest").await), ["ended", "detached", "attached", "created"]);
    api.admin().get("/v1/clusters/c/sessions/guest").await.expect_problem("session_not_found");
}

/// What one commit says of a session lies in one row; pages and streams begin and end within it.
#[tokio::test]
async fn events_of_one_commit_are_read_one_by_one() {
    let api = Api::with_clusters(&["c"]).await;
    let came_and_went = |n, client| {
        let last = offline(row(n, client), T.plus_secs(1));
        SessionWrite::Pass(Box::new(last), SessionEnd::WithConnection)
    };
    commit(&api.store, &[came_and_went(1, "meter")]).await;
    commit(&api.store, &[came_and_went(2, "other")]).await;
    commit(&api.store, &[came_and_went(3, "meter")]).await;
    let whole = history(&api, "meter").await;
    let seqs: Vec<_> = whole.iter().map(|event| event["seq"].as_i64().expect("a number")).collect();
    assert_eq!(seqs, [12, 11, 10, 9, 4, 3, 2, 1]);
    for page_size in 1..=3 {
        let (mut paged, mut token) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/clusters/c/sessions/meter/history?page_size={page_size}{token}");
            let page = api.admin().get(&path).await.expect(200);
            let items = page["items"].as_array().expect("items");
            assert!(items.len() <= page_size, "{page}");
            paged.extend(items.iter().cloned());
            let Some(next) = page["next_page_token"].as_str() else { break };
            token = format!("&page_token={next}");
        }
        assert_eq!(paged, whole, "pages of {page_size}");
    }
    for since in 0..12 {
        let event = Stream::open(&api, &format!("since={since}")).await.next().await;
        assert_eq!(event["seq"], since + 1);
    }
}

/// Who looks up whether an operator was it finds that in any place of a row.
#[tokio::test]
async fn an_operators_end_is_found_within_a_row() {
    let api = Api::with_clusters(&["c"]).await;
    let by = |by| Some(DisconnectCause { reason: "administrative".to_owned(), by });
    let kicked = |n, client, ended_by| SessionRow {
        disconnect: by(ended_by),
        ..offline(row(n, client), T.plus_secs(1))
    };
    let pass = |row, end| SessionWrite::Pass(Box::new(row), end);
    commit(
        &api.store,
        &[
            pass(kicked(1, "kicked", EndedBy::Operator), SessionEnd::WithConnection),
            pass(kicked(2, "deleted", EndedBy::Server), SessionEnd::Deleted),
            pass(kicked(3, "left", EndedBy::Client), SessionEnd::WithConnection),
        ],
    )
    .await;
    let store = &api.store;
    let found = async |action, n, client, epoch| {
        let operation = NewOperation {
            id: Uuid::from_u128(1),
            cluster: cluster_id("c"),
            action,
            rate: None,
            actor: "ada".to_owned(),
            request_id: "r".to_owned(),
            options: EndOptions::default(),
        };
        let target = PendingTarget { client_id: client_id(client), session_id: session_id(n), epoch };
        store.ended_by_operator(&operation, &target).await.expect("an answer")
    };
    let epoch = row(1, "kicked").epoch;
    assert!(found(PurgeAction::Disconnect, 1, "kicked", None).await);
    assert!(found(PurgeAction::Disconnect, 1, "kicked", Some(epoch)).await);
    assert!(!found(PurgeAction::Disconnect, 1, "kicked", Some(Epoch(epoch.0 + 1))).await);
    assert!(!found(PurgeAction::Delete, 1, "kicked", None).await);
    assert!(found(PurgeAction::Delete, 2, "deleted", None).await);
    assert!(!found(PurgeAction::Disconnect, 2, "deleted", None).await);
    assert!(!found(PurgeAction::Delete, 3, "left", None).await);
    assert!(!found(PurgeAction::Disconnect, 3, "left", None).await);
}

#[tokio::test]
async fn a_stream_goes_on_where_it_ended() {
    let api = Api::with_clusters(&["c", "d"]).await;
    commit(&api.store, &[put(row(1, "meter"))]).await;
    let mut all = Stream::open(&api, "since=0").await;
    let mut meter = Stream::open(&api, "since=0&client_id=meter").await;
    let mut tail = Stream::open(&api, "").await;
    assert_eq!(all.next().await["kind"], "created");
    assert_eq!(all.next().await["kind"], "attached");
    // What is committed while they are open comes at once.
    commit(&api.store, &[put(row(2, "other")), put(SessionRow { cluster: cluster_id("d"), ..row(3, "x") })])
        .await;
    commit(&api.store, &[put(offline(row(1, "meter"), T.plus_secs(1)))]).await;
    for (seq, client) in [(3, "other"), (4, "other"), (5, "meter")] {
        let event = all.next().await;
        assert_eq!((&event["seq"], &event["client_id"]), (&json!(seq), &json!(client)));
        assert_eq!(tail.next().await, event);
    }
    for seq in [1, 2, 5] {
        assert_eq!(meter.next().await["seq"], seq);
    }
    let resumed = api.admin().header("last-event-id", "4").open(&format!("{EVENTS}?since=1")).await;
    let mut resumed = Stream { response: resumed, buffer: String::new() };
    assert_eq!(resumed.next().await["seq"], 5, "the header beats the parameter");

    api.admin().get(&format!("{EVENTS}?since=6")).await.expect_problem("events_gone");
    api.admin().header("last-event-id", "x").get(EVENTS).await.expect_problem("invalid_header");
    api.admin().get(&format!("{EVENTS}?since=-1")).await.expect_problem("invalid_parameter");
    api.admin().get("/v1/clusters/x/events").await.expect_problem("cluster_not_found");
}

#[tokio::test]
async fn what_is_too_old_is_gone() {
    let api = Api::with_clusters(&["c"]).await;
    commit(&api.store, &[put(row(1, "meter"))]).await;
    let age = u32::try_from(cleaner::EVENT_AGE_MAX.as_secs()).expect("seconds");
    commit(&api.store, &[put(offline(row(1, "meter"), T.plus_secs(age)))]).await;
    cleaner::clean(&api.store, T.plus_secs(age)).await.expect("clean");
    assert_eq!(kinds(&history(&api, "meter").await), ["detached"]);
    let problem = api.admin().get(&format!("{EVENTS}?since=1")).await.expect_problem("events_gone");
    assert_eq!(
        (&problem["status"], &problem["detail"]),
        (&json!(410), &json!("the events that are kept are 3 to 3"))
    );
    assert_eq!(Stream::open(&api, "since=2").await.next().await["seq"], 3);
    assert_eq!(api.store.forget_events(10).await.expect("forget"), 0, "they were removed");

    // A cluster that is made again under the same id is another one.
    api.admin().delete("/v1/clusters/c").await.expect(204);
    api.admin().post("/v1/clusters", &json!({"id": "c"})).await.expect(201);
    assert!(history(&api, "meter").await.is_empty());
    api.admin().get(&format!("{EVENTS}?since=2")).await.expect_problem("events_gone");
    commit(&api.store, &[put(row(9, "meter"))]).await;
    assert_eq!(Stream::open(&api, "since=3").await.next().await["seq"], 4);
}

#[tokio::test]
async fn many_writers_leave_no_gap_and_no_late_number() {
    let api = Api::with_clusters(&["c"]).await;
    let writers = (0..8_u128).map(|writer| {
        let store = api.store.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                let id = 1 + writer * 100 + n;
                commit(&store, &[put(row(id, &format!("dev-{id}"))), subscribe(id, "x")]).await;
                if n % 5 == 0 {
                    // Taken back: its numbers go to somebody else.
                    let mut tx = store.begin().await.expect("begin");
                    let event = holdfast::store::NewEvent {
                        cluster: cluster_id("c"),
                        client_id: client_id("ghost"),
                        session_id: session_id(id),
                        epoch: Epoch(1),
                        at: T,
                        kind: holdfast::store::EventKind::Kicked,
                        detail: json!({}),
                        actor: None,
                        request_id: None,
                    };
                    tx.add_events(&[event]).await.expect("add");
                    drop(tx);
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut stream = Stream::open(&api, "since=0").await;
    let mut of_session = BTreeMap::<String, Vec<String>>::new();
    for seq in 1..=8 * 20 * 3 {
        let event = stream.next().await;
        assert_eq!(event["seq"], seq);
        let text = |name: &str| event[name].as_str().expect("a text").to_owned();
        of_session.entry(text("client_id")).or_default().push(text("kind"));
    }
    assert!(of_session.values().all(|kinds| kinds.as_slice() == ["created", "attached", "subscribed"]));
    for writer in writers {
        writer.await.expect("it ends");
    }
}

#[tokio::test]
async fn streams_end_when_the_service_stops_and_are_bounded() {
    let api = Api::with_clusters(&["c"]).await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(Stream::open(&api, "").await);
    }
    api.admin().get(EVENTS).await.expect_problem("overloaded");
    api.stopping.cancel();
    for stream in &mut streams {
        let end = tokio::time::timeout(Duration::from_secs(10), stream.response.chunk()).await;
        assert_eq!(end.expect("in time").expect("an end"), None);
    }
}
