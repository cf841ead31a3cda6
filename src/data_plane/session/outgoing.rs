//! What goes out on a connection, and what of it must wait for the disk.
//!
//! A packet that tells of something (a PUBACK, a message, the next step of QoS 2) must not leave before
//! that something is written down, or a crash would make it a lie (PRODUCT S-12). So output can be
//! *held*: from there on it stays behind, in order, until the turn in which it was made is durable.

use std::collections::VecDeque;

use bytes::Bytes;

use super::output::Output;

/// Numbers the turns in which a cluster wrote something down; grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn(pub u64);

/// The output of one connection, in order.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// May leave.
    free: Output,
    /// Leaves when its turn is durable; then all before it has.
    held: VecDeque<(Turn, Output)>,
    /// Held by the turn that is going on.
    fresh: Option<Output>,
}

impl Outgoing {
    /// How many bytes wait, held ones included.
    pub fn len(&self) -> usize {
        let held: usize = self.held.iter().map(|(_, output)| output.len()).sum();
        self.free.len() + held + self.fresh.as_ref().map_or(0, Output::len)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.free.is_empty() && self.held.is_empty() && self.fresh.is_none()
    }

    /// Whether something waits for the disk.
    pub fn is_held(&self) -> bool {
        !self.held.is_empty() || self.fresh.is_some()
    }

    /// What is added from here on tells of what this turn writes down.
    pub fn hold(&mut self) {
        self.fresh.get_or_insert_default();
    }

    /// The buffer that packets are encoded into.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        self.last().buffer()
    }

    /// Puts a shared piece behind what is there.
    pub fn push_shared(&mut self, piece: Bytes) {
        self.last().push_shared(piece);
    }

    fn last(&mut self) -> &mut Output {
        match (&mut self.fresh, self.held.back_mut()) {
            (Some(fresh), _) => fresh,
            (None, Some((_, held))) => held,
            (None, None) => &mut self.free,
        }
    }

    /// The turn ends: what it held waits for `written`, the last turn in which something was written
    /// down. What waits for `durable` or an earlier turn is free.
    pub fn settle(&mut self, written: Turn, durable: Turn) {
        if let Some(fresh) = self.fresh.take() {
            self.held.push_back((written, fresh));
        }
        while let Some((turn, output)) = self.held.front_mut()
            && *turn <= durable
        {
            self.free.append(output);
            self.held.pop_front();
        }
    }

    /// What may leave. Whoever takes it leaves it empty.
    pub fn free(&mut self) -> &mut Output {
        &mut self.free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(outgoing: &mut Outgoing, text: &str) {
        outgoing.buffer().extend_from_slice(text.as_bytes());
    }

    fn take(outgoing: &mut Outgoing) -> String {
        let free = std::mem::take(outgoing.free());
        free.pieces().map(String::from_utf8_lossy).collect()
    }

    #[test]
    fn nothing_overtakes_what_is_held() {
        let mut outgoing = Outgoing::default();
        put(&mut outgoing, "a");
        outgoing.hold();
        put(&mut outgoing, "b");
        outgoing.settle(Turn(1), Turn(0));
        assert_eq!(take(&mut outgoing), "a");
        put(&mut outgoing, "c");
        outgoing.settle(Turn(1), Turn(0));
        assert_eq!(take(&mut outgoing), "");
        outgoing.hold();
        put(&mut outgoing, "d");
        outgoing.settle(Turn(2), Turn(1));
        assert_eq!(take(&mut outgoing), "bc");
        assert!(outgoing.is_held() && outgoing.len() == 1);
        outgoing.settle(Turn(2), Turn(2));
        assert_eq!(take(&mut outgoing), "d");
        assert!(outgoing.is_empty());
    }

    #[test]
    fn what_is_durable_already_holds_nothing() {
        let mut outgoing = Outgoing::default();
        outgoing.hold();
        put(&mut outgoing, "a");
        outgoing.settle(Turn(3), Turn(3));
        assert_eq!(take(&mut outgoing), "a");
        assert!(!outgoing.is_held());
    }
}
