//! What the admin API says of sources: of this replica, which reads for itself.

use gateway_proto::admin::{DiscoveredState, DiscoveredUpstream, DiscoverySourceStatus};
use gateway_proto::kind::{Key, Kind};
use gateway_proto::wire::source_state::Value as State;
use jiff::Timestamp;

use super::Discovery;
use super::desk::{Desk, Known};
use crate::telemetry::SourceSeen;

/// Upstreams of a source that are shown.
const MAX_SHOWN: usize = 1_000;

impl Discovery {
    /// Figures of every source.
    pub fn seen(&self, mut tell: impl FnMut(SourceSeen<'_>)) {
        for (name, known) in self.desk().sources() {
            tell(SourceSeen {
                name,
                synced: known.state == State::Synced,
                endpoints: endpoints(known),
                errors: known.errors,
                read_at: known.read_at,
                changed_at: known.changed_at,
            });
        }
    }

    /// Every source that the caller may see, by name; upstreams likewise.
    pub fn statuses(&self, sees: impl Fn(&str) -> bool) -> Vec<DiscoverySourceStatus> {
        let desk = self.desk();
        let sources = desk.sources().iter().filter(|(name, _)| sees(namespace(name)));
        sources.map(|(name, known)| status(&desk, name, known, &sees)).collect()
    }

    /// One source.
    pub fn status(&self, name: &str, sees: impl Fn(&str) -> bool) -> Option<DiscoverySourceStatus> {
        let desk = self.desk();
        desk.sources().get(name).map(|known| status(&desk, name, known, &sees))
    }
}

fn namespace(qualified: &str) -> &str {
    qualified.split_once('/').map_or("", |(namespace, _)| namespace)
}

fn status(desk: &Desk, name: &str, known: &Known, sees: &dyn Fn(&str) -> bool) -> DiscoverySourceStatus {
    let (namespace_of, short) = name.split_once('/').unwrap_or_default();
    let shown = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let reading = known.reading.as_ref();
    let visible = known.upstreams.iter().filter(|upstream| sees(namespace(upstream)));
    DiscoverySourceStatus {
        object: Key::new(Kind::DiscoverySource, namespace_of, short),
        state: known.state.as_str_name().to_owned(),
        error: known.fault.clone(),
        errors: known.errors,
        read_at: shown(known.read_at),
        changed_at: shown(known.changed_at),
        index: reading.map_or(0, |reading| reading.index),
        services: reading.map_or(0, |reading| reading.services.len() as u64),
        endpoints: endpoints(known),
        faults: reading.map(|reading| reading.faults.clone()).unwrap_or_default(),
        upstreams: visible.take(MAX_SHOWN).filter_map(|upstream| discovered(desk, upstream)).collect(),
    }
}

/// Instances that a source tells of.
fn endpoints(known: &Known) -> u64 {
    let services = known.reading.iter().flat_map(|reading| reading.services.values());
    services.map(|instances| instances.len() as u64).sum()
}

fn discovered(desk: &Desk, upstream: &str) -> Option<DiscoveredUpstream> {
    let entry = desk.lines().get(upstream)?;
    let served = entry.line.served();
    let state = match (served, entry.line.is_held()) {
        (_, true) => DiscoveredState::Held,
        (None, false) => DiscoveredState::Unknown,
        (Some(_), false) => DiscoveredState::Served,
    };
    Some(DiscoveredUpstream {
        upstream: upstream.to_owned(),
        service: entry.line.query().service.to_string(),
        endpoints: served.map_or(0, |found| found.instances.len() as u64),
        state,
        changed_at: entry.changed_at.map(|at| at.to_string()),
    })
}
