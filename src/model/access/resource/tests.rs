//! Resources against a description of them by their definition.

use proptest::prelude::*;

use super::*;
use crate::model::{TopicFilter, TopicName};

const WHO: Variables<'_> = Variables { client_id: "c1", username: Some("ada") };

fn resource(text: &str) -> Resource {
    Resource::new(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn shape(text: &str) -> FilterShape {
    FilterShape::new(&TopicFilter::new(text).expect("a filter"))
}

fn has(text: &str, topic: &str, who: Variables<'_>) -> bool {
    resource(text).holds_for_topic(PolicyEffect::Allow, topic, who)
}

/// What a resource describes, by its definition; `*` and a final `#` by trying every length.
fn naive(resource: &str, topic: &str) -> bool {
    fn glob(pattern: &[u8], topic: &[u8]) -> bool {
        let Some((first, rest)) = pattern.split_first() else { return topic.is_empty() };
        match first {
            b'*' | b'#' => (0..=topic.len()).any(|n| glob(rest, &topic[n..])),
            b'+' => {
                let end = topic.iter().position(|byte| *byte == b'/').unwrap_or(topic.len());
                glob(rest, &topic[end..])
            }
            byte => topic.split_first().is_some_and(|(found, more)| found == byte && glob(rest, more)),
        }
    }
    if topic.starts_with('$') && resource.starts_with(['*', '+', '#']) {
        return false;
    }
    let parent = resource.strip_suffix("/*").or(resource.strip_suffix("/#"));
    glob(resource.as_bytes(), topic.as_bytes())
        || parent.is_some_and(|parent| glob(parent.as_bytes(), topic.as_bytes()))
}

/// Every topic of up to four characters out of a few.
fn topics() -> Vec<String> {
    let mut all = vec![String::new()];
    let mut from = 0;
    for _ in 0..5 {
        let upto = all.len();
        for at in from..upto {
            for next in ["a", "b", "/", "$"] {
                all.push(format!("{}{next}", all[at]));
            }
        }
        from = upto;
    }
    all.remove(0);
    all
}

fn level() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{0,2}", "[ab*]{1,3}", Just("+".to_owned()), Just("$".to_owned())]
}

fn resources() -> impl Strategy<Value = String> {
    let end = prop_oneof![Just(""), Just("/#"), Just("/*"), Just("")];
    (prop::collection::vec(level(), 1..4), end)
        .prop_map(|(levels, end)| levels.join("/") + end)
        .prop_filter("not empty", |text| !text.is_empty())
}

fn filters() -> impl Strategy<Value = String> {
    let level = prop_oneof!["[ab]{0,2}", Just("+".to_owned()), Just("$".to_owned())];
    (prop::collection::vec(level, 0..4), prop::bool::ANY)
        .prop_map(|(mut levels, open)| {
            levels.extend(open.then(|| "#".to_owned()));
            levels.join("/")
        })
        .prop_filter("a filter", |text| TopicFilter::new(text).is_ok())
}

proptest! {
    #[test]
    fn a_topic_belongs_to_a_resource_by_its_definition(text in resources(), topic in "[ab/$]{1,7}") {
        prop_assert_eq!(has(&text, &topic, WHO), naive(&text, &topic));
    }

    /// Nothing slips through: whatever topic a filter has, of all those that are short.
    #[test]
    fn a_filter_is_held_against_every_topic_that_it_has(text in resources(), filter in filters()) {
        thread_local!(static TOPICS: Vec<String> = topics());
        let held = TopicFilter::new(&filter).expect("a filter");
        let (resource, shape) = (resource(&text), shape(&filter));
        let covers = resource.holds_for_filter(PolicyEffect::Allow, &shape, WHO);
        let meets = resource.holds_for_filter(PolicyEffect::Deny, &shape, WHO);
        TOPICS.with(|topics| {
            let wanted: Vec<&String> = topics
                .iter()
                .filter(|topic| held.matches(&TopicName::new(topic.as_str()).expect("a topic")))
                .collect();
            for topic in &wanted {
                let has = naive(&text, topic);
                prop_assert!(has || !covers, "{text} does not cover {filter}: {topic}");
                prop_assert!(!has || meets, "{text} meets {filter}: {topic}");
            }
            Ok(())
        })?;
    }
}

#[test]
fn subscriptions_are_covered_whole_or_not_at_all() {
    for (text, filter) in [
        ("a/*", "a/#"),
        ("a/*", "a/b"),
        ("a/*", "a/+/c"),
        ("a/#", "a"),
        ("a/+", "a/+"),
        ("*", "#"),
        ("#", "+/+"),
        ("*/b", "+/b"),
        ("*", "$share/g/a/#"),
        ("$SYS/*", "$SYS/#"),
        ("d/${clientid}/*", "d/c1/#"),
        ("u/${username}", "u/ada"),
    ] {
        assert!(resource(text).holds_for_filter(PolicyEffect::Allow, &shape(filter), WHO), "{text} {filter}");
    }
    for (text, filter) in [
        ("a/b", "a/+"),
        ("a/+", "a/#"),
        ("a/+", "+/+"),
        ("a/*b", "a/+"),
        ("a*", "#"),
        ("*", "$SYS/#"),
        ("+/*", "#"),
        ("d/${clientid}/*", "d/+/x"),
        ("u/${username}", "u/eve"),
    ] {
        assert!(
            !resource(text).holds_for_filter(PolicyEffect::Allow, &shape(filter), WHO),
            "{text} {filter}"
        );
    }
}

#[test]
fn one_topic_in_common_is_enough_to_deny() {
    for (text, filter) in [
        ("a/b", "#"),
        ("a/b", "+/b"),
        ("*secret*", "a/+"),
        ("a/+/c", "a/b/#"),
        ("$SYS/x", "$SYS/#"),
        ("a/*", "a"),
        ("d/${clientid}", "d/+"),
    ] {
        assert!(resource(text).holds_for_filter(PolicyEffect::Deny, &shape(filter), WHO), "{text} {filter}");
    }
    for (text, filter) in [
        ("a/b", "a/+/c"),
        ("*/x", "a/+/y"),
        ("$SYS/x", "#"),
        ("#", "$SYS/#"),
        ("a/b/c*", "a/+"),
        ("d/${clientid}", "d/c2/#"),
    ] {
        assert!(!resource(text).holds_for_filter(PolicyEffect::Deny, &shape(filter), WHO), "{text} {filter}");
    }
}

#[test]
fn a_variable_is_only_ever_the_client_itself() {
    let own = "d/${clientid}/x";
    let topic = |client_id: &str, effect, topic: &str| {
        resource(own).holds_for_topic(effect, topic, Variables { client_id, username: None })
    };
    assert!(topic("c1", PolicyEffect::Allow, "d/c1/x") && !topic("c1", PolicyEffect::Allow, "d/c2/x"));
    assert!(topic("*", PolicyEffect::Allow, "d/*/x") && !topic("*", PolicyEffect::Allow, "d/c1/x"));
    assert!(!topic("${username}", PolicyEffect::Allow, "d/c1/x"));
    // What could mean more than itself allows nothing and denies everything.
    for client_id in ["+", "#", "a/b", "$SYS"] {
        assert!(!topic(client_id, PolicyEffect::Allow, &format!("d/{client_id}/x")), "{client_id}");
        assert!(topic(client_id, PolicyEffect::Deny, "anything"), "{client_id}");
        let who = Variables { client_id, username: None };
        let filter = shape("d/+/x");
        assert!(!resource(own).holds_for_filter(PolicyEffect::Allow, &filter, who));
        assert!(resource(own).holds_for_filter(PolicyEffect::Deny, &filter, who));
    }
    // Without a user name there are no topics of it.
    let nobody = Variables { client_id: "c", username: None };
    for effect in [PolicyEffect::Allow, PolicyEffect::Deny] {
        assert!(!resource("u/${username}").holds_for_topic(effect, "u/", nobody));
        assert!(!resource("u/${username}").holds_for_filter(effect, &shape("#"), nobody));
    }
}

#[test]
fn what_describes_no_topics_is_refused() {
    for (text, why) in [
        ("", AccessError::ResourceLength),
        ("a\0", AccessError::ResourceLength),
        ("a/#/b", AccessError::MultiLevelWildcard),
        ("a#", AccessError::MultiLevelWildcard),
        ("#*", AccessError::MultiLevelWildcard),
        ("a+", AccessError::SingleLevelWildcard),
        ("+*/b", AccessError::SingleLevelWildcard),
        ("a/${client_id}", AccessError::Variable),
        ("a/${", AccessError::Variable),
        ("$share/g/a", AccessError::Shared),
    ] {
        assert_eq!(Resource::new(text), Err(why), "{text}");
    }
    assert_eq!(Resource::new(&"x".repeat(513)), Err(AccessError::ResourceLength));
    assert!(Resource::new("$").is_ok() && Resource::new("a$b/**").is_ok());
}
