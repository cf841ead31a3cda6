//! Certificates made for one test: an authority, what it signs, and the files that the server reads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::client::WantsClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;

/// The domain of the test servers' certificates; any one label may stand before it.
pub(crate) const DOMAIN: &str = "mqtt.test";

/// The name by which clients ask for a server unless they want a cluster of their own.
pub(crate) const SERVER_NAME: &str = "server.invalid";

/// An authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// A certificate with its key.
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

/// The files of a server, with the authority that signed what is in them.
pub(crate) struct ServerFiles {
    pub(crate) authority: Authority,
    directory: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = name("an authority");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self { issuer: Issuer::new(params, key), certificate: der, pem }
    }

    /// Signs a certificate for the server's names.
    pub(crate) fn server(&self) -> Identity {
        let names =
            [SERVER_NAME.to_owned(), DOMAIN.to_owned(), format!("*.{DOMAIN}"), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// Signs a certificate for a client.
    pub(crate) fn client(&self, common_name: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { certificate: certificate.der().clone(), pem: certificate.pem(), key }
    }

    /// A client that trusts this authority and speaks only these versions.
    pub(crate) fn only(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        self.builder(versions).with_no_client_auth()
    }

    fn builder(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
    }

    /// A client that trusts this authority, shows `identity` and offers `protocol` by ALPN.
    pub(crate) fn trusting(&self, identity: Option<&Identity>, protocol: Option<&str>) -> ClientConfig {
        let builder = self.builder(rustls::DEFAULT_VERSIONS);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::try_from(identity.key.serialize_der()).expect("a key");
                builder.with_client_auth_cert(vec![identity.certificate.clone()], key).expect("a pair")
            }
        };
        config.alpn_protocols = protocol.into_iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, &self.pem).expect("a file");
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }
}

impl Identity {
    /// The SHA-256 of the certificate.
    pub(crate) fn fingerprint(&self) -> String {
        let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, &self.certificate);
        digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }

    pub(crate) fn write(&self, certificate: &Path, key: &Path) {
        std::fs::write(certificate, &self.pem).expect("a file");
        std::fs::write(key, self.key.serialize_pem()).expect("a file");
    }
}

impl ServerFiles {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let files = Self { authority: Authority::new(), directory };
        files.renew();
        files.authority.write(&files.authority_path());
        files
    }

    /// Writes a new certificate over the old one.
    pub(crate) fn renew(&self) {
        self.authority.server().write(&self.path("cert.pem"), &self.path("key.pem"));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn authority_path(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The flags that name them.
    pub(crate) fn flags(&self) -> Vec<String> {
        let file = |name: &str| self.path(name).display().to_string();
        vec!["--tls-cert".to_owned(), file("cert.pem"), "--tls-key".to_owned(), file("key.pem")]
    }
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Test");
    name.push(DnType::CommonName, common_name);
    name
}
