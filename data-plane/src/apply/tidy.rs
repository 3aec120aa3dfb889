//! What is done some time after a swap: freeing old snapshots once no worker holds them, and then forgetting the
//! series of removed objects. At most one task does it, whatever the number of swaps.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::runtime::Shared;
use crate::task::Task;

/// First look at whether the old snapshot is free; later ones come at growing intervals.
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// Longest interval between looks.
const LONGEST: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Tidy {
    task: Option<Task>,
    /// An object was removed since series were last forgotten.
    removed: bool,
}

impl Tidy {
    /// Begins anew: the task that waits for earlier snapshots goes on as part of the new one.
    pub(super) fn after_swap(&mut self, shared: &Arc<Shared>, removed: bool) {
        let idle = self.task.as_ref().is_none_or(Task::is_finished);
        self.removed = removed || (self.removed && !idle);
        self.task = Some(Task::spawn(tidy(Arc::clone(shared), self.removed)));
    }
}

async fn tidy(shared: Arc<Shared>, removed: bool) {
    let mut pause = FIRST_LOOK;
    loop {
        tokio::time::sleep(pause).await;
        let live = Arc::clone(&shared.live);
        // Freeing a large table takes a while.
        let held = tokio::task::spawn_blocking(move || live.reap()).await;
        if held.is_ok_and(|held| held == 0) {
            break;
        }
        pause = (pause * 2).min(LONGEST);
    }
    if removed {
        // Only now: requests that were served by the old snapshots have been counted.
        let _forgotten = tokio::task::spawn_blocking(move || forget(&shared)).await;
    }
}

fn forget(shared: &Shared) {
    let engine = shared.live.load().engine.clone();
    let routes: HashSet<&str> = engine.routes().map(|route| &*route.name).collect();
    let upstreams: HashSet<&str> = engine.upstreams().map(|upstream| &*upstream.name).collect();
    shared.metrics.retain(|name| routes.contains(name), |name| upstreams.contains(name));
}
