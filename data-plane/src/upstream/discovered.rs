//! Endpoints that were discovered, where the workers find them: a place per upstream, whose set is exchanged by one atomic
//! store. A worker looks at the number of exchanges, and builds its own running state of that upstream anew when it moved;
//! nothing else of the configuration is touched.
//!
//! Invariant: an upstream keeps its place whatever becomes of the configuration, until it is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use gateway_engine::discovery;
use gateway_engine::upstream::Target;
use gateway_proto::wire;

/// The places of all upstreams.
#[derive(Debug, Default)]
pub(crate) struct Discovered(Mutex<HashMap<Arc<str>, Arc<Place>>>);

/// Of one upstream.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// Counts exchanges.
    version: AtomicU64,
    /// `None`: nothing is known yet.
    set: ArcSwapOption<Targets>,
}

/// What an upstream's endpoints come to.
#[derive(Debug)]
pub(crate) struct Targets(pub(crate) Arc<[Target]>);

impl From<&wire::EndpointSet> for Targets {
    /// The control plane has checked them with the same code: what this version cannot read is left out.
    fn from(set: &wire::EndpointSet) -> Self {
        let target = |endpoint: &wire::Endpoint| {
            let host = discovery::address(&endpoint.address)
                .inspect_err(|why| tracing::warn!(upstream = set.upstream, why, "an endpoint cannot be used"))
                .ok()?;
            Some(Target { host, weight: u16::try_from(endpoint.weight).unwrap_or(u16::MAX) })
        };
        Targets(set.endpoints.iter().filter_map(target).collect())
    }
}

impl Discovered {
    /// The place of an upstream, made when it has none.
    pub(crate) fn place(&self, upstream: &Arc<str>) -> Arc<Place> {
        Arc::clone(self.places().entry(Arc::clone(upstream)).or_default())
    }

    /// Takes the places of other upstreams away.
    pub(crate) fn retain(&self, is_kept: impl Fn(&str) -> bool) {
        self.places().retain(|name, _| is_kept(name));
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Place>>> {
        // Nothing under this lock can leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Exchanges the set.
    pub(crate) fn set(&self, targets: Targets) {
        self.set.store(Some(Arc::new(targets)));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The set.
    pub(crate) fn get(&self) -> Option<Arc<Targets>> {
        self.set.load_full()
    }

    /// How often it was exchanged. Taken before the set it says at least how old that is.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}
