//! What happened, as the clients saw it: the material of the [checker](super::check).
//!
//! All clients write into one history under one lock, so its times, in microseconds, are in the order of
//! what they stand for: what is sent is noted before it is written to the socket, what is acknowledged
//! after it was read.

use std::sync::Mutex;

use holdfast::model::QoS;
use tokio::time::Instant;

use super::owed::Collector;
use super::session::Token;

pub(super) type Micros = u64;

/// One publisher's messages to one topic at one QoS: numbered from 1 without gaps.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// The client that publishes it.
    pub(super) publisher: usize,
    pub(super) topic: &'static str,
    pub(super) qos: QoS,
    /// Larger payloads.
    pub(super) big: bool,
    pub(super) retain: bool,
    /// How many messages earlier rounds had; they were checked.
    pub(super) base: u32,
    /// Number `base` + 1 comes first.
    pub(super) messages: Vec<Published>,
}

impl Stream {
    pub(super) fn last_number(&self) -> u32 {
        self.base + u32::try_from(self.messages.len()).expect("not so many")
    }

    pub(super) fn message(&self, number: u32) -> Option<&Published> {
        self.messages.get(number.checked_sub(self.base + 1)? as usize)
    }

    fn message_mut(&mut self, number: u32) -> Option<&mut Published> {
        self.messages.get_mut(number.checked_sub(self.base + 1)? as usize)
    }

    /// Whether this number of a retained stream clears the topic.
    pub(super) fn clears(number: u32) -> bool {
        number.is_multiple_of(5)
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Published {
    pub(super) first_sent: Micros,
    /// How often PUBLISH was sent.
    pub(super) sends: u32,
    /// When PUBACK or PUBREC came.
    pub(super) acknowledged: Option<Micros>,
    /// The publisher has given it up.
    pub(super) abandoned: bool,
}

/// A client that receives.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscriber {
    pub(super) name: String,
    /// The shared group that it is a member of.
    pub(super) group: Option<&'static str>,
    pub(super) windows: Vec<Window>,
    pub(super) connections: Vec<Connection>,
    pub(super) deliveries: Vec<Delivery>,
}

/// When a subscription was in force.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// Without `$share/…/`.
    pub(super) filter: &'static str,
    pub(super) qos: QoS,
    pub(super) no_local: bool,
    /// The first SUBSCRIBE was sent.
    pub(super) asked: Micros,
    /// SUBACK came.
    pub(super) granted: Option<Micros>,
    /// UNSUBSCRIBE was sent.
    pub(super) renounced: Option<Micros>,
    /// UNSUBACK came.
    pub(super) ended: Option<Micros>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Connection {
    pub(super) begun: Micros,
    pub(super) ended: Option<Micros>,
    /// PINGREQ sent, PINGRESP received: all that was sent before the one was processed before the other.
    pub(super) pings: Vec<(Micros, Micros)>,
    /// The server closed after our DISCONNECT: all that was sent was processed.
    pub(super) goodbye: Option<Micros>,
}

/// A message as a client took it; at QoS 2 only what is new to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    pub(super) token: Token,
    pub(super) qos: QoS,
    pub(super) at: Micros,
    /// Which of the subscriber's connections.
    pub(super) connection: u32,
    /// When PUBACK was sent.
    pub(super) acknowledged: Option<Micros>,
}

/// A will, and what must become of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Will {
    pub(super) fate: Fate,
    pub(super) connected: Micros,
    pub(super) seen: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Published or not: nobody can tell from outside.
    Open,
    /// The client has vanished.
    Due,
    /// DISCONNECT was sent and the server closed, then.
    TakenBack(Micros),
    /// The client was back in time, and was told so.
    Cancelled,
}

#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) streams: Vec<Stream>,
    pub(super) subscribers: Vec<Subscriber>,
    pub(super) collectors: Vec<Collector>,
    /// When the service was killed, or asked to stop.
    pub(super) deaths: Vec<Micros>,
    pub(super) wills: Vec<Will>,
    /// What clients saw that no rule allows.
    pub(super) faults: Vec<String>,
}

impl History {
    /// The next message of a stream, sent for the first time.
    pub(super) fn begin_message(&mut self, now: Micros, stream: u16) -> Token {
        let known = &mut self.streams[usize::from(stream)];
        known.messages.push(Published { first_sent: now, sends: 1, ..Published::default() });
        Token { stream, number: known.last_number() }
    }

    /// That message, if it is of this round.
    pub(super) fn published(&mut self, token: Token) -> Option<&mut Published> {
        self.streams[usize::from(token.stream)].message_mut(token.number)
    }

    /// Everything so far was checked: forgets it, but for what goes on.
    pub(super) fn next_round(&mut self) {
        for stream in &mut self.streams {
            stream.base = stream.last_number();
            stream.messages.clear();
        }
        for subscriber in &mut self.subscribers {
            subscriber.deliveries.clear();
            subscriber.windows.retain(|window| window.ended.is_none());
            // The last one may still be open.
            let kept = subscriber.connections.len().saturating_sub(1);
            for connection in &mut subscriber.connections[..kept] {
                connection.pings = Vec::new();
            }
        }
        self.collectors.iter_mut().for_each(Collector::next_round);
        self.deaths.clear();
        self.wills.iter_mut().for_each(|will| will.fate = Fate::Open);
    }
}

/// The history under its lock, with its clock.
#[derive(Debug)]
pub(super) struct Record {
    began: Instant,
    history: Mutex<History>,
}

impl Record {
    pub(super) fn new(history: History) -> Self {
        Self { began: Instant::now(), history: Mutex::new(history) }
    }

    /// Reads or notes something, at one moment.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut History, Micros) -> T) -> T {
        let mut history = self.history.lock().expect("nobody fails while noting");
        let now = u64::try_from(self.began.elapsed().as_micros()).expect("not so long");
        act(&mut history, now)
    }

    pub(super) fn fault(&self, who: &str, what: &str) {
        self.with(|history, now| history.faults.push(format!("at {now} µs, {who}: {what}")));
    }
}
