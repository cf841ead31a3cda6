//! What waits for a session: exchanges to go on with, retained messages owed, its queue, and the log
//! behind its position.

use std::sync::Arc;

use super::Cluster;
use crate::data_plane::broker::Slot;
use crate::data_plane::message_log::{LogEntry, MessageLog};
use crate::data_plane::session::Session;
use crate::data_plane::session::outbound::Delivery;
use crate::data_plane::session::transmit::Sent;
use crate::model::{Now, QoS};

/// How many messages are read from the log at a time.
const READ_AT_ONCE: usize = 64;

impl<L: MessageLog> Cluster<L> {
    /// Sends as much as there is room for, earliest first (PRODUCT S-2). Once the end of the log is
    /// reached the session is caught up, in the same step: nothing lies between.
    pub(super) fn catch_up(&mut self, now: Now, slot: Slot) {
        let session = self.session(slot);
        if !session.link.as_ref().is_some_and(|link| link.takes_messages()) {
            return;
        }
        if session.resume_exchanges(now) && self.send_replays(now, slot) && self.send_queue(now, slot) {
            self.send_from_log(now, slot);
        }
        self.serve_groups_of(now, slot);
    }

    /// Retained messages owed to new subscriptions. Returns whether none is left.
    fn send_replays(&mut self, now: Now, slot: Slot) -> bool {
        let Self { sessions, retained, .. } = self;
        let session = &mut sessions[slot.0 as usize];
        while let Some(mut replay) = session.replays.pop_front() {
            while let Some(message) =
                retained.next_matching(&replay.filter, replay.after.as_deref(), now.wall)
            {
                if !session.link.as_ref().is_some_and(|link| link.takes_messages()) {
                    session.replays.push_front(replay);
                    return false;
                }
                let topic = Box::from(message.topic.as_str());
                let delivery = Delivery {
                    qos: replay.qos.min(message.qos),
                    retain: true, // [MQTT-3.3.1-8]
                    subscription_ids: replay.identifier.into_iter().collect(),
                    seq: None,
                    group: None,
                    message,
                };
                if delivery.qos == QoS::AtMostOnce {
                    session.send_at_most_once(now, &delivery);
                } else if let Sent::NoRoom(_) = session.send_assured(now, delivery) {
                    session.replays.push_front(replay);
                    return false;
                }
                replay.after = Some(topic);
            }
        }
        true
    }

    /// Messages that are not in the log. Returns whether none is left.
    fn send_queue(&mut self, now: Now, slot: Slot) -> bool {
        let session = self.session(slot);
        while let Some(delivery) = session.outbound.dequeue() {
            if let Sent::NoRoom(delivery) = session.send_assured(now, delivery) {
                session.outbound.requeue(delivery);
                return false;
            }
        }
        true
    }

    fn send_from_log(&mut self, now: Now, slot: Slot) {
        let Self { sessions, log, .. } = self;
        let session = &mut sessions[slot.0 as usize];
        if !session.durable || session.link.as_ref().is_none_or(|link| link.caught_up) {
            return;
        }
        let (mut cursors, mut entries) = (Vec::new(), Vec::new());
        loop {
            cursors.clear();
            entries.clear();
            session.log_cursors(&mut cursors);
            log.read(&cursors, READ_AT_ONCE, &mut entries);
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
}

/// Sends messages read from the log until there is no room. Returns whether all went.
fn send_entries(now: Now, session: &mut Session, entries: &[LogEntry]) -> bool {
    for LogEntry { seq, message } in entries {
        let Some(mut delivery) = session.delivery_of(&Arc::clone(message), *seq) else {
            session.outbound.position = *seq;
            continue;
        };
        delivery.seq = Some(*seq);
        if delivery.qos == QoS::AtMostOnce {
            session.send_at_most_once(now, &delivery);
        } else if let Sent::NoRoom(_) = session.send_assured(now, delivery) {
            return false;
        }
        session.outbound.position = *seq;
    }
    true
}
