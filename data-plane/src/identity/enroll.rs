//! The first certificate: a join token is shown to a control plane, which is known by the hash of its CA that the token
//! carries, and turned into a certificate for a key that was made here.

use std::path::Path;

use gateway_proto::wire;
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use tonic::Status;

use super::{IdentityError, Passport, connect, kept, read_token};
use crate::config::ControlPlane;

/// A key that a certificate is asked for.
pub(crate) struct Ask(KeyPair);

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ask(***)")
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrollError {
    /// Something here.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[from] connect::ConnectError),
    /// The control plane says no.
    #[error("cannot join: {}", .0.message())]
    Refused(#[from] Status),
}

impl Ask {
    /// For a new key.
    pub(super) fn new() -> Result<Self, rcgen::Error> {
        KeyPair::generate().map(Ask)
    }

    /// For a key that was kept (PEM).
    pub(super) fn with(key: &str) -> Result<Self, rcgen::Error> {
        KeyPair::from_pem(key).map(Ask)
    }

    /// The key, PKCS #8.
    pub(super) fn key(&self) -> Vec<u8> {
        self.0.serialize_der()
    }

    /// What is sent: the public key, signed with the private one.
    ///
    /// # Errors
    /// When nothing can be signed.
    pub(crate) fn request(&self) -> Result<Vec<u8>, IdentityError> {
        Ok(CertificateParams::default().serialize_request(&self.0)?.der().to_vec())
    }
}

impl Passport {
    /// Gets a certificate from a control plane, unless there is one that is good.
    ///
    /// # Errors
    /// [`EnrollError`]
    pub(crate) async fn join(&self, url: &ControlPlane, now: Timestamp) -> Result<(), EnrollError> {
        let Some(path) = self.told.join_token.as_ref().filter(|_| !self.is_in_force(now)) else {
            return Ok(());
        };
        let joined = self.join_with(path, url).await;
        // Once is enough: what is kept may be taken again.
        self.lock().is_rejected = false;
        joined
    }

    async fn join_with(&self, path: &Path, url: &ControlPlane) -> Result<(), EnrollError> {
        let token = read_token(path)?;
        let ask = kept::request(&self.state_dir)?;
        let channel = connect::channel(url, self.tls(Some(token.root()))?).await?;
        let mut client = wire::sync_client::SyncClient::new(channel);
        let request = wire::EnrollRequest {
            token: token.reveal().to_owned(),
            node: self.node.clone(),
            group: self.group.clone(),
            request: ask.request()?,
        };
        let answer = tokio::time::timeout(connect::ANSWER_WITHIN, client.enroll(request)).await;
        let issued = answer.map_err(|_| Status::deadline_exceeded("no answer in time"))??.into_inner();
        self.take(ask, issued)?;
        tracing::info!(control_plane = %url, node = self.node, group = self.group, "joined: the control plane's CA has issued a certificate");
        Ok(())
    }
}
