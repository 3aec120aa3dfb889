//! What is kept of identities: the control plane's CA (two while one takes the place of the other), join tokens and
//! who came with them, and whose certificates are over. All of it is outside revisions: it belongs to the
//! installation, not to the configuration, and a rollback brings none of it back.

use async_trait::async_trait;
use gateway_proto::identity::RootId;
use jiff::Timestamp;

use super::{AuditRecord, MasterId, StoreError, TokenError};

/// Most join tokens that are kept.
pub const MAX_JOIN_TOKENS: u32 = 10_000;

/// What a CA is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthorityState {
    /// Trusted, and signs nothing yet.
    Next,
    /// Signs.
    Active,
    /// Trusted for what it has signed.
    Old,
}

impl AuthorityState {
    /// As it is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            AuthorityState::Next => "next",
            AuthorityState::Active => "active",
            AuthorityState::Old => "old",
        }
    }
}

/// A CA as it is kept: its key is sealed. What is in it, `identity` knows.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorityRecord {
    /// What it is for.
    pub state: AuthorityState,
    /// SHA-256 of its certificate.
    pub id: RootId,
    /// Its certificate, signed by itself (DER).
    pub certificate: Vec<u8>,
    /// The same, signed by the one before it (DER): who knows only that one can check what this one signs.
    pub cross_signed: Option<Vec<u8>>,
    /// When it came to this state.
    pub since: Timestamp,
    /// The longest life of a certificate that it has signed, in microseconds.
    pub lifetime_us: i64,
    /// Its private key.
    pub key: SealedKey,
}

impl std::fmt::Debug for AuthorityRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CA {:02x?} ({}, since {})", &self.id[..4], self.state.as_str(), self.since)
    }
}

/// A private key, sealed as a secret of an object is.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// Which master key it is sealed with.
    pub master: MasterId,
    /// Its data key, sealed with the master key.
    pub data_key: Vec<u8>,
    /// The key, sealed with the data key.
    pub value: Vec<u8>,
}

/// What every replica has to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities {
    /// By state: at most one in each.
    pub authorities: Vec<AuthorityRecord>,
    /// Nodes and the time up to which their certificates are refused.
    pub revoked: Vec<(String, Timestamp)>,
}

/// A join token as it is kept: never the token itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinTokenRecord {
    /// Its name, unique.
    pub name: String,
    /// SHA-256 of the token, which has 256 bits of entropy.
    pub digest: [u8; 32],
    /// The CA it carries.
    pub authority: RootId,
    /// Group of the data planes that may join with it.
    pub group: String,
    /// How many may.
    pub uses: u32,
    /// How many have.
    pub used: u32,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

/// Who wants to join, and when.
#[derive(Clone, Debug)]
pub struct Joining<'a> {
    /// SHA-256 of the token that was shown.
    pub token: [u8; 32],
    /// SHA-256 of the public key that the certificate is for.
    pub key: [u8; 32],
    /// `--node`.
    pub node: &'a str,
    /// `--group`.
    pub group: &'a str,
    /// Now.
    pub at: Timestamp,
    /// When the certificate ends that it gets.
    pub until: Timestamp,
    /// Kept if it may join; its object becomes the node and the token's name.
    pub audit: AuditRecord,
}

/// Whether somebody may join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It may. Certificates of that node that are not valid after this time would be refused.
    Yes {
        /// Up to when its certificates were revoked, if they ever were.
        revoked: Option<Timestamp>,
    },
    /// There is no such token: revoked, or of another store.
    Unknown,
    /// The token has ended.
    Expired(Timestamp),
    /// As many have joined with the token as may.
    UsedUp,
    /// The token is for this group.
    OtherGroup(String),
    /// The name belongs to a data plane of another group.
    NameHeld(HeldName),
}

/// A name of a data plane: it belongs to one group for as long as a certificate with it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldName {
    /// Whose it is.
    pub group: String,
    /// When the last certificate with it ends.
    pub until: Timestamp,
}

/// What became of a wish to revoke a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// It is.
    Yes,
    /// No data plane of that name was ever seen.
    Unknown,
}

/// Identities in the store. Beside [`super::Store`], by the same rules; changes of the CA and of revocations move the
/// version of the tokens, so that every replica hears of them at once.
#[async_trait]
pub trait IdentityStore {
    /// The CA and the revocations.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn identities(&self) -> Result<Identities, StoreError>;

    /// Adds a CA, unless there is one in that state, or its key is sealed with another master key than the one that
    /// the store names: `false`, and nothing is written.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn create_authority(
        &self,
        record: AuthorityRecord,
        audit: Option<AuditRecord>,
    ) -> Result<bool, StoreError>;

    /// Makes the next CA the active one, and the active one the old one; `false`: the next one is another, or there
    /// still is an old one.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn activate_authority(&self, next: RootId, at: Timestamp) -> Result<bool, StoreError>;

    /// Forgets the old CA; `false`: it is another.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn retire_authority(&self, old: RootId) -> Result<bool, StoreError>;

    /// Notes that a CA signs certificates of that life, if it has signed none of a longer one.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn lengthen_authority(&self, id: RootId, lifetime_us: i64) -> Result<(), StoreError>;

    /// Replaces the data key of a CA's key, as [`super::Store::put_data_keys`] does for secrets.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn put_authority_key(&self, id: RootId, from: MasterId, key: SealedKey)
    -> Result<bool, StoreError>;

    /// All join tokens, by name.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn join_tokens(&self) -> Result<Vec<JoinTokenRecord>, StoreError>;

    /// Adds a join token; those that ended a week before it was made are forgotten.
    ///
    /// # Errors
    /// [`TokenError::Exists`] when the name is taken, [`TokenError::Full`] at [`MAX_JOIN_TOKENS`].
    async fn create_join_token(&self, token: JoinTokenRecord, audit: AuditRecord) -> Result<(), TokenError>;

    /// Removes a join token; `false` if there was none of that name, and nothing is written.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn delete_join_token(&self, name: &str, audit: AuditRecord) -> Result<bool, StoreError>;

    /// The join token of that digest: a look before anything is written for somebody who has shown nothing yet.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn join_token(&self, digest: [u8; 32]) -> Result<Option<JoinTokenRecord>, StoreError>;

    /// Uses a join token, if it is good for that. Who asks again with the same key for the same node, because the
    /// answer was lost, uses it once, unless the node was revoked since.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn join(&self, joining: Joining<'_>) -> Result<Joined, StoreError>;

    /// Notes that a certificate of a node is good for that time (from, until): [`Joined::Yes`], with what was revoked, or
    /// [`Joined::NameHeld`], and nothing is written.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn hold_name(
        &self,
        node: &str,
        group: &str,
        time: (Timestamp, Timestamp),
    ) -> Result<Joined, StoreError>;

    /// Refuses the certificates of a node that are valid from that time or from before; its name is free then. With
    /// `unseen`, also of one that nobody has heard of.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn revoke_node(
        &self,
        node: &str,
        unseen: bool,
        at: Timestamp,
        audit: AuditRecord,
    ) -> Result<Revoked, StoreError>;
}
