//! The guard against a client id that connects over and over.
//!
//! Counts are exact: the time of each CONNECT within the window is kept. Only who has proven who it is is
//! counted, so that nobody can have another's client id refused. What is kept has a bound; beyond it new
//! client ids are not watched until others have calmed down: the guard then lets in, it does not lock out.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::model::{ClientId, Flapping, Monotonic};

/// How many client ids are watched at most. With the most connects in each window that is some 50 MiB,
/// and normally less than one.
pub const WATCHED_MAX: usize = 65_536;

/// How often it is looked who has calmed down, when the list is full.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Who has connected when.
#[derive(Debug, Default)]
pub struct FlappingGuard {
    watched: HashMap<ClientId, Watched, foldhash::fast::RandomState>,
    looked_at: Monotonic,
}

#[derive(Debug, Default)]
struct Watched {
    /// Its CONNECTs within the window, at most as many as are not too many.
    connects: VecDeque<Monotonic>,
    /// Until when it is refused.
    held_until: Option<Monotonic>,
}

/// The client has connected too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaps {
    /// The rule.
    pub rule: Flapping,
    /// For how long it is still refused.
    pub wait: Duration,
}

impl FlappingGuard {
    /// Whether the client would be let in. Changes nothing.
    ///
    /// # Errors
    /// [`Flaps`].
    pub fn check(&self, rule: Flapping, now: Monotonic, client: &ClientId) -> Result<(), Flaps> {
        if rule.connects == 0 {
            return Ok(());
        }
        let Some(watched) = self.watched.get(client) else { return Ok(()) };
        let wait = match watched.held_until {
            Some(until) if until > now => until.since(now),
            _ if watched.within(rule, now) >= rule.connects as usize => hold(rule),
            _ => return Ok(()),
        };
        Err(Flaps { rule, wait })
    }

    /// Counts a CONNECT: one that is let in, or that goes on to be refused for it.
    ///
    /// # Errors
    /// [`Flaps`], as [`FlappingGuard::check`] would have said.
    pub fn connects(&mut self, rule: Flapping, now: Monotonic, client: &ClientId) -> Result<(), Flaps> {
        if rule.connects == 0 {
            return Ok(());
        }
        let verdict = self.check(rule, now, client);
        self.make_room(rule, now);
        if self.watched.len() >= WATCHED_MAX && !self.watched.contains_key(client) {
            return verdict;
        }
        let watched = self.watched.entry(client.clone()).or_default();
        match verdict {
            Ok(()) => {
                watched.held_until = None;
                watched.forget(rule, now);
                watched.connects.push_back(now);
            }
            // What comes during the hold does not make it longer; after it, all is forgotten.
            Err(flaps) if watched.held_until.is_none_or(|until| until <= now) => {
                watched.held_until = Some(now.plus_millis(millis(flaps.wait)));
                watched.connects = VecDeque::new();
            }
            Err(_) => {}
        }
        verdict
    }

    /// Forgets who has calmed down, when there are too many.
    fn make_room(&mut self, rule: Flapping, now: Monotonic) {
        if self.watched.len() < WATCHED_MAX || now.since(self.looked_at) < LOOK_EVERY {
            return;
        }
        self.looked_at = now;
        self.watched.retain(|_, watched| {
            watched.held_until.is_some_and(|until| until > now) || watched.within(rule, now) > 0
        });
    }
}

impl Watched {
    /// How many of its CONNECTs are within the window.
    fn within(&self, rule: Flapping, now: Monotonic) -> usize {
        let window = Duration::from_secs(rule.window_secs.into());
        self.connects.iter().rev().take_while(|at| now.since(**at) < window).count()
    }

    /// Forgets those that are no longer.
    fn forget(&mut self, rule: Flapping, now: Monotonic) {
        let within = self.within(rule, now);
        self.connects.drain(..self.connects.len() - within);
    }
}

fn hold(rule: Flapping) -> Duration {
    Duration::from_secs(rule.hold_secs.into())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Flapping = Flapping { connects: 3, window_secs: 10, hold_secs: 20 };

    fn id(text: &str) -> ClientId {
        ClientId::new(text).expect("a client id")
    }

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_millis(millis)
    }

    #[test]
    fn one_too_many_within_the_window_is_held_and_then_begins_anew() {
        let (mut guard, a) = (FlappingGuard::default(), &id("a"));
        for millis in [0, 1_000, 2_000] {
            assert_eq!(guard.connects(RULE, at(millis), a), Ok(()));
        }
        assert_eq!(guard.check(RULE, at(10_000), a), Ok(()), "the first is 10 s ago");
        assert_eq!(guard.connects(RULE, at(9_999), &id("b")), Ok(()), "another client");
        let flaps = guard.connects(RULE, at(9_999), a).expect_err("the fourth");
        assert_eq!(flaps.wait, Duration::from_secs(20));
        // Further tries do not make it longer.
        let flaps = guard.connects(RULE, at(19_999), a).expect_err("held");
        assert_eq!(flaps.wait, Duration::from_secs(10));
        assert!(guard.check(RULE, at(29_998), a).is_err());
        for millis in [29_999, 30_000, 30_001] {
            assert_eq!(guard.connects(RULE, at(millis), a), Ok(()));
        }
        assert!(guard.connects(RULE, at(30_002), a).is_err());
    }

    #[test]
    fn a_rule_that_is_taken_back_holds_nobody() {
        let (mut guard, a) = (FlappingGuard::default(), &id("a"));
        for _ in 0..4 {
            let _ = guard.connects(RULE, at(0), a);
        }
        assert!(guard.check(RULE, at(1), a).is_err());
        assert_eq!(guard.connects(Flapping::OFF, at(1), a), Ok(()));
    }

    #[test]
    fn a_window_slides() {
        let (mut guard, a) = (FlappingGuard::default(), &id("a"));
        for n in 0..100 {
            assert_eq!(guard.connects(RULE, at(n * 10_000 / 3 + n), a), Ok(()), "three in ten seconds");
        }
    }

    #[test]
    fn beyond_the_bound_the_guard_lets_in() {
        let mut guard = FlappingGuard::default();
        for n in 0..WATCHED_MAX {
            let _ = guard.connects(RULE, at(5_000), &id(&n.to_string()));
        }
        for _ in 0..10 {
            assert_eq!(guard.connects(RULE, at(5_001), &id("late")), Ok(()));
        }
        assert_eq!(guard.watched.len(), WATCHED_MAX);
        assert_eq!(guard.connects(RULE, at(20_000), &id("late")), Ok(()));
        assert_eq!(guard.watched.len(), 1, "the others have calmed down");
    }
}
