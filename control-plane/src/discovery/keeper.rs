//! Keeps the last set of every upstream in the store, so that a control plane that starts while a source is away does not
//! forget. Written when something has changed, but not more often than every 30 s, and once more at the end. Replicas
//! write the same; where they differ the last counts. No revision, and nothing that data planes wait for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gateway_proto::digest::ItemHash;
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
    let mut written = Written::new();
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
async fn write(discovery: &Discovery, store: &dyn Store, written: &mut Written) -> Result<bool, StoreError> {
    let (changed, now) = look(discovery, written);
    let gone = written.keys().filter(|upstream| !now.contains_key(*upstream)).map(ToString::to_string);
    let gone: Vec<String> = gone.collect();
    let puts: Vec<KeptEndpoints> = changed
        .into_iter()
        .map(|(upstream, query, found)| kept(&upstream, &query, &board::set(&upstream, &query, &found)))
        .collect();
    let is_other = !puts.is_empty() || !gone.is_empty();
    if is_other {
        store.keep_endpoints(puts, gone).await?;
    }
    *written = now;
    Ok(is_other)
}

type Written = BTreeMap<Arc<str>, (Query, ItemHash)>;

/// What is not as it was written, and what there is. Encoded later: everybody waits for the desk.
fn look(discovery: &Discovery, written: &Written) -> (Vec<(Arc<str>, Query, Found)>, Written) {
    let (mut changed, mut now) = (Vec::new(), BTreeMap::new());
    let desk = discovery.desk();
    for (upstream, entry) in desk.lines() {
        let (Some(served), Some(hash)) = (entry.line.served(), desk.hash_of(upstream)) else { continue };
        let state = (entry.line.found_by().clone(), hash);
        if written.get(upstream) != Some(&state) {
            changed.push((Arc::clone(upstream), state.0.clone(), served.clone()));
        }
        now.insert(Arc::clone(upstream), state);
    }
    (changed, now)
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
    Found {
        index: set.source_index,
        instances: set.endpoints.into_iter().map(instance).collect(),
        is_doubtful: false,
    }
}
