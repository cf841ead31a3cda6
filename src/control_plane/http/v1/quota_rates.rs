//! The rates of a quota, and the guard against clients that connect over and over, as the API shows and
//! takes them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::number::{AtMost, Within};
use super::quota::PlainLimit;
use crate::model::{Flapping, Quota, RateOverrides, Rates};

/// How often something may happen in a cluster, each per second. Over it, v5 is told the reason; 3.1 and
/// 3.1.1 as far as they can be.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rates)]
#[allow(clippy::struct_field_names)] // in the API a unit ends a name
pub(super) struct RatesView {
    /// CONNECTs that are let in; over it 0x9F (3.1.1: return code 3).
    connects_per_second: PlainLimit,
    /// Those among them that bring a will.
    connects_with_will_per_second: PlainLimit,
    /// SUBSCRIBE packets; over it 0x97 (3.1.1: 0x80) for each filter.
    subscribes_per_second: PlainLimit,
    /// UNSUBSCRIBE packets; over it 0x83, the code that UNSUBACK has for it; a 3.1.1 client is slowed.
    unsubscribes_per_second: PlainLimit,
    /// Messages of all clients, in and out together. Publishers share it evenly when they want more than
    /// there is. Over it a message at QoS 0 is dropped and counted; at QoS 1 and 2 it is refused with 0x97 and not
    /// kept, and a 3.1.1 client is slowed.
    messages_per_second: PlainLimit,
    /// Messages that one client publishes; over it as with `messages_per_second`.
    client_messages_per_second: PlainLimit,
    /// Bytes that one client publishes, topics and payloads; over it as with `messages_per_second`.
    client_bytes_per_second: PlainLimit,
}

impl RatesView {
    pub(super) fn new(rates: &Rates, own: &RateOverrides) -> Self {
        Self {
            connects_per_second: PlainLimit::new(rates.connects, own.connects),
            connects_with_will_per_second: PlainLimit::new(rates.connects_with_will, own.connects_with_will),
            subscribes_per_second: PlainLimit::new(rates.subscribes, own.subscribes),
            unsubscribes_per_second: PlainLimit::new(rates.unsubscribes, own.unsubscribes),
            messages_per_second: PlainLimit::new(rates.messages, own.messages),
            client_messages_per_second: PlainLimit::new(rates.client_messages, own.client_messages),
            client_bytes_per_second: PlainLimit::new(rates.client_bytes, own.client_bytes),
        }
    }
}

/// The guard against a client id that connects over and over: more than `connects` times within
/// `window_seconds`, and it is refused with 0x9F (3.1.1: return code 3) for `hold_seconds`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Flapping)]
pub(super) struct FlappingView {
    /// How often is not too often; 0 for no guard.
    connects: PlainLimit,
    /// The window, in seconds.
    window_seconds: PlainLimit,
    /// For how long the client is refused, in seconds.
    hold_seconds: PlainLimit,
}

impl FlappingView {
    pub(super) fn new(rule: Flapping, own: &RateOverrides) -> Self {
        Self {
            connects: PlainLimit::new(Some(rule.connects), own.flapping_connects),
            window_seconds: PlainLimit::new(Some(rule.window_secs), own.flapping_window_secs),
            hold_seconds: PlainLimit::new(Some(rule.hold_secs), own.flapping_hold_secs),
        }
    }
}

/// The most that a rate may be.
const RATE_MAX: u32 = 1_000_000_000;

/// A rate per second.
type Rate = Within<1, RATE_MAX>;

/// What a cluster sets of its rates, each per second. Null, or nothing, leaves the plan's value.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RateOverrides, example = json!({"client_messages_per_second": 50}))]
#[allow(clippy::struct_field_names)] // in the API a unit ends a name
pub(super) struct RatesPut {
    /// CONNECTs that are let in.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000_000)]
    connects_per_second: Option<Rate>,
    /// Those among them that bring a will.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000_000)]
    connects_with_will_per_second: Option<Rate>,
    /// SUBSCRIBE packets.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000_000)]
    subscribes_per_second: Option<Rate>,
    /// UNSUBSCRIBE packets.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000_000)]
    unsubscribes_per_second: Option<Rate>,
    /// Messages of all clients, in and out together.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000_000)]
    messages_per_second: Option<Rate>,
    /// Messages that one client publishes.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000_000)]
    client_messages_per_second: Option<Rate>,
    /// Bytes that one client publishes: topics and payloads.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000_000)]
    client_bytes_per_second: Option<Rate>,
}

/// What a cluster sets of the guard against clients that connect over and over. Null, or nothing, leaves
/// the plan's value.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FlappingOverrides, example = json!({"connects": 15, "window_seconds": 60, "hold_seconds": 300}))]
pub(super) struct FlappingPut {
    /// How often within the window is not too often; 0 for no guard.
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 100)]
    connects: Option<AtMost<{ Flapping::CONNECTS_MAX }>>,
    /// The window, in seconds.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 86_400)]
    window_seconds: Option<Within<1, { Flapping::SECS_MAX }>>,
    /// For how long the client is refused, in seconds.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 86_400)]
    hold_seconds: Option<Within<1, { Flapping::SECS_MAX }>>,
}

/// What both say together.
pub(super) fn overrides(rates: Option<RatesPut>, flapping: Option<FlappingPut>) -> RateOverrides {
    let (rates, flapping) = (rates.unwrap_or_default(), flapping.unwrap_or_default());
    let rate = |rate: Option<Rate>| rate.map(|n| n.0);
    RateOverrides {
        connects: rate(rates.connects_per_second),
        connects_with_will: rate(rates.connects_with_will_per_second),
        subscribes: rate(rates.subscribes_per_second),
        unsubscribes: rate(rates.unsubscribes_per_second),
        messages: rate(rates.messages_per_second),
        client_messages: rate(rates.client_messages_per_second),
        client_bytes: rate(rates.client_bytes_per_second),
        flapping_connects: flapping.connects.map(|n| n.0),
        flapping_window_secs: flapping.window_seconds.map(|n| n.0),
        flapping_hold_secs: flapping.hold_seconds.map(|n| n.0),
    }
}

/// The rates of a plan, as numbers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlanRates)]
#[allow(clippy::struct_field_names)] // in the API a unit ends a name
pub(super) struct PlanRatesView {
    /// CONNECTs that are let in; null for no limit.
    #[schema(example = 100, minimum = 1, required)]
    connects_per_second: Option<u32>,
    /// Those among them that bring a will; null for no limit.
    #[schema(example = 100, minimum = 1, required)]
    connects_with_will_per_second: Option<u32>,
    /// SUBSCRIBE packets; null for no limit.
    #[schema(example = 100, minimum = 1, required)]
    subscribes_per_second: Option<u32>,
    /// UNSUBSCRIBE packets; null for no limit.
    #[schema(example = 100, minimum = 1, required)]
    unsubscribes_per_second: Option<u32>,
    /// Messages of all clients, in and out together; null for no limit.
    #[schema(example = 10_000, minimum = 1, required)]
    messages_per_second: Option<u32>,
    /// Messages that one client publishes; null for no limit.
    #[schema(minimum = 1, required)]
    client_messages_per_second: Option<u32>,
    /// Bytes that one client publishes; null for no limit.
    #[schema(minimum = 1, required)]
    client_bytes_per_second: Option<u32>,
}

impl From<&Quota> for PlanRatesView {
    fn from(quota: &Quota) -> Self {
        let Rates {
            connects,
            connects_with_will,
            subscribes,
            unsubscribes,
            messages,
            client_messages,
            client_bytes,
        } = quota.rates;
        Self {
            connects_per_second: connects,
            connects_with_will_per_second: connects_with_will,
            subscribes_per_second: subscribes,
            unsubscribes_per_second: unsubscribes,
            messages_per_second: messages,
            client_messages_per_second: client_messages,
            client_bytes_per_second: client_bytes,
        }
    }
}
