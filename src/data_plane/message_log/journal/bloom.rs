//! A Bloom filter: a sealed segment says "not here" to most questions without a read.

use super::super::{ClusterNo, FilterKey};

/// About 1 wrong "perhaps" in 100.
const BITS_PER_FILTER: usize = 10;
const PROBES: u32 = 5;
/// Bounds the memory of a sealed segment. With more than about 100,000 filters in one segment it says
/// "perhaps" more often.
const BYTES_MAX: usize = 128 * 1024;

/// Which filters a segment may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bloom(Vec<u8>);

impl Bloom {
    pub(super) fn new(filters: usize) -> Self {
        Self(vec![0; (filters * BITS_PER_FILTER).div_ceil(8).clamp(1, BYTES_MAX)])
    }

    /// As written; empty ones are not.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        (!bytes.is_empty()).then_some(Self(bytes))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn insert(&mut self, cluster: ClusterNo, filter: FilterKey) {
        for bit in self.bits(cluster, filter) {
            self.0[bit / 8] |= 1 << (bit % 8);
        }
    }

    pub(super) fn may_hold(&self, cluster: ClusterNo, filter: FilterKey) -> bool {
        self.bits(cluster, filter).into_iter().all(|bit| self.0[bit / 8] & 1 << (bit % 8) != 0)
    }

    /// Double hashing: the key is a checksum, so its halves are as good as two hashes.
    fn bits(&self, cluster: ClusterNo, filter: FilterKey) -> [usize; PROBES as usize] {
        let mixed = filter.0 ^ u64::from(cluster.0).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let (first, step) = (mixed, mixed.rotate_left(32) | 1);
        let bits = self.0.len() as u64 * 8;
        let mut probes = [0; PROBES as usize];
        for (probe, no) in probes.iter_mut().zip(0..) {
            // Below `bits`, which is a length in memory.
            *probe = usize::try_from(first.wrapping_add(step.wrapping_mul(no)) % bits).unwrap_or(0);
        }
        probes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_forgets_and_seldom_errs() {
        let filters = 10_000;
        let key = |no: u64| FilterKey::of(&format!("devices/{no}/commands"));
        let mut bloom = Bloom::new(filters);
        for no in 0..filters as u64 {
            bloom.insert(ClusterNo(1), key(no));
        }
        assert!((0..filters as u64).all(|no| bloom.may_hold(ClusterNo(1), key(no))));
        let wrong = (0..10_000).filter(|no| bloom.may_hold(ClusterNo(2), key(*no))).count()
            + (10_000..20_000).filter(|no| bloom.may_hold(ClusterNo(1), key(*no))).count();
        assert!(wrong < 600, "{wrong} of 20,000 wrong answers");
    }

    #[test]
    fn has_a_bound() {
        assert_eq!(Bloom::new(100_000_000).as_bytes().len(), BYTES_MAX);
        assert_eq!(Bloom::new(0).as_bytes().len(), 1);
    }
}
