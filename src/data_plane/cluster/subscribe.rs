//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5.0, 3.8.4, 3.10.4; PRODUCT ).

use super::pending::{Attachment, Awaiting, Undo};
use super::{Cluster, RecordOutcome, topic_within_limits};
use crate::data_plane::broker::Slot;
use crate::data_plane::broker::share_names::Full;
use crate::data_plane::broker::subscription_index::Subscriber;
use crate::data_plane::protocol::{PacketId, ReasonCode, Subscribe, SubscribeFilter, Unsubscribe};
use crate::data_plane::session::progress::Note;
use crate::data_plane::session::{HeldSubscription, Replay};
use crate::model::{Now, QoS, RefusalKind, RefusalReason, Subscription, SubscriptionOrigin, TopicFilter};
use crate::seam::ports::SessionWrite;

/// How many filters a session may have where its cluster sets no limit: they are written down together
/// with its progress, which must not grow without bound.
const FILTERS_MAX: u32 = 10_000;

/// Why a filter is refused: what its client is told, the stable word, and for people.
pub(super) type NotGranted = (ReasonCode, RefusalReason, String);

/// What became of one filter.
pub(super) struct Granted {
    reason: ReasonCode,
    pub(super) before: Option<Subscription>,
    /// What of the retained messages was owed to the subscription before.
    owed: Option<Replay>,
}

impl Cluster {
    /// Subscribes to each filter as if alone (`[MQTT-3.8.4-5]`). SUBACK of a persistent session
    /// follows the commit of its subscriptions; messages may come before it (3.8.4).
    pub(super) fn subscribe(&mut self, now: Now, attachment: Attachment, subscribe: Subscribe) {
        let Subscribe { packet_id, subscription_id, filters, .. } = subscribe;
        if let Err(too_fast) = self.throttle.rates.subscribe(&self.rules.quota.rates, now.mono) {
            let why = too_fast.why();
            let reasons = vec![ReasonCode::QuotaExceeded; filters.len()];
            self.tell_not_subscribed(now, attachment.slot, ReasonCode::QuotaExceeded, too_fast.reason, &why);
            self.session(attachment.slot).answer_subscribe(packet_id, reasons, Some(&why));
            return;
        }
        let durable = self.session(attachment.slot).durable;
        if durable && self.store_away {
            let reasons = vec![ReasonCode::UnspecifiedError; filters.len()];
            let why = Some("the session store is away; try again soon");
            self.session(attachment.slot).answer_subscribe(packet_id, reasons, why);
            return;
        }
        if filters.iter().any(|wanted| wanted.filter.pattern().starts_with("$SYS/")) {
            self.refresh_system_topics(now);
        }
        let (mut reasons, mut undo, mut why) = (Vec::new(), Vec::new(), None);
        for SubscribeFilter { filter, qos, no_local, retain_as_published, retain_handling } in filters {
            let identifier = subscription_id;
            let subscription = Subscription {
                filter: filter.clone(),
                qos,
                no_local,
                retain_as_published,
                retain_handling,
                identifier,
                origin: SubscriptionOrigin::Client,
            };
            match self.subscribe_one(now, attachment.slot, subscription, !durable) {
                Ok(granted) => {
                    reasons.push(granted.reason);
                    undo.push(Undo { filter, before: granted.before, owed: granted.owed });
                }
                Err((code, reason, text)) => {
                    reasons.push(code);
                    self.tell_not_subscribed(now, attachment.slot, code, reason, &text);
                    why = Some(text);
                }
            }
        }
        if durable && !undo.is_empty() {
            // Where its filters begin, and what they are owed, must outlive the SUBACK.
            self.save(attachment.slot);
            self.save_groups_of(attachment.slot);
        }
        let awaiting = Awaiting::SubAck { attachment, packet_id, reasons, why, undo };
        self.answer_when_recorded(now, durable, awaiting);
    }

    /// A filter, or all of a SUBSCRIBE, was refused.
    pub(super) fn tell_not_subscribed(
        &mut self,
        now: Now,
        slot: Slot,
        code: ReasonCode,
        reason: RefusalReason,
        why: &str,
    ) {
        let refusal = self.refusal_of(slot, RefusalKind::Subscribe, code, reason, why.to_owned(), now.wall);
        self.effects.refusals.push(refusal);
    }

    /// Unsubscribes from each filter; UNSUBACK of a persistent session follows the commit.
    pub(super) fn unsubscribe(&mut self, now: Now, attachment: Attachment, unsubscribe: Unsubscribe) {
        let Attachment { slot, .. } = attachment;
        // Whom that could not be told has waited until there was a token.
        if let Err(too_fast) = self.throttle.rates.unsubscribe(&self.rules.quota.rates, now.mono) {
            self.refuse_unsubscribe(now, slot, &unsubscribe, too_fast);
            return;
        }
        let durable = self.session(slot).durable;
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        for filter in unsubscribe.filters {
            let existed = self.unsubscribe_one(slot, &filter);
            if existed {
                self.tell_unsubscribed(now, slot, &filter);
            }
            // [MQTT-3.10.4-1]
            reasons.push(if existed { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted });
        }
        let packet_id = unsubscribe.packet_id;
        let changed = reasons.contains(&ReasonCode::Success);
        if durable && changed {
            // While the database is away the write waits there, and UNSUBACK need not: what the session
            // subscribes to is also written down here, and after a crash that holds.
            self.save(slot);
        }
        let waits = durable && changed && !self.store_away;
        let awaiting = Awaiting::UnsubAck { attachment, packet_id, reasons };
        if waits {
            self.ticket_last_write(awaiting);
        } else if let Awaiting::UnsubAck { reasons, .. } = awaiting {
            self.session(slot).answer_unsubscribe(packet_id, reasons, None);
        }
    }

    /// The subscriptions of a SUBSCRIBE were committed, or not.
    pub(super) fn subscriptions_recorded(&mut self, now: Now, awaited: Awaiting, outcome: RecordOutcome) {
        let Awaiting::SubAck { attachment, packet_id, mut reasons, mut why, undo } = awaited else {
            return;
        };
        if self.attached_session(attachment).is_none() {
            return;
        }
        if outcome == RecordOutcome::Committed {
            self.answer_subscribed(now, attachment.slot, packet_id, reasons, why.as_deref(), &undo);
            return;
        }
        // What is answered with an error must not be in force.
        for Undo { filter, before, owed } in undo.into_iter().rev() {
            match before {
                None => _ = self.unsubscribe_one(attachment.slot, &filter),
                Some(before) => self.resubscribe(attachment.slot, before, owed),
            }
        }
        reasons.fill(ReasonCode::UnspecifiedError);
        why.get_or_insert_with(|| "the session store is away; try again soon".to_owned());
        self.session(attachment.slot).answer_subscribe(packet_id, reasons, why.as_deref());
        self.touch(attachment.slot);
    }

    /// The removals of an UNSUBSCRIBE were committed, or wait for the database.
    pub(super) fn removals_recorded(
        &mut self,
        attachment: Attachment,
        packet_id: PacketId,
        reasons: Vec<ReasonCode>,
    ) {
        if let Some(session) = self.attached_session(attachment) {
            session.answer_unsubscribe(packet_id, reasons, None);
            self.touch(attachment.slot);
        }
    }

    fn answer_when_recorded(&mut self, now: Now, durable: bool, awaiting: Awaiting) {
        let any_granted = matches!(&awaiting, Awaiting::SubAck { reasons, .. }
            if reasons.iter().any(|reason| !reason.is_error()));
        if durable && any_granted {
            self.ticket_last_write(awaiting);
        } else if let Awaiting::SubAck { attachment, packet_id, reasons, why, undo } = awaiting {
            self.answer_subscribed(now, attachment.slot, packet_id, reasons, why.as_deref(), &undo);
        }
    }

    /// Writes are committed in order: the last one's fate is the fate of all before it.
    pub(super) fn ticket_last_write(&mut self, awaiting: Awaiting) {
        let ticket = self.pending.ticket(awaiting);
        if let Some((_, slot)) = self.effects.writes.last_mut() {
            *slot = Some(ticket);
        }
    }

    fn answer_subscribed(
        &mut self,
        now: Now,
        slot: Slot,
        packet_id: PacketId,
        reasons: Vec<ReasonCode>,
        why: Option<&str>,
        granted: &[Undo],
    ) {
        self.session(slot).answer_subscribe(packet_id, reasons, why);
        for Undo { filter, .. } in granted {
            self.grant_owed(slot, filter);
        }
        self.catch_up(now, slot);
        self.touch(slot);
        self.tell_subscribed(now, slot, granted.iter().map(|undo| &undo.filter));
    }

    /// Puts a subscription in force. What it is owed of the retained messages waits until it is answered,
    /// unless it is `granted` here.
    pub(super) fn subscribe_one(
        &mut self,
        now: Now,
        slot: Slot,
        subscription: Subscription,
        is_granted: bool,
    ) -> Result<Granted, NotGranted> {
        check_filter(&subscription.filter)?;
        self.may_subscribe(slot, &subscription)?;
        let (session_id, held, is_held) = {
            let session = self.session(slot);
            let held = session.subscription(subscription.filter.as_str()).cloned();
            (session.id, session.subscriptions.len(), held)
        };
        if is_held.is_none() {
            self.check_room(held)?;
            self.check_share(slot, &subscription.filter)?;
        }
        let owed = self.owe(now, slot, (&subscription, is_held.is_none()), is_granted);
        let reason = granted(subscription.qos);
        let write = SessionWrite::Subscribe(session_id, Box::new(subscription.clone()));
        self.effects.writes.push((write, None));
        let entry = self.enlist(slot, subscription, is_held.as_ref());
        let session = self.session(slot);
        let same = |held: &&mut HeldSubscription| held.filter == entry.filter && held.group == entry.group;
        if let Some(held) = session.subscriptions.iter_mut().find(same) {
            *held = entry;
        } else {
            // A device has one or two: room for four would be a third of what its session takes.
            session.subscriptions.reserve_exact(usize::from(session.subscriptions.len() < 2));
            session.subscriptions.push(entry);
        }
        Ok(Granted { reason, before: is_held.map(|held| held.subscription), owed })
    }

    /// Puts the options of a subscription back, if it is still there.
    fn resubscribe(&mut self, slot: Slot, before: Subscription, owed: Option<Replay>) {
        let session = self.session(slot);
        let same = |held: &HeldSubscription| held.subscription.filter == before.filter;
        let Some(at) = session.subscriptions.iter().position(same) else { return };
        let (id, held) = (session.id, session.subscriptions[at].clone());
        self.owe_as_before(slot, &before, owed);
        self.effects.writes.push((SessionWrite::Subscribe(id, Box::new(before.clone())), None));
        let held = self.enlist(slot, before, Some(&held));
        self.session(slot).subscriptions[at] = held;
        self.judge_subscriptions(slot);
    }

    /// Puts a subscription where publishing finds it, in place of `replaced`. Of one that is replaced
    /// nothing is lost (`[MQTT-3.8.4-4]`): it goes on where it is, unless it did not read the log.
    pub(super) fn enlist(
        &mut self,
        slot: Slot,
        subscription: Subscription,
        replaced: Option<&HeldSubscription>,
    ) -> HeldSubscription {
        let durable = self.session(slot).durable;
        let was_assured = replaced.is_some_and(|held| held.assured);
        let assured = was_assured || subscription.qos > QoS::AtMostOnce;
        let (filter, group) = if subscription.filter.shared().is_some() {
            let (filter, group) = self.join_group(slot, &subscription, durable, replaced.is_none());
            (filter, Some(group))
        } else {
            let subscriber = Subscriber::new(slot, &subscription, durable && assured);
            let filter = self.index.put(&subscription.filter, subscriber);
            let is_online = self.session(slot).link.is_some();
            self.index.set_online(filter, slot, is_online);
            (filter, None)
        };
        let start = replaced
            .filter(|held| was_assured && !held.muted)
            .map_or_else(|| self.log.tail(), |held| held.start);
        HeldSubscription { subscription, filter, group, start, assured, muted: false }
    }

    /// PRODUCT.
    fn check_room(&self, held: usize) -> Result<(), NotGranted> {
        let quota = &self.rules.quota;
        let limit = quota.filters_per_client.map_or(FILTERS_MAX, |limit| limit.min(FILTERS_MAX));
        if held >= limit as usize {
            return Err(no_room(RefusalReason::FiltersPerClient, limit, held));
        }
        let in_use = self.index.len();
        if let Some(limit) = quota.subscriptions.filter(|limit| in_use >= *limit) {
            return Err(no_room(RefusalReason::Subscriptions, limit, in_use as usize));
        }
        Ok(())
    }

    /// PRODUCT Q-10: whether one more session may share this filter, if it is shared.
    fn check_share(&self, slot: Slot, filter: &TopicFilter) -> Result<(), NotGranted> {
        let Some(shared) = filter.shared() else { return Ok(()) };
        let is_new = self.groups.find(filter).is_none();
        let full = self.groups.names.room_for(&self.rules.quota, shared.group, is_new, slot);
        full.map_err(|Full { reason, limit, in_use }| no_room(reason, limit, in_use as usize))
    }

    pub(super) fn unsubscribe_one(&mut self, slot: Slot, filter: &TopicFilter) -> bool {
        let session = self.session(slot);
        let same = |held: &HeldSubscription| held.subscription.filter == *filter;
        let Some(at) = session.subscriptions.iter().position(same) else { return false };
        let held = session.subscriptions.swap_remove(at);
        let session_id = session.id;
        self.owe_nothing(slot, filter);
        self.release(slot, &held);
        self.effects.writes.push((SessionWrite::Unsubscribe(session_id, filter.clone()), None));
        true
    }

    /// Takes a session off what it subscribed to; a filter's postings go with its last subscriber.
    pub(super) fn release(&mut self, slot: Slot, held: &HeldSubscription) {
        let unused = match held.group {
            Some(group) => self.leave_group(slot, group),
            None => self.index.remove(held.filter, slot),
        };
        if unused {
            self.log.forget(held.filter);
            self.trimming.forget(held.filter);
        }
    }

    /// Tells the index that a session got its connection, or lost it.
    pub(super) fn show_online(&mut self, slot: Slot, online: bool) {
        if online {
            self.judge_subscriptions(slot);
        }
        let Self { sessions, index, .. } = self;
        let held = &sessions[slot.0 as usize].subscriptions;
        for HeldSubscription { filter, muted, .. } in held.iter().filter(|held| held.group.is_none()) {
            index.set_online(*filter, slot, online && !muted);
        }
    }

    /// From here on the session's messages come from the log.
    pub(super) fn make_durable(&mut self, slot: Slot) {
        let tail = self.log.tail();
        let Self { sessions, index, groups, .. } = self;
        let session = &mut sessions[slot.0 as usize];
        session.durable = true;
        session.outbound.position = tail;
        let under_way = session.outbound.exchanges().filter(|it| it.delivery.is_written_by_itself());
        let under_way: Vec<Note> = under_way.map(|it| Note::Exchange(it.packet_id)).collect();
        session.notes.extend(under_way);
        for held in &mut session.subscriptions {
            held.start = tail;
            if let Some(group) = held.group {
                groups.make_durable(group, index, tail);
            } else {
                let subscriber = Subscriber::new(slot, &held.subscription, held.assured);
                index.put(&held.subscription.filter, subscriber);
            }
        }
        if let Some(link) = session.link.as_mut() {
            link.caught_up = false;
        }
        self.owe_durably(slot);
        self.save(slot);
        self.save_groups_of(slot);
    }
}

fn no_room(reason: RefusalReason, limit: u32, in_use: usize) -> NotGranted {
    let why = format!("quota {}: limit {limit}, in use {in_use}", reason.as_str());
    (ReasonCode::QuotaExceeded, reason, why)
}

/// PRODUCT Q-9.
fn check_filter(filter: &TopicFilter) -> Result<(), NotGranted> {
    topic_within_limits(filter.as_str(), filter.levels())
        .map_err(|why| (ReasonCode::TopicFilterInvalid, RefusalReason::FilterInvalid, why))
}

fn granted(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
    }
}
