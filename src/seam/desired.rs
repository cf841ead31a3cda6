//! Desired state: what the data plane should enforce.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::model::{ClusterId, ClusterStatus, Quota};

/// Everything the data plane enforces, as of one revision. Never changed after it was made.
#[derive(Clone, Debug, Default)]
pub struct DesiredState {
    /// Grows with every committed change.
    pub revision: i64,
    /// Every cluster that exists. A cluster that disappears loses its sessions and connections.
    pub clusters: HashMap<ClusterId, Arc<DesiredCluster>>,
}

/// What one cluster should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredCluster {
    /// Which cluster.
    pub id: ClusterId,
    /// Whether CONNECTs are admitted.
    pub status: ClusterStatus,
    /// Whether a CONNECT without credentials is let in.
    pub allow_anonymous: bool,
    /// The limits in force.
    pub quota: Quota,
}

/// The writing end, held by the control plane.
pub type DesiredSender = watch::Sender<Arc<DesiredState>>;
/// The reading end, held by the data plane.
pub type DesiredReceiver = watch::Receiver<Arc<DesiredState>>;

/// A new channel that holds the empty state.
pub fn channel() -> (DesiredSender, DesiredReceiver) {
    watch::channel(Arc::default())
}
