//! What changes for connections when the cluster's users change, or a client authenticates again.

use super::Cluster;
use super::detach::Ending;
use super::pending::Attachment;
use crate::data_plane::broker::Slot;
use crate::data_plane::protocol::{Auth, Packet, ReasonCode};
use crate::data_plane::session::authentication::AuthError;
use crate::data_plane::session::link::Link;
use crate::model::Now;

impl Cluster {
    /// Ends the connections whose users went away, or have another password than the one that was
    /// proven.
    pub(super) fn end_voided_connections(&mut self, now: Now) {
        let users = &self.rules.users;
        let is_void = |link: &Link| match (&link.username, link.secrets_id) {
            (Some(username), Some(secrets_id)) => !users.holds(username, secrets_id),
            // Nobody has proven anything.
            _ => false,
        };
        for slot in self.online_where(is_void) {
            self.detach(now, slot, &Ending::user_changed());
        }
    }

    /// An AUTH of a client that was let in by an authentication method (MQTT 5.0, 4.12.1).
    pub(super) fn authenticate_again(&mut self, now: Now, attachment: Attachment, auth: &Auth) {
        let users = std::sync::Arc::clone(&self.rules.users);
        let Some(session) = self.attached_session(attachment) else { return };
        let Some(link) = session.link.as_mut() else { return };
        match link.reauthenticate(now.mono, auth, &users) {
            Ok(answer) => {
                if !link.send(&Packet::Auth(Box::new(answer))) {
                    let why = "AUTH is larger than the client's Maximum Packet Size".to_owned();
                    let ending = Ending::broken("packet_too_large", ReasonCode::PacketTooLarge, why);
                    self.detach(now, attachment.slot, &ending);
                }
            }
            Err(error) => self.detach(now, attachment.slot, &not_authenticated(error)),
        }
    }

    /// Ends the connections of clients that have begun to authenticate again and do not go on.
    pub(super) fn end_overdue_authentications(&mut self, now: Now) {
        for slot in self.online_where(|link| link.authentication_is_overdue(now.mono)) {
            self.detach(now, slot, &not_authenticated(AuthError::Overdue));
        }
    }

    fn online_where(&self, wanted: impl Fn(&Link) -> bool) -> Vec<Slot> {
        let has = |slot: &Slot| self.sessions[slot.0 as usize].link.as_deref().is_some_and(&wanted);
        self.online.iter().copied().filter(has).collect()
    }
}

/// `[MQTT-4.12.1-2]`
fn not_authenticated(error: AuthError) -> Ending {
    Ending::broken("not_authenticated", error.in_disconnect(), error.to_string())
}
