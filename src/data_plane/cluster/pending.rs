//! What waits for a record to be committed or a connection to be closed.

use std::collections::HashMap;

use super::effects::{CommandId, WriteTicket};
use crate::data_plane::broker::Slot;
use crate::data_plane::protocol::{PacketId, ReasonCode};
use crate::data_plane::session::Replay;
use crate::data_plane::session::link::ConnId;
use crate::model::{Subscription, TopicFilter};
use crate::seam::command::{CommandError, SessionRef};

/// What happens when a ticket is reported.
#[derive(Debug)]
pub(super) enum Awaiting {
    /// CONNACK.
    Attach(Attaching),
    /// SUBACK.
    SubAck {
        attachment: Attachment,
        packet_id: PacketId,
        reasons: Vec<ReasonCode>,
        /// Why a filter was refused, for people.
        why: Option<String>,
        /// What was in force before, should it fail.
        undo: Vec<Undo>,
    },
    /// UNSUBACK.
    UnsubAck { attachment: Attachment, packet_id: PacketId, reasons: Vec<ReasonCode> },
    /// The records of connections that a block rule ended.
    Expelled,
    /// A part of an order.
    Order(CommandId),
}

/// A connection that is attached to its session and has no CONNACK yet.
#[derive(Debug)]
pub(super) struct Attaching {
    pub(super) attachment: Attachment,
    pub(super) session_present: bool,
    pub(super) expiry_asked_secs: u32,
    /// Whether the client id was chosen for the client.
    pub(super) assigned: bool,
    /// What the client was subscribed to at this CONNECT.
    pub(super) automatic: Vec<TopicFilter>,
}

/// How to take a subscription back that could not be recorded.
#[derive(Debug)]
pub(super) struct Undo {
    pub(super) filter: TopicFilter,
    /// What it replaced.
    pub(super) before: Option<Subscription>,
    /// What of the retained messages that was still owed.
    pub(super) owed: Option<Replay>,
}

/// The session and connection that something was begun for. Connection ids are never reused, so that
/// what was begun under an old attachment is recognised (PRODUCT S-9).
#[derive(Clone, Copy, Debug)]
pub struct Attachment {
    pub(super) slot: Slot,
    pub(super) conn: ConnId,
}

/// An order that is carried out and waits to be proven.
#[derive(Debug)]
struct Proof {
    answer: Result<SessionRef, CommandError>,
    missing: u32,
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(super) struct Pending {
    last_ticket: u64,
    by_ticket: HashMap<WriteTicket, Awaiting, foldhash::fast::RandomState>,
    /// Connections that are to be closed and are not yet, each with the orders that wait for it.
    closing: HashMap<ConnId, Vec<CommandId>, foldhash::fast::RandomState>,
    proofs: HashMap<CommandId, Proof, foldhash::fast::RandomState>,
}

impl Pending {
    /// A ticket that `awaiting` waits for.
    pub(super) fn ticket(&mut self, awaiting: Awaiting) -> WriteTicket {
        self.last_ticket += 1;
        let ticket = WriteTicket(self.last_ticket);
        self.by_ticket.insert(ticket, awaiting);
        ticket
    }

    /// What waited for a ticket.
    pub(super) fn take(&mut self, ticket: WriteTicket) -> Option<Awaiting> {
        self.by_ticket.remove(&ticket)
    }

    /// A connection is on its way out.
    pub(super) fn closing(&mut self, conn: ConnId) {
        self.closing.entry(conn).or_default();
    }

    /// An order is carried out; its answer waits for a record, for those of `conns` that are still closing, and
    /// where it tells of something `written` down for that to be durable.
    pub(super) fn prove(
        &mut self,
        id: CommandId,
        answer: SessionRef,
        conns: impl IntoIterator<Item = ConnId>,
        written: bool,
    ) -> WriteTicket {
        let mut missing = 1 + u32::from(written);
        for conn in conns {
            if let Some(waiting) = self.closing.get_mut(&conn) {
                waiting.push(id);
                missing += 1;
            }
        }
        self.proofs.insert(id, Proof { answer: Ok(answer), missing });
        self.ticket(Awaiting::Order(id))
    }

    /// Nothing is waited for any longer: the orders that have no answer yet.
    pub(super) fn abandon(&mut self) -> Vec<CommandId> {
        self.by_ticket.clear();
        self.proofs.drain().map(|(id, _)| id).collect()
    }

    /// A connection is closed: the orders that waited for it.
    pub(super) fn closed(&mut self, conn: ConnId) -> Vec<CommandId> {
        self.closing.remove(&conn).unwrap_or_default()
    }

    /// Whether nothing waits.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_ticket.is_empty() && self.closing.is_empty() && self.proofs.is_empty()
    }

    /// One of the things an order waited for has happened. Gives the answer once all have.
    pub(super) fn proven(
        &mut self,
        id: CommandId,
        failure: Option<CommandError>,
    ) -> Option<Result<SessionRef, CommandError>> {
        let proof = self.proofs.get_mut(&id)?;
        if let Some(error) = failure {
            proof.answer = Err(error);
        }
        proof.missing -= 1;
        if proof.missing > 0 {
            return None;
        }
        self.proofs.remove(&id).map(|proof| proof.answer)
    }
}
