//! Why a configuration is refused.

use std::path::PathBuf;

use thiserror::Error;

/// A setting that is wrong. Each message names the setting, its value and what is allowed; the
/// program then ends with exit code 2.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file named by `--config` cannot be read.
    #[error("--config {}: cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}: not TOML: {what}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        what: String,
    },
    /// The file has a key that no setting has.
    #[error("{}: unknown key {key}; the keys are {known}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Every key there is.
        known: String,
    },
    /// A value of the file is not allowed.
    #[error("{}: {key} = {value}: {expected}", path.display())]
    FileValue {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// The value as text.
        value: String,
        /// What is allowed: `expected …`.
        expected: String,
    },
    /// A value given by flag or environment is not allowed.
    #[error("--{flag} {value}: {expected}")]
    FlagValue {
        /// The flag.
        flag: &'static str,
        /// The value as text, without secrets.
        value: String,
        /// What is allowed: `expected …`.
        expected: String,
    },
    /// A setting needs another one.
    #[error("--{flag} needs {needs}")]
    Needs {
        /// The setting that is there.
        flag: &'static str,
        /// What is missing.
        needs: &'static str,
    },
    /// Two settings that say the same differently.
    #[error("--{flag} excludes {other}")]
    Excludes {
        /// One of them.
        flag: &'static str,
        /// The other.
        other: &'static str,
    },
    /// Something is said of a listener that is not there.
    #[error("--{flag} names {listener}, a listener that is off")]
    ListenerOff {
        /// The setting.
        flag: &'static str,
        /// The listener by the name of its flag.
        listener: &'static str,
    },
}
