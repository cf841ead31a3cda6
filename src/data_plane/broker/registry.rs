//! Client id → session, how many there are, and which offline ones expire when.

use std::collections::{BTreeSet, HashMap};

use super::Slot;
use crate::model::{ClientId, SessionCounts, Timestamp};

/// Who is there. Holds where each session is kept, not the session.
#[derive(Debug, Default)]
pub struct Registry {
    by_client: HashMap<ClientId, Slot, foldhash::fast::RandomState>,
    /// Offline sessions in the order in which they expire.
    expiring: BTreeSet<(Timestamp, Slot)>,
    online: u32,
}

impl Registry {
    /// The session of a client.
    pub fn get(&self, client_id: &str) -> Option<Slot> {
        self.by_client.get(client_id).copied()
    }

    /// A session begins, without a connection yet and with no expiry running.
    pub fn insert(&mut self, client_id: ClientId, slot: Slot) {
        self.by_client.insert(client_id, slot);
    }

    /// A session has ended. Its expiry and connection must already be taken back.
    pub fn remove(&mut self, client_id: &ClientId) {
        self.by_client.remove(client_id.as_str());
    }

    /// A connection was attached.
    pub fn attached(&mut self) {
        self.online += 1;
    }

    /// A connection was detached.
    pub fn detached(&mut self) {
        self.online -= 1;
    }

    /// An offline session expires at this time.
    pub fn expires(&mut self, at: Timestamp, slot: Slot) {
        self.expiring.insert((at, slot));
    }

    /// An offline session no longer expires at this time.
    pub fn expires_no_more(&mut self, at: Timestamp, slot: Slot) {
        self.expiring.remove(&(at, slot));
    }

    /// The next session that has expired by `now` (PRODUCT S-7). It stays listed until taken back.
    pub fn expired(&self, now: Timestamp) -> Option<Slot> {
        let (at, slot) = self.expiring.first()?;
        (*at <= now).then_some(*slot)
    }

    /// How many sessions there are. Exact once everything that expired has been taken out.
    pub fn counts(&self) -> SessionCounts {
        let total = u32::try_from(self.by_client.len()).unwrap_or(u32::MAX);
        SessionCounts { online: self.online, offline_persistent: total - self.online }
    }
}
