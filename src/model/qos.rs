//! Quality of service.

use serde::{Deserialize, Serialize};

/// How surely a message is delivered (MQTT 5.0, 4.3). Ordered: a subscription's grant is a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum QoS {
    /// Delivered or lost.
    AtMostOnce = 0,
    /// Delivered once or more.
    AtLeastOnce = 1,
    /// Delivered once.
    ExactlyOnce = 2,
}

impl From<QoS> for u8 {
    fn from(qos: QoS) -> u8 {
        qos as u8
    }
}

impl TryFrom<u8> for QoS {
    type Error = &'static str;

    fn try_from(bits: u8) -> Result<Self, Self::Error> {
        match bits {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            _ => Err("QoS is 0, 1 or 2"),
        }
    }
}
