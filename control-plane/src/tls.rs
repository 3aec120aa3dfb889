//! The certificate of both servers, read once at start. Invariant: a key that does not belong to the certificate is
//! refused here, not at the first handshake.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsFiles;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read or holds no such PEM block.
    #[error("cannot read {what} from {path}: {reason}")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Certificate and key do not fit, or are of a kind that is not supported.
    #[error("cannot use the certificate {path} with its key: {source}")]
    Pair {
        /// The certificate's file.
        path: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
}

/// Server side of TLS 1.2 and 1.3 with these ALPN protocols, best first.
///
/// # Errors
/// [`TlsError`], naming the file.
pub fn server_config(files: &TlsFiles, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = pair(files)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|source| TlsError::Pair { path: files.cert.clone(), source })?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The certificates of a PEM file.
///
/// # Errors
/// [`TlsError`], also when there is none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = |reason: String| TlsError::Pem { what: "a certificate", path: path.to_owned(), reason };
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fault(error.to_string()))?;
    if chain.is_empty() {
        return Err(fault("it holds no CERTIFICATE block".to_owned()));
    }
    Ok(chain)
}

/// Certificate chain and key, not yet known to fit.
///
/// # Errors
/// [`TlsError`]
pub fn pair(files: &TlsFiles) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| TlsError::Pem {
        what: "a private key",
        path: files.key.clone(),
        reason: error.to_string(),
    })?;
    Ok((chain, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    #[test]
    fn a_pair_is_taken_and_a_stranger_s_key_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let make = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let (ours, other) = (make(), make());
        let cert = written(dir.path(), "cert.pem", &ours.cert.pem());
        let key = written(dir.path(), "key.pem", &ours.signing_key.serialize_pem());
        let wrong = written(dir.path(), "wrong.pem", &other.signing_key.serialize_pem());
        let empty = written(dir.path(), "empty.pem", "");
        let config =
            server_config(&TlsFiles { cert: cert.clone(), key: key.clone() }, &[b"h2"]).expect("a pair");
        assert_eq!(config.alpn_protocols, [b"h2".to_vec()]);
        let refused = |cert: &Path, key: &Path| {
            server_config(&TlsFiles { cert: cert.into(), key: key.into() }, &[])
                .expect_err("unusable")
                .to_string()
        };
        assert!(refused(&cert, &wrong).contains("cert.pem"));
        assert!(refused(&empty, &key).contains("empty.pem"));
        assert!(refused(&cert, &empty).contains("a private key"));
        assert!(refused(&cert, Path::new("/nowhere/key.pem")).contains("/nowhere/key.pem"));
    }
}
