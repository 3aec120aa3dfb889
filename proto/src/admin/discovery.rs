//! Bodies about discovery sources.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::kind::Key;

/// `GET /v1/discovery`: the sources as the control plane that answers sees them.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiscoverySourceStatusList {
    /// By namespace and name.
    pub items: Vec<DiscoverySourceStatus>,
}

/// A source as the control plane that answers sees it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiscoverySourceStatus {
    /// The source.
    pub object: Key,
    /// `synced` (it can be read), `stale` (it cannot: what was known last is served) or `failed` (it was never read).
    pub state: String,
    /// Why it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How often it could not be read since it is followed.
    pub errors: u64,
    /// When it was read last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_at: Option<String>,
    /// When it last said something else than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<String>,
    /// Its own version of what it says; of a file: when it was written, in milliseconds since 1970.
    pub index: u64,
    /// Services that it tells of.
    pub services: u64,
    /// Instances of all of them.
    pub endpoints: u64,
    /// Entries that are passed over, and why; the first of them.
    pub faults: Vec<String>,
    /// Upstreams that ask it; the first thousand.
    pub upstreams: Vec<DiscoveredUpstream>,
}

/// An upstream that asks a source.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiscoveredUpstream {
    /// `namespace/name`.
    pub upstream: String,
    /// The service that it asks for.
    pub service: String,
    /// How many endpoints data planes are told.
    pub endpoints: u64,
    /// What becomes of them.
    pub state: DiscoveredState,
    /// When they last changed, since this control plane runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<String>,
}

/// What becomes of an upstream's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiscoveredState {
    /// Data planes are told what the source says.
    Served,
    /// The source says that most or all are gone: what was known before is served until a second look agrees.
    Held,
    /// Nothing is known yet.
    Unknown,
}
