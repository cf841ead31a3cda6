//! Narrowing: which sessions of a cluster a list or a count is about.
//!
//! Conditions that a partial index needs are written out, not bound: the planner must see them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder};
use time::OffsetDateTime;

use crate::model::{
    ClientId, ClusterId, ExpirySource, ProtocolVersion, SessionState, Timestamp, TopicName, Transport,
};
use crate::store::{Result, Store};

/// How many filters may match one topic before the question is given up: those that exist, of the
/// 2^levels that could.
const MATCHING_FILTERS_MAX: i64 = 10_000;

// Goes down the levels of the topic and keeps the beginnings that some filter has. A filter that begins
// with one sorts from it to before it with the last character behind it. Wildcards at the first level
// do not match topics that begin with `$` ([MQTT-4.7.2-1]).
const MATCHING: &str = "
    WITH RECURSIVE walk (depth, prefix) AS (
        SELECT 0, '' COLLATE \"C\"
        UNION ALL
        SELECT w.depth + 1, n.prefix
        FROM walk w
        CROSS JOIN LATERAL (
            SELECT CASE WHEN w.depth = 0 THEN step ELSE w.prefix || '/' || step END COLLATE \"C\" AS prefix
            FROM (SELECT ($1::text[])[w.depth + 1] AS step UNION SELECT '+' WHERE w.depth > 0 OR NOT $2::boolean) steps
        ) n
        WHERE w.depth < cardinality($1::text[]) AND EXISTS (
            SELECT FROM subscriptions b
            WHERE b.topic_filter >= n.prefix AND b.topic_filter < n.prefix || U&'\\+10FFFF')
    )
    SELECT prefix FROM walk WHERE depth = cardinality($1::text[])
    UNION
    SELECT CASE WHEN depth = 0 THEN '#' ELSE prefix || '/#' END FROM walk WHERE depth > 0 OR NOT $2
    LIMIT $3";

/// Which sessions of a cluster to list or to count. What is `None` does not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Online or offline.
    pub state: Option<SessionState>,
    /// This client alone.
    pub client_id: Option<ClientId>,
    /// Client ids that begin with this, byte for byte.
    pub client_id_prefix: Option<String>,
    /// Client ids that contain this, byte for byte. Not indexed.
    pub client_id_contains: Option<String>,
    /// Clients that speak this.
    pub protocol: Option<ProtocolVersion>,
    /// Clients whose bytes arrive so.
    pub transport: Option<Transport>,
    /// Clients that gave this user name.
    pub username: Option<String>,
    /// Sessions whose connection is at this node, or was. Not indexed.
    pub node: Option<String>,
    /// Clients whose last connection came from here.
    pub peer: Option<Network>,
    /// The last connection began at this time or later.
    pub connected_after: Option<Timestamp>,
    /// The last connection began before this time.
    pub connected_before: Option<Timestamp>,
    /// Offline since this time or later.
    pub disconnected_after: Option<Timestamp>,
    /// Offline since before this time.
    pub disconnected_before: Option<Timestamp>,
    /// Offline, and over before this time.
    pub expires_before: Option<Timestamp>,
    /// Offline for at least so many seconds.
    pub offline_for_secs: Option<u32>,
    /// Who decided about the expiry.
    pub expiry_source: Option<ExpirySource>,
    /// With a label of this key and value.
    pub label: Option<(String, String)>,
    /// Protected or not.
    pub protected: Option<bool>,
    /// With a subscription that matches this topic.
    pub subscribed_to: Option<TopicName>,
}

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    last: IpAddr,
}

impl Network {
    /// The network of `address` whose first `bits` bits count; `None` when it has fewer bits.
    pub fn new(address: IpAddr, bits: u32) -> Option<Self> {
        let (first, last) = match address {
            IpAddr::V4(v4) => {
                let rest = u32::MAX.checked_shr(bits).unwrap_or(0);
                let first = u32::from(v4) & !rest;
                (bits <= 32).then(|| (Ipv4Addr::from(first).into(), Ipv4Addr::from(first | rest).into()))
            }
            IpAddr::V6(v6) => {
                let rest = u128::MAX.checked_shr(bits).unwrap_or(0);
                let first = u128::from(v6) & !rest;
                (bits <= 128).then(|| (Ipv6Addr::from(first).into(), Ipv6Addr::from(first | rest).into()))
            }
        }?;
        Some(Self { first, last })
    }
}

impl SessionFilter {
    /// Postgres has no text with U+0000 and neither has MQTT: nothing can match it.
    pub(super) fn asks_for_nul(&self) -> bool {
        let label = self.label.iter().flat_map(|(key, value)| [key, value]);
        let texts = [&self.client_id_prefix, &self.client_id_contains, &self.username, &self.node];
        let texts = texts.into_iter().flatten();
        texts.chain(label).any(|text| text.contains('\0'))
    }

    /// Adds what narrows the rows of the table called `s` to those of the cluster that exist at `now` and pass.
    /// `matching` are the filters that match [`SessionFilter::subscribed_to`].
    pub(in crate::store) fn narrow(
        &self,
        query: &mut QueryBuilder<Postgres>,
        cluster: &ClusterId,
        matching: Option<Vec<String>>,
        now: Timestamp,
    ) {
        query.push("s.cluster_id = ").push_bind(cluster.as_str().to_owned());
        self.narrow_by_state(query, now);
        self.narrow_by_client(query);
        self.narrow_by_time(query, now);
        self.narrow_by_order(query);
        if let Some(matching) = matching {
            query.push(
                " AND s.session_id IN (SELECT b.session_id FROM subscriptions b WHERE b.topic_filter = ANY(",
            );
            query.push_bind(matching).push("))");
        }
    }

    /// A session that is past its expiry does not exist (PRODUCT S-7).
    fn narrow_by_state(&self, query: &mut QueryBuilder<Postgres>, now: Timestamp) {
        let now = OffsetDateTime::from(now);
        match self.state {
            Some(SessionState::Online) => {
                query.push(" AND s.disconnected_at IS NULL");
            }
            Some(SessionState::Offline) => {
                query.push(" AND s.disconnected_at IS NOT NULL AND s.expires_at > ").push_bind(now);
            }
            None => {
                query.push(" AND (s.expires_at IS NULL OR s.expires_at > ").push_bind(now).push(")");
            }
        }
    }

    fn narrow_by_client(&self, query: &mut QueryBuilder<Postgres>) {
        if let Some(id) = &self.client_id {
            query.push(" AND s.client_id = ").push_bind(id.as_str().to_owned());
        }
        if let Some(prefix) = &self.client_id_prefix {
            query.push(" AND s.client_id >= ").push_bind(prefix.clone());
            if let Some(end) = end_of_prefix(prefix) {
                query.push(" AND s.client_id < ").push_bind(end);
            }
        }
        if let Some(part) = &self.client_id_contains {
            query.push(" AND position(").push_bind(part.clone()).push(" IN s.client_id) > 0");
        }
        if let Some(protocol) = self.protocol {
            query.push(" AND s.protocol = ").push_bind(protocol.as_str());
        }
        if let Some(transport) = self.transport {
            query.push(" AND s.transport = ").push_bind(transport.as_str());
        }
        if let Some(username) = &self.username {
            query.push(" AND left(s.username, 128) = left(").push_bind(username.clone());
            query.push(", 128) AND s.username = ").push_bind(username.clone());
        }
        if let Some(node) = &self.node {
            query.push(" AND s.node = ").push_bind(node.clone());
        }
        if let Some(network) = &self.peer {
            query.push(" AND s.peer_ip BETWEEN ").push_bind(network.first.to_string());
            query.push("::inet AND ").push_bind(network.last.to_string()).push("::inet");
        }
    }

    fn narrow_by_time(&self, query: &mut QueryBuilder<Postgres>, now: Timestamp) {
        let offline_since = self
            .offline_for_secs
            .map(|secs| Timestamp::from_millis(now.as_millis().saturating_sub(i64::from(secs) * 1_000)));
        for (condition, bound) in [
            (" AND s.connected_at >= ", self.connected_after),
            (" AND s.connected_at < ", self.connected_before),
            (" AND s.disconnected_at >= ", self.disconnected_after),
            (" AND s.disconnected_at < ", self.disconnected_before),
            (" AND s.disconnected_at <= ", offline_since),
            (" AND s.expires_at < ", self.expires_before),
        ] {
            if let Some(bound) = bound {
                query.push(condition).push_bind(OffsetDateTime::from(bound));
            }
        }
    }

    /// By what operators have ordered.
    fn narrow_by_order(&self, query: &mut QueryBuilder<Postgres>) {
        const ORDERED: &str = "(s.expiry_override_secs IS NOT NULL OR s.expiry_override_at IS NOT NULL)";
        match self.expiry_source {
            None => {}
            Some(ExpirySource::Operator) => {
                query.push(" AND ").push(ORDERED);
            }
            Some(ExpirySource::ClusterCeiling) => {
                query.push(" AND s.expiry_bounded AND NOT ").push(ORDERED);
            }
            Some(ExpirySource::Client) => {
                query.push(" AND NOT s.expiry_bounded AND NOT ").push(ORDERED);
            }
        }
        if let Some((key, value)) = &self.label {
            let label = std::collections::BTreeMap::from([(key.clone(), value.clone())]);
            query.push(" AND s.labels <> '{}' AND s.labels @> ").push_bind(Json(label));
        }
        match self.protected {
            None => {}
            Some(true) => {
                query.push(" AND s.protected");
            }
            Some(false) => {
                query.push(" AND NOT s.protected");
            }
        }
    }
}

impl Store {
    /// The filters in the table that match the topic of the filter, if it asks for one.
    pub(in crate::store) async fn matching_filters(
        &self,
        filter: &SessionFilter,
    ) -> Result<Option<Vec<String>>> {
        let Some(topic) = &filter.subscribed_to else { return Ok(None) };
        let levels: Vec<String> = topic.as_str().split('/').map(str::to_owned).collect();
        let matching = sqlx::query_scalar(MATCHING)
            .bind(levels)
            .bind(topic.as_str().starts_with('$'))
            .bind(MATCHING_FILTERS_MAX)
            .fetch_all(&self.pool)
            .await?;
        Ok(Some(matching))
    }
}

/// The least text above every text that begins with `prefix`, in byte order; `None` when there is
/// none. UTF-8 orders bytes as it orders characters, so the last character that has a successor is
/// replaced by it. A range rather than LIKE: `%` and `_` mean themselves, and an index serves it.
fn end_of_prefix(prefix: &str) -> Option<String> {
    let mut kept = prefix.to_owned();
    while let Some(last) = kept.pop() {
        // A range of characters steps over the surrogates.
        if let Some(next) = (last..=char::MAX).nth(1) {
            kept.push(next);
            return Some(kept);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_text_that_does_not_begin_with_it() {
        for (prefix, end) in [
            ("", None),
            ("a", Some("b")),
            ("sensor-", Some("sensor.")),
            ("100%", Some("100&")),
            ("a\u{7f}", Some("a\u{80}")),
            ("\u{d7ff}", Some("\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}\u{10ffff}", None),
        ] {
            assert_eq!(end_of_prefix(prefix).as_deref(), end, "{prefix:?}");
        }
    }

    #[test]
    fn a_network_holds_all_that_begins_with_its_bits() {
        for (address, bits, first, last) in [
            ("10.1.2.3", 32, "10.1.2.3", "10.1.2.3"),
            ("10.1.2.3", 8, "10.0.0.0", "10.255.255.255"),
            ("10.1.2.3", 0, "0.0.0.0", "255.255.255.255"),
            ("2001:db8::1", 32, "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("::1", 128, "::1", "::1"),
        ] {
            let network = Network::new(address.parse().expect("an address"), bits).expect("a network");
            let found = (network.first.to_string(), network.last.to_string());
            assert_eq!(found, (first.to_owned(), last.to_owned()), "{address}/{bits}");
        }
        assert_eq!(Network::new("10.0.0.0".parse().expect("an address"), 33), None);
        assert_eq!(Network::new("::".parse().expect("an address"), 129), None);
    }
}
