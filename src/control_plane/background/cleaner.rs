//! Forgets what has been kept long enough: answers under idempotency keys, holds, events, refusals, samples of
//! usage, rows of the audit log.
//!
//! Nothing depends on when it runs: whoever reads applies the same bounds by the clock.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::usage;
use crate::clock::Clock;
use crate::model::Timestamp;
use crate::store::{self, Store};

/// How often it looks.
const EVERY: Duration = Duration::from_mins(1);
/// How many rows one statement forgets: few enough that nobody waits for it.
const ROWS_AT_ONCE: u32 = 1_000;
/// How long a row of the audit log is kept: a year and a month, for a yearly review.
pub const AUDIT_AGE_MAX: Duration = Duration::from_hours(24 * 396);

/// How long an event is kept, and a refusal that is not repeated.
pub const EVENT_AGE_MAX: Duration = Duration::from_hours(24 * 30);

/// How long an operation is kept after its end.
pub const OPERATION_AGE_MAX: Duration = Duration::from_hours(24 * 30);

/// Cleans until `stop` is cancelled.
pub async fn run(store: Store, clock: Clock, stop: CancellationToken) {
    let mut failing = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        match clean(&store, clock.wall()).await {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                warn!(%error, "old rows stay for now: {error}");
            }
            Err(_) => {}
        }
    }
}

/// Forgets all that is old enough at `now`.
///
/// # Errors
/// The database is away; what is left is forgotten the next time.
pub async fn clean(store: &Store, now: Timestamp) -> store::Result<()> {
    while store.forget_keys(now, ROWS_AT_ONCE).await? == u64::from(ROWS_AT_ONCE) {}
    while store.forget_holds(now, ROWS_AT_ONCE).await? == u64::from(ROWS_AT_ONCE) {}
    store.retire_events(before(now, EVENT_AGE_MAX)).await?;
    while store.forget_events(ROWS_AT_ONCE).await? == u64::from(ROWS_AT_ONCE) {}
    let refused_until = before(now, EVENT_AGE_MAX);
    while store.forget_refusals(refused_until, ROWS_AT_ONCE).await? == u64::from(ROWS_AT_ONCE) {}
    let ended_until = before(now, OPERATION_AGE_MAX);
    while store.forget_operations(ended_until, 1).await? == 1 {}
    let (samples_until, hours_until) = (before(now, usage::SAMPLE_AGE_MAX), before(now, usage::HOUR_AGE_MAX));
    while store.forget_usage_samples(samples_until, ROWS_AT_ONCE).await? == u64::from(ROWS_AT_ONCE) {}
    while store.forget_usage_hours(hours_until, ROWS_AT_ONCE).await? == u64::from(ROWS_AT_ONCE) {}
    let audit_until = before(now, AUDIT_AGE_MAX);
    while store.forget_audit(audit_until, ROWS_AT_ONCE).await? == u64::from(ROWS_AT_ONCE) {}
    Ok(())
}

/// The time so long before `now`.
fn before(now: Timestamp, age: Duration) -> Timestamp {
    let millis = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(millis))
}
