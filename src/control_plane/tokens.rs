//! Bearer tokens: JSON Web Tokens signed with the service's own secret (HS256, RFC 7519).
//!
//! A token says who calls ([`Grant`]), until when, and that it is meant for this API. It is accepted
//! only when its algorithm is the one allowed here, its signature holds, and `iss`, `aud`, `exp`,
//! `nbf`, `sub` and `role` are all present and right. Times are judged by the caller's clock, never
//! by the library's.
//!
//! Nothing is remembered of a token: one that must be taken back early is taken back by a new secret.

use std::fmt;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::TokenAlgorithm;
use crate::model::{ClusterId, Timestamp};

/// Who signs: the `iss` of every token.
pub const ISSUER: &str = "holdfast";
/// Whom tokens are meant for: the `aud` of every token.
pub const AUDIENCE: &str = "holdfast-api";

/// How far ahead another machine's clock may be before its fresh token counts as not yet valid.
pub(super) const NOT_BEFORE_LEEWAY_SECS: u64 = 5;

/// What a caller may do, least first. A greater role may do all that a lesser one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything.
    Viewer,
    /// Acts on sessions: disconnects, deletes, changes expiry.
    Operator,
    /// Changes clusters and quotas.
    Admin,
}

impl Role {
    /// As tokens and the command line write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(UnknownRole)
    }
}

/// The text names no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a role is viewer, operator or admin")]
pub struct UnknownRole;

/// The secret that signs and checks tokens. Whoever has it is administrator.
#[derive(Clone)]
pub struct TokenSecret([u8; Self::BYTES]);

impl TokenSecret {
    /// Its length: as long as the hash, the least that RFC 7518, 3.2 allows.
    pub const BYTES: usize = 32;

    /// A secret made of these bytes, which must come from a good source of randomness.
    pub const fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(redacted)")
    }
}

/// What a token grants to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who calls, for logs and audit.
    pub subject: String,
    /// What the caller may do.
    pub role: Role,
    /// The one cluster that exists for the caller; `None` for all of them.
    pub cluster: Option<ClusterId>,
}

/// The body of a token.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    /// Seconds since 1970.
    exp: u64,
    /// Seconds since 1970.
    nbf: u64,
    sub: String,
    role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterId>,
}

/// RFC 7519, 4.1.3: one audience or several.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// Makes tokens.
#[derive(Clone)]
pub struct TokenIssuer {
    key: EncodingKey,
}

impl TokenIssuer {
    /// An issuer that signs with this secret.
    pub fn new(secret: &TokenSecret) -> Self {
        Self { key: EncodingKey::from_secret(&secret.0) }
    }

    /// A token for `grant`, valid from `now` for `ttl`.
    ///
    /// # Errors
    /// [`TokenError::NotSigned`], when the cryptographic library refuses.
    pub fn issue(&self, grant: &Grant, now: Timestamp, ttl: Duration) -> Result<String, TokenError> {
        let nbf = unix_secs(now);
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: Audience::One(AUDIENCE.to_owned()),
            exp: nbf.saturating_add(ttl.as_secs()),
            nbf,
            sub: grant.subject.clone(),
            role: grant.role,
            cluster: grant.cluster.clone(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.key)
            .map_err(TokenError::NotSigned)
    }
}

impl fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenIssuer(redacted)")
    }
}

/// Checks tokens.
#[derive(Clone)]
pub struct TokenVerifier {
    key: DecodingKey,
    validation: Validation,
}

impl TokenVerifier {
    /// A verifier of tokens signed with this secret.
    pub fn new(secret: &TokenSecret) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        // The library would read the clock itself; both are checked below instead.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        Self { key: DecodingKey::from_secret(&secret.0), validation }
    }

    /// What the token grants at `now`.
    ///
    /// # Errors
    /// Says what is wrong with it. Nothing of the error is secret.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Grant, TokenError> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|error| TokenError::from(error.into_kind()))?
            .claims;
        let now = unix_secs(now);
        if claims.exp <= now {
            return Err(TokenError::Expired);
        }
        if claims.nbf > now.saturating_add(NOT_BEFORE_LEEWAY_SECS) {
            return Err(TokenError::NotYetValid);
        }
        Ok(Grant { subject: claims.sub, role: claims.role, cluster: claims.cluster })
    }
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenVerifier(redacted)")
    }
}

pub(super) fn unix_secs(at: Timestamp) -> u64 {
    u64::try_from(at.as_millis() / 1_000).unwrap_or(0)
}

/// The algorithm as settings name it; `None` for those that no setting allows.
pub(super) fn algorithm_of(algorithm: Algorithm) -> Option<TokenAlgorithm> {
    match algorithm {
        Algorithm::HS256 => Some(TokenAlgorithm::Hs256),
        Algorithm::RS256 => Some(TokenAlgorithm::Rs256),
        Algorithm::ES256 => Some(TokenAlgorithm::Es256),
        Algorithm::EdDSA => Some(TokenAlgorithm::EdDsa),
        _ => None,
    }
}

/// Why a token is not accepted, or could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It is no JSON Web Token, or a claim has the wrong form.
    #[error("the token is malformed")]
    Malformed,
    /// It is signed in another way than is accepted here (`none` included).
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// Somebody else signed it, or it was changed.
    #[error("the token's signature does not hold")]
    Signature,
    /// It does not name its key, or one that its issuer does not have.
    #[error("the token names no key of its issuer")]
    KeyUnknown,
    /// The issuer's keys are not known, so nobody can tell.
    #[error("the keys of the token's issuer cannot be read")]
    KeysAway,
    /// A claim is not there.
    #[error("the token has no {0} claim")]
    ClaimMissing(String),
    /// Somebody else issued it.
    #[error("the token's iss is not one that is accepted")]
    Issuer,
    /// It is meant for somebody else.
    #[error("the token's aud is not this API")]
    Audience,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It could not be made.
    #[error("the token could not be signed")]
    NotSigned(#[source] jsonwebtoken::errors::Error),
}

impl From<ErrorKind> for TokenError {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::InvalidAlgorithm
            | ErrorKind::InvalidAlgorithmName
            | ErrorKind::UnsupportedAlgorithm
            | ErrorKind::MissingAlgorithm => Self::Algorithm,
            ErrorKind::MissingRequiredClaim(claim) => Self::ClaimMissing(claim),
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidAudience => Self::Audience,
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::NotYetValid,
            _ => Self::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use super::*;

    const SECRET: TokenSecret = TokenSecret::new([7; 32]);
    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn claims() -> Value {
        json!({
            "iss": ISSUER, "aud": AUDIENCE, "exp": 1_800_000_060, "nbf": 1_800_000_000,
            "sub": "ada", "role": "operator",
        })
    }

    fn signed(algorithm: Algorithm, claims: &Value, secret: &[u8]) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret))
            .expect("a token")
    }

    fn verify(claims: &Value) -> Result<Grant, TokenError> {
        let token = signed(Algorithm::HS256, claims, &SECRET.0);
        TokenVerifier::new(&SECRET).verify(&token, NOW)
    }

    #[test]
    fn what_is_issued_is_accepted_until_it_expires() {
        let grant = Grant {
            subject: "ada".to_owned(),
            role: Role::Admin,
            cluster: Some(ClusterId::default_cluster()),
        };
        let ttl = Duration::from_mins(1);
        let token = TokenIssuer::new(&SECRET).issue(&grant, NOW, ttl).expect("a token");
        let verifier = TokenVerifier::new(&SECRET);
        assert_eq!(verifier.verify(&token, NOW), Ok(grant.clone()));
        assert_eq!(verifier.verify(&token, NOW.plus_secs(59)), Ok(grant));
        assert_eq!(verifier.verify(&token, NOW.plus_secs(60)), Err(TokenError::Expired));
        let early = Timestamp::from_millis(NOW.as_millis() - 6_000);
        assert_eq!(verifier.verify(&token, early), Err(TokenError::NotYetValid));
    }

    #[test]
    fn every_claim_is_needed_and_checked() {
        assert!(verify(&claims()).is_ok());
        for claim in ["iss", "aud", "exp", "nbf", "sub"] {
            let mut body = claims();
            body.as_object_mut().expect("an object").remove(claim);
            let found = verify(&body);
            let missing = Err(TokenError::ClaimMissing(claim.to_owned()));
            assert!(found == missing || found == Err(TokenError::Malformed), "{claim}: {found:?}");
        }
        for (claim, value, error) in [
            ("iss", json!("mallory"), TokenError::Issuer),
            ("aud", json!("other-api"), TokenError::Audience),
            ("aud", json!(["x", "y"]), TokenError::Audience),
            ("exp", json!(1_800_000_000), TokenError::Expired),
            ("nbf", json!(1_800_000_006), TokenError::NotYetValid),
            ("role", json!("root"), TokenError::Malformed),
            ("cluster", json!("Not A Cluster"), TokenError::Malformed),
            ("exp", json!("tomorrow"), TokenError::Malformed),
        ] {
            let mut body = claims();
            body[claim] = value;
            let found = verify(&body);
            let missing = Err(TokenError::ClaimMissing(claim.to_owned()));
            assert!(found == Err(error) || found == missing, "{claim}: {found:?}");
        }
        let mut body = claims();
        body["aud"] = json!(["x", AUDIENCE]);
        assert!(verify(&body).is_ok(), "one of several audiences is enough");
    }

    #[test]
    fn only_hs256_with_the_right_secret_is_accepted() {
        let verifier = TokenVerifier::new(&SECRET);
        let other = signed(Algorithm::HS256, &claims(), &[8; 32]);
        assert_eq!(verifier.verify(&other, NOW), Err(TokenError::Signature));
        let stronger = signed(Algorithm::HS512, &claims(), &SECRET.0);
        assert_eq!(verifier.verify(&stronger, NOW), Err(TokenError::Algorithm));

        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        for algorithm in ["none", "None", "NONE"] {
            let unsigned = format!("{}.{}.", part(&json!({"alg": algorithm})), part(&claims()));
            assert!(verifier.verify(&unsigned, NOW).is_err(), "{algorithm}");
        }
        for text in ["", "a", "a.b", "a.b.c", "...."] {
            assert!(verifier.verify(text, NOW).is_err(), "{text:?}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let shown = format!("{SECRET:?} {:?}", TokenIssuer::new(&SECRET));
        assert!(!shown.contains('7'), "{shown}");
    }
}
