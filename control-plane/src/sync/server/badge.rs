//! The certificate of a data plane over the life of its stream: it ends, is revoked, is renewed, and the roots change
//! while the stream goes on.

use std::collections::BTreeSet;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_proto::identity::RootId;
use gateway_proto::wire;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::Status;
use wire::control_plane_message::Message as Say;

use super::gate::Gate;
use crate::identity::{Peer, Trust};
use crate::store::identity::AuthorityState;

/// Who opened a stream.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// From where.
    pub(super) from: SocketAddr,
    /// With which certificate.
    pub(super) peer: Option<Arc<Peer>>,
}

/// Certificates that are issued on one stream: the first takes its data plane to a new one.
const MAX_RENEWALS: u32 = 8;
/// A certificate is looked at again so long after its end, by when it has ended on any clock that counts.
const AFTER: Duration = Duration::from_millis(50);
/// Longest time that data planes are given to leave a root that goes.
const RENEW_WITHIN: Duration = Duration::from_secs(300);

/// The certificate of one stream.
pub(super) struct Badge {
    caller: Caller,
    trust: watch::Receiver<Arc<Trust>>,
    /// The roots that the data plane has; `None`: it checks us in a way of its own.
    trusts: Option<BTreeSet<RootId>>,
    /// The roots that it was told of.
    told: BTreeSet<RootId>,
    renewals: u32,
}

impl Badge {
    pub(super) fn new(caller: Caller, hello: &wire::Hello, gate: &Gate) -> Self {
        let trusts = (!hello.trusts.is_empty()).then(|| ids(&hello.trusts));
        Badge { caller, trust: gate.watch(), told: BTreeSet::new(), trusts, renewals: 0 }
    }

    /// Waits until there is something to review.
    pub(super) async fn changed(&mut self) {
        let Some(peer) = &self.caller.peer else { return pending().await };
        let left = peer.expires.duration_since(Timestamp::now());
        let left = Duration::try_from(left).unwrap_or_default() + AFTER;
        tokio::select! {
            changed = self.trust.changed() => if changed.is_err() { pending().await },
            () = sleep(left) => {}
        }
    }

    /// Whether the stream may go on, and what the data plane has to be told.
    pub(super) fn review(&mut self, gate: &Gate) -> Result<Option<Say>, Status> {
        let Some(peer) = &self.caller.peer else { return Ok(None) };
        gate.check(peer, self.caller.from)?;
        let trust = Arc::clone(&self.trust.borrow_and_update());
        let current: BTreeSet<RootId> = trust.roots().iter().map(|root| root.id).collect();
        let goes =
            |root: &RootId| trust.roots().iter().any(|it| it.id == *root && it.state == AuthorityState::Old);
        let leaves = peer.root.as_ref().is_some_and(goes);
        let knows = self.trusts.as_ref().is_none_or(|trusts| *trusts == current);
        if knows && !leaves || self.told == current {
            return Ok(None);
        }
        let within = if leaves { gate.lifetime().min(RENEW_WITHIN * 4) / 4 } else { Duration::ZERO };
        self.told = current;
        Ok(Some(Say::Trust(wire::Trust {
            roots: trust.roots().iter().map(|root| root.certificate.to_vec()).collect(),
            // 0 would say that there is time.
            renew_within_ms: if leaves {
                u32::try_from(within.as_millis()).unwrap_or(u32::MAX).max(1)
            } else {
                0
            },
        })))
    }

    /// The roots that the data plane has now, in hexadecimal.
    pub(super) fn has(&mut self, trusts: &wire::Trusts) -> Vec<String> {
        let trusts = ids(&trusts.roots);
        let shown = trusts.iter().map(|id| crate::identity::hex(id)).collect();
        self.trusts = Some(trusts);
        shown
    }

    /// The next certificate.
    pub(super) fn renew(&mut self, gate: &Gate, renew: &wire::Renew) -> Result<Say, Status> {
        let Some(peer) = &self.caller.peer else {
            return Err(Status::unauthenticated("there is no certificate to renew: join with a token"));
        };
        self.renewals += 1;
        if self.renewals > MAX_RENEWALS {
            return Err(Status::resource_exhausted("too many certificates were asked for on one stream"));
        }
        gate.check(peer, self.caller.from)?;
        gate.renew(peer, renew).map(Say::Issued)
    }
}

/// What is no id is none of ours; of more than a few, none is.
fn ids(roots: &[impl AsRef<[u8]>]) -> BTreeSet<RootId> {
    roots.iter().take(8).filter_map(|root| root.as_ref().try_into().ok()).collect()
}
