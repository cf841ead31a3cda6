//! Authorisation policies and block rules, as clients meet them (PRODUCT 3 and 4).
//!
//! | a client | is not let to: v5 | v3 |
//! | --- | --- | --- |
//! | connects, or would with this will | CONNACK 0x87 | 5 |
//! | is blocked | CONNACK 0x8A | 5 |
//! | publishes at QoS 1 or 2 | PUBACK, PUBREC 0x87 | acknowledged, and goes no further (`[MQTT-3.3.5-2]`) |
//! | publishes at QoS 0 | goes no further | goes no further |
//! | subscribes | SUBACK 0x87 for the filter | 0x80 |
//!
//! **Rules that change** hold for live clients before the next packet. Whom a block rule names loses its
//! connection (0x8A), and whom the policies no longer let connect (0x87). A subscription that is not
//! permitted any longer is *muted*: it stays, so that a slip of the policies costs no fleet its
//! subscriptions, and nothing more is sent for it. What was under way is finished (`[MQTT-3.10.4-3]`). If it
//! is permitted again it goes on with what is published from then on. A session without a connection gets
//! nothing anyway; its subscriptions are judged when its client returns, as what it then is. A will is judged
//! at CONNECT and again when the connection ends.

use std::collections::HashSet;

use smallvec::SmallVec;

use super::Cluster;
use super::detach::Ending;
use super::limits::NotTaken;
use super::pending::Awaiting;
use super::subscribe::NotGranted;
use super::verdict::Refused;
use crate::data_plane::broker::Slot;
use crate::data_plane::broker::authorization::{BLOCKED, blocked_by, permits};
use crate::data_plane::protocol::{Connect, ReasonCode};
use crate::data_plane::session::link::{ConnId, Link};
use crate::data_plane::session::{HeldSubscription, Session};
use crate::model::{
    AccessClient, AccessRequest, ClientId, DesiredCluster, FilterShape, Message, Now, Policy, RefusalReason,
    Subscription, SubscriptionOrigin, Variables,
};

/// Connections that block rules have ended, until their ends are proven.
#[derive(Debug, Default)]
pub(super) struct Expelled {
    /// Those whose sockets are still open.
    open: HashSet<ConnId, foldhash::fast::RandomState>,
    /// How often records of such ends wait to be committed.
    unrecorded: u32,
}

impl Expelled {
    pub(super) fn closed(&mut self, conn: ConnId) {
        self.open.remove(&conn);
    }

    /// The records met their fate. One that waits for the database, or is refused by it, is not waited for:
    /// the connection is closed all the same.
    pub(super) fn recorded(&mut self) {
        self.unrecorded = self.unrecorded.saturating_sub(1);
    }
}

impl Cluster {
    /// Whether every connection that a block rule has ended is closed, and its record says so.
    pub fn expulsions_are_proven(&self) -> bool {
        self.expelled.open.is_empty() && self.expelled.unrecorded == 0
    }

    /// Refuses a client that a block rule keeps out.
    pub(super) fn not_blocked(&self, now: Now, client: &AccessClient<'_>) -> Result<(), Refused> {
        match blocked_by(&self.rules, client, now.wall) {
            Some(_) => Err(Refused::new(ReasonCode::Banned, RefusalReason::Blocked, BLOCKED)),
            None => Ok(()),
        }
    }

    /// Refuses a CONNECT that the policies do not let in, or not with its will. `own`: the client's own rules.
    pub(super) fn may_connect(
        &self,
        client: &AccessClient<'_>,
        (is_superuser, own): (bool, &[Policy]),
        connect: &Connect,
    ) -> Result<(), Refused> {
        let may = |request| is_superuser || permits(&self.rules, own, client, &request);
        let refused = |why| Refused::new(ReasonCode::NotAuthorized, RefusalReason::NotAuthorized, why);
        if !may(AccessRequest::Connect) {
            return Err(refused("the cluster's policies do not let this client connect"));
        }
        let will = connect.will.as_ref().map(|will| AccessRequest::Publish {
            topic: will.topic.as_str(),
            qos: will.qos,
            retain: will.retain,
        });
        if will.is_some_and(|will| !may(will)) {
            return Err(refused("the cluster's policies do not let this client publish its will"));
        }
        Ok(())
    }

    /// Whether a client may publish this. One look-up for a topic that it has published to before; none
    /// without policies.
    pub(super) fn may_publish(&mut self, slot: Slot, message: &Message) -> Result<(), NotTaken> {
        let topic = message.topic.as_str();
        let session = &self.sessions[slot.0 as usize];
        let Some(link) = session.link.as_deref() else { return Ok(()) };
        let no_rules = self.rules.access.policies.is_empty() && link.own_rules().is_empty();
        if no_rules && !message.topic.is_reserved() {
            return Ok(());
        }
        let (conn, qos, retain) = (link.conn.0, message.qos, message.retain);
        let known = self.decisions.get(conn, topic, qos, retain);
        let may = known.unwrap_or_else(|| {
            let request = AccessRequest::Publish { topic, qos, retain };
            let may = link_may(&self.rules, &session.client_id, link, &request);
            self.decisions.put(conn, topic, qos, retain, may);
            may
        });
        if may {
            return Ok(());
        }
        let why = "the cluster's policies do not let this client publish there".to_owned();
        Err(NotTaken { reason: ReasonCode::NotAuthorized, word: "not_authorized", why, silently: true })
    }

    /// Whether a client may have this subscription.
    pub(super) fn may_subscribe(&self, slot: Slot, subscription: &Subscription) -> Result<(), NotGranted> {
        let session = &self.sessions[slot.0 as usize];
        if session.link.as_deref().is_none_or(|link| self.link_may_subscribe(session, link, subscription)) {
            return Ok(());
        }
        let why = "the cluster's policies do not let this client subscribe to that".to_owned();
        Err((ReasonCode::NotAuthorized, RefusalReason::NotAuthorized, why))
    }

    fn link_may_subscribe(&self, session: &Session, link: &Link, subscription: &Subscription) -> bool {
        let Subscription { filter, qos, origin, .. } = subscription;
        if *origin == SubscriptionOrigin::Automatic {
            // An operator's own word, as EMQX takes it too; the client's own SUBSCRIBE to the same is judged.
            return true;
        }
        let no_rules = self.rules.access.policies.is_empty() && link.own_rules().is_empty();
        if no_rules && !filter.pattern().starts_with('$') {
            return true;
        }
        let request = AccessRequest::Subscribe { filter: &FilterShape::new(filter), qos: *qos };
        link_may(&self.rules, &session.client_id, link, &request)
    }

    /// Judges the subscriptions of a session that has a connection: mutes those that it may not have, and no
    /// others. Returns where the changed ones are.
    pub(super) fn judge_subscriptions(&mut self, slot: Slot) -> SmallVec<[usize; 2]> {
        let session = &self.sessions[slot.0 as usize];
        let Some(link) = session.link.as_deref() else { return SmallVec::new() };
        let mutes = |held: &HeldSubscription| !self.link_may_subscribe(session, link, &held.subscription);
        let held = session.subscriptions.iter().enumerate();
        let changed: SmallVec<[usize; 2]> =
            held.filter(|(_, held)| held.muted != mutes(held)).map(|(at, _)| at).collect();
        for at in &changed {
            let held = &mut self.sessions[slot.0 as usize].subscriptions[*at];
            held.muted = !held.muted;
            match held.group {
                Some(group) => self.groups.set_muted(group, slot, held.muted),
                None => self.index.set_online(held.filter, slot, !held.muted),
            }
            if held.muted {
                let filter = held.subscription.filter.clone();
                self.owe_nothing(slot, &filter);
            }
        }
        changed
    }

    /// The rules have changed: what a session is sent changes with them.
    fn review_subscriptions(&mut self, now: Now, slot: Slot) {
        let (changed, tail) = (self.judge_subscriptions(slot), self.log.tail());
        let session = self.session(slot);
        let mut goes_on = false;
        for at in changed {
            let held = &mut session.subscriptions[at];
            if !held.muted {
                // What was published meanwhile was not for it.
                held.start = tail;
                goes_on = true;
            }
        }
        if goes_on {
            self.save(slot);
            self.catch_up(now, slot);
            self.touch(slot);
        }
    }

    /// A will that the client may no longer publish goes before it is.
    pub(super) fn drop_denied_will(&mut self, slot: Slot, link: &Link) {
        let session = &self.sessions[slot.0 as usize];
        let Some(Message { topic, qos, retain, .. }) = session.will.as_ref().map(|will| &will.message) else {
            return;
        };
        let request = AccessRequest::Publish { topic: topic.as_str(), qos: *qos, retain: *retain };
        if !link_may(&self.rules, &session.client_id, link, &request) {
            self.cancel_will(slot);
        }
    }

    /// What of `rules` changes who may do what.
    pub(super) fn access_changes(&self, rules: &DesiredCluster) -> AccessChanges {
        let (new, old) = (rules, &self.rules);
        let access = new.access != old.access;
        AccessChanges {
            policies: (access && new.access.policies != old.access.policies)
                || new.allow_anonymous != old.allow_anonymous
                || (new.users != old.users && new.users.superusers != old.users.superusers),
            block_rules: access && new.access.block_rules != old.access.block_rules,
        }
    }

    /// Holds everybody who is there against the rules as they are now.
    pub(super) fn enforce_access(&mut self, now: Now, changes: AccessChanges) {
        if changes.block_rules {
            self.expel(now);
        }
        if changes.policies {
            self.decisions.clear();
            for slot in self.online.clone() {
                let session = &self.sessions[slot.0 as usize];
                let may = |link| link_may(&self.rules, &session.client_id, link, &AccessRequest::Connect);
                if session.link.as_deref().is_some_and(may) {
                    self.review_subscriptions(now, slot);
                } else {
                    self.detach(now, slot, &Ending::not_authorized());
                }
            }
        }
    }

    /// Ends the connections of those whom a block rule keeps out.
    fn expel(&mut self, now: Now) {
        let mut records = false;
        for slot in self.online.clone() {
            let session = &self.sessions[slot.0 as usize];
            let Some(link) = session.link.as_deref() else { continue };
            if blocked_by(&self.rules, &client_of(&session.client_id, link), now.wall).is_none() {
                continue;
            }
            self.expelled.open.insert(link.conn);
            self.detach(now, slot, &Ending::blocked());
            records = true;
        }
        if records {
            self.expelled.unrecorded += 1;
            self.ticket_last_write(Awaiting::Expelled);
        }
    }
}

/// What of the rules has changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct AccessChanges {
    policies: bool,
    block_rules: bool,
}

/// Who is at the other end of a link.
fn client_of<'a>(client_id: &'a ClientId, link: &'a Link) -> AccessClient<'a> {
    let names = Variables { client_id: client_id.as_str(), username: link.username.as_deref() };
    AccessClient { names, address: link.origin.ip() }
}

/// Whether the client at the other end of a link may do this. A superuser may do everything.
fn link_may(rules: &DesiredCluster, client_id: &ClientId, link: &Link, request: &AccessRequest<'_>) -> bool {
    let proven = link.username.as_deref().filter(|_| link.secrets_id.is_some());
    proven.is_some_and(|username| rules.users.is_superuser(username))
        || link.vouched.as_ref().is_some_and(|vouched| vouched.is_superuser)
        || permits(rules, link.own_rules(), &client_of(client_id, link), request)
}
