//! JSON Web Tokens of clients (RFC 7519).
//!
//! A token that this verifier's key has not signed may be another link's: that is told apart
//! ([`TokenFault::Foreign`]) from one that it has signed and that does not hold
//! ([`TokenFault::Refused`]). How a key is used follows from the settings and the kind of the key, never
//! from the token alone. What a header marks as critical is not understood (RFC 7515, 4.1.11).

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde_json::{Map, Value};
use thiserror::Error;

use super::Unusable;
use super::key_set::KeySet;
use crate::model::{Acl, HttpUrl, JwtAlgorithm, JwtKey, JwtSettings, Template, Timestamp, TokenIn, Values};

/// How far ahead another machine's clock may be before its fresh token counts as not yet valid.
const NOT_BEFORE_LEEWAY_MILLIS: i64 = 5_000;

/// The longest token that is looked at: a CONNECT may have 64 KiB.
pub const TOKEN_BYTES_MAX: usize = 16 * 1_024;

/// The shortest secret: as long as the hash (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// Checks the tokens of one link.
#[derive(Debug)]
pub struct JwtVerifier {
    /// Where in CONNECT the token is.
    pub token_in: TokenIn,
    keys: Keys,
    algorithms: Vec<Algorithm>,
    claims: BTreeMap<String, Template>,
    username_claim: Option<String>,
}

#[derive(Debug)]
enum Keys {
    /// One for each algorithm that it could be for.
    Fixed(Vec<(Algorithm, DecodingKey)>),
    Set(KeySet),
    Fetched(HttpUrl),
}

/// What a good token says.
#[derive(Debug, PartialEq, Eq)]
pub struct TokenSays {
    /// Who its bearer is, if it says so.
    pub username: Option<String>,
    /// Until when.
    pub expires_at: Option<Timestamp>,
    /// What its bearer may do.
    pub acl: Acl,
    /// Whether its bearer stands above the policies.
    pub is_superuser: bool,
}

/// Why a token is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenFault {
    /// It is none.
    #[error("it is no token")]
    NotAToken,
    /// Its key is not in the set, or the set is not there.
    #[error("its key is not known")]
    KeyUnknown,
    /// Somebody else's, as far as this verifier can tell.
    #[error("it is not signed with a key of this authenticator")]
    Foreign,
    /// Signed, and not good.
    #[error("{0}")]
    Refused(&'static str),
}

impl JwtVerifier {
    /// A verifier by these settings.
    ///
    /// # Errors
    /// Which setting nothing could be checked with.
    pub fn new(settings: &JwtSettings) -> Result<Self, Unusable> {
        let algorithms: Vec<Algorithm> = settings.algorithms.iter().copied().map(algorithm).collect();
        let is_hmac = |algorithm: &Algorithm| *algorithm == Algorithm::HS256;
        let of_secret = matches!(settings.key, JwtKey::Secret { .. });
        if algorithms.is_empty() || algorithms.iter().any(|algorithm| is_hmac(algorithm) != of_secret) {
            let why = "HS256 with a secret; RS256, ES256 or EdDSA with public keys; at least one";
            return Err(Unusable::new("/algorithms", why));
        }
        let keys = match &settings.key {
            JwtKey::Secret { secret, base64 } => {
                Keys::Fixed(vec![(Algorithm::HS256, of_text(secret.expose(), *base64)?)])
            }
            JwtKey::PublicKey { pem } => Keys::Fixed(of_pem(pem, &algorithms)?),
            JwtKey::Jwks { json } => {
                let set = KeySet::read(json.as_bytes());
                Keys::Set(set.map_err(|error| Unusable::new("/jwks", error.to_string()))?)
            }
            JwtKey::JwksUrl { url } => Keys::Fetched(url.clone()),
        };
        if settings.claims.values().any(|template| !template.is_of_names()) {
            return Err(Unusable::new("/claims", "the variables of claims are ${clientid} and ${username}"));
        }
        Ok(Self {
            token_in: settings.token_in,
            keys,
            algorithms,
            claims: settings.claims.clone(),
            username_claim: settings.username_claim.clone(),
        })
    }

    /// Where its keys are to be fetched from.
    pub fn keys_at(&self) -> Option<&HttpUrl> {
        match &self.keys {
            Keys::Fetched(url) => Some(url),
            Keys::Fixed(_) | Keys::Set(_) => None,
        }
    }

    /// Checks a token. `fetched`: what came from [`JwtVerifier::keys_at`].
    ///
    /// # Errors
    /// Why it is not good.
    pub fn verify(
        &self,
        token: &str,
        fetched: Option<&KeySet>,
        now: Timestamp,
        values: &Values<'_>,
    ) -> Result<TokenSays, TokenFault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::NotAToken);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenFault::NotAToken)?;
        if !self.algorithms.contains(&header.alg) || header.crit.is_some() {
            return Err(TokenFault::Foreign);
        }
        let key = self.key(&header, fetched)?;
        let mut validation = Validation::new(header.alg);
        // The library would read the clock itself, and knows no templates: claims are judged below.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        let claims = jsonwebtoken::decode::<Map<String, Value>>(token, key, &validation)
            .map_err(|_| TokenFault::Foreign)?
            .claims;
        self.judge(&claims, now, values)
    }

    fn key<'a>(
        &'a self,
        header: &Header,
        fetched: Option<&'a KeySet>,
    ) -> Result<&'a DecodingKey, TokenFault> {
        let set = match &self.keys {
            Keys::Fixed(keys) => {
                let key = keys.iter().find(|(algorithm, _)| *algorithm == header.alg);
                return key.map(|(_, key)| key).ok_or(TokenFault::Foreign);
            }
            Keys::Set(set) => Some(set),
            Keys::Fetched(_) => fetched,
        };
        let key = set.and_then(|set| set.get(header.kid.as_deref())).ok_or(TokenFault::KeyUnknown)?;
        if key.algorithm == header.alg { Ok(&key.key) } else { Err(TokenFault::Foreign) }
    }

    fn judge(
        &self,
        claims: &Map<String, Value>,
        now: Timestamp,
        values: &Values<'_>,
    ) -> Result<TokenSays, TokenFault> {
        let expires_at = claims.get("exp").map(millis).transpose()?.map(Timestamp::from_millis);
        if expires_at.is_some_and(|at| at <= now) {
            return Err(TokenFault::Refused("the token has expired"));
        }
        let not_before = claims.get("nbf").map(millis).transpose()?;
        if not_before.is_some_and(|at| at > now.as_millis().saturating_add(NOT_BEFORE_LEEWAY_MILLIS)) {
            return Err(TokenFault::Refused("the token is not valid yet"));
        }
        for (name, template) in &self.claims {
            let wanted = template.fill(values);
            if !claims.get(name).zip(wanted).is_some_and(|(said, wanted)| says(said, &wanted)) {
                return Err(TokenFault::Refused("a claim of the token does not say what it must"));
            }
        }
        let username = match &self.username_claim {
            None => None,
            Some(name) => match claims.get(name).and_then(Value::as_str).filter(|name| !name.is_empty()) {
                Some(username) => Some(username.to_owned()),
                None => return Err(TokenFault::Refused("the token does not say who its bearer is")),
            },
        };
        let acl = match claims.get("acl") {
            None => Acl::default(),
            // What cannot be understood must not be taken for "everything".
            Some(acl) => {
                Acl::parse(acl).map_err(|_| TokenFault::Refused("the token's acl cannot be read"))?
            }
        };
        let is_superuser = claims.get("is_superuser").and_then(Value::as_bool).unwrap_or_default();
        Ok(TokenSays { username, expires_at, acl, is_superuser })
    }
}

fn algorithm(of: JwtAlgorithm) -> Algorithm {
    match of {
        JwtAlgorithm::Hs256 => Algorithm::HS256,
        JwtAlgorithm::Rs256 => Algorithm::RS256,
        JwtAlgorithm::Es256 => Algorithm::ES256,
        JwtAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}

fn of_text(secret: &str, base64: bool) -> Result<DecodingKey, Unusable> {
    let too_short = || Unusable::new("/secret", format!("at least {SECRET_BYTES_MIN} bytes (RFC 7518, 3.2)"));
    if !base64 {
        let long_enough = secret.len() >= SECRET_BYTES_MIN;
        return if long_enough { Ok(DecodingKey::from_secret(secret.as_bytes())) } else { Err(too_short()) };
    }
    let key = DecodingKey::from_base64_secret(secret)
        .map_err(|_| Unusable::new("/secret", "it is not base64, as secret_is_base64 says"))?;
    let long_enough = key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() >= SECRET_BYTES_MIN);
    if long_enough { Ok(key) } else { Err(too_short()) }
}

fn of_pem(pem: &str, algorithms: &[Algorithm]) -> Result<Vec<(Algorithm, DecodingKey)>, Unusable> {
    let key = |algorithm: &Algorithm| {
        let key = match algorithm {
            Algorithm::RS256 => DecodingKey::from_rsa_pem(pem.as_bytes()),
            Algorithm::ES256 => DecodingKey::from_ec_pem(pem.as_bytes()),
            _ => DecodingKey::from_ed_pem(pem.as_bytes()),
        };
        Some((*algorithm, key.ok()?))
    };
    let keys: Vec<_> = algorithms.iter().filter_map(key).collect();
    if pem.contains("PRIVATE KEY") {
        return Err(Unusable::new("/public_key", "this is a private key: keep it to whoever signs"));
    }
    if keys.is_empty() {
        return Err(Unusable::new("/public_key", "it is no public key in PEM for one of the algorithms"));
    }
    Ok(keys)
}

/// A time in seconds (RFC 7519, 2: `NumericDate`), in milliseconds.
#[allow(clippy::cast_possible_truncation)] // a float is brought within the bounds first
fn millis(said: &Value) -> Result<i64, TokenFault> {
    let seconds = said.as_f64().ok_or(TokenFault::Refused("a time in the token is no number"))?;
    // The year 9999: later is never.
    Ok((seconds.clamp(0.0, 253_402_300_799.0) * 1_000.0) as i64)
}

/// Whether a claim says this; of a list, whether it is in it, as with `aud` (RFC 7519, 4.1.3).
fn says(said: &Value, wanted: &str) -> bool {
    match said {
        Value::String(said) => said == wanted,
        Value::Array(several) => several.iter().any(|said| said.as_str() == Some(wanted)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, encode};
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
    use serde_json::json;

    use super::*;
    use crate::model::Hidden;

    const SECRET: &str = "a secret that is as long as a hash is";
    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);
    const VALUES: Values<'_> =
        Values { client_id: "meter-1", username: "ada", password: None, peer: "", cluster: "c" };

    fn by_secret() -> JwtSettings {
        JwtSettings {
            token_in: TokenIn::Password,
            key: JwtKey::Secret { secret: Hidden::new(SECRET), base64: false },
            algorithms: [JwtAlgorithm::Hs256].into(),
            claims: BTreeMap::new(),
            username_claim: None,
        }
    }

    fn signed(claims: &Value) -> String {
        encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token")
    }

    fn verified(settings: &JwtSettings, token: &str) -> Result<TokenSays, TokenFault> {
        JwtVerifier::new(settings).expect("a verifier").verify(token, None, NOW, &VALUES)
    }

    #[test]
    fn times_are_judged_by_the_clock_that_is_given() {
        let verified = |claims: Value| verified(&by_secret(), &signed(&claims));
        assert!(verified(json!({})).is_ok_and(|says| says.expires_at.is_none()));
        let says = verified(json!({"exp": 1_000_000.5, "nbf": 1_000_004})).expect("good");
        assert_eq!(says.expires_at, Some(Timestamp::from_millis(1_000_000_500)));
        for bad in
            [json!({"exp": 1_000_000}), json!({"exp": -1}), json!({"nbf": 1_000_006}), json!({"exp": "x"})]
        {
            assert!(matches!(verified(bad.clone()), Err(TokenFault::Refused(_))), "{bad}");
        }
    }

    #[test]
    fn claims_must_say_what_is_asked() {
        let template = |text: &str| Template::new(text).expect("a template");
        let claims = [
            ("aud", "mqtt"),
            ("iss", "https://i.example"),
            ("client", "${clientid}"),
            ("sub", "${username}"),
        ];
        let claims = claims.map(|(name, text)| (name.to_owned(), template(text))).into();
        let settings = JwtSettings { claims, username_claim: Some("sub".to_owned()), ..by_secret() };
        let good =
            json!({"aud": ["x", "mqtt"], "iss": "https://i.example", "client": "meter-1", "sub": "ada"});
        let says = verified(&settings, &signed(&good)).expect("good");
        assert_eq!(says.username.as_deref(), Some("ada"));
        for (name, wrong) in [
            ("aud", json!("other")),
            ("iss", json!(null)),
            ("client", json!("meter-2")),
            ("sub", json!("bob")),
        ] {
            let mut claims = good.clone();
            claims[name] = wrong;
            assert!(matches!(verified(&settings, &signed(&claims)), Err(TokenFault::Refused(_))), "{name}");
        }
    }

    #[test]
    fn its_rules_are_read_or_it_is_refused() {
        let acl = json!({"acl": {"publish": ["a"]}, "is_superuser": true});
        let says = verified(&by_secret(), &signed(&acl)).expect("good");
        assert!(says.acl.rules().len() == 1 && says.is_superuser);
        let broken = signed(&json!({"acl": {"publish": "a"}}));
        assert!(matches!(verified(&by_secret(), &broken), Err(TokenFault::Refused(_))));
    }

    #[test]
    fn somebody_elses_token_is_told_apart() {
        for no_token in ["", "pencil", "a.b.c", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            assert_eq!(verified(&by_secret(), no_token), Err(TokenFault::NotAToken));
        }
        let other = EncodingKey::from_secret(b"another secret that is long enough too");
        let foreign = encode(&Header::default(), &json!({}), &other).expect("a token");
        assert_eq!(verified(&by_secret(), &foreign), Err(TokenFault::Foreign));
        // {"alg":"none"}
        assert_eq!(verified(&by_secret(), "eyJhbGciOiJub25lIn0.e30."), Err(TokenFault::NotAToken));
        let header = Header { crit: Some(vec!["x".to_owned()]), ..Header::default() };
        let own = EncodingKey::from_secret(SECRET.as_bytes());
        let critical = encode(&header, &json!({}), &own).expect("a token");
        assert_eq!(verified(&by_secret(), &critical), Err(TokenFault::Foreign));
    }

    #[test]
    fn public_keys_check_what_their_private_keys_signed_and_nothing_else() {
        let pairs = [
            (Algorithm::ES256, JwtAlgorithm::Es256, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)),
            (Algorithm::EdDSA, JwtAlgorithm::EdDsa, KeyPair::generate_for(&PKCS_ED25519)),
        ];
        for (algorithm, allowed, pair) in pairs {
            let pair = pair.expect("a key");
            let pem = pair.serialize_pem();
            let private = match algorithm {
                Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
                _ => EncodingKey::from_ed_pem(pem.as_bytes()),
            };
            let token =
                encode(&Header::new(algorithm), &json!({}), &private.expect("a key")).expect("a token");
            let key = JwtKey::PublicKey { pem: pair.public_key_pem() };
            let settings = JwtSettings { key: key.clone(), algorithms: [allowed].into(), ..by_secret() };
            assert!(verified(&settings, &token).is_ok(), "{algorithm:?}");
            // The public key is no secret: what was signed with it as one is nobody's.
            let forged = EncodingKey::from_secret(pair.public_key_pem().as_bytes());
            let forged = encode(&Header::default(), &json!({}), &forged).expect("a token");
            assert_eq!(verified(&settings, &forged), Err(TokenFault::Foreign));
            let both = JwtSettings { key, algorithms: [allowed, JwtAlgorithm::Hs256].into(), ..by_secret() };
            assert_eq!(JwtVerifier::new(&both).expect_err("refused").pointer, "/algorithms");
            let private = JwtKey::PublicKey { pem };
            let private = JwtSettings { key: private, algorithms: [allowed].into(), ..by_secret() };
            assert_eq!(JwtVerifier::new(&private).expect_err("refused").pointer, "/public_key");
        }
    }

    #[test]
    fn settings_that_cannot_work_are_pointed_at() {
        let secret = |text: &str, base64| JwtSettings {
            key: JwtKey::Secret { secret: Hidden::new(text), base64 },
            ..by_secret()
        };
        let of_key = |key| JwtSettings { key, algorithms: [JwtAlgorithm::Rs256].into(), ..by_secret() };
        let template = Template::new("${password}").expect("a template");
        for (settings, pointer) in [
            (secret("short", false), "/secret"),
            (secret("%%%", true), "/secret"),
            (secret("c2hvcnQ=", true), "/secret"),
            (JwtSettings { algorithms: [].into(), ..by_secret() }, "/algorithms"),
            (of_key(JwtKey::PublicKey { pem: "x".to_owned() }), "/public_key"),
            (of_key(JwtKey::Jwks { json: "{}".to_owned() }), "/jwks"),
            (JwtSettings { claims: [("a".to_owned(), template)].into(), ..by_secret() }, "/claims"),
        ] {
            assert_eq!(JwtVerifier::new(&settings).expect_err("refused").pointer, pointer);
        }
    }

    #[test]
    fn a_key_that_is_not_there_is_told() {
        let url: HttpUrl = "https://i.example/keys".parse().expect("a URL");
        let key = JwtKey::JwksUrl { url };
        let settings = JwtSettings { key, algorithms: [JwtAlgorithm::Es256].into(), ..by_secret() };
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let private = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key");
        let token = encode(&Header::new(Algorithm::ES256), &json!({}), &private).expect("a token");
        assert_eq!(verified(&settings, &token), Err(TokenFault::KeyUnknown));
    }
}
