//! Automatic subscriptions at CONNECT: which, before what, under which limits, over which changes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::packets::*;
use super::records::{Mode, on_behalf};
use super::*;
use crate::data_plane::cluster::RecordOutcome;
use crate::data_plane::session::authentication::Proof;
use crate::model::{
    AccessRules, AutoSubscription, AutoSubscriptions, Policy, RefusalReason, SubscriptionOrigin,
};

/// A rule for everybody at QoS 1, but for what is said.
fn rule(filter: &str, but: &Value) -> Value {
    let mut spec = json!({
        "client_id": null, "username": null, "filter": filter, "qos": 1, "no_local": false,
        "retain_as_published": false, "retain_handling": 0,
    });
    for (key, value) in but.as_object().expect("an object") {
        spec[key] = value.clone();
    }
    spec
}

/// These rules and no others, the newest first.
fn set_rules(world: &mut World, rules: &[Value]) {
    let of = |spec: &Value| AutoSubscription {
        id: Uuid::nil(),
        spec: serde_json::from_value(spec.clone()).expect("a rule"),
    };
    world.last_id += 1;
    let automatic =
        AutoSubscriptions { revision: Uuid::from_u128(world.last_id), rules: rules.iter().map(of).collect() };
    world.change_rules(|rules| rules.automatic = automatic.into());
}

fn with_rules(filters: &[&str]) -> World {
    let mut world = World::new();
    let rules: Vec<_> = filters.iter().map(|filter| rule(filter, &json!({}))).collect();
    set_rules(&mut world, &rules);
    world
}

fn filters(world: &World, client: &str) -> Vec<String> {
    world.records.filters(client).into_iter().map(|(filter, _)| filter).collect()
}

fn refused(world: &mut World) -> Vec<(RefusalReason, String)> {
    std::mem::take(&mut world.refusals).into_iter().map(|r| (r.reason, r.detail)).collect()
}

#[test]
fn a_client_is_subscribed_without_asking_and_hears_from_then_on() {
    for hello in [v5("c").expiry(100), v5("c"), v3("c"), v3("c").clean(), v31("c")] {
        let mut world = with_rules(&["down/${clientid}"]);
        let publisher = world.connect(&v5("p"));
        let (client, present) = world.connect_present(&hello);
        assert!(!present);
        assert_eq!(world.take(client), [], "no SUBACK");
        world.publish(publisher, publish_at(Q1, 1, "down/c", "x"));
        world.publish(publisher, publish_at(Q1, 2, "down/p", "not for it"));
        assert_eq!(texts(&world.drain(client)), ["x"]);
        assert_eq!(world.cluster.subscription_count(), 2);
        let [held] = world.records.subscriptions("c") else { panic!("one subscription") };
        assert_eq!((held.origin, held.qos), (SubscriptionOrigin::Automatic, Q1));
    }
}

#[test]
fn it_is_committed_with_the_record_before_the_connack() {
    let mut world = with_rules(&["a", "b"]);
    world.records.mode = Mode::Late;
    let waiting = world.knock(&v5("c").expiry(100));
    assert_eq!(world.take(waiting), []);
    world.decide_records(RecordOutcome::Committed);
    assert_eq!(world.connack(waiting).reason, ReasonCode::Success);
    assert_eq!(filters(&world, "c"), ["a", "b"]);
    // One that the store refuses leaves nothing behind.
    let refused = world.knock(&v5("d").expiry(100));
    world.decide_records(RecordOutcome::Refused);
    assert_eq!(world.connack(refused).reason, ReasonCode::ServerUnavailable);
    assert_eq!(world.cluster.subscription_count(), 2);
}

#[test]
fn it_goes_on_over_resume_and_restart_and_begins_once() {
    let mut world = with_rules(&["t"]);
    let publisher = world.connect(&v5("p").clean());
    for hello in [v5("five").expiry(100), v3("three")] {
        let client = world.connect(&hello);
        world.cut(client);
    }
    world.publish(publisher, publish_at(Q1, 1, "t", "while away"));
    world.restart(1);
    set_rules(&mut world, &[]);
    for hello in [v5("five").expiry(100), v3("three")] {
        let (client, present) = world.connect_present(&hello);
        assert!(present);
        assert_eq!(texts(&world.drain(client)), ["while away"]);
        let [held] = world.records.subscriptions(&hello.0.client_id) else { panic!("one subscription") };
        assert_eq!(held.origin, SubscriptionOrigin::Automatic);
    }
}

#[test]
fn what_the_session_has_stays_and_the_newest_of_several_rules_holds() {
    use SubscriptionOrigin::{Automatic, Client, Operator};
    let mut world = World::new();
    let client = world.connect(&v5("c").expiry(100));
    world.subscribe(client, "own", Q0);
    world.order("c", Order::Subscribe(Box::new(on_behalf("operator", Q0))));
    world.cut(client);
    set_rules(
        &mut world,
        &[
            rule("own", &json!({"qos": 2})),
            rule("operator", &json!({"qos": 2})),
            rule("x/${clientid}", &json!({"qos": 2})),
            rule("x/c", &json!({"qos": 0})),
        ],
    );
    world.connect(&v5("c").expiry(100));
    let held: BTreeMap<_, _> = world
        .records
        .subscriptions("c")
        .iter()
        .map(|s| (s.filter.as_str().to_owned(), (s.qos, s.origin)))
        .collect();
    let expected = [("own", (Q0, Client)), ("operator", (Q0, Operator)), ("x/c", (Q2, Automatic))];
    assert_eq!(held, expected.map(|(filter, held)| (filter.to_owned(), held)).into());
}

#[test]
fn existing_ones_come_first_then_automatic_then_what_is_asked_for() {
    // PRODUCT 2: the conflict order.
    for (limit, reason) in [
        (QuotaOverrides { filters_per_client: Some(2), ..QuotaOverrides::default() }, "filters_per_client"),
        (QuotaOverrides { subscriptions: Some(2), ..QuotaOverrides::default() }, "subscriptions"),
    ] {
        for hello in [v5("c").expiry(100), v3("c")] {
            let mut world = World::with_quota(limit);
            let client = world.connect(&hello);
            world.subscribe(client, "own", Q1);
            world.cut(client);
            set_rules(&mut world, &[rule("new", &json!({})), rule("old", &json!({}))]);
            let client = world.connect(&hello);
            assert_eq!(filters(&world, "c"), ["new", "own"]);
            let [(code, detail)] = &refused(&mut world)[..] else { panic!("one refusal") };
            assert_eq!(code.as_str(), reason);
            let why = format!("automatic subscription to old: quota {reason}: limit 2, in use 2");
            assert_eq!(*detail, why);
            world.send(client, &subscribe(1, vec![wish("manual", Q1)]));
            assert!(world.suback(client).reasons[0].is_error());
            // Room that the client makes is the rules' at its next CONNECT.
            world.send(client, &unsubscribe(2, &["own"]));
            world.take(client);
            world.cut(client);
            world.connect(&hello);
            assert_eq!(filters(&world, "c"), ["new", "old"]);
        }
    }
}

#[test]
fn shared_groups_have_their_limits_for_automatic_ones_too() {
    let quota = QuotaOverrides { members_per_shared_group: Some(1), ..QuotaOverrides::default() };
    let mut world = World::with_quota(quota);
    set_rules(&mut world, &[rule("$share/g/t", &json!({}))]);
    let first = world.connect(&v3("first"));
    world.connect(&v5("second"));
    let [(reason, _)] = refused(&mut world)[..] else { panic!("one refusal") };
    assert_eq!(reason, RefusalReason::MembersPerSharedGroup);
    let publisher = world.connect(&v5("first-not"));
    world.publish(publisher, publish_at(Q1, 1, "t", "x"));
    assert_eq!(texts(&world.drain(first)), ["x"]);
}

#[test]
fn retained_messages_come_behind_connack_as_the_rule_says() {
    for (handling, expected) in [(0, &["old"][..]), (1, &["old"]), (2, &[])] {
        let mut world = World::new();
        let publisher = world.connect(&v5("p"));
        world.publish(publisher, retained("t", "old"));
        set_rules(&mut world, &[rule("t", &json!({"retain_handling": handling}))]);
        for hello in [v5("c").expiry(100), v3("d")] {
            let client = world.connect(&hello);
            assert_eq!(texts(&world.drain(client)), expected, "{handling}");
            world.cut(client);
            // What is there does not begin again.
            let client = world.connect(&hello);
            assert_eq!(texts(&world.drain(client)), [""; 0]);
        }
    }
}

#[test]
fn the_options_of_a_rule_are_those_of_the_subscription() {
    let mut world = World::new();
    set_rules(&mut world, &[rule("t", &json!({"no_local": true, "retain_as_published": true, "qos": 0}))]);
    let client = world.connect(&v5("c"));
    world.publish(client, publish("t", "own"));
    assert_eq!(world.take(client), []);
    let other = world.connect(&v5("o"));
    world.publish(other, Publish { retain: true, ..publish_at(Q1, 1, "t", "x") });
    let seen = world.drain(client);
    assert!(seen.len() == 1 && seen[0].retain && seen[0].qos == Q0);
}

#[test]
fn an_unsubscribe_holds_until_the_next_connect() {
    for hello in [v5("c").expiry(100), v3("c")] {
        let mut world = with_rules(&["t"]);
        let client = world.connect(&hello);
        world.send(client, &unsubscribe(1, &["t"]));
        world.take(client);
        assert_eq!(filters(&world, "c"), [""; 0]);
        world.cut(client);
        let (client, present) = world.connect_present(&hello);
        assert!(present);
        assert_eq!(filters(&world, "c"), ["t"]);
        // A SUBSCRIBE makes it the client's own.
        world.subscribe(client, "t", Q0);
        assert_eq!(world.records.subscriptions("c")[0].origin, SubscriptionOrigin::Client);
    }
}

#[test]
fn rules_that_change_hold_for_the_next_connect_and_touch_nobody() {
    let mut world = with_rules(&["a"]);
    let first = world.connect(&v5("first").expiry(100));
    set_rules(&mut world, &[rule("b", &json!({}))]);
    assert_eq!(filters(&world, "first"), ["a"]);
    world.connect(&v5("second").expiry(100));
    assert_eq!(filters(&world, "second"), ["b"]);
    world.cut(first);
    world.connect(&v5("first").expiry(100));
    assert_eq!(filters(&world, "first"), ["a", "b"], "what a rule gave stays when it goes");
}

#[test]
fn a_name_that_would_mean_more_than_itself_gets_nothing() {
    let mut world = with_rules(&["x/${username}", "x/${clientid}", "plain"]);
    for id in ["a/b", "+", "#", "$c"] {
        world.connect(&v5(id));
        assert_eq!(filters(&world, id), ["plain"], "{id}");
        let refused = refused(&mut world);
        assert_eq!(
            refused.iter().map(|(reason, _)| *reason).collect::<Vec<_>>(),
            [RefusalReason::FilterInvalid, RefusalReason::FilterInvalid]
        );
        assert_eq!(refused[0].1, "automatic subscription to x/${username}: the client has no user name");
    }
    let vouched = crate::model::Vouched::by(Uuid::nil());
    world.proven =
        Some(Proven { username: Some("ada".into()), by: Proof::Vouched(Box::new(vouched)), enhanced: None });
    world.connect(&v5("c"));
    assert_eq!(filters(&world, "c"), ["plain", "x/ada", "x/c"]);
}

#[test]
fn a_filter_that_gets_too_long_is_refused_for_that_client() {
    let mut world = with_rules(&[&format!("{}/${{clientid}}", "x".repeat(1_000))]);
    world.connect(&v5(&"c".repeat(12)));
    assert_eq!(refused(&mut world), []);
    world.connect(&v5(&"c".repeat(24)));
    let [(reason, _)] = refused(&mut world)[..] else { panic!("one refusal") };
    assert_eq!(reason, RefusalReason::FilterInvalid);
}

#[test]
fn policies_are_not_asked_but_the_client_s_own_subscribe_is() {
    let mut world = with_rules(&["t"]);
    let spec = json!({
        "effect": "deny", "actions": ["subscribe"], "resources": ["#"], "client_ids": ["c"],
        "usernames": [], "networks": [], "qos": [], "retain": null,
    });
    let allow = json!({
        "effect": "allow", "actions": ["connect", "publish", "subscribe"], "resources": ["#"],
        "client_ids": [], "usernames": [], "networks": [], "qos": [], "retain": null,
    });
    let policy = |priority: u32, spec: Value| Policy {
        id: Uuid::from_u128(priority.into()),
        priority,
        spec: serde_json::from_value(spec).expect("a policy"),
    };
    let policies = vec![policy(0, spec), policy(1, allow)];
    let access = AccessRules { revision: Uuid::from_u128(9), policies, block_rules: Vec::new() };
    world.change_rules(|rules| rules.access = access.into());
    let client = world.connect(&v5("c"));
    let publisher = world.connect(&v5("p"));
    world.publish(publisher, publish_at(Q1, 1, "t", "x"));
    assert_eq!(texts(&world.drain(client)), ["x"]);
    world.send(client, &subscribe(1, vec![wish("t", Q1)]));
    assert_eq!(world.suback(client).reasons, [ReasonCode::NotAuthorized]);
}

#[test]
fn while_the_store_is_away_nothing_new_is_promised() {
    let mut world = with_rules(&["a"]);
    let client = world.connect(&v5("c").expiry(100));
    world.cut(client);
    set_rules(&mut world, &[rule("a", &json!({})), rule("b", &json!({}))]);
    world.store_goes_away();
    let (client, present) = world.connect_present(&v5("c").expiry(100));
    assert!(present);
    let [(reason, _)] = refused(&mut world)[..] else { panic!("one refusal") };
    assert_eq!(reason, RefusalReason::StoreUnavailable);
    let publisher = world.connect(&v5("p"));
    world.publish(publisher, publish_at(Q1, 1, "a", "x"));
    assert_eq!(texts(&world.drain(client)), ["x"], "what it had goes on");
    world.store_comes_back();
    world.cut(client);
    world.connect(&v5("c").expiry(100));
    assert_eq!(filters(&world, "c"), ["a", "b"]);
}

#[test]
fn a_store_that_goes_away_under_a_resume_takes_back_what_came_with_it() {
    let mut world = World::new();
    let client = world.connect(&v5("c").expiry(100));
    world.cut(client);
    set_rules(&mut world, &[rule("a", &json!({}))]);
    world.records.mode = Mode::Late;
    let waiting = world.knock(&v5("c").expiry(100));
    world.decide_records(RecordOutcome::StoreAway);
    assert_eq!(world.connack(waiting).reason, ReasonCode::Success, "a known session resumes");
    assert_eq!(world.cluster.subscription_count(), 0);
    world.store_comes_back();
    assert_eq!(filters(&world, "c"), [""; 0]);
}

/// Rules, sessions and limits by chance, held against a model in plain words.
#[test]
fn what_a_client_has_after_connect_is_what_the_rules_say() {
    for seed in 1..300_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut pick = |of: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % of
        };
        let limit = u32::try_from(pick(6)).expect("small");
        let total = u32::try_from(pick(9)).expect("small");
        let mut world = World::with_quota(QuotaOverrides {
            filters_per_client: Some(limit),
            subscriptions: Some(total),
            ..QuotaOverrides::default()
        });
        let mut expected: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let room = |all: &BTreeMap<&str, Vec<String>>, of: &str| {
            let in_use = all.values().map(Vec::len).sum::<usize>();
            all[of].len() < limit as usize && in_use < total as usize
        };
        for client in ["m-1", "m-2", "x/1"] {
            let peer = world.connect(&v5(client).expiry(100));
            expected.insert(client, Vec::new());
            for filter in ["f/0", "f/1", "f/2"].iter().take(usize::try_from(pick(4)).expect("small")) {
                world.send(peer, &subscribe(1, vec![wish(filter, Q0)]));
                world.take(peer);
                if room(&expected, client) {
                    expected.get_mut(client).expect("listed").push((*filter).to_owned());
                }
            }
            world.cut(peer);
        }
        let templates = ["f/1", "f/2", "g", "g/${clientid}", "$share/s/${clientid}", "x/${username}"];
        let rules: Vec<(&str, &str)> = (0..pick(7))
            .map(|_| {
                let pattern = ["*", "m-?", "x*"][usize::try_from(pick(3)).expect("small")];
                (pattern, templates[usize::try_from(pick(6)).expect("small")])
            })
            .collect();
        let specs: Vec<_> =
            rules.iter().map(|(pattern, filter)| rule(filter, &json!({"client_id": pattern}))).collect();
        set_rules(&mut world, &specs);
        for client in ["x/1", "m-2", "m-1"] {
            world.connect(&v5(client).expiry(100));
            let mut asked: Vec<String> = Vec::new();
            for (pattern, template) in &rules {
                let named = match *pattern {
                    "*" => true,
                    "m-?" => client.starts_with('m'),
                    _ => client.starts_with('x'),
                };
                let unfit = template.contains("${username}")
                    || (template.contains("${clientid}") && client.contains('/'));
                let filter = template.replace("${clientid}", client);
                if !named || unfit || asked.contains(&filter) || expected[client].contains(&filter) {
                    continue;
                }
                asked.push(filter.clone());
                if room(&expected, client) {
                    expected.get_mut(client).expect("listed").push(filter);
                }
            }
            let mut of_client = expected[client].clone();
            of_client.sort();
            assert_eq!(filters(&world, client), of_client, "seed {seed}, client {client}");
        }
    }
}
