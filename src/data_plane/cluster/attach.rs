//! CONNECT: who may come in, as whom, to which session (MQTT 5.0, 3.1.4; PRODUCT S-1 … S-9).

use std::num::NonZeroU32;
use std::sync::Arc;

use bytestring::ByteString;
use uuid::Uuid;

use super::detach::Ending;
use super::effects::Farewell;
use super::pending::{Attaching, Attachment, Awaiting};
use super::verdict::{Asker, Refused, Welcome};
use super::{Cluster, RecordOutcome, facts};
use crate::data_plane::PACKET_BYTES_MAX;
use crate::data_plane::broker::Slot;
use crate::data_plane::broker::admission::Claim;
use crate::data_plane::protocol::{ConnAck, Connect, Packet, ReasonCode, Will, encode_within};
use crate::data_plane::session::aliases::AliasesOut;
use crate::data_plane::session::authentication::{Proof, Proven, SCRAM_SHA_256};
use crate::data_plane::session::handshake::{keep_alive_secs, receive_maximum, response_information};
use crate::data_plane::session::inbound::{AliasesIn, TOPIC_ALIAS_MAXIMUM};
use crate::data_plane::session::link::{ConnId, Fetched, Link, Origin};
use crate::data_plane::session::outgoing::Outgoing;
use crate::data_plane::session::output::Output;
use crate::data_plane::session::{HeldWill, Offline, RECEIVE_MAXIMUM, Session, WillAuthor};
use crate::model::{
    ClientId, Message, MessageCounters, Now, ProtocolVersion, RefusalReason, SessionEnd, SessionExpiry,
    SessionId,
};
use crate::seam::ports::SessionWrite;

/// A CONNECT as it arrives.
#[derive(Debug)]
pub struct ConnectRequest {
    /// The connection.
    pub conn: ConnId,
    /// Where it comes from.
    pub origin: Origin,
    /// What it asks.
    pub connect: Connect,
    /// What the client has proven, if it had to prove anything.
    pub proven: Option<Proven>,
    /// The id of the session, should one begin; fresh for every request.
    pub fresh_id: Uuid,
}

impl Cluster {
    /// Takes a CONNECT: attaches the connection to a session, or refuses it.
    ///
    /// A new persistent session's record is committed before its CONNACK; a resume's as well, unless
    /// the database is away (DESIGN 1).
    ///
    /// Returns the session that the connection now belongs to, also while its CONNACK waits.
    pub fn connect(&mut self, now: Now, request: ConnectRequest) -> Option<Slot> {
        let (conn, version) = (request.conn, request.connect.version);
        let packet_bytes_max = request.connect.packet_bytes_max;
        // Cheap: both share the packet's bytes.
        let client_id = request.connect.client_id.clone();
        // What was sent in its place may be a token.
        let username = match &request.proven {
            Some(proven) => proven.username.clone(),
            None => request.connect.credentials.username.clone(),
        };
        let ip = request.origin.ip();
        match self.try_connect(now, request) {
            Ok(slot) => Some(slot),
            Err(refused) => {
                self.tell_refused(now, &client_id, username.as_deref(), ip, &refused);
                self.refuse(conn, version, packet_bytes_max, refused);
                None
            }
        }
    }

    fn try_connect(&mut self, now: Now, request: ConnectRequest) -> Result<Slot, Refused> {
        let ConnectRequest { conn, origin, connect, proven, fresh_id } = request;
        let username = match &proven {
            Some(proven) => proven.username.as_deref(),
            None => connect.credentials.username.as_deref(),
        };
        let asker = Asker { claim: claim(&connect, proven.as_ref()), username, address: origin.ip() };
        let verdict = self.judge(now, &connect, asker);
        self.count_connect(now, &connect, &verdict);
        let Welcome { client_id, known, resumed, asked_secs } = verdict?;
        let assigned = client_id.is_none();
        let client_id = match client_id {
            Some(id) => id,
            None => assigned_client_id(fresh_id)?,
        };
        let slot = match (known, resumed) {
            (_, Some(slot)) => self.take_over(now, slot),
            (replaced, None) => {
                if let Some(old) = replaced {
                    self.replace(now, old);
                }
                let expiry = SessionExpiry { client_secs: 0, bounded_by_cluster: false, operator: None };
                self.begin(now, SessionId(fresh_id), client_id, expiry)
            }
        };
        self.grant_expiry(slot, asked_secs);
        self.link(now, slot, conn, origin, connect, proven);
        let attaching = Attaching {
            attachment: Attachment { slot, conn },
            session_present: resumed.is_some(),
            expiry_asked_secs: asked_secs,
            assigned,
            automatic: Vec::new(),
        };
        self.announce(now, attaching);
        Ok(slot)
    }

    /// Takes what a CONNECT uses up: rates if it is let in, the guard's patience also if it is not for
    /// want of that.
    fn count_connect(&mut self, now: Now, connect: &Connect, verdict: &Result<Welcome, Refused>) {
        let rules = Arc::clone(&self.rules);
        let quota = &rules.quota;
        let flaps = match verdict {
            Ok(_) => {
                self.throttle.rates.connected(&quota.rates, now.mono, connect.will.is_some());
                false
            }
            Err(refused) => refused.reason == RefusalReason::Flapping,
        };
        if (verdict.is_ok() || flaps)
            && let Ok(id) = ClientId::new(&connect.client_id)
        {
            // Its verdict is known.
            let _ = self.flapping.connects(quota.flapping, now.mono, &id);
        }
    }

    /// The session goes on. A connection that it still has is taken over (`[MQTT-3.1.4-3]`).
    fn take_over(&mut self, now: Now, slot: Slot) -> Slot {
        if self.session(slot).link.is_some() {
            self.detach(now, slot, &Ending::taken_over());
        }
        if let Some(Offline { expires_at, .. }) = self.session(slot).offline.take() {
            self.registry.expires_no_more(expires_at, slot);
        }
        self.cancel_will(slot);
        slot
    }

    /// The client's earlier session ends because it asks for a fresh one (`[MQTT-3.1.2-4]`).
    fn replace(&mut self, now: Now, old: Slot) {
        if self.session(old).link.is_some() {
            // Ends with its connection, whatever its expiry: nothing of it goes on.
            self.detach_and_destroy(now, old, &Ending::taken_over(), SessionEnd::Replaced);
        } else {
            self.destroy(now, old, SessionEnd::Replaced);
        }
    }

    pub(super) fn begin(
        &mut self,
        now: Now,
        id: SessionId,
        client_id: ClientId,
        expiry: SessionExpiry,
    ) -> Slot {
        let session = Session::new(id, client_id.clone(), expiry, self.log.tail(), now.wall);
        // A session is hundreds of bytes: memory ends long before u32 does.
        let slot = Slot(u32::try_from(self.sessions.insert(session)).expect("fewer than 2^32 sessions"));
        self.registry.insert(client_id, slot);
        slot
    }

    fn link(
        &mut self,
        now: Now,
        slot: Slot,
        conn: ConnId,
        origin: Origin,
        connect: Connect,
        proven: Option<Proven>,
    ) {
        let receive_maximum = receive_maximum(&connect);
        let (username, by, enhanced) = match proven {
            Some(Proven { username, by, enhanced }) => (username, Some(by), enhanced),
            None => (connect.credentials.username, None, None),
        };
        let author = || WillAuthor {
            client_id: self.sessions[slot.0 as usize].client_id.clone(),
            username: username.as_deref().map(Into::into),
        };
        let will = connect.will.map(|will| Box::new(held_will(will, author(), now)));
        let (secrets_id, vouched) = match by {
            Some(Proof::Secrets(id)) => (Some(id), None),
            Some(Proof::Vouched(vouched)) => (None, Some(vouched)),
            None => (None, None),
        };
        let link = Link {
            conn,
            version: connect.version,
            origin,
            username: username.map(String::from),
            secrets_id,
            vouched,
            enhanced,
            clean_start: connect.clean_start,
            keep_alive_asked_secs: connect.keep_alive_secs,
            keep_alive_secs: keep_alive_secs(connect.keep_alive_secs, self.rules.server_keep_alive_secs),
            connected_at: now.wall,
            last_seen: now.mono,
            counters: MessageCounters::default(),
            receive_maximum,
            packet_bytes_max: connect.packet_bytes_max,
            problem_information: connect.request_problem_information,
            response_information: connect.request_response_information,
            aliases_in: AliasesIn::default(),
            topic_alias_maximum: connect.topic_alias_maximum,
            aliases_out: AliasesOut::default(),
            ready: false,
            place: self.online.len(),
            caught_up: false,
            congested: false,
            touched: false,
            listed_as_held: false,
            reading: false,
            fetched: Fetched::default(),
            out: Outgoing::default(),
        };
        let session = &mut self.sessions[slot.0 as usize];
        session.epoch = session.epoch.next();
        if let Some(will) = &will {
            session.is_written_down = true;
            self.journal.change(vec![facts::will(session.id, will)]);
        }
        session.will = will;
        session.inbound.attached();
        session.outbound.attached();
        // What was subscribed to is in force, whether or not the connection before has heard of it.
        session.replays.iter_mut().for_each(|replay| replay.is_granted = true);
        session.link = Some(Box::new(link));
        let becomes_durable = !session.durable && session.is_persistent(now.wall);
        self.registry.attached();
        self.online.push(slot);
        self.show_online(slot, true);
        if becomes_durable {
            self.make_durable(slot);
        }
    }

    /// Writes the record, with what the client is subscribed to unasked, and sends CONNACK, in that order where
    /// the session is to last.
    fn announce(&mut self, now: Now, mut attaching: Attaching) {
        let slot = attaching.attachment.slot;
        let session = &self.sessions[slot.0 as usize];
        let waits = session.is_persistent(now.wall);
        let Some(row) = session.link.as_ref().map(|link| self.online_row(slot, link)) else {
            return;
        };
        self.effects.writes.push((SessionWrite::Put(Box::new(row)), None));
        attaching.automatic = self.subscribe_automatically(now, slot);
        if waits && !self.store_away {
            self.ticket_last_write(Awaiting::Attach(attaching));
        } else {
            self.admit_attached(now, attaching);
        }
    }

    /// The record of an attachment was committed, or not.
    pub(super) fn attach_recorded(&mut self, now: Now, attaching: Attaching, outcome: RecordOutcome) {
        let Attachment { slot, conn } = attaching.attachment;
        let Some(session) = self.attached_session(attaching.attachment) else {
            // The connection has gone, or another took over; the record was written all the same.
            return;
        };
        let refused = match outcome {
            RecordOutcome::Committed => None,
            RecordOutcome::StoreAway => (!session.admitted).then(Refused::store_away),
            RecordOutcome::Refused => Some(Refused::not_recorded()),
        };
        let mut attaching = attaching;
        if outcome != RecordOutcome::Committed {
            self.take_back_automatic(slot, &std::mem::take(&mut attaching.automatic));
        }
        match refused {
            None => self.admit_attached(now, attaching),
            Some(refused) => {
                if let Some(link) = self.unlink(slot) {
                    let client_id = self.session(slot).client_id.clone();
                    let ip = link.origin.ip();
                    self.tell_refused(now, client_id.as_str(), link.username.as_deref(), ip, &refused);
                    self.go_on_without(now, slot, &link, &Ending::not_recorded());
                    self.refuse(conn, link.version, link.packet_bytes_max, refused);
                }
            }
        }
    }

    /// CONNACK, and then whatever waits for the client (`[MQTT-3.2.0-1]`, PRODUCT S-2).
    fn admit_attached(&mut self, now: Now, attaching: Attaching) {
        let Attaching { attachment, session_present, expiry_asked_secs, assigned, automatic } = attaching;
        let Attachment { slot, conn } = attachment;
        let session = &mut self.sessions[slot.0 as usize];
        session.admitted = true;
        let durable = session.durable;
        let in_force_secs = session.expiry.interval_secs(now.wall);
        let assigned_client_id = assigned.then(|| ByteString::from(session.client_id.as_str()));
        let response_information =
            |link: &Link| link.response_information.then(|| response_information(&session.client_id));
        let Some(link) = session.link.as_mut() else { return };
        if session_present || session.will.is_some() || (durable && !automatic.is_empty()) {
            // It tells that a will is kept, and that the one before is not published; and from where on there
            // are messages for what the client did not ask for. A crash must not take that back.
            link.out.hold();
        }
        let server_final = link.enhanced.as_mut().and_then(|enhanced| enhanced.take_server_final());
        let mut connack = Box::new(ConnAck {
            session_present,
            session_expiry_secs: (in_force_secs != expiry_asked_secs).then_some(in_force_secs),
            receive_maximum: Some(RECEIVE_MAXIMUM),
            packet_bytes_max: Some(PACKET_BYTES_MAX),
            assigned_client_id,
            // [MQTT-4.12.0-5]
            auth_method: link.enhanced.is_some().then_some(ByteString::from_static(SCRAM_SHA_256)),
            auth_data: server_final,
            topic_alias_maximum: Some(TOPIC_ALIAS_MAXIMUM),
            // [MQTT-3.2.2-22]: where it is not told, the client's own is in force.
            server_keep_alive_secs: (link.keep_alive_secs != link.keep_alive_asked_secs)
                .then_some(link.keep_alive_secs),
            response_information: response_information(link),
            ..ConnAck::default()
        });
        let mut sent = link.send(&Packet::ConnAck(connack.clone()));
        // What is only good to know gives way to the size that the client takes.
        if !sent && connack.response_information.take().is_some() {
            sent = link.send(&Packet::ConnAck(connack));
        }
        if !sent {
            // There is nothing that such a client could be told.
            let why = "CONNACK is larger than the client's Maximum Packet Size".to_owned();
            self.detach(now, slot, &Ending::broken("packet_too_large", ReasonCode::PacketTooLarge, why));
            return;
        }
        link.ready = true;
        link.last_seen = now.mono;
        self.effects.attached.push(conn);
        self.connects += 1;
        self.tell_connected(now, slot, session_present);
        self.tell_subscribed(now, slot, &automatic);
        self.catch_up(now, slot);
        self.touch(slot);
    }

    /// The session that `attachment` names, if it is still attached to that connection.
    pub(super) fn attached_session(&mut self, attachment: Attachment) -> Option<&mut Session> {
        let session = self.sessions.get_mut(attachment.slot.0 as usize)?;
        let same = session.link.as_ref().is_some_and(|link| link.conn == attachment.conn);
        same.then_some(session)
    }

    fn refuse(
        &mut self,
        conn: ConnId,
        version: ProtocolVersion,
        packet_bytes_max: Option<NonZeroU32>,
        refused: Refused,
    ) {
        let connack =
            ConnAck { reason: refused.code, reason_string: Some(refused.why.into()), ..ConnAck::default() };
        let mut output = Output::default();
        // [MQTT-3.2.2-19], [MQTT-3.2.2-7]: said as far as it fits; the connection is closed in any case.
        encode_within(&Packet::ConnAck(Box::new(connack)), version, packet_bytes_max, output.buffer());
        self.effects.farewells.push(Farewell { conn, output });
    }
}

/// Who the client of a CONNECT says it is.
fn claim<'a>(connect: &Connect, proven: Option<&'a Proven>) -> Claim<'a> {
    let given = &connect.credentials;
    match proven {
        Some(Proven { username, by: Proof::Secrets(id), .. }) => {
            Claim::Proven(username.as_deref().unwrap_or_default(), *id)
        }
        Some(Proven { by: Proof::Vouched(vouched), .. }) => Claim::Vouched(vouched),
        None if connect.auth_method.is_some() => Claim::Withheld,
        None if given.username.is_some() || given.password.is_some() => Claim::Unproven,
        None => Claim::Nobody,
    }
}

/// `[MQTT-3.1.3-7]`: unique, and told to the client in CONNACK.
fn assigned_client_id(fresh_id: Uuid) -> Result<ClientId, Refused> {
    ClientId::new(&format!("holdfast-{}", fresh_id.simple())).map_err(|error| {
        Refused::new(ReasonCode::UnspecifiedError, RefusalReason::ClientIdInvalid, error.to_string())
    })
}

fn held_will(will: Will, author: WillAuthor, now: Now) -> HeldWill {
    let mut message = Message {
        topic: will.topic,
        payload: will.payload,
        qos: will.qos,
        retain: will.retain,
        properties: will.properties.forwarded,
        expires_at: None,
        published_at: now.wall,
        publisher: None,
    };
    message.detach();
    HeldWill {
        message,
        message_expiry_secs: will.properties.message_expiry_secs,
        delay_secs: will.delay_secs,
        due_at: None,
        author: Some(author),
    }
}
