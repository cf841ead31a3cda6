//! Texts of rules, with the publisher's own in them.
//!
//! | in a template | stands for |
//! | --- | --- |
//! | `${clientid}` | the publisher's client id |
//! | `${username}` | its user name; nothing for a client without one |
//! | `${topic}` | where the message was published to |
//! | `$$` | a dollar sign |
//!
//! Any other `$` is refused, so that what a template means never depends on variables to come. What a client
//! sends is not looked at again: a client id of `${topic}` is put in as it is.

use serde::{Deserialize, Serialize};

use super::MessageRuleError;
use crate::model::{TopicName, Variables};

/// What stands for the variables.
#[derive(Clone, Copy, Debug)]
pub struct RuleValues<'a> {
    /// The publisher.
    pub who: Variables<'a>,
    /// `${topic}`
    pub topic: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    ClientId,
    Username,
    Topic,
}

impl Part {
    fn variable(name: &str) -> Option<Self> {
        match name {
            "clientid" => Some(Self::ClientId),
            "username" => Some(Self::Username),
            "topic" => Some(Self::Topic),
            _ => None,
        }
    }

    fn value<'a>(&'a self, values: &RuleValues<'a>) -> &'a str {
        match self {
            Self::Text(text) => text,
            Self::ClientId => values.who.client_id,
            Self::Username => values.who.username.unwrap_or_default(),
            Self::Topic => values.topic,
        }
    }
}

/// A text with variables. See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleText {
    /// As it was written.
    text: Box<str>,
    parts: Box<[Part]>,
}

impl RuleText {
    /// The longest template, in bytes of UTF-8.
    pub const BYTES_MAX: usize = 1_024;

    /// How much of a filled text is used, in bytes of UTF-8. What is longer is cut off after the last
    /// character that fits.
    pub const FILLED_BYTES_MAX: usize = 1_024;

    /// Reads a template.
    pub fn new(text: &str) -> Result<Self, MessageRuleError> {
        if !(1..=Self::BYTES_MAX).contains(&text.len()) || text.chars().any(char::is_control) {
            return Err(MessageRuleError::TextLength);
        }
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some((before, after)) = rest.split_once('$') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                literal.push('$');
                rest = after;
                continue;
            }
            let named = after.strip_prefix('{').and_then(|after| after.split_once('}'));
            let (name, after) = named.ok_or(MessageRuleError::Variable)?;
            let variable = Part::variable(name).ok_or(MessageRuleError::Variable)?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal).into()));
            }
            parts.push(variable);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Ok(Self { text: text.into(), parts: parts.into() })
    }

    /// The text with the publisher's own in it, as much of it as is used.
    pub fn fill(&self, values: &RuleValues<'_>) -> String {
        self.fill_within(values, Self::FILLED_BYTES_MAX).0
    }

    /// As much of the filled text as takes no more than `bytes_max`, and whether that is all of it.
    fn fill_within(&self, values: &RuleValues<'_>, bytes_max: usize) -> (String, bool) {
        let bytes = self.parts.iter().map(|part| part.value(values).len()).sum::<usize>();
        let mut out = String::with_capacity(bytes.min(bytes_max));
        for part in &self.parts {
            let value = part.value(values);
            let fits = value.floor_char_boundary(bytes_max - out.len());
            out.push_str(&value[..fits]);
            if fits < value.len() {
                return (out, false);
            }
        }
        (out, true)
    }
}

impl TryFrom<String> for RuleText {
    type Error = MessageRuleError;

    fn try_from(text: String) -> Result<Self, MessageRuleError> {
        Self::new(&text)
    }
}

impl From<RuleText> for String {
    fn from(text: RuleText) -> Self {
        text.text.into()
    }
}

/// A topic with variables: where an answer is expected. What is written in it has no wildcards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleTopic(RuleText);

impl RuleTopic {
    /// The longest filled topic, in bytes of UTF-8 (PRODUCT Q-9).
    const FILLED_BYTES_MAX: usize = 1_024;

    /// The topic with the publisher's own in it. `None` when that is no topic name (`[MQTT-3.3.2-14]`): it would
    /// be empty, or have a wildcard that came with a client id or user name; and when it would be too long,
    /// since a topic that is cut off is another topic.
    pub fn fill(&self, values: &RuleValues<'_>) -> Option<TopicName> {
        let (text, whole) = self.0.fill_within(values, Self::FILLED_BYTES_MAX);
        TopicName::new(text).ok().filter(|_| whole)
    }
}

impl TryFrom<String> for RuleTopic {
    type Error = MessageRuleError;

    fn try_from(text: String) -> Result<Self, MessageRuleError> {
        let text = RuleText::new(&text)?;
        if text.parts.iter().any(|part| matches!(part, Part::Text(text) if text.contains(['+', '#']))) {
            return Err(MessageRuleError::Wildcard);
        }
        Ok(Self(text))
    }
}

impl From<RuleTopic> for String {
    fn from(topic: RuleTopic) -> Self {
        topic.0.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const METER: RuleValues<'_> = values("meter-1", Some("ada"), "meters/1");

    const fn values<'a>(client_id: &'a str, username: Option<&'a str>, topic: &'a str) -> RuleValues<'a> {
        RuleValues { who: Variables { client_id, username }, topic }
    }

    fn filled(template: &str, values: &RuleValues<'_>) -> String {
        RuleText::new(template).expect("a template").fill(values)
    }

    #[test]
    fn variables_are_filled_in() {
        for (template, expected) in [
            ("plain", "plain"),
            ("${clientid}", "meter-1"),
            ("${username}@${topic}!", "ada@meters/1!"),
            ("${clientid}${clientid}", "meter-1meter-1"),
            ("$$", "$"),
            ("5$$ off $${clientid} $$${clientid}", "5$ off ${clientid} $meter-1"),
            ("a}b{c", "a}b{c"),
        ] {
            assert_eq!(filled(template, &METER), expected, "{template}");
        }
        assert_eq!(filled("<${username}>", &values("c", None, "t")), "<>");
        assert_eq!(
            filled("${clientid}", &values("${topic}$$", None, "t")),
            "${topic}$$",
            "not looked at again"
        );
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for bad in
            ["$", "a$", "$a", "${", "${clientid", "${ClientId}", "${}", "${clientid }", "${password}", "$$$"]
        {
            assert_eq!(RuleText::new(bad), Err(MessageRuleError::Variable), "{bad}");
        }
        for bad in ["", "a\nb", "a\0", "\u{85}", &"x".repeat(1_025)] {
            assert_eq!(RuleText::new(bad), Err(MessageRuleError::TextLength), "{bad:?}");
        }
        let topic = |text: &str| RuleTopic::try_from(text.to_owned());
        for bad in ["a/+", "#", "${clientid}/#", "a+b/${topic}"] {
            assert_eq!(topic(bad), Err(MessageRuleError::Wildcard), "{bad}");
        }
        assert_eq!(topic(""), Err(MessageRuleError::TextLength));
        assert_eq!(topic("a/${x}"), Err(MessageRuleError::Variable));
    }

    #[test]
    fn what_is_too_long_is_cut_off_after_a_character() {
        let long = "é".repeat(400);
        let many = "${topic}".repeat(2);
        let cut = filled(&many, &values("c", None, &long));
        assert_eq!((cut.len(), cut.as_str()), (1_024, "é".repeat(512).as_str()));
        let cut = filled(&format!("x{many}"), &values("c", None, &long));
        assert_eq!((cut.len(), cut.ends_with('é')), (1_023, true), "half a character does not fit");
        let cut = filled(&"${topic}".repeat(128), &values("c", None, &long));
        assert_eq!(cut.len(), 1_024);
    }

    #[test]
    fn a_topic_that_is_none_is_left_out() {
        let topic = |text: &str, values: &RuleValues<'_>| {
            let topic = RuleTopic::try_from(text.to_owned()).expect("a topic template");
            topic.fill(values).map(|topic| topic.as_str().to_owned())
        };
        assert_eq!(topic("replies/${clientid}", &METER).as_deref(), Some("replies/meter-1"));
        assert_eq!(topic("${topic}/reply", &METER).as_deref(), Some("meters/1/reply"));
        for sly in ["a+", "#", "a/#", "+"] {
            assert_eq!(topic("replies/${clientid}", &values(sly, None, "t")), None, "{sly}");
            assert_eq!(topic("replies/${username}", &values("c", Some(sly), "t")), None, "{sly}");
        }
        assert_eq!(topic("${username}", &values("c", None, "t")), None, "empty");
        let long = "x".repeat(1_000);
        assert!(topic("${topic}", &values("c", None, &long)).is_some());
        assert_eq!(topic("${topic}/${clientid}", &values(&long, None, &long)), None, "too long");
    }

    proptest! {
        /// Cut off is the text as it would be, up to a character, and no further than it must.
        #[test]
        fn a_filled_text_is_a_prefix(
            parts in prop::collection::vec("[a-zé𝄞]{0,30}|\\$\\{(clientid|username|topic)\\}|\\$\\$", 1..20),
            (client_id, username, topic) in ("\\PC{0,200}", prop::option::of("\\PC{0,200}"), "\\PC{0,400}"),
        ) {
            let template = parts.concat();
            prop_assume!(!template.is_empty() && template.len() <= RuleText::BYTES_MAX);
            let values = values(&client_id, username.as_deref(), &topic);
            let whole: String = parts.iter().map(|part| match part.as_str() {
                "${clientid}" => client_id.clone(),
                "${username}" => username.clone().unwrap_or_default(),
                "${topic}" => topic.clone(),
                "$$" => "$".to_owned(),
                text => text.to_owned(),
            }).collect();
            let filled = RuleText::new(&template).expect("a template").fill(&values);
            prop_assert_eq!(filled.as_str(), &whole[..whole.floor_char_boundary(1_024)]);
        }
    }
}
