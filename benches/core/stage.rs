//! One cluster and its clients, wired together in memory: what a client sends is decoded as the runtime does, and
//! what it gets is looked at only as far as it must be answered.

use std::sync::Arc;

use anyhow::Context;
use bytes::BytesMut;
use holdfast::data_plane::broker::Slot;
use holdfast::data_plane::cluster::{Cluster, ConnectRequest, RecordOutcome};
use holdfast::data_plane::message_log::{ClusterNo, RecentLog};
use holdfast::data_plane::protocol::{Decoder, Packet};
use holdfast::data_plane::session::link::{ConnId, Origin};
use holdfast::model::{
    ClusterId, DesiredCluster, Monotonic, Now, Plan, QoS, Quota, QuotaOverrides, Seq, Timestamp, Transport,
};

/// What the log may keep in memory.
const LOG_BYTES_MAX: u64 = 16 * 1_024 * 1_024;
const PACKET_BYTES_MAX: u32 = 1 << 20;
/// Bytes of a message.
const PAYLOAD_BYTES: usize = 64;
const TOPIC: &str = "pair/0";

/// A client of the cluster.
struct Client {
    conn: ConnId,
    slot: Slot,
    decoder: Decoder,
    /// What it sends, before the server has read it.
    sends: BytesMut,
}

/// A cluster, a publisher, and whom it publishes to.
pub(crate) struct Stage {
    cluster: Cluster,
    now: Now,
    /// The publisher first.
    clients: Vec<Client>,
    qos: QoS,
    /// What a client was sent, in one piece.
    heard: Vec<u8>,
}

impl Stage {
    /// A publisher and a subscriber; `asleep`: the subscriber's session is left without a connection.
    pub(crate) fn pair(qos: QoS, asleep: bool) -> anyhow::Result<Self> {
        let mut stage = Self::fan_out(qos, 1)?;
        if asleep {
            let sleeper = stage.clients.pop().context("there is one")?;
            stage.cluster.connection_closed(stage.now, sleeper.conn, Some(sleeper.slot));
            stage.settle();
        }
        Ok(stage)
    }

    /// A publisher and so many subscribers.
    pub(crate) fn fan_out(qos: QoS, subscribers: usize) -> anyhow::Result<Self> {
        let plan = Plan::by_name("unlimited").context("a plan")?;
        let rules = DesiredCluster {
            allow_anonymous: true,
            ..DesiredCluster::plain(
                ClusterId::default_cluster(),
                Quota::resolve(plan, &QuotaOverrides::default()),
            )
        };
        let log = RecentLog::new(Seq::ZERO, LOG_BYTES_MAX);
        let now = Now { wall: Timestamp::from_millis(1_800_000_000_000), mono: Monotonic::from_millis(0) };
        let cluster = Cluster::new(Arc::new(rules), ClusterNo(0), log, 1);
        let mut stage = Self { cluster, now, clients: Vec::new(), qos, heard: Vec::new() };
        stage.join("publisher", true)?;
        for n in 0..subscribers {
            stage.join(&format!("subscriber-{n}"), false)?;
            let client = stage.clients.last_mut().context("it has just joined")?;
            client.sends.extend_from_slice(&subscribe(TOPIC, qos));
        }
        stage.settle();
        Ok(stage)
    }

    fn join(&mut self, client_id: &str, clean: bool) -> anyhow::Result<()> {
        let conn = ConnId(u64::try_from(self.clients.len())? + 1);
        let mut decoder = Decoder::server(PACKET_BYTES_MAX);
        let connect = decoder.decode(&mut BytesMut::from(connect(client_id, clean).as_slice()))?;
        let Some(Packet::Connect(connect)) = connect else { anyhow::bail!("no CONNECT") };
        let origin = Origin {
            peer: "192.0.2.1:1".to_owned(),
            listener: "mqtt".to_owned(),
            transport: Transport::Tcp,
            tls_subject: None,
        };
        let fresh_id = uuid::Uuid::from_u128(conn.0.into());
        let request = ConnectRequest { conn, origin, connect: *connect, proven: None, fresh_id };
        let slot = self.cluster.connect(self.now, request).context("not let in")?;
        self.clients.push(Client { conn, slot, decoder, sends: BytesMut::new() });
        self.settle();
        Ok(())
    }

    /// Has the publisher send `count` messages, each exchanged to its end by everybody. Returns `count`.
    pub(crate) fn exchange(&mut self, count: u16) -> u64 {
        for id in 1..=count {
            let packet = publish(TOPIC, self.qos, id, PAYLOAD_BYTES);
            self.clients[0].sends.extend_from_slice(&packet);
        }
        self.settle();
        count.into()
    }

    /// Goes on until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            for at in 0..self.clients.len() {
                self.hear(at);
            }
            let effects = self.cluster.take_effects();
            if effects.touched.is_empty() && effects.entries.is_empty() && effects.writes.is_empty() {
                return;
            }
            for ticket in effects.writes.into_iter().filter_map(|(_, ticket)| ticket) {
                self.cluster.record_committed(self.now, ticket, RecordOutcome::Committed);
            }
            if !effects.entries.is_empty() {
                self.cluster.durable(effects.turn);
            }
            for slot in effects.touched {
                self.answer(slot);
            }
        }
    }

    /// The cluster takes what a client has sent.
    fn hear(&mut self, at: usize) {
        let Client { conn, slot, decoder, sends } = &mut self.clients[at];
        if sends.is_empty() {
            return;
        }
        let mut packets = Vec::new();
        while let Ok(Some(packet)) = decoder.decode(sends) {
            packets.push(packet);
        }
        self.cluster.receive(self.now, *conn, *slot, packets.into_iter());
    }

    /// A client answers what it gets.
    fn answer(&mut self, slot: Slot) {
        let Some((conn, output)) = self.cluster.output(slot) else { return };
        // A piece may end within a packet.
        self.heard.clear();
        output.pieces().for_each(|piece| self.heard.extend_from_slice(piece));
        output.clear();
        let at = usize::try_from(conn.0 - 1).unwrap_or(usize::MAX);
        let Some(client) = self.clients.get_mut(at) else { return };
        let mut rest = self.heard.as_slice();
        while let [first, after @ ..] = rest {
            let (length, length_bytes) = remaining_length(after);
            let body = &after[length_bytes..length_bytes + length];
            rest = &after[length_bytes + length..];
            match (first >> 4, first >> 1 & 3) {
                (3, 1) => client.sends.extend_from_slice(&ack(0x40, packet_id_of_publish(body))),
                (3, 2) => client.sends.extend_from_slice(&ack(0x50, packet_id_of_publish(body))),
                (5, _) => client.sends.extend_from_slice(&ack(0x62, [body[0], body[1]])),
                (6, _) => client.sends.extend_from_slice(&ack(0x70, [body[0], body[1]])),
                _ => {}
            }
        }
    }
}

fn remaining_length(bytes: &[u8]) -> (usize, usize) {
    let (mut length, mut taken) = (0, 0);
    for byte in bytes {
        length |= usize::from(byte & 0x7f) << (7 * taken);
        taken += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (length, taken)
}

fn packet_id_of_publish(body: &[u8]) -> [u8; 2] {
    let at = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
    [body[at], body[at + 1]]
}

fn ack(first: u8, packet_id: [u8; 2]) -> [u8; 4] {
    [first, 2, packet_id[0], packet_id[1]]
}

/// MQTT 5; a session that stays for an hour, or a clean one.
pub(crate) fn connect(client_id: &str, clean: bool) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x05".to_vec();
    let properties: &[u8] = if clean { &[] } else { &[0x11, 0, 0, 0x0e, 0x10] };
    body.extend([if clean { 2 } else { 0 }, 0, 0]);
    body.push(u8::try_from(properties.len()).unwrap_or(0));
    body.extend_from_slice(properties);
    text(&mut body, client_id);
    packet(0x10, &body)
}

/// MQTT 5.
fn subscribe(filter: &str, qos: QoS) -> Vec<u8> {
    let mut body = vec![0, 1, 0];
    text(&mut body, filter);
    body.push(qos.into());
    packet(0x82, &body)
}

/// MQTT 5; `packet_id` counts at QoS 1 and 2.
pub(crate) fn publish(topic: &str, qos: QoS, packet_id: u16, payload_bytes: usize) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    if qos > QoS::AtMostOnce {
        body.extend(packet_id.to_be_bytes());
    }
    body.push(0);
    body.resize(body.len() + payload_bytes, 0x2a);
    packet(0x30 | u8::from(qos) << 1, &body)
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend(u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

/// A packet of less than 16,384 bytes.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut packet = vec![first];
    if length >= 128 {
        packet.extend([
            u8::try_from(length & 0x7f | 0x80).unwrap_or(0),
            u8::try_from(length >> 7).unwrap_or(0),
        ]);
    } else {
        packet.push(u8::try_from(length).unwrap_or(0));
    }
    packet.extend_from_slice(body);
    packet
}
