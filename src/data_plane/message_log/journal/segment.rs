//! The files of the journal: their names, and the header of a segment.
//!
//! # Wire
//!
//! A segment begins with a page of 4 KiB:
//! `magic 8 bytes · version u32 · number u64 · incarnation u64 · length u32 · CRC-32C u32`, the rest zero.
//! Frames follow from [`FIRST_FRAME`] on.

use std::io;

use super::bytes::Cursor;
use super::checksum::crc32c;
use super::disk::{DiskFile, read_up_to};

/// Where the first frame of a segment lies.
pub(super) const FIRST_FRAME: u32 = 4_096;

const MAGIC: &[u8; 8] = b"HFsegmnt";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 36;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Its place in the journal. Never given twice.
    pub(super) number: u64,
    /// Random: tells this life of the file from earlier ones.
    pub(super) incarnation: u64,
    /// How long the file is, from the first to the last byte.
    pub(super) bytes: u32,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(FIRST_FRAME as usize);
        page.extend_from_slice(MAGIC);
        page.extend_from_slice(&VERSION.to_le_bytes());
        page.extend_from_slice(&self.number.to_le_bytes());
        page.extend_from_slice(&self.incarnation.to_le_bytes());
        page.extend_from_slice(&self.bytes.to_le_bytes());
        page.extend_from_slice(&crc32c(&[&page]).to_le_bytes());
        page.resize(FIRST_FRAME as usize, 0);
        page
    }

    /// The header at the front of `bytes`; `None` when there is no valid one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER_BYTES)?;
        let mut cursor = Cursor(header);
        let magic: [u8; 8] = cursor.array().ok()?;
        let version = cursor.u32().ok()?;
        let found =
            Self { number: cursor.u64().ok()?, incarnation: cursor.u64().ok()?, bytes: cursor.u32().ok()? };
        let sum = crc32c(&[&header[..HEADER_BYTES - 4]]);
        (magic == *MAGIC && version == VERSION && cursor.u32() == Ok(sum)).then_some(found)
    }

    /// The header of a file; `None` when it has no valid one.
    pub(super) fn read(file: &dyn DiskFile) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEADER_BYTES];
        let read = read_up_to(file, &mut bytes, 0)?;
        Ok(Self::decode(&bytes[..read]))
    }
}

/// A file of the journal, told by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// Entries.
    Segment(u64),
    /// What is found where in the segment of the same number.
    Sidecar(u64),
    /// What all changes up to and with the segment of this number amount to.
    Checkpoint(u64),
    /// Space for a segment to come.
    Spare(u64),
}

/// Ends the name of a file that is not complete yet.
pub(super) const UNFINISHED: &str = ".tmp";

impl Name {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (stem, extension) = name.split_once('.')?;
        let (kind, number) = stem.split_once('-')?;
        let number = number.parse().ok()?;
        let parsed = match (kind, extension) {
            ("segment", "log") => Self::Segment(number),
            ("segment", "index") => Self::Sidecar(number),
            ("checkpoint", "state") => Self::Checkpoint(number),
            ("spare", "zero") => Self::Spare(number),
            _ => return None,
        };
        (parsed.to_string() == name).then_some(parsed)
    }

    /// The name while the file is being written.
    pub(super) fn unfinished(self) -> String {
        format!("{self}{UNFINISHED}")
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Segment(number) => write!(f, "segment-{number:012}.log"),
            Self::Sidecar(number) => write!(f, "segment-{number:012}.index"),
            Self::Checkpoint(number) => write!(f, "checkpoint-{number:012}.state"),
            Self::Spare(number) => write!(f, "spare-{number:012}.zero"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_every_flipped_bit_is_found() {
        let header = SegmentHeader { number: 7, incarnation: 99, bytes: 65_536 };
        let page = header.encode();
        assert_eq!(page.len(), FIRST_FRAME as usize);
        assert_eq!(SegmentHeader::decode(&page), Some(header));
        for bit in 0..HEADER_BYTES * 8 {
            let mut broken = page.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&broken), None, "bit {bit}");
        }
    }

    #[test]
    fn names_are_told_apart() {
        for name in [Name::Segment(1), Name::Sidecar(2), Name::Checkpoint(3), Name::Spare(u64::MAX)] {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
            assert_eq!(Name::parse(&name.unfinished()), None);
        }
        assert_eq!(Name::parse("segment-1.log"), None, "one name for one file");
        assert_eq!(Name::parse("lock"), None);
    }
}
