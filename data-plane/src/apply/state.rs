//! What others may know of the configuration in service: the admin port, the stream, and whoever runs a data plane
//! inside its own process.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use gateway_proto::digest::{ItemHash, RootHash};
use gateway_proto::field::{Violation, ViolationCode};
use gateway_proto::wire;

/// A point in the history of a store, and what is held there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Which history; empty: none, or files.
    pub epoch: Arc<str>,
    /// Which revision of it; from files: how many times they were loaded.
    pub revision: u64,
    /// Sum of the content hashes held.
    pub root: RootHash,
}

impl From<&Cursor> for wire::Cursor {
    fn from(cursor: &Cursor) -> Self {
        wire::Cursor {
            epoch: cursor.epoch.to_string(),
            revision: cursor.revision,
            root_hash: cursor.root.to_bytes().to_vec(),
        }
    }
}

/// Something that this data plane does without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The object.
    pub object: wire::ObjectRef,
    /// Hash of the refused content; `None`: it could not be reckoned, or the change was a deletion.
    pub hash: Option<ItemHash>,
    /// Hash of the older content that still serves; `None`: there is none.
    pub held: Option<ItemHash>,
    /// Field path.
    pub field: String,
    /// Violation code.
    pub code: ViolationCode,
    /// What is wrong.
    pub message: String,
}

impl Reject {
    /// A violation of an object, of the content with that hash; `held` serves in its place.
    pub fn of(violation: &Violation, hash: Option<ItemHash>, held: Option<ItemHash>) -> Self {
        Reject {
            object: (&violation.object).into(),
            hash,
            held,
            field: violation.field.clone(),
            code: violation.code,
            message: violation.message.clone(),
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wire::ObjectRef { kind, namespace, name } = &self.object;
        write!(f, "{kind} {namespace}/{name}: ")?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl From<&Reject> for wire::Parked {
    fn from(reject: &Reject) -> Self {
        wire::Parked {
            object: Some(reject.object.clone()),
            refused: reject.hash.map(|hash| hash.0.to_vec()).unwrap_or_default(),
            held: reject.held.map(|hash| hash.0.to_vec()).unwrap_or_default(),
        }
    }
}

impl From<&Reject> for wire::Reject {
    fn from(reject: &Reject) -> Self {
        wire::Reject {
            object: Some(reject.object.clone()),
            hash: reject.hash.map(|hash| hash.0.to_vec()).unwrap_or_default(),
            held: reject.held.map(|hash| hash.0.to_vec()).unwrap_or_default(),
            field: reject.field.clone(),
            code: reject.code.as_str().to_owned(),
            message: reject.message.clone(),
            retryable: may_pass(reject.code),
        }
    }
}

/// A local fact that may pass.
const fn may_pass(code: ViolationCode) -> bool {
    matches!(code, ViolationCode::PortInUse | ViolationCode::BindFailed)
}

/// Whether a violation may pass by itself.
pub(super) const fn is_retryable(violation: &Violation) -> bool {
    may_pass(violation.code)
}

/// The configuration in service, as seen from outside.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// What is held.
    pub cursor: Cursor,
    /// Addresses that listeners are bound to, by `namespace/name`.
    pub listeners: BTreeMap<String, SocketAddr>,
    /// What is done without.
    pub rejects: Vec<Reject>,
    /// One whole configuration is active.
    pub complete: bool,
    /// ... and its listeners were bound.
    pub ready: bool,
}
