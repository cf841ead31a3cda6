//! The address of an HTTP resource that the service itself asks: `http` or `https`, host, port, path.
//!
//! No user information, because a secret has no place in an address that is shown and logged; no
//! fragment, because that is never sent.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// An absolute `http` or `https` URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpUrl {
    text: String,
    is_https: bool,
    /// Where in `text` the host begins and ends; brackets of an IPv6 address left out.
    host: (usize, usize),
    port: u16,
    /// Where in `text` path and query begin; its end when there is neither.
    path: usize,
}

/// The text is no URL that the service would ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "expected http://HOST[:PORT][/PATH] or https:// of at most {} visible characters of ASCII, without user and fragment",
    HttpUrl::BYTES_MAX
)]
pub struct NotHttpUrl;

impl HttpUrl {
    /// The longest text.
    pub const BYTES_MAX: usize = 2_048;
    /// The longest host name (RFC 1035, 2.3.4).
    const HOST_BYTES_MAX: usize = 253;

    /// Whether it is asked over TLS.
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// A name or an address; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.text[self.host.0..self.host.1]
    }

    /// The port, said or the scheme's.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as they were written: the `Host` header.
    pub fn authority(&self) -> &str {
        let begin = if self.is_https { "https://".len() } else { "http://".len() };
        &self.text[begin..self.path]
    }

    /// Path and query: what a request asks for.
    pub fn path_and_query(&self) -> String {
        match &self.text[self.path..] {
            "" => "/".to_owned(),
            query if query.starts_with('?') => format!("/{query}"),
            path => path.to_owned(),
        }
    }

    /// Whether it leads to this machine itself, by an address or by the name that is kept for it.
    pub fn is_loopback(&self) -> bool {
        self.host() == "localhost"
            || self.host().parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for HttpUrl {
    type Err = NotHttpUrl;

    fn from_str(text: &str) -> Result<Self, NotHttpUrl> {
        let visible = text.bytes().all(|b| b.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&b));
        if !visible || text.len() > Self::BYTES_MAX {
            return Err(NotHttpUrl);
        }
        let (is_https, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(NotHttpUrl),
        };
        let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
        let begin = text.len() - rest.len();
        let path = begin + authority.len();
        let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
            let (address, port) = bracketed.split_once(']').ok_or(NotHttpUrl)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| NotHttpUrl)?;
            ((begin + 1, begin + 1 + address.len()), port)
        } else {
            let name = &authority[..authority.find(':').unwrap_or(authority.len())];
            if !is_host(name) {
                return Err(NotHttpUrl);
            }
            ((begin, begin + name.len()), &authority[name.len()..])
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port != 0).ok_or(NotHttpUrl)?
            }
            None if port.is_empty() => {
                if is_https {
                    443
                } else {
                    80
                }
            }
            _ => return Err(NotHttpUrl),
        };
        Ok(Self { text: text.to_owned(), is_https, host, port, path })
    }
}

fn is_host(name: &str) -> bool {
    (1..=HttpUrl::HOST_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for HttpUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for HttpUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (text, https, host, port, authority, path) in [
            ("http://a", false, "a", 80, "a", "/"),
            ("https://a.example:8443/x?y=1", true, "a.example", 8443, "a.example:8443", "/x?y=1"),
            ("https://a?y", true, "a", 443, "a", "/?y"),
            ("http://[::1]:7/", false, "::1", 7, "[::1]:7", "/"),
            ("http://127.0.0.1", false, "127.0.0.1", 80, "127.0.0.1", "/"),
        ] {
            let url: HttpUrl = text.parse().expect(text);
            assert_eq!((url.is_https(), url.host(), url.port()), (https, host, port), "{text}");
            assert_eq!((url.authority(), url.path_and_query().as_str()), (authority, path), "{text}");
            assert_eq!(url.as_str(), text);
        }
    }

    #[test]
    fn what_is_no_such_url_is_refused() {
        let long = format!("http://a/{}", "x".repeat(HttpUrl::BYTES_MAX));
        for text in [
            "",
            "a",
            "ftp://a",
            "http://",
            "http:///x",
            "https://a b",
            "http://a\n/",
            "http://u:p@a/",
            "http://a#x",
            "http://a:0",
            "http://a:70000",
            "http://a:+7",
            "http://a:",
            "http://[::1",
            "http://[a]",
            "http://[::1]x",
            "HTTP://a",
            "http://ü",
            &long,
        ] {
            assert_eq!(text.parse::<HttpUrl>(), Err(NotHttpUrl), "{text:?}");
        }
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        let is = |text: &str| text.parse::<HttpUrl>().expect(text).is_loopback();
        assert!(is("http://localhost:1") && is("http://127.9.9.9") && is("http://[::1]"));
        assert!(!is("http://10.0.0.1") && !is("http://localhost.example"));
    }
}
