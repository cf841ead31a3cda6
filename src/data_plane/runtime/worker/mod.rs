//! The worker: the one task that owns every cluster.
//!
//! A turn takes whatever waits, lets the clusters act on it, and carries out what they want: output
//! into outboxes (each connection woken once) or, where it is for a few, into their sockets, records into the queue,
//! answers to their callers.
//! What the log tells is in [`log_events`], orders from the API in [`commands`] and [`quota`], what it only asks and
//! the disk answers in [`questions`], what is to be enforced in
//! [`desired`].

mod commands;
mod desired;
mod log_events;
mod questions;
mod quota;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use commands::Awaited;
use questions::Questions;

use super::journal::{Inherited, LogWriter};
use super::outbox::Inlet;
use super::records::{RecordQueue, Report};
use super::refusals::RefusalBook;
use super::retention::{Clusters, Retention};
use super::selection::NoCluster;
use crate::clock::Clock;
use crate::data_plane::broker::Slot;
use crate::data_plane::cluster::{Cluster, CommandId, ConnectRequest, Effects};
use crate::data_plane::message_log::ClusterNo;
use crate::data_plane::protocol::{ConnAck, Packet, Violation, encode};
use crate::data_plane::session::link::ConnId;
use crate::data_plane::session::output::Output;
use crate::model::{ClusterId, DesiredCluster, Now, ProtocolVersion};
use crate::seam::command::{Command, Reply};
use crate::seam::desired::{DesiredReceiver, DesiredState};
use crate::seam::ports::StoredSession;
use crate::seam::quota::Shed;

/// How often the clusters are told the time when nothing else happens.
const TICK: Duration = Duration::from_millis(100);

/// How many batches are taken in one turn.
const INPUTS_PER_TURN: usize = 256;

/// To how many connections the worker writes by itself at the end of a turn, if there are no more of a cluster's that
/// have output.
const WRITTEN_AT_ONCE_MAX: usize = 4;

/// How many bytes of messages a cluster keeps in memory of those that are on disk.
const RECENT_BYTES_MAX: u64 = 64 * 1_024 * 1_024;

/// How long connections have to close when the service stops.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// What a connection tells the worker.
#[derive(Debug)]
pub enum Input {
    /// A CONNECT came.
    Connect {
        /// The cluster it is for.
        cluster: ClusterId,
        /// The state by which that was found, and by which the client has proven what it had to.
        judged_by: Arc<DesiredState>,
        /// The CONNECT.
        request: Box<ConnectRequest>,
        /// Where answers go.
        outbox: Inlet,
    },
    /// Packets came, in order; after a violation nothing more comes.
    Packets {
        /// The connection.
        conn: ConnId,
        /// What came.
        packets: Vec<Packet>,
        /// What came after that and is no packet.
        violation: Option<Violation>,
    },
    /// An outbox that was too full has room.
    Writable {
        /// The connection.
        conn: ConnId,
    },
    /// The socket is closed.
    Closed {
        /// The connection.
        conn: ConnId,
    },
}

/// Where a connection belongs.
#[derive(Debug)]
struct Conn {
    /// Which of the worker's clusters.
    home: ClusterNo,
    /// The session it is attached to, or about to be.
    slot: Option<Slot>,
    outbox: Inlet,
}

/// Owns the clusters. Made, filled with stored sessions, then run.
#[derive(Debug)]
pub struct Worker {
    clock: Clock,
    clusters: Clusters,
    by_id: HashMap<ClusterId, (ClusterNo, Arc<DesiredCluster>)>,
    log: LogWriter,
    retention: Retention,
    /// Whether the disk was full when the clusters were last told.
    disk_full: bool,
    conns: HashMap<ConnId, Conn, foldhash::fast::RandomState>,
    /// Clusters that may have effects.
    dirty: Vec<ClusterNo>,
    records: Arc<RecordQueue>,
    refusals: Arc<RefusalBook>,
    replies: HashMap<CommandId, Awaited>,
    /// Sessions that have ended by an order and are not proven to be gone.
    sheds: HashMap<CommandId, (Shed, Reply<Shed>)>,
    last_command: u64,
    questions: Questions,
    /// The desired state in force.
    revision: i64,
    awaiting_revision: Vec<(i64, Reply<()>)>,
    awaiting_expulsions: Vec<(ClusterNo, Reply<()>)>,
}

/// Everything the worker listens to.
#[derive(Debug)]
pub struct Sources {
    /// From connections.
    pub inputs: mpsc::Receiver<Input>,
    /// From the API.
    pub commands: mpsc::Receiver<Command>,
    /// From the control plane.
    pub desired: DesiredReceiver,
    /// From the records' committer.
    pub reports: mpsc::Receiver<Report>,
}

impl Worker {
    /// A worker that enforces `desired` and goes on from what was `inherited`.
    pub fn new(
        clock: Clock,
        records: Arc<RecordQueue>,
        refusals: Arc<RefusalBook>,
        log: LogWriter,
        desired: &DesiredState,
        inherited: &Inherited,
    ) -> Self {
        let mut worker = Self {
            clock,
            clusters: HashMap::default(),
            by_id: HashMap::new(),
            log,
            retention: Retention::default(),
            disk_full: false,
            conns: HashMap::default(),
            dirty: Vec::new(),
            records,
            refusals,
            replies: HashMap::new(),
            sheds: HashMap::new(),
            last_command: 0,
            questions: Questions::default(),
            revision: 0,
            awaiting_revision: Vec::new(),
            awaiting_expulsions: Vec::new(),
        };
        worker.enforce(desired, inherited);
        // Clusters that went while nobody was told.
        let gone: Vec<ClusterId> =
            worker.log.numbered().filter(|id| !desired.clusters.contains_key(*id)).cloned().collect();
        for id in gone {
            worker.log.forget(&id);
        }
        worker
    }

    /// Takes a stored session. One whose cluster no longer exists is passed over.
    pub fn restore(&mut self, stored: StoredSession, inherited: &mut Inherited) {
        let now = self.clock.now();
        let home = self.by_id.get(&stored.row.cluster).map(|(home, _)| *home);
        if let Some((home, cluster)) = home.and_then(|home| Some((home, self.clusters.get_mut(&home)?))) {
            cluster.restore(now, stored, inherited.memory(home));
        }
    }

    /// Every stored session was taken.
    pub fn restored_all(&mut self, mut inherited: Inherited) {
        let now = self.clock.now();
        for (home, cluster) in &mut self.clusters {
            cluster.restored_all(now, inherited.take_memory(*home));
            self.dirty.push(*home);
        }
        self.finish_turn();
    }

    /// Serves until `stop`, then says goodbye to everybody.
    pub async fn run(mut self, mut sources: Sources, stop: CancellationToken) {
        let mut inputs = Vec::with_capacity(INPUTS_PER_TURN);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let events = self.log.events();
        loop {
            self.look_at_the_disk();
            // Publishers that are faster than the disk wait, by TCP.
            let takes_more = !self.log.is_behind();
            tokio::select! {
                _ = sources.inputs.recv_many(&mut inputs, INPUTS_PER_TURN), if takes_more => {
                    self.take_inputs(&mut inputs);
                }
                () = events.happened() => {
                    self.take_log_events();
                    if self.log.has_filters() {
                        self.tidy_up();
                    }
                }
                Some(report) = sources.reports.recv() => self.take_report(report),
                Some(command) = sources.commands.recv() => self.take_command(command),
                Ok(()) = sources.desired.changed() => {
                    let desired = Arc::clone(&sources.desired.borrow_and_update());
                    self.enforce_if_newer(&desired);
                }
                _ = tick.tick() => {
                    self.tell_the_time();
                    self.tidy_up();
                }
                () = stop.cancelled() => break,
            }
            self.finish_turn();
        }
        self.say_goodbye(&mut sources, &mut inputs).await;
        // A connection that was just being handed over ends with its outbox, not with the mailbox.
        sources.inputs.close();
        while sources.inputs.recv().await.is_some() {}
    }

    fn take_inputs(&mut self, inputs: &mut Vec<Input>) {
        let now = self.clock.now();
        for input in inputs.drain(..) {
            match input {
                Input::Connect { cluster, judged_by, request, outbox } => {
                    self.enforce_if_newer(&judged_by);
                    self.connect(now, &cluster, *request, outbox);
                }
                Input::Packets { conn, packets, violation } => {
                    self.take_packets(now, conn, packets, violation.as_ref());
                }
                Input::Writable { conn } => {
                    if let Some((home, slot)) = self.attached(conn) {
                        self.act(home, |cluster| cluster.writable(now, conn, slot));
                    }
                }
                Input::Closed { conn } => {
                    if let Some(Conn { home, slot, .. }) = self.conns.remove(&conn) {
                        self.act(home, |cluster| cluster.connection_closed(now, conn, slot));
                    }
                }
            }
        }
    }

    fn connect(&mut self, now: Now, cluster: &ClusterId, request: ConnectRequest, outbox: Inlet) {
        let Some((home, _)) = self.by_id.get(cluster) else {
            refuse(&outbox, request.connect.version, NoCluster::OfListener.connack());
            return;
        };
        let home = *home;
        let conn = request.conn;
        let mut slot = None;
        self.act(home, |cluster| {
            cluster.time_passes(now);
            slot = cluster.connect(now, request);
        });
        self.conns.insert(conn, Conn { home, slot, outbox });
    }

    fn take_packets(&mut self, now: Now, conn: ConnId, packets: Vec<Packet>, violation: Option<&Violation>) {
        let Some((home, slot)) = self.attached(conn) else { return };
        self.act(home, |cluster| {
            cluster.receive(now, conn, slot, packets.into_iter());
            if let Some(violation) = violation {
                cluster.violated(now, conn, slot, violation);
            }
        });
    }

    fn attached(&self, conn: ConnId) -> Option<(ClusterNo, Slot)> {
        let conn = self.conns.get(&conn)?;
        Some((conn.home, conn.slot?))
    }

    fn take_report(&mut self, report: Report) {
        let now = self.clock.now();
        for (home, ticket, outcome) in report.outcomes {
            if self.clusters.contains_key(&home) {
                self.act(home, |cluster| cluster.record_committed(now, ticket, outcome));
            }
        }
        for cluster in self.clusters.values_mut() {
            cluster.set_store_away(report.store_away);
        }
    }

    fn tell_the_time(&mut self) {
        let now = self.clock.now();
        for (home, cluster) in &mut self.clusters {
            cluster.time_passes(now);
            self.dirty.push(*home);
        }
    }

    /// Lets a cluster act; `None` when it is no more.
    fn act<T>(&mut self, home: ClusterNo, deed: impl FnOnce(&mut Cluster) -> T) -> Option<T> {
        let done = deed(self.clusters.get_mut(&home)?);
        if self.dirty.last() != Some(&home) {
            self.dirty.push(home);
        }
        Some(done)
    }

    /// Carries out what the clusters want.
    fn finish_turn(&mut self) {
        let mut may_write = WRITTEN_AT_ONCE_MAX;
        while let Some(home) = self.dirty.pop() {
            if let Some(cluster) = self.clusters.get_mut(&home) {
                let effects = cluster.take_effects();
                self.carry_out(home, effects, &mut may_write);
            }
        }
        self.log.submit(self.clock.micros());
        self.answer_awaited_expulsions();
    }

    /// Carries out what one cluster wants. `may_write`: to how many sockets more in this turn.
    fn carry_out(&mut self, home: ClusterNo, effects: Effects, may_write: &mut usize) {
        let Some(cluster) = self.clusters.get_mut(&home) else { return };
        self.log.gather(home, effects.turn, effects.entries);
        for read in effects.reads {
            self.log.read(home, read);
        }
        for conn in effects.attached {
            if let Some(conn) = self.conns.get(&conn) {
                conn.outbox.open();
            }
        }
        for (conn, reads) in effects.reading {
            if let Some(conn) = self.conns.get(&conn) {
                conn.outbox.read_on(reads);
            }
        }
        // A few are written to at once; among many the connections' tasks share the work.
        let at_once = effects.touched.len() <= *may_write;
        *may_write -= if at_once { effects.touched.len() } else { 0 };
        for slot in effects.touched {
            let Some((conn, output)) = cluster.output(slot) else { continue };
            let Some(Conn { outbox, .. }) = self.conns.get(&conn) else { continue };
            if output.is_empty() {
                continue;
            }
            let congested = if at_once { outbox.write_or_push(output) } else { outbox.push(output) };
            if congested {
                cluster.congested(conn, slot);
            }
        }
        for farewell in effects.farewells {
            if let Some(conn) = self.conns.get_mut(&farewell.conn) {
                conn.slot = None;
                conn.outbox.finish(farewell.output);
            }
        }
        if !effects.refusals.is_empty() {
            self.refusals.note(cluster.id(), effects.refusals);
        }
        if !effects.writes.is_empty() {
            let records = effects.writes.into_iter();
            self.records.submit(records.map(|(write, ticket)| (write, ticket.map(|t| (home, t)))));
        }
        for (id, answer) in effects.answers {
            if let Some(reply) = self.replies.remove(&id) {
                reply.answer(answer);
            } else if let Some((shed, reply)) = self.sheds.remove(&id) {
                let _ = reply.send(answer.map(|_| shed));
            }
        }
    }

    /// Ends every connection with a word, and waits for the sockets to close.
    async fn say_goodbye(&mut self, sources: &mut Sources, inputs: &mut Vec<Input>) {
        let now = self.clock.now();
        for (home, cluster) in &mut self.clusters {
            cluster.shut_down(now);
            self.dirty.push(*home);
        }
        self.finish_turn();
        let events = self.log.events();
        let all_closed = async {
            while !self.conns.is_empty() {
                tokio::select! {
                    _ = sources.inputs.recv_many(inputs, INPUTS_PER_TURN) => {
                        inputs.retain(|input| matches!(input, Input::Closed { .. }));
                        self.take_inputs(inputs);
                    }
                    // What was held back leaves before the connection does.
                    () = events.happened() => self.take_log_events(),
                }
                self.finish_turn();
            }
        };
        if tokio::time::timeout(CLOSE_WITHIN, all_closed).await.is_err() {
            tracing::warn!(open = self.conns.len(), "some connections did not close in time");
        }
        self.finish_turn();
    }
}

/// Answers a CONNECT that no cluster is asked about.
fn refuse(outbox: &Inlet, version: ProtocolVersion, connack: ConnAck) {
    let mut output = Output::default();
    encode(&Packet::ConnAck(Box::new(connack)), version, output.buffer());
    outbox.finish(output);
}
