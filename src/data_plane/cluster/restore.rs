//! Sessions read back when the service starts.

use super::Cluster;
use crate::data_plane::broker::subscription_index::Subscriber;
use crate::data_plane::message_log::MessageLog;
use crate::data_plane::session::{HeldSubscription, Offline};
use crate::model::{Now, SessionExpiry};
use crate::seam::ports::StoredSession;

impl<L: MessageLog> Cluster<L> {
    /// Takes a stored session as an offline one. One that has expired meanwhile, or was to end with
    /// its connection, ends with the next [`Cluster::time_passes`].
    pub fn restore(&mut self, now: Now, stored: StoredSession) {
        let StoredSession { row, operator_expiry, subscriptions } = stored;
        let expiry = SessionExpiry {
            client_secs: row.expiry_client_secs,
            bounded_by_cluster: row.expiry_bounded,
            operator: operator_expiry,
        };
        let slot = self.begin(now, row.session_id, row.client_id, expiry);
        let since = row.disconnected_at.unwrap_or(now.wall);
        let expires_at = expiry.expires_at(since);
        self.registry.expires(expires_at, slot);
        let session = &mut self.sessions[slot.0 as usize];
        session.epoch = row.epoch;
        session.created_at = row.created_at;
        session.offline = Some(Offline { since, expires_at, conn: None });
        session.durable = true;
        session.admitted = true;
        session.subscriptions.reserve_exact(subscriptions.len());
        for subscription in subscriptions {
            let (filter, group) = if subscription.filter.shared().is_some() {
                let (filter, group) = self.join_group(slot, &subscription, true, true);
                (filter, Some(group))
            } else {
                let subscriber = Subscriber::new(slot, &subscription, true);
                (self.index.put(&subscription.filter, subscriber), None)
            };
            let held = HeldSubscription { subscription, filter, group, start: self.log.tail() };
            self.session(slot).subscriptions.push(held);
        }
    }
}
