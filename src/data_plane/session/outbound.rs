//! What goes to the client at QoS 1 and 2: packet ids, phases, and messages that wait.
//!
//! Lives with the session, not the connection: on resume the unfinished exchanges go on with the
//! same packet ids (`[MQTT-4.4.0-1]`).

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;

use smallvec::SmallVec;

use super::progress::{Frozen, Trimmed};
use crate::data_plane::protocol::PacketId;
use crate::model::{GroupId, Message, Monotonic, Place, QoS, Seq};

/// One message for one subscriber, with what its subscriptions make of it. Frozen when it is first
/// sent: what changes in the subscriptions afterwards does not change a re-delivery.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What is sent.
    pub message: Arc<Message>,
    /// The quality of service of this delivery.
    pub qos: QoS,
    /// The retain flag as this subscriber sees it.
    pub retain: bool,
    /// Identifiers of all its subscriptions that matched.
    pub subscription_ids: SmallVec<[NonZeroU32; 1]>,
    /// Where the message lies in the log; `None` when it does not.
    pub place: Option<Place>,
    /// The shared group whose message it is: then the group's progress counts, not the session's.
    pub group: Option<GroupId>,
}

impl Delivery {
    /// Whether its exchange is written down by itself, each step before it shows: at QoS 2, and where its
    /// message is nowhere else. A shared group has its messages back when the session is gone.
    pub fn is_written_by_itself(&self) -> bool {
        self.qos == QoS::ExactlyOnce || (self.place.is_none() && self.group.is_none())
    }

    /// What its shared group is to know of it; `None` when it is no group's.
    pub fn of_group(&self) -> Option<GroupDelivery> {
        self.group.map(|group| GroupDelivery { group, qos: self.qos, place: self.place })
    }
}

/// A message of a shared group, as one of its members got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupDelivery {
    /// The group.
    pub group: GroupId,
    /// The quality of service of the delivery.
    pub qos: QoS,
    /// Where the message lies in the log.
    pub place: Option<Place>,
}

/// How far an exchange has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// PUBLISH sent; PUBACK or PUBREC is awaited.
    Published,
    /// PUBREL sent; PUBCOMP is awaited. The message itself is no longer needed.
    Released,
}

/// An exchange under way.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// Its packet id.
    pub packet_id: PacketId,
    /// How far it is.
    pub phase: Phase,
    /// What is sent.
    pub delivery: Delivery,
    /// When it was last sent.
    pub sent_at: Monotonic,
}

/// The sending side of a session.
#[derive(Debug, Default)]
pub struct Outbound {
    /// Everything in the log up to here was sent, or did not concern the session. Lags behind while the
    /// session is caught up: then that is true of the whole log.
    pub position: Seq,
    /// Exchanges under way, in the order in which they began; so their packet ids ascend (modulo
    /// wrap-around) and an acknowledgement is found by search.
    pub(super) in_flight: VecDeque<InFlight>,
    /// How many of these, the earliest, were sent on the present connection. The others go again, as
    /// its window allows, before anything new does.
    pub(super) sent: usize,
    /// Exchanges whose messages were left in the log while there is no connection, in the same order.
    /// While there are any, `in_flight` is empty.
    pub(super) frozen: Vec<Frozen>,
    /// How many exchanges have begun. Their packet ids follow from it.
    pub(super) begun: u64,
    /// Whether what [`Outbound::progress`] tells has changed since it was last asked.
    pub(super) changed: bool,
    /// What the log let go of before the session had it. Rare, so apart. Survives a restart.
    pub trimmed: Option<Box<Trimmed>>,
    /// Messages that wait for room and are not in the log: those of sessions that end with their
    /// connection. At most [`QUEUED_MAX`]. Apart, since a session that sleeps has none.
    #[allow(clippy::box_collection)] // a million have the place for it
    queue: Option<Box<VecDeque<Delivery>>>,
}

/// How many messages may wait for a session that ends with its connection.
pub const QUEUED_MAX: usize = 1_000;

impl Outbound {
    /// Nothing under way; the log is read from behind `position`.
    pub fn starting_at(position: Seq) -> Self {
        Self { position, ..Self::default() }
    }

    /// How many exchanges are under way: what counts against Receive Maximum.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The exchanges under way, earliest first.
    pub fn exchanges(&self) -> impl Iterator<Item = &InFlight> {
        self.in_flight.iter()
    }

    /// A connection begins: nothing was sent on it yet.
    pub fn attached(&mut self) {
        self.sent = 0;
    }

    /// The earliest exchange that is still to be sent again on this connection, marked as sent. `None`
    /// when there is none, or when `window` PUBLISH packets are unanswered: PUBREL needs no room.
    pub fn next_to_repeat(&mut self, window: u16, now: Monotonic) -> Option<&InFlight> {
        let has_room = self.sent < usize::from(window);
        let entry = self.in_flight.get_mut(self.sent)?;
        if !has_room && entry.phase == Phase::Published {
            return None;
        }
        self.sent += 1;
        entry.sent_at = now;
        Some(entry)
    }

    /// Whether every exchange was sent on this connection.
    pub fn is_repeated(&self) -> bool {
        self.sent == self.in_flight.len()
    }

    /// Begins an exchange; `None` when no packet id is free. Those before it must all have been sent on this
    /// connection.
    ///
    /// Ids are given in ascending order and a run of them is never longer than the id space, so that
    /// one exchange that never ends stops the session only after 65,534 more.
    pub fn begin(&mut self, delivery: Delivery, now: Monotonic) -> Option<&InFlight> {
        let packet_id = packet_id_of(self.begun + 1);
        if self.in_flight.front().is_some_and(|oldest| oldest.packet_id == packet_id) {
            return None;
        }
        self.begun += 1;
        self.changed = true;
        self.sent += 1;
        self.in_flight.push_back(InFlight { packet_id, phase: Phase::Published, delivery, sent_at: now });
        self.in_flight.back()
    }

    /// Whether an exchange could begin, with `window` as the client's Receive Maximum.
    pub fn has_room(&self, window: u16) -> bool {
        let free = packet_id_of(self.begun + 1);
        // What is frozen began earlier and comes first.
        self.frozen.is_empty()
            && self.is_repeated()
            && self.in_flight.len() < usize::from(window)
            && self.in_flight.front().is_none_or(|oldest| oldest.packet_id != free)
    }

    /// PUBACK. Gives what was delivered.
    pub fn acknowledged(&mut self, packet_id: PacketId) -> Option<Delivery> {
        self.end(packet_id, |entry| entry.delivery.qos == QoS::AtLeastOnce)
    }

    /// PUBREC without error: from here on PUBREL is owed. Returns whether the exchange is known.
    pub fn received(&mut self, packet_id: PacketId, now: Monotonic) -> bool {
        let Some(at) = self.find(packet_id) else { return false };
        let entry = &mut self.in_flight[at];
        if entry.delivery.qos != QoS::ExactlyOnce {
            return false;
        }
        entry.phase = Phase::Released;
        entry.sent_at = now;
        true
    }

    /// PUBREC with an error: the exchange is over (`[MQTT-4.13.2-1]`, 4.3.3). Gives what was delivered.
    pub fn rejected(&mut self, packet_id: PacketId) -> Option<Delivery> {
        self.end(packet_id, |entry| entry.delivery.qos == QoS::ExactlyOnce)
    }

    /// PUBCOMP. Gives what was delivered.
    pub fn completed(&mut self, packet_id: PacketId) -> Option<Delivery> {
        self.end(packet_id, |entry| entry.phase == Phase::Released)
    }

    /// Exchanges last sent on this connection at or before `before`, marked as sent again at `now`.
    pub fn due_again(&mut self, before: Monotonic, now: Monotonic) -> Vec<InFlight> {
        let due = self.in_flight.iter_mut().take(self.sent).filter(|entry| entry.sent_at <= before);
        due.map(|entry| {
            entry.sent_at = now;
            entry.clone()
        })
        .collect()
    }

    /// Puts a message in the queue; the newest is lost when it is full. Returns whether it is kept.
    pub fn enqueue(&mut self, delivery: Delivery) -> bool {
        let queue = self.queue.get_or_insert_default();
        let has_room = queue.len() < QUEUED_MAX;
        if has_room {
            queue.push_back(delivery);
        }
        has_room
    }

    /// Puts the message that was just dequeued back.
    pub fn requeue(&mut self, delivery: Delivery) {
        self.queue.get_or_insert_default().push_front(delivery);
    }

    /// Takes the earliest message of the queue.
    pub fn dequeue(&mut self) -> Option<Delivery> {
        self.queue.as_mut()?.pop_front()
    }

    /// The messages of the queue, earliest first.
    pub fn queued(&self) -> impl Iterator<Item = &Delivery> {
        self.queue.iter().flat_map(|queue| queue.iter())
    }

    /// Whether messages wait in the queue.
    pub fn has_queued(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.is_empty())
    }

    /// Everything up to here may be trimmed from the log: it was consumed, in order or not.
    pub fn floor(&self) -> Seq {
        let own = self.in_flight.iter().filter(|entry| entry.delivery.group.is_none());
        let own = own.filter_map(|entry| entry.delivery.place);
        let frozen = self.frozen.iter().filter(|entry| entry.group.is_none()).filter_map(Frozen::place);
        let earliest = own.chain(frozen).map(|place| place.seq).min();
        earliest.map_or(self.position, |seq| Seq(seq.0 - 1).min(self.position))
    }

    /// An exchange that is under way.
    pub fn exchange(&self, packet_id: PacketId) -> Option<&InFlight> {
        self.find(packet_id).map(|at| &self.in_flight[at])
    }

    /// Takes out the shared groups' QoS 1 messages that the client has not acknowledged, earliest
    /// first: they go back to their groups (`[MQTT-4.8.2-6]`, PRODUCT S-4). The connection has ended.
    pub fn take_shared(&mut self) -> Vec<Delivery> {
        let (shared, own) = std::mem::take(&mut self.in_flight).into_iter().partition(|entry: &InFlight| {
            entry.delivery.group.is_some() && entry.delivery.qos == QoS::AtLeastOnce
        });
        self.in_flight = own;
        self.sent = 0;
        let shared: VecDeque<InFlight> = shared;
        shared.into_iter().map(|entry| entry.delivery).collect()
    }

    /// Takes out what was published and is not `fit` to be sent on the new connection, earliest first.
    pub fn take_unfit(&mut self, fit: impl Fn(&Delivery) -> bool) -> Vec<InFlight> {
        let unfit = |entry: &InFlight| entry.phase == Phase::Published && !fit(&entry.delivery);
        let taken: Vec<InFlight> = self.in_flight.iter().filter(|entry| unfit(entry)).cloned().collect();
        if !taken.is_empty() {
            self.in_flight.retain(|entry| !unfit(entry));
            self.sent = 0;
            self.changed = true;
        }
        taken
    }

    fn end(&mut self, packet_id: PacketId, fits: impl Fn(&InFlight) -> bool) -> Option<Delivery> {
        let at = self.find(packet_id)?;
        if !fits(&self.in_flight[at]) {
            return None;
        }
        self.sent -= usize::from(at < self.sent);
        self.changed = true;
        self.in_flight.remove(at).map(|entry| entry.delivery)
    }

    fn find(&self, packet_id: PacketId) -> Option<usize> {
        let oldest = self.in_flight.front()?.packet_id;
        if oldest == packet_id {
            return Some(0);
        }
        let age = |id: PacketId| distance(oldest, id);
        let wanted = age(packet_id);
        let at = self.in_flight.partition_point(|entry| age(entry.packet_id) < wanted);
        (self.in_flight.get(at)?.packet_id == packet_id).then_some(at)
    }
}

/// The packet id of a session's exchange number `number`, from 1 on: 1 to 65,535 and again.
pub(super) fn packet_id_of(number: u64) -> PacketId {
    let id = u16::try_from(number.wrapping_sub(1) % u64::from(u16::MAX) + 1);
    id.ok().and_then(PacketId::new).unwrap_or(PacketId::MIN)
}

/// How many ids later than `from` the id `to` was given.
pub(super) fn distance(from: PacketId, to: PacketId) -> u16 {
    let ahead = to.get().wrapping_sub(from.get());
    // Going past 65,535 skips 0.
    if to < from { ahead - 1 } else { ahead }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{FilterKey, PropertyBytes, Timestamp, TopicName};

    const T0: Monotonic = Monotonic::from_millis(0);

    fn delivery(qos: QoS, seq: u64) -> Delivery {
        Delivery {
            message: Arc::new(Message {
                topic: TopicName::new("t").expect("a topic"),
                payload: Bytes::new(),
                qos,
                retain: false,
                properties: PropertyBytes::default(),
                expires_at: None,
                published_at: Timestamp::EPOCH,
                publisher: None,
            }),
            qos,
            retain: false,
            subscription_ids: SmallVec::new(),
            place: Some(Place { seq: Seq(seq), filter: FilterKey(0), durable: true }),
            group: None,
        }
    }

    fn begin(outbound: &mut Outbound, qos: QoS, seq: u64) -> Option<PacketId> {
        outbound.begin(delivery(qos, seq), T0).map(|exchange| exchange.packet_id)
    }

    fn id(n: u16) -> PacketId {
        PacketId::new(n).expect("not 0")
    }

    #[test]
    fn acknowledgements_end_exchanges_in_any_order() {
        let mut outbound = Outbound { position: Seq(5), ..Outbound::default() };
        for n in 1..=5 {
            assert_eq!(begin(&mut outbound, QoS::AtLeastOnce, n.into()), Some(id(n)));
        }
        assert!(!outbound.has_room(5) && outbound.has_room(6));
        assert!(outbound.acknowledged(id(3)).is_some());
        assert!(outbound.acknowledged(id(3)).is_none());
        assert_eq!(outbound.floor(), Seq(0));
        assert!(outbound.acknowledged(id(1)).is_some());
        assert_eq!(outbound.floor(), Seq(1));
        for n in [5, 4, 2] {
            assert!(outbound.acknowledged(id(n)).is_some());
        }
        assert_eq!(outbound.floor(), Seq(5));
        assert_eq!(outbound.in_flight(), 0);
    }

    #[test]
    fn qos_2_needs_both_steps() {
        let mut outbound = Outbound::default();
        let one = begin(&mut outbound, QoS::ExactlyOnce, 1).expect("an id");
        assert!(outbound.acknowledged(one).is_none(), "PUBACK does not end QoS 2");
        assert!(outbound.completed(one).is_none(), "PUBCOMP before PUBREC");
        assert!(outbound.received(one, T0));
        assert!(outbound.received(one, T0), "a repeated PUBREC is answered again");
        assert!(outbound.completed(one).is_some());
        assert!(!outbound.received(one, T0));
        let two = begin(&mut outbound, QoS::ExactlyOnce, 2).expect("an id");
        assert!(outbound.rejected(two).is_some());
        assert_eq!(outbound.in_flight(), 0);
    }

    #[test]
    fn ids_wrap_around_past_zero_and_are_found() {
        let mut outbound = Outbound { begun: 65_533, ..Outbound::default() };
        let ids: Vec<u16> = (1..=4)
            .filter_map(|seq| begin(&mut outbound, QoS::AtLeastOnce, seq))
            .map(PacketId::get)
            .collect();
        assert_eq!(ids, [65_534, 65_535, 1, 2]);
        assert!(outbound.acknowledged(id(3)).is_none());
        assert!(outbound.acknowledged(id(65_533)).is_none());
        for n in [1, 65_535, 2, 65_534] {
            assert!(outbound.acknowledged(id(n)).is_some(), "{n}");
        }
    }

    #[test]
    fn an_exchange_that_never_ends_is_not_given_its_id_twice() {
        let mut outbound = Outbound::default();
        let stuck = begin(&mut outbound, QoS::AtLeastOnce, 1).expect("an id");
        for _ in 0..65_534 {
            let next = begin(&mut outbound, QoS::AtLeastOnce, 1).expect("an id");
            assert!(outbound.acknowledged(next).is_some());
        }
        assert!(!outbound.has_room(u16::MAX));
        assert_eq!(begin(&mut outbound, QoS::AtLeastOnce, 1), None);
        assert!(outbound.acknowledged(stuck).is_some());
        assert_eq!(begin(&mut outbound, QoS::AtLeastOnce, 1), Some(stuck));
    }

    #[test]
    fn a_full_queue_loses_the_newest_and_says_so() {
        let mut outbound = Outbound::default();
        for seq in 0..=QUEUED_MAX as u64 {
            let kept = outbound.enqueue(delivery(QoS::AtLeastOnce, seq));
            assert_eq!(kept, seq < QUEUED_MAX as u64);
        }
        assert_eq!(outbound.dequeue().and_then(|d| d.place).map(|place| place.seq), Some(Seq(0)));
    }
}
