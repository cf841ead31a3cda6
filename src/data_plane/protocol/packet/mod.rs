//! The packets as values, one shape for all protocol versions.
//!
//! A v3 packet leaves what only v5 has at its default. Strings and payloads borrow the buffer they
//! were read from. One packet, one file: its struct, its decoder, its encoder. Here are what is common to
//! them and the dispatch.

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod publish;
mod suback;
mod subscribe;
mod unsuback;
mod unsubscribe;

use std::fmt;
use std::num::NonZeroU16;

use bytes::Bytes;

pub use ack::Ack;
pub use auth::Auth;
pub use connack::ConnAck;
pub(super) use connect::read_version;
pub use connect::{Connect, Credentials, Will};
pub use disconnect::Disconnect;
pub(super) use publish::first_byte;
pub use publish::{Publish, PublishHead, encode_publish, encode_publish_head, publish_len};
pub use suback::SubAck;
pub use subscribe::{Subscribe, SubscribeFilter};
pub use unsuback::UnsubAck;
pub use unsubscribe::Unsubscribe;

use super::property::Trim;
use super::violation::Violation;
use super::wire::{self, Reader};
use crate::model::ProtocolVersion;

/// A packet identifier: never 0 (`[MQTT-2.2.1-3]`).
pub type PacketId = NonZeroU16;

/// Any control packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Client to server: let me in.
    Connect(Box<Connect>),
    /// Server to client: the answer.
    ConnAck(Box<ConnAck>),
    /// Either way: a message.
    Publish(Publish),
    /// Either way: QoS 1 acknowledged.
    PubAck(Ack),
    /// Either way: QoS 2 received.
    PubRec(Ack),
    /// Either way: QoS 2 released.
    PubRel(Ack),
    /// Either way: QoS 2 complete.
    PubComp(Ack),
    /// Client to server: send me these.
    Subscribe(Subscribe),
    /// Server to client: the answer, a reason for each filter.
    SubAck(SubAck),
    /// Client to server: send me these no longer.
    Unsubscribe(Unsubscribe),
    /// Server to client: the answer, in v5 a reason for each filter.
    UnsubAck(UnsubAck),
    /// Client to server: are you there.
    PingReq,
    /// Server to client: yes.
    PingResp,
    /// Either way (v3: client to server): goodbye.
    Disconnect(Box<Disconnect>),
    /// Either way, v5: enhanced authentication.
    Auth(Box<Auth>),
}

/// The type of a control packet: the high four bits of its first byte (MQTT 5.0, 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // the standard's own names
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

/// Which side sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    Server,
}

/// What a packet's decoder must know of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    pub(super) version: ProtocolVersion,
    pub(super) sender: Sender,
}

impl Context {
    pub(super) fn is_from_client(self) -> bool {
        self.sender == Sender::Client
    }
}

impl PacketType {
    /// From the high four bits of a first byte; 0 is reserved.
    pub(super) const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The low four bits of its first byte; those of PUBLISH vary (MQTT 5.0, 2.1.3).
    const fn flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// Checks the low four bits of a first byte (`[MQTT-2.1.3-1]`).
    pub(super) fn check_flags(self, flags: u8, version: Option<ProtocolVersion>) -> Result<(), Violation> {
        let expected = self.flags();
        // V3.1 sets DUP when it sends one of these again (V3.1, 2.1).
        let ignored = if version == Some(ProtocolVersion::V3_1) && expected != 0 { 0b1000 } else { 0 };
        if self == Self::Publish || flags & !ignored == expected {
            Ok(())
        } else {
            Err(Violation::ReservedFlags { packet: self, flags })
        }
    }

    /// Whether `sender` may send it at all (MQTT 5.0, table 2-1; 3.1.1, table 2.1).
    pub(super) const fn may_come_from(self, sender: Sender, version: ProtocolVersion) -> bool {
        match self {
            Self::Connect | Self::Subscribe | Self::Unsubscribe | Self::PingReq => {
                matches!(sender, Sender::Client)
            }
            Self::ConnAck | Self::SubAck | Self::UnsubAck | Self::PingResp => {
                matches!(sender, Sender::Server)
            }
            Self::Disconnect => matches!(sender, Sender::Client) || version.is_v5(),
            Self::Publish | Self::PubAck | Self::PubRec | Self::PubRel | Self::PubComp | Self::Auth => true,
        }
    }
}

impl fmt::Display for PacketType {
    /// The standard's name: `PUBREL`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_ascii_uppercase())
    }
}

impl Packet {
    /// The type of this packet.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// Decodes a packet whose type and flags have been checked, to its last byte.
    pub(super) fn decode(
        packet: PacketType,
        flags: u8,
        frame: Bytes,
        header_bytes: usize,
        context: Context,
    ) -> Result<Self, Violation> {
        let mut reader = Reader::new(&frame, header_bytes);
        let reader = &mut reader;
        match packet {
            PacketType::Publish => Publish::decode(flags, frame, header_bytes, context).map(Self::Publish),
            PacketType::PubAck => Ack::decode(packet, reader, context).map(Self::PubAck),
            PacketType::PubRec => Ack::decode(packet, reader, context).map(Self::PubRec),
            PacketType::PubRel => Ack::decode(packet, reader, context).map(Self::PubRel),
            PacketType::PubComp => Ack::decode(packet, reader, context).map(Self::PubComp),
            PacketType::PingReq => reader.finish().map(|()| Self::PingReq),
            PacketType::PingResp => reader.finish().map(|()| Self::PingResp),
            PacketType::Connect => Connect::decode(reader).map(Box::new).map(Self::Connect),
            PacketType::ConnAck => ConnAck::decode(reader, context).map(Box::new).map(Self::ConnAck),
            PacketType::Subscribe => Subscribe::decode(reader, context).map(Self::Subscribe),
            PacketType::SubAck => SubAck::decode(reader, context).map(Self::SubAck),
            PacketType::Unsubscribe => Unsubscribe::decode(reader, context).map(Self::Unsubscribe),
            PacketType::UnsubAck => UnsubAck::decode(reader, context).map(Self::UnsubAck),
            PacketType::Disconnect => Disconnect::decode(reader, context).map(Box::new).map(Self::Disconnect),
            PacketType::Auth => Auth::decode(reader, context).map(Box::new).map(Self::Auth),
        }
    }

    /// Appends the whole packet, leaving out what `trim` says.
    pub(super) fn encode(&self, version: ProtocolVersion, trim: Trim, out: &mut Vec<u8>) {
        if let Self::Publish(publish) = self {
            return publish.encode(version, out);
        }
        let packet = self.packet_type();
        out.push((packet as u8) << 4 | packet.flags());
        wire::put_with_length(out, |out| match self {
            Self::Connect(connect) => connect.encode(out),
            Self::ConnAck(connack) => connack.encode(version, trim, out),
            Self::PubAck(ack) | Self::PubRec(ack) | Self::PubRel(ack) | Self::PubComp(ack) => {
                ack.encode(version, trim, out);
            }
            Self::Subscribe(subscribe) => subscribe.encode(version, out),
            Self::SubAck(suback) => suback.encode(version, trim, out),
            Self::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
            Self::UnsubAck(unsuback) => unsuback.encode(version, trim, out),
            Self::Disconnect(disconnect) => disconnect.encode(version, trim, out),
            Self::Auth(auth) => auth.encode(trim, out),
            Self::Publish(_) | Self::PingReq | Self::PingResp => {}
        });
    }
}
