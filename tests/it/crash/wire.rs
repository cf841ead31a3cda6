//! One connection: packets out and in through the crate's own codec, and what a message looks like.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holdfast::data_plane::protocol::{
    Connect, Decoder, Packet, PacketId, Publish, PublishProperties, Subscribe, SubscribeFilter, Unsubscribe,
    Will, encode,
};
use holdfast::model::{ProtocolVersion, QoS, RetainHandling, TopicFilter, TopicName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::random::mix;
use super::session::Token;
use crate::support::PATIENCE;

/// Larger than any packet here.
const PACKET_BYTES_MAX: u32 = 1 << 20;

/// The stream of wills.
pub(super) const WILLS: u16 = u16::MAX;

pub(super) struct Wire {
    stream: TcpStream,
    decoder: Decoder,
    version: ProtocolVersion,
    buffer: BytesMut,
    out: Vec<u8>,
}

/// The connection is over.
#[derive(Debug)]
pub(super) struct Over;

impl Wire {
    pub(super) async fn open(address: SocketAddr, version: ProtocolVersion) -> Result<Self, Over> {
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await.map_err(|_| Over)?;
        let stream = stream.map_err(|_| Over)?;
        stream.set_nodelay(true).map_err(|_| Over)?;
        let decoder = Decoder::client(version, PACKET_BYTES_MAX);
        Ok(Self { stream, decoder, version, buffer: BytesMut::new(), out: Vec::new() })
    }

    /// Puts a packet behind what is to be sent.
    pub(super) fn put(&mut self, packet: &Packet) {
        encode(packet, self.version, &mut self.out);
    }

    /// Sends what was put.
    pub(super) async fn flush(&mut self) -> Result<(), Over> {
        if self.out.is_empty() {
            return Ok(());
        }
        let sent = timeout(PATIENCE, self.stream.write_all(&self.out)).await;
        self.out.clear();
        sent.map_err(|_| Over)?.map_err(|_| Over)
    }

    /// What has come within `wait`: at least one packet if any bytes make one.
    pub(super) async fn receive(&mut self, wait: Duration) -> Result<Vec<Packet>, Received> {
        if let Ok(Ok(0) | Err(_)) = timeout(wait, self.stream.read_buf(&mut self.buffer)).await {
            return Err(Received::Over);
        }
        let mut packets = Vec::new();
        loop {
            match self.decoder.decode(&mut self.buffer) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => return Ok(packets),
                Err(violation) => return Err(Received::Nonsense(violation.to_string())),
            }
        }
    }

    /// Reads and throws away until the server closes. Returns whether it did so in order.
    pub(super) async fn drain(mut self) -> bool {
        let end = async {
            loop {
                self.buffer.clear();
                match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        };
        timeout(PATIENCE, end).await.unwrap_or(false)
    }
}

/// Why nothing more comes.
#[derive(Debug)]
pub(super) enum Received {
    Over,
    /// The server breaks a rule.
    Nonsense(String),
}

pub(super) fn connect(
    client_id: &str,
    version: ProtocolVersion,
    clean: bool,
    expiry_secs: u32,
    receive_maximum: Option<u16>,
    will: Option<Will>,
) -> Packet {
    let v5 = version.is_v5();
    Packet::Connect(Box::new(Connect {
        clean_start: clean,
        keep_alive_secs: 60,
        will,
        session_expiry_secs: v5.then_some(expiry_secs),
        receive_maximum: receive_maximum.filter(|_| v5).and_then(NonZeroU16::new),
        ..Connect::bare(version, client_id.to_owned().into())
    }))
}

pub(super) fn subscribe(
    packet_id: PacketId,
    version: ProtocolVersion,
    filter: &str,
    qos: QoS,
    no_local: bool,
) -> Packet {
    Packet::Subscribe(Subscribe {
        packet_id,
        subscription_id: version.is_v5().then_some(NonZeroU32::MIN),
        user_properties: Vec::new(),
        filters: vec![SubscribeFilter {
            filter: TopicFilter::new(filter).expect("a filter"),
            qos,
            no_local: no_local && version.is_v5(),
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }],
    })
}

pub(super) fn unsubscribe(packet_id: PacketId, filter: &str) -> Packet {
    let filters = vec![TopicFilter::new(filter).expect("a filter")];
    Packet::Unsubscribe(Unsubscribe { packet_id, user_properties: Vec::new(), filters })
}

pub(super) fn publish(
    topic: &str,
    qos: QoS,
    retain: bool,
    packet_id: Option<PacketId>,
    dup: bool,
    payload: Bytes,
) -> Packet {
    Packet::Publish(Publish {
        dup,
        qos,
        retain,
        topic: Some(TopicName::new(topic.to_owned()).expect("a topic")),
        packet_id,
        properties: PublishProperties::default(),
        payload,
    })
}

/// A message's payload: its token, and a length and filling that follow from it.
pub(super) fn payload(token: Token, big: bool) -> Bytes {
    let Token { stream, number } = token;
    let chance = mix(u64::from(stream) << 32 | u64::from(number));
    let filling = usize::try_from(chance % if big { 16_384 } else { 200 }).expect("small");
    let mut payload = Vec::with_capacity(6 + filling);
    payload.extend(stream.to_be_bytes());
    payload.extend(number.to_be_bytes());
    payload.resize(6 + filling, filler(number));
    payload.into()
}

fn filler(number: u32) -> u8 {
    number.to_be_bytes()[3]
}

/// The token in a payload; `None` when it is not as it was made.
pub(super) fn token(payload: &[u8]) -> Option<Token> {
    let (stream, rest) = payload.split_first_chunk::<2>()?;
    let (number, filling) = rest.split_first_chunk::<4>()?;
    let (stream, number) = (u16::from_be_bytes(*stream), u32::from_be_bytes(*number));
    filling.iter().all(|byte| *byte == filler(number)).then_some(Token { stream, number })
}
