//! What the client reads, and what it owes for it.

use super::super::*;
use super::{Asked, Client};
use crate::data_plane::protocol::PacketId;

impl Client {
    pub(in super::super) fn read(&mut self, packets: usize) {
        for _ in 0..packets {
            let Some(packet) = self.inbox.pop_front() else { return };
            match packet {
                Packet::Publish(publish) => self.read_publish(&publish),
                Packet::PubRel(ack) => {
                    self.received.remove(&ack.packet_id);
                    self.due.retain(|known| *known != pubrec(ack.packet_id));
                    self.is_due(pubcomp(ack.packet_id));
                }
                Packet::PubRec(ack) => {
                    let out = self.outgoing.iter_mut().find(|out| id(out.packet_id) == ack.packet_id);
                    out.expect("PUBREC of something under way").released = true;
                    self.is_due(pubrel(ack.packet_id));
                }
                Packet::PubComp(ack) => {
                    self.outgoing.retain(|out| id(out.packet_id) != ack.packet_id);
                }
                Packet::SubAck(ack) => self.answered(ack.packet_id, ack.reasons[0]),
                Packet::UnsubAck(ack) => self.answered(ack.packet_id, ReasonCode::Success),
                Packet::PubAck(_) | Packet::Disconnect(_) => {}
                other => panic!("{other:?} is not expected"),
            }
        }
    }

    pub(super) fn answered(&mut self, packet_id: PacketId, reason: ReasonCode) {
        let Asked { filter, option } = self.asked.remove(&packet_id).expect("an answer to a question");
        let Some(session) = &mut self.session else { return };
        match option {
            Some(_) if reason.is_error() => {}
            Some((qos, no_local)) => session.subscribed(filter, qos, no_local),
            None => session.unsubscribed(filter),
        }
    }

    /// The topic that a PUBLISH means.
    fn topic(&mut self, publish: &Publish) -> String {
        let alias = publish.properties.topic_alias;
        assert!(alias.is_none_or(|alias| alias.get() <= self.alias_maximum), "[MQTT-3.1.2-26]");
        let Some(topic) = &publish.topic else {
            return self.aliases[&alias.expect("a topic, or an alias")].clone();
        };
        self.aliases.extend(alias.map(|alias| (alias, topic.to_string())));
        topic.to_string()
    }

    fn read_publish(&mut self, publish: &Publish) {
        let mut is_new = true;
        if let Some(id) = publish.packet_id {
            let is_late = publish.dup && self.answered.contains(&id);
            if !is_late {
                self.answered.remove(&id);
                let is_used_anew = self.in_use.insert(id);
                assert!(is_used_anew || publish.dup, "{id} is in use");
            }
            assert!(self.in_use.len() <= self.window, "{} of {}", self.in_use.len(), self.window);
            self.is_due(if publish.qos == Q1 { puback(id) } else { pubrec(id) });
            if publish.qos == Q2 {
                is_new = self.received.insert(id);
                assert!(is_new || publish.dup, "{id} was not released");
            }
        }
        let topic = self.topic(publish);
        let said = text(publish);
        if is_new && !publish.retain && said != "will" {
            let message = said.parse().expect("a number");
            let may_be_known = publish.qos == Q1 && publish.dup;
            let session = self.session.as_mut().expect("messages come to sessions");
            session.see(message, publish.qos, may_be_known);
            assert_eq!(session.topic_of(message), Some(&*topic));
        }
    }

    pub(in super::super) fn read_and_acknowledge_all(&mut self, world: &mut World, random: &mut Random) {
        let Some(peer) = self.peer else { return };
        world.relieve(peer);
        loop {
            self.observe(world, random);
            if self.inbox.is_empty() && self.due.is_empty() {
                return;
            }
            self.read(usize::MAX);
            self.acknowledge(world, random);
        }
    }

    pub(in super::super) fn check_nothing_lost(&self) {
        if let Some(session) = &self.session {
            assert_eq!(session.lost(), [0_usize; 0], "lost to {}", self.id);
        }
    }
}
