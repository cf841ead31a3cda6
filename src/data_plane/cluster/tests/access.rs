//! Policies and block rules over the life of sessions (PRODUCT 3 and 4).

use serde_json::{Value, json};

use super::packets::*;
use super::*;
use crate::data_plane::session::authentication::scram::testing::users;
use crate::model::{AccessRules, BlockRule, EndedBy, Policy, PolicySpec};

/// The policies of these descriptions, in this order, and no others.
fn set_policies(world: &mut World, policies: &[Value]) {
    let policy = |(priority, text): (u32, &Value)| {
        let mut spec = json!({
            "effect": "allow", "actions": ["connect", "publish", "subscribe"], "resources": ["#"],
            "client_ids": [], "usernames": [], "networks": [], "qos": [], "retain": null,
        });
        for (key, value) in text.as_object().expect("an object") {
            spec[key] = value.clone();
        }
        let spec: PolicySpec = serde_json::from_value(spec).expect("a policy");
        Policy { id: Uuid::from_u128(priority.into()), priority, spec }
    };
    let policies = (0..).zip(policies).map(policy).collect();
    world.last_id += 1;
    let revision = Uuid::from_u128(world.last_id);
    world.change_rules(|rules| {
        let block_rules = rules.access.block_rules.clone();
        rules.access = AccessRules { revision, policies, block_rules }.into();
    });
}

fn block(world: &mut World, subject: &str, pattern: &str, secs: Option<u32>) {
    let spec = json!({"subject": subject, "pattern": pattern, "excludes": []});
    world.last_id += 1;
    let rule = BlockRule {
        id: Uuid::from_u128(world.last_id),
        spec: serde_json::from_value(spec).expect("a block rule"),
        expires_at: secs.map(|secs| world.now.wall.plus_secs(secs)),
        reason: None,
    };
    let revision = rule.id;
    world.change_rules(|rules| {
        let policies = rules.access.policies.clone();
        rules.access = AccessRules { revision, policies, block_rules: vec![rule] }.into();
    });
}

fn deny(actions: &[&str], resource: &str) -> Value {
    json!({"effect": "deny", "actions": actions, "resources": [resource]})
}

fn allow_all() -> Value {
    json!({})
}

const PERSISTENT: u32 = 1_000;

#[test]
fn a_denied_subscription_is_silent_until_it_is_permitted_again() {
    for hello in [v5("c").expiry(PERSISTENT), v5("c"), v3("c"), v3("c").clean(), v31("c")] {
        for qos in [Q0, Q1, Q2] {
            let mut world = World::new();
            let (reader, writer) = (world.connect(&hello), world.connect(&v5("w")));
            world.subscribe(reader, "a/#", qos);
            world.subscribe(reader, "b", qos);
            world.publish(writer, publish_at(Q2, 1, "a/1", "before"));
            assert_eq!(texts(&world.drain(reader)), ["before"]);

            set_policies(&mut world, &[deny(&["subscribe"], "a/secret"), allow_all()]);
            for topic in ["a/1", "a/secret", "a"] {
                world.publish(writer, publish_at(Q2, 1, topic, "denied"));
            }
            world.publish(writer, publish_at(Q2, 1, "b", "still"));
            assert_eq!(texts(&world.drain(reader)), ["still"], "{qos:?}");

            set_policies(&mut world, &[allow_all()]);
            world.publish(writer, publish_at(Q2, 1, "a/secret", "after"));
            assert_eq!(texts(&world.drain(reader)), ["after"], "{qos:?}");
        }
    }
}

#[test]
fn a_session_that_was_away_is_judged_when_it_returns() {
    for hello in [v5("c").expiry(PERSISTENT), v3("c")] {
        let mut world = World::new();
        let (reader, writer) = (world.connect(&hello), world.connect(&v5("w")));
        world.subscribe(reader, "a", Q1);
        world.cut(reader);
        set_policies(&mut world, &[deny(&["subscribe"], "a"), allow_all()]);
        world.publish(writer, publish_at(Q1, 1, "a", "kept"));
        let reader = world.connect(&hello);
        assert_eq!(world.drain(reader), []);

        // Taken back before it returns: nothing is lost.
        world.cut(reader);
        world.publish(writer, publish_at(Q1, 1, "a", "1"));
        set_policies(&mut world, &[allow_all()]);
        world.publish(writer, publish_at(Q1, 1, "a", "2"));
        let reader = world.connect(&hello);
        let texts = texts(&world.drain(reader));
        assert_eq!(texts[texts.len() - 2..], ["1", "2"]);
    }
}

/// A client that takes one at a time goes away while retained messages are owed to it.
#[test]
fn retained_messages_of_a_denied_filter_are_owed_no_longer() {
    for (denied, more) in [(false, &["2", "3"][..]), (true, &[])] {
        let mut world = World::new();
        let writer = world.connect(&v5("w"));
        for n in ["1", "2", "3"] {
            world.publish(writer, retained(&format!("a/{n}"), n));
        }
        let hello = v5("c").expiry(PERSISTENT).receive_maximum(1);
        let reader = world.connect(&hello);
        world.subscribe(reader, "a/#", Q1);
        assert_eq!(texts(&world.take_publishes(reader)), ["1"]);
        world.cut(reader);
        if denied {
            set_policies(&mut world, &[deny(&["subscribe"], "a/*"), allow_all()]);
        }
        let reader = world.connect(&hello);
        // What was begun is finished ([MQTT-3.10.4-3]).
        assert_eq!(texts(&world.drain(reader)), [&["1"], more].concat());
    }
}

#[test]
fn a_muted_member_of_a_group_leaves_its_share_to_the_others() {
    let mut world = World::new();
    let hello = |id| v5(id).expiry(PERSISTENT);
    let (one, two, writer) =
        (world.connect(&hello("m1")), world.connect(&hello("m2")), world.connect(&v5("w")));
    for member in [one, two] {
        world.subscribe(member, "$share/g/a/#", Q1);
    }
    let not = |ids: &[&str]| {
        let mut policy = deny(&["subscribe"], "a/#");
        policy["client_ids"] = json!(ids);
        policy
    };
    set_policies(&mut world, &[not(&["m1"]), allow_all()]);
    world.publish_numbers(writer, "a/1", Q1, 0..20);
    assert_eq!(world.drain(one), []);
    assert_eq!(texts(&world.drain(two)), numbers(0..20));

    // With nobody left the group's position waits.
    set_policies(&mut world, &[not(&["m1", "m2"]), allow_all()]);
    world.publish_numbers(writer, "a/1", Q1, 20..25);
    assert!(world.drain(one).is_empty() && world.drain(two).is_empty());
    set_policies(&mut world, &[not(&["m2"]), allow_all()]);
    assert_eq!(texts(&world.drain(one)), numbers(20..25));
    assert_eq!(world.drain(two), []);
}

#[test]
fn subscribing_again_is_decided_again() {
    let mut world = World::new();
    let reader = world.connect(&v5("c").expiry(PERSISTENT));
    let writer = world.connect(&v5("w"));
    world.subscribe(reader, "a", Q2);
    let mut at_2 = deny(&["subscribe"], "a");
    at_2["qos"] = json!([2]);
    set_policies(&mut world, &[at_2, allow_all()]);
    world.publish(writer, publish_at(Q1, 1, "a", "no"));
    world.send(reader, &subscribe(2, vec![wish("a", Q2), wish("b", Q1)]));
    let suback = world.suback(reader);
    assert_eq!(suback.reasons, [ReasonCode::NotAuthorized, ReasonCode::GrantedQoS1]);
    assert_eq!(world.drain(reader), []);
    // At a lower QoS it may.
    world.send(reader, &subscribe(3, vec![wish("a", Q1)]));
    assert_eq!(world.suback(reader).reasons, [ReasonCode::GrantedQoS1]);
    world.publish(writer, publish_at(Q1, 1, "a", "yes"));
    assert_eq!(texts(&world.drain(reader)), ["yes"]);
}

#[test]
fn publishing_is_decided_by_the_rules_of_the_moment() {
    let mut world = World::new();
    let reader = world.connect(&v5("r"));
    world.subscribe(reader, "#", Q1);
    let (five, three) = (world.connect(&v5("five")), world.connect(&v3("three")));
    let answer = |world: &mut World, peer, qos| {
        world.send(peer, &Packet::Publish(publish_at(qos, 7, "a/x", "m")));
        let answer = match world.take(peer).as_slice() {
            [Packet::PubAck(ack) | Packet::PubRec(ack)] => Some(ack.reason),
            [] => None,
            other => panic!("{other:?} is no acknowledgement"),
        };
        if qos == Q2 && answer == Some(ReasonCode::Success) {
            world.send(peer, &pubrel(id(7)));
            world.take(peer);
        }
        (answer, world.drain(reader).len())
    };
    for _ in 0..2 {
        for (peer, qos) in [(five, Q1), (five, Q2), (three, Q1), (three, Q2)] {
            assert_eq!(answer(&mut world, peer, qos), (Some(ReasonCode::Success), 1));
        }
        set_policies(&mut world, &[deny(&["publish"], "a/*"), allow_all()]);
        for _ in 0..2 {
            assert_eq!(answer(&mut world, five, Q1), (Some(ReasonCode::NotAuthorized), 0));
            assert_eq!(answer(&mut world, five, Q2), (Some(ReasonCode::NotAuthorized), 0));
            // [MQTT-3.3.5-2] of 3.1.1
            assert_eq!(answer(&mut world, three, Q1), (Some(ReasonCode::Success), 0));
            assert_eq!(answer(&mut world, three, Q2), (Some(ReasonCode::Success), 0));
            assert_eq!(answer(&mut world, five, Q0), (None, 0));
            assert_eq!(answer(&mut world, three, Q0), (None, 0));
        }
        set_policies(&mut world, &[allow_all()]);
    }
}

#[test]
fn a_will_is_judged_at_connect_and_again_when_the_connection_ends() {
    for make in [v5, v3, v31] {
        let mut world = World::new();
        let witness = world.connect(&v5("witness"));
        world.subscribe(witness, "#", Q1);
        let hello = || make("c").will(will("w/c", "gone", 0));
        set_policies(&mut world, &[deny(&["publish"], "w/*"), allow_all()]);
        let refused = world.knock(&hello());
        assert_eq!(world.connack(refused).reason, ReasonCode::NotAuthorized);
        assert!(world.is_closed(refused) && world.drain(witness).is_empty());

        for denied in [false, true] {
            set_policies(&mut world, &[allow_all()]);
            let client = world.connect(&hello());
            if denied {
                set_policies(&mut world, &[deny(&["publish"], "w/*"), allow_all()]);
            }
            world.cut(client);
            assert_eq!(world.drain(witness).len(), usize::from(!denied));
        }
    }
}

#[test]
fn whom_no_policy_lets_connect_goes_and_stays_away() {
    let mut world = World::new();
    let (five, three) = (world.connect(&v5("five").expiry(PERSISTENT)), world.connect(&v3("three")));
    let spared = world.connect(&v5("spared"));
    set_policies(&mut world, &[json!({"client_ids": ["sp*"]})]);
    assert_eq!(world.kicked_with(five), ReasonCode::NotAuthorized);
    assert!(world.is_closed(three) && !world.is_closed(spared));
    let cause = world.records.row("five").and_then(|row| row.disconnect.clone()).expect("offline, and kept");
    assert_eq!((&*cause.reason, cause.by), ("not_authorized", EndedBy::Operator));
    for hello in [v5("five"), v3("three"), v31("three")] {
        let peer = world.knock(&hello);
        assert_eq!(world.connack(peer).reason, ReasonCode::NotAuthorized);
        assert!(world.is_closed(peer));
    }
}

/// Only who has proven to be one: a name alone is nothing.
#[test]
fn a_superuser_is_asked_nothing_but_is_blocked_all_the_same() {
    let mut world = World::new();
    let mut with_root = users(&["root", "ada"]);
    with_root.superusers = [crate::model::Username::new("root").expect("a name")].into();
    world.change_rules(|rules| rules.users = with_root.clone().into());
    set_policies(&mut world, &[deny(&["connect", "publish", "subscribe"], "#")]);
    let as_user = |world: &mut World, name: &str, id: &str| {
        let secrets_id = world.rules.users.get(name).expect("a user").id;
        world.proven = Some(Proven::user(name, secrets_id));
        let peer = world.knock(&v3(id).will(will("w", "x", 0)));
        (peer, world.connack(peer).reason)
    };
    assert_eq!(as_user(&mut world, "ada", "a").1, ReasonCode::NotAuthorized);
    let (root, reason) = as_user(&mut world, "root", "r");
    assert_eq!(reason, ReasonCode::Success);
    world.subscribe(root, "a", Q1);
    world.subscribe(root, "$events/client_disconnected", Q1);
    world.publish(root, publish_at(Q1, 1, "a", "mine"));
    assert_eq!(texts(&world.drain(root)), ["mine"]);

    // No superuser any longer: the policies hold for it at once.
    with_root.superusers.clear();
    with_root.version += 1;
    world.change_rules(|rules| rules.users = with_root.clone().into());
    assert!(world.is_closed(root));
    with_root.superusers = [crate::model::Username::new("root").expect("a name")].into();
    with_root.version += 1;
    world.change_rules(|rules| rules.users = with_root.into());
    let (root, _) = as_user(&mut world, "root", "r");
    block(&mut world, "username", "ro?t", None);
    assert!(world.is_closed(root));
    assert_eq!(as_user(&mut world, "root", "r").1, ReasonCode::NotAuthorized, "3.1.1 has one code for both");
}

#[test]
fn server_topics_close_with_the_cluster() {
    let mut world = World::new();
    let open = world.connect(&v5("c"));
    world.subscribe(open, "$events/client_disconnected", Q1);
    let (other, passing) = (world.connect(&v5("d")), world.connect(&v5("e")));
    world.leave(passing);
    assert_eq!(world.drain(open).len(), 1);
    world.change_rules(|rules| rules.allow_anonymous = false);
    world.leave(other);
    assert_eq!(world.drain(open), [], "who may come in at all does not see who else does");
    world.send(open, &subscribe(1, vec![wish("$SYS/#", Q0), wish("$share/g/$x", Q0), wish("#", Q0)]));
    let reasons = world.suback(open).reasons;
    assert_eq!(reasons, [ReasonCode::NotAuthorized, ReasonCode::NotAuthorized, ReasonCode::Success]);
    world.send(open, &Packet::Publish(publish_at(Q1, 7, "$x", "m")));
    assert!(
        matches!(&world.take(open)[..], [Packet::PubAck(ack)] if ack.reason == ReasonCode::NotAuthorized)
    );
    // A policy opens what it names.
    let sys = json!({"resources": ["$SYS/#", "#"]});
    set_policies(&mut world, &[sys]);
    world.subscribe(open, "$SYS/broker/version", Q0);
    assert_eq!(world.drain(open).len(), 1);
}

#[test]
fn a_block_rule_ends_connections_and_that_is_proven_when_they_are_closed() {
    let mut world = World::new();
    let (gone, stays) = (world.connect(&v3("m-1")), world.connect(&v3("x")));
    world.sockets_linger = true;
    block(&mut world, "client_id", "m-*", Some(10));
    assert!(!world.cluster.expulsions_are_proven());
    world.close_sockets();
    assert!(world.is_closed(gone) && world.cluster.expulsions_are_proven() && !world.is_closed(stays));
    let cause = world.records.row("m-1").and_then(|row| row.disconnect.clone()).expect("offline, and kept");
    assert_eq!((&*cause.reason, cause.by), ("blocked", EndedBy::Operator));

    world.sockets_linger = false;
    for hello in [v5("m-1"), v5("m-2"), v3("m-2"), v31("m-2")] {
        let code = if hello.0.version.is_v5() { ReasonCode::Banned } else { ReasonCode::NotAuthorized };
        let peer = world.knock(&hello);
        assert_eq!(world.connack(peer).reason, code);
    }
    // It ends by the clock.
    world.advance(9);
    let peer = world.knock(&v5("m-2"));
    assert_eq!(world.connack(peer).reason, ReasonCode::Banned);
    world.advance(1);
    world.connect(&v5("m-2"));
    let (_, present) = world.connect_present(&v3("m-1"));
    assert!(present, "its session was kept");
}
