//! What is asked for with one topic filter.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::{QoS, TopicFilter};

/// When retained messages are sent for a new subscription (MQTT 5.0, 3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum RetainHandling {
    /// At every SUBSCRIBE (`[MQTT-3.3.1-9]`).
    Send = 0,
    /// Only when the subscription did not exist (`[MQTT-3.3.1-10]`).
    SendIfNew = 1,
    /// Never (`[MQTT-3.3.1-11]`).
    DoNotSend = 2,
}

impl From<RetainHandling> for u8 {
    fn from(handling: RetainHandling) -> u8 {
        handling as u8
    }
}

impl TryFrom<u8> for RetainHandling {
    type Error = &'static str;

    fn try_from(bits: u8) -> Result<Self, Self::Error> {
        match bits {
            0 => Ok(Self::Send),
            1 => Ok(Self::SendIfNew),
            2 => Ok(Self::DoNotSend),
            _ => Err("retain handling is 0, 1 or 2"),
        }
    }
}

/// One subscription of one session (PRODUCT S-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The filter, `$share/{group}/…` included. Unique within the session.
    pub filter: TopicFilter,
    /// The greatest quality of service at which messages are sent.
    pub qos: QoS,
    /// Do not send the client what it published itself (`[MQTT-3.8.3-3]`).
    pub no_local: bool,
    /// Keep the retain flag as the publisher set it (`[MQTT-3.3.1-12]`, `[MQTT-3.3.1-13]`).
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
    /// The subscription identifier, 1 to 268,435,455.
    pub identifier: Option<NonZeroU32>,
    /// Who asked for it last.
    pub origin: SubscriptionOrigin,
}

/// Who asked for a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubscriptionOrigin {
    /// The client, by SUBSCRIBE.
    #[default]
    Client,
    /// An operator, over the API.
    Operator,
    /// A rule of the cluster's, at CONNECT.
    Automatic,
}

impl SubscriptionOrigin {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Client, Self::Operator, Self::Automatic];

    /// As the API and the store write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Operator => "operator",
            Self::Automatic => "automatic",
        }
    }

    /// The reverse of [`SubscriptionOrigin::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|origin| origin.as_str() == text)
    }
}

/// How a shared group chooses who gets a message (PRODUCT S-4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedStrategy {
    /// Any online member with room.
    #[default]
    Random,
    /// The same member for the same topic.
    HashTopic,
    /// The same member for the same publisher.
    HashClientId,
}

impl SharedStrategy {
    /// As the API and the store write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::HashTopic => "hash_topic",
            Self::HashClientId => "hash_client_id",
        }
    }

    /// The reverse of [`SharedStrategy::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Random, Self::HashTopic, Self::HashClientId].into_iter().find(|s| s.as_str() == text)
    }
}
