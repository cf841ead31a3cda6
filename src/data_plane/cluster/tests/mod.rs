//! Scripts of `(time, input) → what the clients see`, in virtual time.
//!
//! A [`World`] is one cluster, a clock, and the outside as the runtime would be it: sockets that peers
//! speak and read through in bytes, and a store of records that commits at once, late, or not at all.
//! Each thing a script does is a turn of its own, and everything that follows from it is carried out
//! before the next ([`World::settle`]).

mod access;
mod admission;
mod aliases;
mod automatic;
mod backlog;
mod browse;
mod connecting;
mod disk;
mod durability;
mod enhance;
mod events;
mod exactly_once;
mod flow;
mod group_orders;
mod limits;
mod loss;
mod on_behalf;
mod orders;
mod owed;
mod packets;
mod problem_information;
mod quotas;
mod random;
mod rates;
mod recorded;
mod records;
mod restarts;
mod resume;
mod retain;
mod settings;
mod shared_groups;
mod shared_progress;
mod shed;
mod subscriptions;
mod users;
mod vouched;
mod wills;

use std::sync::Arc;

use bytes::BytesMut;
use disk::Disk;
use packets::{Hello, Q0, Q1, goodbye, puback, pubcomp, publish_at, pubrec, pubrel, subscribe, wish};
use records::Records;
use uuid::Uuid;

use super::{Cluster, CommandId, ConnectRequest, Order};
use crate::data_plane::broker::Slot;
use crate::data_plane::message_log::{ClusterNo, RecentLog};
use crate::data_plane::protocol::{ConnAck, Decoder, Packet, Publish, ReasonCode, SubAck, encode};
use crate::data_plane::session::authentication::Proven;
use crate::data_plane::session::link::{ConnId, Origin};
use crate::data_plane::session::output::Output;
use crate::model::{
    ClientId, ClusterId, ClusterStatus, DesiredCluster, EndOptions, Epoch, Monotonic, Now, Plan,
    ProtocolVersion, QoS, Quota, QuotaOverrides, Refusal, Seq, SessionId, Timestamp, Transport, WillChoice,
};
use crate::seam::command::{CommandError, SessionRef};

/// Packets up to here, either way.
const BYTES_MAX: u32 = 1_024 * 1_024;

/// From here on a connection that reads has more waiting than the runtime would let pass unremarked.
const CONGESTED_FROM_BYTES: usize = 256 * 1_024;

/// The cluster's number in its files.
const NO: ClusterNo = ClusterNo(1);

/// One connection of a script.
type Peer = ConnId;

/// The client's end of a connection.
#[allow(clippy::struct_excessive_bools)] // independent facts, each for a reader of its own
struct Socket {
    version: ProtocolVersion,
    /// What the runtime knows; gone once the connection is on its way out.
    slot: Option<Slot>,
    /// What the runtime once knew.
    last_slot: Option<Slot>,
    /// Whether CONNACK of success was announced.
    attached: bool,
    /// Whether the server has closed it, or the client.
    closed: bool,
    /// Whether what is sent to it is lost.
    dead: bool,
    /// Whether the runtime reads what the client sends.
    is_read: bool,
    from_client: Decoder,
    from_server: Decoder,
    bytes: BytesMut,
    inbox: Vec<Packet>,
}

/// End the connection, in the way that nobody asked for otherwise.
const DISCONNECT: Order = Order::Disconnect(PLAINLY);
/// End the session, in the way that nobody asked for otherwise.
const DESTROY: Order = Order::Destroy(PLAINLY);
const PLAINLY: EndOptions = EndOptions { will: WillChoice::Publish, reason: None };

/// A cluster and everything around it.
struct World {
    cluster: Cluster,
    rules: DesiredCluster,
    now: Now,
    records: Records,
    disk: Disk,
    /// How many bytes of messages the cluster keeps in memory.
    recent_bytes_max: u64,
    sockets: Vec<Socket>,
    /// What the next client has proven before its CONNECT reaches the cluster.
    proven: Option<Proven>,
    answers: Vec<(CommandId, Result<SessionRef, CommandError>)>,
    last_command: u64,
    last_id: u128,
    /// Whether sockets that are to be closed stay open until [`World::close_sockets`].
    sockets_linger: bool,
    lingering: Vec<ConnId>,
    /// What was refused so far.
    refusals: Vec<Refusal>,
}

impl World {
    fn new() -> Self {
        Self::with_quota(QuotaOverrides::default())
    }

    fn with_quota(overrides: QuotaOverrides) -> Self {
        let quota = Quota::resolve(Plan::by_name("basic").expect("a plan"), &overrides);
        let rules = DesiredCluster {
            allow_anonymous: true,
            ..DesiredCluster::plain(ClusterId::default_cluster(), quota)
        };
        Self {
            cluster: Cluster::new(Arc::new(rules.clone()), NO, RecentLog::new(Seq::ZERO, u64::MAX), 1),
            rules,
            now: Now { wall: Timestamp::from_millis(1_800_000_000_000), mono: Monotonic::from_millis(0) },
            records: Records::default(),
            disk: Disk::default(),
            recent_bytes_max: u64::MAX,
            sockets: Vec::new(),
            proven: None,
            answers: Vec::new(),
            last_command: 0,
            last_id: 0,
            sockets_linger: false,
            lingering: Vec::new(),
            refusals: Vec::new(),
        }
    }

    /// A cluster that keeps no message in memory that is on disk.
    fn forgetful() -> Self {
        Self::remembering(0)
    }

    /// Keeps so many bytes of messages in memory; reads the others from disk.
    fn remembering(bytes_max: u64) -> Self {
        let mut world = Self::new();
        world.recent_bytes_max = bytes_max;
        let log = RecentLog::new(Seq::ZERO, bytes_max);
        world.cluster = Cluster::new(Arc::new(world.rules.clone()), NO, log, 1);
        world
    }

    // ---- Connections ----

    /// Sends CONNECT; whatever comes of it.
    fn knock(&mut self, hello: &Hello) -> Peer {
        let version = hello.0.version;
        let peer = ConnId(self.sockets.len() as u64);
        self.sockets.push(Socket {
            version,
            slot: None,
            last_slot: None,
            attached: false,
            closed: false,
            dead: false,
            is_read: true,
            from_client: Decoder::server(BYTES_MAX),
            from_server: Decoder::client(version, BYTES_MAX),
            bytes: BytesMut::new(),
            inbox: Vec::new(),
        });
        let Packet::Connect(connect) = self.as_received(peer, &Packet::Connect(Box::new(hello.0.clone())))
        else {
            panic!("CONNECT stays CONNECT");
        };
        self.last_id += 1;
        let origin = Origin {
            peer: "192.0.2.1:1".into(),
            listener: "mqtt".into(),
            transport: Transport::Tcp,
            tls_subject: None,
        };
        let fresh_id = Uuid::from_u128(self.last_id);
        self.cluster.time_passes(self.now);
        let proven = self.proven.take();
        let request = ConnectRequest { conn: peer, origin, connect: *connect, proven, fresh_id };
        let slot = self.cluster.connect(self.now, request);
        self.socket(peer).slot = slot;
        self.socket(peer).last_slot = slot;
        self.settle();
        peer
    }

    /// Sends CONNECT and is let in.
    fn connect(&mut self, hello: &Hello) -> Peer {
        self.connect_present(hello).0
    }

    /// Sends CONNECT and is let in; tells whether the session was present.
    fn connect_present(&mut self, hello: &Hello) -> (Peer, bool) {
        let peer = self.knock(hello);
        let connack = self.connack(peer);
        assert_eq!(connack.reason, ReasonCode::Success, "{connack:?}");
        assert!(self.socket(peer).attached && !self.is_closed(peer));
        (peer, connack.session_present)
    }

    /// The CONNACK that came first.
    fn connack(&mut self, peer: Peer) -> ConnAck {
        let inbox = &mut self.socket(peer).inbox;
        assert!(!inbox.is_empty(), "no CONNACK [MQTT-3.2.0-1]");
        match inbox.remove(0) {
            Packet::ConnAck(connack) => *connack,
            other => panic!("{other:?} before CONNACK [MQTT-3.2.0-1]"),
        }
    }

    /// Sends a packet, unless the connection is over.
    fn send(&mut self, peer: Peer, packet: &Packet) {
        self.send_all(peer, std::slice::from_ref(packet));
    }

    /// Sends several packets in one piece.
    fn send_all(&mut self, peer: Peer, packets: &[Packet]) {
        let packets: Vec<Packet> = packets.iter().map(|packet| self.as_received(peer, packet)).collect();
        let socket = self.socket(peer);
        assert!(socket.attached || socket.closed, "the runtime reads nothing before the client is let in");
        if let Some(slot) = socket.slot {
            self.cluster.receive(self.now, peer, slot, packets.into_iter());
        }
        self.settle();
    }

    /// Packets of a connection that has ended, had the runtime let them pass.
    fn send_late(&mut self, peer: Peer, packet: &Packet) {
        let packet = self.as_received(peer, packet);
        let slot = self.socket(peer).last_slot.expect("was attached");
        self.cluster.receive(self.now, peer, slot, std::iter::once(packet));
        self.settle();
    }

    /// The packet after its way over the wire.
    fn as_received(&mut self, peer: Peer, packet: &Packet) -> Packet {
        let socket = self.socket(peer);
        let mut bytes = Vec::new();
        encode(packet, socket.version, &mut bytes);
        let decoded = socket.from_client.decode(&mut BytesMut::from(&bytes[..]));
        decoded.expect("scripts send valid packets").expect("whole packets")
    }

    /// The link breaks: the server sees an end without DISCONNECT.
    fn cut(&mut self, peer: Peer) {
        let socket = self.socket(peer);
        socket.closed = true;
        socket.attached = false;
        let slot = socket.slot.take();
        self.cluster.connection_closed(self.now, peer, slot);
        self.settle();
    }

    /// Says DISCONNECT.
    fn leave(&mut self, peer: Peer) {
        self.send(peer, &goodbye(ReasonCode::Success, None));
        assert!(self.is_closed(peer));
    }

    fn congest(&mut self, peer: Peer) {
        let slot = self.socket(peer).slot.expect("attached");
        self.cluster.congested(peer, slot);
    }

    fn relieve(&mut self, peer: Peer) {
        let slot = self.socket(peer).slot.expect("attached");
        self.cluster.writable(self.now, peer, slot);
        self.settle();
    }

    fn is_closed(&mut self, peer: Peer) -> bool {
        self.socket(peer).closed
    }

    fn is_read(&mut self, peer: Peer) -> bool {
        self.socket(peer).is_read
    }

    fn socket(&mut self, peer: Peer) -> &mut Socket {
        let index = usize::try_from(peer.0).expect("few connections");
        &mut self.sockets[index]
    }

    // ---- What clients do ----

    /// Subscribes and waits for SUBACK; what else has come by then stays in the inbox.
    fn subscribe(&mut self, peer: Peer, filter: &str, qos: QoS) {
        self.send(peer, &subscribe(1, vec![wish(filter, qos)]));
        let reasons = self.suback(peer).reasons;
        assert_eq!(reasons.iter().map(|reason| *reason as u8).collect::<Vec<_>>(), [u8::from(qos)]);
    }

    /// The SUBACK that has come.
    fn suback(&mut self, peer: Peer) -> SubAck {
        let inbox = &mut self.socket(peer).inbox;
        let at = inbox.iter().position(|packet| matches!(packet, Packet::SubAck(_))).expect("a SUBACK");
        let Packet::SubAck(suback) = inbox.remove(at) else { unreachable!("found above") };
        suback
    }

    /// Publishes, and completes the exchange.
    fn publish(&mut self, peer: Peer, publish: Publish) {
        let (qos, packet_id) = (publish.qos, publish.packet_id);
        self.send(peer, &Packet::Publish(publish));
        let Some(id) = packet_id else { return };
        let answered = |inbox: &mut Vec<Packet>, fits: fn(&Packet) -> bool| {
            let at = inbox.iter().position(fits).expect("an answer to PUBLISH");
            inbox.remove(at);
        };
        if qos == Q1 {
            answered(&mut self.socket(peer).inbox, |packet| matches!(packet, Packet::PubAck(_)));
        } else {
            answered(&mut self.socket(peer).inbox, |packet| matches!(packet, Packet::PubRec(_)));
            self.send(peer, &pubrel(id));
            answered(&mut self.socket(peer).inbox, |packet| matches!(packet, Packet::PubComp(_)));
        }
    }

    /// Publishes "0", "1", … to a topic.
    fn publish_numbers(&mut self, peer: Peer, topic: &str, qos: QoS, range: std::ops::Range<usize>) {
        for n in range {
            self.publish(peer, publish_at(qos, 1, topic, &n.to_string()));
        }
    }

    // ---- What clients see ----

    /// Everything that has come.
    fn take(&mut self, peer: Peer) -> Vec<Packet> {
        std::mem::take(&mut self.socket(peer).inbox)
    }

    /// Every message that has come, and nothing else has.
    fn take_publishes(&mut self, peer: Peer) -> Vec<Publish> {
        let packets = self.take(peer).into_iter();
        let publishes = packets.map(|packet| match packet {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?} is no PUBLISH"),
        });
        publishes.collect()
    }

    /// Every message that comes while each is acknowledged at once.
    fn drain(&mut self, peer: Peer) -> Vec<Publish> {
        let mut publishes = Vec::new();
        loop {
            let packets = self.take(peer);
            if packets.is_empty() {
                return publishes;
            }
            for packet in packets {
                match packet {
                    Packet::Publish(publish) => {
                        match (publish.qos, publish.packet_id) {
                            (QoS::AtLeastOnce, Some(id)) => self.send(peer, &puback(id)),
                            (QoS::ExactlyOnce, Some(id)) => self.send(peer, &pubrec(id)),
                            _ => assert_eq!(publish.qos, Q0),
                        }
                        publishes.push(publish);
                    }
                    Packet::PubRel(ack) => self.send(peer, &pubcomp(ack.packet_id)),
                    other => panic!("{other:?} is no PUBLISH"),
                }
            }
        }
    }

    /// The reason of the DISCONNECT that came last, and that the connection was closed.
    fn kicked_with(&mut self, peer: Peer) -> ReasonCode {
        assert!(self.is_closed(peer));
        match self.take(peer).pop() {
            Some(Packet::Disconnect(disconnect)) => disconnect.reason,
            other => panic!("{other:?} is no DISCONNECT"),
        }
    }
}
