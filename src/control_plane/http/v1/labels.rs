//! Names and labels that callers give: bounded, and free of control characters.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// How many labels a record may have.
pub(super) const LABELS_MAX: usize = 64;
const KEY_BYTES_MAX: usize = 63;
const TEXT_CHARS_MAX: usize = 255;

/// A text without control characters, as a schema says it.
const PLAIN: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

/// A name for people: 1 to 255 characters, none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Name(String);

impl Name {
    pub(super) fn into_string(self) -> String {
        self.0
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if is_plain(&text) && !text.is_empty() {
            Ok(Self(text))
        } else {
            Err("a name is 1 to 255 characters, none of them a control character")
        }
    }
}

/// A label's key: 1 to 63 of letters, digits and `. _ / -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct LabelKey(String);

impl TryFrom<String> for LabelKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._/-".contains(&b);
        if (1..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text))
        } else {
            Err("a label's key is 1 to 63 of letters, digits and . _ / -")
        }
    }
}

/// A label's value: at most 255 characters, none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct LabelValue(String);

impl TryFrom<String> for LabelValue {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if is_plain(&text) {
            Ok(Self(text))
        } else {
            Err("a label's value is at most 255 characters, none of them a control character")
        }
    }
}

fn is_plain(text: &str) -> bool {
    text.chars().count() <= TEXT_CHARS_MAX && !text.chars().any(char::is_control)
}

/// The caller's own marks: a map from key to value.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "BTreeMap<LabelKey, LabelValue>")]
pub(super) struct Labels(BTreeMap<LabelKey, LabelValue>);

impl Labels {
    pub(super) fn into_map(self) -> BTreeMap<String, String> {
        self.0.into_iter().map(|(key, value)| (key.0, value.0)).collect()
    }
}

impl TryFrom<BTreeMap<LabelKey, LabelValue>> for Labels {
    type Error = &'static str;

    fn try_from(map: BTreeMap<LabelKey, LabelValue>) -> Result<Self, Self::Error> {
        if map.len() <= LABELS_MAX { Ok(Self(map)) } else { Err(TOO_MANY) }
    }
}

/// What is said of too many labels.
pub(super) const TOO_MANY: &str = "a record has at most 64 labels";

/// A change to labels (RFC 7396): a value sets, null removes, the others stay.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct LabelsPatch(BTreeMap<LabelKey, Option<LabelValue>>);

impl LabelsPatch {
    /// Changes `labels`.
    pub(super) fn apply(self, labels: &mut BTreeMap<String, String>) {
        for (key, value) in self.0 {
            match value {
                Some(value) => labels.insert(key.0, value.0),
                None => labels.remove(&key.0),
            };
        }
    }
}

impl PartialSchema for Name {
    fn schema() -> RefOr<Schema> {
        let about = "What people call it: 1 to 255 characters, none of them a control character.";
        plain(about).min_length(Some(1)).examples(["Meters, north"]).into()
    }
}

impl PartialSchema for Labels {
    fn schema() -> RefOr<Schema> {
        let value = ObjectBuilder::new()
            .schema_type(Type::String)
            .max_length(Some(TEXT_CHARS_MAX))
            .pattern(Some(PLAIN));
        map("The caller's own marks.", value.into(), serde_json::json!({"team": "metering"}))
    }
}

impl PartialSchema for LabelsPatch {
    fn schema() -> RefOr<Schema> {
        let value = ObjectBuilder::new()
            .schema_type(
                [Type::String, Type::Null].into_iter().collect::<utoipa::openapi::schema::SchemaType>(),
            )
            .max_length(Some(TEXT_CHARS_MAX))
            .pattern(Some(PLAIN));
        let about = "A value sets the label, null removes it, labels that are not named stay.";
        map(about, value.into(), serde_json::json!({"team": "metering", "trial": null}))
    }
}

impl ToSchema for Name {}
impl ToSchema for Labels {}
impl ToSchema for LabelsPatch {}

fn plain(about: &str) -> ObjectBuilder {
    let text = ObjectBuilder::new().schema_type(Type::String).description(Some(about));
    text.max_length(Some(TEXT_CHARS_MAX)).pattern(Some(PLAIN))
}

fn map(about: &str, value: Schema, example: serde_json::Value) -> RefOr<Schema> {
    let key = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-z0-9._/-]{1,63}$"));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some(about))
        .property_names(Some(key))
        .additional_properties(Some(AdditionalProperties::RefOr(value.into())))
        .max_properties(Some(LABELS_MAX))
        .examples([example])
        .into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_labels_have_bounds() {
        let name = |text: &str| Name::try_from(text.to_owned()).is_ok();
        assert!(name("é") && name(&"é".repeat(255)));
        assert!(!name("") && !name(&"é".repeat(256)) && !name("a\u{0}") && !name("a\nb"));

        let many =
            |n: usize| -> serde_json::Value { (0..n).map(|i| (format!("k{i}"), json!("v"))).collect() };
        let labels = |value: serde_json::Value| serde_json::from_value::<Labels>(value).is_ok();
        assert!(labels(many(64)) && !labels(many(65)));
        assert!(labels(json!({"a/b-c_d.E": ""})));
        for bad in [json!({"": "v"}), json!({"ä": "v"}), json!({"k": null}), json!({"k": "\u{7f}"})] {
            assert!(!labels(bad.clone()), "{bad}");
        }
    }

    #[test]
    fn a_patch_sets_removes_and_leaves() {
        let patch: LabelsPatch = serde_json::from_value(json!({"a": null, "b": "2"})).expect("a patch");
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let mut labels = BTreeMap::from([pair("a", "1"), pair("b", "1"), pair("c", "1")]);
        patch.apply(&mut labels);
        assert_eq!(labels, BTreeMap::from([pair("b", "2"), pair("c", "1")]));
    }
}
