//! Message enhancement rules over the life of messages: whoever publishes, whoever reads, and when (PRODUCT 5).

use serde_json::{Value, json};

use super::disk::Pace;
use super::packets::*;
use super::*;
use crate::data_plane::protocol::{ForwardedProperties, ForwardedProperty, ForwardedValues};
use crate::model::{MessageRule, MessageRuleSpec, MessageRules};

/// The rules of these descriptions, in this order, and no others.
fn set_rules(world: &mut World, rules: &[(Value, Value)]) {
    let rule = |(priority, (condition, effects)): (u32, &(Value, Value))| {
        let mut all = json!({"user_properties": []});
        all.as_object_mut().expect("an object").extend(effects.as_object().expect("an object").clone());
        let spec: MessageRuleSpec =
            serde_json::from_value(json!({"condition": condition, "effects": all})).expect("a rule");
        MessageRule { id: Uuid::from_u128(priority.into()), priority, spec }
    };
    let rules = (0..).zip(rules).map(rule).collect();
    world.last_id += 1;
    let revision = Uuid::from_u128(world.last_id);
    world.change_rules(|desired| desired.message_rules = MessageRules { revision, rules }.into());
}

/// A rule that says who published, for everybody.
fn tell_who(mark: &str) -> (Value, Value) {
    let value = format!("{mark} ${{clientid}} ${{username}} ${{topic}}");
    (json!({}), json!({"user_properties": [{"name": "who", "value": value}]}))
}

/// The values of the user properties of a message.
fn told(publish: &Publish) -> Vec<String> {
    let value = |property| match property {
        ForwardedProperty::UserProperty("who", value) => Some(value.to_owned()),
        _ => None,
    };
    ForwardedProperties::of(&publish.properties.forwarded).filter_map(value).collect()
}

fn all_told(publishes: &[Publish]) -> Vec<Vec<String>> {
    publishes.iter().map(told).collect()
}

fn as_user(mut hello: Hello, username: &'static str) -> Hello {
    hello.0.credentials.username = Some(username.into());
    hello
}

#[test]
fn everybody_gets_the_enhanced_message_now_or_later() {
    for publisher in [v5("p"), v3("p"), v31("p"), as_user(v5("p"), "ada"), as_user(v3("p"), "ada")] {
        let user = publisher.0.credentials.username.clone().unwrap_or_default();
        for qos in [Q0, Q1, Q2] {
            let mut world = World::new();
            set_rules(&mut world, &[tell_who("by")]);
            let online = world.connect(&v5("online"));
            let plain = world.connect(&v3("plain"));
            let sharing = world.connect(&v5("sharing"));
            let offline = world.connect(&v5("offline").expiry(1_000));
            for peer in [online, plain, offline] {
                world.subscribe(peer, "t/#", Q2);
            }
            world.subscribe(sharing, "$share/g/t/#", Q2);
            world.cut(offline);
            let writer = world.connect(&publisher);
            world.publish(writer, Publish { retain: true, ..publish_at(qos, 1, "t/1", "m") });

            let expected = vec![vec![format!("by p {user} t/1")]];
            for peer in [online, sharing] {
                assert_eq!(all_told(&world.drain(peer)), expected, "{qos:?}");
            }
            let heard = world.drain(plain);
            assert_eq!((texts(&heard), told(&heard[0])), (vec!["m".to_owned()], vec![]), "3.1.1 has none");
            let late = world.connect(&v5("late"));
            world.subscribe(late, "t/1", Q2);
            assert_eq!(all_told(&world.drain(late)), expected, "retained");
            let back = world.connect(&v5("offline").expiry(1_000));
            let waited = if qos == Q0 { vec![] } else { expected };
            assert_eq!(all_told(&world.drain(back)), waited, "through the log");
            assert_eq!(world.cluster.values_left_out(), 0);
        }
    }
}

#[test]
fn a_changed_rule_holds_for_the_next_message_and_no_earlier_one() {
    let mut world = World::new();
    let sleeper = world.connect(&v5("s").expiry(1_000));
    world.subscribe(sleeper, "t", Q1);
    world.cut(sleeper);
    let writer = world.connect(&v3("p"));
    let retain = |payload: &str| Publish { retain: true, ..publish_at(Q1, 1, "t", payload) };
    world.publish(writer, retain("0"));
    for mark in ["one", "two"] {
        set_rules(&mut world, &[tell_who(mark)]);
        world.publish(writer, retain(mark));
    }
    set_rules(&mut world, &[]);
    world.publish(writer, publish_at(Q1, 1, "t", "3"));
    let late = world.connect(&v5("late"));
    world.subscribe(late, "t", Q1);
    assert_eq!(all_told(&world.drain(late)), [["two p  t"]]);
    let sleeper = world.connect(&v5("s").expiry(1_000));
    let none = Vec::<String>::new();
    let expected = [none.clone(), vec!["one p  t".to_owned()], vec!["two p  t".to_owned()], none];
    assert_eq!(all_told(&world.drain(sleeper)), expected);
}

#[test]
fn what_was_added_is_there_after_a_restart() {
    let mut world = World::forgetful();
    set_rules(&mut world, &[tell_who("by")]);
    let sleeper = world.connect(&v5("s").expiry(1_000));
    world.subscribe(sleeper, "t", Q1);
    world.cut(sleeper);
    let writer = world.connect(&v3("p"));
    world.publish(writer, Publish { retain: true, ..publish_at(Q1, 1, "t", "m") });
    set_rules(&mut world, &[]);
    world.restart(5);
    for hello in [v5("s").expiry(1_000), v5("late")] {
        let reader = world.connect(&hello);
        if hello.0.client_id == "late" {
            world.subscribe(reader, "t", Q1);
        }
        assert_eq!(all_told(&world.drain(reader)), [["by p  t"]]);
    }
}

#[test]
fn a_message_that_a_rule_lets_expire_is_not_sent_later() {
    for (mode, own, waits) in
        [("set", None, 60), ("set", Some(10), 60), ("cap", Some(10), 10), ("cap", None, 60)]
    {
        let mut world = World::new();
        set_rules(&mut world, &[(json!({}), json!({"message_expiry": {"mode": mode, "seconds": 60}}))]);
        let writer = world.connect(&v5("p"));
        for reader in ["a", "b"] {
            let peer = world.connect(&v5(reader).expiry(1_000));
            world.subscribe(peer, "t", Q1);
            world.cut(peer);
        }
        let mut message = publish_at(Q1, 1, "t", "m");
        message.properties.message_expiry_secs = own;
        world.publish(writer, message);
        world.advance(waits - 1);
        let a = world.connect(&v5("a").expiry(1_000));
        assert_eq!(world.drain(a)[0].properties.message_expiry_secs, Some(1), "{mode} {own:?}");
        world.advance(1);
        let b = world.connect(&v5("b").expiry(1_000));
        assert_eq!(world.take(b), [], "{mode} {own:?}");
    }
}

#[test]
fn a_will_is_enhanced_when_it_is_published() {
    let (expiring, mut will_in_20) =
        (json!({"message_expiry": {"mode": "cap", "seconds": 30}}), will("w", "x", 20));
    will_in_20.properties.message_expiry_secs = Some(500);
    will_in_20.properties.forwarded =
        ForwardedValues { user_properties: &[("who".into(), "own".into())], ..ForwardedValues::default() }
            .to_bytes()
            .expect("valid");
    for hello in [
        as_user(v5("c").expiry(100).will(will("w", "x", 0)), "ada"),
        as_user(v5("c").expiry(100).will(will_in_20.clone()), "ada"),
        as_user(v5("c").will(will_in_20.clone()), "ada"), // ends with its connection
        as_user(v3("c").will(will("w", "x", 0)), "ada"),
    ] {
        let is_v5 = hello.0.version.is_v5();
        let sent = hello.0.will.as_ref().expect("a will").properties.forwarded.0.is_empty();
        let mut world = World::new();
        set_rules(&mut world, &[tell_who("before")]);
        let witness = world.connect(&v5("witness"));
        world.subscribe(witness, "w", Q1);
        let client = world.connect(&hello);
        // What holds is what the rules say when it is published.
        set_rules(&mut world, &[tell_who("after"), (json!({"username": "ada"}), expiring.clone())]);
        world.cut(client);
        world.advance(20);
        let wills = world.drain(witness);
        let own: &[&str] = if sent || !is_v5 { &[] } else { &["own"] };
        assert_eq!(told(&wills[0]), [own, &["after c ada w"]].concat());
        assert_eq!(wills[0].properties.message_expiry_secs, Some(30));
        assert_eq!(wills.len(), 1);
    }
}

#[test]
fn a_will_is_enhanced_after_a_restart_too() {
    // Of a session that the store knows, and of one that it does not: that one ended with its connection.
    for hello in [
        as_user(v5("c").expiry(100).will(will("w", "x", 0)), "ada"),
        as_user(v5("c").expiry(100).will(will("w", "x", 50)), "ada"),
        as_user(v5("c").will(will("w", "x", 0)), "ada"),
        v3("c").clean().will(will("w", "x", 0)),
    ] {
        for cut in [false, true] {
            let mut world = World::new();
            set_rules(&mut world, &[tell_who("by")]);
            let witness = world.connect(&v5("witness").expiry(1_000));
            world.subscribe(witness, "w", Q1);
            let client = world.connect(&hello);
            if cut {
                // It was published and not durable, or it waits.
                world.disk.pace = Pace::Late;
                world.cut(client);
                world.disk.pace = Pace::Prompt;
            }
            world.restart(5);
            world.advance(60);
            let witness = world.connect(&v5("witness").expiry(1_000));
            let user = hello.0.credentials.username.as_deref().unwrap_or_default();
            assert_eq!(all_told(&world.drain(witness)), [[format!("by c {user} w")]], "{cut}");
        }
    }
}

#[test]
fn what_the_service_says_itself_stays_as_it_is() {
    let mut world = World::new();
    let reader = world.connect(&v5("r"));
    world.subscribe(reader, "$events/#", Q1);
    set_rules(
        &mut world,
        &[tell_who("by"), (json!({"topic_filter": "$events/#"}), json!({"correlation_data": "x"}))],
    );
    world.connect(&v5("c"));
    let said = world.drain(reader);
    assert!(!said.is_empty());
    let added = said.iter().flat_map(|publish| ForwardedProperties::of(&publish.properties.forwarded));
    assert!(!added.into_iter().any(|property| matches!(
        property,
        ForwardedProperty::UserProperty(..) | ForwardedProperty::CorrelationData(_)
    )));
}

#[test]
fn what_could_not_be_added_is_counted() {
    let mut world = World::new();
    set_rules(&mut world, &[(json!({}), json!({"response_topic": "r/${clientid}"})), tell_who("by")]);
    let reader = world.connect(&v5("r"));
    world.subscribe(reader, "t", Q1);
    let sly = world.connect(&v5("#"));
    world.publish(sly, publish_at(Q1, 1, "t", "m"));
    assert_eq!(all_told(&world.drain(reader)), [["by #  t"]]);
    assert_eq!(world.cluster.values_left_out(), 1);
    // A publish that is refused is not enhanced.
    let mut beyond = publish_at(Q1, 1, &"l/".repeat(20), "m");
    beyond.properties.message_expiry_secs = Some(1);
    world.send(sly, &Packet::Publish(beyond));
    assert_eq!(world.cluster.values_left_out(), 1);
}

#[test]
fn what_a_rule_adds_counts_against_the_retained_bytes() {
    let mut world =
        World::with_quota(QuotaOverrides { retained_bytes: Some(100), ..QuotaOverrides::default() });
    let writer = world.connect(&v5("p"));
    world.publish(writer, retained("t", "small"));
    assert_eq!(world.cluster.retained_usage().0, 1);
    let long = json!({"user_properties": [{"name": "k", "value": "x".repeat(200)}]});
    set_rules(&mut world, &[(json!({}), long)]);
    world.send(writer, &Packet::Publish(retained("u", "small")));
    match &world.take(writer)[..] {
        [Packet::PubAck(ack)] => assert_eq!(ack.reason, ReasonCode::QuotaExceeded),
        other => panic!("{other:?}"),
    }
}
