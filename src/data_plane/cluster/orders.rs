//! Orders from the API, each answered when its effect is proven (API.md, "Kick is proven").

use std::sync::Arc;

use uuid::Uuid;

use super::Cluster;
use super::detach::Ending;
use super::effects::{CommandId, RecordOutcome, WriteTicket};
use super::pending::Awaiting;
use crate::data_plane::broker::Slot;
use crate::data_plane::session::Offline;
use crate::data_plane::session::link::ConnId;
use crate::model::{
    ClientId, ClusterStatus, DesiredCluster, EndOptions, Epoch, Now, OperatorExpiry, SessionEnd, SessionId,
    Subscription, Timestamp, TopicFilter, WillChoice,
};
use crate::seam::command::{CommandError, SessionRef};
use crate::seam::ports::SessionWrite;

/// What is ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// End the connection, keep the session.
    Disconnect(EndOptions),
    /// End the connection and the session, unless it is protected.
    Destroy(EndOptions),
    /// The expiry is this now; it is already in the record.
    ApplyExpiry(Option<OperatorExpiry>),
    /// Whether it is protected; it is already in the record.
    Protect(bool),
    /// Subscribe on the client's behalf.
    Subscribe(Box<Subscription>),
    /// Unsubscribe on the client's behalf.
    Unsubscribe(TopicFilter),
}

/// Removing it changes nothing; once that is committed, so is every write before it.
pub(super) const NO_SESSION: SessionId = SessionId(Uuid::nil());

impl Cluster {
    /// Carries out an order on the session of `client_id`, if the fence holds. The answer comes in
    /// [`Effects::answers`](super::Effects) once the socket is closed and the record committed.
    pub fn order(
        &mut self,
        now: Now,
        id: CommandId,
        client_id: &ClientId,
        fence: (Option<SessionId>, Option<Epoch>),
        order: Order,
    ) {
        let (slot, met) = match self.meet(client_id, fence) {
            Ok(found) => found,
            Err(error) => {
                self.effects.answers.push((id, Err(error)));
                return;
            }
        };
        let session = self.session(slot);
        let online = session.link.as_ref().map(|link| link.conn);
        let conn = online.or(session.offline.and_then(|offline| offline.conn));
        match order {
            Order::Disconnect(_) if online.is_none() => {
                // The record of the connection's end may still be on its way to the store.
                self.effects.writes.push((SessionWrite::Remove(NO_SESSION, SessionEnd::Deleted), None));
                self.prove(id, met, conn, false);
            }
            Order::Disconnect(options) => {
                let (ending, written) = self.ordered_ending(slot, &options);
                self.detach(now, slot, &ending);
                self.prove(id, met, conn, written);
            }
            Order::Destroy(_) if session.protected => {
                self.effects.answers.push((id, Err(CommandError::Protected)));
            }
            Order::Destroy(options) => {
                let (ending, written) = self.ordered_ending(slot, &options);
                self.detach_and_destroy(now, slot, &ending, SessionEnd::Deleted);
                self.prove(id, met, conn, written);
            }
            Order::Protect(protected) => {
                session.protected = protected;
                self.effects.answers.push((id, Ok(met)));
            }
            Order::Subscribe(subscription) => self.subscribe_for(now, id, (slot, met), *subscription),
            Order::Unsubscribe(filter) => self.unsubscribe_for(now, id, (slot, met), &filter),
            Order::ApplyExpiry(operator) => {
                self.apply_expiry(now, slot, operator);
                self.effects.answers.push((id, Ok(met)));
            }
        }
    }

    /// The control plane wants something else enforced from now on.
    pub fn set_rules(&mut self, now: Now, rules: Arc<DesiredCluster>) {
        let keep_alive_changes = rules.server_keep_alive_secs != self.rules.server_keep_alive_secs;
        let strategy_changes = rules.shared_strategy != self.rules.shared_strategy
            || rules.group_strategies != self.rules.group_strategies;
        let void = rules.users.lineage != self.rules.users.lineage;
        let chain_changes = rules.authenticators != self.rules.authenticators;
        let access_changes = self.access_changes(&rules);
        self.rules = rules;
        self.rates_may_have_changed();
        if void {
            self.end_voided_connections(now);
        }
        if chain_changes {
            self.end_disowned_connections(now);
        }
        self.enforce_access(now, access_changes);
        if keep_alive_changes {
            self.impose_keep_alive(now);
        }
        if strategy_changes {
            self.serve_waiting_groups(now);
        }
        if self.rules.status == ClusterStatus::Suspended {
            while let Some(slot) = self.online.last().copied() {
                self.detach(now, slot, &Ending::suspended());
            }
        }
    }

    /// The cluster is no more: every session ends, nothing is waited for, and whoever waits is told.
    pub fn dissolve(&mut self, now: Now) {
        while let Some(slot) = self.online.last().copied() {
            self.detach_and_destroy(now, slot, &Ending::administrative(None), SessionEnd::ClusterDeleted);
        }
        let rest: Vec<Slot> =
            self.sessions.iter().filter_map(|(at, _)| Some(Slot(at.try_into().ok()?))).collect();
        for slot in rest {
            self.destroy(now, slot, SessionEnd::ClusterDeleted);
        }
        for id in self.pending.abandon() {
            self.effects.answers.push((id, Err(CommandError::NoSuchCluster)));
        }
        self.journal.let_go();
    }

    /// A record write that something waited for has met its fate.
    pub fn record_committed(&mut self, now: Now, ticket: WriteTicket, outcome: RecordOutcome) {
        self.store_away = outcome == RecordOutcome::StoreAway;
        match self.pending.take(ticket) {
            None => {}
            Some(Awaiting::Attach(attaching)) => self.attach_recorded(now, attaching, outcome),
            Some(awaited @ Awaiting::SubAck { .. }) => self.subscriptions_recorded(now, awaited, outcome),
            Some(Awaiting::UnsubAck { attachment, packet_id, reasons }) => {
                self.removals_recorded(attachment, packet_id, reasons);
            }
            Some(Awaiting::Expelled) => self.expelled.recorded(),
            Some(Awaiting::Order(id)) => {
                let failure = (outcome != RecordOutcome::Committed).then_some(CommandError::StoreAway);
                self.order_proven(id, failure);
            }
        }
    }

    /// Whether the database answers, as the runtime last saw it.
    pub fn set_store_away(&mut self, away: bool) {
        self.store_away = away;
    }

    fn meet(
        &mut self,
        client_id: &ClientId,
        (if_session_id, if_epoch): (Option<SessionId>, Option<Epoch>),
    ) -> Result<(Slot, SessionRef), CommandError> {
        let slot = self.registry.get(client_id.as_str()).ok_or(CommandError::NoSuchSession)?;
        let session = self.session(slot);
        let (session_id, epoch) = (session.id, session.epoch);
        let moved_on = if_session_id.is_some_and(|id| id != session_id)
            || if_epoch.is_some_and(|wanted| wanted != epoch);
        if moved_on {
            return Err(CommandError::Superseded { session_id, epoch });
        }
        let was_online = session.link.is_some();
        Ok((slot, SessionRef { session_id, epoch, was_online, was_subscribed: false }))
    }

    fn apply_expiry(&mut self, now: Now, slot: Slot, operator: Option<OperatorExpiry>) {
        let session = self.session(slot);
        session.expiry.operator = operator;
        let becomes_durable = !session.durable && session.is_persistent(now.wall);
        if let Some(Offline { since, expires_at, conn }) = session.offline {
            let renewed = session.expiry.expires_at(since);
            session.offline = Some(Offline { since, expires_at: renewed, conn });
            self.registry.expires_no_more(expires_at, slot);
            self.registry.expires(renewed, slot);
            self.reschedule_will(slot, renewed);
            self.expire_due(now);
        } else if becomes_durable {
            self.make_durable(slot);
            self.catch_up(now, slot);
            self.touch(slot);
        }
    }

    /// A delayed will never waits longer than its session (PRODUCT S-10).
    fn reschedule_will(&mut self, slot: Slot, session_end: Timestamp) {
        let session = &mut self.sessions[slot.0 as usize];
        let Some(offline) = session.offline else { return };
        let Some(will) = session.will.as_mut() else { return };
        let Some(due_at) = will.due_at else { return };
        let renewed = offline.since.plus_secs(will.delay_secs).min(session_end);
        will.due_at = Some(renewed);
        self.wills.remove(&(due_at, slot));
        self.wills.insert((renewed, slot));
    }

    /// How a connection ends that an operator ends so, and whether anything was written down about it: a
    /// will that is dropped must not come back with a restart.
    fn ordered_ending(&mut self, slot: Slot, options: &EndOptions) -> (Ending, bool) {
        let suppressed = options.will == WillChoice::Suppress && self.session(slot).will.is_some();
        if suppressed {
            self.cancel_will(slot);
        }
        // More than [MQTT-3.1.2-29] asks: DISCONNECT may carry a reason string in any case.
        let link = self.session(slot).link.as_ref();
        let listens = link.is_some_and(|link| link.problem_information);
        (Ending::administrative(options.reason.as_ref().filter(|_| listens)), suppressed)
    }

    /// The answer to an order waits for its last record, for the connection to be closed, and where it tells
    /// of something `written` down for that to be durable.
    pub(super) fn prove(&mut self, id: CommandId, met: SessionRef, conn: Option<ConnId>, written: bool) {
        let ticket = self.pending.prove(id, met, conn, written);
        if written {
            self.journal.tells(id);
        }
        if let Some((_, slot)) = self.effects.writes.last_mut() {
            *slot = Some(ticket);
        }
    }

    pub(super) fn order_proven(&mut self, id: CommandId, failure: Option<CommandError>) {
        if let Some(answer) = self.pending.proven(id, failure) {
            self.effects.answers.push((id, answer));
        }
    }
}
