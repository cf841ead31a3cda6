//! A quota is lowered below what is used: who ends, and how that is proven (PRODUCT 2 and 3).

use super::packets::*;
use super::records::Mode;
use super::*;
use crate::data_plane::cluster::RecordOutcome;
use crate::model::EndedBy;
use crate::seam::quota::{Shed, ShedFirst, ShedOrder};

fn order(limit: u32, first: ShedFirst) -> ShedOrder {
    ShedOrder { limit, first, most: usize::MAX }
}

fn names(shed: &Shed) -> Vec<&str> {
    shed.sessions.iter().map(|(client_id, _)| client_id.as_str()).collect()
}

impl World {
    fn shed(&mut self, order: &ShedOrder) -> (CommandId, Shed) {
        self.last_command += 1;
        let id = CommandId(self.last_command);
        self.cluster.time_passes(self.now);
        let shed = self.cluster.shed(self.now, id, order);
        self.settle();
        (id, shed)
    }
}

/// `a` to `d`, a second apart; `b`, then `a`, went offline.
fn four() -> (World, [Peer; 4]) {
    let mut world = World::new();
    let peers = ["a", "b", "c", "d"].map(|client| {
        let peer = world.connect(&v5(client).expiry(1_000));
        world.subscribe(peer, "t", Q1);
        world.advance(1);
        peer
    });
    world.cut(peers[1]);
    world.advance(1);
    world.cut(peers[0]);
    (world, peers)
}

#[test]
fn the_newest_go_first_online_or_not() {
    let (mut world, peers) = four();
    let foreseen = world.cluster.foresee_shed(&order(1, ShedFirst::Newest));
    assert_eq!((foreseen.over, names(&foreseen)), (3, vec!["d", "c", "b"]));
    assert_eq!(world.counts(), (2, 2), "a look changes nothing");
    let (id, shed) = world.shed(&order(1, ShedFirst::Newest));
    assert_eq!(shed, foreseen);
    assert_eq!(shed.sessions.iter().map(|(_, met)| met.was_online).collect::<Vec<_>>(), [true, true, false]);
    assert!(world.answer(id).expect("answered").is_ok());
    for peer in &peers[2..] {
        assert_eq!(world.kicked_with(*peer), ReasonCode::QuotaExceeded);
        assert!(world.is_closed(*peer));
    }
    assert_eq!((world.counts(), world.records.len()), ((0, 1), 1));
    assert_eq!(world.cluster.subscription_count(), 1);
    assert!(world.connect_present(&v5("a").expiry(1_000)).1);
    assert!(!world.connect_present(&v5("d").expiry(1_000)).1, "it begins anew");
}

#[test]
fn the_longest_offline_go_first_and_nobody_who_is_online() {
    let (mut world, peers) = four();
    let (_, shed) = world.shed(&order(3, ShedFirst::OldestOffline));
    assert_eq!((shed.over, names(&shed)), (1, vec!["b"]));
    let (_, shed) = world.shed(&order(0, ShedFirst::OldestOffline));
    assert_eq!((shed.over, names(&shed)), (3, vec!["a"]));
    assert_eq!(world.counts(), (2, 0));
    assert_eq!(world.take(peers[2]), []);
}

#[test]
fn exactly_as_many_go_as_are_above_the_limit() {
    for limit in 0..=5 {
        let (mut world, _) = four();
        let (_, shed) = world.shed(&order(limit, ShedFirst::Newest));
        let over = 4_u32.saturating_sub(limit);
        assert_eq!((shed.over, shed.sessions.len()), (over, over as usize));
        let (online, offline) = world.counts();
        assert_eq!(online + offline, limit.min(4));
    }
    // What has expired is not above any limit.
    let (mut world, _) = four();
    world.advance(2_000);
    let (_, shed) = world.shed(&order(2, ShedFirst::Newest));
    assert_eq!((shed.over, shed.sessions.len()), (0, 0));
}

#[test]
fn who_is_protected_stays_and_a_round_has_an_end() {
    let (mut world, _) = four();
    for client in ["d", "b"] {
        world.order(client, Order::Protect(true));
    }
    let order = order(0, ShedFirst::Newest);
    let (_, shed) = world.shed(&ShedOrder { most: 1, ..order });
    assert_eq!((shed.over, names(&shed)), (4, vec!["c"]));
    let (_, shed) = world.shed(&order);
    assert_eq!((shed.over, names(&shed)), (3, vec!["a"]));
    assert_eq!(world.counts(), (1, 1));
}

#[test]
fn it_is_answered_when_sockets_are_closed_and_records_gone() {
    for sockets_first in [true, false] {
        let (mut world, _) = four();
        world.records.mode = Mode::Late;
        world.sockets_linger = true;
        let (id, shed) = world.shed(&order(0, ShedFirst::Newest));
        assert_eq!(shed.sessions.len(), 4);
        let steps: [fn(&mut World); 2] =
            [World::close_sockets, |world| world.decide_records(RecordOutcome::Committed)];
        let [first, second] = if sockets_first { steps } else { [steps[1], steps[0]] };
        assert_eq!(world.answer(id), None);
        first(&mut world);
        assert_eq!(world.answer(id), None);
        second(&mut world);
        assert!(world.answer(id).expect("answered").is_ok());
        assert_eq!(world.records.len(), 0);
    }
}

#[test]
fn a_store_that_is_away_is_told() {
    let (mut world, _) = four();
    world.records.mode = Mode::Late;
    let (id, _) = world.shed(&order(0, ShedFirst::Newest));
    world.decide_records(RecordOutcome::StoreAway);
    assert_eq!(world.answer(id), Some(Err(CommandError::StoreAway)));
    assert_eq!(world.counts(), (0, 0), "the effect is in force");
}

#[test]
fn a_will_is_published_when_its_session_is_shed() {
    let mut world = World::new();
    let witness = world.connect(&v5("witness"));
    world.subscribe(witness, "w", Q1);
    world.advance(1);
    let client = world.connect(&v3("c").will(will("w", "gone", 0)));
    world.shed(&order(1, ShedFirst::Newest));
    assert_eq!(texts(&world.drain(witness)), ["gone"]);
    assert!(world.is_closed(client));
    // PRODUCT 3: in 3.1.1 a close and nothing more.
    assert_eq!(world.take(client), []);
    let row = world.records.row("c");
    assert!(row.is_none_or(|row| row.disconnect.as_ref().is_some_and(|cause| cause.by == EndedBy::Operator)));
}

#[test]
fn limits_are_tried_by_what_is_used() {
    let (world, _) = four();
    let fits = |connections, subscriptions| {
        let quota = Quota { connections, subscriptions, ..world.rules.quota.clone() };
        world.cluster.fit(&quota).fits
    };
    assert!(fits(None, None) && fits(Some(4), Some(4)));
    assert!(!fits(Some(3), None) && !fits(None, Some(3)));
}
