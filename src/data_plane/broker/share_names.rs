//! What is shared under each name, as the quota counts it (PRODUCT Q-10).
//!
//! `$share/{name}/a` and `$share/{name}/b` are two shared groups, each with its own progress, and one name. The
//! quota is about names: how many there are, how many filters each has, and how many sessions are members of any of
//! these. Nothing here is written down: it follows the subscriptions, which are.

use std::collections::HashMap;

use super::Slot;
use crate::model::{Quota, RefusalReason, TopicFilter};

/// Every name under which something is shared.
#[derive(Debug, Default)]
pub struct ShareNames {
    by_name: HashMap<Box<str>, ShareName, foldhash::fast::RandomState>,
}

/// One name. Has at least one filter.
#[derive(Debug, Default)]
struct ShareName {
    filters: u32,
    /// Of each member how many of the filters it shares.
    members: HashMap<Slot, u32, foldhash::fast::RandomState>,
}

/// There is no room for another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Which limit.
    pub reason: RefusalReason,
    /// The limit.
    pub limit: u32,
    /// How much of it is in use.
    pub in_use: u32,
}

impl ShareNames {
    /// How many names there are.
    pub fn len(&self) -> u32 {
        count(self.by_name.len())
    }

    /// Whether nothing is shared.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whether a session that does not share a filter under `name` may begin to; `is_new` says whether nobody
    /// does. What exists already counts, but is not judged: a lowered limit takes nothing away.
    pub fn room_for(&self, quota: &Quota, name: &str, is_new: bool, slot: Slot) -> Result<(), Full> {
        let known = self.by_name.get(name);
        let check = |applies: bool, reason, limit: Option<u32>, in_use| match limit {
            Some(limit) if applies && in_use >= limit => Err(Full { reason, limit, in_use }),
            _ => Ok(()),
        };
        check(known.is_none(), RefusalReason::SharedGroups, quota.shared_groups, self.len())?;
        let filters = known.map_or(0, |known| known.filters);
        check(is_new, RefusalReason::FiltersPerSharedGroup, quota.filters_per_shared_group, filters)?;
        let members = known.map_or(0, |known| count(known.members.len()));
        let joins = known.is_none_or(|known| !known.members.contains_key(&slot));
        check(joins, RefusalReason::MembersPerSharedGroup, quota.members_per_shared_group, members)
    }

    /// A filter is shared that was not.
    pub fn filter_begins(&mut self, share: &TopicFilter) {
        self.by_name.entry(name_of(share).into()).or_default().filters += 1;
    }

    /// A filter is not shared any longer. Its members have left.
    pub fn filter_ends(&mut self, share: &TopicFilter) {
        let Some(known) = self.by_name.get_mut(name_of(share)) else { return };
        known.filters -= 1;
        if known.filters == 0 {
            self.by_name.remove(name_of(share));
        }
    }

    /// A session begins to share a filter.
    pub fn member_joins(&mut self, share: &TopicFilter, slot: Slot) {
        *self.by_name.entry(name_of(share).into()).or_default().members.entry(slot).or_default() += 1;
    }

    /// A session no longer shares a filter.
    pub fn member_leaves(&mut self, share: &TopicFilter, slot: Slot) {
        let Some(known) = self.by_name.get_mut(name_of(share)) else { return };
        if let Some(filters) = known.members.get_mut(&slot) {
            *filters -= 1;
            if *filters == 0 {
                known.members.remove(&slot);
            }
        }
    }
}

fn name_of(share: &TopicFilter) -> &str {
    share.shared().map_or("", |shared| shared.group)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Plan, QuotaOverrides};

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text).expect("a filter")
    }

    fn quota(shared_groups: u32, filters: u32, members: u32) -> Quota {
        let overrides = QuotaOverrides {
            shared_groups: Some(shared_groups),
            filters_per_shared_group: Some(filters),
            members_per_shared_group: Some(members),
            ..QuotaOverrides::default()
        };
        Quota::resolve(Plan::by_name("unlimited").expect("a plan"), &overrides)
    }

    /// What is shared, by whom, in plain words: the model that the counts are held against.
    #[derive(Default)]
    struct World {
        names: ShareNames,
        shares: std::collections::BTreeSet<(String, String, u32)>,
    }

    impl World {
        fn share(&mut self, name: &str, of: &str, slot: u32) {
            let share = filter(&format!("$share/{name}/{of}"));
            if !self.shares.iter().any(|(n, f, _)| n == name && f == of) {
                self.names.filter_begins(&share);
            }
            if self.shares.insert((name.to_owned(), of.to_owned(), slot)) {
                self.names.member_joins(&share, Slot(slot));
            }
        }

        fn leave(&mut self, name: &str, of: &str, slot: u32) {
            let share = filter(&format!("$share/{name}/{of}"));
            if self.shares.remove(&(name.to_owned(), of.to_owned(), slot)) {
                self.names.member_leaves(&share, Slot(slot));
                if !self.shares.iter().any(|(n, f, _)| n == name && f == of) {
                    self.names.filter_ends(&share);
                }
            }
        }

        fn room(&self, quota: &Quota, name: &str, of: &str, slot: u32) -> Result<(), Full> {
            let is_new = !self.shares.iter().any(|(n, f, _)| n == name && f == of);
            self.names.room_for(quota, name, is_new, Slot(slot))
        }
    }

    #[test]
    fn each_limit_is_exact_and_takes_nothing_away() {
        let mut world = World::default();
        let quota = quota(2, 2, 2);
        for (name, of, slot) in [("g", "a", 1), ("g", "b", 1), ("g", "a", 2), ("h", "a", 3)] {
            assert_eq!(world.room(&quota, name, of, slot), Ok(()), "{name} {of} {slot}");
            world.share(name, of, slot);
        }
        let full = |reason| Err(Full { reason, limit: 2, in_use: 2 });
        assert_eq!(world.room(&quota, "i", "a", 1), full(RefusalReason::SharedGroups));
        assert_eq!(world.room(&quota, "g", "c", 1), full(RefusalReason::FiltersPerSharedGroup));
        assert_eq!(world.room(&quota, "g", "a", 3), full(RefusalReason::MembersPerSharedGroup));
        // A member may share another of its group's filters, and another name still has room.
        assert_eq!(world.room(&quota, "g", "b", 2), Ok(()));
        assert_eq!(world.room(&quota, "h", "b", 9), Ok(()));
        // What leaves makes room.
        world.leave("g", "b", 1);
        assert_eq!(world.room(&quota, "g", "c", 1), Ok(()));
        world.leave("g", "a", 2);
        assert_eq!(world.room(&quota, "g", "a", 3), Ok(()));
        world.leave("h", "a", 3);
        assert_eq!(world.room(&quota, "i", "a", 1), Ok(()));
        assert_eq!(world.names.len(), 1);
    }

    #[test]
    fn the_counts_are_those_of_what_is_shared() {
        let mut world = World::default();
        let mut random = 7_u64;
        for _ in 0..5_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = |shift: u32, of: u64| (random >> shift) % of;
            let name = ["g", "h", "i"][usize::try_from(pick(33, 3)).expect("small")];
            let of = ["a", "b", "c/#"][usize::try_from(pick(37, 3)).expect("small")];
            let slot = u32::try_from(pick(41, 5)).expect("small");
            if pick(45, 2) == 0 {
                world.share(name, of, slot);
            } else {
                world.leave(name, of, slot);
            }
            let of_name: Vec<_> = world.shares.iter().filter(|(n, ..)| n == name).collect();
            let distinct = |what: &dyn Fn(&(String, String, u32)) -> String| {
                count(of_name.iter().map(|it| what(it)).collect::<std::collections::BTreeSet<_>>().len())
            };
            let known = world.names.by_name.get(name);
            assert_eq!(known.map_or(0, |k| k.filters), distinct(&|(_, f, _)| f.clone()));
            assert_eq!(known.map_or(0, |k| count(k.members.len())), distinct(&|(.., s)| s.to_string()));
        }
        for (name, of, slot) in world.shares.clone() {
            world.leave(&name, &of, slot);
        }
        assert!(world.names.is_empty());
    }
}
