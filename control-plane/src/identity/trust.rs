//! What one moment knows: the roots, which of them signs, whose certificates are over, and what the stream's port shows
//! and asks for in a handshake. Never changed; a change is another one.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use gateway_proto::identity::{Certificate, RootId};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::ca::{Signer, Validity};
use super::{IdentityError, Peer, Settings};
use crate::secrets::Vault;
use crate::store::identity::{AuthorityRecord, AuthorityState, Identities};

/// A root, without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Tells it from others.
    pub id: RootId,
    /// What it is for.
    pub state: AuthorityState,
    /// Since when.
    pub since: Timestamp,
    /// The longest life of a certificate that it has signed.
    pub lifetime: SignedDuration,
    /// When it ends itself.
    pub expires: Timestamp,
    /// DER.
    pub certificate: CertificateDer<'static>,
    /// DER name.
    name: Vec<u8>,
    cross_signed: Option<CertificateDer<'static>>,
}

/// A moment.
pub struct Trust {
    roots: Vec<Root>,
    signer: Signer,
    revoked: HashMap<String, Timestamp>,
    tls: Arc<ServerConfig>,
    tls_validity: Validity,
    /// Certificates of `--tls-client-ca` are taken as well.
    takes_others: bool,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("roots", &self.roots).finish_non_exhaustive()
    }
}

impl Trust {
    /// Of what is stored, with a certificate of this process that begins now.
    pub(super) fn new(
        stored: Identities,
        vault: &Vault,
        settings: &Settings,
        now: Timestamp,
    ) -> Result<Self, IdentityError> {
        let active = stored.authorities.iter().find(|it| it.state == AuthorityState::Active);
        let active = active.ok_or(IdentityError::NoAuthority)?;
        let key = vault.open_authority(&active.id, &active.key).ok_or(IdentityError::Sealed)?;
        let signer = Signer::open(&active.certificate, &key)?;
        let roots = stored.authorities.iter().map(Root::read).collect::<Result<Vec<_>, _>>()?;
        let tls_validity = Validity::new(now, settings.lifetime, None);
        let (chain, key) = match &settings.own {
            Some(own) => (own.chain.clone(), own.key.clone_key()),
            None => server_chain(&roots, &signer, tls_validity)?,
        };
        let tls = Arc::new(server_config(chain, key, &roots, &settings.client_roots)?);
        let takes_others = !settings.client_roots.is_empty();
        let revoked = stored.revoked.into_iter().collect();
        Ok(Trust { roots, signer, revoked, tls, tls_validity, takes_others })
    }

    /// Every root: at most one in each state.
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// The one that signs.
    pub fn active(&self) -> &Root {
        // `new` has found one.
        self.roots.iter().find(|root| root.state == AuthorityState::Active).unwrap_or(&self.roots[0])
    }

    pub(super) const fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The handshake of the stream's port.
    pub fn tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.tls)
    }

    /// When this process needs another certificate: in the middle of this one's time.
    pub(super) fn renew_at(&self) -> Timestamp {
        let Validity { from, to } = self.tls_validity;
        from + to.duration_since(from) / 2
    }

    /// When the certificate that this process shows ends.
    pub(super) const fn tls_expires(&self) -> Timestamp {
        self.tls_validity.to
    }

    /// Who showed that certificate in a handshake of this moment; `None`: it cannot be read.
    pub fn peer(&self, certificate: &CertificateDer<'_>) -> Option<Peer> {
        Peer::read(certificate, self).ok()
    }

    /// Whether certificates of that root are taken; none of ours: those of `--tls-client-ca`.
    pub fn trusts(&self, root: Option<&RootId>) -> bool {
        root.map_or(self.takes_others, |id| self.roots.iter().any(|root| root.id == *id))
    }

    /// The root of that name (DER).
    pub(super) fn root_named(&self, name: &[u8]) -> Option<RootId> {
        self.roots.iter().find(|root| root.name == name).map(|root| root.id)
    }

    /// Up to when certificates of a node are refused.
    pub(super) fn revoked(&self, node: &str) -> Option<Timestamp> {
        self.revoked.get(node).copied()
    }
}

impl Root {
    fn read(record: &AuthorityRecord) -> Result<Self, IdentityError> {
        let read = Certificate::read(&record.certificate).map_err(|_| IdentityError::Sealed)?;
        Ok(Root {
            id: record.id,
            state: record.state,
            since: record.since,
            lifetime: SignedDuration::from_micros(record.lifetime_us),
            expires: Timestamp::from_second(read.not_after).unwrap_or(Timestamp::MAX),
            certificate: record.certificate.clone().into(),
            name: read.name,
            cross_signed: record.cross_signed.clone().map(Into::into),
        })
    }
}

#[cfg(test)]
impl Root {
    /// One that signs nothing.
    pub(super) fn for_test(
        id: RootId,
        state: AuthorityState,
        since: Timestamp,
        lifetime: SignedDuration,
        certificate: CertificateDer<'static>,
    ) -> Self {
        Root { id, state, since, lifetime, expires: since, certificate, name: Vec::new(), cross_signed: None }
    }
}

/// What a data plane needs to check us, whatever it knows: the certificate; the active root as the old one signed it,
/// for those that know only that; and the roots themselves, for those that know nothing but a hash.
pub(super) fn server_chain(
    roots: &[Root],
    signer: &Signer,
    validity: Validity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), IdentityError> {
    let (certificate, key) = signer.control_plane(validity)?;
    let active = roots.iter().filter(|root| root.state == AuthorityState::Active);
    let old = roots.iter().filter(|root| root.state == AuthorityState::Old);
    let has_old = old.clone().next().is_some();
    let crossed = active.clone().filter(|_| has_old).filter_map(|root| root.cross_signed.clone());
    let own = active.chain(old).map(|root| root.certificate.clone());
    Ok((std::iter::once(certificate).chain(crossed).chain(own).collect(), key))
}

/// A certificate is asked for, and checked when there is one; who has none is for the stream to decide. Nothing is
/// resumed: a ticket would outlive what it stands for.
fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: &[Root],
    client_roots: &[CertificateDer<'static>],
) -> Result<ServerConfig, IdentityError> {
    let mut store = RootCertStore::empty();
    for certificate in roots.iter().map(|root| &root.certificate).chain(client_roots) {
        store.add(certificate.clone())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
