//! The shared groups of a cluster, by their names and by their filters.

use std::collections::{HashMap, HashSet};

use crate::data_plane::broker::Slot;
use crate::data_plane::broker::share_names::ShareNames;
use crate::data_plane::broker::shared_group::SharedGroup;
use crate::data_plane::broker::subscription_index::SubscriptionIndex;
use crate::model::{GroupId, Seq, TopicFilter};

/// The shared groups of a cluster.
#[derive(Debug)]
pub(super) struct Groups {
    by_id: HashMap<GroupId, SharedGroup, foldhash::fast::RandomState>,
    /// By the whole filter, `$share/{name}/…`.
    by_filter: HashMap<TopicFilter, GroupId, foldhash::fast::RandomState>,
    last_id: u64,
    /// What is shared under each name, as the quota counts it.
    pub(super) names: ShareNames,
    /// Groups whose progress is to be written down.
    unsaved: HashSet<GroupId, foldhash::fast::RandomState>,
    /// State of the generator that picks members; not for secrets.
    random: u64,
}

impl Groups {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            by_id: HashMap::default(),
            by_filter: HashMap::default(),
            last_id: 0,
            names: ShareNames::default(),
            unsaved: HashSet::default(),
            random: seed | 1,
        }
    }

    /// A group.
    pub(super) fn get(&self, id: GroupId) -> Option<&SharedGroup> {
        self.by_id.get(&id)
    }

    /// The groups among `ids` that read the log.
    pub(super) fn reading(&self, ids: &[GroupId]) -> impl Iterator<Item = &SharedGroup> {
        ids.iter().filter_map(|id| self.by_id.get(id)).filter(|group| group.durable)
    }

    /// A group's progress is to be written down when it can be.
    pub(super) fn is_unsaved(&mut self, id: GroupId) {
        self.unsaved.insert(id);
    }

    /// A group that is to change.
    pub(super) fn get_mut(&mut self, id: GroupId) -> Option<&mut SharedGroup> {
        self.by_id.get_mut(&id)
    }

    /// The group with this whole filter.
    pub(super) fn find(&self, share: &TopicFilter) -> Option<&SharedGroup> {
        self.get(self.id_of(share)?)
    }

    /// The id of the group with this whole filter.
    pub(super) fn id_of(&self, share: &TopicFilter) -> Option<GroupId> {
        self.by_filter.get(share).copied()
    }

    /// The groups that something waits for.
    pub(super) fn behind(&self) -> Vec<GroupId> {
        self.by_id.iter().filter(|(_, group)| group.behind).map(|(id, _)| *id).collect()
    }

    /// The next `limit` groups whose whole filter comes behind `after`, in byte order.
    pub(super) fn listed(&self, after: &str, limit: usize) -> Vec<&SharedGroup> {
        let mut listed: Vec<&SharedGroup> =
            self.by_id.values().filter(|group| group.share.as_str() > after).collect();
        listed.sort_unstable_by(|a, b| a.share.as_str().cmp(b.share.as_str()));
        listed.truncate(limit);
        listed
    }

    /// Whether a member gets nothing for now, because it may not subscribe.
    pub(super) fn set_muted(&mut self, id: GroupId, slot: Slot, muted: bool) {
        if let Some(group) = self.by_id.get_mut(&id) {
            group.set_muted(slot, muted);
        }
    }

    /// The groups whose progress has changed since the last call.
    pub(super) fn take_unsaved(&mut self) -> HashSet<GroupId, foldhash::fast::RandomState> {
        std::mem::take(&mut self.unsaved)
    }

    /// How far a group that reads the log has come: its whole filter, its position, and what up to
    /// there must be handed out again should nobody acknowledge it.
    pub(super) fn progress(&self, id: GroupId) -> Option<(&TopicFilter, Seq, Vec<Seq>)> {
        let group = self.by_id.get(&id).filter(|group| group.durable)?;
        Some((&group.share, group.reached(), group.missing()))
    }

    /// The exchange by which a session has a group's message is written down.
    pub(super) fn binds(&mut self, id: GroupId, seq: Seq) {
        if let Some(group) = self.by_id.get_mut(&id) {
            group.binds(seq);
        }
    }

    /// What a group asked for could not be read.
    pub(super) fn stops_reading(&mut self, id: GroupId) {
        if let Some(group) = self.by_id.get_mut(&id) {
            // What it was moved to meanwhile is read when there is a reason to.
            let _ = group.has_read();
        }
    }

    /// Begins the group with this whole filter, at `tail`.
    pub(super) fn begin(&mut self, share: &TopicFilter, index: &mut SubscriptionIndex, tail: Seq) -> GroupId {
        self.last_id += 1;
        let id = GroupId(self.last_id);
        self.names.filter_begins(share);
        let filter = index.put_group(share, id);
        self.by_id.insert(id, SharedGroup::new(share.clone(), filter, tail));
        self.by_filter.insert(share.clone(), id);
        id
    }

    /// A session leaves a group for good. The group without it, if there is one.
    pub(super) fn leave(&mut self, id: GroupId, slot: Slot) -> Option<&SharedGroup> {
        let group = self.by_id.get_mut(&id)?;
        group.leave(slot);
        self.names.member_leaves(&group.share, slot);
        Some(group)
    }

    /// Forgets a group that nobody is left in.
    pub(super) fn end(&mut self, id: GroupId) {
        if let Some(group) = self.by_id.remove(&id) {
            self.names.filter_ends(&group.share);
            self.by_filter.remove(&group.share);
        }
    }

    /// From here on the group's messages come from the log.
    pub(super) fn make_durable(&mut self, id: GroupId, index: &mut SubscriptionIndex, tail: Seq) {
        if let Some(group) = self.by_id.get_mut(&id).filter(|group| !group.durable) {
            group.make_durable(tail);
            index.group_reads_log(group.filter);
        }
    }

    /// Xorshift: cheap, and good enough to spread messages.
    pub(super) fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}
