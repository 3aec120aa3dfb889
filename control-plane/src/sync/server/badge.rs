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
    roots: Roots,
    renewals: u32,
}

/// What the data plane knows of the roots.
#[derive(Debug, Default)]
struct Roots {
    /// Those that it has; `None`: it checks us in a way of its own.
    has: Option<BTreeSet<RootId>>,
    /// Those that it was told of.
    told: BTreeSet<RootId>,
    /// It was told that the root of its certificate goes.
    told_to_leave: bool,
}

impl Roots {
    /// Whether it has to be told of these, and then whether it has to leave the root of its certificate.
    fn news(&mut self, roots: &[(RootId, AuthorityState)], own: Option<&RootId>) -> Option<bool> {
        let current: BTreeSet<RootId> = roots.iter().map(|(id, _)| *id).collect();
        let leaves = own.is_some_and(|own| roots.contains(&(*own, AuthorityState::Old)));
        let knows = self.told == current || self.has.as_ref().is_none_or(|has| *has == current);
        if knows && (!leaves || self.told_to_leave) {
            return None;
        }
        self.told = current;
        self.told_to_leave |= leaves;
        Some(leaves)
    }
}

impl Badge {
    pub(super) fn new(caller: Caller, hello: &wire::Hello, gate: &Gate) -> Self {
        let has = (!hello.trusts.is_empty()).then(|| ids(&hello.trusts));
        Badge { caller, trust: gate.watch(), roots: Roots { has, ..Roots::default() }, renewals: 0 }
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
        let roots: Vec<_> = trust.roots().iter().map(|root| (root.id, root.state)).collect();
        let Some(leaves) = self.roots.news(&roots, peer.root.as_ref()) else { return Ok(None) };
        let within = (gate.lifetime() / 4).min(RENEW_WITHIN).as_millis();
        Ok(Some(Say::Trust(wire::Trust {
            roots: trust.roots().iter().map(|root| root.certificate.to_vec()).collect(),
            renew_within_ms: if leaves { u32::try_from(within).unwrap_or(u32::MAX) } else { 0 },
        })))
    }

    /// The roots that the data plane has now, in hexadecimal.
    pub(super) fn has(&mut self, trusts: &wire::Trusts) -> Vec<String> {
        let trusts = ids(&trusts.roots);
        let shown = trusts.iter().map(|id| crate::identity::hex(id)).collect();
        self.roots.has = Some(trusts);
        shown
    }

    /// The next certificate, if there can be one now.
    pub(super) async fn renew(&mut self, gate: &Gate, renew: &wire::Renew) -> Result<Option<Say>, Status> {
        let Some(peer) = &self.caller.peer else {
            return Err(Status::unauthenticated("there is no certificate to renew: join with a token"));
        };
        if self.renewals >= MAX_RENEWALS {
            return Err(Status::resource_exhausted("too many certificates were asked for on one stream"));
        }
        gate.check(peer, self.caller.from)?;
        let issued = gate.renew(peer, renew, self.caller.from).await?;
        self.renewals += u32::from(issued.is_some());
        Ok(issued.map(Say::Issued))
    }
}

/// What is no id is none of ours; of more than a few, none is.
fn ids(roots: &[impl AsRef<[u8]>]) -> BTreeSet<RootId> {
    roots.iter().take(8).filter_map(|root| root.as_ref().try_into().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_plane_is_told_of_each_change_of_the_roots_once_and_when_to_leave_its_own() {
        use AuthorityState::{Active, Next, Old};
        let (one, two) = ([1; 32], [2; 32]);
        let mut roots = Roots { has: Some([one].into()), ..Roots::default() };
        assert_eq!(roots.news(&[(one, Active)], Some(&one)), None);
        assert_eq!(roots.news(&[(two, Next), (one, Active)], Some(&one)), Some(false));
        assert_eq!(roots.news(&[(two, Next), (one, Active)], Some(&one)), None, "on its way");
        roots.has = Some([one, two].into());
        assert_eq!(roots.news(&[(two, Active), (one, Old)], Some(&one)), Some(true));
        assert_eq!(roots.news(&[(two, Active), (one, Old)], Some(&one)), None);

        // The stream of its next certificate.
        let mut roots = Roots { has: Some([one, two].into()), ..Roots::default() };
        assert_eq!(roots.news(&[(two, Active), (one, Old)], Some(&two)), None);
        assert_eq!(roots.news(&[(two, Active)], Some(&two)), Some(false));
        // It checks us by a file of its own, and still has to leave; an own PKI has not.
        assert_eq!(Roots::default().news(&[(two, Active), (one, Old)], Some(&one)), Some(true));
        assert_eq!(Roots::default().news(&[(two, Active), (one, Old)], None), None);
    }
}
