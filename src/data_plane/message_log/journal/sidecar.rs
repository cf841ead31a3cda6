//! The sidecar of a sealed segment: what is found where in it, on disk.
//!
//! Written when the segment is sealed; the same again can be made from the segment at any time. Looked up
//! by positioned reads. In memory stay, for each segment: a Bloom filter of at most 128 KiB,
//! at most [`FENCES_MAX`] fences of 16 bytes, and 96 bytes for each cluster that has messages in it. For
//! segments of 64 MiB that is below 0.3 % of the log.
//!
//! # Wire
//!
//! Sections in a file of [`super::paged`] pages whose id is the segment's incarnation, each from a page's
//! start. All numbers little-endian:
//!
//! ```text
//! places    seq u64 · offset u32 · length u32            by cluster, then ascending
//! postings  ordinal u32                                  in the places of the cluster, ascending for each filter
//! filters   key u64 · last seq u64 · first posting u32 · count u32    by cluster, then key
//! fences    cluster u32 · key u64                        of each filter whose number is a multiple of the stride
//! clusters  80 bytes each, see `ClusterTable`
//! bloom     bytes
//! footer    magic 8 bytes · version u32 · segment u64 · then for each section: position u64 · count u64
//! ```

use std::io;
use std::sync::Arc;

use super::super::{ClusterNo, FilterKey};
use super::bloom::Bloom;
use super::bytes::{Cursor, Malformed};
use super::disk::{Disk, DiskFile};
use super::index::{ClusterSpan, Index, Place};
use super::paged::{PAGE_CONTENT, PagedReader, PagedWriter, damaged};
use super::segment::Name;
use crate::model::{Seq, Timestamp};

const MAGIC: &[u8; 8] = b"HFsidecr";
const VERSION: u32 = 1;

const PLACE_BYTES: usize = 16;
const POSTING_BYTES: usize = 4;
const FILTER_BYTES: usize = 24;
const FENCE_BYTES: usize = 12;
const CLUSTER_BYTES: usize = 80;

/// At most so many fences are kept in memory.
const FENCES_MAX: usize = 4_096;
/// At least so many filters lie between two fences: about a page.
const STRIDE_MIN: usize = 128;

/// Where a section begins and how many records it has.
#[derive(Clone, Copy, Debug, Default)]
struct Section {
    position: u64,
    count: u64,
}

/// A cluster's part of each table.
#[derive(Clone, Copy, Debug)]
struct ClusterTable {
    span: ClusterSpan,
    first_place: u64,
    filters: (u64, u64),
}

/// A sidecar that is open.
pub(super) struct Sidecar {
    pages: PagedReader,
    places: Section,
    postings: Section,
    filters: Section,
    stride: u64,
    clusters: Vec<ClusterTable>,
    fences: Vec<(ClusterNo, FilterKey)>,
    bloom: Bloom,
}

/// A filter of a cluster in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterSpan {
    /// Which filter.
    pub filter: FilterKey,
    /// The position of its last message in the segment.
    pub last: Seq,
    /// How many messages it has in the segment.
    pub messages: u32,
}

/// Writes the sidecar of a segment.
pub(super) fn write(disk: &dyn Disk, number: u64, incarnation: u64, index: &Index) -> io::Result<()> {
    let mut out = PagedWriter::create(disk, Name::Sidecar(number), incarnation)?;
    let filter_count: usize = index.clusters().map(|of| of.postings.len()).sum();
    let stride = STRIDE_MIN.max(filter_count.div_ceil(FENCES_MAX));
    let mut bloom = Bloom::new(filter_count);
    let mut tables = Vec::new();
    let mut filters = Vec::with_capacity(filter_count * FILTER_BYTES);
    let mut fences = Vec::new();
    let mut sections = [Section::default(); 6];
    for of in index.clusters() {
        for place in &of.places {
            out.write(&place.seq.0.to_le_bytes())?;
            out.write(&place.offset.to_le_bytes())?;
            out.write(&place.len.to_le_bytes())?;
        }
        sections[0].count += of.places.len() as u64;
    }
    begin(&mut out, &mut sections[1])?;
    let mut first_place = 0_u64;
    for of in index.clusters() {
        let filters_start = sections[2].count;
        for (key, posted) in of.sorted() {
            if sections[2].count.is_multiple_of(stride as u64) {
                fences.extend_from_slice(&of.span.cluster.0.to_le_bytes());
                fences.extend_from_slice(&key.0.to_le_bytes());
                sections[3].count += 1;
            }
            bloom.insert(of.span.cluster, key);
            filters.extend_from_slice(&key.0.to_le_bytes());
            filters.extend_from_slice(&of.last_of(posted).0.to_le_bytes());
            filters.extend_from_slice(&narrow(sections[1].count)?.to_le_bytes());
            filters.extend_from_slice(&narrow(posted.len() as u64)?.to_le_bytes());
            for ordinal in posted {
                out.write(&ordinal.to_le_bytes())?;
            }
            sections[1].count += posted.len() as u64;
            sections[2].count += 1;
        }
        let filters = (filters_start, sections[2].count - filters_start);
        tables.push(ClusterTable { span: of.span, first_place, filters });
        first_place += of.places.len() as u64;
    }
    begin(&mut out, &mut sections[2])?;
    out.write(&filters)?;
    begin(&mut out, &mut sections[3])?;
    out.write(&fences)?;
    begin(&mut out, &mut sections[4])?;
    sections[4].count = tables.len() as u64;
    for table in &tables {
        out.write(&table.encode())?;
    }
    begin(&mut out, &mut sections[5])?;
    sections[5].count = bloom.as_bytes().len() as u64;
    out.write(bloom.as_bytes())?;
    out.finish(&footer(number, stride, &sections))
}

fn begin(out: &mut PagedWriter<'_>, section: &mut Section) -> io::Result<()> {
    out.align()?;
    section.position = out.position();
    Ok(())
}

fn narrow(number: u64) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

fn footer(number: u64, stride: usize, sections: &[Section]) -> Vec<u8> {
    let mut footer = MAGIC.to_vec();
    footer.extend_from_slice(&VERSION.to_le_bytes());
    footer.extend_from_slice(&number.to_le_bytes());
    footer.extend_from_slice(&(stride as u64).to_le_bytes());
    for section in sections {
        footer.extend_from_slice(&section.position.to_le_bytes());
        footer.extend_from_slice(&section.count.to_le_bytes());
    }
    footer
}

impl ClusterTable {
    fn encode(&self) -> [u8; CLUSTER_BYTES] {
        let span = &self.span;
        let numbers = [
            u64::from(span.cluster.0),
            span.first.0,
            span.last.0,
            span.messages,
            span.bytes,
            span.oldest_at.as_millis().unsigned_abs(),
            span.newest_at.as_millis().unsigned_abs(),
            self.first_place,
            self.filters.0,
            self.filters.1,
        ];
        let mut bytes = [0; CLUSTER_BYTES];
        for (into, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            into.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(bytes);
        let span = ClusterSpan {
            cluster: ClusterNo(u32::try_from(cursor.u64()?).map_err(|_| Malformed)?),
            first: Seq(cursor.u64()?),
            last: Seq(cursor.u64()?),
            messages: cursor.u64()?,
            bytes: cursor.u64()?,
            oldest_at: Timestamp::from_millis(cursor.i64()?),
            newest_at: Timestamp::from_millis(cursor.i64()?),
        };
        Ok(Self { span, first_place: cursor.u64()?, filters: (cursor.u64()?, cursor.u64()?) })
    }
}

impl Sidecar {
    /// Opens the sidecar of a segment and checks what is kept in memory.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it is damaged, of another version or another life of the segment.
    pub(super) fn open(file: Arc<dyn DiskFile>, number: u64) -> io::Result<Self> {
        let (pages, footer) = PagedReader::open(file)?;
        let mut cursor = Cursor(&footer);
        if cursor.array()? != *MAGIC || cursor.u32()? != VERSION || cursor.u64()? != number {
            return Err(damaged());
        }
        let stride = cursor.u64()?.max(1);
        let mut sections = [Section::default(); 6];
        for section in &mut sections {
            *section = Section { position: cursor.u64()?, count: cursor.u64()? };
        }
        let [places, postings, filters, fences, clusters, bloom] = sections;
        let whole = |section: Section, bytes: usize| {
            let len = usize::try_from(section.count).ok().and_then(|count| count.checked_mul(bytes));
            pages.read(section.position, len.ok_or_else(damaged)?)
        };
        let mut opened = Self {
            places,
            postings,
            filters,
            stride,
            clusters: Vec::new(),
            fences: Vec::new(),
            bloom: Bloom::from_bytes(whole(bloom, 1)?).ok_or_else(damaged)?,
            pages: pages.clone(),
        };
        for bytes in whole(clusters, CLUSTER_BYTES)?.chunks_exact(CLUSTER_BYTES) {
            opened.clusters.push(ClusterTable::decode(bytes)?);
        }
        for bytes in whole(fences, FENCE_BYTES)?.chunks_exact(FENCE_BYTES) {
            let mut cursor = Cursor(bytes);
            opened.fences.push((ClusterNo(cursor.u32()?), FilterKey(cursor.u64()?)));
        }
        Ok(opened)
    }

    /// Of the segment it belongs to.
    pub(super) fn incarnation(&self) -> u64 {
        self.pages.id()
    }

    pub(super) fn spans(&self) -> Vec<ClusterSpan> {
        self.clusters.iter().map(|table| table.span).collect()
    }

    pub(super) fn span(&self, cluster: ClusterNo) -> Option<&ClusterSpan> {
        Some(&self.table(cluster)?.span)
    }

    fn table(&self, cluster: ClusterNo) -> Option<&ClusterTable> {
        let at = self.clusters.binary_search_by_key(&cluster, |table| table.span.cluster).ok()?;
        self.clusters.get(at)
    }

    /// The first messages of `filter` after `after`, at most `limit`.
    pub(super) fn find(
        &self,
        cluster: ClusterNo,
        filter: FilterKey,
        after: Seq,
        limit: usize,
        out: &mut Vec<Place>,
    ) -> io::Result<()> {
        let Some(table) = self.table(cluster).filter(|table| table.span.last > after) else { return Ok(()) };
        if !self.bloom.may_hold(cluster, filter) {
            return Ok(());
        }
        let Some((first, count)) = self.postings_of(table, filter, after)? else { return Ok(()) };
        let mut places = Records::new(self, self.places, PLACE_BYTES);
        let mut postings = Records::new(self, self.postings, POSTING_BYTES);
        let mut place = |posting: u64| {
            let ordinal = Cursor(postings.get(posting)?).u32()?;
            let mut cursor = Cursor(places.get(table.first_place + u64::from(ordinal))?);
            io::Result::Ok(Place { seq: Seq(cursor.u64()?), offset: cursor.u32()?, len: cursor.u32()? })
        };
        let (mut low, mut high) = (first, first + count);
        while low < high {
            let middle = low + (high - low) / 2;
            if place(middle)?.seq <= after { low = middle + 1 } else { high = middle }
        }
        let end = (first + count).min(low.saturating_add(limit as u64));
        for posting in low..end {
            out.push(place(posting)?);
        }
        Ok(())
    }

    /// The first posting of a filter and how many it has; `None` when nothing lies after `after`.
    fn postings_of(
        &self,
        table: &ClusterTable,
        filter: FilterKey,
        after: Seq,
    ) -> io::Result<Option<(u64, u64)>> {
        let at = self.lower_bound(table, filter)?;
        if at == table.filters.0 + table.filters.1 {
            return Ok(None);
        }
        let mut filters = Records::new(self, self.filters, FILTER_BYTES);
        let mut cursor = Cursor(filters.get(at)?);
        let (key, last) = (FilterKey(cursor.u64()?), Seq(cursor.u64()?));
        let postings = (u64::from(cursor.u32()?), u64::from(cursor.u32()?));
        Ok((key == filter && last > after).then_some(postings))
    }

    /// The number of a cluster's first filter that is not below `key`.
    fn lower_bound(&self, table: &ClusterTable, key: FilterKey) -> io::Result<u64> {
        let cluster = table.span.cluster;
        let fence = self.fences.partition_point(|fence| *fence <= (cluster, key)) as u64;
        let (start, end) = (table.filters.0, table.filters.0 + table.filters.1);
        let mut low = (fence.saturating_sub(1) * self.stride).clamp(start, end);
        let mut high = (fence * self.stride).clamp(start, end);
        let mut filters = Records::new(self, self.filters, FILTER_BYTES);
        while low < high {
            let middle = low + (high - low) / 2;
            if FilterKey(Cursor(filters.get(middle)?).u64()?) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Filters of a cluster in order of their keys, behind `after`, at most `limit`.
    pub(super) fn filters(
        &self,
        cluster: ClusterNo,
        after: Option<FilterKey>,
        limit: usize,
    ) -> io::Result<Vec<FilterSpan>> {
        let Some(table) = self.table(cluster) else { return Ok(Vec::new()) };
        let start = match after {
            None => table.filters.0,
            Some(FilterKey(u64::MAX)) => return Ok(Vec::new()),
            Some(FilterKey(key)) => self.lower_bound(table, FilterKey(key + 1))?,
        };
        let end = (table.filters.0 + table.filters.1).min(start.saturating_add(limit as u64));
        let mut filters = Records::new(self, self.filters, FILTER_BYTES);
        let mut found = Vec::new();
        for at in start..end {
            let mut cursor = Cursor(filters.get(at)?);
            let (filter, last) = (FilterKey(cursor.u64()?), Seq(cursor.u64()?));
            cursor.u32()?;
            found.push(FilterSpan { filter, last, messages: cursor.u32()? });
        }
        Ok(found)
    }
}

/// Records of equal length. The page read last stays at hand: neighbours cost one read.
struct Records<'a> {
    sidecar: &'a Sidecar,
    section: Section,
    bytes: usize,
    page: Option<(u64, Vec<u8>)>,
}

impl<'a> Records<'a> {
    fn new(sidecar: &'a Sidecar, section: Section, bytes: usize) -> Self {
        Self { sidecar, section, bytes, page: None }
    }

    fn get(&mut self, no: u64) -> io::Result<&[u8]> {
        if no >= self.section.count {
            return Err(damaged());
        }
        let position = self.section.position + no * self.bytes as u64;
        let in_page = position % PAGE_CONTENT as u64;
        let start = position - in_page;
        if self.page.as_ref().is_none_or(|(at, _)| *at != start) {
            self.page = Some((start, self.sidecar.pages.read(start, PAGE_CONTENT)?));
        }
        let page = self.page.as_ref().map_or(&[][..], |(_, page)| page);
        let at = usize::try_from(in_page).map_err(|_| damaged())?;
        page.get(at..at + self.bytes).ok_or_else(damaged)
    }
}
