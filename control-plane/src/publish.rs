//! What each group of data planes is to hold: from the state of the store to views that streams send from. Follows
//! [`Live`], waits for a short quiet (20 ms, at most 250 ms under constant change), and brings every view up to date
//! by what changed.
//!
//! Invariants: all views of one [`Views`] belong to one revision; a view never changes, the next one shares what
//! stayed; a delta for the same (from, to, scope) is built and encoded once, whoever asks for it.

pub mod encode;
pub mod scope;
#[cfg(test)]
pub mod testing;
pub mod view;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gateway_proto::kind::Key;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::sorted::SortedMap;
use crate::state::{Live, State, blocking};
use crate::store::Stored;
pub use scope::Scope;
pub use view::{Changed, Cursor, Delta, View};

/// A revision is published once nothing followed it for this long ...
const QUIET: Duration = Duration::from_millis(20);
/// ... or at the latest this long after the first that was not.
const AT_MOST: Duration = Duration::from_millis(250);
/// Groups that keep a view of their own although no listener names them any more.
const MAX_IDLE_GROUPS: usize = 256;

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
    views: watch::Sender<Arc<Views>>,
}

/// Scopes and views that grow from revision to revision; owned by the publishing task.
struct Workshop {
    state: Arc<State>,
    shared: Published,
    groups: HashMap<String, Published>,
}

#[derive(Clone)]
struct Published {
    scope: Scope,
    view: Arc<View>,
}

/// What changed between two states: key, before, after.
pub type Edit = (Key, Option<Arc<Stored>>, Option<Arc<Stored>>);

impl Publisher {
    /// Builds the views of the present state, and keeps them in a task until cancelled.
    pub async fn start(live: Arc<Live>, stop: CancellationToken) -> (Arc<Self>, JoinHandle<()>) {
        let state = live.get();
        let workshop = blocking(move || Workshop::open(state)).await;
        let publisher = Arc::new(Publisher { live, views: watch::Sender::new(workshop.views()) });
        let task = tokio::spawn(Arc::clone(&publisher).run(workshop, stop));
        (publisher, task)
    }

    /// The views, and a signal for each newer set.
    pub fn watch(&self) -> watch::Receiver<Arc<Views>> {
        self.views.subscribe()
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
        let publish = |group: Option<String>| {
            let scope = Scope::build(group, &state);
            let view = Arc::new(View::first(&state, &scope));
            Published { scope, view }
        };
        let groups =
            named_groups(&state).into_iter().map(|group| (group.clone(), publish(Some(group)))).collect();
        Workshop { shared: publish(None), groups, state }
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
            self.groups.entry(group.clone()).or_insert_with(|| Published {
                scope: shared.scope.clone().for_group(group.clone()),
                view: Arc::clone(&shared.view),
            });
        }
        if self.groups.len() > named.len() + MAX_IDLE_GROUPS {
            self.groups.retain(|group, _| named.contains(group));
        }
        for published in self.groups.values_mut().chain([&mut self.shared]) {
            let step = published.scope.advance(&state, &edits);
            published.view = Arc::new(published.view.next(&state, &published.scope, step));
        }
        Workshop { state, ..self }
    }

    fn views(&self) -> Arc<Views> {
        Arc::new(Views {
            epoch: self.state.head.epoch,
            revision: self.state.head.revision,
            shared: Arc::clone(&self.shared.view),
            groups: self.groups.iter().map(|(group, it)| (group.clone(), Arc::clone(&it.view))).collect(),
        })
    }
}

/// The groups that some listener names.
fn named_groups(state: &State) -> BTreeSet<String> {
    scope::listeners(state).filter_map(|(_, _, group)| group).collect()
}
