//! The harness: a real server in a process of its own, on a database of its own; a caller of its API; and
//! MQTT clients, both stock ones and raw bytes. Nothing here reaches into the service: what a test of it
//! knows, a customer can know. Beside it, for what a real server cannot be made to do: the API over a
//! stand-in for the data plane ([`api`]), and the store ([`database`], [`sessions`]).

pub(crate) mod access;
pub(crate) mod api;
pub(crate) mod data_plane;
pub(crate) mod database;
pub(crate) mod frames;
pub(crate) mod http;
pub(crate) mod looked_at;
pub(crate) mod mqtt;
pub(crate) mod notation;
pub(crate) mod outside;
pub(crate) mod pki;
pub(crate) mod postgres;
pub(crate) mod scram;
pub(crate) mod scratch;
pub(crate) mod server;
pub(crate) mod sessions;
pub(crate) mod stock;
pub(crate) mod transport;

use std::future::Future;
use std::time::Duration;

/// How long a test waits for something that should happen at once. Generous: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `condition` gives a value, and fails the test with `what` when it does not.
pub(crate) async fn eventually<T, F>(what: &str, within: Duration, mut condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let attempt = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let outcome = tokio::time::timeout(within, attempt).await;
    outcome.unwrap_or_else(|_| panic!("not within {} ms: {what}", within.as_millis()))
}
