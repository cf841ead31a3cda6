//! Settings of the cluster that hold for live connections as soon as they change.

use super::Cluster;
use crate::data_plane::session::handshake::keep_alive_secs;
use crate::model::Now;
use crate::seam::ports::SessionWrite;

impl Cluster {
    /// The keep-alive that the cluster imposes is another one (PRODUCT S-15). A client cannot be told
    /// before its next CONNECT, so its silence is counted from now.
    pub(super) fn impose_keep_alive(&mut self, now: Now) {
        let imposed = self.rules.server_keep_alive_secs;
        for slot in self.online.clone() {
            let Some(link) = self.session(slot).link.as_mut() else { continue };
            let in_force = keep_alive_secs(link.keep_alive_asked_secs, imposed);
            if link.keep_alive_secs == in_force {
                continue;
            }
            link.keep_alive_secs = in_force;
            link.last_seen = now.mono;
            let session = &self.sessions[slot.0 as usize];
            let row = session.link.as_ref().map(|link| self.online_row(slot, link));
            self.effects.writes.extend(row.map(|row| (SessionWrite::Put(Box::new(row)), None)));
        }
    }
}
