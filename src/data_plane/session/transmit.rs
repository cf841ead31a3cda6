//! Packets to the client: messages, their repetition, and answers that had to wait.

use super::aliases::Naming;
use super::link::Link;
use super::outbound::{Delivery, InFlight, Phase};
use super::output::SHARE_FROM_BYTES;
use super::progress::Note;
use super::{PublishAck, Session};
use crate::data_plane::protocol::{
    Ack, Packet, PacketId, PublishHead, PublishTemplates, ReasonCode, SubAck, UnsubAck, encode_publish,
    encode_publish_head, publish_len,
};
use crate::model::{Monotonic, Now, QoS, Timestamp};

/// What became of a message that was to be sent.
#[derive(Debug)]
pub enum Sent {
    /// It is on its way, or need not be: expired, or larger than the client takes (PRODUCT S-13).
    Done,
    /// There is no room now.
    NoRoom(Delivery),
}

/// How a PUBLISH becomes bytes: of a message for many, it is encoded once and copied.
pub type Copies<'a> = Option<&'a mut PublishTemplates>;

impl Session {
    /// Sends a message at QoS 0 if the connection takes it; else it is lost, as QoS 0 may be.
    pub fn send_at_most_once(&mut self, now: Now, delivery: &Delivery, copies: Copies<'_>) {
        let Some(link) = self.link.as_mut() else { return };
        if !link.takes_messages() {
            // Before CONNACK it is not slow.
            link.counters.dropped_slow += u64::from(link.ready);
            return;
        }
        if !delivery.message.is_expired(now.wall) && fits(link, now.wall, delivery) {
            if delivery.place.is_some_and(|place| !place.durable) {
                link.out.hold();
            }
            send_publish(link, now.wall, delivery, (None, false), copies);
        }
    }

    /// Puts a message in the queue of a session that ends with its connection; when that is full it is lost.
    pub fn enqueue(&mut self, delivery: Delivery) {
        if !self.outbound.enqueue(delivery)
            && let Some(link) = self.link.as_mut()
        {
            link.counters.dropped_queue_full += 1;
        }
    }

    /// Sends a message that is kept until it is sent: at QoS 0, too, it waits for the connection.
    pub fn send_kept(&mut self, now: Now, delivery: Delivery, copies: Copies<'_>) -> Sent {
        if delivery.qos > QoS::AtMostOnce {
            return self.send_assured(now, delivery, copies);
        }
        if !self.link.as_ref().is_some_and(|link| link.takes_messages()) {
            return Sent::NoRoom(delivery);
        }
        self.send_at_most_once(now, &delivery, copies);
        Sent::Done
    }

    /// Whether a message at QoS 1 or 2 could be sent now.
    pub fn has_room(&self) -> bool {
        self.has_room_at(QoS::AtLeastOnce)
    }

    /// Whether a message at this QoS could be sent now.
    pub fn has_room_at(&self, qos: QoS) -> bool {
        self.link.as_ref().is_some_and(|link| {
            let in_window = qos == QoS::AtMostOnce || self.outbound.has_room(link.receive_maximum);
            in_window && link.takes_messages()
        })
    }

    /// Sends a message at QoS 1 or 2, if the client's window and the connection have room.
    pub fn send_assured(&mut self, now: Now, delivery: Delivery, copies: Copies<'_>) -> Sent {
        let Some(link) = self.link.as_mut() else { return Sent::NoRoom(delivery) };
        if !link.takes_messages() || !self.outbound.has_room(link.receive_maximum) {
            return Sent::NoRoom(delivery);
        }
        // [MQTT-3.3.2-5], [MQTT-3.1.2-25]: neither an expired message nor one that is too large.
        if delivery.message.is_expired(now.wall) || !fits(link, now.wall, &delivery) {
            return Sent::Done;
        }
        let Some(InFlight { packet_id, delivery, .. }) = self.outbound.begin(delivery, now.mono) else {
            return Sent::Done;
        };
        let is_noted = self.durable && delivery.is_written_by_itself();
        if is_noted {
            self.notes.push(Note::Exchange(*packet_id));
        }
        if is_noted || delivery.place.is_some_and(|place| !place.durable) {
            link.out.hold();
        }
        send_publish(link, now.wall, delivery, (Some(*packet_id), false), copies);
        Sent::Done
    }

    /// What is sent from here on must not leave before `note` is written down. Only a session that
    /// outlives its connection writes anything down.
    pub fn note(&mut self, note: Note) {
        if !self.durable {
            return;
        }
        self.notes.push(note);
        if let Some(link) = self.link.as_mut() {
            link.out.hold();
        }
    }

    /// Before exchanges go on with a connection: lets go of those whose PUBLISH is larger than its client
    /// takes, as if they were complete (`[MQTT-3.1.2-24]`, `[MQTT-3.1.2-25]`).
    pub fn drop_oversized(&mut self, now: Now) -> Vec<Delivery> {
        let Some(link) = self.link.as_ref() else { return Vec::new() };
        let dropped = self.outbound.take_unfit(|delivery| fits(link, now.wall, delivery));
        for exchange in &dropped {
            if exchange.delivery.is_written_by_itself() {
                self.note(Note::ExchangeOver(exchange.packet_id));
            }
        }
        dropped.into_iter().map(|exchange| exchange.delivery).collect()
    }

    /// Goes on, after a resume, with the exchanges that were under way: PUBLISH again with DUP, or
    /// PUBREL again, with the same packet ids and in order (`[MQTT-4.4.0-1]`, `[MQTT-4.6.0-1]`), as far
    /// as the window and the connection have room. Returns whether none is left.
    pub fn resume_exchanges(&mut self, now: Now) -> bool {
        let Some(link) = self.link.as_mut() else { return false };
        while link.takes_messages()
            && let Some(exchange) = self.outbound.next_to_repeat(link.receive_maximum, now.mono)
        {
            resend(link, now.wall, exchange);
        }
        self.outbound.is_repeated()
    }

    /// Sends again what a v3 client has not answered since `before` (PRODUCT S-11). A v5 client
    /// gets nothing twice while connected (`[MQTT-4.4.0-1]`).
    pub fn repeat_unanswered(&mut self, now: Now, before: Monotonic) {
        let Some(link) = self.link.as_mut().filter(|link| !link.version.is_v5() && link.takes_messages())
        else {
            return;
        };
        for exchange in self.outbound.due_again(before, now.mono) {
            resend(link, now.wall, &exchange);
        }
    }

    /// Answers a PUBLISH whose message is safe, or was refused. `hold` when it is only safe once this
    /// turn is on disk.
    pub fn answer_publish(&mut self, ack: PublishAck, reason: ReasonCode, hold: bool) {
        if hold && let Some(link) = self.link.as_mut() {
            link.out.hold();
        }
        let packet = match ack {
            PublishAck::Nothing => return,
            PublishAck::PubAck(id) => Packet::PubAck(Ack::new(id, reason)),
            PublishAck::PubRec(id) => {
                if reason.is_error() {
                    self.inbound.release(id);
                }
                Packet::PubRec(Ack::new(id, reason))
            }
        };
        self.send(&packet);
    }

    /// Answers a PUBLISH whose message was not taken, and says why.
    pub fn refuse_publish(&mut self, ack: PublishAck, reason: ReasonCode, why: &str) {
        let reason_string = self.wants_reasons().then(|| why.into());
        let said = |id| Ack { reason_string, ..Ack::new(id, reason) };
        match ack {
            PublishAck::Nothing => {}
            PublishAck::PubAck(id) => self.send(&Packet::PubAck(said(id))),
            PublishAck::PubRec(id) => {
                self.inbound.release(id);
                self.send(&Packet::PubRec(said(id)));
            }
        }
    }

    /// Answers a SUBSCRIBE, a reason for each filter in order (`[MQTT-3.8.4-5]`, `[MQTT-3.9.3-1]`).
    pub fn answer_subscribe(&mut self, packet_id: PacketId, reasons: Vec<ReasonCode>, why: Option<&str>) {
        let reason_string = why.filter(|_| self.wants_reasons()).map(Into::into);
        let user_properties = Vec::new();
        if self.durable
            && let Some(link) = self.link.as_mut()
        {
            link.out.hold();
        }
        self.send(&Packet::SubAck(SubAck { packet_id, reasons, reason_string, user_properties }));
    }

    /// Answers an UNSUBSCRIBE, a reason for each filter in order (`[MQTT-3.10.4-5]`, `[MQTT-3.11.3-1]`).
    pub fn answer_unsubscribe(&mut self, packet_id: PacketId, reasons: Vec<ReasonCode>, why: Option<&str>) {
        let reason_string = why.filter(|_| self.wants_reasons()).map(Into::into);
        let user_properties = Vec::new();
        if self.durable
            && let Some(link) = self.link.as_mut()
        {
            link.out.hold();
        }
        self.send(&Packet::UnsubAck(UnsubAck { packet_id, reasons, reason_string, user_properties }));
    }

    fn send(&mut self, packet: &Packet) {
        if let Some(link) = self.link.as_mut() {
            link.send(packet);
        }
    }

    /// `[MQTT-3.1.2-29]`: reason strings only when asked for.
    fn wants_reasons(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.problem_information)
    }
}

fn head(now: Timestamp, delivery: &Delivery, packet_id: Option<PacketId>, dup: bool) -> PublishHead<'_> {
    PublishHead {
        dup,
        qos: delivery.qos,
        retain: delivery.retain,
        packet_id,
        subscription_ids: &delivery.subscription_ids,
        topic_alias: None,
        omit_topic: false,
        now,
    }
}

/// Whether a message is small enough for the client. Judged with its whole topic, whatever aliases there
/// are: else what a client gets would hang on what it got before, and what was sent under an alias could
/// not be sent again on the next connection.
fn fits(link: &Link, now: Timestamp, delivery: &Delivery) -> bool {
    let id = (delivery.qos > QoS::AtMostOnce).then_some(PacketId::MIN);
    head_fits(link, &head(now, delivery, id, false), delivery)
}

fn head_fits(link: &Link, head: &PublishHead<'_>, delivery: &Delivery) -> bool {
    let Some(max) = link.packet_bytes_max else { return true };
    let len = publish_len(head, &delivery.message, link.version);
    u32::try_from(len).is_ok_and(|len| len <= max.get())
}

/// Puts the topic's alias into `head`, or one that it gets now if the packet still fits with it.
fn use_alias(link: &mut Link, head: &mut PublishHead<'_>, delivery: &Delivery) {
    match link.aliases_out.name(&delivery.message.topic, link.topic_alias_maximum) {
        Naming::Topic => {}
        Naming::Alias(alias) => (head.topic_alias, head.omit_topic) = (Some(alias), true),
        Naming::Setting(alias) => {
            head.topic_alias = Some(alias);
            if head_fits(link, head, delivery) {
                link.aliases_out.set(&delivery.message.topic, alias);
            } else {
                head.topic_alias = None;
            }
        }
    }
}

fn send_publish(
    link: &mut Link,
    now: Timestamp,
    delivery: &Delivery,
    (id, dup): (Option<PacketId>, bool),
    copies: Copies<'_>,
) {
    let mut head = head(now, delivery, id, dup);
    use_alias(link, &mut head, delivery);
    link.counters.sent += 1;
    let message = &delivery.message;
    if message.payload.len() >= SHARE_FROM_BYTES {
        encode_publish_head(&head, message, link.version, link.out.buffer());
        link.out.push_shared(message.payload.clone());
    } else if let Some(templates) = copies {
        templates.encode(&head, message, link.version, link.out.buffer());
    } else {
        encode_publish(&head, message, link.version, link.out.buffer());
    }
}

fn resend(link: &mut Link, now: Timestamp, exchange: &InFlight) {
    match exchange.phase {
        Phase::Published => {
            send_publish(link, now, &exchange.delivery, (Some(exchange.packet_id), true), None);
        }
        Phase::Released => {
            let ack = Ack::new(exchange.packet_id, ReasonCode::Success);
            link.send(&Packet::PubRel(ack));
        }
    }
}
