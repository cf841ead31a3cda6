//! Who is told why: Request Problem Information (MQTT 5.0, 3.1.2.11.7).

use super::packets::*;
use super::*;

/// A cluster that refuses every client's second filter, and says why.
fn with_one_filter_each() -> World {
    World::with_quota(QuotaOverrides { filters_per_client: Some(1), ..QuotaOverrides::default() })
}

fn without_problem_information(client_id: &str) -> Hello {
    let mut hello = v5(client_id);
    hello.0.request_problem_information = false;
    hello
}

#[test]
fn who_asks_for_no_problem_information_gets_the_reason_code_alone() {
    // [MQTT-3.1.2-29]
    let mut world = with_one_filter_each();
    for (hello, is_told) in [(v5("curious"), true), (without_problem_information("content"), false)] {
        let peer = world.connect(&hello);
        world.send(peer, &subscribe(1, vec![wish("a", Q1), wish("b", Q1)]));
        let suback = world.suback(peer);
        assert_eq!(suback.reasons, [ReasonCode::GrantedQoS1, ReasonCode::QuotaExceeded]);
        assert_eq!(suback.reason_string.is_some(), is_told);
        assert!(suback.user_properties.is_empty());
    }
}

#[test]
fn why_a_connection_ends_is_told_to_everybody() {
    // [MQTT-3.1.2-29] excepts CONNACK and DISCONNECT.
    let mut world = with_one_filter_each();
    let peer = world.connect(&without_problem_information("content"));
    world.send(peer, &goodbye(ReasonCode::Success, Some(1)));
    let Some(Packet::Disconnect(disconnect)) = world.take(peer).pop() else { panic!("no DISCONNECT") };
    assert_eq!(disconnect.reason, ReasonCode::ProtocolError);
    assert!(disconnect.reason_string.is_some());
}
