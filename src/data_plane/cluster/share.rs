//! Shared subscriptions: messages handed to one member of a group (MQTT 5.0, 4.8.2; PRODUCT S-4).

use std::sync::Arc;

use smallvec::SmallVec;

use super::deliver::{ColdRead, READ_FROM_DISK_AT_ONCE, Reader, keys_of};
use super::{Cluster, facts};
use crate::data_plane::broker::Slot;
use crate::data_plane::broker::shared_group::{Member, SharedGroup, Waiting};
use crate::data_plane::broker::subscription_index::FilterEntry;
use crate::data_plane::message_log::{Found, LogEntry};
use crate::data_plane::session::outbound::{Delivery, GroupDelivery, InFlight};
use crate::data_plane::session::transmit::Sent;
use crate::data_plane::session::{Offline, Session};
use crate::model::{
    FilterId, GroupId, Message, Now, Place, QoS, Seq, SharedStrategy, Subscription, TopicFilter,
};

/// How many messages are read from the log at a time.
const READ_AT_ONCE: usize = 64;

/// For how long a hash strategy waits for a member that has gone, before its share goes to others: one
/// that only changes networks finds its topics where they were, and in order.
const REBALANCE_SECS: u32 = 10;

fn keeps_its_share(now: Now, session: &Session) -> bool {
    let back_soon = |offline: Offline| now.wall < offline.since.plus_secs(REBALANCE_SECS);
    session.link.is_some() || session.offline.is_some_and(back_soon)
}

/// Whether a message that is offered to a group found a member.
enum Offered {
    Taken,
    NobodyHasRoom(Waiting),
}

impl Cluster {
    /// A session joins the group of its shared subscription, or changes its options there. The first
    /// member begins the group, at the end of the log.
    pub(super) fn join_group(
        &mut self,
        slot: Slot,
        subscription: &Subscription,
        durable: bool,
        is_new: bool,
    ) -> (FilterId, GroupId) {
        let client = self.session(slot).client_key;
        let Self { groups, index, log, .. } = self;
        let known = groups.id_of(&subscription.filter);
        let id = known.unwrap_or_else(|| groups.begin(&subscription.filter, index, log.tail()));
        if is_new {
            groups.names.member_joins(&subscription.filter, slot);
            index.member_joined();
        }
        if durable {
            groups.make_durable(id, index, log.tail());
        }
        let group = groups.get_mut(id).expect("listed under its filter for as long as it lives");
        group.join(Member::new(slot, client, subscription));
        (group.filter, id)
    }

    /// A group goes on where it was written that it had come to.
    pub(super) fn resume_group(&mut self, id: GroupId, position: Seq, mut missing: Vec<Seq>) {
        let tail = self.log.tail();
        missing.retain(|seq| *seq <= tail);
        if let Some(group) = self.groups.get_mut(id) {
            group.resume(position.min(tail), missing);
        }
    }

    /// The group with this whole filter.
    pub(super) fn group_of(&self, share: &str) -> Option<GroupId> {
        self.groups.id_of(&TopicFilter::new(share).ok()?)
    }

    /// A session goes on with a group's message at QoS 2.
    pub(super) fn bind_to_member(&mut self, id: GroupId, seq: Seq) {
        if let Some(group) = self.groups.get_mut(id) {
            group.bind(seq);
        }
    }

    /// A session leaves a group for good; the last one ends it. Returns whether nobody subscribes to
    /// the group's filter any longer.
    pub(super) fn leave_group(&mut self, slot: Slot, id: GroupId) -> bool {
        let Self { groups, index, journal, .. } = self;
        let Some(group) = groups.leave(id, slot) else { return false };
        index.member_left();
        if !group.is_empty() {
            return false;
        }
        let (filter, durable) = (group.filter, group.durable);
        if durable {
            journal.change(vec![facts::no_group(&group.share)]);
        }
        groups.end(id);
        index.remove_group(filter, id, durable)
    }

    /// Hands a message to one member of each group on the filters it matched. Returns to how many
    /// groups.
    pub(super) fn hand_to_groups(
        &mut self,
        now: Now,
        filters: &[FilterId],
        message: &Arc<Message>,
        place: Option<Place>,
    ) -> usize {
        let ids: SmallVec<[GroupId; 4]> = filters
            .iter()
            .filter_map(|id| self.index.filter(*id))
            .flat_map(FilterEntry::groups)
            .copied()
            .collect();
        for id in &ids {
            let Some(group) = self.groups.get(*id) else { continue };
            let assured = message.qos > QoS::AtMostOnce;
            let (behind, durable) = (group.behind, group.durable);
            match (assured, durable) {
                // Lost when nobody has room, as QoS 0 may be.
                (false, _) => {
                    let waiting = Waiting { place: None, message: Arc::clone(message) };
                    if let Offered::NobodyHasRoom(_) = self.offer(now, *id, waiting) {
                        self.ended_counters.dropped_slow += 1;
                    }
                }
                (true, true) if behind => {}
                (true, true) => {
                    if let Offered::Taken =
                        self.offer(now, *id, Waiting { place, message: Arc::clone(message) })
                    {
                        self.advance_group(*id, place);
                    } else if let Some(group) = self.groups.get_mut(*id) {
                        group.behind = true;
                    }
                }
                (true, false) => self.offer_or_queue(now, *id, behind, message),
            }
        }
        ids.len()
    }

    fn offer_or_queue(&mut self, now: Now, id: GroupId, behind: bool, message: &Arc<Message>) {
        let waiting = Waiting { place: None, message: Arc::clone(message) };
        let taken = !behind && matches!(self.offer(now, id, waiting), Offered::Taken);
        let Some(group) = self.groups.get_mut(id).filter(|_| !taken) else { return };
        if !group.enqueue(Arc::clone(message)) {
            self.ended_counters.dropped_queue_full += 1;
        }
    }

    fn advance_group(&mut self, id: GroupId, place: Option<Place>) {
        if let (Some(group), Some(place)) = (self.groups.get_mut(id), place) {
            group.position = place.seq;
            self.groups.is_unsaved(id);
        }
    }

    /// Offers a message to the group's members; one that has room gets it.
    fn offer(&mut self, now: Now, id: GroupId, waiting: Waiting) -> Offered {
        let random = self.groups.next_random();
        let Self { groups, sessions, effects, rules, sent_uncharged, .. } = self;
        let Some(group) = groups.get_mut(id) else { return Offered::Taken };
        let member = group.choose(
            rules.strategy_of(&group.share),
            &waiting.message,
            random,
            |slot| sessions.get(slot.0 as usize).is_some_and(|session| keeps_its_share(now, session)),
            |slot| sessions.get(slot.0 as usize).is_some_and(Session::has_room),
        );
        let Some(member) = member else { return Offered::NobodyHasRoom(waiting) };
        let session = &mut sessions[member.slot.0 as usize];
        let Waiting { place, message } = waiting;
        let delivery = Delivery {
            qos: member.qos.min(message.qos),
            retain: member.retain_as_published && message.retain,
            subscription_ids: member.identifier.into_iter().collect(),
            place,
            group: Some(id),
            message,
        };
        let qos = delivery.qos;
        let sent_before = session.link.as_ref().map_or(0, |link| link.counters.sent);
        if qos == QoS::AtMostOnce {
            session.send_at_most_once(now, &delivery, None);
        } else {
            let before = session.outbound.in_flight();
            if let Sent::NoRoom(Delivery { message, .. }) = session.send_assured(now, delivery, None) {
                return Offered::NobodyHasRoom(Waiting { place, message });
            }
            // Skipped when it expired or is too large: then nothing will be acknowledged.
            if session.outbound.in_flight() > before {
                // A session that ends with its connection writes no exchange down, and has it for good.
                group.handed_out(place, qos == QoS::ExactlyOnce && !session.durable);
            }
        }
        *sent_uncharged += session.sent_since(sent_before);
        effects.touch(member.slot, session);
        Offered::Taken
    }

    /// A member has room: serves every group it belongs to that has something waiting.
    pub(super) fn serve_groups_of(&mut self, now: Now, slot: Slot) {
        let ids: SmallVec<[GroupId; 4]> =
            self.session(slot).subscriptions.iter().filter_map(|held| held.group).collect();
        for id in ids {
            if self.groups.get(id).is_some_and(|group| group.behind) {
                self.serve_group(now, id);
            }
        }
    }

    /// Shares of members that have been away for too long move on.
    pub(super) fn rebalance_groups(&mut self, now: Now) {
        let by_hash = |strategy: &SharedStrategy| *strategy != SharedStrategy::Random;
        if by_hash(&self.rules.shared_strategy) || self.rules.group_strategies.values().any(by_hash) {
            self.serve_waiting_groups(now);
        }
    }

    /// The strategy is another one: what waited for one member may now go to any.
    pub(super) fn serve_waiting_groups(&mut self, now: Now) {
        for id in self.groups.behind() {
            self.serve_group(now, id);
        }
    }

    /// Hands out what waits for a group until nothing does or nobody has room.
    pub(super) fn serve_group(&mut self, now: Now, id: GroupId) {
        while let Some(waiting) = self.groups.get_mut(id).and_then(SharedGroup::next_waiting) {
            if let Offered::NobodyHasRoom(waiting) = self.offer(now, id, waiting) {
                if let Some(group) = self.groups.get_mut(id) {
                    group.keep_waiting(waiting);
                }
                return;
            }
        }
        if self.serve_group_from_log(now, id)
            && let Some(group) = self.groups.get_mut(id)
        {
            group.behind = false;
        }
    }

    /// Returns whether the end of the log was reached.
    fn serve_group_from_log(&mut self, now: Now, id: GroupId) -> bool {
        let mut entries = Vec::new();
        loop {
            let Some(group) = self.groups.get_mut(id).filter(|group| group.durable) else {
                return true;
            };
            entries.clear();
            let cursor = [(group.filter, group.position)];
            if let Found::OnDisk(through) = self.log.read(&cursor, READ_AT_ONCE, &mut entries) {
                if group.begins_to_read() {
                    let after = keys_of(&cursor, &self.index);
                    let reader = Reader::Group { group: id };
                    let messages_max = READ_FROM_DISK_AT_ONCE;
                    self.effects.reads.push(ColdRead { reader, after, through, messages_max });
                }
                return false;
            }
            if entries.is_empty() {
                group.position = self.log.tail();
                return true;
            }
            if !self.offer_entries(now, id, &mut entries) {
                return false;
            }
        }
    }

    /// Messages were read from disk for a group; all there are up to `through`.
    pub(super) fn read_for_group(
        &mut self,
        now: Now,
        id: GroupId,
        entries: &mut Vec<LogEntry>,
        through: Seq,
    ) {
        let Some(group) = self.groups.get_mut(id) else { return };
        if !group.has_read() {
            return self.serve_group(now, id);
        }
        if self.offer_entries(now, id, entries)
            && let Some(group) = self.groups.get_mut(id)
        {
            group.position = group.position.max(through);
            self.serve_group(now, id);
        }
    }

    /// Hands out messages read from the log. Returns whether all found a member.
    fn offer_entries(&mut self, now: Now, id: GroupId, entries: &mut Vec<LogEntry>) -> bool {
        for LogEntry { place, message } in entries.drain(..) {
            if !self.groups.get(id).is_some_and(|group| group.wants(place.seq)) {
                self.advance_group(id, Some(place));
                continue;
            }
            let place = Some(place);
            if let Offered::NobodyHasRoom(_) = self.offer(now, id, Waiting { place, message }) {
                return false;
            }
            self.advance_group(id, place);
        }
        true
    }

    /// A member has acknowledged a group's message.
    pub(super) fn consumed_by_group(&mut self, delivery: &GroupDelivery) {
        let id = delivery.group;
        if let Some(group) = self.groups.get_mut(id) {
            group.consumed(delivery.place);
            self.groups.is_unsaved(id);
            // QoS 2 is not to be handed out again, whatever happens.
            if delivery.qos == QoS::ExactlyOnce && delivery.place.is_some() {
                let _ = self.save_group(id);
            }
        }
    }

    /// A member's connection has ended: what it has not acknowledged at QoS 1 goes back to its groups
    /// and at once to other members. QoS 2 stays bound to its session (`[MQTT-4.8.2-4]`,
    /// `[MQTT-4.8.2-5]`), and is lost to the group if the session ends.
    pub(super) fn give_back_shared(&mut self, now: Now, slot: Slot, session_ends: bool) {
        let session = self.session(slot);
        let returned = session.outbound.take_shared();
        if session_ends {
            let of_group = |exchange: &InFlight| exchange.delivery.of_group();
            let bound: Vec<GroupDelivery> = session.outbound.exchanges().filter_map(of_group).collect();
            for delivery in &bound {
                self.consumed_by_group(delivery);
            }
        }
        let mut groups: SmallVec<[GroupId; 4]> = SmallVec::new();
        for Delivery { group, place, message, .. } in returned {
            let Some(id) = group else { continue };
            if let Some(group) = self.groups.get_mut(id) {
                group.give_back(Waiting { place, message });
                if !groups.contains(&id) {
                    groups.push(id);
                }
            }
        }
        for id in groups {
            self.serve_group(now, id);
        }
    }
}
