//! Many clients with passwords of their own come back at once: what that costs when their passwords are
//! remembered and when they are not, counted in checks of a password against its hash.

use std::time::Duration;

use serde_json::json;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::mqtt::RawClient;
use crate::support::server::{Options, Server};

/// Users like `user-0`, each with secrets of its own; all have the password of `user-0`, because making ten
/// thousand hashes would take longer than the test.
const MANY: &str = "INSERT INTO users (cluster_id, users_version, username, secrets_id, password_hash, scram_salt, \
     scram_iterations, scram_stored_key, scram_server_key, is_superuser, created_at, updated_at, version) \
     SELECT cluster_id, users_version, 'user-' || n, gen_random_uuid(), password_hash, scram_salt, \
     scram_iterations, scram_stored_key, scram_server_key, false, now(), now(), 1 \
     FROM users, generate_series(1, $1 - 1) n WHERE username = 'user-0'";

/// A server with so many users.
async fn server(users: i32) -> Server {
    // All come at once: the door is not what is measured.
    let flags = vec![format!("--half-open-max={}", users + 100)];
    let server = Server::start(Options { flags, ..Options::default() }).await;
    let api = server.api();
    api.put("/v1/clusters/default/users/user-0", json!({"password": "pencil"})).await.expect(201);
    // What is measured is the checks, and not the quotas.
    let quota = "/v1/clusters/default/quota";
    let current = api.get(quota).await;
    let body = json!({"connections": 20_000, "rates": {"connects_per_second": 1_000_000}});
    api.put_over(&current, quota, body).await.expect(200);
    let mut connection = PgConnection::connect_with(&server.database().options()).await.expect("connect");
    sqlx::query(MANY).bind(users).execute(&mut connection).await.expect("make users");
    connection.close().await.expect("close");
    // What was written behind the service's back is read with the next change that voids what it knows.
    api.put("/v1/clusters/default/users/other", json!({"password": "x"})).await.expect(201);
    api.delete("/v1/clusters/default/users/other").await.expect(204);
    server
}

/// Connects and gives the client, or `None` when it is to come again.
async fn knock(server: std::net::SocketAddr, n: i32) -> Option<RawClient> {
    let mut client = RawClient::open(server).await;
    let connect = format!("10 ~ s'MQTT' 04 c2 0000 s'client-{n}' s'user-{n}' s'pencil'");
    client.send_hex(&connect).await;
    match client.try_packet().await {
        Ok(Some(connack)) if connack[3] == 0 => Some(client),
        // Too many passwords wait: 3.
        Ok(Some(connack)) if connack[3] == 3 => None,
        Ok(Some(connack)) => panic!("refused: {connack:?}"),
        // It was not its turn in time.
        Ok(None) | Err(_) => None,
    }
}

/// What one storm came to.
#[derive(Debug)]
struct Storm {
    took: Duration,
    checks: u64,
    turned_away: u64,
}

async fn checks(server: &Server) -> u64 {
    let metrics = server.api().get("/metrics").await.text;
    let line = metrics.lines().find_map(|line| line.strip_prefix("holdfast_password_checks_total "));
    line.expect("a count").parse().expect("a number")
}

/// All of them at once, each until it is in; then all of them gone.
async fn storm(server: &Server, clients: i32) -> Storm {
    let (before, began) = (checks(server).await, Instant::now());
    let mut all = JoinSet::new();
    for n in 0..clients {
        let address = server.mqtt;
        all.spawn(async move {
            let mut turned_away = 0;
            loop {
                if let Some(client) = knock(address, n).await {
                    return (client, turned_away);
                }
                turned_away += 1;
                // As clients do: later each time, and spread, so that they do not all come together again.
                let spread = 100 + u64::from(n.unsigned_abs()) % 900;
                tokio::time::sleep(Duration::from_millis(spread << turned_away.min(4))).await;
            }
        });
    }
    let connected = all.join_all().await;
    let took = began.elapsed();
    let turned_away = connected.iter().map(|(_, turned_away)| turned_away).sum();
    Storm { took, checks: checks(server).await - before, turned_away }
}

/// The first time everybody is checked once; when they come back nobody is.
async fn returns_are_free(clients: i32) {
    let server = server(clients).await;
    let first = storm(&server, clients).await;
    // Once each, and again whose client went away meanwhile.
    assert!(first.checks >= u64::from(clients.unsigned_abs()), "{first:?}");
    let again = storm(&server, clients).await;
    assert_eq!(again.checks, 0, "{again:?}");
    assert_eq!(again.turned_away, 0, "{again:?}");
    for (what, storm) in [("without", first), ("with", again)] {
        let rate = f64::from(clients) / storm.took.as_secs_f64();
        eprintln!("{what} what is remembered: {clients} clients, {rate:.0} connects/s, {storm:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn passwords_are_not_checked_again_when_a_fleet_comes_back() {
    returns_are_free(150).await;
}

/// `cargo test --release --test it ten_thousand_clients -- --ignored --nocapture`; needs `ulimit -n` 20,000.
#[tokio::test]
#[ignore = "takes minutes"]
async fn ten_thousand_clients_come_back_at_once() {
    returns_are_free(10_000).await;
}
