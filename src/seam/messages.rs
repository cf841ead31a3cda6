//! Messages of a session as they are looked at: what waits for it, what is under way to it, its will.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::{ClientId, QoS, Seq, SessionId, Timestamp, TopicFilter};

/// Which messages of a session are looked at, and from where on.
#[derive(Clone, Debug)]
pub struct BrowseRequest {
    /// Whose session.
    pub client_id: ClientId,
    /// Which of its messages.
    pub of: BrowseOf,
    /// Behind what was seen last.
    pub after: BrowsePlace,
    /// At most so many.
    pub messages_max: usize,
}

/// Which messages of a session are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BrowseOf {
    /// What waits for it.
    Backlog,
    /// What was sent to it at QoS 1 or 2 and is not over.
    InFlight,
}

/// Where a look at a session's messages goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrowsePlace {
    /// How many messages were seen that wait in memory, for a session that ends with its connection.
    pub queued: usize,
    /// The last position of the log that was seen; of what is in flight, the last exchange.
    pub last: u64,
}

/// Some of a session's messages, in the order in which it gets them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Browsed {
    /// The session that they are of.
    pub session_id: SessionId,
    /// At most as many as were asked for; fewer, or none, does not mean that there are no more.
    pub messages: Vec<BrowsedMessage>,
    /// Where to go on; `None` at the end.
    pub next: Option<BrowsePlace>,
}

/// One message of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowsedMessage {
    /// Its position in the cluster's log; `None` when it is not there.
    pub position: Option<Seq>,
    /// The quality of service at which the session gets it.
    pub qos: QoS,
    /// The retain flag as the session sees it.
    pub retain: bool,
    /// Identifiers of the subscriptions that want it.
    pub subscription_ids: Vec<NonZeroU32>,
    /// How far it is on its way; `None` while it waits.
    pub exchange: Option<Exchange>,
    /// What was said; `None` when it is no longer kept: the client has it, or the log let go of it.
    pub message: Option<ShownMessage>,
}

/// How far a message is on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its packet id.
    pub packet_id: NonZeroU16,
    /// What is awaited.
    pub phase: ExchangePhase,
    /// The shared group whose message it is, by its whole filter.
    pub share: Option<TopicFilter>,
}

/// What is awaited of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExchangePhase {
    /// PUBACK, or at QoS 2 PUBREC.
    Published,
    /// PUBCOMP.
    Released,
}

/// A message as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownMessage {
    /// Where it was published to.
    pub topic: String,
    /// What was said.
    pub payload: Bytes,
    /// The publisher's quality of service.
    pub qos: QoS,
    /// Whether the publisher asked that it be retained.
    pub retain: bool,
    /// Its properties, of MQTT 5.
    pub properties: ShownProperties,
    /// When the server took it.
    pub published_at: Timestamp,
    /// When it expires, if it does.
    pub expires_at: Option<Timestamp>,
    /// Who published it, if a client did and that has a session that is found soon enough.
    pub publisher: Option<ClientId>,
}

/// The properties that are forwarded with a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShownProperties {
    /// Whether the publisher says that the payload is text.
    pub payload_is_utf8: Option<bool>,
    /// What the payload is.
    pub content_type: Option<String>,
    /// Where an answer is expected.
    pub response_topic: Option<String>,
    /// What the answer is to carry.
    pub correlation_data: Option<Bytes>,
    /// Names and values, in their order.
    pub user_properties: Vec<(String, String)>,
}

/// What is published when a connection, or its session, ends badly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownWill {
    /// The session whose will it is.
    pub session_id: SessionId,
    /// What is published.
    pub message: ShownMessage,
    /// Seconds from its publication to its expiry.
    pub message_expiry_secs: Option<u32>,
    /// Seconds between the connection's end and the publication.
    pub delay_secs: u32,
    /// When it is published if the client does not return; `None` while it is connected.
    pub due_at: Option<Timestamp>,
}
