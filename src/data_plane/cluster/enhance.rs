//! Message enhancement rules: what a cluster adds to what its clients publish (PRODUCT 5).
//!
//! A client's message is enhanced once: after it was found permitted and before it is matched, retained or kept.
//! So everybody gets the enhanced message, now or later, and a client of 3.1.1 can be the publisher of one with
//! properties of 5.0. A will is enhanced when it is published, by the rules of that moment, as a message of whoever
//! it was at its CONNECT. What the service publishes itself is not.
//!
//! A value that cannot be given is left out and counted: a response topic that would be no topic name, or beyond
//! the limits of topics (PRODUCT Q-9); empty correlation data; a user property that no longer fits beside the
//! others (PRODUCT Q-9), or with U+0000 in it (`[MQTT-1.5.4-2]`), which a token's claim may have. The next rule may
//! give what this one could not. What subscribers take at most (Maximum Packet Size) counts with what was added.
//!
//! A cluster without rules costs a message one look; a message that no rule is for, no memory.

use std::sync::Arc;

use bytestring::ByteString;

use super::limits::USER_PROPERTY_BYTES_MAX;
use super::{Cluster, topic_within_limits};
use crate::data_plane::broker::Slot;
use crate::data_plane::protocol::{ForwardedValues, forwarded_user_property_bytes, user_property_bytes};
use crate::data_plane::session::WillAuthor;
use crate::model::{
    ExpiryMode, Message, MessageRules, RuleEffects, RuleExpiry, RuleText, RuleTopic, RuleValues, TopicName,
    Variables,
};

impl Cluster {
    /// Adds to a message of an attached client what the rules say.
    pub(super) fn enhance_published(&mut self, slot: Slot, message: &mut Arc<Message>) {
        if self.rules.message_rules.rules.is_empty() {
            return;
        }
        let session = &self.sessions[slot.0 as usize];
        let username = session.link.as_deref().and_then(|link| link.username.as_deref());
        let who = Variables { client_id: session.client_id.as_str(), username };
        self.values_left_out += enhance(&self.rules.message_rules, who, Arc::make_mut(message));
    }

    /// Adds to a will that is published now what the rules say.
    pub(super) fn enhance_will(&mut self, author: &WillAuthor, message: &mut Message) {
        let who = Variables { client_id: author.client_id.as_str(), username: author.username.as_deref() };
        self.values_left_out += enhance(&self.rules.message_rules, who, message);
    }

    /// How many values rules could not add since the process started.
    pub fn values_left_out(&self) -> u64 {
        self.values_left_out
    }
}

/// Adds to a message that `who` publishes, and whose `published_at` and `expires_at` are set, what the rules
/// say. Returns how many values were left out.
fn enhance(rules: &MessageRules, who: Variables<'_>, message: &mut Message) -> u64 {
    let mut given = Given::default();
    for rule in &rules.rules {
        if rule.spec.condition.holds_for(who, &message.topic) {
            given.take(&rule.spec.effects, who, message);
        }
    }
    let Given { expiry, response_topic, correlation_data, user_properties, left_out, .. } = given;
    if let Some(RuleExpiry { mode, seconds }) = expiry {
        let at = message.published_at.plus_secs(seconds.get());
        let own = message.expires_at.filter(|_| mode == ExpiryMode::Cap);
        message.expires_at = Some(own.map_or(at, |own| own.min(at)));
    }
    let values = ForwardedValues {
        response_topic: response_topic.as_ref(),
        correlation_data: correlation_data.as_deref().map(str::as_bytes),
        user_properties: &user_properties,
        ..ForwardedValues::default()
    };
    // Every value is known to fit; what did not would leave the message as it was.
    if !values.is_empty()
        && let Ok(properties) = values.put_to(&message.properties)
    {
        message.properties = properties;
    }
    left_out
}

/// What the rules give a message. Takes no memory as long as that is nothing.
#[derive(Debug, Default)]
struct Given {
    expiry: Option<RuleExpiry>,
    response_topic: Option<TopicName>,
    correlation_data: Option<String>,
    user_properties: Vec<(ByteString, ByteString)>,
    /// What user properties may still take, once that was asked.
    room_bytes: Option<usize>,
    left_out: u64,
}

impl Given {
    /// One rule more: it gives what none before it has given, and user properties besides.
    fn take(&mut self, effects: &RuleEffects, who: Variables<'_>, message: &Message) {
        let RuleEffects { message_expiry, response_topic, correlation_data, user_properties } = effects;
        let values = RuleValues { who, topic: message.topic.as_str() };
        self.expiry = self.expiry.or(*message_expiry);
        if let (None, Some(template)) = (&self.response_topic, response_topic) {
            self.response_topic = topic_of(template, &values);
            self.left_out += u64::from(self.response_topic.is_none());
        }
        if let (None, Some(template)) = (&self.correlation_data, correlation_data) {
            self.correlation_data = Some(template.fill(&values)).filter(|data| !data.is_empty());
            self.left_out += u64::from(self.correlation_data.is_none());
        }
        for property in user_properties {
            self.add(property.name.as_str(), &property.value, &values, message);
        }
    }

    /// A user property, if there is room for it.
    fn add(&mut self, name: &str, value: &RuleText, values: &RuleValues<'_>, message: &Message) {
        let room =
            || USER_PROPERTY_BYTES_MAX.saturating_sub(forwarded_user_property_bytes(&message.properties));
        let room = self.room_bytes.get_or_insert_with(room);
        let property = (ByteString::from(name), ByteString::from(value.fill(values)));
        let bytes = user_property_bytes([&property]);
        if bytes <= *room && !property.1.contains('\0') {
            *room -= bytes;
            self.user_properties.push(property);
        } else {
            self.left_out += 1;
        }
    }
}

/// The response topic that a rule gives; `None` when it is none to publish to.
fn topic_of(template: &RuleTopic, values: &RuleValues<'_>) -> Option<TopicName> {
    let topic = template.fill(values)?;
    topic_within_limits(topic.as_str(), topic.levels()).is_ok().then_some(topic)
}

#[cfg(test)]
mod tests;
