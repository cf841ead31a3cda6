//! What changed since a checkpoint: the fold of changes, in memory.
//!
//! Holds one value for each key that was touched, and the prefixes that were deleted whole. So it is
//! bounded by the changes of the segments that no checkpoint covers yet.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use super::super::{Change, ClusterNo};

/// A key with its cluster. The order of all facts.
pub(super) type FactKey = (ClusterNo, Bytes);

/// Changes, folded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Delta {
    /// All older facts whose keys begin so are gone. None begins with another one.
    cleared: BTreeSet<FactKey>,
    /// Newer than what is cleared. `None`: there is nothing under the key any longer.
    facts: BTreeMap<FactKey, Option<Bytes>>,
}

impl Delta {
    /// Applies one change on top.
    pub(super) fn apply(&mut self, cluster: ClusterNo, change: &Change) {
        match change {
            Change::Put { key, value } => {
                self.facts.insert((cluster, key.clone()), Some(value.clone()));
            }
            Change::Delete { key } => {
                self.facts.insert((cluster, key.clone()), None);
            }
            Change::DeleteAll { prefix } => self.clear(cluster, prefix),
        }
    }

    /// Applies a newer delta on top.
    pub(super) fn fold(&mut self, newer: &Self) {
        for (cluster, prefix) in &newer.cleared {
            self.clear(*cluster, prefix);
        }
        for (key, value) in &newer.facts {
            self.facts.insert(key.clone(), value.clone());
        }
    }

    fn clear(&mut self, cluster: ClusterNo, prefix: &Bytes) {
        let below = |key: &&FactKey| key.0 == cluster && key.1.starts_with(prefix);
        let from = (Bound::Included((cluster, prefix.clone())), Bound::Unbounded);
        let gone: Vec<FactKey> =
            self.facts.range(from.clone()).map(|(key, _)| key).take_while(below).cloned().collect();
        for key in gone {
            self.facts.remove(&key);
        }
        if self.is_cleared(cluster, prefix) {
            return;
        }
        let narrower: Vec<FactKey> = self.cleared.range(from).take_while(below).cloned().collect();
        for key in narrower {
            self.cleared.remove(&key);
        }
        self.cleared.insert((cluster, prefix.clone()));
    }

    /// Whether older facts under a key are gone.
    pub(super) fn is_cleared(&self, cluster: ClusterNo, key: &Bytes) -> bool {
        // As no prefix begins with another one, only the last not above the key can be its beginning.
        let through = (Bound::Unbounded, Bound::Included((cluster, key.clone())));
        let last = self.cleared.range(through).next_back();
        last.is_some_and(|(of, prefix)| *of == cluster && key.starts_with(prefix))
    }

    /// The touched keys in order, each with its value or `None`.
    pub(super) fn facts(&self) -> &BTreeMap<FactKey, Option<Bytes>> {
        &self.facts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Changes over few and short keys, so that they meet.
    fn change() -> impl Strategy<Value = Change> {
        let key = || proptest::collection::vec(0_u8..3, 0..4).prop_map(Bytes::from);
        prop_oneof![
            3 => (key(), proptest::collection::vec(any::<u8>(), 0..2))
                .prop_map(|(key, value)| Change::Put { key, value: value.into() }),
            1 => key().prop_map(|key| Change::Delete { key }),
            1 => key().prop_map(|prefix| Change::DeleteAll { prefix }),
        ]
    }

    fn apply_to_map(facts: &mut BTreeMap<Bytes, Bytes>, change: &Change) {
        match change {
            Change::Put { key, value } => {
                facts.insert(key.clone(), value.clone());
            }
            Change::Delete { key } => {
                facts.remove(key);
            }
            Change::DeleteAll { prefix } => facts.retain(|key, _| !key.starts_with(prefix)),
        }
    }

    fn over(delta: &Delta, older: &BTreeMap<Bytes, Bytes>) -> BTreeMap<Bytes, Bytes> {
        let mut facts = older.clone();
        facts.retain(|key, _| !delta.is_cleared(ClusterNo(1), key));
        for ((_, key), value) in delta.facts() {
            match value {
                Some(value) => facts.insert(key.clone(), value.clone()),
                None => facts.remove(key),
            };
        }
        facts
    }

    proptest! {
        #[test]
        fn a_delta_over_older_facts_is_the_changes_one_by_one(
            before in proptest::collection::vec(change(), 0..20),
            first in proptest::collection::vec(change(), 0..20),
            second in proptest::collection::vec(change(), 0..20),
        ) {
            let mut facts = BTreeMap::new();
            for change in &before {
                apply_to_map(&mut facts, change);
            }
            let older = facts.clone();
            let (mut folded, mut newer) = (Delta::default(), Delta::default());
            for change in &first {
                apply_to_map(&mut facts, change);
                folded.apply(ClusterNo(1), change);
            }
            for change in &second {
                apply_to_map(&mut facts, change);
                newer.apply(ClusterNo(1), change);
            }
            // Another cluster's changes touch nothing.
            folded.apply(ClusterNo(2), &Change::Delete { key: Bytes::from_static(&[1]) });
            folded.fold(&newer);
            let mut seen = folded.clone();
            seen.facts.retain(|key, _| key.0 == ClusterNo(1));
            prop_assert_eq!(over(&seen, &older), facts);
        }
    }

    #[test]
    fn one_cluster_does_not_clear_another() {
        let mut delta = Delta::default();
        delta.apply(ClusterNo(1), &Change::DeleteAll { prefix: Bytes::new() });
        assert!(delta.is_cleared(ClusterNo(1), &Bytes::from_static(b"k")));
        assert!(!delta.is_cleared(ClusterNo(2), &Bytes::from_static(b"k")));
    }
}
