//! The crash harness (PRODUCT S-1 … S-14): a real process under load of publishers and subscribers of all
//! kinds is killed at random moments and started again; in the end everything is compared with what was
//! acknowledged. `docs/crash-harness.md` tells how to run it and what it checks.
//!
//! `make test` has a short run with a fixed seed; `make crash` runs for as long as one likes. What is
//! random follows from the seed, but for what the operating system does: the same seed gives the same
//! schedule, not the same run.

mod cast;
mod check;
mod check_tests;
mod client;
mod director;
mod history;
mod mortals;
mod owed;
mod random;
mod retained;
mod service;
mod session;
mod wire;

use std::time::Duration;

use director::{Director, Pace};
use tokio::time::Instant;

/// Enough for a few kills of different kinds.
const SHORT_SEED: u64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_kills() {
    let pace = Pace { kills: 4, pause: Duration::from_millis(20) };
    let mut director = Director::begin(SHORT_SEED, pace).await;
    director.round().await;
    director.end().await;
}

/// `make crash`. `CRASH_SECS` says how long, `CRASH_SEED` repeats a schedule.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "as long as one likes: make crash"]
async fn nothing_acknowledged_is_lost_for_as_long_as_one_likes() {
    let number = |name: &str| std::env::var_os(name)?.to_str()?.parse::<u64>().ok();
    let time = Duration::from_secs(number("CRASH_SECS").unwrap_or(3_600));
    let seed = number("CRASH_SEED").unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
    let began = Instant::now();
    let mut director = Director::begin(seed, Pace { kills: 8, pause: Duration::from_millis(5) }).await;
    while began.elapsed() < time {
        director.round().await;
    }
    director.end().await;
}
