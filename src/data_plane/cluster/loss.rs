//! What sessions lose when the log lets go of messages that they still had to read (PRODUCT S-14).
//!
//! It is counted filter by filter from the table of the segment that goes. Exact is what a session loses whose
//! position lies before the segment and whose filters do not overlap. Else it is an upper bound: all
//! of the segment's messages under a filter count for a session that stands in the midst of it, and a message
//! that two of its filters match counts twice. Messages that had expired, or that no local keeps
//! from it, count too. What was under way to it and is found gone when it returns is counted then, exactly.
//!
//! Counts of sessions are written down with their progress; the cluster's, which also has what shared groups
//! lose, is of this process.

use super::Cluster;
use crate::data_plane::broker::Slot;
use crate::data_plane::session::Session;
use crate::data_plane::session::progress::Frozen;
use crate::model::{FilterId, FilterKey, Seq};

/// Messages of one filter in a segment that goes.
#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    /// Which filter.
    pub filter: FilterKey,
    /// The position of its last message there.
    pub last: Seq,
    /// How many there are.
    pub messages: u64,
    /// The position of the cluster's last message in the segment.
    pub segment_last: Seq,
}

impl Cluster {
    /// Counts who loses what of one filter. Returns how many readers were looked at.
    pub fn count_loss(&mut self, leaving: Leaving) -> usize {
        let Self { sessions, index, log, groups, unsaved, lost_messages, .. } = self;
        let found = index.by_key(leaving.filter);
        let Some((filter, entry)) = found.and_then(|id| Some((id, index.filter(id)?))) else { return 1 };
        let losing_groups = groups.reading(entry.groups()).filter(|group| group.reached() < leaving.last);
        *lost_messages += leaving.messages * losing_groups.count() as u64;
        let tail = log.tail();
        for subscriber in entry.subscribers().iter().filter(|subscriber| subscriber.reads_log) {
            let session = &mut sessions[subscriber.slot.0 as usize];
            if behind(session, filter, tail, &leaving) < leaving.last {
                session.outbound.trimmed.get_or_insert_default().add(leaving.messages, leaving.segment_last);
                *lost_messages += leaving.messages;
                note(session, subscriber.slot, unsaved);
            }
        }
        entry.subscribers().len() + 1
    }

    /// What lies at or before `last` is gone: whoever still had to read it goes on behind.
    pub fn let_go_through(&mut self, last: Seq) {
        self.log.let_go_through(last);
    }

    /// How many messages were lost so since the process started: one for each session and group that
    /// lost it.
    pub fn lost_messages(&self) -> u64 {
        self.lost_messages
    }

    /// Exchanges of a session whose messages were found gone.
    pub(super) fn count_lost_exchanges(&mut self, slot: Slot, lost: &[Frozen]) {
        let Self { sessions, unsaved, lost_messages, .. } = self;
        let count = lost.iter().filter(|exchange| exchange.group.is_none()).count() as u64;
        if count > 0 {
            let session = &mut sessions[slot.0 as usize];
            session.outbound.trimmed.get_or_insert_default().messages += count;
            *lost_messages += count;
            note(session, slot, unsaved);
        }
    }
}

/// Up to where a session has read under a filter, or has lost it in an earlier segment.
fn behind(session: &mut Session, filter: FilterId, tail: Seq, leaving: &Leaving) -> Seq {
    if session.link.as_ref().is_some_and(|link| link.caught_up) {
        session.outbound.position = tail;
    }
    let held = session.subscriptions.iter().find(|held| held.filter == filter && held.group.is_none());
    // Not there: it is not a reader.
    let start = held.map_or(tail, |held| held.start);
    let trimmed = session.outbound.trimmed.as_ref();
    let counted = trimmed.map_or(Seq::ZERO, |it| it.counted_before(leaving.segment_last));
    session.outbound.position.max(start).max(counted)
}

/// Has the count written down with the session's progress.
fn note(session: &mut Session, slot: Slot, unsaved: &mut Vec<Slot>) {
    if !session.unsaved {
        session.unsaved = true;
        unsaved.push(slot);
    }
}
