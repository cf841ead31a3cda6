//! Message enhancement rules: properties of MQTT 5 that a cluster adds to what its clients publish (PRODUCT 5).
//!
//! A rule has a [condition](RuleCondition) on the publisher and the topic, and [effects](RuleEffects). **Every
//! enabled rule whose condition holds applies, in the order of priorities**: expiry, response topic and
//! correlation data are those of the first rule that gives one, in place of what the publisher sent; user
//! properties of all of them are added after the publisher's own.
//!
//! Everything here was parsed once, when it was accepted. A rule cannot fail on a message: a value that cannot be
//! given is left out, and the message keeps what it had.
//!
//! What it does not do: change a message. The data plane does (`data_plane/cluster/enhance.rs`).

mod text;

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

pub use self::text::{RuleText, RuleTopic, RuleValues};
use super::{Glob, TopicError, TopicFilter, TopicName, Variables};

/// Why a part of a rule is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MessageRuleError {
    /// The length of a template.
    #[error("a template is 1 to {} bytes of UTF-8 without control characters", RuleText::BYTES_MAX)]
    TextLength,
    /// `${…}` that is nothing known, or a `$` alone.
    #[error("the variables are ${{clientid}}, ${{username}} and ${{topic}}; a dollar sign is written $$")]
    Variable,
    /// A topic that is written must be one that can be published to (`[MQTT-3.3.2-14]`).
    #[error("a response topic has no wildcards + and #")]
    Wildcard,
    /// What is wrong with a topic filter.
    #[error(transparent)]
    Filter(#[from] TopicError),
    /// `$share/…`: that is how a client subscribes, and no topic.
    #[error("a rule's filter names topics: leave out $share/{{group}}/")]
    Shared,
    /// The name of a user property.
    #[error("a name is 1 to {} bytes of UTF-8 without control characters", RulePropertyName::BYTES_MAX)]
    PropertyName,
}

/// All rules of one cluster that are enabled. Never changed after it was made; shared between snapshots in
/// which it is the same.
#[derive(Clone, Debug, Default)]
pub struct MessageRules {
    /// Another with every change.
    pub revision: Uuid,
    /// In the order in which they apply.
    pub rules: Vec<MessageRule>,
}

impl MessageRules {
    /// How many rules a cluster may have, disabled ones included: every message is held against all of them.
    pub const MAX: u32 = 10;
}

/// Two states of the same rules are equal when nothing was changed in between.
impl PartialEq for MessageRules {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision
    }
}

impl Eq for MessageRules {}

/// A rule of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRule {
    /// Names it; never changes.
    pub id: Uuid,
    /// When it applies: smaller first. No two of a cluster have the same.
    pub priority: u32,
    /// What it says.
    pub spec: MessageRuleSpec,
}

impl MessageRule {
    /// The greatest priority.
    pub const PRIORITY_MAX: u32 = 1_000_000;
}

/// To which messages a rule applies, and what it adds to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageRuleSpec {
    /// To which messages.
    pub condition: RuleCondition,
    /// What it adds.
    pub effects: RuleEffects,
}

/// To which messages a rule applies: all that is given must hold; with nothing given it is every message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleCondition {
    /// Published by these clients.
    pub client_id: Option<Glob>,
    /// Published as these users; a client without a user name is none of them.
    pub username: Option<Glob>,
    /// Published to these topics.
    pub topic_filter: Option<RuleFilter>,
}

impl RuleCondition {
    /// Whether it holds for a message that `who` publishes to `topic`.
    pub fn holds_for(&self, who: Variables<'_>, topic: &TopicName) -> bool {
        let Self { client_id, username, topic_filter } = self;
        topic_filter.as_ref().is_none_or(|filter| filter.0.matches(topic))
            && client_id.as_ref().is_none_or(|glob| glob.matches(who.client_id))
            && username.as_ref().is_none_or(|glob| who.username.is_some_and(|name| glob.matches(name)))
    }
}

/// Topics that a rule is about: a topic filter that is not shared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleFilter(TopicFilter);

impl RuleFilter {
    /// The greatest length, in bytes of UTF-8; that of a topic (PRODUCT Q-9).
    pub const BYTES_MAX: usize = 1_024;
}

impl TryFrom<String> for RuleFilter {
    type Error = MessageRuleError;

    fn try_from(text: String) -> Result<Self, MessageRuleError> {
        if text == "$share" || text.starts_with("$share/") {
            return Err(MessageRuleError::Shared);
        }
        if text.len() > Self::BYTES_MAX {
            return Err(MessageRuleError::Filter(TopicError::TooLong));
        }
        Ok(Self(TopicFilter::new(&text)?))
    }
}

impl From<RuleFilter> for String {
    fn from(filter: RuleFilter) -> Self {
        filter.0.as_str().to_owned()
    }
}

/// What a rule adds to a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleEffects {
    /// Until when it is good.
    pub message_expiry: Option<RuleExpiry>,
    /// Where an answer is expected.
    pub response_topic: Option<RuleTopic>,
    /// What the answer is to carry.
    pub correlation_data: Option<RuleText>,
    /// Names and values, in this order.
    pub user_properties: Vec<RuleProperty>,
}

impl RuleEffects {
    /// How many user properties a rule may add.
    pub const USER_PROPERTIES_MAX: usize = 16;

    /// Whether it adds nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Until when a message is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleExpiry {
    /// Whether the publisher's own word counts.
    pub mode: ExpiryMode,
    /// From its publication on.
    pub seconds: NonZeroU32,
}

/// What a rule's expiry does to the publisher's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpiryMode {
    /// Takes its place.
    Set,
    /// Holds unless the publisher's is shorter.
    Cap,
}

impl ExpiryMode {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Cap => "cap",
        }
    }
}

/// A user property that a rule adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleProperty {
    /// Its name.
    pub name: RulePropertyName,
    /// Its value; what is longer than [`RuleText::FILLED_BYTES_MAX`] is cut off.
    pub value: RuleText,
}

/// The name of a user property that a rule adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RulePropertyName(Box<str>);

impl RulePropertyName {
    /// The greatest length, in bytes of UTF-8.
    pub const BYTES_MAX: usize = 256;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RulePropertyName {
    type Error = MessageRuleError;

    fn try_from(text: String) -> Result<Self, MessageRuleError> {
        if !(1..=Self::BYTES_MAX).contains(&text.len()) || text.chars().any(char::is_control) {
            return Err(MessageRuleError::PropertyName);
        }
        Ok(Self(text.into()))
    }
}

impl From<RulePropertyName> for String {
    fn from(name: RulePropertyName) -> Self {
        name.0.into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn holds(condition: &Value, (client_id, username): (&str, Option<&str>), topic: &str) -> bool {
        let condition: RuleCondition = serde_json::from_value(condition.clone()).expect("a condition");
        condition
            .holds_for(Variables { client_id, username }, &TopicName::new(topic.to_owned()).expect("a topic"))
    }

    #[test]
    fn all_that_is_given_must_hold() {
        let (meter, nobody) = (("meter-1", Some("ada")), ("meter-1", None));
        for (condition, who, topic, expected) in [
            (json!({}), nobody, "a", true),
            (json!({}), nobody, "$x", true),
            (json!({"client_id": "meter-?"}), nobody, "a", true),
            (json!({"client_id": "meter-"}), nobody, "a", false),
            (json!({"username": "a*"}), meter, "a", true),
            (json!({"username": "*"}), nobody, "a", false),
            (json!({"topic_filter": "a/+"}), meter, "a/b", true),
            (json!({"topic_filter": "a/+"}), meter, "a/b/c", false),
            (json!({"topic_filter": "#"}), meter, "$x", false),
            (json!({"topic_filter": "$x/#"}), meter, "$x", true),
            (json!({"client_id": "meter-*", "username": "ada", "topic_filter": "a/#"}), meter, "a/b", true),
            (json!({"client_id": "x", "username": "ada", "topic_filter": "a/#"}), meter, "a/b", false),
            (json!({"client_id": "meter-*", "username": "x", "topic_filter": "a/#"}), meter, "a/b", false),
            (json!({"client_id": "meter-*", "username": "ada", "topic_filter": "x"}), meter, "a/b", false),
        ] {
            assert_eq!(holds(&condition, who, topic), expected, "{condition} {who:?} {topic}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        let long = "x".repeat(1_025);
        for (text, why) in [
            ("$share/g/a", MessageRuleError::Shared),
            ("$share", MessageRuleError::Shared),
            ("a/#/b", MessageRuleError::Filter(TopicError::MultiLevelWildcard)),
            ("", MessageRuleError::Filter(TopicError::Empty)),
            (&long, MessageRuleError::Filter(TopicError::TooLong)),
        ] {
            assert_eq!(RuleFilter::try_from(text.to_owned()), Err(why), "{text}");
        }
        for name in ["", "a\n", "a\0", &long[..257]] {
            assert_eq!(RulePropertyName::try_from(name.to_owned()), Err(MessageRuleError::PropertyName));
        }
    }

    #[test]
    fn a_rule_is_kept_as_it_was_accepted() {
        let spec = json!({
            "condition": {"client_id": "meter-*", "username": null, "topic_filter": "meters/#"},
            "effects": {
                "message_expiry": {"mode": "cap", "seconds": 60}, "response_topic": "replies/${clientid}",
                "correlation_data": "$${clientid}",
                "user_properties": [{"name": "from", "value": "${username}"}],
            },
        });
        let read: MessageRuleSpec = serde_json::from_value(spec.clone()).expect("a rule");
        assert_eq!(serde_json::to_value(&read).expect("JSON"), spec);
        assert!(!read.effects.is_empty() && RuleEffects::default().is_empty());
    }
}
