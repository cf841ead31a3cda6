//! Files of sealed segments, opened when they are read and closed when others are read: there may be
//! more segments than a process may have files open.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile};

/// At most so many files of sealed segments are open.
const OPEN_MAX: usize = 128;

/// Knows which files are open.
pub(super) struct FilePool {
    disk: Arc<dyn Disk>,
    /// In the order in which they were opened.
    open: Mutex<VecDeque<Weak<PooledFile>>>,
}

/// A file that is opened when it is used.
struct PooledFile {
    me: Weak<Self>,
    pool: Arc<FilePool>,
    name: String,
    handle: Mutex<Option<Arc<dyn DiskFile>>>,
}

impl FilePool {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Arc<Self> {
        Arc::new(Self { disk, open: Mutex::default() })
    }

    /// The file of that name, which must keep it as long as the file is used.
    pub(super) fn file(self: &Arc<Self>, name: String) -> Arc<dyn DiskFile> {
        let pool = Arc::clone(self);
        Arc::new_cyclic(|me| PooledFile { me: Weak::clone(me), pool, name, handle: Mutex::default() })
    }

    fn opened(&self, file: Weak<PooledFile>) {
        let mut open = self.open.lock();
        open.push_back(file);
        let closed = if open.len() > OPEN_MAX { open.pop_front() } else { None };
        drop(open);
        if let Some(file) = closed.and_then(|file| file.upgrade()) {
            *file.handle.lock() = None;
        }
    }
}

impl PooledFile {
    fn get(&self) -> io::Result<Arc<dyn DiskFile>> {
        let mut handle = self.handle.lock();
        if let Some(file) = &*handle {
            return Ok(Arc::clone(file));
        }
        let file = self.pool.disk.open(&self.name)?;
        *handle = Some(Arc::clone(&file));
        drop(handle);
        self.pool.opened(Weak::clone(&self.me));
        Ok(file)
    }
}

impl DiskFile for PooledFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.get()?.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.get()?.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.get()?.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.get()?.set_len(bytes)
    }

    fn size(&self) -> io::Result<u64> {
        self.get()?.size()
    }
}
