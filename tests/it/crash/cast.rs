//! Who takes part: each client with what it publishes, what it subscribes to and how it behaves.

use std::time::Duration;

use holdfast::model::{ProtocolVersion, QoS};

use super::history::Stream;

const Q0: QoS = QoS::AtMostOnce;
const Q1: QoS = QoS::AtLeastOnce;
const Q2: QoS = QoS::ExactlyOnce;
const V3: ProtocolVersion = ProtocolVersion::V3_1_1;
const V5: ProtocolVersion = ProtocolVersion::V5;

/// How a client comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Always there.
    Steady,
    /// Stays for a while, says goodbye, sleeps, returns.
    Sleeper,
    /// Stays for a while, lets the connection drop, returns soon.
    Dropper,
}

#[allow(clippy::struct_excessive_bools)] // a table of traits, each independent of the others
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub(super) name: &'static str,
    pub(super) version: ProtocolVersion,
    pub(super) habit: Habit,
    /// Begins a new session each time, and gives up what it had not finished.
    pub(super) clean: bool,
    pub(super) receive_maximum: Option<u16>,
    /// How long it thinks before it answers.
    pub(super) thinks: Duration,
    /// What it subscribes to: `$share/…/` included.
    pub(super) filters: Vec<(&'static str, QoS)>,
    /// Not its own messages.
    pub(super) no_local: bool,
    /// Subscribes and unsubscribes all the time.
    pub(super) wanders: bool,
    /// Topic, QoS, large payloads.
    pub(super) publishes: Vec<(&'static str, QoS, bool)>,
    pub(super) retain: bool,
    /// At most so many messages at once.
    pub(super) window: usize,
}

impl Role {
    fn new(name: &'static str, version: ProtocolVersion, habit: Habit) -> Self {
        Self {
            name,
            version,
            habit,
            clean: false,
            receive_maximum: None,
            thinks: Duration::ZERO,
            filters: Vec::new(),
            no_local: false,
            wanders: false,
            publishes: Vec::new(),
            retain: false,
            window: 10,
        }
    }

    fn takes(mut self, filters: &[(&'static str, QoS)]) -> Self {
        self.filters = filters.to_vec();
        self
    }

    fn says(mut self, publishes: &[(&'static str, QoS)]) -> Self {
        self.publishes = publishes.iter().map(|(topic, qos)| (*topic, *qos, false)).collect();
        self
    }

    /// The shared group of its subscription, and the filter without it.
    pub(super) fn shared(filter: &'static str) -> (Option<&'static str>, &'static str) {
        match filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')) {
            Some((group, filter)) => (Some(group), filter),
            None => (None, filter),
        }
    }
}

/// All of them.
pub(super) fn cast() -> Vec<Role> {
    use Habit::{Dropper, Sleeper, Steady};
    vec![
        // Publishers; the first subscribes as well, so that packet ids are in use both ways.
        Role {
            no_local: true,
            ..Role::new("talker", V5, Steady)
                .says(&[("t/a", Q1), ("t/b", Q2), ("t/c", Q0)])
                .takes(&[("t/a", Q2), ("t/d", Q1)])
        },
        Role::new("old-talker", V3, Steady).says(&[("t/a", Q2), ("t/b", Q1)]),
        Role {
            publishes: vec![("t/c", Q1, true), ("t/d", Q2, true)],
            ..Role::new("wide-talker", V5, Steady)
        },
        Role { window: 30, ..Role::new("dropping-talker", V3, Dropper).says(&[("t/d", Q1), ("t/a", Q2)]) },
        Role { clean: true, ..Role::new("clean-talker", V5, Dropper).says(&[("t/e", Q1), ("t/e", Q2)]) },
        Role {
            retain: true,
            ..Role::new("retainer", V5, Dropper).says(&[("r/x", Q1), ("r/y", Q2), ("r/z", Q1)])
        },
        // Subscribers.
        Role::new("listener", V5, Steady).takes(&[("t/#", Q2)]),
        Role::new("old-listener", V3, Steady).takes(&[("t/a", Q1), ("t/b", Q1)]),
        Role::new("sleeper", V5, Sleeper).takes(&[("t/#", Q1)]),
        Role::new("old-sleeper", V3, Sleeper).takes(&[("t/+", Q2)]),
        Role {
            receive_maximum: Some(2),
            thinks: Duration::from_millis(4),
            ..Role::new("slow", V5, Steady).takes(&[("t/b", Q2), ("t/d", Q1)])
        },
        Role {
            receive_maximum: Some(9),
            ..Role::new("overlapping", V5, Dropper).takes(&[("t/#", Q0), ("t/a", Q2), ("+/b", Q1)])
        },
        Role::new("old-dropper", V3, Dropper).takes(&[("t/c", Q2), ("t/d", Q1), ("t/e", Q2)]),
        Role {
            wanders: true,
            ..Role::new("wanderer", V5, Dropper).takes(&[("t/a", Q2), ("t/+", Q2), ("t/d", Q2), ("t/b", Q2)])
        },
        Role::new("mourner", V5, Steady).takes(&[("w/#", Q2)]),
        // Shared groups.
        Role::new("one-a", V5, Steady).takes(&[("$share/one/t/#", Q1)]),
        Role::new("one-b", V3, Sleeper).takes(&[("$share/one/t/#", Q1)]),
        Role { receive_maximum: Some(5), ..Role::new("one-c", V5, Dropper).takes(&[("$share/one/t/#", Q1)]) },
        Role { receive_maximum: Some(7), ..Role::new("two-a", V5, Dropper).takes(&[("$share/two/t/#", Q2)]) },
        Role::new("two-b", V3, Sleeper).takes(&[("$share/two/t/#", Q2)]),
        Role::new("two-c", V5, Sleeper).takes(&[("$share/two/t/#", Q2)]),
    ]
}

/// The streams of a cast, in its order.
pub(super) fn streams(cast: &[Role]) -> Vec<Stream> {
    let of_role = |(publisher, role): (usize, &Role)| {
        let retain = role.retain;
        let streams = role.publishes.iter().map(move |(topic, qos, big)| Stream {
            publisher,
            topic,
            qos: *qos,
            big: *big,
            retain,
            base: 0,
            messages: Vec::new(),
        });
        streams.collect::<Vec<_>>()
    };
    cast.iter().enumerate().flat_map(of_role).collect()
}
