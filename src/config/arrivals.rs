//! How clients arrive: by proxies or directly, for which cluster, and how many at a time.

use std::num::NonZeroU32;

use super::listeners::Listeners;
use super::{ConfigError, SettingsFile};
use crate::model::ClusterId;

/// How clients arrive at `serve`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Arriving clients")]
pub struct ArrivalFlags {
    /// Listeners that stand behind a proxy and take only connections with a PROXY protocol header (v1
    /// or v2), such as mqtt,mqtts (none by default)
    #[arg(long, env = "HOLDFAST_PROXY_PROTOCOL", value_name = "LISTENERS", value_parser = ListenerSet::parse)]
    pub proxy_protocol: Option<ListenerSet>,
    /// Domain whose host names {cluster}.DOMAIN choose the cluster, by TLS server name or WebSocket
    /// host (none by default)
    #[arg(long, env = "HOLDFAST_DOMAIN", value_name = "DOMAIN", value_parser = Domain::parse)]
    pub domain: Option<Domain>,
    /// Clusters of listeners for clients that name none, such as mqtts=fleet,ws=web [default: default]
    #[arg(
        long,
        env = "HOLDFAST_LISTENER_CLUSTER",
        value_name = "LISTENER=CLUSTER,...",
        value_parser = ListenerClusters::parse
    )]
    pub listener_cluster: Option<ListenerClusters>,
    /// Connections that each listener holds before their CONNECT; further ones are closed at once
    /// [default: 4096]
    #[arg(long, env = "HOLDFAST_HALF_OPEN_MAX", value_name = "N", value_parser = half_open_max)]
    pub half_open_max: Option<NonZeroU32>,
}

/// How clients arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrivals {
    /// The listeners that stand behind a proxy.
    pub proxy_protocol: ListenerSet,
    /// Whose host names choose a cluster.
    pub domain: Option<Domain>,
    /// Where clients go that name no cluster.
    pub listener_clusters: ListenerClusters,
    /// How many connections a listener holds before their CONNECT.
    pub half_open_max: NonZeroU32,
}

impl Arrivals {
    /// Room for the clients of a site that come back all at once, at a few KiB each.
    const HALF_OPEN_MAX: NonZeroU32 = NonZeroU32::new(4_096).unwrap();
}

/// Listeners by the names of their flags. QUIC is not among them: the PROXY protocol is one of TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerSet(Vec<&'static str>);

impl ListenerSet {
    const NAMES: [&str; 4] = ["mqtt", "mqtts", "ws", "wss"];

    /// Whether the listener of this name is one of them.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(&name)
    }

    /// Reads `mqtt,mqtts`.
    fn parse(text: &str) -> Result<Self, String> {
        let known = |name: &str| Self::NAMES.into_iter().find(|known| *known == name.trim());
        let names = text.split(',').map(|name| known(name).ok_or(()));
        names
            .collect::<Result<_, _>>()
            .map(Self)
            .map_err(|()| format!("expected some of {}, separated by commas", Self::NAMES.join(", ")))
    }
}

/// A cluster for each of some listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerClusters(Vec<(&'static str, ClusterId)>);

impl ListenerClusters {
    const NAMES: [&str; 5] = ["mqtt", "mqtts", "ws", "wss", "quic"];

    /// The cluster of the listener of this name: the one it was given, else `default`.
    pub fn of(&self, name: &str) -> ClusterId {
        let given = self.0.iter().find(|(listener, _)| *listener == name);
        given.map_or_else(ClusterId::default_cluster, |(_, cluster)| cluster.clone())
    }

    /// Reads `mqtts=fleet,ws=web`.
    fn parse(text: &str) -> Result<Self, String> {
        let mut clusters = Self::default();
        for pair in text.split(',') {
            let (name, cluster) = Self::pair(pair).ok_or_else(|| {
                format!(
                    "expected LISTENER=CLUSTER,... with listeners of {} and cluster ids",
                    Self::NAMES.join(", ")
                )
            })?;
            if clusters.0.iter().any(|(given, _)| *given == name) {
                return Err(format!("expected each listener once; {name} comes twice"));
            }
            clusters.0.push((name, cluster));
        }
        Ok(clusters)
    }

    fn pair(text: &str) -> Option<(&'static str, ClusterId)> {
        let (name, cluster) = text.trim().split_once('=')?;
        let name = Self::NAMES.into_iter().find(|known| *known == name)?;
        Some((name, ClusterId::new(cluster).ok()?))
    }
}

/// A DNS name in lower case, without the dot at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain(String);

impl Domain {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        // A cluster id of 63 bytes and a dot must fit before it (RFC 1035, 2.3.4).
        let is_name = name.len() <= 253 - 64 && name.split('.').all(|label| ClusterId::new(label).is_ok());
        if is_name { Ok(Self(name)) } else { Err("expected a DNS name, such as mqtt.example.com".to_owned()) }
    }
}

fn half_open_max(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("expected a number from 1 to {}", u32::MAX))
}

impl ArrivalFlags {
    /// Flag, else file, else default; refuses what is said of a listener that is off.
    pub(super) fn resolve(
        self,
        file: &mut SettingsFile,
        listeners: &Listeners,
    ) -> Result<Arrivals, ConfigError> {
        let proxy_protocol = file.text("proxy-protocol", ListenerSet::parse)?;
        let domain = file.text("domain", Domain::parse)?;
        let clusters = file.text("listener-cluster", ListenerClusters::parse)?;
        let half_open_max = file.text("half-open-max", half_open_max)?;
        let arrivals = Arrivals {
            proxy_protocol: self.proxy_protocol.or(proxy_protocol).unwrap_or_default(),
            domain: self.domain.or(domain),
            listener_clusters: self.listener_cluster.or(clusters).unwrap_or_default(),
            half_open_max: self.half_open_max.or(half_open_max).unwrap_or(Arrivals::HALF_OPEN_MAX),
        };
        let is_on = |name: &str| listeners.iter().any(|(on, _)| on == name);
        let of_clusters = arrivals.listener_clusters.0.iter().map(|(name, _)| ("listener-cluster", *name));
        let of_proxies = arrivals.proxy_protocol.0.iter().map(|name| ("proxy-protocol", *name));
        match of_clusters.chain(of_proxies).find(|(_, name)| !is_on(name)) {
            Some((flag, listener)) => Err(ConfigError::ListenerOff { flag, listener }),
            None => Ok(arrivals),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Flags};
    use super::*;

    fn resolve(file: &str) -> Result<Arrivals, String> {
        let file = SettingsFile::parse("f".into(), file).expect("TOML");
        Config::resolve(Flags::default(), file).map(|config| config.arrivals).map_err(|e| e.to_string())
    }

    #[test]
    fn nothing_is_special_unless_it_is_said() {
        let arrivals = resolve("").expect("valid");
        assert!(!arrivals.proxy_protocol.contains("mqtt"));
        assert_eq!(arrivals.domain, None);
        assert_eq!(arrivals.listener_clusters.of("mqtt").as_str(), "default");
        assert_eq!(arrivals.half_open_max.get(), 4_096);
    }

    #[test]
    fn listeners_are_named_by_their_flags() {
        let arrivals =
            resolve("ws = '127.0.0.1:0'\nproxy-protocol = 'mqtt, ws'\nlistener-cluster = 'ws=web'")
                .expect("valid");
        assert!(arrivals.proxy_protocol.contains("ws") && arrivals.proxy_protocol.contains("mqtt"));
        assert!(!arrivals.proxy_protocol.contains("wss"));
        assert_eq!(arrivals.listener_clusters.of("ws").as_str(), "web");
        assert_eq!(arrivals.listener_clusters.of("mqtt").as_str(), "default");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_is_allowed() {
        for (file, refusal) in [
            ("proxy-protocol = 'quic'", "expected some of mqtt, mqtts, ws, wss, separated by commas"),
            ("listener-cluster = 'ws'", "listeners of mqtt, mqtts, ws, wss, quic and cluster ids"),
            ("listener-cluster = 'mqtt=A'", "listeners of mqtt, mqtts, ws, wss, quic and cluster ids"),
            ("listener-cluster = 'mqtt=a,mqtt=b'", "each listener once; mqtt comes twice"),
            ("domain = 'a..b'", "expected a DNS name, such as mqtt.example.com"),
            ("half-open-max = '0'", "expected a number from 1 to 4294967295"),
            ("proxy-protocol = 'mqtts'", "--proxy-protocol names mqtts, a listener that is off"),
            ("listener-cluster = 'quic=a'", "--listener-cluster names quic, a listener that is off"),
        ] {
            let said = resolve(file).expect_err(file);
            assert!(said.ends_with(refusal), "{file}: {said}");
        }
    }

    #[test]
    fn a_domain_is_kept_in_one_form() {
        assert_eq!(Domain::parse("MQTT.Example.com.").map(|d| d.0), Ok("mqtt.example.com".to_owned()));
        assert!(Domain::parse("").is_err() && Domain::parse(".").is_err());
    }
}
