//! What one group of data planes holds at one revision, and how it came there: enough to send everything, or the
//! difference to an earlier revision.
//!
//! Invariants: immutable, but for what it remembers of the past; the window of steps is bounded and without gaps up to
//! this revision; content is never invented: what cannot be had from the window or the store's history is sent whole.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use gateway_proto::buckets::Buckets;
use gateway_proto::digest::{ItemHash, RootHash};
use gateway_proto::kind::Key;
use gateway_proto::secret::Secrets;
use gateway_proto::wire;
use uuid::Uuid;

use super::scope::{Scope, Touched};
use super::{Edit, encode};
use crate::state::{Objects, State};
use crate::store::{Difference, Stored};

/// Steps that are remembered, and objects that they may have touched in sum.
const MAX_STEPS: usize = 1_024;
const MAX_TOUCHED: usize = 200_000;
/// Deltas to one revision that are kept for the next stream that needs the same.
const MAX_DELTAS: usize = 64;
/// Revisions before the window that are remembered once they were asked for.
const MAX_RECALLED: usize = 64;

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
    state: Arc<State>,
    scope: Scope,
    /// Oldest first; each begins where the one before ended, the last ends here.
    window: VecDeque<Arc<Step>>,
    /// By revision: what led from there to where the window begins, or past that. Shared by all views whose window
    /// begins at the same revision.
    recalled: Arc<Mutex<HashMap<u64, Arc<Step>>>>,
    deltas: Mutex<HashMap<u64, Arc<Delta>>>,
    buckets: OnceLock<Buckets>,
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
    pub fn first(group: Option<String>, state: Arc<State>) -> Self {
        let scope = Scope::build(group, &state.objects);
        View {
            state,
            scope,
            window: VecDeque::new(),
            recalled: Arc::default(),
            deltas: Mutex::default(),
            buckets: OnceLock::new(),
        }
    }

    /// The one after this; `edits` lead from this one's state to the next.
    #[must_use]
    pub fn next(&self, state: Arc<State>, edits: &[Edit]) -> Self {
        let head = self.head();
        let mut scope = self.scope.clone();
        let touched = scope.advance(&state.objects, edits);
        let mut window = self.window.clone();
        window.push_back(Arc::new(Step { from: head.revision, root_before: head.root, touched }));
        let mut sum: usize = window.iter().map(|step| step.touched.len()).sum();
        while window.len() > MAX_STEPS || (sum > MAX_TOUCHED && window.len() > 1) {
            sum -= window.pop_front().map_or(0, |step| step.touched.len());
        }
        let same_start = window.front().is_some_and(|first| first.from == self.begins());
        let recalled = if same_start { Arc::clone(&self.recalled) } else { Arc::default() };
        View { state, scope, window, recalled, deltas: Mutex::default(), buckets: OnceLock::new() }
    }

    /// The same content, for a group that gets listeners of its own.
    #[must_use]
    pub fn for_group(&self, group: String) -> Self {
        View {
            state: Arc::clone(&self.state),
            scope: self.scope.clone().for_group(group),
            window: self.window.clone(),
            recalled: Arc::default(),
            deltas: Mutex::default(),
            buckets: OnceLock::new(),
        }
    }

    /// Where it stands.
    pub fn head(&self) -> Cursor {
        let head = &self.state.head;
        Cursor { epoch: head.epoch, revision: head.revision, root: self.scope.root() }
    }

    /// Whose it is; `None`: of the groups that no listener names.
    pub fn group(&self) -> Option<&str> {
        self.scope.group()
    }

    /// Everything in it.
    pub const fn items(&self) -> &Objects {
        self.scope.items()
    }

    /// The sums of its buckets; reckoned when first asked for.
    pub fn buckets(&self) -> &Buckets {
        self.buckets.get_or_init(|| self.items().iter().map(|(key, stored)| (key, stored.hash)).collect())
    }

    /// What is in it, and why.
    #[cfg(test)]
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What the references of an item stand for.
    pub fn secrets(&self, key: &Key) -> &Secrets {
        self.state.engine.secrets(key)
    }

    /// Root hash of the scope at an earlier revision, as far as the window reaches back or the past was recalled.
    pub fn root_at(&self, revision: u64) -> Option<RootHash> {
        if revision == self.state.head.revision {
            return Some(self.scope.root());
        }
        self.steps_from(revision)?.next().map(|step| step.root_before)
    }

    /// Remembers what the scope was at a revision before the window, for this view and those after it. `differences`
    /// are those of the whole store between that revision and this one.
    pub fn recall(&self, revision: u64, differences: Vec<Difference>) {
        let mut objects = self.state.objects.clone();
        let mut edits: Vec<Edit> = Vec::with_capacity(differences.len());
        for Difference { key, before, .. } in differences {
            let past = before.map(|body| Arc::new(Stored::past(key.clone(), revision, body)));
            let now = match &past {
                Some(past) => objects.insert(key.clone(), Arc::clone(past)),
                None => objects.remove(&key),
            };
            edits.push((key, now, past));
        }
        let mut scope = self.scope.clone();
        let touched = scope.advance(&objects, &edits).into_iter();
        let before = |key: &Key| scope.items().get(key).map(|stored| stored.hash);
        let mut touched: Vec<Touched> =
            touched.map(|it| Touched { before: before(&it.key), key: it.key }).collect();
        // What the window changed and the difference does not name only came back to what it was: the window alone
        // would say that it was then what it was when the window began.
        let mut named: HashSet<Key> = touched.iter().map(|it| it.key.clone()).collect();
        let changed = self.window.iter().flat_map(|step| &step.touched).map(|it| &it.key);
        let back = changed.filter(|key| named.insert((*key).clone()));
        touched.extend(back.map(|key| Touched { before: before(key), key: key.clone() }));
        let mut recalled = self.recalled.lock().unwrap_or_else(PoisonError::into_inner);
        if recalled.len() >= MAX_RECALLED {
            recalled.clear();
        }
        recalled.insert(revision, Arc::new(Step { from: revision, root_before: scope.root(), touched }));
    }

    /// Content of an object at an earlier revision; `None`: it was not in the scope. Only for revisions that
    /// [`View::root_at`] knows.
    pub fn hash_at(&self, revision: u64, key: &Key) -> Option<ItemHash> {
        let touched = self.delta(revision).and_then(|delta| {
            let at = delta.changes.binary_search_by(|changed| changed.key.cmp(key)).ok()?;
            Some(delta.changes[at].before)
        });
        touched.unwrap_or_else(|| self.items().get(key).map(|stored| stored.hash))
    }

    /// What differs from an earlier revision, if [`View::root_at`] knows it.
    pub fn delta(&self, from: u64) -> Option<Arc<Delta>> {
        let steps = self.steps_from(from)?;
        let mut deltas = self.deltas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(delta) = deltas.get(&from) {
            return Some(Arc::clone(delta));
        }
        let delta = Arc::new(self.merge(steps));
        if deltas.len() >= MAX_DELTAS {
            deltas.clear();
        }
        deltas.insert(from, Arc::clone(&delta));
        Some(delta)
    }

    /// Where the window begins.
    fn begins(&self) -> u64 {
        self.window.front().map_or(self.state.head.revision, |step| step.from)
    }

    /// What led here from a revision, oldest first; at least one step.
    fn steps_from(&self, revision: u64) -> Option<impl Iterator<Item = Arc<Step>>> {
        let (recalled, first) = match self.window.binary_search_by_key(&revision, |step| step.from) {
            Ok(first) => (None, first),
            Err(_) => {
                let recalled = self.recalled.lock().unwrap_or_else(PoisonError::into_inner);
                (Some(Arc::clone(recalled.get(&revision)?)), 0)
            }
        };
        Some(recalled.into_iter().chain(self.window.range(first..).cloned()))
    }

    fn merge(&self, steps: impl Iterator<Item = Arc<Step>>) -> Delta {
        let mut before: HashMap<Key, Option<ItemHash>> = HashMap::new();
        for step in steps {
            for touched in &step.touched {
                // The oldest counts.
                if !before.contains_key(&touched.key) {
                    before.insert(touched.key.clone(), touched.before);
                }
            }
        }
        let mut changes: Vec<Changed> = before
            .into_iter()
            .map(|(key, before)| Changed { after: self.items().get(&key).cloned(), key, before })
            .filter(|changed| changed.before != changed.after.as_ref().map(|stored| stored.hash))
            .collect();
        changes.sort_by(|left, right| left.key.cmp(&right.key));
        let pieces = encode::pieces(self, changes.iter());
        Delta { changes, pieces }
    }
}
