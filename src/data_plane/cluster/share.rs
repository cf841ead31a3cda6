//! Shared subscriptions: messages handed to one member of a group (MQTT 5.0, 4.8.2; PRODUCT S-4).

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Cluster;
use crate::data_plane::broker::Slot;
use crate::data_plane::broker::shared_group::{Member, SharedGroup, Waiting};
use crate::data_plane::broker::subscription_index::{FilterEntry, SubscriptionIndex};
use crate::data_plane::message_log::MessageLog;
use crate::data_plane::session::Session;
use crate::data_plane::session::outbound::Delivery;
use crate::data_plane::session::transmit::Sent;
use crate::model::{FilterId, GroupId, Message, Now, QoS, Seq, Subscription, TopicFilter};

/// How many messages are read from the log at a time.
const READ_AT_ONCE: usize = 64;

/// The shared groups of a cluster.
#[derive(Debug)]
pub(super) struct Groups {
    by_id: HashMap<GroupId, SharedGroup, foldhash::fast::RandomState>,
    /// By the whole filter, `$share/{name}/…`.
    by_filter: HashMap<TopicFilter, GroupId, foldhash::fast::RandomState>,
    last_id: u64,
    /// State of the generator that picks members; not for secrets.
    random: u64,
}

impl Groups {
    pub(super) fn new(seed: u64) -> Self {
        Self { by_id: HashMap::default(), by_filter: HashMap::default(), last_id: 0, random: seed | 1 }
    }

    /// The groups among `ids` that read the log.
    pub(super) fn reading(&self, ids: &[GroupId]) -> impl Iterator<Item = &SharedGroup> {
        ids.iter().filter_map(|id| self.by_id.get(id)).filter(|group| group.durable)
    }

    fn begin(&mut self, share: &TopicFilter, index: &mut SubscriptionIndex, tail: Seq) -> GroupId {
        self.last_id += 1;
        let id = GroupId(self.last_id);
        let filter = index.put_group(share, id);
        self.by_id.insert(id, SharedGroup::new(share.clone(), filter, tail));
        self.by_filter.insert(share.clone(), id);
        id
    }

    /// From here on the group's messages come from the log.
    pub(super) fn make_durable(&mut self, id: GroupId, index: &mut SubscriptionIndex, tail: Seq) {
        if let Some(group) = self.by_id.get_mut(&id).filter(|group| !group.durable) {
            group.make_durable(tail);
            index.group_reads_log(group.filter);
        }
    }

    /// Xorshift: cheap, and good enough to spread messages.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// Whether a message that is offered to a group found a member.
enum Offered {
    Taken,
    NobodyHasRoom(Waiting),
}

impl<L: MessageLog> Cluster<L> {
    /// A session joins the group of its shared subscription, or changes its options there. The first
    /// member begins the group, at the end of the log.
    pub(super) fn join_group(
        &mut self,
        slot: Slot,
        subscription: &Subscription,
        durable: bool,
        is_new: bool,
    ) -> (FilterId, GroupId) {
        let Self { groups, index, log, .. } = self;
        let known = groups.by_filter.get(&subscription.filter).copied();
        let id = known.unwrap_or_else(|| groups.begin(&subscription.filter, index, log.tail()));
        if is_new {
            index.member_joined();
        }
        if durable {
            groups.make_durable(id, index, log.tail());
        }
        let group = groups.by_id.get_mut(&id).expect("listed under its filter for as long as it lives");
        group.join(Member::new(slot, subscription));
        (group.filter, id)
    }

    /// A session leaves a group for good; the last one ends it. Returns whether nobody subscribes to
    /// the group's filter any longer.
    pub(super) fn leave_group(&mut self, slot: Slot, id: GroupId) -> bool {
        let Self { groups, index, .. } = self;
        let Some(group) = groups.by_id.get_mut(&id) else { return false };
        group.leave(slot);
        index.member_left();
        if !group.is_empty() {
            return false;
        }
        let (filter, durable) = (group.filter, group.durable);
        groups.by_filter.remove(&group.share);
        groups.by_id.remove(&id);
        index.remove_group(filter, id, durable)
    }

    /// Hands a message to one member of each group on the filters it matched. Returns to how many
    /// groups.
    pub(super) fn hand_to_groups(
        &mut self,
        now: Now,
        filters: &[FilterId],
        message: &Arc<Message>,
        seq: Option<Seq>,
    ) -> usize {
        let ids: SmallVec<[GroupId; 4]> = filters
            .iter()
            .filter_map(|id| self.index.filter(*id))
            .flat_map(FilterEntry::groups)
            .copied()
            .collect();
        for id in &ids {
            let Some(group) = self.groups.by_id.get(id) else { continue };
            let assured = message.qos > QoS::AtMostOnce;
            let (behind, durable) = (group.behind, group.durable);
            match (assured, durable) {
                // Lost when nobody has room, as QoS 0 may be.
                (false, _) => {
                    let waiting = Waiting { seq: None, message: Arc::clone(message) };
                    if let Offered::NobodyHasRoom(_) = self.offer(now, *id, waiting) {
                        self.ended_counters.dropped_slow += 1;
                    }
                }
                (true, true) if behind => {}
                (true, true) => {
                    if let Offered::Taken =
                        self.offer(now, *id, Waiting { seq, message: Arc::clone(message) })
                    {
                        self.advance_group(*id, seq);
                    } else if let Some(group) = self.groups.by_id.get_mut(id) {
                        group.behind = true;
                    }
                }
                (true, false) => self.offer_or_queue(now, *id, behind, message),
            }
        }
        ids.len()
    }

    fn offer_or_queue(&mut self, now: Now, id: GroupId, behind: bool, message: &Arc<Message>) {
        let waiting = Waiting { seq: None, message: Arc::clone(message) };
        let taken = !behind && matches!(self.offer(now, id, waiting), Offered::Taken);
        let Some(group) = self.groups.by_id.get_mut(&id).filter(|_| !taken) else { return };
        if !group.enqueue(Arc::clone(message)) {
            self.ended_counters.dropped_queue_full += 1;
        }
    }

    fn advance_group(&mut self, id: GroupId, seq: Option<Seq>) {
        if let (Some(group), Some(seq)) = (self.groups.by_id.get_mut(&id), seq) {
            group.position = seq;
        }
    }

    /// Offers a message to the group's members; one that has room gets it.
    fn offer(&mut self, now: Now, id: GroupId, waiting: Waiting) -> Offered {
        let random = self.groups.next_random();
        let Self { groups, sessions, effects, rules, .. } = self;
        let Some(group) = groups.by_id.get_mut(&id) else { return Offered::Taken };
        let member = group.choose(
            rules.shared_strategy,
            &waiting.message,
            random,
            |slot| sessions.get(slot.0 as usize).is_some_and(|session| session.link.is_some()),
            |slot| sessions.get(slot.0 as usize).is_some_and(Session::has_room),
        );
        let Some(member) = member else { return Offered::NobodyHasRoom(waiting) };
        let session = &mut sessions[member.slot.0 as usize];
        let Waiting { seq, message } = waiting;
        let delivery = Delivery {
            qos: member.qos.min(message.qos),
            retain: member.retain_as_published && message.retain,
            subscription_ids: member.identifier.into_iter().collect(),
            seq,
            group: Some(id),
            message,
        };
        if delivery.qos == QoS::AtMostOnce {
            session.send_at_most_once(now, &delivery);
        } else {
            let before = session.outbound.in_flight();
            if let Sent::NoRoom(Delivery { message, .. }) = session.send_assured(now, delivery) {
                return Offered::NobodyHasRoom(Waiting { seq, message });
            }
            // Skipped when it expired or is too large: then nothing will be acknowledged.
            if session.outbound.in_flight() > before {
                group.handed_out(seq);
            }
        }
        effects.touch(member.slot, session);
        Offered::Taken
    }

    /// A member has room: serves every group it belongs to that has something waiting.
    pub(super) fn serve_groups_of(&mut self, now: Now, slot: Slot) {
        let ids: SmallVec<[GroupId; 4]> =
            self.session(slot).subscriptions.iter().filter_map(|held| held.group).collect();
        for id in ids {
            if self.groups.by_id.get(&id).is_some_and(|group| group.behind) {
                self.serve_group(now, id);
            }
        }
    }

    /// The strategy is another one: what waited for one member may now go to any.
    pub(super) fn serve_waiting_groups(&mut self, now: Now) {
        let behind = self.groups.by_id.iter().filter(|(_, group)| group.behind);
        let ids: Vec<GroupId> = behind.map(|(id, _)| *id).collect();
        for id in ids {
            self.serve_group(now, id);
        }
    }

    /// Hands out what waits for a group until nothing does or nobody has room.
    fn serve_group(&mut self, now: Now, id: GroupId) {
        while let Some(waiting) = self.groups.by_id.get_mut(&id).and_then(SharedGroup::next_waiting) {
            if let Offered::NobodyHasRoom(waiting) = self.offer(now, id, waiting) {
                if let Some(group) = self.groups.by_id.get_mut(&id) {
                    group.keep_waiting(waiting);
                }
                return;
            }
        }
        if self.serve_group_from_log(now, id)
            && let Some(group) = self.groups.by_id.get_mut(&id)
        {
            group.behind = false;
        }
    }

    /// Returns whether the end of the log was reached.
    fn serve_group_from_log(&mut self, now: Now, id: GroupId) -> bool {
        let mut entries = Vec::new();
        loop {
            let Some(group) = self.groups.by_id.get_mut(&id).filter(|group| group.durable) else {
                return true;
            };
            entries.clear();
            self.log.read(&[(group.filter, group.position)], READ_AT_ONCE, &mut entries);
            if entries.is_empty() {
                group.position = self.log.tail();
                return true;
            }
            for entry in entries.drain(..) {
                let seq = Some(entry.seq);
                if let Offered::NobodyHasRoom(_) =
                    self.offer(now, id, Waiting { seq, message: entry.message })
                {
                    return false;
                }
                self.advance_group(id, seq);
            }
        }
    }

    /// A member has acknowledged a group's message.
    pub(super) fn consumed_by_group(&mut self, delivery: &Delivery) {
        if let Some(group) = delivery.group.and_then(|id| self.groups.by_id.get_mut(&id)) {
            group.consumed(delivery.seq);
        }
    }

    /// A member's connection has ended: what it has not acknowledged at QoS 1 goes back to its groups
    /// and at once to other members. QoS 2 stays bound to its session (`[MQTT-4.8.2-4]`,
    /// `[MQTT-4.8.2-5]`), and is lost to the group if the session ends.
    pub(super) fn give_back_shared(&mut self, now: Now, slot: Slot, session_ends: bool) {
        let session = self.session(slot);
        let returned = session.outbound.take_shared();
        if session_ends {
            let bound: Vec<Delivery> =
                session.outbound.exchanges().map(|exchange| exchange.delivery.clone()).collect();
            for delivery in &bound {
                self.consumed_by_group(delivery);
            }
        }
        let mut groups: SmallVec<[GroupId; 4]> = SmallVec::new();
        for Delivery { group, seq, message, .. } in returned {
            let Some(id) = group else { continue };
            if let Some(group) = self.groups.by_id.get_mut(&id) {
                group.give_back(Waiting { seq, message });
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
