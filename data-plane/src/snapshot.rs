//! What a request is served by: one immutable configuration, pinned for as long as the request's head is at work.
//! The control runtime swaps, workers read with one atomic load; state (pools, health, counters) lives elsewhere,
//! keyed by name, and survives every swap.
//!
//! Invariant: the last handle of a snapshot is dropped by [`Live::reap`] on the control runtime, never by a worker,
//! so that no request pays for freeing a large table.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use gateway_engine::Engine;

/// One configuration in service.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Routes, upstreams, listeners and policies.
    pub engine: Engine,
    /// Its revision in the store's history; 0: it comes from files, or there is none yet.
    pub revision: u64,
    /// Which history; empty: as above.
    pub epoch: Arc<str>,
}

/// The snapshot in service, shared by all threads.
#[derive(Debug)]
pub struct Live {
    current: ArcSwap<Snapshot>,
    /// Counts swaps: workers compare it with what they hold.
    version: AtomicU64,
    /// Kept until no worker holds them; see [`Live::reap`].
    retired: Mutex<Vec<Arc<Snapshot>>>,
}

impl Live {
    /// Serves `first` until the first swap.
    pub fn new(first: Snapshot) -> Self {
        Live { current: ArcSwap::from_pointee(first), version: AtomicU64::new(0), retired: Mutex::default() }
    }

    /// The snapshot in service. For the control runtime; workers use a [`Reader`].
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Puts `next` into service: requests whose head comes from now on are served by it.
    pub fn swap(&self, next: Snapshot) {
        let old = self.current.swap(Arc::new(next));
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(old);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Frees the snapshots that nobody serves from any more and returns how many are still held. To be called now
    /// and then on the control runtime.
    pub fn reap(&self) -> usize {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        // A count of one is ours, and nobody can make a second from it: `current` no longer leads there.
        let (held, free): (Vec<_>, Vec<_>) =
            retired.drain(..).partition(|snapshot| Arc::strong_count(snapshot) > 1);
        *retired = held;
        let held = retired.len();
        drop(retired);
        drop(free);
        held
    }
}

/// One worker's view of the snapshot in service.
#[derive(Debug)]
pub struct Reader {
    live: Arc<Live>,
    version: Cell<u64>,
    held: RefCell<Pinned>,
}

/// A snapshot held by one worker; cloning it touches no shared memory. Neither `Send` nor `Sync`.
#[derive(Clone, Debug)]
pub struct Pinned(Rc<Held>);

/// This worker's one share of a snapshot.
#[derive(Debug)]
struct Held(Arc<Snapshot>);

impl Deref for Pinned {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0.0
    }
}

impl Reader {
    /// A view for the calling worker.
    pub fn new(live: Arc<Live>) -> Self {
        let version = live.version.load(Ordering::Acquire);
        let held = Pinned(Rc::new(Held(live.load())));
        Reader { live, version: Cell::new(version), held: RefCell::new(held) }
    }

    /// Whether this is the snapshot in service: as [`Reader::pin`], without a count.
    #[inline]
    pub fn is_in_service(&self, pinned: &Pinned) -> bool {
        self.refresh();
        Rc::ptr_eq(&self.held.borrow().0, &pinned.0)
    }

    /// The snapshot in service, to be held while a request's head is at work: one atomic load, and a pointer more
    /// when it was swapped since.
    pub fn pin(&self) -> Pinned {
        self.refresh();
        self.held.borrow().clone()
    }

    /// Lets go of a snapshot that was swapped out: an idle worker calls this so that it does not keep the old one.
    pub fn refresh(&self) {
        let version = self.live.version.load(Ordering::Acquire);
        if version != self.version.get() {
            // Loaded after the version: at worst this is newer, and the next look loads it once more.
            *self.held.borrow_mut() = Pinned(Rc::new(Held(self.live.load())));
            self.version.set(version);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(revision: u64) -> Snapshot {
        Snapshot { revision, ..Snapshot::default() }
    }

    #[test]
    fn a_pinned_snapshot_stays_while_new_requests_see_the_next() {
        let live = Arc::new(Live::new(snapshot(1)));
        let reader = Reader::new(Arc::clone(&live));
        let request = reader.pin();
        live.swap(snapshot(2));
        assert_eq!((request.revision, reader.pin().revision, live.load().revision), (1, 2, 2));
    }

    #[test]
    fn a_retired_snapshot_is_freed_by_reap_and_only_when_nobody_holds_it() {
        let live = Arc::new(Live::new(snapshot(1)));
        let watched = Arc::downgrade(&live.load());
        let reader = Reader::new(Arc::clone(&live));
        let request = reader.pin();
        live.swap(snapshot(2));
        reader.refresh();
        assert_eq!(live.reap(), 1);
        drop(request);
        assert!(watched.upgrade().is_some(), "the worker let go: not freed on its thread");
        assert_eq!(live.reap(), 0);
        assert!(watched.upgrade().is_none());
    }
}
