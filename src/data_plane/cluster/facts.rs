//! What is remembered besides messages, as keys and bytes: progress, unfinished exchanges, wills,
//! retained messages, groups.
//!
//! # Format
//! Keys: `s` session id (16 bytes) and then `p` progress, `o` packet id (exchange with the client at
//! QoS 2, or at QoS 1 of a message that is not in the log), `r` packet id (QoS 2 packet id of the client that
//! is taken), `w` will, `y` filter key (retained messages of this filter are owed, and which); `m` topic (retained
//! message); `g` whole filter of a shared group. Numbers are big-endian in keys and little-endian in values; each
//! value begins with the number of its format.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use smallvec::SmallVec;

use crate::data_plane::message_log::Change;
use crate::data_plane::message_log::{get_message, put_message};
use crate::data_plane::protocol::PacketId;
use crate::data_plane::session::outbound::Phase;
use crate::data_plane::session::progress::{Body, Frozen, Progress, Trimmed};
use crate::data_plane::session::{HeldWill, WillAuthor};
use crate::model::{ClientId, FilterKey, Message, Place, QoS, Seq, SessionId, Timestamp, TopicFilter};

/// The format of the values.
const FORMAT: u8 = 1;

/// The format of what is owed. In the first it was not written which: all that matched.
const OWED_FORMAT: u8 = 2;

/// The key of something of a session.
fn session_key(id: SessionId, kind: &[u8]) -> Bytes {
    let mut key = Vec::with_capacity(17 + kind.len());
    key.push(b's');
    key.extend_from_slice(id.0.as_bytes());
    key.extend_from_slice(kind);
    key.into()
}

fn packet_key(id: SessionId, kind: u8, packet_id: PacketId) -> Bytes {
    let [high, low] = packet_id.get().to_be_bytes();
    session_key(id, &[kind, high, low])
}

fn owed_key(id: SessionId, filter: FilterKey) -> Bytes {
    let mut kind = [b'y'; 9];
    kind[1..].copy_from_slice(&filter.0.to_be_bytes());
    session_key(id, &kind)
}

fn retained_key(topic: &str) -> Bytes {
    [b"m", topic.as_bytes()].concat().into()
}

fn group_key(share: &TopicFilter) -> Bytes {
    [b"g", share.as_str().as_bytes()].concat().into()
}

/// What a key is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Progress(SessionId),
    Exchange(SessionId),
    Received(SessionId, PacketId),
    Will(SessionId),
    Owed(SessionId, FilterKey),
    Retained,
    Group(String),
}

/// Reads a key.
pub(super) fn subject(key: &[u8]) -> Option<Subject> {
    match key.split_first()? {
        (b's', rest) => {
            let (id, kind) = rest.split_first_chunk::<16>()?;
            let id = SessionId(uuid::Uuid::from_bytes(*id));
            match kind {
                b"p" => Some(Subject::Progress(id)),
                b"w" => Some(Subject::Will(id)),
                [b'y', filter @ ..] => {
                    Some(Subject::Owed(id, FilterKey(u64::from_be_bytes(filter.try_into().ok()?))))
                }
                [b'o', _, _] => Some(Subject::Exchange(id)),
                [b'r', high, low] => {
                    Some(Subject::Received(id, PacketId::new(u16::from_be_bytes([*high, *low]))?))
                }
                _ => None,
            }
        }
        (b'm', _) => Some(Subject::Retained),
        (b'g', share) => Some(Subject::Group(String::from_utf8(share.to_vec()).ok()?)),
        _ => None,
    }
}

/// Everything of a session is over.
pub(super) fn session_ends(id: SessionId) -> Change {
    Change::DeleteAll { prefix: session_key(id, &[]) }
}

/// Which retained messages of a filter are owed: those behind the topic `after` that were put before the
/// moment `age`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) after: Option<Box<str>>,
    /// Not known where the first format had it written.
    pub(super) age: Option<u64>,
}

/// Retained messages of a filter are owed to a session.
pub(super) fn owed(id: SessionId, filter: FilterKey, age: u64, after: Option<&str>) -> Change {
    let mut value = vec![OWED_FORMAT];
    value.put_u64_le(age);
    put_optional(&mut value, after, put_text);
    Change::Put { key: owed_key(id, filter), value: value.into() }
}

/// They are owed no longer.
pub(super) fn not_owed(id: SessionId, filter: FilterKey) -> Change {
    Change::Delete { key: owed_key(id, filter) }
}

/// The client's packet id is taken.
pub(super) fn received(id: SessionId, packet_id: PacketId) -> Change {
    Change::Put { key: packet_key(id, b'r', packet_id), value: Bytes::from_static(&[FORMAT]) }
}

/// The client's packet id is free.
pub(super) fn released(id: SessionId, packet_id: PacketId) -> Change {
    Change::Delete { key: packet_key(id, b'r', packet_id) }
}

/// An exchange is this far. `share` names the shared group that its message belongs to.
pub(super) fn exchange(id: SessionId, frozen: &Frozen, share: Option<&str>) -> Change {
    let mut value = vec![FORMAT];
    put_frozen(&mut value, frozen, share);
    Change::Put { key: packet_key(id, b'o', frozen.packet_id()), value: value.into() }
}

/// An exchange is over.
pub(super) fn exchange_over(id: SessionId, packet_id: PacketId) -> Change {
    Change::Delete { key: packet_key(id, b'o', packet_id) }
}

/// A session has come so far. `filters`: what it subscribes to, `$share/{group}/` included, and where in
/// the log each begins if that lies behind the session's position.
pub(super) fn progress(id: SessionId, progress: &Progress, filters: &[(FilterKey, Seq)]) -> Change {
    let mut value = vec![FORMAT];
    value.put_u64_le(progress.position.0);
    value.put_u64_le(progress.begun);
    put_len(&mut value, filters.len());
    for (filter, start) in filters {
        value.put_u64_le(filter.0);
        value.put_u64_le(start.0);
    }
    put_len(&mut value, progress.unacknowledged.len());
    for exchange in &progress.unacknowledged {
        put_frozen(&mut value, exchange, None);
    }
    // Most sessions never lose anything; a reader that does not know of it stops before.
    if let Some(trimmed) = &progress.trimmed {
        value.put_u64_le(trimmed.messages);
        value.put_u64_le(trimmed.through.0);
    }
    Change::Put { key: session_key(id, b"p"), value: value.into() }
}

/// A will is held, or due.
pub(super) fn will(id: SessionId, will: &HeldWill) -> Change {
    let mut value = vec![FORMAT];
    put_optional(&mut value, will.message_expiry_secs, BufMut::put_u32_le);
    value.put_u32_le(will.delay_secs);
    put_optional(&mut value, will.due_at, |value, at| value.put_i64_le(at.as_millis()));
    put_message(&mut value, &will.message);
    // Last, so that what was written without it is read too.
    if let Some(WillAuthor { client_id, username }) = &will.author {
        put_text(&mut value, client_id.as_str());
        put_optional(&mut value, username.as_deref(), put_text);
    }
    Change::Put { key: session_key(id, b"w"), value: value.into() }
}

/// A will is no more.
pub(super) fn no_will(id: SessionId) -> Change {
    Change::Delete { key: session_key(id, b"w") }
}

/// A topic's retained message is this, put at the moment `age`; or with an empty payload there is none.
pub(super) fn retained(message: &Message, age: u64) -> Change {
    let key = retained_key(message.topic.as_str());
    if message.payload.is_empty() {
        return Change::Delete { key };
    }
    let mut value = vec![FORMAT];
    put_message(&mut value, message);
    // A reader that does not know of it stops before.
    value.put_u64_le(age);
    Change::Put { key, value: value.into() }
}

/// A topic has no retained message.
pub(super) fn not_retained(topic: &str) -> Change {
    Change::Delete { key: retained_key(topic) }
}

/// A shared group has handed out everything up to `position` but `missing`.
pub(super) fn group(share: &TopicFilter, position: Seq, missing: &[Seq]) -> Change {
    let mut value = vec![FORMAT];
    value.put_u64_le(position.0);
    put_len(&mut value, missing.len());
    for seq in missing {
        value.put_u64_le(seq.0);
    }
    Change::Put { key: group_key(share), value: value.into() }
}

/// A shared group is no more.
pub(super) fn no_group(share: &TopicFilter) -> Change {
    Change::Delete { key: group_key(share) }
}

/// Reads [`progress`].
pub(super) fn get_progress(value: &mut Bytes) -> Option<(Progress, Vec<(FilterKey, Seq)>)> {
    check_format(value)?;
    let (position, begun) = (Seq(value.try_get_u64_le().ok()?), value.try_get_u64_le().ok()?);
    let mut filters = Vec::new();
    for _ in 0..get_len(value)? {
        filters.push((FilterKey(value.try_get_u64_le().ok()?), Seq(value.try_get_u64_le().ok()?)));
    }
    let mut unacknowledged = Vec::new();
    for _ in 0..get_len(value)? {
        unacknowledged.push(get_frozen(value)?.0);
    }
    let mut trimmed = None;
    if value.has_remaining() {
        let messages = value.try_get_u64_le().ok()?;
        trimmed = Some(Box::new(Trimmed::written_down(messages, Seq(value.try_get_u64_le().ok()?))));
    }
    Some((Progress { position, begun, unacknowledged, trimmed }, filters))
}

/// Reads [`exchange`]: the exchange, and the whole filter of its shared group.
pub(super) fn get_exchange(value: &mut Bytes) -> Option<(Frozen, Option<String>)> {
    check_format(value)?;
    get_frozen(value)
}

/// Reads [`will`].
pub(super) fn get_will(value: &mut Bytes) -> Option<HeldWill> {
    check_format(value)?;
    let message_expiry_secs = get_optional(value, |value| value.try_get_u32_le().ok())?;
    let delay_secs = value.try_get_u32_le().ok()?;
    let due_at = get_optional(value, |value| value.try_get_i64_le().ok())?.map(Timestamp::from_millis);
    let message = get_message(value)?;
    let author = if value.has_remaining() { Some(get_author(value)?) } else { None };
    Some(HeldWill { message, message_expiry_secs, delay_secs, due_at, author })
}

fn get_author(value: &mut Bytes) -> Option<WillAuthor> {
    let client_id = ClientId::new(&get_text(value)?).ok()?;
    let username = get_optional(value, get_text)?.map(String::into_boxed_str);
    Some(WillAuthor { client_id, username })
}

/// Reads [`owed`].
pub(super) fn get_owed(value: &mut Bytes) -> Option<Owed> {
    match value.try_get_u8().ok()? {
        FORMAT => Some(Owed::default()),
        OWED_FORMAT => {
            let age = Some(value.try_get_u64_le().ok()?);
            Some(Owed { age, after: get_optional(value, get_text)?.map(Into::into) })
        }
        _ => None,
    }
}

/// Reads [`retained`]: the message, and the moment it was put. One that was written before there were moments
/// was put before all that have one.
pub(super) fn get_retained(value: &mut Bytes) -> Option<(Message, u64)> {
    check_format(value)?;
    let message = get_message(value)?;
    Some((message, if value.has_remaining() { value.try_get_u64_le().ok()? } else { 0 }))
}

/// Reads [`group`].
pub(super) fn get_group(value: &mut Bytes) -> Option<(Seq, Vec<Seq>)> {
    check_format(value)?;
    let position = Seq(value.try_get_u64_le().ok()?);
    let missing =
        (0..get_len(value)?).map(|_| value.try_get_u64_le().ok().map(Seq)).collect::<Option<_>>()?;
    Some((position, missing))
}

fn check_format(value: &mut Bytes) -> Option<()> {
    (value.try_get_u8().ok()? == FORMAT).then_some(())
}

fn put_len(value: &mut Vec<u8>, len: usize) {
    value.put_u32_le(u32::try_from(len).unwrap_or(u32::MAX));
}

/// A count that the bytes that follow can pay for.
fn get_len(value: &mut Bytes) -> Option<usize> {
    let len = usize::try_from(value.try_get_u32_le().ok()?).ok()?;
    (len <= value.remaining()).then_some(len)
}

fn put_text(value: &mut Vec<u8>, text: &str) {
    put_len(value, text.len());
    value.extend_from_slice(text.as_bytes());
}

fn get_text(value: &mut Bytes) -> Option<String> {
    let len = get_len(value)?;
    String::from_utf8(value.split_to(len).to_vec()).ok()
}

fn put_optional<T>(value: &mut Vec<u8>, optional: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    value.put_u8(u8::from(optional.is_some()));
    if let Some(content) = optional {
        put(value, content);
    }
}

/// `None` when the bytes are not what they should be.
#[allow(clippy::option_option)] // read failed, or read and absent
fn get_optional<T>(value: &mut Bytes, get: impl FnOnce(&mut Bytes) -> Option<T>) -> Option<Option<T>> {
    match value.try_get_u8().ok()? {
        0 => Some(None),
        _ => get(value).map(Some),
    }
}

const RELEASED: u8 = 0b0000_0100;
const RETAIN: u8 = 0b0000_1000;
const LOGGED: u8 = 0b0001_0000;
const WHOLE: u8 = 0b0010_0000;

fn put_frozen(value: &mut Vec<u8>, exchange: &Frozen, share: Option<&str>) {
    value.put_u64_le(exchange.number);
    let body = match exchange.body {
        Body::Logged(_) => LOGGED,
        Body::Whole(_) => WHOLE,
        Body::Consumed => 0,
    };
    let released = if exchange.phase == Phase::Released { RELEASED } else { 0 };
    let retain = if exchange.retain { RETAIN } else { 0 };
    value.put_u8(u8::from(exchange.qos) | released | retain | body);
    value.put_u8(u8::try_from(exchange.subscription_ids.len()).unwrap_or(u8::MAX));
    for id in exchange.subscription_ids.iter().take(usize::from(u8::MAX)) {
        value.put_u32_le(id.get());
    }
    put_optional(value, share, put_text);
    match &exchange.body {
        Body::Logged(place) => {
            value.put_u64_le(place.seq.0);
            value.put_u64_le(place.filter.0);
        }
        Body::Whole(message) => put_message(value, message),
        Body::Consumed => {}
    }
}

/// The group is not filled in: its id is of this process.
fn get_frozen(value: &mut Bytes) -> Option<(Frozen, Option<String>)> {
    let number = value.try_get_u64_le().ok()?;
    let flags = value.try_get_u8().ok()?;
    let mut subscription_ids = SmallVec::new();
    for _ in 0..value.try_get_u8().ok()? {
        subscription_ids.push(NonZeroU32::new(value.try_get_u32_le().ok()?)?);
    }
    let share = get_optional(value, get_text)?;
    let body = if flags & LOGGED != 0 {
        let seq = Seq(value.try_get_u64_le().ok()?);
        let filter = FilterKey(value.try_get_u64_le().ok()?);
        Body::Logged(Place { seq, filter, durable: true })
    } else if flags & WHOLE != 0 {
        Body::Whole(Arc::new(get_message(value)?))
    } else {
        Body::Consumed
    };
    let phase = if flags & RELEASED != 0 { Phase::Released } else { Phase::Published };
    let qos = QoS::try_from(flags & 0b11).ok()?;
    let retain = flags & RETAIN != 0;
    Some((Frozen { number, phase, qos, retain, subscription_ids, group: None, body }, share))
}
