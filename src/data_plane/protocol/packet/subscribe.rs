//! SUBSCRIBE: a client asks for messages (MQTT 5.0, 3.8).

use std::num::NonZeroU32;

use super::{Context, PacketId, PacketType};
use crate::data_plane::protocol::property::{Properties, Property, Trim, UserProperties, put_properties};
use crate::data_plane::protocol::violation::Violation;
use crate::data_plane::protocol::wire::{self, Reader};
use crate::model::{ProtocolVersion, QoS, RetainHandling, TopicFilter};

/// SUBSCRIBE (MQTT 5.0, 3.8). At least one filter (`[MQTT-3.8.3-2]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The packet id of the exchange.
    pub packet_id: PacketId,
    /// v5: the identifier for all filters of this packet.
    pub subscription_id: Option<NonZeroU32>,
    /// v5: user properties.
    pub user_properties: UserProperties,
    /// What is asked for, in the client's order.
    pub filters: Vec<SubscribeFilter>,
}

/// One filter of a SUBSCRIBE with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeFilter {
    /// The filter; its wildcards are valid.
    pub filter: TopicFilter,
    /// The greatest quality of service wanted.
    pub qos: QoS,
    /// v5: not my own messages. Never with a shared subscription (`[MQTT-3.8.3-4]`).
    pub no_local: bool,
    /// v5: keep the retain flag as published.
    pub retain_as_published: bool,
    /// v5: when retained messages are sent; v3 is [`RetainHandling::Send`].
    pub retain_handling: RetainHandling,
}

const QOS_MASK: u8 = 0b0000_0011;
const FLAG_NO_LOCAL: u8 = 0b0000_0100;
const FLAG_RETAIN_AS_PUBLISHED: u8 = 0b0000_1000;
const RETAIN_HANDLING_SHIFT: u8 = 4;
const RESERVED_V5: u8 = 0b1100_0000;
const RESERVED_V3: u8 = 0b1111_1100;

impl Subscribe {
    pub(super) fn decode(reader: &mut Reader<'_>, context: Context) -> Result<Self, Violation> {
        let mut subscribe = Self {
            packet_id: reader.packet_id()?,
            subscription_id: None,
            user_properties: UserProperties::default(),
            filters: Vec::new(),
        };
        if context.version.is_v5() {
            let mut properties = Properties::read(reader, PacketType::Subscribe)?;
            while let Some(property) = properties.next()? {
                match property {
                    Property::SubscriptionIdentifier => {
                        subscribe.subscription_id = Some(properties.nonzero_varint(property)?);
                    }
                    Property::UserProperty => subscribe.user_properties.push(properties.user()?),
                    other => return properties.refuse(other),
                }
            }
        }
        while !reader.is_empty() {
            subscribe.filters.push(SubscribeFilter::decode(reader, context.version)?);
        }
        if subscribe.filters.is_empty() {
            return Err(Violation::NoFilters(PacketType::Subscribe));
        }
        Ok(subscribe)
    }

    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        wire::put_u16(self.packet_id.get(), out);
        if version.is_v5() {
            put_properties(out, Trim::Nothing, |put| {
                put.varint(Property::SubscriptionIdentifier, self.subscription_id);
                put.user(&self.user_properties);
            });
        }
        for filter in &self.filters {
            wire::put_string(filter.filter.as_str(), out);
            out.push(filter.options(version));
        }
    }
}

impl SubscribeFilter {
    fn decode(reader: &mut Reader<'_>, version: ProtocolVersion) -> Result<Self, Violation> {
        let filter = TopicFilter::new(reader.str()?).map_err(Violation::TopicFilterInvalid)?;
        let options = reader.u8()?;
        let reserved = if version.is_v5() { RESERVED_V5 } else { RESERVED_V3 };
        if options & reserved != 0 {
            return Err(Violation::SubscribeOptionsReserved);
        }
        let no_local = options & FLAG_NO_LOCAL != 0;
        if no_local && filter.shared().is_some() {
            return Err(Violation::NoLocalOnShared);
        }
        Ok(Self {
            filter,
            qos: QoS::try_from(options & QOS_MASK).map_err(|_| Violation::SubscribeQoSReserved)?,
            no_local,
            retain_as_published: options & FLAG_RETAIN_AS_PUBLISHED != 0,
            retain_handling: RetainHandling::try_from(options >> RETAIN_HANDLING_SHIFT)
                .map_err(|_| Violation::RetainHandlingReserved)?,
        })
    }

    fn options(&self, version: ProtocolVersion) -> u8 {
        let qos = u8::from(self.qos);
        if !version.is_v5() {
            return qos;
        }
        qos | if self.no_local { FLAG_NO_LOCAL } else { 0 }
            | if self.retain_as_published { FLAG_RETAIN_AS_PUBLISHED } else { 0 }
            | u8::from(self.retain_handling) << RETAIN_HANDLING_SHIFT
    }
}
