//! Letting go of segments that nobody needs any longer (PRODUCT S-14).
//!
//! A sealed segment is needed while a session or group has still to read one of its messages, but at
//! most for [`KEPT_MAX`], and of each cluster at most what its quota gives it (PRODUCT Q-10). Once a second the segments are
//! gone through, oldest first. What was found to need a segment is asked first the next time; only when
//! it no longer does is the segment's table of filters read again. So a backlog that sleeps costs a look
//! at each segment a second, however many sessions wait for it.
//!
//! Before a segment goes that is still needed, its table of filters is gone through once more, to count who loses
//! what; what is exact of that, `cluster/loss.rs` says. A table that cannot be read keeps nothing from going.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::journal::{LogEvents, LogWriter};
use crate::data_plane::cluster::{Cluster, Leaving};
use crate::data_plane::message_log::ClusterNo;
use crate::data_plane::message_log::journal::{ClusterSpan, FilterSpan, SealedSegment};
use crate::model::{FilterKey, Monotonic, Now, Seq, Timestamp};

/// How long a message is kept at most.
const KEPT_MAX: Duration = Duration::from_hours(72);

/// How often the segments are gone through.
const ROUND: Duration = Duration::from_secs(1);

/// How many readers of filters are looked at in one go, when it is counted who loses what; the last filter's
/// are looked at to the end.
const LOOKS_AT_ONCE: usize = 20_000;

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
    /// What of a segment's cluster goes although it may be needed, as far as it was counted who loses it.
    lost: HashMap<(u64, ClusterNo), Cleared, foldhash::fast::RandomState>,
    /// Whether a table of filters is being read.
    reading: bool,
}

/// How far a cluster's filters in a segment were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Cleared {
    /// None yet.
    #[default]
    Nothing,
    /// Up to this one.
    Through(FilterKey),
    /// All.
    Whole,
}

impl Cleared {
    /// Behind which filter to read on.
    fn end(self) -> Option<FilterKey> {
        match self {
            Self::Nothing => None,
            Self::Through(filter) => Some(filter),
            Self::Whole => Some(FilterKey(u64::MAX)),
        }
    }
}

/// A page of a segment's table of filters, and what it was read for.
#[derive(Debug)]
pub struct FiltersRead {
    page: Page,
    filters: std::io::Result<Vec<FilterSpan>>,
}

/// Which page.
#[derive(Clone, Copy, Debug)]
struct Page {
    segment: u64,
    cluster: ClusterNo,
    /// It begins behind this filter.
    after: Option<FilterKey>,
    wanted_for: WantedFor,
}

/// What a page of filters is read for.
#[derive(Clone, Copy, Debug)]
enum WantedFor {
    /// To learn whether somebody needs the segment.
    Need,
    /// To count who loses what; the cluster's last message in the segment lies here.
    Loss(Seq),
}

/// Where a segment stands.
enum Verdict {
    Needed,
    NotNeeded,
    /// This page has to be read first.
    Unknown(Page),
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
        let FiltersRead { page, filters } = read;
        match (filters, page.wanted_for) {
            (Ok(filters), WantedFor::Need) => self.look_for_need(page, &filters, clusters),
            (Ok(filters), WantedFor::Loss(last)) => self.count_loss(page, &filters, last, clusters),
            // The next round tries again.
            (Err(error), WantedFor::Need) => {
                tracing::error!(%error, page.segment, "a table of the message log cannot be read");
                return;
            }
            (Err(error), WantedFor::Loss(_)) => {
                let segment = page.segment;
                tracing::error!(%error, segment, "what is lost with a segment of the message log cannot be counted");
                self.lost.insert((segment, page.cluster), Cleared::Whole);
            }
        }
        self.go_through(now.wall, log, clusters);
    }

    fn look_for_need(&mut self, page: Page, filters: &[FilterSpan], clusters: &mut Clusters) {
        let Page { segment, cluster, .. } = page;
        let needs = |span: &&FilterSpan| {
            clusters.get_mut(&cluster).is_some_and(|cluster| cluster.needs(span.filter, span.last))
        };
        if let Some(span) = filters.iter().find(needs) {
            self.needed_by.insert((segment, cluster), *span);
        } else {
            self.cleared.insert((segment, cluster), read_through(filters, filters.len()));
        }
    }

    /// Counts who loses what of a page, as far as one turn may look.
    fn count_loss(&mut self, page: Page, filters: &[FilterSpan], last: Seq, clusters: &mut Clusters) {
        let Page { segment, cluster: no, .. } = page;
        let Some(cluster) = clusters.get_mut(&no) else { return };
        let (mut counted, mut looks) = (0, 0);
        while counted < filters.len() && looks < LOOKS_AT_ONCE {
            let FilterSpan { filter, last: last_of_filter, messages } = filters[counted];
            let messages = u64::from(messages);
            looks +=
                cluster.count_loss(Leaving { filter, last: last_of_filter, messages, segment_last: last });
            counted += 1;
        }
        let through = read_through(filters, counted);
        if through == Cleared::Whole {
            cluster.let_go_through(last);
        }
        self.lost.insert((segment, no), through);
    }

    fn go_through(&mut self, now: Timestamp, log: &LogWriter, clusters: &mut Clusters) {
        let sealed = log.sealed();
        let known = |(segment, _): &(u64, ClusterNo)| sealed.iter().any(|s| s.number == *segment);
        self.needed_by.retain(|at, _| known(at));
        self.cleared.retain(|at, _| known(at));
        self.lost.retain(|at, _| known(at));
        let bytes_max = |no: ClusterNo| clusters.get(&no)?.log_bytes_max();
        let too_old = oldest_kept(&sealed, bytes_max);
        for segment in &sealed {
            match self.judge(now, segment, &too_old, clusters) {
                Verdict::Needed => {}
                Verdict::NotNeeded => log.release(segment.number),
                Verdict::Unknown(page) => {
                    self.reading = log.read_filters(page);
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
        let number = segment.number;
        let mut losing = None;
        for ClusterSpan { cluster: no, newest_at, last, .. } in &segment.clusters {
            let Some(cluster) = clusters.get_mut(no) else { continue };
            let at = (number, *no);
            let page = |after, wanted_for| Page { segment: number, cluster: *no, after, wanted_for };
            let expired = now.since(*newest_at) >= KEPT_MAX;
            let over = oldest_kept.get(no).is_some_and(|oldest| number < *oldest);
            if expired || over {
                self.needed_by.remove(&at);
                // What nobody needs nobody loses.
                let read = self.lost.get(&at).or_else(|| self.cleared.get(&at)).copied().unwrap_or_default();
                if losing.is_none() && read != Cleared::Whole {
                    losing = Some(page(read.end(), WantedFor::Loss(*last)));
                }
                continue;
            }
            if let Some(span) = self.needed_by.get(&at) {
                if cluster.needs(span.filter, span.last) {
                    return Verdict::Needed;
                }
                self.needed_by.remove(&at);
            }
            let cleared = self.cleared.get(&at).copied().unwrap_or_default();
            if cleared != Cleared::Whole {
                return Verdict::Unknown(page(cleared.end(), WantedFor::Need));
            }
        }
        // Counted last: until here another cluster may still need the segment.
        losing.map_or(Verdict::NotNeeded, Verdict::Unknown)
    }
}

/// How far a cluster's filters are read when the first `done` of a page are done with.
fn read_through(page: &[FilterSpan], done: usize) -> Cleared {
    if done == page.len() && done < FILTERS_AT_ONCE {
        return Cleared::Whole;
    }
    page[..done].last().map_or(Cleared::Whole, |span| Cleared::Through(span.filter))
}

/// For each cluster that has more than it may: the first segment that still fits, counted from the
/// newest.
fn oldest_kept(
    sealed: &[SealedSegment],
    bytes_max: impl Fn(ClusterNo) -> Option<u64>,
) -> HashMap<ClusterNo, u64> {
    let mut bytes: HashMap<ClusterNo, u64> = HashMap::new();
    let mut oldest = HashMap::new();
    for segment in sealed.iter().rev() {
        for span in &segment.clusters {
            let kept = bytes.entry(span.cluster).or_default();
            *kept += span.bytes;
            if bytes_max(span.cluster).is_some_and(|most| *kept > most) {
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
    fn read_filters(&self, page: Page) -> bool {
        let events: Arc<LogEvents> = self.events();
        let reply = move |filters| events.filters_read(FiltersRead { page, filters });
        let Page { segment, cluster, after, .. } = page;
        self.journal().filters_of(segment, cluster, after, FILTERS_AT_ONCE, reply).is_ok()
    }
}
