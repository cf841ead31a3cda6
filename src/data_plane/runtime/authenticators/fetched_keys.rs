//! A key set that is fetched when somebody has a token to be checked with it.
//!
//! It is fetched anew when it is old, and when a token names a key that is not in it; how often strangers can
//! have that done is bounded, and while it fails the pauses grow. One fetches, the others wait for what comes
//! of that. The last set is used for a day while no newer one can be had.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use crate::clock::Clock;
use crate::credentials::jwt::TokenFault;
use crate::credentials::key_set::KeySet;
use crate::model::{HttpUrl, Monotonic};
use crate::outbound::HttpClient;

/// How large a key set may be.
const SET_BYTES_MAX: usize = 256 * 1_024;
/// How long a key set may take to come: a CONNECT waits for it.
const SET_TIME_MAX: Duration = Duration::from_secs(3);
/// When a set is old.
const OLD_AFTER: Duration = Duration::from_mins(5);
/// How long an old one is used while no newer one can be had.
const STALE_MAX: Duration = Duration::from_hours(24);
/// The least time between two attempts, whoever asks; doubled with each that fails.
const PAUSE_MILLIS: u64 = 10_000;
/// How often it is doubled at most: to some 5 minutes.
const DOUBLINGS_MAX: u32 = 5;

/// A set, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct FetchedKeys {
    known: RwLock<Fetched>,
    /// Held by who fetches.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Fetched {
    keys: Option<Arc<KeySet>>,
    read_at: Monotonic,
    /// Before then it is not fetched again.
    not_before: Monotonic,
    /// How often that has failed since it last succeeded.
    failures: u32,
    /// Counts the attempts.
    attempts: u64,
    /// What came of the last one, if it failed.
    failure: Option<String>,
}

impl FetchedKeys {
    /// Verifies a token by the set, which is fetched for it if need be.
    ///
    /// # Errors
    /// There is no set to verify it by: why.
    pub(super) async fn verify<T>(
        &self,
        url: &HttpUrl,
        http: &HttpClient,
        clock: &Clock,
        by: impl Fn(Option<&KeySet>) -> Result<T, TokenFault>,
    ) -> Result<Result<T, TokenFault>, String> {
        let (keys, is_old) = self.keys(clock);
        let seen = self.known.read().attempts;
        let verified = by(keys.as_deref());
        // What no set would change needs none.
        let wants_newer = matches!(verified, Err(TokenFault::KeyUnknown)) || (is_old && verified.is_ok());
        if !wants_newer {
            return Ok(verified);
        }
        self.fetch(url, http, clock, seen).await;
        match (self.keys(clock).0, &self.known.read().failure) {
            (Some(keys), _) => Ok(by(Some(&keys))),
            (None, Some(why)) => Err(why.clone()),
            (None, None) => Err("the key set was not fetched yet".to_owned()),
        }
    }

    /// The set, and whether it is old.
    fn keys(&self, clock: &Clock) -> (Option<Arc<KeySet>>, bool) {
        let known = self.known.read();
        let age = clock.mono().since(known.read_at);
        (known.keys.clone().filter(|_| age <= STALE_MAX), age > OLD_AFTER)
    }

    /// Fetches the set, unless that was done since `seen`, or too short a time ago.
    async fn fetch(&self, url: &HttpUrl, http: &HttpClient, clock: &Clock, seen: u64) {
        let _one_at_a_time = self.fetching.lock().await;
        {
            let known = self.known.read();
            if known.attempts != seen || (known.attempts > 0 && clock.mono() < known.not_before) {
                return;
            }
        }
        let fetched = ask(url, http).await;
        let mut known = self.known.write();
        known.attempts += 1;
        match fetched {
            Ok(keys) => {
                (known.keys, known.read_at) = (Some(Arc::new(keys)), clock.mono());
                (known.failures, known.failure) = (0, None);
            }
            Err(why) => {
                known.failures += 1;
                known.failure = Some(why);
            }
        }
        let pause = PAUSE_MILLIS << known.failures.saturating_sub(1).min(DOUBLINGS_MAX);
        known.not_before = clock.mono().plus_millis(pause);
    }
}

async fn ask(url: &HttpUrl, http: &HttpClient) -> Result<KeySet, String> {
    let set =
        http.get(url, SET_TIME_MAX, SET_BYTES_MAX).await.map_err(|error| format!("the key set: {error}"))?;
    KeySet::read(&set).map_err(|error| format!("the key set: {error}"))
}
