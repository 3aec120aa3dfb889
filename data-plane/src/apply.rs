//! One change of configuration: build -> bind -> swap -> drain the old. The only writer of the live snapshot.
//!
//! What cannot be taken (an object that does not compile, a listener whose port is taken) is parked: the old copy
//! serves on, the rest of the change applies, and the parked change is tried again with every later one and, when the
//! fault may pass by itself, by [`Applier::retry`].
//!
//! Invariants: within an epoch the revision never goes down; everything new is bound before the swap, and nothing old
//! is closed before it. What is held and what becomes of it is `held.rs`; this file gives it time, sockets and workers.

mod held;
mod quarantine;
mod sockets;
mod state;
mod tidy;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_engine::compile::{Change, Changed, Compiled};
use gateway_engine::engine::Engine;
use gateway_engine::upstream::Target;
use gateway_proto::buckets::{BucketSet, Buckets};
use gateway_proto::field::Violation;
use gateway_proto::kind::{Key, Kind};
use gateway_proto::wire;
use tokio::sync::watch;

use crate::endpoints::{Lane, Malformed};
use crate::runtime::{Shared, Workers};
use crate::snapshot::Snapshot;
use crate::upstream::discovered::Targets;
use held::Built;
use sockets::Sockets;
use tidy::Tidy;

pub(crate) use held::Held;
pub(crate) use quarantine::Refused;
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
    /// Removed objects of kinds that this version does not know.
    pub(crate) gone: Vec<wire::ObjectRef>,
    /// What to do about violations.
    pub(crate) on_violation: OnViolation,
    /// It may leave less than half of what is held of another history.
    pub(crate) allow_shrink: bool,
}

/// What an update says about objects that it does not name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scope {
    /// They stay.
    #[default]
    Delta,
    /// Those in these buckets go.
    Buckets(Box<BucketSet>),
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
        "a new store would leave {left} of {held} {what}: serving on with what there is (restore the store, or accept the new one with `gatewayctl apply --allow-shrink`)"
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
    held: Held,
    state: watch::Sender<State>,
    tidy: Tidy,
    endpoints: Lane,
}

impl Applier {
    /// Nothing applied yet. Takes the listeners without a group and those of `group`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        workers: Arc<Workers>,
        group: &str,
        state: watch::Sender<State>,
    ) -> Self {
        let endpoints = Lane::new(Arc::clone(&shared.discovered));
        Applier {
            shared,
            sockets: Sockets::new(group, workers.count()),
            workers,
            held: Held::default(),
            state,
            tidy: Tidy::default(),
            endpoints,
        }
    }

    /// What is held.
    pub(crate) const fn held(&self) -> &Held {
        &self.held
    }

    /// Where that stands.
    pub(crate) const fn cursor(&self) -> &Cursor {
        self.held.cursor()
    }

    /// What serves: cheap to clone.
    pub(crate) const fn engine(&self) -> &Engine {
        self.held.engine()
    }

    /// The sums of what is held, for a comparison.
    pub(crate) async fn buckets(&self) -> Buckets {
        let held = self.held.clone();
        blocking(move || held.buckets()).await
    }

    /// Addresses that listeners are bound to, by `namespace/name`.
    pub(crate) fn listeners(&self) -> BTreeMap<String, std::net::SocketAddr> {
        self.sockets.bound()
    }

    /// Whether [`Applier::retry`] has anything to try.
    pub(crate) fn has_retryable(&self) -> bool {
        self.held.has_retryable()
    }

    /// Makes a change.
    ///
    /// # Errors
    /// [`ApplyError`]: none of it was made.
    pub(crate) async fn apply(&mut self, update: Update) -> Result<Applied, ApplyError> {
        let begun = Instant::now();
        self.held.check_order(&update)?;
        let before = self.held.rejects();
        let waiting: BTreeSet<Key> = self.held.parked().map(|(key, _)| key.clone()).collect();
        let named: BTreeSet<Key> = update.changes.iter().map(Change::key).collect();
        let unreadable = self.held.unreadable_after(&update);
        let Update { scope, epoch, revision, changes, on_violation, allow_shrink, .. } = update;
        let candidates = self.candidates(scope, changes, unreadable.clone()).await;
        let shrinks = (!allow_shrink).then_some(&epoch);
        let built = self.build(candidates, on_violation, shrinks).await?;
        let released = waiting.iter().any(|key| !named.contains(key) && !built.refused.contains_key(key));
        self.keep_targets(&built.compiled);
        let changed = self.held.take(built, unreadable, epoch, revision);
        self.switch(!changed.removed.is_empty()).await;
        if [&changed.updated, &changed.removed].into_iter().flatten().any(|key| key.kind == Kind::Upstream) {
            self.endpoints.follow(self.engine());
        }
        let refused: Vec<Reject> =
            self.held.rejects().into_iter().filter(|reject| !before.contains(reject)).collect();
        self.shared.metrics.rejected(refused.len() as u64);
        let took = begun.elapsed();
        self.shared.metrics.applied(revision, took);
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
            epoch: Arc::clone(&self.cursor().epoch),
            revision: self.cursor().revision,
            changes: Vec::new(),
            unreadable: Vec::new(),
            gone: Vec::new(),
            on_violation: OnViolation::Park,
            allow_shrink: false,
        };
        self.apply(update).await.is_ok_and(|applied| applied.released)
    }

    async fn candidates(
        &self,
        scope: Scope,
        changes: Vec<Change>,
        unreadable: Vec<Reject>,
    ) -> BTreeMap<Key, Change> {
        let held = self.held.clone();
        blocking(move || held.candidates(&scope, changes, &unreadable)).await
    }

    /// Compiles and binds; where a listener cannot be bound, compiles again without that change. `of` is the history
    /// that it must not shrink with; what is refused is never followed or bound.
    async fn build(
        &mut self,
        left: BTreeMap<Key, Change>,
        on: OnViolation,
        of: Option<&Arc<str>>,
    ) -> Result<Built, ApplyError> {
        let mut given_up = BTreeMap::new();
        // Lent to the thread that compiles: a full sync is not to be held twice.
        let mut left = Arc::new(left);
        loop {
            let held = self.held.clone();
            let (changes, refused) = (Arc::clone(&left), given_up.clone());
            let built = blocking(move || held.build(&changes, refused)).await;
            if on == OnViolation::Refuse && given_up.is_empty() && !built.refused.is_empty() {
                let violations = built.refused.into_values().flat_map(|refused| refused.violations);
                return Err(ApplyError::Violations(violations.collect()));
            }
            if let Some(epoch) = of {
                self.held.check_shrink(epoch, &built.compiled.engine)?;
            }
            self.follow_names(&built.compiled).await;
            let failed = self.sockets.bind(&built.compiled.engine);
            if failed.is_empty() {
                return Ok(built);
            }
            for violation in failed {
                let Some(change) = Arc::make_mut(&mut left).remove(&violation.object) else { continue };
                given_up.insert(violation.object.clone(), Refused { change, violations: vec![violation] });
            }
        }
    }

    /// Host names of new upstreams are looked up, and keys of new token issuers fetched, before the first request needs
    /// them.
    async fn follow_names(&self, compiled: &Compiled) {
        let changed = &compiled.changed;
        let upstreams = [&changed.added, &changed.updated, &changed.removed];
        if upstreams.iter().any(|keys| keys.iter().any(|key| key.kind == Kind::Upstream)) {
            let discovered = self.endpoints.targets();
            let configured = compiled.engine.upstreams().flat_map(|upstream| upstream.targets.iter());
            self.shared.resolver.follow(configured.chain(&discovered)).await;
        }
        if upstreams.iter().any(|keys| keys.iter().any(|key| key.kind == Kind::TokenIssuer)) {
            self.shared.key_sets.follow(compiled.engine.remote_keys()).await;
        }
    }

    /// The swap, and what must come after it.
    async fn switch(&mut self, has_removed: bool) {
        let Cursor { epoch, revision, .. } = self.cursor().clone();
        self.shared.live.swap(Snapshot { engine: self.engine().clone(), revision, epoch });
        self.workers.refresh().await;
        self.sockets.switch(&self.workers).await;
        self.tidy.after_swap(&self.shared, has_removed);
    }

    fn has_keys(&self) -> bool {
        !self.engine().asks_for_keys() || self.engine().keys().is_complete()
    }

    /// An upstream that begins to discover its targets keeps those it had until the first set is known.
    fn keep_targets(&self, next: &Compiled) {
        for key in next.changed.updated.iter().filter(|key| key.kind == Kind::Upstream) {
            let (before, after) = (self.engine().named_upstream(key), next.engine.named_upstream(key));
            if let (Some(before), Some(after)) = (before, after)
                && before.discovery.is_none()
                && after.discovery.is_some()
            {
                self.endpoints.keep(&after.name, &before.targets);
            }
        }
    }

    /// The lane of endpoints.
    pub(crate) const fn endpoints(&self) -> &Lane {
        &self.endpoints
    }

    /// What there is of endpoints, as the control plane says.
    pub(crate) fn welcomed(&mut self, endpoints: &[u8]) {
        self.endpoints.welcomed(endpoints);
    }

    /// Puts endpoints into service; what to answer when that was the last piece of a transaction.
    ///
    /// # Errors
    /// When the piece makes no sense; none of it was taken in.
    pub(crate) fn receive_endpoints(
        &mut self,
        chunk: wire::EndpointsChunk,
    ) -> Result<Option<wire::EndpointsHeld>, Malformed> {
        let sets: Vec<(String, Arc<[Target]>)> =
            chunk.sets.iter().map(|set| (set.upstream.clone(), Targets::from(set).0)).collect();
        // They are looked up meanwhile: a name server that is slow holds up no other upstream.
        self.shared.resolver.begin(sets.iter().flat_map(|(_, targets)| targets.iter()));
        let answer = self.endpoints.receive(chunk, self.held.engine())?;
        for (upstream, targets) in sets {
            let labels: HashSet<String> = targets.iter().map(|target| target.host.to_string()).collect();
            self.shared.metrics.retain_targets(&upstream, |target| labels.contains(target));
        }
        if answer.is_some() {
            self.refresh_readiness();
        }
        Ok(answer)
    }

    /// Keys that a configuration asks for have come, or not: without them a data plane is not ready.
    pub(crate) fn refresh_readiness(&self) {
        if self.state.borrow().complete {
            self.publish();
        }
    }

    fn publish(&self) {
        let next = State {
            cursor: self.cursor().clone(),
            listeners: self.sockets.bound(),
            rejects: self.held.rejects(),
            complete: true,
            // Once ready, a later change that cannot be taken whole is no reason to send traffic away.
            ready: self.state.borrow().ready
                || (!self.has_retryable() && self.has_keys() && self.endpoints.is_complete()),
        };
        self.state.send_replace(next);
    }
}

/// Runs what takes a while with 100,000 routes off the thread that answers health checks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .expect("compile does not panic, and the runtime outlives its tasks")
}
