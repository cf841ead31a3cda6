//! UNSUBSCRIBE: a client asks for messages no longer (MQTT 5.0, 3.10).

use super::{Context, PacketId, PacketType};
use crate::data_plane::protocol::property::{Properties, Property, Trim, UserProperties, put_properties};
use crate::data_plane::protocol::violation::Violation;
use crate::data_plane::protocol::wire::{self, Reader};
use crate::model::{ProtocolVersion, TopicFilter};

/// UNSUBSCRIBE (MQTT 5.0, 3.10). At least one filter (`[MQTT-3.10.3-2]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// The packet id of the exchange.
    pub packet_id: PacketId,
    /// v5: user properties.
    pub user_properties: UserProperties,
    /// What is no longer wanted, in the client's order.
    pub filters: Vec<TopicFilter>,
}

impl Unsubscribe {
    pub(super) fn decode(reader: &mut Reader<'_>, context: Context) -> Result<Self, Violation> {
        let mut unsubscribe = Self {
            packet_id: reader.packet_id()?,
            user_properties: UserProperties::default(),
            filters: Vec::new(),
        };
        if context.version.is_v5() {
            let mut properties = Properties::read(reader, PacketType::Unsubscribe)?;
            while let Some(property) = properties.next()? {
                match property {
                    Property::UserProperty => unsubscribe.user_properties.push(properties.user()?),
                    other => return properties.refuse(other),
                }
            }
        }
        while !reader.is_empty() {
            let filter = TopicFilter::new(reader.str()?).map_err(Violation::TopicFilterInvalid)?;
            unsubscribe.filters.push(filter);
        }
        if unsubscribe.filters.is_empty() {
            return Err(Violation::NoFilters(PacketType::Unsubscribe));
        }
        Ok(unsubscribe)
    }

    pub(super) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        wire::put_u16(self.packet_id.get(), out);
        if version.is_v5() {
            put_properties(out, Trim::Nothing, |put| put.user(&self.user_properties));
        }
        for filter in &self.filters {
            wire::put_string(filter.as_str(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_plane::protocol::Packet;
    use crate::data_plane::protocol::testing::{V3_1, V3_1_1, V5, from_client, to_bytes};

    /// MQTT 5.0, figure 3.30.
    #[test]
    fn reads_the_standards_example() {
        let mut unsubscribe = Unsubscribe {
            packet_id: PacketId::new(10).expect("not 0"),
            user_properties: UserProperties::default(),
            filters: ["a/b", "c/d"].map(|text| TopicFilter::new(text).expect("a filter")).to_vec(),
        };
        let v3 = b"\xa2\x0c\x00\x0a\x00\x03a/b\x00\x03c/d";
        let packet = Packet::Unsubscribe(unsubscribe.clone());
        assert_eq!(to_bytes(&packet, V3_1_1), v3);
        assert_eq!(from_client(V3_1_1, v3).as_ref(), Ok(&packet));
        assert_eq!(from_client(V3_1, &[&b"\xaa"[..], &v3[1..]].concat()).as_ref(), Ok(&packet));
        unsubscribe.user_properties.push(("k".into(), "v".into()));
        let packet = Packet::Unsubscribe(unsubscribe);
        let v5 = b"\xa2\x14\x00\x0a\x07\x26\x00\x01k\x00\x01v\x00\x03a/b\x00\x03c/d";
        assert_eq!(to_bytes(&packet, V5), v5);
        assert_eq!(from_client(V5, v5), Ok(packet));
    }
}
