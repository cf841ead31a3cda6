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
    /// Whether a client must show one of those: required or optional [default: required]
    #[arg(long, env = "HOLDFAST_TLS_CLIENT_CERT", value_name = "NEED", value_parser = need)]
    pub tls_client_cert: Option<Need>,
}

/// A complete set of certificate files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, leaf first.
    pub cert: PathBuf,
    /// The private key of the leaf.
    pub key: PathBuf,
    /// Which certificates clients show; without it they are not asked for one.
    pub clients: Option<ClientCertificates>,
}

/// What is asked of clients. A certificate that is shown must be good, whatever the need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The authorities that may have signed it.
    pub ca: PathBuf,
    /// Whether a client without one is turned away.
    pub need: Need,
}

/// Whether a certificate must be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Need {
    /// Without one the handshake fails.
    #[default]
    Required,
    /// Without one the client is let in as far as the transport is concerned.
    Optional,
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
        let client_need = self.tls_client_cert.or(file.text("tls-client-cert", need)?);
        if client_ca.is_none() && client_need.is_some() {
            return Err(ConfigError::Needs { flag: "tls-client-cert", needs: "--tls-client-ca" });
        }
        let clients = client_ca.map(|ca| ClientCertificates { ca, need: client_need.unwrap_or_default() });
        match (self.tls_cert.or(cert), self.tls_key.or(key)) {
            (Some(cert), Some(key)) => Ok(Some(Tls { cert, key, clients })),
            (Some(_), None) => Err(ConfigError::Needs { flag: "tls-cert", needs: "--tls-key" }),
            (None, Some(_)) => Err(ConfigError::Needs { flag: "tls-key", needs: "--tls-cert" }),
            (None, None) => {
                let in_need = clients.map(|_| "tls-client-ca").or(listeners.first_encrypted());
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

fn need(text: &str) -> Result<Need, String> {
    match text {
        "required" => Ok(Need::Required),
        "optional" => Ok(Need::Optional),
        _ => Err("expected required or optional".to_owned()),
    }
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
        let whole = Tls { cert: "c".into(), key: "k".into(), clients: None };
        assert_eq!(resolve("mqtts = '127.0.0.1:0'\ntls-cert = 'c'\ntls-key = 'k'"), Ok(Some(whole)));
    }

    #[test]
    fn a_client_certificate_is_required_unless_it_is_optional() {
        let clients = |file: &str| {
            let file = format!("tls-cert = 'c'\ntls-key = 'k'\n{file}");
            resolve(&file).map(|tls| tls.and_then(|tls| tls.clients).map(|clients| clients.need))
        };
        assert_eq!(clients(""), Ok(None));
        assert_eq!(clients("tls-client-ca = 'a'"), Ok(Some(Need::Required)));
        assert_eq!(clients("tls-client-ca = 'a'\ntls-client-cert = 'optional'"), Ok(Some(Need::Optional)));
        let refusal = Err("--tls-client-cert needs --tls-client-ca".to_owned());
        assert_eq!(clients("tls-client-cert = 'optional'"), refusal);
        assert!(clients("tls-client-cert = 'maybe'").is_err());
    }
}
