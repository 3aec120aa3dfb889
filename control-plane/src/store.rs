//! What the control plane keeps: objects, numbered history, tokens, audit, and who runs what.
//! One trait, two stores (SQLite for one process, PostgreSQL for several replicas), one behaviour: the conformance
//! suite runs on both. SQL stays below this module.
//!
//! Invariants: revisions have no gaps and are in commit order, because the last statement of every write is a
//! compare-and-set of the head; a reader sees a whole revision or none of it; bodies are canonical protobuf, kept and
//! handed out byte for byte; the changelog is append-only, so that every past state can be had again.

pub mod commit;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod credential;
pub mod error;
mod failure;
pub mod identity;
mod migration;
mod plan;
mod postgres;
pub mod record;
mod sqlite;
pub mod transfer;
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use gateway_proto::digest::{ItemHash, RootHash};
use gateway_proto::kind::Key;
use jiff::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

pub use commit::{Commit, Committed, Content, Origin, Precondition, Write};
pub use credential::{
    CredentialContent, CredentialHead, CredentialPage, CredentialWrite, KeyChanges, TouchedKey, VisitKey,
};
pub use error::{CommitError, StoreError, TokenError};
pub use identity::IdentityStore;
pub use record::{
    AuditEntry, AuditRecord, Compacted, Fence, KeptEndpoints, MIN_REVISIONS, MasterId, MasterRecord, Node,
    NodeSeen, Page, PageRequest, Retention, Revision, SecretId, SecretRecord, TokenRecord, Tokens,
};

/// Where a history stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which history: minted with the store, and again when a backup is restored.
    pub epoch: Uuid,
    /// Number of the last commit; 0: nothing was ever written.
    pub revision: u64,
    /// Sum of the content hashes of everything that exists at it.
    pub root: RootHash,
}

/// An object as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub key: Key,
    /// Counts the changes of this object, from 1; starts again when it is deleted and made anew.
    pub generation: u64,
    /// Revision that last changed it; no two contents of one object ever share it, so it serves as the ETag.
    pub revision: u64,
    /// Canonical encoding ([`gateway_proto::kind::Resource::encode`]).
    pub body: Bytes,
    /// Hash of the body.
    pub hash: ItemHash,
    /// First write.
    pub created: Timestamp,
    /// Last write.
    pub updated: Timestamp,
}

impl Stored {
    /// An object as history has it: how often it had been changed by then, and when, is not kept.
    pub fn past(key: Key, revision: u64, body: Bytes) -> Self {
        let hash = ItemHash::of(&key, &body);
        let (created, updated) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        Stored { key, generation: 0, revision, body, hash, created, updated }
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} generation {} at revision {} ({})", self.key, self.generation, self.revision, self.hash)
    }
}

/// What a commit, or several merged, did to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was created or replaced; this is what it is now.
    Put(Stored),
    /// It is gone.
    Delete(Key),
}

impl Change {
    /// The object it is about.
    pub const fn key(&self) -> &Key {
        match self {
            Change::Put(stored) => &stored.key,
            Change::Delete(key) => key,
        }
    }
}

/// Everything that changed after a revision, merged: each object once, as it is at `head`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// What the changes lead to. Another epoch than the caller's, or a lower revision: the store was replaced, load anew.
    pub head: Head,
    /// By revision, then key; a delete may name an object that the caller never saw.
    pub changes: Vec<Change>,
    /// History does not reach back to the revision any more, so that deletes may be missing: load anew.
    pub cut: bool,
}

/// One object in two states of the store; the two sides differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The object.
    pub key: Key,
    /// Its body on the `from` side; `None`: it was not there.
    pub before: Option<Bytes>,
    /// Its body on the `to` side; `None`: it was not there.
    pub after: Option<Bytes>,
}

/// Namespaces by the revision that changed something in them.
pub type Touched = BTreeMap<u64, BTreeSet<String>>;

/// Receives objects one by one, so that a whole store is never held twice in memory.
pub type Visit<'a> = dyn FnMut(Stored) + Send + 'a;

/// The store. Every call has a bounded duration: when the database does not answer, it fails with
/// [`StoreError::Unavailable`] within about three seconds (a minute if it stops in the middle of a large commit or load),
/// and works again by itself when the database is back.
///
/// Dropping a future abandons its transaction: the write is then either whole or absent, as after a crash.
#[async_trait]
pub trait Store: IdentityStore + Send + Sync + fmt::Debug {
    /// The head, read from the database.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn head(&self) -> Result<Head, StoreError>;

    /// The head as last seen: moves with commits of this handle at once, with those of others within a second.
    /// Revisions may be skipped over, and it may run behind [`Store::head`]; it never goes back within an epoch.
    fn watch(&self) -> watch::Receiver<Head>;

    /// Every object in key order, consistent with the head that is returned.
    ///
    /// # Errors
    /// When the database does not answer; `visit` has then seen some of the objects.
    async fn load(&self, visit: &mut Visit<'_>) -> Result<Head, StoreError>;

    /// What changed after `revision`, consistent with the head that is returned.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn changes_since(&self, revision: u64) -> Result<Changes, StoreError>;

    /// Writes one revision, whole or not at all.
    ///
    /// # Errors
    /// [`CommitError::Moved`] when the head is not the base (recompile on the new head and try again),
    /// [`CommitError::Precondition`] when an object is not as expected, [`CommitError::Refused`] for an empty or
    /// contradictory commit; nothing is written in any of these cases.
    async fn commit(&self, commit: Commit) -> Result<Committed, CommitError>;

    /// Writes credentials without a revision, all or none; the version that it made.
    ///
    /// # Errors
    /// As [`Store::commit`], but it never finds the head moved.
    async fn commit_credentials(
        &self,
        writes: Vec<CredentialWrite>,
        audit: Option<AuditRecord>,
    ) -> Result<CredentialHead, CommitError>;

    /// How many credentials there are.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn credential_count(&self) -> Result<u64, StoreError>;

    /// Those of these credentials that exist, in any order; `revision` is the version that last changed each.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn credentials(&self, keys: Vec<Key>) -> Result<Vec<Stored>, StoreError>;

    /// A page of credentials, by namespace and name.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn credential_page(&self, page: CredentialPage) -> Result<Vec<Stored>, StoreError>;

    /// Every key that is good, in any order, consistent with the head that is returned.
    ///
    /// # Errors
    /// When the database does not answer; `visit` has then seen some of them.
    async fn load_keys(&self, visit: &mut VisitKey<'_>) -> Result<CredentialHead, StoreError>;

    /// What happened to the keys after a version.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn key_changes_since(&self, version: u64) -> Result<KeyChanges, StoreError>;

    /// Where the credentials stand as last seen, by the same rules as [`Store::watch`].
    fn watch_credentials(&self) -> watch::Receiver<CredentialHead>;

    /// Records that data planes may drop most of what they held in another history when they come to this one, at the
    /// present revision or a later one; as long as the epoch lasts.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn allow_shrink(&self) -> Result<(), StoreError>;

    /// Whether that was recorded for a revision of an epoch.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn is_shrink_allowed(&self, epoch: Uuid, revision: u64) -> Result<bool, StoreError>;

    /// History as far as it is kept, newest first; the cursor is the revision.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn revisions(&self, page: PageRequest) -> Result<Page<Revision>, StoreError>;

    /// One entry of history; `None` if there is no such revision. Revision 0, the empty store, has no entry.
    ///
    /// # Errors
    /// [`StoreError::NotKept`] for one that history no longer reaches back to; when the database does not answer.
    async fn revision(&self, revision: u64) -> Result<Option<Revision>, StoreError>;

    /// The namespaces that each of the revisions `from ..= to` changed something in.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn namespaces(&self, from: u64, to: u64) -> Result<Touched, StoreError>;

    /// What differs between two revisions, by key, in either direction: `diff(n - 1, n)` is what revision n did,
    /// `diff(head, n)` is what a rollback to n has to do. 0 is the empty store.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRevision`] for a number above the head, [`StoreError::NotKept`] for one that history no
    /// longer reaches back to; when the database does not answer.
    async fn diff(&self, from: u64, to: u64) -> Result<Vec<Difference>, StoreError>;

    /// The oldest revision whose content can be had; 0, the empty store, as long as nothing was dropped.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn oldest(&self) -> Result<u64, StoreError>;

    /// Every object as it was at a revision, in key order. `generation` and `created` are not part of history: they
    /// are 0 and the time of the change.
    ///
    /// # Errors
    /// As [`Store::diff`].
    async fn state_at(&self, revision: u64, visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// The sealed values that are asked for, in any order; those that are not there are left out. They never change,
    /// and are kept as long as history refers to them.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn secrets(&self, wanted: Vec<SecretId>) -> Result<Vec<SecretRecord>, StoreError>;

    /// Which master key the store's secrets are sealed with; `None`: there never was one.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn master(&self) -> Result<Option<MasterRecord>, StoreError>;

    /// Records the master key of a store that has none; returns the one that it has then.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn create_master(&self, record: MasterRecord) -> Result<MasterRecord, StoreError>;

    /// Names another master key for what is sealed from now on; `false`: `from` is not the one that is named. A commit
    /// whose values are sealed with any other fails with [`CommitError::Resealed`], also one that is under way.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn replace_master(&self, from: MasterId, record: MasterRecord) -> Result<bool, StoreError>;

    /// At most `limit` of the sealed values whose data keys are encrypted with another master key than that, the
    /// same ones until they are replaced.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn secrets_of_other_masters(
        &self,
        master: MasterId,
        limit: u32,
    ) -> Result<Vec<SecretRecord>, StoreError>;

    /// Replaces the data keys of sealed values; the values stay. Beside each the master key that it was encrypted
    /// with: one that somebody else has replaced meanwhile is left alone. `false`: the store does not name the new
    /// master key, and nothing is replaced.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn put_data_keys(&self, secrets: Vec<(MasterId, SecretRecord)>) -> Result<bool, StoreError>;

    /// All admin tokens, by name.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn tokens(&self) -> Result<Tokens, StoreError>;

    /// Version of the tokens, read from the database; grows with every change of them.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn tokens_version(&self) -> Result<u64, StoreError>;

    /// Version of the tokens as last seen, by the same rules as [`Store::watch`].
    fn watch_tokens(&self) -> watch::Receiver<u64>;

    /// Adds a token.
    ///
    /// # Errors
    /// [`TokenError::Exists`] when the name is taken, [`TokenError::Full`] at [`record::MAX_TOKENS`].
    async fn create_token(&self, token: TokenRecord, audit: Option<AuditRecord>) -> Result<(), TokenError>;

    /// Adds a token, or replaces the one of that name. No change, and no new version, if it is already so.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn put_token(&self, token: TokenRecord) -> Result<(), StoreError>;

    /// Removes a token; `false` if there was none of that name (nothing is then written, not even the audit entry).
    ///
    /// # Errors
    /// When the database does not answer.
    async fn delete_token(&self, name: &str, audit: Option<AuditRecord>) -> Result<bool, StoreError>;

    /// Appends to the audit log. Successful writes are recorded by their own transaction; this is for the rest.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn append_audit(&self, records: Vec<AuditRecord>) -> Result<(), StoreError>;

    /// Deletes all but the newest `keep` entries of the audit log; returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn trim_audit(&self, keep: u64) -> Result<u64, StoreError>;

    /// The audit log, newest first; the cursor is the entry's id.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn audit(&self, page: PageRequest) -> Result<Page<AuditEntry>, StoreError>;

    /// Records what data planes of this replica hold and refuse, in one statement. An entry from an older stream of
    /// the same node, held by another replica, loses.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn put_nodes(&self, nodes: Vec<NodeSeen>) -> Result<(), StoreError>;

    /// Every data plane that any replica recorded, by name.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn nodes(&self) -> Result<Vec<Node>, StoreError>;

    /// Connected data planes whose entry another replica has written in that time.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn nodes_of_others(
        &self,
        replica: Uuid,
        within: std::time::Duration,
    ) -> Result<Vec<Node>, StoreError>;

    /// Notes with nodes where another process of the same name was refused just now.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn note_twins(&self, refused: Vec<(String, String)>) -> Result<(), StoreError>;

    /// Keeps the last sets of endpoints of some upstreams, and forgets those of others. No revision.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn keep_endpoints(&self, puts: Vec<KeptEndpoints>, gone: Vec<String>) -> Result<(), StoreError>;

    /// Every last set, by upstream.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn endpoints(&self) -> Result<Vec<KeptEndpoints>, StoreError>;

    /// The right to do the chores, as long as no other handle on the store has it: to be asked for again every few
    /// seconds, or it goes to another. `None`: another has it. Who has a later [`Fence`] than another has made the
    /// other's chores fail, also if that one was paused meanwhile and does not know.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn lead(&self) -> Result<Option<Fence>, StoreError>;

    /// Gives the right to do the chores to whoever asks next.
    async fn step_down(&self);

    /// Drops a bounded piece of the history that is not to be kept, and the sealed values that nothing refers to any
    /// more. Every revision that is kept can be had as before.
    ///
    /// # Errors
    /// [`StoreError::Deposed`], and nothing is dropped; when the database does not answer.
    async fn compact(&self, fence: Fence, keep: Retention) -> Result<Compacted, StoreError>;

    /// Forgets data planes that were last seen longer ago than that; returns how many.
    ///
    /// # Errors
    /// [`StoreError::Deposed`], and none is forgotten; when the database does not answer.
    async fn forget_nodes(&self, fence: Fence, unseen_for: std::time::Duration) -> Result<u64, StoreError>;

    /// Ends the watcher and closes the connections; calls in flight finish first, later ones fail.
    async fn close(&self);
}

/// An open store.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    /// This call found it empty and created it, together with the first token it was given.
    pub created: bool,
}

/// Opens the store that `--database-url` names, brings its schema up to date, and creates it with that token if it is
/// empty; of several replicas that start at once on an empty store, one creates it.
///
/// # Errors
/// A URL of no known scheme, wrong credentials, an unreachable server, a file that cannot be opened
/// ([`StoreError::Open`]), a store of a newer release ([`StoreError::NewerSchema`]). No message holds a password.
pub async fn open(url: &str, first_token: &TokenRecord) -> Result<Opened, StoreError> {
    match scheme(url) {
        "sqlite" => sqlite::open(url, first_token).await,
        _ if is_shared(url) => postgres::open(url, first_token).await,
        _ => Err(StoreError::Open(
            "--database-url must start with sqlite:// (a file) or postgres:// (a server)".to_owned(),
        )),
    }
}

/// Whether several replicas may work on the store that a URL names.
pub fn is_shared(url: &str) -> bool {
    matches!(scheme(url), "postgres" | "postgresql")
}

fn scheme(url: &str) -> &str {
    url.split_once(':').map_or("", |(scheme, _)| scheme)
}
