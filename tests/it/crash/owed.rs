//! Persistent clients that subscribe anew, again and again, to topics that retain one message each: every
//! time they are owed all of them, whatever happens meanwhile.
//!
//! What is checked needs no end of what was asked before: a SUBSCRIBE that follows another while something of
//! that was still to come may have it come as well, so that many are carried over.

use std::collections::BTreeMap;

use holdfast::model::QoS;

use super::check::{Findings, Settled, Violation, may_repeat};
use super::history::{Connection, Delivery, History, Micros};
use super::session::Token;

/// How many topics each client has.
pub(super) const TOPICS: u32 = 40;

/// The first of the streams that stand for these clients.
pub(super) const STREAMS: u16 = 50_000;

/// A client and what came to it. At QoS 2 only what was new.
#[derive(Clone, Debug)]
pub(super) struct Collector {
    pub(super) name: &'static str,
    pub(super) stream: u16,
    pub(super) qos: QoS,
    pub(super) asked: Vec<Asked>,
    /// Nothing more came for a while, and nothing was asked since.
    pub(super) is_quiet: bool,
    pub(super) connections: Vec<Connection>,
    pub(super) deliveries: Vec<Delivery>,
}

/// A subscription, with everything until the next one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// When SUBSCRIBE was first sent.
    pub(super) at: Micros,
    /// How often it was sent.
    pub(super) sends: u32,
    /// How often a message may come for the sake of earlier ones.
    pub(super) carried: u32,
    /// SUBACK came.
    pub(super) granted: bool,
    /// UNSUBSCRIBE was sent.
    pub(super) renounced: bool,
}

impl Collector {
    pub(super) fn new(name: &'static str, stream: u16, qos: QoS) -> Self {
        let (asked, connections, deliveries) = (Vec::new(), Vec::new(), Vec::new());
        Self { name, stream, qos, asked, is_quiet: false, connections, deliveries }
    }

    /// The topics that have not come since the last SUBSCRIBE was first sent.
    pub(super) fn left(&self) -> Vec<u32> {
        let Some(last) = self.asked.last() else { return Vec::new() };
        let come = |number: &u32| {
            self.deliveries
                .iter()
                .rev()
                .take_while(|it| it.at >= last.at)
                .any(|it| it.token.number == *number)
        };
        (1..=TOPICS).filter(|number| !come(number)).collect()
    }

    /// How often a message may yet come for the sake of what was asked so far; `all_came`: every topic has since
    /// the last SUBSCRIBE, so one of the copies is not to come any more.
    pub(super) fn still_to_come(&mut self, all_came: bool) -> u32 {
        let is_quiet = std::mem::take(&mut self.is_quiet);
        let last = self.asked.last().filter(|_| !(all_came && is_quiet));
        last.map_or(0, |last| (last.sends + last.carried).saturating_sub(all_came.into()))
    }

    /// Everything so far was checked. What was asked last may still have something repeated.
    pub(super) fn next_round(&mut self) {
        let kept = self.asked.len().saturating_sub(1);
        self.asked.drain(..kept);
        self.is_quiet = true;
        let since = self.asked.first().map_or(Micros::MAX, |asked| asked.at);
        self.deliveries.retain(|delivery| delivery.at >= since);
        let kept = self.connections.len().saturating_sub(1);
        for connection in &mut self.connections[..kept] {
            connection.pings = Vec::new();
        }
    }

    fn lost(&self, lost: &mut Vec<Violation>) {
        if self.asked.last().is_some_and(|asked| asked.renounced) {
            return;
        }
        lost.extend(self.left().into_iter().map(|number| Violation::Lost {
            to: self.name.to_owned(),
            token: Token { stream: self.stream, number },
        }));
    }

    fn check(&self, history: &History, settled: &Settled, findings: &mut Findings) {
        for (at, asked) in self.asked.iter().enumerate() {
            findings.owed += usize::from(asked.granted);
            let until = self.asked.get(at + 1).map_or(Micros::MAX, |next| next.at);
            let mut by_topic: BTreeMap<Token, Vec<&Delivery>> = BTreeMap::new();
            for delivery in self.deliveries.iter().filter(|it| (asked.at..until).contains(&it.at)) {
                by_topic.entry(delivery.token).or_default().push(delivery);
            }
            for (token, come) in by_topic {
                self.check_topic(token, asked.sends + asked.carried, &come, history, settled, findings);
            }
        }
    }

    fn check_topic(
        &self,
        token: Token,
        copies: u32,
        come: &[&Delivery],
        history: &History,
        settled: &Settled,
        findings: &mut Findings,
    ) {
        let mut earlier: Vec<&Delivery> = Vec::new();
        let mut unexplained = 0;
        for delivery in come {
            let explains = |before: &&Delivery| {
                let connection = &self.connections[before.connection as usize];
                may_repeat(history, settled, (before, connection), delivery.at)
            };
            match earlier.iter().position(explains).filter(|_| self.qos == QoS::AtLeastOnce) {
                Some(at) => {
                    earlier.swap_remove(at);
                    findings.repeated += 1;
                }
                None => unexplained += 1,
            }
            if unexplained > copies {
                let (to, at) = (self.name.to_owned(), delivery.at);
                findings.violations.push(Violation::Duplicate { to, token, at });
            }
            earlier.push(delivery);
        }
    }
}

/// What has not come yet.
pub(super) fn missing(history: &History, missing: &mut Vec<Violation>) {
    history.collectors.iter().for_each(|collector| collector.lost(missing));
}

/// What came too often.
pub(super) fn check(history: &History, settled: &Settled, findings: &mut Findings) {
    for collector in &history.collectors {
        findings.delivered += collector.deliveries.len();
        collector.check(history, settled, findings);
    }
}
