//! `GET /v1/watch`: server-sent events of new revisions and of what data planes do. A watcher that reads too slowly
//! misses data-plane events, never the newest revision; it costs one bounded queue. The stream ends with the token:
//! when it is revoked, changed or expires.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{Stream, unfold};
use gateway_proto::admin::WatchEvent;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};
use tokio::time::sleep;

use super::Api;
use super::access::Caller;
use super::data_planes::shown;
use super::problem::{ApiError, ErrorCode};
use super::revisions;
use crate::auth::Principal;
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
    tokens: watch::Receiver<u64>,
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
    let mut tokens = api.auth.changes();
    // It may have been revoked since it was shown.
    tokens.mark_changed();
    let watcher = Watcher { api, caller, heads, nodes, tokens, told, _turn: turn };
    let events = unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok(event), watcher))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

impl Watcher {
    /// The next event; `None` when the process or the token ends.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if !self.may_go_on().await {
                return None;
            }
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
                        let shown = revisions::shown(&self.api, &self.caller, vec![revision]).await;
                        let Some(revision) = shown.ok().and_then(|mut shown| shown.pop()) else { continue };
                        return event(&WatchEvent::Revision(revision));
                    }
                    // The store is away: this one is skipped, the watcher sees by the numbers.
                    Ok(None) | Err(_) => continue,
                }
            }
            let stop = self.api.stop.clone();
            let expiry = expiry(self.caller.principal());
            tokio::select! {
                () = stop.cancelled() => return None,
                () = expiry => {}
                changed = self.tokens.changed() => {
                    changed.ok()?;
                    self.tokens.mark_changed();
                }
                changed = self.heads.changed() => changed.ok()?,
                node = self.nodes.recv() => match node {
                    Ok(entry) => {
                        return event(&WatchEvent::DataPlane(Box::new(shown(&entry, head.revision, &self.caller))));
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }
}

impl Watcher {
    /// Whether the token is still good; while that cannot be told, it is not.
    async fn may_go_on(&mut self) -> bool {
        let principal = self.caller.principal();
        if principal.expires.is_some_and(|end| end <= Timestamp::now()) {
            return false;
        }
        if !self.tokens.has_changed().unwrap_or(true) {
            return true;
        }
        self.tokens.mark_unchanged();
        self.api.auth.is_still(principal).await.unwrap_or(false)
    }
}

/// Waits until a token ends.
async fn expiry(principal: &Principal) {
    match principal.expires {
        // What is in the past is over at once.
        Some(end) => sleep(end.duration_since(Timestamp::now()).try_into().unwrap_or_default()).await,
        None => std::future::pending().await,
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
