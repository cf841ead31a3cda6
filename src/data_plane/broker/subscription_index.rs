//! Topic → subscribers: the trie, who subscribes to each distinct filter, and a cache of matches.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use slab::Slab;
use smallvec::SmallVec;

use super::Slot;
use super::topic_trie::TopicTrie;
use crate::model::{FilterId, FilterKey, GroupId, QoS, Subscription, TopicFilter};

/// One session's subscription to one filter, as publishing needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// The session.
    pub slot: Slot,
    /// The greatest QoS it gets.
    pub qos: QoS,
    /// Not its own messages.
    pub no_local: bool,
    /// Keep the retain flag.
    pub retain_as_published: bool,
    /// Whether it reads the log: the session outlives its connection, and the QoS is 1 or 2 or was.
    pub reads_log: bool,
    /// The subscription identifier.
    pub identifier: Option<NonZeroU32>,
}

impl Subscriber {
    /// The subscriber that `subscription` makes of the session in `slot`.
    pub fn new(slot: Slot, subscription: &Subscription, reads_log: bool) -> Self {
        Self {
            slot,
            qos: subscription.qos,
            no_local: subscription.no_local,
            retain_as_published: subscription.retain_as_published,
            reads_log,
            identifier: subscription.identifier,
        }
    }
}

/// A distinct filter and who subscribes to it. Has at least one subscriber or group.
#[derive(Debug)]
pub struct FilterEntry {
    /// A filter with this pattern; `$share/{group}/` before it means nothing here.
    pub filter: TopicFilter,
    /// What its messages are found by on disk.
    pub key: FilterKey,
    /// Those with a connection first, so that a publish never looks at the others. Most filters of a fleet
    /// have one.
    subscribers: SmallVec<[Subscriber; 1]>,
    /// How many have a connection.
    online: usize,
    /// Shared groups on this filter.
    groups: SmallVec<[GroupId; 1]>,
    /// Positions in `subscribers`, kept only once there are many.
    #[allow(clippy::box_collection)] // few filters have it, and a million have the place for it
    by_slot: Option<Box<HashMap<Slot, u32, foldhash::fast::RandomState>>>,
    /// How many subscribers and groups read the log.
    log_readers: u32,
}

/// From this many subscribers on, a filter keeps a table of their positions.
const INDEXED_FROM: usize = 32;

impl FilterEntry {
    fn new(filter: TopicFilter) -> Self {
        Self {
            key: FilterKey::of(filter.pattern()),
            filter,
            subscribers: SmallVec::new(),
            online: 0,
            groups: SmallVec::new(),
            by_slot: None,
            log_readers: 0,
        }
    }

    /// Everyone who subscribes, in no order.
    pub fn subscribers(&self) -> &[Subscriber] {
        &self.subscribers
    }

    /// Everyone who subscribes and has a connection, in no order.
    pub fn online(&self) -> &[Subscriber] {
        &self.subscribers[..self.online]
    }

    /// Whether somebody subscribes who has no connection.
    pub fn has_offline(&self) -> bool {
        self.online < self.subscribers.len()
    }

    /// The shared groups on this filter, in no order.
    pub fn groups(&self) -> &[GroupId] {
        &self.groups
    }

    fn is_unused(&self) -> bool {
        self.subscribers.is_empty() && self.groups.is_empty()
    }

    /// Whether messages that match must be kept in the log.
    pub fn has_log_readers(&self) -> bool {
        self.log_readers > 0
    }

    fn position(&self, slot: Slot) -> Option<usize> {
        match &self.by_slot {
            Some(positions) => positions.get(&slot).map(|at| *at as usize),
            None => self.subscribers.iter().position(|s| s.slot == slot),
        }
    }

    fn put(&mut self, subscriber: Subscriber) {
        if let Some(at) = self.position(subscriber.slot) {
            self.log_readers -= u32::from(self.subscribers[at].reads_log);
            self.subscribers[at] = subscriber;
        } else {
            self.subscribers.push(subscriber);
            self.index_last();
        }
        self.log_readers += u32::from(subscriber.reads_log);
    }

    fn index_last(&mut self) {
        let at = |position: usize| u32::try_from(position).unwrap_or(u32::MAX);
        if let Some(positions) = &mut self.by_slot {
            let last = self.subscribers.len() - 1;
            positions.insert(self.subscribers[last].slot, at(last));
        } else if self.subscribers.len() >= INDEXED_FROM {
            let all = self.subscribers.iter().enumerate().map(|(i, s)| (s.slot, at(i)));
            self.by_slot = Some(Box::new(all.collect()));
        }
    }

    fn set_online(&mut self, slot: Slot, online: bool) {
        let Some(at) = self.position(slot) else { return };
        if (at < self.online) == online {
            return;
        }
        // Over the border: into the first place behind it, or the last before it.
        let place = if online { self.online } else { self.online - 1 };
        self.subscribers.swap(at, place);
        self.online = if online { self.online + 1 } else { self.online - 1 };
        if let Some(positions) = &mut self.by_slot {
            for at in [at, place] {
                positions.insert(self.subscribers[at].slot, u32::try_from(at).unwrap_or(u32::MAX));
            }
        }
    }

    fn remove(&mut self, slot: Slot) -> Option<Subscriber> {
        self.set_online(slot, false);
        let at = self.position(slot)?;
        let gone = self.subscribers.swap_remove(at);
        self.log_readers -= u32::from(gone.reads_log);
        if let Some(positions) = &mut self.by_slot {
            positions.remove(&slot);
            if let Some(moved) = self.subscribers.get(at) {
                positions.insert(moved.slot, u32::try_from(at).unwrap_or(u32::MAX));
            }
        }
        Some(gone)
    }
}

/// All subscriptions of one cluster by what they match.
#[derive(Debug, Default)]
pub struct SubscriptionIndex {
    trie: TopicTrie,
    filters: Slab<FilterEntry>,
    /// Filters by what their messages are found by on disk.
    by_key: HashMap<FilterKey, FilterId, foldhash::fast::RandomState>,
    /// Topic → matching filters. Emptied when a filter with a wildcard comes or goes.
    cache: HashMap<Box<str>, Arc<[FilterId]>, foldhash::fast::RandomState>,
    subscriptions: u32,
}

/// How many topics' matches are remembered; past it the memory is emptied and filled anew.
const CACHED_TOPICS_MAX: usize = 65_536;

impl SubscriptionIndex {
    /// How many subscriptions there are (PRODUCT Q-2).
    pub fn len(&self) -> u32 {
        self.subscriptions
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.subscriptions == 0
    }

    /// Adds a subscription, or replaces the one that the session has for the same filter.
    pub fn put(&mut self, filter: &TopicFilter, subscriber: Subscriber) -> FilterId {
        let id = self.trie.get(filter.pattern()).unwrap_or_else(|| self.add_filter(filter));
        let entry = &mut self.filters[id.0 as usize];
        let before = entry.subscribers.len();
        entry.put(subscriber);
        self.subscriptions += u32::from(entry.subscribers.len() > before);
        id
    }

    /// A session that subscribes to a filter got a connection, or lost it. New subscribers have none.
    pub fn set_online(&mut self, id: FilterId, slot: Slot, online: bool) {
        if let Some(entry) = self.filters.get_mut(id.0 as usize) {
            entry.set_online(slot, online);
        }
    }

    /// Takes a session's subscription to a filter out. Returns whether the filter went with it.
    pub fn remove(&mut self, id: FilterId, slot: Slot) -> bool {
        let Some(entry) = self.filters.get_mut(id.0 as usize) else { return false };
        self.subscriptions -= u32::from(entry.remove(slot).is_some());
        self.remove_unused(id)
    }

    /// The distinct filter that a shared group on `filter` reads.
    pub fn put_group(&mut self, filter: &TopicFilter, group: GroupId) -> FilterId {
        let id = self.trie.get(filter.pattern()).unwrap_or_else(|| self.add_filter(filter));
        self.filters[id.0 as usize].groups.push(group);
        id
    }

    /// From here on a group on this filter reads the log.
    pub fn group_reads_log(&mut self, id: FilterId) {
        self.filters[id.0 as usize].log_readers += 1;
    }

    /// Takes a group off a filter. Returns whether the filter went with it.
    pub fn remove_group(&mut self, id: FilterId, group: GroupId, read_log: bool) -> bool {
        let Some(entry) = self.filters.get_mut(id.0 as usize) else { return false };
        entry.groups.retain(|known| *known != group);
        entry.log_readers -= u32::from(read_log);
        self.remove_unused(id)
    }

    /// A session joined a shared group: its membership counts as a subscription (PRODUCT Q-2).
    pub fn member_joined(&mut self) {
        self.subscriptions += 1;
    }

    /// A session left a shared group.
    pub fn member_left(&mut self) {
        self.subscriptions -= 1;
    }

    fn remove_unused(&mut self, id: FilterId) -> bool {
        if !self.filters[id.0 as usize].is_unused() {
            return false;
        }
        let entry = self.filters.remove(id.0 as usize);
        self.trie.remove(entry.filter.pattern());
        // Not if another filter with the same key came later.
        if self.by_key.get(&entry.key) == Some(&id) {
            self.by_key.remove(&entry.key);
        }
        self.forget_matches(entry.filter.pattern());
        true
    }

    /// The distinct filters that match `topic`.
    pub fn matches(&mut self, topic: &str) -> Arc<[FilterId]> {
        if let Some(known) = self.cache.get(topic) {
            return Arc::clone(known);
        }
        let mut found = Vec::new();
        self.trie.matches(topic, &mut found);
        let found: Arc<[FilterId]> = found.into();
        if self.cache.len() >= CACHED_TOPICS_MAX {
            self.cache.clear();
        }
        self.cache.insert(topic.into(), Arc::clone(&found));
        found
    }

    /// The filter whose messages are found by `key` on disk.
    pub fn by_key(&self, key: FilterKey) -> Option<FilterId> {
        self.by_key.get(&key).copied()
    }

    /// The filter and its subscribers.
    pub fn filter(&self, id: FilterId) -> Option<&FilterEntry> {
        self.filters.get(id.0 as usize)
    }

    fn add_filter(&mut self, filter: &TopicFilter) -> FilterId {
        let entry = FilterEntry::new(filter.clone());
        let key = entry.key;
        let index = self.filters.insert(entry);
        let id = FilterId(u32::try_from(index).expect("fewer than 2^32 filters fit in memory"));
        self.by_key.insert(key, id);
        self.trie.insert(filter.pattern(), id);
        self.forget_matches(filter.pattern());
        id
    }

    /// A plain filter matches one topic only; one with wildcards may match any.
    fn forget_matches(&mut self, pattern: &str) {
        if pattern.contains(['+', '#']) {
            self.cache.clear();
        } else {
            self.cache.remove(pattern);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(slot: u32, qos: QoS, persistent: bool) -> Subscriber {
        let reads_log = persistent && qos > QoS::AtMostOnce;
        let slot = Slot(slot);
        Subscriber { slot, qos, no_local: false, retain_as_published: false, reads_log, identifier: None }
    }

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text).expect("a filter")
    }

    #[test]
    fn the_cache_follows_the_filters() {
        let mut index = SubscriptionIndex::default();
        assert!(index.matches("a/b").is_empty());
        let plain = index.put(&filter("a/b"), subscriber(1, QoS::AtLeastOnce, true));
        assert_eq!(*index.matches("a/b"), [plain]);
        let wild = index.put(&filter("a/+"), subscriber(1, QoS::AtLeastOnce, true));
        assert_eq!(index.matches("a/b").len(), 2);
        assert!(index.remove(plain, Slot(1)));
        assert_eq!(*index.matches("a/b"), [wild]);
        assert_eq!(index.len(), 1);
    }

    #[test]
    fn a_filter_counts_its_log_readers_through_every_change() {
        let mut index = SubscriptionIndex::default();
        let f = filter("a");
        let id = index.put(&f, subscriber(1, QoS::AtMostOnce, true));
        assert!(!index.filter(id).expect("kept").has_log_readers());
        index.put(&f, subscriber(1, QoS::AtLeastOnce, true));
        assert!(index.filter(id).expect("kept").has_log_readers());
        index.put(&f, subscriber(2, QoS::AtLeastOnce, false));
        assert!(!index.remove(id, Slot(1)));
        assert!(!index.filter(id).expect("kept").has_log_readers());
        assert!(!index.remove(id, Slot(7)), "not a subscriber");
        assert!(index.remove(id, Slot(2)));
        assert!(index.is_empty());
    }

    #[test]
    fn a_filter_knows_who_is_online_through_every_change() {
        let mut index = SubscriptionIndex::default();
        let f = filter("t");
        let mut id = FilterId(0);
        for slot in 0..100 {
            id = index.put(&f, subscriber(slot, QoS::AtLeastOnce, true));
        }
        let online = |index: &SubscriptionIndex| {
            let entry = index.filter(id).expect("kept");
            let mut slots: Vec<u32> = entry.online().iter().map(|s| s.slot.0).collect();
            slots.sort_unstable();
            assert_eq!(entry.has_offline(), slots.len() < entry.subscribers().len());
            slots
        };
        for slot in [7, 50, 99, 0, 50] {
            index.set_online(id, Slot(slot), true);
        }
        index.set_online(id, Slot(1), false);
        index.put(&f, subscriber(7, QoS::AtMostOnce, true));
        assert_eq!(online(&index), [0, 7, 50, 99]);
        index.remove(id, Slot(50));
        index.remove(id, Slot(51));
        index.set_online(id, Slot(0), false);
        assert_eq!(online(&index), [7, 99]);
        for slot in (1..99).filter(|slot| ![7, 50, 51].contains(slot)) {
            index.remove(id, Slot(slot));
        }
        assert_eq!(online(&index), [7, 99]);
        index.remove(id, Slot(0));
        assert!(!index.filter(id).expect("kept").has_offline());
    }

    #[test]
    fn many_subscribers_come_and_go_in_any_order() {
        let mut index = SubscriptionIndex::default();
        let f = filter("#");
        let mut id = FilterId(0);
        for slot in 0..200 {
            id = index.put(&f, subscriber(slot, QoS::AtLeastOnce, slot % 2 == 0));
        }
        for slot in (0..200).step_by(3) {
            index.remove(id, Slot(slot));
        }
        let mut left: Vec<u32> =
            index.filter(id).expect("kept").subscribers().iter().map(|s| s.slot.0).collect();
        left.sort_unstable();
        assert_eq!(left, (0..200).filter(|s| s % 3 != 0).collect::<Vec<_>>());
        for slot in left {
            index.remove(id, Slot(slot));
        }
        assert!(index.is_empty() && index.filter(id).is_none());
    }
}
