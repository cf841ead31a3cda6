//! A client's side of the standard's session (MQTT 5.0, 4.1, 4.3, 4.4): what it must remember over
//! connections to publish and receive at QoS 1 and 2. Pure; strict where the standard is.

use std::collections::{HashMap, VecDeque};

use holdfast::data_plane::protocol::PacketId;
use holdfast::model::QoS;

/// Names a message: the stream it belongs to, and its number there, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Token {
    pub(super) stream: u16,
    pub(super) number: u32,
}

/// A message of ours that the server has not taken over completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) packet_id: PacketId,
    pub(super) token: Token,
    pub(super) qos: QoS,
    /// QoS 2: PUBREC has come.
    pub(super) received: bool,
}

/// What the server says that no rule allows.
pub(super) type Fault = String;

#[derive(Debug, Default)]
pub(super) struct Session {
    last_id: u16,
    /// In the order in which they were first sent.
    pending: VecDeque<Pending>,
    /// QoS 2 packet ids of the server that it has not released.
    received: HashMap<PacketId, Token>,
}

impl Session {
    pub(super) fn pending(&self) -> impl Iterator<Item = &Pending> {
        self.pending.iter()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Begins to publish a message at QoS 1 or 2.
    pub(super) fn publish(&mut self, token: Token, qos: QoS) -> PacketId {
        let packet_id = loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = PacketId::new(self.last_id)
                && self.pending.iter().all(|pending| pending.packet_id != id)
            {
                break id;
            }
        };
        self.pending.push_back(Pending { packet_id, token, qos, received: false });
        packet_id
    }

    /// PUBACK. In order of the publications (`[MQTT-4.6.0-2]`).
    pub(super) fn acknowledged(&mut self, packet_id: PacketId) -> Result<Token, Fault> {
        let first = self.pending.iter().position(|pending| pending.qos == QoS::AtLeastOnce);
        match first {
            Some(at) if self.pending[at].packet_id == packet_id => {
                Ok(self.pending.remove(at).expect("it was found there").token)
            }
            _ => Err(format!("PUBACK {packet_id} is not the next one due in {:?}", self.pending)),
        }
    }

    /// PUBREC. In order of the publications (`[MQTT-4.6.0-3]`).
    pub(super) fn taken(&mut self, packet_id: PacketId) -> Result<Token, Fault> {
        let mut due = self.pending.iter_mut().filter(|p| p.qos == QoS::ExactlyOnce && !p.received);
        match due.next() {
            Some(pending) if pending.packet_id == packet_id => {
                pending.received = true;
                Ok(pending.token)
            }
            _ => Err(format!("PUBREC {packet_id} is not the next one due in {:?}", self.pending)),
        }
    }

    /// PUBCOMP.
    pub(super) fn completed(&mut self, packet_id: PacketId) -> Result<(), Fault> {
        let at = self.pending.iter().position(|p| p.packet_id == packet_id && p.received);
        let at = at.ok_or_else(|| format!("PUBCOMP {packet_id} ends nothing in {:?}", self.pending))?;
        self.pending.remove(at);
        Ok(())
    }

    /// A PUBLISH at QoS 2. Whether it is new: one that comes again says so (`[MQTT-3.3.1-1]`), and a packet id that
    /// still stands for another message means that one of the two is lost.
    pub(super) fn arrived(&mut self, packet_id: PacketId, token: Token, dup: bool) -> Result<bool, Fault> {
        match self.received.insert(packet_id, token) {
            None => Ok(true),
            Some(before) if before != token => {
                Err(format!("{token:?} under packet id {packet_id} of {before:?}"))
            }
            Some(_) if dup => Ok(false),
            Some(_) => Err(format!("{token:?} again without DUP [MQTT-3.3.1-1]")),
        }
    }

    /// A PUBREL.
    pub(super) fn released(&mut self, packet_id: PacketId) {
        self.received.remove(&packet_id);
    }

    /// The server has no such session: nothing goes on. Gives up what is unfinished.
    pub(super) fn begin_anew(&mut self) {
        self.pending.clear();
        self.received.clear();
    }
}
