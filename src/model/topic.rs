//! Topic names, topic filters and the rules by which they match (MQTT 5.0, 4.7).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use thiserror::Error;

/// Why a text is not a topic name or topic filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TopicError {
    /// `[MQTT-4.7.3-1]`
    #[error("a topic must have at least one character")]
    Empty,
    /// `[MQTT-4.7.3-3]`
    #[error("a topic is at most 65,535 bytes of UTF-8")]
    TooLong,
    /// `[MQTT-4.7.3-2]`
    #[error("a topic must not contain U+0000")]
    Nul,
    /// `[MQTT-3.3.2-2]`, `[MQTT-4.7.1-1]`
    #[error("a topic name must not contain the wildcards + or #")]
    WildcardInName,
    /// `[MQTT-4.7.1-2]`
    #[error("# must be alone on its level and that level the last")]
    MultiLevelWildcard,
    /// `[MQTT-4.7.1-3]`
    #[error("+ must be alone on its level")]
    SingleLevelWildcard,
    /// `[MQTT-4.8.2-1]`, `[MQTT-4.8.2-2]`
    #[error("a shared subscription is $share/{{group}}/{{filter}}, the group without / + #")]
    ShareName,
}

const TOPIC_BYTES_MAX: usize = 65_535;

fn check_common(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        Err(TopicError::Empty)
    } else if text.len() > TOPIC_BYTES_MAX {
        Err(TopicError::TooLong)
    } else if text.as_bytes().contains(&0) {
        Err(TopicError::Nul)
    } else {
        Ok(())
    }
}

/// A topic that a message is published to: no wildcards, not empty (`[MQTT-3.3.2-2]`).
///
/// Cheap to clone. Made from network bytes it borrows the read buffer: call
/// [`TopicName::detach`] before keeping it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(ByteString);

impl TopicName {
    /// Checks the rules of a topic name.
    pub fn new(text: impl Into<ByteString>) -> Result<Self, TopicError> {
        let text = text.into();
        // One look at every byte, whatever it finds: this is done for every message, and a loop that may
        // end early takes three times as long.
        let suspects =
            |found, byte| found | u8::from(byte == b'+') | u8::from(byte == b'#') | u8::from(byte == 0);
        if text.is_empty() || text.len() > TOPIC_BYTES_MAX || text.bytes().fold(0, suspects) != 0 {
            check_common(&text)?;
            return Err(TopicError::WildcardInName);
        }
        Ok(Self(text))
    }

    /// The topic of a message of which nothing is left.
    pub(super) const fn spent() -> Self {
        Self(ByteString::from_static("-"))
    }

    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same topic in memory of its own, so that keeping it keeps no network buffer alive.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self(ByteString::from(self.as_str()))
    }

    /// The same topic in `bytes`, which must hold the same text; else a copy.
    pub(super) fn moved_to(&self, bytes: Bytes) -> Self {
        match ByteString::try_from(bytes) {
            Ok(text) if text == self.0 => Self(text),
            _ => self.detach(),
        }
    }

    /// How many levels the topic has: one more than its slashes.
    pub fn levels(&self) -> usize {
        count_levels(&self.0)
    }

    /// Whether the topic belongs to the server (`$SYS/…`), hidden from leading wildcards
    /// (`[MQTT-4.7.2-1]`).
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$')
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A topic filter as subscribed to, `$share/{group}/…` included. Owns its memory.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(Arc<str>);

impl TopicFilter {
    /// Checks the wildcard rules and, for `$share/…`, the share name.
    pub fn new(text: &str) -> Result<Self, TopicError> {
        check_common(text)?;
        if let Some(rest) = text.strip_prefix("$share/") {
            let (group, filter) = rest.split_once('/').ok_or(TopicError::ShareName)?;
            if group.is_empty() || group.contains(['+', '#']) || filter.is_empty() {
                return Err(TopicError::ShareName);
            }
            check_wildcards(filter)?;
        } else if text == "$share" {
            return Err(TopicError::ShareName);
        } else {
            check_wildcards(text)?;
        }
        Ok(Self(text.into()))
    }

    /// The filter as the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The group and the filter proper, when this is a shared subscription.
    pub fn shared(&self) -> Option<SharedFilter<'_>> {
        let (group, filter) = self.0.strip_prefix("$share/")?.split_once('/')?;
        Some(SharedFilter { group, filter })
    }

    /// The part that is matched against topics: without `$share/{group}/`.
    pub fn pattern(&self) -> &str {
        self.shared().map_or(&*self.0, |shared| shared.filter)
    }

    /// How many levels the pattern has.
    pub fn levels(&self) -> usize {
        count_levels(self.pattern())
    }

    /// Whether a message published to `topic` is wanted by this filter.
    pub fn matches(&self, topic: &TopicName) -> bool {
        pattern_matches(self.pattern(), topic.as_str())
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two halves of `$share/{group}/{filter}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedFilter<'a> {
    /// The share name.
    pub group: &'a str,
    /// The topic filter that the group subscribes to.
    pub filter: &'a str,
}

fn count_levels(text: &str) -> usize {
    1 + text.bytes().filter(|b| *b == b'/').count()
}

fn check_wildcards(filter: &str) -> Result<(), TopicError> {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(TopicError::MultiLevelWildcard);
        }
        if level.contains('+') && level != "+" {
            return Err(TopicError::SingleLevelWildcard);
        }
    }
    Ok(())
}

/// `[MQTT-4.7.1-2]` (`#` includes the parent level), `[MQTT-4.7.2-1]` (no leading wildcard
/// meets a `$` topic).
fn pattern_matches(pattern: &str, topic: &str) -> bool {
    if topic.starts_with('$') && pattern.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for want in pattern.split('/') {
        if want == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if want == "+" || want == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(filter: &str, topic: &str) -> bool {
        let filter = TopicFilter::new(filter).expect("a filter");
        filter.matches(&TopicName::new(topic).expect("a topic"))
    }

    #[test]
    fn matches_as_the_standard_s_examples_say() {
        for (filter, topic) in [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
            ("sport/#", "sport"),
            ("#", "sport/tennis"),
            ("sport/tennis/+", "sport/tennis/player1"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("$SYS/#", "$SYS/broker"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients"),
            ("$share/g/a/+", "a/b"),
            ("a//b", "a//b"),
            ("a/+/b", "a//b"),
        ] {
            assert!(matches(filter, topic), "{filter} should match {topic}");
        }
        for (filter, topic) in [
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/broker"),
            ("+/monitor/Clients", "$SYS/monitor/Clients"),
            ("a/b", "A/b"),
            ("$share/g/#", "$SYS/x"),
        ] {
            assert!(!matches(filter, topic), "{filter} should not match {topic}");
        }
    }

    #[test]
    fn refuses_misplaced_wildcards() {
        for (text, why) in [
            ("", TopicError::Empty),
            ("a\0", TopicError::Nul),
            ("sport/tennis#", TopicError::MultiLevelWildcard),
            ("sport/tennis/#/ranking", TopicError::MultiLevelWildcard),
            ("sport+", TopicError::SingleLevelWildcard),
            ("a/b+/c", TopicError::SingleLevelWildcard),
            ("$share", TopicError::ShareName),
            ("$share/g", TopicError::ShareName),
            ("$share/g/", TopicError::ShareName),
            ("$share//a", TopicError::ShareName),
            ("$share/a+b/c", TopicError::ShareName),
        ] {
            assert_eq!(TopicFilter::new(text), Err(why), "{text}");
        }
        assert_eq!(TopicName::new("a/+"), Err(TopicError::WildcardInName));
        assert_eq!(TopicName::new(""), Err(TopicError::Empty));
    }
}
