//! Which topics a policy is about, and how a topic or a subscription is held against that.
//!
//! A resource describes topic names:
//!
//! | in a resource | stands for |
//! | --- | --- |
//! | `*` | any characters, `/` too, also none |
//! | `+` | one whole level |
//! | `#` at the end | all levels from there on, and the level before it: `a/#` is also `a` |
//! | `/*` at the end | the same as `/#` |
//! | `${clientid}`, `${username}` | the client's own, character for character |
//!
//! What begins with a wildcard has no topic that begins with `$`, as in a topic filter (4.7.2).
//!
//! A **publish** is held against it by its topic. A **subscription** stands for every topic that its filter
//! could ever match. A policy that allows holds for it only if one of its resources has *all* of them; a
//! policy that denies holds as soon as one of its resources has *any* of them. So whatever order the
//! policies have: a subscription that is allowed can receive no topic that is denied. `$share/{group}/`
//! before a filter changes nothing.
//!
//! **Variables.** A client without a user name has no topics of its user name. A client id or user name that
//! could mean more than itself (it has a `/`, `+` or `#`, or begins with `$`) can stand for nothing: a
//! policy that allows does not hold with it, one that denies holds for every topic.

mod forms;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use self::forms::FilterShape;
use self::forms::{Token, covers, meets, parse};
use super::AccessError;
use super::policy::PolicyEffect;

/// What the variables of a resource stand for.
#[derive(Clone, Copy, Debug)]
pub struct Variables<'a> {
    /// `${clientid}`
    pub client_id: &'a str,
    /// `${username}`
    pub username: Option<&'a str>,
}

/// A description of topics. See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Resource {
    text: Box<str>,
    form: Box<[Token]>,
    /// Whether the form has variables.
    varies: bool,
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Resource {}

/// What is left of a resource when its variables are filled in.
enum Filled<'a> {
    Form(Cow<'a, [Token]>),
    /// A variable has no value: no topic.
    Nobody,
    /// A variable has a value that cannot stand in a topic.
    Unfit,
}

impl Resource {
    /// The greatest length, in bytes of UTF-8.
    pub const BYTES_MAX: usize = 512;

    /// Reads a resource.
    pub fn new(text: &str) -> Result<Self, AccessError> {
        if !(1..=Self::BYTES_MAX).contains(&text.len()) || text.contains('\0') {
            return Err(AccessError::ResourceLength);
        }
        if text == "$share" || text.starts_with("$share/") {
            return Err(AccessError::Shared);
        }
        let form = parse(text)?;
        let varies = form.iter().any(|token| matches!(token, Token::ClientId | Token::Username));
        Ok(Self { text: text.into(), form, varies })
    }

    /// The resource as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a policy of this effect holds for publishing to `topic`.
    pub fn holds_for_topic(&self, effect: PolicyEffect, topic: &str, who: Variables<'_>) -> bool {
        match self.fill(who) {
            Filled::Form(form) => {
                !(is_wild(&form) && topic.starts_with('$')) && covers(&form, topic.as_bytes())
            }
            Filled::Nobody => false,
            Filled::Unfit => effect == PolicyEffect::Deny,
        }
    }

    /// Whether a policy of this effect holds for subscribing to `filter`.
    pub fn holds_for_filter(&self, effect: PolicyEffect, filter: &FilterShape, who: Variables<'_>) -> bool {
        let form = match self.fill(who) {
            Filled::Form(form) => form,
            Filled::Nobody => return false,
            Filled::Unfit => return effect == PolicyEffect::Deny,
        };
        // Where only one of the two begins with a wildcard, a `$` keeps them apart.
        let apart = match (is_wild(&form), filter.is_wild()) {
            (true, false) => filter.begins_with_dollar(),
            (false, true) => form.first() == Some(&Token::Byte(b'$')),
            _ => false,
        };
        let mut wanted = filter.forms();
        !apart
            && match effect {
                PolicyEffect::Allow => wanted.all(|wanted| covers(&form, wanted)),
                PolicyEffect::Deny => wanted.any(|wanted| meets(&form, wanted)),
            }
    }

    /// Puts the client's own in the place of variables.
    fn fill(&self, who: Variables<'_>) -> Filled<'_> {
        if !self.varies {
            return Filled::Form(Cow::Borrowed(&self.form));
        }
        let mut filled = Vec::with_capacity(self.form.len() + who.client_id.len());
        for token in &self.form {
            let value = match token {
                Token::ClientId => Some(who.client_id),
                Token::Username => who.username,
                other => {
                    filled.push(*other);
                    continue;
                }
            };
            let Some(value) = value.filter(|value| !value.is_empty()) else { return Filled::Nobody };
            if value.contains(['/', '+', '#']) || value.starts_with('$') {
                return Filled::Unfit;
            }
            filled.extend(value.bytes().map(Token::Byte));
        }
        Filled::Form(filled.into())
    }
}

/// Whether a form begins with a wildcard.
fn is_wild(form: &[Token]) -> bool {
    matches!(form.first(), Some(Token::Any | Token::Level))
}

impl TryFrom<String> for Resource {
    type Error = AccessError;

    fn try_from(text: String) -> Result<Self, AccessError> {
        Self::new(&text)
    }
}

impl From<Resource> for String {
    fn from(resource: Resource) -> Self {
        resource.text.into()
    }
}

#[cfg(test)]
mod tests;
