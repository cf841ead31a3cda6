//! What waits for a session: exchanges to go on with, retained messages owed, its queue, and the log
//! behind its position.

use std::collections::HashMap;

use super::Cluster;
use super::effects::Effects;
use super::pending::Attachment;
use crate::data_plane::broker::Slot;
use crate::data_plane::broker::subscription_index::SubscriptionIndex;
use crate::data_plane::message_log::{Found, LogEntry};
use crate::data_plane::session::Session;
use crate::data_plane::session::outbound::Delivery;
use crate::data_plane::session::progress::Frozen;
use crate::data_plane::session::transmit::Sent;
use crate::model::{FilterId, FilterKey, GroupId, Now, Place, Seq};

/// How many messages are read from the log at a time.
const READ_AT_ONCE: usize = 64;

impl Cluster {
    /// Sends as much as there is room for, earliest first (PRODUCT S-2). Once the end of the log is
    /// reached the session is caught up, in the same step: nothing lies between.
    pub(super) fn catch_up(&mut self, now: Now, slot: Slot) {
        let Some(link) = self.session(slot).link.as_ref().filter(|link| link.takes_messages()) else {
            return;
        };
        let sent_before = link.counters.sent;
        if self.thaw(now, slot)
            && self.session(slot).resume_exchanges(now)
            && self.send_owed(now, slot)
            && self.send_queue(now, slot)
        {
            self.send_from_log(now, slot);
        }
        self.sent_uncharged += self.session(slot).sent_since(sent_before);
        self.serve_groups_of(now, slot);
    }

    /// Messages that are not in the log. Returns whether none is left.
    fn send_queue(&mut self, now: Now, slot: Slot) -> bool {
        let session = self.session(slot);
        while let Some(delivery) = session.outbound.dequeue() {
            if let Sent::NoRoom(delivery) = session.send_assured(now, delivery, None) {
                session.outbound.requeue(delivery);
                return false;
            }
        }
        true
    }

    fn send_from_log(&mut self, now: Now, slot: Slot) {
        let Self { sessions, log, index, effects, .. } = self;
        let session = &mut sessions[slot.0 as usize];
        if !session.durable || session.link.as_ref().is_none_or(|link| link.caught_up || link.reading) {
            return;
        }
        let (mut cursors, mut entries) = (Vec::new(), Vec::new());
        loop {
            cursors.clear();
            entries.clear();
            session.log_cursors(&mut cursors);
            if let Found::OnDisk(through) = log.read(&cursors, READ_AT_ONCE, &mut entries) {
                // Asked first: what is read and cannot be sent was read for nothing.
                if session.has_room() {
                    let after = keys_of(&cursors, index);
                    ask(session, slot, effects, |attachment| Reader::Session { attachment }, after, through);
                }
                return;
            }
            if entries.is_empty() {
                session.outbound.position = log.tail();
                if let Some(link) = session.link.as_mut() {
                    link.caught_up = true;
                }
                return;
            }
            if !send_entries(now, session, &entries) {
                return;
            }
        }
    }

    /// A returning session fetches the messages of its exchanges. Returns whether it has them.
    fn thaw(&mut self, now: Now, slot: Slot) -> bool {
        let Self { sessions, log, effects, .. } = self;
        let session = &mut sessions[slot.0 as usize];
        if session.outbound.frozen().is_empty() {
            return true;
        }
        let Some(link) = session.link.as_mut().filter(|link| !link.reading) else { return false };
        let behind = |place: &Place| place.seq > link.fetched.through && log.get(place.seq).is_none();
        let missing: Vec<Place> =
            session.outbound.frozen().iter().filter_map(Frozen::place).filter(behind).collect();
        if let Some(through) = missing.iter().map(|place| place.seq).max() {
            let after = before_each(&missing);
            ask(session, slot, effects, |attachment| Reader::Exchanges { attachment }, after, through);
            return false;
        }
        let fetched = std::mem::take(&mut link.fetched).messages;
        let message = |place: Place| log.get(place.seq).or_else(|| fetched.get(&place.seq)).cloned();
        let lost = session.outbound.thaw(message);
        self.forget_lost(slot, &lost);
        self.count_lost_exchanges(slot, &lost);
        let oversized = self.session(slot).drop_oversized(now);
        for delivery in oversized.iter().filter_map(Delivery::of_group) {
            self.consumed_by_group(&delivery);
        }
        true
    }

    /// What was asked for could not be read: whoever asked tries again when there is a reason to.
    pub fn reading_failed(&mut self, reader: Reader) {
        match reader {
            Reader::Session { attachment } | Reader::Exchanges { attachment } => {
                let link = self.attached_session(attachment).and_then(|session| session.link.as_mut());
                if let Some(link) = link {
                    link.reading = false;
                }
            }
            Reader::Group { group } => self.groups.stops_reading(group),
            // Answered where it was asked.
            Reader::Asked { .. } => {}
        }
    }

    /// Messages were read from disk for `reader`, in order. All there are up to `through` are among them.
    pub fn read_from_disk(&mut self, now: Now, reader: Reader, mut entries: Vec<LogEntry>, through: Seq) {
        let attachment = match reader {
            Reader::Session { attachment } | Reader::Exchanges { attachment } => attachment,
            Reader::Group { group } => return self.read_for_group(now, group, &mut entries, through),
            Reader::Asked { .. } => return,
        };
        let slot = attachment.slot;
        let Some(session) = self.attached_session(attachment) else { return };
        let Some(link) = session.link.as_mut() else { return };
        link.reading = false;
        if let Reader::Exchanges { .. } = reader {
            let wanted = |seq| session.outbound.frozen().iter().any(|exchange| exchange.lies_at(seq));
            let messages = entries.into_iter().filter(|entry| wanted(entry.place.seq));
            link.fetched.messages.extend(messages.map(|entry| (entry.place.seq, entry.message)));
            link.fetched.through = through;
        } else if send_entries(now, session, &entries) && session.outbound.position < through {
            session.outbound.position = through;
        }
        self.catch_up(now, slot);
        self.touch(slot);
    }
}

/// Who reads from disk.
#[derive(Clone, Copy, Debug)]
pub enum Reader {
    /// A session behind its position.
    Session {
        /// It, while this lasts.
        attachment: Attachment,
    },
    /// A session that goes on with its exchanges.
    Exchanges {
        /// It, while this lasts.
        attachment: Attachment,
    },
    /// A shared group behind its position.
    Group {
        /// The group.
        group: GroupId,
    },
    /// Somebody who only looks: the answer is not the cluster's to take.
    Asked {
        /// The question that is answered by it.
        question: u64,
    },
}

/// Something to be read from disk; to be answered by [`Cluster::read_from_disk`].
#[derive(Clone, Debug)]
pub struct ColdRead {
    /// Who wants it.
    pub reader: Reader,
    /// Under these filters, behind the position beside each.
    pub after: Vec<(FilterKey, Seq)>,
    /// Up to here.
    pub through: Seq,
    /// At most so many messages, the earliest.
    pub messages_max: usize,
}

/// How many messages are read from disk at a time. More than from memory: each time costs a hand-over
/// to another thread and back.
pub(super) const READ_FROM_DISK_AT_ONCE: usize = 1_024;

fn ask(
    session: &mut Session,
    slot: Slot,
    effects: &mut Effects,
    reader: impl FnOnce(Attachment) -> Reader,
    after: Vec<(FilterKey, Seq)>,
    through: Seq,
) {
    let Some(link) = session.link.as_mut() else { return };
    link.reading = true;
    let reader = reader(Attachment { slot, conn: link.conn });
    effects.reads.push(ColdRead { reader, after, through, messages_max: READ_FROM_DISK_AT_ONCE });
}

/// What filters are called on disk.
pub(super) fn keys_of(cursors: &[(FilterId, Seq)], index: &SubscriptionIndex) -> Vec<(FilterKey, Seq)> {
    cursors.iter().filter_map(|(filter, after)| Some((index.filter(*filter)?.key, *after))).collect()
}

/// Where to read so that each of `places` is found.
pub(super) fn before_each(places: &[Place]) -> Vec<(FilterKey, Seq)> {
    let mut earliest: HashMap<FilterKey, Seq> = HashMap::new();
    for Place { seq, filter, .. } in places {
        let after = earliest.entry(*filter).or_insert(Seq(u64::MAX));
        *after = Seq(seq.0 - 1).min(*after);
    }
    earliest.into_iter().collect()
}

/// Sends messages read from the log until there is no room. Returns whether all went.
fn send_entries(now: Now, session: &mut Session, entries: &[LogEntry]) -> bool {
    for LogEntry { place, message } in entries {
        if let Some(delivery) = session.delivery_of(message, *place)
            && let Sent::NoRoom(_) = session.send_kept(now, delivery, None)
        {
            return false;
        }
        session.outbound.position = place.seq;
    }
    true
}
