//! What a webhook is sent: its body, and the headers that prove who sent it and when.
//!
//! As the Standard Webhooks specification has it, so that receivers can check it with a library of theirs:
//! `webhook-id` names the event and is the same at each attempt; `webhook-timestamp` is the time of the attempt, in
//! seconds; `webhook-signature` is `v1,` and the HMAC-SHA256 of `{id}.{timestamp}.{body}` in base64. A receiver
//! refuses what is signed otherwise or too long ago, and passes over an id that it has seen.

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, InvalidHeaderValue};
use serde::Serialize;

use super::http::EventView;
use crate::model::{ClusterId, NotWebhookSecret, Timestamp, WebhookSecret};
use crate::store::SessionEvent;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// How many random bytes a new secret has: as many as the hash.
const SECRET_BYTES: usize = 32;

/// Why a secret could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The operating system has no randomness.
    #[error("the system has no random numbers")]
    Random(#[from] getrandom::Error),
    /// Its length is none that a secret has.
    #[error("the secret has the wrong length")]
    Length(#[from] NotWebhookSecret),
}

/// A new secret.
///
/// # Errors
/// The operating system has no randomness.
pub fn fresh_secret() -> Result<WebhookSecret, SecretError> {
    let mut bytes = vec![0; SECRET_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(WebhookSecret::new(bytes)?)
}

/// What is sent of an event.
///
/// # Errors
/// Never, for an event of our own.
pub fn body(event: SessionEvent) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Body {
        r#type: String,
        timestamp: Timestamp,
        data: EventView,
    }
    let (kind, timestamp) = (event.event.kind.as_str(), event.event.at);
    serde_json::to_string(&Body { r#type: format!("session.{kind}"), timestamp, data: event.into() })
}

/// The headers of one attempt to send `body`, which is event `seq` of the cluster, to a webhook.
///
/// # Errors
/// Never, for ids of our own.
pub fn headers(
    (cluster, webhook): (&ClusterId, &str),
    seq: i64,
    body: &str,
    secret: &WebhookSecret,
    now: Timestamp,
) -> Result<HeaderMap, InvalidHeaderValue> {
    let id = format!("{cluster}.{webhook}.{seq}");
    let timestamp = now.as_millis() / 1_000;
    let signature = signature(secret, &id, timestamp, body);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ID, HeaderValue::try_from(id)?);
    headers.insert(TIMESTAMP, HeaderValue::from(timestamp));
    headers.insert(SIGNATURE, HeaderValue::try_from(signature)?);
    Ok(headers)
}

fn signature(secret: &WebhookSecret, id: &str, timestamp: i64, body: &str) -> String {
    let key = Key::new(HMAC_SHA256, secret.expose());
    let tag = sign(&key, format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_signs_as_the_specification_s_example_does() {
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let signed = signature(&secret, id, 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_differ() {
        let (one, other) = (fresh_secret().expect("a secret"), fresh_secret().expect("a secret"));
        assert!(one != other && one.expose().len() == SECRET_BYTES);
    }
}
