//! The nouns both planes share: pure values that are valid because they exist.
//!
//! Nothing here reads a clock, awaits, or knows of SQL, HTTP or packets. A value with rules
//! (a topic filter, a client id, a cluster id) can only be made by a constructor that checks them.

mod access;
mod authenticator;
mod auto_subscription;
mod cluster;
mod counters;
mod ending;
mod http_url;
mod ids;
mod latency;
mod log;
mod message;
mod message_rule;
mod qos;
mod quota;
mod rate;
mod refusal;
mod secrets;
mod session;
mod subscription;
mod time;
mod topic;
mod user;
mod webhook;

pub use access::{
    AccessAction, AccessClient, AccessError, AccessRequest, AccessRules, BlockPattern, BlockRule,
    BlockRuleSpec, BlockSubject, FilterShape, Glob, Network, Policy, PolicyEffect, PolicyFault, PolicySpec,
    Resource, Variables,
};
pub use authenticator::{
    Acl, AclError, Authenticator, AuthenticatorSettings, Authenticators, BodyEncoding, Fingerprint, Hidden,
    HttpMethod, HttpSettings, JwtAlgorithm, JwtKey, JwtSettings, NotFingerprint, Template, TemplateError,
    TlsSettings, TokenIn, UrlTemplate, Values, Vouched,
};
pub use auto_subscription::{
    AutoSubscription, AutoSubscriptionSpec, AutoSubscriptions, FilterTemplate, FilterTemplateError, Unfit,
};
pub use cluster::{Cluster, ClusterStatus, DesiredCluster, RESEND_AFTER_SECS, SessionCounts};
pub use counters::MessageCounters;
pub use ending::{ClientHold, ClientHolds, EndOptions, OperatorReason, ReasonError, SessionEnd, WillChoice};
pub use http_url::{HttpUrl, NotHttpUrl};
pub use ids::{ClientId, ClientKey, ClusterId, Epoch, IdError, SessionId};
pub use latency::{Latencies, Latency};
pub use log::{FilterId, FilterKey, GroupId, Place, Seq};
pub use message::{Message, PropertyBytes};
pub use message_rule::{
    ExpiryMode, MessageRule, MessageRuleError, MessageRuleSpec, MessageRules, RuleCondition, RuleEffects,
    RuleExpiry, RuleFilter, RuleProperty, RulePropertyName, RuleText, RuleTopic, RuleValues,
};
pub use qos::QoS;
pub use quota::{Limit, Plan, Quota, QuotaOverrides, QuotaSource};
pub use rate::{Flapping, RateOverrides, Rates};
pub use refusal::{Refusal, RefusalKind, RefusalReason};
pub use secrets::{KEY_BYTES, SALT_BYTES, ScramKeys, Secrets};
pub use session::{
    DisconnectCause, EndedBy, ExpirySource, OperatorExpiry, OperatorPart, ProtocolVersion, SessionExpiry,
    SessionState, Transport,
};
pub use subscription::{RetainHandling, SharedStrategy, Subscription, SubscriptionOrigin};
pub use time::{Monotonic, Now, Timestamp};
pub use topic::{SharedFilter, TopicError, TopicFilter, TopicName};
pub use user::{Password, User, UserError, Username, Users};
pub use webhook::{NotWebhookSecret, WebhookSecret};
