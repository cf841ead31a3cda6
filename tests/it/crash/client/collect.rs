//! A client that [collects](crate::crash::owed) what is retained: subscribes, gets all, subscribes anew; now
//! and then before it has all, or unsubscribes half-way.

use std::net::SocketAddr;
use std::time::Duration;

use holdfast::data_plane::protocol::{Ack, Packet, PacketId, Publish, ReasonCode};
use holdfast::model::{ProtocolVersion, QoS};
use tokio::time::Instant;

use super::{CONNACK_WITHIN, PING_EVERY, Phase, Stage, TICK};
use crate::crash::history::{Connection, Delivery};
use crate::crash::owed::{Asked, Collector, STREAMS, TOPICS};
use crate::crash::random::Random;
use crate::crash::session::{Session, Token};
use crate::crash::wire::{self, Over, Received, Wire};
use crate::support::PATIENCE;

/// One of them: name, what it speaks, QoS, Receive Maximum.
pub(in crate::crash) type Kind = (&'static str, ProtocolVersion, QoS, Option<u16>);

/// All of them.
pub(in crate::crash) const KINDS: [Kind; 4] = [
    ("collector-1", ProtocolVersion::V5, QoS::AtLeastOnce, Some(3)),
    ("collector-2", ProtocolVersion::V5, QoS::ExactlyOnce, Some(3)),
    ("narrow-collector", ProtocolVersion::V5, QoS::ExactlyOnce, Some(1)),
    ("old-collector", ProtocolVersion::V3_1_1, QoS::AtLeastOnce, None),
];

/// As history begins.
pub(in crate::crash) fn collectors() -> Vec<Collector> {
    (STREAMS..).zip(KINDS).map(|(stream, (name, _, qos, _))| Collector::new(name, stream, qos)).collect()
}

struct Collecting {
    kind: Kind,
    at: usize,
    stage: Stage,
    random: Random,
    session: Session,
    known: bool,
    /// What it is about to ask for or to give up.
    wish: Wish,
    /// How many are left when it does something before it has all.
    until_left: Option<usize>,
    last_id: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    Subscribe,
    Unsubscribe,
}

struct Visit {
    wire: Wire,
    connected: bool,
    /// Which of the connections.
    number: u32,
    begun: Instant,
    until: Instant,
    ping: Option<u64>,
    pinged: Instant,
    /// The unanswered SUBSCRIBE or UNSUBSCRIBE.
    asked: Option<PacketId>,
}

/// Lives until all is over.
pub(in crate::crash) async fn collect(at: usize, mut stage: Stage, random: Random) {
    let kind = KINDS[at];
    loop {
        let Some(address) = stage.address().await else { return };
        if retain_all(at, kind, address).await {
            break;
        }
        stage.rest(Duration::from_millis(10)).await;
    }
    let session = Session::default();
    let (known, wish, until_left, last_id) = (false, Wish::Nothing, None, 0);
    Collecting { kind, at, stage, random, session, known, wish, until_left, last_id }.live().await;
}

fn topic(name: &str, number: u32) -> String {
    format!("k/{name}/{number}")
}

fn token(at: usize, number: u32) -> Token {
    Token { stream: STREAMS + u16::try_from(at).expect("few"), number }
}

/// Publishes what is to be found. Returns whether all of it was taken.
async fn retain_all(at: usize, (name, _, qos, _): Kind, address: SocketAddr) -> bool {
    let version = ProtocolVersion::V5;
    let Ok(mut wire) = Wire::open(address, version).await else { return false };
    wire.put(&wire::connect("", version, true, 0, None, None));
    for number in 1..=TOPICS {
        let packet_id = PacketId::new(u16::try_from(number).expect("few"));
        let payload = wire::payload(token(at, number), false);
        wire.put(&wire::publish(&topic(name, number), qos, true, packet_id, false, payload));
    }
    let (mut taken, began) = (0, Instant::now());
    while taken < TOPICS && began.elapsed() < PATIENCE {
        let Ok(()) = wire.flush().await else { return false };
        let Ok(packets) = wire.receive(TICK).await else { return false };
        for packet in packets {
            match packet {
                Packet::PubAck(_) => taken += 1,
                Packet::PubRec(ack) => {
                    wire.put(&Packet::PubRel(Ack::new(ack.packet_id, ReasonCode::Success)));
                    taken += 1;
                }
                _ => {}
            }
        }
    }
    wire.flush().await.is_ok() && taken == TOPICS
}

impl Collecting {
    async fn live(mut self) {
        while let Some(address) = self.stage.address().await {
            let Ok(wire) = Wire::open(address, self.kind.1).await else {
                self.stage.rest(Duration::from_millis(10)).await;
                continue;
            };
            if let Err(Received::Nonsense(what)) = self.visit(wire).await {
                self.stage.record.fault(self.kind.0, &what);
            }
            self.note(|collector, now| {
                if let Some(connection) = collector.connections.last_mut() {
                    connection.ended.get_or_insert(now);
                }
            });
        }
    }

    fn note<T>(&self, act: impl FnOnce(&mut Collector, u64) -> T) -> T {
        self.stage.record.with(|history, now| act(&mut history.collectors[self.at], now))
    }

    /// Until the connection breaks, or is dropped.
    async fn visit(&mut self, wire: Wire) -> Result<(), Received> {
        let number = self.note(|collector, now| {
            collector.connections.push(Connection { begun: now, ..Connection::default() });
            u32::try_from(collector.connections.len() - 1).expect("not so many")
        });
        let now = Instant::now();
        let until = now + self.random.millis(50, 2_000);
        let (connected, ping, asked) = (false, None, None);
        let mut visit = Visit { wire, connected, number, begun: now, until, ping, pinged: now, asked };
        let (name, version, _, receive_maximum) = self.kind;
        visit.wire.put(&wire::connect(name, version, false, 3_600, receive_maximum, None));
        while self.stage.phase() != Phase::Over {
            if self.stage.phase() == Phase::Load && visit.connected && visit.until <= Instant::now() {
                return Ok(());
            }
            visit.wire.flush().await.map_err(|Over| Received::Over)?;
            for packet in visit.wire.receive(TICK).await? {
                self.take(&mut visit, packet).map_err(Received::Nonsense)?;
            }
            if visit.connected {
                self.act(&mut visit);
            } else if visit.begun.elapsed() > CONNACK_WITHIN {
                return Err(Received::Nonsense("no CONNACK".to_owned()));
            }
        }
        Ok(())
    }

    fn act(&mut self, visit: &mut Visit) {
        if visit.ping.is_none() && visit.pinged.elapsed() >= PING_EVERY {
            visit.pinged = Instant::now();
            visit.ping = Some(self.stage.record.with(|_, now| now));
            visit.wire.put(&Packet::PingReq);
        }
        if visit.asked.is_some() {
            return;
        }
        if self.wish == Wish::Nothing {
            self.choose();
        }
        if self.wish == Wish::Nothing {
            return;
        }
        self.last_id = self.last_id % 50_000 + 1;
        let packet_id = PacketId::new(self.last_id).expect("not 0");
        visit.asked = Some(packet_id);
        let (name, version, qos, _) = self.kind;
        let filter = format!("k/{name}/#");
        let subscribes = self.wish == Wish::Subscribe;
        self.note(|collector, _| {
            if let Some(last) = collector.asked.last_mut() {
                last.sends += u32::from(subscribes);
                last.renounced |= !subscribes;
            }
        });
        visit.wire.put(&if subscribes {
            wire::subscribe(packet_id, version, &filter, qos, false)
        } else {
            wire::unsubscribe(packet_id, &filter)
        });
        self.stage.subscribing.notify_waiters();
    }

    /// Decides what to do next, when it has all or enough.
    fn choose(&mut self) {
        if self.stage.phase() != Phase::Load {
            // What was given up is all right as it is.
            return;
        }
        let (left, renounced, none) = self.note(|collector, _| {
            let last = collector.asked.last();
            (collector.left().len(), last.is_some_and(|last| last.renounced), last.is_none())
        });
        let has_enough = self.until_left.is_some_and(|enough| left <= enough);
        if left > 0 && !has_enough && !renounced && !none {
            return;
        }
        if left > 0 && !renounced && !none && self.random.percent(50) {
            self.wish = Wish::Unsubscribe;
            return;
        }
        self.wish = Wish::Subscribe;
        self.until_left =
            self.random.percent(30).then(|| usize::try_from(self.random.below(TOPICS.into())).expect("few"));
        self.note(|collector, now| {
            let carried = collector.still_to_come(left == 0);
            // What came last came before, also within the same microsecond.
            let at = collector.deliveries.last().map_or(now, |last| now.max(last.at + 1));
            collector.asked.push(Asked { at, sends: 0, carried, granted: false, renounced: false });
        });
    }

    fn take(&mut self, visit: &mut Visit, packet: Packet) -> Result<(), String> {
        if !visit.connected {
            let Packet::ConnAck(connack) = packet else { return Err(format!("{packet:?} before CONNACK")) };
            match connack.reason {
                ReasonCode::Success => {}
                // The database is away; the server closes.
                ReasonCode::ServerUnavailable => return Ok(()),
                other => return Err(format!("CONNACK {other:?}: {:?}", connack.reason_string)),
            }
            visit.connected = true;
            let known = std::mem::replace(&mut self.known, true);
            return if known && !connack.session_present {
                Err("the session is gone".into())
            } else {
                Ok(())
            };
        }
        match packet {
            Packet::Publish(publish) => self.delivered(visit, &publish),
            Packet::PubRel(ack) => {
                self.session.released(ack.packet_id);
                visit.wire.put(&Packet::PubComp(Ack::new(ack.packet_id, ReasonCode::Success)));
                Ok(())
            }
            Packet::SubAck(ack) if visit.asked == Some(ack.packet_id) => {
                visit.asked = None;
                match ack.reasons[..] {
                    // The database is away: asks again.
                    [ReasonCode::UnspecifiedError] => return Ok(()),
                    [reason] if reason as u8 == u8::from(self.kind.2) => {}
                    _ => return Err(format!("SUBACK {:?}", ack.reasons)),
                }
                self.wish = Wish::Nothing;
                self.note(|collector, _| {
                    if let Some(last) = collector.asked.last_mut() {
                        last.granted = true;
                    }
                });
                Ok(())
            }
            Packet::UnsubAck(ack) if visit.asked == Some(ack.packet_id) => {
                (visit.asked, self.wish) = (None, Wish::Nothing);
                Ok(())
            }
            Packet::PingResp => {
                let ping = visit.ping.take().ok_or("a PINGRESP that nobody asked for")?;
                self.note(|collector, now| {
                    collector.connections[visit.number as usize].pings.push((ping, now));
                });
                Ok(())
            }
            // The service stops.
            Packet::Disconnect(disconnect) if disconnect.reason == ReasonCode::ServerShuttingDown => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    fn delivered(&mut self, visit: &mut Visit, publish: &Publish) -> Result<(), String> {
        let token = wire::token(&publish.payload).ok_or_else(|| format!("a damaged message: {publish:?}"))?;
        let is_meant =
            publish.topic.as_ref().is_some_and(|of| of.as_str() == topic(self.kind.0, token.number));
        if !is_meant || !publish.retain || publish.qos != self.kind.2 {
            return Err(format!("{publish:?}"));
        }
        let packet_id = publish.packet_id.ok_or("no packet id")?;
        let is_new = if publish.qos == QoS::ExactlyOnce {
            visit.wire.put(&Packet::PubRec(Ack::new(packet_id, ReasonCode::Success)));
            self.session.arrived(packet_id, token, publish.dup)?
        } else {
            visit.wire.put(&Packet::PubAck(Ack::new(packet_id, ReasonCode::Success)));
            true
        };
        let qos = publish.qos;
        self.note(|collector, now| {
            if is_new {
                let acknowledged = (qos == QoS::AtLeastOnce).then_some(now);
                let connection = visit.number;
                collector.deliveries.push(Delivery { token, qos, at: now, connection, acknowledged });
            }
        });
        Ok(())
    }
}
