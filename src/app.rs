//! The composition root.

use anyhow::bail;

use crate::config::Config;
use crate::lifecycle::Shutdown;

/// Builds every part, serves until the shutdown, and stops them in order.
#[allow(clippy::unused_async)]
pub async fn serve(_config: Config, _shutdown: Shutdown) -> anyhow::Result<()> {
    bail!("this build has no planes to serve")
}
