//! What the server sends, and what a client makes of it.

use holdfast::data_plane::protocol::{Ack, Packet, PacketId, Publish, ReasonCode, SubAck};
use holdfast::model::{QoS, TopicName};

use super::{Client, Visit, Wish};
use crate::crash::cast::Role;
use crate::crash::history::Delivery;
use crate::crash::session::Token;
use crate::crash::wire::{self, WILLS};

impl Client {
    /// Takes a packet, or says which rule it breaks.
    pub(super) fn take(&mut self, visit: &mut Visit, packet: Packet) -> Result<(), String> {
        if !visit.connected {
            let Packet::ConnAck(connack) = packet else { return Err(format!("{packet:?} before CONNACK")) };
            if connack.reason != ReasonCode::Success {
                // The database is away; the server closes.
                return match connack.reason {
                    ReasonCode::ServerUnavailable => Ok(()),
                    other => Err(format!("CONNACK {other:?}: {:?}", connack.reason_string)),
                };
            }
            visit.connected = true;
            return self.connected(visit, connack.session_present);
        }
        match packet {
            Packet::Publish(publish) => self.delivered(visit, &publish),
            Packet::PubAck(ack) => {
                refused("PUBACK", &ack)?;
                let token = self.session.acknowledged(ack.packet_id)?;
                self.note_acknowledged(token);
                Ok(())
            }
            Packet::PubRec(ack) => {
                refused("PUBREC", &ack)?;
                let token = self.session.taken(ack.packet_id)?;
                self.note_acknowledged(token);
                visit.wire.put(&Packet::PubRel(Ack::new(ack.packet_id, ReasonCode::Success)));
                Ok(())
            }
            Packet::PubComp(ack) => self.session.completed(ack.packet_id),
            Packet::PubRel(ack) => {
                self.session.released(ack.packet_id);
                visit.wire.put(&Packet::PubComp(Ack::new(ack.packet_id, ReasonCode::Success)));
                Ok(())
            }
            Packet::SubAck(ack) => self.subscribed(visit, &ack),
            Packet::UnsubAck(ack) => self.unsubscribed(visit, ack.packet_id),
            Packet::PingResp => {
                let ping = visit.ping.take().ok_or("a PINGRESP that nobody asked for")?;
                self.stage.record.with(|history, now| {
                    let connection = &mut history.subscribers[self.at].connections[visit.number as usize];
                    connection.pings.push((ping, now));
                });
                Ok(())
            }
            // The service stops.
            Packet::Disconnect(disconnect) if disconnect.reason == ReasonCode::ServerShuttingDown => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    fn connected(&mut self, visit: &mut Visit, present: bool) -> Result<(), String> {
        let (clean, known) = (self.role.clean, std::mem::replace(&mut self.known, true));
        if clean {
            self.stage.record.with(|history, _| {
                for pending in self.session.pending() {
                    if let Some(message) = history.published(pending.token) {
                        message.abandoned = true;
                    }
                }
            });
            self.session.begin_anew();
        }
        match (present, known, clean) {
            (true, _, true) => return Err("a session where a new one was asked for".to_owned()),
            (false, true, false) => return Err("the session is gone".to_owned()),
            _ => {}
        }
        // [MQTT-4.4.0-1], in the original order.
        let pending: Vec<_> = self.session.pending().copied().collect();
        for pending in pending {
            if pending.received {
                visit.wire.put(&Packet::PubRel(Ack::new(pending.packet_id, ReasonCode::Success)));
                continue;
            }
            let (topic, big) = self.stage.record.with(|history, _| {
                if let Some(message) = history.published(pending.token) {
                    message.sends += 1;
                }
                let stream = &history.streams[usize::from(pending.token.stream)];
                (stream.topic, stream.big)
            });
            let packet_id = Some(pending.packet_id);
            visit.wire.put(&self.publication(pending.token, topic, pending.qos, big, packet_id, true));
        }
        Ok(())
    }

    fn note_acknowledged(&self, token: Token) {
        self.stage.record.with(|history, now| {
            if let Some(message) = history.published(token) {
                message.acknowledged = Some(now);
            }
        });
    }

    fn delivered(&mut self, visit: &mut Visit, publish: &Publish) -> Result<(), String> {
        let token = wire::token(&publish.payload).ok_or_else(|| format!("a damaged message: {publish:?}"))?;
        let is_new = match (publish.qos, publish.packet_id) {
            (QoS::ExactlyOnce, Some(packet_id)) => {
                visit.wire.put(&Packet::PubRec(Ack::new(packet_id, ReasonCode::Success)));
                self.session.arrived(packet_id, token, publish.dup)?
            }
            _ => true,
        };
        let (qos, connection) = (publish.qos, visit.number);
        let topic = publish.topic.as_ref().map(TopicName::as_str).unwrap_or_default();
        self.stage.record.with(|history, now| {
            if token.stream == WILLS {
                let will = history.wills.get_mut(token.number as usize);
                let will = will.ok_or_else(|| format!("will {} was never set", token.number))?;
                will.seen += u32::from(is_new);
                return Ok(());
            }
            let stream = history.streams.get(usize::from(token.stream));
            if stream.is_none_or(|stream| stream.topic != topic) {
                return Err(format!("{token:?} at {topic}"));
            }
            if is_new {
                let acknowledged = (qos == QoS::AtLeastOnce).then_some(now);
                let delivery = Delivery { token, qos, at: now, connection, acknowledged };
                history.subscribers[self.at].deliveries.push(delivery);
            }
            Ok(())
        })?;
        if let (QoS::AtLeastOnce, Some(packet_id)) = (publish.qos, publish.packet_id) {
            visit.wire.put(&Packet::PubAck(Ack::new(packet_id, ReasonCode::Success)));
        }
        Ok(())
    }

    fn subscribed(&mut self, visit: &mut Visit, ack: &SubAck) -> Result<(), String> {
        let at = visit.asked.remove(&ack.packet_id).ok_or("a SUBACK that nobody asked for")?;
        let (whole, qos) = self.role.filters[at];
        match ack.reasons[..] {
            // The database is away: asks again.
            [ReasonCode::UnspecifiedError] => return Ok(()),
            [reason] if reason as u8 == u8::from(qos) => {}
            _ => return Err(format!("SUBACK {:?} for {whole} at {qos:?}", ack.reasons)),
        }
        self.wishes[at] = Wish::Subscribed;
        let (_, filter) = Role::shared(whole);
        self.stage.record.with(|history, now| {
            let windows = &mut history.subscribers[self.at].windows;
            if let Some(window) = windows.iter_mut().find(|w| w.filter == filter && w.ended.is_none()) {
                window.granted.get_or_insert(now);
            }
        });
        Ok(())
    }

    fn unsubscribed(&mut self, visit: &mut Visit, packet_id: PacketId) -> Result<(), String> {
        let at = visit.asked.remove(&packet_id).ok_or("an UNSUBACK that nobody asked for")?;
        self.wishes[at] = Wish::Nothing;
        let (_, filter) = Role::shared(self.role.filters[at].0);
        self.stage.record.with(|history, now| {
            let windows = &mut history.subscribers[self.at].windows;
            if let Some(window) = windows.iter_mut().find(|w| w.filter == filter && w.ended.is_none()) {
                window.ended = Some(now);
            }
        });
        Ok(())
    }
}

fn refused(what: &str, ack: &Ack) -> Result<(), String> {
    if ack.reason.is_error() { Err(format!("{what} {:?}", ack.reason)) } else { Ok(()) }
}
