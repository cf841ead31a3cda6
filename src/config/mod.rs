//! Configuration: one command line, the environment and one file become one checked [`Config`].
//!
//! Every setting has one name. `http` is the flag `--http`, the environment variable `HOLDFAST_HTTP`
//! and the key `http` of the file; the flag beats the environment, the environment beats the file.
//! Each section of the settings is one file here: its flags, its defaults and its rules.
//!
//! A [`Config`] that exists is valid in itself. Whether a port is free, a file can be read or a
//! database answers is not decided here: nothing but the configuration file is opened.

mod api;
mod arrivals;
mod authenticators;
mod data_dir;
mod database;
mod environment;
mod error;
mod file;
mod hygiene;
mod listeners;
mod message_log;
mod mode;
mod tls;
mod tokens;

pub use api::{Api, ApiFlags, WebhookTargets};
pub use arrivals::{ArrivalFlags, Arrivals, Domain, ListenerClusters, ListenerSet};
pub use authenticators::{AuthenticatorFlags, AuthenticatorTargets};
pub use data_dir::{DataDir, DataDirFlags, DataDirLock, SigningSecret};
pub use database::{Database, DatabaseFlags, DatabaseUrl};
pub use environment::{log_filter, search_path};
pub use error::ConfigError;
pub use file::{FileFlags, SettingsFile};
pub use hygiene::{Hygiene, HygieneFlags};
pub use listeners::{ListenerFlags, Listeners};
pub use message_log::{MessageLog, MessageLogFlags};
pub use mode::ModeFlags;
pub use tls::{ClientCertificates, Need, Tls, TlsFlags};
pub use tokens::{ExternalIssuer, KeySource, TokenAlgorithm, TokenAlgorithms, TokenFlags, Tokens};

/// Everything the service is told at start. Never changes while it runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the service keeps its files.
    pub data_dir: DataDir,
    /// Where it listens.
    pub listeners: Listeners,
    /// How clients arrive there.
    pub arrivals: Arrivals,
    /// What strangers may take.
    pub hygiene: Hygiene,
    /// What the encrypted listeners show their clients; present when one of them is set.
    pub tls: Option<Tls>,
    /// Whom authenticators may ask.
    pub authenticator_targets: AuthenticatorTargets,
    /// How messages are kept.
    pub message_log: MessageLog,
    /// Which Postgres it uses.
    pub database: Database,
    /// Whose tokens the API takes.
    pub tokens: Tokens,
    /// What callers of the API may do.
    pub api: Api,
    /// Whether anonymous clients are let into `default`, without its quotas.
    pub dev: bool,
}

/// The flags of `serve`, each `None` unless the command line or the environment gives it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Where the file is.
    #[command(flatten)]
    pub file: FileFlags,
    /// The data directory.
    #[command(flatten)]
    pub data_dir: DataDirFlags,
    /// The listeners.
    #[command(flatten)]
    pub listeners: ListenerFlags,
    /// The arriving clients.
    #[command(flatten)]
    pub arrivals: ArrivalFlags,
    /// The strangers.
    #[command(flatten)]
    pub hygiene: HygieneFlags,
    /// The certificates.
    #[command(flatten)]
    pub tls: TlsFlags,
    /// The authenticators.
    #[command(flatten)]
    pub authenticators: AuthenticatorFlags,
    /// The database.
    #[command(flatten)]
    pub database: DatabaseFlags,
    /// The tokens.
    #[command(flatten)]
    pub tokens: TokenFlags,
    /// The API.
    #[command(flatten)]
    pub api: ApiFlags,
    /// The message log.
    #[command(flatten)]
    pub message_log: MessageLogFlags,
    /// The mode.
    #[command(flatten)]
    pub mode: ModeFlags,
}

impl Config {
    /// Lays the flags over the file they name, and both over the defaults.
    ///
    /// # Errors
    /// The first setting that is wrong, by name.
    pub fn load(flags: Flags) -> Result<Self, ConfigError> {
        let file = flags.file.read()?;
        Self::resolve(flags, file)
    }

    fn resolve(flags: Flags, mut file: SettingsFile) -> Result<Self, ConfigError> {
        let data_dir = flags.data_dir.resolve(&mut file)?;
        let listeners = flags.listeners.resolve(&mut file)?;
        let arrivals = flags.arrivals.resolve(&mut file, &listeners)?;
        let hygiene = flags.hygiene.resolve(&mut file)?;
        let tls = flags.tls.resolve(&mut file, &listeners)?;
        let authenticator_targets = flags.authenticators.resolve(&mut file)?;
        let database = flags.database.resolve(&mut file)?;
        let tokens = flags.tokens.resolve(&mut file)?;
        let api = flags.api.resolve(&mut file)?;
        let message_log = flags.message_log.resolve(&mut file)?;
        let dev = flags.mode.resolve(&mut file)?;
        file.finish()?;
        Ok(Self {
            data_dir,
            listeners,
            arrivals,
            hygiene,
            tls,
            authenticator_targets,
            message_log,
            database,
            tokens,
            api,
            dev,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command};

    use super::*;

    fn resolve(flags: Flags, file: &str) -> Result<Config, ConfigError> {
        Config::resolve(flags, SettingsFile::parse("holdfast.toml".into(), file)?)
    }

    fn refusal(flags: Flags, file: &str) -> String {
        resolve(flags, file).expect_err("refused").to_string()
    }

    #[test]
    fn every_flag_is_an_environment_variable_and_a_key_of_the_file() {
        let command = Flags::augment_args(Command::new("serve"));
        for arg in command.get_arguments() {
            let flag = arg.get_long().expect("settings have long names");
            let variable = format!("HOLDFAST_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().and_then(|v| v.to_str()), Some(variable.as_str()), "--{flag}");
            if flag != "config" {
                let error = resolve(Flags::default(), &format!("{flag} = [1]")).expect_err("not a list");
                assert!(matches!(error, ConfigError::FileValue { .. }), "{flag}: {error}");
            }
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let config = resolve(Flags::default(), "").expect("valid");
        assert_eq!(config.listeners.http.to_string(), "127.0.0.1:8080");
        assert_eq!(config.listeners.mqtt.to_string(), "127.0.0.1:1883");
        assert!(config.data_dir.path().is_absolute());
        assert!(config.data_dir.path().ends_with("data"));
        assert!(config.database.url.is_none());
        assert!(config.tls.is_none());
        assert!(!config.dev);
    }

    #[test]
    fn a_flag_beats_the_file() {
        let mut flags = Flags::default();
        flags.listeners.http = "127.0.0.1:1".parse().ok();
        flags.mode.dev = Some(false);
        let config = resolve(flags, "http = '127.0.0.1:2'\nmqtt = '127.0.0.1:3'\ndev = true").expect("valid");
        assert_eq!(config.listeners.http.port(), 1);
        assert_eq!(config.listeners.mqtt.port(), 3);
        assert!(!config.dev);
    }

    #[test]
    fn a_bad_value_in_the_file_is_named_with_what_is_allowed() {
        assert_eq!(
            refusal(Flags::default(), "mqtt = 'localhost'"),
            "holdfast.toml: mqtt = \"localhost\": expected IP:PORT, such as 127.0.0.1:1883 or [::]:1883"
        );
        assert_eq!(
            refusal(Flags::default(), "dev = 'yes'"),
            "holdfast.toml: dev = \"yes\": expected true or false"
        );
        assert_eq!(
            refusal(Flags::default(), "http = 8080"),
            "holdfast.toml: http = an integer: expected a string"
        );
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_known_ones() {
        let refusal = refusal(Flags::default(), "htpp = '127.0.0.1:1'");
        assert!(
            refusal.starts_with("holdfast.toml: unknown key htpp; the keys are data-dir, http, "),
            "{refusal}"
        );
    }

    #[test]
    fn a_file_that_is_no_toml_is_refused_with_the_line() {
        let refusal = refusal(Flags::default(), "dev = true\nhttp =\n");
        assert!(refusal.starts_with("holdfast.toml: not TOML: "), "{refusal}");
        assert!(refusal.contains("line 2"), "{refusal}");
    }
}
