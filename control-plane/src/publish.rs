//! What each group of data planes is to hold: from the state of the store to views that streams send from. Follows
//! [`Live`], waits for a short quiet (20 ms, at most 250 ms under constant change), and brings every view up to date
//! by what changed.
//!
//! Invariants: all views of one [`Views`] belong to one revision; a view never changes, the next one shares what
//! stayed; a delta for the same (from, to, scope) is built and encoded once, whoever asks for it.

pub mod encode;
pub mod endpoints;
pub mod scope;
#[cfg(any(test, feature = "conformance"))]
pub mod testing;
pub mod view;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gateway_proto::kind::Key;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::discovery::board::Board;
use crate::sorted::SortedMap;
use crate::state::{Live, State, blocking};
use crate::store::{Store, StoreError, Stored};
use endpoints::{Scoped, Scopes};
pub use scope::Scope;
pub use view::{Changed, Cursor, Delta, View};

/// A revision is published once nothing followed it for this long ...
const QUIET: Duration = Duration::from_millis(20);
/// ... or at the latest this long after the first that was not.
const AT_MOST: Duration = Duration::from_millis(250);
/// Groups that keep a view of their own although no listener names them any more.
const MAX_IDLE_GROUPS: usize = 256;

/// Furthest that history is read back for a data plane.
const MAX_RECALL: u64 = 10_000;
/// A data plane waits for its welcome meanwhile.
const RECALL_WITHIN: Duration = Duration::from_secs(5);

/// Every view, at one revision.
#[derive(Debug)]
pub struct Views {
    /// Which history.
    pub epoch: Uuid,
    /// Which revision of it.
    pub revision: u64,
    shared: Arc<View>,
    groups: HashMap<String, Arc<View>>,
}

impl Views {
    /// What a group is to hold. Groups that no listener names share one view.
    pub fn of(&self, group: &str) -> &Arc<View> {
        self.groups.get(group).unwrap_or(&self.shared)
    }
}

/// Keeps the views.
#[derive(Debug)]
pub struct Publisher {
    live: Arc<Live>,
    store: Arc<dyn Store>,
    views: watch::Sender<Arc<Views>>,
    board: watch::Receiver<Arc<Board>>,
    scopes: Scopes,
    /// Held by the one that reads history, so that a thousand streams that ask for the same read it once.
    recalling: Mutex<()>,
}

/// Views that grow from revision to revision; owned by the publishing task.
struct Workshop {
    state: Arc<State>,
    shared: Arc<View>,
    groups: HashMap<String, Arc<View>>,
}

/// What changed between two states: key, before, after.
pub type Edit = (Key, Option<Arc<Stored>>, Option<Arc<Stored>>);

impl Publisher {
    /// Builds the views of the present state, and keeps them in a task until cancelled.
    pub async fn start(
        live: Arc<Live>,
        store: Arc<dyn Store>,
        board: watch::Receiver<Arc<Board>>,
        stop: CancellationToken,
    ) -> (Arc<Self>, JoinHandle<()>) {
        let state = live.get();
        let workshop = blocking(move || Workshop::open(state)).await;
        let views = watch::Sender::new(workshop.views());
        let (scopes, recalling) = (Scopes::default(), Mutex::new(()));
        let publisher = Arc::new(Publisher { live, store, views, board, scopes, recalling });
        let task = tokio::spawn(Arc::clone(&publisher).run(workshop, stop));
        (publisher, task)
    }

    /// The views, and a signal for each newer set.
    pub fn watch(&self) -> watch::Receiver<Arc<Views>> {
        self.views.subscribe()
    }

    /// What a view's group is to hold of endpoints, now.
    pub fn endpoints(&self, view: &Arc<View>) -> Arc<Scoped> {
        let board = Arc::clone(&self.board.borrow());
        self.scopes.of(view, &board)
    }

    /// A signal for each change of endpoints.
    pub fn watch_endpoints(&self) -> watch::Receiver<Arc<Board>> {
        self.board.clone()
    }

    /// The views at a revision or past it.
    pub async fn reach(&self, revision: u64) -> Arc<Views> {
        let mut views = self.watch();
        match views.wait_for(|views| views.revision >= revision).await {
            Ok(views) => Arc::clone(&views),
            // The sender is `self`: it cannot be gone.
            Err(_) => Arc::clone(&self.views.borrow()),
        }
    }

    /// Sees to it that a view knows what its scope was at a cursor, if the store's history tells: a process that was
    /// just started has seen nothing of it. Without an answer in time the view stays as it is.
    pub async fn recall(&self, view: &Arc<View>, cursor: Cursor) {
        let head = view.head();
        let known = || view.root_at(cursor.revision).is_some();
        let is_past = cursor.epoch == head.epoch && cursor.revision < head.revision;
        if !is_past || head.revision - cursor.revision > MAX_RECALL || known() {
            return;
        }
        let read = async {
            let _turn = self.recalling.lock().await;
            if known() {
                return Ok(());
            }
            let differences = self.store.diff(cursor.revision, head.revision).await?;
            let view = Arc::clone(view);
            blocking(move || view.recall(cursor.revision, differences)).await;
            Ok::<_, StoreError>(())
        };
        match timeout(RECALL_WITHIN, read).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::info!(%error, revision = cursor.revision, "cannot read what changed since a revision");
            }
            Err(_) => {
                tracing::info!(
                    revision = cursor.revision,
                    "no answer in time to what changed since a revision"
                );
            }
        }
    }

    /// Whether an operator allows data planes to drop most of what they hold of another history for a view. While the
    /// store is away nobody does.
    pub async fn is_shrink_allowed(&self, view: &View) -> bool {
        let Cursor { epoch, revision, .. } = view.head();
        self.store.is_shrink_allowed(epoch, revision).await.unwrap_or(false)
    }

    async fn run(self: Arc<Self>, mut workshop: Workshop, stop: CancellationToken) {
        let mut heads = self.live.watch();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = heads.changed() => if changed.is_err() { return },
            }
            let latest = tokio::time::Instant::now() + AT_MOST;
            while let Ok(Ok(())) =
                tokio::time::timeout_at(latest.min(tokio::time::Instant::now() + QUIET), heads.changed())
                    .await
            {}
            let state = self.live.get();
            workshop = blocking(move || workshop.advance(state)).await;
            self.views.send_replace(workshop.views());
        }
    }
}

impl Workshop {
    fn open(state: Arc<State>) -> Self {
        let first = |group: Option<String>| Arc::new(View::first(group, Arc::clone(&state)));
        let groups = named_groups(&state).into_iter().map(|group| (group.clone(), first(Some(group))));
        Workshop { groups: groups.collect(), shared: first(None), state }
    }

    fn advance(mut self, state: Arc<State>) -> Self {
        if state.head.epoch != self.state.head.epoch || state.head.revision < self.state.head.revision {
            return Workshop::open(state);
        }
        let mut edits: Vec<Edit> = Vec::new();
        SortedMap::diff(&self.state.objects, &state.objects, |key, before, after| {
            edits.push((key.clone(), before.cloned(), after.cloned()));
        });
        let named = named_groups(&state);
        for group in &named {
            // What a group newly named holds so far is what those that nobody names hold.
            let shared = &self.shared;
            let same = || Arc::new(shared.for_group(group.clone()));
            self.groups.entry(group.clone()).or_insert_with(same);
        }
        if self.groups.len() > named.len() + MAX_IDLE_GROUPS {
            self.groups.retain(|group, _| named.contains(group));
        }
        for view in self.groups.values_mut().chain([&mut self.shared]) {
            *view = Arc::new(view.next(Arc::clone(&state), &edits));
        }
        Workshop { state, ..self }
    }

    fn views(&self) -> Arc<Views> {
        Arc::new(Views {
            epoch: self.state.head.epoch,
            revision: self.state.head.revision,
            shared: Arc::clone(&self.shared),
            groups: self.groups.clone(),
        })
    }
}

/// The groups that some listener names.
fn named_groups(state: &State) -> BTreeSet<String> {
    scope::listeners(&state.objects).filter_map(|(_, _, group)| group).collect()
}
