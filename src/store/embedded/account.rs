//! Whom Postgres runs as: it refuses root.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::{EmbeddedError, file_error};

/// An account other than root that this process, being root, runs Postgres under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name, or its number when it has none.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
}

impl Account {
    /// `None` when this process is not root and Postgres runs as itself. As root: whoever owns the
    /// data already, else `postgres`, else `nobody`.
    ///
    /// # Errors
    /// [`EmbeddedError::OtherOwner`] when this process is not root and the data is somebody else's.
    pub fn choose(data: &Path) -> Result<Option<Self>, EmbeddedError> {
        let runs_as = rustix::process::geteuid().as_raw();
        let owner = std::fs::metadata(data).ok().map(|meta| (meta.uid(), meta.gid()));
        if runs_as != 0 {
            return match owner {
                Some((owner, _)) if owner != runs_as => {
                    Err(EmbeddedError::OtherOwner { data: data.to_owned(), owner, runs_as })
                }
                _ => Ok(None),
            };
        }
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let chosen = match owner {
            Some((uid, gid)) if uid != 0 => Some(Self::of_owner(&accounts, uid, gid)),
            _ => Self::named(&accounts, "postgres").or_else(|| Self::named(&accounts, "nobody")),
        };
        chosen.map(Some).ok_or(EmbeddedError::NoAccount)
    }

    /// Whether the account may pass through every folder above and including `path`, as far as
    /// those exist; access control lists are not looked at.
    ///
    /// # Errors
    /// [`EmbeddedError::NotTraversable`] names the outermost that it may not enter.
    pub fn check_reaches(&self, path: &Path) -> Result<(), EmbeddedError> {
        let mut folders: Vec<&Path> = path.ancestors().collect();
        folders.reverse();
        for folder in folders {
            let meta = std::fs::metadata(folder).map_err(file_error("look at", folder))?;
            let execute = if meta.uid() == self.uid {
                0o100
            } else if meta.gid() == self.gid {
                0o010
            } else {
                0o001
            };
            if meta.mode() & execute == 0 {
                return Err(EmbeddedError::NotTraversable {
                    account: self.name.clone(),
                    folder: folder.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn named(passwd: &str, name: &str) -> Option<Self> {
        Self::entries(passwd).find(|account| account.name == name)
    }

    fn of_owner(passwd: &str, uid: u32, gid: u32) -> Self {
        let name = Self::entries(passwd).find(|account| account.uid == uid).map(|account| account.name);
        Self { name: name.unwrap_or_else(|| uid.to_string()), uid, gid }
    }

    /// `name:password:uid:gid:comment:home:shell`; root, by whatever name, is left out.
    fn entries(passwd: &str) -> impl Iterator<Item = Self> {
        passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let uid = fields.nth(1)?.parse().ok().filter(|uid| *uid != 0)?;
            let gid = fields.next()?.parse().ok()?;
            Some(Self { name, uid, gid })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        toor:x:0:0::/root:/bin/sh\n\
        broken line\n\
        nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
        postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n";

    #[test]
    fn finds_accounts_by_name_and_by_number_but_never_root() {
        let postgres = Account::named(PASSWD, "postgres").expect("an account");
        assert_eq!((postgres.uid, postgres.gid), (101, 104));
        assert_eq!(Account::of_owner(PASSWD, 101, 7).name, "postgres");
        assert_eq!(Account::of_owner(PASSWD, 4_242, 7).name, "4242");
        assert_eq!(Account::named(PASSWD, "root"), None);
        assert_eq!(Account::named(PASSWD, "toor"), None);
    }
}
