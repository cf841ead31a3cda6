//! What must hold for whatever a few clients may send to a whole cluster, and whenever: the body of the fuzz
//! target, run by the tests as well.
//!
//! - No input panics.
//! - All that the cluster sends is read by the strict decoder of a client: CONNACK first, nothing behind a
//!   DISCONNECT, no packet above the client's maximum, no alias above its maximum or before it was set, no
//!   packet id that is in use.
//! - Memory is bounded by the quota: sessions, subscriptions, retained messages, what one connection has
//!   waiting.
//! - When all clients are gone and their sessions have expired, nothing is left of them.

use std::collections::HashSet;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytes::BytesMut;
use holdfast::data_plane::broker::Slot;
use holdfast::data_plane::cluster::{Cluster, ConnectRequest, RecordOutcome, WriteTicket};
use holdfast::data_plane::message_log::{ClusterNo, RecentLog};
use holdfast::data_plane::protocol::{Connect, Decoder, Packet, PacketId};
use holdfast::data_plane::session::link::{ConnId, Origin};
use holdfast::data_plane::session::outgoing::Turn;
use holdfast::data_plane::session::output::Output;
use holdfast::model::{
    ClusterId, DesiredCluster, Monotonic, Now, Plan, Quota, QuotaOverrides, Seq, Timestamp, Transport,
};

/// The largest packet taken in these runs.
const PACKET_BYTES_MAX: u32 = 1 << 14;
/// How many connections there are at a time.
const PEERS: usize = 4;
/// What one connection may have waiting after a turn: the bound of a turn and a packet of every kind.
const OUTPUT_BYTES_MAX: usize = 2 * 1_024 * 1_024;

/// Packets that a fuzzer would take long to find.
const READY_MADE: [&[u8]; 16] = [
    b"\x10\x10\x00\x04MQTT\x05\x00\x00\x3c\x03\x21\x00\x02\x00\x00",
    b"\x10\x1b\x00\x04MQTT\x05\x00\x00\x3c\x0d\x11\x00\x00\x00\x40\x22\x00\x05\x27\x00\x00\x00\x80\x00\x01a",
    b"\x10\x1a\x00\x04MQTT\x05\x2e\x00\x00\x05\x11\x00\x00\x00\x10\x00\x01b\x00\x00\x01w\x00\x01x",
    b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x0a\x00\x01a",
    b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01b",
    b"\x10\x0f\x00\x06MQIsdp\x03\x00\x00\x0a\x00\x01c",
    b"\x82\x0d\x00\x01\x00\x00\x07topic/#\x02",
    b"\x82\x0c\x00\x02\x00\x07topic/+\x01",
    b"\x82\x18\x00\x03\x00\x00\x12$share/g/topic/+/#\x02",
    b"\x82\x0c\x00\x04\x00\x00\x06$SYS/#\x00",
    b"\x30\x0b\x00\x07topic/1\x00x",
    b"\x33\x0d\x00\x07topic/1\x00\x01\x00x",
    b"\x34\x0d\x00\x07topic/2\x00\x02\x00x",
    b"\x62\x02\x00\x02",
    b"\x82\x0f\x00\x05\x00\x00\x09$events/+\x01",
    b"\xe0\x00",
];

/// One client's end.
struct Peer {
    conn: ConnId,
    slot: Option<Slot>,
    /// Whether the cluster takes packets: CONNECT was let in.
    is_ready: bool,
    from_client: Decoder,
    unread: BytesMut,
    reader: Option<Reader>,
}

/// What a strict client knows of what was sent to it.
struct Reader {
    decoder: Decoder,
    bytes: BytesMut,
    alias_maximum: u16,
    aliases: HashSet<NonZeroU16>,
    in_use: HashSet<PacketId>,
    has_connack: bool,
    is_over: bool,
}

struct Run {
    cluster: Cluster,
    now: Now,
    peers: [Option<Peer>; PEERS],
    last_conn: u64,
    tickets: Vec<WriteTicket>,
    /// The last turn that was written down and is not on disk yet.
    unsynced: Option<Turn>,
    /// Whether what is written down is on disk at once.
    disk_is_prompt: bool,
}

/// Plays one input: steps of a byte that says what is done and by whom, and what that needs.
pub(crate) fn check(input: &[u8]) {
    let mut run = Run::new();
    let mut rest = input;
    while let [step, after @ ..] = rest {
        rest = run.step(*step, after);
        run.settle();
        run.check_bounds();
    }
    run.end();
}

impl Run {
    fn new() -> Self {
        let plan = Plan::by_name("basic").expect("a plan");
        let overrides = QuotaOverrides {
            connections: Some(5),
            subscriptions: Some(12),
            filters_per_client: Some(6),
            retained_messages: Some(3),
            retained_bytes: Some(1_000),
            ..QuotaOverrides::default()
        };
        let rules = DesiredCluster {
            allow_anonymous: true,
            ..DesiredCluster::plain(ClusterId::default_cluster(), Quota::resolve(plan, &overrides))
        };
        Self {
            cluster: Cluster::new(Arc::new(rules), ClusterNo(1), RecentLog::new(Seq::ZERO, u64::MAX), 1),
            now: Now { wall: Timestamp::from_millis(1_800_000_000_000), mono: Monotonic::from_millis(0) },
            peers: [const { None }; PEERS],
            last_conn: 0,
            tickets: Vec::new(),
            unsynced: None,
            disk_is_prompt: true,
        }
    }

    /// Does one step; gives what is left of the input.
    fn step<'a>(&mut self, step: u8, rest: &'a [u8]) -> &'a [u8] {
        let at = usize::from(step & 3);
        let (argument, after) = rest.split_first().map_or((0, rest), |(byte, after)| (*byte, after));
        match step >> 2 & 7 {
            0 | 1 => {
                let (bytes, after) = after.split_at(usize::from(argument).min(after.len()));
                self.send(at, bytes);
                after
            }
            2 | 3 => {
                self.send(at, READY_MADE[usize::from(argument) % READY_MADE.len()]);
                after
            }
            4 => {
                self.close(at);
                rest
            }
            5 => {
                self.pass(u64::from(argument) * 500);
                after
            }
            6 => {
                let outcomes = [RecordOutcome::Committed, RecordOutcome::StoreAway, RecordOutcome::Refused];
                self.decide(outcomes[usize::from(argument) % 3]);
                self.cluster.set_store_away(argument % 3 == 1);
                self.disk_is_prompt = argument < 128;
                self.cluster.set_room(argument & 64 == 0);
                self.sync();
                after
            }
            _ => {
                self.flow(at, argument);
                after
            }
        }
    }

    fn pass(&mut self, millis: u64) {
        let wall = self.now.wall.as_millis() + i64::try_from(millis).expect("little");
        self.now = Now { wall: Timestamp::from_millis(wall), mono: self.now.mono.plus_millis(millis) };
        self.cluster.time_passes(self.now);
    }

    fn send(&mut self, at: usize, bytes: &[u8]) {
        let last_conn = &mut self.last_conn;
        let peer = self.peers[at].get_or_insert_with(|| {
            *last_conn += 1;
            Peer {
                conn: ConnId(*last_conn),
                slot: None,
                is_ready: false,
                from_client: Decoder::server(PACKET_BYTES_MAX),
                unread: BytesMut::new(),
                reader: None,
            }
        });
        peer.unread.extend_from_slice(bytes);
        self.read(at);
    }

    /// Takes what a connection has sent, as far as the runtime would.
    fn read(&mut self, at: usize) {
        let Some(peer) = &mut self.peers[at] else { return };
        if peer.reader.is_none() {
            match peer.from_client.decode(&mut peer.unread) {
                Ok(Some(Packet::Connect(connect))) => self.connect(at, *connect),
                Ok(None) => {}
                // Closed without the cluster's hearing of it.
                Ok(Some(_)) | Err(_) => self.peers[at] = None,
            }
            return;
        }
        let Some(slot) = peer.slot.filter(|_| peer.is_ready) else { return };
        let (mut packets, mut violation) = (Vec::new(), None);
        loop {
            match peer.from_client.decode(&mut peer.unread) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(error) => {
                    violation = Some(error);
                    break;
                }
            }
        }
        if let Some(reader) = &mut peer.reader {
            for packet in &packets {
                reader.answered(packet);
            }
        }
        let conn = peer.conn;
        self.cluster.receive(self.now, conn, slot, packets.into_iter());
        if let Some(violation) = violation {
            self.cluster.violated(self.now, conn, slot, &violation);
        }
    }

    fn connect(&mut self, at: usize, connect: Connect) {
        let Some(peer) = &mut self.peers[at] else { return };
        let conn = peer.conn;
        peer.reader = Some(Reader::new(&connect));
        let origin = Origin {
            peer: "192.0.2.1:1".into(),
            listener: "mqtt".into(),
            transport: Transport::Tcp,
            tls_subject: None,
        };
        let fresh_id = uuid::Uuid::from_u128(u128::from(conn.0));
        self.cluster.time_passes(self.now);
        let request = ConnectRequest { conn, origin, connect, proven: None, fresh_id };
        let slot = self.cluster.connect(self.now, request);
        if let Some(peer) = &mut self.peers[at] {
            peer.slot = slot;
        }
    }

    fn close(&mut self, at: usize) {
        if let Some(peer) = self.peers[at].take()
            && peer.reader.is_some()
        {
            self.cluster.connection_closed(self.now, peer.conn, peer.slot);
        }
    }

    fn flow(&mut self, at: usize, argument: u8) {
        let Some(peer) = self.peers[at].as_ref().filter(|peer| peer.is_ready) else { return };
        let Some(slot) = peer.slot else { return };
        if argument.is_multiple_of(2) {
            self.cluster.congested(peer.conn, slot);
        } else {
            self.cluster.writable(self.now, peer.conn, slot);
        }
    }

    fn decide(&mut self, outcome: RecordOutcome) {
        for ticket in std::mem::take(&mut self.tickets) {
            self.cluster.record_committed(self.now, ticket, outcome);
        }
    }

    /// What was written down is on disk.
    fn sync(&mut self) {
        if let Some(turn) = self.unsynced.take() {
            self.cluster.durable(turn);
        }
    }

    /// Carries out what the cluster wants, until it wants nothing.
    fn settle(&mut self) {
        loop {
            let effects = self.cluster.take_effects();
            let is_quiet = effects.touched.is_empty()
                && effects.attached.is_empty()
                && effects.farewells.is_empty()
                && effects.writes.is_empty()
                && effects.entries.is_empty();
            if is_quiet {
                return;
            }
            self.tickets.extend(effects.writes.into_iter().filter_map(|(_, ticket)| ticket));
            if !effects.entries.is_empty() {
                self.unsynced = Some(effects.turn);
            }
            for slot in effects.touched {
                let Some((conn, output)) = self.cluster.output(slot) else { continue };
                let output = std::mem::take(output);
                self.deliver(conn, &output);
            }
            let mut attached = Vec::new();
            for conn in effects.attached {
                if let Some(at) = self.place(conn) {
                    if let Some(peer) = &mut self.peers[at] {
                        peer.is_ready = true;
                    }
                    attached.push(at);
                }
            }
            for farewell in effects.farewells {
                self.deliver(farewell.conn, &farewell.output);
                if let Some(at) = self.place(farewell.conn) {
                    self.peers[at] = None;
                }
                self.cluster.connection_closed(self.now, farewell.conn, None);
            }
            for at in attached {
                self.read(at);
            }
            if self.disk_is_prompt {
                self.sync();
            }
        }
    }

    fn place(&self, conn: ConnId) -> Option<usize> {
        self.peers.iter().position(|peer| peer.as_ref().is_some_and(|peer| peer.conn == conn))
    }

    fn deliver(&mut self, conn: ConnId, output: &Output) {
        assert!(output.len() <= OUTPUT_BYTES_MAX, "{} bytes in one turn", output.len());
        let reader = self.place(conn).and_then(|at| self.peers[at].as_mut()?.reader.as_mut());
        if let Some(reader) = reader {
            for piece in output.pieces() {
                reader.bytes.extend_from_slice(piece);
            }
            reader.read();
        }
    }

    fn check_bounds(&self) {
        assert!(self.cluster.counts().total() <= 5, "{:?}", self.cluster.counts());
        assert!(self.cluster.subscription_count() <= 12);
        let (count, bytes) = self.cluster.retained_usage();
        assert!(count <= 3 && bytes <= 1_000, "{count} retained, {bytes} bytes");
    }

    /// Everybody goes; after the longest expiry nothing is left.
    fn end(mut self) {
        self.cluster.set_store_away(false);
        self.cluster.set_room(true);
        self.disk_is_prompt = true;
        self.sync();
        self.decide(RecordOutcome::Committed);
        self.settle();
        for at in 0..PEERS {
            self.close(at);
            self.settle();
        }
        self.decide(RecordOutcome::Committed);
        self.settle();
        self.pass(u64::from(Quota::SESSION_EXPIRY_MAX_SECS) * 1_000);
        self.pass(2_000);
        self.settle();
        assert_eq!((self.cluster.counts().total(), self.cluster.subscription_count()), (0, 0));
        assert_eq!(self.cluster.log_bytes(), 0);
    }
}

impl Reader {
    fn new(connect: &Connect) -> Self {
        // The decoder holds the server to it [MQTT-3.1.2-24].
        let bytes_max = connect.packet_bytes_max.map_or(u32::MAX, NonZeroU32::get);
        Self {
            decoder: Decoder::client(connect.version, bytes_max),
            bytes: BytesMut::new(),
            alias_maximum: connect.topic_alias_maximum,
            aliases: HashSet::new(),
            in_use: HashSet::new(),
            has_connack: false,
            is_over: false,
        }
    }

    fn read(&mut self) {
        while let Some(packet) = self.decoder.decode(&mut self.bytes).expect("what a strict client reads") {
            assert!(!self.is_over, "{packet:?} behind the end");
            let is_connack = matches!(packet, Packet::ConnAck(_));
            assert_ne!(is_connack, self.has_connack, "{packet:?} [MQTT-3.2.0-1]");
            match packet {
                Packet::ConnAck(connack) => {
                    self.has_connack = true;
                    self.is_over = connack.reason.is_error();
                }
                Packet::Disconnect(_) => self.is_over = true,
                Packet::Publish(publish) => {
                    if let Some(alias) = publish.properties.topic_alias {
                        assert!(alias.get() <= self.alias_maximum, "[MQTT-3.1.2-26]");
                        let is_set = !self.aliases.insert(alias);
                        assert!(is_set || publish.topic.is_some(), "alias {alias} stands for nothing");
                    }
                    if let Some(id) = publish.packet_id {
                        let is_new = self.in_use.insert(id);
                        assert!(is_new || publish.dup, "{id} is in use [MQTT-2.2.1-4]");
                    }
                }
                _ => {}
            }
        }
        assert!(self.bytes.is_empty(), "half a packet");
    }

    /// The client has sent this: an identifier may be free again.
    fn answered(&mut self, packet: &Packet) {
        match packet {
            Packet::PubAck(ack) | Packet::PubComp(ack) => _ = self.in_use.remove(&ack.packet_id),
            Packet::PubRec(ack) if ack.reason.is_error() => _ = self.in_use.remove(&ack.packet_id),
            _ => {}
        }
    }
}
