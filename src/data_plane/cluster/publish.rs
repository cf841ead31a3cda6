//! A message on its way to everyone it concerns (MQTT 5.0, 3.3.4; PRODUCT S-3).

use std::num::NonZeroU32;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Cluster;
use crate::data_plane::broker::Slot;
use crate::data_plane::broker::subscription_index::{FilterEntry, Subscriber};
use crate::data_plane::message_log::{Change, Entry, Posted};
use crate::data_plane::protocol::PublishTemplates;
use crate::data_plane::session::Session;
use crate::data_plane::session::outbound::Delivery;
use crate::data_plane::session::transmit::{Copies, Sent};
use crate::model::{FilterId, FilterKey, Message, Now, Place, QoS, Seq};

/// Working memory of the fan-out, kept from message to message.
#[derive(Debug, Default)]
pub(super) struct FanOut {
    /// For each slot: the message it was last gathered for, and where in `gathered`.
    marks: Vec<(u64, u32)>,
    gathered: Vec<Recipient>,
    /// Counts gatherings; 0 marks none.
    round: u64,
    log_filters: Vec<FilterId>,
    log_keys: Vec<FilterKey>,
}

/// What all subscriptions of one session make of a message together.
#[derive(Clone, Debug)]
struct Recipient {
    slot: Slot,
    qos: QoS,
    retain: bool,
    /// Whether the message waits for it in the log.
    reads_log: bool,
    subscription_ids: SmallVec<[NonZeroU32; 1]>,
}

impl Recipient {
    fn new(subscriber: &Subscriber, message: &Message) -> Self {
        Self {
            slot: subscriber.slot,
            qos: subscriber.qos.min(message.qos),
            retain: subscriber.retain_as_published && message.retain,
            reads_log: subscriber.reads_log,
            subscription_ids: subscriber.identifier.into_iter().collect(),
        }
    }

    /// `[MQTT-3.3.4-2]`, `[MQTT-3.3.4-4]`: one delivery, the highest QoS, all identifiers.
    fn merge(&mut self, subscriber: &Subscriber, message: &Message) {
        self.qos = self.qos.max(subscriber.qos.min(message.qos));
        self.retain |= subscriber.retain_as_published && message.retain;
        self.reads_log |= subscriber.reads_log;
        self.subscription_ids.extend(subscriber.identifier);
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    /// Whether anybody subscribes to it.
    pub(super) heard: bool,
    /// Whether it, or that it is retained, is written down: it is safe when this turn is durable.
    pub(super) written: bool,
}

/// A change that goes to the disk in one piece with a message.
#[derive(Debug)]
pub(super) enum Along {
    /// None.
    Nothing,
    /// Only if the message is written down.
    IfWritten(Change),
    /// In any case.
    Always(Change),
}

/// The message would have to be written down, and the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DiskFull;

impl Cluster {
    /// Passes a message on: retains it if asked, keeps it in the log if a persistent session wants
    /// it, and sends it to everyone who is online and has room.
    ///
    /// # Errors
    /// When the disk is full; then nothing has happened, but `along` if it goes in any case.
    pub(super) fn publish(
        &mut self,
        now: Now,
        mut message: Arc<Message>,
        along: Along,
    ) -> Result<Published, DiskFull> {
        let filters = self.index.matches(message.topic.as_str());
        let logged = message.qos > QoS::AtMostOnce && self.find_log_filters(&filters);
        if !self.journal.has_room && (logged || message.retain) {
            if let Along::Always(change) = along {
                self.journal.change(vec![change]);
            }
            return Err(DiskFull);
        }
        let kept = message.retain || message.qos > QoS::AtMostOnce;
        if kept {
            Arc::make_mut(&mut message).detach();
        }
        let retained = self.retain(&message);
        let place = logged.then(|| self.append(&message));
        let written = self.write_message(&message, place, retained, along);
        let heard = !filters.is_empty() && self.fan_out(now, &filters, &message, place);
        Ok(Published { heard, written })
    }

    /// Sends a message to everyone who is online and has room. Returns whether anybody subscribes.
    fn fan_out(
        &mut self,
        now: Now,
        filters: &[FilterId],
        message: &Arc<Message>,
        place: Option<Place>,
    ) -> bool {
        let mut fan_out = std::mem::take(&mut self.fan_out);
        fan_out.gather(&self.index_entries(filters), message, self.sessions.capacity(), &self.sessions);
        let asleep = filters.iter().any(|id| self.index.filter(*id).is_some_and(FilterEntry::has_offline));
        let heard = asleep || !fan_out.gathered.is_empty();
        let mut templates = (fan_out.gathered.len() > 1).then(PublishTemplates::default);
        for recipient in fan_out.gathered.drain(..) {
            self.hand_over(now, recipient, message, place, templates.as_mut());
        }
        self.fan_out = fan_out;
        self.hand_to_groups(now, filters, message, place) > 0 || heard
    }

    fn index_entries(&self, filters: &[FilterId]) -> SmallVec<[&FilterEntry; 4]> {
        filters.iter().filter_map(|id| self.index.filter(*id)).collect()
    }

    /// Finds those among `filters` that a persistent session reads. Returns whether there are any.
    fn find_log_filters(&mut self, filters: &[FilterId]) -> bool {
        let Self { fan_out, index, .. } = self;
        fan_out.log_filters.clear();
        fan_out.log_keys.clear();
        for id in filters {
            if let Some(entry) = index.filter(*id).filter(|entry| entry.has_log_readers()) {
                fan_out.log_filters.push(*id);
                fan_out.log_keys.push(entry.key);
            }
        }
        !fan_out.log_filters.is_empty()
    }

    /// Keeps the message once, under each distinct filter that a persistent session reads.
    fn append(&mut self, message: &Arc<Message>) -> Place {
        let Self { fan_out, log, .. } = self;
        let filter = fan_out.log_keys.first().copied().unwrap_or_default();
        let seq = log.append(Arc::clone(message), &fan_out.log_filters, filter);
        Place { seq, filter, durable: false }
    }

    /// Writes down, in one piece, the message, that it is retained, and what goes along. Returns whether
    /// the message or its being retained was.
    fn write_message(
        &mut self,
        message: &Arc<Message>,
        place: Option<Place>,
        retained: Option<Change>,
        along: Along,
    ) -> bool {
        let Self { fan_out, journal, .. } = self;
        let posted = place.map(|place| Posted {
            seq: place.seq,
            filters: SmallVec::from_slice(&fan_out.log_keys),
            message: Arc::clone(message),
        });
        let written = posted.is_some() || retained.is_some();
        let along = match along {
            Along::Always(change) => Some(change),
            Along::IfWritten(change) => Some(change).filter(|_| written),
            Along::Nothing => None,
        };
        let changes: Vec<Change> = retained.into_iter().chain(along).collect();
        if posted.is_some() || !changes.is_empty() {
            journal.write(Entry { cluster: journal.cluster(), message: posted, changes });
        }
        written
    }

    /// One recipient: sends now what can be sent now; the rest waits in the log, or in the queue of a
    /// session that ends with its connection.
    fn hand_over(
        &mut self,
        now: Now,
        recipient: Recipient,
        message: &Arc<Message>,
        place: Option<Place>,
        copies: Copies<'_>,
    ) {
        let slot = recipient.slot;
        let session = &mut self.sessions[slot.0 as usize];
        let Some(link) = session.link.as_ref() else { return };
        let sent_before = link.counters.sent;
        let delivery = Delivery {
            message: Arc::clone(message),
            qos: recipient.qos,
            retain: recipient.retain,
            subscription_ids: recipient.subscription_ids,
            place: None,
            group: None,
        };
        if recipient.reads_log
            && let Some(place) = place
        {
            if link.caught_up {
                hand_over_from_log(now, session, delivery, place, copies);
            }
        } else if delivery.qos == QoS::AtMostOnce {
            session.send_at_most_once(now, &delivery, copies);
        } else if session.outbound.has_queued() {
            session.enqueue(delivery);
        } else if let Sent::NoRoom(delivery) = session.send_assured(now, delivery, copies) {
            session.enqueue(delivery);
        }
        self.sent_uncharged += session.sent_since(sent_before);
        self.effects.touch(slot, &mut self.sessions[slot.0 as usize]);
    }
}

/// At the tail of the log: sends the newest message, or falls back to reading from before it.
fn hand_over_from_log(
    now: Now,
    session: &mut Session,
    mut delivery: Delivery,
    place: Place,
    copies: Copies<'_>,
) {
    let seq = place.seq;
    delivery.place = Some(place);
    match session.send_kept(now, delivery, copies) {
        Sent::Done => session.outbound.position = seq,
        Sent::NoRoom(_) => {
            session.outbound.position = Seq(seq.0 - 1);
            if let Some(link) = session.link.as_mut() {
                link.caught_up = false;
            }
        }
    }
}

impl FanOut {
    /// Collects each session that wants the message, once.
    fn gather(
        &mut self,
        entries: &[&FilterEntry],
        message: &Message,
        slots: usize,
        sessions: &slab::Slab<Session>,
    ) {
        self.gathered.clear();
        self.round += 1;
        let overlapping = entries.len() > 1;
        if overlapping && self.marks.len() < slots {
            self.marks.resize(slots, (0, 0));
        }
        for subscriber in entries.iter().flat_map(|entry| entry.online()) {
            // [MQTT-3.8.3-3]: not to the publisher itself, if it asked so.
            let own = subscriber.no_local
                && message.publisher.is_some()
                && message.publisher == sessions.get(subscriber.slot.0 as usize).map(|s| s.client_key);
            if own {
                continue;
            }
            if !overlapping {
                self.gathered.push(Recipient::new(subscriber, message));
                continue;
            }
            let mark = &mut self.marks[subscriber.slot.0 as usize];
            if mark.0 == self.round {
                self.gathered[mark.1 as usize].merge(subscriber, message);
            } else {
                *mark = (self.round, u32::try_from(self.gathered.len()).unwrap_or(u32::MAX));
                self.gathered.push(Recipient::new(subscriber, message));
            }
        }
    }
}
