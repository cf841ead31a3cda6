//! Certificates of the encrypted listeners: which files, and whether the set is complete.

use std::path::PathBuf;

use super::listeners::Listeners;
use super::{ConfigError, SettingsFile};

/// The certificates of `serve`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "TLS (needed by --mqtts, --wss and --quic)")]
pub struct TlsFlags {
    /// Certificate chain shown to clients, leaf first
    #[arg(long, env = "HOLDFAST_TLS_CERT", value_name = "PEM")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, env = "HOLDFAST_TLS_KEY", value_name = "PEM")]
    pub tls_key: Option<PathBuf>,
    /// Authorities whose client certificates are accepted (off by default)
    #[arg(long, env = "HOLDFAST_TLS_CLIENT_CA", value_name = "PEM")]
    pub tls_client_ca: Option<PathBuf>,
}

/// A complete set of certificate files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, leaf first.
    pub cert: PathBuf,
    /// The private key of the leaf.
    pub key: PathBuf,
    /// The authorities of client certificates; without it clients are not asked for one.
    pub client_ca: Option<PathBuf>,
}

impl TlsFlags {
    /// Flag, else file; refuses half a set, and an encrypted listener without one.
    pub(super) fn resolve(
        self,
        file: &mut SettingsFile,
        listeners: &Listeners,
    ) -> Result<Option<Tls>, ConfigError> {
        let (cert, key) = (file.text("tls-cert", path)?, file.text("tls-key", path)?);
        let client_ca = self.tls_client_ca.or(file.text("tls-client-ca", path)?);
        match (self.tls_cert.or(cert), self.tls_key.or(key)) {
            (Some(cert), Some(key)) => Ok(Some(Tls { cert, key, client_ca })),
            (Some(_), None) => Err(ConfigError::Needs { flag: "tls-cert", needs: "--tls-key" }),
            (None, Some(_)) => Err(ConfigError::Needs { flag: "tls-key", needs: "--tls-cert" }),
            (None, None) => {
                let in_need = client_ca.map(|_| "tls-client-ca").or(listeners.first_encrypted());
                in_need.map_or(Ok(None), |flag| {
                    Err(ConfigError::Needs { flag, needs: "--tls-cert and --tls-key" })
                })
            }
        }
    }
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected the path of a PEM file".to_owned()) } else { Ok(text.into()) }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Flags};
    use super::*;

    fn resolve(file: &str) -> Result<Option<Tls>, String> {
        let file = SettingsFile::parse("f".into(), file).expect("TOML");
        Config::resolve(Flags::default(), file).map(|config| config.tls).map_err(|e| e.to_string())
    }

    #[test]
    fn an_encrypted_listener_needs_both_files() {
        let needs_both = |flag: &str| Err(format!("--{flag} needs --tls-cert and --tls-key"));
        for flag in ["mqtts", "wss", "quic"] {
            assert_eq!(resolve(&format!("{flag} = '127.0.0.1:0'")), needs_both(flag));
        }
        assert_eq!(resolve("tls-client-ca = 'ca.pem'"), needs_both("tls-client-ca"));
        assert_eq!(resolve("ws = '127.0.0.1:0'"), Ok(None));
    }

    #[test]
    fn half_a_set_is_refused_and_a_whole_one_is_kept() {
        assert_eq!(resolve("tls-cert = 'c'"), Err("--tls-cert needs --tls-key".to_owned()));
        assert_eq!(resolve("tls-key = 'k'"), Err("--tls-key needs --tls-cert".to_owned()));
        let whole = Tls { cert: "c".into(), key: "k".into(), client_ca: None };
        assert_eq!(resolve("mqtts = '127.0.0.1:0'\ntls-cert = 'c'\ntls-key = 'k'"), Ok(Some(whole)));
    }
}
