//! A client of the cast: connects, publishes, receives, leaves, returns; notes everything.

pub(super) mod collect;
mod receive;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast::data_plane::protocol::{Disconnect, Packet, PacketId};
use holdfast::model::QoS;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::crash::cast::{Habit, Role};
use crate::crash::history::{Connection, Record, Stream, Window};
use crate::crash::random::Random;
use crate::crash::session::{Session, Token};
use crate::crash::wire::{self, Over, Received, Wire};

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
            Wish::Subscribed => {
                self.renounce(at);
                Wish::Unsubscribe
            }
            under_way => under_way,
        };
    }

    /// Notes that it gives a subscription up.
    fn renounce(&self, at: usize) {
        let (_, filter) = Role::shared(self.role.filters[at].0);
        self.stage.record.with(|history, now| {
            let windows = &mut history.subscribers[self.at].windows;
            let open = windows.iter_mut().find(|w| w.filter == filter && w.ended.is_none());
            if let Some(window) = open {
                window.renounced = Some(now);
            }
        });
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
            visit.last_id = visit.last_id.checked_add(1).unwrap_or(SUBSCRIBE_IDS + 1);
            let packet_id = PacketId::new(visit.last_id).expect("not 0");
            visit.asked.insert(packet_id, at);
            let (whole, qos) = self.role.filters[at];
            let (_, filter) = Role::shared(whole);
            let no_local = self.role.no_local;
            self.stage.record.with(|history, now| {
                let windows = &mut history.subscribers[self.at].windows;
                let open = windows.iter().find(|w| w.filter == filter && w.ended.is_none());
                if wish == Wish::Subscribe && open.is_none() {
                    windows.push(Window {
                        filter,
                        qos,
                        no_local,
                        asked: now,
                        granted: None,
                        renounced: None,
                        ended: None,
                    });
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
}
