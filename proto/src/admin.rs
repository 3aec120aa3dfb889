//! Bodies of the admin REST API: what the control plane answers and `gatewayctl` (or any program) reads.
//! JSON, camelCase; times are RFC 3339 in UTC; objects themselves are the proto3 JSON form of [`crate::wire`].

mod credential;
mod discovery;
mod identity;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::field::{Violation, ViolationCode};
use crate::kind::{Key, Kind};

pub use credential::{RotateCredential, RotatedCredential};
pub use discovery::{DiscoveredState, DiscoveredUpstream, DiscoverySourceStatus, DiscoverySourceStatusList};
pub use identity::{CaRoot, CaStatus, CreateJoinToken, JoinToken, JoinTokenList, NodeCertificate};

/// Largest document of an apply, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;
/// Most documents of an apply.
pub const MAX_DOCUMENTS: usize = 250_000;
/// Largest body of an apply, in bytes.
pub const MAX_APPLY_BYTES: usize = 256 << 20;
/// Most objects that a prune deletes when the request names no bound.
pub const DEFAULT_MAX_DELETE: u32 = 10;

/// A page of a collection.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct List {
    /// The objects, by namespace and name.
    #[schema(value_type = Vec<Object>)]
    pub items: Vec<Box<RawValue>>,
    /// Revision that the page was read at.
    pub revision: u64,
    /// Pass it as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// `POST /v1/apply` and `/v1/diff`: a batch, all or nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplyRequest {
    /// Objects to create or replace.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub resources: Vec<Box<RawValue>>,
    /// Objects to delete in the same batch; each must exist and must not be among `resources`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deletes: Vec<Key>,
    /// Delete what carries these labels and is not in the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<Prune>,
    /// Refuse with 409 unless this is the head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_revision: Option<u64>,
    /// Do everything but store it.
    #[serde(default)]
    pub dry_run: bool,
    /// Why; kept with the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Let data planes that come from another store drop most of what they held (they report `epoch_shrink` otherwise).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_shrink: bool,
    /// Let credentials bring keys that were good once, and were revoked or rotated; otherwise they are refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revive_keys: bool,
}

/// `POST /v1/restore`: what the store is to hold, all or nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreRequest {
    /// Every object, with sealed secrets as `GET /v1/{plural}?secrets=sealed` answers them, or in the clear.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub resources: Vec<Box<RawValue>>,
    /// Delete what else there is; without it only an empty store is taken.
    #[serde(default)]
    pub replace: bool,
    /// Do everything but store it.
    #[serde(default)]
    pub dry_run: bool,
    /// Why; kept with the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What an apply may delete.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Prune {
    /// Objects with all of these labels, in the namespaces of the batch. Must not be empty.
    pub labels: BTreeMap<String, String>,
    /// Refuse the batch when more would go; default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delete: Option<u32>,
}

/// Answer to a rewrap of secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RewrapResponse {
    /// Id of the master key that every secret is sealed with now.
    pub master: String,
    /// How many secrets were sealed with another one before.
    pub data_keys: u64,
    /// How many other master keys the replica that answered was given: with none, it had nothing to replace.
    pub other_keys: u32,
}

/// Answer to an apply, a write of one object or a rollback.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplyResponse {
    /// The head after it; unchanged for a dry run or when nothing changed.
    pub revision: u64,
    /// One entry for each object named or pruned.
    pub changes: Vec<Change>,
    /// What was accepted but looks wrong.
    pub warnings: Vec<FieldError>,
}

/// What happens to one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The object.
    #[serde(flatten)]
    pub object: Key,
    /// What happens to it.
    pub action: Action,
    /// Content before (diff and history only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub before: Option<serde_json::Value>,
    /// Content after (diff and history only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub after: Option<serde_json::Value>,
    /// Paths of the secrets that differ (diff and history only): before and after both show `***`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
}

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is new.
    Created,
    /// It is replaced.
    Updated,
    /// It goes.
    Deleted,
    /// It is already so.
    Unchanged,
}

/// `POST /v1/diff`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiffResponse {
    /// The head it was compared with.
    pub revision: u64,
    /// What an apply would do, with contents; unchanged objects are left out.
    pub changes: Vec<Change>,
    /// What would be accepted but looks wrong.
    pub warnings: Vec<FieldError>,
}

/// Numbered history.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Its number; gap-free, from 1.
    pub revision: u64,
    /// When it was written.
    pub at: String,
    /// Name of the token that wrote it.
    pub author: String,
    /// Why, as given.
    pub message: String,
    /// How many objects were created.
    pub created: u32,
    /// How many were replaced.
    pub updated: u32,
    /// How many were deleted.
    pub deleted: u32,
    /// Root hash of the whole store at it, hexadecimal.
    pub root_hash: String,
    /// What changed, with contents (`GET /v1/revisions/{n}` only, and left out when it is over 10,000 objects).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<Change>>,
}

/// `GET /v1/revisions`, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionList {
    /// The revisions.
    pub items: Vec<Revision>,
    /// Pass it as `cursor` for older ones; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// `GET /v1/revisions/{a}...{b}`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionDiff {
    /// Older side.
    pub from: u64,
    /// Newer side.
    pub to: u64,
    /// What differs, with contents.
    pub changes: Vec<Change>,
}

/// One data-plane replica.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataPlane {
    /// Its `--node`.
    pub id: String,
    /// Its `--group`.
    pub group: String,
    /// Its `--label`s.
    pub labels: BTreeMap<String, String>,
    /// Its `--zone`.
    pub zone: String,
    /// Program version.
    pub version: String,
    /// Where it connected from; where it last did, if it is not connected.
    pub address: String,
    /// Listeners and the addresses they are bound to; the last that are known, if it is not connected.
    pub listeners: BTreeMap<String, String>,
    /// A stream is open to some control-plane replica.
    pub connected: bool,
    /// When it was last heard of.
    pub last_seen: String,
    /// Revision it serves.
    pub applied_revision: u64,
    /// Head revision minus the one it serves.
    pub lag: u64,
    /// It holds exactly what its scope has at the head.
    pub in_sync: bool,
    /// Time its last apply took, in microseconds.
    pub apply_us: u64,
    /// What it refuses at this moment.
    pub rejects: Vec<Reject>,
    /// Why it takes nothing at all (`epoch_shrink: ...`); left out: it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub blocked: String,
    /// Where another process of the same `--node` is refused, because this one was started later; left out: there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub twin: String,
    /// The certificate that its stream was opened with; left out: it came without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<NodeCertificate>,
}

/// `GET /v1/data-planes`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataPlaneList {
    /// The head revision they are compared with.
    pub revision: u64,
    /// The replicas, by id.
    pub items: Vec<DataPlane>,
}

/// An object that a data plane refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reject {
    /// The object.
    #[serde(flatten)]
    pub object: Key,
    /// Hash of the refused content, hexadecimal.
    pub hash: String,
    /// Field path.
    pub field: String,
    /// Violation code.
    pub code: String,
    /// Why.
    pub message: String,
    /// The data plane tries again by itself.
    pub retryable: bool,
}

/// `GET /v1/status/{plural}/{name}`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStatus {
    /// The object.
    #[serde(flatten)]
    pub object: Key,
    /// Revision that last changed it.
    pub revision: u64,
    /// Content hash, hexadecimal.
    pub hash: String,
    /// Every connected data plane whose scope holds it.
    pub data_planes: Vec<ObjectOnDataPlane>,
}

/// One object on one data plane.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectOnDataPlane {
    /// The data plane.
    pub id: String,
    /// Whether it serves this content.
    pub state: ObjectState,
    /// Revision the data plane serves.
    pub applied_revision: u64,
    /// Why it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reject: Option<Reject>,
}

/// Whether an object's present content serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObjectState {
    /// It serves.
    Applied,
    /// The data plane has not come to it yet.
    Pending,
    /// The data plane refused it.
    Refused,
}

/// `POST /v1/explain`: a request that is not sent.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExplainRequest {
    /// Listener to come in by, `name` or `namespace/name`; default: every listener is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// Method; default GET.
    #[serde(default = "get")]
    pub method: String,
    /// Host header.
    #[serde(default)]
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Header fields, in order.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Client address; default 127.0.0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

/// Answer to an explain: one entry for each listener asked.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplainResponse {
    /// Revision it was answered from.
    pub revision: u64,
    /// The decision on each listener.
    pub listeners: Vec<Explanation>,
}

/// A routing decision and its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// `namespace/name` of the listener.
    pub listener: String,
    /// The path in the form that is matched; absent when the request is malformed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalized_path: Option<String>,
    /// The route that wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<Candidate>,
    /// Status that the proxy itself would answer: 400, 404 or 405.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Methods for `Allow` with a 405.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Routes that lost, best first, and why; bounded to 50.
    pub losers: Vec<Candidate>,
    /// Policies that would run, in order, and the level each comes from.
    pub policies: Vec<AppliedPolicy>,
    /// What the winner does: `forward to ...`, `redirect ...`, `respond ...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
}

/// A route entry that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// `namespace/name` of the route.
    pub route: String,
    /// Index of the entry in `spec.matches`.
    #[serde(rename = "match")]
    pub match_index: u32,
    /// Why it won or lost, in words.
    pub reason: String,
}

/// A policy in the order it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedPolicy {
    /// `cors`, `requestHeaders`, ...
    pub policy: String,
    /// Where it comes from: `global Policy default/x`, `Listener default/public`, `Route default/users`.
    pub from: String,
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read everything in its namespaces.
    Viewer,
    /// And write objects in its namespaces.
    Editor,
    /// And manage tokens, roll back, read the audit log; always all namespaces.
    Admin,
}

impl Role {
    /// As written in JSON and the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Editor => "editor",
            Role::Admin => "admin",
        }
    }
}

/// `POST /v1/tokens`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateToken {
    /// Its name; the author in history and audit.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Namespaces it is good for; empty: all.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// RFC 3339 time it ends; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// An admin token; `token` itself is shown once, on creation.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Namespaces it is good for; empty: all.
    pub namespaces: Vec<String>,
    /// When it was made.
    pub created_at: String,
    /// When it ends; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// The secret, in the answer to its creation only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.name)
    }
}

/// `GET /v1/tokens`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenList {
    /// The tokens, by name.
    pub items: Vec<Token>,
}

/// One line of `GET /v1/audit`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Position in the log; newest has the highest.
    pub id: u64,
    /// When.
    pub at: String,
    /// Name of the token.
    pub who: String,
    /// Client address.
    pub from: String,
    /// What: `apply`, `put`, `patch`, `delete`, `rollback`, `token.create`, `token.delete`,
    /// `join_token.create`, `join_token.delete`, `enroll`, `stream.open`, `data_plane.revoke`, `ca.rotate`.
    pub action: String,
    /// On what.
    pub object: String,
    /// Status that was answered.
    pub status: u16,
    /// Revision it made, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// `GET /v1/audit`, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditList {
    /// The entries.
    pub items: Vec<AuditEntry>,
    /// Pass it as `cursor` for older ones; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// An event of `GET /v1/watch`; the SSE event name is the variant (`revision`, `dataPlane`).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", tag = "event", content = "data")]
pub enum WatchEvent {
    /// A new head.
    Revision(Revision),
    /// A data plane came, went, applied or refused.
    DataPlane(Box<DataPlane>),
}

/// An error answer, `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The error code as a slug: `validation_failed`, `conflict`, `in_use`, `not_found`, ...
    #[serde(rename = "type")]
    pub slug: String,
    /// The code in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened and what to do next.
    pub detail: String,
    /// Everything that is wrong, all at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// One thing that is wrong, or a warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldError {
    /// The object; absent when the fault is in the request itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Key>,
    /// Index of the document in `resources`; absent when it is not one of the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// Field path, e.g. `spec.matches[0].path.regex`.
    pub field: String,
    /// Closed vocabulary.
    pub code: ViolationCode,
    /// What is wrong and what to do.
    pub message: String,
}

impl From<Violation> for FieldError {
    fn from(violation: Violation) -> Self {
        FieldError {
            object: Some(violation.object),
            index: None,
            field: violation.field,
            code: violation.code,
            message: violation.message,
        }
    }
}

/// REST path of a collection, or of one object in it.
pub fn collection_path(kind: Kind, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("/v1/{}/{name}", kind.plural()),
        None => format!("/v1/{}", kind.plural()),
    }
}
