//! The packets of scripts, in few words.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

use crate::data_plane::protocol::{
    Ack, Connect, Disconnect, Packet, PacketId, Publish, PublishProperties, ReasonCode, Subscribe,
    SubscribeFilter, Unsubscribe, Will,
};
use crate::model::{ProtocolVersion, QoS, RetainHandling, TopicFilter, TopicName};

pub(super) const Q0: QoS = QoS::AtMostOnce;
pub(super) const Q1: QoS = QoS::AtLeastOnce;
pub(super) const Q2: QoS = QoS::ExactlyOnce;

/// A CONNECT in the making. Without further words: clean start 0, no expiry, no keep-alive.
#[derive(Clone)]
pub(super) struct Hello(pub(super) Connect);

/// A v5 client that resumes if it can.
pub(super) fn v5(client_id: &str) -> Hello {
    hello(ProtocolVersion::V5, client_id)
}

/// A 3.1.1 client with clean session 0.
pub(super) fn v3(client_id: &str) -> Hello {
    hello(ProtocolVersion::V3_1_1, client_id)
}

/// A 3.1 client with clean session 0.
pub(super) fn v31(client_id: &str) -> Hello {
    hello(ProtocolVersion::V3_1, client_id)
}

fn hello(version: ProtocolVersion, client_id: &str) -> Hello {
    Hello(Connect::bare(version, client_id.into()))
}

impl Hello {
    pub(super) fn clean(mut self) -> Self {
        self.0.clean_start = true;
        self
    }

    pub(super) fn expiry(mut self, secs: u32) -> Self {
        self.0.session_expiry_secs = Some(secs);
        self
    }

    pub(super) fn keep_alive(mut self, secs: u16) -> Self {
        self.0.keep_alive_secs = secs;
        self
    }

    pub(super) fn receive_maximum(mut self, at_once: u16) -> Self {
        self.0.receive_maximum = NonZeroU16::new(at_once);
        self
    }

    pub(super) fn packet_bytes_max(mut self, bytes: u32) -> Self {
        self.0.packet_bytes_max = NonZeroU32::new(bytes);
        self
    }

    pub(super) fn without_problem_information(mut self) -> Self {
        self.0.request_problem_information = false;
        self
    }

    pub(super) fn topic_aliases(mut self, maximum: u16) -> Self {
        self.0.topic_alias_maximum = maximum;
        self
    }

    pub(super) fn will(mut self, will: Will) -> Self {
        self.0.will = Some(will);
        self
    }
}

/// A will at QoS 1 with a delay.
pub(super) fn will(topic: &'static str, payload: &'static str, delay_secs: u32) -> Will {
    Will {
        topic: TopicName::new(topic).expect("a topic"),
        payload: Bytes::from_static(payload.as_bytes()),
        qos: Q1,
        retain: false,
        delay_secs,
        properties: PublishProperties::default(),
    }
}

pub(super) fn id(n: u16) -> PacketId {
    PacketId::new(n).expect("not 0")
}

pub(super) fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).expect("a filter")
}

/// A PUBLISH that expects no answer.
pub(super) fn publish(topic: &str, payload: &str) -> Publish {
    Publish {
        dup: false,
        qos: Q0,
        retain: false,
        topic: Some(TopicName::new(topic.to_owned()).expect("a topic")),
        packet_id: None,
        properties: PublishProperties::default(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

pub(super) fn publish_at(qos: QoS, packet_id: u16, topic: &str, payload: &str) -> Publish {
    Publish { qos, packet_id: (qos > Q0).then(|| id(packet_id)), ..publish(topic, payload) }
}

pub(super) fn retained(topic: &str, payload: &str) -> Publish {
    Publish { retain: true, ..publish_at(Q1, 999, topic, payload) }
}

/// One filter of a SUBSCRIBE without options.
pub(super) fn wish(text: &str, qos: QoS) -> SubscribeFilter {
    SubscribeFilter {
        filter: filter(text),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

pub(super) fn subscribe(packet_id: u16, filters: Vec<SubscribeFilter>) -> Packet {
    subscribe_as(packet_id, None, filters)
}

pub(super) fn subscribe_as(packet_id: u16, identifier: Option<u32>, filters: Vec<SubscribeFilter>) -> Packet {
    Packet::Subscribe(Subscribe {
        packet_id: id(packet_id),
        subscription_id: identifier.and_then(NonZeroU32::new),
        user_properties: Vec::new(),
        filters,
    })
}

pub(super) fn unsubscribe(packet_id: u16, filters: &[&str]) -> Packet {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: id(packet_id),
        user_properties: Vec::new(),
        filters: filters.iter().map(|text| filter(text)).collect(),
    })
}

pub(super) fn goodbye(reason: ReasonCode, expiry_secs: Option<u32>) -> Packet {
    Packet::Disconnect(Box::new(Disconnect {
        reason,
        session_expiry_secs: expiry_secs,
        ..Disconnect::default()
    }))
}

pub(super) fn puback(packet_id: PacketId) -> Packet {
    Packet::PubAck(Ack::new(packet_id, ReasonCode::Success))
}

pub(super) fn pubrec(packet_id: PacketId) -> Packet {
    Packet::PubRec(Ack::new(packet_id, ReasonCode::Success))
}

pub(super) fn pubrel(packet_id: PacketId) -> Packet {
    Packet::PubRel(Ack::new(packet_id, ReasonCode::Success))
}

pub(super) fn pubcomp(packet_id: PacketId) -> Packet {
    Packet::PubComp(Ack::new(packet_id, ReasonCode::Success))
}

/// What a message says.
pub(super) fn text(publish: &Publish) -> String {
    String::from_utf8(publish.payload.to_vec()).expect("scripts speak UTF-8")
}

pub(super) fn texts(publishes: &[Publish]) -> Vec<String> {
    publishes.iter().map(text).collect()
}

/// `["0", "1", …]`: what [`World::publish_numbers`](super::World::publish_numbers) says.
pub(super) fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}
