//! One change of configuration: build -> bind -> swap -> drain the old. The only writer of the live snapshot.
//!
//! What cannot be taken (an object that does not compile, a listener whose port is taken) is parked: the old copy
//! serves on, the rest of the change applies, and the parked change is tried again with every later one and, when the
//! fault may pass by itself, by [`Applier::retry`].
//!
//! Invariants: within an epoch the revision never goes down; everything new is bound before the swap, and nothing old
//! is closed before it; the root hash in the cursor is that of what is held.

mod quarantine;
mod sockets;
mod state;
mod tidy;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_engine::compile::{Change, Changed, Compiled};
use gateway_engine::engine::Engine;
use gateway_proto::digest::{ItemHash, RootHash};
use gateway_proto::field::Violation;
use gateway_proto::kind::{Key, Kind};
use tokio::sync::watch;

use crate::runtime::{Shared, Workers};
use crate::snapshot::Snapshot;
use quarantine::{Quarantined, Refused, quarantine};
use sockets::Sockets;
use tidy::Tidy;

pub use state::{Cursor, Reject, State};

/// How often a change that failed for a reason that may pass is tried again.
pub(crate) const RETRY_EVERY: Duration = Duration::from_secs(5);

/// A change to be made.
#[derive(Debug)]
pub(crate) struct Update {
    /// What is not named: stays or goes.
    pub(crate) scope: Scope,
    /// History of the configuration after it; empty: files.
    pub(crate) epoch: Arc<str>,
    /// Revision of the configuration after it.
    pub(crate) revision: u64,
    /// What changes; an object occurs once.
    pub(crate) changes: Vec<Change>,
    /// Objects that could not even be read: reported with the others.
    pub(crate) unreadable: Vec<Reject>,
    /// What to do about violations.
    pub(crate) on_violation: OnViolation,
}

/// What an update says about objects that it does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// They stay.
    Delta,
    /// They go.
    Full,
}

/// What becomes of an update with violations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnViolation {
    /// All of it is refused (files: the author is told and mends it).
    Refuse,
    /// The objects concerned are parked, the rest applies (stream: others wait for theirs).
    Park,
}

/// Why an update was refused as a whole. What served before serves on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// It goes back in the same history.
    #[error("refusing to go back from revision {held} to {offered} of the same store")]
    Backwards {
        /// What serves.
        held: u64,
        /// What was offered.
        offered: u64,
    },
    /// A new history that would drop more than half of what serves.
    #[error(
        "a new store would leave {left} of {held} {what}: serving on with what there is (restore the store, or start this data plane with an empty state directory to accept it)"
    )]
    EpochShrink {
        /// `listeners` or `routes`.
        what: &'static str,
        /// How many serve.
        held: usize,
        /// How many would be left.
        left: usize,
    },
    /// Something in it is wrong ([`OnViolation::Refuse`]).
    #[error("{} violations in the configuration", .0.len())]
    Violations(Vec<Violation>),
}

impl ApplyError {
    /// As it is reported to the control plane.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            ApplyError::Backwards { .. } => "backwards",
            ApplyError::EpochShrink { .. } => "epoch_shrink",
            ApplyError::Violations(_) => "invalid",
        }
    }
}

/// What came of an update.
#[derive(Debug)]
pub(crate) struct Applied {
    /// What differs now.
    pub(crate) changed: Changed,
    /// What is done without from now on.
    pub(crate) refused: Vec<Reject>,
    /// From here to the swap.
    pub(crate) took: Duration,
    /// Objects that were parked before and serve now without having been sent again.
    pub(crate) released: bool,
}

/// Makes changes, one after the other.
#[derive(Debug)]
pub(crate) struct Applier {
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    sockets: Sockets,
    engine: Engine,
    cursor: Cursor,
    parked: BTreeMap<Key, Refused>,
    unreadable: Vec<Reject>,
    state: watch::Sender<State>,
    tidy: Tidy,
}

impl Applier {
    /// Nothing applied yet. Takes the listeners without a group and those of `group`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        workers: Arc<Workers>,
        group: &str,
        state: watch::Sender<State>,
    ) -> Self {
        Applier {
            shared,
            sockets: Sockets::new(group, workers.count()),
            workers,
            engine: Engine::default(),
            cursor: Cursor::default(),
            parked: BTreeMap::new(),
            unreadable: Vec::new(),
            state,
            tidy: Tidy::default(),
        }
    }

    /// What is held.
    pub(crate) const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// What serves: cheap to clone.
    pub(crate) const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What is done without, and why.
    pub(crate) fn rejects(&self) -> Vec<Reject> {
        let of = |refused: &Refused| {
            let hash = upserted(&refused.change);
            refused.violations.iter().map(|violation| Reject::of(violation, hash)).collect::<Vec<_>>()
        };
        self.parked.values().flat_map(of).chain(self.unreadable.iter().cloned()).collect()
    }

    /// The parked changes: what was refused and, where an old copy serves on, the hash of that.
    pub(crate) fn parked(&self) -> impl Iterator<Item = (&Change, Option<ItemHash>)> {
        self.parked.iter().map(|(key, refused)| (&refused.change, held(&self.engine, key)))
    }

    /// Addresses that listeners are bound to, by `namespace/name`.
    pub(crate) fn listeners(&self) -> BTreeMap<String, std::net::SocketAddr> {
        self.sockets.bound()
    }

    /// Whether [`Applier::retry`] has anything to try.
    pub(crate) fn has_retryable(&self) -> bool {
        self.parked.values().any(is_retryable)
    }

    /// Makes a change.
    ///
    /// # Errors
    /// [`ApplyError`]: none of it was made.
    pub(crate) async fn apply(&mut self, update: Update) -> Result<Applied, ApplyError> {
        let begun = Instant::now();
        if update.epoch == self.cursor.epoch && update.revision < self.cursor.revision {
            return Err(ApplyError::Backwards { held: self.cursor.revision, offered: update.revision });
        }
        let before = self.rejects();
        let waiting: BTreeSet<Key> = self.parked.keys().cloned().collect();
        let named: BTreeSet<Key> = update.changes.iter().map(Change::key).collect();
        let built = self.build(update.scope, update.changes, update.on_violation).await?;
        if update.epoch != self.cursor.epoch {
            self.check_shrink(&built.compiled.engine)?;
        }
        let released = waiting.iter().any(|key| !named.contains(key) && !built.refused.contains_key(key));
        self.unreadable = update.unreadable;
        self.cursor = Cursor { epoch: update.epoch, revision: update.revision, root: built.root };
        self.parked = built.refused;
        let changed = self.switch(built.compiled).await;
        let refused: Vec<Reject> =
            self.rejects().into_iter().filter(|reject| !before.contains(reject)).collect();
        self.shared.metrics.rejected(refused.len() as u64);
        let took = begun.elapsed();
        self.shared.metrics.applied(self.cursor.revision, took);
        self.publish();
        Ok(Applied { changed, refused, took, released })
    }

    /// A whole configuration was refused, here or before it got here.
    pub(crate) fn note_refused(&self) {
        self.shared.metrics.rejected(1);
    }

    /// Tries the parked changes again when one of them failed for a reason that may pass. Returns whether anything
    /// changed.
    pub(crate) async fn retry(&mut self) -> bool {
        if !self.has_retryable() {
            return false;
        }
        let update = Update {
            scope: Scope::Delta,
            epoch: Arc::clone(&self.cursor.epoch),
            revision: self.cursor.revision,
            changes: Vec::new(),
            unreadable: self.unreadable.clone(),
            on_violation: OnViolation::Park,
        };
        self.apply(update).await.is_ok_and(|applied| applied.released)
    }

    /// Compiles and binds; where a listener cannot be bound, compiles again without that change.
    async fn build(
        &mut self,
        scope: Scope,
        changes: Vec<Change>,
        on: OnViolation,
    ) -> Result<Built, ApplyError> {
        let (engine, parked) = (self.engine.clone(), self.parked.clone());
        let mut left = blocking(move || candidates(&engine, scope, parked, changes)).await;
        let mut given_up = BTreeMap::new();
        loop {
            let (engine, root) = (self.engine.clone(), self.cursor.root);
            let (changes, refused) = (left.clone(), given_up.clone());
            let built = blocking(move || {
                let Quarantined { compiled, refused } = quarantine(&engine, changes, refused);
                Built { root: root_after(root, &engine, &compiled), compiled, refused }
            })
            .await;
            if on == OnViolation::Refuse && given_up.is_empty() && !built.refused.is_empty() {
                let violations = built.refused.into_values().flat_map(|refused| refused.violations);
                return Err(ApplyError::Violations(violations.collect()));
            }
            self.follow_names(&built.compiled).await;
            let failed = self.sockets.bind(&built.compiled.engine);
            if failed.is_empty() {
                return Ok(built);
            }
            for violation in failed {
                let Some(change) = left.remove(&violation.object) else { continue };
                given_up.insert(violation.object.clone(), Refused { change, violations: vec![violation] });
            }
        }
    }

    /// Host names of new upstreams are looked up before the first request needs them.
    async fn follow_names(&self, compiled: &Compiled) {
        let changed = &compiled.changed;
        let upstreams = [&changed.added, &changed.updated, &changed.removed];
        if upstreams.iter().any(|keys| keys.iter().any(|key| key.kind == Kind::Upstream)) {
            self.shared.resolver.follow(compiled.engine.upstreams()).await;
        }
    }

    fn check_shrink(&self, next: &Engine) -> Result<(), ApplyError> {
        let counts = [
            ("listeners", self.engine.listeners().count(), next.listeners().count()),
            ("routes", self.engine.routes().count(), next.routes().count()),
        ];
        match counts.into_iter().find(|&(_, held, left)| left * 2 < held) {
            Some((what, held, left)) => Err(ApplyError::EpochShrink { what, held, left }),
            None => Ok(()),
        }
    }

    /// The swap, and what must come after it.
    async fn switch(&mut self, compiled: Compiled) -> Changed {
        let Compiled { engine, changed, warnings } = compiled;
        for warning in &warnings {
            tracing::debug!(%warning, "configuration");
        }
        self.engine = engine.clone();
        let revision = self.cursor.revision;
        self.shared.live.swap(Snapshot { engine, revision, epoch: Arc::clone(&self.cursor.epoch) });
        self.workers.refresh().await;
        self.sockets.switch(&self.workers).await;
        self.tidy.after_swap(&self.shared, !changed.removed.is_empty());
        changed
    }

    fn publish(&self) {
        let next = State {
            cursor: self.cursor.clone(),
            listeners: self.sockets.bound(),
            rejects: self.rejects(),
            complete: true,
            // Once ready, a later change that cannot be taken whole is no reason to send traffic away.
            ready: self.state.borrow().ready || !self.has_retryable(),
        };
        self.state.send_replace(next);
    }
}

/// What is to go live.
struct Built {
    compiled: Compiled,
    /// Of what is held then.
    root: RootHash,
    refused: BTreeMap<Key, Refused>,
}

/// Runs what takes a while with 100,000 routes off the thread that answers health checks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .expect("compile does not panic, and the runtime outlives its tasks")
}

/// Everything that is to be tried: the update over what is parked, or over the removal of all there is.
fn candidates(
    engine: &Engine,
    scope: Scope,
    parked: BTreeMap<Key, Refused>,
    changes: Vec<Change>,
) -> BTreeMap<Key, Change> {
    let mut all: BTreeMap<Key, Change> = match scope {
        Scope::Full => {
            engine.objects().iter().map(|it| (it.key.clone(), Change::Delete(it.key.clone()))).collect()
        }
        Scope::Delta => parked.into_iter().map(|(key, refused)| (key, refused.change)).collect(),
    };
    all.extend(changes.into_iter().map(|change| (change.key(), change)));
    all
}

/// The root hash with what a compile changed. Costs the change.
fn root_after(root: RootHash, previous: &Engine, compiled: &Compiled) -> RootHash {
    let Changed { added, updated, removed, .. } = &compiled.changed;
    let without = |root: RootHash, key| held(previous, key).map_or(root, |hash| root.minus(hash));
    let with = |root: RootHash, key| held(&compiled.engine, key).map_or(root, |hash| root.plus(hash));
    let root = updated.iter().chain(removed).fold(root, without);
    added.iter().chain(updated).fold(root, with)
}

fn is_retryable(refused: &Refused) -> bool {
    refused.violations.iter().any(state::is_retryable)
}

fn held(engine: &Engine, key: &Key) -> Option<ItemHash> {
    engine.body(key).map(|body| ItemHash::of(key, body))
}

/// Hash of the content that a change brings; `None`: it deletes.
fn upserted(change: &Change) -> Option<ItemHash> {
    match change {
        Change::Upsert(resource) | Change::Sealed(resource, _) => Some(resource.hash()),
        Change::Delete(_) => None,
    }
}
