//! Letting go of what every reader has consumed (PRODUCT S-3, S-14).
//!
//! Done a little at a time, so that no turn is long. A message for a million sleeping devices is held
//! by the first of them that is found, and looked for there again: while they sleep it costs one look
//! each time, and while they wake one after the other each is passed once.

use std::collections::HashMap;

use super::Cluster;
use crate::data_plane::broker::shared_group::SharedGroup;
use crate::data_plane::session::Session;
use crate::model::{FilterId, FilterKey, Seq};

/// How many readers are looked at in one go; the last filter's are looked at to the end.
const LOOKS_AT_ONCE: usize = 20_000;

/// How far the search for what can go has come.
#[derive(Debug, Default)]
pub(super) struct Trimming {
    /// Filters that are still to be looked at, each with the position of its earliest message.
    todo: Vec<(FilterId, Seq)>,
    /// Where among a filter's subscribers the one stood that held its earliest message.
    holders: HashMap<FilterId, usize, foldhash::fast::RandomState>,
}

impl Trimming {
    /// A filter is no more.
    pub(super) fn forget(&mut self, filter: FilterId) {
        self.holders.remove(&filter);
    }
}

impl Cluster {
    /// Lets go of what every reader of a filter has consumed.
    pub(super) fn trim_log(&mut self) {
        if self.trimming.todo.is_empty() {
            self.trimming.todo = self.log.posted();
        }
        let mut looks = 0;
        while looks < LOOKS_AT_ONCE
            && let Some((filter, earliest)) = self.trimming.todo.pop()
        {
            looks += self.trim_filter(filter, earliest);
        }
    }

    /// Whether somebody still has to read a message at or before `last` under the filter that is found by
    /// `key` on disk.
    pub fn needs(&mut self, key: FilterKey, last: Seq) -> bool {
        let Self { sessions, index, log, groups, trimming, .. } = self;
        let Some(filter) = index.by_key(key) else { return false };
        let Some(entry) = index.filter(filter) else { return false };
        if groups.reading(entry.groups()).any(|group| group.floor() < last) {
            return true;
        }
        let tail = log.tail();
        let subscribers = entry.subscribers();
        let first = trimming.holders.get(&filter).map_or(0, |at| (*at).min(subscribers.len()));
        let mut places = (first..subscribers.len()).chain(0..first).filter(|at| subscribers[*at].reads_log);
        let holder = places.find(|at| {
            let session = &mut sessions[subscribers[*at].slot.0 as usize];
            consumed_through(session, filter, last, tail) < last
        });
        if let Some(at) = holder {
            trimming.holders.insert(filter, at);
        }
        holder.is_some()
    }

    /// Returns how many readers were looked at.
    fn trim_filter(&mut self, filter: FilterId, earliest: Seq) -> usize {
        let Self { sessions, index, log, groups, trimming, .. } = self;
        let Some(entry) = index.filter(filter) else {
            log.forget(filter);
            return 1;
        };
        let tail = log.tail();
        let subscribers = entry.subscribers();
        let mut consumed = groups.reading(entry.groups()).map(SharedGroup::floor).min();
        let first = trimming.holders.get(&filter).map_or(0, |at| (*at).min(subscribers.len()));
        let places = (first..subscribers.len()).chain(0..first);
        for (looks, at) in places.enumerate().filter(|(_, at)| subscribers[*at].reads_log) {
            let session = &mut sessions[subscribers[at].slot.0 as usize];
            let through = consumed_through(session, filter, earliest, tail);
            if through < earliest {
                trimming.holders.insert(filter, at);
                return looks + 1;
            }
            consumed = Some(consumed.map_or(through, |others| others.min(through)));
        }
        trimming.holders.remove(&filter);
        match consumed {
            Some(through) => log.trim(filter, through),
            None => log.forget(filter),
        }
        subscribers.len() + 1
    }
}

/// Up to where a session needs nothing of a filter any longer. Exact only below `earliest`.
fn consumed_through(session: &mut Session, filter: FilterId, earliest: Seq, tail: Seq) -> Seq {
    if session.link.as_ref().is_some_and(|link| link.caught_up) {
        session.outbound.position = tail;
    }
    let floor = session.outbound.floor();
    if floor >= earliest {
        return floor;
    }
    // What was published before it subscribed is not for it.
    let start = session.subscriptions.iter().find(|held| held.filter == filter && held.group.is_none());
    floor.max(start.map_or(Seq::ZERO, |held| held.start))
}
