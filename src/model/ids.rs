//! Names of clusters, clients and sessions.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdError {
    /// A cluster id breaks its form.
    #[error("a cluster id is 1 to 63 of a-z, 0-9 and '-', and begins and ends with a letter or digit")]
    ClusterId,
    /// A client id is empty.
    #[error("a client id must not be empty")]
    ClientIdEmpty,
    /// A client id is longer than [`ClientId::BYTES_MAX`].
    #[error("a client id is at most {} bytes of UTF-8, this one has {bytes}", ClientId::BYTES_MAX)]
    ClientIdTooLong {
        /// The length that was offered.
        bytes: usize,
    },
    /// A client id holds U+0000, which no MQTT string may (`[MQTT-1.5.4-2]`).
    #[error("a client id must not contain U+0000")]
    ClientIdNul,
}

/// The id of a cluster: a DNS label, because it is also the first label of its host name.
///
/// 1 to 63 of `a-z`, `0-9` and `-`, beginning and ending with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterId(Arc<str>);

impl ClusterId {
    /// Checks the form.
    pub fn new(text: &str) -> Result<Self, IdError> {
        let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let edges = bytes.first().is_some_and(|b| label(*b)) && bytes.last().is_some_and(|b| label(*b));
        if edges && bytes.len() <= 63 && bytes.iter().all(|b| label(*b) || *b == b'-') {
            Ok(Self(text.into()))
        } else {
            Err(IdError::ClusterId)
        }
    }

    /// The cluster of the zero-configuration start: `default`.
    pub fn default_cluster() -> Self {
        Self("default".into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A client identifier, unique within its cluster (`[MQTT-3.1.3-2]`, `[MQTT-3.1.3-4]`).
///
/// 1 to 256 bytes of UTF-8 without U+0000 (PRODUCT Q-9).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// The greatest length, in bytes of UTF-8.
    pub const BYTES_MAX: usize = 256;

    /// Checks the form.
    pub fn new(text: &str) -> Result<Self, IdError> {
        if text.is_empty() {
            Err(IdError::ClientIdEmpty)
        } else if text.len() > Self::BYTES_MAX {
            Err(IdError::ClientIdTooLong { bytes: text.len() })
        } else if text.contains('\0') {
            Err(IdError::ClientIdNul)
        } else {
            Ok(Self(text.into()))
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What messages remember of their publisher.
    pub fn key(&self) -> ClientKey {
        ClientKey(crc_fast::crc64_nvme(self.0.as_bytes()))
    }
}

/// A client id in eight bytes, the same in every process: CRC-64/NVME of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKey(pub u64);

macro_rules! text_id {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(&text)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }
        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }
    };
}

text_id!(ClusterId);
text_id!(ClientId);

/// The identity of one session: new whenever a CONNECT begins a session, kept over every resume.
///
/// A version 7 uuid, so that ids made later sort later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub Uuid);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The number of an attachment of a session to a connection: 1 for the first, one more for each
/// resume or takeover. Nothing done under an old epoch takes effect (PRODUCT S-9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The epoch of a session's first attachment.
    pub const FIRST: Self = Self(1);

    /// The epoch of the next attachment.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_ids_are_dns_labels() {
        for good in ["a", "default", "team-7", "0x", &"a".repeat(63)] {
            assert!(ClusterId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"a".repeat(64)] {
            assert_eq!(ClusterId::new(bad), Err(IdError::ClusterId), "{bad}");
        }
    }

    #[test]
    fn client_ids_have_a_length_and_no_nul() {
        assert!(ClientId::new(&"é".repeat(128)).is_ok());
        assert_eq!(ClientId::new(""), Err(IdError::ClientIdEmpty));
        assert_eq!(ClientId::new("a\0"), Err(IdError::ClientIdNul));
        let long = "x".repeat(257);
        assert_eq!(ClientId::new(&long), Err(IdError::ClientIdTooLong { bytes: 257 }));
    }
}
