//! Who is calling the admin API, and what they may do there.
//! A token is `gwa_`, 43 random base62 digits (256 bits) and a 6-digit checksum, so that a mistyped or foreign string
//! is told from a revoked one without asking anybody. Only the SHA-256 of a secret is ever kept or compared, in
//! constant time. Every replica holds all tokens in memory and reads them again when their version moves, so that a
//! revocation is effective everywhere within a second, and known tokens still work while the database is away.
//!
//! It decides; it does not answer requests: the API turns an [`AuthError`] into a problem document.

mod admin_file;
mod secret;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use gateway_proto::admin::Role;
use jiff::Timestamp;
use subtle::ConstantTimeEq as _;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

pub use admin_file::{ADMIN_FILE_TOKEN, AdminFileError, put_admin_token_file};
pub use secret::{Secret, SecretFault};

use crate::store::{Store, StoreError, TokenRecord, Tokens};

/// Name of the token that a new store is created with.
pub const FIRST_TOKEN: &str = "admin";

/// How often an unknown but well-formed token may make a replica ask the database for newer tokens.
const MISS_INTERVAL: Duration = Duration::from_millis(250);

/// Makes a token: the secret to show once, and the record to keep.
pub fn new_token(
    name: impl Into<String>,
    role: Role,
    namespaces: Vec<String>,
    expires: Option<Timestamp>,
) -> (Secret, TokenRecord) {
    let secret = Secret::generate();
    let record = TokenRecord {
        name: name.into(),
        digest: secret.digest(),
        role,
        namespaces,
        created: Timestamp::now(),
        expires,
    };
    (secret, record)
}

/// The token of an `Authorization: Bearer …` value; the scheme's case does not matter (RFC 9110 §11.1).
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' ')).filter(|token| !token.is_empty())
}

/// Somebody who showed a valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Name of the token.
    pub name: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// Namespaces it is good for; empty: all.
    pub namespaces: Arc<[String]>,
    /// When it ends; `None`: never.
    pub expires: Option<Timestamp>,
    /// Finds the token again.
    digest: [u8; 32],
}

impl Principal {
    /// Whether it may do what needs that role, in that namespace; `None`: in all of them. An admin is never bound to
    /// namespaces.
    pub fn allows(&self, needed: Role, namespace: Option<&str>) -> bool {
        self.role >= needed && self.covers(namespace)
    }

    fn covers(&self, namespace: Option<&str>) -> bool {
        if self.role == Role::Admin || self.namespaces.is_empty() {
            return true;
        }
        namespace.is_some_and(|namespace| self.namespaces.iter().any(|own| own == namespace))
    }
}

/// Why a token is not accepted. All but `Unavailable` are a 401 whose detail must not tell them apart any further
/// than these messages do.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// It cannot be a token of ours.
    #[error("the token is malformed ({0}): copy it whole, without quotes or line breaks")]
    Malformed(#[from] SecretFault),
    /// It is none that is kept: revoked, or of another store.
    #[error(
        "the token is unknown or was revoked: make one with `gatewayctl token create`, or start the control plane with --admin-token-file"
    )]
    Unknown,
    /// It ended.
    #[error("the token expired at {0}: make a new one with `gatewayctl token create`")]
    Expired(Timestamp),
    /// Tokens changed and the new ones cannot be read (HTTP 503).
    #[error("tokens cannot be checked now: {0}")]
    Unavailable(#[from] StoreError),
}

/// Checks tokens against an in-memory copy of the store's.
#[derive(Debug)]
pub struct Authenticator {
    store: Arc<dyn Store>,
    version: watch::Receiver<u64>,
    current: ArcSwap<TokenSet>,
    /// Held while the copy is renewed; when an unknown token last made it ask.
    renewal: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct TokenSet {
    version: u64,
    /// By the first bytes of the digest; the rest is compared in constant time.
    by_prefix: HashMap<[u8; 8], Vec<Known>>,
}

#[derive(Debug)]
struct Known {
    digest: [u8; 32],
    expires: Option<Timestamp>,
    principal: Principal,
}

impl Authenticator {
    /// Reads all tokens.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn new(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let version = store.watch_tokens();
        let current = ArcSwap::from_pointee(TokenSet::new(store.tokens().await?));
        Ok(Authenticator { store, version, current, renewal: Mutex::new(None) })
    }

    /// Who shows this secret.
    ///
    /// # Errors
    /// When it is no valid token, or tokens are known to have changed and cannot be read.
    pub async fn authenticate(&self, secret: &str) -> Result<Principal, AuthError> {
        let made_here = secret::check(secret)?;
        let digest = secret::digest(secret);
        let wanted = *self.version.borrow();
        if self.current.load().version < wanted {
            self.renew(wanted).await?;
        }
        if let Some(outcome) = self.current.load().find(&digest, Timestamp::now()) {
            return outcome;
        }
        // Another replica may have made it a moment ago. Strings that carry no checksum never get that far.
        if made_here && self.renew_after_miss().await? {
            return self.current.load().find(&digest, Timestamp::now()).unwrap_or(Err(AuthError::Unknown));
        }
        Err(AuthError::Unknown)
    }

    /// Tells when tokens changed, so that what was allowed for long is asked for again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.clone()
    }

    /// Whether what was found for a secret would be found for it now.
    ///
    /// # Errors
    /// When tokens are known to have changed and cannot be read.
    pub async fn is_still(&self, principal: &Principal) -> Result<bool, StoreError> {
        let wanted = *self.version.borrow();
        if self.current.load().version < wanted {
            self.renew(wanted).await?;
        }
        let found = self.current.load().find(&principal.digest, Timestamp::now());
        Ok(found.is_some_and(|found| found.is_ok_and(|found| found == *principal)))
    }

    async fn renew(&self, wanted: u64) -> Result<(), StoreError> {
        let _one_at_a_time = self.renewal.lock().await;
        if self.current.load().version < wanted {
            self.current.store(Arc::new(TokenSet::new(self.store.tokens().await?)));
        }
        Ok(())
    }

    /// True if the tokens are newer than they were; asks the database at most once per [`MISS_INTERVAL`].
    async fn renew_after_miss(&self) -> Result<bool, StoreError> {
        let before = self.current.load().version;
        let mut last = self.renewal.lock().await;
        if self.current.load().version > before {
            return Ok(true);
        }
        if last.is_some_and(|at| at.elapsed() < MISS_INTERVAL) {
            return Ok(false);
        }
        *last = Some(Instant::now());
        if self.store.tokens_version().await? <= before {
            return Ok(false);
        }
        self.current.store(Arc::new(TokenSet::new(self.store.tokens().await?)));
        Ok(true)
    }
}

impl TokenSet {
    fn new(tokens: Tokens) -> Self {
        let mut by_prefix: HashMap<[u8; 8], Vec<Known>> = HashMap::with_capacity(tokens.tokens.len());
        for token in tokens.tokens {
            let known = Known {
                digest: token.digest,
                expires: token.expires,
                principal: Principal {
                    name: token.name.into(),
                    role: token.role,
                    namespaces: token.namespaces.into(),
                    expires: token.expires,
                    digest: token.digest,
                },
            };
            by_prefix.entry(prefix(&token.digest)).or_default().push(known);
        }
        TokenSet { version: tokens.version, by_prefix }
    }

    fn find(&self, digest: &[u8; 32], now: Timestamp) -> Option<Result<Principal, AuthError>> {
        let candidates = self.by_prefix.get(&prefix(digest))?;
        let mut expired = None;
        for known in candidates.iter().filter(|known| bool::from(known.digest.ct_eq(digest))) {
            match known.expires.filter(|end| *end <= now) {
                None => return Some(Ok(known.principal.clone())),
                Some(end) => expired = Some(Err(AuthError::Expired(end))),
            }
        }
        expired
    }
}

fn prefix(digest: &[u8; 32]) -> [u8; 8] {
    let mut prefix = [0; 8];
    prefix.copy_from_slice(&digest[..8]);
    prefix
}

#[cfg(test)]
mod tests;
