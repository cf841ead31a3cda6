use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::data_plane::protocol::{
    Decoder, ForwardedProperties, ForwardedProperty, Packet, PublishHead, encode_publish,
};
use crate::model::{MessageRule, MessageRuleSpec, PropertyBytes, ProtocolVersion, QoS, Timestamp};

const AT: Timestamp = Timestamp::from_millis(1_000_000);
const ADA: Variables<'_> = Variables { client_id: "meter-1", username: Some("ada") };

/// Rules of these conditions and effects, in this order.
fn rules(rules: &[(Value, Value)]) -> MessageRules {
    let rule = |(priority, (condition, effects)): (u32, &(Value, Value))| {
        let mut all = json!({"user_properties": []});
        all.as_object_mut().expect("an object").extend(effects.as_object().expect("an object").clone());
        let spec: MessageRuleSpec =
            serde_json::from_value(json!({"condition": condition, "effects": all})).expect("a rule");
        MessageRule { id: Uuid::from_u128(priority.into()), priority, spec }
    };
    MessageRules { revision: Uuid::nil(), rules: (0..).zip(rules).map(rule).collect() }
}

fn message(topic: &str, properties: PropertyBytes) -> Message {
    Message {
        topic: TopicName::new(topic.to_owned()).expect("a topic"),
        payload: Bytes::from_static(b"payload"),
        qos: QoS::AtMostOnce,
        retain: false,
        properties,
        expires_at: None,
        published_at: AT,
        publisher: None,
    }
}

/// Properties as they are written here: `format`, `type=`, `topic=`, `data=` or `name:value`.
fn written(properties: &PropertyBytes) -> Vec<String> {
    let property = |property| match property {
        ForwardedProperty::PayloadFormat { is_utf8 } => format!("format={is_utf8}"),
        ForwardedProperty::ContentType(text) => format!("type={text}"),
        ForwardedProperty::ResponseTopic(text) => format!("topic={text}"),
        ForwardedProperty::CorrelationData(data) => format!("data={}", String::from_utf8_lossy(data)),
        ForwardedProperty::UserProperty(name, value) => format!("{name}:{value}"),
    };
    ForwardedProperties::of(properties).map(property).collect()
}

fn own_properties() -> PropertyBytes {
    let topic = TopicName::new("own/reply").expect("a topic");
    let values = ForwardedValues {
        payload_is_utf8: Some(true),
        content_type: Some("text/plain"),
        response_topic: Some(&topic),
        correlation_data: Some(b"own"),
        user_properties: &[("k".into(), "own".into())],
    };
    values.to_bytes().expect("valid")
}

fn user(name: &str, value: &str) -> Value {
    json!({"user_properties": [{"name": name, "value": value}]})
}

#[test]
fn every_effect_of_every_rule_that_holds_is_had() {
    let (all, nobody) = (json!({}), json!({"client_id": "x"}));
    let topic = |text: &str| json!({"response_topic": text});
    let data = |text: &str| json!({"correlation_data": text});
    for (rows, added, left_out) in [
        (vec![], &[][..], 0),
        (vec![(nobody.clone(), topic("r"))], &[], 0),
        (vec![(all.clone(), topic("r/${clientid}"))], &["topic=r/meter-1"], 0),
        (vec![(all.clone(), data("${username}@${topic}"))], &["data=ada@a/b"], 0),
        (vec![(all.clone(), user("from", "${clientid} $$"))], &["from:meter-1 $"], 0),
        // The first that gives one; of user properties all.
        (vec![(all.clone(), topic("one")), (all.clone(), topic("two"))], &["topic=one"], 0),
        (vec![(nobody, topic("one")), (all.clone(), topic("two"))], &["topic=two"], 0),
        (vec![(all.clone(), data("one")), (all.clone(), topic("two"))], &["topic=two", "data=one"], 0),
        (vec![(all.clone(), user("k", "1")), (all.clone(), user("k", "2"))], &["k:1", "k:2"], 0),
        // What the first cannot give the next may.
        (vec![(all.clone(), topic("${topic}/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15"))], &[], 1),
        (vec![(all.clone(), topic(&"l/".repeat(16))), (all.clone(), topic("two"))], &["topic=two"], 1),
    ] {
        let mut message = message("a/b", PropertyBytes::default());
        assert_eq!(enhance(&rules(&rows), ADA, &mut message), left_out, "{rows:?}");
        assert_eq!(written(&message.properties), added, "{rows:?}");
        assert_eq!((message.expires_at, &message.payload[..]), (None, &b"payload"[..]));
    }
}

#[test]
fn what_the_publisher_sent_gives_way_or_comes_first() {
    let effects = json!({
        "response_topic": "rule", "correlation_data": "rule",
        "user_properties": [{"name": "k", "value": "rule"}],
    });
    let mut both = message("a", own_properties());
    enhance(&rules(&[(json!({}), effects)]), ADA, &mut both);
    let expected = ["format=true", "type=text/plain", "k:own", "topic=rule", "data=rule", "k:rule"];
    assert_eq!(written(&both.properties), expected);
    // What cannot be given stays as it was, as does a message that no rule is for.
    let nobody = Variables { client_id: "c/#", username: None };
    let empty = json!({"response_topic": "r/${clientid}", "correlation_data": "${username}"});
    for (condition, left_out) in [(json!({}), 2), (json!({"topic_filter": "b/#"}), 0)] {
        let mut own = message("a", own_properties());
        assert_eq!(enhance(&rules(&[(condition, empty.clone())]), nobody, &mut own), left_out);
        assert_eq!(own.properties, own_properties());
    }
}

#[test]
fn an_untouched_message_keeps_its_memory() {
    let untouched = own_properties();
    let mut message = message("a", PropertyBytes(untouched.0.clone()));
    let rules = rules(&[
        (json!({"client_id": "x"}), user("k", "v")),
        (json!({}), json!({"message_expiry": {"mode": "set", "seconds": 5}})),
    ]);
    assert_eq!(enhance(&rules, ADA, &mut message), 0);
    assert_eq!(message.properties.0.as_ptr(), untouched.0.as_ptr());
}

#[test]
fn expiry_is_set_or_capped_by_the_first_that_says() {
    let expiry =
        |mode: &str, seconds: u32| (json!({}), json!({"message_expiry": {"mode": mode, "seconds": seconds}}));
    let shorter = || expiry("set", 1);
    for (rows, own, expected) in [
        (vec![expiry("set", 60)], None, 60),
        (vec![expiry("set", 60)], Some(10), 60),
        (vec![expiry("set", 60)], Some(90), 60),
        (vec![expiry("cap", 60)], None, 60),
        (vec![expiry("cap", 60)], Some(10), 10),
        (vec![expiry("cap", 60)], Some(90), 60),
        (vec![expiry("cap", 60), shorter()], Some(90), 60),
        (vec![(json!({}), user("k", "v")), expiry("set", 7)], None, 7),
        (vec![expiry("set", u32::MAX)], None, u32::MAX),
    ] {
        let mut message = message("a", PropertyBytes::default());
        message.expires_at = own.map(|secs| AT.plus_secs(secs));
        enhance(&rules(&rows), ADA, &mut message);
        assert_eq!(message.expires_at, Some(AT.plus_secs(expected)), "{rows:?} {own:?}");
    }
}

#[test]
fn user_properties_that_do_not_fit_are_left_out() {
    // One of 1,024 bytes under the name `k` takes 1,030.
    let long = "x".repeat(1_024);
    let many: Vec<Value> = (0..9).map(|_| json!({"name": "k", "value": long})).collect();
    let rules = rules(&[(json!({}), json!({"user_properties": many})), (json!({}), user("small", "1"))]);
    let mut full = message("a", PropertyBytes::default());
    assert_eq!(enhance(&rules, ADA, &mut full), 2);
    assert_eq!(forwarded_user_property_bytes(&full.properties), 7 * 1_030 + 11);
    assert_eq!(written(&full.properties).last().map(String::as_str), Some("small:1"), "a smaller one fits");

    // The publisher's own take room, to the byte.
    for (own_bytes, left_out) in [(8_192 - 11, 9), (8_192 - 10, 10)] {
        let value = "y".repeat(own_bytes - 6);
        let own =
            ForwardedValues { user_properties: &[("k".into(), value.into())], ..ForwardedValues::default() };
        let mut message = message("a", own.to_bytes().expect("valid"));
        assert_eq!(enhance(&rules, ADA, &mut message), left_out);
        assert!(forwarded_user_property_bytes(&message.properties) <= USER_PROPERTY_BYTES_MAX);
    }
}

#[test]
fn a_name_with_a_nul_is_left_out() {
    // A token's claim may say so; CONNECT cannot.
    let who = Variables { client_id: "c", username: Some("a\0b") };
    let mut message = message("a", PropertyBytes::default());
    let effects = json!({
        "response_topic": "r/${username}", "correlation_data": "${username}",
        "user_properties": [{"name": "k", "value": "${username}"}, {"name": "k", "value": "v"}],
    });
    assert_eq!(enhance(&rules(&[(json!({}), effects)]), who, &mut message), 2);
    assert_eq!(written(&message.properties), ["data=a\0b", "k:v"], "binary data is anything");
}

/// Templates with everything in them, parsed or not.
fn template() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "\\PC{0,12}",
        "[/a-z]{0,300}",
        Just("${clientid}".to_owned()),
        Just("${username}".to_owned()),
        Just("${topic}".to_owned()),
        Just("$$".to_owned()),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

fn effects() -> impl Strategy<Value = Value> {
    let optional = || prop::option::of(template());
    let users = prop::collection::vec(("\\PC{1,40}", template()), 0..17);
    let expiry = prop::option::of((any::<bool>(), 1_u32..));
    (optional(), optional(), users, expiry).prop_map(|(topic, data, users, expiry)| {
        let keep = |text: Option<String>| text.filter(|text| RuleText::new(text).is_ok());
        let topic = keep(topic).filter(|text| RuleTopic::try_from(text.clone()).is_ok());
        let users = users.into_iter().filter(|(_, value)| RuleText::new(value).is_ok());
        let user = |(name, value)| json!({"name": name, "value": value});
        let expiry =
            expiry.map(|(cap, seconds)| json!({"mode": if cap { "cap" } else { "set" }, "seconds": seconds}));
        json!({
            "message_expiry": expiry, "response_topic": topic, "correlation_data": keep(data),
            "user_properties": users.map(user).collect::<Vec<_>>(),
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a rule says that was accepted, and whoever publishes: a client of MQTT 5 can read the message, and
    /// its topic and payload are the publisher's.
    #[test]
    fn no_rule_makes_a_message_that_cannot_be_read(
        all in prop::collection::vec(effects(), 1..10),
        client_id in "[^\0]{1,64}|[+#/$]{1,4}|[a-z]{256}",
        username in prop::option::of(".{0,300}"),
        topic in "[^\0+#]{1,200}|[a-z/]{1,1024}",
        own in any::<bool>(),
    ) {
        let rows: Vec<_> = all.into_iter().map(|effects| (json!({}), effects)).collect();
        let rules = rules(&rows);
        let properties = if own { own_properties() } else { PropertyBytes::default() };
        let mut enhanced = message(&topic, properties);
        let who = Variables { client_id: &client_id, username: username.as_deref() };
        enhance(&rules, who, &mut enhanced);

        let head = PublishHead {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            packet_id: None,
            subscription_ids: &[],
            topic_alias: None,
            omit_topic: false,
            now: AT,
        };
        let mut bytes = Vec::new();
        encode_publish(&head, &enhanced, ProtocolVersion::V5, &mut bytes);
        let mut decoder = Decoder::client(ProtocolVersion::V5, 1_000_000);
        let packet = decoder.decode(&mut BytesMut::from(&bytes[..]));
        let Ok(Some(Packet::Publish(publish))) = packet else { panic!("{packet:?}") };
        prop_assert_eq!(publish.topic.as_ref().map(TopicName::as_str), Some(topic.as_str()));
        prop_assert_eq!(&publish.payload[..], b"payload");
        prop_assert_eq!(&publish.properties.forwarded, &enhanced.properties);
        prop_assert!(forwarded_user_property_bytes(&enhanced.properties) <= USER_PROPERTY_BYTES_MAX);
        for property in ForwardedProperties::of(&enhanced.properties) {
            if let ForwardedProperty::ResponseTopic(text) = property {
                let topic = TopicName::new(text.to_owned()).expect("a topic name");
                prop_assert!(topic_within_limits(text, topic.levels()).is_ok());
            }
        }
    }
}
