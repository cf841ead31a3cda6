//! Whether a client may do what it asks (PRODUCT 4).
//!
//! - Policies are asked in the order of their priorities; the first that holds decides. Once a cluster has
//!   a policy, what none holds for is denied.
//! - A cluster without policies lets every client do everything but use topics that begin with `$`. Those
//!   are open only where anonymous clients are let in as well: such a cluster is for trying out.
//! - Rules that an authenticator gave a client alone come before the policies, and count as such.
//! - Block rules come before all that.
//!
//! [`Decisions`] remembers what was decided of publishing.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use crate::model::{
    AccessClient, AccessRequest, BlockRule, DesiredCluster, Policy, PolicyEffect, QoS, Timestamp,
};

/// Whether `client` may do what it asks in this cluster.
///
/// `own`: rules that hold for this client alone, asked first. Of connecting they say nothing.
pub fn permits(
    cluster: &DesiredCluster,
    own: &[Policy],
    client: &AccessClient<'_>,
    request: &AccessRequest<'_>,
) -> bool {
    let own = if matches!(request, AccessRequest::Connect) { &[] } else { own };
    let policies = &cluster.access.policies;
    if own.is_empty() && policies.is_empty() {
        return cluster.allow_anonymous || !uses_dollar(request);
    }
    let first = own.iter().chain(policies).find(|policy| policy.holds_for(client, request));
    first.is_some_and(|policy| policy.spec.effect == PolicyEffect::Allow)
}

/// `$`-topics are the server's (4.7.2).
fn uses_dollar(request: &AccessRequest<'_>) -> bool {
    match request {
        AccessRequest::Connect => false,
        AccessRequest::Publish { topic, .. } => topic.starts_with('$'),
        AccessRequest::Subscribe { filter, .. } => filter.begins_with_dollar(),
    }
}

/// What a client is told that a block rule keeps out; not the rule's reason, which is for operators.
pub const BLOCKED: &str = "a block rule of the cluster keeps this client out";

/// The rule that keeps `client` out at this moment, if one does.
pub fn blocked_by<'a>(
    cluster: &'a DesiredCluster,
    client: &AccessClient<'_>,
    now: Timestamp,
) -> Option<&'a BlockRule> {
    cluster.access.block_rules.iter().find(|rule| rule.holds_for(client, now))
}

/// How many topics of connections are remembered with what was decided of them; past it the memory is
/// emptied and filled anew. An entry is some 40 bytes and the topic.
const DECISIONS_MAX: usize = 65_536;

/// What was decided of publishing to a topic, for each connection: who a connection is does not change
/// while it lasts. To be emptied when the rules change.
#[derive(Debug, Default)]
pub struct Decisions {
    known: HashTable<Decided>,
    hasher: foldhash::fast::RandomState,
}

#[derive(Debug)]
struct Decided {
    conn: u64,
    topic: Box<str>,
    /// A bit for each way of publishing there: whether it was asked.
    asked: u8,
    /// Whether it may be done.
    permitted: u8,
}

/// The bit of a way of publishing.
fn way(qos: QoS, retain: bool) -> u8 {
    1 << (u8::from(qos) * 2 + u8::from(retain))
}

impl Decisions {
    /// What was decided, if it was. Takes one look-up and no memory.
    pub fn get(&self, conn: u64, topic: &str, qos: QoS, retain: bool) -> Option<bool> {
        let found = self.known.find(self.hash(conn, topic), |known| known.is(conn, topic))?;
        let way = way(qos, retain);
        (found.asked & way != 0).then_some(found.permitted & way != 0)
    }

    /// Remembers what was decided.
    pub fn put(&mut self, conn: u64, topic: &str, qos: QoS, retain: bool, permitted: bool) {
        let (hash, way) = (self.hash(conn, topic), way(qos, retain));
        if let Some(found) = self.known.find_mut(hash, |known| known.is(conn, topic)) {
            found.asked |= way;
            found.permitted |= if permitted { way } else { 0 };
            return;
        }
        if self.known.len() >= DECISIONS_MAX {
            self.known.clear();
        }
        let decided =
            Decided { conn, topic: topic.into(), asked: way, permitted: if permitted { way } else { 0 } };
        let hasher = &self.hasher;
        self.known.insert_unique(hash, decided, |known| hasher.hash_one((known.conn, &*known.topic)));
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        // Not only emptied: a cluster whose policies were deleted needs no memory for them.
        self.known = HashTable::new();
    }

    fn hash(&self, conn: u64, topic: &str) -> u64 {
        self.hasher.hash_one((conn, topic))
    }
}

impl Decided {
    fn is(&self, conn: u64, topic: &str) -> bool {
        self.conn == conn && *self.topic == *topic
    }
}

#[cfg(test)]
mod tests;
