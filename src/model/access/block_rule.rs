//! Block rules: clients that are kept out, whatever else allows them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::policy::AccessClient;
use super::{AccessError, Glob, Network};
use crate::model::Timestamp;

/// What of a client a block rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockSubject {
    /// Its client id.
    ClientId,
    /// Its user name.
    Username,
    /// Its IP address.
    Ip,
}

impl BlockSubject {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientId => "client_id",
            Self::Username => "username",
            Self::Ip => "ip",
        }
    }
}

/// A pattern of a block rule: a [`Glob`], and for addresses also a [`Network`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Glob", into = "Glob")]
pub struct BlockPattern {
    glob: Glob,
    /// The network that the text names, if it names one.
    network: Option<Network>,
}

impl From<Glob> for BlockPattern {
    fn from(glob: Glob) -> Self {
        let network = Some(glob.as_str()).filter(|text| text.contains('/'));
        let network = network.and_then(|text| Network::new(text).ok());
        Self { glob, network }
    }
}

impl From<BlockPattern> for Glob {
    fn from(pattern: BlockPattern) -> Self {
        pattern.glob
    }
}

impl BlockPattern {
    /// A network is one; other patterns are held against the address as it is written (RFC 5952).
    fn check_address(&self) -> Result<(), AccessError> {
        let text = self.glob.as_str();
        let fits = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'.' | b':' | b'*' | b'?');
        if self.network.is_some() || text.bytes().all(fits) {
            Ok(())
        } else if text.contains('/') {
            Err(AccessError::Network)
        } else {
            Err(AccessError::AddressPattern)
        }
    }

    fn meets_address(&self, address: IpAddr, text: &str) -> bool {
        match self.network {
            Some(network) => network.contains(address),
            None => self.glob.matches(text),
        }
    }
}

/// Whom a block rule keeps out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockRuleSpec {
    /// What it looks at.
    pub subject: BlockSubject,
    /// Whom it keeps out.
    pub pattern: BlockPattern,
    /// Whom of these it does not.
    pub excludes: Vec<BlockPattern>,
}

impl BlockRuleSpec {
    /// How many excludes it may have.
    pub const EXCLUDES_MAX: usize = 3;

    /// Refuses patterns of addresses that no address has: a JSON pointer to the fault, and what it is.
    pub fn check(&self) -> Result<(), (String, AccessError)> {
        if self.subject != BlockSubject::Ip {
            return Ok(());
        }
        self.pattern.check_address().map_err(|error| ("/pattern".to_owned(), error))?;
        for (at, exclude) in self.excludes.iter().enumerate() {
            exclude.check_address().map_err(|error| (format!("/excludes/{at}"), error))?;
        }
        Ok(())
    }
}

/// A block rule of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRule {
    /// Names it; never changes.
    pub id: Uuid,
    /// Whom it keeps out.
    pub spec: BlockRuleSpec,
    /// From when on it no longer does; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// Why, for people.
    pub reason: Option<String>,
}

impl BlockRule {
    /// Whether it keeps this client out at this moment.
    pub fn holds_for(&self, client: &AccessClient<'_>, now: Timestamp) -> bool {
        if self.expires_at.is_some_and(|at| at <= now) {
            return false;
        }
        let BlockRuleSpec { subject, pattern, excludes } = &self.spec;
        let text = match subject {
            BlockSubject::ClientId => Some(client.names.client_id),
            BlockSubject::Username => client.names.username,
            BlockSubject::Ip => {
                let Some(address) = client.address.map(|address| address.to_canonical()) else {
                    return false;
                };
                let text = address.to_string();
                let meets = |pattern: &BlockPattern| pattern.meets_address(address, &text);
                return meets(pattern) && !excludes.iter().any(meets);
            }
        };
        let meets = |pattern: &BlockPattern| text.is_some_and(|text| pattern.glob.matches(text));
        meets(pattern) && !excludes.iter().any(meets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Variables;

    fn rule(subject: BlockSubject, pattern: &str, excludes: &[&str]) -> BlockRule {
        let glob = |text: &&str| BlockPattern::from(Glob::new(text).expect("a pattern"));
        let excludes = excludes.iter().map(glob).collect();
        let spec = BlockRuleSpec { subject, pattern: glob(&pattern), excludes };
        assert_eq!(spec.check(), Ok(()));
        BlockRule { id: Uuid::nil(), spec, expires_at: None, reason: None }
    }

    fn client<'a>(client_id: &'a str, username: Option<&'a str>, address: &str) -> AccessClient<'a> {
        let address = address.parse().ok();
        AccessClient { names: Variables { client_id, username }, address }
    }

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    #[test]
    fn a_rule_keeps_out_whom_it_names_but_for_its_excludes() {
        use BlockSubject::{ClientId, Ip, Username};
        for (subject, pattern, excludes, blocked, spared) in [
            (ClientId, "m-*", &["m-7", "m-8?"][..], "m-1", "m-7"),
            (ClientId, "m-*", &["m-7", "m-8?"], "m-8", "m-81"),
            (ClientId, "m-1", &[], "m-1", "m-12"),
            (Username, "team-?", &[], "team-a", "team-ab"),
            (Username, "*", &["root"], "ada", "root"),
            (Ip, "10.1.*", &["10.1.2.?"], "10.1.20.3", "10.1.2.3"),
            (Ip, "10.1.0.0/16", &["10.1.2.0/24"], "10.1.3.2", "10.1.2.77"),
            (Ip, "2001:db8:*", &[], "2001:db8::1", "2001:db9::1"),
            (Ip, "10.*", &[], "::ffff:10.0.0.1", "11.0.0.1"),
        ] {
            let rule = rule(subject, pattern, excludes);
            let holds = |text: &str| match subject {
                ClientId => rule.holds_for(&client(text, None, "192.0.2.1"), NOW),
                Username => rule.holds_for(&client("c", Some(text), "192.0.2.1"), NOW),
                Ip => rule.holds_for(&client("c", None, text), NOW),
            };
            assert!(holds(blocked) && !holds(spared), "{pattern} {blocked} {spared}");
        }
        assert!(!rule(Username, "*", &[]).holds_for(&client("c", None, "192.0.2.1"), NOW));
    }

    #[test]
    fn a_rule_ends_by_the_clock() {
        let until = |millis| BlockRule {
            expires_at: Some(Timestamp::from_millis(millis)),
            ..rule(BlockSubject::ClientId, "c", &[])
        };
        let c = client("c", None, "192.0.2.1");
        assert!(until(1_001).holds_for(&c, NOW) && !until(1_000).holds_for(&c, NOW));
    }

    #[test]
    fn patterns_that_no_address_has_are_pointed_at() {
        for (pattern, exclude, pointer) in
            [("10.x", "1", "/pattern"), ("10.0.0.0/99", "1", "/pattern"), ("10.*", "FE80*", "/excludes/0")]
        {
            let glob = |text| BlockPattern::from(Glob::new(text).expect("a pattern"));
            let spec = BlockRuleSpec {
                subject: BlockSubject::Ip,
                pattern: glob(pattern),
                excludes: vec![glob(exclude)],
            };
            assert_eq!(spec.check().map_err(|(at, _)| at), Err(pointer.to_owned()));
        }
    }
}
