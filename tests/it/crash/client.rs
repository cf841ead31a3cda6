//! A client of the cast: connects, publishes, receives, leaves, returns; notes everything.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast::data_plane::protocol::{Ack, Disconnect, Packet, PacketId, Publish, ReasonCode, SubAck};
use holdfast::model::{QoS, TopicName};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::cast::{Habit, Role};
use super::history::{Connection, Delivery, Record, Stream, Window};
use super::random::Random;
use super::session::{Arrival, Session, Token};
use super::wire::{self, Over, Received, WILLS, Wire};

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Everybody does what they do.
    Load,
    /// Nothing new; everybody comes, stays and finishes.
    Drain,
    /// One more message on each stream.
    Mark,
    Over,
}

/// What the clients share.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) record: Arc<Record>,
    /// Where the service listens; `None` while it does not run.
    pub(super) address: watch::Receiver<Option<SocketAddr>>,
    pub(super) phase: watch::Receiver<Phase>,
    /// A SUBSCRIBE or UNSUBSCRIBE was sent.
    pub(super) subscribing: Arc<Notify>,
    /// Between two messages of a publisher.
    pub(super) pause: Duration,
}

impl Stage {
    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Where the service is, once it is; `None` when all is over.
    pub(super) async fn address(&mut self) -> Option<SocketAddr> {
        loop {
            if self.phase() == Phase::Over {
                return None;
            }
            let known = *self.address.borrow_and_update();
            if known.is_some() {
                return known;
            }
            tokio::select! {
                changed = self.address.changed() => changed.ok()?,
                changed = self.phase.changed() => changed.ok()?,
            }
        }
    }

    /// Sleeps, but not through a change of what is going on.
    pub(super) async fn rest(&mut self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            _ = self.phase.changed() => {}
        }
    }
}

/// How long to wait for bytes before looking at what else there is to do.
const TICK: Duration = Duration::from_millis(5);
const PING_EVERY: Duration = Duration::from_millis(100);
/// Packet ids of SUBSCRIBE and UNSUBSCRIBE; those of PUBLISH stay below.
const SUBSCRIBE_IDS: u16 = 60_000;
const CONNACK_WITHIN: Duration = Duration::from_secs(15);

/// What the client wants of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Subscribe,
    Subscribed,
    Unsubscribe,
    Nothing,
}

pub(super) struct Client {
    role: Role,
    /// Its number in the cast.
    at: usize,
    stage: Stage,
    random: Random,
    session: Session,
    /// Its streams.
    streams: Vec<u16>,
    /// For each filter.
    wishes: Vec<Wish>,
    /// CONNACK has come once.
    known: bool,
    /// Has sent the extra message of this round.
    marked: bool,
}

/// What belongs to one connection.
struct Visit {
    wire: Wire,
    connected: bool,
    number: u32,
    begun: Instant,
    /// When to leave.
    until: Option<Instant>,
    /// The unanswered PINGREQ.
    ping: Option<u64>,
    pinged: Instant,
    /// SUBSCRIBE and UNSUBSCRIBE under way: packet id to filter.
    asked: HashMap<PacketId, usize>,
    last_id: u16,
    publish_at: Instant,
    wander_at: Instant,
}

impl Client {
    pub(super) fn new(role: Role, at: usize, stage: Stage, random: Random) -> Self {
        let streams = stage.record.with(|history, _| {
            let mine = |(_, stream): &(u16, &Stream)| stream.publisher == at;
            (0..).zip(&history.streams).filter(mine).map(|(id, _)| id).collect()
        });
        let wishes = vec![if role.wanders { Wish::Nothing } else { Wish::Subscribe }; role.filters.len()];
        let session = Session::default();
        Self { role, at, stage, random, session, streams, wishes, known: false, marked: false }
    }

    /// Lives until all is over.
    pub(super) async fn live(mut self) {
        while let Some(address) = self.stage.address().await {
            let Ok(wire) = Wire::open(address, self.role.version).await else {
                self.stage.rest(Duration::from_millis(10)).await;
                continue;
            };
            self.visit(wire).await;
            self.note_end();
            if self.stage.phase() == Phase::Load {
                let nap = match self.role.habit {
                    Habit::Sleeper => self.random.millis(100, 1_500),
                    Habit::Dropper => self.random.millis(0, 100),
                    Habit::Steady => Duration::ZERO,
                };
                self.stage.rest(nap).await;
            }
        }
    }

    fn note_end(&self) {
        self.stage.record.with(|history, now| {
            if let Some(connection) = history.subscribers[self.at].connections.last_mut() {
                connection.ended.get_or_insert(now);
            }
        });
    }

    fn fault(&self, what: &str) {
        self.stage.record.fault(self.role.name, what);
    }

    async fn visit(&mut self, wire: Wire) {
        let number = self.stage.record.with(|history, now| {
            let connections = &mut history.subscribers[self.at].connections;
            connections.push(Connection { begun: now, ..Connection::default() });
            u32::try_from(connections.len() - 1).expect("not so many")
        });
        let now = Instant::now();
        let until = match self.role.habit {
            Habit::Steady => None,
            Habit::Sleeper | Habit::Dropper => Some(now + self.random.millis(100, 1_500)),
        };
        let mut visit = Visit {
            wire,
            connected: false,
            number,
            begun: now,
            until,
            ping: None,
            pinged: now,
            asked: HashMap::new(),
            last_id: SUBSCRIBE_IDS,
            publish_at: now,
            wander_at: now,
        };
        let Role { name, version, clean, receive_maximum, .. } = self.role;
        let expiry_secs = if clean { 0 } else { 3_600 };
        visit.wire.put(&wire::connect(name, version, clean, expiry_secs, receive_maximum, None));
        while self.stage.phase() != Phase::Over {
            let leaves = visit.until.is_some_and(|until| until <= Instant::now());
            if leaves && visit.connected && self.stage.phase() == Phase::Load {
                self.leave(visit).await;
                return;
            }
            match self.turn(&mut visit).await {
                Ok(()) => {}
                Err(Received::Over) => return,
                Err(Received::Nonsense(what)) => {
                    self.fault(&what);
                    return;
                }
            }
        }
    }

    /// Ends the connection itself.
    async fn leave(&mut self, mut visit: Visit) {
        if self.role.habit == Habit::Dropper {
            self.note_end();
            return;
        }
        visit.wire.put(&Packet::Disconnect(Box::<Disconnect>::default()));
        if visit.wire.flush().await.is_ok() && visit.wire.drain().await {
            self.stage.record.with(|history, now| {
                history.subscribers[self.at].connections[visit.number as usize].goodbye = Some(now);
            });
        }
    }

    async fn turn(&mut self, visit: &mut Visit) -> Result<(), Received> {
        visit.wire.flush().await.map_err(|Over| Received::Over)?;
        let packets = visit.wire.receive(TICK).await?;
        let any = !packets.is_empty();
        for packet in packets {
            self.take(visit, packet).map_err(Received::Nonsense)?;
        }
        if any && !self.role.thinks.is_zero() && self.stage.phase() == Phase::Load {
            tokio::time::sleep(self.role.thinks).await;
        }
        if visit.connected {
            self.act(visit);
        } else if visit.begun.elapsed() > CONNACK_WITHIN {
            return Err(Received::Nonsense("no CONNACK".to_owned()));
        }
        Ok(())
    }

    /// What it does on its own account.
    fn act(&mut self, visit: &mut Visit) {
        let now = Instant::now();
        if visit.ping.is_none() && now >= visit.pinged + PING_EVERY {
            visit.pinged = now;
            visit.ping = Some(self.stage.record.with(|_, now| now));
            visit.wire.put(&Packet::PingReq);
        }
        self.wander(visit, now);
        self.ask(visit);
        let phase = self.stage.phase();
        match phase {
            Phase::Load => {
                self.marked = false;
                while now >= visit.publish_at && self.session.in_flight() < self.role.window {
                    let Some(stream) = (!self.streams.is_empty()).then(|| *self.random.pick(&self.streams))
                    else {
                        return;
                    };
                    self.publish(visit, stream);
                    visit.publish_at = (visit.publish_at + self.stage.pause).max(now - 10 * self.stage.pause);
                }
            }
            Phase::Mark if !self.marked => {
                self.marked = true;
                for stream in self.streams.clone() {
                    self.publish(visit, stream);
                }
            }
            _ => {}
        }
    }

    fn wander(&mut self, visit: &mut Visit, now: Instant) {
        if !self.role.wanders || now < visit.wander_at || self.stage.phase() != Phase::Load {
            return;
        }
        visit.wander_at = now + self.random.millis(20, 300);
        let at = usize::try_from(self.random.below(self.wishes.len() as u64)).expect("an index");
        self.wishes[at] = match self.wishes[at] {
            Wish::Nothing => Wish::Subscribe,
            Wish::Subscribed => Wish::Unsubscribe,
            under_way => under_way,
        };
    }

    /// Asks for what it wants and has not asked for on this connection.
    fn ask(&mut self, visit: &mut Visit) {
        for at in 0..self.wishes.len() {
            let wish = self.wishes[at];
            if !matches!(wish, Wish::Subscribe | Wish::Unsubscribe)
                || visit.asked.values().any(|asked| *asked == at)
            {
                continue;
            }
            visit.last_id += 1;
            let packet_id = PacketId::new(visit.last_id).expect("not 0");
            visit.asked.insert(packet_id, at);
            let (whole, qos) = self.role.filters[at];
            let (_, filter) = Role::shared(whole);
            let no_local = self.role.no_local;
            self.stage.record.with(|history, now| {
                let windows = &mut history.subscribers[self.at].windows;
                let open = windows.iter_mut().find(|w| w.filter == filter && w.ended.is_none());
                match (wish, open) {
                    (Wish::Subscribe, None) => windows.push(Window {
                        filter,
                        qos,
                        no_local,
                        asked: now,
                        granted: None,
                        renounced: None,
                        ended: None,
                    }),
                    (Wish::Unsubscribe, Some(window)) => _ = window.renounced.get_or_insert(now),
                    _ => {}
                }
            });
            visit.wire.put(&if wish == Wish::Subscribe {
                wire::subscribe(packet_id, self.role.version, whole, qos, no_local)
            } else {
                wire::unsubscribe(packet_id, whole)
            });
            self.stage.subscribing.notify_waiters();
        }
    }

    fn publish(&mut self, visit: &mut Visit, stream: u16) {
        let (token, topic, qos, big) = self.stage.record.with(|history, now| {
            let token = history.begin_message(now, stream);
            let Stream { topic, qos, big, .. } = history.streams[usize::from(stream)];
            (token, topic, qos, big)
        });
        let packet_id = (qos > QoS::AtMostOnce).then(|| self.session.publish(token, qos));
        visit.wire.put(&self.publication(token, topic, qos, big, packet_id, false));
    }

    fn publication(
        &self,
        token: Token,
        topic: &str,
        qos: QoS,
        big: bool,
        packet_id: Option<PacketId>,
        dup: bool,
    ) -> Packet {
        let clears = self.role.retain && Stream::clears(token.number);
        let payload = if clears { bytes::Bytes::new() } else { wire::payload(token, big) };
        wire::publish(topic, qos, self.role.retain, packet_id, dup, payload)
    }

    fn take(&mut self, visit: &mut Visit, packet: Packet) -> Result<(), String> {
        if !visit.connected {
            let Packet::ConnAck(connack) = packet else { return Err(format!("{packet:?} before CONNACK")) };
            if connack.reason != ReasonCode::Success {
                // The database is away; the server closes.
                return match connack.reason {
                    ReasonCode::ServerUnavailable => Ok(()),
                    other => Err(format!("CONNACK {other:?}: {:?}", connack.reason_string)),
                };
            }
            visit.connected = true;
            return self.connected(visit, connack.session_present);
        }
        match packet {
            Packet::Publish(publish) => self.delivered(visit, &publish),
            Packet::PubAck(ack) => {
                refused("PUBACK", &ack)?;
                let token = self.session.acknowledged(ack.packet_id)?;
                self.note_acknowledged(token);
                Ok(())
            }
            Packet::PubRec(ack) => {
                refused("PUBREC", &ack)?;
                let token = self.session.taken(ack.packet_id)?;
                self.note_acknowledged(token);
                visit.wire.put(&Packet::PubRel(Ack::new(ack.packet_id, ReasonCode::Success)));
                Ok(())
            }
            Packet::PubComp(ack) => self.session.completed(ack.packet_id),
            Packet::PubRel(ack) => {
                self.session.released(ack.packet_id);
                visit.wire.put(&Packet::PubComp(Ack::new(ack.packet_id, ReasonCode::Success)));
                Ok(())
            }
            Packet::SubAck(ack) => self.subscribed(visit, &ack),
            Packet::UnsubAck(ack) => self.unsubscribed(visit, ack.packet_id),
            Packet::PingResp => {
                let ping = visit.ping.take().ok_or("a PINGRESP that nobody asked for")?;
                self.stage.record.with(|history, now| {
                    let connection = &mut history.subscribers[self.at].connections[visit.number as usize];
                    connection.pings.push((ping, now));
                });
                Ok(())
            }
            // The service stops.
            Packet::Disconnect(disconnect) if disconnect.reason == ReasonCode::ServerShuttingDown => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    fn connected(&mut self, visit: &mut Visit, present: bool) -> Result<(), String> {
        let (clean, known) = (self.role.clean, std::mem::replace(&mut self.known, true));
        if clean {
            self.stage.record.with(|history, _| {
                for pending in self.session.pending() {
                    if let Some(message) = history.published(pending.token) {
                        message.abandoned = true;
                    }
                }
            });
            self.session.begin_anew();
        }
        match (present, known, clean) {
            (true, _, true) => return Err("a session where a new one was asked for".to_owned()),
            (false, true, false) => return Err("the session is gone".to_owned()),
            _ => {}
        }
        // [MQTT-4.4.0-1], in the original order.
        let pending: Vec<_> = self.session.pending().copied().collect();
        for pending in pending {
            if pending.received {
                visit.wire.put(&Packet::PubRel(Ack::new(pending.packet_id, ReasonCode::Success)));
                continue;
            }
            let (topic, big) = self.stage.record.with(|history, _| {
                if let Some(message) = history.published(pending.token) {
                    message.sends += 1;
                }
                let stream = &history.streams[usize::from(pending.token.stream)];
                (stream.topic, stream.big)
            });
            let packet_id = Some(pending.packet_id);
            visit.wire.put(&self.publication(pending.token, topic, pending.qos, big, packet_id, true));
        }
        Ok(())
    }

    fn note_acknowledged(&self, token: Token) {
        self.stage.record.with(|history, now| {
            if let Some(message) = history.published(token) {
                message.acknowledged = Some(now);
            }
        });
    }

    fn delivered(&mut self, visit: &mut Visit, publish: &Publish) -> Result<(), String> {
        let token = wire::token(&publish.payload).ok_or_else(|| format!("a damaged message: {publish:?}"))?;
        let is_new = match (publish.qos, publish.packet_id) {
            (QoS::ExactlyOnce, Some(packet_id)) => {
                visit.wire.put(&Packet::PubRec(Ack::new(packet_id, ReasonCode::Success)));
                match self.session.arrived(packet_id, token) {
                    Arrival::New => true,
                    Arrival::Again if publish.dup => false,
                    Arrival::Again => return Err(format!("{token:?} again without DUP [MQTT-3.3.1-1]")),
                    Arrival::Instead(before) => {
                        return Err(format!("{token:?} under packet id {packet_id} of {before:?}"));
                    }
                }
            }
            _ => true,
        };
        let (qos, connection) = (publish.qos, visit.number);
        let topic = publish.topic.as_ref().map(TopicName::as_str).unwrap_or_default();
        self.stage.record.with(|history, now| {
            if token.stream == WILLS {
                let will = history.wills.get_mut(token.number as usize);
                let will = will.ok_or_else(|| format!("will {} was never set", token.number))?;
                will.seen += u32::from(is_new);
                return Ok(());
            }
            let stream = history.streams.get(usize::from(token.stream));
            if stream.is_none_or(|stream| stream.topic != topic) {
                return Err(format!("{token:?} at {topic}"));
            }
            if is_new {
                let acknowledged = (qos == QoS::AtLeastOnce).then_some(now);
                let delivery = Delivery { token, qos, at: now, connection, acknowledged };
                history.subscribers[self.at].deliveries.push(delivery);
            }
            Ok(())
        })?;
        if let (QoS::AtLeastOnce, Some(packet_id)) = (publish.qos, publish.packet_id) {
            visit.wire.put(&Packet::PubAck(Ack::new(packet_id, ReasonCode::Success)));
        }
        Ok(())
    }

    fn subscribed(&mut self, visit: &mut Visit, ack: &SubAck) -> Result<(), String> {
        let at = visit.asked.remove(&ack.packet_id).ok_or("a SUBACK that nobody asked for")?;
        let (whole, qos) = self.role.filters[at];
        match ack.reasons[..] {
            // The database is away: asks again.
            [ReasonCode::UnspecifiedError] => return Ok(()),
            [reason] if reason as u8 == u8::from(qos) => {}
            _ => return Err(format!("SUBACK {:?} for {whole} at {qos:?}", ack.reasons)),
        }
        self.wishes[at] = Wish::Subscribed;
        let (_, filter) = Role::shared(whole);
        self.stage.record.with(|history, now| {
            let windows = &mut history.subscribers[self.at].windows;
            if let Some(window) = windows.iter_mut().find(|w| w.filter == filter && w.ended.is_none()) {
                window.granted.get_or_insert(now);
            }
        });
        Ok(())
    }

    fn unsubscribed(&mut self, visit: &mut Visit, packet_id: PacketId) -> Result<(), String> {
        let at = visit.asked.remove(&packet_id).ok_or("an UNSUBACK that nobody asked for")?;
        self.wishes[at] = Wish::Nothing;
        let (_, filter) = Role::shared(self.role.filters[at].0);
        self.stage.record.with(|history, now| {
            let windows = &mut history.subscribers[self.at].windows;
            if let Some(window) = windows.iter_mut().find(|w| w.filter == filter && w.ended.is_none()) {
                window.ended = Some(now);
            }
        });
        Ok(())
    }
}

fn refused(what: &str, ack: &Ack) -> Result<(), String> {
    if ack.reason.is_error() { Err(format!("{what} {:?}", ack.reason)) } else { Ok(()) }
}
