//! A client that keeps to the protocol and has bad luck.

mod reading;
mod sending;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;

use super::model::Session;
use super::*;
use crate::data_plane::protocol::PacketId;

/// A QoS 2 message on its way to the server.
struct Outgoing {
    packet_id: u16,
    message: usize,
    topic: usize,
    arrived: bool,
    released: bool,
}

/// What a SUBSCRIBE or UNSUBSCRIBE asked for.
#[derive(Clone, Copy)]
struct Asked {
    filter: &'static str,
    /// `None` to unsubscribe.
    option: Option<(QoS, bool)>,
}

#[allow(clippy::struct_excessive_bools)] // independent facts
pub(super) struct Client {
    pub(super) id: String,
    make: fn(&str) -> Hello,
    pub(super) peer: Option<Peer>,
    /// Whether CONNACK has come.
    attached: bool,
    /// Whether what is unfinished was not yet sent again on this connection.
    is_new: bool,
    /// Whether nothing goes over the link any longer, either way.
    dead: bool,
    /// Whether the session should be present.
    expects_present: bool,
    window: usize,
    inbox: VecDeque<Packet>,
    /// Acknowledgements that are to be sent some time.
    due: Vec<Packet>,
    /// Packet ids that the server uses on this connection.
    in_use: BTreeSet<PacketId>,
    /// Those that were answered for good on this connection: a repetition may have been under way.
    answered: BTreeSet<PacketId>,
    /// QoS 2 messages received and not yet released; survives the connection.
    received: BTreeSet<PacketId>,
    /// What topic aliases stand for on this connection, and how many there may be.
    aliases: BTreeMap<NonZeroU16, String>,
    alias_maximum: u16,
    outgoing: Vec<Outgoing>,
    last_packet_id: u16,
    asked: BTreeMap<PacketId, Asked>,
    session: Option<Session>,
}

impl Client {
    pub(super) fn new(make: fn(&str) -> Hello, n: usize) -> Self {
        Self {
            id: format!("c{n}"),
            make,
            peer: None,
            attached: false,
            is_new: false,
            dead: false,
            expects_present: false,
            window: 0,
            inbox: VecDeque::new(),
            due: Vec::new(),
            in_use: BTreeSet::new(),
            answered: BTreeSet::new(),
            received: BTreeSet::new(),
            aliases: BTreeMap::new(),
            alias_maximum: 0,
            outgoing: Vec::new(),
            last_packet_id: 0,
            asked: BTreeMap::new(),
            session: None,
        }
    }

    pub(super) fn is_attached(&self) -> bool {
        self.peer.is_some() && self.attached
    }

    pub(super) fn has_session(&self, now: Timestamp) -> bool {
        self.session.as_ref().is_some_and(|session| session.exists(now))
    }

    pub(super) fn owe(
        &mut self,
        now: Timestamp,
        message: usize,
        order: usize,
        topic: usize,
        qos: QoS,
        own: bool,
    ) {
        if let Some(session) = self.session.as_mut().filter(|session| session.exists(now)) {
            session.owe(message, order, topic, qos, own);
        }
    }

    pub(super) fn connect(&mut self, world: &mut World, random: &mut Random) {
        let mut hello = (self.make)(&self.id);
        hello.0.clean_start = random.one_in(6);
        if hello.0.version.is_v5() {
            hello.0.session_expiry_secs = random.pick(&[None, Some(5), Some(50), Some(50), Some(1_000)]);
            let window = random.pick(&[0, 0, 1, 2, 10]);
            hello.0.receive_maximum = NonZeroU16::new(window);
            hello.0.topic_alias_maximum = random.pick(&[0, 1, 10]);
        }
        if random.one_in(4) {
            hello = hello.will(will("w", "will", random.pick(&[0, 3, 30])));
        }
        self.knock(world, &hello);
    }

    /// Comes back for good, to the session that is there.
    pub(super) fn come_back(&mut self, world: &mut World) {
        self.knock(world, &(self.make)(&self.id).expiry(1_000));
        self.observe(world, &mut Random(0));
        assert!(self.is_attached());
    }

    fn knock(&mut self, world: &mut World, hello: &Hello) {
        let now = world.now.wall;
        let v3_secs = if hello.0.clean_start { 0 } else { Quota::SESSION_EXPIRY_MAX_SECS };
        let is_v5 = hello.0.version.is_v5();
        let secs = if is_v5 { hello.0.session_expiry_secs.unwrap_or(0) } else { v3_secs };
        let held = self.session.as_ref();
        let present = !hello.0.clean_start && held.is_some_and(|session| session.can_be_resumed(now));
        // Then nothing changes, not even for the connection that there may be.
        let refused_outright = world.cluster.store_away && secs > 0 && !present;
        let peer = world.knock(hello);
        if refused_outright {
            assert_eq!(world.connack(peer).reason, ReasonCode::ServerUnavailable);
            return;
        }
        if let Some(old) = self.peer.take() {
            assert!(world.is_closed(old), "taken over");
            self.inbox.extend(world.take(old));
            self.read(usize::MAX);
        }
        self.forget_connection();
        let mut session = self.session.take().filter(|_| present).unwrap_or_default();
        (session.expiry_secs, session.offline_since) = (secs, None);
        self.session = Some(session);
        self.expects_present = present;
        self.peer = Some(peer);
        self.alias_maximum = hello.0.topic_alias_maximum;
        self.window = match hello.0.receive_maximum {
            Some(window) => usize::from(window.get()),
            None => {
                if is_v5 {
                    65_535
                } else {
                    16
                }
            }
        };
    }

    fn forget_connection(&mut self) {
        (self.attached, self.dead) = (false, false);
        self.inbox.clear();
        self.due.clear();
        self.in_use.clear();
        self.answered.clear();
        self.aliases.clear();
        self.asked.clear();
    }

    /// From here on what either side sends is lost.
    pub(super) fn lose_link(&mut self, world: &mut World) {
        if let Some(peer) = self.peer.filter(|_| self.attached) {
            self.dead = true;
            world.socket(peer).dead = true;
        }
    }

    pub(super) fn goodbye(&mut self, world: &mut World, expiry_secs: Option<u32>) {
        let is_v5 = (self.make)("").0.version.is_v5();
        let Some(session) = self.session.as_mut().filter(|_| self.attached && !self.dead) else { return };
        let allowed = is_v5 && (session.expiry_secs > 0 || expiry_secs == Some(0));
        let expiry_secs = expiry_secs.filter(|_| allowed);
        session.expiry_secs = expiry_secs.unwrap_or(session.expiry_secs);
        self.send(world, &goodbye(ReasonCode::Success, expiry_secs));
    }

    pub(super) fn ordered(&mut self, now: Timestamp, order: &Order) {
        let Some(session) = &mut self.session else { return };
        match order {
            Order::Disconnect(_) => {}
            Order::Destroy(_) if self.peer.is_none() => self.session = None,
            // The end of the connection will be seen; it must not look like a rest.
            Order::Destroy(_) => session.admitted = false,
            Order::ApplyExpiry(operator) => {
                session.operator_secs = operator.map(|operator| match operator {
                    OperatorExpiry::Interval(secs) => secs,
                    OperatorExpiry::At(at) => at.secs_after(now),
                });
            }
            other => panic!("{other:?} is none of the orders of these schedules"),
        }
    }

    /// Takes what has come, and notices the end of the connection and of the session.
    pub(super) fn observe(&mut self, world: &mut World, random: &mut Random) {
        self.session = self.session.take().filter(|session| session.exists(world.now.wall));
        let Some(peer) = self.peer else { return };
        let packets = world.take(peer);
        self.inbox.extend(packets);
        if !self.attached
            && let Some(Packet::ConnAck(connack)) = self.inbox.front()
        {
            if connack.reason == ReasonCode::Success {
                assert_eq!(connack.session_present && self.session.is_some(), self.told_present());
                self.admitted();
            } else {
                assert_eq!(connack.reason, ReasonCode::ServerUnavailable);
                assert!(!self.expects_present && world.is_closed(peer));
            }
            self.inbox.pop_front();
        }
        if world.is_closed(peer) {
            // What came last may have been read or not.
            if random.one_in(2) {
                self.read(usize::MAX);
            }
            self.forget_connection();
            self.peer = None;
            let now = world.now.wall;
            if let Some(session) = &mut self.session {
                session.offline_since = Some(now);
            }
            self.session = self.session.take().filter(|session| session.can_be_resumed(now));
        }
    }

    fn told_present(&self) -> bool {
        self.expects_present && (self.make)("").0.version != ProtocolVersion::V3_1
    }

    fn admitted(&mut self) {
        (self.attached, self.is_new) = (true, true);
        if !self.expects_present {
            self.received.clear();
            self.outgoing.clear();
        }
        if let Some(session) = &mut self.session {
            session.admitted = true;
        }
    }
}
