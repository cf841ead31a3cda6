//! The few things the journal asks of a disk, as a trait, so that tests can break each of them.
//!
//! Names are flat: one directory, no paths. Nothing is durable before it is synced: the bytes of a
//! file by [`DiskFile::sync_data`], its name by [`Disk::sync_names`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// One directory of files.
pub trait Disk: Send + Sync {
    /// The names of all files with their lengths.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// A file that exists, to read and write.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// A new and empty file; one that has the name already is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, atomically, in place of a file that has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name. What has the file open keeps it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all names durable that were created, changed and removed.
    fn sync_names(&self) -> io::Result<()>;

    /// How many bytes more can be stored.
    fn free_bytes(&self) -> io::Result<u64>;

    /// The directory for this process alone, until the guard is dropped; `None` while another has it.
    fn lock(&self) -> io::Result<Option<Box<dyn Send + Sync>>>;
}

/// One open file. Positions are given with each call, so that readers need no lock.
pub trait DiskFile: Send + Sync {
    /// Reads up to `into.len()` bytes; 0 at the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes a beginning of `bytes` and says how much of it.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes durable all that was written, and the length.
    fn sync_data(&self) -> io::Result<()>;

    /// Cuts or lengthens the file.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// How long the file is.
    fn size(&self) -> io::Result<u64>;
}

/// Writes all of `bytes`.
pub(super) fn write_all(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills all of `into`.
pub(super) fn read_exact(file: &dyn DiskFile, into: &mut [u8], offset: u64) -> io::Result<()> {
    if read_up_to(file, into, offset)? == into.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Fills as much of `into` as the file has.
pub(super) fn read_up_to(file: &dyn DiskFile, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A directory of the operating system.
#[derive(Debug)]
pub struct OsDisk {
    directory: PathBuf,
}

const LOCK: &str = "lock";

impl OsDisk {
    /// The directory, made when it is missing.
    pub fn new(directory: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        if let Some(parent) = directory.parent().filter(|parent| parent.is_dir()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self { directory })
    }
}

impl Disk for OsDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push((name, metadata.len()));
            }
        }
        Ok(files)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.directory.join(name))?;
        Ok(Arc::new(OsFile(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        Ok(Arc::new(OsFile(options.open(self.directory.join(name))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.directory.join(from), self.directory.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.directory.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let volume = rustix::fs::statvfs(&self.directory)?;
        Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
    }

    fn lock(&self) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = options.open(self.directory.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

struct OsFile(File);

impl DiskFile for OsFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
