//! What a source of services is to the rest: something that tells full sets. Everything that must not depend on how it
//! does so (debounce, the guard, keeping the last set, states) is done elsewhere, once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

/// An instance of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    /// `host:port`, in the one form that equal addresses have.
    pub address: String,
    /// Share of the requests.
    pub weight: u16,
    /// Where it is; empty: not said.
    pub zone: String,
    /// What upstreams may ask for.
    pub tags: Vec<String>,
}

/// What a source knows at a moment: a service that is not in it has no instances, unless it is doubtful.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The source's own version of it, such as a time: for people only.
    pub index: u64,
    /// By service: its instances, sorted by address, no two alike.
    pub services: BTreeMap<Arc<str>, Arc<[Instance]>>,
    /// Services of which something could not be read: what is said of them may be too little.
    pub doubtful: BTreeSet<Arc<str>>,
    /// Entries that were passed over, and why. Bounded by the source.
    pub faults: Vec<String>,
}

/// Why a source cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// A source.
#[async_trait]
pub trait Source: Debug + Send {
    /// What it knows: at once when it is asked for the first time, later when that may have changed. After a fault the
    /// next call waits until it is worth another try. May be dropped at any moment and called again.
    async fn next(&mut self) -> Result<Reading, Fault>;

    /// What it knows now, read anew: the second look before endpoints are given up.
    async fn look(&mut self, service: &str) -> Result<Reading, Fault>;
}
