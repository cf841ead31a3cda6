//! What is found where in one segment, in memory: for the active one, and until the sidecar of a
//! sealed one is written.
//!
//! Bounded by the segment: 16 bytes for a message, 4 for a posting, and about 60 for a filter, whose
//! first posting costs 8 bytes or more in the segment.

use std::collections::{BTreeMap, HashMap};

use smallvec::SmallVec;

use super::super::{ClusterNo, FilterKey};
use super::entry_codec::MessageView;
use super::frame::Frame;
use super::sidecar::FilterSpan;
use crate::model::{Seq, Timestamp};

/// Where a message lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) seq: Seq,
    /// Of the frame's first byte in the segment.
    pub(super) offset: u32,
    /// Of the whole frame.
    pub(super) len: u32,
}

/// What a segment holds of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterSpan {
    /// Whose messages.
    pub cluster: ClusterNo,
    /// The position of the first message.
    pub first: Seq,
    /// The position of the last message.
    pub last: Seq,
    /// How many messages there are.
    pub messages: u64,
    /// How many bytes they take in the segment.
    pub bytes: u64,
    /// When the earliest of them was published.
    pub oldest_at: Timestamp,
    /// When the latest of them was published.
    pub newest_at: Timestamp,
}

/// All messages of one segment, by cluster and filter.
#[derive(Debug, Default)]
pub(super) struct Index {
    clusters: BTreeMap<ClusterNo, ClusterIndex>,
}

#[derive(Debug)]
pub(super) struct ClusterIndex {
    pub(super) span: ClusterSpan,
    /// Ascending.
    pub(super) places: Vec<Place>,
    /// For each filter its messages: ascending positions in `places`.
    pub(super) postings: HashMap<FilterKey, SmallVec<[u32; 4]>, foldhash::fast::RandomState>,
}

impl Index {
    pub(super) fn add(
        &mut self,
        cluster: ClusterNo,
        place: Place,
        published_at: Timestamp,
        filters: &[FilterKey],
    ) {
        let of = self.clusters.entry(cluster).or_insert_with(|| ClusterIndex {
            span: ClusterSpan {
                cluster,
                first: place.seq,
                last: place.seq,
                messages: 0,
                bytes: 0,
                oldest_at: published_at,
                newest_at: published_at,
            },
            places: Vec::new(),
            postings: HashMap::default(),
        });
        of.span.last = place.seq;
        of.span.messages += 1;
        of.span.bytes += u64::from(place.len);
        of.span.oldest_at = of.span.oldest_at.min(published_at);
        of.span.newest_at = of.span.newest_at.max(published_at);
        // A segment has fewer than 2^32 bytes.
        let ordinal = u32::try_from(of.places.len()).unwrap_or(u32::MAX);
        of.places.push(place);
        for filter in filters {
            of.postings.entry(*filter).or_default().push(ordinal);
        }
    }

    /// Adds what a frame holds, as read back.
    pub(super) fn add_frame(&mut self, cluster: ClusterNo, message: &MessageView<'_>, frame: &Frame) {
        let len = frame.body.end - frame.start();
        let place = Place { seq: message.seq, offset: frame.start(), len };
        self.add(cluster, place, message.published_at, &message.filters());
    }

    /// The first messages of `filter` after `after`, at most `limit`.
    pub(super) fn find(
        &self,
        cluster: ClusterNo,
        filter: FilterKey,
        after: Seq,
        limit: usize,
        out: &mut Vec<Place>,
    ) {
        let Some(of) = self.clusters.get(&cluster) else { return };
        let Some(posted) = of.postings.get(&filter) else { return };
        let place = |ordinal: &u32| of.places.get(*ordinal as usize).copied();
        let start = posted.partition_point(|ordinal| place(ordinal).is_some_and(|it| it.seq <= after));
        out.extend(posted[start..].iter().take(limit).filter_map(place));
    }

    /// Filters of a cluster in order of their keys, behind `after`, at most `limit`.
    pub(super) fn filters(
        &self,
        cluster: ClusterNo,
        after: Option<FilterKey>,
        limit: usize,
    ) -> Vec<FilterSpan> {
        let Some(of) = self.clusters.get(&cluster) else { return Vec::new() };
        let span = |(filter, posted): (FilterKey, &[u32])| FilterSpan {
            filter,
            last: of.last_of(posted),
            messages: u32::try_from(posted.len()).unwrap_or(u32::MAX),
        };
        let behind = |(filter, _): &(FilterKey, &[u32])| after.is_none_or(|after| *filter > after);
        of.sorted().into_iter().filter(behind).take(limit).map(span).collect()
    }

    pub(super) fn clusters(&self) -> impl Iterator<Item = &ClusterIndex> {
        self.clusters.values()
    }

    pub(super) fn span(&self, cluster: ClusterNo) -> Option<&ClusterSpan> {
        Some(&self.clusters.get(&cluster)?.span)
    }

    pub(super) fn spans(&self) -> Vec<ClusterSpan> {
        self.clusters.values().map(|of| of.span).collect()
    }
}

impl ClusterIndex {
    /// The filters in order of their keys, each with its postings.
    pub(super) fn sorted(&self) -> Vec<(FilterKey, &[u32])> {
        let mut filters: Vec<_> = self.postings.iter().map(|(key, posted)| (*key, &posted[..])).collect();
        filters.sort_unstable_by_key(|(key, _)| *key);
        filters
    }

    /// The position of the last message of some postings.
    pub(super) fn last_of(&self, posted: &[u32]) -> Seq {
        let last = posted.last().and_then(|ordinal| self.places.get(*ordinal as usize));
        last.map_or(self.span.last, |place| place.seq)
    }
}
