//! Finding the programs of Postgres.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::EmbeddedError;

/// The oldest release that the schema works with.
pub(super) const MAJOR_MIN: u32 = 15;

/// Where Debian and its kin keep one folder for each release.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A folder that holds `initdb` and `postgres` of one release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// The folder.
    pub folder: PathBuf,
    /// The release: 15, 16 …
    pub major: u32,
}

impl Binaries {
    /// Looks where the caller says, or else where `pg_config` says, in Debian's folders (newest
    /// first) and on the search path; takes the first that is new enough.
    ///
    /// Data that exists decides the release: with `data` given and made by a release, only that one
    /// will do.
    pub fn find(
        folder: Option<&Path>,
        search_path: Option<&OsStr>,
        data: Option<&Path>,
    ) -> Result<Self, EmbeddedError> {
        let candidates = match folder {
            Some(folder) => vec![folder.to_owned()],
            None => candidates(search_path),
        };
        let made_by = data.and_then(release_of_data);
        let wanted = |major: u32| made_by.map_or(major >= MAJOR_MIN, |made_by| major == made_by);
        let found = candidates.iter().find_map(|folder| Self::in_folder(folder).filter(|b| wanted(b.major)));
        found.ok_or_else(|| {
            let searched = candidates.iter().map(|folder| folder.display().to_string());
            let searched = searched.collect::<Vec<_>>().join(", ");
            match (data, made_by) {
                (Some(data), Some(made_by)) => {
                    EmbeddedError::VersionMismatch { data: data.to_owned(), made_by, searched }
                }
                _ => EmbeddedError::NoBinaries { searched },
            }
        })
    }

    /// The path of one program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        let postgres = folder.join("postgres");
        if !postgres.is_file() || !folder.join("initdb").is_file() {
            return None;
        }
        let said = Command::new(postgres).arg("--version").output().ok()?.stdout;
        let major = release_in(std::str::from_utf8(&said).ok()?)?;
        Some(Self { folder: folder.to_owned(), major })
    }
}

fn candidates(search_path: Option<&OsStr>) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Ok(said) = Command::new("pg_config").arg("--bindir").output()
        && let Ok(folder) = String::from_utf8(said.stdout)
        && !folder.trim().is_empty()
    {
        folders.push(PathBuf::from(folder.trim()));
    }
    let mut releases: Vec<u32> = std::fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    releases.sort_unstable_by_key(|release| std::cmp::Reverse(*release));
    folders.extend(releases.iter().map(|release| Path::new(DEBIAN).join(release.to_string()).join("bin")));
    folders.extend(search_path.into_iter().flat_map(std::env::split_paths).filter(|p| p.is_absolute()));
    let mut seen = std::collections::HashSet::new();
    folders.retain(|folder| seen.insert(folder.clone()));
    folders
}

/// The release that made the data in `folder`, if there is any.
fn release_of_data(folder: &Path) -> Option<u32> {
    std::fs::read_to_string(folder.join("PG_VERSION")).ok()?.trim().parse().ok()
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian …)`; a pre-release says `17beta1`.
fn release_in(said: &str) -> Option<u32> {
    let version = said.split_once("(PostgreSQL) ")?.1;
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_release() {
        assert_eq!(release_in("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(release_in("postgres (PostgreSQL) 17beta1\n"), Some(17));
        assert_eq!(release_in("postgres (PostgreSQL) 18\n"), Some(18));
        assert_eq!(release_in("something else 15\n"), None);
    }

    #[test]
    fn says_where_it_looked() {
        let missing = Path::new("/nonexistent/bin");
        let error = Binaries::find(Some(missing), None, None).expect_err("nothing there");
        assert!(error.to_string().contains("(looked in /nonexistent/bin): install"), "{error}");
    }
}
