//! A set of public keys, as an issuer of tokens publishes it (JWKS, RFC 7517).
//!
//! A key is good for one algorithm only, which follows from the kind of key: what a token's header says chooses
//! among keys and never how a key is used. So no public key is ever taken for the secret of an HMAC.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// How many keys a set may have.
const KEYS_MAX: usize = 100;

/// The longest name of a key.
const KID_BYTES_MAX: usize = 256;

/// The keys of one issuer.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<Key>);

/// A public key.
#[derive(Clone, Debug)]
pub struct Key {
    kid: Option<String>,
    /// What it is good for.
    pub algorithm: Algorithm,
    /// The key.
    pub key: DecodingKey,
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
    #[error("it has no key for RS256, ES256 or EdDSA")]
    NoneOfUse,
    /// Keys have to be named, and none of those of use is.
    #[error("it has no key with a name (kid) for RS256, ES256 or EdDSA")]
    NoneNamed,
}

impl KeySet {
    /// Reads a set. Keys that are of no use here are passed over (RFC 7517, 5).
    pub fn read(json: &[u8]) -> Result<Self, BadKeySet> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(json).map_err(BadKeySet::NotASet)?;
        if set.keys.len() > KEYS_MAX {
            return Err(BadKeySet::TooMany);
        }
        let keys: Vec<_> = set.keys.into_iter().filter_map(usable).collect();
        if keys.is_empty() { Err(BadKeySet::NoneOfUse) } else { Ok(Self(keys)) }
    }

    /// Reads a set of which only keys with names are of use.
    pub fn read_named(json: &[u8]) -> Result<Self, BadKeySet> {
        let named: Vec<_> = Self::read(json)?.0.into_iter().filter(|key| key.kid.is_some()).collect();
        if named.is_empty() { Err(BadKeySet::NoneNamed) } else { Ok(Self(named)) }
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The key of that name. A token that names none means the only key, where there is one only.
    pub fn get(&self, kid: Option<&str>) -> Option<&Key> {
        match (kid, &self.0[..]) {
            (Some(kid), keys) => keys.iter().find(|key| key.kid.as_deref() == Some(kid)),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }
}

fn usable(key: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(key).ok()?;
    let common = &jwk.common;
    let kid = common.key_id.clone();
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(of) if of.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(of) if of.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    let is_named_well = kid.as_ref().is_none_or(|kid| kid.len() <= KID_BYTES_MAX);
    let to_sign = common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    let to_verify =
        common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    // The words of RFC 7518 are the same for keys and signatures.
    let of_algorithm = common.key_algorithm.is_none_or(|said| said.to_string() == format!("{algorithm:?}"));
    if !(is_named_well && to_sign && to_verify && of_algorithm) {
        return None;
    }
    Some(Key { kid, algorithm, key: DecodingKey::from_jwk(&jwk).ok()? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const X: &str = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
    const Y: &str = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";

    fn ec(more: &Value) -> Value {
        let mut key = json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y});
        key.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        key
    }

    fn set(keys: &Value) -> Result<KeySet, BadKeySet> {
        KeySet::read(json!({"keys": keys, "more": 1}).to_string().as_bytes())
    }

    #[test]
    fn keys_to_verify_signatures_are_taken_and_others_passed_over() {
        let keys = json!([
            ec(&json!({"kid": "plain"})),
            ec(&json!({"kid": "said", "use": "sig", "alg": "ES256", "key_ops": ["verify"]})),
            ec(&json!({"kid": "to encrypt", "use": "enc"})),
            ec(&json!({"kid": "to sign", "key_ops": ["sign"]})),
            ec(&json!({"kid": "other algorithm", "alg": "ES384"})),
            ec(&json!({"kid": "other curve", "crv": "P-384"})),
            ec(&json!({"kid": "x".repeat(257)})),
            json!({"kty": "oct", "kid": "secret", "k": "AAAA"}),
            json!({"kty": "new", "kid": "unknown"}),
            json!(7),
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "edwards", "x": X}),
        ]);
        let set = set(&keys).expect("a set");
        let names: Vec<_> = set.0.iter().filter_map(|key| key.kid.as_deref()).collect();
        assert_eq!(names, ["plain", "said", "edwards"]);
        assert_eq!(set.get(Some("edwards")).map(|key| key.algorithm), Some(Algorithm::EdDSA));
        assert!(set.get(Some("secret")).is_none() && set.get(None).is_none());
    }

    #[test]
    fn a_token_without_a_name_means_the_only_key() {
        let only = set(&json!([ec(&json!({}))])).expect("a set");
        assert!(only.get(None).is_some() && only.get(Some("x")).is_none());
    }

    #[test]
    fn who_needs_names_passes_over_keys_without_one() {
        let read = |keys: &Value| KeySet::read_named(json!({ "keys": keys }).to_string().as_bytes());
        let set = read(&json!([ec(&json!({})), ec(&json!({"kid": "a"}))])).expect("a set");
        assert!(set.count() == 1 && set.get(Some("a")).is_some());
        assert!(matches!(read(&json!([ec(&json!({}))])), Err(BadKeySet::NoneNamed)));
        assert!(matches!(read(&json!([])), Err(BadKeySet::NoneOfUse)));
    }

    #[test]
    fn what_is_no_set_is_refused() {
        assert!(matches!(set(&json!([{"kty": "oct", "kid": "s", "k": "AAAA"}])), Err(BadKeySet::NoneOfUse)));
        let many = json!(vec![ec(&json!({"kid": "a"})); 101]);
        assert!(matches!(set(&many), Err(BadKeySet::TooMany)));
        assert!(KeySet::read(b"<html>").is_err() && KeySet::read(b"[]").is_err());
    }
}
