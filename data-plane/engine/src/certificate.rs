//! Certificate: a checked chain with its private key, ready to sign. Whether it is in force today is not asked here:
//! the engine has no clock.
//!
//! Invariant: the key is that of the first certificate, and of a kind that the handshake can sign with. No message
//! quotes the key.

use std::sync::{Arc, LazyLock};

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::secret::MASK;
use gateway_proto::wire;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureScheme};

use crate::violations::Violations;

/// Most certificates of a chain.
pub const MAX_CHAIN: usize = 16;
/// Longest PEM text of a chain or key.
pub const MAX_PEM_BYTES: usize = 128 * 1024;

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));

/// The cryptography of every handshake of this process: keys that are checked with it are used with it.
pub fn provider() -> &'static Arc<CryptoProvider> {
    &PROVIDER
}

/// A certificate chain and its private key.
#[derive(Debug)]
pub struct Certificate {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// What a handshake sends and signs with.
    pub key: Arc<CertifiedKey>,
    /// The DNS names it is for, in lower case; some begin with `*.`.
    pub dns_names: Box<[Box<str>]>,
}

impl Certificate {
    /// Its key can make one of these signatures.
    pub fn signs(&self, schemes: &[SignatureScheme]) -> bool {
        self.key.key.choose_scheme(schemes).is_some()
    }
}

/// Everything that can be checked without a clock. `None` after a violation.
pub(crate) fn check(
    name: Arc<str>,
    spec: &wire::CertificateSpec,
    at: &FieldPath<'_>,
    out: &mut Violations,
) -> Option<Certificate> {
    let (cert_at, key_at) = (at.field("cert"), at.field("key"));
    let chain = chain(&spec.cert, &cert_at, out);
    let key = private_key(&spec.key, &key_at, out);
    let (chain, key) = (chain?, key?);
    let leaf = out.ok(&cert_at, end_entity(&chain[0]))?;
    let dns_names = leaf.valid_dns_names().map(|name| name.to_ascii_lowercase().into()).collect();
    let signing = match provider().key_provider.load_private_key(key) {
        Ok(signing) => signing,
        Err(error) => {
            let message = format!(
                "this key cannot be used: {error}; expected RSA (2048 to 8192 bits), ECDSA or Ed25519"
            );
            out.push(&key_at, ViolationCode::Invalid, message);
            return None;
        }
    };
    let key = CertifiedKey::new(chain, signing);
    match key.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(_) => {
            out.push(&key_at, ViolationCode::Conflict, mismatch(&key));
            return None;
        }
    }
    Some(Certificate { name, key: Arc::new(key), dns_names })
}

fn chain(text: &str, at: &FieldPath<'_>, out: &mut Violations) -> Option<Vec<CertificateDer<'static>>> {
    let text = given(text, "the certificate chain as PEM text", at, out)?;
    let chain: Vec<_> = match CertificateDer::pem_slice_iter(text.as_bytes()).collect() {
        Ok(chain) => chain,
        Err(error) => {
            out.push(at, ViolationCode::Invalid, broken(&error));
            return None;
        }
    };
    if chain.is_empty() {
        let message = "there is no certificate in it, expected -----BEGIN CERTIFICATE-----";
        out.push(at, ViolationCode::Invalid, message);
        return None;
    }
    if chain.len() > MAX_CHAIN {
        let message = format!("{} certificates are too many, at most {MAX_CHAIN} are allowed", chain.len());
        out.push(at, ViolationCode::OutOfRange, message);
        return None;
    }
    Some(chain)
}

fn private_key(text: &str, at: &FieldPath<'_>, out: &mut Violations) -> Option<PrivateKeyDer<'static>> {
    let text = given(text, "the private key as PEM text", at, out)?;
    let message = match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
        Ok(key) => return Some(key),
        Err(pem::Error::NoItemsFound) if text.trim() == MASK => format!(
            "{MASK} stands for the key that a control plane keeps, which is not known here: give the key itself"
        ),
        Err(pem::Error::NoItemsFound) if text.contains("BEGIN ENCRYPTED PRIVATE KEY") => {
            "the private key is encrypted, decrypt it first: openssl pkey -in KEY -out DECRYPTED".to_owned()
        }
        Err(pem::Error::NoItemsFound) => {
            "there is no private key in it, expected a PEM block PRIVATE KEY".to_owned()
        }
        Err(error) => broken(&error),
    };
    out.push(at, ViolationCode::Invalid, message);
    None
}

fn given<'t>(text: &'t str, what: &str, at: &FieldPath<'_>, out: &mut Violations) -> Option<&'t str> {
    if text.trim().is_empty() {
        out.push(at, ViolationCode::Required, format!("give {what}"));
        return None;
    }
    if text.len() > MAX_PEM_BYTES {
        let message = format!("{} bytes are too long, at most {MAX_PEM_BYTES} are allowed", text.len());
        out.push(at, ViolationCode::OutOfRange, message);
        return None;
    }
    Some(text)
}

/// What is wrong with a PEM text, without a word of it.
fn broken(error: &pem::Error) -> String {
    let why = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be read",
    };
    format!("invalid PEM: {why}")
}

fn end_entity<'c>(leaf: &'c CertificateDer<'_>) -> Result<webpki::EndEntityCert<'c>, String> {
    webpki::EndEntityCert::try_from(leaf)
        .map_err(|error| format!("the first certificate is no X.509 version 3 certificate ({error})"))
}

/// Why a key does not fit, with the mistake that is made most.
fn mismatch(key: &CertifiedKey) -> String {
    let spki = key.key.public_key();
    let owner = key.cert.iter().skip(1).position(|cert| {
        webpki::EndEntityCert::try_from(cert)
            .is_ok_and(|cert| spki.as_ref() == Some(&cert.subject_public_key_info()))
    });
    match owner {
        Some(at) => {
            format!("this is the key of certificate {} of the chain, put that certificate first", at + 2)
        }
        None => "this is not the key of the first certificate in cert".to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
