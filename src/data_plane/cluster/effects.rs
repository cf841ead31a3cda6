//! What a cluster wants done outside.

use super::deliver::ColdRead;
use crate::data_plane::broker::Slot;
use crate::data_plane::message_log::Entry;
use crate::data_plane::session::Session;
use crate::data_plane::session::link::ConnId;
use crate::data_plane::session::outgoing::Turn;
use crate::data_plane::session::output::Output;
use crate::model::Refusal;
use crate::seam::command::{CommandError, SessionRef};
use crate::seam::ports::SessionWrite;

/// Names an order from the API for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandId(pub u64);

/// Names a record write whose fate is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WriteTicket(pub u64);

/// The fate of a record write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordOutcome {
    /// It is durable.
    Committed,
    /// The database is away. The write stays queued and is committed when it returns.
    StoreAway,
    /// The database refuses it. The write is gone.
    Refused,
}

/// A connection that is over: write this, then close it.
#[derive(Debug)]
pub struct Farewell {
    /// Which connection.
    pub conn: ConnId,
    /// The last bytes for it.
    pub output: Output,
}

/// Everything to be done, in the order of its making within each list.
#[derive(Debug, Default)]
pub struct Effects {
    /// What this turn writes to disk, in order.
    pub entries: Vec<Entry>,
    /// The turn that these make durable; to be reported by [`Cluster::durable`](super::Cluster::durable).
    pub turn: Turn,
    /// What is to be read from disk.
    pub reads: Vec<ColdRead>,
    /// Records to keep, in order. Tickets are to be reported in order.
    pub writes: Vec<(SessionWrite, Option<WriteTicket>)>,
    /// Sessions with output; see [`Cluster::output`](super::Cluster::output).
    pub touched: Vec<Slot>,
    /// Connections that were let in and may send from now on.
    pub attached: Vec<ConnId>,
    /// Connections that are not to be read any further (false), or that may be read again (true); the
    /// last word about one holds.
    pub reading: Vec<(ConnId, bool)>,
    /// What was refused, to be told to whoever asks later.
    pub refusals: Vec<Refusal>,
    /// Connections to be closed.
    pub farewells: Vec<Farewell>,
    /// Answers to orders.
    pub answers: Vec<(CommandId, Result<SessionRef, CommandError>)>,
}

impl Effects {
    pub(super) fn touch(&mut self, slot: Slot, session: &mut Session) {
        let unsaved = session.durable && session.outbound.has_changed() && !session.unsaved;
        let unsaved = unsaved || !session.notes.is_empty();
        let Some(link) = session.link.as_mut().filter(|link| !link.touched) else { return };
        if unsaved || !link.out.is_empty() {
            link.touched = true;
            self.touched.push(slot);
        }
    }
}
