//! `/v1/discovery`: what is known of discovery sources. Each replica reads for itself: the one that is asked answers.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use gateway_proto::DEFAULT_NAMESPACE;
use gateway_proto::admin::{DiscoverySourceStatus, DiscoverySourceStatusList};
use gateway_proto::kind::{Key, Kind};
use serde::Deserialize;

use super::Api;
use super::access::Caller;
use super::extract::{Params, Segment};
use super::problem::ApiError;
use super::resources::missing;

/// `?namespace`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    namespace: Option<String>,
}

/// Every source that the caller sees.
pub(super) async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Json<DiscoverySourceStatusList> {
    Json(DiscoverySourceStatusList { items: api.discovery.statuses(|namespace| caller.sees(namespace)) })
}

/// One source.
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(name): Segment,
    Params(Query { namespace }): Params<Query>,
) -> Result<Json<DiscoverySourceStatus>, ApiError> {
    let namespace = namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    caller.enter(&namespace)?;
    let key = Key::new(Kind::DiscoverySource, namespace, name);
    let status = api.discovery.status(&key.qualified(), |namespace| caller.sees(namespace));
    status.map(Json).ok_or_else(|| missing(&key))
}
