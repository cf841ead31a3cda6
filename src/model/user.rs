//! Users: who the clients of a cluster may prove to be.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stringprep::saslprep;
use thiserror::Error;
use uuid::Uuid;

use super::{Secrets, Timestamp};

/// Why a text is not the name of a user, or not a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UserError {
    /// The length of a name.
    #[error("a user name is 1 to {} bytes of UTF-8", Username::BYTES_MAX)]
    UsernameLength,
    /// A character that no name has, or one that can be written in another way.
    #[error(
        "a user name has no control characters and is in the form that SASLprep (RFC 4013) leaves as it is"
    )]
    UsernameForm,
    /// The length of a password.
    #[error("a password is 1 to {} bytes of UTF-8", Password::BYTES_MAX)]
    PasswordLength,
    /// A character that no password may have.
    #[error("the password has a character that SASLprep (RFC 4013) refuses, such as a control character")]
    PasswordForm,
}

/// The name of a user, unique within its cluster.
///
/// 1 to 256 bytes of UTF-8 in the form that `SASLprep` (RFC 4013) leaves as it is: so no two names look
/// the same, and a name is the same with and without SCRAM, which prepares it (RFC 5802, 5.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Username(Arc<str>);

impl Username {
    /// The greatest length, in bytes of UTF-8.
    pub const BYTES_MAX: usize = 256;

    /// Checks the form.
    pub fn new(text: &str) -> Result<Self, UserError> {
        if !(1..=Self::BYTES_MAX).contains(&text.len()) {
            return Err(UserError::UsernameLength);
        }
        match saslprep(text) {
            Ok(prepared) if prepared == text => Ok(Self(text.into())),
            _ => Err(UserError::UsernameForm),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for Username {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Username {
    type Error = UserError;

    fn try_from(text: String) -> Result<Self, UserError> {
        Self::new(&text)
    }
}

impl From<Username> for String {
    fn from(name: Username) -> Self {
        name.0.as_ref().into()
    }
}

/// A password as its owner chose it. Not shown by `Debug`.
///
/// 1 to 1,024 bytes of UTF-8 that `SASLprep` (RFC 4013) accepts: SCRAM needs the prepared form.
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    text: String,
    prepared: String,
}

impl Password {
    /// The greatest length, in bytes of UTF-8.
    pub const BYTES_MAX: usize = 1_024;

    /// Checks the form.
    pub fn new(text: &str) -> Result<Self, UserError> {
        if !(1..=Self::BYTES_MAX).contains(&text.len()) {
            return Err(UserError::PasswordLength);
        }
        let prepared = saslprep(text).map_err(|_| UserError::PasswordForm)?.into_owned();
        // Of nothing but characters that SASLprep leaves out.
        if prepared.is_empty() {
            return Err(UserError::PasswordForm);
        }
        Ok(Self { text: text.to_owned(), prepared })
    }

    /// As it was chosen: what a client sends in CONNECT.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// As SCRAM takes it (RFC 5802, 2.2: `Normalize`).
    pub fn expose_prepared(&self) -> &str {
        &self.prepared
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(<redacted>)")
    }
}

/// A user as the control plane keeps it; what it proves itself by is kept apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name; never changes.
    pub username: Username,
    /// Names its [`Secrets`]: another with every password.
    pub secrets_id: Uuid,
    /// Whether it stands above the cluster's authorisation policies.
    pub is_superuser: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Counts the changes.
    pub version: i64,
}

/// All users of one cluster, as the data plane checks clients against them. Never changed after it was
/// made; shared between snapshots that have the same users.
#[derive(Clone, Debug, Default)]
pub struct Users {
    /// Another whenever something that a client may have proven went out of force.
    pub lineage: Uuid,
    /// Counts the changes.
    pub version: i64,
    /// What the secrets of users that do not exist follow from; see [`Secrets`].
    pub decoy_key: Uuid,
    /// What each proves itself by.
    pub by_name: HashMap<Username, Arc<Secrets>>,
    /// Those of them that stand above the cluster's authorisation policies.
    pub superusers: HashSet<Username>,
}

impl Users {
    /// How many users a cluster may have: what a worker keeps of each is some 500 bytes, and a removal
    /// makes it read all of them again.
    pub const COUNT_MAX: u32 = 100_000;

    /// What a user proves itself by.
    pub fn get(&self, username: &str) -> Option<&Arc<Secrets>> {
        self.by_name.get(username)
    }

    /// Whether there is this user and its password is still the one with these secrets.
    pub fn holds(&self, username: &str, secrets_id: Uuid) -> bool {
        self.get(username).is_some_and(|secrets| secrets.id == secrets_id)
    }

    /// Whether there is this user and it stands above the cluster's authorisation policies.
    pub fn is_superuser(&self, username: &str) -> bool {
        self.superusers.contains(username)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// Two states of the same users are equal when nothing was changed in between.
impl PartialEq for Users {
    fn eq(&self, other: &Self) -> bool {
        (self.lineage, self.version) == (other.lineage, other.version)
    }
}

impl Eq for Users {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        for good in ["meter-17", "a/b", "Zoë", "two words", &"x".repeat(256)] {
            assert_eq!(Username::new(good).map(|name| name.to_string()).as_deref(), Ok(good));
        }
        for bad in ["", &"x".repeat(257)] {
            assert_eq!(Username::new(bad), Err(UserError::UsernameLength));
        }
        // A control character, two ways to write é, a ligature, a soft hyphen that nobody sees.
        for bad in ["a\u{0}", "a\n", "e\u{301}", "\u{fb01}ve", "a\u{ad}b"] {
            assert_eq!(Username::new(bad), Err(UserError::UsernameForm), "{bad:?}");
        }
    }

    /// RFC 4013, 3: the examples.
    #[test]
    fn passwords_are_prepared_for_scram() {
        for (text, prepared) in
            [("I\u{ad}X", "IX"), ("user", "user"), ("USER", "USER"), ("\u{aa}", "a"), ("\u{2168}", "IX")]
        {
            let password = Password::new(text).expect("a password");
            assert_eq!((password.expose(), password.expose_prepared()), (text, prepared));
        }
        for bad in ["\u{7}", "\u{627}\u{31}", "\u{ad}"] {
            assert_eq!(Password::new(bad), Err(UserError::PasswordForm), "{bad:?}");
        }
        assert_eq!(Password::new(""), Err(UserError::PasswordLength));
        assert_eq!(Password::new(&"x".repeat(1_025)), Err(UserError::PasswordLength));
        assert!(!format!("{:?}", Password::new("hunter2").expect("a password")).contains("hunter2"));
    }
}
