//! Packets of attached clients: what their sessions make of them, and what that asks of the cluster.

use std::sync::Arc;

use super::detach::Ending;
use super::limits::{NotTaken, may_take, packet_within_limits};
use super::pending::Attachment;
use super::publish::{Along, DiskFull, Published};
use super::{Cluster, facts};
use crate::data_plane::broker::Slot;
use crate::data_plane::broker::admission::grant_expiry;
use crate::data_plane::protocol::{Packet, ReasonCode, Violation};
use crate::data_plane::session::link::ConnId;
use crate::data_plane::session::{PublishAck, Request};
use crate::model::{Message, Now, RefusalKind, RefusalReason};

impl Cluster {
    /// Takes what a connection has sent, in order. Packets from a connection that is no longer the
    /// session's are passed over (PRODUCT S-9).
    pub fn receive(&mut self, now: Now, conn: ConnId, slot: Slot, packets: impl Iterator<Item = Packet>) {
        let attachment = Attachment { slot, conn };
        for packet in packets {
            if self.attached_session(attachment).is_none() {
                return;
            }
            self.take_in_time(now, attachment, packet);
        }
        if self.attached_session(attachment).is_some() {
            self.catch_up(now, slot);
            self.touch(slot);
        }
    }

    /// Takes one packet, whose turn it is.
    pub(super) fn take_packet(&mut self, now: Now, attachment: Attachment, packet: Packet) {
        let slot = attachment.slot;
        if let Err(why) = packet_within_limits(&packet) {
            return self.refuse_packet(now, slot, &packet, why);
        }
        match self.session(slot).receive(now, packet) {
            Ok(request) => self.carry_out(now, attachment, request),
            Err(fault) => {
                let ending = Ending::broken("protocol_error", fault.reason(), fault.to_string());
                self.detach(now, slot, &ending);
            }
        }
    }

    /// A connection has sent bytes that are no packet.
    pub fn violated(&mut self, now: Now, conn: ConnId, slot: Slot, violation: &Violation) {
        if self.attached_session(Attachment { slot, conn }).is_none() {
            return;
        }
        let word = match violation.reason() {
            ReasonCode::PacketTooLarge => "packet_too_large",
            ReasonCode::MalformedPacket => "malformed_packet",
            _ => "protocol_error",
        };
        self.detach(now, slot, &Ending::broken(word, violation.reason(), violation.to_string()));
    }

    /// A connection that had too many bytes waiting has written them.
    pub fn writable(&mut self, now: Now, conn: ConnId, slot: Slot) {
        if let Some(session) = self.attached_session(Attachment { slot, conn }) {
            if let Some(link) = session.link.as_mut() {
                link.congested = false;
            }
            self.catch_up(now, slot);
            self.touch(slot);
        }
    }

    /// A connection has too many bytes waiting.
    pub fn congested(&mut self, conn: ConnId, slot: Slot) {
        if let Some(session) = self.attached_session(Attachment { slot, conn })
            && let Some(link) = session.link.as_mut()
        {
            link.congested = true;
        }
    }

    /// A message that is not taken. v5 is told so by the acknowledgement where there is one; else the
    /// connection ends (3.3.4), or nothing is said.
    fn refuse_publish(&mut self, now: Now, slot: Slot, ack: PublishAck, not_taken: NotTaken) {
        let NotTaken { reason, word, why, silently } = not_taken;
        let session = self.session(slot);
        let v5 = session.link.as_ref().is_some_and(|link| link.version.is_v5());
        if v5 && ack != PublishAck::Nothing {
            session.refuse_publish(ack, reason, &why);
        } else if silently {
            session.answer_publish(ack, ReasonCode::Success, false);
        } else {
            self.detach(now, slot, &Ending::broken(word, reason, why));
        }
    }

    /// A packet whose user properties are beyond the limit (PRODUCT Q-9; for PUBLISH that is judged with its
    /// topic): SUBSCRIBE is answered so; the others cannot be, and the connection ends.
    fn refuse_packet(&mut self, now: Now, slot: Slot, packet: &Packet, why: String) {
        if let Packet::Subscribe(subscribe) = packet {
            let reasons = vec![ReasonCode::QuotaExceeded; subscribe.filters.len()];
            self.session(slot).answer_subscribe(subscribe.packet_id, reasons, Some(&why));
        } else {
            let word = "user_properties_too_large";
            self.detach(now, slot, &Ending::broken(word, ReasonCode::QuotaExceeded, why));
        }
    }

    /// A message from a client: passed on and answered, or refused.
    fn take_publish(&mut self, now: Now, slot: Slot, mut message: Arc<Message>, ack: PublishAck) {
        if let Err(not_taken) = may_take(&message).and_then(|()| self.may_publish(slot, &message)) {
            if not_taken.reason == ReasonCode::NotAuthorized {
                let (code, why) = (not_taken.reason, not_taken.why.clone());
                let (kind, reason) = (RefusalKind::Publish, RefusalReason::NotAuthorized);
                self.effects.refusals.push(self.refusal_of(slot, kind, code, reason, why, now.wall));
            }
            self.refuse_publish(now, slot, ack, not_taken);
            return;
        }
        let Some(bytes) = self.affords_publish(now, slot, &message, ack) else { return };
        self.enhance_published(slot, &mut message);
        let v5 = self.session(slot).link.as_ref().is_some_and(|link| link.version.is_v5());
        // Who cannot be told of it has its message passed on, but not retained (PRODUCT Q-10).
        if v5
            && ack != PublishAck::Nothing
            && let Err(why) = self.may_retain(&message)
        {
            self.session(slot).refuse_publish(ack, ReasonCode::QuotaExceeded, &why);
            return;
        }
        let along = self.arrival(slot, ack);
        match self.publish(now, message, along) {
            Ok(published) => {
                self.has_published(now, slot, bytes);
                self.accept_publish(slot, ack, published, v5);
            }
            Err(DiskFull) => self.refuse_for_want_of_room(now, slot, ack),
        }
    }

    fn carry_out(&mut self, now: Now, attachment: Attachment, request: Request) {
        let slot = attachment.slot;
        match request {
            Request::None => {}
            Request::ConsumedOfGroup(delivery) => self.consumed_by_group(&delivery),
            Request::Publish { message, ack } => self.take_publish(now, slot, message, ack),
            Request::Subscribe(subscribe) => self.subscribe(now, attachment, subscribe),
            Request::Unsubscribe(unsubscribe) => self.unsubscribe(now, attachment, unsubscribe),
            Request::Authenticate(auth) => self.authenticate_again(now, attachment, &auth),
            Request::Goodbye { with_will, expiry_secs } => {
                if let Some(asked_secs) = expiry_secs {
                    self.grant_expiry(slot, asked_secs);
                }
                self.detach(now, slot, &Ending::goodbye(with_will));
            }
        }
    }

    /// What is written down with a QoS 2 message of a session that may return: that its packet id is
    /// taken, so that the message is passed on once (`[MQTT-4.3.3-10]`).
    fn arrival(&mut self, slot: Slot, ack: PublishAck) -> Along {
        let session = self.session(slot);
        match ack {
            PublishAck::PubRec(packet_id) if session.durable => {
                Along::IfWritten(facts::received(session.id, packet_id))
            }
            _ => Along::Nothing,
        }
    }

    fn accept_publish(&mut self, slot: Slot, ack: PublishAck, published: Published, v5: bool) {
        // [MQTT-3.4.2-1], 3.5.2: the server may tell that nobody listens.
        let unheard = v5 && !published.heard;
        let reason = if unheard { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
        let session = self.session(slot);
        if let PublishAck::PubRec(packet_id) = ack
            && published.written
            && session.durable
        {
            session.inbound.written_down(packet_id);
        }
        session.answer_publish(ack, reason, published.written);
    }

    /// The disk is full: the message is not taken (DESIGN 3). A v3 client cannot be told so by an
    /// acknowledgement: it loses its connection, and sends again on the next.
    fn refuse_for_want_of_room(&mut self, now: Now, slot: Slot, ack: PublishAck) {
        let session = self.session(slot);
        let v5 = session.link.as_ref().is_some_and(|link| link.version.is_v5());
        match ack {
            PublishAck::Nothing => {}
            _ if v5 => session.answer_publish(ack, ReasonCode::QuotaExceeded, false),
            _ => {
                if let PublishAck::PubRec(packet_id) = ack {
                    session.inbound.release(packet_id);
                }
                let why = "the disk is full".to_owned();
                self.detach(now, slot, &Ending::broken("disk_full", ReasonCode::QuotaExceeded, why));
            }
        }
    }

    /// Sets what the client is granted of the expiry it asks for (PRODUCT S-6).
    pub(super) fn grant_expiry(&mut self, slot: Slot, asked_secs: u32) {
        let granted_secs = grant_expiry(&self.rules.quota, asked_secs);
        let expiry = &mut self.session(slot).expiry;
        expiry.client_secs = granted_secs;
        expiry.bounded_by_cluster = granted_secs != asked_secs;
    }
}
