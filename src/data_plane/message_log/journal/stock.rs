//! Segments made ready before they are needed: written full of zeros, headed, named and durable.
//!
//! A commit thereby changes no metadata of a file and takes no space, which makes its sync about
//! twice as fast; and a full disk is met here, where nobody waits for it, and never by a commit.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::core::Core;
use super::disk::{DiskFile, write_all};
use super::frame::SEAL_BYTES;
use super::segment::{FIRST_FRAME, Name, SegmentHeader};

/// Ready beside the active segment: while one fills, the next is there.
const AHEAD: usize = 1;
/// Files of released segments that are kept to be used again.
const SPARES_MAX: usize = 2;
/// Written at once when zeros are written.
const ZEROS_BYTES: usize = 1024 * 1024;
/// Synced as often, so that the commits beside it never wait for a great flush.
const SYNC_BYTES: usize = 8 * 1024 * 1024;
/// When there was no space, it is looked for again after so long, or when some comes free.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A segment that is ready to be written.
pub(super) struct Prepared {
    pub(super) header: SegmentHeader,
    pub(super) file: Arc<dyn DiskFile>,
}

/// Segments that are ready, and files to make some of.
pub(super) struct Stock {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    prepared: VecDeque<Prepared>,
    /// Files of the right length with anything in them.
    spares: Vec<Name>,
    next_number: u64,
    next_spare: u64,
    /// The last attempt failed.
    failed: bool,
    /// Nothing more is submitted: who waits while there is no space waits for nothing.
    closing: bool,
    /// Nothing more is needed.
    stopped: bool,
}

impl Stock {
    pub(super) fn new(next_number: u64, spares: Vec<Name>) -> Self {
        let number = |name: &Name| if let Name::Spare(number) = name { *number } else { 0 };
        let state = State {
            next_spare: spares.iter().map(number).max().unwrap_or(0) + 1,
            prepared: VecDeque::new(),
            spares,
            next_number,
            failed: false,
            closing: false,
            stopped: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The next segment. Waits until there is one; `None` when the journal is being closed and there
    /// is no space.
    pub(super) fn take(&self) -> Option<Prepared> {
        let mut state = self.state.lock();
        while state.prepared.is_empty() {
            if state.closing && state.failed {
                return None;
            }
            self.changed.wait(&mut state);
        }
        let taken = state.prepared.pop_front();
        self.changed.notify_all();
        taken
    }

    /// A name for a file that is not needed any longer; `None` when there are enough.
    pub(super) fn spare_name(&self) -> Option<Name> {
        let mut state = self.state.lock();
        let wanted = state.spares.len() < SPARES_MAX;
        wanted.then(|| {
            state.next_spare += 1;
            Name::Spare(state.next_spare - 1)
        })
    }

    /// A file by that name can be used.
    pub(super) fn add_spare(&self, name: Name) {
        self.state.lock().spares.push(name);
        self.changed.notify_all();
    }

    /// Space may have come free.
    pub(super) fn nudge(&self) {
        self.changed.notify_all();
    }

    /// No longer waits for space that does not come free by itself.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.changed.notify_all();
    }

    /// Ends [`run`].
    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }
}

/// Runs until the stock is stopped.
pub(super) fn run(core: &Core) {
    loop {
        let outcome = prepare(core);
        let mut state = core.stock.state.lock();
        if state.stopped {
            return;
        }
        match outcome {
            Ok(true) => {}
            Ok(false) => core.stock.changed.wait(&mut state),
            Err(_) => drop(core.stock.changed.wait_for(&mut state, RETRY_AFTER)),
        }
    }
}

/// Makes one segment ready; whether one was needed.
pub(super) fn prepare(core: &Core) -> io::Result<bool> {
    let mut state = core.stock.state.lock();
    if state.prepared.len() >= AHEAD {
        return Ok(false);
    }
    let (number, spare) = (state.next_number, state.spares.pop());
    drop(state);
    let made = make(core, number, spare);
    let mut state = core.stock.state.lock();
    let (failed_before, failed) = (state.failed, made.is_err());
    state.failed = failed;
    core.gauges.full.store(failed, Ordering::Release);
    let made = made.map(|prepared| {
        core.gauges.free.fetch_add(usable(&prepared.header), Ordering::AcqRel);
        core.gauges.bytes.fetch_add(u64::from(prepared.header.bytes), Ordering::AcqRel);
        state.prepared.push_back(prepared);
        state.next_number += 1;
        true
    });
    let is_left = made.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
    state.spares.extend(spare.filter(|_| is_left));
    core.stock.changed.notify_all();
    drop(state);
    match &made {
        // Stopped half-way.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(error) if !failed_before => {
            tracing::error!(%error, segment = number, "no space for the message log: new messages are refused");
        }
        Ok(_) if failed_before => tracing::info!("there is space for the message log again"),
        _ => {}
    }
    made
}

/// What frames may take.
fn usable(header: &SegmentHeader) -> i64 {
    i64::from(header.bytes) - i64::from(FIRST_FRAME) - i64::from(SEAL_BYTES)
}

fn make(core: &Core, number: u64, spare: Option<Name>) -> io::Result<Prepared> {
    let bytes = core.options.segment_bytes;
    let (name, file) = match spare {
        Some(name) => (name.to_string(), core.disk.open(&name.to_string())?),
        None => zeroed(core, bytes)?,
    };
    let incarnation = getrandom::u64().map_err(io::Error::other)?;
    let header = SegmentHeader { number, incarnation, bytes };
    write_all(&*file, &header.encode(), 0)?;
    file.sync_data()?;
    core.disk.rename(&name, &Name::Segment(number).to_string())?;
    core.disk.sync_names()?;
    Ok(Prepared { header, file })
}

/// A new file full of zeros.
fn zeroed(core: &Core, bytes: u32) -> io::Result<(String, Arc<dyn DiskFile>)> {
    if core.disk.free_bytes()? < u64::from(bytes) + core.options.keep_free_bytes {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let name = Name::Spare(0).unfinished();
    let file = core.disk.create(&name)?;
    let filled = fill(core, &*file, bytes);
    if filled.is_err() {
        // Half a file would only take the space that is missing.
        core.disk.remove(&name)?;
    }
    filled.map(|()| (name, file))
}

fn fill(core: &Core, file: &dyn DiskFile, bytes: u32) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES.min(bytes as usize)];
    let mut unsynced = 0;
    for offset in (0..bytes as usize).step_by(zeros.len()) {
        if core.gauges.stopping.load(Ordering::Acquire) && core.gauges.queued.load(Ordering::Acquire) == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        write_all(file, &zeros[..zeros.len().min(bytes as usize - offset)], offset as u64)?;
        unsynced += zeros.len();
        if unsynced >= SYNC_BYTES {
            file.sync_data()?;
            unsynced = 0;
        }
    }
    file.sync_data()
}
