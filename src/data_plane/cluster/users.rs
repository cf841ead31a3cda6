//! What changes for connections when the cluster's users or its chain of authenticators change, when a proof
//! has had its time, or a client authenticates again.

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

    /// Ends the connections that were let in by a link of the chain that is not asked any longer, or by a
    /// certificate that was revoked. Other changes hold from the next CONNECT on.
    pub(super) fn end_disowned_connections(&mut self, now: Now) {
        let chain = &self.rules.authenticators;
        let is_disowned = |link: &Link| match (&link.vouched, link.secrets_id) {
            (Some(vouched), _) => !chain.upholds(vouched),
            (None, Some(_)) => !chain.takes_passwords(),
            // Nobody has vouched for it.
            (None, None) => false,
        };
        for slot in self.online_where(is_disowned) {
            self.detach(now, slot, &Ending::disowned());
        }
    }

    /// Ends the connections whose proof has had its time.
    pub(super) fn end_expired_proofs(&mut self, now: Now) {
        let has_expired =
            |link: &Link| link.vouched.as_ref().is_some_and(|vouched| vouched.has_expired(now.wall));
        for slot in self.online_where(has_expired) {
            let why = "what the client was let in by has expired".to_owned();
            let ending = Ending::broken("credentials_expired", ReasonCode::NotAuthorized, why);
            self.detach(now, slot, &ending);
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
