//! Which cluster a CONNECT is for (PRODUCT 4). Pure.
//!
//! The first of these that says something decides: the host name the client asks for (TLS server name,
//! WebSocket host) if it is `{cluster}.{domain}`; a user name `{cluster}/{user}` if there is such a
//! cluster; the listener's cluster.

use bytestring::ByteString;

use crate::data_plane::protocol::{ConnAck, ReasonCode};
use crate::model::ClusterId;

/// What is known of it before the CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The cluster that the host name names; there need not be one.
    pub by_host: Option<Box<str>>,
    /// The listener's cluster.
    pub listener: ClusterId,
}

/// The cluster does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoCluster {
    /// The one that the client names by its host name.
    Named,
    /// The one that the listener is for. It may come into being yet.
    OfListener,
}

/// The cluster that `host` names below `domain`, which is in lower case.
///
/// A port and the dot at the end do not count, nor does case. A name with further labels, or the
/// domain itself, names none.
pub fn cluster_of_host(host: &str, domain: &str) -> Option<Box<str>> {
    let name = host.split_once(':').map_or(host, |(name, _port)| name);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let label = name.strip_suffix(domain)?.strip_suffix('.')?;
    (!label.is_empty() && !label.contains('.')).then(|| label.into())
}

/// Decides on the cluster, which `find` looks up, and takes its name out of the user name if it was
/// that.
///
/// A host name that names no cluster is refused and not sent on to another one: who asks for a tenant's
/// name must not end up with somebody else because of a slip in it.
///
/// # Errors
/// [`NoCluster`].
pub fn choose<T>(
    asked: &Asked,
    username: &mut Option<ByteString>,
    find: impl Fn(&str) -> Option<T>,
) -> Result<T, NoCluster> {
    if let Some(label) = &asked.by_host {
        return find(label).ok_or(NoCluster::Named);
    }
    if let Some(name) = username
        && let Some((cluster, user)) = name.split_once('/')
        && let Some(found) = find(cluster)
    {
        *username = Some(name.slice_ref(user));
        return Ok(found);
    }
    find(asked.listener.as_str()).ok_or(NoCluster::OfListener)
}

impl NoCluster {
    /// The answer to the CONNECT.
    ///
    /// Not authorized (0x87, v3: 5; PRODUCT 3) for a name the client chose: trying again does not help,
    /// and a cluster that does not exist looks no different from one that is not the client's. Server
    /// unavailable (0x88, v3: 3) where the client is not to blame.
    pub fn connack(self) -> ConnAck {
        let (reason, why) = match self {
            Self::Named => (ReasonCode::NotAuthorized, "no cluster of yours has this host name"),
            Self::OfListener => (ReasonCode::ServerUnavailable, "no such cluster"),
        };
        ConnAck { reason, reason_string: Some(why.into()), ..ConnAck::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_label_below_the_domain_names_the_cluster() {
        let named = |host| cluster_of_host(host, "mqtt.example.com");
        for host in ["fleet.mqtt.example.com", "Fleet.MQTT.example.com.", "fleet.mqtt.example.com:8083"] {
            assert_eq!(named(host).as_deref(), Some("fleet"), "{host}");
        }
        for host in [
            "mqtt.example.com",
            ".mqtt.example.com",
            "a.fleet.mqtt.example.com",
            "fleetmqtt.example.com",
            "fleet.example.com",
            "[::1]:8083",
            "",
        ] {
            assert_eq!(named(host), None, "{host}");
        }
    }

    /// Chooses among the clusters `default`, `a` and `b`, with the listener's `listener`.
    fn chosen(
        by_host: Option<&str>,
        username: Option<&str>,
        listener: &str,
    ) -> (Result<String, NoCluster>, Option<String>) {
        let asked = Asked {
            by_host: by_host.map(Into::into),
            listener: ClusterId::new(listener).expect("a cluster id"),
        };
        let mut username = username.map(ByteString::from);
        let find = |id: &str| ["default", "a", "b"].contains(&id).then(|| id.to_owned());
        (choose(&asked, &mut username, find), username.map(String::from))
    }

    #[test]
    fn the_host_name_beats_the_user_name_and_that_the_listener() {
        let ok =
            |cluster: &str, username: Option<&str>| (Ok(cluster.to_owned()), username.map(str::to_owned));
        assert_eq!(chosen(Some("a"), Some("b/u"), "default"), ok("a", Some("b/u")));
        assert_eq!(chosen(None, Some("b/u"), "a"), ok("b", Some("u")));
        assert_eq!(chosen(None, Some("b/u/v"), "a"), ok("b", Some("u/v")));
        assert_eq!(chosen(None, Some("b/"), "a"), ok("b", Some("")));
        assert_eq!(chosen(None, Some("u"), "a"), ok("a", Some("u")));
        assert_eq!(chosen(None, None, "default"), ok("default", None));
    }

    #[test]
    fn a_user_name_with_a_slash_is_only_a_user_name_when_no_cluster_has_that_name() {
        let (cluster, username) = chosen(None, Some("corp/u"), "a");
        assert_eq!((cluster, username.as_deref()), (Ok("a".to_owned()), Some("corp/u")));
        assert_eq!(chosen(None, Some("/u"), "a").1.as_deref(), Some("/u"));
    }

    #[test]
    fn a_cluster_that_does_not_exist_is_refused() {
        assert_eq!(chosen(Some("c"), None, "a").0, Err(NoCluster::Named));
        assert_eq!(chosen(Some("c"), Some("b/u"), "a").0, Err(NoCluster::Named));
        assert_eq!(chosen(None, None, "c").0, Err(NoCluster::OfListener));
        assert_eq!(NoCluster::Named.connack().reason, ReasonCode::NotAuthorized);
    }
}
