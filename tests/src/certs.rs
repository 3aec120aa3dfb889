//! A throw-away certificate authority for tests of TLS.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// A CA and one server certificate for `localhost` and `127.0.0.1`, as PEM files in a folder of their own.
#[derive(Debug)]
pub struct Certs {
    directory: TempDir,
}

impl Certs {
    /// Makes them.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate()?;
        let server = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let certificate = server.signed_by(&key, &issuer)?;
        std::fs::write(directory.path().join("ca.pem"), ca_certificate.pem())?;
        std::fs::write(directory.path().join("cert.pem"), certificate.pem())?;
        std::fs::write(directory.path().join("key.pem"), key.serialize_pem())?;
        Ok(Certs { directory })
    }

    /// The CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The server's certificate.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    /// The server's key.
    pub fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }
}
