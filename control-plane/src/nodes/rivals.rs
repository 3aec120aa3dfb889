//! Two processes of one name. On one replica their streams meet; on two, each replica sees in the store what the other
//! wrote. All of them take the same one, the one that was started last, without asking each other: the order of
//! `Hello.instance` is the same everywhere, and a data plane that is restarted is taken at once.
//!
//! The row of a node is that of its youngest stream. A replica with the later process takes the row back from an earlier
//! one, so that the other replica comes to know of it. Whoever refuses one notes it in the row.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::report::Report;
use super::{GONE, Nodes};
use crate::store::StoreError;

/// How often the store is asked what others have written.
const LOOK: Duration = Duration::from_secs(5);
/// What was seen holds for so long: two looks and a store that is slow.
const HOLDS: Duration = Duration::from_secs(15);

/// What is known of two of one name; of nodes that are, or were a moment ago, on this replica.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    /// Data planes of other replicas that were started later.
    elsewhere: Mutex<HashMap<String, Rival>>,
    /// Where those were that had to go, not noted yet.
    refused: Mutex<HashMap<String, String>>,
}

#[derive(Debug)]
struct Rival {
    instance: String,
    address: String,
    seen: Instant,
}

impl Rivals {
    fn elsewhere(&self) -> MutexGuard<'_, HashMap<String, Rival>> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Nodes {
    /// Where another replica has a data plane of that name that was started after this one.
    pub fn rival(&self, node: &str, instance: &str) -> Option<String> {
        let rivals = self.rivals.elsewhere();
        let rival = rivals.get(node).filter(|rival| rival.seen.elapsed() < HOLDS);
        rival.filter(|rival| *rival.instance > *instance).map(|rival| rival.address.clone())
    }

    /// A data plane of that name, and from there, was refused: another one was started later.
    pub fn twin(&self, node: &str, address: String) {
        self.rivals.refused().insert(node.to_owned(), address);
        self.tell(None);
    }

    pub(super) async fn write_twins(&self) -> Result<(), StoreError> {
        let refused: Vec<_> = self.rivals.refused().drain().collect();
        // If it is not written now, it is when it tries again.
        if refused.is_empty() { Ok(()) } else { self.store.note_twins(refused).await }
    }

    pub(super) async fn watch_for_rivals(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            // What cannot be read now is there next time.
            let Ok(others) = self.store.nodes_of_others(self.replica, GONE).await else { continue };
            for other in others {
                let report = serde_json::from_value(other.report).unwrap_or_default();
                self.compare(other.node, report);
            }
            self.rivals.elsewhere().retain(|_, rival| rival.seen.elapsed() < HOLDS);
        }
    }

    /// Another replica has a data plane of that name, by a younger stream than the one that may be here.
    fn compare(&self, node: String, other: Report) {
        let mut rivals = self.rivals.elsewhere();
        let mut own = self.lock();
        let own = own.get_mut(&node).filter(|own| own.connected && !own.dirty);
        let is_later = match &own {
            Some(own) => other.instance > own.report.instance,
            // The one that was here had to go, and will be back.
            None => rivals.contains_key(&node),
        };
        if is_later {
            let rival = Rival { instance: other.instance, address: other.address, seen: Instant::now() };
            rivals.insert(node, rival);
        } else if let Some(own) = own.filter(|own| other.instance < own.report.instance) {
            own.opened = Instant::now();
            own.dirty = true;
            self.twin(&node, other.address);
        }
    }
}
