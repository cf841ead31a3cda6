//! The outside as the runtime would be it: time, effects, records, orders, restarts.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::data_plane::cluster::{Effects, RecordOutcome, WriteTicket};
use crate::model::{OperatorExpiry, Subscription};
use crate::model::{OperatorPart, RetainHandling, SubscriptionOrigin, TopicFilter};
use crate::seam::command::NewSession;
use crate::seam::ports::{SessionRow, SessionWrite, StoredSession};

/// How the store behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// Commits at once.
    #[default]
    Prompt,
    /// Commits when told.
    Late,
    /// Does not answer; keeps what it is given.
    Away,
    /// Refuses everything.
    Refusing,
}

/// A subscription that an operator asks for.
pub(super) fn on_behalf(text: &str, qos: QoS) -> Subscription {
    Subscription {
        filter: TopicFilter::new(text).expect("a filter"),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
        identifier: None,
        origin: SubscriptionOrigin::Operator,
    }
}

/// The store of records.
#[derive(Default)]
pub(super) struct Records {
    pub(super) mode: Mode,
    waiting: VecDeque<(SessionWrite, Option<WriteTicket>)>,
    rows: BTreeMap<SessionId, (SessionRow, Vec<Subscription>)>,
    /// Operators' parts that came with sessions which they had begin.
    pub(super) parts: BTreeMap<SessionId, OperatorPart>,
}

impl Records {
    fn commit(&mut self, write: SessionWrite) {
        match write {
            SessionWrite::Put(row) => {
                let held = self.rows.remove(&row.session_id).map(|(_, subscriptions)| subscriptions);
                self.rows.insert(row.session_id, (*row, held.unwrap_or_default()));
            }
            SessionWrite::Remove(id, _) => _ = self.rows.remove(&id),
            SessionWrite::Pass(row, _) => _ = self.rows.remove(&row.session_id),
            SessionWrite::Begin(id, part) => _ = self.parts.insert(id, *part),
            SessionWrite::Subscribe(id, subscription) => {
                if let Some((_, held)) = self.rows.get_mut(&id) {
                    held.retain(|old| old.filter != subscription.filter);
                    held.push(*subscription);
                }
            }
            SessionWrite::Unsubscribe(id, filter) => {
                if let Some((_, held)) = self.rows.get_mut(&id) {
                    held.retain(|old| old.filter != filter);
                }
            }
        }
    }

    /// The committed record of a client.
    pub(super) fn row(&self, client_id: &str) -> Option<&SessionRow> {
        self.rows.values().map(|(row, _)| row).find(|row| row.client_id.as_str() == client_id)
    }

    /// The committed filters of a client, sorted.
    pub(super) fn filters(&self, client_id: &str) -> Vec<(String, QoS)> {
        let of_client = self.rows.values().filter(|(row, _)| row.client_id.as_str() == client_id);
        let mut filters: Vec<_> = of_client
            .flat_map(|(_, held)| held.iter().map(|s| (s.filter.as_str().to_owned(), s.qos)))
            .collect();
        filters.sort();
        filters
    }

    /// The committed subscriptions of a client.
    pub(super) fn subscriptions(&self, client_id: &str) -> &[Subscription] {
        let found = self.rows.values().find(|(row, _)| row.client_id.as_str() == client_id);
        found.map_or(&[], |(_, held)| held)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

impl World {
    /// Lets time pass.
    pub(super) fn advance(&mut self, secs: u32) {
        self.advance_millis(u64::from(secs) * 1_000);
    }

    pub(super) fn advance_millis(&mut self, millis: u64) {
        let wall = self.now.wall.as_millis() + i64::try_from(millis).expect("a script's time");
        self.now = Now { wall: Timestamp::from_millis(wall), mono: self.now.mono.plus_millis(millis) };
        self.tick();
    }

    /// The runtime tells the time, and nothing else happens.
    pub(super) fn tick(&mut self) {
        self.cluster.time_passes(self.now);
        self.settle();
    }

    /// Carries out what the cluster wants until it wants nothing more.
    pub(super) fn settle(&mut self) {
        loop {
            let effects = self.cluster.take_effects();
            let reads = effects.reads.clone();
            let relieved = self.carry_out(effects);
            let told = self.keep_records() | self.sync_promptly() | self.read_disk(&reads);
            for (peer, slot) in &relieved {
                self.cluster.writable(self.now, *peer, *slot);
            }
            let closed = if self.sockets_linger { Vec::new() } else { std::mem::take(&mut self.lingering) };
            for peer in &closed {
                self.cluster.connection_closed(self.now, *peer, None);
            }
            if relieved.is_empty() && closed.is_empty() && !told {
                let idle = self.cluster.take_effects();
                let nothing = idle.writes.is_empty() && idle.touched.is_empty() && idle.entries.is_empty();
                assert!(nothing, "nothing happened, but {idle:?}");
                return;
            }
        }
    }

    /// Returns the connections that had more waiting than the runtime likes, and have written it.
    fn carry_out(&mut self, effects: Effects) -> Vec<(Peer, Slot)> {
        let mut relieved = Vec::new();
        for peer in effects.attached {
            self.socket(peer).attached = true;
        }
        for (peer, reads) in effects.reading {
            self.socket(peer).is_read = reads;
        }
        self.refusals.extend(effects.refusals);
        for slot in effects.touched {
            let Some((peer, output)) = self.cluster.output(slot) else { continue };
            let output = std::mem::take(output);
            if output.len() >= CONGESTED_FROM_BYTES {
                self.cluster.congested(peer, slot);
                relieved.push((peer, slot));
            }
            self.deliver(peer, &output);
        }
        for farewell in effects.farewells {
            self.deliver(farewell.conn, &farewell.output);
            let socket = self.socket(farewell.conn);
            assert!(socket.bytes.is_empty(), "half a packet");
            (socket.slot, socket.attached, socket.closed) = (None, false, true);
            self.lingering.push(farewell.conn);
        }
        self.disk.write(effects.turn, effects.entries);
        self.records.waiting.extend(effects.writes);
        self.answers.extend(effects.answers);
        relieved
    }

    fn deliver(&mut self, peer: Peer, output: &Output) {
        let socket = self.socket(peer);
        if socket.dead {
            return;
        }
        for piece in output.pieces() {
            socket.bytes.extend_from_slice(piece);
        }
        while let Some(packet) = socket.from_server.decode(&mut socket.bytes).expect("valid packets") {
            socket.inbox.push(packet);
        }
    }

    /// Returns whether the cluster was told something.
    fn keep_records(&mut self) -> bool {
        let outcome = match self.records.mode {
            Mode::Late => return false,
            Mode::Prompt => RecordOutcome::Committed,
            Mode::Away => RecordOutcome::StoreAway,
            Mode::Refusing => RecordOutcome::Refused,
        };
        self.report(outcome)
    }

    /// Decides everything that waits in the store.
    pub(super) fn decide_records(&mut self, outcome: RecordOutcome) {
        self.report(outcome);
        self.settle();
    }

    fn report(&mut self, outcome: RecordOutcome) -> bool {
        let waiting = std::mem::take(&mut self.records.waiting);
        let told = waiting.iter().any(|(_, ticket)| ticket.is_some());
        for (write, ticket) in waiting {
            match outcome {
                RecordOutcome::Committed => self.records.commit(write),
                RecordOutcome::StoreAway => self.records.waiting.push_back((write, None)),
                RecordOutcome::Refused => {}
            }
            if let Some(ticket) = ticket {
                self.cluster.record_committed(self.now, ticket, outcome);
            }
        }
        told
    }

    /// The store goes away, and the runtime notices.
    pub(super) fn store_goes_away(&mut self) {
        self.records.mode = Mode::Away;
        self.cluster.set_store_away(true);
        self.settle();
    }

    /// The store is back, and what waited is committed.
    pub(super) fn store_comes_back(&mut self) {
        self.records.mode = Mode::Prompt;
        self.cluster.set_store_away(false);
        self.settle();
    }

    /// Sockets that were to be closed are closed now.
    pub(super) fn close_sockets(&mut self) {
        for peer in std::mem::take(&mut self.lingering) {
            self.cluster.connection_closed(self.now, peer, None);
        }
        self.settle();
    }

    /// Gives an order without a fence.
    pub(super) fn order(&mut self, client_id: &str, order: Order) -> CommandId {
        self.order_fenced(client_id, (None, None), order)
    }

    pub(super) fn order_fenced(
        &mut self,
        client_id: &str,
        fence: (Option<SessionId>, Option<Epoch>),
        order: Order,
    ) -> CommandId {
        self.last_command += 1;
        let id = CommandId(self.last_command);
        let client_id = ClientId::new(client_id).expect("a client id");
        self.cluster.time_passes(self.now);
        self.cluster.order(self.now, id, &client_id, fence, order);
        self.settle();
        id
    }

    /// Has a session begin for a client that subscribes to these filters at QoS 1.
    pub(super) fn begin(&mut self, client_id: &str, part: OperatorPart, filters: &[&str]) -> CommandId {
        self.last_command += 1;
        self.last_id += 1;
        let id = CommandId(self.last_command);
        let new = NewSession {
            session_id: SessionId(Uuid::from_u128(self.last_id)),
            client_id: ClientId::new(client_id).expect("a client id"),
            part,
            subscriptions: filters.iter().map(|text| on_behalf(text, QoS::AtLeastOnce)).collect(),
        };
        self.cluster.time_passes(self.now);
        self.cluster.begin_offline(self.now, id, new);
        self.settle();
        id
    }

    /// The answer to an order, if it was given.
    pub(super) fn answer(&mut self, id: CommandId) -> Option<Result<SessionRef, CommandError>> {
        let answers: Vec<_> = self.answers.iter().filter(|(of, _)| *of == id).cloned().collect();
        assert!(answers.len() < 2, "answered twice");
        answers.into_iter().next().map(|(_, answer)| answer)
    }

    /// The control plane wants something else enforced.
    pub(super) fn change_rules(&mut self, change: impl FnOnce(&mut DesiredCluster)) {
        change(&mut self.rules);
        self.cluster.set_rules(self.now, Arc::new(self.rules.clone()));
        self.settle();
    }

    /// Sessions online, and offline.
    pub(super) fn counts(&mut self) -> (u32, u32) {
        self.cluster.time_passes(self.now);
        self.settle();
        let counts = self.cluster.counts();
        (counts.online, counts.offline_persistent)
    }

    /// The process is killed and starts again after so many seconds, with what was committed and what
    /// is durable.
    pub(super) fn restart(&mut self, down_secs: u32) {
        self.restart_with(down_secs, |_| None);
    }

    pub(super) fn restart_with(&mut self, down_secs: u32, operator: impl Fn(&str) -> Option<OperatorExpiry>) {
        self.restart_lucky(down_secs, 0, operator);
    }

    /// Of what was on its way to the disk the first `lucky` entries have arrived.
    pub(super) fn restart_lucky(
        &mut self,
        down_secs: u32,
        lucky: usize,
        operator: impl Fn(&str) -> Option<OperatorExpiry>,
    ) {
        let (tail, mut memory) = self.disk.crash(lucky);
        let log = RecentLog::new(tail, self.recent_bytes_max);
        self.cluster = Cluster::new(Arc::new(self.rules.clone()), NO, log, 1);
        self.lingering.clear();
        self.records.waiting.clear();
        for socket in &mut self.sockets {
            (socket.slot, socket.attached, socket.closed) = (None, false, true);
        }
        let wall = self.now.wall.plus_secs(down_secs);
        self.now = Now { wall, mono: Monotonic::from_millis(0) };
        for (row, subscriptions) in self.records.rows.values().cloned() {
            let operator_expiry = operator(row.client_id.as_str());
            let protected = self.records.parts.get(&row.session_id).is_some_and(|part| part.protected);
            self.cluster.restore(
                self.now,
                StoredSession { row, operator_expiry, protected, subscriptions },
                &mut memory,
            );
        }
        self.cluster.restored_all(self.now, memory);
        self.tick();
    }
}
