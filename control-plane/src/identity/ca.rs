//! Keys and certificates, and nothing else: a root is made, opened, and signs. What is signed is decided here as well:
//! of a request only the key counts.

use std::time::Duration;

use gateway_proto::identity::{RootId, Subject, root_id};
use jiff::{SignedDuration, Timestamp};
use rand::RngExt as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Life of a root.
const ROOT: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// Clocks that run behind by no more than this take a new certificate; less where it is short.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// Longest request taken, in bytes.
pub(super) const MAX_REQUEST: usize = 16 << 10;

/// A certificate cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate: {0}")]
pub struct SignError(#[from] rcgen::Error);

/// The request that a certificate was asked for with is no good.
#[derive(Debug, thiserror::Error)]
#[error("the certificate request is malformed, or its signature is not that of its key")]
pub struct BadRequest;

/// A root that was just made.
pub(super) struct NewRoot {
    pub(super) id: RootId,
    pub(super) certificate: Vec<u8>,
    /// PKCS #8.
    pub(super) key: Zeroizing<Vec<u8>>,
    params: CertificateParams,
    pair: KeyPair,
}

/// A root with its key.
pub(super) struct Signer(Issuer<'static, KeyPair>);

/// A public key whose owner has shown that he has the private one.
pub(super) struct RequestedKey(rcgen::PublicKey);

/// From when to when something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

impl Validity {
    /// From now on, and a little before; at the earliest after `revoked`.
    pub(super) fn new(now: Timestamp, lifetime: SignedDuration, revoked: Option<Timestamp>) -> Self {
        let earlier = |by| now.checked_sub(by).unwrap_or(now);
        let from = earlier(SKEW.min(lifetime / 10));
        // Whole seconds is what a certificate holds.
        let after = revoked.and_then(|it| Timestamp::from_second(it.as_second() + 1).ok());
        Validity {
            from: after.map_or(from, |after| from.max(after)),
            to: now.checked_add(lifetime).unwrap_or(Timestamp::MAX),
        }
    }
}

impl NewRoot {
    /// Makes one.
    pub(super) fn make(now: Timestamp) -> Result<Self, SignError> {
        let pair = KeyPair::generate()?;
        let number: u32 = rand::rng().random();
        let mut params = params(Validity::new(now, ROOT, None), format!("gateway CA {number:08x}"));
        // One below it: the root that takes its place, as this one signs it.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&pair)?.der().to_vec();
        let key = Zeroizing::new(pair.serialize_der());
        Ok(NewRoot { id: root_id(&certificate), certificate, key, params, pair })
    }

    /// Its certificate as the root before it signs it: who knows only that one can follow.
    pub(super) fn cross_signed(&self, by: &Signer) -> Result<Vec<u8>, SignError> {
        Ok(self.params.signed_by(&self.pair, &by.0)?.der().to_vec())
    }
}

impl Signer {
    /// Of a certificate and its key (PKCS #8).
    pub(super) fn open(certificate: &[u8], key: &[u8]) -> Result<Self, SignError> {
        let certificate = CertificateDer::from(certificate.to_vec());
        Ok(Signer(Issuer::from_ca_cert_der(&certificate, KeyPair::try_from(key)?)?))
    }

    /// A certificate of a data plane.
    pub(super) fn data_plane(
        &self,
        key: &RequestedKey,
        subject: &Subject,
        validity: Validity,
    ) -> Result<Vec<u8>, SignError> {
        self.sign(&key.0, subject, validity, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A certificate of a control plane, with its key.
    pub(super) fn control_plane(
        &self,
        validity: Validity,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), SignError> {
        let pair = KeyPair::generate()?;
        let subject = Subject::ControlPlane;
        let certificate = self.sign(&pair, &subject, validity, ExtendedKeyUsagePurpose::ServerAuth)?;
        Ok((certificate.into(), PrivatePkcs8KeyDer::from(pair.serialize_der()).into()))
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        subject: &Subject,
        validity: Validity,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Vec<u8>, SignError> {
        let mut params = params(validity, "gateway".to_owned());
        params.subject_alt_names = vec![SanType::URI(subject.to_string().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.0)?.der().to_vec())
    }
}

impl RequestedKey {
    /// Takes the key of a PKCS #10 request (DER) whose signature it made.
    ///
    /// # Errors
    /// [`BadRequest`]
    pub(super) fn read(request: &[u8]) -> Result<Self, BadRequest> {
        if request.len() > MAX_REQUEST {
            return Err(BadRequest);
        }
        let request = CertificateSigningRequestDer::from(request);
        let request = CertificateSigningRequestParams::from_der(&request).map_err(|_| BadRequest)?;
        Ok(RequestedKey(request.public_key))
    }

    /// Tells keys apart.
    pub(super) fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.der_bytes()).into()
    }
}

fn params(validity: Validity, name: String) -> CertificateParams {
    let mut params = CertificateParams::default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since = |at: Timestamp| Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0));
    params.not_before = epoch + since(validity.from);
    params.not_after = epoch + since(validity.to);
    let mut serial: [u8; 16] = rand::rng().random();
    // Positive, and never shorter than it looks.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

#[cfg(test)]
mod tests {
    use gateway_proto::identity::Certificate;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T22:00:00.7Z".parse().expect("a time")
    }

    #[test]
    fn a_certificate_holds_what_the_control_plane_says_and_the_key_of_the_request() {
        let root = NewRoot::make(now()).expect("made");
        let signer = Signer::open(&root.certificate, &root.key).expect("its own key");
        let pair = KeyPair::generate().expect("a key");
        let mut wish = CertificateParams::default();
        wish.subject_alt_names =
            vec![SanType::URI(Subject::ControlPlane.to_string().try_into().expect("ASCII"))];
        let request = wish.serialize_request(&pair).expect("a request");
        let key = RequestedKey::read(request.der()).expect("signed");
        let subject = Subject::DataPlane { group: "edge".into(), node: "a".into() };
        let validity = Validity::new(now(), SignedDuration::from_hours(24), None);
        let made = signer.data_plane(&key, &subject, validity).expect("signed");
        let read = Certificate::read(&made).expect("a certificate");
        assert_eq!(read.subject, Some(subject));
        assert_eq!((read.not_before, read.not_after), (now().as_second() - 300, now().as_second() + 86_400));
        assert_eq!(read.half_life(), now().as_second() - 150 + 43_200);
        assert_eq!(read.issuer, Certificate::read(&root.certificate).expect("a certificate").name);

        let mut forged = request.der().to_vec();
        *forged.last_mut().expect("bytes") ^= 1;
        for none in [&forged[..], b"", b"x", &[0x30; MAX_REQUEST + 1]] {
            assert!(RequestedKey::read(none).is_err());
        }
    }

    #[test]
    fn what_is_issued_after_a_revocation_is_valid_after_it() {
        let hour = SignedDuration::from_hours(1);
        let validity = Validity::new(now(), hour, Some(now()));
        assert!(validity.from.as_second() > now().as_second());
        let old = now() - hour;
        assert_eq!(Validity::new(now(), hour, Some(old)), Validity::new(now(), hour, None));
        let short = Validity::new(now(), SignedDuration::from_secs(4), None);
        assert_eq!(short.from, now() - SignedDuration::from_millis(400));
    }
}
