//! More than fits into one page or one chunk.

use std::collections::BTreeMap;

use super::super::checkpoint::{self, Checkpoint, Facts};
use super::super::delta::Delta;
use super::super::index::{Index, Place};
use super::super::segment::Name;
use super::super::sidecar::{self, Sidecar};
use super::sim_disk::{Chance, SimDisk};
use super::*;

#[test]
fn a_sidecar_finds_what_the_index_finds() {
    let mut chance = Chance(7);
    let clusters = [ClusterNo(0), ClusterNo(3), ClusterNo(u32::MAX)];
    // Few and many messages of a filter, and keys at both ends.
    let key = |no: u64| match no {
        0 => FilterKey(0),
        1 => FilterKey(u64::MAX),
        no => FilterKey::of(&no.to_string()),
    };
    let mut index = Index::default();
    let mut seqs = [0_u64; 3];
    for no in 0..8_000 {
        let cluster = usize::try_from(chance.below(3)).expect("small");
        seqs[cluster] += 1 + chance.below(2) * chance.below(5);
        let filters = [key(chance.below(4)), key(4 + chance.below(2_000))];
        let at = Timestamp::from_millis(i64::from(no));
        index.add(
            clusters[cluster],
            Place { seq: Seq(seqs[cluster]), offset: no * 10, len: 10 },
            at,
            &filters,
        );
    }
    let disk = SimDisk::new();
    sidecar::write(&disk, 9, 77, &index).expect("a sidecar");
    let file = disk.as_disk().open(&Name::Sidecar(9).to_string()).expect("a file");
    let sidecar = Sidecar::open(file, 9).expect("a whole sidecar");
    assert_eq!(sidecar.spans(), index.spans());
    for _ in 0..3_000 {
        let cluster = usize::try_from(chance.below(3)).expect("small");
        let filters = if chance.one_in(2) { 4 } else { 2_100 };
        let filter = key(chance.below(filters));
        let after = Seq(chance.below(seqs[cluster] + 2));
        let limit = usize::try_from(chance.below(2_000)).expect("small");
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        index.find(clusters[cluster], filter, after, limit, &mut expected);
        sidecar.find(clusters[cluster], filter, after, limit, &mut found).expect("a readable sidecar");
        assert_eq!(found, expected, "{filter:?} after {after:?}, at most {limit}");
    }
    for cluster in clusters {
        let all = index.filters(cluster, None, usize::MAX);
        assert_eq!(sidecar.filters(cluster, None, usize::MAX).expect("readable"), all);
        for at in (0..all.len()).step_by(50) {
            let behind = sidecar.filters(cluster, Some(all[at].filter), 3).expect("readable");
            assert_eq!(behind[..], all[at + 1..all.len().min(at + 4)]);
        }
    }
}

#[test]
fn checkpoints_merge_over_many_chunks() {
    let disk = SimDisk::new();
    let mut facts = BTreeMap::new();
    let mut older = None;
    for round in 1..=3_u64 {
        let mut delta = Delta::default();
        let gone = Bytes::from(format!("{round}"));
        delta.apply(C, &Change::DeleteAll { prefix: gone.clone() });
        facts.retain(|key: &Bytes, _| !key.starts_with(&gone));
        for no in 0..700_u64 {
            let key = Bytes::from((no * 7 + round).to_string());
            // Short ones, and some that span several pages.
            let value = Bytes::from(vec![(no % 251) as u8; if no % 50 == 0 { 30_000 } else { 40 }]);
            delta.apply(C, &put(key.clone(), value.clone()));
            facts.insert(key, value);
        }
        let last_seqs = [(C, Seq(round))].into();
        checkpoint::write(&disk, round, round, older, Arc::new(delta), &last_seqs).expect("a checkpoint");
        let file = disk.as_disk().open(&Name::Checkpoint(round).to_string()).expect("a file");
        let written = Checkpoint::open(file).expect("a whole checkpoint");
        written.verify().expect("whole in all its pages");
        assert_eq!((written.through, &written.last_seqs), (round, &last_seqs));
        let read = Facts::new(Some(written.clone()), Arc::default()).map(|fact| fact.expect("readable"));
        assert!(read.map(|fact| (fact.key, fact.value)).eq(facts.clone()), "round {round}");
        older = Some(written);
    }
}
