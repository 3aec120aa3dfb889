//! Who data planes are. The control plane has a CA of its own, made once and sealed in the store. A join token gets a
//! data plane its first certificate, which names its group and node; the next ones it gets over its stream.
//! Every replica holds the same roots and revocations and reads them again when the version of the tokens moves.
//!
//! Invariants: a private key of the CA is in the clear in memory only; of what a data plane asks for, only its key
//! counts: names come from the token or from the certificate that it has; functions that depend on time take it.

mod ca;
mod join;
mod peer;
mod rotation;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use gateway_proto::identity::Subject;
use gateway_proto::wire;
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

pub use ca::{BadRequest, SignError};
pub use join::{JoinRefused, Known};
pub use peer::{Peer, Unwelcome};
pub use rotation::{Fleet, RotateError};
pub use trust::{Root, Trust};

use crate::secrets::{SecretError, Vault};
use crate::store::identity::{AuthorityRecord, AuthorityState, Joined, Revoked};
use crate::store::{AuditRecord, Store, StoreError};
use ca::{NewRoot, RequestedKey, Validity};

/// How long certificates of data planes live when nothing is said.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Shortest and longest that may be said.
pub const LIFETIMES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(90 * 24 * 3600));
/// Wait before the store is asked again after it failed, and how often the clock is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Tries to find or make the CA while other replicas do the same.
const TRIES: usize = 5;

/// Why there is nothing to work with.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store is sealed with a master key that is not at hand.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Nothing can be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The CA in the store is not as it was made.
    #[error(
        "the control plane's CA cannot be read from the store: it was changed by hand, or sealed with another master key"
    )]
    Sealed,
    /// There is none, though one was made.
    #[error("the store holds no CA that signs: it was changed by hand")]
    NoAuthority,
    /// A certificate cannot be used in a handshake.
    #[error("the certificates of the stream cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// What a process is started with.
pub struct Settings {
    /// How long certificates of data planes live.
    pub lifetime: SignedDuration,
    /// What the stream's port shows instead of a certificate of the CA.
    pub own: Option<OwnCertificate>,
    /// Whose certificates are taken beside those of the CA.
    pub client_roots: Vec<CertificateDer<'static>>,
}

/// `--tls-cert` and `--tls-key`.
pub struct OwnCertificate {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

/// The CA at work.
pub struct Authority {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    settings: Settings,
    trust: watch::Sender<Arc<Trust>>,
    refreshing: Mutex<()>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("trust", &*self.trust.borrow()).finish_non_exhaustive()
    }
}

impl Authority {
    /// Of a store; of several replicas that start at once on a new one, one makes it.
    ///
    /// # Errors
    /// [`IdentityError`]
    pub async fn open(
        store: Arc<dyn Store>,
        vault: Arc<Vault>,
        settings: Settings,
        now: Timestamp,
    ) -> Result<Arc<Self>, IdentityError> {
        make_once(&*store, &vault, settings.lifetime, now).await?;
        let trust = read(&*store, &vault, &settings, now).await?;
        let trust = watch::Sender::new(Arc::new(trust));
        Ok(Arc::new(Authority { store, vault, settings, trust, refreshing: Mutex::default() }))
    }

    /// What holds now.
    pub fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.trust.borrow())
    }

    /// Tells of every change.
    pub fn watch(&self) -> watch::Receiver<Arc<Trust>> {
        self.trust.subscribe()
    }

    /// How long a certificate of a data plane lives.
    pub fn lifetime(&self) -> Duration {
        Duration::try_from(self.settings.lifetime).unwrap_or_default()
    }

    /// Follows the store and the clock until cancelled.
    pub async fn follow(self: Arc<Self>, fleet: Arc<impl Fleet>, stop: CancellationToken) {
        let mut changes = self.store.watch_tokens();
        // What changed between the first reading and this subscription was told to nobody.
        changes.mark_changed();
        let mut failing = false;
        loop {
            let changed = tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return,
                },
                () = tokio::time::sleep(TICK) => false,
            };
            let now = Timestamp::now();
            match self.keep_up(&*fleet, changed || failing, now).await {
                Ok(()) => failing = false,
                Err(error) if failing => tracing::debug!(%error, "still cannot read the CA"),
                Err(error) => {
                    failing = true;
                    tracing::warn!(%error, "cannot read the CA from the store: going on with what is known");
                }
            }
        }
    }

    async fn keep_up(&self, fleet: &impl Fleet, changed: bool, now: Timestamp) -> Result<(), IdentityError> {
        if changed || now >= self.trust().renew_at() {
            self.refresh(now).await?;
        }
        self.advance(fleet, now).await.map(drop)
    }

    /// Reads everything again, and makes a certificate of this process anew.
    ///
    /// # Errors
    /// When the store does not answer, or holds nothing that can be used: what was known stays.
    pub async fn refresh(&self, now: Timestamp) -> Result<(), IdentityError> {
        // One at a time: what was read first must not take the place of what was read last.
        let _one = self.refreshing.lock().await;
        let next = read(&*self.store, &self.vault, &self.settings, now).await?;
        self.trust.send_replace(Arc::new(next));
        Ok(())
    }

    /// Refuses the certificates that a node has by now, also those that streams were opened with. With `unseen`, also
    /// of one that nobody has heard of.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn revoke(
        &self,
        node: &str,
        unseen: bool,
        audit: AuditRecord,
        now: Timestamp,
    ) -> Result<Revoked, IdentityError> {
        let revoked = self.store.revoke_node(node, unseen, now, audit).await?;
        self.refresh(now).await?;
        Ok(revoked)
    }

    /// Keeps a node's name for its group for another life of a certificate; up to when its certificates were revoked, as
    /// the store says at this moment.
    ///
    /// # Errors
    /// [`JoinRefused::NameHeld`], or when the store does not answer.
    pub async fn hold(
        &self,
        node: &str,
        group: &str,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, JoinRefused> {
        let until = Validity::new(now, self.settings.lifetime, None).to;
        match self.store.hold_name(node, group, (now, until)).await? {
            Joined::Yes { revoked } => Ok(revoked),
            Joined::NameHeld(held) => Err(JoinRefused::NameHeld { node: node.to_owned(), held }),
            other => Err(StoreError::Broken(format!("a name was asked for, the answer is {other:?}")).into()),
        }
    }

    /// A certificate that takes the place of one that is still good; `subject` is that of that one, `revoked` what
    /// [`Self::hold`] says: a replica that has not heard of a revocation must not issue what outlives it.
    ///
    /// # Errors
    /// [`JoinRefused::Request`], or when nothing can be signed.
    pub fn renew(
        &self,
        request: &[u8],
        subject: &Subject,
        revoked: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<wire::IssuedCertificate, JoinRefused> {
        let trust = self.trust();
        self.issue(
            &trust,
            &RequestedKey::read(request)?,
            subject,
            Validity::new(now, self.settings.lifetime, revoked),
        )
    }

    fn issue(
        &self,
        trust: &Trust,
        key: &RequestedKey,
        subject: &Subject,
        validity: Validity,
    ) -> Result<wire::IssuedCertificate, JoinRefused> {
        let certificate = trust.signer().data_plane(key, subject, validity)?;
        let roots = trust.roots().iter().map(|root| root.certificate.to_vec()).collect();
        Ok(wire::IssuedCertificate { chain: vec![certificate], roots })
    }

    /// When the certificate that the stream's port shows ends; `None`: it is one of an own PKI.
    pub fn stream_certificate_expires(&self) -> Option<Timestamp> {
        self.settings.own.is_none().then(|| self.trust().tls_expires())
    }
}

/// What the store holds, after it was told how long certificates live here.
async fn read(
    store: &dyn Store,
    vault: &Vault,
    settings: &Settings,
    now: Timestamp,
) -> Result<Trust, IdentityError> {
    let stored = store.identities().await?;
    let lifetime_us = micros(settings.lifetime);
    let active = stored.authorities.iter().find(|it| it.state == AuthorityState::Active);
    if let Some(active) = active.filter(|active| active.lifetime_us < lifetime_us) {
        store.lengthen_authority(active.id, lifetime_us).await?;
    }
    Trust::new(stored, vault, settings, now)
}

/// Sees to it that there is a CA.
async fn make_once(
    store: &dyn Store,
    vault: &Vault,
    lifetime: SignedDuration,
    now: Timestamp,
) -> Result<(), IdentityError> {
    for _ in 0..TRIES {
        if !store.identities().await?.authorities.is_empty() {
            return Ok(());
        }
        // Another replica may have named another master key a moment ago.
        if let Some(named) = store.master().await? {
            vault.follow(&named)?;
        }
        let root = NewRoot::make(now)?;
        let record = record(&root, vault, AuthorityState::Active, None, lifetime, now);
        if store.create_authority(record, None).await? {
            tracing::info!(sha256 = hex(&root.id), "made the control plane's CA");
            return Ok(());
        }
    }
    Err(IdentityError::NoAuthority)
}

fn record(
    root: &NewRoot,
    vault: &Vault,
    state: AuthorityState,
    cross_signed: Option<Vec<u8>>,
    lifetime: SignedDuration,
    since: Timestamp,
) -> AuthorityRecord {
    AuthorityRecord {
        state,
        id: root.id,
        certificate: root.certificate.clone(),
        cross_signed,
        since,
        lifetime_us: micros(lifetime),
        key: vault.seal_authority(&root.id, &root.key),
    }
}

fn micros(duration: SignedDuration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Lower-case hex digits, as people see an id.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
