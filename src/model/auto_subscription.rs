//! Automatic subscriptions: what a cluster has its clients subscribe to when they connect.
//!
//! A rule names clients by patterns and a filter in which `${clientid}` and `${username}` are the client's own. It
//! was parsed once, when it was accepted. A client whose own would mean more than itself (it is missing, has a `/`,
//! `+` or `#`, or begins with `$`) gets nothing of a filter in which it stands: else a client could choose by its name
//! whose messages it gets.
//!
//! What it does not do: subscribe. `data_plane/cluster/automatic.rs` does.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::{
    Glob, QoS, Quota, RetainHandling, Subscription, SubscriptionOrigin, TopicError, TopicFilter, Variables,
};

/// Why a filter of a rule is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FilterTemplateError {
    /// `${…}` that is nothing known.
    #[error("the variables are ${{clientid}} and ${{username}}")]
    Variable,
    /// Without variables it would be no filter.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// Longer than a filter may be.
    #[error("a filter is at most {} bytes of UTF-8", Quota::TOPIC_BYTES_MAX)]
    Length,
    /// More levels than a filter may have.
    #[error("a filter has at most {} levels", Quota::TOPIC_LEVELS_MAX)]
    Levels,
}

/// Why a client gets nothing of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// A client without user name.
    #[error("the client has no user name")]
    NoUsername,
    /// What would mean more than itself.
    #[error("a client id or user name with / + or #, or that begins with $, cannot stand in a filter")]
    Meaning,
    /// With the client's own it is too long.
    #[error("with the client's own the filter is none")]
    Filter,
}

/// A topic filter in which variables stand for the client's own. Shared ones too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilterTemplate {
    text: Box<str>,
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    ClientId,
    Username,
}

const VARIABLES: [(&str, Part); 2] = [("${clientid}", Part::ClientId), ("${username}", Part::Username)];

impl FilterTemplate {
    /// Reads a filter with variables.
    pub fn new(text: &str) -> Result<Self, FilterTemplateError> {
        if text.len() > Quota::TOPIC_BYTES_MAX {
            return Err(FilterTemplateError::Length);
        }
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some(at) = rest.find("${") {
            let variable = VARIABLES.into_iter().find(|(name, _)| rest[at..].starts_with(name));
            let (name, part) = variable.ok_or(FilterTemplateError::Variable)?;
            parts.extend((at > 0).then(|| Part::Text(rest[..at].into())));
            parts.push(part);
            rest = &rest[at + name.len()..];
        }
        parts.extend((!rest.is_empty()).then(|| Part::Text(rest.into())));
        let template = Self { text: text.into(), parts: parts.into() };
        // What fits has no slash: the levels are those of any client's filter.
        let filter = TopicFilter::new(&template.filled("x", "x"))?;
        if filter.levels() > Quota::TOPIC_LEVELS_MAX {
            return Err(FilterTemplateError::Levels);
        }
        Ok(template)
    }

    /// The filter as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is a shared subscription, for every client.
    pub fn is_shared(&self) -> bool {
        self.text.starts_with("$share/")
    }

    /// The filter of one client.
    pub fn fill(&self, who: Variables<'_>) -> Result<TopicFilter, Unfit> {
        let uses = |part: &Part| self.parts.contains(part);
        let username = match who.username {
            None if uses(&Part::Username) => return Err(Unfit::NoUsername),
            username => username.unwrap_or_default(),
        };
        for (part, value) in [(Part::ClientId, who.client_id), (Part::Username, username)] {
            let is_plain = !value.is_empty() && !value.contains(['/', '+', '#']) && !value.starts_with('$');
            if uses(&part) && !is_plain {
                return Err(Unfit::Meaning);
            }
        }
        TopicFilter::new(&self.filled(who.client_id, username)).map_err(|_| Unfit::Filter)
    }

    fn filled(&self, client_id: &str, username: &str) -> String {
        let of = |part: &Part| match part {
            Part::Text(text) => text.to_string(),
            Part::ClientId => client_id.to_owned(),
            Part::Username => username.to_owned(),
        };
        self.parts.iter().map(of).collect()
    }
}

impl TryFrom<String> for FilterTemplate {
    type Error = FilterTemplateError;

    fn try_from(text: String) -> Result<Self, FilterTemplateError> {
        Self::new(&text)
    }
}

impl From<FilterTemplate> for String {
    fn from(template: FilterTemplate) -> Self {
        template.text.into()
    }
}

/// Whom a rule is for, and what they subscribe to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoSubscriptionSpec {
    /// Clients with such an id; `None` for all.
    pub client_id: Option<Glob>,
    /// Clients with such a user name, and none without one; `None` for all.
    pub username: Option<Glob>,
    /// What they subscribe to.
    pub filter: FilterTemplate,
    /// See [`Subscription::qos`].
    pub qos: QoS,
    /// See [`Subscription::no_local`].
    pub no_local: bool,
    /// See [`Subscription::retain_as_published`].
    pub retain_as_published: bool,
    /// See [`Subscription::retain_handling`].
    pub retain_handling: RetainHandling,
}

impl AutoSubscriptionSpec {
    /// Whether it is for this client.
    pub fn is_for(&self, who: Variables<'_>) -> bool {
        self.client_id.as_ref().is_none_or(|pattern| pattern.matches(who.client_id))
            && self
                .username
                .as_ref()
                .is_none_or(|pattern| who.username.is_some_and(|username| pattern.matches(username)))
    }

    /// What it has this client subscribe to.
    pub fn subscription_of(&self, who: Variables<'_>) -> Result<Subscription, Unfit> {
        Ok(Subscription {
            filter: self.filter.fill(who)?,
            qos: self.qos,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling: self.retain_handling,
            identifier: None,
            origin: SubscriptionOrigin::Automatic,
        })
    }
}

/// A rule of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoSubscription {
    /// Names it; never changes, and grows with the time at which rules are made.
    pub id: Uuid,
    /// What it says.
    pub spec: AutoSubscriptionSpec,
}

/// All automatic subscriptions of one cluster. Never changed after it was made; shared between snapshots in which it
/// is the same.
#[derive(Clone, Debug, Default)]
pub struct AutoSubscriptions {
    /// Another with every change.
    pub revision: Uuid,
    /// The newest first: of several that give a client the same filter it holds.
    pub rules: Vec<AutoSubscription>,
}

impl AutoSubscriptions {
    /// How many rules a cluster may have: every CONNECT is held against all of them.
    pub const RULES_MAX: u32 = 100;
}

/// Two states of the same rules are equal when nothing was changed in between.
impl PartialEq for AutoSubscriptions {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision
    }
}

impl Eq for AutoSubscriptions {}

#[cfg(test)]
mod tests {
    use super::*;

    fn who<'a>(client_id: &'a str, username: Option<&'a str>) -> Variables<'a> {
        Variables { client_id, username }
    }

    fn fill(template: &str, client_id: &str, username: Option<&str>) -> Result<String, Unfit> {
        let template = FilterTemplate::new(template).expect("a template");
        template.fill(who(client_id, username)).map(|filter| filter.as_str().to_owned())
    }

    #[test]
    fn variables_are_the_client_s_own() {
        for (template, filter) in [
            ("down/${clientid}/#", "down/m-1/#"),
            ("${username}/${clientid}/${username}", "ada/m-1/ada"),
            ("a-${clientid}-b/+", "a-m-1-b/+"),
            ("$share/${username}/jobs/+", "$share/ada/jobs/+"),
            ("all/$/{clientid}", "all/$/{clientid}"),
            ("#", "#"),
        ] {
            assert_eq!(fill(template, "m-1", Some("ada")), Ok(filter.to_owned()), "{template}");
        }
    }

    #[test]
    fn what_would_mean_more_than_itself_stands_for_nothing() {
        for bad in ["a/b", "+", "a#", "$share", "$SYS", ""] {
            assert_eq!(fill("x/${clientid}", bad, None), Err(Unfit::Meaning), "{bad}");
            assert_eq!(fill("x/${username}", "c", Some(bad)), Err(Unfit::Meaning), "{bad}");
            // Where it does not stand it does no harm.
            assert_eq!(fill("x/${username}", bad, Some("u")), Ok("x/u".to_owned()));
            assert_eq!(fill("x", bad, Some(bad)), Ok("x".to_owned()));
        }
        assert_eq!(fill("x/${username}", "c", None), Err(Unfit::NoUsername));
    }

    #[test]
    fn what_does_not_parse_is_refused() {
        use FilterTemplateError::{Length, Levels, Topic, Variable};
        for (text, error) in [
            ("a/${client}", Variable),
            ("a/${clientid", Variable),
            ("a/${", Variable),
            ("", Topic(TopicError::Empty)),
            ("a/#/b", Topic(TopicError::MultiLevelWildcard)),
            ("+${clientid}", Topic(TopicError::SingleLevelWildcard)),
            ("$share/g", Topic(TopicError::ShareName)),
            ("$share/+/a", Topic(TopicError::ShareName)),
            (&"x".repeat(1_025), Length),
            (&"x/".repeat(16), Levels),
        ] {
            assert_eq!(FilterTemplate::new(text), Err(error), "{text}");
        }
        assert!(FilterTemplate::new(&("x/".repeat(15) + "${clientid}")).is_ok());
    }

    #[test]
    fn a_rule_is_for_whom_both_patterns_name() {
        let glob = |text: Option<&str>| text.map(|text| Glob::new(text).expect("a pattern"));
        let is_for = |client_id, username, who: Variables<'_>| {
            let spec = AutoSubscriptionSpec {
                client_id: glob(client_id),
                username: glob(username),
                filter: FilterTemplate::new("x").expect("a template"),
                qos: QoS::AtLeastOnce,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::Send,
            };
            spec.is_for(who)
        };
        assert!(is_for(None, None, who("c", None)));
        assert!(is_for(Some("m-*"), None, who("m-1", None)));
        assert!(!is_for(Some("m-*"), None, who("x", Some("m-1"))));
        assert!(is_for(None, Some("team-?"), who("c", Some("team-a"))));
        assert!(!is_for(None, Some("*"), who("c", None)), "no user name is none");
        assert!(!is_for(Some("m-*"), Some("ada"), who("m-1", Some("bob"))));
    }
}
