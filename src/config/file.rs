//! The configuration file: TOML, one key for each flag, nothing else.

use std::path::PathBuf;

use toml::{Table, Value};

use super::ConfigError;

/// Which file to read.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FileFlags {
    /// TOML file with a key for each of these flags
    #[arg(long, env = "HOLDFAST_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl FileFlags {
    /// Reads the file, if one is named.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], [`ConfigError::NotToml`].
    pub fn read(&self) -> Result<SettingsFile, ConfigError> {
        let Some(path) = self.config.clone() else { return Ok(SettingsFile::default()) };
        match std::fs::read_to_string(&path) {
            Ok(text) => SettingsFile::parse(path, &text),
            Err(source) => Err(ConfigError::Unreadable { path, source }),
        }
    }
}

/// The file's values. Each section takes its own; what is left at the end is unknown.
#[derive(Clone, Debug, Default)]
pub struct SettingsFile {
    path: PathBuf,
    rest: Table,
    /// The keys that were asked for, in order: all that exist.
    asked: Vec<&'static str>,
}

impl SettingsFile {
    /// Reads the text of a file.
    pub(super) fn parse(path: PathBuf, text: &str) -> Result<Self, ConfigError> {
        match text.parse::<Table>() {
            Ok(rest) => Ok(Self { path, rest, asked: Vec::new() }),
            Err(error) => Err(ConfigError::NotToml { path, what: describe(text, &error) }),
        }
    }

    /// Takes the text at `key` and parses it; `Err` of `parse` says what is allowed.
    pub(super) fn text<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => {
                parse(&text).map(Some).map_err(|expected| self.refuse(key, format!("{text:?}"), expected))
            }
            Some(other) => Err(self.refuse(key, kind(&other), "expected a string".to_owned())),
        }
    }

    /// Takes the truth value at `key`.
    pub(super) fn boolean(&mut self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        let expected = "expected true or false".to_owned();
        match self.take(key) {
            None => Ok(None),
            Some(Value::Boolean(value)) => Ok(Some(value)),
            Some(Value::String(text)) => Err(self.refuse(key, format!("{text:?}"), expected)),
            Some(other) => Err(self.refuse(key, kind(&other), expected)),
        }
    }

    /// Every section took what is its own: nothing may be left.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        match self.rest.into_iter().next() {
            None => Ok(()),
            Some((key, _)) => {
                Err(ConfigError::UnknownKey { path: self.path, key, known: self.asked.join(", ") })
            }
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.rest.remove(key)
    }

    fn refuse(&self, key: &'static str, value: String, expected: String) -> ConfigError {
        ConfigError::FileValue { path: self.path.clone(), key, value, expected }
    }
}

fn kind(value: &Value) -> String {
    let article = if matches!(value, Value::Integer(_) | Value::Array(_)) { "an" } else { "a" };
    format!("{article} {}", value.type_str())
}

fn describe(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    format!("line {line}: {}", error.message())
}
