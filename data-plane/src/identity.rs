//! Who this data plane is to a control plane, and how it knows one: what the stream's connections show and check.
//! With a join token the control plane's CA gives it a certificate, which is kept and renewed (`kept.rs`,
//! `enroll.rs`); with `--tls-cert` somebody else does, and the files are read at every connection.
//!
//! Invariants: a private key is made here and never leaves; files with one have mode 0600; what is in use is on disk
//! before it is used, so that a restart finds it.

mod connect;
mod enroll;
mod kept;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gateway_proto::identity::{JoinToken, JoinTokenFault, RootId, root_id};
use gateway_proto::wire;
use hyper_rustls::ConfigBuilderExt as _;
use jiff::Timestamp;
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use crate::state_dir::{StateDir, StateDirError};
use crate::telemetry::Metrics;

pub(crate) use connect::{ANSWER_WITHIN, ConnectError, connect};
pub(crate) use enroll::{Ask, EnrollError};
use kept::{Kept, Roots};
use verify::ControlPlaneVerifier;

/// Why a connection cannot even be begun.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of certificates or a key cannot be used.
    #[error("cannot use {what} of {path}: {reason}", path = path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The join token is none.
    #[error("--join-token-file {path}: {fault}", path = path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: JoinTokenFault,
    },
    /// The state directory fails.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// What is there makes no handshake.
    #[error("the certificates do not do: {0}")]
    Tls(#[from] rustls::Error),
    /// The system has no certificates.
    #[error("cannot read the system's certificates: {0}; give --tls-ca")]
    NativeRoots(std::io::Error),
    /// A key cannot be made.
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
}

/// What the process was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// `--tls-ca`
    pub(crate) ca: Option<PathBuf>,
    /// `--tls-cert` and `--tls-key`
    pub(crate) own: Option<(PathBuf, PathBuf)>,
    /// `--join-token-file`
    pub(crate) join_token: Option<PathBuf>,
}

impl Told {
    const fn is_anything(&self) -> bool {
        self.ca.is_some() || self.own.is_some() || self.join_token.is_some()
    }
}

/// What connections to control planes show and check.
#[derive(Debug)]
pub(crate) struct Passport {
    told: Told,
    node: String,
    group: String,
    state_dir: Arc<StateDir>,
    metrics: Arc<Metrics>,
    current: Mutex<Current>,
}

/// What was got with a join token.
#[derive(Debug, Default)]
struct Current {
    kept: Option<Arc<Kept>>,
    roots: Option<Roots>,
    /// A control plane did not take what is kept, or was not taken by it: the join token may help.
    is_rejected: bool,
}

impl Passport {
    /// Reads what there is. Files that cannot be used are told here rather than at the first connection.
    ///
    /// # Errors
    /// [`IdentityError`]
    pub(crate) fn open(
        told: Told,
        node: &str,
        group: &str,
        state_dir: Arc<StateDir>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, IdentityError> {
        let mut current = Current::default();
        if told.join_token.is_some() {
            current.kept = Kept::read(&state_dir, node, group)?.map(Arc::new);
            metrics.certificate_expires(current.kept.as_ref().map(|kept| kept.not_after));
            current.roots = Roots::read(&state_dir)?;
        }
        let (node, group) = (node.to_owned(), group.to_owned());
        let passport = Passport { told, node, group, state_dir, metrics, current: Mutex::new(current) };
        if passport.told.is_anything() {
            passport.tls(None)?;
        }
        if let Some(path) = &passport.told.join_token
            && !passport.is_in_force(Timestamp::now())
        {
            read_token(path)?;
        }
        Ok(passport)
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        // Nothing under this lock can leave it half changed.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> Option<Arc<Kept>> {
        self.lock().kept.clone()
    }

    /// Whether there is nothing to get before a stream can be opened.
    fn is_in_force(&self, now: Timestamp) -> bool {
        let current = self.lock();
        let is_good = |kept: &Arc<Kept>| now.as_second() < kept.not_after && !current.is_rejected;
        self.told.join_token.is_none() || current.kept.as_ref().is_some_and(is_good)
    }

    /// A control plane did not take what is kept, or was not taken by it. The next attempt tries the join token, and if
    /// that is no good either, the one after it what is kept again.
    pub(crate) fn rejected(&self) {
        self.lock().is_rejected = true;
    }

    /// The handshake of a connection; with `pin`, one to a control plane of which only the hash of its CA is known.
    fn tls(&self, pin: Option<&RootId>) -> Result<ClientConfig, IdentityError> {
        let own = match &self.told.own {
            Some((cert, key)) => {
                let (chain, key) = (certificates(cert)?, private_key(key)?);
                self.metrics.certificate_expires(expiry(&chain));
                Some((chain, key))
            }
            None if pin.is_some() => None,
            None => self.kept().map(|kept| (kept.chain.clone(), kept.key.clone_key())),
        };
        let builder = self.server_check(pin)?;
        let mut config = match own {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// How a control plane is checked: by the file that was given; else by what the join token led to; else by the
    /// system's certificates.
    fn server_check(
        &self,
        pin: Option<&RootId>,
    ) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, IdentityError> {
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(gateway_engine::certificate::provider()))
                .with_safe_default_protocol_versions()?;
        if let Some(path) = &self.told.ca {
            return Ok(builder.with_root_certificates(root_store(&certificates(path)?)?));
        }
        if self.told.join_token.is_none() {
            return builder.with_native_roots().map_err(IdentityError::NativeRoots);
        }
        let verifier = match pin {
            Some(pin) => ControlPlaneVerifier::pinned(*pin),
            None => {
                let roots = self.lock().roots.clone().unwrap_or_default();
                ControlPlaneVerifier::of(root_store(&roots.0)?)
            }
        };
        Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)))
    }

    /// SHA-256 of the roots that a control plane is checked against, if they are those of its own CA.
    pub(crate) fn trusts(&self) -> Vec<Vec<u8>> {
        if self.told.join_token.is_none() || self.told.ca.is_some() {
            return Vec::new();
        }
        let roots = self.lock().roots.clone().unwrap_or_default();
        roots.0.iter().map(|root| root_id(root).to_vec()).collect()
    }

    /// Takes other roots; what a data plane trusts then.
    ///
    /// # Errors
    /// When they cannot be used or kept: those there were stay.
    pub(crate) fn take_roots(&self, roots: &[Vec<u8>]) -> Result<wire::Trusts, IdentityError> {
        if self.told.join_token.is_some() && !roots.is_empty() {
            let roots = Roots(roots.iter().map(|root| CertificateDer::from(root.clone())).collect());
            root_store(&roots.0)?;
            roots.write(&self.state_dir)?;
            self.lock().roots = Some(roots);
        }
        Ok(wire::Trusts { roots: self.trusts() })
    }

    /// Takes a certificate that was issued for a key of ours.
    fn take(&self, ask: Ask, issued: wire::IssuedCertificate) -> Result<(), IdentityError> {
        let kept = Kept::of(ask, issued.chain, &self.node, &self.group)?;
        // The roots first: with them and the old certificate a restart still connects.
        self.take_roots(&issued.roots)?;
        kept.write(&self.state_dir)?;
        self.metrics.certificate_expires(Some(kept.not_after));
        let mut current = self.lock();
        current.kept = Some(Arc::new(kept));
        current.is_rejected = false;
        Ok(())
    }

    /// When the certificate in use ends.
    pub(crate) fn expires(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.kept()?.not_after).ok()
    }

    /// When to ask for the next certificate; `None`: never, somebody else sees to it.
    pub(crate) fn renew_at(&self) -> Option<Timestamp> {
        let kept = self.kept()?;
        Timestamp::from_second(kept.half_life).ok()
    }

    /// A request for the next certificate.
    ///
    /// # Errors
    /// When no key can be made.
    pub(crate) fn ask(&self) -> Result<Ask, IdentityError> {
        Ok(Ask::new()?)
    }

    /// Takes the answer to it.
    ///
    /// # Errors
    /// When it is not for that key, this node or this group, or cannot be kept: what there was stays.
    pub(crate) fn renewed(&self, ask: Ask, issued: wire::IssuedCertificate) -> Result<(), IdentityError> {
        self.take(ask, issued)
    }
}

fn read_token(path: &Path) -> Result<JoinToken, IdentityError> {
    /// More than a token is.
    const MAX: u64 = 4096;
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX).read_to_string(&mut text));
    read.map_err(|error| IdentityError::File {
        what: "the join token",
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    JoinToken::parse(text.trim()).map_err(|fault| IdentityError::Token { path: path.to_owned(), fault })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let fault =
        |reason: String| IdentityError::File { what: "the certificates", path: path.to_owned(), reason };
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fault(error.to_string()))?;
    if chain.is_empty() {
        return Err(fault("it holds no CERTIFICATE block".to_owned()));
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, IdentityError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| IdentityError::File {
        what: "the private key",
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn expiry(chain: &[CertificateDer<'_>]) -> Option<i64> {
    let read = gateway_proto::identity::Certificate::read(chain.first()?);
    read.ok().map(|read| read.not_after)
}

fn root_store(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, rustls::Error> {
    let mut store = RootCertStore::empty();
    certificates.iter().try_for_each(|certificate| store.add(certificate.clone()))?;
    Ok(store)
}

#[cfg(test)]
mod tests;
