//! Disks that fill up, fail and lie, one at a time.

use super::super::Damage;
use super::super::index::Index;
use super::super::segment::Name;
use super::sim_disk::{Fault, SimDisk};
use super::*;

fn open(disk: &SimDisk) -> (ByHand, Recovered) {
    ByHand::open(disk.as_disk()).expect("a journal that opens")
}

/// A journal with this many sealed segments of four messages each, and an active one with four.
fn with_sealed(disk: &SimDisk, sealed: u64) -> ByHand {
    let (mut journal, _) = open(disk);
    for seq in 1..=(sealed + 1) * 4 {
        let mut entry = said(C, seq, &[if seq % 2 == 0 { A } else { B }], quarter());
        entry.changes.push(put(format!("seq/{seq}"), seq.to_string()));
        journal.commit(vec![entry]).expect("a commit");
    }
    assert_eq!(journal.core.catalog.read().sealed.len() as u64, sealed);
    journal
}

fn prepare(journal: &ByHand) -> bool {
    stock::prepare(&journal.core).is_ok()
}

#[test]
fn a_full_disk_is_met_before_a_commit_and_changes_still_get_in() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk);
    assert_eq!(journal.core.room(), super::super::Room { bytes: 0, is_full: false }, "nothing is ready yet");
    assert!(prepare(&journal));
    let room = journal.core.room();
    assert!(room.bytes > 50 << 10 && !room.is_full, "{room:?}");
    disk.fail(Fault::FullAt(64 << 10));
    let mut seq = 0;
    while journal.core.room().bytes > 1_200 {
        seq += 1;
        journal.commit(vec![said(C, seq, &[A], vec![0; 1 << 10])]).expect("there was room");
        prepare(&journal);
    }
    assert!(journal.core.room().is_full);
    // Acknowledgements still find their reserve, and reading goes on.
    for no in 0..120 {
        journal.commit(vec![changed(C, vec![put("floor", no.to_string())])]).expect("the reserve");
    }
    assert_eq!(journal.seqs(C, A).len() as u64, seq);
    disk.heal();
    assert!(prepare(&journal));
    let room = journal.core.room();
    assert!(room.bytes > 50 << 10 && !room.is_full, "{room:?}");
}

#[test]
fn after_a_failed_sync_or_write_nothing_is_reported_durable() {
    for fault in [Fault::Sync, Fault::Write] {
        let disk = SimDisk::new();
        let (mut journal, _) = open(&disk);
        journal.commit(vec![said(C, 1, &[A], "kept")]).expect("a commit");
        let told = journal.told.lock().clone();
        disk.fail(fault);
        let failed = journal.commit(vec![said(C, 2, &[A], "lost")]);
        assert!(matches!(failed, Err(Fatal::Write { segment: 1, .. })), "{failed:?}");
        assert_eq!(*journal.told.lock(), told);
        assert_eq!(journal.seqs(C, A), [1], "what is not durable is not read");
        drop(journal);
        disk.heal();
        let (journal, recovered) = open(&disk.kill());
        assert_eq!(recovered.report.damage, []);
        assert!(journal.seqs(C, A).starts_with(&[1]));
    }
}

#[test]
fn what_recovery_showed_is_durable_even_if_its_sync_had_failed_before() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk);
    journal.commit(vec![said(C, 1, &[A], "1")]).expect("a commit");
    disk.fail(Fault::Sync);
    journal.commit(vec![said(C, 2, &[A], "2")]).expect_err("a failed sync");
    disk.heal();
    drop(journal);
    // The next process finds the second message in the system's memory.
    let disk = disk.kill();
    let (journal, _) = open(&disk);
    assert_eq!(journal.seqs(C, A), [1, 2]);
    drop(journal);
    let mut nothing_unsynced_survives = super::sim_disk::Chance(1);
    for _ in 0..10 {
        let (journal, _) = open(&disk.crash(&mut nothing_unsynced_survives));
        assert_eq!(journal.seqs(C, A), [1, 2]);
    }
}

#[test]
fn short_writes_are_finished() {
    let disk = SimDisk::new();
    disk.fail(Fault::Short(1_000));
    let mut journal = with_sealed(&disk, 2);
    journal.keeper.work().expect("sidecars and a checkpoint");
    drop(journal);
    let (journal, recovered) = open(&disk.kill());
    assert_eq!(recovered.report.damage, []);
    assert_eq!(journal.seqs(C, A), [2, 4, 6, 8, 10, 12]);
    assert_eq!(recovered.facts.count(), 12);
}

#[test]
fn an_entry_that_fits_nowhere_is_fatal_and_not_written() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk);
    let failed = journal.commit(vec![said(C, 1, &[A], vec![0; 17 << 10])]);
    assert!(matches!(failed, Err(Fatal::EntryTooLarge { .. })), "{failed:?}");
    assert!(journal.told.lock().is_empty());
}

#[test]
fn what_cannot_be_read_is_counted_and_the_rest_is_read() {
    let disk = SimDisk::new();
    let mut journal = with_sealed(&disk, 3);
    journal.keeper.work().expect("sidecars and a checkpoint");
    disk.fail(Fault::Read("segment-000000000002.log"));
    let batch = journal.read(&all(C, A));
    assert_eq!(batch.damaged, 2);
    assert_eq!(batch.through, Seq(16));
    assert_eq!(journal.seqs(C, A), [2, 4, 10, 12, 14, 16]);
    assert_eq!(journal.core.figures().damaged_reads, 4);
    disk.heal();
    assert_eq!(journal.seqs(C, A).len(), 8);
    // One flipped byte costs one message.
    disk.damage(&Name::Segment(2).to_string(), |bytes| bytes[30_000] ^= 1);
    assert_eq!(journal.read(&all(C, A)).damaged + journal.read(&all(C, B)).damaged, 1);
}

#[test]
fn a_damaged_sidecar_is_made_again_as_it_was() {
    let disk = SimDisk::new();
    let mut journal = with_sealed(&disk, 2);
    journal.keeper.work().expect("sidecars and a checkpoint");
    let name = Name::Sidecar(1).to_string();
    let written = disk.content(&name);
    for page in 0..written.len() / 4_096 {
        // While it is open: found when the page is read, or never looked at.
        disk.damage(&name, |bytes| bytes[page * 4_096 + 5] ^= 1);
        assert_eq!(journal.seqs(C, A), [2, 4, 6, 8, 10, 12], "page {page}");
        assert_eq!(journal.seqs(C, B), [1, 3, 5, 7, 9, 11], "page {page}");
        journal.keeper.work().expect("the sidecar again");
        disk.damage(&name, |bytes| bytes.clone_from(&written));
        // When it is opened: so are those that are kept in memory.
        disk.damage(&name, |bytes| bytes[page * 4_096 + 5] ^= 1);
        let copy = disk.kill();
        let (mut reopened, recovered) = open(&copy);
        assert_eq!(recovered.report.damage, []);
        assert_eq!(reopened.seqs(C, A), [2, 4, 6, 8, 10, 12], "page {page}");
        reopened.keeper.work().expect("the sidecar again");
        assert_eq!(copy.content(&name), written, "page {page}: rebuilt as it was written");
        disk.damage(&name, |bytes| bytes.clone_from(&written));
    }
    disk.damage(&name, Vec::clear);
    let (_, recovered) = open(&disk.kill());
    assert_eq!(recovered.report.indexes_rebuilt, 1);
}

#[test]
fn a_damaged_sealed_segment_is_reported_and_the_rest_stays() {
    let disk = SimDisk::new();
    drop(with_sealed(&disk, 2));
    // No checkpoint covers it: its changes are read at the next start.
    disk.damage(&Name::Segment(1).to_string(), |bytes| bytes[30_000] ^= 1);
    let (journal, recovered) = open(&disk.kill());
    assert!(matches!(recovered.report.damage[..], [Damage::Frames { segment: 1, bytes: 14_000..16_000 }]));
    assert_eq!(recovered.facts.count(), 11);
    assert_eq!(journal.seqs(C, A).len() + journal.seqs(C, B).len(), 11);
    assert_eq!(recovered.last_seqs[&C], Seq(12));
}

#[test]
fn damage_in_the_newest_segment_is_not_taken_for_its_end() {
    let disk = SimDisk::new();
    drop(with_sealed(&disk, 0));
    disk.damage(&Name::Segment(1).to_string(), |bytes| bytes[30_000] ^= 1);
    let (journal, recovered) = open(&disk.kill());
    assert!(matches!(recovered.report.damage[..], [Damage::Frames { segment: 1, .. }]));
    assert_eq!(journal.seqs(C, A).len() + journal.seqs(C, B).len(), 3);
}

#[test]
fn a_damaged_header_costs_nothing_while_the_sidecar_is_there() {
    let disk = SimDisk::new();
    let mut journal = with_sealed(&disk, 2);
    journal.keeper.work().expect("sidecars and a checkpoint");
    drop(journal);
    disk.damage(&Name::Segment(1).to_string(), |bytes| bytes[9] ^= 1);
    let (journal, recovered) = open(&disk.kill());
    assert_eq!(recovered.report.damage, [Damage::Header { segment: 1 }]);
    assert_eq!(journal.seqs(C, A), [2, 4, 6, 8, 10, 12]);
    drop(journal);
    disk.damage(&Name::Sidecar(1).to_string(), Vec::clear);
    let copy = disk.kill();
    let (journal, recovered) = open(&copy);
    assert_eq!(recovered.report.damage, [Damage::Header { segment: 1 }]);
    assert_eq!(journal.seqs(C, A), [6, 8, 10, 12]);
    assert!(copy.names().contains(&"damaged-segment-000000000001.log".to_owned()), "kept for a person");
    assert_eq!(recovered.facts.count(), 12, "the checkpoint covers its changes");
}

#[test]
fn an_older_checkpoint_serves_while_the_segments_after_it_are_there() {
    let disk = SimDisk::new();
    let mut journal = with_sealed(&disk, 1);
    journal.keeper.work().expect("the first checkpoint");
    for seq in 9..=16 {
        let mut entry = said(C, seq, &[A], quarter());
        entry.changes.push(put(format!("seq/{seq}"), seq.to_string()));
        journal.commit(vec![entry]).expect("a commit");
    }
    journal.keeper.work().expect("the second checkpoint");
    let newest = Name::Checkpoint(3).to_string();
    assert!(disk.names().contains(&newest) && disk.names().contains(&Name::Checkpoint(1).to_string()));
    let whole = disk.content(&newest);
    for at in (0..whole.len()).step_by(997) {
        disk.damage(&newest, |bytes| bytes[at] ^= 1);
        let (_, recovered) = open(&disk.kill());
        assert_eq!(recovered.report.damage, [Damage::Checkpoint { through: 3 }]);
        assert_eq!(recovered.facts.count(), 16);
        disk.damage(&newest, |bytes| bytes.clone_from(&whole));
    }
    // Once they are gone, the journal does not open as if nothing had been consumed. Nor the second time.
    journal.core.release(2);
    journal.keeper.work().expect("a release");
    disk.damage(&newest, |bytes| bytes[0] ^= 1);
    let copy = disk.kill();
    for _ in 0..2 {
        let refused = ByHand::open(copy.as_disk()).err();
        assert!(matches!(refused, Some(OpenError::StateLost { missing: 2 })), "{refused:?}");
    }
}

#[test]
fn a_keeper_without_space_stops_the_messages_in_time_and_goes_on_later() {
    let disk = SimDisk::new();
    let mut journal = with_sealed(&disk, 1);
    disk.fail(Fault::Sync);
    assert!(journal.keeper.work().is_err());
    journal.core.gauges.keeper_failed.store(true, std::sync::atomic::Ordering::Release);
    disk.heal();
    let mut seq = 8;
    while journal.core.chores.uncovered() <= super::super::core::UNCOVERED_MAX {
        assert!(!journal.core.room().is_full);
        seq += 1;
        journal.commit(vec![said(C, seq, &[A], quarter())]).expect("a commit");
    }
    assert_eq!(journal.core.room(), super::super::Room { bytes: 0, is_full: true });
    assert_eq!(journal.seqs(C, A).len() as u64, seq - 4, "all of it can be read meanwhile");
    journal.keeper.work().expect("the disk works again");
    assert!(prepare(&journal) || journal.core.room().bytes > 0);
    assert!(journal.core.room().bytes > 0);
}

#[test]
fn a_released_segment_is_used_again_and_nothing_of_it_comes_back() {
    let disk = SimDisk::new();
    let mut journal = with_sealed(&disk, 2);
    let bytes = journal.core.figures().bytes;
    journal.core.release(1);
    journal.core.release(2);
    journal.core.release(77);
    journal.keeper.work().expect("sidecars, a checkpoint, a release");
    assert_eq!(journal.core.figures().bytes, bytes - 2 * (64 << 10));
    assert_eq!(journal.seqs(C, A), [10, 12]);
    let spares = |disk: &SimDisk| disk.names().iter().filter(|name| name.starts_with("spare")).count();
    assert_eq!(spares(&disk), 2);
    journal.commit(vec![said(C, 13, &[A], quarter())]).expect("a commit");
    assert_eq!(spares(&disk), 1);
    drop(journal);
    let (journal, recovered) = open(&disk.kill());
    assert_eq!(recovered.report.damage, []);
    assert_eq!(journal.seqs(C, A), [10, 12, 13]);
    assert_eq!(recovered.last_seqs[&C], Seq(13));
    assert_eq!(recovered.facts.count(), 12);
}

#[test]
fn a_segment_without_messages_goes_by_itself() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk);
    for no in 0..9_u32 {
        journal.commit(vec![changed(C, vec![put(no.to_le_bytes().to_vec(), quarter())])]).expect("a commit");
    }
    journal.keeper.work().expect("a checkpoint");
    assert!(journal.core.catalog.read().sealed.is_empty());
    drop(journal);
    let (_, recovered) = open(&disk.kill());
    assert_eq!(recovered.facts.count(), 9);
    assert_eq!(recovered.report.damage, []);
}

#[test]
fn a_request_is_answered_within_its_limits_and_tells_how_far() {
    let disk = SimDisk::new();
    let mut journal = with_sealed(&disk, 2);
    for tidied in [false, true] {
        if tidied {
            journal.keeper.work().expect("sidecars");
        }
        let both = ReadRequest { after: vec![(A, Seq(3)), (B, Seq(6))], ..all(C, A) };
        let read = |request: ReadRequest| {
            let batch = journal.read(&request);
            (batch.messages.iter().map(|entry| entry.place.seq.0).collect::<Vec<_>>(), batch.through.0)
        };
        assert_eq!(read(both.clone()), (vec![4, 6, 7, 8, 9, 10, 11, 12], 12));
        assert_eq!(read(ReadRequest { messages_max: 3, ..both.clone() }), (vec![4, 6, 7], 7));
        assert_eq!(read(ReadRequest { bytes_max: 40 << 10, ..both.clone() }), (vec![4, 6], 6));
        assert_eq!(read(ReadRequest { bytes_max: 1, ..both.clone() }), (vec![4], 4), "one in any case");
        assert_eq!(read(ReadRequest { through: Some(Seq(7)), ..both.clone() }), (vec![4, 6, 7], 7));
        assert_eq!(read(ReadRequest { through: Some(Seq(99)), ..both.clone() }).1, 12);
        assert_eq!(read(ReadRequest { after: vec![(A, Seq(12))], ..both.clone() }), (vec![], 12));
        assert_eq!(read(ReadRequest { cluster: ClusterNo(9), ..both }), (vec![], 0));
    }
}

#[test]
fn retention_sees_who_has_what_in_a_sealed_segment() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk);
    let filters: Vec<FilterKey> = (0..700).map(|no| FilterKey::of(&format!("device/{no}"))).collect();
    for (seq, filter) in (1..).zip(&filters) {
        journal.commit(vec![said(C, seq, &[*filter, A], "to one and all")]).expect("a commit");
    }
    journal.commit((701..705).map(|seq| said(C, seq, &[B], quarter())).collect()).expect("a commit");
    let mut sorted = filters.clone();
    sorted.push(A);
    sorted.sort_unstable();
    for tidied in [false, true] {
        if tidied {
            journal.keeper.work().expect("sidecars");
        }
        let sealed = journal.core.catalog.read().sealed[&1].summary();
        assert_eq!((sealed.clusters[0].first, sealed.clusters.len()), (Seq(1), 1));
        assert_eq!(sealed.newest_at, Some(Timestamp::from_millis(1_000)));
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = reader::filters_of(&journal.core, 1, C, after, 100).expect("a readable sidecar");
            let Some(last) = page.last() else { break };
            after = Some(last.filter);
            listed.extend(page);
        }
        listed.retain(|span| span.filter != B);
        assert_eq!(listed.iter().map(|span| span.filter).collect::<Vec<_>>(), sorted);
        let of_all = listed.iter().find(|span| span.filter == A).expect("it is listed");
        assert_eq!((of_all.last, of_all.messages), (Seq(700), 700));
        for (seq, filter) in (1..).zip(&filters) {
            assert_eq!(journal.seqs(C, *filter), [seq]);
        }
        assert!(journal.seqs(C, FilterKey::of("device/none")).is_empty());
    }
    assert_eq!(journal.core.figures().oldest[&C], (Seq(1), Timestamp::from_millis(1_000)));
}

#[test]
fn what_a_sidecar_tells_of_an_empty_segment() {
    let disk = SimDisk::new();
    super::super::sidecar::write(&disk, 1, 5, &Index::default()).expect("a sidecar");
    let file = super::super::disk::Disk::open(&disk, &Name::Sidecar(1).to_string()).expect("a file");
    let sidecar = super::super::sidecar::Sidecar::open(file, 1).expect("a sidecar");
    assert!(sidecar.spans().is_empty() && sidecar.incarnation() == 5);
    let mut places = Vec::new();
    sidecar.find(C, A, Seq::ZERO, 1, &mut places).expect("an answer");
    assert!(places.is_empty());
}
