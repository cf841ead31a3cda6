//! Shared subscriptions: who is a member, what waits, and who gets the next message
//! (MQTT 5.0, 4.8.2; PRODUCT S-4).
//!
//! Progress belongs to the group: a position in the log, what was handed out and not yet
//! acknowledged, and what members gave back. A group without a member that outlives its connection
//! is not worth the disk: its messages wait in a bounded queue instead.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::num::NonZeroU32;
use std::sync::Arc;

use super::Slot;
use crate::model::{
    ClientKey, FilterId, Message, Place, QoS, Seq, SharedStrategy, Subscription, TopicFilter,
};

/// One session's membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The session.
    pub slot: Slot,
    /// Whose it is: what a hash chooses by, the same after a restart.
    pub client: ClientKey,
    /// The greatest QoS it gets.
    pub qos: QoS,
    /// Keep the retain flag.
    pub retain_as_published: bool,
    /// The subscription identifier.
    pub identifier: Option<NonZeroU32>,
    /// Whether it gets nothing for now, because it may not subscribe.
    pub muted: bool,
}

impl Member {
    /// The member that `subscription` makes of the session in `slot`.
    pub fn new(slot: Slot, client: ClientKey, subscription: &Subscription) -> Self {
        Self {
            slot,
            client,
            qos: subscription.qos,
            retain_as_published: subscription.retain_as_published,
            identifier: subscription.identifier,
            muted: false,
        }
    }
}

/// A message that waits for a member.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Where it lies in the log; `None` when it does not.
    pub place: Option<Place>,
    /// What was said.
    pub message: Arc<Message>,
}

/// Whether the log is being read for a group from disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    No,
    UnderWay,
    /// What is being read is of where it was before it was moved.
    Outdated,
}

/// One group on one filter. Lives as long as it has members.
#[derive(Debug)]
pub struct SharedGroup {
    /// The whole filter: `$share/{name}/…`.
    pub share: TopicFilter,
    /// The distinct filter it reads.
    pub filter: FilterId,
    /// Everything in the log up to here was handed out.
    pub position: Seq,
    /// Whether its messages come from the log: from the first member on that outlives its
    /// connection. Stays so until the group ends.
    pub durable: bool,
    /// Whether something waits that could not be handed out.
    pub behind: bool,
    /// Whether the log is being read for it from disk.
    reading: Reading,
    members: Vec<Member>,
    /// Positions handed out at QoS 1 or 2 and not yet acknowledged, each with whether it is bound to the
    /// session that has it, also over a crash: at QoS 2, from when its exchange is written down.
    outstanding: BTreeMap<Seq, bool>,
    /// Before a restart everything up to here was handed out, and what of it must be again.
    resumed: Option<(Seq, BTreeSet<Seq>)>,
    /// Behind the position since the group was moved back, and in the hands of members since before: they are not
    /// handed out again unless they are given back. At most what members' windows hold.
    held: BTreeSet<Seq>,
    /// Given back by members that left, earliest first. At most what their windows held.
    returned: VecDeque<Waiting>,
    /// Messages of a group that is not durable. At most [`QUEUED_MAX`].
    queue: VecDeque<Arc<Message>>,
}

/// How far behind a message at QoS 2 that a session goes on with a group may stand, without having been moved back:
/// more positions than a cluster gives before progress is written down.
const BOUND_SPAN_MAX: u64 = 1_000_000;

/// How many messages may wait for a group whose members all end with their connections.
pub const QUEUED_MAX: usize = 1_000;

impl SharedGroup {
    /// A group without members, which begins now.
    pub fn new(share: TopicFilter, filter: FilterId, tail: Seq) -> Self {
        Self {
            share,
            filter,
            position: tail,
            durable: false,
            behind: false,
            reading: Reading::No,
            members: Vec::new(),
            outstanding: BTreeMap::new(),
            resumed: None,
            held: BTreeSet::new(),
            returned: VecDeque::new(),
            queue: VecDeque::new(),
        }
    }

    /// Whether a member gets nothing for now, because it may not subscribe.
    pub fn set_muted(&mut self, slot: Slot, muted: bool) {
        for member in self.members.iter_mut().filter(|member| member.slot == slot) {
            member.muted = muted;
        }
    }

    /// Whether nobody is left.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Its members, in the order in which they joined.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A session joins, or changes its options.
    pub fn join(&mut self, member: Member) {
        match self.members.iter_mut().find(|known| known.slot == member.slot) {
            Some(known) => *known = member,
            None => self.members.push(member),
        }
    }

    /// A session leaves for good.
    pub fn leave(&mut self, slot: Slot) {
        self.members.retain(|member| member.slot != slot);
    }

    /// From here on messages come from the log.
    pub fn make_durable(&mut self, tail: Seq) {
        if !self.durable {
            self.durable = true;
            self.position = tail;
        }
    }

    /// Who gets `message`, of those members that `has_room` says have room. `None` when it must wait.
    ///
    /// With a hash strategy messages of one topic (or publisher) go to one member and wait for it, so
    /// that they stay in order.
    pub fn choose(
        &self,
        strategy: SharedStrategy,
        message: &Message,
        random: u64,
        is_online: impl Fn(Slot) -> bool,
        has_room: impl Fn(Slot) -> bool,
    ) -> Option<Member> {
        match strategy {
            SharedStrategy::Random => {
                let count = self.members.len();
                let first = usize::try_from(random % (count.max(1) as u64)).unwrap_or(0);
                let turn = self.members[first..].iter().chain(&self.members[..first]);
                turn.copied().find(|member| !member.muted && has_room(member.slot))
            }
            SharedStrategy::HashTopic => self.by_hash(message.topic.as_str(), is_online, has_room),
            SharedStrategy::HashClientId => self.by_hash(message.publisher, is_online, has_room),
        }
    }

    fn by_hash(
        &self,
        key: impl Hash,
        is_online: impl Fn(Slot) -> bool,
        has_room: impl Fn(Slot) -> bool,
    ) -> Option<Member> {
        // Fixed seed: a restart must not move topics to other members.
        let hash = foldhash::fast::FixedState::default().hash_one(key);
        // Rendezvous hashing: when a member comes or goes only its own share moves.
        let weight = |member: &Member| foldhash::fast::FixedState::default().hash_one((hash, member.client));
        let served = self.members.iter().filter(|member| !member.muted && is_online(member.slot));
        let chosen = served.max_by_key(|m| weight(m))?;
        has_room(chosen.slot).then_some(*chosen)
    }

    /// A message was handed out and will be acknowledged. `is_bound`: nobody else is to have it, whatever
    /// happens.
    pub fn handed_out(&mut self, place: Option<Place>, is_bound: bool) {
        self.outstanding.extend(place.map(|place| (place.seq, is_bound)));
    }

    /// The exchange of a message that was handed out is written down. Until then whoever reads what is on disk
    /// knows of no session that has it, and it must be handed out again.
    pub fn binds(&mut self, seq: Seq) {
        if let Some(is_bound) = self.outstanding.get_mut(&seq) {
            *is_bound = true;
        }
    }

    /// The group goes on behind `position`, wherever it was. What members hold and have not acknowledged stays
    /// with them; whatever else was waiting is of the past, or will be found again.
    pub fn move_to(&mut self, position: Seq) {
        self.position = position;
        self.held = self.outstanding.keys().filter(|seq| **seq > position).copied().collect();
        self.resumed = None;
        self.returned.clear();
        self.queue.clear();
        self.behind = true;
        if self.reading == Reading::UnderWay {
            self.reading = Reading::Outdated;
        }
    }

    /// Whether it may be read for, which then is under way: one read at a time.
    pub fn begins_to_read(&mut self) -> bool {
        let may = self.reading == Reading::No;
        if may {
            self.reading = Reading::UnderWay;
        }
        may
    }

    /// The read that was under way is over. Returns whether its messages are those that come next.
    pub fn has_read(&mut self) -> bool {
        std::mem::take(&mut self.reading) == Reading::UnderWay
    }

    /// How many messages members hold and have not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.outstanding.len()
    }

    /// After a restart: everything up to `position` was handed out, and `missing` of it must be again.
    pub fn resume(&mut self, position: Seq, missing: Vec<Seq>) {
        self.durable = true;
        self.behind = true;
        self.position = missing.iter().min().map_or(position, |first| Seq(first.0 - 1).min(position));
        self.resumed = Some((position, missing.into_iter().collect()));
    }

    /// After a restart: a session goes on with this one at QoS 2.
    pub fn bind(&mut self, seq: Seq) {
        self.outstanding.insert(seq, true);
        let (done, missing) = self.resumed.get_or_insert_with(|| (self.position, BTreeSet::new()));
        if seq.0.saturating_sub(done.0) > BOUND_SPAN_MAX {
            // It was moved back. What lies between is found in the log.
            self.held.insert(seq);
            return;
        }
        // What lies between was handed out before it, or will be.
        missing.extend((done.0 + 1..seq.0).map(Seq));
        missing.remove(&seq);
        *done = seq.max(*done);
    }

    /// Whether a message read from the log is still to be handed out: not what a member held when the group was
    /// moved back, nor what was handed out before a restart.
    pub fn wants(&self, seq: Seq) -> bool {
        !self.held.contains(&seq)
            && !self.resumed.as_ref().is_some_and(|(done, missing)| seq <= *done && !missing.contains(&seq))
    }

    /// What must be handed out again should nobody acknowledge it, up to the position.
    pub fn missing(&self) -> Vec<Seq> {
        let loose = self.outstanding.iter().filter(|(_, bound)| !**bound).map(|(seq, _)| *seq);
        let returned = self.returned.iter().filter_map(|waiting| waiting.place).map(|place| place.seq);
        let again = self.resumed.iter().flat_map(|(_, missing)| missing.iter().copied());
        let again = again.filter(|seq| *seq > self.position);
        loose.chain(returned).chain(again).collect()
    }

    /// How far it has come: everything up to there was handed out at least once.
    pub fn reached(&self) -> Seq {
        self.resumed.as_ref().map_or(self.position, |(done, _)| self.position.max(*done))
    }

    /// How many messages wait besides those in the log behind [`SharedGroup::reached`].
    pub fn waiting(&self) -> usize {
        let again = self.resumed.iter().flat_map(|(_, missing)| missing).filter(|seq| **seq > self.position);
        self.returned.len() + self.queue.len() + again.count()
    }

    /// A message that was handed out is consumed.
    pub fn consumed(&mut self, place: Option<Place>) {
        if let Some(place) = place {
            self.outstanding.remove(&place.seq);
        }
    }

    /// A member that leaves gives a message back.
    pub fn give_back(&mut self, waiting: Waiting) {
        self.consumed(waiting.place);
        let seq = |waiting: &Waiting| waiting.place.map(|place| place.seq);
        let at = self.returned.partition_point(|earlier| seq(earlier) <= seq(&waiting));
        self.returned.insert(at, waiting);
        self.behind = true;
    }

    /// A message of a group that is not durable waits; the newest is lost when too many do. Returns whether
    /// it is kept.
    pub fn enqueue(&mut self, message: Arc<Message>) -> bool {
        self.behind = true;
        let has_room = self.queue.len() < QUEUED_MAX;
        if has_room {
            self.queue.push_back(message);
        }
        has_room
    }

    /// The earliest message that waits outside the log.
    pub fn next_waiting(&mut self) -> Option<Waiting> {
        let queued = |message| Waiting { place: None, message };
        self.returned.pop_front().or_else(|| self.queue.pop_front().map(queued))
    }

    /// Puts the message that was just taken back.
    pub fn keep_waiting(&mut self, waiting: Waiting) {
        self.behind = true;
        if waiting.place.is_some() {
            self.returned.push_front(waiting);
        } else {
            self.queue.push_front(waiting.message);
        }
    }

    /// Everything up to here was consumed by the group.
    pub fn floor(&self) -> Seq {
        let returned = self.returned.iter().filter_map(|waiting| waiting.place).map(|place| place.seq);
        let earliest = self.outstanding.keys().next().copied().into_iter().chain(returned).min();
        earliest.map_or(self.position, |seq| Seq(seq.0 - 1).min(self.position))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{FilterKey, PropertyBytes, Timestamp, TopicName};

    fn message(topic: &str) -> Message {
        Message {
            topic: TopicName::new(topic).expect("a topic"),
            payload: Bytes::new(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: PropertyBytes::default(),
            expires_at: None,
            published_at: Timestamp::EPOCH,
            publisher: None,
        }
    }

    #[allow(clippy::unnecessary_wraps)] // as it is handed around
    fn place(seq: u64) -> Option<Place> {
        Some(Place { seq: Seq(seq), filter: FilterKey(0), durable: true })
    }

    fn group(members: u32) -> SharedGroup {
        let share = TopicFilter::new("$share/g/t").expect("a filter");
        let mut group = SharedGroup::new(share, FilterId(1), Seq::ZERO);
        for slot in 0..members {
            let slot = Slot(slot);
            group.join(Member {
                slot,
                client: ClientKey(slot.0.into()),
                qos: QoS::AtLeastOnce,
                retain_as_published: false,
                identifier: None,
                muted: false,
            });
        }
        group
    }

    #[test]
    fn random_takes_the_next_one_with_room() {
        let group = group(4);
        let chosen = |random, room: &[u32]| {
            let has_room = |slot: Slot| room.contains(&slot.0);
            let member = group.choose(SharedStrategy::Random, &message("t"), random, |_| true, has_room);
            member.map(|member| member.slot.0)
        };
        assert_eq!(chosen(6, &[0, 1, 2, 3]), Some(2));
        assert_eq!(chosen(6, &[0, 1, 3]), Some(3));
        assert_eq!(chosen(7, &[1]), Some(1));
        assert_eq!(chosen(7, &[]), None);
    }

    #[test]
    fn a_hash_keeps_a_topic_with_its_member_and_moves_only_a_lost_one_s_share() {
        let group = group(8);
        let chosen = |topic: &str, online: &dyn Fn(Slot) -> bool| {
            group.choose(SharedStrategy::HashTopic, &message(topic), 0, online, |_| true).map(|m| m.slot)
        };
        let mut moved = 0;
        for n in 0..200 {
            let topic = format!("t/{n}");
            let before = chosen(&topic, &|_| true).expect("somebody");
            assert_eq!(chosen(&topic, &|_| true), Some(before));
            let after = chosen(&topic, &|slot| slot != Slot(3)).expect("somebody");
            assert_ne!(after, Slot(3));
            assert!(before == Slot(3) || before == after, "{topic} moved without need");
            moved += u32::from(before == Slot(3));
        }
        assert!((5..60).contains(&moved), "an eighth of 200 is about 25, not {moved}");
        let full = group.choose(SharedStrategy::HashTopic, &message("t/1"), 0, |_| true, |_| false);
        assert_eq!(full, None, "it waits for its member");
    }

    #[test]
    fn the_floor_follows_what_is_out_and_what_came_back() {
        let mut group = group(1);
        for seq in 1..=3 {
            group.handed_out(place(seq), false);
            group.position = Seq(seq);
        }
        assert_eq!(group.floor(), Seq(0));
        group.consumed(place(1));
        assert_eq!(group.floor(), Seq(1));
        let back = |seq| Waiting { place: place(seq), message: Arc::new(message("t")) };
        group.give_back(back(3));
        group.give_back(back(2));
        assert_eq!(group.floor(), Seq(1));
        assert_eq!(group.next_waiting().and_then(|w| w.place), place(2));
        assert_eq!(group.next_waiting().and_then(|w| w.place), place(3));
        assert_eq!(group.floor(), Seq(3));
    }
}
