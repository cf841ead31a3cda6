//! API keys: what a program sends in place of a token.
//!
//! `hfk_{id}_{secret}`: the prefix lets scanners find keys in places where they should not be, the id
//! names the key in logs and the audit log, the secret is 256 random bits. It is shown once, when it is made;
//! of it only its SHA-256 is kept, which is enough for a secret that cannot be guessed.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::model::Timestamp;
use crate::store::ApiKeyRecord;

/// How every key begins.
pub const PREFIX: &str = "hfk_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// A key that was just made.
pub struct FreshKey {
    /// Its public part.
    pub id: String,
    /// The whole of it, to be shown once.
    pub text: String,
    /// What is kept of it.
    pub secret_hash: Vec<u8>,
}

impl FreshKey {
    /// A new key.
    ///
    /// # Errors
    /// The operating system has no randomness.
    pub fn make() -> Result<Self, getrandom::Error> {
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        let id = format!("{:016x}", u64::from_be_bytes(id));
        let secret = URL_SAFE_NO_PAD.encode(secret);
        let text = format!("{PREFIX}{id}_{secret}");
        Ok(Self { id, text, secret_hash: hash(&secret) })
    }
}

/// The id and the secret of what may be a key.
pub fn parts(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix(PREFIX)?.split_once('_')
}

/// Whether the secret is the key's, and the key good at `now`.
///
/// # Errors
/// Says what is wrong; of a key whose secret was not shown, nothing more.
pub fn check(record: Option<&ApiKeyRecord>, secret: &str, now: Timestamp) -> Result<(), ApiKeyError> {
    let record = record.ok_or(ApiKeyError::Unknown)?;
    if !bool::from(hash(secret).ct_eq(&record.key.secret_hash)) {
        return Err(ApiKeyError::Unknown);
    }
    if record.revoked_at.is_some() {
        return Err(ApiKeyError::Revoked);
    }
    if record.key.expires_at.is_some_and(|at| at <= now) {
        return Err(ApiKeyError::Expired);
    }
    Ok(())
}

fn hash(secret: &str) -> Vec<u8> {
    digest(&SHA256, secret.as_bytes()).as_ref().to_vec()
}

/// Why a key is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ApiKeyError {
    /// There is no such key, or its secret is another.
    #[error("the API key is not one of this service")]
    Unknown,
    /// Somebody took it back.
    #[error("the API key was revoked")]
    Revoked,
    /// Its time is over.
    #[error("the API key has expired")]
    Expired,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NewApiKey;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn record(fresh: &FreshKey) -> ApiKeyRecord {
        ApiKeyRecord {
            key: NewApiKey {
                id: fresh.id.clone(),
                name: "ci".to_owned(),
                secret_hash: fresh.secret_hash.clone(),
                role: "viewer".to_owned(),
                scopes: None,
                cluster: None,
                created_by: "ada".to_owned(),
                expires_at: Some(NOW.plus_secs(60)),
            },
            created_at: NOW,
            revoked_at: None,
            last_used_at: None,
        }
    }

    #[test]
    fn a_key_is_good_with_its_secret_until_it_ends() {
        let fresh = FreshKey::make().expect("randomness");
        let other = FreshKey::make().expect("randomness");
        let (id, secret) = parts(&fresh.text).expect("a key");
        assert_eq!((id, secret.len()), (fresh.id.as_str(), 43));
        let mut record = record(&fresh);
        assert_eq!(check(Some(&record), secret, NOW), Ok(()));
        assert_eq!(check(Some(&record), secret, NOW.plus_secs(60)), Err(ApiKeyError::Expired));
        let (_, wrong) = parts(&other.text).expect("a key");
        for bad in [wrong, "", "x"] {
            assert_eq!(check(Some(&record), bad, NOW), Err(ApiKeyError::Unknown));
        }
        assert_eq!(check(None, secret, NOW), Err(ApiKeyError::Unknown));
        record.revoked_at = Some(NOW);
        assert_eq!(check(Some(&record), secret, NOW), Err(ApiKeyError::Revoked));
        assert_eq!(
            check(Some(&record), wrong, NOW),
            Err(ApiKeyError::Unknown),
            "who cannot show it learns nothing"
        );
    }

    #[test]
    fn what_is_no_key_has_no_parts() {
        for text in ["", "hfk_", "hfk_x", "eyJhbGciOiJIUzI1NiJ9.e30.x"] {
            assert_eq!(parts(text), None, "{text}");
        }
    }
}
