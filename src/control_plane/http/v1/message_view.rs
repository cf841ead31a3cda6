//! A message as the API shows it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{ClientId, QoS, Timestamp};
use crate::seam::messages::{ShownMessage, ShownProperties};

/// How payloads are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum PayloadForm {
    /// In base64.
    #[default]
    Base64,
    /// As text where they are UTF-8, else in base64.
    Text,
    /// Not at all.
    Omitted,
}

/// A message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Message)]
pub(super) struct MessageView {
    /// Where it was published to.
    #[schema(example = "meters/17/cmd")]
    topic: String,
    /// What was said, as `payload_encoding` says; null when that is `omitted`.
    #[schema(required, example = "b24=")]
    payload: Option<String>,
    /// How `payload` is written. Not what was asked for where text was and the bytes are not UTF-8.
    payload_encoding: PayloadForm,
    /// How long the payload is.
    #[schema(minimum = 0)]
    payload_bytes: u64,
    /// The quality of service at which it was published.
    published_qos: QoS,
    /// Whether its publisher asked that it be retained.
    published_retain: bool,
    /// Its properties of MQTT 5.
    mqtt_properties: PropertiesView,
}

/// Properties of MQTT 5 that are forwarded with a message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MessageProperties)]
struct PropertiesView {
    /// Whether the publisher says that the payload is UTF-8; null when it says nothing.
    #[schema(required)]
    payload_is_utf8: Option<bool>,
    /// What the payload is; null when the publisher says nothing.
    #[schema(required, example = "application/json")]
    content_type: Option<String>,
    /// Where an answer is expected; null for nowhere.
    #[schema(required)]
    response_topic: Option<String>,
    /// What the answer is to carry, in base64; null for nothing.
    #[schema(required)]
    correlation_data: Option<String>,
    /// Names and values, in their order.
    user_properties: Vec<UserPropertyView>,
}

/// A user property.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserProperty)]
struct UserPropertyView {
    /// Its name; several may have the same.
    name: String,
    /// Its value.
    value: String,
}

/// When a message was published, until when it is good, and whose it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MessageOrigin)]
pub(super) struct OriginView {
    /// When the service took it.
    published_at: Timestamp,
    /// When it expires; null for never.
    #[schema(required)]
    expires_at: Option<Timestamp>,
    /// What is left until then: 0 when it has expired, and will be passed over. Null for never.
    #[schema(minimum = 0, required)]
    expires_in_seconds: Option<u32>,
    /// The client that published it. Null when the service did, when the client has no session any longer, and
    /// when the cluster has so many sessions (20,000 are looked at) that it was not found.
    #[schema(required)]
    publisher: Option<ClientId>,
}

impl MessageView {
    /// The message, with its payload in this form.
    pub(super) fn new(message: &ShownMessage, form: PayloadForm) -> Self {
        let (payload, payload_encoding) = payload_in(&message.payload, form);
        Self {
            topic: message.topic.clone(),
            payload,
            payload_encoding,
            payload_bytes: message.payload.len() as u64,
            published_qos: message.qos,
            published_retain: message.retain,
            mqtt_properties: PropertiesView::new(&message.properties),
        }
    }
}

impl PropertiesView {
    fn new(properties: &ShownProperties) -> Self {
        let user = properties.user_properties.iter();
        Self {
            payload_is_utf8: properties.payload_is_utf8,
            content_type: properties.content_type.clone(),
            response_topic: properties.response_topic.clone(),
            correlation_data: properties.correlation_data.as_ref().map(|data| STANDARD.encode(data)),
            user_properties: user
                .map(|(name, value)| UserPropertyView { name: name.clone(), value: value.clone() })
                .collect(),
        }
    }
}

impl OriginView {
    /// Of a message, at `now`.
    pub(super) fn new(message: &ShownMessage, now: Timestamp) -> Self {
        Self {
            published_at: message.published_at,
            expires_at: message.expires_at,
            expires_in_seconds: message.expires_at.map(|at| at.secs_after(now)),
            publisher: message.publisher.clone(),
        }
    }
}

/// The payload as it is written, and how that is.
fn payload_in(payload: &Bytes, form: PayloadForm) -> (Option<String>, PayloadForm) {
    let text = || String::from_utf8(payload.to_vec()).ok();
    match form {
        PayloadForm::Omitted => (None, PayloadForm::Omitted),
        PayloadForm::Text if let Some(text) = text() => (Some(text), PayloadForm::Text),
        PayloadForm::Text | PayloadForm::Base64 => (Some(STANDARD.encode(payload)), PayloadForm::Base64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_shown_in_base64() {
        let shown = |bytes: &'static [u8], form| payload_in(&Bytes::from_static(bytes), form);
        let written = |text: &str, form| (Some(text.to_owned()), form);
        assert_eq!(shown(b"on", PayloadForm::Text), written("on", PayloadForm::Text));
        assert_eq!(shown(b"\xff", PayloadForm::Text), written("/w==", PayloadForm::Base64));
        assert_eq!(shown(b"on", PayloadForm::Base64), written("b24=", PayloadForm::Base64));
        assert_eq!(shown(b"on", PayloadForm::Omitted), (None, PayloadForm::Omitted));
    }
}
