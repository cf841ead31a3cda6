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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_plane::protocol::Packet;
    use crate::data_plane::protocol::testing::{V3_1, V3_1_1, V5, from_client, to_bytes};

    fn filter(text: &str, qos: QoS) -> SubscribeFilter {
        SubscribeFilter {
            filter: TopicFilter::new(text).expect("a filter"),
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }
    }

    /// MQTT 5.0, figures 3-19 and 3-21; MQTT 3.1.1, figures 3.21 and 3.23.
    #[test]
    fn reads_the_standards_example() {
        let packet = Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(10).expect("not 0"),
            subscription_id: None,
            user_properties: UserProperties::default(),
            filters: vec![filter("a/b", QoS::AtLeastOnce), filter("c/d", QoS::ExactlyOnce)],
        });
        let v5 = b"\x82\x0f\x00\x0a\x00\x00\x03a/b\x01\x00\x03c/d\x02";
        let v3 = b"\x82\x0e\x00\x0a\x00\x03a/b\x01\x00\x03c/d\x02";
        assert_eq!(to_bytes(&packet, V5), v5);
        assert_eq!(to_bytes(&packet, V3_1_1), v3);
        assert_eq!(from_client(V5, v5).as_ref(), Ok(&packet));
        assert_eq!(from_client(V3_1_1, v3).as_ref(), Ok(&packet));
        let again = b"\x8a\x0e\x00\x0a\x00\x03a/b\x01\x00\x03c/d\x02";
        assert_eq!(from_client(V3_1, again), Ok(packet), "V3.1 sends it again with DUP");
    }

    #[test]
    fn reads_every_option_and_property() {
        let mut shared = filter("$share/g/#", QoS::AtMostOnce);
        shared.retain_as_published = true;
        shared.retain_handling = RetainHandling::SendIfNew;
        let mut local = filter("+", QoS::ExactlyOnce);
        local.no_local = true;
        local.retain_handling = RetainHandling::DoNotSend;
        let packet = Packet::Subscribe(Subscribe {
            packet_id: PacketId::MIN,
            subscription_id: NonZeroU32::new(268_435_455),
            user_properties: vec![("$where".into(), "x > 1".into())],
            filters: vec![shared, local],
        });
        let bytes = b"\x82\x29\x00\x01\x15\x0b\xff\xff\xff\x7f\x26\x00\x06$where\x00\x05x > 1\
            \x00\x0a$share/g/#\x18\x00\x01+\x26";
        assert_eq!(to_bytes(&packet, V5), bytes);
        assert_eq!(from_client(V5, bytes), Ok(packet));
    }
}
