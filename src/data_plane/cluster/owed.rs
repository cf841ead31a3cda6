//! Retained messages that subscriptions are owed (MQTT 5.0, 3.3.1.3, 3.8.4; PRODUCT S-12).
//!
//! For each filter a session holds a place in the retained messages, in order of topic, and the moment of the
//! subscription: what is put later comes as it is published, and not twice. Nothing is copied, so that a slow
//! client costs no memory.
//!
//! Of a durable session it is written down, too: that something is owed before SUBACK leaves, and each step
//! in one piece with the exchange that it begins. So a crash neither loses what is left nor repeats what was
//! sent. Where nothing is retained that could be lost nothing is written.
//!
//! Each such step takes room on the disk: when that is full what is owed waits, and what comes from the log goes
//! on.
//!
//! At QoS 0 a message may be lost, and to a client that is there it is no reason to write. To one that is not
//! there it is: it may be long until the client comes.

use super::Cluster;
use crate::data_plane::broker::Slot;
use crate::data_plane::session::Replay;
use crate::data_plane::session::progress::Note;
use crate::model::{FilterKey, Now, QoS, RetainHandling, Subscription, TopicFilter};

impl Cluster {
    /// A filter was subscribed to: what it is owed for that, in place of what it was owed before; that is
    /// returned. What is to be written down is noted. With `is_granted` it may be sent at once.
    pub(super) fn owe(
        &mut self,
        now: Now,
        slot: Slot,
        (subscription, is_new): (&Subscription, bool),
        is_granted: bool,
    ) -> Option<Replay> {
        // MQTT 5.0, 4.8.2: a shared subscription gets no retained messages.
        if subscription.filter.shared().is_some() {
            return None;
        }
        let age = self.retained.age();
        let session = self.session(slot);
        let at = session.replays.iter().position(|replay| replay.filter == subscription.filter);
        if !sends_retained(subscription, is_new) {
            // What was asked for earlier is not lost by that (`[MQTT-3.8.4-4]`).
            if let Some(at) = at {
                session.replays[at].follow(subscription);
            }
            return None;
        }
        let replaced = at.and_then(|at| session.replays.remove(at));
        let (durable, is_online) = (session.durable, session.link.is_some());
        let mut replay = Replay { is_granted, ..Replay::of(subscription, age) };
        if durable {
            let least = if is_online { QoS::AtLeastOnce } else { QoS::AtMostOnce };
            let greatest = self.greatest_owed(now, slot, &replay, least);
            replay.is_written_down = greatest >= Some(least);
            if replay.is_written_down || replaced.as_ref().is_some_and(|replaced| replaced.is_written_down) {
                self.session(slot).notes.push(Note::Owed(replay.key()));
            }
            if greatest.is_none() {
                return replaced;
            }
        }
        self.session(slot).replays.push_back(replay);
        replaced
    }

    /// The greatest QoS at which something is owed, as far as one of `enough` is not found.
    fn greatest_owed(&self, now: Now, slot: Slot, replay: &Replay, enough: QoS) -> Option<QoS> {
        let own = self.sessions[slot.0 as usize].client_key;
        let Replay { filter, age, no_local, qos, .. } = replay;
        let (mut greatest, mut after) = (None, None);
        while greatest < Some(enough)
            && let Some(message) = self.retained.next_matching(filter, after.as_deref(), *age, now.wall)
        {
            if !(*no_local && message.publisher == Some(own)) {
                greatest = greatest.max(Some(message.qos.min(*qos)));
            }
            after = Some(message.topic.to_string());
        }
        greatest
    }

    /// The subscription to this filter was answered.
    pub(super) fn grant_owed(&mut self, slot: Slot, filter: &TopicFilter) {
        let of_filter = |replay: &&mut Replay| replay.filter == *filter;
        if let Some(replay) = self.session(slot).replays.iter_mut().find(of_filter) {
            replay.is_granted = true;
        }
    }

    /// A subscription could not be recorded, and the one `before` it is in force again: so is what that was
    /// owed. `replaced` is what [`Cluster::owe`] returned.
    pub(super) fn owe_as_before(&mut self, slot: Slot, before: &Subscription, replaced: Option<Replay>) {
        let session = self.session(slot);
        let at = session.replays.iter().position(|replay| replay.filter == before.filter);
        let present = at.and_then(|at| session.replays.remove(at));
        let was_written_down = present.as_ref().is_some_and(|present| present.is_written_down);
        let earlier = replaced.or(present.filter(|present| present.is_granted));
        let is_written_down = earlier.as_ref().is_some_and(|earlier| earlier.is_written_down);
        if let Some(mut earlier) = earlier {
            earlier.follow(before);
            session.replays.push_back(earlier);
        }
        if was_written_down || is_written_down {
            session.note(Note::Owed(FilterKey::of(before.filter.as_str())));
        }
    }

    /// Retained messages of this filter are not owed to the session any longer.
    pub(super) fn owe_nothing(&mut self, slot: Slot, filter: &TopicFilter) {
        let session = self.session(slot);
        let at = session.replays.iter().position(|replay| replay.filter == *filter);
        if let Some(replay) = at.and_then(|at| session.replays.remove(at))
            && replay.is_written_down
        {
            session.note(Note::Owed(replay.key()));
            self.write_down(slot);
        }
    }

    /// The session becomes durable: from here on a crash must not take back what the session is owed.
    pub(super) fn owe_durably(&mut self, slot: Slot) {
        let session = self.session(slot);
        for replay in session.replays.iter_mut().filter(|replay| replay.qos > QoS::AtMostOnce) {
            replay.is_written_down = true;
            session.notes.push(Note::Owed(replay.key()));
        }
    }

    /// Sends what is owed as far as there is room. Returns whether none is left that may be sent.
    pub(super) fn send_owed(&mut self, now: Now, slot: Slot) -> bool {
        let Self { sessions, retained, journal, owed_waits, .. } = self;
        let session = &mut sessions[slot.0 as usize];
        // The filter whose next step is noted.
        let mut noted = None;
        while let Some(replay) = session.replays.front().filter(|replay| replay.is_granted) {
            if replay.is_written_down && !journal.has_room {
                *owed_waits = true;
                return true;
            }
            // Asked first: looking for the next one may be long.
            if !session.has_room_at(replay.qos) {
                return false;
            }
            let Replay { filter, after, age, is_written_down, .. } = replay;
            let key = is_written_down.then(|| replay.key());
            let Some(message) = retained.next_matching(filter, after.as_deref(), *age, now.wall) else {
                session.notes.extend(key.map(Note::Owed));
                session.replays.pop_front();
                continue;
            };
            let own = message.publisher == Some(session.client_key);
            let delivery = (!(own && replay.no_local)).then(|| replay.delivery_of(&message));
            if let Some(key) = key.filter(|key| noted != Some(*key)) {
                // Ahead of the message: at QoS 0, too, it must not come again.
                session.note(Note::Owed(key));
                noted = Some(key);
            }
            if let Some(replay) = session.replays.front_mut() {
                replay.after = Some(message.topic.as_str().into());
            }
            if let Some(delivery) = delivery {
                // There is room.
                let _ = session.send_kept(now, delivery, None);
            }
        }
        true
    }

    /// Goes on with what waited for room on the disk.
    pub(super) fn send_owed_again(&mut self, now: Now) {
        if !self.owed_waits || !self.journal.has_room {
            return;
        }
        self.owed_waits = false;
        let is_owed = |slot: &Slot| !self.sessions[slot.0 as usize].replays.is_empty();
        let waiting: Vec<Slot> = self.online.iter().copied().filter(is_owed).collect();
        for slot in waiting {
            self.catch_up(now, slot);
            self.touch(slot);
        }
    }
}

/// `[MQTT-3.3.1-9]` to `[MQTT-3.3.1-11]`.
fn sends_retained(subscription: &Subscription, is_new: bool) -> bool {
    match subscription.retain_handling {
        RetainHandling::Send => true,
        RetainHandling::SendIfNew => is_new,
        RetainHandling::DoNotSend => false,
    }
}
