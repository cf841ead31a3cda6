//! What a list or a count of sessions is narrowed by.

use std::net::IpAddr;

use serde::Deserialize;
use utoipa::IntoParams;

use crate::model::{ClientId, ExpirySource, ProtocolVersion, SessionState, Timestamp, TopicName, Transport};
use crate::store::{Network, SessionFilter};

#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FilterParams {
    /// Only sessions that are `online`, or only those that are `offline`.
    state: Option<SessionState>,
    /// Only the session of this client.
    client_id: Option<ClientId>,
    /// Only sessions whose client id begins with this, byte for byte.
    #[param(min_length = 1, example = "meter-")]
    client_id_prefix: Option<String>,
    /// Only sessions whose client id contains this, byte for byte. Reads all sessions of the cluster.
    #[param(min_length = 1, example = "north")]
    client_id_contains: Option<String>,
    /// Only clients that speak this.
    protocol: Option<ProtocolVersion>,
    /// Only clients whose bytes arrive so.
    transport: Option<Transport>,
    /// Only clients that gave this user name.
    #[param(min_length = 1, example = "meter")]
    username: Option<String>,
    /// Only sessions whose connection is at this node, or was when it ended. Reads all sessions of the cluster when
    /// few of them are.
    #[param(min_length = 1, example = "3f9c2a7b1d0e4c58")]
    node: Option<String>,
    /// Only clients whose last connection came from this address, or from this network.
    #[param(value_type = Option<String>, min_length = 2, example = "10.0.0.0/8")]
    peer: Option<Peer>,
    /// Only sessions whose last connection began at this time or later.
    connected_after: Option<Timestamp>,
    /// Only sessions whose last connection began before this time.
    connected_before: Option<Timestamp>,
    /// Only sessions that are offline since this time or later.
    disconnected_after: Option<Timestamp>,
    /// Only sessions that are offline since before this time.
    disconnected_before: Option<Timestamp>,
    /// Only offline sessions that end before this time if their client does not return.
    expires_before: Option<Timestamp>,
    /// Only sessions that are offline for at least so many seconds.
    #[param(value_type = Option<i64>, minimum = 0, maximum = 4_294_967_295_i64, example = 3600)]
    offline_for_gte: Option<u32>,
    /// Only sessions whose expiry this one decided.
    expiry_source: Option<ExpirySource>,
    /// Only sessions with this label: `key=value`.
    #[param(value_type = Option<String>, pattern = "^[A-Za-z0-9._/-]{1,63}=", example = "site=north")]
    label: Option<Label>,
    /// Only sessions that are protected, or only those that are not.
    protected: Option<bool>,
    /// Only sessions with a subscription that matches this topic.
    #[param(value_type = Option<String>, min_length = 1, pattern = "^[^#+\\x00]+$", example = "meters/17/power")]
    subscribed_to: Option<Topic>,
}

impl From<FilterParams> for SessionFilter {
    fn from(params: FilterParams) -> Self {
        Self {
            state: params.state,
            client_id: params.client_id,
            client_id_prefix: params.client_id_prefix,
            client_id_contains: params.client_id_contains,
            protocol: params.protocol,
            transport: params.transport,
            username: params.username,
            node: params.node,
            peer: params.peer.map(|peer| peer.0),
            connected_after: params.connected_after,
            connected_before: params.connected_before,
            disconnected_after: params.disconnected_after,
            disconnected_before: params.disconnected_before,
            expires_before: params.expires_before,
            offline_for_secs: params.offline_for_gte,
            expiry_source: params.expiry_source,
            label: params.label.map(|label| (label.key, label.value)),
            protected: params.protected,
            subscribed_to: params.subscribed_to.map(|topic| topic.0),
        }
    }
}

/// An address, or a network as `address/bits`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Peer(Network);

impl TryFrom<String> for Peer {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const WANTED: &str = "an IP address, or a network such as 10.0.0.0/8";
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text.as_str(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| WANTED)?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(all), str::parse).map_err(|_| WANTED)?;
        Network::new(address, bits).map(Self).ok_or(WANTED)
    }
}

/// A label as `key=value`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Label {
    key: String,
    value: String,
}

impl TryFrom<String> for Label {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err("a label is key=value"),
        }
    }
}

/// A topic, which has no wildcards.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Topic(TopicName);

impl TryFrom<String> for Topic {
    type Error = crate::model::TopicError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        TopicName::new(text).map(Self)
    }
}
