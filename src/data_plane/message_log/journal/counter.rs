//! Counts messages without reading them: how far behind somebody is.
//!
//! What is counted are places in the indexes of the segments, a few of each filter at a time, so that neither
//! memory nor the disk's work follows the length of the messages. Of the messages themselves the earliest alone is
//! read, for its time. Damage is therefore not seen: a message that cannot be read counts like any other.

use std::io;
use std::sync::Arc;

use super::super::{ClusterNo, CountRequest, Counted, FilterKey};
use super::catalog::Sealed;
use super::core::Core;
use super::disk::{DiskFile, read_exact};
use super::index::Place;
use super::reader::{find, message_at};
use crate::model::{Seq, Timestamp};

/// Places of one filter that are looked up at a time.
const PLACES_AT_ONCE: usize = 1_024;

/// A place, and which list it was found by.
type Found = (Place, usize);

/// Answers a request.
pub(super) fn count(core: &Core, request: &CountRequest) -> io::Result<Counted> {
    let mut tally = Tally {
        request,
        cursors: request.lists.clone(),
        left: request.messages_max,
        counted: Counted::none(request.lists.len()),
    };
    let mut done = 0;
    while let Some(number) = next_segment(core, done, request) {
        done = number;
        while let Some(segment) = lookup(core, number, &tally.cursors, request.cluster)? {
            if !tally.take(&segment) {
                break;
            }
        }
        if tally.counted.stopped {
            break;
        }
    }
    Ok(tally.counted)
}

/// The next segment that may hold something.
fn next_segment(core: &Core, done: u64, request: &CountRequest) -> Option<u64> {
    let floor = request.lists.iter().map(|(_, after)| *after).min()?;
    let catalog = core.catalog.read();
    let wanted = |sealed: &&Arc<Sealed>| {
        sealed.span(request.cluster).is_some_and(|span| span.last > floor && span.first <= request.through)
    };
    let sealed = catalog.sealed.range(done + 1..).map(|(_, sealed)| sealed).find(wanted);
    let active = catalog.active.as_ref().map(|active| active.number).filter(|number| *number > done);
    sealed.map(|sealed| sealed.number).or(active)
}

/// The first places of each list in one segment.
struct Lookup {
    file: Arc<dyn DiskFile>,
    incarnation: u64,
    found: Vec<Found>,
    /// What lies at or before it is all in `found`; `None` when everything is.
    horizon: Option<Seq>,
}

/// Looks the lists up in a segment; `None` when it is gone.
fn lookup(
    core: &Core,
    number: u64,
    lists: &[(FilterKey, Seq)],
    cluster: ClusterNo,
) -> io::Result<Option<Lookup>> {
    let catalog = core.catalog.read();
    // Sealed meanwhile, it is found among those.
    let active = catalog.active.as_ref().filter(|active| active.number == number);
    let mut places = vec![Vec::new(); lists.len()];
    let (file, incarnation) = if let Some(active) = active {
        for ((filter, after), places) in lists.iter().zip(&mut places) {
            active.index.find(cluster, *filter, *after, PLACES_AT_ONCE, places);
        }
        (Arc::clone(&active.file), active.incarnation)
    } else {
        let Some(sealed) = catalog.sealed.get(&number).cloned() else { return Ok(None) };
        drop(catalog);
        for (list, places) in lists.iter().zip(&mut places) {
            *places = find(core, &sealed, cluster, std::slice::from_ref(list), PLACES_AT_ONCE)?;
        }
        (Arc::clone(&sealed.file), sealed.incarnation)
    };
    let full = places.iter().filter(|places| places.len() == PLACES_AT_ONCE);
    let horizon = full.filter_map(|places| places.last()).map(|last| last.seq).min();
    let numbered = |(list, places): (usize, Vec<Place>)| places.into_iter().map(move |place| (place, list));
    let mut found: Vec<Found> = places.into_iter().enumerate().flat_map(numbered).collect();
    found.sort_unstable();
    Ok(Some(Lookup { file, incarnation, found, horizon }))
}

/// What was counted so far.
struct Tally<'a> {
    request: &'a CountRequest,
    /// The lists, behind what was counted.
    cursors: Vec<(FilterKey, Seq)>,
    /// How many may still be counted.
    left: u64,
    counted: Counted,
}

impl Tally<'_> {
    /// Counts what was found. Returns whether there may be more in the same segment.
    fn take(&mut self, segment: &Lookup) -> bool {
        let last = segment.horizon.map_or(self.request.through, |horizon| horizon.min(self.request.through));
        let within = segment.found.partition_point(|(place, _)| place.seq <= last);
        for message in segment.found[..within].chunk_by(|(a, _), (b, _)| a.seq == b.seq) {
            if self.left == 0 {
                self.counted.stopped = true;
                return false;
            }
            self.left -= 1;
            self.add(segment, message);
        }
        let Some(horizon) = segment.horizon.filter(|horizon| *horizon < self.request.through) else {
            return false;
        };
        for (_, after) in &mut self.cursors {
            *after = horizon.max(*after);
        }
        true
    }

    /// Counts one message, which several lists may have found.
    fn add(&mut self, segment: &Lookup, found: &[Found]) {
        for (_, list) in found {
            self.counted.each[*list] += 1;
        }
        let Some((place, _)) = found.iter().find(|(_, list)| *list < self.request.merged) else { return };
        self.counted.messages += 1;
        self.counted.bytes += u64::from(place.len);
        if self.counted.oldest.is_none() {
            let at = published_at(&*segment.file, segment.incarnation, self.request.cluster, place);
            self.counted.oldest = Some((place.seq, at));
        }
    }
}

fn published_at(
    file: &dyn DiskFile,
    incarnation: u64,
    cluster: ClusterNo,
    place: &Place,
) -> Option<Timestamp> {
    let mut bytes = vec![0; place.len as usize];
    read_exact(file, &mut bytes, u64::from(place.offset)).ok()?;
    message_at(&bytes, incarnation, cluster, place).map(|entry| entry.message.published_at)
}
