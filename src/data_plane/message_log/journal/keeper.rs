//! What is done to sealed segments behind the committer's back: sidecars, checkpoints, release.
//!
//! Nothing here is needed for an entry to be durable, so nothing here is fatal: what fails is tried
//! again, and until it succeeds the segment itself says everything. Only when too many segments wait for a
//! checkpoint, [`super::Journal::room`] ends: recovery would take too long, and the memory too much.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::super::ClusterNo;
use super::catalog::{Lookup, Sealed};
use super::checkpoint::{self, Checkpoint};
use super::core::Core;
use super::delta::Delta;
use super::segment::Name;
use super::sidecar::{self, Sidecar};
use crate::model::Seq;

/// How soon something that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How soon a segment that a reader was just reading is looked at again.
const READER_DONE_AFTER: Duration = Duration::from_millis(20);

/// What a segment changed that was sealed.
pub(super) struct Filled {
    pub(super) number: u64,
    pub(super) delta: Arc<Delta>,
    /// The last position in it of each cluster.
    pub(super) last_seqs: BTreeMap<ClusterNo, Seq>,
}

/// What is to be done.
#[derive(Default)]
pub(super) struct Chores {
    state: Mutex<State>,
    ready: Condvar,
    /// How many segments no checkpoint covers. Written with `state` locked, read without.
    uncovered: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// Ascending; no checkpoint covers them.
    filled: VecDeque<Filled>,
    /// Segments that nobody needs.
    released: BTreeSet<u64>,
    nudged: bool,
    stopped: bool,
}

impl Chores {
    /// A segment was sealed.
    pub(super) fn filled(&self, filled: Filled) {
        let mut state = self.state.lock();
        state.filled.push_back(filled);
        self.uncovered.store(state.filled.len(), Ordering::Release);
        state.nudged = true;
        self.ready.notify_one();
    }

    /// Nobody needs a segment any longer.
    pub(super) fn release(&self, number: u64) {
        let mut state = self.state.lock();
        state.released.insert(number);
        state.nudged = true;
        self.ready.notify_one();
    }

    /// Something in the catalog wants a sidecar.
    pub(super) fn nudge(&self) {
        self.state.lock().nudged = true;
        self.ready.notify_one();
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.ready.notify_one();
    }

    /// How many sealed segments no checkpoint covers.
    pub(super) fn uncovered(&self) -> usize {
        self.uncovered.load(Ordering::Acquire)
    }
}

/// The state of the keeper's thread.
pub(super) struct Keeper {
    core: Arc<Core>,
    /// The newest checkpoint. The one before it stays on disk as well.
    checkpoint: Option<Checkpoint>,
    before: Option<u64>,
    /// Taken out of the catalog; a reader may still read them.
    leaving: Vec<Arc<Sealed>>,
}

impl Keeper {
    pub(super) fn new(core: Arc<Core>, checkpoint: Option<Checkpoint>, before: Option<u64>) -> Self {
        Self { core, checkpoint, before, leaving: Vec::new() }
    }

    /// Runs until the chores are stopped. What is left undone then is done after the next start.
    pub(super) fn run(mut self) {
        let core = Arc::clone(&self.core);
        loop {
            let done = self.work();
            let failed = done.is_err();
            let failed_before = core.gauges.keeper_failed.swap(failed, Ordering::AcqRel);
            match done {
                Err(error) if !failed_before => {
                    tracing::error!(%error, "the message log cannot be tidied up: tried again every second");
                }
                Ok(()) if failed_before => tracing::info!("the message log is tidied up again"),
                _ => {}
            }
            let mut state = core.chores.state.lock();
            if state.stopped {
                return;
            }
            if failed {
                core.chores.ready.wait_for(&mut state, RETRY_AFTER);
            } else if !self.leaving.is_empty() {
                core.chores.ready.wait_for(&mut state, READER_DONE_AFTER);
            } else if !state.nudged {
                core.chores.ready.wait(&mut state);
            }
            state.nudged = false;
            if state.stopped {
                return;
            }
        }
    }

    /// Does all that can be done now.
    pub(super) fn work(&mut self) -> io::Result<()> {
        // Releasing comes first and last: it gives the space that the rest may need.
        self.release()?;
        self.write_sidecars()?;
        self.write_checkpoint()?;
        self.release()
    }

    /// For each sealed segment that is looked up in memory: writes its sidecar.
    fn write_sidecars(&self) -> io::Result<()> {
        loop {
            let in_memory = |sealed: &&Arc<Sealed>| matches!(sealed.lookup, Lookup::Memory(_));
            let next = self.core.catalog.read().sealed.values().find(in_memory).cloned();
            let Some(sealed) = next else { return Ok(()) };
            let Lookup::Memory(index) = &sealed.lookup else { return Ok(()) };
            sidecar::write(&*self.core.disk, sealed.number, sealed.incarnation, index)?;
            let file = self.core.files.file(Name::Sidecar(sealed.number).to_string());
            let replaced = Sealed {
                number: sealed.number,
                incarnation: sealed.incarnation,
                bytes: sealed.bytes,
                file: Arc::clone(&sealed.file),
                lookup: Lookup::Sidecar(Sidecar::open(file, sealed.number)?),
            };
            self.core.catalog.write().sealed.insert(sealed.number, Arc::new(replaced));
        }
    }

    /// Writes a checkpoint over all sealed segments, when there is one that none covers.
    fn write_checkpoint(&mut self) -> io::Result<()> {
        let (through, deltas, last_seqs) = {
            let state = self.core.chores.state.lock();
            let Some(last) = state.filled.back() else { return Ok(()) };
            let mut last_seqs = self.checkpoint.as_ref().map(|it| it.last_seqs.clone()).unwrap_or_default();
            state.filled.iter().for_each(|filled| last_seqs.extend(&filled.last_seqs));
            let deltas: Vec<_> = state.filled.iter().map(|filled| Arc::clone(&filled.delta)).collect();
            (last.number, deltas, last_seqs)
        };
        let id = getrandom::u64().map_err(io::Error::other)?;
        let older = self.checkpoint.clone();
        checkpoint::write(&*self.core.disk, through, id, older, folded(&deltas), &last_seqs)?;
        let file = self.core.disk.open(&Name::Checkpoint(through).to_string())?;
        let newest = Checkpoint::open(file)?;
        let before = self.checkpoint.replace(newest).map(|it| it.through);
        let mut state = self.core.chores.state.lock();
        state.filled.retain(|filled| filled.number > through);
        self.core.chores.uncovered.store(state.filled.len(), Ordering::Release);
        drop(state);
        match std::mem::replace(&mut self.before, before) {
            Some(oldest) => {
                unless_missing(self.core.disk.remove(&Name::Checkpoint(oldest).to_string())).map(drop)
            }
            None => Ok(()),
        }
    }

    /// Removes the segments that nobody needs: those released, and those without messages. None is
    /// removed before a checkpoint covers its changes.
    fn release(&mut self) -> io::Result<()> {
        let covered = self.checkpoint.as_ref().map_or(0, |it| it.through);
        let mut released = {
            let mut state = self.core.chores.state.lock();
            let later = state.released.split_off(&(covered + 1));
            std::mem::replace(&mut state.released, later)
        };
        let mut catalog = self.core.catalog.write();
        let empty = catalog.sealed.range(..=covered).filter(|(_, sealed)| sealed.spans().is_empty());
        released.extend(empty.map(|(number, _)| *number));
        self.leaving.extend(released.iter().filter_map(|number| catalog.sealed.remove(number)));
        drop(catalog);
        let mut kept = Vec::new();
        let mut outcome = Ok(());
        for sealed in std::mem::take(&mut self.leaving) {
            // Nobody can get hold of it any longer; who has it is reading.
            if Arc::strong_count(&sealed) > 1 {
                kept.push(sealed);
            } else if let Err(error) = self.remove(&sealed) {
                kept.push(sealed);
                outcome = Err(error);
            }
        }
        self.leaving = kept;
        outcome
    }

    /// Removes the files of a segment, or keeps its space for another one. Can be tried again.
    fn remove(&self, sealed: &Sealed) -> io::Result<()> {
        let disk = &*self.core.disk;
        let name = Name::Segment(sealed.number).to_string();
        let whole = sealed.bytes == u64::from(self.core.options.segment_bytes);
        let spare = if whole { self.core.stock.spare_name() } else { None };
        unless_missing(disk.remove(&Name::Sidecar(sealed.number).to_string()))?;
        let gone = match spare {
            Some(spare) => disk.rename(&name, &spare.to_string()),
            None => disk.remove(&name),
        };
        let was_there = unless_missing(gone)?;
        disk.sync_names()?;
        self.core.gauges.bytes.fetch_sub(sealed.bytes, Ordering::AcqRel);
        match spare.filter(|_| was_there) {
            Some(spare) => self.core.stock.add_spare(spare),
            None => self.core.stock.nudge(),
        }
        Ok(())
    }
}

/// All deltas, oldest first, as one.
pub(super) fn folded(deltas: &[Arc<Delta>]) -> Arc<Delta> {
    match deltas {
        [one] => Arc::clone(one),
        all => {
            let mut folded = Delta::default();
            for delta in all {
                folded.fold(delta);
            }
            Arc::new(folded)
        }
    }
}

/// Whether the file was there: an earlier attempt may have come so far.
fn unless_missing(outcome: io::Result<()>) -> io::Result<bool> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|()| true),
    }
}
