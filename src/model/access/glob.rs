//! Patterns of client ids, user names and addresses.

use serde::{Deserialize, Serialize};

use super::AccessError;

/// A pattern in which `*` stands for any characters, also none, and `?` for exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Glob(Box<str>);

impl Glob {
    /// The greatest length, in bytes of UTF-8; that of a client id.
    pub const BYTES_MAX: usize = 256;

    /// Checks the length. Every text is a pattern.
    pub fn new(text: &str) -> Result<Self, AccessError> {
        if !(1..=Self::BYTES_MAX).contains(&text.len()) || text.contains('\0') {
            return Err(AccessError::GlobLength);
        }
        Ok(Self(text.into()))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `text` is what the pattern describes.
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut at, mut next) = (0, 0);
        // Where the pattern goes on after its last star, and from where in the text that was tried.
        let mut retry: Option<(usize, usize)> = None;
        while next < text.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    at += 1;
                    retry = Some((at, next));
                    continue;
                }
                Some(b'?') => {
                    at += 1;
                    next += bytes_of_char(text[next]);
                    continue;
                }
                Some(byte) if *byte == text[next] => {
                    at += 1;
                    next += 1;
                    continue;
                }
                _ => {}
            }
            let Some((after, from)) = retry else { return false };
            let from = from + bytes_of_char(text[from]);
            retry = Some((after, from));
            (at, next) = (after, from);
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

/// How long the character is that begins with this byte, in UTF-8.
const fn bytes_of_char(first: u8) -> usize {
    match first {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}

impl TryFrom<String> for Glob {
    type Error = AccessError;

    fn try_from(text: String) -> Result<Self, AccessError> {
        Self::new(&text)
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> Self {
        glob.0.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by its definition.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => (0..=text.len()).any(|n| naive(rest, &text[n..])),
            (Some(('?', rest)), Some((_, more))) => naive(rest, more),
            (Some((want, rest)), Some((found, more))) => want == found && naive(rest, more),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matches_by_its_definition(pattern in "[ab*?é]{1,8}", text in "[abé]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let glob = Glob::new(&pattern).expect("a pattern");
            prop_assert_eq!(glob.matches(&text), naive(&chars(&pattern), &chars(&text)));
        }
    }

    #[test]
    fn a_question_mark_is_one_character_and_case_counts() {
        let matches = |pattern: &str, text: &str| Glob::new(pattern).expect("a pattern").matches(text);
        assert!(matches("m?ter-*", "mäter-1") && matches("*", "") && matches("a*", "a"));
        assert!(!matches("m?ter", "mter") && !matches("a", "A") && !matches("?", ""));
        for bad in ["", "a\0", &"x".repeat(257)] {
            assert_eq!(Glob::new(bad), Err(AccessError::GlobLength));
        }
    }
}
