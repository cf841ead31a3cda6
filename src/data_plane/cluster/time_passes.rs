//! What happens because time passes: expiry, delayed wills, silent clients, repetition.

use super::detach::Ending;
use super::publish::Along;
use super::{Cluster, facts};
use crate::data_plane::broker::Slot;
use crate::data_plane::protocol::ReasonCode;
use crate::model::{Monotonic, Now, SessionEnd};

/// How often connections and the log are looked at. Keep-alive is in seconds, so that is fine enough.
const SWEEP_MILLIS: u64 = 1_000;

impl Cluster {
    /// Does what has fallen due. Called at the start of each turn, before anything is decided or
    /// counted, so that expiry is a matter of the clock and not of a sweeper (PRODUCT S-7).
    pub fn time_passes(&mut self, now: Now) {
        self.expire_due(now);
        self.publish_due_wills(now);
        self.forget_expired_retained(now);
        self.save_progress(now);
        self.take_what_waits(now);
        if now.mono.since(self.swept_at).as_millis() >= u128::from(SWEEP_MILLIS) {
            self.swept_at = now.mono;
            self.end_silent_connections(now);
            self.end_overdue_authentications(now);
            self.end_expired_proofs(now);
            self.repeat_unanswered(now);
            self.send_owed_again(now);
            self.rebalance_groups(now);
            self.trim_log();
            self.write_tallies_down();
            self.tell_of_itself(now);
        }
    }

    pub(super) fn expire_due(&mut self, now: Now) {
        while let Some(slot) = self.registry.expired(now.wall) {
            self.destroy(now, slot, SessionEnd::Expired);
        }
    }

    fn publish_due_wills(&mut self, now: Now) {
        while let Some((due_at, slot)) = self.wills.first().copied()
            && due_at <= now.wall
        {
            self.wills.pop_first();
            let session = self.session(slot);
            let gone = Along::Always(facts::no_will(session.id));
            if let Some(will) = session.will.take() {
                self.publish_will(now, *will, gone);
            }
        }
    }

    fn end_silent_connections(&mut self, now: Now) {
        let silent = |slot: &Slot| {
            let link = self.sessions[slot.0 as usize].link.as_ref();
            // Who is not read is not silent.
            !self.throttle.is_stalled(*slot) && link.is_some_and(|link| link.is_silent(now.mono))
        };
        let due: Vec<Slot> = self.online.iter().copied().filter(silent).collect();
        for slot in due {
            let why = "no packet for one and a half times the keep-alive [MQTT-3.1.2-22]".to_owned();
            self.detach(now, slot, &Ending::broken("keep_alive_timeout", ReasonCode::KeepAliveTimeout, why));
        }
    }

    fn repeat_unanswered(&mut self, now: Now) {
        let after_millis = u64::from(self.rules.resend_after_secs) * 1_000;
        let before = now.mono.as_millis().checked_sub(after_millis);
        let Some(before) = before.filter(|_| after_millis > 0) else { return };
        let Self { sessions, online, effects, .. } = self;
        for slot in online {
            let session = &mut sessions[slot.0 as usize];
            session.repeat_unanswered(now, Monotonic::from_millis(before));
            effects.touch(*slot, session);
        }
    }
}
