//! A lowered quota as clients meet it: who is shed hears 0x97, and no CONNECT slips in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use crate::support::http::Api;
use crate::support::mqtt::{RawClient, connect_v5};
use crate::support::server::{Options, Server};

const QUOTA: &str = "/v1/clusters/default/quota";

async fn connect(server: &Server, client_id: &str) -> RawClient {
    let mut client = RawClient::open(server.mqtt).await;
    client.send(&connect_v5(client_id, false, 3_600)).await;
    assert_eq!(client.packet().await[0], 0x20);
    client
}

/// The number of sessions that the quota counts.
async fn total(api: &Api) -> u64 {
    api.get("/v1/clusters/default/usage").await.expect(200)["total"].as_u64().expect("a number")
}

#[tokio::test]
async fn who_is_shed_is_told_and_its_record_is_gone() {
    let server = Server::start_dev().await;
    let api = server.api();
    let mut clients = Vec::new();
    for n in 0..4 {
        clients.push(connect(&server, &format!("c{n}")).await);
    }
    let read = api.get(QUOTA).await;
    let answer =
        api.put_over(&read, &format!("{QUOTA}?on_excess=shed_newest"), json!({"connections": 1})).await;
    let quota = answer.expect(200);
    assert_eq!(quota["excess"]["sessions_shed"], 3, "{quota}");
    assert_eq!(quota["excess"]["sample"], json!(["c3", "c2", "c1"]));
    // No waiting: what was answered has happened.
    assert_eq!(total(&api).await, 1);
    for (n, client) in clients.iter_mut().enumerate().skip(1) {
        api.get(&format!("/v1/clusters/default/sessions/c{n}"))
            .await
            .expect_problem(404, "session_not_found");
        let goodbye = client.packet().await;
        assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x97), "{goodbye:02x?}");
        client.expect_closed().await;
    }
    api.get("/v1/clusters/default/sessions/c0").await.expect(200);
    let mut late = RawClient::open(server.mqtt).await;
    late.send(&connect_v5("late", false, 3_600)).await;
    let connack = late.packet().await;
    assert_eq!((connack[0], connack[3]), (0x20, 0x97), "{connack:02x?}");
    server.stop().await;
}

/// Connects under ever new client ids until told to stop; counts those that were let in.
fn crowd(server: &Server, name: usize, stop: &Arc<AtomicBool>, let_in: &Arc<AtomicUsize>) {
    let (address, stop, let_in) = (server.mqtt, Arc::clone(stop), Arc::clone(let_in));
    tokio::spawn(async move {
        let mut kept = Vec::new();
        for n in 0.. {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            let mut client = RawClient::open(address).await;
            client.send(&connect_v5(&format!("crowd-{name}-{n}"), false, 3_600)).await;
            let Some(connack) = client.packet_or_end().await else { continue };
            if connack[3] == 0 {
                let_in.fetch_add(1, Ordering::SeqCst);
                kept.push(client);
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connect_slips_in_while_a_quota_is_lowered() {
    let flags = ["--dev", "--api-rate-limit", "0"].map(str::to_owned).to_vec();
    let server = Server::start(Options { flags, ..Options::default() }).await;
    let api = server.api();
    let (stop, let_in) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    for name in 0..4 {
        crowd(&server, name, &stop, &let_in);
    }
    while let_in.load(Ordering::SeqCst) < 40 {
        tokio::task::yield_now().await;
    }
    for (limit, policy) in [(20, "shed_newest"), (7, "shed_newest"), (30, "refuse_new"), (3, "shed_newest")] {
        if policy == "refuse_new" {
            let read = api.get(QUOTA).await;
            api.put_over(&read, QUOTA, json!({"connections": limit})).await.expect(200);
            // The crowd fills the room up to the limit, and not above it.
            while total(&api).await < limit {
                tokio::task::yield_now().await;
            }
            continue;
        }
        let read = api.get(QUOTA).await;
        let path = format!("{QUOTA}?on_excess={policy}");
        let quota = api.put_over(&read, &path, json!({"connections": limit})).await.expect(200);
        assert_eq!(quota["connections"]["used"], limit, "{quota}");
        assert_eq!(total(&api).await, limit, "exactly as many as needed");
        let path = format!("{QUOTA}?on_excess=reject_change");
        let read = api.get(QUOTA).await;
        api.put_over(&read, &path, json!({"connections": limit - 1}))
            .await
            .expect_problem(409, "quota_below_use");
    }
    stop.store(true, Ordering::SeqCst);
    server.stop().await;
}
