//! The only reader of the time.
//!
//! Everything else is handed a [`Now`] (state machines) or a [`Clock`] (drivers and handlers), so
//! that a test can say what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::model::{Monotonic, Now, Timestamp};

/// Reads both clocks. Cheap to clone; clones share an origin.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: Instant,
    /// Milliseconds added to the wall clock; 0 outside tests.
    skew_millis: Arc<AtomicI64>,
}

impl Clock {
    /// A clock whose monotonic origin is now.
    #[allow(clippy::disallowed_methods)] // the one place that may read it
    pub fn new() -> Self {
        Self { origin: Instant::now(), skew_millis: Arc::default() }
    }

    /// Both clocks at this moment.
    pub fn now(&self) -> Now {
        Now { wall: self.wall(), mono: self.mono() }
    }

    /// The calendar at this moment.
    #[allow(clippy::disallowed_methods)]
    pub fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(millis.saturating_add(self.skew_millis.load(Ordering::Relaxed)))
    }

    /// The stopwatch at this moment.
    #[allow(clippy::disallowed_methods)]
    pub fn mono(&self) -> Monotonic {
        let since = Instant::now().saturating_duration_since(self.origin);
        Monotonic::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// The stopwatch at this moment, in microseconds: for what takes less than a millisecond.
    #[allow(clippy::disallowed_methods)]
    pub fn micros(&self) -> u64 {
        let since = Instant::now().saturating_duration_since(self.origin);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// Makes the wall clock of this clock and its clones jump, as an administrator or NTP may.
    pub fn jump_millis(&self, millis: i64) {
        self.skew_millis.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
