//! What operators order of shared groups: to go on elsewhere in the log, and to end.
//!
//! **Moving.** The end of the log and its beginning are known. The place of a time is searched on disk by halves,
//! one message at a time ([`GroupMove`]): messages lie in the order in which the service took them, so by the
//! clock of the service. That clock may have gone back meanwhile; then the place is one where the time was passed. What
//! members hold and have not acknowledged stays with them; what they have acknowledged and lies behind the
//! new place is handed out again, at QoS 2 too: that is what was ordered.
//!
//! **Ending.** A group lives as long as it has members (PRODUCT S-4), so ending it takes the subscription away from
//! each of them, as their own UNSUBSCRIBE would. They are not told; MQTT has no word for it.

use super::browse::{Answer, DiskQuestion};
use super::deliver::keys_of;
use super::{Cluster, CommandId};
use crate::data_plane::broker::Slot;
use crate::data_plane::message_log::LogEntry;
use crate::model::{Now, Seq, Timestamp, TopicFilter};
use crate::seam::command::{CommandError, SessionRef};
use crate::seam::groups::GroupPlace;

/// A group on its way to another place.
#[derive(Debug)]
pub struct GroupMove {
    share: TopicFilter,
    to: GroupPlace,
    /// Between which positions the place of a time lies.
    bounds: Option<(Seq, Seq)>,
}

impl GroupMove {
    /// A move that has not begun.
    pub fn new(share: TopicFilter, to: GroupPlace) -> Self {
        Self { share, to, bounds: None }
    }

    /// Takes the first message behind the middle of the bounds, if there is one.
    pub fn take(&mut self, entries: &[LogEntry]) {
        let (GroupPlace::Time(time), Some((low, high))) = (self.to, self.bounds.as_mut()) else { return };
        match entries.first() {
            Some(entry) if entry.message.published_at < time => *low = entry.place.seq.min(*high),
            _ => *high = middle(*low, *high),
        }
    }

    /// Where it is to go on behind, if that is known.
    fn place(&mut self, tail: Seq, durable: Seq, now: Timestamp) -> Option<Seq> {
        match self.to {
            GroupPlace::Now => Some(tail),
            GroupPlace::Earliest => Some(Seq::ZERO),
            GroupPlace::Time(time) if time > now => Some(tail),
            GroupPlace::Time(_) => {
                let (low, high) = *self.bounds.get_or_insert((Seq::ZERO, durable));
                (low >= high).then_some(low)
            }
        }
    }
}

fn middle(low: Seq, high: Seq) -> Seq {
    Seq(low.0 + (high.0 - low.0) / 2)
}

impl Cluster {
    /// Moves a group, when it is known where to. What is written down with it must be durable before it is told.
    ///
    /// # Errors
    /// When there is no such group, or its messages are not in the log.
    pub fn move_group(&mut self, now: Now, order: &mut GroupMove) -> Result<Answer<Seq>, CommandError> {
        let Self { groups, log, index, .. } = self;
        let group = groups.find(&order.share).ok_or(CommandError::NoSuchGroup)?;
        if !group.durable {
            return Err(CommandError::GroupNotKept);
        }
        let Some(place) = order.place(log.tail(), log.durable(), now.wall) else {
            let (low, through) = order.bounds.unwrap_or_default();
            let after = keys_of(&[(group.filter, middle(low, through))], index);
            return Ok(Answer::OnDisk(DiskQuestion { after, through, messages_max: 1 }));
        };
        if place < group.reached() {
            log.reopen(group.filter);
        }
        let id = self.group_of(order.share.as_str()).ok_or(CommandError::NoSuchGroup)?;
        if let Some(group) = self.groups.get_mut(id) {
            group.move_to(place);
        }
        let saved = self.save_group(id);
        self.serve_group(now, id);
        if saved {
            return Ok(Answer::Known(place));
        }
        // Too much of it is unacknowledged for one fact: it is written down when that is less.
        self.groups.is_unsaved(id);
        Err(CommandError::TimedOut)
    }

    /// Ends a group. The answer comes in [`Effects::answers`](super::Effects) once the records of its members are
    /// committed; it names the first of them.
    ///
    /// # Errors
    /// When there is no such group, or it has members and they are not to be asked. Nothing is done then.
    pub fn end_group(
        &mut self,
        now: Now,
        id: CommandId,
        share: &TopicFilter,
        force: bool,
    ) -> Result<u32, CommandError> {
        let group = self.groups.find(share).ok_or(CommandError::NoSuchGroup)?;
        let slots: Vec<Slot> = group.members().iter().map(|member| member.slot).collect();
        let members = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        if !force {
            return Err(CommandError::GroupHasMembers { members });
        }
        let first = slots.first().map(|slot| self.session(*slot));
        let met = first.map(|session| SessionRef {
            session_id: session.id,
            epoch: session.epoch,
            was_online: session.link.is_some(),
            was_subscribed: true,
        });
        let written = slots.iter().any(|slot| self.sessions[slot.0 as usize].durable);
        for slot in slots {
            if self.unsubscribe_one(slot, share) {
                self.tell_unsubscribed(now, slot, share);
                self.save(slot);
            }
        }
        if let Some(met) = met {
            self.prove(id, met, None, written);
        }
        Ok(members)
    }
}
