//! Letting go of segments that nobody needs any longer (PRODUCT S-14).
//!
//! A sealed segment is needed while a session or group has still to read one of its messages, but at
//! most for [`KEPT_MAX`], and of each cluster at most [`CLUSTER_BYTES_MAX`]. Once a second the segments are
//! gone through, oldest first. What was found to need a segment is asked first the next time; only when
//! it no longer does is the segment's table of filters read again. So a backlog that sleeps costs a look
//! at each segment a second, however many sessions wait for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::journal::{LogEvents, LogWriter};
use crate::data_plane::cluster::Cluster;
use crate::data_plane::message_log::ClusterNo;
use crate::data_plane::message_log::journal::{ClusterSpan, FilterSpan, SealedSegment};
use crate::model::{FilterKey, Monotonic, Now, Timestamp};

/// How long a message is kept at most.
const KEPT_MAX: Duration = Duration::from_hours(72);

/// How many bytes of a cluster's messages are kept at most.
const CLUSTER_BYTES_MAX: u64 = 16 * 1_024 * 1_024 * 1_024;

/// How often the segments are gone through.
const ROUND: Duration = Duration::from_secs(1);

/// How many filters of a segment are looked at in one go.
const FILTERS_AT_ONCE: usize = 1_024;

/// The worker's clusters.
pub type Clusters = HashMap<ClusterNo, Cluster, foldhash::fast::RandomState>;

/// Which segments are still needed, and by what.
#[derive(Debug, Default)]
pub struct Retention {
    last_round: Monotonic,
    /// Of each cluster in a segment what was found to need it.
    needed_by: HashMap<(u64, ClusterNo), FilterSpan, foldhash::fast::RandomState>,
    /// What of a segment's cluster nobody needs, as far as its filters were read.
    cleared: HashMap<(u64, ClusterNo), Cleared, foldhash::fast::RandomState>,
    /// Whether a table of filters is being read.
    reading: bool,
}

/// How far a cluster's filters in a segment were read; nobody needed those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cleared {
    /// Up to this one.
    Through(FilterKey),
    /// All.
    Whole,
}

/// A page of a segment's table of filters.
#[derive(Debug)]
pub struct FiltersRead {
    segment: u64,
    cluster: ClusterNo,
    filters: std::io::Result<Vec<FilterSpan>>,
}

/// Where a segment stands.
enum Verdict {
    Needed,
    NotNeeded,
    /// A page of this cluster's filters has to be read, from behind this one.
    Unknown(ClusterNo, Option<FilterKey>),
}

impl Retention {
    /// Goes through the segments if it is time.
    pub fn look(&mut self, now: Now, log: &LogWriter, clusters: &mut Clusters) {
        if self.reading || now.mono.since(self.last_round) < ROUND {
            return;
        }
        self.last_round = now.mono;
        self.go_through(now.wall, log, clusters);
    }

    /// A page of filters was read.
    pub fn take(&mut self, now: Now, read: FiltersRead, log: &LogWriter, clusters: &mut Clusters) {
        self.reading = false;
        let FiltersRead { segment, cluster, filters } = read;
        let at = (segment, cluster);
        match filters {
            Ok(page) => {
                let needs = |span: &&FilterSpan| {
                    clusters.get_mut(&cluster).is_some_and(|cluster| cluster.needs(span.filter, span.last))
                };
                let whole = page.len() < FILTERS_AT_ONCE;
                let last = page.last().map(|span| span.filter);
                if let Some(span) = page.iter().find(needs) {
                    self.needed_by.insert(at, *span);
                } else {
                    let through = last.filter(|_| !whole).map_or(Cleared::Whole, Cleared::Through);
                    self.cleared.insert(at, through);
                }
                self.go_through(now.wall, log, clusters);
            }
            // The next round tries again.
            Err(error) => tracing::error!(%error, segment, "a table of the message log cannot be read"),
        }
    }

    fn go_through(&mut self, now: Timestamp, log: &LogWriter, clusters: &mut Clusters) {
        let sealed = log.sealed();
        let known = |(segment, _): &(u64, ClusterNo)| sealed.iter().any(|s| s.number == *segment);
        self.needed_by.retain(|at, _| known(at));
        self.cleared.retain(|at, _| known(at));
        let too_old = oldest_kept(&sealed);
        for segment in &sealed {
            match self.judge(now, segment, &too_old, clusters) {
                Verdict::Needed => {}
                Verdict::NotNeeded => log.release(segment.number),
                Verdict::Unknown(cluster, after) => {
                    self.reading = log.read_filters(segment.number, cluster, after, FILTERS_AT_ONCE);
                    return;
                }
            }
        }
    }

    fn judge(
        &mut self,
        now: Timestamp,
        segment: &SealedSegment,
        oldest_kept: &HashMap<ClusterNo, u64>,
        clusters: &mut Clusters,
    ) -> Verdict {
        for ClusterSpan { cluster: no, newest_at, .. } in &segment.clusters {
            let Some(cluster) = clusters.get_mut(no) else { continue };
            let at = (segment.number, *no);
            let expired = now.since(*newest_at) >= KEPT_MAX;
            let over = oldest_kept.get(no).is_some_and(|oldest| segment.number < *oldest);
            if expired || over {
                self.needed_by.remove(&at);
                continue;
            }
            if let Some(span) = self.needed_by.get(&at) {
                if cluster.needs(span.filter, span.last) {
                    return Verdict::Needed;
                }
                self.needed_by.remove(&at);
            }
            match self.cleared.get(&at) {
                Some(Cleared::Whole) => {}
                Some(Cleared::Through(filter)) => return Verdict::Unknown(*no, Some(*filter)),
                None => return Verdict::Unknown(*no, None),
            }
        }
        Verdict::NotNeeded
    }
}

/// For each cluster that has more than it may: the first segment that still fits, counted from the
/// newest.
fn oldest_kept(sealed: &[SealedSegment]) -> HashMap<ClusterNo, u64> {
    let mut bytes: HashMap<ClusterNo, u64> = HashMap::new();
    let mut oldest = HashMap::new();
    for segment in sealed.iter().rev() {
        for span in &segment.clusters {
            let kept = bytes.entry(span.cluster).or_default();
            *kept += span.bytes;
            if *kept > CLUSTER_BYTES_MAX {
                oldest.entry(span.cluster).or_insert(segment.number + 1);
            }
        }
    }
    oldest
}

impl LogWriter {
    /// The sealed segments, oldest first.
    fn sealed(&self) -> Vec<SealedSegment> {
        self.journal().sealed()
    }

    fn release(&self, segment: u64) {
        self.journal().release(segment);
    }

    /// Asks for a page of a segment's filters; the answer is an event. Returns whether it was asked for.
    fn read_filters(&self, segment: u64, cluster: ClusterNo, after: Option<FilterKey>, limit: usize) -> bool {
        let events: Arc<LogEvents> = self.events();
        let reply = move |filters| events.filters_read(FiltersRead { segment, cluster, filters });
        self.journal().filters_of(segment, cluster, after, limit, reply).is_ok()
    }
}
