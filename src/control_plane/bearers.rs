//! Whose tokens the API takes: the service's own ([`tokens`](super::tokens)) and those of an external issuer
//! ([`issuer`](super::issuer)).
//!
//! A token's algorithm says who judges it: HS256 is the service's own secret alone, everything else the external
//! issuer's keys. What is not in the allow-list of algorithms is refused before any key is looked at.

use std::sync::Arc;

use jsonwebtoken::Algorithm;

use super::issuer::ExternalIssuer;
use super::tokens::{Grant, TokenError, TokenVerifier};
use crate::model::Timestamp;

/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 * 1_024;

/// Judges bearer tokens.
#[derive(Debug)]
pub struct Bearers {
    own: Option<TokenVerifier>,
    external: Option<Arc<ExternalIssuer>>,
}

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// What it grants to whom.
    pub grant: Grant,
    /// Whether somebody else issued it: its subjects are others than ours of the same name.
    pub is_external: bool,
}

impl Bearers {
    /// Takes the tokens that these judge. `own`: `None` when HS256 is not accepted.
    pub fn new(own: Option<TokenVerifier>, external: Option<Arc<ExternalIssuer>>) -> Self {
        Self { own, external }
    }

    /// What the token grants at `now`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub async fn judge(&self, token: &str, now: Timestamp) -> Result<Bearer, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let header =
            jsonwebtoken::decode_header(token).map_err(|error| TokenError::from(error.into_kind()))?;
        if header.alg == Algorithm::HS256 {
            let own = self.own.as_ref().ok_or(TokenError::Algorithm)?;
            return Ok(Bearer { grant: own.verify(token, now)?, is_external: false });
        }
        let external = self.external.as_ref().ok_or(TokenError::Algorithm)?;
        Ok(Bearer { grant: external.verify(token, &header, now).await?, is_external: true })
    }
}

impl From<TokenVerifier> for Bearers {
    fn from(own: TokenVerifier) -> Self {
        Self::new(Some(own), None)
    }
}
