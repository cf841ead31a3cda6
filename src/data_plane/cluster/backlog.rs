//! What waits for a session and is under way to it, when somebody asks (PRODUCT S-14).
//!
//! Nothing is counted before. What is in memory is counted at once; what of it lies on disk only is left as a
//! question ([`Traffic::on_disk`]) with whose answer the whole is complete. A session at the end of
//! the log asks the disk nothing. The question is a value that whoever asked carries to the disk and back: the
//! cluster remembers nothing of it, and may change meanwhile.
//!
//! Counted are messages that are found under the session's filters. Some of them it will not get: those
//! that expire before, its own under a subscription with no local, and, of a session that has many
//! filters, those of another filter with the same key. Retained messages owed to a new subscription are
//! not counted.

use super::Cluster;
use crate::data_plane::broker::shared_group::SharedGroup;
use crate::data_plane::message_log::{COUNTED_MAX, CountRequest, Counted, Found};
use crate::data_plane::session::outbound::{Outbound, Phase};
use crate::data_plane::session::{HeldSubscription, Session};
use crate::model::{ClientId, FilterId, Seq};
use crate::seam::backlog::{Backlog, Oldest, SessionTraffic, SubscriptionTraffic};
use crate::seam::command::CommandError;

/// What is known of a session's messages from memory.
#[derive(Debug)]
pub struct Traffic {
    known: SessionTraffic,
    /// For each subscription which of the counted lists is its.
    lists: Vec<Option<usize>>,
    in_memory: Counted,
    on_disk: Option<CountRequest>,
}

/// Whether so many messages wait for a session.
#[derive(Clone, Debug)]
pub enum Behind {
    /// Whether they do.
    Known(bool),
    /// They do if counting these on disk reaches its bound.
    OnDisk(CountRequest),
}

impl Traffic {
    /// What is to be counted on disk, if anything.
    pub fn on_disk(&self) -> Option<&CountRequest> {
        self.on_disk.as_ref()
    }

    /// The whole, with what was counted on disk; `None` when that could not be done.
    pub fn complete(self, on_disk: Option<Counted>) -> SessionTraffic {
        let Self { mut known, lists, in_memory, on_disk: asked } = self;
        let is_known = asked.is_none() || on_disk.is_some();
        let earlier = on_disk.unwrap_or_else(|| Counted::none(in_memory.each.len()));
        let counted = earlier.and(&in_memory);
        let backlog = &mut known.backlog;
        backlog.messages += counted.messages;
        backlog.bytes += counted.bytes;
        backlog.is_complete = is_known && !counted.stopped;
        let oldest = counted.oldest.map(|(seq, published_at)| Oldest { position: Some(seq), published_at });
        backlog.oldest = oldest.filter(|_| is_known).or(backlog.oldest);
        for (subscription, list) in known.subscriptions.iter_mut().zip(lists) {
            subscription.lag += list.map_or(0, |list| counted.each[list]);
        }
        known
    }
}

impl Cluster {
    /// What waits for the session of `client_id` and is under way to it.
    ///
    /// # Errors
    /// When there is no such session.
    pub fn traffic_of(&self, client_id: &ClientId) -> Result<Traffic, CommandError> {
        let slot = self.registry.get(client_id.as_str()).ok_or(CommandError::NoSuchSession)?;
        let session = &self.sessions[slot.0 as usize];
        let mut cursors = Vec::new();
        let mut lists = vec![None; session.subscriptions.len()];
        let own = |held: &HeldSubscription| held.group.is_none();
        for (held, list) in session.subscriptions.iter().zip(&mut lists).filter(|(held, _)| own(held)) {
            *list = own_cursor(session, held).map(|cursor| place_in(&mut cursors, cursor));
        }
        let merged = cursors.len();
        for (held, list) in session.subscriptions.iter().zip(&mut lists).filter(|(held, _)| !own(held)) {
            *list = self.group_cursor(held).map(|cursor| place_in(&mut cursors, cursor));
        }
        let (in_memory, found) = self.log.count(&cursors, merged, COUNTED_MAX);
        let on_disk = match found {
            Found::InMemory => None,
            Found::OnDisk(through) => Some(self.count_request(&cursors, merged, through)),
        };
        let subscriptions = session.subscriptions.iter().map(|held| self.subscription_traffic(session, held));
        let outbound = &session.outbound;
        let known = SessionTraffic {
            session_id: session.id,
            backlog: queued(outbound),
            in_flight: (outbound.in_flight() + outbound.frozen().len()) as u64,
            counters: session.counters(),
            trimmed: outbound.trimmed.as_ref().map_or(0, |trimmed| trimmed.messages),
            subscriptions: subscriptions.collect(),
        };
        Ok(Traffic { known, lists, in_memory, on_disk })
    }

    /// Whether at least so many messages wait for the session of `client_id`, as far as memory tells. Counts no
    /// further than it must.
    pub fn behind(&self, client_id: &ClientId, at_least: u64) -> Behind {
        let Some(slot) = self.registry.get(client_id.as_str()) else { return Behind::Known(false) };
        let session = &self.sessions[slot.0 as usize];
        let own = session.subscriptions.iter().filter(|held| held.group.is_none());
        let cursors: Vec<(FilterId, Seq)> = own.filter_map(|held| own_cursor(session, held)).collect();
        let (in_memory, found) = self.log.count(&cursors, cursors.len(), at_least);
        let missing = at_least.saturating_sub(in_memory.messages + session.outbound.queued().count() as u64);
        match found {
            Found::OnDisk(through) if missing > 0 => {
                let request = self.count_request(&cursors, cursors.len(), through);
                Behind::OnDisk(CountRequest { messages_max: missing, ..request })
            }
            _ => Behind::Known(missing == 0),
        }
    }

    pub(super) fn count_request(
        &self,
        cursors: &[(FilterId, Seq)],
        merged: usize,
        through: Seq,
    ) -> CountRequest {
        // A filter that somebody subscribes to is in the index; its place in the list must not shift.
        let key = |filter: FilterId| self.index.filter(filter).map(|entry| entry.key).unwrap_or_default();
        CountRequest {
            cluster: self.journal.cluster(),
            lists: cursors.iter().map(|(filter, after)| (key(*filter), *after)).collect(),
            merged,
            through,
            messages_max: COUNTED_MAX,
        }
    }

    /// Where a group's messages wait in the log, when some may.
    fn group_cursor(&self, held: &HeldSubscription) -> Option<(FilterId, Seq)> {
        let group = self.groups.get(held.group?)?;
        (group.durable && group.behind).then(|| (group.filter, group.reached()))
    }

    /// What of a subscription's messages does not wait in the log.
    fn subscription_traffic(&self, session: &Session, held: &HeldSubscription) -> SubscriptionTraffic {
        let filter = held.subscription.filter.clone();
        let outbound = &session.outbound;
        let (lag, in_flight) = if let Some(group) = held.group {
            let waiting = self.groups.get(group).map_or(0, SharedGroup::waiting);
            let live = outbound.exchanges().filter(|it| it.delivery.group == Some(group));
            let frozen = outbound.frozen().iter().filter(|it| it.group == Some(group));
            (waiting, Some(live.count() + frozen.count()))
        } else {
            let queued = outbound.queued().filter(|it| filter.matches(&it.message.topic));
            (queued.count(), own_in_flight(outbound, held))
        };
        SubscriptionTraffic { filter, lag: lag as u64, in_flight: in_flight.map(|count| count as u64) }
    }
}

/// Adds a cursor and gives its place.
fn place_in(cursors: &mut Vec<(FilterId, Seq)>, cursor: (FilterId, Seq)) -> usize {
    cursors.push(cursor);
    cursors.len() - 1
}

/// Where an own subscription's messages wait in the log, when some may.
pub(super) fn own_cursor(session: &Session, held: &HeldSubscription) -> Option<(FilterId, Seq)> {
    let is_caught_up = session.link.as_ref().is_some_and(|link| link.caught_up);
    let reads = session.durable && held.assured && !is_caught_up;
    reads.then(|| (held.filter, held.start.max(session.outbound.position)))
}

/// PUBLISH packets under an own subscription that are not acknowledged; `None` when it cannot be told.
fn own_in_flight(outbound: &Outbound, held: &HeldSubscription) -> Option<usize> {
    let of_own = |held_by: &Option<_>| held_by.is_none();
    if outbound.frozen().iter().any(|exchange| of_own(&exchange.group)) {
        return None;
    }
    let under_way = outbound.exchanges().filter(|exchange| {
        let delivery = &exchange.delivery;
        exchange.phase == Phase::Published
            && of_own(&delivery.group)
            && delivery.place.is_none_or(|place| place.seq > held.start)
            && held.subscription.filter.matches(&delivery.message.topic)
    });
    Some(under_way.count())
}

/// What waits in memory for a session that ends with its connection.
fn queued(outbound: &Outbound) -> Backlog {
    let bytes = outbound.queued().map(|delivery| delivery.message.size_bytes() as u64).sum();
    let oldest = |published_at| Oldest { position: None, published_at: Some(published_at) };
    Backlog {
        messages: outbound.queued().count() as u64,
        bytes,
        oldest: outbound.queued().next().map(|delivery| oldest(delivery.message.published_at)),
        is_complete: true,
    }
}
