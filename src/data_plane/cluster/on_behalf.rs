//! What an operator has a session do in its client's place: begin, subscribe, unsubscribe (PRODUCT S-1, S-8).
//!
//! The same quotas hold as for the client, and a filter has one subscription, whoever asked for it: the one
//! who asks last replaces it, and either takes it away.

use super::Cluster;
use super::effects::CommandId;
use crate::data_plane::broker::Slot;
use crate::data_plane::broker::admission::{Full, check_room};
use crate::data_plane::protocol::ReasonCode;
use crate::data_plane::session::Offline;
use crate::model::{Now, SessionEnd, SessionExpiry, Subscription, TopicFilter};
use crate::seam::command::{CommandError, NewSession, SessionRef};
use crate::seam::ports::{SessionRow, SessionWrite};

impl Cluster {
    /// Begins a session that has no connection yet and never had one. It takes a place of the connection quota
    /// like any other, and all of what it subscribes to is granted or none. The client's next CONNECT without
    /// clean start resumes it.
    pub fn begin_offline(&mut self, now: Now, id: CommandId, new: NewSession) {
        let written = self.effects.writes.len();
        let answer = self.try_begin_offline(now, new);
        match answer {
            // Answered when the records and where the filters begin are durable.
            Ok(met) => self.prove(id, met, None, true),
            Err(error) => {
                self.effects.writes.truncate(written);
                self.effects.answers.push((id, Err(error)));
            }
        }
    }

    fn try_begin_offline(&mut self, now: Now, new: NewSession) -> Result<SessionRef, CommandError> {
        let NewSession { session_id, client_id, part, subscriptions } = new;
        if self.registry.get(client_id.as_str()).is_some() {
            return Err(CommandError::SessionExists);
        }
        check_room(&self.rules.quota, self.counts()).map_err(|Full { limit, in_use }| {
            CommandError::QuotaExceeded(format!("quota connections: limit {limit}, in use {in_use}"))
        })?;
        let expiry = SessionExpiry {
            // Until the client says what it wants the session waits as long as any may.
            client_secs: self.rules.quota.session_expiry_max_secs,
            bounded_by_cluster: false,
            operator: part.expiry,
        };
        let slot = self.begin(now, session_id, client_id, expiry);
        let expires_at = expiry.expires_at(now.wall);
        self.registry.expires(expires_at, slot);
        let session = self.session(slot);
        session.offline = Some(Offline { since: now.wall, expires_at, conn: None });
        session.protected = part.protected;
        // It is there for the next CONNECT, and what is published from here on waits for it.
        (session.durable, session.admitted) = (true, true);
        let met = SessionRef { session_id, epoch: session.epoch, was_online: false, was_subscribed: false };
        let row = self.unattached_row(slot, now);
        self.effects.writes.push((SessionWrite::Put(Box::new(row)), None));
        self.effects.writes.push((SessionWrite::Begin(session_id, Box::new(part)), None));
        for subscription in subscriptions {
            if let Err(error) = self.subscribe_in_place(now, slot, subscription) {
                self.destroy(now, slot, SessionEnd::Deleted);
                return Err(error);
            }
        }
        self.save(slot);
        self.save_groups_of(slot);
        Ok(met)
    }

    /// Subscribes in the client's place: for the next message, from here on. Retained messages follow as they
    /// do a SUBSCRIBE: at once, or when the client comes.
    pub(super) fn subscribe_for(
        &mut self,
        now: Now,
        id: CommandId,
        (slot, met): (Slot, SessionRef),
        subscription: Subscription,
    ) {
        let filter = subscription.filter.clone();
        match self.subscribe_in_place(now, slot, subscription) {
            Err(error) => self.effects.answers.push((id, Err(error))),
            Ok(was_subscribed) => {
                let durable = self.session(slot).durable;
                self.save(slot);
                self.save_groups_of(slot);
                self.prove(id, SessionRef { was_subscribed, ..met }, None, durable);
                self.tell_subscribed(now, slot, [&filter]);
                self.catch_up(now, slot);
                self.touch(slot);
            }
        }
    }

    /// Unsubscribes in the client's place.
    pub(super) fn unsubscribe_for(
        &mut self,
        now: Now,
        id: CommandId,
        (slot, met): (Slot, SessionRef),
        filter: &TopicFilter,
    ) {
        if !self.unsubscribe_one(slot, filter) {
            self.effects.answers.push((id, Err(CommandError::NoSuchSubscription)));
            return;
        }
        let durable = self.session(slot).durable;
        self.save(slot);
        self.prove(id, SessionRef { was_subscribed: true, ..met }, None, durable);
        self.tell_unsubscribed(now, slot, filter);
    }

    /// Returns whether it was there before.
    fn subscribe_in_place(
        &mut self,
        now: Now,
        slot: Slot,
        subscription: Subscription,
    ) -> Result<bool, CommandError> {
        if subscription.filter.pattern().starts_with("$SYS/") {
            self.refresh_system_topics(now);
        }
        let granted =
            self.subscribe_one(now, slot, subscription, true).map_err(|(reason, _, why)| match reason {
                ReasonCode::QuotaExceeded => CommandError::QuotaExceeded(why),
                _ => CommandError::FilterRefused(why),
            })?;
        Ok(granted.before.is_some())
    }

    /// The record of a session that was never attached.
    fn unattached_row(&self, slot: Slot, now: Now) -> SessionRow {
        let session = &self.sessions[slot.0 as usize];
        SessionRow {
            cluster: self.rules.id.clone(),
            client_id: session.client_id.clone(),
            session_id: session.id,
            epoch: session.epoch,
            protocol: None,
            clean_start: false,
            username: None,
            peer: None,
            listener: None,
            transport: None,
            keep_alive_secs: 0,
            receive_maximum: u16::MAX,
            packet_bytes_max: None,
            expiry_client_secs: session.expiry.client_secs,
            expiry_bounded: false,
            has_will: false,
            created_at: session.created_at,
            connected_at: None,
            disconnected_at: Some(now.wall),
            disconnect: None,
        }
    }
}
