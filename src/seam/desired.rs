//! Desired state: what the data plane should enforce.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::model::ClusterId;
pub use crate::model::DesiredCluster;

/// Everything the data plane enforces, as of one revision. Never changed after it was made.
#[derive(Clone, Debug, Default)]
pub struct DesiredState {
    /// Grows with every committed change.
    pub revision: i64,
    /// Every cluster that exists. A cluster that disappears loses its sessions and connections.
    pub clusters: HashMap<ClusterId, Arc<DesiredCluster>>,
}

/// The writing end, held by the control plane.
pub type DesiredSender = watch::Sender<Arc<DesiredState>>;
/// The reading end, held by the data plane.
pub type DesiredReceiver = watch::Receiver<Arc<DesiredState>>;

/// A new channel that holds the empty state.
pub fn channel() -> (DesiredSender, DesiredReceiver) {
    watch::channel(Arc::default())
}
