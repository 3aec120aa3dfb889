//! What a data plane holds, apart from the sockets and workers that serve it: the compiled configuration, where it
//! stands in the store's history, and what it does without. Pure, so that a change can be worked out beside the
//! thread that answers health checks, and every turn be tested.
//!
//! Invariants: the root hash in the cursor is that of what is held; within an epoch the revision never goes down;
//! what is refused is known by name, so that the other end can reckon what is held.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use gateway_engine::compile::{Change, Changed, Compiled};
use gateway_engine::engine::Engine;
use gateway_proto::buckets::Buckets;
use gateway_proto::digest::{ItemHash, RootHash};
use gateway_proto::kind::Key;
use gateway_proto::wire;

use super::quarantine::{Quarantined, Refused, quarantine};
use super::{ApplyError, Cursor, Reject, Scope, Update, state};

/// All of it. A clone shares what serves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    engine: Engine,
    cursor: Cursor,
    parked: BTreeMap<Key, Refused>,
    /// Objects that could not even be read.
    unreadable: Vec<Reject>,
}

/// What is to be held once it can serve.
pub(crate) struct Built {
    pub(crate) compiled: Compiled,
    pub(crate) refused: BTreeMap<Key, Refused>,
    /// Of what is held then.
    root: RootHash,
}

impl Held {
    /// Holds nothing and cannot read these.
    #[cfg(test)]
    pub(crate) fn refusing(unreadable: Vec<Reject>) -> Self {
        Held { unreadable, ..Held::default() }
    }

    pub(crate) const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    pub(crate) const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Whether anything is done without. Asked with every message, so that it must cost nothing.
    pub(crate) fn refuses(&self) -> bool {
        !self.parked.is_empty() || !self.unreadable.is_empty()
    }

    /// What is done without, and why; what concerns one object stands together. Costs a hash of each.
    pub(crate) fn rejects(&self) -> Vec<Reject> {
        let of = |(key, refused): (&Key, &Refused)| {
            let (hash, held) = (upserted(&refused.change), hash_in(&self.engine, key));
            refused.violations.iter().map(|it| Reject::of(it, hash, held)).collect::<Vec<_>>()
        };
        self.parked.iter().flat_map(of).chain(self.unreadable.iter().cloned()).collect()
    }

    /// The parked changes.
    pub(crate) fn parked(&self) -> impl Iterator<Item = (&Key, &Change)> {
        self.parked.iter().map(|(key, refused)| (key, &refused.change))
    }

    /// Something parked may pass by itself.
    pub(crate) fn has_retryable(&self) -> bool {
        self.parked.values().any(|refused| refused.violations.iter().any(state::is_retryable))
    }

    /// The sums of what is held. Costs everything: for a comparison, not for every change.
    pub(crate) fn buckets(&self) -> Buckets {
        self.engine.objects().iter().map(|it| (it.key, ItemHash::of(it.key, it.body))).collect()
    }

    /// Refuses what goes back in the same history.
    pub(crate) fn check_order(&self, update: &Update) -> Result<(), ApplyError> {
        if update.epoch == self.cursor.epoch && update.revision < self.cursor.revision {
            return Err(ApplyError::Backwards { held: self.cursor.revision, offered: update.revision });
        }
        Ok(())
    }

    /// Refuses another history that would drop more than half of what serves.
    pub(crate) fn check_shrink(&self, epoch: &Arc<str>, next: &Engine) -> Result<(), ApplyError> {
        if *epoch == self.cursor.epoch {
            return Ok(());
        }
        let counts = [
            ("listeners", self.engine.listeners().count(), next.listeners().count()),
            ("routes", self.engine.routes().count(), next.routes().count()),
        ];
        match counts.into_iter().find(|&(_, held, left)| left * 2 < held) {
            Some((what, held, left)) => Err(ApplyError::EpochShrink { what, held, left }),
            None => Ok(()),
        }
    }

    /// What cannot be read once an update is made: it stays so until the object is named again or goes.
    pub(crate) fn unreadable_after(&self, update: &Update) -> Vec<Reject> {
        let mut still = self.unreadable.clone();
        if !still.is_empty() {
            let changed = update.changes.iter().map(|change| wire::ObjectRef::from(&change.key()));
            let unread = update.unreadable.iter().map(|reject| reject.object.clone());
            let named: HashSet<_> = changed.chain(unread).chain(update.gone.iter().cloned()).collect();
            still.retain(|it| !named.contains(&it.object) && !update.scope.covers(&it.object));
        }
        let held = |object| Key::try_from(object).ok().and_then(|key| hash_in(&self.engine, &key));
        let new = update.unreadable.iter();
        still.extend(new.map(|it| Reject { held: held(&it.object), ..it.clone() }));
        still
    }

    /// Everything that is to be tried: the update over what is parked, and over the removal of what it covers.
    /// `unreadable` keep their old copies.
    pub(crate) fn candidates(
        &self,
        scope: &Scope,
        changes: Vec<Change>,
        unreadable: &[Reject],
    ) -> BTreeMap<Key, Change> {
        let covers = |key: &Key| match scope {
            Scope::Delta => false,
            Scope::Buckets(buckets) => buckets.holds(key),
            Scope::Full => true,
        };
        let waiting = self.parked.iter().filter(|(key, _)| !covers(key));
        let mut all: BTreeMap<Key, Change> =
            waiting.map(|(key, refused)| (key.clone(), refused.change.clone())).collect();
        if !matches!(scope, Scope::Delta) {
            let kept: HashSet<Key> =
                unreadable.iter().filter_map(|it| Key::try_from(&it.object).ok()).collect();
            let objects = self.engine.objects().into_iter().map(|it| it.key);
            let gone = objects.filter(|key| covers(key) && !kept.contains(*key));
            all.extend(gone.map(|key| (key.clone(), Change::Delete(key.clone()))));
        }
        all.extend(changes.into_iter().map(|change| (change.key(), change)));
        all
    }

    /// Compiles what can be compiled; `refused` are those that the caller has given up already.
    pub(crate) fn build(&self, changes: &BTreeMap<Key, Change>, refused: BTreeMap<Key, Refused>) -> Built {
        let Quarantined { compiled, refused } = quarantine(&self.engine, changes, refused);
        Built { root: root_after(self.cursor.root, &self.engine, &compiled), compiled, refused }
    }

    /// Holds what was built. Returns what differs.
    pub(crate) fn take(
        &mut self,
        built: Built,
        unreadable: Vec<Reject>,
        epoch: Arc<str>,
        revision: u64,
    ) -> Changed {
        let Compiled { engine, changed, warnings } = built.compiled;
        for warning in &warnings {
            tracing::debug!(%warning, "configuration");
        }
        self.engine = engine;
        self.parked = built.refused;
        self.unreadable = unreadable;
        self.cursor = Cursor { epoch, revision, root: built.root };
        changed
    }
}

impl Scope {
    /// Whether what is not named of an object's kind and name goes.
    fn covers(&self, object: &wire::ObjectRef) -> bool {
        let wire::ObjectRef { kind, namespace, name } = object;
        match self {
            Scope::Delta => false,
            Scope::Buckets(buckets) => {
                buckets.contains(gateway_proto::buckets::bucket([kind, namespace, name]))
            }
            Scope::Full => true,
        }
    }
}

/// The root hash with what a compile changed. Costs the change.
fn root_after(root: RootHash, previous: &Engine, compiled: &Compiled) -> RootHash {
    let Changed { added, updated, removed, .. } = &compiled.changed;
    let without = |root: RootHash, key| hash_in(previous, key).map_or(root, |hash| root.minus(hash));
    let with = |root: RootHash, key| hash_in(&compiled.engine, key).map_or(root, |hash| root.plus(hash));
    let root = updated.iter().chain(removed).fold(root, without);
    added.iter().chain(updated).fold(root, with)
}

fn hash_in(engine: &Engine, key: &Key) -> Option<ItemHash> {
    engine.body(key).map(|body| ItemHash::of(key, body))
}

/// Hash of the content that a change brings; `None`: it deletes.
fn upserted(change: &Change) -> Option<ItemHash> {
    match change {
        Change::Upsert(resource) | Change::Sealed(resource, _) => Some(resource.hash()),
        Change::Delete(_) => None,
    }
}

#[cfg(test)]
mod tests;
