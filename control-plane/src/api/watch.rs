//! `GET /v1/watch`: server-sent events of new revisions and of what data planes do. A watcher that reads too slowly
//! misses data-plane events, never the newest revision; it costs one bounded queue.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{Stream, unfold};
use gateway_proto::admin::WatchEvent;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};

use super::Api;
use super::access::Caller;
use super::data_planes::shown;
use super::problem::{ApiError, ErrorCode};
use super::revisions;
use crate::nodes::Entry;
use crate::store::Head;

/// A comment is sent after so long without an event, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Revisions told of one by one; of a longer gap only the newest so many.
const MAX_GAP: u64 = 100;

/// Where a watcher stands.
struct Watcher {
    api: Arc<Api>,
    caller: Caller,
    heads: watch::Receiver<Head>,
    nodes: broadcast::Receiver<Arc<Entry>>,
    /// The last revision it was told of.
    told: u64,
    _turn: OwnedSemaphorePermit,
}

/// Events from now on.
pub(super) async fn watch(
    State(api): State<Arc<Api>>,
    caller: Caller,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let turn = Arc::clone(&api.watchers)
        .try_acquire_owned()
        .map_err(|_| ApiError::new(ErrorCode::Unavailable, "there are too many watchers: try again later"))?;
    let mut heads = api.live.watch();
    let told = heads.borrow_and_update().revision;
    let nodes = api.nodes.events();
    let watcher = Watcher { api, caller, heads, nodes, told, _turn: turn };
    let events = unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok(event), watcher))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

impl Watcher {
    /// The next event; `None` when the process ends.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let head = *self.heads.borrow_and_update();
            if head.revision < self.told {
                // Another history.
                self.told = head.revision;
            }
            if head.revision > self.told {
                let next = (self.told + 1).max(head.revision.saturating_sub(MAX_GAP - 1));
                self.told = next;
                match self.api.store.revision(next).await {
                    Ok(Some(revision)) => {
                        return event(&WatchEvent::Revision(revisions::shown(revision)));
                    }
                    // The store is away: this one is skipped, the watcher sees by the numbers.
                    Ok(None) | Err(_) => continue,
                }
            }
            let stop = self.api.stop.clone();
            tokio::select! {
                () = stop.cancelled() => return None,
                changed = self.heads.changed() => changed.ok()?,
                node = self.nodes.recv() => match node {
                    Ok(entry) => {
                        return event(&WatchEvent::DataPlane(shown(&entry, head.revision, &self.caller)));
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }
}

/// `event:` is the variant, `data:` its content.
fn event(event: &WatchEvent) -> Option<Event> {
    fn of(name: &str, data: &impl Serialize) -> Option<Event> {
        Event::default().event(name).json_data(data).ok()
    }
    match event {
        WatchEvent::Revision(revision) => of("revision", revision),
        WatchEvent::DataPlane(data_plane) => of("dataPlane", data_plane),
    }
}
