//! A token bucket (PRODUCT ): how much of a second's worth is used at a moment.
//!
//! It holds one second's worth and fills evenly. What is kept is what is *used*, not what is left: so a
//! bucket begins full whatever its rate, and a rate that changes holds at once. Exact: whole numbers of
//! thousandths, the time given.
//!
//! It does not wait and wakes nobody; [`Overdrawn`] says when there would be enough.

use std::time::Duration;

use crate::model::{Limit, Monotonic};

/// One token in the unit of account: at a rate of 1 a second, what flows back in a millisecond is 1.
const TOKEN: u64 = 1_000;

/// How many seconds' worth may be used at most: who is charged for more (one message for a million
/// subscribers) does not keep the others waiting longer than that.
pub const DEBT_SECS_MAX: u64 = 10;

/// How much of a rate is used. The rate itself is given with each question.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// In thousandths of a token.
    used: u64,
    at: Monotonic,
}

/// There is not enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdrawn {
    /// The rate.
    pub limit: u32,
    /// How much of it is used, in whole tokens.
    pub in_use: u64,
    /// After how long there would be enough, if nobody else took any.
    pub wait: Duration,
}

impl Bucket {
    /// Whether `tokens` are there. What is more than a second's worth is there when nothing is used.
    ///
    /// # Errors
    /// [`Overdrawn`].
    pub fn check(&self, rate: Limit, now: Monotonic, tokens: u32) -> Result<(), Overdrawn> {
        let Some(limit) = rate else { return Ok(()) };
        self.check_within(limit, u64::from(limit) * TOKEN, now, tokens)
    }

    /// As [`Bucket::check`], of the lower half of the bucket alone: whether less than half is used.
    ///
    /// # Errors
    /// [`Overdrawn`].
    pub fn check_lower_half(&self, limit: u32, now: Monotonic, tokens: u32) -> Result<(), Overdrawn> {
        self.check_within(limit, u64::from(limit) * TOKEN / 2, now, tokens)
    }

    fn check_within(&self, limit: u32, room: u64, now: Monotonic, tokens: u32) -> Result<(), Overdrawn> {
        let used = self.used_at(limit, now);
        let wanted = u64::from(tokens) * TOKEN;
        // What would never fit may go when nothing else has.
        let used_max = room.saturating_sub(wanted);
        if used <= used_max {
            return Ok(());
        }
        let wait_millis = (used - used_max).div_ceil(u64::from(limit.max(1)));
        Err(Overdrawn { limit, in_use: used.div_ceil(TOKEN), wait: Duration::from_millis(wait_millis) })
    }

    /// Takes so many tokens, also those that are not there.
    pub fn charge(&mut self, rate: Limit, now: Monotonic, tokens: u64) {
        let Some(limit) = rate else { return };
        self.flow(limit, now);
        let used_max = u64::from(limit).saturating_mul(TOKEN * DEBT_SECS_MAX);
        self.used = self.used.saturating_add(tokens.saturating_mul(TOKEN)).min(used_max);
    }

    /// As [`Bucket::charge`], but never uses more than half of a second's worth.
    pub fn charge_lower_half(&mut self, rate: Limit, now: Monotonic, tokens: u64) {
        let Some(limit) = rate else { return };
        self.flow(limit, now);
        let half = u64::from(limit) * TOKEN / 2;
        if self.used < half {
            self.used = self.used.saturating_add(tokens.saturating_mul(TOKEN)).min(half);
        }
    }

    /// Takes so many tokens if they are there.
    ///
    /// # Errors
    /// [`Overdrawn`]; nothing is taken.
    pub fn take(&mut self, rate: Limit, now: Monotonic, tokens: u32) -> Result<(), Overdrawn> {
        self.check(rate, now, tokens)?;
        self.charge(rate, now, u64::from(tokens));
        Ok(())
    }

    /// Whether nothing is used.
    pub fn is_full(&self, rate: u32, now: Monotonic) -> bool {
        self.used_at(rate, now) == 0
    }

    fn used_at(&self, limit: u32, now: Monotonic) -> u64 {
        let millis = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.used.saturating_sub(millis.saturating_mul(u64::from(limit)))
    }

    fn flow(&mut self, limit: u32, now: Monotonic) {
        self.used = self.used_at(limit, now);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    #[test]
    fn a_second_has_exactly_its_rate_and_then_as_much_as_flows_back() {
        for rate in [1, 3, 7, 1_000, 999_999] {
            let mut bucket = Bucket::default();
            let taken = (0..=rate).filter(|_| bucket.take(Some(rate), at(5_000), 1).is_ok()).count();
            assert_eq!(taken, rate as usize);
            let overdrawn = bucket.take(Some(rate), at(5_000), 1).expect_err("used up");
            assert_eq!((overdrawn.limit, overdrawn.in_use), (rate, u64::from(rate)));
            assert_eq!(overdrawn.wait, Duration::from_millis(u64::from(1_000_u32.div_ceil(rate))));
            let wait = u64::try_from(overdrawn.wait.as_millis()).expect("short");
            assert_eq!(
                bucket.take(Some(rate), at(5_000 + wait - 1), 1).is_ok(),
                wait - 1 > 0 && rate > 1_000
            );
            let mut later = bucket;
            assert!(later.take(Some(rate), at(5_000 + wait), 1).is_ok());
        }
    }

    #[test]
    fn over_a_long_time_it_lets_exactly_the_rate_through() {
        for (rate, every_millis) in [(3_u32, 1_u64), (7, 13), (1_000, 1), (250, 10)] {
            let mut bucket = Bucket::default();
            let mut taken = 0_u64;
            for millis in (0..=100_000).step_by(usize::try_from(every_millis).expect("small")) {
                while bucket.take(Some(rate), at(millis), 1).is_ok() {
                    taken += 1;
                }
            }
            let last = 100_000 / every_millis * every_millis;
            assert_eq!(taken, u64::from(rate) + u64::from(rate) * last / 1_000, "{rate}");
        }
    }

    #[test]
    fn a_changed_rate_holds_at_once() {
        let mut bucket = Bucket::default();
        bucket.charge(Some(10), at(0), 10);
        assert!(bucket.check(Some(10), at(0), 1).is_err());
        assert!(bucket.check(Some(11), at(0), 1).is_ok());
        assert!(bucket.check(None, at(0), 1).is_ok());
        assert!(bucket.check(Some(5), at(1_000), 1).is_err(), "5 of the 10 have flowed back");
        assert!(bucket.check(Some(5), at(1_200), 1).is_ok());
    }

    #[test]
    fn what_is_larger_than_a_second_goes_when_nothing_is_used() {
        let mut bucket = Bucket::default();
        assert!(bucket.take(Some(10), at(0), 25).is_ok());
        assert_eq!(bucket.take(Some(10), at(0), 25).expect_err("used").wait, Duration::from_millis(2_500));
        assert!(bucket.take(Some(10), at(2_499), 25).is_err());
        assert!(bucket.take(Some(10), at(2_500), 25).is_ok());
    }

    #[test]
    fn a_debt_has_a_bound_and_the_halves_are_apart() {
        let mut bucket = Bucket::default();
        bucket.charge(Some(2), at(0), 1_000_000);
        let wait = bucket.check(Some(2), at(0), 1).expect_err("in debt").wait;
        assert_eq!(wait, Duration::from_millis(DEBT_SECS_MAX * 1_000 - 500));
        let mut bucket = Bucket::default();
        bucket.charge_lower_half(Some(10), at(0), 1_000);
        assert!(bucket.check_lower_half(10, at(0), 1).is_err());
        assert_eq!(bucket.check_lower_half(10, at(0), 1).expect_err("used").in_use, 5);
        assert!(bucket.check(Some(10), at(0), 5).is_ok());
        bucket.charge(Some(10), at(0), 5);
        bucket.charge_lower_half(Some(10), at(0), 1_000);
        assert_eq!(bucket.check(Some(10), at(0), 1).expect_err("used").in_use, 10);
    }
}
