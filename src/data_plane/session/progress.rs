//! What of a session's messages outlives the connection and the process: how far it has read, and its
//! unfinished exchanges (MQTT 5.0, 4.1; PRODUCT S-1, S-3, S-12).
//!
//! Two kinds of facts. Exchanges at QoS 2 are written down one by one, each step before the packet
//! that reveals it leaves: the session says so with a [`Note`]. So are those at QoS 1 whose message is not in
//! the log. Progress at QoS 1 is written down a little later ([`Outbound::progress`]): after a crash what was
//! acknowledged last is delivered once more, as QoS 1 may be.
//!
//! Without a connection a session keeps no messages: those of its exchanges lie in the log
//! ([`Outbound::freeze`]) and are fetched when it returns ([`Outbound::thaw`]). A return after a
//! restart is the same.

use std::num::NonZeroU32;
use std::sync::Arc;

use smallvec::SmallVec;

use super::outbound::{Delivery, InFlight, Outbound, Phase, distance, packet_id_of};
use crate::data_plane::protocol::PacketId;
use crate::model::{FilterKey, GroupId, Message, Monotonic, Place, QoS, Seq};

/// Something to be written down before the output of this turn leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// An exchange with the client that is [written down by itself](Delivery::is_written_by_itself) has
    /// begun or come further.
    Exchange(PacketId),
    /// Such an exchange is over.
    ExchangeOver(PacketId),
    /// More, or less, of the retained messages of a filter is owed.
    Owed(FilterKey),
    /// A QoS 2 packet id of the client is free again.
    Released(PacketId),
}

/// An exchange whose message is elsewhere.
#[derive(Clone, Debug)]
pub struct Frozen {
    /// The how-manieth exchange of the session it is. Its packet id follows from it.
    pub number: u64,
    /// How far it is.
    pub phase: Phase,
    /// The quality of service of the delivery.
    pub qos: QoS,
    /// The retain flag of the delivery.
    pub retain: bool,
    /// The subscription identifiers of the delivery.
    pub subscription_ids: SmallVec<[NonZeroU32; 1]>,
    /// The shared group whose message it is.
    pub group: Option<GroupId>,
    /// Where the message is.
    pub body: Body,
}

/// Where the message of an exchange is.
#[derive(Clone, Debug)]
pub enum Body {
    /// In the log.
    Logged(Place),
    /// Here, because it is not in the log: a retained message that was sent on a subscription.
    Whole(Arc<Message>),
    /// Nowhere: the client has it.
    Consumed,
}

impl Frozen {
    /// Where the message lies in the log.
    pub fn place(&self) -> Option<Place> {
        match self.body {
            Body::Logged(place) => Some(place),
            Body::Whole(_) | Body::Consumed => None,
        }
    }

    /// Whether its message lies at this position.
    pub fn lies_at(&self, seq: Seq) -> bool {
        self.place().is_some_and(|place| place.seq == seq)
    }

    /// The packet id.
    pub fn packet_id(&self) -> PacketId {
        packet_id_of(self.number)
    }

    fn thawed(self, message: Arc<Message>) -> InFlight {
        let place = self.place();
        let Self { number, phase, qos, retain, subscription_ids, group, .. } = self;
        let delivery = Delivery { message, qos, retain, subscription_ids, place, group };
        let sent_at = Monotonic::from_millis(0);
        InFlight { packet_id: packet_id_of(number), phase, delivery, sent_at }
    }
}

/// Messages that the log let go of before the session had consumed them (PRODUCT S-14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// How many.
    pub messages: u64,
    /// What lay up to here is counted.
    pub through: Seq,
    /// What lay up to here was counted before the segment that ends at `through`, whose filters are counted
    /// one by one.
    before: Seq,
}

impl Trimmed {
    /// As it was written down.
    pub fn written_down(messages: u64, through: Seq) -> Self {
        Self { messages, through, before: through }
    }

    /// Up to where was counted before a segment that ends at `segment_last`.
    pub fn counted_before(&self, segment_last: Seq) -> Seq {
        if self.through == segment_last { self.before } else { self.through }
    }

    /// So many went under one filter with a segment that ends at `segment_last`.
    pub fn add(&mut self, messages: u64, segment_last: Seq) {
        self.messages += messages;
        if self.through < segment_last {
            self.before = self.through;
            self.through = segment_last;
        }
    }
}

/// How far a session has come, apart from the exchanges that are written down by themselves.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Everything in the log up to here was sent, or does not concern it.
    pub position: Seq,
    /// How many exchanges have begun.
    pub begun: u64,
    /// Exchanges at QoS 1 of messages in the log that are not acknowledged, in order.
    pub unacknowledged: Vec<Frozen>,
    /// What it has lost, if anything.
    pub trimmed: Option<Box<Trimmed>>,
}

impl Outbound {
    /// Whether progress has changed since it was last asked for.
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// What has to be written down at QoS 1. Messages outside the log and those of shared groups do
    /// not count: the ones are written down by themselves, the others go back to their groups.
    pub fn progress(&mut self) -> Progress {
        self.changed = false;
        let own = |exchange: &Frozen| {
            exchange.qos == QoS::AtLeastOnce && exchange.group.is_none() && exchange.place().is_some()
        };
        let under_way = self.in_flight.iter().map(|exchange| self.frozen_form(exchange));
        let unacknowledged = self.frozen.iter().cloned().chain(under_way).filter(own).collect();
        let trimmed = self.trimmed.clone();
        Progress { position: self.position, begun: self.begun, unacknowledged, trimmed }
    }

    /// One exchange as it is to be written down.
    pub fn written_form(&self, packet_id: PacketId) -> Option<Frozen> {
        self.exchange(packet_id).map(|exchange| self.frozen_form(exchange))
    }

    /// Takes up what was written down: progress, and the exchanges that were by themselves. Nothing lies
    /// behind `tail`: what does was never promised to anybody.
    pub fn restore(&mut self, progress: Progress, exchanges: Vec<Frozen>, tail: Seq) {
        self.position = progress.position.min(tail);
        self.trimmed = progress.trimmed;
        let mut frozen: Vec<Frozen> = progress.unacknowledged.into_iter().chain(exchanges).collect();
        frozen.retain(|exchange| exchange.place().is_none_or(|place| place.seq <= tail));
        frozen.sort_by_key(|exchange| exchange.number);
        self.begun = frozen.last().map_or(0, |newest| newest.number).max(progress.begun);
        self.frozen = frozen;
    }

    /// Lets go of the messages of the exchanges under way: they can be fetched from the log.
    pub fn freeze(&mut self) {
        let frozen: Vec<Frozen> = self.in_flight.iter().map(|exchange| self.frozen_form(exchange)).collect();
        self.frozen.extend(frozen);
        self.in_flight = std::collections::VecDeque::new();
        self.sent = 0;
    }

    /// Exchanges whose messages are here, in order, each with what is still to be received.
    pub fn under_way(&self) -> impl Iterator<Item = (Frozen, Option<&Message>)> {
        self.in_flight.iter().map(|exchange| {
            let message = (exchange.phase == Phase::Published).then_some(&*exchange.delivery.message);
            (self.frozen_form(exchange), message)
        })
    }

    /// Exchanges that wait for their messages, in order.
    pub fn frozen(&self) -> &[Frozen] {
        &self.frozen
    }

    /// Goes on with the frozen exchanges. `message` gives what lies at a place; an exchange whose message
    /// is gone (the log was full, S-14) is over, and is returned.
    pub fn thaw(&mut self, message: impl Fn(Place) -> Option<Arc<Message>>) -> Vec<Frozen> {
        let mut lost = Vec::new();
        for exchange in std::mem::take(&mut self.frozen) {
            let body = match &exchange.body {
                Body::Consumed => Some(Arc::new(Message::spent())),
                Body::Whole(message) => Some(Arc::clone(message)),
                Body::Logged(place) => message(*place),
            };
            match body {
                Some(body) => self.in_flight.push_back(exchange.thawed(body)),
                None => lost.push(exchange),
            }
        }
        self.changed |= !lost.is_empty();
        lost
    }

    fn frozen_form(&self, exchange: &InFlight) -> Frozen {
        let InFlight { packet_id, phase, delivery, .. } = exchange;
        let newest = packet_id_of(self.begun);
        let body = match (phase, delivery.place) {
            (Phase::Released, _) => Body::Consumed,
            (Phase::Published, Some(place)) => Body::Logged(Place { durable: true, ..place }),
            (Phase::Published, None) => Body::Whole(Arc::clone(&delivery.message)),
        };
        Frozen {
            number: self.begun - u64::from(distance(*packet_id, newest)),
            phase: *phase,
            qos: delivery.qos,
            retain: delivery.retain,
            subscription_ids: delivery.subscription_ids.clone(),
            group: delivery.group,
            body,
        }
    }
}
