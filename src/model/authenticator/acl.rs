//! What an authenticator says that its client may do: rules of the same words as authorisation policies.
//!
//! Two forms. A list of rules, of which the first that holds decides:
//! `[{"effect": "deny", "actions": ["publish"], "resources": ["a/#"]}, …]`; and a short one that only
//! allows: `{"publish": ["a/#"], "subscribe": ["b/${clientid}"], "all": ["c"]}`.

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use crate::model::{AccessAction, Policy, PolicyEffect, PolicySpec, QoS, Resource};

/// A client's own rules, in the order in which they are asked: before the policies of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl(Vec<Policy>);

/// Why what was said is no list of rules.
#[derive(Debug, Error)]
pub enum AclError {
    /// Its form.
    #[error("the acl is neither a list of rules nor an object of lists of topics: {0}")]
    Form(String),
    /// How many there are.
    #[error("the acl has more than {} rules", Acl::RULES_MAX)]
    TooMany,
    /// One that no policy could be.
    #[error("rule {0} of the acl: {1}")]
    Rule(usize, String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    effect: PolicyEffect,
    actions: Vec<AccessAction>,
    resources: Vec<Resource>,
    #[serde(default)]
    qos: Vec<QoS>,
    #[serde(default)]
    retain: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowed {
    #[serde(default, alias = "pub")]
    publish: Vec<Resource>,
    #[serde(default, alias = "sub")]
    subscribe: Vec<Resource>,
    #[serde(default)]
    all: Vec<Resource>,
}

impl Acl {
    /// How many rules there may be: each is kept with the connection.
    pub const RULES_MAX: usize = 64;

    /// Reads what an authenticator said.
    pub fn parse(json: &Value) -> Result<Self, AclError> {
        let form = |error: serde_json::Error| AclError::Form(error.to_string());
        let rules = if json.is_object() {
            Allowed::deserialize(json).map_err(form)?.into_rules()
        } else {
            Vec::<Rule>::deserialize(json).map_err(form)?
        };
        if rules.len() > Self::RULES_MAX {
            return Err(AclError::TooMany);
        }
        let policies = rules.into_iter().enumerate().map(|(at, rule)| rule.into_policy(at));
        policies.collect::<Result<_, _>>().map(Self)
    }

    /// The rules, in the order in which they are asked.
    pub fn rules(&self) -> &[Policy] {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Allowed {
    fn into_rules(self) -> Vec<Rule> {
        let (publish, subscribe) = (AccessAction::Publish, AccessAction::Subscribe);
        let mut rules = Vec::new();
        for (actions, resources) in [
            (vec![publish], self.publish),
            (vec![subscribe], self.subscribe),
            (vec![publish, subscribe], self.all),
        ] {
            // A policy has a bound on its list, a client's own rules only on how many there are.
            for some in resources.chunks(PolicySpec::ENTRIES_MAX) {
                let (actions, resources) = (actions.clone(), some.to_vec());
                rules.push(Rule {
                    effect: PolicyEffect::Allow,
                    actions,
                    resources,
                    qos: Vec::new(),
                    retain: None,
                });
            }
        }
        rules
    }
}

impl Rule {
    fn into_policy(self, at: usize) -> Result<Policy, AclError> {
        if self.actions.contains(&AccessAction::Connect) {
            return Err(AclError::Rule(at, "connect was decided by whoever gave the rule".to_owned()));
        }
        let spec = PolicySpec {
            effect: self.effect,
            actions: self.actions,
            resources: self.resources,
            client_ids: Vec::new(),
            usernames: Vec::new(),
            networks: Vec::new(),
            qos: self.qos,
            retain: self.retain,
        };
        spec.check().map_err(|(pointer, why)| AclError::Rule(at, format!("{pointer}: {why}")))?;
        let priority = u32::try_from(at).unwrap_or(u32::MAX);
        Ok(Policy { id: Uuid::nil(), priority, spec })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_forms_are_read() {
        let rules = json!([
            {"effect": "deny", "actions": ["publish"], "resources": ["a/#"], "qos": [0], "retain": true},
            {"effect": "allow", "actions": ["publish", "subscribe"], "resources": ["${clientid}/#"]},
        ]);
        let acl = Acl::parse(&rules).expect("rules");
        assert_eq!(acl.rules().iter().map(|rule| rule.priority).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(acl.rules()[0].spec.effect, PolicyEffect::Deny);

        let acl = Acl::parse(&json!({"pub": ["a"], "subscribe": ["b"], "all": ["c"]})).expect("rules");
        let actions: Vec<_> = acl.rules().iter().map(|rule| rule.spec.actions.len()).collect();
        assert_eq!(actions, [1, 1, 2]);
        assert!(Acl::parse(&json!({})).expect("no rules").is_empty());
        let many: Vec<_> = (0..40).map(|n| n.to_string()).collect();
        assert_eq!(Acl::parse(&json!({"publish": many})).expect("rules").rules().len(), 3);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let rule = json!({"effect": "allow", "actions": ["publish"], "resources": ["a"]});
        for bad in [
            json!("a"),
            json!(null),
            json!({"publis": []}),
            json!([{"effect": "allow", "actions": ["publish"]}]),
            json!([{"effect": "allow", "actions": ["connect"], "resources": []}]),
            json!([{"effect": "allow", "actions": [], "resources": ["a"]}]),
            json!([{"effect": "allow", "actions": ["publish"], "resources": ["a+"]}]),
            json!(vec![rule; 65]),
        ] {
            assert!(Acl::parse(&bad).is_err(), "{bad}");
        }
    }
}
