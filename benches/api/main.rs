//! `make bench`: the API over a cluster with a million sessions.
//!
//! The rows are put into the private Postgres behind the service's back, and the service started again, so that
//! the data plane has them too. Measured from outside, one request at a time: a page of each filter that has an
//! index, every page of the whole list, one session, ending a live connection, a purge; and what the API costs
//! the data plane. `HOLDFAST_BENCH_SESSIONS` sets another number.

#![allow(clippy::print_stdout)] // a benchmark is read on standard output
#![allow(clippy::disallowed_methods)] // it measures the time, and its setting is none of the service

#[path = "../support/broker.rs"]
mod broker;
#[path = "../support/client.rs"]
mod client;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use broker::Broker;
use bytes::Bytes;
use client::{Client, Session, Way};
use holdfast::data_plane::protocol::{Packet, PacketId, Publish, PublishProperties};
use holdfast::model::{QoS, TopicName};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Executor};

/// Requests of each kind.
const REQUESTS: u32 = 500;
/// Live connections that are ended.
const KICKS: u32 = 500;
/// How long the data plane is measured with and without requests to the API; taken in turns.
const FLOW: Duration = Duration::from_secs(3);
const FLOW_ROUNDS: usize = 5;

const ROWS: &str = "INSERT INTO sessions (session_id, cluster_id, client_id, epoch, protocol, clean_start, \
     username, peer, peer_ip, listener, transport, keep_alive_secs, receive_maximum, expiry_client_secs, \
     expiry_bounded, has_will, created_at, connected_at, disconnected_at, disconnect_reason, disconnect_by, version) \
     SELECT gen_random_uuid(), 'default', 'device-' || n, 1, '5', false, 'user-' || n % 1000, \
     host('10.0.0.0'::inet + n) || ':1883', '10.0.0.0'::inet + n, 'mqtt', 'tcp', 60, 100, 259200, false, false, \
     now(), now() - n * interval '0.1 s', now() - n * interval '0.1 s', 'normal', 'client', 1 \
     FROM generate_series(1, $1) n";
const SUBSCRIPTIONS: &str = "INSERT INTO subscriptions (session_id, filter, qos, no_local, retain_as_published, \
     retain_handling, created_at) SELECT session_id, 'devices/' || client_id || '/commands', 1, false, false, 0, \
     now() FROM sessions";

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let sessions = std::env::var("HOLDFAST_BENCH_SESSIONS").ok().and_then(|text| text.parse().ok());
    let sessions: i32 = sessions.unwrap_or(1_000_000);
    let mut broker = Broker::holdfast()?;
    runtime.block_on(fill(&broker, sessions))?;
    let began = Instant::now();
    broker.restart()?;
    println!("start with {sessions} sessions: {:.1} s", began.elapsed().as_secs_f64());
    runtime.block_on(measure(&broker))
}

async fn fill(broker: &Broker, sessions: i32) -> anyhow::Result<()> {
    let options = PgConnectOptions::new()
        .socket(broker.folder().join("data/postgres/socket"))
        .username("holdfast")
        .database("holdfast");
    let mut connection = options.disable_statement_logging().connect().await?;
    sqlx::query(ROWS).bind(sessions).execute(&mut connection).await?;
    connection.execute(SUBSCRIPTIONS).await?;
    connection.execute("VACUUM ANALYZE").await?;
    Ok(())
}

async fn measure(broker: &Broker) -> anyhow::Result<()> {
    let api = Api::of(broker)?;
    println!("{:<52}{:>12}{:>12}{:>12}", "request", "p50 ms", "p99 ms", "worst ms");
    for query in [
        "client_id_prefix=device-77",
        "username=user-77",
        "state=offline",
        "state=online",
        "peer=10.0.77.0/24",
        "connected_after=2020-01-01T00:00:00Z",
        "disconnected_before=2100-01-01T00:00:00Z",
        "expires_before=2100-01-01T00:00:00Z",
        "offline_for_gte=60",
        "subscribed_to=devices/device-777/commands",
    ] {
        let path = format!("sessions?page_size=100&{query}");
        let mut took = Vec::new();
        for _ in 0..REQUESTS {
            took.push(api.timed(Method::GET, &path, None).await?.0);
        }
        print(&format!("list, {query}"), took);
    }
    every_page(&api).await?;
    let mut took = Vec::new();
    for number in 0..4 * REQUESTS {
        let path = format!("sessions/device-{}", 1 + number * 7_919 % 100_000);
        took.push(api.timed(Method::GET, &path, None).await?.0);
    }
    print("get", took);
    kicks(&api, broker).await?;
    purge(&api).await?;
    cost(&api, broker).await
}

/// The whole list, page by page: its last pages beside its first.
async fn every_page(api: &Api) -> anyhow::Result<()> {
    let (mut took, mut token) = (Vec::new(), None::<String>);
    loop {
        let token_given = token.map_or(String::new(), |token| format!("&page_token={token}"));
        let path = format!("sessions?page_size=100{token_given}");
        let (page_took, page) = api.timed(Method::GET, &path, None).await?;
        took.push(page_took);
        token = page["next_page_token"].as_str().map(str::to_owned);
        if token.is_none() {
            break;
        }
    }
    let some = took.len().min(100);
    print("list, the first 100 pages", took[..some].to_vec());
    print(&format!("list, the last 100 of {} pages", took.len()), took[took.len() - some..].to_vec());
    Ok(())
}

/// Ends live connections; the answer comes when the socket is closed and the record says so.
async fn kicks(api: &Api, broker: &Broker) -> anyhow::Result<()> {
    let mut took = Vec::new();
    for number in 0..KICKS {
        let name = format!("kicked-{number}");
        let mut client = Client::connect(&broker.door, Way::Tcp, name.clone(), Session::Lasting).await?;
        took.push(api.timed(Method::POST, &format!("sessions/{name}/disconnect"), None).await?.0);
        let told = client.receive().await?;
        ensure!(matches!(told[..], [Packet::Disconnect(_)]), "{told:?}");
    }
    print("disconnect of a live session, proven", took);
    Ok(())
}

/// Purges a bit more than 10,000 sessions as fast as can be.
async fn purge(api: &Api) -> anyhow::Result<()> {
    let mut order = json!({"action": "delete", "filter": "client_id_prefix=device-98"});
    let (_, plan) = api.timed(Method::POST, "session-purges", Some(&order)).await?;
    let began = Instant::now();
    order["plan_token"] = plan["plan_token"].clone();
    let (_, operation) = api.timed(Method::POST, "session-purges", Some(&order)).await?;
    let path = format!("/v1/operations/{}", operation["id"].as_str().context("no operation")?);
    loop {
        let state = api.ask(Method::GET, &path, None).await?;
        if state["state"] != "running" {
            let (count, secs) = (&plan["sessions"], began.elapsed().as_secs_f64());
            println!("purge of {count} sessions: {secs:.1} s, {}", state["state"]);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What 100 pages a second cost publishers: messages acknowledged a second with and without them, in turns.
async fn cost(api: &Api, broker: &Broker) -> anyhow::Result<()> {
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..FLOW_ROUNDS {
        alone.push(flow(broker).await?);
        let stop = Arc::new(AtomicBool::new(false));
        let asking = tokio::spawn(api.clone().ask_until(Arc::clone(&stop)));
        beside.push(flow(broker).await?);
        stop.store(true, Ordering::Relaxed);
        asking.await??;
    }
    alone.sort_by(f64::total_cmp);
    beside.sort_by(f64::total_cmp);
    let (alone, beside) = (alone[FLOW_ROUNDS / 2], beside[FLOW_ROUNDS / 2]);
    println!("QoS 1 publishes a second: {alone:.0} alone, {beside:.0} beside 100 pages a second");
    Ok(())
}

/// Messages acknowledged a second to ten publishers of which each waits for its PUBACK.
async fn flow(broker: &Broker) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut tasks = Vec::new();
    for number in 0..10 {
        let door = broker.door.clone();
        tasks.push(tokio::spawn(async move {
            let name = format!("flow-{number}");
            let mut client = Client::connect(&door, Way::Tcp, name, Session::Passing).await?;
            let topic = TopicName::new(format!("flow/{number}"))?;
            let mut count = 0_u32;
            while began.elapsed() < FLOW {
                client.queue(&Packet::Publish(Publish {
                    dup: false,
                    qos: QoS::AtLeastOnce,
                    retain: false,
                    topic: Some(topic.clone()),
                    packet_id: Some(PacketId::MIN),
                    properties: PublishProperties::default(),
                    payload: Bytes::from_static(&[0; 64]),
                }));
                client.flush().await?;
                client.receive().await?;
                count += 1;
            }
            client.leave().await?;
            anyhow::Ok(count)
        }));
    }
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

/// Asks the API as an administrator.
#[derive(Clone)]
struct Api {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    fn of(broker: &Broker) -> anyhow::Result<Self> {
        let token = std::fs::read_to_string(broker.folder().join("data/admin.token"))?.trim().to_owned();
        Ok(Self { client: reqwest::Client::new(), base: format!("http://{}", broker.http()?), token })
    }

    /// Something of the cluster `default`, and how long the answer took.
    async fn timed(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(Duration, Value)> {
        let began = Instant::now();
        let answer = self.ask(method, &format!("/v1/clusters/default/{path}"), body).await?;
        Ok((began.elapsed(), answer))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let mut request =
            self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status == StatusCode::OK || status == StatusCode::ACCEPTED, "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// A page of the list every ten milliseconds.
    async fn ask_until(self, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while !stop.load(Ordering::Relaxed) {
            tick.tick().await;
            let page = format!("{}/v1/clusters/default/sessions?page_size=100&state=offline", self.base);
            // Read, not understood: that would be the caller's cost.
            self.client.get(page).bearer_auth(&self.token).send().await?.error_for_status()?.bytes().await?;
        }
        Ok(())
    }
}

fn print(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let millis = |at: usize| took[at.min(took.len() - 1)].as_secs_f64() * 1_000.0;
    let (p50, p99, worst) = (took.len() / 2, took.len() * 99 / 100, took.len() - 1);
    println!("{what:<52}{:>12.2}{:>12.2}{:>12.2}", millis(p50), millis(p99), millis(worst));
}
