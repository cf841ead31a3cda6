//! The data types of the wire (MQTT 5.0, 1.5): integers, strings, binary data, variable byte integers.
//!
//! [`Reader`] walks one received packet, [`Writer`]'s functions append to a `Vec<u8>`. Reading is total
//! and allocates nothing: strings and binary data are slices that share the packet's memory.

use bytes::Bytes;
use bytestring::ByteString;

use super::packet::PacketId;
use super::violation::Violation;

/// The greatest value of a variable byte integer (MQTT 5.0, 1.5.5).
pub(super) const VARINT_MAX: u32 = 268_435_455;

/// How many bytes a variable byte integer may take.
const VARINT_BYTES_MAX: usize = 4;

/// Reads a variable byte integer at the start of `bytes`: the value and the bytes it took, `None` when
/// more bytes are needed.
pub(super) fn read_varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, Violation> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            if *byte == 0 && index > 0 {
                return Err(Violation::VarintNotMinimal);
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < VARINT_BYTES_MAX { Ok(None) } else { Err(Violation::VarintTooLong) }
}

/// A place in a received packet, moving towards its end.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// Reads `frame` from `at` to its end.
    pub(super) fn new(frame: &'a Bytes, at: usize) -> Self {
        Self { frame, at, end: frame.len() }
    }

    /// How many bytes are left.
    pub(super) fn remaining(&self) -> usize {
        self.end - self.at
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.end
    }

    /// Where the next byte lies in the frame.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The frame's memory from `from` to `to`, shared.
    pub(super) fn share(&self, from: usize, to: usize) -> Bytes {
        self.frame.slice(from..to)
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Violation> {
        if count > self.remaining() {
            return Err(Violation::Truncated);
        }
        let from = self.at;
        self.at += count;
        Ok(&self.frame[from..self.at])
    }

    pub(super) fn u8(&mut self) -> Result<u8, Violation> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, Violation> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Violation> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(super) fn varint(&mut self) -> Result<u32, Violation> {
        let (value, took) = read_varint(&self.frame[self.at..self.end])?.ok_or(Violation::Truncated)?;
        self.at += took;
        Ok(value)
    }

    /// Binary data: two bytes of length, then the bytes (MQTT 5.0, 1.5.6).
    pub(super) fn binary(&mut self) -> Result<Bytes, Violation> {
        let count = self.blob()?.len();
        Ok(self.share(self.at - count, self.at))
    }

    /// The same as [`Reader::binary`], borrowed: for what is only looked at or copied.
    pub(super) fn blob(&mut self) -> Result<&'a [u8], Violation> {
        let count = usize::from(self.u16()?);
        self.take(count)
    }

    /// A UTF-8 encoded string (`[MQTT-1.5.4-1]`, `[MQTT-1.5.4-2]`). U+FEFF stays (`[MQTT-1.5.4-3]`).
    pub(super) fn string(&mut self) -> Result<ByteString, Violation> {
        let text = self.utf8()?;
        if has_nul(&text) { Err(Violation::NulInString) } else { Ok(text) }
    }

    /// The same without the look for U+0000: for what is checked for it anyway, as topics are.
    pub(super) fn utf8(&mut self) -> Result<ByteString, Violation> {
        ByteString::try_from(self.binary()?).map_err(|_| Violation::IllFormedUtf8)
    }

    /// The same as [`Reader::string`], borrowed: for what is only looked at or copied.
    pub(super) fn str(&mut self) -> Result<&'a str, Violation> {
        let text = std::str::from_utf8(self.blob()?).map_err(|_| Violation::IllFormedUtf8)?;
        if has_nul(text) { Err(Violation::NulInString) } else { Ok(text) }
    }

    /// A packet identifier, never 0 (`[MQTT-2.2.1-3]`).
    pub(super) fn packet_id(&mut self) -> Result<PacketId, Violation> {
        PacketId::new(self.u16()?).ok_or(Violation::PacketIdZero)
    }

    /// The next `count` bytes as a reader of their own.
    pub(super) fn section(&mut self, count: usize) -> Result<Reader<'a>, Violation> {
        let at = self.at;
        self.take(count)?;
        Ok(Reader { frame: self.frame, at, end: self.at })
    }

    /// Goes to the end.
    pub(super) fn skip_rest(&mut self) {
        self.at = self.end;
    }

    /// Checks that the packet ends here.
    pub(super) fn finish(&self) -> Result<(), Violation> {
        if self.is_empty() { Ok(()) } else { Err(Violation::TrailingBytes { bytes: self.remaining() }) }
    }
}

/// Looks at every byte, whatever it finds: that is one comparison for many bytes, and the strings are
/// short.
fn has_nul(text: &str) -> bool {
    text.bytes().fold(0, |found, byte| found | u8::from(byte == 0)) != 0
}

/// How many bytes `value` takes as a variable byte integer.
pub(super) const fn varint_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Appends `value` as a variable byte integer. The callers' limits keep it within [`VARINT_MAX`].
#[allow(clippy::cast_possible_truncation)] // seven bits
pub(super) fn put_varint(mut value: usize, out: &mut Vec<u8>) {
    debug_assert!(value <= VARINT_MAX as usize, "{value} is more than a variable byte integer holds");
    loop {
        let low = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

pub(super) fn put_u16(value: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_u32(value: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends binary data. What two bytes of length cannot tell is cut: nothing that was read can be
/// longer, and what we write ourselves is far shorter.
pub(super) fn put_binary(bytes: &[u8], out: &mut Vec<u8>) {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    put_u16(len, out);
    out.extend_from_slice(&bytes[..usize::from(len)]);
}

/// Appends a UTF-8 encoded string, cut like [`put_binary`] but between characters.
pub(super) fn put_string(text: &str, out: &mut Vec<u8>) {
    put_binary(&text.as_bytes()[..text.floor_char_boundary(usize::from(u16::MAX))], out);
}

/// Appends what `write` appends, with its length as a variable byte integer before it.
///
/// The length is written last; only a content of 128 bytes or more is moved for it.
pub(super) fn put_with_length(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    write(out);
    let len = out.len() - at - 1;
    match u8::try_from(len) {
        Ok(byte) if byte < 0x80 => out[at] = byte,
        _ => {
            let mut length = Vec::with_capacity(VARINT_BYTES_MAX);
            put_varint(len, &mut length);
            out.splice(at..=at, length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_byte_integers_are_those_of_table_1_1() {
        for (value, bytes) in [
            (0, &b"\x00"[..]),
            (127, b"\x7f"),
            (128, b"\x80\x01"),
            (16_383, b"\xff\x7f"),
            (16_384, b"\x80\x80\x01"),
            (2_097_151, b"\xff\xff\x7f"),
            (2_097_152, b"\x80\x80\x80\x01"),
            (VARINT_MAX, b"\xff\xff\xff\x7f"),
        ] {
            let mut out = Vec::new();
            put_varint(value as usize, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(varint_len(value as usize), bytes.len());
            assert_eq!(read_varint(bytes), Ok(Some((value, bytes.len()))));
            for end in 0..bytes.len() {
                assert_eq!(read_varint(&bytes[..end]), Ok(None));
            }
        }
        assert_eq!(read_varint(b"\xff\xff\xff\xff"), Err(Violation::VarintTooLong));
        assert_eq!(read_varint(b"\xff\xff\xff\xff\x01"), Err(Violation::VarintTooLong));
        for bytes in [&b"\x80\x00"[..], b"\xff\x80\x00", b"\x81\x80\x80\x00"] {
            assert_eq!(read_varint(bytes), Err(Violation::VarintNotMinimal));
        }
    }

    #[test]
    fn strings_are_well_formed_utf8_without_nul_and_keep_a_byte_order_mark() {
        let read = |bytes: &'static [u8]| Reader::new(&Bytes::from_static(bytes), 0).string();
        // Figure 1-2.
        assert_eq!(read(b"\x00\x05A\xf0\xaa\x9b\x94").as_deref(), Ok("A\u{2a6d4}"));
        // [MQTT-1.5.4-3]
        assert_eq!(read(b"\x00\x04\xef\xbb\xbfA").as_deref(), Ok("\u{feff}A"));
        // Control characters and non-characters may be refused (1.5.4); we do not.
        assert_eq!(read(b"\x00\x04\x01\xef\xbf\xbf").as_deref(), Ok("\u{1}\u{ffff}"));
        assert_eq!(read(b"\x00\x03a\x00b"), Err(Violation::NulInString));
        assert_eq!(read(b"\x00\x02a"), Err(Violation::Truncated));
        for ill_formed in [
            &b"\x00\x03\xed\xa0\x80"[..], // U+D800
            b"\x00\x02\xc0\x80",          // U+0000 in two bytes
            b"\x00\x01\xff",
            b"\x00\x04\xf4\x90\x80\x80", // above U+10FFFF
            b"\x00\x02\xf0\xaa",         // cut
        ] {
            assert_eq!(read(ill_formed), Err(Violation::IllFormedUtf8), "{ill_formed:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        let mut out = Vec::new();
        put_string(&format!("{}\u{2a6d4}", "a".repeat(65_533)), &mut out);
        assert_eq!((&out[..2], out.len()), (&[0xff, 0xfd][..], 2 + 65_533));
    }

    #[test]
    fn a_length_goes_before_its_content_whatever_it_takes() {
        for (content, length) in
            [(0, &b"\x00"[..]), (127, b"\x7f"), (128, b"\x80\x01"), (20_000, b"\xa0\x9c\x01")]
        {
            let mut out = vec![9];
            put_with_length(&mut out, |out| out.resize(out.len() + content, 7));
            assert_eq!(&out[1..=length.len()], length);
            assert_eq!(out[1 + length.len()..], vec![7; content]);
        }
    }
}
