//! The rates of one cluster, in force (PRODUCT ): who may go on, and what is counted.
//!
//! # Fairness
//! The messages of a cluster are one bucket that all its publishers draw on. While less than half of it is
//! used, anybody may. The upper half is for those who stay below their *share*: the rate divided by the
//! number of clients that publish and one more, who may come. So a publisher that is alone gets all of the rate,
//! but for half of what could come at once; one that sends without measure beside others gets what they
//! leave; and the quiet ones, newcomers too, find room at any moment.
//!
//! # What is counted
//! A message counts when it comes in, and again for each client that it is sent to; both are its
//! publisher's. What is sent later, out of the log, is nobody's: it takes from the lower half alone, so that
//! sessions that catch up slow those who send much, and never keep anybody from publishing. Deliveries
//! themselves are never delayed.

use std::time::Duration;

use super::bucket::{Bucket, Overdrawn};
use crate::model::{Limit, Monotonic, Rates, RefusalReason};

/// What is used of a cluster's rates.
#[derive(Debug, Default)]
pub struct ClusterRates {
    connects: Bucket,
    connects_with_will: Bucket,
    subscribes: Bucket,
    unsubscribes: Bucket,
    messages: Bucket,
    publishers: Publishers,
}

/// What one connection uses.
#[derive(Debug, Default)]
pub struct ClientRates {
    messages: Bucket,
    bytes: Bucket,
    /// What of the cluster's messages is its doing.
    share: Bucket,
    /// The last window in which it was counted among the publishers.
    seen_in: Option<u64>,
}

/// How many clients publish, by windows of a second.
#[derive(Debug, Default)]
struct Publishers {
    window: u64,
    in_window: u32,
    in_window_before: u32,
}

/// A rate is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFast {
    /// Which.
    pub reason: RefusalReason,
    /// How much of it.
    pub overdrawn: Overdrawn,
}

impl TooFast {
    /// For people: quota, limit and use.
    pub fn why(&self) -> String {
        let Overdrawn { limit, in_use, .. } = self.overdrawn;
        format!("quota {}: limit {limit}, in use {in_use}", self.reason.as_str())
    }

    /// After how long it is worth another try.
    pub fn wait(&self) -> Duration {
        self.overdrawn.wait
    }
}

fn because(reason: RefusalReason) -> impl FnOnce(Overdrawn) -> TooFast {
    move |overdrawn| TooFast { reason, overdrawn }
}

impl ClusterRates {
    /// Whether a CONNECT may be let in now. Changes nothing.
    ///
    /// # Errors
    /// [`TooFast`].
    pub fn check_connect(&self, rates: &Rates, now: Monotonic, with_will: bool) -> Result<(), TooFast> {
        if with_will {
            let verdict = self.connects_with_will.check(rates.connects_with_will, now, 1);
            verdict.map_err(because(RefusalReason::ConnectsWithWillPerSecond))?;
        }
        self.connects.check(rates.connects, now, 1).map_err(because(RefusalReason::ConnectsPerSecond))
    }

    /// A CONNECT is let in.
    pub fn connected(&mut self, rates: &Rates, now: Monotonic, with_will: bool) {
        self.connects.charge(rates.connects, now, 1);
        if with_will {
            self.connects_with_will.charge(rates.connects_with_will, now, 1);
        }
    }

    /// Takes a SUBSCRIBE.
    ///
    /// # Errors
    /// [`TooFast`].
    pub fn subscribe(&mut self, rates: &Rates, now: Monotonic) -> Result<(), TooFast> {
        let verdict = self.subscribes.take(rates.subscribes, now, 1);
        verdict.map_err(because(RefusalReason::SubscribesPerSecond))
    }

    /// Takes an UNSUBSCRIBE.
    ///
    /// # Errors
    /// [`TooFast`].
    pub fn unsubscribe(&mut self, rates: &Rates, now: Monotonic) -> Result<(), TooFast> {
        self.check_unsubscribe(rates, now)?;
        self.unsubscribes.charge(rates.unsubscribes, now, 1);
        Ok(())
    }

    /// Whether an UNSUBSCRIBE may be taken now. Changes nothing.
    ///
    /// # Errors
    /// [`TooFast`].
    pub fn check_unsubscribe(&self, rates: &Rates, now: Monotonic) -> Result<(), TooFast> {
        let verdict = self.unsubscribes.check(rates.unsubscribes, now, 1);
        verdict.map_err(because(RefusalReason::UnsubscribesPerSecond))
    }

    /// Whether a client may publish a message of so many bytes now. Takes nothing.
    ///
    /// # Errors
    /// [`TooFast`].
    pub fn check_publish(
        &mut self,
        rates: &Rates,
        now: Monotonic,
        client: &mut ClientRates,
        bytes: u32,
    ) -> Result<(), TooFast> {
        let verdict = client.messages.check(rates.client_messages, now, 1);
        verdict.map_err(because(RefusalReason::ClientMessagesPerSecond))?;
        let verdict = client.bytes.check(rates.client_bytes, now, bytes);
        verdict.map_err(because(RefusalReason::ClientBytesPerSecond))?;
        let Some(limit) = rates.messages else { return Ok(()) };
        let share = self.share(limit, now, client);
        let Err(contested) = self.messages.check_lower_half(limit, now, 1) else { return Ok(()) };
        let own = client.share.check(Some(share), now, 1).err();
        let all = self.messages.check(Some(limit), now, 1).err();
        let Some(wait) = own.iter().chain(&all).map(|overdrawn| overdrawn.wait).max() else { return Ok(()) };
        let overdrawn = Overdrawn { wait: wait.min(contested.wait), ..contested };
        Err(TooFast { reason: RefusalReason::MessagesPerSecond, overdrawn })
    }

    /// A client has published a message, which was sent to so many at once.
    pub fn published(
        &mut self,
        rates: &Rates,
        now: Monotonic,
        client: &mut ClientRates,
        bytes: u32,
        sent: u64,
    ) {
        client.messages.charge(rates.client_messages, now, 1);
        client.bytes.charge(rates.client_bytes, now, bytes.into());
        if let Some(limit) = rates.messages {
            let share = self.share(limit, now, client);
            client.share.charge(Some(share), now, 1 + sent);
            self.messages.charge(Some(limit), now, 1 + sent);
        }
    }

    /// So many messages were sent that are no client's doing now.
    pub fn sent(&mut self, messages: Limit, now: Monotonic, sent: u64) {
        if sent > 0 {
            self.messages.charge_lower_half(messages, now, sent);
        }
    }

    /// What a client may have of the messages when all want more than there is.
    fn share(&mut self, limit: u32, now: Monotonic, client: &mut ClientRates) -> u32 {
        let publishers = &mut self.publishers;
        let window = now.as_millis() / 1_000;
        if window != publishers.window {
            let follows = window == publishers.window + 1;
            publishers.in_window_before = if follows { publishers.in_window } else { 0 };
            publishers.in_window = 0;
            publishers.window = window;
        }
        if client.seen_in.replace(window) != Some(window) {
            publishers.in_window += 1;
        }
        let active = publishers.in_window.max(publishers.in_window_before);
        (limit / (active + 1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    fn publish(
        cluster: &mut ClusterRates,
        rates: &Rates,
        millis: u64,
        client: &mut ClientRates,
        sent: u64,
    ) -> Result<(), TooFast> {
        cluster.check_publish(rates, at(millis), client, 10)?;
        cluster.published(rates, at(millis), client, 10, sent);
        Ok(())
    }

    #[test]
    fn a_connect_with_a_will_needs_both_and_takes_both_or_none() {
        let rates = Rates { connects: Some(3), connects_with_will: Some(1), ..Rates::default() };
        let mut cluster = ClusterRates::default();
        let mut connect = |with_will| {
            let verdict = cluster.check_connect(&rates, at(0), with_will);
            if verdict.is_ok() {
                cluster.connected(&rates, at(0), with_will);
            }
            verdict.map_err(|too_fast| too_fast.why())
        };
        assert_eq!(connect(true), Ok(()));
        let why = Err("quota connects_with_will_per_second: limit 1, in use 1".to_owned());
        assert_eq!(connect(true), why);
        assert_eq!(connect(false), Ok(()));
        assert_eq!(connect(false), Ok(()));
        assert_eq!(connect(false), Err("quota connects_per_second: limit 3, in use 3".to_owned()));
    }

    #[test]
    fn one_publisher_alone_has_all_of_the_rate_and_no_more() {
        for fan_out in [0, 1, 4] {
            let rates = Rates { messages: Some(100), ..Rates::default() };
            let (mut cluster, mut client) = (ClusterRates::default(), ClientRates::default());
            let mut messages = 0;
            for millis in 0..=10_000 {
                while publish(&mut cluster, &rates, millis, &mut client, fan_out).is_ok() {
                    messages += 1 + fan_out;
                }
            }
            // The last one may have been let in by its first token.
            assert!((1_050..=1_050 + fan_out).contains(&messages), "{fan_out}: {messages}");
        }
    }

    #[test]
    fn a_noisy_publisher_leaves_the_quiet_ones_all_they_want() {
        let rates = Rates { messages: Some(100), ..Rates::default() };
        let mut cluster = ClusterRates::default();
        let (mut noisy, mut quiet) = (ClientRates::default(), [(); 4].map(|()| ClientRates::default()));
        let (mut of_noisy, mut of_quiet, mut refused) = (0_u32, 0_u32, 0_u32);
        for millis in 0..60_000_u64 {
            while publish(&mut cluster, &rates, millis, &mut noisy, 0).is_ok() {
                of_noisy += 1;
            }
            for (n, client) in (0_u64..).zip(&mut quiet) {
                // 5 a second each, of a share of 20.
                if (millis + 50 * n) % 200 == 0 && millis >= 2_000 {
                    match publish(&mut cluster, &rates, millis, client, 0) {
                        Ok(()) => of_quiet += 1,
                        Err(_) => refused += 1,
                    }
                }
            }
        }
        assert_eq!((of_quiet, refused), (58 * 20, 0));
        let rest = 100 * 60 + 50 - of_quiet;
        assert!(
            (rest - 10..=rest + 50).contains(&of_noisy),
            "the noisy one has the rest: {of_noisy} of {rest}"
        );
    }

    #[test]
    fn publishers_that_all_want_too_much_get_the_same() {
        let rates = Rates { messages: Some(1_000), ..Rates::default() };
        let (mut cluster, mut clients) = (ClusterRates::default(), [(); 5].map(|()| ClientRates::default()));
        let mut of = [0_u32; 5];
        for millis in 0..30_000 {
            for (client, count) in clients.iter_mut().zip(&mut of) {
                // The first of them always asks first, and asks for more.
                while publish(&mut cluster, &rates, millis, client, 0).is_ok() {
                    *count += 1;
                }
            }
        }
        let all: u32 = of.iter().sum();
        assert!((30_000..=31_000).contains(&all), "{of:?}");
        for count in &of[1..] {
            assert!(*count >= 2_500, "at least half of an even part: {of:?}");
        }
    }

    #[test]
    fn sessions_that_catch_up_slow_the_noisy_and_keep_nobody_from_publishing() {
        let rates = Rates { messages: Some(100), ..Rates::default() };
        let mut cluster = ClusterRates::default();
        let (mut noisy, mut quiet) = (ClientRates::default(), ClientRates::default());
        let mut of_noisy = 0;
        for millis in 0..20_000 {
            cluster.sent(rates.messages, at(millis), 1_000);
            while publish(&mut cluster, &rates, millis, &mut noisy, 0).is_ok() {
                of_noisy += 1;
            }
            if millis % 100 == 0 && millis >= 2_000 {
                assert_eq!(publish(&mut cluster, &rates, millis, &mut quiet, 0), Ok(()), "at {millis}");
            }
        }
        assert!(of_noisy <= 20 * 60, "its share of two, and a beginning: {of_noisy}");
    }

    #[test]
    fn a_clients_own_rates_are_its_own() {
        let rates = Rates { client_messages: Some(2), client_bytes: Some(25), ..Rates::default() };
        let (mut cluster, mut one, mut other) =
            (ClusterRates::default(), ClientRates::default(), ClientRates::default());
        assert_eq!(publish(&mut cluster, &rates, 0, &mut one, 9), Ok(()));
        assert_eq!(publish(&mut cluster, &rates, 0, &mut one, 9), Ok(()));
        let too_fast = publish(&mut cluster, &rates, 0, &mut one, 9).expect_err("too fast");
        assert_eq!(too_fast.why(), "quota client_messages_per_second: limit 2, in use 2");
        assert_eq!(too_fast.wait(), Duration::from_millis(500));
        assert_eq!(publish(&mut cluster, &rates, 0, &mut other, 9), Ok(()));
        let too_fast = cluster.check_publish(&rates, at(0), &mut other, 16).expect_err("too many bytes");
        assert_eq!(too_fast.why(), "quota client_bytes_per_second: limit 25, in use 10");
    }
}
