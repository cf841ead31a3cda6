//! The nouns both planes share: pure values that are valid because they exist.
//!
//! Nothing here reads a clock, awaits, or knows of SQL, HTTP or packets. A value with rules
//! (a topic filter, a client id, a cluster id) can only be made by a constructor that checks them.

mod access;
mod cluster;
mod counters;
mod ids;
mod log;
mod message;
mod qos;
mod quota;
mod secrets;
mod session;
mod subscription;
mod time;
mod topic;
mod user;

pub use access::{
    AccessAction, AccessClient, AccessError, AccessRequest, AccessRules, BlockPattern, BlockRule,
    BlockRuleSpec, BlockSubject, FilterShape, Glob, Network, Policy, PolicyEffect, PolicyFault, PolicySpec,
    Resource, Variables,
};
pub use cluster::{Cluster, ClusterStatus, DesiredCluster, RESEND_AFTER_SECS, SessionCounts};
pub use counters::MessageCounters;
pub use ids::{ClientId, ClientKey, ClusterId, Epoch, IdError, SessionId};
pub use log::{FilterId, FilterKey, GroupId, Place, Seq};
pub use message::{Message, PropertyBytes};
pub use qos::QoS;
pub use quota::{Limit, Plan, Quota, QuotaOverrides, QuotaSource};
pub use secrets::{KEY_BYTES, SALT_BYTES, ScramKeys, Secrets};
pub use session::{
    DisconnectCause, EndedBy, ExpirySource, OperatorExpiry, ProtocolVersion, SessionExpiry, SessionState,
    Transport,
};
pub use subscription::{RetainHandling, SharedStrategy, Subscription};
pub use time::{Monotonic, Now, Timestamp};
pub use topic::{SharedFilter, TopicError, TopicFilter, TopicName};
pub use user::{Password, User, UserError, Username, Users};
