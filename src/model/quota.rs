//! Quotas: plans, what a cluster overrides, and the limits in force (PRODUCT 2).

use serde::{Deserialize, Serialize};

use super::{Flapping, RateOverrides, Rates};

/// A limit that may be absent.
pub type Limit = Option<u32>;

/// The limits in force for one cluster. `None` means no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// online sessions and unexpired offline persistent sessions together.
    pub connections: Limit,
    /// subscriptions of all sessions together.
    pub subscriptions: Limit,
    /// filters of one client.
    pub filters_per_client: Limit,
    /// retained messages.
    pub retained_messages: Limit,
    /// bytes of retained messages: topics, payloads and properties.
    pub retained_bytes: Limit,
    /// share names in the cluster, however many filters are shared under each.
    pub shared_groups: Limit,
    /// filters that are shared under one name.
    pub filters_per_shared_group: Limit,
    /// sessions that share something under one name.
    pub members_per_shared_group: Limit,
    /// what the cluster's messages may take in the message log, in MiB.
    pub log_mib: Limit,
    /// the shortest session expiry interval granted, in seconds; 0 for none.
    pub session_expiry_min_secs: u32,
    /// the longest session expiry interval granted, in seconds.
    pub session_expiry_max_secs: u32,
    ///
    pub rates: Rates,
    /// The guard against clients that connect over and over.
    pub flapping: Flapping,
}

impl Quota {
    /// The default and greatest ceiling of a session's expiry: 3 days (PRODUCT S-6).
    pub const SESSION_EXPIRY_MAX_SECS: u32 = 259_200;

    /// How many levels a topic name or filter may have (PRODUCT Q-9).
    pub const TOPIC_LEVELS_MAX: usize = 16;

    /// How long a topic name or filter may be, in bytes of UTF-8 (PRODUCT Q-9).
    pub const TOPIC_BYTES_MAX: usize = 1_024;

    /// A plan's limits with a cluster's overrides laid over them.
    pub fn resolve(plan: &Plan, overrides: &QuotaOverrides) -> Self {
        let connections = overrides.connections.or(plan.connections);
        let per_connection = plan.subscriptions_per_connection;
        let derived = connections.zip(per_connection).map(|(n, each)| n.saturating_mul(each));
        Self {
            connections,
            subscriptions: overrides.subscriptions.or(derived),
            filters_per_client: overrides.filters_per_client.or(plan.filters_per_client),
            retained_messages: overrides.retained_messages.or(plan.retained_messages),
            retained_bytes: overrides.retained_bytes.or(plan.retained_bytes),
            shared_groups: overrides.shared_groups.or(plan.shared_groups),
            filters_per_shared_group: overrides.filters_per_shared_group.or(plan.filters_per_shared_group),
            members_per_shared_group: overrides.members_per_shared_group.or(plan.members_per_shared_group),
            log_mib: overrides.log_mib.or(plan.log_mib),
            session_expiry_min_secs: overrides.session_expiry_min_secs.unwrap_or(0),
            session_expiry_max_secs: overrides
                .session_expiry_max_secs
                .unwrap_or(Self::SESSION_EXPIRY_MAX_SECS),
            // As with subscriptions, the rates follow the connections that the cluster sets.
            rates: plan.rates_for(connections).with(&overrides.rates),
            flapping: plan.flapping.with(&overrides.rates),
        }
    }
}

/// What a cluster sets itself; `None` leaves the plan's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QuotaOverrides {
    /// See [`Quota::connections`].
    pub connections: Option<u32>,
    /// See [`Quota::subscriptions`].
    pub subscriptions: Option<u32>,
    /// See [`Quota::filters_per_client`].
    pub filters_per_client: Option<u32>,
    /// See [`Quota::retained_messages`].
    pub retained_messages: Option<u32>,
    /// See [`Quota::retained_bytes`].
    pub retained_bytes: Option<u32>,
    /// See [`Quota::shared_groups`].
    pub shared_groups: Option<u32>,
    /// See [`Quota::filters_per_shared_group`].
    pub filters_per_shared_group: Option<u32>,
    /// See [`Quota::members_per_shared_group`].
    pub members_per_shared_group: Option<u32>,
    /// See [`Quota::log_mib`].
    pub log_mib: Option<u32>,
    /// See [`Quota::session_expiry_min_secs`].
    pub session_expiry_min_secs: Option<u32>,
    /// See [`Quota::session_expiry_max_secs`].
    pub session_expiry_max_secs: Option<u32>,
    /// See [`Quota::rates`] and [`Quota::flapping`].
    pub rates: RateOverrides,
}

/// Where a limit in force comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaSource {
    /// The cluster's plan.
    Plan,
    /// The cluster's own setting.
    Override,
}

/// A named set of quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The name a cluster refers to.
    pub name: &'static str,
    ///
    pub connections: Limit,
    /// Q-2 is this many times the connections.
    pub subscriptions_per_connection: Limit,
    ///
    pub filters_per_client: Limit,
    ///
    pub retained_messages: Limit,
    ///
    pub retained_bytes: Limit,
    ///
    pub shared_groups: Limit,
    ///
    pub filters_per_shared_group: Limit,
    ///
    pub members_per_shared_group: Limit,
    ///
    pub log_mib: Limit,
    ///
    pub messages_per_second: Limit,
    /// The guard against clients that connect over and over.
    pub flapping: Flapping,
}

impl Plan {
    /// Every plan, smallest first.
    pub const ALL: [Self; 4] = [
        Self::sized("basic", 1_000, 64, 16, 10_000),
        Self::sized("pro", 100_000, 512, 64, 100_000),
        Self::sized("platinum", 1_000_000, 2_048, 256, 1_000_000),
        Self {
            name: "unlimited",
            connections: None,
            subscriptions_per_connection: None,
            filters_per_client: None,
            retained_messages: None,
            retained_bytes: None,
            shared_groups: None,
            filters_per_shared_group: None,
            members_per_shared_group: None,
            log_mib: None,
            messages_per_second: None,
            flapping: Flapping::OFF,
        },
    ];

    /// Ten retained messages for each connection, of so many MiB together: they are held in memory. Of the message
    /// log so many GiB.
    const fn sized(
        name: &'static str,
        connections: u32,
        retained_mib: u32,
        log_gib: u32,
        messages_per_second: u32,
    ) -> Self {
        Self {
            name,
            connections: Some(connections),
            subscriptions_per_connection: Some(30),
            filters_per_client: Some(30),
            retained_messages: Some(connections.saturating_mul(10)),
            retained_bytes: Some(retained_mib * 1_024 * 1_024),
            shared_groups: Some(20),
            filters_per_shared_group: Some(10),
            members_per_shared_group: Some(1_024),
            log_mib: Some(log_gib * 1_024),
            messages_per_second: Some(messages_per_second),
            flapping: Flapping::DEFAULT,
        }
    }

    /// The rates of a cluster of this plan with so many connections. A plan without rates has none,
    /// whatever cap its cluster sets.
    const fn rates_for(&self, connections: Limit) -> Rates {
        let connections = if self.connections.is_some() { connections } else { None };
        Rates::of_plan(connections, self.messages_per_second)
    }

    /// The plan of that name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|plan| plan.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_of_connections_moves_the_subscriptions_with_it() {
        let plan = Plan::by_name("basic").expect("a plan");
        let overrides = QuotaOverrides { connections: Some(3), ..QuotaOverrides::default() };
        let quota = Quota::resolve(plan, &overrides);
        assert_eq!(quota.connections, Some(3));
        assert_eq!(quota.subscriptions, Some(90));
        assert_eq!(quota.filters_per_client, Some(30));
    }

    #[test]
    fn unlimited_still_has_the_expiry_ceiling() {
        let plan = Plan::by_name("unlimited").expect("a plan");
        let quota = Quota::resolve(plan, &QuotaOverrides::default());
        assert_eq!(quota.connections, None);
        assert_eq!(quota.session_expiry_max_secs, 259_200);
    }
}
