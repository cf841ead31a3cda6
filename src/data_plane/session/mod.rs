//! PURE. One client's session: what it holds over connections, and how it answers each packet.
//!
//! A [`Session`] is told the time and a packet; it changes itself, puts its own answers into its
//! link's output, and hands back what it cannot do alone as a [`Request`]: routing a message,
//! subscribing, ending. It never sees other sessions.
//!
//! Where to find what: CONNECT's questions in [`handshake`], AUTH in [`authentication`], the attached
//! connection in [`link`], QoS 2 and topic aliases from the client in [`inbound`], aliases to it in
//! [`aliases`], packet ids and windows to the client in [`outbound`], what of both outlives the process in
//! [`progress`], faults in [`fault`], bytes in [`output`] and [`outgoing`].

pub mod aliases;
pub mod authentication;
pub mod fault;
pub mod handshake;
pub mod inbound;
pub mod link;
pub mod outbound;
pub mod outgoing;
pub mod output;
pub mod progress;
mod receive;
pub mod transmit;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;

use inbound::Inbound;
use link::{ConnId, Link};
use outbound::Outbound;
use progress::Note;
pub use receive::RECEIVE_MAXIMUM;

use super::protocol::{Auth, PacketId, Subscribe, Unsubscribe};
use crate::model::{
    ClientId, ClientKey, Epoch, FilterId, FilterKey, GroupId, Message, MessageCounters, Place, QoS, Seq,
    SessionExpiry, SessionId, Subscription, Timestamp, TopicFilter,
};

/// Everything kept for one client between its CONNECT and the end of its session.
#[allow(clippy::struct_excessive_bools)] // independent facts, each for a reader of its own
#[derive(Debug)]
pub struct Session {
    /// New for each session. Survives a restart.
    pub id: SessionId,
    /// Whose session it is. Survives a restart.
    pub client_id: ClientId,
    /// The same in short.
    pub client_key: ClientKey,
    /// Counts attachments. Survives a restart.
    pub epoch: Epoch,
    /// When it began. Survives a restart.
    pub created_at: Timestamp,
    /// How long it outlives its connection. Survives a restart.
    pub expiry: SessionExpiry,
    /// What it subscribes to, at most [`Quota::filters_per_client`](crate::model::Quota). Survives a
    /// restart.
    pub subscriptions: Vec<HeldSubscription>,
    /// Messages on their way to the client.
    pub outbound: Outbound,
    /// QoS 2 messages on their way from the client.
    pub inbound: Inbound,
    /// What to publish when the connection or the session ends badly.
    pub will: Option<Box<HeldWill>>,
    /// The connection, when there is one.
    pub link: Option<Box<Link>>,
    /// Since when, and until when, there is none.
    pub offline: Option<Offline>,
    /// Retained messages that new subscriptions are still owed.
    pub replays: VecDeque<Replay>,
    /// Whether its messages come from the log: from the moment it outlives its connection on. It
    /// stays so until the session ends, since what the log holds for it must still be read.
    pub durable: bool,
    /// Whether a CONNACK was ever sent for it. Until then its client cannot have it
    /// (`[MQTT-3.2.2-3]`): it is not there for the next CONNECT, and ends with its connection.
    pub admitted: bool,
    /// Whether an operator has forbidden to delete it over the API. Written by orders; survives a restart.
    pub protected: bool,
    /// What its earlier connections counted. Gone with a restart.
    pub ended_counters: MessageCounters,
    /// What must be written down before the output of this turn leaves. Empty between turns.
    pub notes: Vec<Note>,
    /// Whether anything of it is on disk besides messages.
    pub is_written_down: bool,
    /// Whether the cluster has it on its list of sessions whose progress is to be written down.
    pub unsaved: bool,
}

/// A subscription with its place in the cluster's index and log.
#[derive(Clone, Debug)]
pub struct HeldSubscription {
    /// What was asked for.
    pub subscription: Subscription,
    /// The distinct filter it belongs to.
    pub filter: FilterId,
    /// The shared group it is a membership of.
    pub group: Option<GroupId>,
    /// Messages up to here were published before it existed.
    pub start: Seq,
    /// Whether its QoS is 1 or 2 or ever was. Then its messages come from the log also at QoS 0: what
    /// waits there must not be lost when its options are replaced (`[MQTT-3.8.4-4]`).
    pub assured: bool,
    /// Whether the client may not subscribe to it, by the rules that are in force: then nothing comes of
    /// it, but it stays. Judged while there is a connection, since who the client is may be another with
    /// the next.
    pub muted: bool,
}

/// Retained messages owed to a new subscription: a place in the retained messages, not a copy of
/// them, so that a slow client costs no memory. A filter has one at most.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Which topics.
    pub filter: TopicFilter,
    /// The greatest QoS.
    pub qos: QoS,
    /// The subscription's identifier.
    pub identifier: Option<NonZeroU32>,
    /// Not the client's own (`[MQTT-3.8.3-3]`).
    pub no_local: bool,
    /// The moment of the subscription among the retained messages: only earlier ones are owed.
    pub age: u64,
    /// The topic sent last.
    pub after: Option<Box<str>>,
    /// Whether its subscription was answered. Until then nothing is sent.
    pub is_granted: bool,
    /// Whether it is written down that they are owed, and which.
    pub is_written_down: bool,
}

impl Replay {
    /// What is owed for a subscription. `age`: see the field.
    pub fn of(subscription: &Subscription, age: u64) -> Self {
        Self {
            filter: subscription.filter.clone(),
            qos: subscription.qos,
            identifier: subscription.identifier,
            no_local: subscription.no_local,
            age,
            after: None,
            is_granted: true,
            is_written_down: false,
        }
    }

    /// The subscription was replaced by one that has nothing sent anew: what is still to come of the earlier
    /// one comes by the options of this.
    pub fn follow(&mut self, subscription: &Subscription) {
        self.qos = subscription.qos;
        self.identifier = subscription.identifier;
        self.no_local = subscription.no_local;
    }

    /// What its filter is called on disk.
    pub fn key(&self) -> FilterKey {
        FilterKey::of(self.filter.as_str())
    }

    /// A retained message as this subscription gets it.
    pub fn delivery_of(&self, message: &Arc<Message>) -> outbound::Delivery {
        outbound::Delivery {
            message: Arc::clone(message),
            qos: self.qos.min(message.qos),
            retain: true, // [MQTT-3.3.1-8]
            subscription_ids: self.identifier.into_iter().collect(),
            place: None,
            group: None,
        }
    }
}

/// A will, waiting.
#[derive(Clone, Debug)]
pub struct HeldWill {
    /// What is published. Its `published_at` and `expires_at` are set when it is.
    pub message: Message,
    /// Seconds from its publication to its expiry.
    pub message_expiry_secs: Option<u32>,
    /// Seconds between the connection's end and the publication.
    pub delay_secs: u32,
    /// When it is published, once the connection has ended.
    pub due_at: Option<Timestamp>,
    /// Who set it; `None` when it was written down by a release that did not say.
    pub author: Option<WillAuthor>,
}

/// Who set a will: the session may be gone when it is published, and its connection always is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WillAuthor {
    /// The client.
    pub client_id: ClientId,
    /// The user name of its CONNECT.
    pub username: Option<Box<str>>,
}

/// A session without a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offline {
    /// When the connection ended.
    pub since: Timestamp,
    /// When the session ends (PRODUCT S-7).
    pub expires_at: Timestamp,
    /// The connection that ended; its socket may still be open. `None` after a restart.
    pub conn: Option<ConnId>,
}

/// What a session cannot do alone.
#[derive(Debug)]
pub enum Request {
    /// Nothing: the session has dealt with it.
    None,
    /// Pass this message on, then call [`Session::answer_publish`] with `ack`.
    Publish {
        /// The message.
        message: Arc<Message>,
        /// What is to be answered, and how.
        ack: PublishAck,
    },
    /// Subscribe, then call [`Session::answer_subscribe`].
    Subscribe(Subscribe),
    /// Unsubscribe, then call [`Session::answer_unsubscribe`].
    Unsubscribe(Unsubscribe),
    /// Authenticate again, by the users there are now; see [`Link::reauthenticate`].
    Authenticate(Box<Auth>),
    /// The client has consumed a message of a shared group.
    ConsumedOfGroup(outbound::GroupDelivery),
    /// The client says goodbye.
    Goodbye {
        /// Whether its will is published all the same (`DISCONNECT` 0x04).
        with_will: bool,
        /// The session expiry it asks for instead of CONNECT's.
        expiry_secs: Option<u32>,
    },
}

/// How a PUBLISH is answered once the message is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishAck {
    /// QoS 0: not at all.
    Nothing,
    /// QoS 1: PUBACK.
    PubAck(PacketId),
    /// QoS 2: PUBREC.
    PubRec(PacketId),
}

impl Session {
    /// A session that has just begun, without a connection.
    pub fn new(id: SessionId, client_id: ClientId, expiry: SessionExpiry, tail: Seq, now: Timestamp) -> Self {
        Self {
            id,
            client_key: client_id.key(),
            client_id,
            epoch: Epoch(0),
            created_at: now,
            expiry,
            subscriptions: Vec::new(),
            outbound: Outbound::starting_at(tail),
            inbound: Inbound::default(),
            will: None,
            link: None,
            offline: None,
            replays: VecDeque::new(),
            durable: false,
            admitted: false,
            protected: false,
            ended_counters: MessageCounters::default(),
            notes: Vec::new(),
            is_written_down: false,
            unsaved: false,
        }
    }

    /// What its connections counted, the present one too.
    pub fn counters(&self) -> MessageCounters {
        let mut counters = self.ended_counters;
        if let Some(link) = &self.link {
            counters.add(link.counters);
        }
        counters
    }

    /// How many messages were sent on its connection, of which it had sent so many before.
    pub fn sent_since(&self, before: u64) -> u64 {
        self.link.as_ref().map_or(0, |link| link.counters.sent - before)
    }

    /// Whether the session is meant to outlive its connection.
    pub fn is_persistent(&self, now: Timestamp) -> bool {
        self.expiry.is_persistent(now)
    }

    /// Whether the session would outlive its connection if that ended now.
    pub fn outlives_connection(&self, now: Timestamp) -> bool {
        self.admitted && self.is_persistent(now)
    }

    /// The subscription to exactly this filter.
    pub fn subscription(&self, filter: &str) -> Option<&HeldSubscription> {
        self.subscriptions.iter().find(|held| held.subscription.filter.as_str() == filter)
    }

    /// What this session's subscriptions make of a message read from the log; `None` when it does
    /// not want it. Overlapping subscriptions give one delivery at the highest QoS with all their
    /// identifiers (`[MQTT-3.3.4-2]` to `[MQTT-3.3.4-4]`).
    ///
    /// What none but subscriptions want that do not read the log was sent to them as it came, or lost: the
    /// log may hold it for the sake of a filter that the session has with no local.
    pub fn delivery_of(&self, message: &Arc<Message>, place: Place) -> Option<outbound::Delivery> {
        let own = message.publisher == Some(self.client_key);
        let wanted = self.subscriptions.iter().filter(|held| {
            held.group.is_none()
                && !held.muted
                && held.start < place.seq
                && !(own && held.subscription.no_local)
                && held.subscription.filter.matches(&message.topic)
        });
        let mut found: Option<outbound::Delivery> = None;
        let mut reads_log = false;
        for HeldSubscription { subscription, assured, .. } in wanted {
            reads_log |= assured;
            let delivery = found.get_or_insert_with(|| outbound::Delivery {
                message: Arc::clone(message),
                qos: QoS::AtMostOnce,
                retain: false,
                subscription_ids: smallvec::SmallVec::new(),
                place: Some(place),
                group: None,
            });
            delivery.qos = delivery.qos.max(subscription.qos.min(message.qos));
            delivery.retain |= subscription.retain_as_published && message.retain;
            delivery.subscription_ids.extend(subscription.identifier);
        }
        found.filter(|_| reads_log)
    }

    /// The filters to read the log by, each with the position after which to read.
    pub fn log_cursors(&self, out: &mut Vec<(FilterId, Seq)>) {
        let reads = |held: &&HeldSubscription| held.group.is_none() && held.assured && !held.muted;
        let reading = self.subscriptions.iter().filter(reads);
        out.extend(reading.map(|held| (held.filter, held.start.max(self.outbound.position))));
    }
}
