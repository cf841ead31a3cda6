//! Shared subscriptions: who is a member, what waits, and who gets the next message
//! (MQTT 5.0, 4.8.2; PRODUCT S-4).
//!
//! Progress belongs to the group: a position in the log, what was handed out and not yet
//! acknowledged, and what members gave back. A group without a member that outlives its connection
//! is not worth the disk: its messages wait in a bounded queue instead.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::num::NonZeroU32;
use std::sync::Arc;

use super::Slot;
use crate::model::{FilterId, Message, QoS, Seq, SharedStrategy, Subscription, TopicFilter};

/// One session's membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The session.
    pub slot: Slot,
    /// The greatest QoS it gets.
    pub qos: QoS,
    /// Keep the retain flag.
    pub retain_as_published: bool,
    /// The subscription identifier.
    pub identifier: Option<NonZeroU32>,
}

impl Member {
    /// The member that `subscription` makes of the session in `slot`.
    pub fn new(slot: Slot, subscription: &Subscription) -> Self {
        Self {
            slot,
            qos: subscription.qos,
            retain_as_published: subscription.retain_as_published,
            identifier: subscription.identifier,
        }
    }
}

/// A message that waits for a member.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Where it lies in the log; `None` when it does not.
    pub seq: Option<Seq>,
    /// What was said.
    pub message: Arc<Message>,
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
    members: Vec<Member>,
    /// Positions handed out at QoS 1 or 2 and not yet acknowledged.
    outstanding: BTreeSet<Seq>,
    /// Given back by members that left, earliest first. At most what their windows held.
    returned: VecDeque<Waiting>,
    /// Messages of a group that is not durable. At most [`QUEUED_MAX`].
    queue: VecDeque<Arc<Message>>,
}

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
            members: Vec::new(),
            outstanding: BTreeSet::new(),
            returned: VecDeque::new(),
            queue: VecDeque::new(),
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
                turn.copied().find(|member| has_room(member.slot))
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
        let weight = |member: &Member| foldhash::fast::FixedState::default().hash_one((hash, member.slot));
        let chosen = self.members.iter().filter(|member| is_online(member.slot)).max_by_key(|m| weight(m))?;
        has_room(chosen.slot).then_some(*chosen)
    }

    /// A message was handed out and will be acknowledged.
    pub fn handed_out(&mut self, seq: Option<Seq>) {
        self.outstanding.extend(seq);
    }

    /// A message that was handed out is consumed.
    pub fn consumed(&mut self, seq: Option<Seq>) {
        if let Some(seq) = seq {
            self.outstanding.remove(&seq);
        }
    }

    /// A member that leaves gives a message back.
    pub fn give_back(&mut self, waiting: Waiting) {
        self.consumed(waiting.seq);
        let at = self.returned.partition_point(|earlier| earlier.seq <= waiting.seq);
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
        let queued = |message| Waiting { seq: None, message };
        self.returned.pop_front().or_else(|| self.queue.pop_front().map(queued))
    }

    /// Puts the message that was just taken back.
    pub fn keep_waiting(&mut self, waiting: Waiting) {
        self.behind = true;
        if waiting.seq.is_some() {
            self.returned.push_front(waiting);
        } else {
            self.queue.push_front(waiting.message);
        }
    }

    /// Everything up to here was consumed by the group.
    pub fn floor(&self) -> Seq {
        let returned = self.returned.iter().filter_map(|waiting| waiting.seq);
        let earliest = self.outstanding.first().copied().into_iter().chain(returned).min();
        earliest.map_or(self.position, |seq| Seq(seq.0 - 1).min(self.position))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{PropertyBytes, Timestamp, TopicName};

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

    fn group(members: u32) -> SharedGroup {
        let share = TopicFilter::new("$share/g/t").expect("a filter");
        let mut group = SharedGroup::new(share, FilterId(1), Seq::ZERO);
        for slot in 0..members {
            let slot = Slot(slot);
            group.join(Member { slot, qos: QoS::AtLeastOnce, retain_as_published: false, identifier: None });
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
            group.handed_out(Some(Seq(seq)));
            group.position = Seq(seq);
        }
        assert_eq!(group.floor(), Seq(0));
        group.consumed(Some(Seq(1)));
        assert_eq!(group.floor(), Seq(1));
        let back = |seq| Waiting { seq: Some(Seq(seq)), message: Arc::new(message("t")) };
        group.give_back(back(3));
        group.give_back(back(2));
        assert_eq!(group.floor(), Seq(1));
        assert_eq!(group.next_waiting().and_then(|w| w.seq), Some(Seq(2)));
        assert_eq!(group.next_waiting().and_then(|w| w.seq), Some(Seq(3)));
        assert_eq!(group.floor(), Seq(3));
    }
}
