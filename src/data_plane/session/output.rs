//! Bytes on their way to one connection.

use bytes::{Buf, Bytes};

/// What is to be written to one connection, in order.
///
/// Small packets are copied into one buffer; large payloads are shared between the subscribers of a
/// message and only referred to.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// (position in `bytes` before which it goes, the shared piece).
    shared: Vec<(usize, Bytes)>,
    shared_len: usize,
}

/// Payloads from this size up are shared, not copied: the reference then costs less than the copy.
pub const SHARE_FROM_BYTES: usize = 2_048;

impl Output {
    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shared_len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer that packets are encoded into.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Puts a shared piece behind what is there.
    pub fn push_shared(&mut self, piece: Bytes) {
        self.shared_len += piece.len();
        self.shared.push((self.bytes.len(), piece));
    }

    /// Puts all of `later` behind what is there and leaves it empty, keeping its memory when this one
    /// had none.
    pub fn append(&mut self, later: &mut Self) {
        if self.is_empty() {
            std::mem::swap(self, later);
            return;
        }
        let base = self.bytes.len();
        self.bytes.append(&mut later.bytes);
        self.shared.extend(later.shared.drain(..).map(|(at, piece)| (base + at, piece)));
        self.shared_len += std::mem::take(&mut later.shared_len);
    }

    /// Takes so many bytes off the front; at most all of them.
    pub fn advance(&mut self, count: usize) {
        if count >= self.len() {
            self.clear();
            return;
        }
        let mut rest = Self::default();
        let (mut at, mut skip) = (0, count);
        let shared = std::mem::take(&mut self.shared);
        for (end, piece) in
            shared.into_iter().map(|(end, piece)| (end, Some(piece))).chain([(self.bytes.len(), None)])
        {
            let skipped = skip.min(end - at);
            rest.bytes.extend_from_slice(&self.bytes[at + skipped..end]);
            (at, skip) = (end, skip - skipped);
            if let Some(mut piece) = piece {
                let skipped = skip.min(piece.len());
                skip -= skipped;
                piece.advance(skipped);
                if !piece.is_empty() {
                    rest.push_shared(piece);
                }
            }
        }
        *self = rest;
    }

    /// Empties it, and gives its memory back: a connection keeps none while nothing is written.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The pieces in the order in which they are written.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.shared.iter().map(|(at, _)| *at));
        let ends = self.shared.iter().map(|(at, _)| *at).chain(std::iter::once(self.bytes.len()));
        let copied = starts.zip(ends).map(|(start, end)| &self.bytes[start..end]);
        let shared = self.shared.iter().map(|(_, piece)| piece.as_ref()).chain(std::iter::once(&[][..]));
        copied.zip(shared).flat_map(|(copied, shared)| [copied, shared]).filter(|piece| !piece.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(output: &Output) -> String {
        output.pieces().map(String::from_utf8_lossy).collect()
    }

    #[test]
    fn keeps_the_order_of_copied_and_shared_pieces() {
        let mut output = Output::default();
        output.buffer().extend_from_slice(b"ab");
        output.push_shared(Bytes::from_static(b"CD"));
        output.push_shared(Bytes::from_static(b"EF"));
        output.buffer().extend_from_slice(b"gh");
        assert_eq!(text(&output), "abCDEFgh");
        assert_eq!(output.len(), 8);

        let mut later = Output::default();
        later.push_shared(Bytes::from_static(b"IJ"));
        later.buffer().extend_from_slice(b"kl");
        output.append(&mut later);
        assert_eq!(text(&output), "abCDEFghIJkl");
        assert!(later.is_empty());
        output.clear();
        assert!(output.is_empty() && text(&output).is_empty());
    }

    #[test]
    fn loses_from_its_front_what_was_written() {
        for count in 0..=11 {
            let mut output = Output::default();
            output.buffer().extend_from_slice(b"ab");
            output.push_shared(Bytes::from_static(b"CDE"));
            output.push_shared(Bytes::from_static(b"FG"));
            output.buffer().extend_from_slice(b"hij");
            output.advance(count);
            assert_eq!(text(&output), "abCDEFGhij"[count.min(10)..]);
            assert_eq!(output.len(), 10 - count.min(10));
            output.buffer().push(b'.');
            assert!(text(&output).ends_with('.'));
        }
    }
}
