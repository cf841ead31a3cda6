//! Authorisation policies.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{FilterShape, Glob, Network, Resource, Variables};
use crate::model::QoS;

/// What a policy says of what it holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyEffect {
    /// It may be done.
    Allow,
    /// It may not.
    Deny,
}

impl PolicyEffect {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// What a client does that a policy may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessAction {
    /// CONNECT.
    Connect,
    /// PUBLISH, and the will of a CONNECT.
    Publish,
    /// One filter of a SUBSCRIBE.
    Subscribe,
}

impl AccessAction {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        }
    }
}

/// What a policy says, and what for. Every condition must hold; one that is not set always does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    /// What it says.
    pub effect: PolicyEffect,
    /// Of what.
    pub actions: Vec<AccessAction>,
    /// On which topics; empty if it is about connecting alone.
    pub resources: Vec<Resource>,
    /// By which clients; empty for all.
    pub client_ids: Vec<Glob>,
    /// As which users; empty for all, also for clients without a user name.
    pub usernames: Vec<Glob>,
    /// From where; empty for everywhere.
    pub networks: Vec<Network>,
    /// At which QoS; empty for any. Of a subscription, the greatest that it asks for.
    pub qos: Vec<QoS>,
    /// With or without the retain flag; `None` for both.
    pub retain: Option<bool>,
}

/// Where a policy contradicts itself: a JSON pointer, and what is wrong there.
pub type PolicyFault = (&'static str, String);

impl PolicySpec {
    /// How many entries each of its lists may have.
    pub const ENTRIES_MAX: usize = 16;

    /// Refuses what no client could ever meet, or what says less than its author thinks.
    pub fn check(&self) -> Result<(), PolicyFault> {
        let has = |action| self.actions.contains(&action);
        let on_topics = has(AccessAction::Publish) || has(AccessAction::Subscribe);
        let mut once = self.actions.clone();
        once.sort_unstable();
        once.dedup();
        if self.actions.is_empty() || once.len() < self.actions.len() {
            return Err(("/actions", "at least one, and each only once".to_owned()));
        }
        for (pointer, entries) in [
            ("/resources", self.resources.len()),
            ("/client_ids", self.client_ids.len()),
            ("/usernames", self.usernames.len()),
            ("/networks", self.networks.len()),
            ("/qos", self.qos.len()),
        ] {
            if entries > Self::ENTRIES_MAX {
                return Err((pointer, format!("at most {}", Self::ENTRIES_MAX)));
            }
        }
        if on_topics && self.resources.is_empty() {
            return Err((
                "/resources",
                "publish and subscribe need at least one; # is every topic".to_owned(),
            ));
        }
        if !on_topics && !self.resources.is_empty() {
            return Err(("/resources", "connect has no topics".to_owned()));
        }
        if !self.qos.is_empty() && has(AccessAction::Connect) {
            return Err(("/qos", "connect has no QoS".to_owned()));
        }
        if self.retain.is_some() && self.actions != [AccessAction::Publish] {
            return Err(("/retain", "only publish has a retain flag".to_owned()));
        }
        Ok(())
    }

    /// Whether its conditions on the client hold.
    fn is_about(&self, client: &AccessClient<'_>) -> bool {
        let Variables { client_id, username } = client.names;
        let any =
            |globs: &[Glob], text: &str| globs.is_empty() || globs.iter().any(|glob| glob.matches(text));
        let of_user = self.usernames.is_empty() || username.is_some_and(|name| any(&self.usernames, name));
        let from_there = self.networks.is_empty()
            || match client.address {
                Some(address) => self.networks.iter().any(|network| network.contains(address)),
                None => self.effect == PolicyEffect::Deny,
            };
        of_user && from_there && any(&self.client_ids, client_id)
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct AccessClient<'a> {
    /// Its client id and user name.
    pub names: Variables<'a>,
    /// Where it comes from, if that is known.
    pub address: Option<IpAddr>,
}

/// What it asks for.
#[derive(Clone, Copy, Debug)]
pub enum AccessRequest<'a> {
    /// To be let in.
    Connect,
    /// To publish.
    Publish {
        /// Where to.
        topic: &'a str,
        /// At this QoS.
        qos: QoS,
        /// With this retain flag.
        retain: bool,
    },
    /// To subscribe.
    Subscribe {
        /// To what.
        filter: &'a FilterShape,
        /// At most at this QoS.
        qos: QoS,
    },
}

/// A policy of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Names it; never changes.
    pub id: Uuid,
    /// Smaller is asked first; unique in the cluster.
    pub priority: u32,
    /// What it says.
    pub spec: PolicySpec,
}

impl Policy {
    /// The greatest priority.
    pub const PRIORITY_MAX: u32 = 1_000_000;

    /// Whether the policy is about this.
    pub fn holds_for(&self, client: &AccessClient<'_>, request: &AccessRequest<'_>) -> bool {
        let Self { spec, .. } = self;
        let at = |qos: &QoS| spec.qos.is_empty() || spec.qos.contains(qos);
        match request {
            AccessRequest::Connect => spec.actions.contains(&AccessAction::Connect) && spec.is_about(client),
            AccessRequest::Publish { topic, qos, retain } => {
                spec.actions.contains(&AccessAction::Publish)
                    && at(qos)
                    && spec.retain.is_none_or(|wanted| wanted == *retain)
                    && spec.is_about(client)
                    && spec.resources.iter().any(|r| r.holds_for_topic(spec.effect, topic, client.names))
            }
            AccessRequest::Subscribe { filter, qos } => {
                spec.actions.contains(&AccessAction::Subscribe)
                    && at(qos)
                    && spec.is_about(client)
                    && spec.resources.iter().any(|r| r.holds_for_filter(spec.effect, filter, client.names))
            }
        }
    }
}
