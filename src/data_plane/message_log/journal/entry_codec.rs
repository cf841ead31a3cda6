//! An [`Entry`] as the body of a frame.
//!
//! # Wire
//!
//! ```text
//! cluster number · flags byte
//! if flags.MESSAGE:  seq number · count number · count × filter key (8 bytes)
//!                    published_at number · [expires_at number] · [publisher 8 bytes]
//!                    topic length · properties length · payload length · topic · properties · payload
//! count number · count × change:  kind byte · key bytes · [value bytes]
//! ```
//!
//! A *number* is LEB128, *bytes* are a number and so many bytes. Decoding is total and accepts
//! only what encoding writes.

use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;

use super::super::{Change, ClusterNo, Entry, FilterKey, Posted};
use super::bytes::{Cursor, Malformed, bytes_len, number_len, put_bytes, put_number};
use crate::model::{ClientKey, Message, PropertyBytes, QoS, Seq, Timestamp, TopicName};

const MESSAGE: u8 = 0b0000_0001;
const RETAIN: u8 = 0b0000_0010;
const EXPIRES: u8 = 0b0000_0100;
const PUBLISHER: u8 = 0b0000_1000;
const QOS_SHIFT: u32 = 4;
const FLAGS: u8 = 0b0011_1111;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_ALL: u8 = 3;

/// Appends the entry.
pub(super) fn encode(entry: &Entry, out: &mut Vec<u8>) {
    put_number(out, u64::from(entry.cluster.0));
    match &entry.message {
        None => out.push(0),
        Some(posted) => encode_message(posted, out),
    }
    put_number(out, entry.changes.len() as u64);
    for change in &entry.changes {
        match change {
            Change::Put { key, value } => {
                out.push(PUT);
                put_bytes(out, key);
                put_bytes(out, value);
            }
            Change::Delete { key } => {
                out.push(DELETE);
                put_bytes(out, key);
            }
            Change::DeleteAll { prefix } => {
                out.push(DELETE_ALL);
                put_bytes(out, prefix);
            }
        }
    }
}

fn encode_message(posted: &Posted, out: &mut Vec<u8>) {
    let message = &*posted.message;
    let mut flags = MESSAGE | u8::from(message.qos) << QOS_SHIFT;
    flags |= if message.retain { RETAIN } else { 0 };
    flags |= message.expires_at.map_or(0, |_| EXPIRES);
    flags |= message.publisher.map_or(0, |_| PUBLISHER);
    out.push(flags);
    put_number(out, posted.seq.0);
    put_number(out, posted.filters.len() as u64);
    for filter in &posted.filters {
        out.extend_from_slice(&filter.0.to_le_bytes());
    }
    put_number(out, millis(message.published_at));
    if let Some(at) = message.expires_at {
        put_number(out, millis(at));
    }
    if let Some(publisher) = message.publisher {
        out.extend_from_slice(&publisher.0.to_le_bytes());
    }
    let pieces = [message.topic.as_str().as_bytes(), &message.properties.0, &message.payload];
    for piece in pieces {
        put_number(out, piece.len() as u64);
    }
    for piece in pieces {
        out.extend_from_slice(piece);
    }
}

/// How many bytes [`encode`] appends.
pub(super) fn encoded_len(entry: &Entry) -> usize {
    let change = |change: &Change| match change {
        Change::Put { key, value } => 1 + bytes_len(key.len()) + bytes_len(value.len()),
        Change::Delete { key } => 1 + bytes_len(key.len()),
        Change::DeleteAll { prefix } => 1 + bytes_len(prefix.len()),
    };
    number_len(u64::from(entry.cluster.0))
        + 1
        + entry.message.as_ref().map_or(0, message_len)
        + number_len(entry.changes.len() as u64)
        + entry.changes.iter().map(change).sum::<usize>()
}

fn message_len(posted: &Posted) -> usize {
    let message = &*posted.message;
    number_len(posted.seq.0)
        + number_len(posted.filters.len() as u64)
        + 8 * posted.filters.len()
        + number_len(millis(message.published_at))
        + message.expires_at.map_or(0, |at| number_len(millis(at)))
        + message.publisher.map_or(0, |_| 8)
        + bytes_len(message.topic.as_str().len())
        + bytes_len(message.properties.0.len())
        + bytes_len(message.payload.len())
}

/// A timestamp is never before 1970.
fn millis(at: Timestamp) -> u64 {
    at.as_millis().unsigned_abs()
}

/// An entry as it lies in a frame.
#[derive(Debug)]
pub(super) struct EntryView<'a> {
    pub(super) cluster: ClusterNo,
    pub(super) message: Option<MessageView<'a>>,
    /// Their count and bytes.
    changes: Cursor<'a>,
}

/// A message as it lies in a frame.
#[derive(Debug)]
pub(super) struct MessageView<'a> {
    pub(super) seq: Seq,
    /// Eight bytes each.
    filters: &'a [u8],
    pub(super) published_at: Timestamp,
    expires_at: Option<Timestamp>,
    publisher: Option<ClientKey>,
    qos: QoS,
    retain: bool,
    topic_len: usize,
    properties_len: usize,
    /// Topic, properties and payload.
    content: &'a [u8],
}

impl<'a> EntryView<'a> {
    /// Reads all but the changes.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(body);
        let cluster = ClusterNo(cursor.number_u32()?);
        let flags = cursor.byte()?;
        let message = match flags {
            0 => None,
            flags if flags & MESSAGE != 0 && flags & !FLAGS == 0 => {
                Some(MessageView::parse(&mut cursor, flags)?)
            }
            _ => return Err(Malformed),
        };
        Ok(Self { cluster, message, changes: cursor })
    }

    /// The changes, in memory of their own.
    pub(super) fn changes(&self) -> Result<Vec<Change>, Malformed> {
        let mut cursor = self.changes;
        let count = cursor.length()?;
        let mut changes = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            let kind = cursor.byte()?;
            let key = Bytes::copy_from_slice(cursor.bytes()?);
            changes.push(match kind {
                PUT => Change::Put { key, value: Bytes::copy_from_slice(cursor.bytes()?) },
                DELETE => Change::Delete { key },
                DELETE_ALL => Change::DeleteAll { prefix: key },
                _ => return Err(Malformed),
            });
        }
        cursor.end()?;
        Ok(changes)
    }

    /// All of it, in memory of its own.
    #[cfg(test)]
    pub(super) fn to_entry(&self) -> Result<Entry, Malformed> {
        let message = match &self.message {
            None => None,
            Some(view) => Some(Posted {
                seq: view.seq,
                filters: view.filters(),
                message: std::sync::Arc::new(view.message()?),
            }),
        };
        Ok(Entry { cluster: self.cluster, message, changes: self.changes()? })
    }
}

impl<'a> MessageView<'a> {
    fn parse(cursor: &mut Cursor<'a>, flags: u8) -> Result<Self, Malformed> {
        let seq = Seq(cursor.number()?);
        let filters = cursor.length()?.checked_mul(8).ok_or(Malformed)?;
        let filters = cursor.take(filters)?;
        let published_at = timestamp(cursor)?;
        let expires_at = if flags & EXPIRES == 0 { None } else { Some(timestamp(cursor)?) };
        let publisher = if flags & PUBLISHER == 0 { None } else { Some(ClientKey(cursor.u64()?)) };
        let [topic_len, properties_len, payload_len] = [cursor.length()?, cursor.length()?, cursor.length()?];
        let content = cursor.take(topic_len + properties_len + payload_len)?;
        Ok(Self {
            seq,
            filters,
            published_at,
            expires_at,
            publisher,
            qos: QoS::try_from(flags >> QOS_SHIFT).map_err(|_| Malformed)?,
            retain: flags & RETAIN != 0,
            topic_len,
            properties_len,
            content,
        })
    }

    /// Under which filters it is found.
    pub(super) fn filters(&self) -> SmallVec<[FilterKey; 4]> {
        let key = |bytes: &[u8]| {
            let mut array = [0; 8];
            array.copy_from_slice(bytes);
            FilterKey(u64::from_le_bytes(array))
        };
        self.filters.chunks_exact(8).map(key).collect()
    }

    /// The message, in one piece of memory of its own.
    pub(super) fn message(&self) -> Result<Message, Malformed> {
        let content = Bytes::copy_from_slice(self.content);
        let properties_end = self.topic_len + self.properties_len;
        let topic = ByteString::try_from(content.slice(..self.topic_len)).map_err(|_| Malformed)?;
        Ok(Message {
            topic: TopicName::new(topic).map_err(|_| Malformed)?,
            payload: content.slice(properties_end..),
            qos: self.qos,
            retain: self.retain,
            properties: PropertyBytes(content.slice(self.topic_len..properties_end)),
            expires_at: self.expires_at,
            published_at: self.published_at,
            publisher: self.publisher,
        })
    }
}

fn timestamp(cursor: &mut Cursor<'_>) -> Result<Timestamp, Malformed> {
    let millis = i64::try_from(cursor.number()?).map_err(|_| Malformed)?;
    let at = Timestamp::from_millis(millis);
    if at.as_millis() == millis { Ok(at) } else { Err(Malformed) }
}
