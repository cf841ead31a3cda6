//! From files to a journal that can go on: what is believed after a crash, and why.
//!
//! `docs/recovery.md` tells it step by step. The rule behind all steps: what was reported durable is
//! there; what was not is there up to some entry and from there on gone for good. What is missing in
//! the midst of what was durable is damage: reported, counted, and passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::catalog::{Catalog, Lookup, Sealed};
use super::checkpoint::{Checkpoint, Facts};
use super::delta::Delta;
use super::disk::{Disk, DiskFile, read_up_to, write_all};
use super::entry_codec::EntryView;
use super::file_pool::FilePool;
use super::frame::{FrameKind, SEAL_BYTES, Scan, put_frame, scan};
use super::index::Index;
use super::keeper::{Filled, folded};
use super::reader::index_of;
use super::report::{Damage, OpenError, Report};
use super::segment::{FIRST_FRAME, Name, SegmentHeader, UNFINISHED};
use super::sidecar::Sidecar;

/// Put before the name of a file that is of no use any longer, so that a person can look at it.
const SET_ASIDE: &str = "damaged-";

/// All that opening found.
pub(super) struct Opened {
    pub(super) files: Arc<FilePool>,
    pub(super) catalog: Catalog,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) before: Option<u64>,
    pub(super) filled: Vec<Filled>,
    pub(super) spares: Vec<Name>,
    pub(super) next_number: u64,
    pub(super) report: Report,
    pub(super) facts: Facts,
}

/// Reads the directory. Afterwards no byte that is not believed can come back.
pub(super) fn open(disk: &Arc<dyn Disk>, segment_bytes: u32) -> Result<Opened, OpenError> {
    let mut recovery = Recovery::begin(disk, segment_bytes).map_err(doing("listing the message log"))?;
    let (checkpoint, before) =
        recovery.choose_checkpoint().map_err(doing("reading the message log's checkpoint"))?;
    recovery.report.checkpoint = checkpoint.as_ref().map_or(0, |it| it.through);
    recovery.no_gap(recovery.report.checkpoint)?;
    recovery.open_covered().map_err(doing("reading sealed segments of the message log"))?;
    let filled = recovery.read_uncovered().map_err(doing("reading the message log"))?;
    recovery
        .tidy(checkpoint.as_ref().map(|it| it.through), before)
        .map_err(doing("removing old files of the message log"))?;
    let mut last_seqs = checkpoint.as_ref().map(|it| it.last_seqs.clone()).unwrap_or_default();
    for filled in &filled {
        last_seqs.extend(&filled.last_seqs);
    }
    let deltas: Vec<Arc<Delta>> = filled.iter().map(|filled| Arc::clone(&filled.delta)).collect();
    let newest = recovery.sealed.keys().last().copied().unwrap_or(0).max(recovery.report.checkpoint);
    let report = &mut recovery.report;
    report.segments = recovery.sealed.len() as u64;
    report.bytes = recovery.sealed.values().map(|sealed| sealed.bytes).sum();
    Ok(Opened {
        files: recovery.files,
        catalog: Catalog { sealed: recovery.sealed, active: None, last_seqs },
        facts: Facts::new(checkpoint.clone(), folded(&deltas)),
        checkpoint,
        before,
        filled,
        spares: recovery.spares,
        next_number: newest + 1,
        report: recovery.report,
    })
}

fn doing(doing: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io { doing, source }
}

struct Recovery<'a> {
    disk: &'a Arc<dyn Disk>,
    files: Arc<FilePool>,
    segment_bytes: u32,
    /// Files of each kind by number, and the lengths of segments.
    segments: BTreeMap<u64, u64>,
    sidecars: BTreeSet<u64>,
    checkpoints: BTreeSet<u64>,
    spares: Vec<Name>,
    sealed: BTreeMap<u64, Arc<Sealed>>,
    /// Of no use. Set aside once all else has succeeded: an attempt that fails changes no verdict.
    useless: Vec<Name>,
    report: Report,
}

/// A segment that no checkpoint covers, as read.
struct Uncovered {
    number: u64,
    header: SegmentHeader,
    file: Arc<dyn DiskFile>,
    scan: Scan,
}

impl<'a> Recovery<'a> {
    fn begin(disk: &'a Arc<dyn Disk>, segment_bytes: u32) -> io::Result<Self> {
        let mut recovery = Self {
            disk,
            files: FilePool::new(Arc::clone(disk)),
            segment_bytes,
            segments: BTreeMap::new(),
            sidecars: BTreeSet::new(),
            checkpoints: BTreeSet::new(),
            spares: Vec::new(),
            sealed: BTreeMap::new(),
            useless: Vec::new(),
            report: Report::default(),
        };
        for (name, bytes) in disk.list()? {
            match Name::parse(&name) {
                Some(Name::Segment(number)) => drop(recovery.segments.insert(number, bytes)),
                Some(Name::Sidecar(number)) => drop(recovery.sidecars.insert(number)),
                Some(Name::Checkpoint(number)) => drop(recovery.checkpoints.insert(number)),
                Some(Name::Spare(number)) => recovery.keep_spare(number, bytes)?,
                None if name.ends_with(UNFINISHED) => disk.remove(&name)?,
                None => {}
            }
        }
        Ok(recovery)
    }

    /// A spare of the right length saves the writing of zeros.
    fn keep_spare(&mut self, number: u64, bytes: u64) -> io::Result<()> {
        if bytes == u64::from(self.segment_bytes) {
            self.spares.push(Name::Spare(number));
            Ok(())
        } else {
            self.disk.remove(&Name::Spare(number).to_string())
        }
    }

    /// The newest checkpoint that is whole, and the number of the one before it.
    fn choose_checkpoint(&mut self) -> io::Result<(Option<Checkpoint>, Option<u64>)> {
        let mut newest = None;
        for number in self.checkpoints.clone().into_iter().rev() {
            if newest.is_some() {
                return Ok((newest, Some(number)));
            }
            let file = self.disk.open(&Name::Checkpoint(number).to_string())?;
            match Checkpoint::open(file).and_then(|it| it.verify().map(|()| it)) {
                Ok(checkpoint) if checkpoint.through == number => newest = Some(checkpoint),
                Err(error) if error.kind() != io::ErrorKind::InvalidData => return Err(error),
                _ => {
                    self.damaged(Damage::Checkpoint { through: number });
                    self.useless.push(Name::Checkpoint(number));
                    self.checkpoints.remove(&number);
                }
            }
        }
        Ok((newest, None))
    }

    /// All changes behind the checkpoint must be there. When a checkpoint is lost, they may have been in
    /// segments that it covered and that were therefore removed.
    fn no_gap(&self, through: u64) -> Result<(), OpenError> {
        let is_lost = self.report.damage.iter().any(|damage| matches!(damage, Damage::Checkpoint { .. }));
        let next = self.segments.range(through + 1..).next().map(|(number, _)| *number);
        let missing = next.map_or(is_lost, |next| next > through + 1);
        if missing && (is_lost || through == 0) {
            return Err(OpenError::StateLost { missing: through + 1 });
        }
        Ok(())
    }

    /// Opens the segments that the checkpoint covers: their headers and sidecars.
    fn open_covered(&mut self) -> io::Result<()> {
        for (number, bytes) in self.segments.clone().range(..=self.report.checkpoint) {
            let file = self.files.file(Name::Segment(*number).to_string());
            let header = SegmentHeader::read(&*file)?.filter(|header| header.number == *number);
            let sidecar = self.sidecar(*number)?;
            let sidecar =
                sidecar.filter(|it| header.is_none_or(|header| header.incarnation == it.incarnation()));
            if header.is_none() {
                self.damaged(Damage::Header { segment: *number });
            }
            let (incarnation, lookup) = match (header, sidecar) {
                (_, Some(sidecar)) => (sidecar.incarnation(), Lookup::Sidecar(sidecar)),
                (Some(header), None) => {
                    let (index, damaged) = index_of(&*file, header.incarnation)?;
                    self.report.indexes_rebuilt += 1;
                    if damaged > 0 {
                        self.damaged(Damage::Frames { segment: *number, bytes: damaged });
                    }
                    (header.incarnation, Lookup::Memory(Arc::new(index)))
                }
                (None, None) => {
                    self.useless.push(Name::Segment(*number));
                    continue;
                }
            };
            let sealed = Sealed { number: *number, incarnation, bytes: *bytes, file, lookup };
            self.sealed.insert(*number, Arc::new(sealed));
        }
        Ok(())
    }

    /// The sidecar of a segment, if there is one and what is kept of it in memory is whole.
    fn sidecar(&mut self, number: u64) -> io::Result<Option<Sidecar>> {
        if !self.sidecars.contains(&number) {
            return Ok(None);
        }
        let file = self.files.file(Name::Sidecar(number).to_string());
        match Sidecar::open(file, number) {
            Ok(sidecar) => Ok(Some(sidecar)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the segments behind the checkpoint and ends the newest one where belief ends.
    fn read_uncovered(&mut self) -> io::Result<Vec<Filled>> {
        let mut read = Vec::new();
        for number in self.segments.clone().range(self.report.checkpoint + 1..).map(|(number, _)| *number) {
            let file = self.disk.open(&Name::Segment(number).to_string())?;
            let header = SegmentHeader::read(&*file)?.filter(|header| header.number == number);
            if let Some(header) = header {
                let scan = scan(&content(&*file)?, header.incarnation, FIRST_FRAME, false);
                read.push(Uncovered { number, header, file, scan });
            } else {
                // A header is durable before its segment has a name: this is not the work of a crash.
                self.damaged(Damage::Header { segment: number });
                self.useless.push(Name::Segment(number));
            }
        }
        let mut is_followed = false;
        while let Some(unused) =
            read.pop_if(|segment| segment.scan.entries.is_empty() && !segment.scan.sealed)
        {
            is_followed |= unused.scan.cut_bytes > 0;
            self.report.cut_bytes += u64::from(unused.scan.cut_bytes);
            self.return_unused(&unused)?;
        }
        let newest = read.len().saturating_sub(1);
        let mut filled = Vec::new();
        let mut expected = self.report.checkpoint + 1;
        for (at, segment) in read.into_iter().enumerate() {
            for missing in expected..segment.number {
                self.damaged(Damage::Missing { segment: missing });
            }
            expected = segment.number + 1;
            filled.push(self.believe(segment, at == newest && !is_followed)?);
        }
        Ok(filled)
    }

    /// A segment that was made ready and holds nothing to believe. It gets another incarnation
    /// before it is used, so nothing in it comes back.
    fn return_unused(&mut self, unused: &Uncovered) -> io::Result<()> {
        let name = Name::Segment(unused.number).to_string();
        if self.segments.get(&unused.number) != Some(&u64::from(self.segment_bytes)) {
            return self.disk.remove(&name);
        }
        let taken = |name: &Name| if let Name::Spare(number) = name { *number } else { 0 };
        let spare = Name::Spare(self.spares.iter().map(taken).max().unwrap_or(0) + 1);
        self.disk.rename(&name, &spare.to_string())?;
        self.spares.push(spare);
        Ok(())
    }

    /// Takes up what a segment holds.
    fn believe(&mut self, segment: Uncovered, is_newest: bool) -> io::Result<Filled> {
        let Uncovered { number, header, file, mut scan } = segment;
        let content = content(&*file)?;
        if is_newest {
            end_segment(&*file, header.incarnation, &content, &scan)?;
        } else if !scan.sealed {
            scan = super::frame::scan(&content, header.incarnation, FIRST_FRAME, true);
        }
        let damaged: u64 = scan.damage.iter().map(|range| u64::from(range.end - range.start)).sum();
        if damaged > 0 {
            self.damaged(Damage::Frames { segment: number, bytes: damaged });
        }
        self.report.cut_bytes += u64::from(scan.cut_bytes);
        let (mut index, mut delta, mut last_seqs) = (Index::default(), Delta::default(), BTreeMap::new());
        for frame in &scan.entries {
            let view = EntryView::parse(&content[frame.body.start as usize..frame.body.end as usize])?;
            for change in view.changes()? {
                delta.apply(view.cluster, &change);
            }
            if let Some(message) = &view.message {
                index.add_frame(view.cluster, message, frame);
                last_seqs.insert(view.cluster, message.seq);
            }
            self.report.entries += 1;
        }
        let sealed = Sealed {
            number,
            incarnation: header.incarnation,
            bytes: file.size()?,
            file: self.files.file(Name::Segment(number).to_string()),
            lookup: Lookup::Memory(Arc::new(index)),
        };
        self.sealed.insert(number, Arc::new(sealed));
        Ok(Filled { number, delta: Arc::new(delta), last_seqs })
    }

    /// Removes what belongs to nothing.
    fn tidy(&self, newest: Option<u64>, before: Option<u64>) -> io::Result<()> {
        for name in &self.useless {
            self.disk.rename(&name.to_string(), &format!("{SET_ASIDE}{name}"))?;
        }
        for number in self.sidecars.iter().filter(|number| !self.sealed.contains_key(number)) {
            self.disk.remove(&Name::Sidecar(*number).to_string())?;
        }
        let kept = [newest, before];
        for number in self.checkpoints.iter().filter(|number| !kept.contains(&Some(**number))) {
            self.disk.remove(&Name::Checkpoint(*number).to_string())?;
        }
        self.disk.sync_names()
    }

    fn damaged(&mut self, damage: Damage) {
        tracing::error!(?damage, "the message log is damaged");
        self.report.damage.push(damage);
    }
}

fn content(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut content = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
    let read = read_up_to(file, &mut content, 0)?;
    content.truncate(read);
    Ok(content)
}

/// Ends the newest segment where belief ends: seals it there, makes it durable and cuts the rest off.
///
/// What is read here may be in the system's memory only: the process died before its sync, or that
/// sync failed and the system now takes the pages for clean. So all that is not known to be durable
/// is written again.
fn end_segment(file: &dyn DiskFile, incarnation: u64, content: &[u8], scan: &Scan) -> io::Result<()> {
    let durable = scan.synced.min(scan.end);
    write_all(file, &content[durable as usize..scan.end as usize], u64::from(durable))?;
    file.sync_data()?;
    let mut seal = Vec::new();
    put_frame(&mut seal, incarnation, scan.end, scan.end, FrameKind::Seal, |_| {});
    write_all(file, &seal, u64::from(scan.end))?;
    file.set_len(u64::from(scan.end + SEAL_BYTES))?;
    file.sync_data()
}
