//! A cluster: one tenant's logical MQTT service.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU16;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    AccessRules, Authenticators, AutoSubscriptions, ClientHolds, ClusterId, MessageRules, Quota,
    QuotaOverrides, SharedStrategy, Timestamp, TopicFilter, Users,
};

/// Whether a cluster serves clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClusterStatus {
    /// CONNECTs are admitted.
    Active,
    /// CONNECTs are refused with 0x88 and live connections ended; sessions are kept.
    Suspended,
}

impl ClusterStatus {
    /// As the API and the store write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }

    /// The reverse of [`ClusterStatus::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Active, Self::Suspended].into_iter().find(|s| s.as_str() == text)
    }
}

/// After how long a v3 client gets again what it has not answered, where a cluster does not say
/// (PRODUCT S-11).
pub const RESEND_AFTER_SECS: u32 = 120;

/// A cluster as the control plane keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its id; never changes.
    pub id: ClusterId,
    /// What people call it.
    pub name: String,
    /// The caller's own marks.
    pub labels: BTreeMap<String, String>,
    /// Whether it serves clients.
    pub status: ClusterStatus,
    /// Whether DELETE is refused until this is taken back.
    pub delete_protection: bool,
    /// Whether a CONNECT without credentials is let in.
    pub allow_anonymous: bool,
    /// How its shared groups choose who gets a message.
    pub shared_strategy: SharedStrategy,
    /// The longest keep-alive, in seconds; `None` leaves each client its own (PRODUCT S-15).
    pub server_keep_alive_secs: Option<NonZeroU16>,
    /// After how long a v3 client gets again what it has not answered; 0 for never (PRODUCT S-11).
    pub resend_after_secs: u32,
    /// The name of its plan.
    pub plan: String,
    /// What it sets over its plan.
    pub overrides: QuotaOverrides,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Counts the changes to the cluster; its ETag.
    pub version: i64,
    /// Counts the changes to its quota; the quota's ETag.
    pub quota_version: i64,
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
    /// How its shared groups choose who gets a message.
    pub shared_strategy: SharedStrategy,
    /// Of shared groups, by their whole filters, that choose in a way of their own.
    pub group_strategies: HashMap<TopicFilter, SharedStrategy>,
    /// The longest keep-alive, in seconds; `None` leaves each client its own (PRODUCT S-15).
    pub server_keep_alive_secs: Option<NonZeroU16>,
    /// After how long a v3 client gets again what it has not answered; 0 for never (PRODUCT S-11).
    pub resend_after_secs: u32,
    /// Whom its clients may prove to be.
    pub users: Arc<Users>,
    /// Who may do what.
    pub access: Arc<AccessRules>,
    /// What is added to what its clients publish.
    pub message_rules: Arc<MessageRules>,
    /// Which client ids are refused for a while.
    pub holds: Arc<ClientHolds>,
    /// How its clients are known.
    pub authenticators: Arc<Authenticators>,
    /// What its clients are subscribed to when they connect.
    pub automatic: Arc<AutoSubscriptions>,
}

impl DesiredCluster {
    /// A cluster of which nothing is said but its limits: active, without rules, users or authenticators, closed
    /// to whom it does not know.
    pub fn plain(id: ClusterId, quota: Quota) -> Self {
        Self {
            id,
            status: ClusterStatus::Active,
            allow_anonymous: false,
            quota,
            shared_strategy: SharedStrategy::Random,
            group_strategies: HashMap::new(),
            server_keep_alive_secs: None,
            resend_after_secs: RESEND_AFTER_SECS,
            users: Arc::default(),
            access: Arc::default(),
            message_rules: Arc::default(),
            holds: Arc::default(),
            authenticators: Arc::default(),
            automatic: Arc::default(),
        }
    }

    /// How the shared group with this whole filter chooses who gets a message.
    pub fn strategy_of(&self, share: &TopicFilter) -> SharedStrategy {
        self.group_strategies.get(share).copied().unwrap_or(self.shared_strategy)
    }
}

/// How many sessions a cluster has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// With a connection.
    pub online: u32,
    /// Without one, persistent and not expired.
    pub offline_persistent: u32,
}

impl SessionCounts {
    /// What counts against the connection quota (PRODUCT S-8).
    pub const fn total(self) -> u32 {
        self.online + self.offline_persistent
    }
}
