//! PURE. One cluster: its sessions, broker and message log put together.
//!
//! A [`Cluster`] is told the time and what happened (a CONNECT, packets, a connection gone, a record
//! committed, an order from the API) and changes itself. What should happen outside it collects as
//! [`Effects`], which the runtime carries out after each turn; bytes wait in each session's link. So
//! the whole broker runs in one thread under a virtual clock.
//!
//! It never waits. What must not be answered before a record is committed (CONNACK of a persistent
//! session, SUBACK, an order from the API) is put aside under a ticket and answered when the runtime
//! reports the ticket ([`Cluster::record_committed`]). What must not be seen before it is on disk is held
//! back in the connections' output ([`journal`]).
//!
//! One file for each thing that can happen: [`attach`], [`automatic`], [`packets`], [`enhance`], [`publish`],
//! [`deliver`], [`subscribe`], [`share`] (of [`groups`]), [`group_orders`], [`detach`], [`orders`], [`shed`],
//! [`on_behalf`], [`users`], [`access`], [`settings`], [`time_passes`], [`trim`], [`loss`], [`restore`]. What it counts and tells of itself:
//! [`backlog`], [`browse`], [`groups_told`], [`counters`], [`events`], [`system_topics`]; what it does not take:
//! [`limits`], [`throttle`]; whom it does not let in: [`verdict`].

mod access;
mod attach;
mod automatic;
mod backlog;
mod browse;
mod counters;
mod deliver;
mod detach;
mod effects;
mod enhance;
mod events;
mod facts;
mod group_orders;
mod groups;
mod groups_told;
mod journal;
mod limits;
mod loss;
mod on_behalf;
mod orders;
mod owed;
mod packets;
mod pending;
mod publish;
mod restore;
mod save;
mod settings;
mod share;
mod shed;
mod subscribe;
mod system_topics;
#[cfg(test)]
mod tests;
mod throttle;
mod time_passes;
mod trim;
mod users;
mod verdict;

use std::collections::BTreeSet;
use std::sync::Arc;

use access::Expelled;
pub use attach::ConnectRequest;
pub use backlog::{Behind, Traffic};
pub use browse::{Answer, Browse, DiskQuestion};
pub use deliver::{ColdRead, Reader};
pub use effects::{CommandId, Effects, Farewell, RecordOutcome, WriteTicket};
pub use group_orders::GroupMove;
use groups::Groups;
pub use groups_told::GroupsTold;
use journal::Journal;
pub use limits::USER_PROPERTY_BYTES_MAX;
pub use loss::Leaving;
pub use orders::Order;
pub use pending::Attachment;
use pending::Pending;
use publish::FanOut;
pub use restore::Memory;
use slab::Slab;
use system_topics::Told;
use throttle::Throttle;
use trim::Trimming;

use super::broker::Slot;
use super::broker::authorization::Decisions;
use super::broker::flapping::FlappingGuard;
use super::broker::registry::Registry;
use super::broker::retained::Retained;
use super::broker::subscription_index::SubscriptionIndex;
use super::message_log::{ClusterNo, RecentLog};
use super::session::Session;
use super::session::link::ConnId;
use super::session::output::Output;
use crate::model::{ClusterId, DesiredCluster, MessageCounters, Monotonic, Quota, SessionCounts, Timestamp};

/// Whether a topic name or filter keeps within the limits (PRODUCT Q-9); if not, why, for people.
fn topic_within_limits(text: &str, levels: usize) -> Result<(), String> {
    let (bytes_max, levels_max) = (Quota::TOPIC_BYTES_MAX, Quota::TOPIC_LEVELS_MAX);
    if text.len() > bytes_max {
        Err(format!("limit topic_bytes: at most {bytes_max}, this topic has {}", text.len()))
    } else if levels > levels_max {
        Err(format!("limit topic_levels: at most {levels_max}, this topic has {levels}"))
    } else {
        Ok(())
    }
}

/// One cluster's sessions and what they share.
#[derive(Debug)]
pub struct Cluster {
    groups: Groups,
    /// What the control plane wants enforced.
    rules: Arc<DesiredCluster>,
    sessions: Slab<Session>,
    registry: Registry,
    index: SubscriptionIndex,
    retained: Retained,
    log: RecentLog,
    journal: Journal,
    /// Sessions whose progress is to be written down.
    unsaved: Vec<Slot>,
    /// Sessions with a connection, for what is looked at in turn.
    online: Vec<Slot>,
    /// Delayed wills in the order in which they fall due.
    wills: BTreeSet<(Timestamp, Slot)>,
    pending: Pending,
    effects: Effects,
    fan_out: FanOut,
    /// What clients may publish, as far as it was asked.
    decisions: Decisions,
    /// Connections that block rules ended.
    expelled: Expelled,
    trimming: Trimming,
    throttle: Throttle,
    flapping: FlappingGuard,
    /// Whether somebody is owed retained messages that wait for room on the disk.
    owed_waits: bool,
    /// Messages sent that are not counted against the cluster's rate yet.
    sent_uncharged: u64,
    /// What connections that have ended had counted, and shared groups.
    ended_counters: MessageCounters,
    /// How many messages the log let go of that somebody still had to read.
    lost_messages: u64,
    /// How many values rules could not add to messages.
    values_left_out: u64,
    /// How many CONNECTs were let in since the process started.
    connects: u64,
    /// What was last told of the cluster itself.
    told: Told,
    /// Whether the last record could not be committed: new persistent sessions are then refused
    /// before anything is changed.
    store_away: bool,
    /// When the connections were last looked at.
    swept_at: Monotonic,
    /// When progress was last written down.
    saved_at: Monotonic,
}

impl Cluster {
    /// A cluster without sessions. `seed` decides which members of shared groups get what.
    pub fn new(rules: Arc<DesiredCluster>, no: ClusterNo, log: RecentLog, seed: u64) -> Self {
        Self {
            journal: Journal::new(no),
            unsaved: Vec::new(),
            saved_at: Monotonic::default(),
            groups: Groups::new(seed),
            rules,
            sessions: Slab::new(),
            registry: Registry::default(),
            index: SubscriptionIndex::default(),
            retained: Retained::default(),
            log,
            online: Vec::new(),
            wills: BTreeSet::new(),
            pending: Pending::default(),
            effects: Effects::default(),
            fan_out: FanOut::default(),
            decisions: Decisions::default(),
            expelled: Expelled::default(),
            trimming: Trimming::default(),
            throttle: Throttle::default(),
            flapping: FlappingGuard::default(),
            owed_waits: false,
            sent_uncharged: 0,
            ended_counters: MessageCounters::default(),
            lost_messages: 0,
            values_left_out: 0,
            connects: 0,
            told: Told::default(),
            store_away: false,
            swept_at: Monotonic::default(),
        }
    }

    /// Which cluster it is.
    pub fn id(&self) -> &ClusterId {
        &self.rules.id
    }

    /// How many sessions there are, exact as of the last [`Cluster::time_passes`].
    pub fn counts(&self) -> SessionCounts {
        self.registry.counts()
    }

    /// How many subscriptions there are.
    pub fn subscription_count(&self) -> u32 {
        self.index.len()
    }

    /// Under how many names something is shared (PRODUCT Q-10).
    pub fn share_name_count(&self) -> u32 {
        self.groups.names.len()
    }

    /// What the cluster's messages may take in the log, in bytes (PRODUCT Q-10).
    pub fn log_bytes_max(&self) -> Option<u64> {
        self.rules.quota.log_mib.map(|mib| u64::from(mib) * 1_024 * 1_024)
    }

    /// Ends the turn: what is to be done outside since the last call.
    pub fn take_effects(&mut self) -> Effects {
        self.end_turn();
        std::mem::take(&mut self.effects)
    }

    /// The output of a session that may leave since the last call, for its connection.
    pub fn output(&mut self, slot: Slot) -> Option<(ConnId, &mut Output)> {
        let (conn, outgoing) = self.settled(slot)?;
        Some((conn, outgoing.free()))
    }

    /// The session in a slot that is known to be taken.
    fn session(&mut self, slot: Slot) -> &mut Session {
        &mut self.sessions[slot.0 as usize]
    }

    /// Lists a session's output for the end of the turn.
    fn touch(&mut self, slot: Slot) {
        let Self { sessions, effects, .. } = self;
        effects.touch(slot, &mut sessions[slot.0 as usize]);
    }
}
