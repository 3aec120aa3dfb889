//! Who may come in: what the port speaks, whether a certificate is needed, and what becomes of those who are refused.
//!
//! Invariants: off loopback nobody without a certificate, or a join token to get one with, is told anything; every
//! refusal is in the audit log, one a second of those who have shown nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_proto::identity::Subject;
use gateway_proto::wire;
use jiff::Timestamp;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use crate::audit::AuditLog;
use crate::identity::{Authority, JoinRefused, Peer, Trust, Unwelcome};
use crate::store::AuditRecord;

/// Join tokens that are looked for at the same time; those there are, that are used at the same time; and how long one
/// waits for its turn. What somebody made up never stands in the way of what is good.
const LOOKING: usize = 16;
const ENROLLING: usize = 16;
const TURN: Duration = Duration::from_secs(5);
/// Longest object that the audit log keeps, in bytes.
const MAX_OBJECT: usize = 256;

/// The gate of the stream's port.
#[derive(Debug)]
pub struct Gate {
    authority: Arc<Authority>,
    audit: AuditLog,
    /// Data planes are taken without a certificate.
    is_open: bool,
    /// Data planes are taken in clear text.
    takes_clear_text: bool,
    looking: Semaphore,
    enrolling: Semaphore,
}

impl Gate {
    /// `is_open`: data planes are taken without a certificate; `takes_clear_text`: and without TLS.
    pub fn new(authority: Arc<Authority>, audit: AuditLog, is_open: bool, takes_clear_text: bool) -> Self {
        let (looking, enrolling) = (Semaphore::new(LOOKING), Semaphore::new(ENROLLING));
        Gate { authority, audit, is_open, takes_clear_text, looking, enrolling }
    }

    pub(super) const fn takes_clear_text(&self) -> bool {
        self.takes_clear_text
    }

    /// What holds at this moment.
    pub(super) fn trust(&self) -> Arc<Trust> {
        self.authority.trust()
    }

    /// How long a certificate of a data plane lives.
    pub(super) fn lifetime(&self) -> Duration {
        self.authority.lifetime()
    }

    /// What holds from moment to moment.
    pub(super) fn watch(&self) -> watch::Receiver<Arc<Trust>> {
        self.authority.watch()
    }

    /// A handshake came to nothing: worth an entry if a certificate was no good.
    pub(super) fn handshake_failed(&self, from: SocketAddr, error: &io::Error) {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(why)) = inner {
            tracing::info!(%from, %error, "a certificate was refused on the stream's port");
            self.audit.anonymous(record(
                "anonymous",
                from,
                "stream.open",
                format!("certificate: {why}"),
                401,
            ));
        } else {
            tracing::debug!(%from, %error, "a handshake of the stream failed");
        }
    }

    /// Whether a stream may be opened at all.
    pub(super) fn admit(&self, peer: Option<&Peer>, from: SocketAddr) -> Result<(), Status> {
        let checked = match peer {
            Some(peer) => peer.check(&self.authority.trust(), Timestamp::now()),
            None if self.is_open => Ok(()),
            None => Err(Unwelcome::NoCertificate),
        };
        checked.map_err(|why| self.refuse(peer, from, &why))
    }

    /// Whether the data plane is the one that its certificate names.
    pub(super) fn is(
        &self,
        peer: Option<&Peer>,
        hello: &wire::Hello,
        from: SocketAddr,
    ) -> Result<(), Status> {
        let Some(peer) = peer else { return Ok(()) };
        peer.is(&hello.node, &hello.group).map_err(|why| self.refuse(Some(peer), from, &why))
    }

    /// Whether a stream may go on.
    pub(super) fn check(&self, peer: &Peer, from: SocketAddr) -> Result<(), Status> {
        let checked = peer.check(&self.authority.trust(), Timestamp::now());
        checked.map_err(|why| self.refuse(Some(peer), from, &why))
    }

    /// The next certificate of a data plane that has shown a good one. `None`: the store does not answer; it asks again,
    /// and serves on by the one that it has.
    pub(super) async fn renew(
        &self,
        peer: &Peer,
        renew: &wire::Renew,
        from: SocketAddr,
    ) -> Result<Option<wire::IssuedCertificate>, Status> {
        let (Some(subject @ Subject::DataPlane { node, group }), Some(_)) = (&peer.subject, peer.root) else {
            return Err(Status::failed_precondition("this certificate is not ours to renew"));
        };
        let now = Timestamp::now();
        // The stream's other work waits meanwhile, and must not wait for long.
        let revoked = match timeout(TURN, self.authority.hold(node, group, now)).await {
            Ok(Ok(revoked)) => revoked,
            Ok(Err(refused @ JoinRefused::NameHeld { .. })) => {
                self.audit.refused(record(node, from, "stream.renew", refused.to_string(), 403));
                return Err(status(&refused));
            }
            late_or_failed => {
                let why = late_or_failed.map(Result::err);
                tracing::warn!(?why, node, "cannot renew a certificate: the store does not answer");
                return Ok(None);
            }
        };
        if let Some(at) = revoked.filter(|at| peer.valid_from <= *at) {
            return Err(self.refuse(Some(peer), from, &Unwelcome::Revoked(at)));
        }
        let issued = self.authority.renew(&renew.request, subject, revoked, now);
        issued.map(Some).map_err(|error| status(&error))
    }

    /// Turns a join token into a certificate.
    pub(super) async fn enroll(
        &self,
        asked: &wire::EnrollRequest,
        from: SocketAddr,
    ) -> Result<wire::IssuedCertificate, Status> {
        let refuse = |error| self.not_joined(asked, from, &error);
        let looking = turn(&self.looking).await?;
        let known = self.authority.known(asked, Timestamp::now()).await.map_err(refuse)?;
        drop(looking);
        let enrolling = turn(&self.enrolling).await?;
        let now = Timestamp::now();
        let joined = self.authority.enroll(known, asked, from.ip().to_string(), now).await;
        let (issued, valid_from) = joined.map_err(refuse)?;
        drop(enrolling);
        tracing::info!(node = asked.node, group = asked.group, %from, "a data plane has joined");
        // After a revocation it is good from the next second on: shown before, it would be refused, and another asked for.
        let wait = valid_from.duration_since(Timestamp::now());
        sleep(Duration::try_from(wait).unwrap_or_default().min(TURN)).await;
        Ok(issued)
    }

    fn not_joined(&self, asked: &wire::EnrollRequest, from: SocketAddr, error: &JoinRefused) -> Status {
        tracing::info!(%from, %error, "a data plane was not let join");
        let status = status(error);
        let code = if status.code() == Code::PermissionDenied { 403 } else { 401 };
        let node: String = asked.node.chars().take(64).collect();
        let record = record("anonymous", from, "enroll", format!("{node:?}: {error}"), code);
        if error.is_of_a_token() {
            self.audit.refused(record);
        } else {
            self.audit.anonymous(record);
        }
        status
    }

    fn refuse(&self, peer: Option<&Peer>, from: SocketAddr, why: &Unwelcome) -> Status {
        tracing::info!(%from, node = peer.map(Peer::name), %why, "a data plane was refused");
        let (status, code) = if why.is_about_the_certificate() {
            (Status::unauthenticated(why.to_string()), 401)
        } else {
            (Status::permission_denied(why.to_string()), 403)
        };
        match peer {
            Some(peer) => {
                self.audit.refused(record(peer.name(), from, "stream.open", why.to_string(), code));
            }
            None => self.audit.anonymous(record("anonymous", from, "stream.open", why.to_string(), code)),
        }
        status
    }
}

async fn turn(turns: &Semaphore) -> Result<SemaphorePermit<'_>, Status> {
    let turn = timeout(TURN, turns.acquire()).await;
    let full = || Status::resource_exhausted("too many want to join at once: try again");
    turn.ok().and_then(Result::ok).ok_or_else(full)
}

fn record(who: &str, from: SocketAddr, action: &str, mut object: String, status: u16) -> AuditRecord {
    object.truncate(object.floor_char_boundary(MAX_OBJECT));
    AuditRecord {
        at: Timestamp::now(),
        who: who.to_owned(),
        from: from.ip().to_string(),
        action: action.to_owned(),
        object,
        status,
    }
}

fn status(error: &JoinRefused) -> Status {
    let text = error.to_string();
    match error {
        JoinRefused::Name | JoinRefused::Request(_) => Status::invalid_argument(text),
        JoinRefused::OtherGroup { .. } | JoinRefused::NameHeld { .. } => Status::permission_denied(text),
        JoinRefused::Malformed(_) | JoinRefused::Unknown | JoinRefused::Expired(_) | JoinRefused::UsedUp => {
            Status::unauthenticated(text)
        }
        // The log has the reason; who asks has shown no token yet.
        JoinRefused::Store(_) => Status::unavailable("the store does not answer: try again"),
        JoinRefused::Sign(_) => Status::internal(text),
    }
}
