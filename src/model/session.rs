//! What both planes say of a client session.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// The protocol a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProtocolVersion {
    /// MQTT 3.1 (`MQIsdp`, level 3).
    #[serde(rename = "3.1")]
    V3_1,
    /// MQTT 3.1.1 (`MQTT`, level 4).
    #[serde(rename = "3.1.1")]
    V3_1_1,
    /// MQTT 5.0 (`MQTT`, level 5).
    #[serde(rename = "5")]
    V5,
}

impl ProtocolVersion {
    /// Whether packets carry properties and reason codes.
    pub const fn is_v5(self) -> bool {
        matches!(self, Self::V5)
    }

    /// As the API and the store write it: `3.1`, `3.1.1` or `5`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V3_1 => "3.1",
            Self::V3_1_1 => "3.1.1",
            Self::V5 => "5",
        }
    }

    /// The reverse of [`ProtocolVersion::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::V3_1, Self::V3_1_1, Self::V5].into_iter().find(|v| v.as_str() == text)
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the client's bytes arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Plain TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
    /// One bidirectional QUIC stream.
    Quic,
}

impl Transport {
    /// As the API and the store write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Quic => "quic",
        }
    }

    /// The reverse of [`Transport::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Tcp, Self::Tls, Self::Ws, Self::Wss, Self::Quic].into_iter().find(|t| t.as_str() == text)
    }
}

/// Whether a session has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    /// A connection is attached.
    Online,
    /// No connection; the session waits for its client until it expires.
    Offline,
}

impl SessionState {
    /// As the API and the store write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndedBy {
    /// The client sent DISCONNECT.
    Client,
    /// The connection broke without a word.
    Network,
    /// The server ended it: protocol violation, keep-alive, takeover, shutdown.
    Server,
    /// Somebody asked for it over the API.
    Operator,
}

impl EndedBy {
    /// As the API and the store write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Network => "network",
            Self::Server => "server",
            Self::Operator => "operator",
        }
    }

    /// The reverse of [`EndedBy::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Client, Self::Network, Self::Server, Self::Operator].into_iter().find(|e| e.as_str() == text)
    }
}

/// Why the last connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisconnectCause {
    /// A stable word: `normal`, `with_will`, `connection_lost`, `keep_alive_timeout`,
    /// `taken_over`, `administrative`, `malformed_packet`, `server_restart` …
    pub reason: String,
    /// Who ended it.
    pub by: EndedBy,
}

/// What an operator ordered about a session's expiry; beats the client's own until cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorExpiry {
    /// So many seconds after the connection ends.
    Interval(u32),
    /// At this instant, or when the connection ends if that is later.
    At(Timestamp),
}

/// What an operator says of a session; goes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorPart {
    /// The order about its expiry.
    pub expiry: Option<OperatorExpiry>,
    /// The operator's own marks.
    pub labels: BTreeMap<String, String>,
    /// Whether deleting it over the API is refused.
    pub protected: bool,
}

/// Where the expiry in force comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpirySource {
    /// The client asked for it.
    Client,
    /// The client asked for something outside the cluster's bounds and got the bound.
    ClusterCeiling,
    /// An operator set it over the API.
    Operator,
}

impl ExpirySource {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::ClusterCeiling => "cluster_ceiling",
            Self::Operator => "operator",
        }
    }
}

/// How long a session outlives its connection (PRODUCT S-5, S-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionExpiry {
    /// What the client was granted, in seconds; 0 ends the session with the connection.
    pub client_secs: u32,
    /// Whether the grant differs from what the client asked for.
    pub bounded_by_cluster: bool,
    /// What an operator ordered instead.
    pub operator: Option<OperatorExpiry>,
}

impl SessionExpiry {
    /// Whether the session outlives its connection.
    pub fn is_persistent(&self, now: Timestamp) -> bool {
        match self.operator {
            Some(OperatorExpiry::At(at)) => at > now,
            Some(OperatorExpiry::Interval(secs)) => secs > 0,
            None => self.client_secs > 0,
        }
    }

    /// When a session whose connection ended at `disconnected_at` expires.
    pub fn expires_at(&self, disconnected_at: Timestamp) -> Timestamp {
        match self.operator {
            Some(OperatorExpiry::At(at)) => at.max(disconnected_at),
            Some(OperatorExpiry::Interval(secs)) => disconnected_at.plus_secs(secs),
            None => disconnected_at.plus_secs(self.client_secs),
        }
    }

    /// The interval in force, in seconds, as a CONNACK sent at `now` would tell it.
    pub fn interval_secs(&self, now: Timestamp) -> u32 {
        match self.operator {
            Some(OperatorExpiry::At(at)) => at.secs_after(now),
            Some(OperatorExpiry::Interval(secs)) => secs,
            None => self.client_secs,
        }
    }

    /// Who decided it.
    pub fn source(&self) -> ExpirySource {
        if self.operator.is_some() {
            ExpirySource::Operator
        } else if self.bounded_by_cluster {
            ExpirySource::ClusterCeiling
        } else {
            ExpirySource::Client
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Timestamp = Timestamp::from_millis(1_000_000);

    #[test]
    fn an_operator_s_order_beats_the_client_s_wish() {
        let mut expiry = SessionExpiry { client_secs: 60, bounded_by_cluster: true, operator: None };
        assert_eq!(expiry.expires_at(T), T.plus_secs(60));
        assert_eq!(expiry.source(), ExpirySource::ClusterCeiling);
        expiry.operator = Some(OperatorExpiry::Interval(5));
        assert_eq!(expiry.expires_at(T), T.plus_secs(5));
        expiry.operator = Some(OperatorExpiry::At(T.plus_secs(7)));
        assert_eq!(expiry.expires_at(T), T.plus_secs(7));
        assert_eq!(expiry.expires_at(T.plus_secs(9)), T.plus_secs(9));
        assert_eq!(expiry.interval_secs(T.plus_secs(6)), 1);
        assert!(!expiry.is_persistent(T.plus_secs(7)));
        assert_eq!(expiry.source(), ExpirySource::Operator);
    }
}
