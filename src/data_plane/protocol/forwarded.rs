//! What a server forwards unaltered with a message, between its wire form and typed values.
//!
//! On the way from publisher to subscriber these properties stay bytes ([`PropertyBytes`]): nothing is
//! parsed twice or put in another order. Whoever must look at them iterates; whoever makes a message
//! without a PUBLISH (an API call), or adds to one (a rule), builds them here.

use std::iter::FusedIterator;

use bytes::Bytes;
use bytestring::ByteString;
use thiserror::Error;

use super::property::Property;
use super::violation::Violation;
use super::wire::{self, Reader};
use crate::model::{PropertyBytes, TopicName};

/// One property of a message that is forwarded unaltered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedProperty<'a> {
    /// Whether the payload is UTF-8 text.
    PayloadFormat {
        /// 1 on the wire; unspecified bytes otherwise.
        is_utf8: bool,
    },
    /// What the payload is, usually a MIME type.
    ContentType(&'a str),
    /// Where an answer is expected.
    ResponseTopic(&'a str),
    /// What the answer is to carry.
    CorrelationData(&'a [u8]),
    /// A name and a value.
    UserProperty(&'a str, &'a str),
}

/// The properties of a message in their order.
///
/// Ends early at bytes that are not such properties, which the codec never makes.
#[derive(Clone, Debug)]
pub struct ForwardedProperties<'a> {
    rest: Reader<'a>,
}

impl<'a> ForwardedProperties<'a> {
    /// Iterates over `properties`.
    pub fn of(properties: &'a PropertyBytes) -> Self {
        Self { rest: Reader::new(&properties.0, 0) }
    }

    fn read(&mut self) -> Result<Option<ForwardedProperty<'a>>, Violation> {
        let id = self.rest.varint()?;
        Ok(Some(match Property::from_id(id) {
            Some(Property::PayloadFormatIndicator) => {
                ForwardedProperty::PayloadFormat { is_utf8: self.rest.u8()? == 1 }
            }
            Some(Property::ContentType) => ForwardedProperty::ContentType(self.rest.str()?),
            Some(Property::ResponseTopic) => ForwardedProperty::ResponseTopic(self.rest.str()?),
            Some(Property::CorrelationData) => ForwardedProperty::CorrelationData(self.rest.blob()?),
            Some(Property::UserProperty) => {
                ForwardedProperty::UserProperty(self.rest.str()?, self.rest.str()?)
            }
            _ => return Ok(None),
        }))
    }
}

impl<'a> Iterator for ForwardedProperties<'a> {
    type Item = ForwardedProperty<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let property = if self.rest.is_empty() { None } else { self.read().ok().flatten() };
        if property.is_none() {
            self.rest.skip_rest();
        }
        property
    }
}

impl FusedIterator for ForwardedProperties<'_> {}

/// The values to make [`PropertyBytes`] from. An absent one is not sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForwardedValues<'a> {
    /// Whether the payload is UTF-8 text; the maker vouches for it.
    pub payload_is_utf8: Option<bool>,
    /// What the payload is, usually a MIME type.
    pub content_type: Option<&'a str>,
    /// Where an answer is expected.
    pub response_topic: Option<&'a TopicName>,
    /// What the answer is to carry.
    pub correlation_data: Option<&'a [u8]>,
    /// Names and values, in this order.
    pub user_properties: &'a [(ByteString, ByteString)],
}

/// Why a value cannot be sent as a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PropertyValueError {
    /// MQTT 5.0, 1.5.4 and 1.5.6.
    #[error("the {0} is longer than 65,535 bytes")]
    TooLong(Property),
    /// `[MQTT-1.5.4-2]`
    #[error("the {0} contains U+0000")]
    Nul(Property),
}

impl<'a> ForwardedValues<'a> {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.properties().next().is_none()
    }

    /// The values in wire form.
    pub fn to_bytes(&self) -> Result<PropertyBytes, PropertyValueError> {
        self.put_to(&PropertyBytes::default())
    }

    /// The values put to properties that there are: what there can be one of takes the place of that, user
    /// properties come after those.
    pub fn put_to(&self, properties: &PropertyBytes) -> Result<PropertyBytes, PropertyValueError> {
        let kept = ForwardedProperties::of(properties).filter(|property| !self.replaces(property));
        let mut out = Vec::with_capacity(properties.0.len());
        for property in kept.chain(self.properties()) {
            property.put(&mut out)?;
        }
        Ok(PropertyBytes(Bytes::from(out)))
    }

    fn replaces(&self, property: &ForwardedProperty<'_>) -> bool {
        match property {
            ForwardedProperty::PayloadFormat { .. } => self.payload_is_utf8.is_some(),
            ForwardedProperty::ContentType(_) => self.content_type.is_some(),
            ForwardedProperty::ResponseTopic(_) => self.response_topic.is_some(),
            ForwardedProperty::CorrelationData(_) => self.correlation_data.is_some(),
            ForwardedProperty::UserProperty(..) => false,
        }
    }

    fn properties(&self) -> impl Iterator<Item = ForwardedProperty<'a>> + use<'a> {
        let Self { payload_is_utf8, content_type, response_topic, correlation_data, user_properties } = *self;
        let payload = payload_is_utf8.map(|is_utf8| ForwardedProperty::PayloadFormat { is_utf8 });
        let content_type = content_type.map(ForwardedProperty::ContentType);
        let topic = response_topic.map(|topic| ForwardedProperty::ResponseTopic(topic.as_str()));
        let data = correlation_data.map(ForwardedProperty::CorrelationData);
        let user = user_properties.iter().map(|(name, value)| ForwardedProperty::UserProperty(name, value));
        [payload, content_type, topic, data].into_iter().flatten().chain(user)
    }
}

impl ForwardedProperty<'_> {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), PropertyValueError> {
        let property = match self {
            Self::PayloadFormat { .. } => Property::PayloadFormatIndicator,
            Self::ContentType(_) => Property::ContentType,
            Self::ResponseTopic(_) => Property::ResponseTopic,
            Self::CorrelationData(_) => Property::CorrelationData,
            Self::UserProperty(..) => Property::UserProperty,
        };
        out.push(property as u8);
        match self {
            Self::PayloadFormat { is_utf8 } => out.push(u8::from(*is_utf8)),
            Self::ContentType(text) | Self::ResponseTopic(text) => put_text(property, text, out)?,
            Self::CorrelationData(data) => put_blob(property, data, out)?,
            Self::UserProperty(name, value) => {
                put_text(property, name, out)?;
                put_text(property, value, out)?;
            }
        }
        Ok(())
    }
}

fn put_text(property: Property, text: &str, out: &mut Vec<u8>) -> Result<(), PropertyValueError> {
    if text.contains('\0') {
        return Err(PropertyValueError::Nul(property));
    }
    put_blob(property, text.as_bytes(), out)
}

fn put_blob(property: Property, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), PropertyValueError> {
    if bytes.len() > usize::from(u16::MAX) {
        return Err(PropertyValueError::TooLong(property));
    }
    wire::put_binary(bytes, out);
    Ok(())
}

/// The bytes that user properties take on the wire, identifier and lengths included, so that many empty
/// ones count too (PRODUCT Q-9).
pub fn user_property_bytes<'a, T>(user_properties: impl IntoIterator<Item = &'a (T, T)>) -> usize
where
    T: AsRef<str> + 'a,
{
    user_properties.into_iter().map(|(name, value)| one_bytes(name.as_ref(), value.as_ref())).sum()
}

/// The same of the user properties among those of a message.
pub fn forwarded_user_property_bytes(properties: &PropertyBytes) -> usize {
    ForwardedProperties::of(properties)
        .map(|property| match property {
            ForwardedProperty::UserProperty(name, value) => one_bytes(name, value),
            _ => 0,
        })
        .sum()
}

/// Identifier, two lengths, two strings.
fn one_bytes(name: &str, value: &str) -> usize {
    1 + 2 + name.len() + 2 + value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_in_order() {
        let topic = TopicName::new("answers/1").expect("a topic");
        let user = [("k".into(), "1".into()), ("k".into(), String::new().into())];
        let values = ForwardedValues {
            payload_is_utf8: Some(true),
            content_type: Some("text/plain"),
            response_topic: Some(&topic),
            correlation_data: Some(&[0, 255]),
            user_properties: &user,
        };
        let bytes = values.to_bytes().expect("valid");
        let properties: Vec<_> = ForwardedProperties::of(&bytes).collect();
        assert_eq!(
            properties,
            [
                ForwardedProperty::PayloadFormat { is_utf8: true },
                ForwardedProperty::ContentType("text/plain"),
                ForwardedProperty::ResponseTopic("answers/1"),
                ForwardedProperty::CorrelationData(&[0, 255]),
                ForwardedProperty::UserProperty("k", "1"),
                ForwardedProperty::UserProperty("k", ""),
            ]
        );
        assert_eq!(forwarded_user_property_bytes(&bytes), 7 + 6);
        assert_eq!(user_property_bytes(&user), 7 + 6);
    }

    #[test]
    fn values_put_to_properties_replace_what_there_can_be_one_of() {
        let topic = |text: &str| TopicName::new(text.to_owned()).expect("a topic");
        let (own, other) = (topic("own"), topic("other"));
        let user = |value: &'static str| [(ByteString::from("k"), ByteString::from(value))];
        let (first, second) = (user("1"), user("2"));
        let values = ForwardedValues {
            payload_is_utf8: Some(false),
            content_type: Some("text/plain"),
            response_topic: Some(&own),
            correlation_data: Some(b"own"),
            user_properties: &first,
        };
        let before = values.to_bytes().expect("valid");
        let none = ForwardedValues::default();
        assert!(none.is_empty() && !values.is_empty());
        assert_eq!(none.put_to(&before), Ok(before.clone()));
        let put = ForwardedValues { response_topic: Some(&other), user_properties: &second, ..none };
        let properties = put.put_to(&before).expect("valid");
        assert_eq!(
            ForwardedProperties::of(&properties).collect::<Vec<_>>(),
            [
                ForwardedProperty::PayloadFormat { is_utf8: false },
                ForwardedProperty::ContentType("text/plain"),
                ForwardedProperty::CorrelationData(b"own"),
                ForwardedProperty::UserProperty("k", "1"),
                ForwardedProperty::ResponseTopic("other"),
                ForwardedProperty::UserProperty("k", "2"),
            ]
        );
        let put = ForwardedValues {
            payload_is_utf8: Some(true),
            content_type: Some("x"),
            correlation_data: Some(&[]),
            ..none
        };
        let properties = put.put_to(&before).expect("valid");
        assert_eq!(ForwardedProperties::of(&properties).count(), 5, "one of each");
    }

    #[test]
    fn refuses_what_the_wire_cannot_carry() {
        let long = "x".repeat(65_536);
        let values = ForwardedValues { content_type: Some(&long), ..ForwardedValues::default() };
        assert_eq!(values.to_bytes(), Err(PropertyValueError::TooLong(Property::ContentType)));
        let user = [("a\0".into(), "".into())];
        let values = ForwardedValues { user_properties: &user, ..ForwardedValues::default() };
        let error = values.to_bytes().expect_err("U+0000");
        assert_eq!(error.to_string(), "the User Property contains U+0000");
    }

    #[test]
    fn ends_at_foreign_bytes() {
        for bytes in [&b"\x26\x00\x01a"[..], b"\x7f", b"\x11\x00\x00\x00\x01", b"\x03\x00\x01\xff"] {
            let properties = PropertyBytes(Bytes::from_static(bytes));
            assert_eq!(ForwardedProperties::of(&properties).next(), None, "{bytes:?}");
        }
    }
}
