//! How sessions end, and what an operator may say when he ends one.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::{ClientId, Timestamp};

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionEnd {
    /// It was not to outlive its connection, and that ended.
    WithConnection,
    /// Its time was over (PRODUCT S-7).
    Expired,
    /// Its client began another one.
    Replaced,
    /// An operator deleted it.
    Deleted,
    /// A quota was lowered below what was used.
    QuotaLowered,
    /// Its cluster was deleted.
    ClusterDeleted,
}

impl SessionEnd {
    /// As the history tells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WithConnection => "with_connection",
            Self::Expired => "expired",
            Self::Replaced => "replaced",
            Self::Deleted => "deleted",
            Self::QuotaLowered => "quota_lowered",
            Self::ClusterDeleted => "cluster_deleted",
        }
    }
}

/// What becomes of the will when an operator ends a connection or a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WillChoice {
    /// It is published, after its delay, as at every end without the client's goodbye (`[MQTT-3.1.2-8]`).
    #[default]
    Publish,
    /// It is dropped.
    Suppress,
}

impl WillChoice {
    /// As the API and the store write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Suppress => "suppress",
        }
    }

    /// The reverse of [`WillChoice::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Publish, Self::Suppress].into_iter().find(|choice| choice.as_str() == text)
    }
}

/// What an operator gives as reason: 1 to [`OperatorReason::BYTES_MAX`] bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OperatorReason(Arc<str>);

/// A text that cannot be an operator's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a reason is 1 to 256 bytes of UTF-8 without control characters")]
pub struct ReasonError;

impl OperatorReason {
    /// The longest, in bytes of UTF-8.
    pub const BYTES_MAX: usize = 256;

    /// A reason of this text.
    ///
    /// # Errors
    /// [`ReasonError`].
    pub fn new(text: &str) -> Result<Self, ReasonError> {
        let fits = (1..=Self::BYTES_MAX).contains(&text.len());
        if fits && !text.chars().any(char::is_control) { Ok(Self(text.into())) } else { Err(ReasonError) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OperatorReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for OperatorReason {
    type Error = ReasonError;

    fn try_from(text: String) -> Result<Self, ReasonError> {
        Self::new(&text)
    }
}

impl From<OperatorReason> for String {
    fn from(reason: OperatorReason) -> Self {
        reason.0.as_ref().to_owned()
    }
}

/// How an operator ends a connection or a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndOptions {
    /// What becomes of the will.
    pub will: WillChoice,
    /// Why; told to a v5 client that takes reasons.
    pub reason: Option<OperatorReason>,
}

/// The holds of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHolds {
    /// Another with every change.
    pub version: Uuid,
    /// Each by the client id that is refused. Some may be over.
    pub by_client: HashMap<ClientId, ClientHold>,
}

impl ClientHolds {
    /// The hold that is in force on a client id.
    pub fn on(&self, client_id: &str, now: Timestamp) -> Option<&ClientHold> {
        self.by_client.get(client_id).filter(|hold| hold.is_in_force(now))
    }
}

/// An operator's word that a client id is refused for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHold {
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub reason: Option<OperatorReason>,
}

impl ClientHold {
    /// Whether it is in force. One whose time is over is not, whether or not it was removed yet.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_bounds() {
        let taken = |text: &str| OperatorReason::new(text).is_ok();
        assert!(taken("x") && taken(&"é".repeat(128)) && taken("Wartung: Zähler 7, bitte später"));
        assert!(!taken("") && !taken(&"é".repeat(129)) && !taken("a\nb") && !taken("a\u{0}"));
    }
}
