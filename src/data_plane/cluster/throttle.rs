//! Rates in force (PRODUCT 2): who publishes, subscribes or unsubscribes too fast, and what becomes of it.
//!
//! | too fast | v5 | 3.1, 3.1.1 |
//! | --- | --- | --- |
//! | PUBLISH at QoS 0 | dropped and counted | the same |
//! | PUBLISH at QoS 1, 2 | PUBACK or PUBREC 0x97, not kept | waits |
//! | SUBSCRIBE | SUBACK 0x97 for each filter | SUBACK 0x80 for each filter |
//! | UNSUBSCRIBE | UNSUBACK 0x83 for each filter | waits |
//!
//! (UNSUBACK has no 0x97: MQTT 5.0, 3.11.3.)
//!
//! What *waits* is taken in order when there are tokens again. Until then its connection is not read any
//! further, so that TCP slows the client, and its silence is not held against it. Only what was on its way
//! by then is kept here. PINGREQ and acknowledgements do not wait behind it: the standard puts them in no
//! order with a PUBLISH. When the connection ends while something waits, that was never acknowledged and
//! its client sends it again; a DISCONNECT among it still holds.

use std::collections::VecDeque;
use std::time::Duration;

use super::Cluster;
use super::detach::Ending;
use super::pending::Attachment;
use crate::data_plane::broker::Slot;
use crate::data_plane::broker::rates::{ClientRates, ClusterRates, TooFast};
use crate::data_plane::protocol::{Packet, ReasonCode, Unsubscribe};
use crate::data_plane::session::PublishAck;
use crate::data_plane::session::link::ConnId;
use crate::model::{Message, Monotonic, Now, QoS, Refusal, RefusalKind, RefusalReason, Timestamp};

/// What is used of the cluster's rates, and who waits.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    pub(super) rates: ClusterRates,
    /// By slot: the connections that have published under a rate, or been refused something.
    clients: Vec<Option<Box<Client>>>,
    /// Whose packets wait, in the order in which they are looked at.
    stalled: VecDeque<Attachment>,
    /// When the first of them may go on.
    go_on_at: Monotonic,
    /// Who was too fast since that was last written down.
    tallied: Vec<Slot>,
}

/// One connection.
#[derive(Debug, Default)]
struct Client {
    rates: ClientRates,
    /// What was on its way when it had to wait, in order.
    waiting: VecDeque<Packet>,
    tally: Option<Tally>,
}

/// How often a publisher was too fast since that was last written down: not a refusal for each message.
#[derive(Debug)]
struct Tally {
    kind: RefusalKind,
    why: TooFast,
    count: u64,
    first_at: Timestamp,
    last_at: Timestamp,
}

impl Throttle {
    fn client(&mut self, slot: Slot) -> &mut Client {
        let at = slot.0 as usize;
        if self.clients.len() <= at {
            self.clients.resize_with(at + 1, || None);
        }
        self.clients[at].get_or_insert_default()
    }

    fn known(&self, slot: Slot) -> Option<&Client> {
        self.clients.get(slot.0 as usize)?.as_deref()
    }

    /// Whether packets of this connection wait.
    pub(super) fn is_stalled(&self, slot: Slot) -> bool {
        self.known(slot).is_some_and(|client| !client.waiting.is_empty())
    }

    fn count(&mut self, slot: Slot, kind: RefusalKind, why: TooFast, at: Timestamp) -> Option<Tally> {
        let client = self.client(slot);
        let tally = Tally { kind, why, count: 1, first_at: at, last_at: at };
        match &mut client.tally {
            Some(known) if known.kind == kind && known.why.reason == why.reason => {
                known.count += 1;
                (known.why, known.last_at) = (why, at);
                None
            }
            other => {
                let before = other.replace(tally);
                if before.is_none() {
                    self.tallied.push(slot);
                }
                before
            }
        }
    }
}

/// What counts of a message against the bytes of its publisher.
fn bytes_of(topic: &str, payload: &[u8]) -> u32 {
    u32::try_from(topic.len() + payload.len()).unwrap_or(u32::MAX)
}

impl Cluster {
    /// Whether a client may publish so many bytes now. Takes nothing.
    fn check_publish(&mut self, now: Now, slot: Slot, bytes: u32) -> Result<(), TooFast> {
        let rates = self.rules.quota.rates;
        let Self { throttle, sent_uncharged, .. } = self;
        throttle.rates.sent(rates.messages, now.mono, std::mem::take(sent_uncharged));
        if rates.messages.is_none() && rates.client_messages.is_none() && rates.client_bytes.is_none() {
            return Ok(());
        }
        throttle.client(slot);
        let Throttle { clients, rates: of_cluster, .. } = throttle;
        let Some(Some(client)) = clients.get_mut(slot.0 as usize) else { return Ok(()) };
        of_cluster.check_publish(&rates, now.mono, &mut client.rates, bytes)
    }

    /// A client may publish this, or is told as far as it can be that it may not. Gives the bytes to be
    /// counted when it is done.
    pub(super) fn affords_publish(
        &mut self,
        now: Now,
        slot: Slot,
        message: &Message,
        ack: PublishAck,
    ) -> Option<u32> {
        let bytes = bytes_of(message.topic.as_str(), &message.payload);
        let Err(too_fast) = self.check_publish(now, slot, bytes) else { return Some(bytes) };
        self.tally(now, slot, RefusalKind::Publish, too_fast);
        let session = self.session(slot);
        if ack == PublishAck::Nothing {
            if let Some(link) = session.link.as_mut() {
                link.counters.dropped_over_rate += 1;
            }
        } else {
            // Only v5 comes here: what is not v5 waits before it is taken.
            session.refuse_publish(ack, ReasonCode::QuotaExceeded, &too_fast.why());
        }
        None
    }

    /// A client has published, and its message was sent to whom it was sent.
    pub(super) fn has_published(&mut self, now: Now, slot: Slot, bytes: u32) {
        let rates = self.rules.quota.rates;
        let sent = std::mem::take(&mut self.sent_uncharged);
        let Throttle { clients, rates: of_cluster, .. } = &mut self.throttle;
        // One that publishes under no rate is not among them.
        if let Some(Some(client)) = clients.get_mut(slot.0 as usize) {
            of_cluster.published(&rates, now.mono, &mut client.rates, bytes, sent);
        }
    }

    /// Takes the packet if it may be taken now; else it is kept until then.
    pub(super) fn take_in_time(&mut self, now: Now, attachment: Attachment, packet: Packet) {
        // Looked at where it is: a packet is large to be handed to and fro.
        if self.may_be_taken(now, attachment, &packet) {
            self.take_packet(now, attachment, packet);
        } else {
            self.throttle.client(attachment.slot).waiting.push_back(packet);
        }
    }

    /// Judges a packet. With the first that must wait its connection gets in line, and is read no further.
    fn may_be_taken(&mut self, now: Now, attachment: Attachment, packet: &Packet) -> bool {
        let Attachment { slot, conn } = attachment;
        if self.throttle.is_stalled(slot) {
            return matches!(
                packet,
                Packet::PingReq
                    | Packet::PubAck(_)
                    | Packet::PubRec(_)
                    | Packet::PubRel(_)
                    | Packet::PubComp(_)
            );
        }
        let Some((kind, too_fast)) = self.must_wait(now, slot, packet) else { return true };
        self.tally(now, slot, kind, too_fast);
        let at = now.mono.plus_millis(millis(too_fast.wait()));
        if self.throttle.stalled.is_empty() || at < self.throttle.go_on_at {
            self.throttle.go_on_at = at;
        }
        self.throttle.stalled.push_back(attachment);
        self.effects.reading.push((conn, false));
        false
    }

    /// Whether a packet must wait because its client cannot be told that it is refused, and why.
    fn must_wait(&mut self, now: Now, slot: Slot, packet: &Packet) -> Option<(RefusalKind, TooFast)> {
        if self.session(slot).link.as_ref().is_none_or(|link| link.version.is_v5()) {
            return None;
        }
        match packet {
            Packet::Publish(publish) if publish.qos > QoS::AtMostOnce => {
                let topic = publish.topic.as_ref().map_or("", |topic| topic.as_str());
                let verdict = self.check_publish(now, slot, bytes_of(topic, &publish.payload));
                verdict.err().map(|too_fast| (RefusalKind::Publish, too_fast))
            }
            Packet::Unsubscribe(_) => {
                let verdict = self.throttle.rates.check_unsubscribe(&self.rules.quota.rates, now.mono);
                verdict.err().map(|too_fast| (RefusalKind::Unsubscribe, too_fast))
            }
            _ => None,
        }
    }

    /// Takes what has waited, as far as there are tokens: of each connection in turn, another one first
    /// each time.
    pub(super) fn take_what_waits(&mut self, now: Now) {
        if self.throttle.stalled.is_empty() || now.mono < self.throttle.go_on_at {
            return;
        }
        let mut soonest: Option<Monotonic> = None;
        for _ in 0..self.throttle.stalled.len() {
            let Some(attachment) = self.throttle.stalled.pop_front() else { break };
            let Some(wait) = self.go_on(now, attachment) else { continue };
            let at = now.mono.plus_millis(millis(wait));
            soonest = Some(soonest.map_or(at, |soonest| soonest.min(at)));
            self.throttle.stalled.push_back(attachment);
        }
        self.throttle.go_on_at = soonest.unwrap_or_default();
        if self.throttle.stalled.len() > 1 {
            self.throttle.stalled.rotate_left(1);
        }
    }

    /// Whoever waits is looked at again soon: there may be room by now.
    pub(super) fn rates_may_have_changed(&mut self) {
        self.throttle.go_on_at = Monotonic::default();
    }

    /// Takes what waits of one connection. Gives how long the rest must wait.
    fn go_on(&mut self, now: Now, attachment: Attachment) -> Option<Duration> {
        let Attachment { slot, conn } = attachment;
        loop {
            let link = self.attached_session(attachment)?.link.as_mut()?;
            // It was not read, so it was not silent.
            link.last_seen = now.mono;
            let Some(packet) = self.throttle.client(slot).waiting.pop_front() else {
                self.effects.reading.push((conn, true));
                self.catch_up(now, slot);
                self.touch(slot);
                return None;
            };
            if let Some((_, too_fast)) = self.must_wait(now, slot, &packet) {
                self.throttle.client(slot).waiting.push_front(packet);
                self.touch(slot);
                return Some(too_fast.wait());
            }
            self.take_packet(now, attachment, packet);
        }
    }

    /// A connection has ended, of itself: whether its client had said goodbye in what still waits.
    fn said_goodbye(&self, slot: Slot) -> Option<bool> {
        self.throttle.known(slot)?.waiting.iter().find_map(|packet| match packet {
            Packet::Disconnect(disconnect) => Some(disconnect.reason != ReasonCode::Success),
            _ => None,
        })
    }

    /// Forgets a connection.
    pub(super) fn leave_line(&mut self, slot: Slot, conn: ConnId) {
        self.write_tally_down(slot);
        if let Some(client) = self.throttle.clients.get_mut(slot.0 as usize).and_then(Option::take)
            && !client.waiting.is_empty()
        {
            self.throttle.stalled.retain(|stalled| stalled.conn != conn);
        }
    }

    /// Refuses an UNSUBSCRIBE to a client that can be told so.
    pub(super) fn refuse_unsubscribe(
        &mut self,
        now: Now,
        slot: Slot,
        unsubscribe: &Unsubscribe,
        too_fast: TooFast,
    ) {
        self.tally(now, slot, RefusalKind::Unsubscribe, too_fast);
        let reasons = vec![ReasonCode::ImplementationSpecificError; unsubscribe.filters.len()];
        self.session(slot).answer_unsubscribe(unsubscribe.packet_id, reasons, Some(&too_fast.why()));
    }

    /// Counts that a client was too fast.
    fn tally(&mut self, now: Now, slot: Slot, kind: RefusalKind, why: TooFast) {
        if let Some(before) = self.throttle.count(slot, kind, why, now.wall) {
            self.tell_tally(slot, &before);
        }
    }

    /// Writes down who was too fast since the last time.
    pub(super) fn write_tallies_down(&mut self) {
        for slot in std::mem::take(&mut self.throttle.tallied) {
            self.write_tally_down(slot);
        }
    }

    fn write_tally_down(&mut self, slot: Slot) {
        let client = self.throttle.clients.get_mut(slot.0 as usize).and_then(Option::as_mut);
        if let Some(tally) = client.and_then(|client| client.tally.take()) {
            self.tell_tally(slot, &tally);
        }
    }

    fn tell_tally(&mut self, slot: Slot, tally: &Tally) {
        let Tally { kind, why, count, first_at, last_at } = tally;
        let code = match why.reason {
            RefusalReason::UnsubscribesPerSecond => ReasonCode::ImplementationSpecificError,
            _ => ReasonCode::QuotaExceeded,
        };
        let refusal = self.refusal_of(slot, *kind, code, why.reason, why.why(), *first_at);
        self.effects.refusals.push(Refusal { count: *count, last_at: *last_at, ..refusal });
    }

    /// The end of a connection that closed by itself.
    pub(super) fn ending_of_closed(&self, slot: Slot) -> Ending {
        self.said_goodbye(slot).map_or_else(Ending::lost, Ending::goodbye)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
