//! A first configuration for a data plane that has none, while no control plane answers: another's last good copy, from a
//! file or over https. It is sealed with the key that both were given (`--snapshot-key-file`) and bound to the group, so
//! that whoever keeps or serves it can neither read nor change it; an old one can be put in its place, which the first
//! control plane that answers mends.
//!
//! Bounds: 256 MiB; 30 s for all of a fetch. Redirects are not followed: the address that somebody wrote is the one that
//! counts. What cannot be used is reported and passed over.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway_engine::certificate;
use http::Uri;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Body as _;
use hyper_rustls::ConfigBuilderExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::time::timeout;

use super::last_good::LastGood;
use crate::apply::Applier;
use crate::config::BootstrapSnapshot;
use crate::jwks::chain;

/// Largest snapshot that is taken.
const MAX_BYTES: usize = 256 << 20;
/// For a fetch as a whole.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the first configuration may come from.
#[derive(Clone, Debug)]
pub(crate) struct Bootstrap {
    from: BootstrapSnapshot,
    /// What the certificate of an https address is checked against, if not against the system's.
    tls_ca: Option<PathBuf>,
    last_good: LastGood,
    /// A failure is logged once.
    is_known: bool,
}

impl Bootstrap {
    /// From there, sealed like copies of `last_good`.
    pub(crate) fn new(from: BootstrapSnapshot, tls_ca: Option<PathBuf>, last_good: LastGood) -> Self {
        Bootstrap { from, tls_ca, last_good, is_known: false }
    }

    /// Puts it into service; whether that could be done.
    pub(crate) async fn serve(&mut self, applier: &mut Applier) -> bool {
        let served = match in_time(PATIENCE, self.read()).await {
            Ok(sealed) => self.last_good.serve(sealed, applier).await,
            Err(why) => Err(why),
        };
        match served {
            Ok(revision) => {
                tracing::info!(from = %self.from, revision, "no control plane answers: serving the bootstrap snapshot");
                true
            }
            Err(why) if !std::mem::replace(&mut self.is_known, true) => {
                tracing::warn!(from = %self.from, why, "the bootstrap snapshot cannot be used");
                false
            }
            Err(why) => {
                tracing::debug!(from = %self.from, why, "the bootstrap snapshot still cannot be used");
                false
            }
        }
    }

    async fn read(&self) -> Result<Vec<u8>, String> {
        match &self.from {
            BootstrapSnapshot::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
                read.map_err(|error| error.to_string())?
            }
            BootstrapSnapshot::Url(url) => fetch(url, self.tls_ca.as_deref()).await,
        }
    }
}

async fn in_time(
    patience: Duration,
    read: impl Future<Output = Result<Vec<u8>, String>>,
) -> Result<Vec<u8>, String> {
    timeout(patience, read).await.unwrap_or_else(|_| Err(format!("not there within {patience:?}")))
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    // Its size is what it gives, not what it says: a pipe or a device says nothing.
    let read = file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if bytes.len() > MAX_BYTES {
        return Err(too_long());
    }
    Ok(bytes)
}

fn too_long() -> String {
    format!("it is over {} MiB long, no more are taken", MAX_BYTES >> 20)
}

async fn fetch(url: &Uri, tls_ca: Option<&Path>) -> Result<Vec<u8>, String> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls(tls_ca)?)
        .https_or_http()
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let request = http::Request::get(url).body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let response = client.request(request).await.map_err(|error| chain(&error))?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("the answer has status {}", response.status().as_u16()));
    }
    if response.body().size_hint().lower() > MAX_BYTES as u64 {
        return Err(too_long());
    }
    let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
    Ok(body.map_err(|error| chain(&*error))?.to_bytes().into())
}

fn tls(ca: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(certificate::provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let Some(path) = ca else {
        let builder = builder.with_native_roots();
        let builder = builder.map_err(|error| format!("cannot read the system's certificates: {error}"))?;
        return Ok(builder.with_no_client_auth());
    };
    let unusable =
        |error: &dyn std::fmt::Display| format!("cannot use the certificates in {}: {error}", path.display());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))? {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests;
