//! A disk in memory that can crash and fail.
//!
//! It keeps apart what is durable and what the system only has in its memory. A crash keeps what was
//! synced, and of the rest what chance decides: any of the unsynced writes, each page of 512 bytes by
//! itself, and a beginning of the unsynced changes of names.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

/// Small numbers from a seed: all chance of a test.
#[derive(Clone, Debug)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// What goes wrong next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Writes beyond so many bytes in all find no space.
    FullAt(u64),
    /// So many changes more come through, then none: the moment the power goes.
    StopAfter(u64),
    /// Every sync fails.
    Sync,
    /// Every write fails.
    Write,
    /// Every write writes at most so many bytes.
    Short(usize),
    /// Reads of the file with this in its name fail.
    Read(&'static str),
}

#[derive(Default)]
struct State {
    /// By number, so that a file outlives its name.
    files: Vec<FileState>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Since the last sync of names.
    name_changes: Vec<NameChange>,
    faults: Vec<Fault>,
    locked: bool,
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone, Default)]
struct FileState {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync, each at most one sector.
    writes: Vec<(usize, Vec<u8>)>,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Default)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn as_disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    pub(super) fn fail(&self, fault: Fault) {
        self.0.lock().faults.push(fault);
    }

    pub(super) fn heal(&self) {
        self.0.lock().faults.clear();
    }

    /// What another machine would find on the disk after the power went.
    pub(super) fn crash(&self, chance: &mut Chance) -> Self {
        let state = self.0.lock();
        let mut names = state.durable_names.clone();
        let kept = chance.below(state.name_changes.len() as u64 + 1);
        for change in &state.name_changes[..usize::try_from(kept).expect("small")] {
            apply(&mut names, change);
        }
        let files = state.files.iter().map(|file| file.after_crash(chance)).collect();
        let after = State { files, durable_names: names.clone(), names, ..State::default() };
        Self(Arc::new(Mutex::new(after)))
    }

    /// What the next process finds after this one was killed: all that was written.
    pub(super) fn kill(&self) -> Self {
        let state = self.0.lock();
        let after = State {
            files: state.files.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            name_changes: state.name_changes.clone(),
            faults: Vec::new(),
            locked: false,
        };
        Self(Arc::new(Mutex::new(after)))
    }

    /// The names of all files.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.lock().names.keys().cloned().collect()
    }

    /// The content of a file.
    pub(super) fn content(&self, name: &str) -> Vec<u8> {
        let state = self.0.lock();
        state.files[state.names[name]].content.clone()
    }

    /// Changes a file behind everybody's back, durably.
    pub(super) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.lock();
        let no = state.names[name];
        let file = &mut state.files[no];
        change(&mut file.content);
        file.durable = file.content.clone();
        file.writes.clear();
    }

    fn used(state: &State) -> u64 {
        state.names.values().map(|no| state.files[*no].content.len() as u64).sum()
    }
}

impl FileState {
    fn after_crash(&self, chance: &mut Chance) -> Self {
        let mut durable = self.durable.clone();
        // Sometimes nothing of it came through, sometimes all, mostly some.
        let mood = chance.below(4);
        for (offset, bytes) in &self.writes {
            let kept = match mood {
                0 => false,
                1 => true,
                _ => chance.one_in(2),
            };
            if kept {
                put(&mut durable, *offset, bytes);
            }
        }
        Self { content: durable.clone(), durable, writes: Vec::new() }
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn apply(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Set(name, no) => drop(names.insert(name.clone(), *no)),
        NameChange::Remove(name) => drop(names.remove(name)),
        NameChange::Rename(from, to) => {
            if let Some(no) = names.remove(from) {
                names.insert(to.clone(), no);
            }
        }
    }
}

impl State {
    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.name_changes.push(change);
    }

    /// Counts what changes the disk.
    fn step(&mut self) -> io::Result<()> {
        for fault in &mut self.faults {
            if let Fault::StopAfter(left) = fault {
                *left = left.checked_sub(1).ok_or_else(|| io::Error::other("the power is gone"))?;
            }
        }
        Ok(())
    }

    fn known(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.0.lock();
        let size = |no: &usize| state.files[*no].content.len() as u64;
        Ok(state.names.iter().map(|(name, no)| (name.clone(), size(no))).collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let no = self.0.lock().known(name)?;
        Ok(Arc::new(SimFile { disk: self.clone(), no, name: name.to_owned() }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.step()?;
        let no = state.files.len();
        state.files.push(FileState::default());
        state.change(NameChange::Set(name.to_owned(), no));
        Ok(Arc::new(SimFile { disk: self.clone(), no, name: name.to_owned() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state.known(from)?;
        state.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state.known(name)?;
        state.change(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        if state.faults.contains(&Fault::Sync) {
            return Err(io::Error::other("injected"));
        }
        state.durable_names = state.names.clone();
        state.name_changes.clear();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn lock(&self) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let mut state = self.0.lock();
        if state.locked {
            return Ok(None);
        }
        state.locked = true;
        Ok(Some(Box::new(Guard(self.clone()))))
    }
}

struct Guard(SimDisk);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.lock().locked = false;
    }
}

struct SimFile {
    disk: SimDisk,
    no: usize,
    name: String,
}

impl DiskFile for SimFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.0.lock();
        if state.faults.iter().any(|fault| matches!(fault, Fault::Read(part) if self.name.contains(part))) {
            return Err(io::Error::other("injected"));
        }
        let content = &state.files[self.no].content;
        let from = content.len().min(usize::try_from(offset).expect("small"));
        let len = into.len().min(content.len() - from);
        into[..len].copy_from_slice(&content[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.0.lock();
        state.step()?;
        let offset = usize::try_from(offset).expect("small");
        let mut bytes = bytes;
        for fault in state.faults.clone() {
            let end = offset + bytes.len();
            let longer = end.saturating_sub(state.files[self.no].content.len()) as u64;
            match fault {
                Fault::Write => return Err(io::Error::other("injected")),
                Fault::FullAt(bound) if SimDisk::used(&state) + longer > bound && longer > 0 => {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Fault::Short(most) => bytes = &bytes[..most.min(bytes.len())],
                _ => {}
            }
        }
        let file = &mut state.files[self.no];
        put(&mut file.content, offset, bytes);
        let mut at = 0;
        while at < bytes.len() {
            let end = bytes.len().min(at + SECTOR - (offset + at) % SECTOR);
            file.writes.push((offset + at, bytes[at..end].to_vec()));
            at = end;
        }
        Ok(bytes.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.step()?;
        let fails = state.faults.contains(&Fault::Sync);
        let file = &mut state.files[self.no];
        if fails {
            // As Linux does: what could not be written is taken for clean, and no later sync writes it.
            file.writes.clear();
            return Err(io::Error::other("injected"));
        }
        for (offset, bytes) in std::mem::take(&mut file.writes) {
            put(&mut file.durable, offset, &bytes);
        }
        file.durable.truncate(file.content.len());
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.step()?;
        let len = usize::try_from(bytes).expect("small");
        // As a write may be, the new length is in memory only until the next sync.
        state.files[self.no].content.resize(len, 0);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().files[self.no].content.len() as u64)
    }
}
