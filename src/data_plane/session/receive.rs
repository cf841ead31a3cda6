//! A packet from the client: one arm for each.

use std::num::NonZeroU16;
use std::sync::Arc;

use super::fault::Fault;
use super::inbound::Arrival;
use super::outbound::Delivery;
use super::progress::Note;
use super::{PublishAck, Request, Session};
use crate::data_plane::protocol::{Ack, Disconnect, Packet, PacketId, Publish, ReasonCode};
use crate::model::{Message, Now, QoS};

/// How many QoS 1 and 2 publishes a client may have unacknowledged; told to v5 clients in CONNACK.
pub const RECEIVE_MAXIMUM: NonZeroU16 = NonZeroU16::new(1_024).expect("not 0");

impl Session {
    /// Takes one packet. The session must be attached.
    ///
    /// # Errors
    /// The fault that ends the connection.
    pub fn receive(&mut self, now: Now, packet: Packet) -> Result<Request, Fault> {
        let Some(link) = &mut self.link else { return Ok(Request::None) };
        link.last_seen = now.mono;
        match packet {
            Packet::Publish(publish) => self.receive_publish(now, publish),
            Packet::PubAck(ack) => Ok(self.receive_puback(&ack)),
            Packet::PubRec(ack) => Ok(self.receive_pubrec(now, &ack)),
            Packet::PubRel(ack) => {
                self.receive_pubrel(&ack);
                Ok(Request::None)
            }
            Packet::PubComp(ack) => Ok(self.receive_pubcomp(&ack)),
            Packet::Subscribe(subscribe) => Ok(Request::Subscribe(subscribe)),
            Packet::Unsubscribe(unsubscribe) => Ok(Request::Unsubscribe(unsubscribe)),
            Packet::PingReq => {
                link.send(&Packet::PingResp); // [MQTT-3.12.4-1]
                Ok(Request::None)
            }
            Packet::Disconnect(disconnect) => self.receive_disconnect(&disconnect),
            Packet::Auth(auth) if link.enhanced.is_some() => Ok(Request::Authenticate(auth)),
            Packet::Auth(_) => Err(Fault::UnexpectedAuth),
            Packet::Connect(_) => Err(Fault::SecondConnect),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(Fault::ServerPacket)
            }
        }
    }

    fn receive_publish(&mut self, now: Now, publish: Publish) -> Result<Request, Fault> {
        let Some(link) = &mut self.link else { return Ok(Request::None) };
        let topic = link.aliases_in.resolve(publish.topic, publish.properties.topic_alias)?;
        let ack = match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => PublishAck::PubAck(id),
            (QoS::ExactlyOnce, Some(id)) => {
                // v3 has no Receive Maximum; the id space bounds it.
                let v5 = link.version.is_v5();
                let at_once_max = if v5 { usize::from(RECEIVE_MAXIMUM.get()) } else { usize::MAX };
                if self.inbound.arrive(id, at_once_max)? == Arrival::Duplicate {
                    // The first one may still be on its way to the disk.
                    link.out.hold();
                    link.send(&Packet::PubRec(Ack::new(id, ReasonCode::Success)));
                    return Ok(Request::None);
                }
                PublishAck::PubRec(id)
            }
            _ => PublishAck::Nothing,
        };
        link.counters.received += 1;
        let message = Arc::new(Message {
            topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: publish.properties.forwarded,
            expires_at: publish.properties.message_expiry_secs.map(|secs| now.wall.plus_secs(secs)),
            published_at: now.wall,
            publisher: Some(self.client_key),
        });
        Ok(Request::Publish { message, ack })
    }

    fn receive_puback(&mut self, ack: &Ack) -> Request {
        let id = ack.packet_id;
        match self.outbound.acknowledged(id) {
            None => Request::None,
            Some(delivery) if delivery.is_written_by_itself() => self.over(id, &delivery),
            Some(delivery) => consumed(&delivery),
        }
    }

    fn receive_pubrec(&mut self, now: Now, ack: &Ack) -> Request {
        let id = ack.packet_id;
        if ack.reason.is_error() {
            return self.outbound.rejected(id).map_or(Request::None, |delivery| self.over(id, &delivery));
        }
        let known = self.outbound.received(id, now.mono);
        if known {
            self.note(Note::Exchange(id));
        }
        // [MQTT-4.3.3-4]; an unknown id is answered too, so that the client can let go of it.
        let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        if let Some(link) = &mut self.link {
            link.send(&Packet::PubRel(Ack::new(id, reason)));
        }
        Request::None
    }

    fn receive_pubrel(&mut self, ack: &Ack) {
        let released = self.inbound.release(ack.packet_id);
        if released == Some(true) {
            // Else a crash would leave the id taken, and the client's next message under it lost.
            self.note(Note::Released(ack.packet_id));
        }
        let known = released.is_some();
        let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        if let Some(link) = &mut self.link {
            link.send(&Packet::PubComp(Ack::new(ack.packet_id, reason))); // [MQTT-4.3.3-11]
        }
    }

    fn receive_pubcomp(&mut self, ack: &Ack) -> Request {
        let id = ack.packet_id;
        self.outbound.completed(id).map_or(Request::None, |delivery| self.over(id, &delivery))
    }

    /// An exchange that was written down by itself has ended. Nothing is held for that: what came after it
    /// is written down after it.
    fn over(&mut self, packet_id: PacketId, delivery: &Delivery) -> Request {
        if self.durable {
            self.notes.push(Note::ExchangeOver(packet_id));
        }
        consumed(delivery)
    }

    fn receive_disconnect(&self, disconnect: &Disconnect) -> Result<Request, Fault> {
        let expiry_secs = disconnect.session_expiry_secs;
        if self.expiry.client_secs == 0 && expiry_secs.is_some_and(|secs| secs != 0) {
            return Err(Fault::ExpiryRaised);
        }
        Ok(Request::Goodbye { with_will: disconnect.reason != ReasonCode::Success, expiry_secs })
    }
}

/// What is left to do for a message that the client has.
fn consumed(delivery: &Delivery) -> Request {
    delivery.of_group().map_or(Request::None, Request::ConsumedOfGroup)
}
