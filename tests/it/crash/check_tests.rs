//! The checker can fail: a made-up history for each promise that can be broken, and beside it the same
//! history without the breach.

use holdfast::model::QoS;

use super::check::{Violation, check};
use super::history::{
    Connection, Delivery, Fate, History, Micros, Published, Stream, Subscriber, Will, Window,
};
use super::owed::{Asked, Collector, STREAMS, TOPICS};
use super::session::Token;

const Q0: QoS = QoS::AtMostOnce;
const Q1: QoS = QoS::AtLeastOnce;
const Q2: QoS = QoS::ExactlyOnce;
/// One millisecond; the made-up times are in them.
const MS: Micros = 1_000;

/// A publisher of one stream to `t/a`, and one subscriber to `t/#`, both at this QoS, connected since 1.
fn history(qos: QoS) -> History {
    let stream =
        Stream { publisher: 9, topic: "t/a", qos, big: false, retain: false, base: 0, messages: Vec::new() };
    History { streams: vec![stream], subscribers: vec![subscriber("s", None, qos)], ..History::default() }
}

fn subscriber(name: &str, group: Option<&'static str>, qos: QoS) -> Subscriber {
    let window = Window {
        filter: "t/#",
        qos,
        no_local: false,
        asked: 1,
        granted: Some(2),
        renounced: None,
        ended: None,
    };
    Subscriber {
        name: name.to_owned(),
        group,
        windows: vec![window],
        connections: vec![Connection { begun: 1, ..Connection::default() }],
        deliveries: Vec::new(),
    }
}

/// The next message: sent at `at`, acknowledged one millisecond later.
fn publish(history: &mut History, at: Micros) -> Token {
    let messages = &mut history.streams[0].messages;
    let acknowledged = Some((at + 1) * MS);
    messages.push(Published { first_sent: at * MS, sends: 1, acknowledged, abandoned: false });
    Token { stream: 0, number: u32::try_from(messages.len()).expect("few") }
}

/// Delivers to a subscriber on a connection, acknowledged at once.
fn deliver(history: &mut History, to: usize, connection: u32, token: Token, at: Micros) {
    let qos = history.subscribers[to].windows[0].qos.min(history.streams[0].qos);
    let acknowledged = (qos == Q1).then_some(at * MS);
    history.subscribers[to].deliveries.push(Delivery { token, qos, at: at * MS, connection, acknowledged });
}

/// The service dies, and the subscriber is back 5 ms later.
fn die(history: &mut History, at: Micros) {
    history.deaths.push(at * MS);
    for subscriber in &mut history.subscribers {
        if let Some(connection) = subscriber.connections.last_mut() {
            connection.ended = Some(at * MS + 1);
        }
        subscriber.connections.push(Connection { begun: (at + 5) * MS, ..Connection::default() });
    }
}

#[track_caller]
fn finds(history: &History, expected: &[Violation]) {
    assert_eq!(check(history).violations, expected);
}

fn to_s(token: Token) -> (String, Token) {
    ("s".to_owned(), token)
}

#[test]
fn a_run_without_fault_has_none() {
    for qos in [Q0, Q1, Q2] {
        let mut history = history(qos);
        for at in [10, 20, 30] {
            let token = publish(&mut history, at);
            deliver(&mut history, 0, 0, token, at + 2);
        }
        finds(&history, &[]);
    }
}

#[test]
fn a_lost_message_is_found_and_one_that_nobody_acknowledged_is_not_lost() {
    let mut history = history(Q1);
    let token = publish(&mut history, 10);
    let (to, token) = to_s(token);
    finds(&history, &[Violation::Lost { to, token }]);
    history.streams[0].messages[0].acknowledged = None;
    finds(&history, &[Violation::Stuck { token }]);
    history.streams[0].messages[0].abandoned = true;
    finds(&history, &[]);
}

#[test]
fn a_message_from_before_the_suback_need_not_come() {
    let mut history = history(Q1);
    publish(&mut history, 10);
    history.subscribers[0].windows[0].granted = Some(11 * MS);
    finds(&history, &[]);
}

#[test]
fn a_second_delivery_at_qos_2_is_found_whatever_happened() {
    let mut history = history(Q2);
    let token = publish(&mut history, 10);
    deliver(&mut history, 0, 0, token, 12);
    die(&mut history, 20);
    deliver(&mut history, 0, 1, token, 30);
    let (to, token) = to_s(token);
    finds(&history, &[Violation::Duplicate { to, token, at: 30 * MS }]);
}

#[test]
fn a_second_delivery_at_qos_1_needs_a_crash_between() {
    let mut history = history(Q1);
    let token = publish(&mut history, 10);
    deliver(&mut history, 0, 0, token, 12);
    deliver(&mut history, 0, 0, token, 13);
    let (to, token) = to_s(token);
    finds(&history, &[Violation::Duplicate { to, token, at: 13 * MS }]);
    history.streams[0].messages[0].sends = 2;
    finds(&history, &[]);
}

#[test]
fn a_second_delivery_at_qos_1_is_found_when_the_first_one_s_puback_was_recorded() {
    for (proven, saved) in [(false, false), (true, false), (true, true)] {
        let mut history = history(Q1);
        let token = publish(&mut history, 10);
        deliver(&mut history, 0, 0, token, 12);
        if proven {
            history.subscribers[0].connections[0].pings.push((14 * MS, 15 * MS));
        }
        if saved {
            // Went to disk long after the PUBACK was processed.
            let later = publish(&mut history, 900);
            deliver(&mut history, 0, 0, later, 905);
        }
        die(&mut history, 1_000);
        deliver(&mut history, 0, 1, token, 1_010);
        if saved {
            let (to, token) = to_s(token);
            finds(&history, &[Violation::Duplicate { to, token, at: 1_010 * MS }]);
        } else {
            assert_eq!((check(&history).violations, check(&history).repeated), (vec![], 1));
        }
    }
}

#[test]
fn each_copy_may_be_repeated_and_none_more_often() {
    let mut history = history(Q1);
    let token = publish(&mut history, 10);
    history.streams[0].messages[0].sends = 2;
    deliver(&mut history, 0, 0, token, 12);
    deliver(&mut history, 0, 0, token, 13);
    die(&mut history, 20);
    deliver(&mut history, 0, 1, token, 30);
    deliver(&mut history, 0, 1, token, 31);
    finds(&history, &[]);
    deliver(&mut history, 0, 1, token, 32);
    let (to, token) = to_s(token);
    finds(&history, &[Violation::Duplicate { to, token, at: 32 * MS }]);
}

#[test]
fn a_message_of_a_round_before_is_a_duplicate() {
    let mut history = history(Q1);
    let old = publish(&mut history, 10);
    let last = publish(&mut history, 20);
    history.next_round();
    deliver(&mut history, 0, 0, last, 30);
    finds(&history, &[]);
    deliver(&mut history, 0, 0, old, 31);
    let (to, token) = to_s(old);
    finds(&history, &[Violation::Duplicate { to, token, at: 31 * MS }]);
}

#[test]
fn a_wrong_order_is_found_but_not_around_a_subscribe() {
    for (qos, order) in [(Q1, [1, 3, 2]), (Q2, [2, 1, 3])] {
        let mut history = history(qos);
        for at in [10, 11, 12] {
            publish(&mut history, at);
        }
        for (at, number) in (20..).zip(order) {
            deliver(&mut history, 0, 0, Token { stream: 0, number }, at);
        }
        let late = if qos == Q1 { (2, 3) } else { (1, 2) };
        let (to, token) = to_s(Token { stream: 0, number: late.0 });
        finds(&history, &[Violation::OutOfOrder { to, token, after: late.1 }]);
    }
    let mut history = history(Q1);
    for at in [10, 11] {
        publish(&mut history, at);
    }
    for (at, number) in [(20, 2), (21, 1)] {
        deliver(&mut history, 0, 0, Token { stream: 0, number }, at);
    }
    let window = &mut history.subscribers[0].windows[0];
    (window.asked, window.granted) = (10 * MS, Some(10 * MS));
    finds(&history, &[]);
}

#[test]
fn repetition_is_no_breach_of_order() {
    let mut history = history(Q1);
    for at in [10, 11] {
        let token = publish(&mut history, at);
        deliver(&mut history, 0, 0, token, at + 5);
    }
    die(&mut history, 20);
    for number in [1, 2] {
        deliver(&mut history, 0, 1, Token { stream: 0, number }, 30);
    }
    finds(&history, &[]);
}

#[test]
fn what_was_never_published_or_subscribed_to_is_found() {
    let mut history = history(Q2);
    let token = Token { stream: 0, number: 1 };
    deliver(&mut history, 0, 0, token, 12);
    let to = "s".to_owned();
    finds(&history, &[Violation::Invented { to: to.clone(), token }]);
    publish(&mut history, 10);
    finds(&history, &[]);
    let window = &mut history.subscribers[0].windows[0];
    (window.asked, window.granted) = (20 * MS, Some(21 * MS));
    finds(&history, &[Violation::Uninvited { to: to.clone(), token }]);
    let window = &mut history.subscribers[0].windows[0];
    (window.asked, window.granted) = (1, Some(2));
    (window.renounced, window.ended) = (Some(4 * MS), Some(5 * MS));
    finds(&history, &[Violation::Uninvited { to, token }]);
}

#[test]
fn another_qos_is_found() {
    let mut history = history(Q2);
    let token = publish(&mut history, 10);
    deliver(&mut history, 0, 0, token, 12);
    history.subscribers[0].deliveries[0].qos = Q1;
    let (to, token) = to_s(token);
    finds(&history, &[Violation::OtherQoS { to, token, qos: Q1 }]);
}

/// A shared group of two.
fn group(qos: QoS) -> History {
    let mut history = history(qos);
    history.subscribers = vec![subscriber("a", Some("g"), qos), subscriber("b", Some("g"), qos)];
    history
}

#[test]
fn a_group_gets_each_message_once_at_one_member() {
    let to = || "g".to_owned();
    for qos in [Q1, Q2] {
        let mut history = group(qos);
        let token = publish(&mut history, 10);
        finds(&history, &[Violation::Lost { to: to(), token }]);
        deliver(&mut history, 1, 0, token, 12);
        finds(&history, &[]);
        deliver(&mut history, 0, 0, token, 13);
        finds(&history, &[Violation::Duplicate { to: to(), token, at: 13 * MS }]);
    }
}

#[test]
fn a_member_that_leaves_gives_back_what_it_has_not_acknowledged() {
    let mut history = group(Q1);
    let token = publish(&mut history, 10);
    deliver(&mut history, 0, 0, token, 12);
    history.subscribers[0].connections[0].ended = Some(15 * MS);
    deliver(&mut history, 1, 0, token, 16);
    finds(&history, &[]);
    // It had, and the server had understood.
    history.subscribers[0].connections[0].pings.push((13 * MS, 14 * MS));
    finds(&history, &[Violation::Duplicate { to: "g".to_owned(), token, at: 16 * MS }]);
}

#[test]
fn a_will_is_published_once_unless_it_was_taken_back() {
    let mut history = history(Q1);
    // Behind which everything before is on disk.
    let token = publish(&mut history, 900);
    deliver(&mut history, 0, 0, token, 902);
    for (fate, allowed, on_disk) in [
        (Fate::Open, [true, true, false], true),
        (Fate::Due, [false, true, false], true),
        (Fate::Cancelled, [true, false, false], true),
        (Fate::TakenBack(15 * MS), [true, false, false], true),
        (Fate::TakenBack(15 * MS), [true, true, false], false),
    ] {
        history.deaths = vec![if on_disk { 1_000 } else { 300 } * MS];
        for (seen, allowed) in (0..).zip(allowed) {
            history.wills = vec![Will { fate, connected: 10 * MS, seen }];
            let expected = Violation::Will { number: 0, fate, seen };
            finds(&history, if allowed { &[] } else { std::slice::from_ref(&expected) });
        }
    }
}

#[test]
fn what_a_client_met_is_told() {
    let mut history = history(Q1);
    history.faults.push("the session is gone".to_owned());
    finds(&history, &[Violation::Fault("the session is gone".to_owned())]);
}

/// Who subscribes at 10 and gets all but `missing` at 20, and is there since 1.
fn collector(qos: QoS, missing: Option<u32>) -> History {
    let mut history = history(Q1);
    let asked = Asked { at: 10 * MS, sends: 1, carried: 0, granted: true, renounced: false };
    history.collectors = vec![Collector {
        asked: vec![asked],
        connections: vec![Connection { begun: 1, ..Connection::default() }],
        ..Collector::new("s", STREAMS, qos)
    }];
    for number in (1..=TOPICS).filter(|number| Some(*number) != missing) {
        collect(&mut history, number, 0, 20);
    }
    history
}

fn collect(history: &mut History, number: u32, connection: u32, at: Micros) {
    let collector = &mut history.collectors[0];
    let (token, qos) = (Token { stream: STREAMS, number }, collector.qos);
    let acknowledged = (qos == Q1).then_some(at * MS);
    collector.deliveries.push(Delivery { token, qos, at: at * MS, connection, acknowledged });
}

fn collector_dies(history: &mut History, at: Micros) {
    die(history, at);
    let connections = &mut history.collectors[0].connections;
    connections[0].ended = Some(at * MS + 1);
    connections.push(Connection { begun: (at + 5) * MS, ..Connection::default() });
}

#[test]
fn a_retained_message_that_is_owed_must_come() {
    for qos in [Q1, Q2] {
        finds(&collector(qos, None), &[]);
        let mut history = collector(qos, Some(7));
        let (to, token) = to_s(Token { stream: STREAMS, number: 7 });
        finds(&history, &[Violation::Lost { to, token }]);
        history.collectors[0].asked[0].renounced = true;
        finds(&history, &[]);
        // What came before it subscribed anew does not count.
        let mut history = collector(qos, None);
        let again = Asked { at: 30 * MS, ..history.collectors[0].asked[0] };
        history.collectors[0].asked.push(again);
        assert_eq!(check(&history).violations.len(), TOPICS as usize);
    }
}

#[test]
fn a_retained_message_comes_once_for_each_subscribe() {
    let token = Token { stream: STREAMS, number: 7 };
    for qos in [Q1, Q2] {
        let mut history = collector(qos, None);
        collect(&mut history, 7, 0, 25);
        let (to, token) = to_s(token);
        finds(&history, &[Violation::Duplicate { to, token, at: 25 * MS }]);
        let mut sent_twice = history.clone();
        sent_twice.collectors[0].asked[0].sends = 2;
        finds(&sent_twice, &[]);
        history.collectors[0].asked[0].carried = 1;
        finds(&history, &[]);
    }
}

#[test]
fn a_retained_message_is_repeated_only_when_its_puback_may_not_be_recorded() {
    for (qos, recorded, allowed) in [(Q1, false, true), (Q1, true, false), (Q2, false, false)] {
        let mut history = collector(qos, None);
        if recorded {
            history.collectors[0].connections[0].pings.push((21 * MS, 22 * MS));
            let later = publish(&mut history, 500);
            deliver(&mut history, 0, 0, later, 501);
        }
        collector_dies(&mut history, 600);
        collect(&mut history, 7, 1, 610);
        let violations = check(&history).violations;
        assert_eq!(violations.is_empty(), allowed, "{qos:?}, recorded {recorded}: {violations:?}");
    }
}

#[test]
fn a_round_ends_with_what_was_asked_last() {
    let mut history = collector(Q2, None);
    history.next_round();
    finds(&history, &[]);
    collect(&mut history, 7, 0, 700);
    let (to, token) = to_s(Token { stream: STREAMS, number: 7 });
    finds(&history, &[Violation::Duplicate { to, token, at: 700 * MS }]);
}
