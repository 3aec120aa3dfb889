//! One revision to be: what to write, on which base, under which conditions.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use gateway_proto::digest::ItemHash;
use gateway_proto::kind::{Key, Resource};
use jiff::Timestamp;

use super::{AuditRecord, Change, CredentialWrite, Head, SecretRecord};

/// A revision to be written.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The head that the writes were compiled against; the commit is refused on any other.
    pub base: Head,
    /// Name of the token.
    pub author: String,
    /// Why; may be empty.
    pub message: String,
    /// What to write, each object at most once, in any order; at least one. Equal content is not filtered here.
    pub writes: Vec<Write>,
    /// Credentials that are written in the same transaction; they move their own counter.
    pub credentials: Vec<CredentialWrite>,
    /// Entry for the audit log, written with it; its time and revision are those of the commit.
    pub audit: Option<AuditRecord>,
    /// Where the content comes from.
    pub origin: Origin,
}

/// Where the content of a revision comes from, and what that asks of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Somebody wrote it.
    #[default]
    Request,
    /// An earlier revision; history must still reach back to it, so that the sealed values it refers to are there.
    Revision(u64),
    /// A backup: the revision begins a new epoch, and data planes of another may drop most of what they held.
    Backup,
}

/// A write of one object.
#[derive(Clone, Debug)]
pub struct Write {
    pub(super) key: Key,
    pub(super) expected: Precondition,
    pub(super) content: Option<Content>,
    pub(super) secrets: Vec<SecretRecord>,
}

/// New content of an object, in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub(super) body: Bytes,
    pub(super) hash: ItemHash,
    pub(super) labels: BTreeMap<String, String>,
}

impl Content {
    /// Brings a resource into canonical form, encodes and hashes it.
    pub fn new(resource: Resource) -> Self {
        let resource = resource.canonical();
        let body = resource.encode();
        let hash = ItemHash::of(&resource.key(), &body);
        let labels = resource
            .metadata()
            .map(|metadata| metadata.labels.clone().into_iter().collect())
            .unwrap_or_default();
        Content { body, hash, labels }
    }

    /// Canonical encoding.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// Hash of the body.
    pub const fn hash(&self) -> ItemHash {
        self.hash
    }
}

impl Write {
    /// Creates or replaces an object.
    pub fn put(resource: Resource, expected: Precondition) -> Self {
        let key = resource.key();
        Write { key, expected, content: Some(Content::new(resource)), secrets: Vec::new() }
    }

    /// With values that the content newly refers to: those of the revision that the write will be part of.
    #[must_use]
    pub fn with_secrets(self, secrets: Vec<SecretRecord>) -> Self {
        Write { secrets, ..self }
    }

    /// Deletes an object; it must exist.
    pub const fn delete(key: Key, expected: Precondition) -> Self {
        Write { key, expected, content: None, secrets: Vec::new() }
    }

    /// The object.
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// What is written; `None`: it is deleted.
    pub const fn content(&self) -> Option<&Content> {
        self.content.as_ref()
    }
}

/// How an object must be before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// As it likes.
    Any,
    /// It must not exist (`If-None-Match: *`).
    Absent,
    /// It must exist (`If-Match: *`).
    Present,
    /// It must be as this revision left it (`If-Match: "7"`).
    Revision(u64),
}

impl Precondition {
    /// Whether an object whose last revision is `found` (`None`: absent) is as expected.
    pub fn holds(self, found: Option<u64>) -> bool {
        match self {
            Precondition::Any => true,
            Precondition::Absent => found.is_none(),
            Precondition::Present => found.is_some(),
            Precondition::Revision(revision) => found == Some(revision),
        }
    }
}

impl fmt::Display for Precondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Precondition::Any => f.write_str("anything"),
            Precondition::Absent => f.write_str("none"),
            Precondition::Present => f.write_str("that it exists"),
            Precondition::Revision(revision) => write!(f, "revision {revision}"),
        }
    }
}

/// A revision that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The head that it made.
    pub head: Head,
    /// When.
    pub at: Timestamp,
    /// What it did, by key; the same as [`super::Store::changes_since`] would answer.
    pub changes: Vec<Change>,
}
