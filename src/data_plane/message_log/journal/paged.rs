//! Files that are written once, front to back, and read anywhere: sidecars and checkpoints.
//!
//! # Wire
//!
//! Pages of 4 KiB: `content 4,080 bytes · file id u64 · page number u32 · CRC-32C u32`. The sum covers all
//! before it, so that each read is checked by itself and a page that strayed is found. Positions
//! below are in the content, as if the trailers were not there.

use std::io;
use std::sync::Arc;

use super::checksum::crc32c;
use super::disk::{Disk, DiskFile, read_exact, write_all};
use super::segment::Name;

/// The content of one page. A multiple of all record lengths in use, so that no record is torn.
pub(super) const PAGE_CONTENT: usize = 4_080;
const PAGE: usize = 4_096;
/// Gathered before it is written: few and large writes.
const WRITE_BYTES: usize = 1024 * 1024;
/// Synced as often, so that the commits beside it never wait for a great flush.
const SYNC_BYTES: usize = 8 * 1024 * 1024;

/// Writes a file aside; [`PagedWriter::finish`] gives it its name.
pub(super) struct PagedWriter<'a> {
    disk: &'a dyn Disk,
    file: Arc<dyn DiskFile>,
    name: Name,
    id: u64,
    /// Pages that are complete and not written.
    buffer: Vec<u8>,
    /// Content of the page at the end of `buffer`.
    filled: usize,
    written: u64,
    unsynced: usize,
}

impl<'a> PagedWriter<'a> {
    pub(super) fn create(disk: &'a dyn Disk, name: Name, id: u64) -> io::Result<Self> {
        let file = disk.create(&name.unfinished())?;
        let buffer = Vec::with_capacity(WRITE_BYTES + PAGE);
        Ok(Self { disk, file, name, id, buffer, filled: 0, written: 0, unsynced: 0 })
    }

    /// Where the next byte will lie.
    pub(super) fn position(&self) -> u64 {
        let pages = (self.written + self.buffer.len() as u64) / PAGE as u64;
        pages * PAGE_CONTENT as u64 + self.filled as u64
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(PAGE_CONTENT - self.filled));
            self.buffer.extend_from_slice(now);
            self.filled += now.len();
            bytes = rest;
            if self.filled == PAGE_CONTENT {
                self.end_page()?;
            }
        }
        Ok(())
    }

    /// Begins a new page, unless one has just begun.
    pub(super) fn align(&mut self) -> io::Result<()> {
        if self.filled > 0 {
            self.buffer.resize(self.buffer.len() + PAGE_CONTENT - self.filled, 0);
            self.end_page()?;
        }
        Ok(())
    }

    fn end_page(&mut self) -> io::Result<()> {
        let start = self.buffer.len() - PAGE_CONTENT;
        let page = (self.written + start as u64) / PAGE as u64;
        let page = u32::try_from(page).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.buffer.extend_from_slice(&self.id.to_le_bytes());
        self.buffer.extend_from_slice(&page.to_le_bytes());
        let sum = crc32c(&[&self.buffer[start..]]);
        self.buffer.extend_from_slice(&sum.to_le_bytes());
        self.filled = 0;
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        write_all(&*self.file, &self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.unsynced += self.buffer.len();
        self.buffer.clear();
        if self.unsynced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Writes `footer` as the last page, makes all durable, and then gives the file its name.
    pub(super) fn finish(mut self, footer: &[u8]) -> io::Result<()> {
        self.align()?;
        self.write(footer)?;
        self.align()?;
        self.flush()?;
        self.file.sync_data()?;
        self.disk.rename(&self.name.unfinished(), &self.name.to_string())?;
        self.disk.sync_names()
    }
}

/// Reads a file that [`PagedWriter`] wrote.
#[derive(Clone)]
pub(super) struct PagedReader {
    file: Arc<dyn DiskFile>,
    id: u64,
    pages: u32,
}

impl PagedReader {
    /// Opens a file and reads its footer, padded with zeros.
    pub(super) fn open(file: Arc<dyn DiskFile>) -> io::Result<(Self, Vec<u8>)> {
        let size = file.size()?;
        let pages = u32::try_from(size / PAGE as u64).map_err(|_| damaged())?;
        let Some(last) = pages.checked_sub(1).filter(|_| size.is_multiple_of(PAGE as u64)) else {
            return Err(damaged());
        };
        let mut page = vec![0; PAGE];
        read_exact(&*file, &mut page, u64::from(last) * PAGE as u64)?;
        let mut id = [0; 8];
        id.copy_from_slice(&page[PAGE_CONTENT..PAGE_CONTENT + 8]);
        let reader = Self { file, id: u64::from_le_bytes(id), pages };
        reader.check(last, &page)?;
        page.truncate(PAGE_CONTENT);
        Ok((reader, page))
    }

    /// The id that all pages carry.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Content from `position` on, checked.
    pub(super) fn read(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        if len == 0 {
            return Ok(Vec::new());
        }
        let first = position / PAGE_CONTENT as u64;
        let last = (position + len as u64 - 1) / PAGE_CONTENT as u64;
        if last >= u64::from(self.pages) {
            return Err(damaged());
        }
        let count = usize::try_from(last - first + 1).map_err(|_| damaged())?;
        let mut pages = vec![0; count * PAGE];
        read_exact(&*self.file, &mut pages, first * PAGE as u64)?;
        let mut content = Vec::with_capacity(count * PAGE_CONTENT);
        for (page, no) in pages.chunks_exact(PAGE).zip(first..) {
            self.check(u32::try_from(no).map_err(|_| damaged())?, page)?;
            content.extend_from_slice(&page[..PAGE_CONTENT]);
        }
        let skip = usize::try_from(position % PAGE_CONTENT as u64).map_err(|_| damaged())?;
        content.drain(..skip);
        content.truncate(len);
        Ok(content)
    }

    fn check(&self, no: u32, page: &[u8]) -> io::Result<()> {
        let (content, trailer) = page.split_at(PAGE_CONTENT);
        let numbered = trailer[..8] == self.id.to_le_bytes() && trailer[8..12] == no.to_le_bytes();
        let sum = crc32c(&[content, &trailer[..12]]);
        if numbered && trailer[12..] == sum.to_le_bytes() { Ok(()) } else { Err(damaged()) }
    }
}

/// A page that does not hold what was written.
pub(super) fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a page of a journal file is damaged")
}
