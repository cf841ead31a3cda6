//! How long something took, added up in buckets: what a histogram of the metrics shows.

use std::sync::atomic::{AtomicU64, Ordering};

/// How long something took each time, since the process started. Any task may add to it.
#[derive(Debug, Default)]
pub struct Latencies {
    buckets: [AtomicU64; Latency::BOUNDS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

/// The same at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// How often it took at most as long as the bound of the same place, and longer than the one before; the last
    /// for what took longer than every bound.
    pub buckets: [u64; Self::BOUNDS_MICROS.len() + 1],
    /// How long it took in all.
    pub sum_micros: u64,
}

impl Latency {
    /// From a sync of a fast disk to what nobody should have to wait for.
    pub const BOUNDS_MICROS: [u64; 13] =
        [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_000_000, 10_000_000];

    /// How often.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Latencies {
    /// It took so long.
    pub fn observe(&self, micros: u64) {
        let place = Latency::BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[place].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// What was added up so far. What is added meanwhile may be seen in part.
    pub fn read(&self) -> Latency {
        Latency {
            buckets: self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed)),
            sum_micros: self.sum_micros.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_goes_where_it_belongs() {
        let latencies = Latencies::default();
        for micros in [0, 100, 101, 10_000_000, 10_000_001] {
            latencies.observe(micros);
        }
        let read = latencies.read();
        assert_eq!((read.buckets[0], read.buckets[1], read.buckets[12], read.buckets[13]), (2, 1, 1, 1));
        assert_eq!((read.count(), read.sum_micros), (5, 20_000_202));
    }
}
