//! What a client may not do in its present state: faults that a packet alone does not show.

use thiserror::Error;

use crate::data_plane::protocol::ReasonCode;

/// A broken rule that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// `[MQTT-3.1.0-2]`
    #[error("a second CONNECT on one connection [MQTT-3.1.0-2]")]
    SecondConnect,
    /// `[MQTT-3.3.4-7]` and 3.3.4: more QoS 1 and 2 messages at once than the server takes.
    #[error("more unacknowledged publishes than Receive Maximum allows [MQTT-3.3.4-7]")]
    ReceiveMaximumExceeded,
    /// `[MQTT-3.3.2-9]`: above Topic Alias Maximum.
    #[error("the topic alias is above Topic Alias Maximum [MQTT-3.3.2-9]")]
    TopicAliasTooHigh,
    /// 3.3.2.1: neither a topic nor an alias that stands for one.
    #[error("no topic, and no alias that stands for one (MQTT 5.0, 3.3.4)")]
    TopicUnknown,
    /// `[MQTT-3.14.2-2]` (3.14.2.2.2): an expiry of 0 cannot be raised at the end.
    #[error("a session expiry of 0 cannot be raised by DISCONNECT (MQTT 5.0, 3.14.2.2.2)")]
    ExpiryRaised,
    /// `[MQTT-4.12.0-1]`: AUTH without an authentication method in CONNECT.
    #[error("AUTH without an authentication method in CONNECT [MQTT-4.12.0-1]")]
    UnexpectedAuth,
    /// A packet that only servers send.
    #[error("a packet that only a server may send")]
    ServerPacket,
}

impl Fault {
    /// The reason code of the DISCONNECT that answers it.
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::ReceiveMaximumExceeded => ReasonCode::ReceiveMaximumExceeded,
            Self::TopicAliasTooHigh => ReasonCode::TopicAliasInvalid,
            Self::SecondConnect
            | Self::TopicUnknown
            | Self::ExpiryRaised
            | Self::UnexpectedAuth
            | Self::ServerPacket => ReasonCode::ProtocolError,
        }
    }
}
