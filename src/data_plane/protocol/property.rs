//! Properties (MQTT 5.0, 2.2.2): their identifiers, the walk over a received list, the writing of one.
//!
//! Which packet may carry which property is told by the packet's own decoder; what PUBLISH and the will
//! share is here. What a server must forward unaltered stays in wire form: see [`super::forwarded`].

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;

use super::packet::PacketType;
use super::reason::ReasonCode;
use super::violation::Violation;
use super::wire::{self, Reader};
use crate::model::{PropertyBytes, TopicName};

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

/// A property of the standard by its identifier (MQTT 5.0, 2.2.2.2). The names are the standard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // the standard's own names
pub enum Property {
    PayloadFormatIndicator = 0x01,
    MessageExpiryInterval = 0x02,
    ContentType = 0x03,
    ResponseTopic = 0x08,
    CorrelationData = 0x09,
    SubscriptionIdentifier = 0x0B,
    SessionExpiryInterval = 0x11,
    AssignedClientIdentifier = 0x12,
    ServerKeepAlive = 0x13,
    AuthenticationMethod = 0x15,
    AuthenticationData = 0x16,
    RequestProblemInformation = 0x17,
    WillDelayInterval = 0x18,
    RequestResponseInformation = 0x19,
    ResponseInformation = 0x1A,
    ServerReference = 0x1C,
    ReasonString = 0x1F,
    ReceiveMaximum = 0x21,
    TopicAliasMaximum = 0x22,
    TopicAlias = 0x23,
    MaximumQoS = 0x24,
    RetainAvailable = 0x25,
    UserProperty = 0x26,
    MaximumPacketSize = 0x27,
    WildcardSubscriptionAvailable = 0x28,
    SubscriptionIdentifierAvailable = 0x29,
    SharedSubscriptionAvailable = 0x2A,
}

impl Property {
    pub(super) const ALL: [Self; 27] = [
        Self::PayloadFormatIndicator,
        Self::MessageExpiryInterval,
        Self::ContentType,
        Self::ResponseTopic,
        Self::CorrelationData,
        Self::SubscriptionIdentifier,
        Self::SessionExpiryInterval,
        Self::AssignedClientIdentifier,
        Self::ServerKeepAlive,
        Self::AuthenticationMethod,
        Self::AuthenticationData,
        Self::RequestProblemInformation,
        Self::WillDelayInterval,
        Self::RequestResponseInformation,
        Self::ResponseInformation,
        Self::ServerReference,
        Self::ReasonString,
        Self::ReceiveMaximum,
        Self::TopicAliasMaximum,
        Self::TopicAlias,
        Self::MaximumQoS,
        Self::RetainAvailable,
        Self::UserProperty,
        Self::MaximumPacketSize,
        Self::WildcardSubscriptionAvailable,
        Self::SubscriptionIdentifierAvailable,
        Self::SharedSubscriptionAvailable,
    ];

    /// The property with this identifier, if the standard defines one.
    pub(super) fn from_id(id: u32) -> Option<Self> {
        const BY_ID: [Option<Property>; 64] = {
            let mut table = [None; 64];
            let mut index = 0;
            while index < Property::ALL.len() {
                table[Property::ALL[index] as usize] = Some(Property::ALL[index]);
                index += 1;
            }
            table
        };
        BY_ID.get(usize::try_from(id).ok()?).copied().flatten()
    }

    /// Where the standard bounds the value of this property.
    pub(super) const fn value_statement(self) -> &'static str {
        match self {
            Self::PayloadFormatIndicator => "[MQTT 5.0, 3.3.2.3.2]",
            Self::SubscriptionIdentifier => "[MQTT 5.0, 3.8.2.1.2]",
            Self::RequestProblemInformation => "[MQTT 5.0, 3.1.2.11.7]",
            Self::RequestResponseInformation => "[MQTT 5.0, 3.1.2.11.6]",
            Self::ReceiveMaximum => "[MQTT 5.0, 3.1.2.11.3]",
            Self::TopicAlias => "[MQTT-3.3.2-8]",
            Self::MaximumQoS => "[MQTT 5.0, 3.2.2.3.4]",
            Self::RetainAvailable => "[MQTT 5.0, 3.2.2.3.5]",
            Self::MaximumPacketSize => "[MQTT 5.0, 3.1.2.11.4]",
            Self::WildcardSubscriptionAvailable => "[MQTT 5.0, 3.2.2.3.11]",
            Self::SubscriptionIdentifierAvailable => "[MQTT 5.0, 3.2.2.3.12]",
            Self::SharedSubscriptionAvailable => "[MQTT 5.0, 3.2.2.3.13]",
            _ => "[MQTT 5.0, 2.2.2.2]",
        }
    }
}

impl fmt::Display for Property {
    /// The standard's name: `Session Expiry Interval`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{self:?}");
        for (index, letter) in name.char_indices() {
            let spaced = index > 0 && letter.is_ascii_uppercase() && !name[..index].ends_with('o');
            write!(f, "{}{letter}", if spaced { " " } else { "" })?;
        }
        Ok(())
    }
}

/// A walk over the property list of a received packet.
pub(super) struct Properties<'a> {
    reader: Reader<'a>,
    packet: PacketType,
    /// One bit for each identifier met.
    met: u64,
}

impl<'a> Properties<'a> {
    /// Takes the property length and the properties off `reader`.
    pub(super) fn read(reader: &mut Reader<'a>, packet: PacketType) -> Result<Self, Violation> {
        let bytes = reader.varint()?;
        // A varint fits a usize wherever this runs; one that does not would be truncated anyway.
        let reader = reader.section(usize::try_from(bytes).unwrap_or(usize::MAX))?;
        Ok(Self { reader, packet, met: 0 })
    }

    /// The next property's identifier; its value is to be read before the next call.
    pub(super) fn next(&mut self) -> Result<Option<Property>, Violation> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let id = self.reader.varint()?;
        let property = Property::from_id(id).ok_or(Violation::PropertyUnknown(id))?;
        let bit = 1 << property as u8;
        let repeatable = property == Property::UserProperty
            || (property == Property::SubscriptionIdentifier && self.packet == PacketType::Publish);
        if self.met & bit != 0 && !repeatable {
            return Err(Violation::PropertyTwice(property));
        }
        self.met |= bit;
        Ok(Some(property))
    }

    /// What is wrong when this packet may not carry `property`.
    pub(super) fn refuse<T>(&self, property: Property) -> Result<T, Violation> {
        Err(Violation::PropertyNotAllowed { property, packet: self.packet })
    }

    pub(super) fn u16(&mut self) -> Result<u16, Violation> {
        self.reader.u16()
    }

    pub(super) fn u32(&mut self) -> Result<u32, Violation> {
        self.reader.u32()
    }

    pub(super) fn string(&mut self) -> Result<ByteString, Violation> {
        self.reader.string()
    }

    pub(super) fn binary(&mut self) -> Result<Bytes, Violation> {
        self.reader.binary()
    }

    /// A byte that is 0 or 1.
    pub(super) fn flag(&mut self, property: Property) -> Result<bool, Violation> {
        match self.reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Violation::PropertyValue(property)),
        }
    }

    pub(super) fn nonzero_u16(&mut self, property: Property) -> Result<NonZeroU16, Violation> {
        NonZeroU16::new(self.reader.u16()?).ok_or(Violation::PropertyValue(property))
    }

    pub(super) fn nonzero_u32(&mut self, property: Property) -> Result<NonZeroU32, Violation> {
        NonZeroU32::new(self.reader.u32()?).ok_or(Violation::PropertyValue(property))
    }

    pub(super) fn nonzero_varint(&mut self, property: Property) -> Result<NonZeroU32, Violation> {
        NonZeroU32::new(self.reader.varint()?).ok_or(Violation::PropertyValue(property))
    }

    /// A user property (`[MQTT-1.5.7-1]`).
    pub(super) fn user(&mut self) -> Result<(ByteString, ByteString), Violation> {
        Ok((self.reader.string()?, self.reader.string()?))
    }
}

/// Takes properties off `reader` of which the packet allows but the reason string and user properties.
pub(super) fn read_diagnostics(
    reader: &mut Reader<'_>,
    packet: PacketType,
) -> Result<(Option<ByteString>, UserProperties), Violation> {
    let mut properties = Properties::read(reader, packet)?;
    let (mut reason_string, mut user_properties) = (None, Vec::new());
    while let Some(property) = properties.next()? {
        match property {
            Property::ReasonString => reason_string = Some(properties.string()?),
            Property::UserProperty => user_properties.push(properties.user()?),
            other => return properties.refuse(other),
        }
    }
    Ok((reason_string, user_properties))
}

/// The properties of a PUBLISH or will as read, with what is needed to judge the rest of the packet.
pub(super) struct ReadPublishProperties {
    pub(super) properties: PublishProperties,
    /// Of a will only.
    pub(super) will_delay_secs: u32,
    /// Whether the payload claims to be UTF-8.
    pub(super) payload_is_utf8: bool,
}

/// Takes the properties of a PUBLISH or, with CONNECT as `packet`, of a will off `reader`.
///
/// Allocates only when a property that is not forwarded lies between two that are.
pub(super) fn read_publish_properties(
    reader: &mut Reader<'_>,
    packet: PacketType,
) -> Result<ReadPublishProperties, Violation> {
    let mut walk = Properties::read(reader, packet)?;
    let mut read = ReadPublishProperties {
        properties: PublishProperties::default(),
        will_delay_secs: 0,
        payload_is_utf8: false,
    };
    let mut kept: SmallVec<[(usize, usize); 4]> = SmallVec::new();
    let is_publish = packet == PacketType::Publish;
    loop {
        let from = walk.reader.position();
        let Some(property) = walk.next()? else { break };
        match property {
            Property::MessageExpiryInterval => read.properties.message_expiry_secs = Some(walk.u32()?),
            Property::TopicAlias if is_publish => {
                read.properties.topic_alias = Some(walk.nonzero_u16(property)?);
            }
            Property::SubscriptionIdentifier if is_publish => {
                read.properties.subscription_ids.push(walk.nonzero_varint(property)?);
            }
            Property::WillDelayInterval if !is_publish => read.will_delay_secs = walk.u32()?,
            Property::PayloadFormatIndicator => read.payload_is_utf8 = walk.flag(property)?,
            Property::ContentType => _ = walk.reader.str()?,
            Property::ResponseTopic => {
                TopicName::new(walk.string()?).map_err(Violation::ResponseTopicInvalid)?;
            }
            Property::CorrelationData => _ = walk.reader.blob()?,
            Property::UserProperty => {
                walk.reader.str()?;
                walk.reader.str()?;
            }
            other => return walk.refuse(other),
        }
        if is_forwarded(property) {
            match kept.last_mut() {
                Some((_, to)) if *to == from => *to = walk.reader.position(),
                _ => kept.push((from, walk.reader.position())),
            }
        }
    }
    read.properties.forwarded = PropertyBytes(match kept.as_slice() {
        [] => Bytes::new(),
        [(from, to)] => walk.reader.share(*from, *to),
        ranges => ranges.iter().flat_map(|(from, to)| walk.reader.share(*from, *to)).collect(),
    });
    Ok(read)
}

/// Whether a server sends the property on unaltered.
pub(super) const fn is_forwarded(property: Property) -> bool {
    matches!(
        property,
        Property::PayloadFormatIndicator
            | Property::ContentType
            | Property::ResponseTopic
            | Property::CorrelationData
            | Property::UserProperty
    )
}

/// What may be left out of a packet to make it fit the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trim {
    /// Nothing.
    Nothing,
    /// The reason string.
    ReasonString,
    /// The reason string and the user properties.
    UserProperties,
}

/// Appends properties to a packet; absent ones append nothing.
pub(super) struct PropertyWriter<'a> {
    out: &'a mut Vec<u8>,
    trim: Trim,
}

impl PropertyWriter<'_> {
    pub(super) fn byte(&mut self, property: Property, value: Option<u8>) {
        if let Some(value) = value {
            self.out.extend_from_slice(&[property as u8, value]);
        }
    }

    pub(super) fn u16(&mut self, property: Property, value: Option<u16>) {
        if let Some(value) = value {
            self.out.push(property as u8);
            wire::put_u16(value, self.out);
        }
    }

    pub(super) fn u32(&mut self, property: Property, value: Option<u32>) {
        if let Some(value) = value {
            self.out.push(property as u8);
            wire::put_u32(value, self.out);
        }
    }

    pub(super) fn varint(&mut self, property: Property, value: Option<NonZeroU32>) {
        if let Some(value) = value {
            self.out.push(property as u8);
            wire::put_varint(value.get() as usize, self.out);
        }
    }

    pub(super) fn string(&mut self, property: Property, value: Option<&ByteString>) {
        if let Some(value) = value {
            self.out.push(property as u8);
            wire::put_string(value, self.out);
        }
    }

    pub(super) fn binary(&mut self, property: Property, value: Option<&Bytes>) {
        if let Some(value) = value {
            self.out.push(property as u8);
            wire::put_binary(value, self.out);
        }
    }

    /// Properties that are in wire form already.
    pub(super) fn raw(&mut self, properties: &[u8]) {
        self.out.extend_from_slice(properties);
    }

    /// User properties that the receiver needs, whatever its size.
    pub(super) fn user(&mut self, user_properties: &UserProperties) {
        for (name, value) in user_properties {
            self.out.push(Property::UserProperty as u8);
            wire::put_string(name, self.out);
            wire::put_string(value, self.out);
        }
    }

    /// The reason string and user properties of a packet that may do without.
    pub(super) fn diagnostics(&mut self, reason_string: Option<&ByteString>, user: &UserProperties) {
        if self.trim < Trim::ReasonString {
            self.string(Property::ReasonString, reason_string);
        }
        if self.trim < Trim::UserProperties {
            self.user(user);
        }
    }
}

/// Appends a reason code and properties in the shortest form: without the property length when there are
/// no properties, without the code when that is success besides (MQTT 5.0, 3.4.2.1, 3.14.2.1, 3.15.2.1).
pub(super) fn put_reason(
    out: &mut Vec<u8>,
    reason: ReasonCode,
    trim: Trim,
    write: impl FnOnce(&mut PropertyWriter<'_>),
) {
    let start = out.len();
    out.push(reason as u8);
    put_properties(out, trim, write);
    if out.len() == start + 2 {
        out.truncate(if reason == ReasonCode::Success { start } else { start + 1 });
    }
}

/// Appends a property list with its length (`[MQTT-2.2.2-1]`).
pub(super) fn put_properties(out: &mut Vec<u8>, trim: Trim, write: impl FnOnce(&mut PropertyWriter<'_>)) {
    wire::put_with_length(out, |out| write(&mut PropertyWriter { out, trim }));
}
