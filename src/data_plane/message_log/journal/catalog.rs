//! Which segments there are, and what is found where in them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::super::{ClusterNo, FilterKey};
use super::disk::DiskFile;
use super::index::{ClusterSpan, Index, Place};
use super::sidecar::{FilterSpan, Sidecar};
use crate::model::{Seq, Timestamp};

/// All segments that can be read.
#[derive(Default)]
pub(super) struct Catalog {
    pub(super) sealed: BTreeMap<u64, Arc<Sealed>>,
    pub(super) active: Option<Active>,
    /// The last durable position of each cluster, whether or not its message is still there.
    pub(super) last_seqs: BTreeMap<ClusterNo, Seq>,
}

/// The segment that is being written. Only durable frames are in its index.
pub(super) struct Active {
    pub(super) number: u64,
    pub(super) incarnation: u64,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) index: Index,
}

/// A segment that is complete.
pub(super) struct Sealed {
    pub(super) number: u64,
    pub(super) incarnation: u64,
    /// The length of its file.
    pub(super) bytes: u64,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) lookup: Lookup,
}

/// How its messages are found.
pub(super) enum Lookup {
    /// Until the sidecar is written.
    Memory(Arc<Index>),
    /// On disk.
    Sidecar(Sidecar),
}

/// What [`super::Journal::sealed`] tells of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its number; later segments have higher ones.
    pub number: u64,
    /// The length of its file.
    pub bytes: u64,
    /// When the latest message in it was published; `None` when there is none.
    pub newest_at: Option<Timestamp>,
    /// What it holds of each cluster.
    pub clusters: Vec<ClusterSpan>,
}

impl Sealed {
    pub(super) fn span(&self, cluster: ClusterNo) -> Option<&ClusterSpan> {
        match &self.lookup {
            Lookup::Memory(index) => index.span(cluster),
            Lookup::Sidecar(sidecar) => sidecar.span(cluster),
        }
    }

    pub(super) fn spans(&self) -> Vec<ClusterSpan> {
        match &self.lookup {
            Lookup::Memory(index) => index.spans(),
            Lookup::Sidecar(sidecar) => sidecar.spans(),
        }
    }

    /// For each filter its first messages behind the position beside it, at most `limit`.
    pub(super) fn find(
        &self,
        cluster: ClusterNo,
        after: &[(FilterKey, Seq)],
        limit: usize,
        out: &mut Vec<Place>,
    ) -> io::Result<()> {
        for (filter, after) in after {
            match &self.lookup {
                Lookup::Memory(index) => index.find(cluster, *filter, *after, limit, out),
                Lookup::Sidecar(sidecar) => sidecar.find(cluster, *filter, *after, limit, out)?,
            }
        }
        Ok(())
    }

    /// Filters of a cluster in order of their keys, behind `after`, at most `limit`.
    pub(super) fn filters(
        &self,
        cluster: ClusterNo,
        after: Option<FilterKey>,
        limit: usize,
    ) -> io::Result<Vec<FilterSpan>> {
        match &self.lookup {
            Lookup::Memory(index) => Ok(index.filters(cluster, after, limit)),
            Lookup::Sidecar(sidecar) => sidecar.filters(cluster, after, limit),
        }
    }

    pub(super) fn summary(&self) -> SealedSegment {
        let clusters = self.spans();
        SealedSegment {
            number: self.number,
            bytes: self.bytes,
            newest_at: clusters.iter().map(|span| span.newest_at).max(),
            clusters,
        }
    }
}
