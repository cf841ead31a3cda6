//! When a session's progress and exchanges are written down (PRODUCT S-3, S-12).
//!
//! A step of QoS 2 is written down with the turn that takes it, and its packet is held until then; so is a
//! step through the retained messages that are owed, in one piece with the exchange that it begins. Other
//! progress at QoS 1 follows within [`SAVE_MILLIS`] while the client is connected, and at once when it goes:
//! what a crash takes back of it is delivered again.

use smallvec::SmallVec;

use super::{Cluster, facts};
use crate::data_plane::broker::Slot;
use crate::data_plane::message_log::Change;
use crate::data_plane::session::outbound::Phase;
use crate::data_plane::session::progress::{Frozen, Note};
use crate::data_plane::session::{HeldSubscription, Session};
use crate::model::{FilterKey, GroupId, Now, Seq};

/// How late progress may be written down (DESIGN 3).
const SAVE_MILLIS: u64 = 200;

/// A group that has more handed out and unacknowledged than this is written down when it has less: one
/// fact must not grow without bound. A crash meanwhile hands more out again.
const MISSING_MAX: usize = 50_000;

impl Cluster {
    /// The turn ends: writes down what a touched session has noted in it.
    pub(super) fn write_down(&mut self, slot: Slot) {
        let Some(session) = self.sessions.get_mut(slot.0 as usize) else { return };
        if session.durable && session.outbound.has_changed() && !session.unsaved {
            session.unsaved = true;
            self.unsaved.push(slot);
        }
        let session = &mut self.sessions[slot.0 as usize];
        if session.notes.is_empty() {
            return;
        }
        // In one piece with where the session stands: else after a crash it would read a message again that
        // is under way, or done.
        let moves = session.notes.iter().any(|note| !matches!(note, Note::Released(_)));
        let mut changes = self.noted(slot);
        if moves {
            changes.push(self.progress_of(slot));
        }
        self.journal.change(changes);
    }

    /// Everything that a session has noted.
    fn noted(&mut self, slot: Slot) -> Vec<Change> {
        let session = &mut self.sessions[slot.0 as usize];
        let notes = std::mem::take(&mut session.notes);
        session.is_written_down |= !notes.is_empty();
        let mut changes: Vec<Change> = notes.iter().filter_map(|note| self.change_of(slot, *note)).collect();
        self.bind_to_session(slot, &notes);
        changes.extend(self.progress_of_groups(slot, &notes));
        changes
    }

    /// From here on what is on disk says that the session has these messages of shared groups.
    fn bind_to_session(&mut self, slot: Slot, notes: &[Note]) {
        let Self { sessions, groups, .. } = self;
        let outbound = &sessions[slot.0 as usize].outbound;
        for note in notes {
            if let Note::Exchange(packet_id) = note
                && let Some(exchange) = outbound.exchange(*packet_id)
                && let (Some(group), Some(place)) = (exchange.delivery.group, exchange.delivery.place)
            {
                groups.binds(group, place.seq);
            }
        }
    }

    /// How far the shared groups have come whose messages have been received at QoS 2. From here on the
    /// exchange no longer tells which message it was, and so not that it was handed out.
    fn progress_of_groups(&self, slot: Slot, notes: &[Note]) -> SmallVec<[Change; 1]> {
        let outbound = &self.sessions[slot.0 as usize].outbound;
        let mut groups: SmallVec<[GroupId; 1]> = SmallVec::new();
        for note in notes {
            if let Note::Exchange(packet_id) = note
                && let Some(exchange) = outbound.exchange(*packet_id)
                && exchange.phase == Phase::Released
                && let Some(group) = exchange.delivery.group
                && !groups.contains(&group)
            {
                groups.push(group);
            }
        }
        groups.into_iter().filter_map(|group| self.group_change(group)).collect()
    }

    /// What a note is on disk.
    fn change_of(&self, slot: Slot, note: Note) -> Option<Change> {
        let session = &self.sessions[slot.0 as usize];
        match note {
            Note::Released(packet_id) => Some(facts::released(session.id, packet_id)),
            Note::ExchangeOver(packet_id) => Some(facts::exchange_over(session.id, packet_id)),
            Note::Owed(filter) => Some(owed_of(session, filter)),
            Note::Exchange(packet_id) => {
                // Gone already if it also ended in this turn.
                let frozen = session.outbound.written_form(packet_id)?;
                let share = frozen.group.and_then(|group| share_of(session, group));
                Some(facts::exchange(session.id, &frozen, share))
            }
        }
    }

    /// Writes down progress that has waited long enough.
    pub(super) fn save_progress(&mut self, now: Now) {
        if now.mono.since(self.saved_at).as_millis() < u128::from(SAVE_MILLIS) {
            return;
        }
        self.saved_at = now.mono;
        for slot in std::mem::take(&mut self.unsaved) {
            // Saved since, or gone.
            if self.sessions.get(slot.0 as usize).is_some_and(|session| session.unsaved) {
                self.save(slot);
            }
        }
        for group in self.groups.take_unsaved() {
            let _ = self.save_group(group);
        }
    }

    /// Writes down how far a session has come, with what it has noted. Only what is there to be read again
    /// counts: a session that does not outlive its connection has nothing to save.
    pub(super) fn save(&mut self, slot: Slot) {
        if self.sessions[slot.0 as usize].durable {
            let mut changes = self.noted(slot);
            changes.push(self.progress_of(slot));
            self.journal.change(changes);
        }
    }

    fn progress_of(&mut self, slot: Slot) -> Change {
        let tail = self.log.tail();
        let session = &mut self.sessions[slot.0 as usize];
        session.unsaved = false;
        if session.link.as_ref().is_some_and(|link| link.caught_up) {
            session.outbound.position = tail;
        }
        let progress = session.outbound.progress();
        let filter = |held: &HeldSubscription| {
            let own = held.group.is_none() && held.start > progress.position;
            let start = if own { held.start } else { Seq::ZERO };
            (FilterKey::of(held.subscription.filter.as_str()), start)
        };
        let filters: Vec<(FilterKey, Seq)> = session.subscriptions.iter().map(filter).collect();
        session.is_written_down = true;
        facts::progress(session.id, &progress, &filters)
    }

    /// Writes down how far a group has come. Returns whether that could be done now.
    pub(super) fn save_group(&mut self, id: GroupId) -> bool {
        let change = self.group_change(id);
        let saved = change.is_some();
        self.journal.change(change.into_iter().collect());
        saved
    }

    fn group_change(&self, id: GroupId) -> Option<Change> {
        let (share, position, missing) = self.groups.progress(id)?;
        (missing.len() <= MISSING_MAX).then(|| facts::group(share, position, &missing))
    }

    /// Writes down how far the groups have come that a session is a member of.
    pub(super) fn save_groups_of(&mut self, slot: Slot) {
        let groups: SmallVec<[GroupId; 4]> =
            self.sessions[slot.0 as usize].subscriptions.iter().filter_map(|held| held.group).collect();
        for group in groups {
            let _ = self.save_group(group);
        }
    }

    /// A session has lost its connection: writes its progress down, and lets go of its messages.
    pub(super) fn fall_asleep(&mut self, slot: Slot) {
        self.write_down(slot);
        if self.sessions[slot.0 as usize].outbound.has_changed() {
            self.save(slot);
        }
        self.sessions[slot.0 as usize].outbound.freeze();
    }

    /// An exchange whose message is gone is over.
    pub(super) fn forget_lost(&mut self, slot: Slot, lost: &[Frozen]) {
        let id = self.sessions[slot.0 as usize].id;
        self.journal.change(lost.iter().map(|lost| facts::exchange_over(id, lost.packet_id())).collect());
    }
}

/// What is owed of a filter's retained messages.
fn owed_of(session: &Session, filter: FilterKey) -> Change {
    let owed = session.replays.iter().find(|replay| replay.is_written_down && replay.key() == filter);
    match owed {
        Some(replay) => facts::owed(session.id, filter, replay.age, replay.after.as_deref()),
        None => facts::not_owed(session.id, filter),
    }
}

/// The whole filter by which a session is a member of a group.
fn share_of(session: &Session, group: GroupId) -> Option<&str> {
    let held = session.subscriptions.iter().find(|held| held.group == Some(group))?;
    Some(held.subscription.filter.as_str())
}
