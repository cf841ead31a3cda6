//! Which Postgres the service uses: one that is given, or a private one it runs itself.

use std::fmt;
use std::path::PathBuf;

use super::{ConfigError, SettingsFile};

/// The database of `serve`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseFlags {
    /// Postgres 15 or later to use [default: a private one in the data directory]
    #[arg(long, env = "HOLDFAST_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<DatabaseUrlText>,
    /// Directory of the private Postgres' programs [default: looked for where Debian keeps them]
    #[arg(long, env = "HOLDFAST_PG_BIN", value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,
}

/// A URL as given. Not checked by the argument parser, whose refusal would print a password.
#[derive(Clone)]
pub struct DatabaseUrlText(String);

/// Which Postgres the service uses.
#[derive(Clone, Debug)]
pub struct Database {
    /// The one to connect to; `None` for a private one in the data directory.
    pub url: Option<DatabaseUrl>,
    /// Where the private one's programs (`initdb`, `postgres`) are; `None` to look for them.
    pub pg_bin: Option<PathBuf>,
}

/// A `postgres://` URL. Shows itself without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    const EXPECTED: &'static str = "expected a URL such as postgres://user:password@host:5432/database";

    /// Checks the scheme; whether anything answers there is for the connection to find out.
    fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        match rest {
            Some(rest) if !rest.is_empty() => Ok(Self(text.to_owned())),
            _ => Err(Self::EXPECTED.to_owned()),
        }
    }

    /// The URL with its password, for the connection and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.0))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for DatabaseUrlText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.0))
    }
}

impl From<String> for DatabaseUrlText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl DatabaseFlags {
    /// Flag, else file.
    pub(super) fn resolve(self, file: &mut SettingsFile) -> Result<Database, ConfigError> {
        // The text is parsed outside the file's own error, which would quote a password.
        let in_file = file.text("database-url", |text| Ok(text.to_owned()))?;
        let pg_bin = file.text("pg-bin", directory)?;
        let given = self.database_url.map(|DatabaseUrlText(text)| text).or(in_file);
        let url = given.map(|text| {
            DatabaseUrl::parse(&text).map_err(|expected| ConfigError::FlagValue {
                flag: "database-url",
                value: without_password(&text),
                expected,
            })
        });
        Ok(Database { url: url.transpose()?, pg_bin: self.pg_bin.or(pg_bin) })
    }
}

fn directory(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected the path of a directory".to_owned()) } else { Ok(text.into()) }
}

/// The text with whatever may be a password replaced: the part of a URL's authority after its
/// first colon, and the value of a `password` parameter.
fn without_password(text: &str) -> String {
    let (head, parameters) = text.split_once('?').unwrap_or((text, ""));
    let start = head.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = head.split_at(start);
    // The last `@`: a password may hold one that its writer forgot to encode.
    let head = match rest.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{scheme}{name}:***@{host}"),
            None => head.to_owned(),
        },
        None => head.to_owned(),
    };
    if parameters.is_empty() {
        return head;
    }
    let hide = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if name.eq_ignore_ascii_case("password") => format!("{name}=***"),
        _ => pair.to_owned(),
    };
    let parameters: Vec<_> = parameters.split('&').map(hide).collect();
    format!("{head}?{}", parameters.join("&"))
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Flags};
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (given, shown) in [
            ("postgres://u:secret@h/d", "postgres://u:***@h/d"),
            ("postgres://u:se@cret@h:1/d", "postgres://u:***@h:1/d"),
            (
                "postgres://u@h/d?password=secret&sslmode=require",
                "postgres://u@h/d?password=***&sslmode=require",
            ),
            ("u:secret@h", "u:***@h"),
            ("postgres://h/d", "postgres://h/d"),
        ] {
            assert_eq!(without_password(given), shown);
        }
        let url = DatabaseUrl::parse("postgres://u:secret@h/d").expect("valid");
        assert_eq!(format!("{url} {url:?}"), "postgres://u:***@h/d postgres://u:***@h/d");
        assert_eq!(url.expose(), "postgres://u:secret@h/d");
    }

    #[test]
    fn another_scheme_is_refused_without_its_password() {
        let mut flags = Flags::default();
        flags.database.database_url = Some(DatabaseUrlText("mysql://u:secret@h/d".into()));
        assert!(!format!("{flags:?}").contains("secret"));
        let error = Config::resolve(flags, SettingsFile::default()).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "--database-url mysql://u:***@h/d: expected a URL such as postgres://user:password@host:5432/database"
        );
    }
}
