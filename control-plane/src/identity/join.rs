//! Join tokens: made for somebody who may start data planes of one group, and turned into certificates by those data
//! planes. The store counts their uses; who shows one that is no good is told no more than what to do about it.

use gateway_proto::identity::{JoinToken, JoinTokenFault, MAX_NAME, Subject, is_name};
use gateway_proto::wire;
use jiff::{SignedDuration, Timestamp};
use rand::distr::{Alphanumeric, SampleString as _};

use super::Authority;
use super::ca::{BadRequest, RequestedKey, SignError, Validity};
use crate::store::identity::{HeldName, JoinTokenRecord, Joined, Joining};
use crate::store::{AuditRecord, StoreError};

/// Why a data plane gets no certificate.
#[derive(Debug, thiserror::Error)]
pub enum JoinRefused {
    /// It is none of ours.
    #[error("the join token is no good: {0}")]
    Malformed(#[from] JoinTokenFault),
    /// Its node or group cannot be named in a certificate.
    #[error("node and group are 1 to {MAX_NAME} letters, digits, dots, dashes and underscores")]
    Name,
    /// The request is malformed.
    #[error(transparent)]
    Request(#[from] BadRequest),
    /// It is none that is kept.
    #[error("the join token is unknown or was revoked: make one with `gatewayctl join-token create`")]
    Unknown,
    /// It has ended.
    #[error("the join token expired at {0}: make a new one with `gatewayctl join-token create`")]
    Expired(Timestamp),
    /// It was used as often as it may be.
    #[error("the join token is used up: make a new one with `gatewayctl join-token create`")]
    UsedUp,
    /// It is for another group.
    #[error(
        "the join token is for the group {token:?}, the data plane is of {said:?}: start it with --group {token}"
    )]
    OtherGroup {
        /// Of the token.
        token: String,
        /// `--group`.
        said: String,
    },
    /// Another group's data plane has that name.
    #[error(
        "the name {node:?} belongs to a data plane of the group {:?} until {}: choose another --node, or free it with `gatewayctl nodes revoke {node}`", .held.group, .held.until
    )]
    NameHeld {
        /// `--node`.
        node: String,
        /// Whose it is.
        held: HeldName,
    },
    /// Nothing can be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Authority {
    /// A new join token: what is shown once, and what is kept. The caller stores it.
    pub fn new_join_token(
        &self,
        name: String,
        group: String,
        uses: u32,
        ttl: SignedDuration,
        now: Timestamp,
    ) -> (JoinToken, JoinTokenRecord) {
        let secret = Alphanumeric.sample_string(&mut rand::rng(), JoinToken::SECRET_DIGITS);
        let authority = self.trust().active().id;
        let token = JoinToken::compose(&secret, &authority);
        let expires = now.checked_add(ttl).unwrap_or(Timestamp::MAX);
        let digest = token.digest();
        (token, JoinTokenRecord { name, digest, authority, group, uses, used: 0, created: now, expires })
    }

    /// Whether a join token is worth a transaction: its form and checksum, then a read. What it costs to refuse one that is
    /// not.
    ///
    /// # Errors
    /// [`JoinRefused`]
    pub async fn known(&self, asked: &wire::EnrollRequest, now: Timestamp) -> Result<Known, JoinRefused> {
        let token = JoinToken::parse(asked.token.trim())?;
        if !is_name(&asked.node) || !is_name(&asked.group) {
            return Err(JoinRefused::Name);
        }
        let record = self.store.join_token(token.digest()).await?.ok_or(JoinRefused::Unknown)?;
        if record.expires <= now {
            return Err(JoinRefused::Expired(record.expires));
        }
        Ok(Known { token: record.digest })
    }

    /// Turns a join token into a certificate; from when that is good, which may be in a second. `from` is the caller's
    /// address.
    ///
    /// # Errors
    /// [`JoinRefused`]
    pub async fn enroll(
        &self,
        known: Known,
        asked: &wire::EnrollRequest,
        from: String,
        now: Timestamp,
    ) -> Result<(wire::IssuedCertificate, Timestamp), JoinRefused> {
        let key = RequestedKey::read(&asked.request)?;
        let audit = AuditRecord {
            at: now,
            who: asked.node.clone(),
            from,
            action: "enroll".to_owned(),
            object: String::new(),
            status: 200,
        };
        let validity = |revoked| Validity::new(now, self.settings.lifetime, revoked);
        let joining = Joining {
            token: known.token,
            key: key.digest(),
            node: &asked.node,
            group: &asked.group,
            at: now,
            until: validity(None).to,
            audit,
        };
        match self.store.join(joining).await? {
            Joined::Yes { revoked } => {
                let subject = Subject::DataPlane { group: asked.group.clone(), node: asked.node.clone() };
                let validity = validity(revoked);
                Ok((self.issue(&self.trust(), &key, &subject, validity)?, validity.from))
            }
            Joined::Unknown => Err(JoinRefused::Unknown),
            Joined::Expired(at) => Err(JoinRefused::Expired(at)),
            Joined::UsedUp => Err(JoinRefused::UsedUp),
            Joined::OtherGroup(token) => Err(JoinRefused::OtherGroup { token, said: asked.group.clone() }),
            Joined::NameHeld(held) => Err(JoinRefused::NameHeld { node: asked.node.clone(), held }),
        }
    }
}

/// A join token that there is.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    token: [u8; 32],
}

impl JoinRefused {
    /// Whether it was said to somebody who has shown a token that there is.
    pub const fn is_of_a_token(&self) -> bool {
        matches!(self, JoinRefused::UsedUp | JoinRefused::OtherGroup { .. } | JoinRefused::NameHeld { .. })
    }
}
