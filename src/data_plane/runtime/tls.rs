//! TLS 1.2 and 1.3 over any stream, on rustls with the process's provider (aws-lc-rs).
//!
//! Reads certificates once and again when told to ([`Tls::reload`]): handshakes begun afterwards use the
//! new ones, connections that exist go on. What comes out of a handshake beside the stream is the server
//! name that the client asked for and the certificates that it showed.
//!
//! The protocol on top is negotiated where the client offers one (ALPN, RFC 7301): `mqtt`, below a
//! WebSocket `http/1.1`. A client that offers others only is refused, one that offers none is served.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{Acceptor, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::der::Decode;

use super::any_certificate::AnyCertificate;
use super::arrival::{Entrance, OpenError, Opened};
use super::carrier::Carrier;
use crate::config::{self, ClientCertificates, Hygiene, Need};
use crate::seam::desired::DesiredReceiver;

/// What is spoken within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// MQTT itself.
    Mqtt,
    /// HTTP, to become a WebSocket.
    Http,
}

/// The server's side of TLS for all encrypted listeners.
#[derive(Debug)]
pub struct Tls {
    files: config::Tls,
    loaded: watch::Sender<Loaded>,
    /// Each from a client's first message to its last; those above wait their turn.
    handshakes: Semaphore,
    /// Whom clusters want to know by certificates.
    desired: Arc<OnceLock<DesiredReceiver>>,
}

/// What was made of the files; the same but for what is spoken within.
#[derive(Clone, Debug)]
struct Loaded {
    mqtt: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
}

/// Why certificates cannot be used. Names the flag and the file.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("--{flag} {}: cannot be read", path.display())]
    Unreadable {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("--{flag} {}: holds no {wanted} in PEM", path.display())]
    NotPem {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// What is wrong.
        source: pem::Error,
    },
    /// A certificate or key is no good.
    #[error("--{flag} {}: cannot be used", path.display())]
    Unusable {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The authorities of client certificates are no good.
    #[error("--tls-client-ca {}: cannot be used", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: VerifierBuilderError,
    },
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: config::Tls) -> Result<Self, TlsError> {
        let desired = Arc::default();
        let (loaded, _) = watch::channel(Loaded::read(&files, &desired)?);
        let handshakes = Semaphore::new(Hygiene::TLS_HANDSHAKES_MAX);
        Ok(Self { files, loaded, handshakes, desired })
    }

    /// The same with so many handshakes at once.
    #[must_use]
    pub fn with_handshakes_max(self, at_once: usize) -> Self {
        Self { handshakes: Semaphore::new(at_once.min(Semaphore::MAX_PERMITS)), ..self }
    }

    /// Reads the files again, for the handshakes to come.
    ///
    /// # Errors
    /// [`TlsError`]; what was read before is then still used.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.loaded.send_replace(Loaded::read(&self.files, &self.desired)?);
        Ok(())
    }

    /// What handshakes go by at the moment.
    pub fn config(&self, within: Within) -> Arc<ServerConfig> {
        let loaded = self.loaded.borrow();
        Arc::clone(match within {
            Within::Mqtt => &loaded.mqtt,
            Within::Http => &loaded.http,
        })
    }

    /// Tells of every [`Tls::reload`] from now on.
    pub fn reloads(&self) -> Reloads {
        Reloads(self.loaded.subscribe())
    }

    /// From now on clients are asked for a certificate while a cluster of `desired` wants to know them by one.
    /// Where `--tls-client-ca` is set, that alone decides what is asked.
    pub fn ask_as(&self, desired: DesiredReceiver) {
        // Told once, at the start.
        let _ = self.desired.set(desired);
    }

    /// The subject of the certificate that was shown, where the handshake took none that is not signed.
    pub fn trusted_subject(&self, shown: &[CertificateDer<'_>]) -> Option<String> {
        self.files.clients.as_ref().and_then(|_| subject(shown))
    }

    /// Shakes hands. The caller bounds the time.
    ///
    /// The client's first message is waited for outside the bounded number of handshakes: a client that
    /// connects and says nothing holds up nobody.
    ///
    /// # Errors
    /// [`OpenError::Tls`]; the client was told why, if it is still there.
    pub async fn accept<S: Carrier>(
        &self,
        within: Within,
        entrance: &Entrance,
        opened: Opened<S>,
    ) -> Result<Opened<TlsStream<S>>, OpenError> {
        let Opened { stream, mut origin, mut asked, .. } = opened;
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(OpenError::Tls)?;
        // The semaphore is never closed; an error would only mean that nobody is let in at all.
        let turn =
            self.handshakes.acquire().await.map_err(|error| OpenError::Tls(io::Error::other(error)))?;
        let stream = hello.into_stream(self.config(within)).await.map_err(OpenError::Tls)?;
        drop(turn);
        let (_, session) = stream.get_ref();
        if let Some(name) = session.server_name() {
            entrance.note_host(&mut asked, name);
        }
        let shown = session.peer_certificates().unwrap_or_default();
        let certificates = shown.iter().map(|certificate| certificate.clone().into_owned()).collect();
        origin.tls_subject = self.trusted_subject(shown);
        Ok(Opened { stream, origin, asked, certificates })
    }
}

/// Tells when the certificates were read again.
#[derive(Debug)]
pub struct Reloads(watch::Receiver<Loaded>);

impl Reloads {
    /// Waits for the next time. Never ends once there is no more [`Tls`].
    ///
    /// # Cancel safety
    /// Safe: nothing is missed.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The subject of the certificate that a client showed, as RFC 4514 writes it: `CN=meter-1,O=Example`.
pub fn subject(chain: &[CertificateDer<'_>]) -> Option<String> {
    let certificate = x509_cert::Certificate::from_der(chain.first()?).ok()?;
    Some(certificate.tbs_certificate().subject().to_string())
}

impl Loaded {
    fn read(files: &config::Tls, desired: &Arc<OnceLock<DesiredReceiver>>) -> Result<Self, TlsError> {
        let chain = certificates("tls-cert", &files.cert)?;
        let key = private_key(&files.key)?;
        let verifier = match &files.clients {
            Some(clients) => verifier(clients)?,
            None => Arc::new(AnyCertificate::asked_as(Arc::clone(desired))),
        };
        let builder = ServerConfig::builder().with_client_cert_verifier(verifier);
        let unusable = |source| TlsError::Unusable { flag: "tls-key", path: files.key.clone(), source };
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        // A fleet that comes back at once resumes at a fraction of the cost. The tickets' key lives and
        // goes with these certificates.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(unusable)?;
        let within = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        Ok(Self { mqtt: within(b"mqtt"), http: within(b"http/1.1") })
    }
}

fn verifier(clients: &ClientCertificates) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let path = || clients.ca.clone();
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tls-client-ca", &clients.ca)? {
        roots.add(certificate).map_err(|source| TlsError::Unusable {
            flag: "tls-client-ca",
            path: path(),
            source,
        })?;
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
    let verifier = match clients.need {
        Need::Required => verifier,
        Need::Optional => verifier.allow_unauthenticated(),
    };
    verifier.build().map_err(|source| TlsError::Authorities { path: path(), source })
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(flag, path)?;
    let not_pem = |source| TlsError::NotPem { flag, path: path.to_owned(), wanted: "certificate", source };
    let all: Vec<_> = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(not_pem)?;
    if all.is_empty() { Err(not_pem(pem::Error::NoItemsFound)) } else { Ok(all) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read("tls-key", path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|source| TlsError::NotPem {
        flag: "tls-key",
        path: path.to_owned(),
        wanted: "private key",
        source,
    })
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable { flag, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    /// A directory with a certificate, its key and the key of another one.
    fn files() -> (tempfile::TempDir, config::Tls) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["a.test".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        let other = KeyPair::generate().expect("a key");
        std::fs::write(path("cert.pem"), certificate.pem()).expect("a file");
        std::fs::write(path("key.pem"), key.serialize_pem()).expect("a file");
        std::fs::write(path("other.pem"), other.serialize_pem()).expect("a file");
        let files = config::Tls { cert: path("cert.pem"), key: path("key.pem"), clients: None };
        (directory, files)
    }

    #[test]
    fn what_cannot_be_used_is_named_by_its_flag() {
        let (directory, good) = files();
        let path = |name: &str| directory.path().join(name);
        assert!(Tls::load(good.clone()).is_ok());
        let refusal = |files: config::Tls| {
            let refusal = Tls::load(files).expect_err("refused").to_string();
            refusal.replace(&format!("{}/", directory.path().display()), "")
        };
        let clients = |name: &str| Some(ClientCertificates { ca: path(name), need: Need::Required });
        for (files, said) in [
            (config::Tls { cert: path("none"), ..good.clone() }, "--tls-cert none: cannot be read"),
            (config::Tls { key: path("none"), ..good.clone() }, "--tls-key none: cannot be read"),
            (
                config::Tls { cert: path("key.pem"), ..good.clone() },
                "--tls-cert key.pem: holds no certificate in PEM",
            ),
            (
                config::Tls { key: path("cert.pem"), ..good.clone() },
                "--tls-key cert.pem: holds no private key in PEM",
            ),
            (config::Tls { key: path("other.pem"), ..good.clone() }, "--tls-key other.pem: cannot be used"),
            (
                config::Tls { clients: clients("none"), ..good.clone() },
                "--tls-client-ca none: cannot be read",
            ),
        ] {
            assert_eq!(refusal(files), said);
        }
    }

    #[test]
    fn a_reload_that_fails_keeps_what_there_was() {
        let (_directory, files) = files();
        let tls = Tls::load(files.clone()).expect("good files");
        let before = tls.config(Within::Mqtt);
        std::fs::write(&files.cert, "").expect("a file");
        assert!(tls.reload().is_err());
        assert!(Arc::ptr_eq(&before, &tls.config(Within::Mqtt)));
    }

    #[test]
    fn the_subject_is_written_as_rfc_4514_has_it() {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
        params.distinguished_name.push(DnType::CommonName, "meter-1");
        let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        let chain = [certificate.der().clone()];
        assert_eq!(subject(&chain).as_deref(), Some(r"CN=meter-1,O=Example\, Inc."));
        assert_eq!(subject(&[]), None);
        assert_eq!(subject(&[CertificateDer::from(vec![0x30, 0x00])]), None);
    }
}
