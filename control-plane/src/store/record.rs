//! Records beside the objects: history entries, tokens, audit entries, nodes, and the pages they are read in.

use std::fmt;
use std::time::Duration;

use gateway_proto::admin::Role;
use gateway_proto::digest::RootHash;
use gateway_proto::kind::Key;
use jiff::Timestamp;
use uuid::Uuid;

/// Most admin tokens that are kept; every replica holds all of them in memory.
pub const MAX_TOKENS: u32 = 10_000;

/// Most items of a page; a larger limit is cut to it.
pub const MAX_PAGE: u32 = 1_000;

/// The right to do the chores, by number: a later one has taken it from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence(pub u64);

/// Which revisions history keeps: those that are both young and new enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So many of the newest.
    pub revisions: u64,
    /// None that is older, but never fewer than [`MIN_REVISIONS`]; `None`: of any age.
    pub age: Option<Duration>,
}

/// The newest revisions that are kept however old they are, so that there is always a way back.
pub const MIN_REVISIONS: u64 = 10;

/// What a piece of compaction came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The oldest revision that can be had now.
    pub oldest: u64,
    /// Changes that were dropped.
    pub changes: u64,
    /// Sealed values that were dropped.
    pub secrets: u64,
    /// There is more to drop.
    pub more: bool,
}

/// Which page: newest first, by keyset, so that pages do not shift while entries are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Only items with a lower number; `None`: from the newest.
    pub before: Option<u64>,
    /// At most so many, 1 to [`MAX_PAGE`].
    pub limit: u32,
}

/// A page of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, newest first.
    pub items: Vec<T>,
    /// `before` of the next page; `None` on the last.
    pub next: Option<u64>,
}

/// Header of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Its number, from 1.
    pub revision: u64,
    /// When it was written.
    pub at: Timestamp,
    /// Name of the token that wrote it.
    pub author: String,
    /// Why, as given.
    pub message: String,
    /// Objects created.
    pub created: u32,
    /// Objects replaced.
    pub updated: u32,
    /// Objects deleted.
    pub deleted: u32,
    /// Root hash of everything at it.
    pub root: RootHash,
}

/// An admin token as it is kept: never the secret itself.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its name, unique; the author in history and audit.
    pub name: String,
    /// SHA-256 of the secret, which has 128 bits of entropy or more.
    pub digest: [u8; 32],
    /// What it may do.
    pub role: Role,
    /// Namespaces it is good for; empty: all.
    pub namespaces: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends; `None`: never.
    pub expires: Option<Timestamp>,
}

impl fmt::Debug for TokenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {:?} ({}, namespaces {:?})", self.name, self.role.as_str(), self.namespaces)
    }
}

/// All tokens at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Grows with every change of a token.
    pub version: u64,
    /// By name.
    pub tokens: Vec<TokenRecord>,
}

/// What somebody did or tried, to be written to the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// When; the time of the commit for a successful write.
    pub at: Timestamp,
    /// Name of the token.
    pub who: String,
    /// Client address.
    pub from: String,
    /// What: `apply`, `put`, `token.create`, ...
    pub action: String,
    /// On what.
    pub object: String,
    /// Status that was answered.
    pub status: u16,
}

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Position in the log; newest has the highest.
    pub id: u64,
    /// What was done.
    pub record: AuditRecord,
    /// Revision it made, if any.
    pub revision: Option<u64>,
}

/// Names one value of a secret: the object, the field, and the revision that brought the value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretId {
    /// The object.
    pub key: Key,
    /// Field path, e.g. `spec.key`.
    pub field: String,
    /// The revision that brought it; later ones may refer to it.
    pub revision: u64,
}

/// Tells master keys apart.
pub type MasterId = [u8; 8];

/// A secret as it is kept: sealed. What is in it, `secrets.rs` knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRecord {
    /// Which value.
    pub id: SecretId,
    /// Which master key it is sealed with.
    pub master: MasterId,
    /// The key of this value, sealed with the master key.
    pub data_key: Vec<u8>,
    /// The value, sealed with its key.
    pub value: Vec<u8>,
}

/// Which master key a store is sealed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterRecord {
    /// Tells it from others.
    pub id: MasterId,
    /// The key of the tags, sealed with it.
    pub tag_key: Vec<u8>,
}

/// The last set of endpoints of an upstream that discovers them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptEndpoints {
    /// `namespace/name`.
    pub upstream: String,
    /// What it asked for, encoded; its shape belongs to `discovery`.
    pub query: Vec<u8>,
    /// The set, encoded.
    pub body: Vec<u8>,
}

/// What a control-plane replica knows about one of its data planes.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSeen {
    /// Its `--node`.
    pub node: String,
    /// The control-plane replica that holds, or held, its stream.
    pub replica: Uuid,
    /// How long ago that stream was opened; of two replicas that claim a node, the younger stream is right.
    pub opened_ago: Duration,
    /// How long ago the data plane was last heard of.
    pub seen_ago: Duration,
    /// The stream is open.
    pub connected: bool,
    /// Revision it serves.
    pub revision: u64,
    /// The rest: group, labels, addresses, rejects; its shape belongs to `nodes.rs`. At most 1 MiB as text.
    pub report: serde_json::Value,
}

/// A data plane as some replica recorded it. Ages are by the database's clock, so that replicas need not agree on time.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its `--node`.
    pub node: String,
    /// The control-plane replica that recorded it.
    pub replica: Uuid,
    /// How long ago it was last heard of. A replica that died leaves `connected` behind: judge by this as well.
    pub seen_ago: Duration,
    /// The stream was open then.
    pub connected: bool,
    /// Revision it served then.
    pub revision: u64,
    /// Where another process of its name was refused, and how long ago.
    pub twin: Option<(String, Duration)>,
    /// As given in [`NodeSeen::report`].
    pub report: serde_json::Value,
}
