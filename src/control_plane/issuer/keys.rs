//! A set of public keys, as an issuer of tokens publishes it (JWKS, RFC 7517).
//!
//! A key is good for one algorithm only, which follows from the kind of key: what a token's header says chooses
//! among keys and never how a key is used. So no public key is ever taken for the secret of an HMAC.

use std::collections::HashMap;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// How many keys a set may have.
const KEYS_MAX: usize = 100;

/// The longest name of a key.
const KID_BYTES_MAX: usize = 256;

/// The keys of one issuer by their names.
#[derive(Debug, Default)]
pub(super) struct Keys(HashMap<String, Key>);

/// A public key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// What came is no set that can be used.
#[derive(Debug, Error)]
pub enum BadKeySet {
    /// It is no JSON of the right form.
    #[error("it is no JSON Web Key Set")]
    NotASet(#[source] serde_json::Error),
    /// It is too large.
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
    /// None of its keys is of use.
    #[error("it has no key with a name (kid) for RS256, ES256 or EdDSA")]
    NoneOfUse,
}

impl Keys {
    /// Reads a set. Keys that are of no use here are passed over (RFC 7517, 5).
    pub(super) fn read(json: &[u8]) -> Result<Self, BadKeySet> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(json).map_err(BadKeySet::NotASet)?;
        if set.keys.len() > KEYS_MAX {
            return Err(BadKeySet::TooMany);
        }
        let keys: HashMap<_, _> = set.keys.into_iter().filter_map(usable).collect();
        if keys.is_empty() { Err(BadKeySet::NoneOfUse) } else { Ok(Self(keys)) }
    }

    /// The key of that name.
    pub(super) fn get(&self, kid: &str) -> Option<&Key> {
        self.0.get(kid)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn usable(key: Value) -> Option<(String, Key)> {
    let jwk: Jwk = serde_json::from_value(key).ok()?;
    let common = &jwk.common;
    let kid = common.key_id.clone().filter(|kid| kid.len() <= KID_BYTES_MAX)?;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(of) if of.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(of) if of.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    let to_sign = common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    let to_verify =
        common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    // The words of RFC 7518 are the same for keys and signatures.
    let of_algorithm = common.key_algorithm.is_none_or(|said| said.to_string() == format!("{algorithm:?}"));
    if !(to_sign && to_verify && of_algorithm) {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some((kid, Key { algorithm, key }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const X: &str = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
    const Y: &str = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";

    fn names(keys: &Value) -> Option<Vec<String>> {
        let set = Keys::read(json!({"keys": keys, "more": 1}).to_string().as_bytes()).ok()?;
        let mut names: Vec<_> = set.0.into_keys().collect();
        names.sort();
        Some(names)
    }

    #[test]
    fn keys_to_verify_signatures_are_taken_and_others_passed_over() {
        let ec = |more: &Value| {
            let mut key = json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y});
            key.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            key
        };
        let keys = json!([
            ec(&json!({"kid": "plain"})),
            ec(&json!({"kid": "said", "use": "sig", "alg": "ES256", "key_ops": ["verify"]})),
            ec(&json!({"kid": "to encrypt", "use": "enc"})),
            ec(&json!({"kid": "to sign", "key_ops": ["sign"]})),
            ec(&json!({"kid": "other algorithm", "alg": "ES384"})),
            ec(&json!({"kid": "other curve", "crv": "P-384"})),
            ec(&json!({})),
            ec(&json!({"kid": "x".repeat(257)})),
            json!({"kty": "oct", "kid": "secret", "k": "AAAA"}),
            json!({"kty": "new", "kid": "unknown"}),
            json!(7),
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "edwards", "x": X}),
        ]);
        assert_eq!(names(&keys), Some(vec!["edwards".to_owned(), "plain".to_owned(), "said".to_owned()]));
        assert_eq!(names(&json!([{"kty": "oct", "kid": "secret", "k": "AAAA"}])), None);
        assert_eq!(names(&json!(vec![ec(&json!({"kid": "a"})); 101])), None);
        assert!(Keys::read(b"<html>").is_err() && Keys::read(b"[]").is_err());
    }
}
