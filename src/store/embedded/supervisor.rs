//! Keeps the private Postgres running for as long as the service does.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::postmaster::{Launch, Postmaster};

/// The first wait before it is started again; doubled each time.
const BACK_OFF_MIN: Duration = Duration::from_millis(200);
/// The longest wait before it is started again.
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// One that ran this long did start: the next wait is the first again.
const RAN_LONG: Duration = Duration::from_secs(30);

/// Starts the postmaster again whenever it ends, until `stop` is cancelled; then stops it.
///
/// Clients of the database see it away meanwhile, as they would any other database.
pub(super) async fn supervise(launch: Launch, mut postmaster: Postmaster, stop: CancellationToken) {
    let mut back_off = BACK_OFF_MIN;
    loop {
        let started = Instant::now();
        let Some(status) = stop.run_until_cancelled(postmaster.ended()).await else {
            postmaster.stop().await;
            return;
        };
        if started.elapsed() >= RAN_LONG {
            back_off = BACK_OFF_MIN;
        }
        postmaster = loop {
            tracing::error!(
                ?status,
                said = launch.layout.last_words(),
                again_in = ?back_off,
                "the private Postgres has ended; it is started again"
            );
            if timeout(back_off, stop.cancelled()).await.is_ok() {
                return;
            }
            back_off = (back_off * 2).min(BACK_OFF_MAX);
            match launch.spawn() {
                Ok(postmaster) => break postmaster,
                Err(error) => tracing::error!(%error, "the private Postgres could not be started"),
            }
        };
    }
}
