//! One CA takes the place of another without a data plane losing its stream. The new root is first made and handed
//! out; once every connected data plane has it, it signs; the old one stays until nobody needs it: until the last
//! certificate that it has signed has ended, and no join token carries its hash. Data planes that were away meanwhile
//! know the old root only, and follow the new one by the certificate that the old one signed for it.
//!
//! Every replica looks at the clock and takes the step that is due; the store lets one of them.

use gateway_proto::identity::RootId;
use jiff::{SignedDuration, Timestamp};

use super::ca::NewRoot;
use super::{Authority, IdentityError, Root, hex, record};
use crate::store::identity::{AuthorityState, JoinTokenRecord};
use crate::store::{AuditRecord, StoreError};

/// Replicas have heard of a new root by then.
const SETTLE: SignedDuration = SignedDuration::from_secs(3);
/// Replicas whose clocks run apart by no more than this agree that a certificate has ended; less where lives are short.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Who has to have a root before it signs.
pub trait Fleet: Send + Sync {
    /// Which of the connected data planes check control planes against roots of ours, and not against this one (SHA-256,
    /// hexadecimal).
    fn lacking(&self, root: &str) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;
}

/// Why no new CA is made.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// One is taking the place of another already.
    #[error("a CA is being replaced already: wait until `gatewayctl ca status` shows one only")]
    Underway,
    /// It cannot be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Activate(RootId),
    Retire(RootId),
}

/// What is known of a rotation at one moment.
#[derive(Debug)]
struct Known<'a> {
    roots: &'a [Root],
    tokens: &'a [JoinTokenRecord],
    lacking: &'a [String],
}

impl Known<'_> {
    fn in_state(&self, state: AuthorityState) -> Option<&Root> {
        self.roots.iter().find(|root| root.state == state)
    }

    /// The step to take now, or why there is none; neither when there is one root only.
    fn due(&self, now: Timestamp) -> Result<Option<Step>, String> {
        if let Some(next) = self.in_state(AuthorityState::Next) {
            let settled = next.since.saturating_add(SETTLE).unwrap_or(Timestamp::MAX);
            return match self.lacking {
                [] if now >= settled => Ok(Some(Step::Activate(next.id))),
                [] => Err(format!("replicas hear of the next CA until {settled}")),
                lacking => {
                    Err(format!("connected data planes do not have the next CA yet: {}", named(lacking)))
                }
            };
        }
        let Some(old) = self.in_state(AuthorityState::Old) else { return Ok(None) };
        let last = old.lifetime + SKEW.min(old.lifetime / 8);
        let last = old.since.saturating_add(last).unwrap_or(Timestamp::MAX);
        if now < last {
            return Err(format!("the last certificate of the old CA ends by {last}"));
        }
        let live = |it: &&JoinTokenRecord| it.authority == old.id && it.expires > now && it.used < it.uses;
        match self.tokens.iter().find(live) {
            Some(token) => {
                Err(format!("the join token {:?} carries the old CA until {}", token.name, token.expires))
            }
            None => Ok(Some(Step::Retire(old.id))),
        }
    }
}

/// The first of some names, and how many more there are.
fn named(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

impl Authority {
    /// Begins to replace the CA.
    ///
    /// # Errors
    /// [`RotateError`]
    pub async fn rotate(&self, audit: AuditRecord, now: Timestamp) -> Result<RootId, RotateError> {
        self.refresh(now).await?;
        let trust = self.trust();
        if trust.roots().len() > 1 {
            return Err(RotateError::Underway);
        }
        if let Some(named) = self.store.master().await.map_err(IdentityError::from)? {
            self.vault.follow(&named).map_err(IdentityError::from)?;
        }
        let root = NewRoot::make(now).map_err(IdentityError::from)?;
        let crossed = root.cross_signed(trust.signer()).map_err(IdentityError::from)?;
        let lifetime = self.settings.lifetime;
        let record = record(&root, &self.vault, AuthorityState::Next, Some(crossed), lifetime, now);
        if !self.store.create_authority(record, Some(audit)).await.map_err(IdentityError::from)? {
            return Err(RotateError::Underway);
        }
        self.refresh(now).await?;
        Ok(root.id)
    }

    /// Takes the step of a rotation that is due; what it waits for, if it waits.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn advance(&self, fleet: &impl Fleet, now: Timestamp) -> Result<Option<String>, IdentityError> {
        let trust = self.trust();
        if trust.roots().len() < 2 {
            return Ok(None);
        }
        let step = match self.due(fleet, now).await? {
            Ok(Some(step)) => step,
            Ok(None) => return Ok(None),
            Err(why) => return Ok(Some(why)),
        };
        let done = match step {
            Step::Activate(id) => (self.store.activate_authority(id, now).await?, id, "signs from now on"),
            Step::Retire(id) => (self.store.retire_authority(id).await?, id, "is not trusted any more"),
        };
        if let (true, id, what) = done {
            tracing::info!(sha256 = hex(&id), "a CA of the control plane {what}");
        }
        self.refresh(now).await?;
        Ok(None)
    }

    /// What a rotation waits for; empty: nothing, or there is none.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn waits_for(&self, fleet: &impl Fleet, now: Timestamp) -> Result<String, IdentityError> {
        Ok(self.due(fleet, now).await?.err().unwrap_or_default())
    }

    async fn due(
        &self,
        fleet: &impl Fleet,
        now: Timestamp,
    ) -> Result<Result<Option<Step>, String>, IdentityError> {
        let trust = self.trust();
        let next = trust.roots().iter().find(|root| root.state == AuthorityState::Next);
        let lacking = match next {
            Some(next) => fleet.lacking(&hex(&next.id)).await?,
            None => Vec::new(),
        };
        let tokens = self.store.join_tokens().await?;
        Ok(Known { roots: trust.roots(), tokens: &tokens, lacking: &lacking }.due(now))
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;

    use super::*;

    fn root(number: u8, state: AuthorityState, since: Timestamp) -> Root {
        let lifetime = SignedDuration::from_hours(24);
        Root::for_test([number; 32], state, since, lifetime, CertificateDer::from(Vec::new()))
    }

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3600).expect("in range")
    }

    #[test]
    fn a_new_root_signs_once_everybody_has_it_and_the_old_one_goes_once_nobody_needs_it() {
        let (active, next) = (AuthorityState::Active, AuthorityState::Next);
        let due = |roots: &[Root], tokens: &[JoinTokenRecord], lacking: usize, now| {
            let lacking: Vec<_> = (0..lacking).map(|n| format!("dp-{n}")).collect();
            Known { roots, tokens, lacking: &lacking }.due(now)
        };
        assert_eq!(due(&[root(1, active, at(0))], &[], 0, at(9)), Ok(None), "nothing is replaced");

        let both = [root(2, next, at(0)), root(1, active, at(-9))];
        assert!(due(&both, &[], 0, at(0)).is_err(), "replicas do not know it yet");
        let waits = due(&both, &[], 3, at(1)).expect_err("data planes do not have it yet");
        assert!(waits.ends_with(": dp-0, dp-1, dp-2"), "{waits}");
        let waits = due(&both, &[], 12, at(1)).expect_err("nor do they");
        assert!(waits.ends_with(", dp-9 and 2 more"), "{waits}");
        assert_eq!(due(&both, &[], 0, at(1)), Ok(Some(Step::Activate([2; 32]))));

        let both = [root(2, active, at(0)), root(1, AuthorityState::Old, at(0))];
        assert!(due(&both, &[], 0, at(24)).is_err(), "its certificates may be good on other clocks");
        assert_eq!(due(&both, &[], 0, at(25)), Ok(Some(Step::Retire([1; 32]))));
        let token = |authority, expires, used| JoinTokenRecord {
            name: "edge".into(),
            digest: [0; 32],
            authority,
            group: "edge".into(),
            uses: 2,
            used,
            created: at(-1),
            expires,
        };
        let waits =
            due(&both, &[token([1; 32], at(99), 1)], 0, at(25)).expect_err("somebody may join with it");
        assert!(waits.contains("\"edge\""), "{waits}");
        for gone in [token([2; 32], at(99), 1), token([1; 32], at(25), 1), token([1; 32], at(99), 2)] {
            assert_eq!(due(&both, &[gone], 0, at(25)), Ok(Some(Step::Retire([1; 32]))));
        }
    }
}
