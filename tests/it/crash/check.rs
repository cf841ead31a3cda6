//! The checker: from a [`History`] to the promises it breaks (PRODUCT S-1, S-2, S-4, S-10, S-12).
//!
//! Nothing in it depends on how fast anything was. That a subscriber's PUBACK was recorded follows from
//! what was seen afterwards: the server answered a PINGREQ sent after it, and later than the delay it
//! allows itself it took and acknowledged another message, which went to disk behind it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use holdfast::model::QoS;

use super::history::{Connection, Delivery, Fate, History, Micros, Stream, Subscriber, Will, Window};
use super::owed;
use super::session::Token;

/// How late the service may record an acknowledgement at QoS 1: 200 ms (DESIGN 3), and its turn.
const RECORDED_WITHIN: Micros = 400_000;

/// What goes to disk: subscribers of the cast have this filter as long as they live.
const KEPT: &str = "t/#";

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// Acknowledged to the publisher, and not delivered.
    Lost { to: String, token: Token },
    /// Never acknowledged to the publisher, however long it waited.
    Stuck { token: Token },
    /// Delivered twice where that cannot be.
    Duplicate { to: String, token: Token, at: Micros },
    /// The first delivery came after one of a later message.
    OutOfOrder { to: String, token: Token, after: u32 },
    /// Delivered, and never published.
    Invented { to: String, token: Token },
    /// Delivered to who had no subscription for it.
    Uninvited { to: String, token: Token },
    /// Delivered at another quality of service.
    OtherQoS { to: String, token: Token, qos: QoS },
    /// A will was published so often.
    Will { number: usize, fate: Fate, seen: u32 },
    /// A client met what no rule allows.
    Fault(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(what) => f.write_str(what),
            other => write!(f, "{other:?}"),
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) violations: Vec<Violation>,
    pub(super) sent: usize,
    pub(super) acknowledged: usize,
    pub(super) delivered: usize,
    /// Repetitions at QoS 1 that are allowed.
    pub(super) repeated: usize,
    /// How often all that is retained was owed.
    pub(super) owed: usize,
}

impl Findings {
    pub(super) fn add(&mut self, other: Self) {
        self.violations.extend(other.violations);
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.repeated += other.repeated;
        self.owed += other.owed;
    }
}

/// Checks everything.
pub(super) fn check(history: &History) -> Findings {
    let mut findings = Findings::default();
    for stream in &history.streams {
        findings.sent += stream.messages.len();
        findings.acknowledged += stream.messages.iter().filter(|m| m.acknowledged.is_some()).count();
    }
    findings.delivered = history.subscribers.iter().map(|subscriber| subscriber.deliveries.len()).sum();
    let settled = Settled::new(history);
    findings.violations.extend(missing(history));
    for audience in audiences(history) {
        Delivered { history, settled: &settled, audience: &audience }.check(&mut findings);
    }
    owed::check(history, &settled, &mut findings);
    for (number, will) in history.wills.iter().enumerate() {
        check_will(number, will, history, &settled, &mut findings);
    }
    findings.violations.extend(history.faults.iter().cloned().map(Violation::Fault));
    findings
}

/// What has not come yet, though it must: empty when the round is drained.
pub(super) fn missing(history: &History) -> Vec<Violation> {
    let mut missing = Vec::new();
    for (at, stream) in streams(history) {
        for number in stream.base + 1..=stream.last_number() {
            let waits = stream
                .message(number)
                .is_some_and(|message| message.acknowledged.is_none() && !message.abandoned);
            if waits && stream.qos > QoS::AtMostOnce {
                missing.push(Violation::Stuck { token: Token { stream: at, number } });
            }
        }
    }
    for audience in audiences(history) {
        audience.lost(history, &mut missing);
    }
    owed::missing(history, &mut missing);
    for (number, will) in history.wills.iter().enumerate() {
        if will.fate == Fate::Due && will.seen == 0 {
            missing.push(Violation::Will { number, fate: will.fate, seen: 0 });
        }
    }
    missing
}

fn streams(history: &History) -> impl Iterator<Item = (u16, &Stream)> {
    (0_u16..).zip(&history.streams)
}

/// Who shares one position: a subscriber, or the members of a shared group.
struct Audience<'a> {
    name: String,
    is_group: bool,
    members: Vec<(usize, &'a Subscriber)>,
}

fn audiences(history: &History) -> Vec<Audience<'_>> {
    let mut audiences: Vec<Audience<'_>> = Vec::new();
    for (at, subscriber) in history.subscribers.iter().enumerate() {
        let name = subscriber.group.map_or_else(|| subscriber.name.clone(), ToOwned::to_owned);
        match audiences.iter_mut().find(|known| known.is_group && known.name == name) {
            Some(group) if subscriber.group.is_some() => group.members.push((at, subscriber)),
            _ => audiences.push(Audience {
                name,
                is_group: subscriber.group.is_some(),
                members: vec![(at, subscriber)],
            }),
        }
    }
    audiences
}

impl Audience<'_> {
    /// The subscriptions that a stream matches.
    fn windows(&self, stream: &Stream) -> impl Iterator<Item = &Window> {
        self.members.iter().flat_map(move |(at, subscriber)| {
            let own = stream.publisher == *at;
            subscriber
                .windows
                .iter()
                .filter(move |window| !(own && window.no_local) && matches(window.filter, stream.topic))
        })
    }

    fn lost(&self, history: &History, lost: &mut Vec<Violation>) {
        for (at, stream) in streams(history) {
            let of_stream = |delivery: &&Delivery| delivery.token.stream == at;
            let mut come = vec![false; stream.messages.len()];
            for delivery in self.members.iter().flat_map(|(_, s)| &s.deliveries).filter(of_stream) {
                let index = delivery.token.number.checked_sub(stream.base + 1);
                if let Some(come) = index.and_then(|index| come.get_mut(index as usize)) {
                    *come = true;
                }
            }
            let since = self
                .windows(stream)
                .filter(|window| window.renounced.is_none() && window.qos > QoS::AtMostOnce)
                .filter_map(|window| window.granted)
                .min();
            let Some(since) = since.filter(|_| stream.qos > QoS::AtMostOnce) else { continue };
            for (number, (message, come)) in (stream.base + 1..).zip(stream.messages.iter().zip(come)) {
                if message.acknowledged.is_some() && message.first_sent > since && !come {
                    lost.push(Violation::Lost { to: self.name.clone(), token: Token { stream: at, number } });
                }
            }
        }
    }
}

/// Checks what came to one audience.
struct Delivered<'a> {
    history: &'a History,
    settled: &'a Settled,
    audience: &'a Audience<'a>,
}

/// A delivery, with the connection it came on.
pub(super) type Come<'a> = (&'a Delivery, &'a Connection);

impl Delivered<'_> {
    fn check(&self, findings: &mut Findings) {
        let mut by_token: BTreeMap<Token, Vec<Come<'_>>> = BTreeMap::new();
        for (_, subscriber) in &self.audience.members {
            let mut latest: HashMap<u16, u32> = HashMap::new();
            for delivery in &subscriber.deliveries {
                let connection = &subscriber.connections[delivery.connection as usize];
                let earlier = by_token.entry(delivery.token).or_default();
                let is_first = earlier.is_empty();
                earlier.push((delivery, connection));
                // Between the members of a group there is no order. At QoS 0 a message may be lost the first
                // time it is sent, and come when its publisher sends it again.
                if is_first && !self.audience.is_group && delivery.qos > QoS::AtMostOnce {
                    self.check_order(delivery, &mut latest, findings);
                }
            }
        }
        for (token, mut come) in by_token {
            come.sort_by_key(|(delivery, _)| delivery.at);
            self.check_message(token, &come, findings);
        }
    }

    fn check_order(&self, delivery: &Delivery, latest: &mut HashMap<u16, u32>, findings: &mut Findings) {
        let Token { stream, number } = delivery.token;
        let latest = latest.entry(stream).or_default();
        if number < *latest && self.was_due(delivery) {
            findings.violations.push(Violation::OutOfOrder {
                to: self.audience.name.clone(),
                token: delivery.token,
                after: *latest,
            });
        }
        *latest = number.max(*latest);
    }

    /// Whether a message was to be delivered from when it was first sent on. To who subscribes between its
    /// first sending and its second, others may come earlier.
    fn was_due(&self, delivery: &Delivery) -> bool {
        let stream = self.history.streams.get(usize::from(delivery.token.stream));
        let Some((stream, message)) = stream.and_then(|s| Some((s, s.message(delivery.token.number)?)))
        else {
            return false;
        };
        self.audience.windows(stream).any(|window| {
            window.granted.is_some_and(|granted| granted < message.first_sent)
                && window.renounced.is_none_or(|renounced| renounced > delivery.at)
        })
    }

    fn check_message(&self, token: Token, come: &[Come<'_>], findings: &mut Findings) {
        let to = self.audience.name.clone();
        let Some(stream) = self.history.streams.get(usize::from(token.stream)) else {
            findings.violations.push(Violation::Invented { to, token });
            return;
        };
        let Some(message) = stream.message(token.number) else {
            // The last message of the round before may come again: nothing was published after it that
            // would tell that its acknowledgement was recorded.
            let was_last = token.number == stream.base && come.iter().all(|(d, _)| d.qos == QoS::AtLeastOnce);
            if token.number > stream.base || token.number == 0 {
                findings.violations.push(Violation::Invented { to, token });
            } else if !was_last {
                findings.violations.push(Violation::Duplicate { to, token, at: come[0].0.at });
            }
            return;
        };
        let lived = (message.first_sent, message.acknowledged.unwrap_or(Micros::MAX));
        let invited =
            |window: &Window| window.asked <= lived.1 && window.ended.is_none_or(|ended| ended >= lived.0);
        if !self.audience.windows(stream).any(invited) {
            findings.violations.push(Violation::Uninvited { to: to.clone(), token });
        }
        let qos = self.audience.windows(stream).map(|window| window.qos.min(stream.qos)).max();
        for (delivery, _) in come {
            if Some(delivery.qos) != qos {
                let (to, qos) = (to.clone(), delivery.qos);
                findings.violations.push(Violation::OtherQoS { to, token, qos });
            }
        }
        // At QoS 1 a publisher that sends again may have been understood both times; and to a subscription
        // at QoS 0 a message may have gone before it, or that its packet id is taken, was on disk.
        let again = stream.qos == QoS::AtLeastOnce || qos == Some(QoS::AtMostOnce);
        let copies = if again { message.sends } else { 1 };
        // Each delivery explains at most one repetition: each copy of the message is repeated by itself.
        let mut earlier: Vec<Come<'_>> = Vec::new();
        let mut unexplained = 0;
        for delivery in come {
            let explained =
                |before: &Come<'_>| may_repeat(self.history, self.settled, *before, delivery.0.at);
            match earlier.iter().position(explained).filter(|_| qos == Some(QoS::AtLeastOnce)) {
                Some(at) => {
                    earlier.swap_remove(at);
                    findings.repeated += 1;
                }
                None => unexplained += 1,
            }
            if unexplained > copies {
                let at = delivery.0.at;
                findings.violations.push(Violation::Duplicate { to: to.clone(), token, at });
            }
            earlier.push(*delivery);
        }
    }
}

/// Whether a message at QoS 1 may come once more at `again`, after this delivery.
pub(super) fn may_repeat(
    history: &History,
    settled: &Settled,
    (before, connection): Come<'_>,
    again: Micros,
) -> bool {
    let death = history.deaths.iter().copied().find(|death| *death >= connection.begun);
    let over = connection.ended.unwrap_or(Micros::MAX).min(death.unwrap_or(Micros::MAX));
    if again < over {
        return false;
    }
    let Some(sent) = before.acknowledged else { return true };
    let pong = connection.pings.iter().find(|(ping, _)| *ping >= sent).map(|(_, pong)| *pong);
    let Some(processed) = pong.or(connection.goodbye) else { return true };
    death.is_some_and(|death| death < again && !settled.between(processed, death))
}

fn check_will(number: usize, will: &Will, history: &History, settled: &Settled, findings: &mut Findings) {
    let violated = match will.fate {
        // What is missing is told elsewhere.
        Fate::Due | Fate::Open => will.seen > 1,
        Fate::Cancelled => will.seen > 0,
        Fate::TakenBack(at) => {
            let death = history.deaths.iter().copied().find(|death| *death >= will.connected);
            let survived = death.is_none_or(|death| settled.between(at, death));
            will.seen > u32::from(!survived)
        }
    };
    if violated {
        findings.violations.push(Violation::Will { number, fate: will.fate, seen: will.seen });
    }
}

/// Answers whether what was processed is on disk.
pub(super) struct Settled {
    /// Messages that were written down: when first sent; the earliest acknowledgement of it and all after.
    written: Vec<(Micros, Micros)>,
}

impl Settled {
    fn new(history: &History) -> Self {
        let kept = |stream: &&Stream| stream.qos > QoS::AtMostOnce && matches(KEPT, stream.topic);
        let since = history.subscribers.iter().flat_map(|subscriber| &subscriber.windows);
        let since = since.filter(|window| window.filter == KEPT && window.qos > QoS::AtMostOnce);
        let since = since.filter_map(|window| window.granted).min().unwrap_or(Micros::MAX);
        let mut written: Vec<(Micros, Micros)> = history
            .streams
            .iter()
            .filter(kept)
            .flat_map(|stream| &stream.messages)
            .filter(|message| message.first_sent > since)
            .filter_map(|message| Some((message.first_sent, message.acknowledged?)))
            .collect();
        written.sort_unstable();
        let mut earliest = Micros::MAX;
        for (_, acknowledged) in written.iter_mut().rev() {
            earliest = earliest.min(*acknowledged);
            *acknowledged = earliest;
        }
        Self { written }
    }

    /// Whether what was processed at `processed` was on disk before `death`.
    fn between(&self, processed: Micros, death: Micros) -> bool {
        let after = self.written.partition_point(|(sent, _)| *sent <= processed + RECORDED_WITHIN);
        self.written.get(after).is_some_and(|(_, acknowledged)| *acknowledged < death)
    }
}

/// MQTT 5.0, 4.7, once more, from the standard.
fn matches(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}
