//! Automatic subscriptions: what a client is subscribed to at its CONNECT without having asked.
//!
//! Evaluated when the session is there and before its CONNACK, so that what the session had comes first, then what
//! the rules give, then what the client asks for itself (PRODUCT 2). The newest rule comes first; of several that give
//! the same filter it holds. A filter that the session has is left as it is, with its options.
//!
//! The quotas hold as for a SUBSCRIBE, its rate does not, and neither do the cluster's policies: the rule is the
//! operator's own word. What does not fit is left out, and recorded as a refusal; the next CONNECT tries again.
//! A rule that goes takes nothing away: the subscription stays until it is unsubscribed or its session ends.

use std::sync::Arc;

use super::Cluster;
use super::subscribe::NotGranted;
use crate::data_plane::broker::Slot;
use crate::data_plane::protocol::ReasonCode;
use crate::model::{Now, RefusalReason, Subscription, TopicFilter, Variables};

impl Cluster {
    /// Subscribes a client that has just connected to what the rules say. Returns to which filters it was.
    pub(super) fn subscribe_automatically(&mut self, now: Now, slot: Slot) -> Vec<TopicFilter> {
        if self.rules.automatic.rules.is_empty() {
            return Vec::new();
        }
        let rules = Arc::clone(&self.rules.automatic);
        let session = &self.sessions[slot.0 as usize];
        let client_id = session.client_id.clone();
        let username = session.link.as_ref().and_then(|link| link.username.clone());
        let who = Variables { client_id: client_id.as_str(), username: username.as_deref() };
        // What was refused by a newer rule is not asked for by an older one.
        let (mut granted, mut refused) = (Vec::new(), Vec::new());
        for rule in rules.rules.iter().filter(|rule| rule.spec.is_for(who)) {
            let outcome = match rule.spec.subscription_of(who) {
                Ok(Subscription { filter, .. })
                    if refused.contains(&filter)
                        || self.session(slot).subscription(filter.as_str()).is_some() =>
                {
                    continue;
                }
                Ok(subscription) => {
                    let filter = subscription.filter.clone();
                    let outcome = self.subscribe_unasked(now, slot, subscription);
                    if outcome.is_ok() { &mut granted } else { &mut refused }.push(filter);
                    outcome
                }
                Err(unfit) => {
                    Err((ReasonCode::TopicFilterInvalid, RefusalReason::FilterInvalid, unfit.to_string()))
                }
            };
            if let Err((code, reason, why)) = outcome {
                let why = format!("automatic subscription to {}: {why}", rule.spec.filter.as_str());
                self.tell_not_subscribed(now, slot, code, reason, &why);
            }
        }
        if !granted.is_empty() {
            // Where its filters begin must outlive the CONNACK.
            self.save(slot);
            self.save_groups_of(slot);
        }
        granted
    }

    fn subscribe_unasked(
        &mut self,
        now: Now,
        slot: Slot,
        subscription: Subscription,
    ) -> Result<(), NotGranted> {
        if self.session(slot).durable && self.store_away {
            let why = "the session store is away".to_owned();
            return Err((ReasonCode::UnspecifiedError, RefusalReason::StoreUnavailable, why));
        }
        if subscription.filter.pattern().starts_with("$SYS/") {
            self.refresh_system_topics(now);
        }
        // What is owed for it is sent behind CONNACK.
        self.subscribe_one(now, slot, subscription, true).map(|_| ())
    }

    /// The record of the CONNECT was not committed: what came with it is not in force.
    pub(super) fn take_back_automatic(&mut self, slot: Slot, filters: &[TopicFilter]) {
        for filter in filters {
            let _ = self.unsubscribe_one(slot, filter);
        }
        if !filters.is_empty() {
            self.save(slot);
        }
    }
}
