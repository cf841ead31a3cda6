//! The journal as it runs: with its threads, on a real directory.

use std::sync::mpsc;

use super::super::{Journal, OsDisk, Room};
use super::sim_disk::{Fault, SimDisk};
use super::*;

struct Told {
    durable: mpsc::Receiver<BatchNo>,
    fatal: mpsc::Receiver<Fatal>,
}

fn open(disk: Arc<dyn Disk>) -> (Journal, Recovered, Told) {
    let (durable_to, durable) = mpsc::channel();
    let (fatal_to, fatal) = mpsc::channel();
    let events = Events {
        durable: Box::new(move |no| {
            let _ = durable_to.send(no);
        }),
        fatal: Box::new(move |fatal| drop(fatal_to.send(fatal))),
    };
    let (journal, recovered) = Journal::open(disk, OPTIONS, events).expect("a journal that opens");
    (journal, recovered, Told { durable, fatal })
}

fn wait_for(told: &Told, no: BatchNo) {
    while told.durable.recv().expect("the committer lives") < no {}
}

fn read(journal: &Journal, request: ReadRequest) -> ReadBatch {
    let (to, answer) = mpsc::channel();
    journal.read(request, move |batch| drop(to.send(batch))).expect("room for a request");
    answer.recv().expect("an answer").expect("a readable journal")
}

#[test]
fn entries_survive_a_stop_on_a_real_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = || Arc::new(OsDisk::new(directory.path().join("log")).expect("a directory")) as Arc<dyn Disk>;
    let (journal, recovered, told) = open(disk());
    assert_eq!(recovered.report, super::super::Report::default());
    let mut last = BatchNo::default();
    for seq in 1..=60 {
        let mut entry = said(C, seq, &[A], vec![1; 8 << 10]);
        entry.changes.push(put("last", seq.to_string()));
        last = journal.submit(vec![entry]);
    }
    wait_for(&told, last);
    assert_eq!(journal.durable(), last);
    assert_eq!(read(&journal, all(C, A)).messages.len(), 60);
    let oldest = journal.sealed()[0].clone();
    assert_eq!(oldest.clusters[0].first, Seq(1));
    journal.release(oldest.number);
    // Submitted and not waited for: written by closing.
    journal.submit(vec![said(C, 61, &[A], "the last")]);
    journal.close().expect("all is written");
    drop(journal);

    let (journal, recovered, _told) = open(disk());
    assert_eq!(recovered.report.damage, []);
    assert_eq!(recovered.last_seqs[&C], Seq(61));
    let facts: Vec<_> = recovered.facts.map(|fact| fact.expect("readable")).collect();
    assert_eq!(facts.len(), 1);
    assert_eq!(facts[0].value, "60");
    let batch = read(&journal, all(C, A));
    assert_eq!(batch.through, Seq(61));
    assert_eq!(batch.messages.last().expect("the last").message.payload, "the last");
}

#[test]
fn one_directory_is_open_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = || Arc::new(OsDisk::new(directory.path().to_owned()).expect("a directory")) as Arc<dyn Disk>;
    let (journal, ..) = open(disk());
    let events = Events { durable: Box::new(|_| {}), fatal: Box::new(|_| {}) };
    let second = Journal::open(disk(), OPTIONS, events).map(|_| ());
    assert!(matches!(second, Err(OpenError::Locked)), "{second:?}");
    journal.close().expect("closed");
    open(disk());
}

#[test]
fn a_failed_sync_is_told_once_and_ends_it() {
    let disk = SimDisk::new();
    let (journal, _, told) = open(disk.as_disk());
    let first = journal.submit(vec![said(C, 1, &[A], "kept")]);
    wait_for(&told, first);
    disk.fail(Fault::Sync);
    journal.submit(vec![said(C, 2, &[A], "lost")]);
    assert!(matches!(told.fatal.recv(), Ok(Fatal::Write { .. })));
    disk.heal();
    journal.submit(vec![said(C, 3, &[A], "too late")]);
    assert!(journal.close().is_err());
    assert_eq!(journal.durable(), first);
    assert!(told.durable.try_recv().is_err());
}

#[test]
fn room_comes_back_when_a_segment_is_released() {
    let disk = SimDisk::new();
    let (journal, _, told) = open(disk.as_disk());
    disk.fail(Fault::FullAt(4 * (64 << 10)));
    let mut seq = 0;
    let mut last = BatchNo::default();
    // As the worker: asks before each message.
    loop {
        let Room { bytes, is_full } = journal.room();
        if bytes > 16 << 10 {
            seq += 1;
            last = journal.submit(vec![said(C, seq, &[A], vec![0; 10 << 10])]);
        } else if is_full {
            break;
        } else {
            std::thread::yield_now();
        }
    }
    wait_for(&told, last);
    let sealed = journal.sealed();
    assert!(sealed.len() >= 2, "{sealed:?}");
    disk.fail(Fault::FullAt(u64::MAX));
    disk.heal();
    // Space that came free elsewhere is found by asking again, each second; a released file at once.
    disk.fail(Fault::FullAt(4 * (64 << 10)));
    journal.release(sealed[0].number);
    disk.heal();
    while journal.room().bytes <= 16 << 10 {
        std::thread::yield_now();
    }
    let next = journal.submit(vec![said(C, seq + 1, &[A], "again")]);
    wait_for(&told, next);
}

#[test]
fn closing_a_full_journal_does_not_hang_and_says_what_is_missing() {
    let disk = SimDisk::new();
    let (journal, _, told) = open(disk.as_disk());
    let first = journal.submit(vec![said(C, 1, &[A], "kept")]);
    wait_for(&told, first);
    disk.fail(Fault::FullAt(0));
    // Against the contract: more than there was room for.
    for no in 0..20_u32 {
        journal.submit(vec![changed(C, vec![put(no.to_le_bytes().to_vec(), quarter())])]);
    }
    assert!(journal.close().is_err());
}
