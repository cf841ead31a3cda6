//! Decisions against an interpreter that was written apart from them: it works on the texts of policies, by
//! their definition, and knows nothing of forms or shapes.

use proptest::prelude::*;

use super::*;
use crate::model::{
    AccessAction, AccessRules, ClusterId, FilterShape, Glob, Network, Plan, Policy, PolicySpec, Quota,
    QuotaOverrides, Resource, TopicFilter, TopicName, Variables,
};

/// A policy as its author writes it.
#[derive(Clone, Debug)]
struct Text {
    allows: bool,
    actions: Vec<AccessAction>,
    resources: Vec<String>,
    client_ids: Vec<String>,
    usernames: Vec<String>,
    networks: Vec<String>,
    qos: Vec<QoS>,
    retain: Option<bool>,
}

impl Text {
    fn parsed(&self, priority: u32) -> Policy {
        let globs = |texts: &[String]| texts.iter().map(|text| Glob::new(text).expect("a pattern")).collect();
        let resource = |text: &String| Resource::new(text).expect("a resource");
        let spec = PolicySpec {
            effect: if self.allows { PolicyEffect::Allow } else { PolicyEffect::Deny },
            actions: self.actions.clone(),
            resources: self.resources.iter().map(resource).collect(),
            client_ids: globs(&self.client_ids),
            usernames: globs(&self.usernames),
            networks: self.networks.iter().map(|text| Network::new(text).expect("a network")).collect(),
            qos: self.qos.clone(),
            retain: self.retain,
        };
        Policy { id: uuid::Uuid::nil(), priority, spec }
    }
}

/// Who asks, in the interpreter.
#[derive(Clone, Debug)]
struct Who {
    client_id: String,
    username: Option<String>,
    address: String,
}

/// What is asked of one topic.
#[derive(Clone, Copy, Debug)]
struct Asked<'a> {
    action: AccessAction,
    topic: &'a str,
    qos: QoS,
    retain: bool,
}

/// `*`: any text. `?`: one character. `+`: up to the next slash; only resources have it.
fn like(pattern: &str, text: &str, plus: bool) -> bool {
    let mut rest = pattern.chars();
    let Some(first) = rest.next() else { return text.is_empty() };
    let rest = rest.as_str();
    match first {
        '*' => (0..=text.len()).any(|at| like(rest, &text[at..], plus)),
        '+' if plus => like(rest, &text[text.find('/').unwrap_or(text.len())..], plus),
        '?' if !plus => !text.is_empty() && like(rest, &text[1..], plus),
        other => text.starts_with(other) && like(rest, &text[1..], plus),
    }
}

/// Stands for a `*` that means itself.
const STAR: &str = "\u{1}";

/// Whether a resource speaks of a topic; `None` when its author can mean no client like this one.
fn speaks_of(resource: &str, topic: &str, who: &Who) -> Option<bool> {
    let mut text = resource.to_owned();
    for (name, value) in [("${clientid}", Some(&who.client_id)), ("${username}", who.username.as_ref())] {
        if text.contains(name) {
            let Some(value) = value else { return Some(false) };
            if value.contains(['/', '#', '+']) || value.starts_with('$') {
                return None;
            }
            // Character for character: a `*` in it is no wildcard.
            text = text.replace(name, &value.replace('*', STAR));
        }
    }
    let topic = &topic.replace('*', STAR);
    if topic.starts_with('$') && (resource.starts_with('*') || resource.starts_with('+') || resource == "#") {
        return Some(false);
    }
    let open = text.strip_suffix("/#").or(text.strip_suffix("/*"));
    let all = text.strip_suffix('#').map(|text| format!("{text}*"));
    Some(
        open.is_some_and(|parent| like(parent, topic, true))
            || like(all.as_deref().unwrap_or(&text), topic, true),
    )
}

fn speaks(text: &Text, who: &Who, asked: Asked<'_>) -> bool {
    let any = |list: &[String], value: &str| list.is_empty() || list.iter().any(|p| like(p, value, false));
    let in_networks = text.networks.is_empty()
        || text.networks.iter().any(|network| {
            // Of the kinds that are generated: whole bytes count.
            let (prefix, bits) = network.split_once('/').unwrap_or((network, "32"));
            let bytes = bits.parse::<usize>().expect("a number") / 8;
            prefix.split('.').zip(who.address.split('.')).take(bytes).all(|(a, b)| a == b)
        });
    let named = text.usernames.is_empty() || who.username.as_ref().is_some_and(|n| any(&text.usernames, n));
    let on_topic = asked.action == AccessAction::Connect
        || (text.qos.is_empty() || text.qos.contains(&asked.qos))
            && text.resources.iter().any(|r| speaks_of(r, asked.topic, who).unwrap_or(!text.allows));
    let retained = asked.action != AccessAction::Publish || text.retain.is_none_or(|r| r == asked.retain);
    text.actions.contains(&asked.action)
        && any(&text.client_ids, &who.client_id)
        && named
        && in_networks
        && on_topic
        && retained
}

fn may(policies: &[Text], who: &Who, asked: Asked<'_>) -> bool {
    for policy in policies {
        if speaks(policy, who, asked) {
            return policy.allows;
        }
    }
    false
}

fn level() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ab]{0,2}",
        2 => "[ab*]{1,3}",
        2 => Just("+".to_owned()),
        1 => Just("${clientid}".to_owned()),
        1 => Just("${username}".to_owned()),
        1 => Just("$s".to_owned()),
    ]
}

fn resource() -> impl Strategy<Value = String> {
    let end = prop_oneof![Just(""), Just("/#"), Just("/*")];
    let text = (prop::collection::vec(level(), 1..4), end).prop_map(|(levels, end)| levels.join("/") + end);
    prop_oneof![6 => text, 1 => Just("#".to_owned()), 1 => Just("*".to_owned())]
        .prop_filter("not empty", |text| !text.is_empty())
}

fn few<T: std::fmt::Debug>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(of, 0..3)
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn policy() -> impl Strategy<Value = Text> {
    let actions = prop::sample::subsequence(
        vec![AccessAction::Connect, AccessAction::Publish, AccessAction::Subscribe],
        1..=3,
    );
    let networks = prop_oneof![Just("10.0.0.0/8"), Just("10.1.0.0/16"), Just("10.1.2.3"), Just("0.0.0.0/0")];
    (
        prop::bool::weighted(0.6),
        actions,
        prop::collection::vec(resource(), 1..3),
        few("[ab*?]{1,3}"),
        few("[ab*?]{1,3}"),
        few(networks.prop_map(str::to_owned)),
        few(qos()),
        prop::option::weighted(0.2, prop::bool::ANY),
    )
        .prop_map(|(allows, actions, resources, client_ids, usernames, networks, qos, retain)| Text {
            allows,
            actions,
            resources,
            client_ids,
            usernames,
            networks,
            qos,
            retain,
        })
}

fn who() -> impl Strategy<Value = Who> {
    let address = prop_oneof![Just("10.1.2.3"), Just("10.1.9.9"), Just("10.2.0.1"), Just("11.0.0.1")];
    let client_id = prop_oneof![6 => "[ab]{1,2}", 1 => "[ab/+#$*]{1,2}"];
    (client_id, prop::option::of("[ab]{1,2}"), address).prop_map(|(client_id, username, address)| Who {
        client_id,
        username,
        address: address.to_owned(),
    })
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof!["[ab]{0,2}", Just("+".to_owned()), Just("$s".to_owned())];
    (prop::collection::vec(level, 0..4), prop::bool::ANY)
        .prop_map(|(mut levels, open)| {
            levels.extend(open.then(|| "#".to_owned()));
            levels.join("/")
        })
        .prop_filter("a filter", |text| TopicFilter::new(text).is_ok())
}

fn cluster(policies: Vec<Policy>, allow_anonymous: bool) -> DesiredCluster {
    DesiredCluster {
        allow_anonymous,
        access: AccessRules { policies, ..AccessRules::default() }.into(),
        ..DesiredCluster::plain(
            ClusterId::default_cluster(),
            Quota::resolve(&Plan::ALL[0], &QuotaOverrides::default()),
        )
    }
}

fn parsed(texts: &[Text]) -> DesiredCluster {
    cluster(texts.iter().zip(0..).map(|(text, priority)| text.parsed(priority)).collect(), true)
}

fn client(who: &Who) -> AccessClient<'_> {
    let names = Variables { client_id: &who.client_id, username: who.username.as_deref() };
    AccessClient { names, address: who.address.parse().ok() }
}

/// Every topic of up to five characters out of a few, and some that belong to the server.
fn topics() -> Vec<String> {
    let mut all = vec![String::new()];
    let mut from = 0;
    for _ in 0..5 {
        let upto = all.len();
        for at in from..upto {
            all.extend(["a", "b", "/"].map(|next| format!("{}{next}", all[at])));
        }
        from = upto;
    }
    let reserved: Vec<String> = all.iter().take(40).map(|rest| format!("$s{rest}")).collect();
    all.extend(reserved);
    all.remove(0);
    all
}

proptest! {
    #[test]
    fn publishing_and_connecting_are_decided_by_definition(
        policies in prop::collection::vec(policy(), 1..6),
        who in who(),
        topic in "[ab/$]{1,6}",
        qos in qos(),
        retain in prop::bool::ANY,
    ) {
        let cluster = parsed(&policies);
        let publish = AccessRequest::Publish { topic: &topic, qos, retain };
        let asked = Asked { action: AccessAction::Publish, topic: &topic, qos, retain };
        prop_assert_eq!(permits(&cluster, &[], &client(&who), &publish), may(&policies, &who, asked));
        let asked = Asked { action: AccessAction::Connect, ..asked };
        let let_in = permits(&cluster, &[], &client(&who), &AccessRequest::Connect);
        prop_assert_eq!(let_in, may(&policies, &who, asked));
    }

    /// Of a filter without wildcards the decision is that of its topic. Of others: none of the topics that
    /// it has is denied if it is permitted.
    #[test]
    fn no_denied_topic_slips_through_a_subscription(
        policies in prop::collection::vec(policy(), 1..6),
        who in who(),
        text in filter(),
        qos in qos(),
    ) {
        thread_local!(static TOPICS: Vec<String> = topics());
        let filter = TopicFilter::new(&text).expect("a filter");
        let request = AccessRequest::Subscribe { filter: &FilterShape::new(&filter), qos };
        let permitted = permits(&parsed(&policies), &[], &client(&who), &request);
        let of = |topic: &str| may(&policies, &who, Asked { action: AccessAction::Subscribe, topic, qos, retain: false });
        if !text.contains(['+', '#']) {
            prop_assert_eq!(permitted, of(&text));
        }
        if permitted {
            let slips = TOPICS.with(|topics| {
                let wanted = |topic: &&String| filter.matches(&TopicName::new(topic.as_str()).expect("a topic"));
                topics.iter().filter(wanted).find(|topic| !of(topic)).cloned()
            });
            prop_assert_eq!(slips, None);
        }
    }
}

#[test]
fn without_policies_all_is_open_but_what_is_the_server_s() {
    let nobody = Who { client_id: "c".into(), username: None, address: "10.0.0.1".into() };
    let shapes = ["#", "$SYS/#", "$share/g/$events/+"];
    let shapes = shapes.map(|text| FilterShape::new(&TopicFilter::new(text).expect("a filter")));
    for (allow_anonymous, reserved) in [(true, true), (false, false)] {
        let cluster = cluster(Vec::new(), allow_anonymous);
        let may = |request| permits(&cluster, &[], &client(&nobody), &request);
        let qos = QoS::AtMostOnce;
        assert!(may(AccessRequest::Connect));
        assert!(may(AccessRequest::Subscribe { filter: &shapes[0], qos }));
        assert!(may(AccessRequest::Publish { topic: "a", qos, retain: true }));
        assert_eq!(may(AccessRequest::Subscribe { filter: &shapes[1], qos }), reserved);
        assert_eq!(may(AccessRequest::Subscribe { filter: &shapes[2], qos }), reserved);
        assert_eq!(may(AccessRequest::Publish { topic: "$x", qos, retain: false }), reserved);
    }
}

/// What is not known of a client is taken against it.
#[test]
fn a_client_without_a_known_address_is_denied_and_not_allowed_by_networks() {
    let policy = |allows| Text {
        allows,
        actions: vec![AccessAction::Connect],
        resources: Vec::new(),
        client_ids: Vec::new(),
        usernames: Vec::new(),
        networks: vec!["10.0.0.0/8".to_owned()],
        qos: Vec::new(),
        retain: None,
    };
    let all = Text { networks: Vec::new(), ..policy(true) };
    let lost = Who { client_id: "c".into(), username: None, address: "?".into() };
    let let_in = |texts: &[Text]| permits(&parsed(texts), &[], &client(&lost), &AccessRequest::Connect);
    assert!(!let_in(&[policy(true)]) && !let_in(&[policy(false), all.clone()]) && let_in(&[all]));
}

#[test]
fn decisions_are_remembered_for_each_way_of_publishing_and_within_a_bound() {
    let mut decisions = Decisions::default();
    let (q0, q1) = (QoS::AtMostOnce, QoS::AtLeastOnce);
    decisions.put(1, "a", q0, false, true);
    decisions.put(1, "a", q1, true, false);
    assert_eq!(decisions.get(1, "a", q0, false), Some(true));
    assert_eq!(decisions.get(1, "a", q1, true), Some(false));
    for (conn, topic, qos, retain) in [(1, "a", q0, true), (1, "b", q0, false), (2, "a", q0, false)] {
        assert_eq!(decisions.get(conn, topic, qos, retain), None);
    }
    for n in 0..DECISIONS_MAX {
        decisions.put(3, &n.to_string(), q0, false, true);
        assert!(decisions.known.len() <= DECISIONS_MAX);
    }
    assert_eq!(decisions.get(3, &(DECISIONS_MAX - 1).to_string(), q0, false), Some(true));
    decisions.clear();
    assert_eq!(decisions.get(1, "a", q0, false), None);
}
