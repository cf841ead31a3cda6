//! Shared groups when somebody asks: how far they are, what waits for them, who is a member.
//!
//! What waits in the log is counted as a session's backlog is ([`super::backlog`]): in memory at once, on disk by
//! whoever carries the question there.

use super::Cluster;
use crate::data_plane::broker::shared_group::{Member, SharedGroup};
use crate::data_plane::message_log::{COUNTED_MAX, CountRequest, Counted, Found};
use crate::model::{FilterId, GroupId, Seq, TopicFilter};
use crate::seam::command::CommandError;
use crate::seam::groups::{GroupMember, GroupState};

/// How many members of a group are told.
const MEMBERS_TOLD_MAX: usize = 1_024;

/// What is known of groups from memory.
#[derive(Debug)]
pub struct GroupsTold {
    known: Vec<GroupState>,
    /// For each group which of the counted lists is its.
    lists: Vec<Option<usize>>,
    in_memory: Counted,
    on_disk: Option<CountRequest>,
}

impl GroupsTold {
    /// What is to be counted on disk, if anything.
    pub fn on_disk(&self) -> Option<&CountRequest> {
        self.on_disk.as_ref()
    }

    /// The whole, with what was counted on disk; `None` when that could not be done.
    pub fn complete(self, on_disk: Option<Counted>) -> Vec<GroupState> {
        let Self { mut known, lists, in_memory, on_disk: asked } = self;
        let is_known = asked.is_none() || on_disk.is_some();
        let earlier = on_disk.unwrap_or_else(|| Counted::none(in_memory.each.len()));
        let counted = earlier.and(&in_memory);
        for (group, list) in known.iter_mut().zip(lists) {
            group.lag += list.map_or(0, |list| counted.each[list]);
            group.is_complete = list.is_none() || (is_known && !counted.stopped);
        }
        known
    }
}

impl Cluster {
    /// The next groups whose whole filter comes behind `after`, in byte order.
    pub fn groups_told(&self, after: &str, groups_max: usize) -> GroupsTold {
        self.told_of(&self.groups.listed(after, groups_max))
    }

    /// One group, and its members.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn group_told(&self, share: &TopicFilter) -> Result<(GroupsTold, Vec<GroupMember>), CommandError> {
        let group = self.groups.find(share).ok_or(CommandError::NoSuchGroup)?;
        let id = self.group_of(share.as_str()).ok_or(CommandError::NoSuchGroup)?;
        let members = group.members().iter().take(MEMBERS_TOLD_MAX).map(|member| self.member(id, member));
        Ok((self.told_of(&[group]), members.collect()))
    }

    fn told_of(&self, groups: &[&SharedGroup]) -> GroupsTold {
        let mut cursors: Vec<(FilterId, Seq)> = Vec::new();
        let mut lists = Vec::new();
        for group in groups {
            let reads = group.durable && group.behind;
            lists.push(reads.then_some(cursors.len()));
            cursors.extend(reads.then(|| (group.filter, group.reached())));
        }
        let (in_memory, found) = self.log.count(&cursors, 0, COUNTED_MAX);
        let on_disk = match found {
            Found::InMemory => None,
            Found::OnDisk(through) => Some(self.count_request(&cursors, 0, through)),
        };
        let known = groups.iter().map(|group| self.state_of(group)).collect();
        GroupsTold { known, lists, in_memory, on_disk }
    }

    /// What of a group does not wait in the log.
    fn state_of(&self, group: &SharedGroup) -> GroupState {
        let online = |member: &&Member| self.sessions[member.slot.0 as usize].link.is_some();
        let count = |members: usize| u32::try_from(members).unwrap_or(u32::MAX);
        // Of one that is at the end of the log that is true of the whole log.
        let position = if group.behind { group.reached() } else { self.log.tail() };
        GroupState {
            share: group.share.clone(),
            strategy: self.rules.strategy_of(&group.share),
            position: group.durable.then_some(position),
            lag: group.waiting() as u64,
            is_complete: true,
            unacknowledged: group.unacknowledged() as u64,
            members: count(group.members().len()),
            members_online: count(group.members().iter().filter(online).count()),
        }
    }

    fn member(&self, group: GroupId, member: &Member) -> GroupMember {
        let session = &self.sessions[member.slot.0 as usize];
        let live = session.outbound.exchanges().filter(|it| it.delivery.group == Some(group)).count();
        let frozen = session.outbound.frozen().iter().filter(|it| it.group == Some(group)).count();
        GroupMember {
            client_id: session.client_id.clone(),
            session_id: session.id,
            is_online: session.link.is_some(),
            qos: member.qos,
            unacknowledged: (live + frozen) as u64,
        }
    }
}
