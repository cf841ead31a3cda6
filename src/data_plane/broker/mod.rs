//! PURE. What one cluster's clients share: who is there, what they subscribe to, who gets in.
//!
//! - [`registry`]: client id → session, counts, and what falls due when.
//! - [`admission`]: whether a CONNECT gets in; [`flapping`]: whether it comes too often.
//! - [`bucket`] and [`rates`]: how often something may happen.
//! - [`authorization`]: whether a client may do what it asks.
//! - [`topic_trie`] and [`subscription_index`]: topic → filters → subscribers.
//! - [`shared_group`]: who of a group gets a message, and how far the group has come.
//! - [`share_names`]: what is shared under each name, as the quota counts it.
//! - [`retained`]: the last message of each topic.
//!
//! Knows nothing of one client's protocol state; that is the session's.

pub mod admission;
pub mod authorization;
pub mod bucket;
pub mod flapping;
pub mod rates;
pub mod registry;
pub mod retained;
pub mod share_names;
pub mod shared_group;
pub mod subscription_index;
pub mod topic_trie;

/// Where a session is kept in its cluster's table. Reused after the session has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);
