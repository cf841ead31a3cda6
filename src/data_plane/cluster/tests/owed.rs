//! Retained messages that a subscription is owed, and a crash while they are sent (MQTT 5.0, 3.3.1.3, 3.8.4;
//! PRODUCT S-12).

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::disk::Pace;
use super::packets::*;
use super::records::Mode;
use super::*;
use crate::data_plane::cluster::RecordOutcome;
use crate::data_plane::protocol::{PacketId, SubscribeFilter};
use crate::model::{OperatorExpiry, RetainHandling};

/// What of a session is written down besides its progress: what is owed, and exchanges.
fn is_owed(key: &[u8]) -> bool {
    key[0] == b's' && key[17] == b'y'
}

fn is_exchange(key: &[u8]) -> bool {
    key[0] == b's' && key[17] == b'o'
}

/// Retains `r/0` to `r/5` at QoS 2, and one at QoS 0 among them.
fn retain_six(world: &mut World) -> Peer {
    let publisher = world.connect(&v5("p"));
    for n in 0..6 {
        let message = Publish { retain: true, ..publish_at(Q2, 1, &format!("r/{n}"), &n.to_string()) };
        world.publish(publisher, message);
    }
    world.send(publisher, &Packet::Publish(Publish { retain: true, ..publish("r/3-lossy", "lossy") }));
    publisher
}

/// A client that answers one packet at a time, and knows which of its acknowledgements are on disk.
struct Reader {
    peer: Peer,
    /// Not answered yet.
    inbox: VecDeque<Packet>,
    /// QoS 2 packet ids that are not released.
    received: BTreeSet<PacketId>,
    /// What came, at QoS 2 what was new.
    got: Vec<String>,
    /// What it acknowledged at QoS 1.
    acknowledged: Vec<String>,
    /// How many of these are on disk.
    recorded: usize,
    subscribed: bool,
    unsubscribed: bool,
}

impl Reader {
    fn new(world: &mut World, hello: &Hello) -> Self {
        Self {
            peer: world.connect(hello),
            inbox: VecDeque::new(),
            received: BTreeSet::new(),
            got: Vec::new(),
            acknowledged: Vec::new(),
            recorded: 0,
            subscribed: false,
            unsubscribed: false,
        }
    }

    fn look(&mut self, world: &mut World) {
        for packet in world.take(self.peer) {
            match packet {
                // Its turn came after those of all acknowledgements so far.
                Packet::PubAck(_) => self.recorded = self.acknowledged.len(),
                other => self.inbox.push_back(other),
            }
        }
    }

    /// Answers the next packet. Returns whether there was one.
    fn step(&mut self, world: &mut World) -> bool {
        self.look(world);
        let Some(packet) = self.inbox.pop_front() else { return false };
        match packet {
            Packet::ConnAck(_) => {}
            Packet::SubAck(_) => self.subscribed = true,
            Packet::UnsubAck(_) => self.unsubscribed = true,
            Packet::PubRel(ack) => {
                self.received.remove(&ack.packet_id);
                world.send(self.peer, &pubcomp(ack.packet_id));
            }
            Packet::Publish(publish) => {
                assert!(publish.retain || text(&publish) == "new");
                match (publish.qos, publish.packet_id) {
                    (QoS::AtLeastOnce, Some(id)) => {
                        // What comes from the log is recorded a little later.
                        self.acknowledged.extend(Some(text(&publish)).filter(|_| publish.retain));
                        world.send(self.peer, &puback(id));
                    }
                    (QoS::ExactlyOnce, Some(id)) => {
                        let is_new = self.received.insert(id);
                        assert!(is_new || publish.dup);
                        world.send(self.peer, &pubrec(id));
                        if !is_new {
                            return true;
                        }
                    }
                    _ => assert_eq!(text(&publish), "lossy"),
                }
                self.got.push(text(&publish));
            }
            other => panic!("{other:?}"),
        }
        // Goes to disk, and so is answered only when all before it is there.
        world.send(self.peer, &Packet::Publish(retained("proof", "x")));
        true
    }

    /// Answers everything.
    fn finish(&mut self, world: &mut World) {
        while self.step(world) {}
    }

    /// How often it came.
    fn count(&self, text: &str) -> usize {
        self.got.iter().filter(|got| *got == text).count()
    }
}

/// What happens while the retained messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    /// One of them is replaced.
    Update,
    Unsubscribe,
    TakeOver,
    /// The connection breaks, and the client is not back before the crash.
    Leave,
}

/// Subscribes and answers; the disk takes `cut` entries; then the service crashes. Checks what comes after.
/// Returns whether the disk would have taken more.
fn crash_at(hello: &Hello, qos: QoS, meanwhile: Meanwhile, cut: usize) -> bool {
    let context = format!("{} {qos:?} {meanwhile:?}, cut {cut}", hello.0.version);
    let mut world = World::new();
    let publisher = retain_six(&mut world);
    let mut reader = Reader::new(&mut world, hello);
    world.disk.fail_after(cut);
    world.send(reader.peer, &subscribe(1, vec![wish("r/+", qos)]));
    let (mut steps, mut updated, mut unsubscribes) = (0, false, false);
    while reader.step(&mut world) {
        steps += 1;
        if steps != 6 {
            continue;
        }
        match meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::Update => {
                let message = Publish { retain: true, ..publish_at(Q2, 9, "r/4", "new") };
                world.send(publisher, &Packet::Publish(message));
                updated = !world.take(publisher).is_empty();
            }
            Meanwhile::Unsubscribe => {
                unsubscribes = true;
                world.send(reader.peer, &unsubscribe(2, &["r/+"]));
            }
            Meanwhile::TakeOver => reader.peer = world.knock(hello),
            Meanwhile::Leave => {
                world.cut(reader.peer);
                break;
            }
        }
    }
    let (recorded, failed) = (reader.recorded, world.disk.has_failed());
    let known: Vec<String> = reader.acknowledged[..recorded].to_vec();
    world.restart(1);
    reader.inbox.clear();
    let before = reader.got.len();
    reader.peer = world.connect(hello);
    reader.finish(&mut world);
    let again = reader.got[before..].to_vec();
    if reader.subscribed {
        for text in &known {
            assert!(!again.contains(text), "{text} came again: {:?}, {context}", reader.got);
        }
        if qos == Q2 {
            let twice = reader.got.iter().find(|text| reader.count(text) > 1);
            assert_eq!(twice, None, "{:?}, {context}", reader.got);
        }
        assert!(reader.count("lossy") <= 1, "{:?}, {context}", reader.got);
        let replaced = |n: &usize| meanwhile == Meanwhile::Update && *n == 4;
        let due = (0..6).filter(|n| !unsubscribes && !replaced(n)).map(|n| n.to_string());
        for text in due.chain(updated.then(|| "new".to_owned())) {
            assert!(reader.count(&text) > 0, "{text} never came: {:?}, {context}", reader.got);
        }
        if reader.unsubscribed {
            assert!(again.len() <= 16, "what was under way: {again:?}, {context}");
        }
    } else {
        // It was never told that it subscribes, and asks again.
        world.send(reader.peer, &subscribe(3, vec![wish("r/+", qos)]));
        reader.finish(&mut world);
        assert!((0..6).all(|n| reader.count(&n.to_string()) > 0), "{:?}, {context}", reader.got);
    }
    if unsubscribes && !reader.unsubscribed {
        world.send(reader.peer, &unsubscribe(4, &["r/+"]));
        reader.finish(&mut world);
    }
    assert_eq!(world.disk.facts_of(is_owed), 0, "{context}");
    assert_eq!(world.disk.facts_of(is_exchange), 0, "{context}");
    world.advance(1);
    world.restart(1);
    let peer = world.connect(hello);
    assert_eq!(world.take(peer), [], "{context}");
    failed
}

fn crash_everywhere(qos: QoS, meanwhile: Meanwhile) {
    let v5 = |at_once| v5("c").expiry(1_000).receive_maximum(at_once);
    for hello in [v5(1), v5(3), v5(20), v3("c")] {
        let mut cut = 0;
        while crash_at(&hello, qos, meanwhile, cut) {
            cut += 1;
        }
        assert!(cut > 8, "{cut}");
    }
}

#[test]
fn a_crash_at_any_entry_neither_loses_nor_repeats() {
    for qos in [Q1, Q2] {
        crash_everywhere(qos, Meanwhile::Nothing);
    }
}

#[test]
fn a_message_that_is_replaced_meanwhile_comes_as_it_is_published() {
    for qos in [Q1, Q2] {
        crash_everywhere(qos, Meanwhile::Update);
    }
}

#[test]
fn after_an_unsubscribe_only_what_is_under_way_comes() {
    for qos in [Q1, Q2] {
        crash_everywhere(qos, Meanwhile::Unsubscribe);
    }
}

#[test]
fn a_takeover_and_a_lost_connection_change_nothing() {
    for qos in [Q1, Q2] {
        crash_everywhere(qos, Meanwhile::TakeOver);
        crash_everywhere(qos, Meanwhile::Leave);
    }
}

#[test]
fn a_message_leaves_only_when_its_exchange_and_the_place_behind_it_are_on_disk() {
    for qos in [Q1, Q2] {
        let mut world = World::new();
        retain_six(&mut world);
        let peer = world.connect(&v5("c").expiry(100).receive_maximum(1));
        world.disk.pace = Pace::Late;
        world.send(peer, &subscribe(1, vec![wish("r/+", qos)]));
        assert_eq!(world.take(peer), []);
        world.sync_disk();
        assert_eq!(world.suback(peer).packet_id, id(1));
        if world.take_publishes(peer).is_empty() {
            world.sync_disk();
        }
        assert_eq!((world.disk.facts_of(is_owed), world.disk.facts_of(is_exchange)), (1, 1));
    }
}

#[test]
fn unfinished_exchanges_go_on_under_their_packet_ids() {
    for hello in [v5("c").expiry(1_000), v3("c")] {
        let mut world = World::new();
        retain_six(&mut world);
        let peer = world.connect(&hello);
        world.subscribe(peer, "r/+", Q1);
        let sent: Vec<_> =
            world.take_publishes(peer).into_iter().filter(|publish| publish.qos == Q1).collect();
        assert_eq!(texts(&sent), numbers(0..6));
        world.send(peer, &puback(sent[2].packet_id.expect("QoS 1")));
        world.leave(peer);
        world.restart(1);
        let peer = world.connect(&hello);
        let again = world.take_publishes(peer);
        assert_eq!(texts(&again), ["0", "1", "3", "4", "5"]);
        assert!(again.iter().all(|publish| publish.dup && publish.retain));
        assert_eq!(again[1].packet_id, sent[1].packet_id);
        if !hello.0.version.is_v5() {
            world.advance(121);
            assert_eq!(texts(&world.take_publishes(peer)), texts(&again), "PRODUCT S-11");
        }
    }
}

#[test]
fn nothing_is_written_where_nothing_could_be_lost() {
    let mut world = World::new();
    let publisher = world.connect(&v5("p").expiry(1_000));
    world.publish(publisher, Publish { retain: true, ..publish("lossy", "x") });
    world.publish(publisher, retained("kept", "x"));
    let peer = world.connect(&v5("c").expiry(1_000).receive_maximum(1));
    world.publish(peer, retained("own", "x"));
    let without_own = SubscribeFilter { no_local: true, ..wish("own", Q1) };
    let wishes = [wish("none/#", Q2), wish("lossy", Q2), wish("kept", Q0), without_own];
    for (wish, come) in wishes.into_iter().zip([0, 1, 1, 0]) {
        let facts = world.disk.facts();
        world.disk.pace = Pace::Late;
        world.send(peer, &subscribe(1, vec![wish]));
        world.disk.fail_after(1);
        world.disk.pace = Pace::Prompt;
        world.sync_disk();
        world.suback(peer);
        assert_eq!(world.take_publishes(peer).len(), come);
        assert!(!world.disk.has_failed(), "one entry: where the session stands");
        assert!(world.disk.facts() <= facts + 1);
        world.disk.takes_all();
    }
}

#[test]
fn what_is_published_after_the_subscription_comes_once_also_over_restarts() {
    let mut world = World::new();
    let publisher = retain_six(&mut world);
    let hello = v5("c").expiry(1_000).receive_maximum(1);
    let peer = world.connect(&hello);
    world.subscribe(peer, "r/#", Q1);
    assert_eq!(texts(&world.take_publishes(peer)), ["0"]);
    world.publish(publisher, retained("r/7", "later"));
    // The newest is cleared: what is published next must not take its moment.
    world.publish(publisher, retained("r/7", ""));
    world.restart(1);
    let publisher = world.connect(&v5("p"));
    world.publish(publisher, retained("r/1", "1 again"));
    world.publish(publisher, retained("r/8", "8"));
    let peer = world.connect(&hello);
    let got = texts(&world.drain(peer));
    assert_eq!(got, ["0", "2", "3", "lossy", "4", "5", "later", "", "1 again", "8"]);
}

#[test]
fn what_an_earlier_release_wrote_is_understood() {
    let mut world = World::new();
    retain_six(&mut world);
    let hello = v5("c").expiry(1_000).receive_maximum(1);
    let peer = world.connect(&hello);
    world.subscribe(peer, "r/+", Q1);
    assert_eq!(texts(&world.drain(peer)).len(), 7);
    world.send(peer, &subscribe(1, vec![wish("r/+", Q1)]));
    world.suback(peer);
    let packet_id = world.take_publishes(peer)[0].packet_id.expect("QoS 1");
    world.cut(peer);
    world.disk.put_fact(is_owed, |_| Bytes::from_static(&[1]));
    world.disk.put_fact(|key| key[0] == b'm', |value| value.slice(..value.len() - 8));
    world.restart(1);
    let publisher = world.connect(&v5("p"));
    world.publish(publisher, retained("r/9", "later"));
    let peer = world.connect(&hello);
    let again = world.take_publishes(peer);
    assert!(again.len() == 1 && again[0].packet_id == Some(packet_id));
    world.send(peer, &puback(packet_id));
    assert_eq!(texts(&world.drain(peer)), ["0", "1", "2", "3", "lossy", "4", "5", "later"]);
}

#[test]
fn the_last_subscribe_says_what_is_owed() {
    let hello = v5("c").expiry(1_000).receive_maximum(1);
    for restarts in [false, true] {
        let mut world = World::new();
        retain_six(&mut world);
        let mut peer = world.connect(&hello);
        world.subscribe(peer, "r/+", Q1);
        let first = world.take_publishes(peer);
        assert_eq!(texts(&first), ["0"]);
        for _ in 0..3 {
            world.subscribe(peer, "r/+", Q1);
        }
        assert_eq!(world.cluster.sessions[0].replays.len() + world.cluster.sessions[1].replays.len(), 1);
        world.send(peer, &puback(first[0].packet_id.expect("QoS 1")));
        if restarts {
            world.restart(1);
            peer = world.connect(&hello);
        }
        assert_eq!(texts(&world.drain(peer)), ["0", "1", "2", "3", "lossy", "4", "5"]);
    }
}

#[test]
fn a_subscription_that_asks_for_nothing_takes_nothing_away() {
    // [MQTT-3.8.4-4]
    let hello = v5("c").expiry(1_000).receive_maximum(1);
    for restarts in [false, true] {
        let mut world = World::new();
        retain_six(&mut world);
        let mut peer = world.connect(&hello);
        world.subscribe(peer, "r/+", Q1);
        let first = world.take_publishes(peer);
        let again = SubscribeFilter { retain_handling: RetainHandling::DoNotSend, ..wish("r/+", Q2) };
        world.send(peer, &subscribe_as(2, Some(7), vec![again]));
        world.suback(peer);
        world.send(peer, &puback(first[0].packet_id.expect("QoS 1")));
        if restarts {
            world.take(peer);
            world.restart(1);
            peer = world.connect(&hello);
        }
        let got = world.drain(peer);
        assert_eq!(texts(&got), ["1", "2", "3", "lossy", "4", "5"]);
        let as_it_is_now = |publish: &&Publish| publish.properties.subscription_ids.len() == 1;
        // The first of them had been sent before the restart, or is sent as the new options say as well.
        assert_eq!(got.iter().filter(as_it_is_now).filter(|publish| publish.qos == Q2).count(), 5);
    }
}

#[test]
fn a_subscription_that_could_not_be_recorded_changes_nothing_that_is_owed() {
    let hello = v5("c").expiry(1_000).receive_maximum(1);
    let mut world = World::new();
    retain_six(&mut world);
    let peer = world.connect(&hello);
    world.subscribe(peer, "r/+", Q1);
    let first = world.take_publishes(peer);
    world.records.mode = Mode::Late;
    world.send(peer, &subscribe(2, vec![wish("r/+", Q2), wish("r/#", Q1), wish("r/+", Q0)]));
    assert_eq!(world.disk.facts_of(is_owed), 1);
    world.decide_records(RecordOutcome::StoreAway);
    assert_eq!(world.suback(peer).reasons, [ReasonCode::UnspecifiedError; 3]);
    world.store_comes_back();
    assert_eq!(world.disk.facts_of(is_owed), 1);
    world.send(peer, &puback(first[0].packet_id.expect("QoS 1")));
    world.take(peer);
    world.restart(1);
    let peer = world.connect(&hello);
    let got = world.drain(peer);
    assert_eq!(texts(&got), ["1", "2", "3", "lossy", "4", "5"]);
    assert!(got.iter().all(|publish| publish.qos <= Q1));
}

#[test]
fn a_session_that_comes_to_last_keeps_what_it_is_owed() {
    let mut world = World::new();
    retain_six(&mut world);
    let peer = world.connect(&v5("c").receive_maximum(2));
    world.subscribe(peer, "r/+", Q1);
    assert_eq!(texts(&world.take_publishes(peer)), ["0", "1"]);
    assert_eq!((world.disk.facts_of(is_owed), world.disk.facts_of(is_exchange)), (0, 0));
    let expiry = OperatorExpiry::Interval(1_000);
    world.order("c", Order::ApplyExpiry(Some(expiry)));
    world.restart_with(1, |id| (id == "c").then_some(expiry));
    let peer = world.connect(&v5("c").expiry(1_000));
    assert_eq!(texts(&world.drain(peer)), ["0", "1", "2", "3", "lossy", "4", "5"]);
}

#[test]
fn on_a_full_disk_what_is_owed_waits_and_the_log_goes_on() {
    let mut world = World::new();
    let publisher = retain_six(&mut world);
    let peer = world.connect(&v5("c").expiry(1_000).receive_maximum(2));
    world.subscribe(peer, "t", Q1);
    world.subscribe(peer, "r/+", Q1);
    let first = world.take_publishes(peer);
    world.publish(publisher, publish_at(Q1, 1, "t", "logged"));
    world.cluster.set_room(false);
    for publish in &first {
        world.send(peer, &puback(publish.packet_id.expect("QoS 1")));
    }
    assert_eq!(texts(&world.drain(peer)), ["logged"]);
    world.cluster.set_room(true);
    world.advance(1);
    assert_eq!(texts(&world.drain(peer)), ["2", "3", "lossy", "4", "5"]);
}
