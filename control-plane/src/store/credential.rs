//! Credentials in the terms of the store: what is written, and what is read back. They are outside revisions and have a
//! counter of their own, their version: so many keys may come and go without a line of history, and no rollback brings
//! one back.

use bytes::Bytes;
use gateway_proto::credential::{Grant, KeyDigest};
use gateway_proto::kind::Key;
use uuid::Uuid;

use super::Precondition;

/// Versions whose touched keys are kept; who was away for longer compares everything.
pub const KEPT_VERSIONS: u64 = 10_000;

/// A write of one credential.
#[derive(Clone, Debug)]
pub struct CredentialWrite {
    /// The credential.
    pub key: Key,
    /// How it must be before; [`Precondition::Revision`] is the version that last changed it.
    pub expected: Precondition,
    /// What it will be; `None`: it is deleted, which is no fault if it is not there.
    pub content: Option<CredentialContent>,
    /// Its keys may be such that were good before and were revoked or rotated.
    pub revives: bool,
}

/// What a credential will be.
#[derive(Clone, Debug)]
pub struct CredentialContent {
    /// Canonical encoding, without the key itself.
    pub body: Bytes,
    /// Name of the consumer, of the same namespace; it must exist when the write is made.
    pub consumer: String,
    /// Keys that are good by it; none may be good by another credential.
    pub grants: Vec<Grant>,
}

/// Where the credentials of a store stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialHead {
    /// Which history.
    pub epoch: Uuid,
    /// How many changes there were.
    pub version: u64,
}

/// What happened to the keys after a version.
#[derive(Clone, Debug)]
pub struct KeyChanges {
    /// Where they stand now. Another epoch, or a lower version than the caller's: load anew.
    pub head: CredentialHead,
    /// Keys that were touched, by the version that touched them last, and what is good of them now. `None`: what
    /// happened so long ago is not known any more, load anew.
    pub touched: Option<Vec<TouchedKey>>,
}

/// A key that was touched.
#[derive(Clone, Debug)]
pub struct TouchedKey {
    /// The version that touched it last.
    pub version: u64,
    /// The key.
    pub digest: KeyDigest,
    /// What it stands for, if it is good.
    pub grant: Option<Grant>,
}

/// Which credentials, by namespace and name.
#[derive(Clone, Debug)]
pub struct CredentialPage {
    /// Of one namespace; `None`: of all.
    pub namespace: Option<String>,
    /// Those behind this one.
    pub after: Option<(String, String)>,
    /// At most so many.
    pub limit: u32,
}

/// Receives keys one by one.
pub type VisitKey<'a> = dyn FnMut(Grant) + Send + 'a;
