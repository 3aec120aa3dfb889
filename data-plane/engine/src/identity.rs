//! Identity: who may ask, and who vouches for it. Consumers and token issuers are checked here once, in compile;
//! a request finds them through a [`Directory`]. Policies hold the number of an issuer, never the issuer itself, so
//! that a change of its keys touches nothing that refers to it.

use std::fmt;
use std::sync::Arc;

use crate::engine::{Engine, State};
use crate::policy::chain::Said;

pub(crate) mod claims;
pub(crate) mod consumer;
mod credential;
pub(crate) mod fields;
pub(crate) mod issuer;
mod jwk;
mod jwt;
mod keys;
mod remote;

pub use claims::MAX_CLAIM_NAME;
pub use consumer::{Consumer, MAX_GROUPS};
pub use credential::{check_credential, check_credentials, digest_of};
pub use fields::speaks_of_identity;
pub use issuer::{MAX_LEEWAY, TokenIssuer};
pub use jwk::{MAX_JWKS_BYTES, MAX_KEYS};
pub use jwt::MAX_TOKEN_BYTES;
pub use keys::{Found, Keys};
pub use remote::RemoteKeys;

pub(crate) use jwt::{Token, Unsound};

/// The number of a token issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuerSlot(pub u32);

/// Where a request looks up who asks: the consumers and issuers of one configuration.
#[derive(Clone, Copy)]
pub struct Directory<'a>(Option<&'a State>);

impl<'a> Directory<'a> {
    /// Nobody is known.
    pub const EMPTY: Directory<'static> = Directory(None);

    /// Those of a configuration.
    pub fn of(engine: &'a Engine) -> Self {
        Directory(Some(&engine.state))
    }

    /// Somebody may be known here: upstreams may believe what they are told about who asks.
    #[inline]
    pub(crate) fn knows_anybody(self) -> bool {
        self.0.is_some_and(|state| !state.issuers.is_empty() || !state.consumers.is_empty())
    }

    /// A consumer by `namespace/name`.
    pub(crate) fn consumer(self, qualified: &str) -> Option<&'a Consumer> {
        let state = self.0?;
        state.consumers.look(&state.seed, qualified).map(|consumer| &***consumer)
    }

    /// What one of its consumers says.
    pub(crate) fn said_by(self, consumer: &'a Consumer) -> Said<'a> {
        let joined = self.0.zip(consumer.referred).and_then(|(state, slot)| state.joins.get(slot));
        Said::of(&consumer.policies, joined.map(|joined| &**joined))
    }

    /// The keys that are good.
    pub(crate) fn keys(self) -> Option<&'a Keys> {
        self.0.map(|state| &*state.keys)
    }

    /// An issuer by number.
    pub(crate) fn issuer(self, slot: IssuerSlot) -> Option<&'a Arc<TokenIssuer>> {
        self.0?.issuers.get(slot.0)
    }
}

impl fmt::Debug for Directory<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").finish_non_exhaustive()
    }
}
