//! How often one caller may ask: a bucket of tokens for each, refilled evenly.
//!
//! One caller's flood costs itself, not the others. A caller is an API key or the subject of a token, however many
//! connections and addresses it has. Requests without a good token have no bucket: they cost little, and are bounded
//! with all others by how many are worked on at once.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use parking_lot::Mutex;

use super::code::Code;
use super::problem::{Problem, Result};
use crate::model::Monotonic;

/// How many callers are remembered. Beyond that all start anew: their number is bounded by who gives tokens out,
/// and a full bucket for an eager caller hurts less than a map that grows.
const CALLERS_MAX: usize = 10_000;

/// What one request takes, in the unit of the buckets: with it a rate in requests a second is one in
/// units a millisecond.
const REQUEST: u64 = 1_000;

/// The buckets of all callers.
#[derive(Debug)]
pub(super) struct Rates {
    /// Requests a second.
    rate: NonZeroU32,
    buckets: Mutex<HashMap<String, Bucket, foldhash::fast::RandomState>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: u64,
    at: Monotonic,
}

impl Rates {
    /// So many requests a second for each caller, and twice as many at once.
    pub(super) fn new(rate: NonZeroU32) -> Self {
        Self { rate, buckets: Mutex::default() }
    }

    /// Takes a request out of the caller's bucket.
    ///
    /// # Errors
    /// `rate_limited` when there is none in it, with the time until there is.
    pub(super) fn take(&self, caller: &str, now: Monotonic) -> Result<()> {
        let mut buckets = self.buckets.lock();
        if !buckets.contains_key(caller) {
            if buckets.len() >= CALLERS_MAX {
                buckets.clear();
            }
            buckets.insert(caller.to_owned(), Bucket { level: self.full(), at: now });
        }
        // It was put there just now, if it was not there before.
        let Some(bucket) = buckets.get_mut(caller) else { return Ok(()) };
        let rate = u64::from(self.rate.get());
        let passed = u64::try_from(now.since(bucket.at).as_millis()).unwrap_or(u64::MAX);
        bucket.level = bucket.level.saturating_add(passed.saturating_mul(rate)).min(self.full());
        bucket.at = now;
        if let Some(rest) = bucket.level.checked_sub(REQUEST) {
            bucket.level = rest;
            return Ok(());
        }
        let wait = Duration::from_millis((REQUEST - bucket.level).div_ceil(rate));
        let detail = format!("at most {} requests a second", self.rate);
        Err(Problem::new(Code::RateLimited, detail).retry_after(wait))
    }

    fn full(&self) -> u64 {
        2 * REQUEST * u64::from(self.rate.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills_evenly() {
        let rates = Rates::new(NonZeroU32::new(10).expect("a rate"));
        let at = Monotonic::from_millis;
        let taken = |caller, now| rates.take(caller, at(now)).is_ok();
        assert!((0..20).all(|_| taken("a", 0)), "twice the rate at once");
        assert!(!taken("a", 0) && !taken("a", 99));
        assert!(taken("b", 0), "another caller has its own");
        assert!(taken("a", 100) && !taken("a", 100) && taken("a", 200));
        assert!((0..20).all(|_| taken("a", 60_000)) && !taken("a", 60_000), "it does not overflow");
        let problem = rates.take("a", at(60_000)).expect_err("a problem");
        assert_eq!(problem.code(), Code::RateLimited);
    }

    #[test]
    fn a_slow_rate_says_how_long_to_wait() {
        let rates = Rates::new(NonZeroU32::MIN);
        let at = Monotonic::from_millis(5);
        assert!(rates.take("a", at).is_ok() && rates.take("a", at).is_ok());
        let problem = rates.take("a", at).expect_err("a problem");
        assert_eq!(problem.retry_after_secs(), 1);
    }

    #[test]
    fn the_callers_remembered_are_bounded() {
        let rates = Rates::new(NonZeroU32::MIN);
        for caller in 0..=CALLERS_MAX {
            assert!(rates.take(&caller.to_string(), Monotonic::default()).is_ok());
        }
        assert!(rates.buckets.lock().len() <= CALLERS_MAX);
    }
}
