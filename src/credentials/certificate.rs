//! Certificates that clients show, held against a cluster's own authorities.
//!
//! That the client has the private key was proven in the handshake; whom the certificate names is only
//! worth something if an authority of the cluster has signed it. One that another authority has signed may
//! be another link's, and is told apart.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, RootCertStore};
use thiserror::Error;
use x509_cert::der::Decode;

use super::Unusable;
use crate::model::{Fingerprint, Timestamp, TlsSettings};

/// How many authorities a cluster may have.
const AUTHORITIES_MAX: usize = 32;

/// Checks the certificates of one link.
#[derive(Debug)]
pub struct CertificateVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    revoked: std::collections::BTreeSet<Fingerprint>,
}

/// Whom a good certificate names.
#[derive(Debug, PartialEq, Eq)]
pub struct CertificateSays {
    /// The common name of its subject.
    pub common_name: String,
    /// Its whole subject (RFC 4514).
    pub subject: String,
    /// Which certificate it is.
    pub fingerprint: Fingerprint,
}

/// Why a certificate is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CertificateFault {
    /// None of these authorities has signed it.
    #[error("it is not signed by an authority of this authenticator")]
    Foreign,
    /// Signed, and not good.
    #[error("{0}")]
    Refused(&'static str),
}

impl CertificateVerifier {
    /// A verifier by these settings.
    ///
    /// # Errors
    /// Which setting nothing could be checked with.
    pub fn new(settings: &TlsSettings) -> Result<Self, Unusable> {
        let unusable = |why: &str| Unusable::new("/ca", why);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(settings.ca.as_bytes()) {
            let certificate = certificate.map_err(|_| unusable("it is no PEM"))?;
            roots.add(certificate).map_err(|_| unusable("a certificate in it cannot be read"))?;
        }
        if roots.is_empty() || roots.len() > AUTHORITIES_MAX {
            return Err(unusable(&format!("1 to {AUTHORITIES_MAX} certificates in PEM")));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let chain = chain.map_err(|_| unusable("its certificates cannot be used as authorities"))?;
        Ok(Self { chain, revoked: settings.revoked.clone() })
    }

    /// Checks what a client has shown: its certificate and what it sent with it, in that order.
    ///
    /// # Errors
    /// Why it is not good.
    pub fn verify(
        &self,
        shown: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<CertificateSays, CertificateFault> {
        let [own, others @ ..] = shown else { return Err(CertificateFault::Foreign) };
        let now = Duration::from_millis(u64::try_from(now.as_millis()).unwrap_or_default());
        self.chain
            .verify_client_cert(own, others, UnixTime::since_unix_epoch(now))
            .map_err(|error| fault(&error))?;
        let fingerprint = fingerprint(own);
        if self.revoked.contains(&fingerprint) {
            return Err(CertificateFault::Refused("the certificate is revoked"));
        }
        let unreadable = CertificateFault::Refused("the certificate names nobody");
        let certificate = x509_cert::Certificate::from_der(own).map_err(|_| unreadable)?;
        let subject = certificate.tbs_certificate().subject();
        let common_name = subject.common_name().ok().flatten().map(|name| name.value().into_owned());
        let common_name = common_name.filter(|name| !name.is_empty()).ok_or(unreadable)?;
        Ok(CertificateSays { common_name, subject: subject.to_string(), fingerprint })
    }
}

/// Which certificate this is.
fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    let mut print = [0; 32];
    print.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
    Fingerprint(print)
}

fn fault(error: &rustls::Error) -> CertificateFault {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    match error {
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
            CertificateFault::Refused("the certificate has expired")
        }
        rustls::Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => {
            CertificateFault::Refused("the certificate is not valid yet")
        }
        rustls::Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => CertificateFault::Refused("the certificate is not one for clients"),
        // Whatever else is wrong: nobody here vouches for it.
        _ => CertificateFault::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
        Issuer, KeyPair, date_time_ymd,
    };

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    /// An authority in PEM, and what signs for it.
    fn authority() -> (String, Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        (pem, Issuer::new(params, key))
    }

    fn client(
        by: &Issuer<'static, KeyPair>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Vec<CertificateDer<'static>> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.distinguished_name.push(DnType::CommonName, "meter-1");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        vec![params.signed_by(&key, by).expect("a certificate").der().clone()]
    }

    fn verifier(ca: &str, revoked: &[Fingerprint]) -> CertificateVerifier {
        let settings = TlsSettings { ca: ca.to_owned(), revoked: revoked.iter().copied().collect() };
        CertificateVerifier::new(&settings).expect("a verifier")
    }

    #[test]
    fn the_common_name_says_who_the_client_is() {
        let (ca, issuer) = authority();
        let shown = client(&issuer, |_| ());
        let says = verifier(&ca, &[]).verify(&shown, NOW).expect("good");
        assert_eq!((&*says.common_name, &*says.subject), ("meter-1", "CN=meter-1,O=Example"));
        let revoked = verifier(&ca, &[says.fingerprint]).verify(&shown, NOW);
        assert_eq!(revoked, Err(CertificateFault::Refused("the certificate is revoked")));
    }

    #[test]
    fn what_is_not_good_is_told_apart_from_what_is_somebody_elses() {
        let ((ca, issuer), (_, other)) = (authority(), authority());
        let verified = |shown: &[CertificateDer<'_>]| verifier(&ca, &[]).verify(shown, NOW);
        assert_eq!(verified(&client(&other, |_| ())), Err(CertificateFault::Foreign));
        assert_eq!(verified(&[]), Err(CertificateFault::Foreign));
        assert_eq!(verified(&[CertificateDer::from(vec![0x30, 0])]), Err(CertificateFault::Foreign));
        let expired = client(&issuer, |params| params.not_after = date_time_ymd(2020, 1, 1));
        assert_eq!(verified(&expired), Err(CertificateFault::Refused("the certificate has expired")));
        let early = client(&issuer, |params| params.not_before = date_time_ymd(2100, 1, 1));
        assert_eq!(verified(&early), Err(CertificateFault::Refused("the certificate is not valid yet")));
        let server = client(&issuer, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        let refused = Err(CertificateFault::Refused("the certificate is not one for clients"));
        assert_eq!(verified(&server), refused);
        let nameless = client(&issuer, |params| params.distinguished_name = DistinguishedName::new());
        assert_eq!(verified(&nameless), Err(CertificateFault::Refused("the certificate names nobody")));
    }

    #[test]
    fn authorities_that_cannot_be_used_are_refused() {
        for ca in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let settings = TlsSettings { ca: ca.to_owned(), revoked: [].into() };
            assert_eq!(CertificateVerifier::new(&settings).expect_err("refused").pointer, "/ca");
        }
    }
}
