//! Where the private Postgres lies on disk, and making that place.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use sqlx::types::Uuid;

use super::account::Account;
use super::error::{EmbeddedError, file_error};

/// The port that names the socket; there is no TCP.
pub(super) const PORT: u16 = 5432;
/// The longest path of a unix socket that the kernel takes, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// A log that has grown beyond this is set aside at start.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The files of one private Postgres, all under `{data-dir}/postgres`.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// `{data-dir}/postgres` itself.
    pub(super) base: PathBuf,
    /// What Postgres calls its data directory.
    pub(super) data: PathBuf,
    /// What Postgres says.
    pub(super) log: PathBuf,
    /// Names the socket's folder when that lies elsewhere.
    socket_record: PathBuf,
}

impl Layout {
    /// Makes the data directory of the service if it is missing; nothing below it yet.
    pub(super) fn under(data_dir: &Path) -> Result<Self, EmbeddedError> {
        fs::create_dir_all(data_dir).map_err(file_error("create", data_dir))?;
        // Postgres is started in `/` and its socket is found by whole paths.
        let data_dir = data_dir.canonicalize().map_err(file_error("look at", data_dir))?;
        let base = data_dir.join("postgres");
        Ok(Self {
            data: base.join("data"),
            log: base.join("postgres.log"),
            socket_record: base.join("socket-folder"),
            base,
        })
    }

    /// Makes the base and takes it for this process alone: the lock goes when the file is closed,
    /// be it by a kill.
    ///
    /// The base stays ours. Were it the account's, that could put a link where root writes a file.
    pub(super) fn take(&self, account: Option<&Account>) -> Result<File, EmbeddedError> {
        make_folder(&self.base, if account.is_some() { 0o711 } else { 0o700 })?;
        let path = self.base.join("lock");
        let lock = open(OpenOptions::new().write(true), &path)?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(EmbeddedError::InUse { folder: self.base.clone() }),
            Err(TryLockError::Error(source)) => Err(file_error("lock", path)(source)),
        }
    }

    /// The folder for the socket: in the base, or when that path is too long for a socket a folder
    /// of our own under `temp_dir`, remembered for the next start.
    pub(super) fn socket_folder(
        &self,
        account: Option<&Account>,
        temp_dir: &Path,
    ) -> Result<PathBuf, EmbeddedError> {
        let usual = self.base.join("socket");
        if fits(&usual) {
            make_folder_for(account, &usual)?;
            return Ok(usual);
        }
        if let Some(recorded) = self.recorded_socket_folder(account) {
            return Ok(recorded);
        }
        // The name cannot be guessed, so nobody has made it before us.
        let short = temp_dir.join(format!("holdfast-{}", Uuid::new_v4().simple()));
        open(OpenOptions::new().write(true).truncate(true), &self.socket_record)?
            .write_all(short.as_os_str().as_encoded_bytes())
            .map_err(file_error("write", &self.socket_record))?;
        make_folder_for(account, &short)?;
        Ok(short)
    }

    /// An empty folder for `initdb` to work in, to be renamed to [`Layout::data`] when it is done.
    /// What killed processes left half-made is thrown away.
    pub(super) fn unfinished_data(&self, account: Option<&Account>) -> Result<PathBuf, EmbeddedError> {
        const PREFIX: &str = "data.unfinished-";
        let entries = fs::read_dir(&self.base).map_err(file_error("look into", &self.base))?;
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                // An initdb that outlived its parent may still write there; the next start tries again.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let folder = self.base.join(format!("{PREFIX}{}", Uuid::new_v4().simple()));
        make_folder_for(account, &folder)?;
        Ok(folder)
    }

    /// Removes a socket folder that lies outside the base.
    pub(super) fn clear_socket_folder(&self, folder: &Path) {
        if !folder.starts_with(&self.base) {
            // Only a convenience to whoever lists the folder of temporary files.
            let _ = fs::remove_dir_all(folder);
            let _ = fs::remove_file(&self.socket_record);
        }
    }

    /// Opens the log to append to it; sets a large one aside.
    pub(super) fn open_log(&self) -> Result<File, EmbeddedError> {
        if fs::metadata(&self.log).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
            let aside = self.log.with_extension("log.1");
            fs::rename(&self.log, &aside).map_err(file_error("rename", &self.log))?;
        }
        open(OpenOptions::new().append(true), &self.log)
    }

    /// The last line in the log that is not empty.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
    }

    /// The remembered folder, unless it is gone or somebody else made one of that name.
    fn recorded_socket_folder(&self, account: Option<&Account>) -> Option<PathBuf> {
        let folder = PathBuf::from(fs::read_to_string(&self.socket_record).ok()?);
        let meta = fs::symlink_metadata(&folder).ok()?;
        let owner = account.map_or(rustix::process::geteuid().as_raw(), |account| account.uid);
        (meta.is_dir() && meta.uid() == owner).then_some(folder)
    }
}

/// Whether a postmaster has its socket in this folder.
pub(super) fn has_socket(socket_folder: &Path) -> bool {
    socket_in(socket_folder).exists()
}

fn fits(socket_folder: &Path) -> bool {
    socket_in(socket_folder).as_os_str().len() <= SOCKET_PATH_BYTES_MAX
}

fn socket_in(socket_folder: &Path) -> PathBuf {
    socket_folder.join(format!(".s.PGSQL.{PORT}"))
}

/// Opens a file, making it if it is missing, but never what a link points to: root may be writing
/// in a folder that another account owned first.
fn open(how: &mut OpenOptions, path: &Path) -> Result<File, EmbeddedError> {
    let no_links = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    how.create(true).custom_flags(no_links).open(path).map_err(file_error("open", path))
}

/// Makes a folder, if it is missing, that only who runs Postgres may enter.
fn make_folder_for(account: Option<&Account>, folder: &Path) -> Result<(), EmbeddedError> {
    make_folder(folder, 0o700)?;
    match account {
        Some(account) => chown(folder, Some(account.uid), Some(account.gid))
            .map_err(file_error("change the owner of", folder)),
        None => Ok(()),
    }
}

/// Makes a folder, if it is missing, of this mode whatever the umask.
fn make_folder(folder: &Path, mode: u32) -> Result<(), EmbeddedError> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(file_error("create", folder)(error));
        }
        _ => {}
    }
    fs::set_permissions(folder, Permissions::from_mode(mode)).map_err(file_error("set the mode of", folder))
}
