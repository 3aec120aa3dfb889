//! Certificates of a test's own and a client that says which of them it trusts.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// A self-signed certificate for `localhost` and its key.
pub struct Pair {
    /// The certificate as PEM.
    pub cert: String,
    /// The private key as PEM.
    pub key: String,
    der: CertificateDer<'static>,
    raw_key: Vec<u8>,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair")
    }
}

impl Pair {
    /// A new one.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new() -> anyhow::Result<Pair> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        Ok(Pair {
            cert: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
            der: made.cert.der().clone(),
            raw_key: made.signing_key.serialize_der(),
        })
    }

    /// Whether a piece of the key, as text or as bytes, is in a content.
    pub fn leaks_into(&self, content: &[u8]) -> bool {
        let lines = self.key.lines().filter(|line| !line.starts_with("-----"));
        // Behind the head that all such keys have in common.
        let raw = self.raw_key[self.raw_key.len() / 2..][..24].to_vec();
        let texts = lines.skip(1).map(|line| line.as_bytes()[..line.len().min(32)].to_vec());
        texts.chain([raw]).any(|trace| content.windows(trace.len()).any(|window| window == trace))
    }
}

/// A client that trusts some certificates and no other.
#[derive(Clone)]
pub struct Https(TlsConnector);

impl std::fmt::Debug for Https {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Https")
    }
}

impl Https {
    /// Trusts these.
    ///
    /// # Errors
    /// When one of them is none.
    pub fn trusting(pairs: &[&Pair]) -> anyhow::Result<Https> {
        let mut roots = RootCertStore::empty();
        for pair in pairs {
            roots.add(pair.der.clone())?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Https(TlsConnector::from(Arc::new(config))))
    }

    /// One request on a connection of its own; returns the answer, head and body.
    ///
    /// # Errors
    /// When the certificate is not trusted, or there is no answer.
    pub async fn get(&self, address: SocketAddr, path: &str) -> anyhow::Result<String> {
        let socket = TcpStream::connect(address).await?;
        let mut tls = self.0.connect("localhost".try_into()?, socket).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        tls.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tls.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}
