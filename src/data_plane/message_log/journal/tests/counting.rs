//! Counting finds what reading finds.

use super::super::counter::count;
use super::sim_disk::{Chance, SimDisk};
use super::*;
use crate::data_plane::message_log::{CountRequest, Counted};

const D: FilterKey = FilterKey(0xD);

fn counted(journal: &ByHand, lists: &[(FilterKey, Seq)], merged: usize, messages_max: u64) -> Counted {
    let request =
        CountRequest { cluster: C, lists: lists.to_vec(), merged, through: Seq(u64::MAX), messages_max };
    count(&journal.core, &request).expect("a readable journal")
}

#[test]
fn a_message_that_several_filters_match_counts_once() {
    let (mut journal, _) = ByHand::open(SimDisk::new().as_disk()).expect("a journal");
    let entries = [&[A][..], &[A, B], &[B], &[D], &[A, D]];
    let entries = (1..).zip(entries).map(|(seq, filters)| said(C, seq, filters, "x"));
    journal.commit(entries.collect()).expect("written");
    let lists = [(A, Seq(0)), (B, Seq(0)), (D, Seq(3))];
    let found = counted(&journal, &lists, 2, 100);
    assert_eq!((found.messages, &found.each[..]), (4, &[3, 2, 2][..]));
    assert_eq!(found.oldest, Some((Seq(1), Some(Timestamp::from_millis(1_000)))));
    assert!(!found.stopped);
    assert_eq!(counted(&journal, &[(A, Seq(1)), (B, Seq(2))], 2, 100).messages, 3);
    let none = counted(&journal, &[(A, Seq(5))], 1, 100);
    assert_eq!(none, Counted { each: vec![0], ..Counted::default() });
    let exactly = counted(&journal, &lists, 3, 5);
    assert_eq!((exactly.messages, exactly.stopped), (5, false), "the bound is reached, not passed");
    let bounded = counted(&journal, &lists, 3, 4);
    assert_eq!((bounded.messages, bounded.stopped), (4, true));
}

#[test]
fn counting_agrees_with_reading_over_sealed_segments_and_the_active_one() {
    let (mut journal, _) = ByHand::open(SimDisk::new().as_disk()).expect("a journal");
    let mut chance = Chance(11);
    let filters = [A, B, D];
    for seq in 1..=6_000 {
        let mut under: Vec<FilterKey> = filters.into_iter().filter(|_| chance.one_in(2)).collect();
        if under.is_empty() {
            under.push(A);
        }
        let entry = said(C, seq, &under, vec![3; usize::try_from(chance.below(40)).expect("small")]);
        journal.commit(vec![entry]).expect("written");
        if seq == 4_000 {
            journal.keeper.work().expect("a sidecar");
        }
    }
    assert!(journal.core.catalog.read().sealed.len() > 2, "several segments");
    for _ in 0..40 {
        let lists: Vec<_> = filters.iter().map(|filter| (*filter, Seq(chance.below(6_100)))).collect();
        let through = Seq(chance.below(6_100));
        let request =
            CountRequest { cluster: C, lists: lists.clone(), merged: 2, through, messages_max: u64::MAX };
        let found = count(&journal.core, &request).expect("a readable journal");
        let read = |after: &[(FilterKey, Seq)]| {
            let after = after.to_vec();
            let request = ReadRequest { cluster: C, after, through: Some(through), ..all(C, A) };
            journal.read(&request).messages
        };
        let merged = read(&lists[..2]);
        assert_eq!(found.messages, merged.len() as u64, "{request:?}");
        assert_eq!(found.oldest.map(|(seq, _)| seq), merged.first().map(|entry| entry.place.seq));
        let each: Vec<u64> = lists.iter().map(|list| read(&[*list]).len() as u64).collect();
        assert_eq!(found.each, each, "{request:?}");
    }
}
