//! Counts what may happen thousands of times a second, to be told at most once in each.

use std::time::Duration;

use crate::model::Monotonic;

/// The least time between two reports.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// A count since it was last told.
#[derive(Debug, Default)]
pub struct Tally {
    count: u64,
    told_at: Option<Monotonic>,
}

impl Tally {
    /// Counts one more. Gives the count when it is time to tell it, and begins a new one.
    pub fn count(&mut self, now: Monotonic) -> Option<u64> {
        self.count += 1;
        if self.told_at.is_some_and(|told_at| now.since(told_at) < TELL_EVERY) {
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_told_at_once_and_then_once_a_second() {
        let mut tally = Tally::default();
        let at = |millis| Monotonic::from_millis(millis);
        assert_eq!(tally.count(at(5_000)), Some(1));
        assert_eq!(tally.count(at(5_001)), None);
        assert_eq!(tally.count(at(5_999)), None);
        assert_eq!(tally.count(at(6_000)), Some(3));
        assert_eq!(tally.count(at(9_000)), Some(1));
    }
}
