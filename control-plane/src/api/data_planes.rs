//! `/v1/data-planes` and `/v1/status`: who runs what, and how far a single object has come. Objects of namespaces
//! that the caller does not see are left out of what data planes refuse.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use gateway_proto::admin::{DataPlane, DataPlaneList, ObjectOnDataPlane, ObjectState, ObjectStatus};
use gateway_proto::kind::{Key, Kind};

use super::Api;
use super::access::Caller;
use super::extract::{Params, Place, Segment};
use super::problem::{ApiError, ErrorCode};
use super::resources::{ReadQuery, missing};
use crate::nodes::Entry;
use crate::store::Stored;

/// Every replica.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
) -> Result<Json<DataPlaneList>, ApiError> {
    let revision = api.live.get().head.revision;
    let items = api.nodes.list().await?.iter().map(|entry| shown(entry, revision, &caller)).collect();
    Ok(Json(DataPlaneList { revision, items }))
}

/// One replica.
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment,
) -> Result<Json<DataPlane>, ApiError> {
    let revision = api.live.get().head.revision;
    let entries = api.nodes.list().await?;
    let entry = entries.iter().find(|entry| entry.node == id);
    let entry =
        entry.ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("there is no data plane {id:?}")))?;
    Ok(Json(shown(entry, revision, &caller)))
}

/// An object on every connected data plane whose scope holds it.
pub(super) async fn status(
    State(api): State<Arc<Api>>,
    Place(key): Place,
    Params(_): Params<ReadQuery>,
) -> Result<Json<ObjectStatus>, ApiError> {
    if key.kind == Kind::Credential {
        let detail = "credentials are no part of a revision: data planes that ask for keys have each within half a second";
        return Err(ApiError::bad_request(detail));
    }
    let head = api.live.get();
    let stored = head.objects.get(&key).ok_or_else(|| missing(&key))?;
    let entries = api.nodes.list().await?;
    // The views follow within a quarter of a second; before that they cannot tell what is in whose scope.
    let views = api.publisher.reach(head.head.revision).await;
    let holds = |entry: &&Entry| entry.connected && views.of(&entry.report.group).items().get(&key).is_some();
    let data_planes = entries.iter().filter(holds).map(|entry| on(entry, stored)).collect();
    Ok(Json(ObjectStatus {
        object: key,
        revision: stored.revision,
        hash: stored.hash.to_string(),
        data_planes,
    }))
}

/// An entry without what is not the caller's business.
pub(super) fn shown(entry: &Entry, head: u64, caller: &Caller) -> DataPlane {
    let mut shown = entry.shown(head);
    let sees =
        |qualified: &str| qualified.split_once('/').is_none_or(|(namespace, _)| caller.sees(namespace));
    shown.rejects.retain(|reject| caller.sees(&reject.object.namespace));
    shown.listeners.retain(|listener, _| sees(listener));
    shown
}

fn on(entry: &Entry, stored: &Stored) -> ObjectOnDataPlane {
    let hash = stored.hash.to_string();
    let about = |key: &Key| *key == stored.key;
    let reject =
        entry.report.rejects.iter().find(|reject| about(&reject.object) && reject.hash == hash).cloned();
    let state = match &reject {
        Some(_) => ObjectState::Refused,
        None if entry.revision >= stored.revision => ObjectState::Applied,
        None => ObjectState::Pending,
    };
    ObjectOnDataPlane { id: entry.node.clone(), state, applied_revision: entry.revision, reject }
}
