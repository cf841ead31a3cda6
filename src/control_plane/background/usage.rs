//! Counts every minute how many connections of each cluster are taken, for `/usage?at=` and `/usage/history`.
//!
//! What comes and goes between two counts is not seen. A minute in which the database or the data plane is away has
//! no sample: nothing is made up for it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::clock::Clock;
use crate::model::{ClusterId, Plan, Quota, SessionCounts, Timestamp};
use crate::seam::command::{CommandError, DataPlane};
use crate::store::{self, Store};

/// How often it counts.
pub const EVERY: Duration = Duration::from_mins(1);
/// How long a sample is kept: a week.
pub const SAMPLE_AGE_MAX: Duration = Duration::from_hours(24 * 7);
/// How long an hour is kept: a year and a month, for comparing with last year's.
pub const HOUR_AGE_MAX: Duration = Duration::from_hours(24 * 396);
/// How many clusters are read, and their samples written, at a time.
const CLUSTERS_AT_ONCE: u32 = 1_000;
/// How long a count may take.
const COUNT_TIME_MAX: Duration = Duration::from_secs(2);

/// Counts until `stop` is cancelled, at the beginning of each minute.
pub async fn run(store: Store, data_plane: DataPlane, clock: Clock, stop: CancellationToken) {
    let mut failing = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(until_next(clock.wall())) => {}
        }
        match sample(&store, &data_plane, clock.wall()).await {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                warn!(%error, "usage is not counted for now: {error}");
            }
            Err(_) => {}
        }
    }
}

/// Why there is no sample of this minute.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// The database is away.
    #[error("the samples cannot be kept")]
    Store(#[from] store::Error),
    /// The data plane is away.
    #[error("the sessions cannot be counted")]
    DataPlane(#[from] CommandError),
}

/// Counts once, for the minute that `now` is in.
///
/// # Errors
/// The database or the data plane is away; clusters that were counted before that have their sample.
pub async fn sample(store: &Store, data_plane: &DataPlane, now: Timestamp) -> Result<(), SampleError> {
    let minute = i64::try_from(EVERY.as_millis()).unwrap_or(i64::MAX);
    let at = Timestamp::from_millis(now.as_millis() - now.as_millis().rem_euclid(minute));
    let mut after: Option<ClusterId> = None;
    loop {
        let page = store.list_clusters(after.as_ref(), CLUSTERS_AT_ONCE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.id.clone());
        let mut samples = Vec::with_capacity(page.len());
        for cluster in page {
            let counts: SessionCounts = match data_plane.count(cluster.id.clone(), COUNT_TIME_MAX).await {
                Ok(counts) => counts,
                // It came or went just now.
                Err(CommandError::NoSuchCluster) => continue,
                Err(error) => return Err(error.into()),
            };
            let quota = Plan::by_name(&cluster.plan).map(|plan| Quota::resolve(plan, &cluster.overrides));
            samples.push((cluster.id, counts, quota.and_then(|quota| quota.connections)));
        }
        store.add_usage(at, &samples).await?;
    }
}

/// How long it is to the next minute.
fn until_next(now: Timestamp) -> Duration {
    let every = u64::try_from(EVERY.as_millis()).unwrap_or(u64::MAX);
    let passed = u64::try_from(now.as_millis()).unwrap_or(0) % every;
    Duration::from_millis(every - passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_at_the_beginning_of_a_minute() {
        for (now, wait) in [(0, 60_000), (1, 59_999), (59_999, 1), (60_000, 60_000)] {
            assert_eq!(until_next(Timestamp::from_millis(now)), Duration::from_millis(wait), "{now}");
        }
    }
}
