//! Publishes the desired state: what the data plane should enforce.
//!
//! The database is the authority; this reads a whole snapshot of it and puts it on the watch
//! channel of `crate::seam::desired`. A handler that has committed a change calls
//! [`DesiredPublisher::refresh`] itself and so waits no longer than it must. The background task
//! catches what no handler published: changes of another process, and changes committed just
//! before the database or this process went away. A lost nudge costs [`POLL`].
//!
//! The published revision never goes back: of two readers that race, the one with the older
//! snapshot changes nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::seam::desired::DesiredSender;
use crate::store::{self, Store};

/// How often the database is asked for its revision.
const POLL: Duration = Duration::from_secs(2);
/// The longest pause between two attempts while the database is away.
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// Reads the desired state and publishes it.
#[derive(Debug)]
pub struct DesiredPublisher {
    store: Store,
    published: DesiredSender,
    nudged: Notify,
}

impl DesiredPublisher {
    /// A publisher that has published nothing yet.
    pub fn new(store: Store, published: DesiredSender) -> Self {
        Self { store, published, nudged: Notify::new() }
    }

    /// Publishes the state as it is now committed, and says its revision.
    ///
    /// # Errors
    /// The database is away; nothing is published.
    pub async fn refresh(&self) -> store::Result<i64> {
        let known = Arc::clone(&self.published.borrow());
        let state = self.store.desired_state(&known).await?;
        let revision = state.revision;
        self.published.send_if_modified(|published| {
            let newer = revision > published.revision;
            if newer {
                *published = Arc::new(state);
            }
            newer
        });
        Ok(revision)
    }

    /// Wakes the background task.
    pub fn nudge(&self) {
        self.nudged.notify_one();
    }

    /// Keeps the published state up to date until `stop` is cancelled.
    pub async fn run(&self, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.nudged.notified() => {}
                () = tokio::time::sleep(pause_after(failures)) => {}
            }
            match self.catch_up().await {
                Ok(()) if failures > 0 => {
                    failures = 0;
                    info!("the desired state is read from the database again");
                }
                Ok(()) => {}
                Err(error) => {
                    failures += 1;
                    if failures == 1 {
                        let cause: &dyn std::error::Error = &error;
                        warn!(
                            cause,
                            "the desired state cannot be read; the last one stays in force: {error}"
                        );
                    }
                }
            }
        }
    }

    async fn catch_up(&self) -> store::Result<()> {
        let committed = self.store.desired_revision().await?;
        if committed > self.published.borrow().revision {
            self.refresh().await?;
        }
        Ok(())
    }
}

/// Twice as long after every failure, within bounds.
fn pause_after(failures: u32) -> Duration {
    POLL.saturating_mul(1 << failures.min(8)).min(if failures == 0 { POLL } else { BACK_OFF_MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        assert_eq!(pause_after(0), POLL);
        assert_eq!(pause_after(1), Duration::from_secs(4));
        assert_eq!(pause_after(2), Duration::from_secs(8));
        assert_eq!(pause_after(3), BACK_OFF_MAX);
        assert_eq!(pause_after(u32::MAX), BACK_OFF_MAX);
    }
}
