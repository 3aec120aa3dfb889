//! What can go wrong with the store, in the terms of its callers: unreachable, moved on, not as expected.
//! Messages say what to do next and never hold a password or a token.

use gateway_proto::kind::Key;

use super::{Head, Precondition};

/// A failure of the store itself.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer, answers too late, or has no connection free. Trying again later may work.
    #[error("store is unavailable: {0}")]
    Unavailable(String),
    /// The connection broke while the commit was being confirmed: it may or may not be stored.
    #[error(
        "the connection to the store broke while the write was being confirmed, it may or may not be stored: read the head before trying again"
    )]
    OutcomeUnknown,
    /// Wrong URL, credentials, permissions or file: somebody has to change something.
    #[error("cannot open the store: {0}")]
    Open(String),
    /// The schema was written by a newer release.
    #[error(
        "the store has schema version {found}, this release knows {known}: start the release that wrote it, or a newer one"
    )]
    NewerSchema {
        /// Newest migration that the store has.
        found: i64,
        /// Newest migration that this program has.
        known: i64,
    },
    /// There is no such revision.
    #[error("there is no revision {revision}, the newest is {head}")]
    NoSuchRevision {
        /// What was asked for.
        revision: u64,
        /// What there is.
        head: u64,
    },
    /// The revision was there, and was dropped.
    #[error(
        "revision {revision} is not kept any more, history goes back to revision {oldest}: --history-revisions and --history-age say how far"
    )]
    NotKept {
        /// What was asked for.
        revision: u64,
        /// The oldest that there is.
        oldest: u64,
    },
    /// The right to do the chores has gone to another replica; nothing was done.
    #[error("another replica does the chores by now")]
    Deposed,
    /// What is stored does not make sense, or a statement failed: a defect or a damaged database.
    #[error("store is damaged or was changed by hand: {0}")]
    Broken(String),
}

/// Why a commit was not made.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The head is not the base of the commit any more.
    #[error("the head moved to revision {}", head.revision)]
    Moved {
        /// The head now.
        head: Head,
    },
    /// An object is not as the commit expects it (HTTP 412); what is deleted is always expected to exist.
    #[error("{key} is not as expected: expected {expected}, found {}", describe(*found))]
    Precondition {
        /// The object.
        key: Key,
        /// What was expected.
        expected: Precondition,
        /// Revision that it really has; `None`: it does not exist.
        found: Option<u64>,
    },
    /// The commit is empty or names an object twice: a defect of the caller.
    #[error("refused to commit: {0}")]
    Refused(String),
    /// A credential names a consumer that is not there.
    #[error("there is no {0}")]
    NoConsumer(Key),
    /// A credential brings a key that is good by another one.
    #[error("{0} brings a key that is good by another credential")]
    KeyTaken(Key),
    /// A credential brings a key that was good once, and was revoked or rotated.
    #[error("{0} brings a key that was revoked or rotated")]
    KeySpent(Key),
    /// A consumer is deleted that has credentials.
    #[error("{consumer} is in use by {credential}")]
    HasCredentials {
        /// The consumer.
        consumer: Key,
        /// One of them.
        credential: Key,
    },
    /// Its secrets are sealed with a master key that the store does not name any more.
    #[error("the store's secrets are sealed with another master key now")]
    Resealed,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a token was not added.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The name is taken.
    #[error("there is already a token named {0:?}: delete it first, or choose another name")]
    Exists(String),
    /// There are too many.
    #[error("there are already {0} tokens, the most that are kept: delete some first")]
    Full(u32),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn describe(revision: Option<u64>) -> String {
    revision.map_or_else(|| "none".to_owned(), |revision| format!("revision {revision}"))
}
