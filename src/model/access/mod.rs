//! Who may do what in a cluster: authorisation policies and block rules (PRODUCT 4).
//!
//! Everything here was parsed once, when it was accepted; nothing of it can fail when it is asked. Where
//! a question cannot be answered (a client without an address that is known, a client id that cannot
//! stand in a topic) it is answered closed: what allows does not hold, what denies does.
//!
//! What it does not do: decide. The data plane does (`data_plane/broker/authorization.rs`).

mod block_rule;
mod glob;
mod network;
mod policy;
mod resource;

use uuid::Uuid;

pub use block_rule::{BlockPattern, BlockRule, BlockRuleSpec, BlockSubject};
pub use glob::Glob;
pub use network::Network;
pub use policy::{AccessAction, AccessClient, AccessRequest, Policy, PolicyEffect, PolicyFault, PolicySpec};
pub use resource::{FilterShape, Resource, Variables};
use thiserror::Error;

/// Why a part of a policy or block rule is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AccessError {
    /// The length of a pattern.
    #[error("a pattern is 1 to {} bytes of UTF-8 without U+0000", Glob::BYTES_MAX)]
    GlobLength,
    /// The length of a resource.
    #[error("a resource is 1 to {} bytes of UTF-8 without U+0000", Resource::BYTES_MAX)]
    ResourceLength,
    /// `${…}` that is nothing known.
    #[error("the variables are ${{clientid}} and ${{username}}")]
    Variable,
    /// `+` beside something else.
    #[error("+ must be alone on its level")]
    SingleLevelWildcard,
    /// `#` beside something else, or not at the end.
    #[error("# must be alone on its level and that level the last")]
    MultiLevelWildcard,
    /// `$share/…`: that is how a client subscribes, and no topic.
    #[error("a resource names topics: leave out $share/{{group}}/")]
    Shared,
    /// Neither address nor network.
    #[error("an IP address, or a network such as 10.0.0.0/8")]
    Network,
    /// A pattern that no address can have.
    #[error("a pattern of addresses has hexadecimal digits, dots, colons, * and ?; or it is a network")]
    AddressPattern,
}

/// Everything that says who may do what in one cluster. Never changed after it was made; shared between
/// snapshots in which it is the same.
#[derive(Clone, Debug, Default)]
pub struct AccessRules {
    /// Another with every change.
    pub revision: Uuid,
    /// In the order in which they are asked.
    pub policies: Vec<Policy>,
    /// In no order.
    pub block_rules: Vec<BlockRule>,
}

impl AccessRules {
    /// How many policies a cluster may have: a decision asks them one after the other.
    pub const POLICIES_MAX: u32 = 500;

    /// How many block rules a cluster may have: every CONNECT is held against all of them.
    pub const BLOCK_RULES_MAX: u32 = 1_000;
}

/// Two states of the same rules are equal when nothing was changed in between.
impl PartialEq for AccessRules {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision
    }
}

impl Eq for AccessRules {}
