//! What the cluster writes down, turn by turn, and what waits for it to be durable (PRODUCT S-12).
//!
//! During a turn the cluster acts at once, in memory, and gathers [`Entry`] values; output that tells
//! of them is held. The turn's entries go to the disk together. When the runtime reports the turn
//! durable ([`Cluster::durable`]), the held output leaves. So nobody hears of anything that a crash could
//! take back, and nothing in here waits.

use std::collections::VecDeque;

use super::Cluster;
use super::effects::{CommandId, Farewell};
use crate::data_plane::broker::Slot;
use crate::data_plane::message_log::{Change, ClusterNo, Entry};
use crate::data_plane::session::link::ConnId;
use crate::data_plane::session::outgoing::{Outgoing, Turn};
use crate::model::Seq;

/// The writing side of a cluster.
#[derive(Debug)]
pub(super) struct Journal {
    cluster: ClusterNo,
    /// What this turn writes down.
    entries: Vec<Entry>,
    /// The last turn in which something was written down.
    written: Turn,
    /// The last turn that is on disk.
    durable: Turn,
    /// Where the log ended with each turn that is not durable yet.
    tails: VecDeque<(Turn, Seq)>,
    /// Attached sessions with held output.
    held: Vec<Slot>,
    /// Connections that are over but for their held output.
    parting: Vec<(ConnId, Outgoing)>,
    /// Orders whose answers tell of what this turn writes down.
    telling: Vec<CommandId>,
    /// Those of earlier turns that are not durable yet.
    told: VecDeque<(Turn, CommandId)>,
    /// Whether the disk takes more messages.
    pub(super) has_room: bool,
}

impl Journal {
    pub(super) fn new(cluster: ClusterNo) -> Self {
        Self {
            cluster,
            entries: Vec::new(),
            written: Turn(0),
            durable: Turn(0),
            tails: VecDeque::new(),
            held: Vec::new(),
            parting: Vec::new(),
            telling: Vec::new(),
            told: VecDeque::new(),
            has_room: true,
        }
    }

    /// Writes an entry down.
    pub(super) fn write(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Writes changes down, together or not at all.
    pub(super) fn change(&mut self, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.entries.push(Entry { cluster: self.cluster, message: None, changes });
        }
    }

    /// The answer to an order tells of what was written down so far.
    pub(super) fn tells(&mut self, id: CommandId) {
        self.telling.push(id);
    }

    /// An order whose answer tells of nothing any longer that is not durable.
    fn told(&mut self) -> Option<CommandId> {
        let durable = self.durable;
        self.told.pop_front_if(|(turn, _)| *turn <= durable).map(|(_, id)| id)
    }

    pub(super) fn cluster(&self) -> ClusterNo {
        self.cluster
    }

    /// A connection is over; its last output leaves when it may.
    pub(super) fn part(&mut self, conn: ConnId, output: Outgoing) {
        self.parting.push((conn, output));
    }

    /// Holds nothing back any longer: what it would tell of is gone anyway.
    pub(super) fn let_go(&mut self) {
        self.durable = Turn(u64::MAX);
    }

    /// Ends the turn: gives its entries, and the connections that have nothing held any longer.
    fn end_turn(&mut self, tail: Seq, farewells: &mut Vec<Farewell>) -> Vec<Entry> {
        if !self.entries.is_empty() {
            self.written.0 += 1;
            self.tails.push_back((self.written, tail));
        }
        let turn = self.written;
        self.told.extend(self.telling.drain(..).map(|id| (turn, id)));
        let mut at = 0;
        while at < self.parting.len() {
            let output = &mut self.parting[at].1;
            output.settle(self.written, self.durable);
            if output.is_held() {
                at += 1;
            } else {
                let (conn, mut output) = self.parting.remove(at);
                farewells.push(Farewell { conn, output: std::mem::take(output.free()) });
            }
        }
        std::mem::take(&mut self.entries)
    }
}

impl Cluster {
    /// Everything written down in turns up to this one is on disk.
    pub fn durable(&mut self, turn: Turn) {
        self.journal.durable = turn.max(self.journal.durable);
        while let Some((_, tail)) = self.journal.tails.pop_front_if(|(written, _)| *written <= turn) {
            self.log.durable_through(tail);
        }
        for slot in std::mem::take(&mut self.journal.held) {
            let Some(session) = self.sessions.get_mut(slot.0 as usize) else { continue };
            if let Some(link) = session.link.as_mut() {
                link.listed_as_held = false;
            }
            self.effects.touch(slot, session);
        }
        self.answer_told();
    }

    /// Orders whose answers told of something that is durable now.
    fn answer_told(&mut self) {
        while let Some(id) = self.journal.told() {
            self.order_proven(id, None);
        }
    }

    /// Whether the disk takes more messages; told by the runtime.
    pub fn set_room(&mut self, has_room: bool) {
        self.journal.has_room = has_room;
    }

    /// Ends a turn: what touched sessions have to write down goes with it.
    pub(super) fn end_turn(&mut self) {
        let touched = std::mem::take(&mut self.effects.touched);
        for slot in &touched {
            self.write_down(*slot);
        }
        self.effects.touched = touched;
        self.effects.entries = self.journal.end_turn(self.log.tail(), &mut self.effects.farewells);
        self.effects.turn = self.journal.written;
        self.answer_told();
    }

    /// The output that a session may send now, for its connection.
    pub(super) fn settled(&mut self, slot: Slot) -> Option<(ConnId, &mut Outgoing)> {
        let Self { sessions, journal, .. } = self;
        let link = sessions.get_mut(slot.0 as usize)?.link.as_mut()?;
        link.touched = false;
        link.out.settle(journal.written, journal.durable);
        if link.out.is_held() && !link.listed_as_held {
            link.listed_as_held = true;
            journal.held.push(slot);
        }
        Some((link.conn, &mut link.out))
    }
}
