//! The secret that signs what a webhook is sent.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

/// A key known to the service and to the receiver. Written `whsec_` and its bytes in base64, as the Standard
/// Webhooks specification has it, so that its libraries take it as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

/// The text is no secret of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "expected {} and {} to {} bytes in base64",
    WebhookSecret::PREFIX,
    WebhookSecret::BYTES_MIN,
    WebhookSecret::BYTES_MAX
)]
pub struct NotWebhookSecret;

impl WebhookSecret {
    /// How every secret is written.
    pub const PREFIX: &str = "whsec_";
    /// The fewest bytes.
    pub const BYTES_MIN: usize = 24;
    /// The most bytes.
    pub const BYTES_MAX: usize = 64;

    /// A secret of these bytes.
    ///
    /// # Errors
    /// Too few, or too many.
    pub fn new(bytes: Vec<u8>) -> Result<Self, NotWebhookSecret> {
        let fits = (Self::BYTES_MIN..=Self::BYTES_MAX).contains(&bytes.len());
        if fits { Ok(Self(bytes)) } else { Err(NotWebhookSecret) }
    }

    /// Reads `whsec_…`.
    ///
    /// # Errors
    /// It has another form.
    pub fn parse(text: &str) -> Result<Self, NotWebhookSecret> {
        let encoded = text.strip_prefix(Self::PREFIX).ok_or(NotWebhookSecret)?;
        Self::new(STANDARD.decode(encoded).map_err(|_| NotWebhookSecret)?)
    }

    /// Its bytes, to sign with or to keep.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// As it is shown to whoever made it.
    pub fn expose_text(&self) -> String {
        format!("{}{}", Self::PREFIX, STANDARD.encode(&self.0))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_written_as_the_specification_has_it() {
        let text = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let secret = WebhookSecret::parse(text).expect("a secret");
        assert_eq!((secret.expose().len(), secret.expose_text().as_str()), (24, text));
        assert!(!format!("{secret:?}").contains("MfKQ"));
        for bad in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_AAAA", "whsec_!!!!"] {
            assert!(WebhookSecret::parse(bad).is_err(), "{bad}");
        }
        assert!(WebhookSecret::new(vec![0; 65]).is_err());
    }
}
