//! Compile: (previous, changes) -> Engine. Pure and total: it reads nothing but its arguments, never panics, and
//! collects everything that is wrong before it refuses. The same code answers in `gatewayctl validate`, in the
//! control plane's admission and in every data plane.
//!
//! The cost is that of the change, not of what exists: of objects that are not in the batch only listeners are touched,
//! where a Certificate they refer to changed. The state that holds once all changes are made is what is judged, so their order does
//! not matter. Object counts, lists and texts are bounded; see the `MAX_*` constants.

use gateway_proto::field::{FieldPath, Violation, ViolationCode};
use gateway_proto::kind::{Key, Kind, Resource};
use gateway_proto::secret::Secrets;

use crate::engine::Engine;
use crate::violations::Violations;

mod conflict;
mod draft;
pub(crate) mod level;
pub(crate) mod object;
pub(crate) mod reference;
mod warning;

pub use level::MAX_POLICY_REFS;
pub use object::{MAX_ANNOTATION_BYTES, MAX_LABEL_NAME, MAX_LABEL_VALUE, MAX_LABELS};

use draft::Draft;

/// The order of references: what refers comes after what it refers to.
const ORDER: [Kind; Kind::ALL.len()] = [
    Kind::TokenIssuer,
    Kind::Policy,
    Kind::Certificate,
    Kind::Consumer,
    Kind::Credential,
    Kind::Listener,
    Kind::DiscoverySource,
    Kind::Upstream,
    Kind::Route,
];

/// One change of a batch.
#[derive(Clone, Debug)]
pub enum Change {
    /// The object is to be this, whatever it was.
    Upsert(Resource),
    /// The same for one that is stored and hashed with references in the place of its secrets: what these are.
    Sealed(Resource, Secrets),
    /// The object is to be gone; no harm if it is already.
    Delete(Key),
}

impl Change {
    /// The object that changes.
    pub fn key(&self) -> Key {
        match self {
            Change::Upsert(resource) | Change::Sealed(resource, _) => resource.key(),
            Change::Delete(key) => key.clone(),
        }
    }
}

/// What compile made.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The new configuration.
    pub engine: Engine,
    /// What is allowed but probably not meant, about the objects of the batch and the routes that they put in the
    /// shade. Sorted.
    pub warnings: Vec<Violation>,
    /// What differs from the previous configuration.
    pub changed: Changed,
}

/// Names of the objects that differ, each list sorted. An upsert of equal content is no change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// New objects.
    pub added: Vec<Key>,
    /// Objects with other content.
    pub updated: Vec<Key>,
    /// Objects that are gone.
    pub removed: Vec<Key>,
    /// Listeners of equal content that were made anew, because a Certificate they refer to changed. (What refers to a
    /// Policy stays as it is: lists of policies are joined apart from the objects that hold them.)
    pub affected: Vec<Key>,
}

impl Changed {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty()
            && self.updated.is_empty()
            && self.removed.is_empty()
            && self.affected.is_empty()
    }
}

/// Makes the next configuration, or says everything that is wrong with it (sorted by object).
///
/// # Errors
/// Every violation found; `previous` holds on.
pub fn compile(previous: &Engine, changes: Vec<Change>) -> Result<Compiled, Vec<Violation>> {
    make(previous, changes.into_iter().map(|change| (change.key(), Content::Own(change.into()))).collect())
}

/// The same of changes that the caller keeps: each is copied when its turn comes, so that they are never held twice.
///
/// # Errors
/// As [`compile`].
pub fn compile_lent<'c>(
    previous: &Engine,
    changes: impl IntoIterator<Item = &'c Change>,
) -> Result<Compiled, Vec<Violation>> {
    make(previous, changes.into_iter().map(|change| (change.key(), Content::Lent(change))).collect())
}

fn make(previous: &Engine, mut batch: Vec<(Key, Content<'_>)>) -> Result<Compiled, Vec<Violation>> {
    let mut violations = Vec::new();
    sort(&mut batch, &mut violations);
    let mut draft = Draft::of(previous);
    let deleted: Vec<Key> =
        batch.iter().filter(|(_, content)| content.is_deletion()).map(|(key, _)| key.clone()).collect();
    draft.delete(&deleted);
    for kind in ORDER {
        // Sorted by kind first: those of one lie together.
        let from = batch.partition_point(|(key, _)| key.kind < kind);
        for (key, content) in batch[from..].iter_mut().take_while(|(key, _)| key.kind == kind) {
            if let Some((resource, secrets)) = std::mem::take(content).taken() {
                violations.extend(draft.upsert(key.clone(), resource, secrets));
            }
        }
        if kind == Kind::Policy {
            draft.rejoin();
        }
    }
    draft.refresh_listeners();
    violations.extend(draft.faulty_lists());
    violations.extend(conflict::globals(&mut draft));
    violations.extend(conflict::ports(&draft));
    violations.extend(draft.in_use(&deleted));
    if !violations.is_empty() {
        violations.sort_by(|one, two| one.object.cmp(&two.object));
        return Err(violations);
    }
    let (engine, changed) = draft.finish();
    let warnings = warning::about(&engine, &changed.added.iter().chain(&changed.updated).collect());
    Ok(Compiled { engine, warnings, changed })
}

/// What becomes of an object, until it is made.
#[derive(Default)]
enum Content<'c> {
    #[default]
    Taken,
    Own(Box<Change>),
    Lent(&'c Change),
}

impl Content<'_> {
    fn is_deletion(&self) -> bool {
        match self {
            Content::Taken => false,
            Content::Own(change) => matches!(**change, Change::Delete(_)),
            Content::Lent(change) => matches!(change, Change::Delete(_)),
        }
    }

    /// What is to be put in, if anything is.
    fn taken(self) -> Option<(Resource, Secrets)> {
        let change = match self {
            Content::Taken => return None,
            Content::Own(change) => *change,
            Content::Lent(change) => change.clone(),
        };
        match change {
            Change::Upsert(resource) => Some((resource, Secrets::none())),
            Change::Sealed(resource, secrets) => Some((resource, secrets)),
            Change::Delete(_) => None,
        }
    }
}

/// Sorts the changes by object; the same object twice is a violation, and the last one is taken.
fn sort(batch: &mut Vec<(Key, Content<'_>)>, violations: &mut Vec<Violation>) {
    batch.sort_by(|(one, _), (two, _)| one.cmp(two));
    batch.dedup_by(|later, earlier| {
        if later.0 != earlier.0 {
            return false;
        }
        let mut out = Violations::of(later.0.clone());
        out.push(
            &FieldPath::root(),
            ViolationCode::Duplicate,
            "the object occurs twice in this batch, keep one",
        );
        violations.extend(out.into_vec());
        std::mem::swap(later, earlier);
        true
    });
}

impl Engine {
    /// Everything that is allowed but probably not meant, in the whole configuration. Sorted. Costs what exists, not
    /// what changed.
    pub fn warnings(&self) -> Vec<Violation> {
        let all = self.state.objects.iter().map(|object| &object.name.key).collect();
        warning::about(self, &all)
    }
}

#[cfg(test)]
mod tests;
