//! What is read of a certificate once its signature has been checked: whom it names, from when to when, who signed.

use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::Subject;

/// The facts of a certificate. Nothing here says that it is to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whom it names; `None`: nobody of a gateway, or several.
    pub subject: Option<Subject>,
    /// First second it is good for, since 1970.
    pub not_before: i64,
    /// Last second it is good for, since 1970.
    pub not_after: i64,
    /// Name of the CA that signed it (DER).
    pub issuer: Vec<u8>,
    /// Its own name (DER).
    pub name: Vec<u8>,
}

/// Bytes that are no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no X.509 certificate")]
pub struct BadCertificate;

impl Certificate {
    /// Reads DER.
    ///
    /// # Errors
    /// When it is no certificate, or bytes follow it.
    pub fn read(der: &[u8]) -> Result<Self, BadCertificate> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| BadCertificate)?;
        if !rest.is_empty() {
            return Err(BadCertificate);
        }
        let names = certificate.subject_alternative_name().map_err(|_| BadCertificate)?;
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let mut subjects = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => uri.parse::<Subject>().ok(),
            _ => None,
        });
        let subject = match (subjects.next(), subjects.next()) {
            (Some(subject), None) => Some(subject),
            _ => None,
        };
        let validity = certificate.validity();
        Ok(Certificate {
            subject,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            issuer: certificate.issuer().as_raw().to_vec(),
            name: certificate.subject().as_raw().to_vec(),
        })
    }

    /// When to ask for the next one, in seconds since 1970: in the middle of its time.
    pub const fn half_life(&self) -> i64 {
        self.not_before + (self.not_after - self.not_before) / 2
    }
}
