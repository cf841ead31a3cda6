//! Texts with a client's own in them: `${clientid}`, `${username}`, `${password}`, `${peer}`, `${cluster}`.
//!
//! What a client sends is put in as what it is at its place: [`Template::fill`] gives a value of its own,
//! which whoever writes the form or the JSON writes as such, and [`UrlTemplate::fill`] leaves nothing in it
//! that means anything in a URL. So no client says anything by its name but its name.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::{HttpUrl, NotHttpUrl};

/// What stands for the variables. What a client has not sent is empty.
#[derive(Clone, Copy)]
pub struct Values<'a> {
    /// `${clientid}`
    pub client_id: &'a str,
    /// `${username}`
    pub username: &'a str,
    /// `${password}`; `None` when it is no text, and so cannot be told.
    pub password: Option<&'a str>,
    /// `${peer}`: the address without the port.
    pub peer: &'a str,
    /// `${cluster}`
    pub cluster: &'a str,
}

impl fmt::Debug for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither is to be shown: a user name may be a token.
        f.debug_struct("Values").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// Why a text is no template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// Its length.
    #[error("a template is at most {} bytes without control characters", Template::BYTES_MAX)]
    Length,
    /// `${…}` that is nothing known.
    #[error("the variables are ${{clientid}}, ${{username}}, ${{password}}, ${{peer}} and ${{cluster}}")]
    Variable,
    /// A variable where the client would choose whom to ask.
    #[error("scheme, host and port have no variables")]
    VariableHost,
    /// Not a URL.
    #[error(transparent)]
    Url(#[from] NotHttpUrl),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    ClientId,
    Username,
    Password,
    Peer,
    Cluster,
}

impl Variable {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "clientid" => Self::ClientId,
            "username" => Self::Username,
            "password" => Self::Password,
            "peer" => Self::Peer,
            "cluster" => Self::Cluster,
            _ => return None,
        })
    }

    fn value<'a>(self, values: &Values<'a>) -> Option<&'a str> {
        match self {
            Self::ClientId => Some(values.client_id),
            Self::Username => Some(values.username),
            Self::Password => values.password,
            Self::Peer => Some(values.peer),
            Self::Cluster => Some(values.cluster),
        }
    }
}

/// A text with variables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    text: String,
    /// What stands before each variable, and the variable; at the end what stands after the last.
    parts: Vec<(String, Option<Variable>)>,
}

impl Template {
    /// The longest text, in bytes.
    pub const BYTES_MAX: usize = 1_024;

    /// Reads a template.
    pub fn new(text: &str) -> Result<Self, TemplateError> {
        if text.len() > Self::BYTES_MAX || text.chars().any(char::is_control) {
            return Err(TemplateError::Length);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, from)) = rest.split_once("${") {
            let (name, after) = from.split_once('}').ok_or(TemplateError::Variable)?;
            let variable = Variable::parse(name).ok_or(TemplateError::Variable)?;
            parts.push((before.to_owned(), Some(variable)));
            rest = after;
        }
        parts.push((rest.to_owned(), None));
        Ok(Self { text: text.to_owned(), parts })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether only the client id and the user name stand in it.
    pub fn is_of_names(&self) -> bool {
        let of_names = |v: &Variable| matches!(v, Variable::ClientId | Variable::Username);
        self.parts.iter().filter_map(|(_, variable)| variable.as_ref()).all(of_names)
    }

    /// The text with the client's own in it; `None` when that is no text.
    pub fn fill(&self, values: &Values<'_>) -> Option<String> {
        self.fill_with(values, |value, out| out.push_str(value))
    }

    fn fill_with(&self, values: &Values<'_>, put: impl Fn(&str, &mut String)) -> Option<String> {
        let mut out = String::with_capacity(self.text.len());
        for (before, variable) in &self.parts {
            out.push_str(before);
            if let Some(variable) = variable {
                put(variable.value(values)?, &mut out);
            }
        }
        Some(out)
    }
}

impl TryFrom<String> for Template {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        Self::new(&text)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.text
    }
}

/// A URL with variables in its path or query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UrlTemplate(Template);

impl UrlTemplate {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The URL with the client's own in it, percent-encoded; `None` when that is no URL: it would be too
    /// long, a value is no text, or one would lead up the path.
    pub fn fill(&self, values: &Values<'_>) -> Option<HttpUrl> {
        let put = |value: &str, out: &mut String| out.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
        let url: HttpUrl = self.0.fill_with(values, put)?.parse().ok()?;
        // A server may take an encoded dot for a dot.
        let path = url.path_and_query();
        let path = path.split('?').next().unwrap_or_default();
        let climbs = |segment: &str| matches!(segment.replace("%2E", ".").as_str(), "." | "..");
        (!path.split('/').any(climbs)).then_some(url)
    }
}

impl FromStr for UrlTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let template = Template::new(text)?;
        let after_scheme = text.find("://").map_or(0, |at| at + 3);
        let authority_end = text[after_scheme..].find(['/', '?']).map_or(text.len(), |at| after_scheme + at);
        if text[..authority_end].contains("${") {
            return Err(TemplateError::VariableHost);
        }
        let example = Values { client_id: "x", username: "x", password: Some("x"), peer: "x", cluster: "x" };
        let url = template.fill(&example).unwrap_or_default();
        url.parse::<HttpUrl>()?;
        Ok(Self(template))
    }
}

impl TryFrom<String> for UrlTemplate {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        text.parse()
    }
}

impl From<UrlTemplate> for String {
    fn from(template: UrlTemplate) -> Self {
        template.0.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values<'_> = Values {
        client_id: "a/b?c=d&e",
        username: "\"ü\n",
        password: Some("p%20"),
        peer: "192.0.2.1",
        cluster: "c",
    };

    #[test]
    fn variables_are_filled_in() {
        let filled = |text: &str| Template::new(text).expect("a template").fill(&VALUES);
        assert_eq!(filled("").as_deref(), Some(""));
        assert_eq!(filled("${peer}-${cluster}${cluster}").as_deref(), Some("192.0.2.1-cc"));
        assert_eq!(filled("$ {x} $x").as_deref(), Some("$ {x} $x"));
        // What a client sends is not looked at again.
        let sly = Values { client_id: "${password}", ..VALUES };
        let template = Template::new("${clientid}").expect("a template");
        assert_eq!(template.fill(&sly).as_deref(), Some("${password}"));
        let no_text = Values { password: None, ..VALUES };
        assert_eq!(Template::new("${password}").expect("a template").fill(&no_text), None);
        for bad in ["${", "${x}", "${clientid", "${ClientId}", "${}"] {
            assert_eq!(Template::new(bad), Err(TemplateError::Variable), "{bad}");
        }
        assert_eq!(Template::new("a\nb"), Err(TemplateError::Length));
        assert_eq!(Template::new(&"x".repeat(1_025)), Err(TemplateError::Length));
        let of_names = |text: &str| Template::new(text).expect("a template").is_of_names();
        assert!(of_names("${clientid}/${username}") && !of_names("${password}"));
    }

    #[test]
    fn in_a_url_a_value_means_nothing_but_itself() {
        let filled = |text: &str| {
            let template: UrlTemplate = text.parse().expect("a template");
            template.fill(&VALUES).map(|url| url.as_str().to_owned())
        };
        assert_eq!(
            filled("http://h/${clientid}?u=${username}&p=${password}").as_deref(),
            Some("http://h/a%2Fb%3Fc%3Dd%26e?u=%22%C3%BC%0A&p=p%2520")
        );
        let up = |client_id: &'static str, url: &str| {
            let template: UrlTemplate = url.parse().expect("a template");
            template.fill(&Values { client_id, ..VALUES }).is_none()
        };
        assert!(up("..", "http://h/users/${clientid}/x") && up(".", "http://h/${clientid}"));
        assert!(!up("..", "http://h/users?c=${clientid}") && !up("...", "http://h/${clientid}"));
        assert!(up(&*Box::leak("x".repeat(3_000).into_boxed_str()), "http://h/${clientid}"));
    }

    #[test]
    fn a_client_does_not_choose_whom_to_ask() {
        for bad in ["http://${clientid}/", "${username}://h/", "http://h:${peer}/", "http://h${peer}?x"] {
            assert_eq!(bad.parse::<UrlTemplate>(), Err(TemplateError::VariableHost), "{bad}");
        }
        for bad in ["ftp://h/", "h", "http://u:p@h/", "http://h/#${peer}", "http://h/ x"] {
            assert!(matches!(bad.parse::<UrlTemplate>(), Err(TemplateError::Url(_))), "{bad}");
        }
    }
}
