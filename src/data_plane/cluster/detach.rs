//! The end of a connection, and of a session (MQTT 5.0, 4.1, 4.13; PRODUCT S-5, S-7, S-10).

use std::sync::Arc;

use super::limits::may_take;
use super::pending::Attachment;
use super::publish::Along;
use super::{Cluster, facts};
use crate::data_plane::broker::Slot;
use crate::data_plane::protocol::{Disconnect, Packet, ReasonCode};
use crate::data_plane::session::link::{ConnId, Link};
use crate::data_plane::session::{HeldWill, Offline};
use crate::model::{DisconnectCause, EndedBy, Now, OperatorReason, SessionEnd};
use crate::seam::ports::{SessionRow, SessionWrite};

/// How a connection ends.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    /// The stable word of the record.
    pub(super) reason: &'static str,
    /// Who ended it.
    pub(super) by: EndedBy,
    /// What a v5 client is told, and for people why.
    pub(super) goodbye: Option<(ReasonCode, Option<String>)>,
    /// Whether the will is published (`[MQTT-3.1.2-8]`, `[MQTT-3.1.2-10]`).
    pub(super) with_will: bool,
}

impl Ending {
    /// The client said DISCONNECT.
    pub(super) fn goodbye(with_will: bool) -> Self {
        let reason = if with_will { "disconnect_with_will" } else { "normal" };
        Self { reason, by: EndedBy::Client, goodbye: None, with_will }
    }

    /// The connection broke.
    pub(super) fn lost() -> Self {
        Self { reason: "connection_lost", by: EndedBy::Network, goodbye: None, with_will: true }
    }

    /// The server ends it because the client broke a rule or a limit.
    pub(super) fn broken(reason: &'static str, code: ReasonCode, why: String) -> Self {
        Self { reason, by: EndedBy::Server, goodbye: Some((code, Some(why))), with_will: true }
    }

    /// Another connection came with the same client id (`[MQTT-3.1.4-3]`, PRODUCT S-9).
    pub(super) fn taken_over() -> Self {
        let goodbye = Some((ReasonCode::SessionTakenOver, None));
        Self { reason: "taken_over", by: EndedBy::Server, goodbye, with_will: true }
    }

    /// Somebody ordered it over the API, and may have said why.
    pub(super) fn administrative(why: Option<&OperatorReason>) -> Self {
        let goodbye = Some((ReasonCode::AdministrativeAction, why.map(ToString::to_string)));
        Self { reason: "administrative", by: EndedBy::Operator, goodbye, with_will: true }
    }

    /// The cluster was suspended.
    pub(super) fn suspended() -> Self {
        let why = Some("the cluster is suspended".to_owned());
        let goodbye = Some((ReasonCode::AdministrativeAction, why));
        Self { reason: "cluster_suspended", by: EndedBy::Operator, goodbye, with_will: true }
    }

    /// The cluster's quota was lowered, and this session is above it (PRODUCT 3).
    pub(super) fn shed(limit: u32) -> Self {
        let why = Some(format!("limit connections: lowered to {limit}"));
        let goodbye = Some((ReasonCode::QuotaExceeded, why));
        Self { reason: "quota_lowered", by: EndedBy::Operator, goodbye, with_will: true }
    }

    /// The user went away, or has another password.
    pub(super) fn user_changed() -> Self {
        let why = Some("the user was removed, or has another password".to_owned());
        let goodbye = Some((ReasonCode::AdministrativeAction, why));
        Self { reason: "user_changed", by: EndedBy::Operator, goodbye, with_will: true }
    }

    /// A block rule keeps the client out (PRODUCT 3). Table 3-10 of MQTT 5.0 has this code for CONNACK alone;
    /// a client that does not know it here knows that the connection is closed.
    pub(super) fn blocked() -> Self {
        let goodbye = Some((ReasonCode::Banned, None));
        Self { reason: "blocked", by: EndedBy::Operator, goodbye, with_will: true }
    }

    /// The cluster's policies no longer let the client connect.
    pub(super) fn not_authorized() -> Self {
        let why = Some("the cluster's policies do not let this client connect any longer".to_owned());
        let goodbye = Some((ReasonCode::NotAuthorized, why));
        Self { reason: "not_authorized", by: EndedBy::Operator, goodbye, with_will: true }
    }

    /// Who vouched for the client is not asked any longer, or has taken it back.
    pub(super) fn disowned() -> Self {
        let why = Some("what the client was let in by is not accepted any longer".to_owned());
        let goodbye = Some((ReasonCode::AdministrativeAction, why));
        Self { reason: "credentials_revoked", by: EndedBy::Operator, goodbye, with_will: true }
    }

    /// The record of the attachment could not be written; CONNACK says so.
    pub(super) fn not_recorded() -> Self {
        Self { reason: "not_recorded", by: EndedBy::Server, goodbye: None, with_will: true }
    }

    /// The service stops.
    pub(super) fn shutting_down() -> Self {
        let goodbye = Some((ReasonCode::ServerShuttingDown, None));
        Self { reason: "server_shutdown", by: EndedBy::Server, goodbye, with_will: true }
    }
}

impl Cluster {
    /// A connection has closed: by itself, or because a [`Farewell`](super::Farewell) was carried out.
    pub fn connection_closed(&mut self, now: Now, conn: ConnId, slot: Option<Slot>) {
        if let Some(slot) = slot
            && self.attached_session(Attachment { slot, conn }).is_some()
        {
            let ending = self.ending_of_closed(slot);
            self.detach(now, slot, &ending);
        }
        self.expelled.closed(conn);
        for id in self.pending.closed(conn) {
            self.order_proven(id, None);
        }
    }

    /// Every connection ends because the service stops.
    pub fn shut_down(&mut self, now: Now) {
        while let Some(slot) = self.online.last().copied() {
            self.detach(now, slot, &Ending::shutting_down());
        }
    }

    /// Ends a session's connection. The session goes on offline, or ends with it.
    pub(super) fn detach(&mut self, now: Now, slot: Slot, ending: &Ending) {
        if let Some(link) = self.say_goodbye(slot, ending) {
            let event = self.disconnected(now, slot, &link, ending);
            self.go_on_without(now, slot, &link, ending);
            self.tell_disconnected(now, event);
        }
    }

    /// What becomes of a session whose `link` was taken off.
    pub(super) fn go_on_without(&mut self, now: Now, slot: Slot, link: &Link, ending: &Ending) {
        self.drop_denied_will(slot, link);
        let session = &mut self.sessions[slot.0 as usize];
        if !ending.with_will && session.will.take().is_some() {
            self.journal.change(vec![facts::no_will(session.id)]);
        }
        if !session.outlives_connection(now.wall) {
            self.destroy(now, slot, SessionEnd::WithConnection);
            return;
        }
        let session = &mut self.sessions[slot.0 as usize];
        let expires_at = session.expiry.expires_at(now.wall);
        session.offline = Some(Offline { since: now.wall, expires_at, conn: Some(link.conn) });
        self.registry.expires(expires_at, slot);
        self.give_back_shared(now, slot, false);
        self.schedule_will(now, slot);
        self.fall_asleep(slot);
        let mut row = self.online_row(slot, link);
        row.disconnected_at = Some(now.wall);
        row.disconnect = Some(DisconnectCause { reason: ending.reason.to_owned(), by: ending.by });
        self.effects.writes.push((SessionWrite::Put(Box::new(row)), None));
    }

    /// Ends a session's connection and the session, which ends because of `end`.
    pub(super) fn detach_and_destroy(&mut self, now: Now, slot: Slot, ending: &Ending, end: SessionEnd) {
        let link = self.say_goodbye(slot, ending);
        if let Some(link) = &link {
            self.drop_denied_will(slot, link);
        }
        let event = link.and_then(|link| self.disconnected(now, slot, &link, ending));
        self.destroy(now, slot, end);
        self.tell_disconnected(now, event);
    }

    /// Ends a session that has no connection: subscriptions, expiry, record, all of it. A will that
    /// is still held is published: it never outlives the session (`[MQTT-3.1.2-8]`, PRODUCT S-10).
    /// Only that of a CONNECT which was never admitted is not.
    pub(super) fn destroy(&mut self, now: Now, slot: Slot, end: SessionEnd) {
        let held = std::mem::take(&mut self.session(slot).subscriptions);
        for subscription in held {
            self.release(slot, &subscription);
        }
        self.give_back_shared(now, slot, true);
        let will = self.take_will(slot).filter(|_| self.session(slot).admitted);
        if let Some(Offline { expires_at, .. }) = self.session(slot).offline {
            self.registry.expires_no_more(expires_at, slot);
        }
        let session = self.sessions.remove(slot.0 as usize);
        self.registry.remove(&session.client_id);
        self.effects.writes.push((SessionWrite::Remove(session.id, end), None));
        // The will goes in one piece with the rest: after a crash it is there, or was published.
        let along = Along::Always(facts::session_ends(session.id));
        match will {
            Some(will) => self.publish_will(now, *will, along),
            None if session.is_written_down => self.journal.change(vec![facts::session_ends(session.id)]),
            None => {}
        }
    }

    /// Takes the link off and sends it away with what it still has to write.
    fn say_goodbye(&mut self, slot: Slot, ending: &Ending) -> Option<Box<Link>> {
        let mut link = self.unlink(slot)?;
        if let Some((reason, why)) = &ending.goodbye
            && link.ready
            && link.version.is_v5()
        {
            link.send(&Packet::Disconnect(Box::new(Disconnect {
                reason: *reason,
                reason_string: why.as_deref().map(Into::into),
                ..Disconnect::default()
            })));
        }
        let output = std::mem::take(&mut link.out);
        self.pending.closing(link.conn);
        self.journal.part(link.conn, output);
        Some(link)
    }

    /// Takes the link off a session.
    pub(super) fn unlink(&mut self, slot: Slot) -> Option<Box<Link>> {
        let conn = self.session(slot).link.as_ref()?.conn;
        self.leave_line(slot, conn);
        let tail = self.log.tail();
        let session = self.session(slot);
        let link = session.link.take()?;
        if link.caught_up {
            session.outbound.position = tail;
        }
        session.ended_counters.add(link.counters);
        self.ended_counters.add(link.counters);
        self.registry.detached();
        self.show_online(slot, false);
        self.online.swap_remove(link.place);
        if let Some(moved) = self.online.get(link.place).copied()
            && let Some(moved) = self.session(moved).link.as_mut()
        {
            moved.place = link.place;
        }
        Some(link)
    }

    /// The connection ended badly: publish the will, now or when its delay is over.
    fn schedule_will(&mut self, now: Now, slot: Slot) {
        let session = &mut self.sessions[slot.0 as usize];
        match &mut session.will {
            None => {}
            Some(will) if will.delay_secs > 0 => {
                let session_end = session.offline.map_or(now.wall, |offline| offline.expires_at);
                let due_at = now.wall.plus_secs(will.delay_secs).min(session_end);
                will.due_at = Some(due_at);
                self.wills.insert((due_at, slot));
                self.journal.change(vec![facts::will(session.id, will)]);
            }
            Some(_) => {
                let gone = Along::Always(facts::no_will(session.id));
                if let Some(will) = session.will.take() {
                    self.publish_will(now, *will, gone);
                }
            }
        }
    }

    /// A session's will is not to be published.
    pub(super) fn cancel_will(&mut self, slot: Slot) {
        if self.take_will(slot).is_some() {
            let id = self.session(slot).id;
            self.journal.change(vec![facts::no_will(id)]);
        }
    }

    fn take_will(&mut self, slot: Slot) -> Option<Box<HeldWill>> {
        let will = self.session(slot).will.take()?;
        if let Some(due_at) = will.due_at {
            self.wills.remove(&(due_at, slot));
        }
        Some(will)
    }

    /// Publishes a will. `along` says that it is no more.
    pub(super) fn publish_will(&mut self, now: Now, will: HeldWill, along: Along) {
        let mut message = will.message;
        message.published_at = now.wall;
        message.expires_at = will.message_expiry_secs.map(|secs| now.wall.plus_secs(secs));
        if let Some(author) = &will.author {
            self.enhance_will(author, &mut message);
        }
        if may_take(&message).is_ok() {
            // When the disk is full a will is lost: there is nobody to be told to try again.
            let _ = self.publish(now, Arc::new(message), along);
        } else if let Along::Always(change) = along {
            self.journal.change(vec![change]);
        }
    }

    /// The record of a session that is attached by `link`.
    pub(super) fn online_row(&self, slot: Slot, link: &Link) -> SessionRow {
        let session = &self.sessions[slot.0 as usize];
        SessionRow {
            cluster: self.rules.id.clone(),
            client_id: session.client_id.clone(),
            session_id: session.id,
            epoch: session.epoch,
            protocol: Some(link.version),
            clean_start: link.clean_start,
            username: link.username.clone(),
            peer: Some(link.origin.peer.clone()),
            listener: Some(link.origin.listener.clone()),
            transport: Some(link.origin.transport),
            keep_alive_secs: link.keep_alive_secs,
            receive_maximum: link.receive_maximum,
            packet_bytes_max: link.packet_bytes_max.map(std::num::NonZeroU32::get),
            expiry_client_secs: session.expiry.client_secs,
            expiry_bounded: session.expiry.bounded_by_cluster,
            has_will: session.will.is_some(),
            created_at: session.created_at,
            connected_at: Some(link.connected_at),
            disconnected_at: None,
            disconnect: None,
        }
    }
}
