//! The notation of packets in the tables: hexadecimal, `'text'`, `s'text'` with its two bytes of length, `~`
//! for the remaining length of what follows, `{ … }` for a property list with its length.

/// The bytes that `text` stands for.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let mut rest = text;
    let bytes = sequence(&mut rest);
    assert!(rest.is_empty(), "{rest:?} is left of {text:?}");
    bytes
}

fn sequence(rest: &mut &str) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        *rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix("s'") {
            let (text, after) = after.split_once('\'').expect("a closing quote");
            out.extend_from_slice(&u16::try_from(text.len()).expect("short").to_be_bytes());
            out.extend_from_slice(text.as_bytes());
            *rest = after;
        } else if let Some(after) = rest.strip_prefix('\'') {
            let (text, after) = after.split_once('\'').expect("a closing quote");
            out.extend_from_slice(text.as_bytes());
            *rest = after;
        } else if let Some(after) = rest.strip_prefix('~') {
            *rest = after;
            let content = sequence(rest);
            with_length(&content, &mut out);
        } else if let Some(after) = rest.strip_prefix('{') {
            *rest = after;
            let content = sequence(rest);
            *rest = rest.strip_prefix('}').expect("a closing brace");
            with_length(&content, &mut out);
        } else if rest.is_empty() || rest.starts_with('}') {
            return out;
        } else {
            let byte = rest.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
            out.push(byte.unwrap_or_else(|| panic!("{rest:?} is not hexadecimal")));
            *rest = &rest[2..];
        }
    }
}

fn with_length(content: &[u8], out: &mut Vec<u8>) {
    let mut length = content.len();
    while length > 127 {
        out.push(u8::try_from(length % 128).expect("below 128") | 128);
        length /= 128;
    }
    out.push(u8::try_from(length).expect("below 128"));
    out.extend_from_slice(content);
}

#[test]
fn stands_for_bytes() {
    assert_eq!(bytes("82 ~ 000a { 0b01 } s'a/b' 01"), b"\x82\x0b\x00\x0a\x02\x0b\x01\x00\x03a/b\x01");
    assert_eq!(bytes("'GET' 00ff"), b"GET\x00\xff");
    assert_eq!(bytes("{}"), [0]);
}
