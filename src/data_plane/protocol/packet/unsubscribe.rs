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
