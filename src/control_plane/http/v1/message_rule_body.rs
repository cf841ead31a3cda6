//! Bodies of message enhancement rules: as they are sent, and as they are shown.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::code::Code;
use super::super::extract::present;
use super::super::number::{Within, whole};
use super::super::problem::{Problem, Result};
use super::access_paths::Remark;
use crate::model::{
    ExpiryMode, Glob, MessageRule, MessageRuleSpec, RuleCondition, RuleEffects, RuleExpiry, RuleFilter,
    RuleProperty, RulePropertyName, RuleText, RuleTopic, Timestamp,
};
use crate::store::{MessageRuleRecord, NewMessageRule};

/// A message enhancement rule.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MessageRule, example = json!({
    "id": "019af8a0-5b7e-7c3d-9f1e-2a4b6c8d0e1f", "priority": 100, "name": "requests",
    "description": "answers go to whoever asked", "enabled": true,
    "condition": {"client_id": "meter-*", "username": null, "topic_filter": "meters/+/request"},
    "effects": {
        "message_expiry": {"mode": "cap", "seconds": 3600}, "response_topic": "replies/${clientid}",
        "correlation_data": "${clientid}",
        "user_properties": [{"name": "origin", "value": "${username}"}]
    },
    "created_at": "2026-01-31T12:00:00.000Z", "updated_at": "2026-01-31T12:00:00.000Z", "version": 1
}))]
pub(super) struct MessageRuleView {
    /// Its id; never changes.
    id: Uuid,
    /// When it applies: smaller first. No two of a cluster have the same.
    #[schema(minimum = 0, maximum = 1_000_000)]
    priority: u32,
    /// What people call it.
    name: String,
    /// What people say of it.
    #[schema(required)]
    description: Option<String>,
    /// Whether it applies.
    enabled: bool,
    /// To which messages.
    condition: ConditionView,
    /// What it adds to them.
    effects: EffectsView,
    /// When it was made.
    created_at: Timestamp,
    /// When it last changed.
    updated_at: Timestamp,
    /// Counts the changes.
    #[schema(minimum = 1)]
    version: i64,
}

/// To which messages a rule applies: all that is given must hold.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MessageRuleCondition)]
struct ConditionView {
    /// Of these clients; null for all.
    #[schema(required)]
    client_id: Option<Glob>,
    /// Of these users; null for all, clients without a user name too.
    #[schema(required)]
    username: Option<Glob>,
    /// On these topics; null for all.
    #[schema(required)]
    topic_filter: Option<RuleFilter>,
}

/// What a rule adds to a message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MessageRuleEffects)]
struct EffectsView {
    /// Until when it is good; null to leave that.
    #[schema(required)]
    message_expiry: Option<ExpiryBody>,
    /// Where an answer is expected; null to leave that.
    #[schema(required)]
    response_topic: Option<RuleTopic>,
    /// What the answer is to carry; null to leave that.
    #[schema(required)]
    correlation_data: Option<RuleText>,
    /// Names and values, in this order.
    user_properties: Vec<PropertyBody>,
}

/// Until when a message is good.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MessageRuleExpiry)]
struct ExpiryBody {
    /// Whether the publisher's own word counts.
    mode: ExpiryMode,
    /// Seconds from its publication on.
    #[serde(deserialize_with = "at_least_one")]
    #[schema(value_type = u32, minimum = 1)]
    seconds: NonZeroU32,
}

/// A user property that a rule adds.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MessageRuleProperty)]
struct PropertyBody {
    /// Its name; several may have the same.
    name: RulePropertyName,
    /// Its value.
    value: RuleText,
}

impl From<MessageRuleRecord> for MessageRuleView {
    fn from(record: MessageRuleRecord) -> Self {
        let MessageRuleRecord { rule: MessageRule { id, priority, spec }, .. } = record;
        let RuleCondition { client_id, username, topic_filter } = spec.condition;
        let RuleEffects { message_expiry, response_topic, correlation_data, user_properties } = spec.effects;
        let expiry = |RuleExpiry { mode, seconds }| ExpiryBody { mode, seconds };
        let property = |RuleProperty { name, value }| PropertyBody { name, value };
        Self {
            id,
            priority,
            name: record.name,
            description: record.description,
            enabled: record.is_enabled,
            condition: ConditionView { client_id, username, topic_filter },
            effects: EffectsView {
                message_expiry: message_expiry.map(expiry),
                response_topic,
                correlation_data,
                user_properties: user_properties.into_iter().map(property).collect(),
            },
            created_at: record.created_at,
            updated_at: record.updated_at,
            version: record.version,
        }
    }
}

/// A message enhancement rule as it should be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MessageRulePut, example = json!({
    "priority": 100, "name": "requests",
    "condition": {"client_id": "meter-*", "topic_filter": "meters/+/request"},
    "effects": {
        "message_expiry": {"mode": "cap", "seconds": 3600}, "response_topic": "replies/${clientid}",
        "user_properties": [{"name": "origin", "value": "${username}"}]
    }
}))]
pub(super) struct MessageRulePut {
    /// When it applies: smaller first. No two of a cluster have the same.
    #[schema(minimum = 0, maximum = 1_000_000)]
    #[serde(deserialize_with = "whole")]
    priority: u32,
    /// What people call it: up to 256 characters.
    #[schema(value_type = String, min_length = 1, max_length = 256)]
    name: Remark,
    /// What people say of it: up to 256 characters.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, value_type = String, required = false, min_length = 1, max_length = 256)]
    description: Option<Remark>,
    /// Whether it applies; true when not sent.
    #[serde(default = "yes")]
    #[schema(default = true)]
    enabled: bool,
    /// To which messages; to all when not sent.
    #[serde(default)]
    condition: ConditionPut,
    /// What it adds to them: at least one thing.
    effects: EffectsPut,
}

/// To which messages a rule applies: all that is sent must hold.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MessageRuleConditionPut)]
struct ConditionPut {
    /// Of these clients; of all when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    client_id: Option<Glob>,
    /// Of these users; of all when not sent, clients without a user name too.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    username: Option<Glob>,
    /// On these topics; on all when not sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    topic_filter: Option<RuleFilter>,
}

/// What a rule adds to a message. Of expiry, response topic and correlation data the first rule that gives one
/// takes the place of what the publisher sent; user properties of all rules come after the publisher's.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MessageRuleEffectsPut)]
struct EffectsPut {
    /// Until when it is good.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    message_expiry: Option<ExpiryBody>,
    /// Where an answer is expected.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    response_topic: Option<RuleTopic>,
    /// What the answer is to carry; nothing is added where it would be empty.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    correlation_data: Option<RuleText>,
    /// Names and values, in this order. One that no longer fits into the 8 KiB that a message has for user
    /// properties, the publisher's included, is left out.
    #[serde(default)]
    #[schema(max_items = 16)]
    user_properties: Vec<PropertyBody>,
}

impl MessageRulePut {
    pub(super) fn checked(self) -> Result<NewMessageRule> {
        let fault = |pointer: &str, detail: String| Err(Problem::field(Code::InvalidBody, pointer, detail));
        if self.priority > MessageRule::PRIORITY_MAX {
            return fault("/priority", format!("at most {}", MessageRule::PRIORITY_MAX));
        }
        let ConditionPut { client_id, username, topic_filter } = self.condition;
        let EffectsPut { message_expiry, response_topic, correlation_data, user_properties } = self.effects;
        if user_properties.len() > RuleEffects::USER_PROPERTIES_MAX {
            return fault(
                "/effects/user_properties",
                format!("at most {}", RuleEffects::USER_PROPERTIES_MAX),
            );
        }
        let expiry = |ExpiryBody { mode, seconds }| RuleExpiry { mode, seconds };
        let property = |PropertyBody { name, value }| RuleProperty { name, value };
        let effects = RuleEffects {
            message_expiry: message_expiry.map(expiry),
            response_topic,
            correlation_data,
            user_properties: user_properties.into_iter().map(property).collect(),
        };
        if effects.is_empty() {
            return fault("/effects", "a rule adds at least one thing".to_owned());
        }
        Ok(NewMessageRule {
            priority: self.priority,
            name: self.name.into_string(),
            description: self.description.map(Remark::into_string),
            is_enabled: self.enabled,
            spec: MessageRuleSpec { condition: RuleCondition { client_id, username, topic_filter }, effects },
        })
    }
}

fn yes() -> bool {
    true
}

fn at_least_one<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<NonZeroU32, D::Error> {
    let number = Within::<1, { u32::MAX }>::deserialize(deserializer)?.0;
    NonZeroU32::try_from(number).map_err(serde::de::Error::custom)
}
