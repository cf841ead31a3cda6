//! Packets of attached clients: what their sessions make of them, and what that asks of the cluster.

use super::Cluster;
use super::detach::Ending;
use super::limits::{NotTaken, may_take, packet_within_limits};
use super::pending::Attachment;
use crate::data_plane::broker::Slot;
use crate::data_plane::broker::admission::grant_expiry;
use crate::data_plane::message_log::MessageLog;
use crate::data_plane::protocol::{Packet, ReasonCode, Violation};
use crate::data_plane::session::link::ConnId;
use crate::data_plane::session::{PublishAck, Request};
use crate::model::{Message, Now};

impl<L: MessageLog> Cluster<L> {
    /// Takes what a connection has sent, in order. Packets from a connection that is no longer the
    /// session's are passed over (PRODUCT S-9).
    pub fn receive(&mut self, now: Now, conn: ConnId, slot: Slot, packets: impl Iterator<Item = Packet>) {
        let attachment = Attachment { slot, conn };
        for packet in packets {
            if self.attached_session(attachment).is_none() {
                return;
            }
            let Some(packet) = self.within_limits(now, slot, packet) else { continue };
            match self.session(slot).receive(now, packet) {
                Ok(request) => self.carry_out(now, attachment, request),
                Err(fault) => {
                    let ending = Ending::broken("protocol_error", fault.reason(), fault.to_string());
                    self.detach(now, slot, &ending);
                    return;
                }
            }
        }
        if self.attached_session(attachment).is_some() {
            self.catch_up(now, slot);
            self.touch(slot);
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
            session.answer_publish(ack, ReasonCode::Success);
        } else {
            self.detach(now, slot, &Ending::broken(word, reason, why));
        }
    }

    /// Gives the packet back if its user properties keep within the limit (PRODUCT Q-9; for PUBLISH that is
    /// judged with its topic). If not, SUBSCRIBE is answered so; the others cannot be, and the connection
    /// ends.
    fn within_limits(&mut self, now: Now, slot: Slot, packet: Packet) -> Option<Packet> {
        let Err(why) = packet_within_limits(&packet) else { return Some(packet) };
        if let Packet::Subscribe(subscribe) = packet {
            let reasons = vec![ReasonCode::QuotaExceeded; subscribe.filters.len()];
            self.session(slot).answer_subscribe(subscribe.packet_id, reasons, Some(&why));
        } else {
            let word = "user_properties_too_large";
            self.detach(now, slot, &Ending::broken(word, ReasonCode::QuotaExceeded, why));
        }
        None
    }

    /// A message from a client: passed on and answered, or refused.
    fn take_publish(&mut self, now: Now, slot: Slot, message: Message, ack: PublishAck) {
        if let Err(not_taken) = may_take(&message) {
            self.refuse_publish(now, slot, ack, not_taken);
            return;
        }
        let v5 = self.session(slot).link.as_ref().is_some_and(|link| link.version.is_v5());
        // Who cannot be told of it has its message passed on, but not retained (PRODUCT Q-10).
        if v5
            && ack != PublishAck::Nothing
            && let Err(why) = self.may_retain(&message)
        {
            self.session(slot).refuse_publish(ack, ReasonCode::QuotaExceeded, &why);
            return;
        }
        let heard = self.publish(now, message);
        // [MQTT-3.4.2-1], 3.5.2: the server may tell that nobody listens.
        let unheard = v5 && !heard;
        let reason = if unheard { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
        self.session(slot).answer_publish(ack, reason);
    }

    fn carry_out(&mut self, now: Now, attachment: Attachment, request: Request) {
        let slot = attachment.slot;
        match request {
            Request::None => {}
            Request::Consumed(delivery) => self.consumed_by_group(&delivery),
            Request::Publish { message, ack } => self.take_publish(now, slot, message, ack),
            Request::Subscribe(subscribe) => self.subscribe(now, attachment, subscribe),
            Request::Unsubscribe(unsubscribe) => self.unsubscribe(now, attachment, unsubscribe),
            Request::Goodbye { with_will, expiry_secs } => {
                if let Some(asked_secs) = expiry_secs {
                    self.grant_expiry(slot, asked_secs);
                }
                self.detach(now, slot, &Ending::goodbye(with_will));
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
