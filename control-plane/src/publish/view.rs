//! What one group of data planes holds at one revision, and how it came there: enough to send everything, or the
//! difference to an earlier revision.
//!
//! Invariants: immutable; the window of steps is bounded and without gaps up to this revision; content is never
//! invented: what cannot be had from the window is sent whole.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use gateway_engine::Engine;
use gateway_proto::digest::{ItemHash, RootHash};
use gateway_proto::kind::Key;
use gateway_proto::secret::Secrets;
use gateway_proto::wire;
use uuid::Uuid;

use super::encode;
use super::scope::{Scope, Touched};
use crate::sorted::SortedMap;
use crate::state::State;
use crate::store::Stored;

/// Steps that are remembered, and objects that they may have touched in sum.
const MAX_STEPS: usize = 1_024;
const MAX_TOUCHED: usize = 200_000;
/// Deltas to one revision that are kept for the next stream that needs the same.
const MAX_DELTAS: usize = 64;

/// A point in the history of one scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which history.
    pub epoch: Uuid,
    /// Which revision.
    pub revision: u64,
    /// Sum of the hashes of what is held.
    pub root: RootHash,
}

impl From<Cursor> for wire::Cursor {
    fn from(cursor: Cursor) -> Self {
        wire::Cursor {
            epoch: cursor.epoch.to_string(),
            revision: cursor.revision,
            root_hash: cursor.root.to_bytes().to_vec(),
        }
    }
}

impl Cursor {
    /// From the wire; `None` for an empty one or one that makes no sense: it holds nothing that we know.
    pub fn read(cursor: &wire::Cursor) -> Option<Self> {
        Some(Cursor {
            epoch: cursor.epoch.parse().ok()?,
            revision: cursor.revision,
            root: RootHash::from_slice(&cursor.root_hash)?,
        })
    }
}

/// One scope at one revision.
#[derive(Debug)]
pub struct View {
    head: Cursor,
    items: SortedMap<Key, Arc<Stored>>,
    /// Everything there is, compiled: knows the secrets of the items.
    engine: Engine,
    /// Oldest first; each begins where the one before ended, the last ends here.
    window: VecDeque<Arc<Step>>,
    deltas: Mutex<HashMap<u64, Arc<Delta>>>,
}

/// What led from one published revision to the next.
#[derive(Debug)]
struct Step {
    from: u64,
    root_before: RootHash,
    touched: Vec<Touched>,
}

/// The difference between two revisions of a scope.
#[derive(Debug)]
pub struct Delta {
    /// What differs, by key.
    pub changes: Vec<Changed>,
    /// The same, encoded, in pieces of a chunk's size.
    pub pieces: Vec<Bytes>,
}

/// An object that differs between two revisions.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The object.
    pub key: Key,
    /// Hash of its content on the older side; `None`: it was not in the scope.
    pub before: Option<ItemHash>,
    /// Its content on the newer side; `None`: it is not in the scope.
    pub after: Option<Arc<Stored>>,
}

impl View {
    /// The first of a process: without a past.
    pub fn first(state: &State, scope: &Scope) -> Self {
        View::new(state, scope, VecDeque::new())
    }

    /// The one after this.
    #[must_use]
    pub fn next(&self, state: &State, scope: &Scope, touched: Vec<Touched>) -> Self {
        let mut window = self.window.clone();
        window.push_back(Arc::new(Step { from: self.head.revision, root_before: self.head.root, touched }));
        let mut sum: usize = window.iter().map(|step| step.touched.len()).sum();
        while window.len() > MAX_STEPS || (sum > MAX_TOUCHED && window.len() > 1) {
            sum -= window.pop_front().map_or(0, |step| step.touched.len());
        }
        View::new(state, scope, window)
    }

    fn new(state: &State, scope: &Scope, window: VecDeque<Arc<Step>>) -> Self {
        let head = &state.head;
        View {
            head: Cursor { epoch: head.epoch, revision: head.revision, root: scope.root() },
            items: scope.items().clone(),
            engine: state.engine.clone(),
            window,
            deltas: Mutex::default(),
        }
    }

    /// Where it stands.
    pub const fn head(&self) -> Cursor {
        self.head
    }

    /// Everything in it.
    pub const fn items(&self) -> &SortedMap<Key, Arc<Stored>> {
        &self.items
    }

    /// What the references of an item stand for.
    pub fn secrets(&self, key: &Key) -> &Secrets {
        self.engine.secrets(key)
    }

    /// Root hash of the scope at an earlier revision, if the window reaches back to it.
    pub fn root_at(&self, revision: u64) -> Option<RootHash> {
        if revision == self.head.revision {
            return Some(self.head.root);
        }
        self.step_from(revision).map(|at| self.window[at].root_before)
    }

    /// Content of an object at an earlier revision; `None`: it was not in the scope. Only for revisions that
    /// [`View::root_at`] knows.
    pub fn hash_at(&self, revision: u64, key: &Key) -> Option<ItemHash> {
        let touched = self.delta(revision).and_then(|delta| {
            let at = delta.changes.binary_search_by(|changed| changed.key.cmp(key)).ok()?;
            Some(delta.changes[at].before)
        });
        touched.unwrap_or_else(|| self.items.get(key).map(|stored| stored.hash))
    }

    /// What differs from an earlier revision, if the window reaches back to it.
    pub fn delta(&self, from: u64) -> Option<Arc<Delta>> {
        let first = self.step_from(from)?;
        let mut deltas = self.deltas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(delta) = deltas.get(&from) {
            return Some(Arc::clone(delta));
        }
        let delta = Arc::new(self.merge(first));
        if deltas.len() >= MAX_DELTAS {
            deltas.clear();
        }
        deltas.insert(from, Arc::clone(&delta));
        Some(delta)
    }

    fn step_from(&self, revision: u64) -> Option<usize> {
        self.window.binary_search_by_key(&revision, |step| step.from).ok()
    }

    fn merge(&self, first: usize) -> Delta {
        let mut before: HashMap<&Key, Option<ItemHash>> = HashMap::new();
        for touched in self.window.iter().skip(first).flat_map(|step| &step.touched) {
            before.entry(&touched.key).or_insert(touched.before);
        }
        let mut changes: Vec<Changed> = before
            .into_iter()
            .map(|(key, before)| Changed { key: key.clone(), before, after: self.items.get(key).cloned() })
            .filter(|changed| changed.before != changed.after.as_ref().map(|stored| stored.hash))
            .collect();
        changes.sort_by(|left, right| left.key.cmp(&right.key));
        let pieces = encode::pieces(self, changes.iter());
        Delta { changes, pieces }
    }
}
