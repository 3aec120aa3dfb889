//! What is kept of an identity in the state directory: the key with its certificate in one file, so that they never
//! come apart, the roots in another, and a key that a first certificate is asked for with.

use gateway_proto::identity::{Certificate, Subject};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::enroll::Ask;
use super::{IdentityError, certificates};
use crate::state_dir::{StateDir, StateDirError};

/// The key and its certificate, PEM.
const IDENTITY: &str = "identity.pem";
/// The roots of the control plane's CA, PEM.
const ROOTS: &str = "control-plane-ca.pem";
/// A key that is asked for with, PEM.
const REQUEST: &str = "identity-request.pem";

/// A key and its certificate.
pub(super) struct Kept {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    /// Last second that it is good for, since 1970.
    pub(super) not_after: i64,
    /// When the next one is due.
    pub(super) half_life: i64,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// What a control plane's certificate is checked against.
#[derive(Clone, Debug, Default)]
pub(super) struct Roots(pub(super) Vec<CertificateDer<'static>>);

impl Kept {
    /// Of a key and what was issued for it.
    ///
    /// # Errors
    /// When it is for another key, node or group.
    pub(super) fn of(ask: Ask, chain: Vec<Vec<u8>>, node: &str, group: &str) -> Result<Self, IdentityError> {
        let chain: Vec<CertificateDer<'static>> = chain.into_iter().map(Into::into).collect();
        let key = PrivatePkcs8KeyDer::from(ask.key()).into();
        Kept::new(chain, key, node, group).map_err(|reason| rustls::Error::General(reason).into())
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        node: &str,
        group: &str,
    ) -> Result<Self, String> {
        let leaf = chain.first().ok_or("no certificate was issued")?;
        let read = Certificate::read(leaf).map_err(|error| error.to_string())?;
        let expected = Subject::DataPlane { group: group.to_owned(), node: node.to_owned() };
        match read.subject {
            Some(ref subject) if *subject == expected => {}
            Some(subject) => return Err(format!("the certificate is for {subject}, not for {expected}")),
            None => return Err("the certificate names no data plane".to_owned()),
        }
        let provider = gateway_engine::certificate::provider();
        let signing = provider.key_provider.load_private_key(key.clone_key()).map_err(|it| it.to_string())?;
        let pair = rustls::sign::CertifiedKey::new(chain, signing);
        pair.keys_match().map_err(|_| "the certificate is for another key".to_owned())?;
        Ok(Kept { chain: pair.cert, key, not_after: read.not_after, half_life: read.half_life() })
    }

    /// What was kept; `None`: nothing that is of use, and why is in the log.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn read(state_dir: &StateDir, node: &str, group: &str) -> Result<Option<Self>, StateDirError> {
        let Some(text) = state_dir.read(IDENTITY)?.map(Zeroizing::new) else { return Ok(None) };
        let parsed = || {
            let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| "it holds no key".to_owned())?;
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
            Kept::new(chain.map_err(|error| error.to_string())?, key, node, group)
        };
        Ok(parsed()
            .inspect_err(|why| tracing::warn!(file = IDENTITY, why, "the kept certificate is of no use"))
            .ok())
    }

    /// Keeps it.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn write(&self, state_dir: &StateDir) -> Result<(), StateDirError> {
        let mut text = pem("PRIVATE KEY", self.key.secret_der());
        for certificate in &self.chain {
            text.push_str(&pem("CERTIFICATE", certificate));
        }
        state_dir.write(IDENTITY, text.as_bytes())?;
        // It has led to a certificate: not needed again.
        state_dir.remove(REQUEST)
    }
}

impl Roots {
    /// What was kept.
    ///
    /// # Errors
    /// When the file cannot be read or used.
    pub(super) fn read(state_dir: &StateDir) -> Result<Option<Self>, IdentityError> {
        match state_dir.read(ROOTS)? {
            None => Ok(None),
            Some(_) => Ok(Some(Roots(certificates(&state_dir.path().join(ROOTS))?))),
        }
    }

    /// Keeps them.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn write(&self, state_dir: &StateDir) -> Result<(), StateDirError> {
        let text: String = self.0.iter().map(|root| pem("CERTIFICATE", root).to_string()).collect();
        state_dir.write(ROOTS, text.as_bytes())
    }
}

/// The key that a first certificate is asked for with: the same one until there is an answer, since the answer to an
/// earlier attempt may have got lost after the token was used up for it.
///
/// # Errors
/// When the file system refuses, or no key can be made.
pub(super) fn request(state_dir: &StateDir) -> Result<Ask, IdentityError> {
    if let Some(text) = state_dir.read(REQUEST)?.map(Zeroizing::new)
        && let Ok(text) = std::str::from_utf8(&text)
        && let Ok(ask) = Ask::with(text)
    {
        return Ok(ask);
    }
    let ask = Ask::new()?;
    state_dir.write(REQUEST, pem("PRIVATE KEY", &ask.key()).as_bytes())?;
    Ok(ask)
}

/// One block of PEM.
fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    use base64::Engine as _;
    let digits = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(der));
    let mut text = Zeroizing::new(format!("-----BEGIN {label}-----\n"));
    for line in digits.as_bytes().chunks(64) {
        // Base64 is ASCII.
        text.push_str(std::str::from_utf8(line).unwrap_or_default());
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
