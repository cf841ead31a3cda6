//! PURE. How what a client shows is checked that others have signed: tokens ([`jwt`]) and certificates
//! ([`certificate`]).
//!
//! Both planes use it. The control plane makes a verifier of settings before it accepts them, and throws it
//! away: what could not be checked with is refused there, with a pointer. The data plane makes the same
//! verifier of the same settings and checks with it; time and fetched keys are parameters.
//!
//! What it does not do: fetch keys, remember what was checked, or decide what becomes of a client.

pub mod certificate;
pub mod jwt;
pub mod key_set;

use thiserror::Error;

use crate::model::AuthenticatorSettings;

/// A setting with which nothing could be checked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{pointer}: {why}")]
pub struct Unusable {
    /// Which one, below its link's kind: a JSON pointer.
    pub pointer: &'static str,
    /// What is wrong with it. Says nothing of a secret.
    pub why: String,
}

impl Unusable {
    fn new(pointer: &'static str, why: impl Into<String>) -> Self {
        Self { pointer, why: why.into() }
    }
}

/// Refuses settings with which nothing could be checked.
///
/// # Errors
/// Which one.
pub fn check(settings: &AuthenticatorSettings) -> Result<(), Unusable> {
    match settings {
        AuthenticatorSettings::Jwt(jwt) => jwt::JwtVerifier::new(jwt).map(drop),
        AuthenticatorSettings::Tls(tls) => certificate::CertificateVerifier::new(tls).map(drop),
        // Their templates were parsed.
        AuthenticatorSettings::Password | AuthenticatorSettings::Http(_) => Ok(()),
    }
}
