//! PURE. Bytes ⇄ packets of MQTT 3.1, 3.1.1 and 5.0.
//!
//! Strict by the normative statements: whatever breaks one is a named [`Violation`] with the
//! statement's number and the reason code it is answered with. Total: no input panics. Zero-copy:
//! a decoded packet borrows the read buffer. Limits come before allocation.
//!
//! What is valid only in context (a packet id in use, a topic alias out of range for this
//! connection) is the session's to judge, not the codec's.

mod codec;
mod fanout;
mod forwarded;
mod packet;
mod property;
mod reason;
#[cfg(test)]
mod testing;
mod violation;
mod wire;

pub use codec::{Decoder, encode, encode_within};
pub use fanout::{PublishTemplate, PublishTemplates};
pub use forwarded::{
    ForwardedProperties, ForwardedProperty, ForwardedValues, PropertyValueError,
    forwarded_user_property_bytes, user_property_bytes,
};
pub use packet::{
    Ack, Auth, ConnAck, Connect, Credentials, Disconnect, Packet, PacketId, PacketType, Publish, PublishHead,
    SubAck, Subscribe, SubscribeFilter, UnsubAck, Unsubscribe, Will, encode_publish, encode_publish_head,
    publish_len,
};
pub use property::{Property, PublishProperties, UserProperties};
pub use reason::{ConnectReturnCode, ReasonCode};
pub use violation::Violation;
