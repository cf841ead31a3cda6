//! How many messages came, went, were lost and are kept, for each session and for the cluster.
//!
//! A connection counts for itself; when it ends, its session and the cluster take over what it counted.

use super::Cluster;
use crate::data_plane::session::Session;
use crate::model::MessageCounters;

impl Cluster {
    /// What the cluster counted since the process started. Looks at each connection.
    pub fn message_counters(&self) -> MessageCounters {
        let mut counters = self.ended_counters;
        for slot in &self.online {
            if let Some(link) = &self.sessions[slot.0 as usize].link {
                counters.add(link.counters);
            }
        }
        counters
    }

    /// How many CONNECTs were let in since the process started.
    pub fn connects(&self) -> u64 {
        self.connects
    }

    /// How many messages are retained, and their bytes.
    pub fn retained_usage(&self) -> (usize, u64) {
        (self.retained.len(), self.retained.bytes())
    }

    /// How many bytes of messages the log keeps in memory.
    pub fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// What the session of a client counted since the process started, if there is one.
    pub fn session_counters(&self, client_id: &str) -> Option<MessageCounters> {
        let slot = self.registry.get(client_id)?;
        self.sessions.get(slot.0 as usize).map(Session::counters)
    }
}
