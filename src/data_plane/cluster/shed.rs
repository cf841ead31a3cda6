//! Sessions end because a quota was lowered below what is used (PRODUCT 2 and 3).

use super::Cluster;
use super::detach::Ending;
use super::effects::CommandId;
use super::orders::NO_SESSION;
use crate::data_plane::broker::Slot;
use crate::model::{Now, Quota, SessionEnd};
use crate::seam::command::SessionRef;
use crate::seam::ports::SessionWrite;
use crate::seam::quota::{Fit, Shed, ShedFirst, ShedOrder};

impl Cluster {
    /// How much is used of what `quota` limits, and whether that fits.
    pub fn fit(&self, quota: &Quota) -> Fit {
        let (sessions, subscriptions) = (self.counts(), self.subscription_count());
        let shared_groups = self.share_name_count();
        let within = |limit: Option<u32>, used| limit.is_none_or(|limit| used <= limit);
        let fits = within(quota.connections, sessions.total())
            && within(quota.subscriptions, subscriptions)
            && within(quota.shared_groups, shared_groups);
        Fit { sessions, subscriptions, shared_groups, fits }
    }

    /// The sessions that [`Cluster::shed`] would end.
    pub fn foresee_shed(&self, order: &ShedOrder) -> Shed {
        let (over, slots) = self.to_be_shed(order);
        let sessions = slots.into_iter().map(|slot| self.told(slot)).collect();
        Shed { over, sessions }
    }

    /// Ends sessions above the limit, and says which. The answer under `id` comes when their sockets are closed and
    /// their records gone; there is none when no session ends.
    pub fn shed(&mut self, now: Now, id: CommandId, order: &ShedOrder) -> Shed {
        let (over, slots) = self.to_be_shed(order);
        let mut shed = Shed { over, sessions: Vec::with_capacity(slots.len()) };
        let mut conns = Vec::new();
        for slot in slots {
            shed.sessions.push(self.told(slot));
            let session = self.session(slot);
            let online = session.link.as_ref().map(|link| link.conn);
            conns.extend(online.or(session.offline.and_then(|offline| offline.conn)));
            self.detach_and_destroy(now, slot, &Ending::shed(order.limit), SessionEnd::QuotaLowered);
        }
        if let Some((_, last)) = shed.sessions.last() {
            // Once this is committed, so is every write before it.
            let ticket = self.pending.prove(id, *last, conns, false);
            self.effects
                .writes
                .push((SessionWrite::Remove(NO_SESSION, SessionEnd::QuotaLowered), Some(ticket)));
        }
        shed
    }

    /// How many sessions there are above the limit, and which of them are to end, at most so many as one
    /// order may.
    fn to_be_shed(&self, order: &ShedOrder) -> (u32, Vec<Slot>) {
        let over = self.counts().total().saturating_sub(order.limit);
        let wanted = usize::try_from(over).unwrap_or(usize::MAX).min(order.most);
        if wanted == 0 {
            return (over, Vec::new());
        }
        let candidates = self.sessions.iter().filter(|(_, session)| {
            let may = order.first == ShedFirst::Newest || session.offline.is_some();
            may && !session.protected
        });
        // Smallest first. What began in the same millisecond is told apart by the identity, which grows with
        // time.
        let mut ranked: Vec<_> = candidates
            .filter_map(|(at, session)| {
                let id = session.id.0.as_u128();
                let rank = match order.first {
                    ShedFirst::Newest => (-session.created_at.as_millis(), !id),
                    ShedFirst::OldestOffline => (session.offline?.since.as_millis(), id),
                };
                Some((rank, Slot(at.try_into().ok()?)))
            })
            .collect();
        if ranked.len() > wanted {
            ranked.select_nth_unstable(wanted);
            ranked.truncate(wanted);
        }
        ranked.sort_unstable();
        (over, ranked.into_iter().map(|(_, slot)| slot).collect())
    }

    /// A session by its names.
    fn told(&self, slot: Slot) -> (crate::model::ClientId, SessionRef) {
        let session = &self.sessions[slot.0 as usize];
        let met = SessionRef {
            session_id: session.id,
            epoch: session.epoch,
            was_online: session.link.is_some(),
            was_subscribed: false,
        };
        (session.client_id.clone(), met)
    }
}
