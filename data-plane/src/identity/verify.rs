//! Whether the other end is a control plane: its certificate is signed by a root of the control plane's CA, and says
//! that it is one. Names and addresses do not count: a control plane may be reached under any.

use std::sync::Arc;

use gateway_proto::identity::{Certificate, RootId, Subject, root_id};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Checks certificates of control planes.
#[derive(Debug)]
pub(super) struct ControlPlaneVerifier {
    known: Known,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Known {
    /// Only the SHA-256 of a root, which the other end has to show.
    Pin(RootId),
    /// The roots themselves.
    Roots(RootCertStore),
}

impl ControlPlaneVerifier {
    /// By the hash that a join token carries.
    pub(super) fn pinned(root: RootId) -> Self {
        ControlPlaneVerifier::new(Known::Pin(root))
    }

    /// By roots.
    pub(super) fn of(roots: RootCertStore) -> Self {
        ControlPlaneVerifier::new(Known::Roots(roots))
    }

    fn new(known: Known) -> Self {
        ControlPlaneVerifier { known, provider: Arc::clone(gateway_engine::certificate::provider()) }
    }

    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let shown;
        let roots = match &self.known {
            Known::Roots(roots) => roots,
            Known::Pin(pin) => {
                let root = intermediates.iter().find(|certificate| root_id(certificate) == *pin);
                let root = root.ok_or_else(|| {
                    let why = "the control plane does not show the CA that the join token carries: it is another one, or its CA was replaced since";
                    Error::General(why.to_owned())
                })?;
                let mut store = RootCertStore::empty();
                store.add(root.clone().into_owned())?;
                shown = store;
                &shown
            }
        };
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)?;
        let read = Certificate::read(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        if read.subject != Some(Subject::ControlPlane) {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(())
    }
}

impl ServerCertVerifier for ControlPlaneVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
