//! The connection that a session is attached to at the moment.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use uuid::Uuid;

use super::aliases::AliasesOut;
use super::authentication::Enhanced;
use super::inbound::AliasesIn;
use super::outgoing::Outgoing;
use crate::data_plane::protocol::{Packet, encode_within};
use crate::model::{
    Message, MessageCounters, Monotonic, Policy, ProtocolVersion, Seq, Timestamp, Transport, Vouched,
};

/// Names one connection for the life of the process; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Where a connection came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `address:port` of the client.
    pub peer: String,
    /// The listener it came in by.
    pub listener: String,
    /// How its bytes arrive.
    pub transport: Transport,
    /// The subject of the certificate it showed (RFC 4514), if it showed one.
    pub tls_subject: Option<String>,
}

impl Origin {
    /// The address of the client.
    pub fn ip(&self) -> Option<IpAddr> {
        self.peer.parse::<SocketAddr>().ok().map(|address| address.ip().to_canonical())
    }
}

/// One attachment. Made by CONNECT, gone with the connection.
#[allow(clippy::struct_excessive_bools)] // independent facts, each for a reader of its own
#[derive(Debug)]
pub struct Link {
    /// Which connection.
    pub conn: ConnId,
    /// What the client speaks.
    pub version: ProtocolVersion,
    /// Where it came from.
    pub origin: Origin,
    /// The user name it gave; the one it has proven, if it has.
    pub username: Option<String>,
    /// What it has proven to be that user by; `None` when nobody asked, or an authenticator vouches for it.
    pub secrets_id: Option<Uuid>,
    /// What the authenticator said that vouches for it.
    pub vouched: Option<Box<Vouched>>,
    /// How it may authenticate again, if it was let in by an authentication method.
    pub enhanced: Option<Box<Enhanced>>,
    /// What it said of clean start.
    pub clean_start: bool,
    /// The keep-alive that the client asked for, in seconds; 0 for none.
    pub keep_alive_asked_secs: u16,
    /// The keep-alive in force, in seconds; 0 for none.
    pub keep_alive_secs: u16,
    /// When it was attached.
    pub connected_at: Timestamp,
    /// What was counted on this connection.
    pub counters: MessageCounters,
    /// When the last packet came.
    pub last_seen: Monotonic,
    /// How many QoS 1 and 2 messages may be under way to the client.
    pub receive_maximum: u16,
    /// The largest packet the client takes, in bytes.
    pub packet_bytes_max: Option<NonZeroU32>,
    /// Whether reason strings may be sent on every packet (`[MQTT-3.1.2-29]`).
    pub problem_information: bool,
    /// Whether CONNACK tells it what its response topics may begin with (`[MQTT-3.1.2-28]`).
    pub response_information: bool,
    /// Topic aliases the client has set.
    pub aliases_in: AliasesIn,
    /// The highest topic alias that the client takes; 0 for none (`[MQTT-3.1.2-27]`).
    pub topic_alias_maximum: u16,
    /// Topic aliases the server has set.
    pub aliases_out: AliasesOut,
    /// Whether CONNACK has been sent; nothing else may come before it (`[MQTT-3.2.0-1]`).
    pub ready: bool,
    /// Its place in the cluster's list of connections; the cluster keeps it.
    pub place: usize,
    /// Whether everything in the log that concerns the session was sent, so that what comes next
    /// may be sent from memory.
    pub caught_up: bool,
    /// Whether the connection has more bytes waiting than it should; then nothing is added that can
    /// wait or be dropped.
    pub congested: bool,
    /// Whether `out` is listed for the end of the turn.
    pub touched: bool,
    /// Whether the cluster has it on its list of connections with held output.
    pub listed_as_held: bool,
    /// Whether the log is being read for it from disk.
    pub reading: bool,
    /// Messages of its exchanges that were read from disk, and up to where all were.
    pub fetched: Fetched,
    /// What goes out at the end of the turn.
    pub out: Outgoing,
}

/// What a returning session has got back from disk so far.
#[derive(Debug, Default)]
pub struct Fetched {
    /// The messages of its exchanges.
    pub messages: HashMap<Seq, Arc<Message>>,
    /// What is not among them up to here is gone.
    pub through: Seq,
}

/// Past this many bytes made in one turn, what can wait waits for the next.
const TURN_BYTES_MAX: usize = 1_024 * 1_024;

/// How many QoS 1 and 2 messages are under way to a v3 client (PRODUCT S-11).
pub const V3_RECEIVE_MAXIMUM: u16 = 16;

impl Link {
    /// The client's own rules, asked before the policies of its cluster.
    pub fn own_rules(&self) -> &[Policy] {
        self.vouched.as_ref().map_or(&[], |vouched| vouched.acl.rules())
    }

    /// Whether a message may be added now.
    pub fn takes_messages(&self) -> bool {
        self.ready && !self.congested && self.out.len() < TURN_BYTES_MAX
    }

    /// Adds a packet other than PUBLISH; without its reason string if it were larger than the client takes
    /// (`[MQTT-3.14.2-3]` and its like). Returns whether it was added: one that does not fit even so is not
    /// sent at all (`[MQTT-3.1.2-24]`).
    pub fn send(&mut self, packet: &Packet) -> bool {
        encode_within(packet, self.version, self.packet_bytes_max, self.out.buffer())
    }

    /// Whether the client has been silent for one and a half times its keep-alive
    /// (`[MQTT-3.1.2-22]`, PRODUCT S-15). While CONNACK waits nothing is read, so it is not.
    pub fn is_silent(&self, now: Monotonic) -> bool {
        let allowed_millis = u128::from(self.keep_alive_secs) * 1_500;
        self.ready && self.keep_alive_secs != 0 && now.since(self.last_seen).as_millis() >= allowed_millis
    }
}
