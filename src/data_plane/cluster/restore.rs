//! Sessions, retained messages and groups read back when the service starts (PRODUCT S-1, S-7, S-12).
//!
//! Records and subscriptions come from the store, the rest is what was [`written down`](super::facts). What
//! is about a session that the store does not know is over; its will is published.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::Cluster;
use super::facts::{self, Owed, Subject};
use super::publish::Along;
use crate::data_plane::broker::Slot;
use crate::data_plane::protocol::PacketId;
use crate::data_plane::session::progress::{Frozen, Progress};
use crate::data_plane::session::{HeldSubscription, HeldWill, Offline, Replay};
use crate::model::{FilterKey, Message, Now, Seq, SessionExpiry, SessionId};
use crate::seam::ports::{SessionWrite, StoredSession};

/// What was written down of one cluster.
#[derive(Debug, Default)]
pub struct Memory {
    sessions: BTreeMap<SessionId, Remembered>,
    /// Each with the moment it was put.
    retained: Vec<(Message, u64)>,
    /// The moment of the retained messages: all that was written down of them was before it.
    age: u64,
    groups: HashMap<String, (Seq, Vec<Seq>)>,
}

/// What was written down of one session.
#[derive(Debug, Default)]
struct Remembered {
    progress: Option<(Progress, Vec<(FilterKey, Seq)>)>,
    /// Exchanges that were written down by themselves, each with the whole filter of its shared group.
    exchanges: Vec<(Frozen, Option<String>)>,
    received: Vec<PacketId>,
    /// Filters of which retained messages are owed.
    owed: Vec<(FilterKey, Owed)>,
    will: Option<HeldWill>,
}

impl Memory {
    /// Takes one fact. Returns whether it could be read.
    pub fn take(&mut self, key: &[u8], mut value: Bytes) -> bool {
        self.try_take(key, &mut value).is_some()
    }

    fn try_take(&mut self, key: &[u8], value: &mut Bytes) -> Option<()> {
        match facts::subject(key)? {
            Subject::Progress(id) => self.of(id).progress = Some(facts::get_progress(value)?),
            Subject::Exchange(id) => self.of(id).exchanges.push(facts::get_exchange(value)?),
            Subject::Received(id, packet_id) => self.of(id).received.push(packet_id),
            Subject::Will(id) => self.of(id).will = Some(facts::get_will(value)?),
            Subject::Owed(id, filter) => {
                let owed = facts::get_owed(value)?;
                self.age = owed.age.unwrap_or_default().max(self.age);
                self.of(id).owed.push((filter, owed));
            }
            Subject::Retained => {
                let (message, age) = facts::get_retained(value)?;
                self.age = age.saturating_add(1).max(self.age);
                self.retained.push((message, age));
            }
            Subject::Group(share) => _ = self.groups.insert(share, facts::get_group(value)?),
        }
        Some(())
    }

    fn of(&mut self, id: SessionId) -> &mut Remembered {
        self.sessions.entry(id).or_default()
    }
}

impl Cluster {
    /// Takes a stored session, and what is remembered of it, as an offline one. One that has expired
    /// meanwhile, or was to end with its connection, ends with the next [`Cluster::time_passes`].
    pub fn restore(&mut self, now: Now, stored: StoredSession, memory: &mut Memory) {
        let StoredSession { row, operator_expiry, protected, subscriptions } = stored;
        let expiry = SessionExpiry {
            client_secs: row.expiry_client_secs,
            bounded_by_cluster: row.expiry_bounded,
            operator: operator_expiry,
        };
        let slot = self.begin(now, row.session_id, row.client_id, expiry);
        let since = row.disconnected_at.unwrap_or(now.wall);
        let expires_at = expiry.expires_at(since);
        self.registry.expires(expires_at, slot);
        let session = &mut self.sessions[slot.0 as usize];
        session.epoch = row.epoch;
        session.created_at = row.created_at;
        session.offline = Some(Offline { since, expires_at, conn: None });
        session.durable = true;
        session.protected = protected;
        session.admitted = true;
        session.subscriptions.reserve_exact(subscriptions.len());
        let remembered = memory.sessions.remove(&row.session_id);
        let filters = remembered.as_ref().and_then(|remembered| Some(&remembered.progress.as_ref()?.1));
        for subscription in subscriptions {
            let key = FilterKey::of(subscription.filter.as_str());
            let known = filters.map(|filters| filters.iter().find(|(filter, _)| *filter == key));
            if let Some(None) = known {
                // The store is behind: either SUBACK was never sent, or UNSUBACK was.
                let write = SessionWrite::Unsubscribe(row.session_id, subscription.filter);
                self.effects.writes.push((write, None));
                continue;
            }
            let held = self.enlist(slot, subscription, None);
            let held = self.restored(held, known.flatten().map(|(_, start)| *start), memory);
            self.session(slot).subscriptions.push(held);
        }
        if let Some(remembered) = remembered {
            self.remember(slot, remembered, memory.age);
        }
    }

    /// Everything was restored: what is remembered and belongs to no session comes last.
    pub fn restored_all(&mut self, now: Now, memory: Memory) {
        for (message, age) in memory.retained {
            self.retained.restore(Arc::new(message), age);
        }
        // The latest may have been cleared since, and what is put from now on is still owed to nobody.
        self.retained.goes_on_from(memory.age);
        for (id, Remembered { will, .. }) in memory.sessions {
            let over = facts::session_ends(id);
            match will {
                Some(will) => self.publish_will(now, will, Along::Always(over)),
                None => self.journal.change(vec![over]),
            }
        }
    }

    /// Where a restored subscription begins: where it was written that it does. One of which nothing was
    /// written begins now.
    fn restored(
        &mut self,
        held: HeldSubscription,
        start: Option<Seq>,
        memory: &mut Memory,
    ) -> HeldSubscription {
        if let Some(group) = held.group {
            let share = held.subscription.filter.as_str();
            if let Some((position, missing)) = memory.groups.remove(share) {
                self.resume_group(group, position, missing);
            }
            return held;
        }
        let start = start.map_or(held.start, |start| start.min(held.start));
        HeldSubscription { start, ..held }
    }

    fn remember(&mut self, slot: Slot, remembered: Remembered, age: u64) {
        let Remembered { progress, exchanges, received, owed, will } = remembered;
        let tail = self.log.tail();
        let exchanges =
            exchanges.into_iter().map(|(exchange, share)| self.rebound(exchange, share)).collect();
        let session = &mut self.sessions[slot.0 as usize];
        session.is_written_down = true;
        let progress =
            progress.map_or_else(|| Progress { position: tail, ..Progress::default() }, |(p, _)| p);
        session.outbound.restore(progress, exchanges, tail);
        for (filter, Owed { after, age: asked }) in owed {
            let of_filter =
                |held: &&HeldSubscription| FilterKey::of(held.subscription.filter.as_str()) == filter;
            if let Some(held) = session.subscriptions.iter().find(of_filter) {
                let replay = Replay::of(&held.subscription, asked.unwrap_or(age));
                session.replays.push_back(Replay { after, is_written_down: true, ..replay });
            } else {
                self.journal.change(vec![facts::not_owed(session.id, filter)]);
            }
        }
        for packet_id in received {
            session.inbound.written_down(packet_id);
        }
        if let (Some(mut will), Some(offline)) = (will, session.offline) {
            let due_at = will.due_at.unwrap_or_else(|| offline.since.plus_secs(will.delay_secs));
            let due_at = due_at.min(offline.expires_at);
            will.due_at = Some(due_at);
            session.will = Some(Box::new(will));
            self.wills.insert((due_at, slot));
        }
    }

    /// An exchange that was written down stays bound to its session: its group does not hand the message out again.
    fn rebound(&mut self, mut exchange: Frozen, share: Option<String>) -> Frozen {
        exchange.group = share.and_then(|share| self.group_of(&share));
        if let (Some(group), Some(place)) = (exchange.group, exchange.place()) {
            self.bind_to_member(group, place.seq);
        }
        exchange
    }
}
