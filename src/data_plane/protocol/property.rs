//! Properties (MQTT 5.0, 2.2.2).

use std::num::{NonZeroU16, NonZeroU32};

use bytestring::ByteString;
use smallvec::SmallVec;

use crate::model::PropertyBytes;

/// User properties in the order they were given (`[MQTT-3.1.3-10]`).
pub type UserProperties = Vec<(ByteString, ByteString)>;

/// The properties of a PUBLISH or a will.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties {
    /// Seconds the message may wait, from its receipt.
    pub message_expiry_secs: Option<u32>,
    /// Stands for the topic on this connection. 0 is a protocol error (`[MQTT-3.3.2-8]`).
    pub topic_alias: Option<NonZeroU16>,
    /// Only from server to client; from a client it is a protocol error (`[MQTT-3.3.4-6]`).
    pub subscription_ids: SmallVec<[NonZeroU32; 1]>,
    /// All others, in wire form and order, validated: forwarded unaltered.
    pub forwarded: PropertyBytes,
}
