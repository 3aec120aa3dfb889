//! Keeps the last set of every upstream in the store, so that a control plane that starts while a source is away does not
//! forget. Written when something has changed, but not more often than every 30 s, and once more at the end. Replicas
//! write the same; where they differ the last counts. No revision, and nothing that data planes wait for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gateway_proto::digest::ItemHash;
use gateway_proto::endpoints::hash_of_set;
use gateway_proto::wire;
use prost::Message as _;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Discovery;
use super::board;
use super::line::{Found, Query};
use super::source::Instance;
use crate::store::{KeptEndpoints, Store, StoreError};

/// Between two writes.
const EVERY: Duration = Duration::from_secs(30);
/// After one that failed.
const AGAIN: Duration = Duration::from_secs(5);

/// What was served last, by upstream. What this version cannot read is passed over.
pub(super) async fn load(store: &dyn Store) -> Result<HashMap<Arc<str>, (Query, Found)>, StoreError> {
    let read = |kept: KeptEndpoints| {
        let query = wire::UpstreamDiscovery::decode(&*kept.query).ok()?;
        let set = wire::EndpointSet::decode(&*kept.body).ok()?;
        let query = Query {
            source: query.source.into(),
            service: query.service.into(),
            tags: query.tags.into_iter().map(Box::from).collect(),
        };
        Some((Arc::from(kept.upstream), (query, found(set))))
    };
    Ok(store.endpoints().await?.into_iter().filter_map(read).collect())
}

/// Writes until cancelled, and then once more.
pub(super) async fn run(discovery: Arc<Discovery>, store: Arc<dyn Store>, stop: CancellationToken) {
    let mut boards = discovery.watch();
    let mut written: BTreeMap<Arc<str>, (Query, ItemHash)> = BTreeMap::new();
    let mut is_failing = false;
    loop {
        let stopped = tokio::select! {
            () = stop.cancelled() => true,
            changed = boards.changed() => changed.is_err(),
        };
        let pause = match write(&discovery, &*store, &mut written).await {
            Ok(wrote) => {
                is_failing = false;
                if wrote { EVERY } else { Duration::ZERO }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!(%error, "cannot keep discovered endpoints: a control plane that starts now would know older ones");
                }
                boards.mark_changed();
                AGAIN
            }
        };
        if stopped {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(pause) => {}
        }
    }
}

/// Whether there was anything to write.
async fn write(
    discovery: &Discovery,
    store: &dyn Store,
    written: &mut BTreeMap<Arc<str>, (Query, ItemHash)>,
) -> Result<bool, StoreError> {
    let (mut puts, mut now) = (Vec::new(), BTreeMap::new());
    let gone: Vec<String> = {
        let desk = discovery.desk();
        for (upstream, entry) in desk.lines() {
            let Some(served) = entry.line.served() else { continue };
            let query = entry.line.query();
            let set = board::set(upstream, query, served);
            let state = (query.clone(), hash_of_set(&set));
            if written.get(upstream) != Some(&state) {
                puts.push(kept(upstream, query, &set));
            }
            now.insert(Arc::clone(upstream), state);
        }
        let is_gone = |upstream: &&Arc<str>| !desk.lines().contains_key(*upstream);
        written.keys().filter(is_gone).map(ToString::to_string).collect()
    };
    let is_other = !puts.is_empty() || !gone.is_empty();
    if is_other {
        store.keep_endpoints(puts, gone).await?;
    }
    *written = now;
    Ok(is_other)
}

fn kept(upstream: &str, query: &Query, set: &wire::EndpointSet) -> KeptEndpoints {
    let query = wire::UpstreamDiscovery {
        source: query.source.to_string(),
        service: query.service.to_string(),
        tags: query.tags.iter().map(ToString::to_string).collect(),
    };
    KeptEndpoints { upstream: upstream.to_owned(), query: query.encode_to_vec(), body: set.encode_to_vec() }
}

fn found(set: wire::EndpointSet) -> Found {
    let instance = |it: wire::Endpoint| Instance {
        address: it.address,
        weight: u16::try_from(it.weight).unwrap_or(u16::MAX),
        zone: it.zone,
        tags: Vec::new(),
    };
    Found { index: set.source_index, instances: set.endpoints.into_iter().map(instance).collect() }
}
