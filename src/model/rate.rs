//! Rates: how often something may happen in a cluster each second (PRODUCT ), and the guard
//! against clients that come and go without end.

use serde::{Deserialize, Serialize};

use super::Limit;

/// The rates in force for one cluster, each per second. `None` means no limit; no limit is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// CONNECTs that are let in.
    pub connects: Limit,
    /// those among them that bring a will.
    pub connects_with_will: Limit,
    /// SUBSCRIBE packets.
    pub subscribes: Limit,
    /// UNSUBSCRIBE packets.
    pub unsubscribes: Limit,
    /// messages of all clients, in and out together.
    pub messages: Limit,
    /// messages that one client publishes.
    pub client_messages: Limit,
    /// bytes that one client publishes: topics and payloads.
    pub client_bytes: Limit,
}

/// What a cluster sets of its rates; `None` leaves the plan's value. No value is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RateOverrides {
    /// See [`Rates::connects`].
    pub connects: Option<u32>,
    /// See [`Rates::connects_with_will`].
    pub connects_with_will: Option<u32>,
    /// See [`Rates::subscribes`].
    pub subscribes: Option<u32>,
    /// See [`Rates::unsubscribes`].
    pub unsubscribes: Option<u32>,
    /// See [`Rates::messages`].
    pub messages: Option<u32>,
    /// See [`Rates::client_messages`].
    pub client_messages: Option<u32>,
    /// See [`Rates::client_bytes`].
    pub client_bytes: Option<u32>,
    /// See [`Flapping::connects`]; 0 for no guard.
    pub flapping_connects: Option<u32>,
    /// See [`Flapping::window_secs`].
    pub flapping_window_secs: Option<u32>,
    /// See [`Flapping::hold_secs`].
    pub flapping_hold_secs: Option<u32>,
}

impl Rates {
    /// What a plan gives: `messages` is its own, the rest follows from its connections. A plan without a
    /// cap on connections has no rates either.
    pub const fn of_plan(connections: Limit, messages: Limit) -> Self {
        let Some(connections) = connections else {
            return Self {
                connects: None,
                connects_with_will: None,
                subscribes: None,
                unsubscribes: None,
                messages,
                client_messages: None,
                client_bytes: None,
            };
        };
        let by_size = if connections / 100 > 100 { connections / 100 } else { 100 };
        Self {
            connects: Some(by_size),
            connects_with_will: Some(100),
            subscribes: Some(by_size),
            unsubscribes: Some(by_size),
            messages,
            client_messages: None,
            client_bytes: None,
        }
    }

    /// These rates with a cluster's overrides laid over them.
    #[must_use]
    pub fn with(self, own: &RateOverrides) -> Self {
        Self {
            connects: own.connects.or(self.connects),
            connects_with_will: own.connects_with_will.or(self.connects_with_will),
            subscribes: own.subscribes.or(self.subscribes),
            unsubscribes: own.unsubscribes.or(self.unsubscribes),
            messages: own.messages.or(self.messages),
            client_messages: own.client_messages.or(self.client_messages),
            client_bytes: own.client_bytes.or(self.client_bytes),
        }
    }
}

/// The guard against a client id that connects over and over: because its device restarts in a loop, or
/// because two devices have the same id and take the session from each other. Who connects more than
/// `connects` times within `window_secs` is refused for `hold_secs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flapping {
    /// How often within the window is not too often; 0 for no guard.
    pub connects: u32,
    /// How long the window is, in seconds.
    pub window_secs: u32,
    /// How long a client is refused, in seconds.
    pub hold_secs: u32,
}

impl Flapping {
    /// The most connects that a window may have: for each of them a time is remembered.
    pub const CONNECTS_MAX: u32 = 100;
    /// The longest window and the longest hold, in seconds.
    pub const SECS_MAX: u32 = 86_400;

    /// Generous: no client that waits a second before it comes again ever reaches it.
    pub const DEFAULT: Self = Self { connects: 60, window_secs: 60, hold_secs: 60 };

    /// No guard.
    pub const OFF: Self = Self { connects: 0, ..Self::DEFAULT };

    /// This guard with a cluster's overrides laid over it.
    #[must_use]
    pub fn with(self, own: &RateOverrides) -> Self {
        Self {
            connects: own.flapping_connects.unwrap_or(self.connects),
            window_secs: own.flapping_window_secs.unwrap_or(self.window_secs),
            hold_secs: own.flapping_hold_secs.unwrap_or(self.hold_secs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_from_the_connections_unless_a_cluster_sets_its_own() {
        // PRODUCT: max(100, connections / 100)
        assert_eq!(Rates::of_plan(Some(1_000), None).connects, Some(100));
        let large = Rates::of_plan(Some(1_000_000), Some(7));
        assert_eq!((large.connects, large.unsubscribes), (Some(10_000), Some(10_000)));
        assert_eq!(
            (large.connects_with_will, large.messages, large.client_bytes),
            (Some(100), Some(7), None)
        );
        assert_eq!(Rates::of_plan(None, None), Rates::default());
        let own = RateOverrides { messages: Some(3), flapping_connects: Some(0), ..RateOverrides::default() };
        assert_eq!(large.with(&own), Rates { messages: Some(3), ..large });
        assert_eq!(Flapping::DEFAULT.with(&own), Flapping::OFF);
    }
}
