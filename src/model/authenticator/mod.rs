//! Authenticators: the links of a cluster's authentication chain (PRODUCT 4).
//!
//! A CONNECT is shown to the links that are enabled, one after the other. Each lets the client in, turns
//! it away, or knows nothing of it; then the next is asked. Whom no link knows is turned away, and whoever
//! gave nothing to be known by is let in where the cluster admits anonymous clients.
//!
//! Everything here was parsed when it was accepted. What it does not do: ask anybody
//! (`data_plane/runtime/authenticators`), or check a signature (`credentials`).

mod acl;
mod settings;
mod template;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use acl::{Acl, AclError};
pub use settings::{
    AuthenticatorSettings, BodyEncoding, Fingerprint, HttpMethod, HttpSettings, JwtAlgorithm, JwtKey,
    JwtSettings, NotFingerprint, TlsSettings, TokenIn,
};
pub use template::{Template, TemplateError, UrlTemplate, Values};

use super::Timestamp;

/// A text that nobody is shown. `Debug` does not tell it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl Hidden {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(<redacted>)")
    }
}

/// One link of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticator {
    /// Names it; never changes.
    pub id: Uuid,
    /// When it is asked: smaller first; unique in the cluster.
    pub position: u32,
    /// Whether it is asked at all.
    pub is_enabled: bool,
    /// How it knows clients.
    pub settings: AuthenticatorSettings,
    /// Counts the changes.
    pub version: i64,
}

impl Authenticator {
    /// The greatest position.
    pub const POSITION_MAX: u32 = 1_000_000;

    /// Where the link is that every cluster begins with: there is room before and after it.
    pub const POSITION_OF_FIRST: u32 = 100;
}

/// A cluster's chain. Never changed after it was made; shared between snapshots in which it is the same.
#[derive(Clone, Debug)]
pub struct Authenticators {
    /// Another with every change.
    pub revision: Uuid,
    /// In the order in which they are asked; those too that are not enabled.
    pub chain: Vec<Authenticator>,
}

/// Users by their passwords: what a cluster begins with.
impl Default for Authenticators {
    fn default() -> Self {
        let first = Authenticator {
            id: Uuid::nil(),
            position: Authenticator::POSITION_OF_FIRST,
            is_enabled: true,
            settings: AuthenticatorSettings::Password,
            version: 1,
        };
        Self { revision: Uuid::nil(), chain: vec![first] }
    }
}

impl Authenticators {
    /// How many links a chain may have: a client waits for all of them.
    pub const COUNT_MAX: u32 = 8;

    /// The links that are asked, in order.
    pub fn enabled(&self) -> impl Iterator<Item = &Authenticator> {
        self.chain.iter().filter(|link| link.is_enabled)
    }

    /// Whether users may prove themselves by their passwords.
    pub fn takes_passwords(&self) -> bool {
        self.enabled().any(|link| matches!(link.settings, AuthenticatorSettings::Password))
    }

    /// Whether anything but users' passwords is looked at.
    pub fn looks_further(&self) -> bool {
        self.enabled().any(|link| !matches!(link.settings, AuthenticatorSettings::Password))
    }

    /// Whether what is given as a user name may be a token.
    pub fn takes_tokens_as_names(&self) -> bool {
        let in_name = |jwt: &JwtSettings| jwt.token_in == TokenIn::Username;
        self.enabled().any(|link| matches!(&link.settings, AuthenticatorSettings::Jwt(jwt) if in_name(jwt)))
    }

    /// Whether clients are to be asked for a certificate.
    pub fn asks_for_certificates(&self) -> bool {
        self.enabled().any(|link| matches!(link.settings, AuthenticatorSettings::Tls(_)))
    }

    /// Whether who was let in by this may stay: its link is still asked, and its certificate is not revoked.
    pub fn upholds(&self, vouched: &Vouched) -> bool {
        let by = self.enabled().find(|link| link.id == vouched.by);
        match (by.map(|link| &link.settings), &vouched.certificate) {
            (None, _) => false,
            (Some(AuthenticatorSettings::Tls(tls)), Some(certificate)) => !tls.revoked.contains(certificate),
            (Some(_), _) => true,
        }
    }
}

/// Two states of the same chain are equal when nothing was changed in between.
impl PartialEq for Authenticators {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision
    }
}

impl Eq for Authenticators {}

/// What a link said of a client that it let in, beside its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// Which link.
    pub by: Uuid,
    /// Whether the client stands above the cluster's authorisation policies.
    pub is_superuser: bool,
    /// Until when this holds; then the connection ends.
    pub expires_at: Option<Timestamp>,
    /// What the client may do, asked before the cluster's policies.
    pub acl: Arc<Acl>,
    /// The certificate by which it is known.
    pub certificate: Option<Fingerprint>,
}

impl Vouched {
    /// That a link knows the client, and nothing else.
    pub fn by(link: Uuid) -> Self {
        Self { by: link, is_superuser: false, expires_at: None, acl: Arc::default(), certificate: None }
    }

    /// Whether it does not hold any longer.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(number: u128, is_enabled: bool, settings: AuthenticatorSettings) -> Authenticator {
        Authenticator { id: Uuid::from_u128(number), position: 0, is_enabled, settings, version: 1 }
    }

    fn tls(revoked: &[&str]) -> AuthenticatorSettings {
        let revoked = revoked.iter().map(|text| text.parse().expect("a fingerprint")).collect();
        AuthenticatorSettings::Tls(TlsSettings { ca: String::new(), revoked })
    }

    #[test]
    fn a_new_cluster_knows_users_by_their_passwords() {
        let chain = Authenticators::default();
        assert!(chain.takes_passwords() && !chain.looks_further() && !chain.asks_for_certificates());
    }

    #[test]
    fn a_link_upholds_whom_it_let_in_while_it_is_asked() {
        let print = "00".repeat(32);
        let with = |is_enabled, settings| Authenticators {
            revision: Uuid::nil(),
            chain: vec![link(1, is_enabled, settings)],
        };
        let known = Vouched { certificate: print.parse().ok(), ..Vouched::by(Uuid::from_u128(1)) };
        assert!(with(true, tls(&[])).upholds(&known));
        assert!(!with(true, tls(&[&print])).upholds(&known), "revoked");
        assert!(!with(false, tls(&[])).upholds(&known), "disabled");
        assert!(!with(true, tls(&[])).upholds(&Vouched::by(Uuid::from_u128(2))), "removed");
    }

    #[test]
    fn what_is_hidden_is_not_shown() {
        assert!(!format!("{:?}", Hidden::new("hunter2")).contains("hunter2"));
    }
}
