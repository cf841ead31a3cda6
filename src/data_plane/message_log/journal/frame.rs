//! Frames: how entries lie one after the other in a segment, and which of them are believed after a
//! crash. Pure: bytes in, verdict out.
//!
//! # Wire
//!
//! ```text
//! body length u32 · synced u32 · kind u8 · head checksum u32 · body checksum u32 · body
//! ```
//!
//! Little-endian. The head's checksum is CRC-32C over the segment's incarnation, the frame's offset, and
//! the three fields before it; the body's is seeded with the head's. So bytes that another life of the
//! file left behind, and bytes that a client put into a payload, are not taken for frames.
//!
//! `synced` is the offset in this segment up to which all was durable when the frame was written.
//! It parts what a crash may take from what it may not: see [`scan`].

use std::ops::Range;

use super::checksum::{crc32c, crc32c_seeded};

/// Bytes before a frame's body.
pub(super) const FRAME_HEAD_BYTES: u32 = 17;
const HEAD: usize = FRAME_HEAD_BYTES as usize;

/// What the end of a sealed segment takes.
pub(super) const SEAL_BYTES: u32 = FRAME_HEAD_BYTES;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// An entry.
    Entry = 1,
    /// Nothing follows in this segment. No body.
    Seal = 2,
}

/// Appends a frame to `out`; it will lie at `offset` of the segment. `body` appends the body.
pub(super) fn put_frame(
    out: &mut Vec<u8>,
    incarnation: u64,
    offset: u32,
    synced: u32,
    kind: FrameKind,
    body: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    body(out);
    let (head, body) = out[start..].split_at_mut(HEAD);
    // A frame fits into a segment, whose length is a u32.
    let body_len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    head[0..4].copy_from_slice(&body_len.to_le_bytes());
    head[4..8].copy_from_slice(&synced.to_le_bytes());
    head[8] = kind as u8;
    let head_sum = head_sum(incarnation, offset, &head[..9]);
    let body_sum = crc32c_seeded(head_sum, &[body]);
    head[9..13].copy_from_slice(&head_sum.to_le_bytes());
    head[13..17].copy_from_slice(&body_sum.to_le_bytes());
}

fn head_sum(incarnation: u64, offset: u32, head: &[u8]) -> u32 {
    crc32c(&[&incarnation.to_le_bytes(), &offset.to_le_bytes(), head])
}

/// A frame that was found whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: FrameKind,
    pub(super) synced: u32,
    /// Where its body lies in the segment.
    pub(super) body: Range<u32>,
}

impl Frame {
    /// Where the frame begins.
    pub(super) fn start(&self) -> u32 {
        self.body.start - FRAME_HEAD_BYTES
    }
}

/// The frame that begins with `bytes`, which lie at `offset` of the segment, if it is whole.
pub(super) fn frame_at(bytes: &[u8], incarnation: u64, offset: u32) -> Option<Frame> {
    let head = bytes.get(..HEAD)?;
    let kind = match head[8] {
        1 => FrameKind::Entry,
        2 => FrameKind::Seal,
        _ => return None,
    };
    let field = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (body_len, synced) = (field(0), field(4));
    let body_start = offset.checked_add(FRAME_HEAD_BYTES)?;
    let body = body_start..body_start.checked_add(body_len)?;
    if synced > offset || head_sum(incarnation, offset, &head[..9]) != field(9) {
        return None;
    }
    let bytes = bytes.get(HEAD..HEAD + body_len as usize)?;
    (crc32c_seeded(field(9), &[bytes]) == field(13)).then_some(Frame { kind, synced, body })
}

/// What a segment holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// The entries to believe, ascending.
    pub(super) entries: Vec<Frame>,
    /// Where durable frames should be and are not.
    pub(super) damage: Vec<Range<u32>>,
    /// Where the frames to believe end: the next one belongs here.
    pub(super) end: u32,
    /// Whether the segment was sealed there.
    pub(super) sealed: bool,
    /// How far all is known to have been durable.
    pub(super) synced: u32,
    /// Bytes of whole frames behind the end: a batch that a crash cut short.
    pub(super) cut_bytes: u32,
}

/// Reads a whole segment (`segment[0]` is its first byte, frames begin at `first`).
///
/// What was durable when some whole frame was written must be there: where it is not, that is
/// *damage*, and what follows is believed all the same. Behind that, frames are believed up to the first one
/// that is not whole; what lies there was not yet durable, or is left from another life of the file.
/// When `is_past` is set, a later segment has frames. Then this one was sealed, and durable to its end.
pub(super) fn scan(segment: &[u8], incarnation: u64, first: u32, is_past: bool) -> Scan {
    let frames = all_frames(segment, incarnation, first);
    let synced = match frames.last() {
        Some(last) if is_past => last.start(),
        _ => frames.iter().map(|frame| frame.synced).max().unwrap_or(first),
    };
    let mut found = Scan { end: first, synced, ..Scan::default() };
    for frame in frames {
        if frame.start() > found.end {
            let durable = frame.start().min(synced);
            if found.end < durable {
                found.damage.push(found.end..durable);
                found.end = durable;
            }
            if frame.start() > found.end {
                found.cut_bytes += frame.body.end - frame.start();
                continue;
            }
        }
        if frame.kind == FrameKind::Seal {
            found.sealed = true;
            break;
        }
        found.end = frame.body.end;
        found.entries.push(frame);
    }
    if is_past && !found.sealed {
        // The seal itself is not readable, and perhaps more before it.
        found.damage.push(found.end..u32::try_from(segment.len()).unwrap_or(u32::MAX).max(found.end));
    }
    found
}

/// All whole frames, also behind places where there is none.
fn all_frames(segment: &[u8], incarnation: u64, first: u32) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut at = first;
    while let Some(bytes) = segment.get(at as usize..).filter(|bytes| bytes.len() >= HEAD) {
        match frame_at(bytes, incarnation, at) {
            Some(frame) => {
                at = frame.body.end;
                let is_seal = frame.kind == FrameKind::Seal;
                frames.push(frame);
                if is_seal {
                    break;
                }
            }
            // The byte of the kind is where a frame shows first that it is none.
            None => at += 1,
        }
    }
    frames
}
