//! Asks TLS clients for a certificate without deciding on it.
//!
//! Which authorities count is a cluster's matter, and the cluster is only known after the handshake. So what is
//! checked here is that the client has the private key of the certificate that it shows, and nothing of the
//! certificate itself; see [`authenticators`](super::authenticators) for that. Nobody must show one.
//!
//! While no cluster wants to know its clients by certificates none is asked for: a browser would ask its user.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::seam::desired::DesiredReceiver;

/// Takes any certificate whose key the client has.
pub(super) struct AnyCertificate {
    desired: Arc<OnceLock<DesiredReceiver>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyCertificate {
    /// Asks while a cluster of what is desired then wants it.
    pub(super) fn asked_as(desired: Arc<OnceLock<DesiredReceiver>>) -> Self {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        Self { desired, algorithms }
    }
}

impl fmt::Debug for AnyCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyCertificate")
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn offer_client_auth(&self) -> bool {
        self.desired.get().is_some_and(|desired| {
            let clusters = &desired.borrow().clusters;
            clusters.values().any(|cluster| cluster.authenticators.asks_for_certificates())
        })
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // The authorities of all tenants are nobody's business.
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
