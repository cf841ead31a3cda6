//! What became of messages, counted.

/// Counts of one session or one cluster since the process started. A PUBLISH that is sent again counts
/// again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounters {
    /// PUBLISH packets taken from clients.
    pub received: u64,
    /// PUBLISH packets sent to clients.
    pub sent: u64,
    /// QoS 0 messages lost because the connection was too slow.
    pub dropped_slow: u64,
    /// QoS 1 and 2 messages lost because the bounded queue of a session, or of a shared group, that ends
    /// with its connections was full.
    pub dropped_queue_full: u64,
    /// QoS 0 messages of clients that were dropped because they came faster than a rate allows.
    pub dropped_over_rate: u64,
}

impl MessageCounters {
    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: Self) {
        let Self { received, sent, dropped_slow, dropped_queue_full, dropped_over_rate } = other;
        self.received += received;
        self.sent += sent;
        self.dropped_slow += dropped_slow;
        self.dropped_queue_full += dropped_queue_full;
        self.dropped_over_rate += dropped_over_rate;
    }

    /// All that was lost.
    pub const fn dropped(&self) -> u64 {
        self.dropped_slow + self.dropped_queue_full + self.dropped_over_rate
    }
}
