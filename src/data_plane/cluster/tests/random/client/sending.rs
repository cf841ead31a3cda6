//! What the client sends.

use super::super::model::TOPICS;
use super::super::*;
use super::{Asked, Client, Outgoing};
use crate::data_plane::protocol::SubscribeFilter;

impl Client {
    pub(super) fn send(&mut self, world: &mut World, packet: &Packet) {
        if let Some(peer) = self.peer.filter(|_| !self.dead) {
            world.send(peer, packet);
        }
    }

    pub(super) fn next_packet_id(&mut self) -> u16 {
        self.last_packet_id = self.last_packet_id % 60_000 + 1;
        self.last_packet_id
    }

    /// Returns whether the message arrived at the server.
    pub(in super::super) fn publish(
        &mut self,
        world: &mut World,
        message: usize,
        topic: usize,
        qos: QoS,
        retain: bool,
    ) -> bool {
        let packet_id = self.next_packet_id();
        let publish = publish_at(qos, packet_id, TOPICS[topic], &message.to_string());
        let arrived = !self.dead;
        if qos == Q2 {
            self.outgoing.push(Outgoing { packet_id, message, topic, arrived, released: false });
        }
        self.send(world, &Packet::Publish(Publish { retain, ..publish }));
        arrived
    }

    /// On a new connection: sends again what is unfinished. Returns what arrived for the first time.
    pub(in super::super) fn resume(&mut self, world: &mut World) -> Vec<(usize, usize)> {
        let mut first = Vec::new();
        if !self.is_attached() || !std::mem::take(&mut self.is_new) {
            return first;
        }
        let mut packets = Vec::new();
        for out in &mut self.outgoing {
            if out.released {
                packets.push(pubrel(id(out.packet_id)));
                continue;
            }
            if !out.arrived {
                first.push((out.message, out.topic));
                out.arrived = true;
            }
            let publish = publish_at(Q2, out.packet_id, TOPICS[out.topic], &out.message.to_string());
            packets.push(Packet::Publish(Publish { dup: true, ..publish }));
        }
        for packet in packets {
            self.send(world, &packet);
        }
        first
    }

    pub(in super::super) fn subscribe(
        &mut self,
        world: &mut World,
        filter: &'static str,
        qos: QoS,
        no_local: bool,
    ) {
        // One at a time, so that what is in force can be told from outside.
        if !self.is_attached() || self.dead || !self.asked.is_empty() {
            return;
        }
        let no_local = no_local && (self.make)("").0.version.is_v5();
        let packet_id = self.next_packet_id();
        self.asked.insert(id(packet_id), Asked { filter, option: Some((qos, no_local)) });
        if let Some(session) = &mut self.session {
            session.subscribing(filter, qos, no_local);
        }
        self.send(world, &subscribe(packet_id, vec![SubscribeFilter { no_local, ..wish(filter, qos) }]));
    }

    pub(in super::super) fn unsubscribe(&mut self, world: &mut World, filter: &'static str) {
        if !self.is_attached() || self.dead || !self.asked.is_empty() {
            return;
        }
        let packet_id = self.next_packet_id();
        self.asked.insert(id(packet_id), Asked { filter, option: None });
        if let Some(session) = &mut self.session {
            session.unsubscribing(filter);
        }
        self.send(world, &unsubscribe(packet_id, &[filter]));
    }

    /// Sends one acknowledgement that is due, any one.
    pub(in super::super) fn acknowledge(&mut self, world: &mut World, random: &mut Random) {
        if self.due.is_empty() {
            return;
        }
        let packet = self.due.swap_remove(random.below(self.due.len()));
        if let Packet::PubAck(ack) | Packet::PubComp(ack) = &packet {
            self.in_use.remove(&ack.packet_id);
            self.answered.insert(ack.packet_id);
        }
        self.send(world, &packet);
    }

    /// An acknowledgement is due, once.
    pub(super) fn is_due(&mut self, packet: Packet) {
        self.due.retain(|known| *known != packet);
        self.due.push(packet);
    }
}
