//! An external issuer of tokens: its public keys, kept up to date, and what its tokens grant.
//!
//! One task ([`ExternalIssuer::run`]) reads the key set: at start, every [`Pace::every`], and when a token names a
//! key that is not in it. Whoever has such a token waits for that a moment; how often strangers can have
//! the set read is bounded by [`Pace::at_least`]. While it cannot be read the pauses grow, and the last set is
//! used for [`Pace::stale_max`]; after that, and before the first, nobody can tell whether a token is good, and
//! that is what is answered.
//!
//! A key that the issuer takes back is refused once the set is read again. Single tokens are not taken back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jsonwebtoken::{Header, Validation};
use parking_lot::RwLock;
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::tokens::{Grant, NOT_BEFORE_LEEWAY_SECS, Role, TokenError, algorithm_of, unix_secs};
use crate::clock::Clock;
use crate::config::{self, KeySource, TokenAlgorithms};
use crate::credentials::key_set::{BadKeySet, KeySet};
use crate::model::{ClusterId, Monotonic, Timestamp};
use crate::outbound::{HttpClient, OutboundError};

/// How large a key set may be.
const SET_BYTES_MAX: usize = 256 * 1_024;
/// How long a key set may take to come.
const SET_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a request waits for a key set.
const WAIT: Duration = Duration::from_secs(3);

/// How often a key set is read.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// When nothing is wanted of it.
    pub every: Duration,
    /// The least time between two attempts, whoever asks.
    pub at_least: Duration,
    /// The longest pause while it cannot be read.
    pub back_off_max: Duration,
    /// How long the last one is used while it cannot be read.
    pub stale_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            every: Duration::from_mins(5),
            at_least: Duration::from_secs(10),
            back_off_max: Duration::from_mins(5),
            stale_max: Duration::from_hours(24),
        }
    }
}

/// An issuer whose tokens are accepted.
#[derive(Debug)]
pub struct ExternalIssuer {
    source: KeySource,
    http: HttpClient,
    clock: Clock,
    pace: Pace,
    validation: Validation,
    algorithms: TokenAlgorithms,
    known: RwLock<Known>,
    /// Somebody wants the set read.
    wanted: Notify,
    /// Counts the attempts to read it.
    attempts: watch::Sender<u64>,
}

/// What is known of the key set.
#[derive(Debug, Default)]
struct Known {
    keys: Arc<KeySet>,
    /// When they were read; `None` before the first time.
    read_at: Option<Monotonic>,
    /// Before then nobody's wish has it read again.
    not_before: Monotonic,
}

/// The body of a token.
#[derive(Debug, Deserialize)]
struct Claims {
    exp: u64,
    #[serde(default)]
    nbf: Option<u64>,
    sub: String,
    role: Role,
    #[serde(default)]
    cluster: Option<ClusterId>,
}

#[derive(Debug, Error)]
enum ReadError {
    #[error("the key set cannot be read")]
    File(#[from] std::io::Error),
    #[error("the key set cannot be had")]
    Asked(#[from] OutboundError),
    #[error("the key set cannot be used")]
    Bad(#[from] BadKeySet),
}

impl ExternalIssuer {
    /// The issuer of these settings, whose keys nobody has read yet.
    pub fn new(
        settings: config::ExternalIssuer,
        algorithms: TokenAlgorithms,
        http: HttpClient,
        clock: Clock,
        pace: Pace,
    ) -> Self {
        let mut validation = Validation::default();
        validation.set_issuer(&[settings.issuer]);
        validation.set_audience(&[settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // The library would read the clock itself; both are checked below instead.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        Self {
            source: settings.keys,
            http,
            clock,
            pace,
            validation,
            algorithms,
            known: RwLock::default(),
            wanted: Notify::new(),
            attempts: watch::Sender::new(0),
        }
    }

    /// What the token grants at `now`.
    ///
    /// # Errors
    /// Says what is wrong with it; [`TokenError::KeysAway`] when nobody can tell.
    pub async fn verify(&self, token: &str, header: &Header, now: Timestamp) -> Result<Grant, TokenError> {
        let accepted = algorithm_of(header.alg).is_some_and(|algorithm| self.algorithms.contains(algorithm));
        // What a header marks as critical must be understood (RFC 7515, 4.1.11), and nothing is.
        if !accepted || header.crit.is_some() {
            return Err(TokenError::Algorithm);
        }
        let kid = header.kid.as_deref().ok_or(TokenError::KeyUnknown)?;
        let keys = self.keys_with(kid).await?;
        let key = keys.get(Some(kid)).ok_or(TokenError::KeyUnknown)?;
        if key.algorithm != header.alg {
            return Err(TokenError::Algorithm);
        }
        let mut validation = self.validation.clone();
        validation.algorithms = vec![key.algorithm];
        let claims = jsonwebtoken::decode::<Claims>(token, &key.key, &validation)
            .map_err(|error| TokenError::from(error.into_kind()))?
            .claims;
        let now = unix_secs(now);
        if claims.exp <= now {
            return Err(TokenError::Expired);
        }
        if claims.nbf.is_some_and(|nbf| nbf > now.saturating_add(NOT_BEFORE_LEEWAY_SECS)) {
            return Err(TokenError::NotYetValid);
        }
        Ok(Grant { subject: claims.sub, role: claims.role, cluster: claims.cluster })
    }

    /// The keys, read again first when that may bring one of this name.
    async fn keys_with(&self, kid: &str) -> Result<Arc<KeySet>, TokenError> {
        if let Some(keys) = self.fresh_keys()
            && keys.get(Some(kid)).is_some()
        {
            return Ok(keys);
        }
        let mut attempts = self.attempts.subscribe();
        let may_ask = self.clock.mono() >= self.known.read().not_before;
        if may_ask || *attempts.borrow_and_update() == 0 {
            self.wanted.notify_one();
            // Its result is looked at below, whatever it is.
            let _ = tokio::time::timeout(WAIT, attempts.changed()).await;
        }
        self.fresh_keys().ok_or(TokenError::KeysAway)
    }

    /// The keys that were read last, unless that is too long ago.
    fn fresh_keys(&self) -> Option<Arc<KeySet>> {
        let known = self.known.read();
        let age = self.clock.mono().since(known.read_at?);
        (age <= self.pace.stale_max).then(|| Arc::clone(&known.keys))
    }

    /// Keeps the keys up to date until `stop` is cancelled.
    pub async fn run(&self, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            match self.read().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    if failures == 1 {
                        let cause: &dyn std::error::Error = &error;
                        warn!(cause, "external tokens are judged by the last key set, if any: {error}");
                    }
                }
            }
            let (pause, least) = self.pauses(failures);
            self.known.write().not_before =
                self.clock.mono().plus_millis(u64::try_from(least.as_millis()).unwrap_or(u64::MAX));
            self.attempts.send_modify(|count| *count = count.wrapping_add(1));
            let rest = async {
                tokio::time::sleep(least).await;
                // A wish of the time in between counts.
                let _ = tokio::time::timeout(pause.saturating_sub(least), self.wanted.notified()).await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = rest => {}
            }
        }
    }

    /// How long to wait when nobody wishes otherwise, and when somebody does.
    fn pauses(&self, failures: u32) -> (Duration, Duration) {
        let Pace { every, at_least, back_off_max, .. } = self.pace;
        match failures.checked_sub(1) {
            None => (every, at_least.min(every)),
            // Nobody is spared a pause by asking for what is not there.
            Some(doublings) => {
                let pause = at_least.saturating_mul(1 << doublings.min(16)).min(back_off_max);
                (pause, pause)
            }
        }
    }

    async fn read(&self) -> Result<(), ReadError> {
        let json = match &self.source {
            KeySource::File(path) => read_file(path).await?,
            KeySource::Url(url) => self.http.get(url, SET_TIME_MAX, SET_BYTES_MAX).await?,
        };
        let keys = KeySet::read_named(&json)?;
        let count = keys.count();
        let mut known = self.known.write();
        if known.read_at.is_none() {
            info!(count, "the key set of the external issuer has {count} keys");
        }
        known.keys = Arc::new(keys);
        known.read_at = Some(self.clock.mono());
        Ok(())
    }
}

async fn read_file(path: &std::path::Path) -> std::io::Result<Bytes> {
    let length = tokio::fs::metadata(path).await?.len();
    if length > SET_BYTES_MAX as u64 {
        return Err(std::io::Error::other(format!("{length} bytes are more than {SET_BYTES_MAX}")));
    }
    Ok(tokio::fs::read(path).await?.into())
}
