//! The data directory: what lies where, who may read it, and that only one process uses it.
//!
//! ```text
//! {data-dir}/
//! ├── lock           held while a service runs
//! ├── admin.token    an administrator's token, made at the first start   0600
//! ├── jwt.secret     what tokens are signed with, made at the first start 0600
//! └── postgres/      the private Postgres, without --database-url
//! ```

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::{ConfigError, SettingsFile};

/// The data directory of `serve`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DataDirFlags {
    /// Where the service keeps its files [default: ./data]
    #[arg(long, env = "HOLDFAST_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl DataDirFlags {
    /// Flag, else file, else `./data`; made absolute, so that no later change of directory moves it.
    pub(super) fn resolve(self, file: &mut SettingsFile) -> Result<DataDir, ConfigError> {
        let expected = || "expected the path of a directory".to_owned();
        let in_file = file.text("data-dir", |text| Ok(PathBuf::from(text)))?;
        let path = self.data_dir.or(in_file).unwrap_or_else(|| PathBuf::from("./data"));
        std::path::absolute(&path).map(DataDir).map_err(|_| ConfigError::FlagValue {
            flag: "data-dir",
            value: format!("{:?}", path.display().to_string()),
            expected: expected(),
        })
    }
}

/// The data directory, as an absolute path. It need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir(PathBuf);

/// Held by the process that uses the directory; released when it is dropped or the process ends,
/// however it ends.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

/// How often the lock is tried, and the time between: half a second in all.
const CLAIM_ATTEMPTS: u32 = 25;
const CLAIM_PAUSE: Duration = Duration::from_millis(20);

/// What tokens are signed with: random bytes, kept as hexadecimal digits. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret([u8; Self::BYTES]);

impl DataDir {
    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The administrator's token of the first start.
    pub fn admin_token_path(&self) -> PathBuf {
        self.0.join("admin.token")
    }

    /// The private Postgres.
    pub fn postgres_path(&self) -> PathBuf {
        self.0.join("postgres")
    }

    /// The message log.
    pub fn message_log_path(&self) -> PathBuf {
        self.0.join("log")
    }

    fn secret_path(&self) -> PathBuf {
        self.0.join("jwt.secret")
    }

    /// Creates the directory where it is missing and locks it.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another process uses it; what the system says otherwise.
    pub fn claim(&self) -> io::Result<DataDirLock> {
        fs::create_dir_all(&self.0)?;
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(self.0.join("lock"))?;
        // A process that was killed while it was starting a child may leave the lock to that child until it
        // runs its own program: then it is free in a moment, and with it all other locks in here.
        for _ in 0..CLAIM_ATTEMPTS {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(CLAIM_PAUSE),
                other => return Ok(other.map(|()| DataDirLock { _file: file })?),
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// The signing secret, if the directory has one.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when the file holds something else.
    pub fn signing_secret(&self) -> io::Result<Option<SigningSecret>> {
        let mut text = String::new();
        match File::open(self.secret_path()) {
            Ok(mut file) => file.read_to_string(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        SigningSecret::from_hex(text.trim_end()).map(Some).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "jwt.secret is not 64 hexadecimal digits")
        })
    }

    /// The signing secret, made if the directory has none.
    ///
    /// # Errors
    /// As [`DataDir::signing_secret`], and what the system says to a write.
    pub fn signing_secret_or_new(&self) -> io::Result<SigningSecret> {
        if let Some(secret) = self.signing_secret()? {
            return Ok(secret);
        }
        let secret = SigningSecret::generate()?;
        write_private(&self.secret_path(), &secret.to_hex())?;
        Ok(secret)
    }

    /// The name of the node that serves from here: 16 hexadecimal digits, made if the directory has none.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when the file holds something else; what the system says otherwise.
    pub fn node_id_or_new(&self) -> io::Result<String> {
        let path = self.0.join("node.id");
        match fs::read_to_string(&path) {
            Ok(text) if is_node_id(text.trim_end()) => return Ok(text.trim_end().to_owned()),
            Ok(_) => {
                let detail = "node.id is not 16 hexadecimal digits";
                return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let id = format!("{:016x}", u64::from_be_bytes(bytes));
        write_private(&path, &id)?;
        Ok(id)
    }

    /// Keeps the administrator's token.
    ///
    /// # Errors
    /// What the system says to the write.
    pub fn write_admin_token(&self, token: &str) -> io::Result<()> {
        write_private(&self.admin_token_path(), token)
    }
}

impl SigningSecret {
    /// As long as the hash it is used with.
    pub const BYTES: usize = 32;

    fn generate() -> io::Result<Self> {
        let mut bytes = [0; Self::BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(bytes))
    }

    /// The bytes, for the key they make and nothing else.
    pub const fn expose(&self) -> [u8; Self::BYTES] {
        self.0
    }

    fn to_hex(&self) -> String {
        let mut digits = String::with_capacity(2 * Self::BYTES);
        for half in self.0.iter().flat_map(|byte| [byte >> 4, byte & 0xf]) {
            digits.extend(char::from_digit(half.into(), 16));
        }
        digits
    }

    fn from_hex(digits: &str) -> Option<Self> {
        let mut bytes = [0; Self::BYTES];
        let digits = digits.as_bytes();
        if digits.len() != 2 * Self::BYTES {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in pair {
                *byte = *byte << 4 | u8::try_from(char::from(*digit).to_digit(16)?).ok()?;
            }
        }
        Some(Self(bytes))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(***)")
    }
}

fn is_node_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Writes a line that only the owner may read: aside, synced, then renamed, so that a crash leaves
/// the old file or the new one and never half of it.
fn write_private(path: &Path, line: &str) -> io::Result<()> {
    let aside = path.with_extension("new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Made anew with its mode: an old file would keep the mode it had.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    writeln!(file, "{line}")?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn fresh() -> (tempfile::TempDir, DataDir) {
        let temp = tempfile::tempdir().expect("a directory");
        let data_dir = DataDir(temp.path().join("data"));
        (temp, data_dir)
    }

    #[test]
    fn one_process_at_a_time() {
        let (_temp, data_dir) = fresh();
        let lock = data_dir.claim().expect("free");
        assert_eq!(data_dir.claim().expect_err("taken").kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        assert!(data_dir.claim().is_ok());
    }

    #[test]
    fn the_node_is_named_once() {
        let (_temp, data_dir) = fresh();
        let _lock = data_dir.claim().expect("free");
        let first = data_dir.node_id_or_new().expect("made");
        assert!(is_node_id(&first), "{first}");
        assert_eq!(data_dir.node_id_or_new().expect("read"), first);
        fs::write(data_dir.path().join("node.id"), "mine\n").expect("written");
        let error = data_dir.node_id_or_new().expect_err("not a name");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn the_secret_is_made_once_and_only_its_owner_reads_it() {
        let (_temp, data_dir) = fresh();
        let _lock = data_dir.claim().expect("free");
        assert!(data_dir.signing_secret().expect("readable").is_none());
        let first = data_dir.signing_secret_or_new().expect("made");
        let second = data_dir.signing_secret_or_new().expect("read");
        assert_eq!(first.expose(), second.expose());
        assert_ne!(first.expose(), [0; SigningSecret::BYTES]);
        assert_eq!(format!("{first:?}"), "SigningSecret(***)");
        let mode = fs::metadata(data_dir.secret_path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_secret_is_reported_and_not_replaced() {
        let (_temp, data_dir) = fresh();
        let _lock = data_dir.claim().expect("free");
        fs::write(data_dir.secret_path(), "short").expect("written");
        let error = data_dir.signing_secret_or_new().expect_err("damaged");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(fs::read_to_string(data_dir.secret_path()).expect("there"), "short");
    }

    #[test]
    fn a_token_replaces_the_one_before() {
        let (_temp, data_dir) = fresh();
        let _lock = data_dir.claim().expect("free");
        data_dir.write_admin_token("one").expect("written");
        data_dir.write_admin_token("two").expect("written");
        assert_eq!(fs::read_to_string(data_dir.admin_token_path()).expect("there"), "two\n");
    }
}
