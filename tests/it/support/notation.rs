//! Packets as they are written down in tests.
//!
//! ```text
//! 10 0c ff       bytes in hexadecimal
//! 'text'         the bytes of a text
//! s'text'        the same with its two bytes of length before it
//! 'x'*257        a text so many times
//! ~ …            the remaining length of all that follows, and that; ends at `;`
//! ;              another packet follows
//! { … }          a property list with its length
//! $id            two bytes that have a name: taken down when received, the same ever after
//! $id*41         so many bytes that have a name
//! ??             any byte
//! ...            any bytes, of what `~` or `{` measures
//! ```
//!
//! The last two can be expected, not sent. So a packet shows its wire form and nobody counts bytes.

use std::collections::HashMap;

/// Bytes that have a name: identifiers that the server chose.
pub(crate) type Names = HashMap<String, Vec<u8>>;

/// A packet as written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Byte(u8),
    AnyByte,
    AnyBytes,
    Named {
        name: String,
        bytes: usize,
    },
    /// With a variable byte integer before it that tells its length.
    Measured(Vec<Part>),
}

/// The bytes that are written down, none of them uncertain.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let bytes = Pattern::parse(text).and_then(|pattern| pattern.bytes(&Names::new()));
    bytes.unwrap_or_else(|why| panic!("{text:?}: {why}"))
}

/// Whether bytes are what is written down.
pub(crate) fn matches(bytes: &[u8], expected: &str) -> bool {
    let pattern = Pattern::parse(expected).unwrap_or_else(|why| panic!("{expected:?}: {why}"));
    pattern.matches(bytes, &mut Names::new())
}

impl Pattern {
    /// Reads the notation.
    ///
    /// # Errors
    /// What is not understood.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (mut rest, mut parts) = (text, Vec::new());
        loop {
            parts.extend(parse_parts(&mut rest)?);
            match rest.strip_prefix(';') {
                Some(after) => rest = after,
                None if rest.is_empty() => return Ok(Self(parts)),
                None => return Err(format!("{rest:?} has no opening brace")),
            }
        }
    }

    /// The bytes to send.
    ///
    /// # Errors
    /// A part that stands for no certain byte.
    pub(crate) fn bytes(&self, names: &Names) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        encode(&self.0, names, &mut out)?;
        Ok(out)
    }

    /// Whether these are the bytes expected; takes down what gets a name.
    pub(crate) fn matches(&self, bytes: &[u8], names: &mut Names) -> bool {
        // A packet that does not match must leave no names behind.
        let mut found = names.clone();
        let matched = match_parts(&self.0, bytes, &mut found);
        if matched {
            *names = found;
        }
        matched
    }
}

fn parse_parts(rest: &mut &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    loop {
        *rest = rest.trim_start();
        if rest.is_empty() || rest.starts_with(['}', ';']) {
            return Ok(parts);
        }
        parse_part(rest, &mut parts)?;
    }
}

fn parse_part(rest: &mut &str, parts: &mut Vec<Part>) -> Result<(), String> {
    if let Some(after) = rest.strip_prefix("s'") {
        let text = parse_text(after, rest)?;
        let length = u16::try_from(text.len()).map_err(|_| "a string is too long".to_owned())?;
        parts.extend(length.to_be_bytes().into_iter().chain(text.bytes()).map(Part::Byte));
    } else if let Some(after) = rest.strip_prefix('\'') {
        let text = parse_text(after, rest)?;
        parts.extend(text.bytes().map(Part::Byte));
    } else if let Some(after) = rest.strip_prefix("...") {
        *rest = after;
        parts.push(Part::AnyBytes);
    } else if let Some(after) = rest.strip_prefix("??") {
        *rest = after;
        parts.push(Part::AnyByte);
    } else if let Some(after) = rest.strip_prefix('$') {
        let end = after.find(|c: char| !c.is_alphanumeric()).unwrap_or(after.len());
        let name = after[..end].to_owned();
        *rest = &after[end..];
        parts.push(Part::Named { name, bytes: parse_times(rest)?.unwrap_or(2) });
    } else if let Some(after) = rest.strip_prefix('~') {
        *rest = after;
        parts.push(Part::Measured(parse_parts(rest)?));
    } else if let Some(after) = rest.strip_prefix('{') {
        *rest = after;
        parts.push(Part::Measured(parse_parts(rest)?));
        *rest = rest.strip_prefix('}').ok_or("a brace is not closed")?;
    } else {
        let byte = rest.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        parts.push(Part::Byte(byte.ok_or_else(|| format!("{rest:?} is not hexadecimal"))?));
        *rest = &rest[2..];
    }
    Ok(())
}

/// The rest of a text after its opening quote.
fn parse_text<'a>(after: &'a str, rest: &mut &'a str) -> Result<String, String> {
    let (text, after) = after.split_once('\'').ok_or("a text is not closed")?;
    *rest = after;
    Ok(text.repeat(parse_times(rest)?.unwrap_or(1)))
}

/// `*n`, if it stands here.
fn parse_times(rest: &mut &str) -> Result<Option<usize>, String> {
    let Some(after) = rest.strip_prefix('*') else { return Ok(None) };
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    let times = after[..end].parse().map_err(|_| format!("{rest:?} is no number of times"))?;
    *rest = &after[end..];
    Ok(Some(times))
}

fn encode(parts: &[Part], names: &Names, out: &mut Vec<u8>) -> Result<(), String> {
    for part in parts {
        match part {
            Part::Byte(byte) => out.push(*byte),
            Part::Named { name, .. } => {
                out.extend(names.get(name).ok_or_else(|| format!("${name} was not received"))?);
            }
            Part::Measured(parts) => {
                let mut content = Vec::new();
                encode(parts, names, &mut content)?;
                put_varint(content.len(), out);
                out.extend(content);
            }
            Part::AnyByte | Part::AnyBytes => return Err("what is sent must be certain".to_owned()),
        }
    }
    Ok(())
}

fn put_varint(mut value: usize, out: &mut Vec<u8>) {
    while value > 127 {
        out.push(u8::try_from(value % 128).expect("below 128") | 128);
        value /= 128;
    }
    out.push(u8::try_from(value).expect("below 128"));
}

fn match_parts(parts: &[Part], bytes: &[u8], names: &mut Names) -> bool {
    let Some((part, parts)) = parts.split_first() else { return bytes.is_empty() };
    match part {
        Part::Byte(expected) => match bytes.split_first() {
            Some((byte, rest)) => byte == expected && match_parts(parts, rest, names),
            None => false,
        },
        Part::AnyByte => bytes.split_first().is_some_and(|(_, rest)| match_parts(parts, rest, names)),
        Part::AnyBytes => (0..=bytes.len()).any(|skipped| {
            let mut found = names.clone();
            let matched = match_parts(parts, &bytes[skipped..], &mut found);
            if matched {
                *names = found;
            }
            matched
        }),
        Part::Named { name, bytes: count } => match bytes.split_at_checked(*count) {
            Some((these, rest)) => {
                names.entry(name.clone()).or_insert_with(|| these.to_vec()) == these
                    && match_parts(parts, rest, names)
            }
            None => false,
        },
        Part::Measured(content) => match take_measured(bytes) {
            Some((measured, rest)) => {
                match_parts(content, measured, names) && match_parts(parts, rest, names)
            }
            None => false,
        },
    }
}

/// Cuts off what a variable byte integer measures.
fn take_measured(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_usize;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return bytes[at + 1..].split_at_checked(length);
        }
    }
    None
}

mod checker {
    //! The notation itself.

    use super::*;

    fn bytes_of(text: &str) -> Result<Vec<u8>, String> {
        Pattern::parse(text)?.bytes(&Names::from([("id".to_owned(), vec![0, 7])]))
    }

    #[test]
    fn stands_for_bytes() {
        assert_eq!(
            bytes_of("82 ~ 000a { 0b01 } s'a/b' 01"),
            Ok(b"\x82\x0b\x00\x0a\x02\x0b\x01\x00\x03a/b\x01".to_vec())
        );
        assert_eq!(bytes_of("'GET' 00ff"), Ok(b"GET\x00\xff".to_vec()));
        assert_eq!(bytes_of("40 ~ $id"), Ok(b"\x40\x02\x00\x07".to_vec()));
        assert_eq!(bytes_of("{}"), Ok(vec![0]));
        assert_eq!(bytes_of("c0 ~ ; d0 ~ 'x'*3 ; e0"), Ok(b"\xc0\x00\xd0\x03xxx\xe0".to_vec()));
        assert_eq!(bytes_of("s'ab'*2"), Ok(b"\x00\x04abab".to_vec()));
        let long = bytes_of(&format!("~ '{}'", "x".repeat(300))).expect("bytes");
        assert_eq!((&long[..3], long.len()), (&b"\xac\x02x"[..], 302));
    }

    #[test]
    fn says_what_it_does_not_understand() {
        for wrong in
            ["0", "0g", "'open", "s'open", "{ 00", "00 }", "{ 00 ; }", "'x'*", "??", "...", "$other", "hello"]
        {
            assert!(bytes_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn expects_exactly_what_is_written() {
        assert!(matches(b"\x20\x06\x00\x00\x03\x21\x00\x01", "20 ~ 00 00 { ... }"));
        assert!(matches(b"\x20\x02\x00\x00", "20 ~ ..."));
        assert!(matches(b"\x20\x02\x01\x00", "20 02 ?? 00"));
        assert!(matches(b"\x20\x04\x03\x07\x12\x00", "20 ~ { ... 12 ?? ... }"));
        assert!(!matches(b"\x20\x04\x03\x07\x13\x00", "20 ~ { ... 12 ?? ... }"));
        for wrong in
            [&b"\x20\x02\x01"[..], b"\x20\x02\x01\x01", b"\x20\x02\x01\x00\x00", b"\x21\x02\x01\x00", b""]
        {
            assert!(!matches(wrong, "20 02 ?? 00"), "{wrong:?}");
        }
        assert!(!matches(b"\x20\x03\x00\x00\x01", "20 ~ 00 00 {}"), "a length without its content");
        assert!(!matches(b"\x20\x03\x00\x00", "20 ~ ..."), "a packet that is cut off");
        assert!(!matches(b"\x20\x02\x00\x00", "20 ~ 00"), "more content than expected");
    }

    #[test]
    fn a_name_stays_what_it_was_first() {
        let mut names = Names::new();
        let publish = Pattern::parse("32 ~ s't' $id").expect("a pattern");
        assert!(!publish.matches(b"\x32\x05\x00\x01u\x00\x09", &mut names));
        assert!(names.is_empty(), "nothing is taken down from a packet that does not match");
        assert!(publish.matches(b"\x32\x05\x00\x01t\x00\x09", &mut names));
        assert!(!publish.matches(b"\x32\x05\x00\x01t\x00\x0a", &mut names));
        assert_eq!(Pattern::parse("$id").and_then(|pattern| pattern.bytes(&names)), Ok(vec![0, 9]));
        assert!(Pattern::parse("... $long*3").expect("a pattern").matches(b"xyabc", &mut names));
        assert_eq!(names["long"], b"abc");
    }
}
